"""Commands of `jaxdl`: list, evaluate, generate, replay, verify and report."""
