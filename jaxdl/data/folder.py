"""A folder of image files, train/CLASS/*.jpg and test/CLASS/*.jpg, as TFDS's ImageFolder has it.

Images may lie in folders of a class, however deep. What is left out is counted, and said.

Shapes: N images of S by S pixels with 3 channels.
"""

import hashlib
import math
import os
from pathlib import Path

import numpy as np

from jaxdl import files, memory
from jaxdl.console import track
from jaxdl.data import pixels
from jaxdl.data.batches import Split
from jaxdl.errors import UserError, first_line, shortened

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
VALIDATION = ("validation", "val", "valid")  # names of that split's folder
MOST_LEVELS = 100  # of folders in a class


class ImageFolder:
    """Image files by split and class; nothing is decoded before `read`.

    Attributes:
      folder: that holds the splits.
      splits: names of the folders to train, to test and, if there is one, to validate on.
      classes: names of the training split's folders, in the order of their bytes.
    """

    def __init__(self, folder: Path):
        """Lists the files.

        Raises:
          UserError: there is no such folder, no training or test split in it, or no image in one of
            them, not two classes, a class that the training split lacks, or a broken link.
        """
        self.folder = folder
        self._left_out: dict[str, list[Path]] = {}  # by reason
        try:
            if not _is_folder(folder):
                raise UserError(
                    f"--dataset={folder} does not exist: give a folder that does (to a run whose "
                    "images were moved, `jaxdl evaluate RUN --dataset=./ELSEWHERE`)"
                )
            self.splits = self._find_splits()
            self._list_all()
        except OSError as error:
            raise _unreadable(error) from error

    def left_out(self) -> str:
        """One line about files in no split: counts by reason, first names; empty: none."""
        reasons = [
            f"{reason}: {len(paths):,} ({self._examples(paths)})"
            for reason, paths in self._left_out.items()
        ]
        return f"{self.folder}: left out: {'; '.join(reasons)}" if reasons else ""

    def _examples(self, paths: list[Path]) -> str:
        """Names of up to three paths, of which no two end alike."""
        kinds = {path.suffix.lower(): path for path in reversed(paths)}
        few = sorted(kinds.values())[:3]
        names = [shortened(path.relative_to(self.folder)) for path in few]
        return ", ".join([*names, *(["..."] if len(paths) > len(few) else [])])

    def fingerprint(self) -> str:
        """SHA-256 over the names and bytes of all files, wherever the folder itself is.

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
        source = self.source(name)
        shape = (len(source), image_size, image_size, 3)
        needed, installed = math.prod(shape), memory.installed()
        if needed > installed:  # NumPy would not mind before it is filled
            raise UserError(
                f"the {name} images of {self.folder} take {needed / 2**30:,.1f} GiB at "
                f"--image_size={image_size}, and this machine has {installed / 2**30:,.1f}: give a "
                "smaller size or fewer images"
            )
        image = np.empty(shape, np.uint8)
        for row in track(range(len(source)), f"decoding {self.folder.name} {name}"):
            image[row] = pixels.resize(source.read(row)[0], image_size)
        return {"image": image, "label": source.labels()}

    def source(self, name: str) -> "Files":
        """A split's files, to be read one by one."""
        return Files(self._files[name])

    def _find_splits(self) -> tuple[str, ...]:
        """The folders to train on, to test on and, where there are three, to validate on."""
        folder = self.folder
        entries = [path for path in _sorted(folder) if not path.name.startswith(".")]
        names = [path.name for path in entries if _is_folder(path)]
        validation = [name for name in VALIDATION if name in names]
        if validation[1:]:
            raise UserError(
                f"--dataset={folder} has {' and '.join(f'{name}/' for name in validation)}, which "
                "both mean validation: keep one of them"
            )
        used = ("train", *(["test"] if "test" in names else []), *validation)
        if "train" not in names or len(used) < 2:
            raise UserError(
                f"--dataset={folder} has no train/CLASS/*.jpg beside test/ (or validation/, val/): "
                "give a folder that has both"
            )
        for path in entries:
            if path.name in names and path.name not in used:
                self._leave_out(path, "folders that are no split")
            elif path.suffix.lower() in ENDINGS:
                self._leave_out(path, "images in no split")
        return used

    def _list_all(self) -> None:
        trained = self._images("train")
        self.classes = tuple(trained)
        self._files: dict[str, list[tuple[Path, int]]] = {}
        for split in self.splits:
            found = trained if split == "train" else self._images(split)
            for name in found:
                if name not in trained:
                    raise UserError(
                        f"{self.folder / split / name} is a class that {self.folder}/train lacks: "
                        "delete one or add the other"
                    )
            if not found:
                raise UserError(
                    f"{self.folder / split} holds no CLASS/*.jpg or *.png: put images there, or "
                    "give another --dataset"
                )
            self._files[split] = [
                (path, self.classes.index(name)) for name, paths in found.items() for path in paths
            ]
        if len(self.classes) < 2:
            raise UserError(
                f"{self.folder}/train has images of one class alone ({self.classes[0]}): add "
                "another"
            )

    def _images(self, split: str) -> dict[str, list[Path]]:
        """The image files of a split by class, without classes that have none."""
        found = {}
        for path in _sorted(self.folder / split):
            if self._is_hidden(path):
                continue
            if not _is_folder(path):
                kind = "images" if path.suffix.lower() in ENDINGS else "files"
                self._leave_out(path, f"{kind} in no class")
                continue
            before = sum(map(len, self._left_out.values()))
            images = self._walk(path)
            if images:
                found[path.name] = images
            elif before == sum(map(len, self._left_out.values())):
                self._leave_out(path, "empty folders of classes")
        return found

    def _walk(self, folder: Path) -> list[Path]:
        """The image files below the folder of a class, through links, each folder once."""
        found: list[Path] = []
        seen: set[tuple[int, int]] = set()  # else links in a circle would have no end
        root, own = self.folder.resolve(), folder.resolve()
        waiting = [folder]
        while waiting:
            here = waiting.pop()
            status = here.stat()
            if (status.st_dev, status.st_ino) in seen:
                self._leave_out(here, "folders that a class has twice, by links")
                continue
            seen.add((status.st_dev, status.st_ino))
            real = here.resolve()
            if real.is_relative_to(root) and not real.is_relative_to(own):
                self._leave_out(here, "links to other folders of the data set")
                continue
            inner = []
            for path in _sorted(here):
                if self._is_hidden(path):
                    continue
                if path.suffix.lower() in ENDINGS:  # what is none is refused when it is read
                    found.append(path)
                elif not _is_folder(path):
                    self._leave_out(path, f"files that are not named {', '.join(ENDINGS)}")
                elif len(path.relative_to(folder).parts) > MOST_LEVELS:
                    self._leave_out(path, f"folders more than {MOST_LEVELS} levels deep")
                else:
                    inner.append(path)
            waiting += reversed(inner)
        return found

    def _is_hidden(self, path: Path) -> bool:
        """Leaves out what some program keeps for itself; only images and folders need a word."""
        if not path.name.startswith("."):
            return False
        if path.suffix.lower() in ENDINGS or path.is_dir():
            self._leave_out(path, "hidden files or folders")
        return True

    def _leave_out(self, path: Path, reason: str) -> None:
        self._left_out.setdefault(reason, []).append(path)


