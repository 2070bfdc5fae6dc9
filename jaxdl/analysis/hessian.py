"""Curvature of a loss: products with its Hessian, eigenvalues, trace and spectral density.

A matrix is a function of a vector, x [P] -> [P], such as `products`; it is symmetric. Krylov
vectors are orthogonalised twice against all before them, so that float32 finds no copies of an
eigenvalue; they take 4 bytes for each parameter and step.

Shapes: P parameters, S Lanczos steps, M probes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxdl.task import Key

Matrix = Callable[[jax.Array], jax.Array]
TINY = 1e-6  # of a Lanczos step beside the largest one: the Krylov space is exhausted


def hessian_product(loss: Callable[[Any], jax.Array], params: Any, v: Any) -> Any:
    """Product of the Hessian of a loss with a direction, forward over reverse mode.

    Args:
      loss: function of the parameters.
      params: parameters, a pytree of floating arrays.
      v: direction, a pytree of the same structure.
    """
    return jax.jvp(jax.grad(loss), (params,), (v,))[1]


def products(loss: Callable[..., jax.Array], params: Any, *args: Any) -> tuple[Matrix, int]:
    """The Hessian of a loss as a compiled function of a vector, and the number of parameters P.

    Args:
      loss: function of the parameters and `args`.
      params: parameters, a pytree of floating arrays.
      *args: further arguments of the loss, such as a batch.
    """
    flat, unravel = ravel_pytree(params)

    @jax.jit
    def product(params: Any, v: jax.Array, *args: Any) -> jax.Array:
        own = lambda p: loss(p, *args)  # noqa: E731
        return ravel_pytree(hessian_product(own, params, unravel(v)))[0]

    return lambda v: product(params, v, *args), flat.size


class Lanczos(NamedTuple):
    """Tridiagonal form of a matrix in a Krylov space.

    Attributes:
      values: Ritz values, in ascending order, float64 [S].
      weights: squares of the first entries of their vectors, which sum to 1, [S].
      vectors: Ritz vectors, float32 [S, P].
      residuals: bound on the distance of each Ritz value to an eigenvalue, [S].
    """

    values: np.ndarray
    weights: np.ndarray
    vectors: np.ndarray
    residuals: np.ndarray


def lanczos(matrix: Matrix, start: jax.Array, steps: int) -> Lanczos:
    """Lanczos iteration with full reorthogonalisation.

    Args:
      matrix: symmetric matrix.
      start: first vector of the Krylov space, [P].
      steps: number of products, at most P; fewer if the space is exhausted.
    """
    v = np.asarray(start, np.float32)
    basis = np.zeros((min(steps, len(v)), len(v)), np.float32)
    diagonal: list[float] = []
    beside: list[float] = []
    v = v / np.linalg.norm(v)
    for n in range(len(basis)):
        basis[n] = v
        w = np.array(matrix(jnp.asarray(v)), np.float32)
        diagonal.append(float(np.dot(w.astype(np.float64), v)))
        for _ in range(2):
            w -= basis[: n + 1].T @ (basis[: n + 1] @ w)
        beside.append(float(np.linalg.norm(w)))
        if beside[-1] <= TINY * max(*map(abs, diagonal), *beside[:-1], 1e-30):
            break
        v = w / beside[-1]
    size = len(diagonal)
    full = np.diag(diagonal) + np.diag(beside[: size - 1], 1) + np.diag(beside[: size - 1], -1)
    values, vectors = np.linalg.eigh(full)
    ritz = vectors.T.astype(np.float32) @ basis[:size]
    return Lanczos(values, np.square(vectors[0]), ritz, np.abs(beside[-1] * vectors[-1]))


def random_vector(key: Key, size: int) -> jax.Array:
    """Vector of independent signs, [P]."""
    return jax.random.rademacher(key, (size,), jnp.float32)


class Trace(NamedTuple):
    """Estimate of a trace.

    Attributes:
      value: the estimate.
      error: its standard error.
    """

    value: float
    error: float


def trace(matrix: Matrix, size: int, key: Key, probes: int = 10) -> Trace:
    """Trace of a matrix by Hutch++ (Meyer et al., 2021), with 3 products for each probe.

    The trace in the space of the largest eigenvalues is exact, and only the rest is estimated.

    Args:
      matrix: symmetric matrix.
      size: P.
      key: PRNG key.
      probes: directions of the space, and probes of the rest, M each; at most P.
    """
    probes = min(probes, size)
    keys = jax.random.split(key, 2 * probes)
    sketch = np.stack([np.asarray(matrix(random_vector(k, size))) for k in keys[:probes]], axis=1)
    space, _ = np.linalg.qr(sketch.astype(np.float64))
    exact = sum(column @ _apply(matrix, column) for column in space.T)
    if probes == size:
        return Trace(float(exact), 0.0)
    rest = []
    for k in keys[probes:]:
        g = np.asarray(random_vector(k, size), np.float64)
        g -= space @ (space.T @ g)
        rest.append(g @ _apply(matrix, g))
    error = np.std(rest, ddof=1) / np.sqrt(probes) if probes > 1 else np.inf
    return Trace(float(exact + np.mean(rest)), float(error))


def _apply(matrix: Matrix, v: np.ndarray) -> np.ndarray:
    return np.asarray(matrix(jnp.asarray(v, jnp.float32)), np.float64)


class Density(NamedTuple):
    """Spectral density of a matrix: point masses, whose sum is 1.

    Attributes:
      values: their places, in ascending order, [N].
      weights: their masses, [N].
    """

    values: np.ndarray
    weights: np.ndarray

    def smooth(self, grid: np.ndarray, width: float) -> np.ndarray:
        """Density on a grid [G], with a normal distribution of a width for each mass."""
        z = (grid[:, None] - self.values) / width
        return np.exp(-0.5 * np.square(z)) @ self.weights / (width * np.sqrt(2 * np.pi))

    def moment(self, order: int) -> float:
        """Mean of a power of the eigenvalues."""
        return float(np.sum(self.weights * self.values**order))


def density(matrix: Matrix, size: int, key: Key, probes: int = 4, steps: int = 40) -> Density:
    """Spectral density by stochastic Lanczos quadrature (Ubaru et al., 2017).

    Args:
      matrix: symmetric matrix.
      size: P.
      key: PRNG key.
      probes: random vectors that are averaged, M.
      steps: Lanczos steps from each.
    """
    found = [lanczos(matrix, random_vector(k, size), steps) for k in jax.random.split(key, probes)]
    values = np.concatenate([one.values for one in found])
    weights = np.concatenate([one.weights for one in found]) / probes
    order = np.argsort(values)
    return Density(values[order], weights[order])
