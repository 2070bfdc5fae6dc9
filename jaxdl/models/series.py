"""Networks of time series: forecasts that are fed back, and reconstruction of windows.

A forecast is a linear autoregression that a recurrent network or a Transformer corrects, and a
reconstruction is a corrected linear interpolation. In both classes the series has mean 0 and
deviation 1, and 0 where a value is missing.

Shapes: B windows of T positions with C columns, F features, H positions to forecast, p coefficients
of a column's linear autoregression.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxdl.errors import UserError
from jaxdl.nn.cells import CELLS
from jaxdl.nn.dense import Dense
from jaxdl.nn.recurrent import Recurrent
from jaxdl.nn.transformer import Block, Caches, Decoder, Encoder

KINDS = ("rnn", "lstm", "gru", "transformer")
Pair = tuple[jax.Array, jax.Array]  # values, and 1 where they are known or 0, [B, T, C] each


def fill_forward(values: jax.Array, known: jax.Array) -> jax.Array:
    """Replaces each unknown value by the last known one before it, and by 0 if there is none.

    Args:
      values: [B, T, C].
      known: [B, T, C], 1 where a value is known, else 0.

    >>> values, known = jnp.array([[5.0, 0.0, 7.0]]), jnp.array([[1.0, 0.0, 1.0]])
    >>> fill_forward(values[..., None], known[..., None])[0, :, 0].tolist()
    [5.0, 5.0, 7.0]
    """
    positions = jnp.arange(values.shape[1])[None, :, None]
    last = jax.lax.cummax(jnp.where(known > 0, positions, 0), axis=1)
    return jnp.take_along_axis(values * known, last, axis=1)


def interpolate(values: jax.Array, known: jax.Array) -> jax.Array:
    """Replaces each unknown value by the line between its known neighbours, or by the only one.

    Args:
      values: [B, T, C].
      known: [B, T, C], 1 where a value is known, else 0.

    >>> values, known = jnp.array([[1.0, 0.0, 7.0, 0.0]]), jnp.array([[1.0, 0.0, 1.0, 0.0]])
    >>> interpolate(values[..., None], known[..., None])[0, :, 0].tolist()
    [1.0, 4.0, 7.0, 7.0]
    """
    T = values.shape[1]
    positions = jnp.arange(T)[None, :, None]
    last = jax.lax.cummax(jnp.where(known > 0, positions, -1), axis=1)
    coming = jax.lax.cummin(jnp.where(known > 0, positions, T), axis=1, reverse=True)
    before, after = jnp.where(last < 0, coming, last), jnp.where(coming == T, last, coming)
    share = (positions - before) / jnp.maximum(after - before, 1)
    left, right = (
        jnp.take_along_axis(values * known, jnp.clip(n, 0, T - 1), axis=1) for n in (before, after)
    )
    return left + share * (right - left)


def lags(values: jax.Array, order: int) -> jax.Array:
    """The last p values up to each position, the oldest first: [B, T, C] -> [B, T, p, C].

    The first value is repeated before the start.
    """
    T = values.shape[1]
    padded = jnp.concatenate([*[values[:, :1]] * (order - 1), values], axis=1)
    return jnp.stack([padded[:, n : n + T] for n in range(order)], axis=2)


class Forecaster(nn.Module):
    """Forecaster of a series: a pair [B, T or more, C] -> predictions of the next values.

    Attributes:
      outputs: C.
      length: T, positions of a history.
      horizon: H.
      linear: linear autoregression of each column, [p + 1, C]: coefficients of the last p values,
        the oldest first, and a constant.
      scale: size of its errors, the unit of the network's corrections, for each column.
      cell: one of KINDS.
      features: F of each layer.
      layers: number of recurrent layers or Transformer blocks.
      heads: attention heads of a Transformer; divides F.
      objective: `one_step`: training predicts each next value from the true ones before it;
        `free_run`: it feeds back its own predictions after the history; `direct`: all H values are
        outputs of the last position of the history.
      dtype: dtype of the products; parameters, states and predictions are float32.
    """

    outputs: int
    length: int
    horizon: int
    linear: tuple[tuple[float, ...], ...]
    scale: tuple[float, ...]
    cell: str = "lstm"
    features: int = 64
    layers: int = 1
    heads: int = 4
    objective: str = "one_step"
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Creates the layers."""
        self.body = body(self, causal=True)
        if self.cell == "transformer":
            self.embed = Dense(self.features, dtype=self.dtype)
        direct = self.objective == "direct"
        self.head = Dense(self.outputs * (self.horizon if direct else 1), dtype=self.dtype)

    def __call__(self, series: Pair, *, train: bool) -> dict[str, jax.Array]:
        """Forecasts.

        Args:
          series: history, and after it, to predict one step at a time, true values or none.
          train: whether to compute only what the objective needs.

        Returns:
          `forecast` [B, H, C], the values after the first T positions, which are fed back if the
          objective is not `direct`; and for `one_step` also `steps`, the prediction of the value
          after each position of the series.
        """
        predictions = {}
        if self.objective == "one_step":
            predictions["steps"] = self._steps(*series, train)
        if not train or self.objective != "one_step":
            values, known = (a[:, : self.length] for a in series)
            predictions["forecast"] = self.forecast(values, known, train)
        return predictions

    def forecast(self, values: jax.Array, known: jax.Array, train: bool = False) -> jax.Array:
        """Predicts the H values after a history [B, T, C] -> [B, H, C]."""
        if self.objective == "direct":
            h = self._hidden(values, known, train)[0][:, -1]
            change = self.head(h).astype(jnp.float32)
            return fill_forward(values, known)[:, -1:] + change.reshape(
                -1, self.horizon, self.outputs
            )
        h, states = self._hidden(values, known, train, keep=True)
        recent = lags(self._fill(values, known), len(self.linear) - 1)[:, -1]
        first = self._extrapolate(recent) + self._correction(h[:, -1])

        def feed_back(self: Forecaster, carry: Any, position: jax.Array) -> tuple[Any, jax.Array]:
            value, recent, states = carry
            recent = jnp.concatenate([recent[:, 1:], value[:, None]], axis=1)
            x = self._input(value, jnp.ones_like(value))[:, None]
            h, states = self._next(x, states, position)
            value = self._extrapolate(recent) + self._correction(h[:, 0])
            return (value, recent, states), value

        scan = nn.scan(feed_back, variable_broadcast="params", split_rngs={"params": False})
        _, rest = scan(self, (first, recent, states), self.length + jnp.arange(self.horizon - 1))
        return jnp.concatenate([first[:, None], rest.swapaxes(0, 1)], axis=1)

    def _steps(self, values: jax.Array, known: jax.Array, train: bool) -> jax.Array:
        """Prediction of the value after each position, float32 [B, T, C]."""
        recent = lags(self._fill(values, known), len(self.linear) - 1)
        return self._extrapolate(recent) + self._correction(self._hidden(values, known, train)[0])

    def _fill(self, values: jax.Array, known: jax.Array) -> jax.Array:
        """Replaces each unknown value by the linear autoregression of those before it.

        An unknown value at the start is 0, the mean.
        """
        order = len(self.linear) - 1

        def follow(recent: jax.Array, pair: Pair) -> tuple[jax.Array, jax.Array]:
            value = jnp.where(pair[1] > 0, pair[0], self._extrapolate(recent))
            return jnp.concatenate([recent[:, 1:], value[:, None]], axis=1), value

        def fill(values: jax.Array) -> jax.Array:
            first = values[:, :1] * known[:, :1]
            rest = values[:, 1:].swapaxes(0, 1), known[:, 1:].swapaxes(0, 1)
            _, filled = jax.lax.scan(follow, jnp.concatenate([first] * order, axis=1), rest)
            return jnp.concatenate([first, filled.swapaxes(0, 1)], axis=1)

        return jax.lax.cond(jnp.all(known > 0), lambda values: values, fill, values)

    def _extrapolate(self, recent: jax.Array) -> jax.Array:
        """Next value by the linear autoregression: the last p values [..., p, C] -> [..., C]."""
        linear = jnp.asarray(self.linear).reshape((1,) * (recent.ndim - 2) + (-1, self.outputs))
        return jnp.sum(recent * linear[..., :-1, :], axis=-2) + linear[..., -1, :]

    def _correction(self, h: jax.Array) -> jax.Array:
        """Correction of the linear autoregression, float32 [..., C], from features [..., F]."""
        correction = self.head(h).astype(jnp.float32)
        return correction * jnp.asarray(self.scale).reshape((1,) * (h.ndim - 1) + (-1,))

    def _input(self, values: jax.Array, known: jax.Array) -> jax.Array:
        """Input of the layers, [..., 2 C], or [..., F] of a Transformer."""
        x = jnp.concatenate([values, known], axis=-1).astype(self.dtype)
        return self.embed(x) if self.cell == "transformer" else x

    def _hidden(
        self, values: jax.Array, known: jax.Array, train: bool, keep: bool = False
    ) -> tuple[jax.Array, Any]:
        """Features [B, T, F]; and the states or caches after the last position, if `keep`."""
        x = self._input(values, known)
        if self.cell != "transformer":
            return self.body(x, full(x), train=train)
        if not keep:
            return self.body(x, train=train), None

        def step(self: Forecaster, caches: Any, inputs: Any) -> tuple[Any, jax.Array]:
            h, caches = self._next(inputs[0][:, None], caches, inputs[1])
            return caches, h[:, 0]

        scan = nn.scan(step, variable_broadcast="params", split_rngs={"params": False})
        inputs = x.swapaxes(0, 1), jnp.arange(x.shape[1])
        caches, h = scan(self, self._caches(x.shape[0]), inputs)
        return h.swapaxes(0, 1), caches

    def _next(self, x: jax.Array, states: Any, position: jax.Array) -> tuple[jax.Array, Any]:
        """Features of one more position [B, 1, F], and the states or caches after it."""
        if self.cell == "transformer":
            return self.body.next(x, states, position)
        return self.body(x, full(x), train=False, carry=states)

    def _caches(self, examples: int) -> Caches:
        """Empty caches of a Transformer."""
        shape = (
            examples,
            self.length + self.horizon,
            self.heads,
            self.features // self.heads,
        )
        own = ((jnp.zeros(shape, self.dtype),) * 2,) * self.layers
        return Caches(own, (None,) * self.layers)


