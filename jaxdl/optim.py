"""Optimizers by name, each an optax chain: clipping, direction, weight decay, learning rate.

Weight decay is decoupled from the gradient, except in `lamb` and `lars`, which follow their papers.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from jaxdl import parameter_groups
from jaxdl.hyperparameters import Rate, is_static
from jaxdl.parameter_groups import ONE_GROUP, Groups


class Parts(NamedTuple):
    """Hyperparameters and transformations that an optimizer is composed of."""

    momentum: Rate
    second_decay: Rate  # decay of the mean squared gradient in Adam-like optimizers
    epsilon: Rate  # added to the root of the mean squared gradient
    weight_decay: Rate
    decay: optax.GradientTransformation  # adds `weight_decay` times the kernels
    rate: optax.GradientTransformation  # multiplies by minus the learning rate of the step
    schedule: optax.Schedule  # function from step to learning rate


def sgd(parts: Parts) -> optax.GradientTransformation:
    """Stochastic gradient descent (Robbins & Monro, 1951)."""
    return optax.chain(parts.decay, parts.rate)


def momentum(parts: Parts) -> optax.GradientTransformation:
    """Heavy-ball momentum: a decaying sum of past gradients (Polyak, 1964)."""
    return optax.chain(optax.trace(parts.momentum), parts.decay, parts.rate)


def nesterov(parts: Parts) -> optax.GradientTransformation:
    """Nesterov momentum (Nesterov, 1983; Sutskever et al., 2013)."""
    return optax.chain(optax.trace(parts.momentum, nesterov=True), parts.decay, parts.rate)


def adagrad(parts: Parts) -> optax.GradientTransformation:
    """Adagrad (Duchi et al., 2011): g / (sqrt(sum of all g**2) + 1e-10)."""

    def update(gradient: Any, sums: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        sums = jax.tree.map(lambda g, s: s + jnp.square(g), gradient, sums)
        return jax.tree.map(lambda g, s: g / (jnp.sqrt(s) + 1e-10), gradient, sums), sums

    # optax.scale_by_rss adds epsilon inside the root, where it acts like sqrt(1e-10) = 1e-5.
    direction = optax.GradientTransformation(optax.tree.zeros_like, update)
    return optax.chain(direction, parts.decay, parts.rate)


def adadelta(parts: Parts) -> optax.GradientTransformation:
    """Adadelta (Zeiler, 2012) with rho 0.95; use a learning rate near 1."""
    return optax.chain(optax.scale_by_adadelta(0.95, eps=1e-6), parts.decay, parts.rate)


def rmsprop(parts: Parts) -> optax.GradientTransformation:
    """RMSProp (Hinton, 2012): g / (sqrt(mean of g**2) + 1e-8), with decay 0.9."""
    direction = optax.scale_by_rms(0.9, eps=1e-8, eps_in_sqrt=False)
    return optax.chain(direction, parts.decay, parts.rate)


def adam(parts: Parts) -> optax.GradientTransformation:
    """Adam (Kingma & Ba, 2015). Weight decay is decoupled, as in AdamW."""
    return optax.chain(_adam(parts), parts.decay, parts.rate)


def adamw(parts: Parts) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter, 2019); the same as `adam` here."""
    return adam(parts)


def nadam(parts: Parts) -> optax.GradientTransformation:
    """NAdam: Adam with Nesterov momentum (Dozat, 2016)."""
    return optax.chain(_adam(parts, nesterov=True), parts.decay, parts.rate)


def lamb(parts: Parts) -> optax.GradientTransformation:
    """LAMB (You et al., 2020): Adam's step plus weight decay, scaled to the norm of each layer.

    Epsilon is the paper's 1e-6. Weight decay changes the direction of a step, not its norm.
    """
    direction = optax.scale_by_adam(b1=parts.momentum, b2=parts.second_decay, eps=1e-6)
    return optax.chain(direction, parts.decay, optax.scale_by_trust_ratio(), parts.rate)


def lars(parts: Parts) -> optax.GradientTransformation:
    """LARS (You et al., 2017): momentum of gradients scaled to the norm of each layer's kernel.

    A kernel w with gradient g and weight decay d contributes g + d w times the trust ratio
    0.001 |w| / (|g| + d |w|). Biases use their plain gradient.
    """

    def scale(g: jax.Array, w: jax.Array) -> jax.Array:
        w_norm = jnp.linalg.norm(w.ravel())
        total = jnp.linalg.norm(g.ravel()) + parts.weight_decay * w_norm
        # With a zero norm the ratio is 1: a ratio of 0 would keep a kernel of zeros at zero.
        is_defined = (w_norm > 0) & (total > 0)
        ratio = jnp.where(is_defined, 0.001 * w_norm / jnp.where(is_defined, total, 1), 1)
        return ratio * (g + parts.weight_decay * w)

    trust_ratio = optax.stateless_with_tree_map(scale)
    # The rate comes before the momentum, as in the paper: each gradient keeps its own step's rate.
    return optax.chain(optax.masked(trust_ratio, kernels), parts.rate, optax.trace(parts.momentum))


