"""Malicious images, records and file names, as cases of `hostile`."""

import io
import os
import pickle
import struct
import zlib

import numpy as np
from PIL import Image

from tests.data import folders
from tests.data.folders import example, png
from tests.data.hostile_cases import FOLDER, PUTS, TFDS, cases, put_folder, put_loop, put_pipe

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


@cases({
    f"{kind} as {name}": (put, name)
    for kind, put in PUTS.items()
    for name in ("features.json", "dataset_info.json", "pictures-train.array_record-00000-of-00001")
})  # fmt: skip
def _no_files(data, argument):
    put, name = argument
    path = folders.pictures(data) / name
    path.unlink()
    put(path)
    return TFDS


@cases(
    {
        f"{kind} as an image{', streamed' if flags else ''}": (put, flags)
        for kind, put in PUTS.items()
        if put is not put_folder  # a class folder may have folders of any name
        for flags in ([], ["--stream", "--workers=1"])
    }
)
def _no_images(data, argument):
    put, flags = argument
    path = folders.image_folder(data) / "train" / "bee" / "1.png"
    path.unlink()
    put(path)
    return [*FOLDER, *flags]


def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png_of(width, height, *chunks):
    """Returns a PNG whose header claims this size, with extra chunks and almost no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    pixels = chunk(b"IDAT", zlib.compress(bytes(100)))
    return start + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def saved(kind):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind)
    return file.getvalue()


def array():
    file = io.BytesIO()
    np.save(file, np.zeros((8, 8, 3), np.uint8))
    return file.getvalue()


class Evil:
    def __reduce__(self):
        return os.system, ("touch MARK",)


BOMB = zlib.compress(bytes(80 << 20), 9)  # 80 MB in 80 kB
WEBP = b"RIFF\x22\0\0\0WEBPVP8L\x15\0\0\0\x2f" + struct.pack("<I", 0x0FFFFFFF) + bytes(16)
IMAGES = {
    "PostScript": EPS,
    "PostScript after a JPEG's first bytes": b"\xff\xd8\xff" + EPS,
    "a drawing": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script/></svg>',
    "a pickle": pickle.dumps(Evil()),
    "an array": array(),
    "half a TIFF": saved("TIFF")[:-100],
    "a TGA": saved("TGA"),
    "a page": saved("PDF"),
    "an image of 13,000 by 13,000": png_of(13_000, 13_000),
    "an image of 2 billion by 2 billion": png_of(2**31 - 1, 2**31 - 1),
    "an image of no size": png_of(0, 0),
    "a GIF of 65,535 by 65,535": b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + b",",
    "a WebP of 16,384 by 16,384": WEBP,
    "a bomb of text": png_of(8, 8, chunk(b"zTXt", b"x\0\0" + BOMB)),
    "a bomb of international text": png_of(8, 8, chunk(b"iTXt", b"x\0\1\0\0\0" + BOMB)),
    "half an image": png()[:100],
    "nothing": b"",
    "noise": np.random.RandomState(0).bytes(5000),
}


@cases(
    {
        f"{name} as {kind}": (content, kind)
        for name, content in IMAGES.items()
        for kind in ("an image", "a record")
    }
    | {"PostScript, streamed": (EPS, "--stream"), "PostScript in a record, streamed": (EPS, "both")}
)
def _images(data, argument):
    content, kind = argument
    flags = [] if kind in ("an image", "a record") else ["--stream", "--workers=1"]
    if kind in ("an image", "--stream"):
        folders.image_folder(data)
        (data / "train" / "ant" / "0.png").unlink()
        (data / "train" / "ant" / "0.jpg").write_bytes(content)
        return [*FOLDER, *flags]
    records = [example(content, 0), *(example(png(seed=n), n % 2) for n in range(3))]
    folders.pictures(data, records)
    return [*TFDS, *flags]


@cases({
    "records of noise": [b"noise"] * 4,
    "records of nothing": [b""] * 4,
    "records without an image": [example(png())[:5]] * 4,
    "records of another class": [example(png(), 2)] * 4,
    "records of class minus one": [example(png(), -1)] * 4,
    "records of a large class": [example(png(), 2**62)] * 4,
})  # fmt: skip
def _records(data, records):
    folders.pictures(data, records)
    return TFDS


@cases({
    "a shard of noise": lambda b: np.random.RandomState(0).bytes(len(b)),
    "half a shard": lambda b: b[: len(b) // 2],
    "an empty shard": lambda b: b"",
    "a shard of zeros": lambda b: bytes(len(b)),
    "a shard with another byte": lambda b: b[:100] + bytes([b[100] ^ 1]) + b[101:],
})  # fmt: skip
def _shards(data, damage):
    path = folders.pictures(data) / "pictures-train.array_record-00000-of-00001"
    path.write_bytes(damage(path.read_bytes()))
    return TFDS


@cases({
    "an escape": "\x1b]0;evil\x07\x1b[2J.png", "two lines": "a\nerror: b.png",
    "no UTF-8": os.fsdecode(b"\xff\xfe.png"), "a mark of right to left": "\u202egnp.exe.png",
    "a colour of rich": "[red][link=x][@click=x].png",
})  # fmt: skip
def _file_names(data, name):
    (folders.image_folder(data) / "train" / "ant" / name).write_bytes(b"no image")
    return FOLDER


@cases({"a class with an escape": "\x1b[2J", "a class of no UTF-8": os.fsdecode(b"\xff")})
def _class_names(data, name):
    folders.image_folder(data)
    (data / "test" / name).mkdir()
    (data / "test" / name / "0.png").write_bytes(png())
    return FOLDER


@cases({"train is a pipe": "train", "test is a loop": "test"})
def _no_splits(data, name):
    folders.image_folder(data)
    (data / name).rename(data / "other")
    (put_pipe if name == "train" else put_loop)(data / name)
    return FOLDER
