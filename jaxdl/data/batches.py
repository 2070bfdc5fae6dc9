"""Splits of arrays, and the batch of a training step as a pure function of (key, step).

There is no iterator and no state: an epoch's order follows from the key and the epoch's number.

Shapes: N examples of a split, B of a batch.
"""

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.config import full_batches
from jaxdl.data.records import Records
from jaxdl.data.spec import DataSpec
from jaxdl.errors import UserError

Split = dict[str, Any]  # arrays with a leading axis N
POOL = 64  # number of batches whose examples are sorted by length together


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Three splits and their description.

    An empty split {} has no data: its task generates them, such as an agent in an environment.

    Attributes:
      spec: description of the data.
      train: split to train on.
      validation: split that chooses the best checkpoint.
      test: split for the final report.
    """

    spec: DataSpec
    train: Split
    validation: Split
    test: Split


class Balance(NamedTuple):
    """Classes of a split whose epochs draw all classes equally.

    Attributes:
      labels: classes of the examples, int32 [N].
      classes: the classes that have examples, int [P].
    """

    labels: Any
    classes: np.ndarray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Windows:
    """Overlapping windows of one array, a column of a split [M, T, ...], gathered when indexed.

    Attributes:
      array: array [N, ...] that the windows are cut from.
      start: first position of each window, int32 [M].
      length: number of positions of a window, T.
    """

    array: Any
    start: Any
    length: int = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the column, [M, T, ...]."""
        return (*self.start.shape, self.length, *self.array.shape[1:])

    @property
    def dtype(self) -> Any:
        """Type of the entries."""
        return self.array.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the array and of the starts; the windows themselves are not stored."""
        return int(self.array.nbytes + self.start.nbytes)

    def __len__(self) -> int:
        return int(self.start.shape[0])

    def __getitem__(self, rows: Any) -> Any:
        """Returns the windows of `rows`, which are integers [B] below M or a slice."""
        start = self.start[rows]
        offsets = np.arange(self.length, dtype=np.int32)
        return self.array[start[..., None] + offsets[(None,) * start.ndim]]


def windows(array: np.ndarray, start: np.ndarray, length: int) -> Windows:
    """Windows of `length` positions, one from each position in `start` [M].

    >>> windows(np.arange(10), np.array([0, 4]), 3)[np.array([1])]
    array([[4, 5, 6]])
    """
    return Windows(array, start.astype(np.int32), length)


def size(split: Split) -> int:
    """Number of examples of a split, N; 0 for a split without data."""
    return len(next(iter(split.values()))) if split else 0


def split_validation(
    train: Split,
    fraction: float,
    labels: np.ndarray | None = None,
    flag: str = "--validation_fraction",
) -> tuple[Split, Split]:
    """Splits a training split into training and validation, always in the same way.

    Args:
      train: split of N examples.
      fraction: fraction of the examples to hold out, between 0 and 1.
      labels: classes of the examples, int [N]; if given, the split is stratified: each class
        keeps its proportion, with counts rounded by the largest-remainder method.
      flag: flag that sets the fraction, for the error message.

    Returns:
      The training and the validation split, both in the original order.

    Raises:
      UserError: one of the two splits would be empty.
    """
    held_out = round(size(train) * fraction)
    if not 0 < held_out < size(train):
        raise UserError(
            f"{flag}={fraction} of {size(train)} training examples leaves a split empty: give one "
            "between 0 and 1 that leaves both at least one example"
        )
    kept_rows, held_out_rows = draw_rows(size(train), held_out, labels)
    return select(train, kept_rows), select(train, held_out_rows)


def draw_rows(
    count: int,
    held_out: int,
    labels: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the rows of a held-out split.

    Args:
      count: number of rows, N.
      held_out: number of rows to hold out; with groups, whole groups of about as many rows.
      labels: classes of the rows, int [N], whose proportions are kept; None: not stratified.
      groups: group of each row [N], which stays in one split; None: each row on its own.
      seed: seed of the draw.

    Returns:
      The rows that are kept and those that are held out, both ascending.
    """
    # RandomState's streams are frozen for good (NEP 19); default_rng's may change.
    random = np.random.RandomState(seed)
    if groups is not None:
        _, groups, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        drawn = random.permutation(len(sizes))
        ends = np.cumsum(sizes[drawn])
        is_held = np.isin(groups, drawn[: 1 + int(np.argmin(np.abs(ends[:-1] - held_out)))])
        return np.flatnonzero(~is_held), np.flatnonzero(is_held)
    order = random.permutation(count)
    if labels is not None:
        order = order[_stratified(labels[order], held_out)]
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def _stratified(labels: np.ndarray, held_out: int) -> np.ndarray:
    """An order [N] whose first `held_out` entries hold each class in proportion.

    The counts of the classes are rounded by the largest-remainder method.
    """
    _, labels, counts = np.unique(labels, return_inverse=True, return_counts=True)
    quotas, remainders = np.divmod(counts.astype(np.int64) * held_out, len(labels))
    quotas[np.argsort(-remainders, kind="stable")[: held_out - quotas.sum()]] += 1
    by_class = np.argsort(labels, kind="stable")
    ranks = np.empty_like(by_class)  # rank of each example within its class
    ranks[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.argsort(ranks >= quotas[labels], kind="stable")


def stratified_fingerprint(fingerprint: str) -> str:
    """Fingerprint of data whose validation split is stratified by label.

    It differs from the data's own fingerprint, so that runs with another validation split are
    not resumed with this one.
    """
    return hashlib.sha256(f"{fingerprint}, validation by class".encode()).hexdigest()


def select(split: Split, rows: np.ndarray) -> Split:
    """Selects rows [M] of a split; a split that is not in memory reads nothing yet."""
    if isinstance(split, Records):
        return split.of(rows)
    return {name: array[rows] for name, array in split.items()}


def read(split: Split, rows: np.ndarray) -> dict[str, Any]:
    """Reads rows [M] of a split into arrays [M, ...]."""
    if isinstance(split, Records):
        return split.read(rows)
    return {name: array[rows] for name, array in split.items()}


def epoch_order(
    key: jax.Array,
    epoch: int | jax.Array,
    examples: int,
    batch_size: int,
    lengths: jax.Array | None = None,
    balance: Balance | None = None,
) -> jax.Array:
    """Order in which an epoch visits its examples, shared by all feeds.

    Args:
      key: random key of all epochs.
      epoch: number of the epoch.
      examples: number of examples, N.
      batch_size: B; batch n of the epoch holds the rows n B to (n + 1) B of the order.
      lengths: lengths of the sequences, int [N]; if given, batches hold examples of similar
        length.
      balance: classes of the examples; if given, the epoch draws all classes equally, see
        `balanced_order`, in place of visiting each example once.

    Returns:
      The order, int32 [N].
    """
    order = jax.random.permutation(jax.random.fold_in(key, epoch), examples)
    if balance is not None:
        order = balanced_order(jax.random.fold_in(key, epoch), order, balance)
    return order if lengths is None else bucket_by_length(key, epoch, lengths, batch_size, order)


def balanced_order(key: jax.Array, order: jax.Array, balance: Balance) -> jax.Array:
    """Order of an epoch that draws all classes equally.

    Each P draws in a row have one example of each of the P classes, in a random order. The examples
    of a class are drawn in turn, in the order of the epoch's permutation, and again from the first
    one when all have been drawn. So an epoch still has N draws. It repeats the examples of a class
    of less than N / P, and has other N / P examples of a larger class than the next epoch.

    Args:
      key: random key of the epoch.
      order: permutation of the examples, int32 [N].
      balance: classes of the examples.

    Returns:
      The order, int32 [N].
    """
    classes = jnp.asarray(balance.classes, jnp.int32)
    labels = jnp.asarray(balance.labels)[order]
    by_class = jnp.argsort(labels, stable=True)
    starts, ends = (jnp.searchsorted(labels[by_class], classes, side=s) for s in ("left", "right"))
    counts = ends - starts
    rounds = -(-len(order) // len(classes))
    bits = jax.random.bits(jax.random.fold_in(key, 2), (rounds, len(classes)))
    drawn = jnp.argsort(bits, axis=1, stable=True)  # [rounds, P], the class of each draw
    rows = starts[drawn] + jnp.arange(rounds)[:, None] % counts[drawn]
    return order[by_class[rows.reshape(-1)[: len(order)]]]


def bucket_by_length(
    key: jax.Array,
    epoch: int | jax.Array,
    lengths: jax.Array,
    batch_size: int,
    order: jax.Array | None = None,
) -> jax.Array:
    """Order of an epoch whose batches hold examples of similar length.

    Examples are shuffled, those of each `POOL` batches are sorted by length, and then whole
    batches are shuffled. The examples left over at the end fill no batch. Other epochs leave out
    other ones.

    Args:
      key: random key of all epochs.
      epoch: number of the epoch.
      lengths: lengths of the examples, int [N].
      batch_size: B.
      order: order of the examples before, int32 [N]; None: a random permutation.

    Returns:
      The order, int32 [N].
    """
    if order is None:
        order = jax.random.permutation(jax.random.fold_in(key, epoch), len(lengths))
    count = full_batches(len(lengths), batch_size)
    full, remainder = order[: count * batch_size], order[count * batch_size :]
    pool = jnp.arange(len(full)) // (POOL * batch_size)
    batches = full[jnp.lexsort((lengths[full], pool))].reshape(count, batch_size)
    batch_key = jax.random.fold_in(jax.random.fold_in(key, epoch), 1)
    batch_order = jax.random.permutation(batch_key, count)
    return jnp.concatenate([batches[batch_order].reshape(-1), remainder])


def take(
    split: Split,
    order: jax.Array,
    position: int | jax.Array,
    batch_size: int,
    sharding: jax.sharding.Sharding | None = None,
) -> Split:
    """Gathers a batch of an epoch.

    Args:
      split: arrays [N, ...], replicated on every device if there is a sharding.
      order: order of the epoch, int32 [N].
      position: number of the batch within the epoch.
      batch_size: B.
      sharding: sharding of the batch; each device then gathers only its own rows.

    Returns:
      The batch, with `index` (its rows, int32 [B]) and `mask` (ones, float32 [B]).
    """
    rows = jax.lax.dynamic_slice(order, (position * batch_size,), (batch_size,))
    if sharding is not None:  # else devices would gather parts of all rows, and add them up
        rows = jax.lax.with_sharding_constraint(rows, sharding)
    batch = {name: jax.tree.map(jnp.asarray, column)[rows] for name, column in split.items()}
    return batch | {"index": rows, "mask": jnp.ones((batch_size,), jnp.float32)}


def padded_batches(split: Split, batch_size: int) -> Iterator[Split]:
    """Yields all examples in order, in batches of one shape.

    The last batch is padded by copies of the first example, with its `index` and a `mask` of 0.
    """
    for start in range(0, size(split), batch_size):
        rows = np.arange(start, start + batch_size)
        mask = (rows < size(split)).astype(np.float32)
        rows = np.where(mask > 0, rows, 0).astype(np.int32)
        yield read(split, rows) | {"index": rows, "mask": mask}
