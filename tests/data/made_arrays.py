"""Arrays of a user, made for tests."""

import numpy as np

RANDOM = np.random.RandomState(0)
PIXELS = RANDOM.randint(0, 256, (60, 6, 5)).astype(np.uint8)
LABELS = np.arange(60) % 3
PARTS = ("train", "validation", "test")


def columns(made, name):
    return [getattr(made, split)[name] for split in PARTS]


class Examples:
    """A map-style data set of images as floats [C, H, W], as torchvision's ToTensor makes them."""

    classes = ("a", "b", "c")

    def __len__(self):
        return len(PIXELS)

    def __getitem__(self, row):
        return (PIXELS[row][None] / 255.0).astype(np.float32), int(LABELS[row])


class Columns:
    """A stand-in for a `datasets.Dataset`."""

    def __init__(self, **columns):
        self.columns, self.column_names = columns, list(columns)

    def select_columns(self, names):
        return Columns(**{name: self.columns[name] for name in names})

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, row):
        return {name: column[row] for name, column in self.columns.items()}