def lion(parts: Parts) -> optax.GradientTransformation:
    """Lion (Chen et al., 2023) with b2 0.99; use about a tenth of Adam's learning rate."""
    return optax.chain(optax.scale_by_lion(b1=parts.momentum), parts.decay, parts.rate)


def muon(parts: Parts) -> optax.GradientTransformation:
    """Muon (Jordan, 2024): orthogonalised momentum for kernels, NAdam for other parameters.

    A kernel with more than two axes is reshaped to the matrix [all axes but the last, last axis].
    optax corrects the bias of the momentum, as in Adam. The author's code does not: here the newest
    gradient has more weight in the first steps.
    """
    direction = contrib.muon(
        -1.0,  # gives the ascent direction: `parts.rate`, after the decay, has the minus sign
        beta=parts.momentum,
        adam_b1=parts.momentum,
        adam_b2=parts.second_decay,
        muon_weight_dimension_numbers=_matrices,
    )
    return optax.chain(direction, parts.decay, parts.rate)


def schedule_free(parts: Parts) -> optax.GradientTransformation:
    """Schedule-Free AdamW (Defazio et al., 2024): an average replaces learning-rate decay.

    `momentum` interpolates between the average and Adam's iterate. Evaluation uses the average, but
    batch normalisation's running statistics are those of the interpolated, trained parameters.
    """
    direction = optax.scale_by_adam(b1=0.0, b2=parts.second_decay, eps=parts.epsilon)
    base = optax.chain(direction, parts.decay, parts.rate)
    # contrib.schedule_free counts steps from 1, everything else here from 0.
    rate = lambda count: parts.schedule(count - 1)  # noqa: E731
    return contrib.schedule_free(base, rate, b1=parts.momentum)


