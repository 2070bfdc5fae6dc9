"""The verbs of the `jaxdl` command."""
