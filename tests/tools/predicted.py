"""Trained models and calls of `predict` for tests."""

from jaxdl import cli
from jaxdl.__main__ import run as command
from jaxdl.export import input_files
from jaxdl.tools import predict as tool

HEADER = "petal length (cm),petal width (cm)"
SETOSA, OTHER = "1.4,0.2", "5.0,1.9"


def answered(model, *names, output=None, top_k=5, length=10):
    tool.predict(model, [*map(str, names)], top_k=top_k, length=length, output=output)


def status(*words):
    return cli.guard(lambda: command(["predict", *map(str, words)]))


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def values(path, takes):
    """Rows that are read from a table."""
    return [item.value["x"].tolist() for item in input_files.read([str(path)], takes)]
