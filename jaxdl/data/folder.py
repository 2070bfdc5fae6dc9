"""A folder of image files, train/CLASS/*.jpg and test/CLASS/*.jpg, as TFDS's ImageFolder has it.

Shapes: N images of S by S pixels with 3 channels.
"""

import hashlib
import math
import os
from pathlib import Path

import numpy as np

from jaxdl import files, memory
from jaxdl.data import pixels
from jaxdl.data.batches import Split
from jaxdl.errors import UserError, first_line
from jaxdl.progress import track

ENDINGS = (".jpg", ".jpeg", ".png", ".webp")


class ImageFolder:
    """Image files by split and class; nothing is decoded before `read`."""

    def __init__(self, folder: Path):
        """Lists the files.

        Raises:
          UserError: there is no such folder, no training or test split in it, or no image in one of
            them, or not two classes.
        """
        self.folder = folder
        if not folder.is_dir():
            raise UserError(f"--dataset={folder} does not exist: give a folder that does")
        try:
            self._list_all()
        except OSError as error:
            raise _unreadable(error) from error

    def _list_all(self) -> None:
        folder = self.folder
        names = [
            name for name in ("train", "test", "validation", "val") if (folder / name).is_dir()
        ]
        if names[:1] != ["train"] or len(names) < 2:
            raise UserError(
                f"--dataset={folder} has no train/CLASS/*.jpg beside test/ (or validation/, val/): "
                "give a folder that has both"
            )
        self.splits = ("train", names[1])
        self.classes = sorted(path.name for path in _folders(folder / "train") if _images(path))
        self._files = {name: self._list(name) for name in self.splits}
        if len(self.classes) < 2:
            raise UserError(
                f"{folder}/train has images of one class alone ({self.classes[0]}): add another"
            )

    def fingerprint(self) -> str:
        """SHA-256 over the names and bytes of all files.

        Raises:
          UserError: one is not a regular file, or cannot be read.
        """
        sha = hashlib.sha256()
        try:
            for path, _ in (file for name in self.splits for file in self._files[name]):
                sha.update(os.fsencode(path.relative_to(self.folder)))
                sha.update(files.sha256(path).digest())
        except OSError as error:
            raise _unreadable(error) from error
        return sha.hexdigest()

    def read(self, name: str, image_size: int) -> Split:
        """Decodes a split: {"image": uint8 [N, S, S, 3], "label": int32 [N]}.

        Raises:
          UserError: a file is no image, or all of them together are more than the memory holds.
        """
        listed = self._files[name]
        shape = (len(listed), image_size, image_size, 3)
        needed, installed = math.prod(shape), memory.installed()
        if needed > installed:  # NumPy would not mind before it is filled
            raise UserError(
                f"the {name} images of {self.folder} take {needed / 2**30:,.1f} GiB at "
                f"--image_size={image_size}, and this machine has {installed / 2**30:,.1f}: give a "
                "smaller size or fewer images"
            )
        image = np.empty(shape, np.uint8)
        source = self.source(name)
        for row in track(range(len(listed)), f"decoding {self.folder.name} {name}"):
            image[row] = pixels.resize(source.read(row)[0], image_size)
        return {"image": image, "label": np.asarray([label for _, label in listed], np.int32)}

    def source(self, name: str) -> "Files":
        """A split's files, to be read one by one."""
        return Files(self._files[name])

    def _list(self, name: str) -> list[tuple[Path, int]]:
        found = []
        for path in _folders(self.folder / name):
            images = _images(path)
            if images and path.name not in self.classes:
                raise UserError(
                    f"{path} is a class that {self.folder}/train lacks: delete one or add the other"
                )
            found += [(file, self.classes.index(path.name)) for file in images]
        if not found:
            raise UserError(
                f"{self.folder / name} holds no CLASS/*.jpg or *.png: put images there, or give "
                "another --dataset"
            )
        return found


class Files:
    """Image files and their labels."""

    def __init__(self, files: list[tuple[Path, int]]):
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def read(self, row: int) -> tuple[np.ndarray, int]:
        """Decodes a file: uint8 [H, W, 3], and its label.

        Raises:
          UserError: it is no image.
        """
        path, label = self._files[row]
        try:
            return pixels.read(path), label
        except Exception as error:  # decoders raise whatever a damaged byte leads them to
            raise UserError(
                f"{path} is not an image that can be read ({first_line(error)}): mend or delete it"
            ) from error


def _unreadable(error: OSError) -> UserError:
    return UserError(
        f"cannot read {error.filename} ({error.strerror}): mend or delete it, or give another "
        "--dataset"
    )


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    """The image files of a class; what begins with a dot is some program's own."""
    files = (p for p in folder.iterdir() if p.suffix.lower() in ENDINGS)
    return sorted(p for p in files if not p.name.startswith("."))
