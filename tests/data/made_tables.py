"""Tables of a user, made for tests."""

import numpy as np

from jaxdl.data import own_tables, table_files
from jaxdl.data.own_tables import Options
from jaxdl.data.table_files import Rejected

SPLITS = ("train", "validation", "test")
HEADER = "size,colour,price\n"


def rows(count, seed=0):
    """Lines of a table with numbers, categories and holes."""
    random = np.random.RandomState(seed)
    sizes = random.uniform(1, 9, count)
    colours = random.choice(["red", "blue", ""], count)
    return [
        f"{'NA' if n % 7 == 0 else f'{s:.3f}'},{c},{10 * s + (c == 'red'):.4f}"
        for n, (s, c) in enumerate(zip(sizes, colours, strict=True))
    ]


def save(folder, text, name="t.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def csv_table(text, skip=False, delimiter="comma"):
    content = text if isinstance(text, bytes) else text.encode()
    return table_files.read_csv("t.csv", content, delimiter, Rejected(skip))


def load(path, seed=0, **options):
    return own_tables.load(path, Options("price", **options), seed)


def values(data, split):
    """Rows of a split as tuples."""
    part = getattr(data, split)
    return list(map(tuple, np.column_stack([np.nan_to_num(part["x"], nan=-1), part["y"]])))