class Reconstructor(nn.Module):
    """Reconstructor of a window: a pair [B, T, C] -> the whole window, float32 [B, T, C].

    Each position is computed from all positions before and after it, as a correction of the linear
    interpolation of the known values.

    Attributes:
      outputs: C.
      cell: one of KINDS.
      features: F of each layer, and of each direction of a recurrent one.
      layers: number of recurrent layers or Transformer blocks.
      heads: attention heads of a Transformer; divides F.
      keep: whether values that are known stay as they are.
      dtype: dtype of the products; parameters and the result are float32.
    """

    outputs: int
    cell: str = "lstm"
    features: int = 64
    layers: int = 1
    heads: int = 4
    keep: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, series: Pair, *, train: bool) -> jax.Array:
        """Reconstructs windows."""
        values, known = series
        x = jnp.concatenate([values, known], axis=-1).astype(self.dtype)
        if self.cell == "transformer":
            x = Dense(self.features, dtype=self.dtype, name="embed")(x)
            h = body(self)(x, jnp.ones((1, 1, x.shape[1]), bool), train=train)
        else:
            h, _ = body(self)(x, full(x), train=train)
        change = Dense(self.outputs, dtype=self.dtype, name="head")(h).astype(jnp.float32)
        result = interpolate(values, known) + change
        return jnp.where(known > 0, values, result) if self.keep else result


def body(model: Forecaster | Reconstructor, causal: bool = False) -> Any:
    """Layers of a model, which see positions before and after each, or if `causal` only before.

    Args:
      model: has the cell and the sizes.
      causal: whether a position sees only itself and those before it.

    Raises:
      UserError: the cell is not one of KINDS.
    """
    if model.cell == "transformer":
        block = partial(
            Block,
            model.features,
            model.heads,
            4 * model.features,
            rotary=True,
            dtype=model.dtype,
        )
        return (Decoder if causal else Encoder)(model.layers, block, model.dtype, name="body")
    if model.cell not in CELLS:
        raise UserError(f"cell={model.cell}: give one of {', '.join(KINDS)}")
    sizes = model.cell, model.features, model.layers
    return Recurrent(*sizes, bidirectional=not causal, dtype=model.dtype, name="body")


def full(x: jax.Array) -> jax.Array:
    """Lengths of sequences without padding: [B, T, D] -> int32 [B], T each."""
    return jnp.full(x.shape[:1], x.shape[1], jnp.int32)
