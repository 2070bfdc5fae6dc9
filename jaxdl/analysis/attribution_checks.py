"""Measures of attribution maps: deletion and insertion curves, and maps of random weights.

Shapes: B examples, P positions, S steps.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxdl.analysis.attribution import Score
from jaxdl.task import Key


def removal_curve(
    score: Score,
    x: jax.Array,
    baseline: ArrayLike,
    ranking: jax.Array,
    steps: int = 16,
    insert: bool = False,
) -> jax.Array:
    """Deletion or insertion curve (Petsiuk et al., 2018).

    Args:
      score: score of inputs, such as a probability.
      x: inputs [B, ..., C], or [B, ...] of the shape of the ranking.
      baseline: what a removed position is replaced by; it broadcasts to x.
      ranking: importance of each position, [B, ...].
      steps: number of steps, S; each changes a fraction 1 / S of the positions.
      insert: begin with the baseline and insert the most important positions, instead of beginning
        with the input and removing them.

    Returns:
      Scores [S + 1, B].
    """
    baseline = jnp.asarray(baseline)
    flat = ranking.reshape(len(ranking), -1)
    ranks = jnp.argsort(jnp.argsort(-flat, axis=1, stable=True), axis=1).reshape(ranking.shape)
    ranks = ranks.reshape(ranks.shape + (1,) * (x.ndim - ranks.ndim))

    def changed(fraction: jax.Array) -> jax.Array:
        is_first = ranks < jnp.round(fraction * flat.shape[1])
        return score(jnp.where(is_first == insert, x, baseline).astype(x.dtype))

    return jax.lax.map(changed, jnp.arange(steps + 1) / steps)


def area(curve: np.ndarray) -> np.ndarray:
    """Area [B] under curves [S + 1, B] over fractions of 0 to 1, by the trapezoidal rule.

    >>> area(np.array([[1.0], [0.5], [0.0]])).tolist()
    [0.5]
    """
    return np.mean((curve[1:] + curve[:-1]) / 2, axis=0)


def random_ranking(key: Key, shape: tuple[int, ...]) -> jax.Array:
    """A random ranking, which a good map should be better than."""
    return jax.random.uniform(key, shape)


def rank_correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's rank correlations [B] of maps [B, ...]; 0 where a map is constant.

    Positions at which both maps are 0, such as a black background, do not count.
    """
    from scipy.stats import rankdata

    found = np.zeros(len(a))
    for n, (one, other) in enumerate(zip(a, b, strict=True)):
        used = (one != 0) | (other != 0)
        ranks = rankdata(np.stack([one[used], other[used]]), axis=1)
        if used.any() and np.all(np.std(ranks, axis=1) > 0):
            found[n] = np.corrcoef(ranks)[0, 1]
    return found


def layer_of(path: tuple[Any, ...]) -> str:
    """Path of the layer of a variable, such as `Block_0/Dense_1`.

    Args:
      path: path of the variable as JAX gives it: its collection, the layer, and its name.
    """
    return "/".join(str(getattr(part, "key", part)) for part in path[1:-1])


def randomized(
    variables: Mapping[str, Any], fresh: Mapping[str, Any], layers: list[str]
) -> dict[str, Any]:
    """Variables of a model with those of some layers at random (Adebayo et al., 2018).

    Args:
      variables: variables by collection, such as `params`.
      fresh: the same of an untrained model.
      layers: paths of the layers, such as `Block_0/Dense_1`.
    """

    def choose(path: tuple[Any, ...], trained: Any, random: Any) -> Any:
        name = f"{layer_of(path)}/"
        return random if any(name.startswith(f"{layer}/") for layer in layers) else trained

    mixed: dict[str, Any] = jax.tree_util.tree_map_with_path(choose, dict(variables), dict(fresh))
    return mixed