def normalized_muon(
    momentum: Rate, rate: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Muon for convolutions that are followed by normalisation (Jordan, 2024, airbench94_muon).

    The scale of such kernels has no effect, so each step starts from the kernel rescaled to filters
    with a mean squared norm of 1. Three Newton-Schulz iterations orthogonalise the momentum, whose
    bias is corrected, unlike in the author's code, see `muon`.

    Args:
      momentum: decay of the Nesterov momentum.
      rate: transformation that multiplies each step by minus the learning rate.
    """
    axes = functools.partial(jax.tree.map, _matrix_axes)

    def rescale(step: jax.Array, w: jax.Array) -> jax.Array:
        return step + w * (jnp.sqrt(w.shape[-1] / jnp.sum(jnp.square(w))) - 1)

    direction = contrib.scale_by_muon(ns_steps=3, beta=momentum, weight_dimension_numbers=axes)
    return optax.chain(direction, rate, optax.stateless_with_tree_map(rescale))


OPTIMIZERS: dict[str, Callable[[Parts], optax.GradientTransformation]] = {
    constructor.__name__: constructor
    for constructor in (
        *(sgd, momentum, nesterov, adagrad, adadelta, rmsprop, adam, adamw),
        *(nadam, lamb, lars, lion, muon, schedule_free),
    )
}


# Long: most of it describes the arguments.
def optimizer(
    name: str,
    learning_rate: Rate,
    schedule: optax.Schedule,
    *,
    momentum: Rate = 0.9,
    adam_b2: Rate = 0.999,
    adam_epsilon: Rate = 1e-8,
    weight_decay: Rate = 0.0,
    clip_norm: Rate = float("inf"),
    clip_value: Rate = float("inf"),
    clip_adaptive: Rate = float("inf"),
    plateau: optax.GradientTransformationExtraArgs | None = None,
    groups: Groups = ONE_GROUP,
) -> optax.GradientTransformationExtraArgs:
    """Builds an optimizer; every number may be a traced array.

    Args:
      name: a key of `OPTIMIZERS`.
      learning_rate: peak learning rate.
      schedule: function from step to a factor of the peak rate, see `schedules`.
      momentum: momentum of `momentum`, nesterov, muon and lars; decay of the first moment of
        Adam-like optimizers and lion; interpolation of schedule_free, not 0. Others ignore it.
      adam_b2: decay of the mean squared gradient in Adam-like optimizers and muon's NAdam.
      adam_epsilon: constant added to the root of it, except in lamb and muon.
      weight_decay: each step subtracts `rate * weight_decay` times every kernel (Loshchilov &
        Hutter, 2019); lamb and lars scale it by their trust ratio. Under SGD with momentum m, an L2
        penalty of w is about equal to a decoupled decay of w / (1 - m).
      clip_norm: greatest global norm of the gradient (Pascanu et al., 2013); inf clips nothing.
      clip_value: greatest absolute value of an entry of the gradient; inf clips nothing.
      clip_adaptive: greatest norm of a unit's gradient relative to the norm of its weights, where a
        bias is one unit and norms are at least 0.001 (Brock et al., 2021); inf clips nothing.
      plateau: scales the rate by the `value` of each `update`, as `contrib.reduce_on_plateau` does.
      groups: factors of the learning rate of groups of parameters; frozen leaves are left to
        `supervised`.
    """

    def step_rate(count: jax.Array) -> jax.Array:
        return learning_rate * schedule(count)

    rate = optax.scale_by_learning_rate(step_rate)
    rates = [rate, *([plateau] if plateau else []), *([groups.scale()] if groups.scales else [])]
    parts = Parts(
        momentum,
        adam_b2,
        adam_epsilon,
        weight_decay,
        optax.add_decayed_weights(weight_decay, mask=kernels),
        optax.chain(*rates) if len(rates) > 1 else rate,
        step_rate,
    )
    clips = [
        clip(limit)
        for clip, limit in (
            (optax.clip_by_global_norm, clip_norm),
            (optax.clip, clip_value),
            (optax.adaptive_grad_clip, clip_adaptive),
        )
        if not is_static(limit, float("inf"))
    ]
    return optax.with_extra_args_support(optax.chain(*clips, OPTIMIZERS[name](parts)))


def learning_rate(opt_state: optax.OptState, peak: Rate, schedule: optax.Schedule) -> jax.Array:
    """Learning rate of the last update of an `optimizer`, scaled by its plateau, if it has one.

    Args:
      opt_state: the optimizer's state after the update, or a pytree that contains it.
      peak: the optimizer's peak learning rate.
      schedule: the optimizer's schedule.
    """
    kinds = optax.ScaleByScheduleState | contrib.ReduceLROnPlateauState
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, kinds))
    count = next(node.count for node in nodes if isinstance(node, optax.ScaleByScheduleState))
    rate = jnp.asarray(peak * schedule(count - 1), jnp.float32)
    for node in nodes:
        if isinstance(node, contrib.ReduceLROnPlateauState):
            rate *= node.scale
    return rate


def kernels(params: optax.Params) -> optax.Params:
    """Mask over `params`: true for leaves named `kernel`, false for biases and norm scales.

    >>> kernels({"dense": {"bias": jnp.zeros(2), "kernel": jnp.zeros((3, 2))}})
    {'dense': {'bias': False, 'kernel': True}}
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: _is_kernel(path), params)


def eval_params(opt_state: optax.OptState, params: optax.Params) -> optax.Params:
    """Returns the parameters to evaluate: schedule_free's average if it is used, else `params`."""
    is_average = lambda node: isinstance(node, contrib.ScheduleFreeState)  # noqa: E731
    for node in jax.tree.leaves(opt_state, is_leaf=is_average):
        if is_average(node):
            trained = parameter_groups.restrict(params, node.z)  # without frozen leaves
            averaged = contrib.schedule_free_eval_params(node, trained)
            return parameter_groups.merge(params, averaged)
    return params


def _adam(parts: Parts, nesterov: bool = False) -> optax.GradientTransformation:
    return optax.scale_by_adam(parts.momentum, parts.second_decay, parts.epsilon, nesterov=nesterov)


def _is_kernel(path: tuple[Any, ...]) -> bool:
    return getattr(path[-1], "key", None) == "kernel"


def _matrices(params: optax.Params) -> optax.Params:
    """Matrix axes of each kernel with at least two axes; None for other leaves."""

    def axes(path: tuple[Any, ...], leaf: jax.Array) -> contrib.MuonDimensionNumbers | None:
        return _matrix_axes(leaf) if _is_kernel(path) and leaf.ndim >= 2 else None

    return jax.tree_util.tree_map_with_path(axes, params)


def _matrix_axes(kernel: jax.Array) -> contrib.MuonDimensionNumbers:
    """Axes of a kernel as a matrix [all axes but the last, last axis]."""
    return contrib.MuonDimensionNumbers(tuple(range(kernel.ndim - 1)), kernel.ndim - 1)