class Files:
    """Image files and their labels."""

    def __init__(self, files: list[tuple[Path, int]]):
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def labels(self) -> np.ndarray:
        """The labels of all: int32 [N]."""
        return np.asarray([label for _, label in self._files], np.int32)

    def read(self, row: int) -> tuple[np.ndarray, int]:
        """Decodes a file: uint8 [H, W, 3], and its label.

        Raises:
          UserError: it is no image.
        """
        path, label = self._files[row]
        try:
            return pixels.read(path), label
        except OSError as error:
            if error.filename is None:  # Pillow's own
                raise _no_image(path, error) from error
            raise _unreadable(error) from error
        except Exception as error:  # decoders raise whatever a damaged byte leads them to
            raise _no_image(path, error) from error


def _no_image(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path} is not an image that can be read ({first_line(error)}): mend or delete it"
    )


def _unreadable(error: OSError) -> UserError:
    way_out = "let this user read it" if isinstance(error, PermissionError) else "mend or delete it"
    return UserError(
        f"cannot read {error.filename} ({error.strerror}): {way_out}, or give another --dataset"
    )


def _is_folder(path: Path) -> bool:
    """True of a folder, and of a link to one.

    Raises:
      OSError: it cannot be looked at, or is a link to nothing.
    """
    try:
        path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            raise
        return False
    return path.is_dir()


def _sorted(folder: Path) -> list[Path]:
    """Entries of a folder, sorted by the bytes of their names: the same in every locale."""
    return sorted(folder.iterdir(), key=lambda path: os.fsencode(path.name))
