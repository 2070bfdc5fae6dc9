"""Commands of `jaxdl`: list, evaluate, generate, predict, replay, verify and report."""
