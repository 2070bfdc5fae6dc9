"""The register of malicious data folders, and the things that may stand in the place of a file.

A case is a function that fills the folder `data` in the working directory and returns the flags to
run.
"""

import os
import socket

TFDS = ["--dataset=pictures", "--data_dir=data"]
FOLDER = ["--dataset=./data"]
EVIL = "data.payload.evil.Feature"
SECRET = "secret-outside"  # a folder beside `data` that no case may open
CASES = {}


def case(make):
    """Adds a function as a case, whose name is that of the function."""
    CASES[make.__name__.replace("_", " ")] = make
    return make


def cases(table):
    """Adds a case for each name and argument of a function in `table`."""

    def register(make):
        for name, value in table.items():
            CASES[name] = lambda data, value=value: make(data, value)
        return make

    return register


def put_pipe(path):
    os.mkfifo(path)


def put_folder(path):
    path.mkdir()


def put_device(path):
    path.symlink_to("/dev/zero")


def put_loop(path):
    path.symlink_to(path.name)


def put_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        parent = os.open(path.parent, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{parent}/{path.name}")
        os.close(parent)


def put_nothing(path):
    path.symlink_to("nothing")


PUTS = {
    "a pipe": put_pipe, "a folder": put_folder, "a device": put_device, "a loop": put_loop,
    "a socket": put_socket, "a link to nothing": put_nothing,
}  # fmt: skip
