"""Splits of arrays; the batch of step n as a pure function of (key, n): no iterator, no state.

Shapes: N examples of a split, B of a batch.
"""

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.config import full_batches
from jaxdl.data.records import Records
from jaxdl.data.spec import DataSpec
from jaxdl.errors import UserError

Split = dict[str, Any]  # arrays with a leading axis N
POOL = 64  # batches whose examples are sorted by length, where examples have one


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Three splits and their description.

    A split {} has no data: a task that makes its own, such as an agent in an environment.
    """

    spec: DataSpec
    train: Split
    validation: Split  # chooses the best checkpoint
    test: Split  # is for the final report


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Windows:
    """Overlapping windows of one array, a column of a split: [M, T, ...], made when indexed."""

    array: Any  # [N, ...]
    start: Any  # int32 [M], the first position of each window
    length: int = dataclasses.field(metadata={"static": True})  # T

    @property
    def shape(self) -> tuple[int, ...]:
        """[M, T, ...]."""
        return (*self.start.shape, self.length, *self.array.shape[1:])

    @property
    def dtype(self) -> Any:
        """Type of the entries."""
        return self.array.dtype

    @property
    def nbytes(self) -> int:
        """Bytes that are kept, not those of all windows."""
        return int(self.array.nbytes + self.start.nbytes)

    def __len__(self) -> int:
        return int(self.start.shape[0])

    def __getitem__(self, rows: Any) -> Any:
        """The windows of rows [B] of M, or of a slice of them."""
        start = self.start[rows]
        offsets = np.arange(self.length, dtype=np.int32)
        return self.array[start[..., None] + offsets[(None,) * start.ndim]]


def windows(array: np.ndarray, start: np.ndarray, length: int) -> Windows:
    """Windows of `length` positions, from each of `start` [M] on."""
    return Windows(array, start.astype(np.int32), length)


def size(split: Split) -> int:
    """N; 0 of a split without data."""
    return len(next(iter(split.values()))) if split else 0


def split_validation(
    train: Split,
    fraction: float,
    labels: np.ndarray | None = None,
    flag: str = "--validation_fraction",
) -> tuple[Split, Split]:
    """Splits a training split into training and validation, the same way every time.

    Args:
      train: what to split, N examples.
      fraction: of its examples that are held out.
      labels: int [N]; where they are classes, each keeps its share: the numbers held out are those
        of the largest remainders.
      flag: what the user knows it by.

    Raises:
      UserError: one of the two would be empty.
    """
    held_out = round(size(train) * fraction)
    if not 0 < held_out < size(train):
        raise UserError(
            f"{flag}={fraction} of {size(train)} training examples leaves a split empty: give one "
            "between 0 and 1 that leaves both at least one example"
        )
    # RandomState's streams are frozen for good (NEP 19); default_rng's may change.
    order = np.random.RandomState(0).permutation(size(train))
    if labels is not None:
        order = order[_stratified(labels[order], held_out)]
    kept, held = np.sort(order[held_out:]), np.sort(order[:held_out])
    return part(train, kept), part(train, held)


def _stratified(labels: np.ndarray, first: int) -> np.ndarray:
    """An order [N] in which the first ones of each class [N] come first, by largest remainder."""
    _, labels, counts = np.unique(labels, return_inverse=True, return_counts=True)
    wanted, remainders = np.divmod(counts.astype(np.int64) * first, len(labels))
    wanted[np.argsort(-remainders, kind="stable")[: first - wanted.sum()]] += 1
    by_class = np.argsort(labels, kind="stable")
    places = np.empty_like(by_class)  # of each example among those of its class
    places[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.argsort(places >= wanted[labels], kind="stable")


def by_class(fingerprint: str) -> str:
    """The fingerprint of data that `split_validation` splits by their labels.

    Runs whose validation split was another one have another fingerprint, and are not mixed up.
    """
    return hashlib.sha256(f"{fingerprint}, validation by class".encode()).hexdigest()


def part(split: Split, rows: np.ndarray) -> Split:
    """The split of rows [M] of N; of one that is not in memory, nothing is read yet."""
    if isinstance(split, Records):
        return split.of(rows)
    return {name: array[rows] for name, array in split.items()}


def read(split: Split, rows: np.ndarray) -> dict[str, Any]:
    """The arrays of rows [M] of N: [M, ...] each."""
    if isinstance(split, Records):
        return split.read(rows)
    return {name: array[rows] for name, array in split.items()}


def epoch_order(
    key: jax.Array,
    epoch: int | jax.Array,
    examples: int,
    batch_size: int,
    lengths: jax.Array | None = None,
) -> jax.Array:
    """The order in which an epoch visits its examples, the one law of all feeds: int32 [N].

    Args:
      key: of all epochs.
      epoch: its number.
      examples: N.
      batch_size: B; batch n of the epoch holds the rows n B to (n + 1) B of the order.
      lengths: [N], of sequences; then a batch holds examples of like length.
    """
    if lengths is None:
        return jax.random.permutation(jax.random.fold_in(key, epoch), examples)
    return bucket_by_length(key, epoch, lengths, batch_size)


def bucket_by_length(
    key: jax.Array, epoch: int | jax.Array, lengths: jax.Array, batch_size: int
) -> jax.Array:
    """The order of an epoch whose batches hold examples of like length: int32 [N].

    Examples are shuffled, those of each `POOL` batches sorted by their length, and then whole
    batches shuffled. What is left over at the end fills no batch, and is drawn in other epochs.

    Args:
      key: of all epochs.
      epoch: its number.
      lengths: [N], of the examples.
      batch_size: B.
    """
    order = jax.random.permutation(jax.random.fold_in(key, epoch), len(lengths))
    count = full_batches(len(lengths), batch_size)
    full, rest = order[: count * batch_size], order[count * batch_size :]
    pool = jnp.arange(len(full)) // (POOL * batch_size)
    batches = full[jnp.lexsort((lengths[full], pool))].reshape(count, batch_size)
    turns = jax.random.permutation(jax.random.fold_in(jax.random.fold_in(key, epoch), 1), count)
    return jnp.concatenate([batches[turns].reshape(-1), rest])


def take(
    split: Split,
    order: jax.Array,
    position: int | jax.Array,
    batch_size: int,
    sharding: jax.sharding.Sharding | None = None,
) -> Split:
    """Batch number `position` of the epoch whose order is `order`: its `index`, a mask of ones.

    With a sharding each device takes the rows that it holds, of a split that is whole on each.
    """
    rows = jax.lax.dynamic_slice(order, (position * batch_size,), (batch_size,))
    if sharding is not None:  # else devices would gather parts of all rows, and add them up
        rows = jax.lax.with_sharding_constraint(rows, sharding)
    batch = {name: jax.tree.map(jnp.asarray, column)[rows] for name, column in split.items()}
    return batch | {"index": rows, "mask": jnp.ones((batch_size,), jnp.float32)}


def padded_batches(split: Split, batch_size: int) -> Iterator[Split]:
    """All examples in order, in batches of one shape: the last is padded, with `mask` 0 there.

    Padding repeats the first example, and its `index`.
    """
    for start in range(0, size(split), batch_size):
        rows = np.arange(start, start + batch_size)
        mask = (rows < size(split)).astype(np.float32)
        rows = np.where(mask > 0, rows, 0).astype(np.int32)
        yield read(split, rows) | {"index": rows, "mask": mask}
