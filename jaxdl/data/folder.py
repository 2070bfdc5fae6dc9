"""Image folders: train/CLASS/*.jpg and test/CLASS/*.jpg, the layout of TFDS's ImageFolder.

The folder of a class may have subfolders. Files that are left out are counted and reported.

Shapes: N images of H by W pixels with 3 channels.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl import files
from jaxdl.data import pixels
from jaxdl.errors import UserError, first_line, shortened

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
VALIDATION = ("validation", "val", "valid")  # possible names of the validation split's folder
MOST_LEVELS = 100  # limit on the depth of folders in a class


class ImageFolder:
    """Image files by split and class; nothing is decoded before `ImageFiles.read`.

    Attributes:
      folder: folder that holds the splits.
      splits: names of the training, the test and, if there is one, the validation folder.
      classes: names of the training split's folders, in the order of their bytes.
    """

    def __init__(self, folder: Path):
        """Lists the files of all splits.

        Args:
          folder: folder that holds the splits.

        Raises:
          UserError: the folder does not exist, lacks a training or test split, has a split without
            images, has fewer than two classes, has a class that the training split lacks, or has a
            broken link.
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
            raise unreadable(error) from error

    def left_out(self) -> str:
        """One line about the files that are left out: counts and examples by reason, or ""."""
        reasons = [
            f"{reason}: {len(paths):,} ({self._examples(paths)})"
            for reason, paths in self._left_out.items()
        ]
        return f"{self.folder}: left out: {'; '.join(reasons)}" if reasons else ""

    def _examples(self, paths: list[Path]) -> str:
        """Up to three of the paths, all with different suffixes."""
        by_suffix = {path.suffix.lower(): path for path in reversed(paths)}
        examples = sorted(by_suffix.values())[:3]
        names = [shortened(path.relative_to(self.folder)) for path in examples]
        if len(paths) > len(examples):
            names.append("...")
        return ", ".join(names)

    def fingerprint(self) -> str:
        """SHA-256 over the relative paths and the bytes of all files.

        Raises:
          UserError: a file is not a regular file, or cannot be read.
        """
        sha = hashlib.sha256()
        try:
            for path, _ in (file for name in self.splits for file in self._files[name]):
                sha.update(os.fsencode(path.relative_to(self.folder)))
                sha.update(files.sha256(path).digest())
        except OSError as error:
            raise unreadable(error) from error
        return sha.hexdigest()

    def source(self, name: str) -> "ImageFiles":
        """Returns the files of a split, to be read one by one."""
        paths = [path for path, _ in self._files[name]]
        return ImageFiles(paths, np.asarray([label for _, label in self._files[name]], np.int32))

    def _find_splits(self) -> tuple[str, ...]:
        """Names of the training, the test and, if there are three, the validation folder."""
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
                self._leave_out(path, "folders that are not splits")
            elif path.suffix.lower() in ENDINGS:
                self._leave_out(path, "images in no split")
        return used

    def _list_all(self) -> None:
        train_images = self._images("train")
        self.classes = tuple(train_images)
        self._files: dict[str, list[tuple[Path, int]]] = {}
        for split in self.splits:
            images = train_images if split == "train" else self._images(split)
            for name in images:
                if name not in train_images:
                    raise UserError(
                        f"{self.folder / split / name} is a class that {self.folder}/train lacks: "
                        "delete one or add the other"
                    )
            if not images:
                raise UserError(
                    f"{self.folder / split} holds no CLASS/*.jpg or *.png: put images there, or "
                    "give another --dataset"
                )
            self._files[split] = [
                (path, self.classes.index(name)) for name, paths in images.items() for path in paths
            ]
        if len(self.classes) < 2:
            raise UserError(
                f"{self.folder}/train has images of only one class ({self.classes[0]}): add another"
            )

    def _images(self, split: str) -> dict[str, list[Path]]:
        """Lists the image files of a split by class, without empty classes."""
        images_by_class = {}
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
                images_by_class[path.name] = images
            elif before == sum(map(len, self._left_out.values())):
                self._leave_out(path, "empty folders of classes")
        return images_by_class

    def _walk(self, folder: Path) -> list[Path]:
        """Lists the image files below the folder of a class; follows links, each folder once."""
        images: list[Path] = []
        seen: set[tuple[int, int]] = set()  # device and inode, against cycles of links
        root, class_root = self.folder.resolve(), folder.resolve()
        stack = [folder]
        while stack:
            current = stack.pop()
            status = current.stat()
            if (status.st_dev, status.st_ino) in seen:
                self._leave_out(current, "folders that a class has twice, by links")
                continue
            seen.add((status.st_dev, status.st_ino))
            target = current.resolve()
            if target.is_relative_to(root) and not target.is_relative_to(class_root):
                self._leave_out(current, "links to other folders of the data set")
                continue
            subfolders = []
            for path in _sorted(current):
                if self._is_hidden(path):
                    continue
                if path.suffix.lower() in ENDINGS and not path.is_dir():
                    images.append(path)  # `ImageFiles.read` refuses one that is no image
                elif not _is_folder(path):
                    self._leave_out(path, f"files that are not named {', '.join(ENDINGS)}")
                elif len(path.relative_to(folder).parts) > MOST_LEVELS:
                    self._leave_out(path, f"folders more than {MOST_LEVELS} levels deep")
                else:
                    subfolders.append(path)
            stack += reversed(subfolders)
        return images

    def _is_hidden(self, path: Path) -> bool:
        """Leaves out hidden files and folders; only images and folders are reported."""
        if not path.name.startswith("."):
            return False
        if path.suffix.lower() in ENDINGS or path.is_dir():
            self._leave_out(path, "hidden files or folders")
        return True

    def _leave_out(self, path: Path, reason: str) -> None:
        self._left_out.setdefault(reason, []).append(path)


class ImageFiles:
    """Image files and their labels."""

    def __init__(self, paths: list[Path], labels: np.ndarray):
        self._paths, self._labels = paths, labels

    def __len__(self) -> int:
        return len(self._paths)

    def labels(self) -> np.ndarray:
        """Labels of all files, int32 [N], or of another form, see `records.Reader`."""
        return self._labels

    def read(self, row: int) -> tuple[np.ndarray, Any]:
        """Decodes a file.

        Args:
          row: index of the file.

        Returns:
          The image, uint8 [H, W, 3], and its label.

        Raises:
          UserError: the file is not a valid image.
        """
        path = self._paths[row]
        try:
            return pixels.read(path), self._labels[row]
        except OSError as error:
            if error.filename is None:  # Pillow raised it
                raise _invalid_image(path, error) from error
            raise unreadable(error) from error
        except Exception as error:  # decoders may raise any error on damaged bytes
            raise _invalid_image(path, error) from error


def _invalid_image(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path} is not an image that can be read ({first_line(error)}): fix or delete it"
    )


def unreadable(error: OSError) -> UserError:
    """Returns the error for a file or folder that the system cannot read."""
    way_out = "let this user read it" if isinstance(error, PermissionError) else "fix or delete it"
    return UserError(
        f"cannot read {error.filename} ({error.strerror}): {way_out}, or give another --dataset"
    )


def _is_folder(path: Path) -> bool:
    """Returns True for a folder, and for a link to one.

    Raises:
      OSError: the path cannot be inspected, or is a broken link.
    """
    try:
        path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            raise
        return False
    return path.is_dir()


def _sorted(folder: Path) -> list[Path]:
    """Entries of a folder, sorted by the bytes of their names, which no locale changes."""
    return sorted(folder.iterdir(), key=lambda path: os.fsencode(path.name))
