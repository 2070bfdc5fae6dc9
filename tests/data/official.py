"""Small archives in the official formats, and a slow server for them."""

import functools
import gzip
import hashlib
import http.server
import io
import struct
import tarfile
import time

import numpy as np

from jaxdl.data import prepare

RANDOM = np.random.RandomState(0)


def idx_bytes(array):
    return gzip.compress(
        struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
    )


def mnist_files(folder, train=30, test=10):
    files, arrays = {}, {}
    for prefix, n in (("train", train), ("t10k", test)):
        image = RANDOM.randint(0, 256, (n, 28, 28)).astype(np.uint8)
        label = RANDOM.randint(0, 10, n).astype(np.uint8)
        for kind, array in (("images-idx3", image), ("labels-idx1", label)):
            path = folder / f"{prefix}-{kind}-ubyte.gz"
            path.write_bytes(idx_bytes(array))
            files[path.name] = path
            arrays[path.name] = array
    return files, arrays


def cifar_file(folder, name, records=6):
    fine = name == "cifar100"
    top = "cifar-100-binary" if fine else "cifar-10-batches-bin"
    parts = ["train.bin", "test.bin"] if fine else [f"data_batch_{i}.bin" for i in range(1, 6)]
    parts = parts if fine else [*parts, "test_batch.bin"]
    names = (
        {"coarse_label_names.txt": 20, "fine_label_names.txt": 100}
        if fine
        else {"batches.meta.txt": 10}
    )
    path, rows = folder / f"{name}.tar.gz", {}
    with tarfile.open(path, "w:gz") as tar:
        for part in parts:
            label = RANDOM.randint(0, 10, (records, 2 if fine else 1)).astype(np.uint8)
            image = RANDOM.randint(0, 256, (records, 3, 32, 32)).astype(np.uint8)
            rows[part] = (label, image)
            data = np.concatenate([label, image.reshape(records, -1)], 1).tobytes()
            add(tar, f"{top}/{part}", data)
        for text, n in names.items():
            add(tar, f"{top}/{text}", "".join(f"class_{i}\n" for i in range(n)).encode())
    return {path.name: path}, rows


def add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


KINDS = ("train/neg", "train/pos", "train/unsup", "test/neg", "test/pos")


def reviews_file(folder, kinds=KINDS, each=3):
    path = folder / "aclImdb_v1.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        add(tar, "aclImdb/README", b"what it is")
        add(tar, "aclImdb/train/urls_neg.txt", b"where it is from")
        for kind in kinds:
            for n in range(each):
                add(
                    tar,
                    f"aclImdb/{kind}/{n}_7.txt",
                    f"{kind[-3:]} caf\N{LATIN SMALL LETTER E WITH ACUTE} {n}".encode(),
                )
    return {path.name: path}


def plays_file(folder, lines=100):
    path = folder / "input.txt"
    path.write_text("".join(f"{n:03}\n" for n in range(lines)), encoding="utf-8")
    return {path.name: path}


def multi30k_files(folder, lines=50):
    """Writes gzipped texts like Multi30k's server; returns name -> (unpacked bytes, SHA-256)."""
    pinned = {}
    for number, name in enumerate(prepare.MULTI30K):
        text = f"line {number}\n".encode() * lines
        (folder / f"{name}.gz").write_bytes(gzip.compress(text))
        pinned[name] = (len(text), hashlib.sha256(text).hexdigest())
    return pinned


def pins(files, base):
    """Returns the pins of files below `base`, like `tfds.downloads`: URL -> (bytes, SHA-256)."""
    data = {f"{base}/{name}": path.read_bytes() for name, path in files.items()}
    return {url: (len(b), hashlib.sha256(b).hexdigest()) for url, b in data.items()}


class Slow(http.server.SimpleHTTPRequestHandler):
    """Handler that serves files in sixteen pieces with pauses, so that downloads overlap."""

    def copyfile(self, source, outputfile):
        data = source.read()
        for start in range(0, len(data), -(-len(data) // 16) or 1):
            outputfile.write(data[start : start + -(-len(data) // 16)])
            outputfile.flush()
            time.sleep(0.002)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    """Server of `Slow` on a free port of 127.0.0.1; ignores clients that are killed."""

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), functools.partial(Slow, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *args):
        pass
