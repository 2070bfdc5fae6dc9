"""Race test: pairs of processes prepare and load the same data set at once, from an empty folder.

    python -m tests.data.races --pairs=200

In every fourth round of the data sets one process of each pair is killed after a random time.
Prints each failure and the number of pairs with a failure.
"""

import argparse
import contextlib
import hashlib
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from jaxdl.data import images, prepare, tfds
from jaxdl.text import characters, reviews
from tests.data import official

FORK = multiprocessing.get_context("fork")  # TFDS is imported once, not by each process
SIZES = {"mnist": 28, "cifar10": 32}
NAMES = (*SIZES, "imdb_reviews", "tiny_shakespeare", "multi30k")
TOO_LONG = 120  # seconds


def main(arguments):
    """Runs the pairs; returns the number of pairs with a failure."""
    parser = argparse.ArgumentParser("python -m tests.data.races")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    tfds.folder("")  # imports TFDS
    rng = random.Random(options.seed)
    failures = []
    with tempfile.TemporaryDirectory() as root, served(Path(root) / "server") as sources:
        expected = {
            name: alone(name, sources[name], Path(root) / f"alone-{name}") for name in NAMES
        }
        for number in range(options.pairs):
            name = NAMES[number % len(NAMES)]
            kill_after = rng.uniform(0, 0.5) if number // len(NAMES) % 4 == 3 else None
            folder = Path(root) / f"{number}-{name}"
            for text in pair(name, sources[name], folder, expected[name], kill_after):
                failures.append(number)
                print(f"pair {number}, {name}: {text}", flush=True)
    failed = len(set(failures))
    print(f"{options.pairs} pairs, {failed} of them with a failure (seed {options.seed})")
    return failed


@contextlib.contextmanager
def served(folder):
    """Serves small archives on 127.0.0.1; yields the replacement for each data set's pins."""
    folder.mkdir()
    files = {
        "mnist": official.mnist_files(folder, 1500, 300)[0],
        "cifar10": official.cifar_file(folder, "cifar10", 100)[0],
        "imdb_reviews": official.reviews_file(folder, each=200),
        "tiny_shakespeare": official.plays_file(folder, 50_000),
    }
    texts = official.multi30k_files(folder, 20_000)
    server = official.Server(folder)
    process = FORK.Process(target=server.serve_forever, daemon=True)
    process.start()
    try:
        pins = {name: official.pins(f, server.url) for name, f in files.items()}
        yield pins | {"multi30k": (texts, server.url)}
    finally:
        process.terminate()
        server.server_close()


def alone(name, source, folder):
    """Returns the digest of the data of one process, and the digests of the files that it wrote."""
    outcome = FORK.Queue()
    process = start(name, source, folder, None, outcome)
    digest = outcome.get(timeout=TOO_LONG)
    process.join()
    assert not digest.startswith("error"), digest
    return digest, left(folder)


def pair(name, source, folder, expected, kill_after):
    """Runs two processes at once; yields a description of each fault.

    `kill_after` is the time in seconds after which the first process is killed, or None.
    """
    outcome, barrier = FORK.Queue(), FORK.Barrier(3)
    processes = [start(name, source, folder, barrier, outcome) for _ in range(2)]
    barrier.wait(TOO_LONG)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(processes[0].pid, signal.SIGKILL)
    for process in processes:
        process.join(TOO_LONG)
        if process.is_alive():
            process.kill()
            yield f"not done after {TOO_LONG} s"
    done = [process.exitcode == 0 for process in processes]
    digests = [outcome.get(timeout=10) for _ in range(sum(done))]
    if not done[1] or (kill_after is None and not done[0]):
        yield f"exit statuses {[process.exitcode for process in processes]}"
    for digest in digests:
        if digest.startswith("error"):
            yield digest
        elif digest != expected[0]:
            yield "other data than of a process alone"
    files, expected_files = left(folder), expected[1]
    for path in sorted(set(files) | set(expected_files)):
        if kill_after is not None and path.endswith((".lock", ".part")):
            continue  # left by the killed process; the next claim deletes it
        if path not in files:
            yield f"missing: {path}"
        elif path not in expected_files:
            yield f"left: {path}"
        elif files[path] != expected_files[path]:
            yield f"other: {path}"


def start(name, source, folder, barrier, outcome):
    """Starts a process that prepares and loads a data set as soon as the other one is ready."""
    process = FORK.Process(target=work, args=(name, source, folder, barrier, outcome))
    process.start()
    return process


def work(name, source, folder, barrier, outcome):
    """Puts the digest of the loaded data into `outcome`, or a line with the error."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    if name == "multi30k":
        prepare.MULTI30K, prepare.MULTI30K_URL = source
    tfds.downloads = lambda name: source
    try:
        if barrier:
            barrier.wait(TOO_LONG)
        prepare.prepare(name, str(folder / "data"))
        outcome.put(load(name, str(folder / "data")))
    except Exception as error:
        outcome.put(f"error: {type(error).__name__}: {error}"[:300])


def load(name, data_dir):
    """Returns the SHA-256 of a data set as it is used for training."""
    if name in SIZES:
        data = images.load(name, data_dir=data_dir, image_size=SIZES[name])
    elif name == "imdb_reviews":
        data = reviews.imdb(data_dir, 1000, 8, 0.1, widths=2)
    elif name == "tiny_shakespeare":
        data = characters.tiny_shakespeare(data_dir, 64)
        return hashlib.sha256(data.train["tokens"].array).hexdigest()
    else:
        folder = prepare.multi30k(data_dir)
        data = b"".join((folder / file).read_bytes() for file in prepare.MULTI30K)
        return hashlib.sha256(data).hexdigest()
    sha = hashlib.sha256(data.spec.fingerprint.encode())
    for split in (data.train, data.validation, data.test):
        for array in split.values():
            sha.update(np.ascontiguousarray(array))
    return sha.hexdigest()


def left(folder):
    """Returns the SHA-256 of each file in a folder.

    Cached .npz files contain dates, so that they count as empty and only their names matter.
    """
    digests = {}
    for path in folder.rglob("*"):
        if path.is_file():
            cached = path.suffix == ".npz"
            data = b"" if cached else path.read_bytes()
            digests[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return digests


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))
