"""Part of `jaxdl analyze` on the loss around the trained parameters.

Shapes: P parameters, N points.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxdl.analysis import hessian, landscape
from jaxdl.console import say
from jaxdl.errors import UserError
from jaxdl.tasks.supervised import TrainState, eval_variables, with_average
from jaxdl.tools import landscape_pictures as pictures
from jaxdl.tools.analysis_subject import Result, Subject

TOP = 5  # eigenvalues that are shown
PROBES, STEPS = 2, 30  # of the spectral density; the eigenvalues take as many steps
TRACE_PROBES = 8  # of Hutch++, with three products each
RADIUS = 0.05  # of the sharpness
BATCHES = 16  # whose gradients have the noise
POINTS = 13  # of each axis of the plane
MOST_BYTES = 4e9  # of the vectors that are kept


def curvature(subject: Subject) -> Result:
    """Eigenvalues, trace and spectral density of the Hessian of the training loss."""
    loss, params = _loss(subject)
    batch = {n: jnp.asarray(x) for n, x in subject.batch("train", subject.options.examples).items()}
    size = ravel_pytree(params)[0].size
    if 4 * size * max(STEPS, BATCHES) > MOST_BYTES:
        raise UserError(f"its vectors of {size:,} parameters take more than 4 GB")
    matrix, _ = hessian.products(loss, params, batch)
    keys = jax.random.split(jax.random.key(0), 6)
    top = hessian.lanczos(matrix, jax.random.normal(keys[0], (size,)), STEPS)
    trace = hessian.trace(matrix, size, keys[1], TRACE_PROBES)
    density = hessian.density(matrix, size, keys[2], PROBES, STEPS)
    value = float(jax.jit(loss)(params, batch))
    rise = float(
        jax.jit(lambda p: landscape.sharpness(lambda q: loss(q, batch), p, RADIUS))(params)
    )
    noise, count = _noise(subject, loss, params)
    largest = [float(v) for v in top.values[::-1][:TOP]]
    values: dict[str, Any] = {
        "examples": len(batch["index"]),
        "parameters": size,
        "loss": value,
        "largest_eigenvalues": largest,
        "residuals": top.residuals[::-1][:TOP],
        "smallest_eigenvalue": float(top.values[0]),
        "trace": trace._asdict(),
        "sharpness": {"radius": RADIUS, "rise": rise},
        "gradient_noise": {"batch_size": count, **noise._asdict()},
        "density": density._asdict(),
    }
    rows = [
        ("loss", value),
        ("largest eigenvalue", largest[0]),
        ("smallest eigenvalue", float(top.values[0])),
        ("trace", trace.value),
        ("standard error of the trace", trace.error),
        (f"rise of the loss within {RADIUS}", rise),
        ("gradient noise scale", _scale(noise)),
    ]
    directions = [landscape.filter_normalized(key, params) for key in keys[3:5]]
    plane, losses = _plane(loss, params, batch, directions)
    values["plane"] = {"axis": plane, "loss": losses}
    draw = {
        "density": lambda path: pictures.density(density, path),
        "plane": lambda path: pictures.plane(plane, losses, path),
    }
    return Result(values, rows, draw)


def need_loss(subject: Subject) -> None:
    """Checks that the model was trained on a loss of examples.

    Raises:
      UserError: it was not.
    """
    if not isinstance(subject.state, TrainState):
        raise UserError("it is for a loss of examples, which a GAN or an agent does not have")


def _loss(subject: Subject) -> tuple[Any, Any]:
    """Function from (parameters, batch) to the mean loss of evaluation, and the parameters."""
    state, evaluate = subject.state, subject.model.task.evaluate
    variables = eval_variables(state)

    def loss(params: Any, batch: Any) -> jax.Array:
        values = evaluate(with_average(state, {**variables, "params": params}), batch)
        total, count = values["loss"]
        return total / count

    return loss, variables["params"]


def _noise(subject: Subject, loss: Any, params: Any) -> tuple[landscape.GradientNoise, int]:
    """Noise of the gradients of batches of the training split, and the size of a batch."""
    batch = subject.batch("train", subject.options.examples)
    count = len(batch["index"]) // BATCHES
    if not count:
        raise UserError(f"it needs {BATCHES} training examples: give more by --examples")
    order = np.random.RandomState(0).permutation(len(batch["index"]))
    program = jax.jit(lambda params, batch: ravel_pytree(jax.grad(loss)(params, batch))[0])
    parts = [order[n * count : (n + 1) * count] for n in range(BATCHES)]
    found = [program(params, {n: jnp.asarray(x[rows]) for n, x in batch.items()}) for rows in parts]
    return landscape.gradient_noise(np.stack([np.asarray(g) for g in found]), count), count


def _scale(noise: landscape.GradientNoise) -> float | str:
    """Noise scale for the table; `none`, with a line about it, where the gradient is not seen."""
    if noise.square > 0:
        return noise.scale
    say(
        "no gradient noise scale: the gradient is too small to be seen in its noise "
        "(the estimate of its square is not positive): give more --examples"
    )
    return "none"


def _plane(
    loss: Any, params: Any, batch: Any, directions: list[Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Losses [N, N] on a plane of two directions from -1 to 1."""
    axis = np.linspace(-1, 1, POINTS)
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    program = jax.jit(
        lambda params, batch, directions, points: landscape.loss_along(
            lambda p: loss(p, batch), params, directions, points
        )
    )
    found = np.asarray(program(params, batch, directions, points.astype(np.float32)))
    return axis, found.reshape(POINTS, POINTS)
