"""Images of one's own by path: image folders, folders with a file of labels, .npz files, Arrow."""

from pathlib import Path

from jaxdl.config import absolute
from jaxdl.data.folder import ImageFolder, unreadable
from jaxdl.data.readers import Opened
from jaxdl.errors import UserError


def open_path(name: str) -> Opened:
    """Opens images of one's own; nothing is decoded yet.

    Args:
      name: path of a .npz file (see `npz.open_images`), or of a folder: with a `labels.csv` (see
        `label_file.open_images`), of parquet or Arrow files (see `arrow.open_images`), or with
        train/CLASS/*.jpg (see `ImageFolder`).

    Raises:
      UserError: there is nothing of this kind at the path, or it is damaged.
    """
    from jaxdl.data import arrow, label_file, npz

    path = Path(absolute(name, "dataset"))
    try:
        if path.is_file():
            if path.suffix.lower() == ".npz":
                return npz.open_images(path)
            raise UserError(
                f"--dataset={path} is a file, but no .npz: give a .npz file of arrays, or a folder "
                "of images"
            )
        if (path / label_file.NAME).is_file():
            return label_file.open_images(path)
        if path.is_dir() and arrow.is_folder(path):
            return arrow.open_images(path)
    except OSError as error:
        raise unreadable(error) from error
    return _image_folder(path)


def _image_folder(path: Path) -> Opened:
    """Opens a folder of train/CLASS/*.jpg and test/CLASS/*.jpg."""
    folder = ImageFolder(path)
    test, *validation = folder.splits[1:]
    names = dict(zip(("train", "test", "validation"), folder.splits, strict=False))
    part = f"{validation[0]}/ to validate" if validation else "validation drawn from train/"
    return Opened(
        f"{path.name}",
        folder.fingerprint(),
        f"folder {path}, {part}, {test}/ to test",
        {split: folder.source(directory) for split, directory in names.items()},
        folder.classes,
        folder.left_out(),
    )
