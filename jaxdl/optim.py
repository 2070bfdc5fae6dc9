"""Optimizers by name, each one optax chain: clip, direction, weight decay, rate.

Weight decay is decoupled from the gradient, but in `lamb` and `lars`, as their papers have it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib

Rate = float | jax.Array


class Parts(NamedTuple):
    """Parts of an optimizer; each puts them in its own order."""

    momentum: Rate
    second_decay: Rate  # of the mean squared gradient of Adam's kin
    epsilon: Rate  # added to the root of it
    weight_decay: Rate
    decay: optax.GradientTransformation  # adds `weight_decay` times the kernels
    rate: optax.GradientTransformation  # times minus the rate of the step
    schedule: optax.Schedule  # step -> that rate


def sgd(parts: Parts) -> optax.GradientTransformation:
    """The gradient itself (Robbins & Monro, 1951)."""
    return optax.chain(parts.decay, parts.rate)


def momentum(parts: Parts) -> optax.GradientTransformation:
    """A sum of past gradients, each `momentum` times the one after it (Polyak, 1964)."""
    return optax.chain(optax.trace(parts.momentum), parts.decay, parts.rate)


def nesterov(parts: Parts) -> optax.GradientTransformation:
    """Momentum that looks ahead (Nesterov, 1983; Sutskever et al., 2013)."""
    trace = optax.trace(parts.momentum, nesterov=True)
    return optax.chain(trace, parts.decay, parts.rate)


def adagrad(parts: Parts) -> optax.GradientTransformation:
    """Over the root of the sum of all squared gradients, plus 1e-10 (Duchi et al., 2011)."""

    def update(gradient: Any, sums: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        sums = jax.tree.map(lambda g, s: s + jnp.square(g), gradient, sums)
        return jax.tree.map(lambda g, s: g / (jnp.sqrt(s) + 1e-10), gradient, sums), sums

    # optax.scale_by_rss has epsilon inside the root, where it is the root of it, 1e-5.
    direction = optax.GradientTransformation(optax.tree.zeros_like, update)
    return optax.chain(direction, parts.decay, parts.rate)


def adadelta(parts: Parts) -> optax.GradientTransformation:
    """Steps in units of the parameters' own past steps (Zeiler, 2012), rho 0.95; a rate near 1."""
    return optax.chain(optax.scale_by_adadelta(0.95, eps=1e-6), parts.decay, parts.rate)


def rmsprop(parts: Parts) -> optax.GradientTransformation:
    """Over the root of the mean squared gradient, decayed by 0.9, plus 1e-8 (Hinton, 2012)."""
    direction = optax.scale_by_rms(0.9, eps=1e-8, eps_in_sqrt=False)
    return optax.chain(direction, parts.decay, parts.rate)


def adam(parts: Parts) -> optax.GradientTransformation:
    """First moment over the root of the second (Kingma & Ba, 2015); decay is adamw's."""
    return optax.chain(_adam(parts), parts.decay, parts.rate)


def adamw(parts: Parts) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019), as `adam` has it here, too."""
    return adam(parts)


def nadam(parts: Parts) -> optax.GradientTransformation:
    """Adam with a first moment that looks ahead (Dozat, 2016)."""
    return optax.chain(_adam(parts, nesterov=True), parts.decay, parts.rate)


def lamb(parts: Parts) -> optax.GradientTransformation:
    """Adam's direction plus weight decay, as long as its layer's parameters (You et al., 2020).

    Epsilon is the paper's 1e-6. Decay changes the direction of a step, not its length.
    """
    direction = optax.scale_by_adam(b1=parts.momentum, b2=parts.second_decay, eps=1e-6)
    return optax.chain(direction, parts.decay, optax.scale_by_trust_ratio(), parts.rate)


def lars(parts: Parts) -> optax.GradientTransformation:
    """Momentum of gradients a 1000th as long as their layer's kernel (You et al., 2017).

    A kernel w of gradient g, weight decay d: 0.001 |w| / (|g| + d |w|) times g + d w. So decay is
    scaled by that ratio, and shortens the gradient's part. Biases follow their gradient.
    """

    def local(gradient: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def one(g: jax.Array, w: jax.Array) -> jax.Array:
            size = jnp.linalg.norm(w.ravel())
            total = jnp.linalg.norm(g.ravel()) + parts.weight_decay * size
            fits = (size > 0) & (total > 0)  # else the rate alone, or zeros would never move
            ratio = jnp.where(fits, 0.001 * size / jnp.where(fits, total, 1), 1)
            return ratio * (g + parts.weight_decay * w)

        return jax.tree.map(one, gradient, params), state

    ratio = optax.GradientTransformation(lambda params: optax.EmptyState(), local)
    # The rate comes before the momentum, as in the paper: a step keeps the rate it was made with.
    return optax.chain(optax.masked(ratio, kernels), parts.rate, optax.trace(parts.momentum))


def lion(parts: Parts) -> optax.GradientTransformation:
    """The sign of an interpolated momentum (Chen et al., 2023), b2 0.99; a tenth of Adam's rate."""
    return optax.chain(optax.scale_by_lion(b1=parts.momentum), parts.decay, parts.rate)


def muon(parts: Parts) -> optax.GradientTransformation:
    """Momentum with all singular values near 1 for kernels, nadam for the rest (Jordan, 2024).

    A kernel of more than two axes is taken as the matrix [all but the last, last]. The momentum is
    optax's, whose bias is corrected as Adam's is and the author's is not: in the first steps the
    newest gradient weighs more than there.
    """
    direction = contrib.muon(
        -1.0,  # its sign: the rate comes after the decay
        beta=parts.momentum,
        adam_b1=parts.momentum,
        adam_b2=parts.second_decay,
        muon_weight_dimension_numbers=_matrices,
    )
    return optax.chain(direction, parts.decay, parts.rate)


def schedule_free(parts: Parts) -> optax.GradientTransformation:
    """Adam averaged in place of a falling rate (Defazio et al., 2024); momentum interpolates.

    The average is what is evaluated. Batch normalisation's running statistics are not of it, but of
    the interpolated parameters that are trained.
    """
    direction = optax.scale_by_adam(b1=0.0, b2=parts.second_decay, eps=parts.epsilon)
    base = optax.chain(direction, parts.decay, parts.rate)
    # It counts steps from 1, everything else here from 0.
    rate = lambda count: parts.schedule(count - 1)  # noqa: E731
    return contrib.schedule_free(base, rate, b1=parts.momentum)


def unit_muon(momentum: Rate, rate: optax.GradientTransformation) -> optax.GradientTransformation:
    """Muon for convolutions that a normalisation follows, of which only directions learn.

    Each step begins from the kernel brought back to where its filters have a mean square norm of 1,
    and takes three iterations to even out singular values (Jordan, 2024, airbench94_muon). Unlike
    that code's, the momentum has its bias corrected, see `muon`.

    Args:
      momentum: Nesterov's.
      rate: multiplies each step by minus the rate.
    """

    def axes(kernels: optax.Params) -> optax.Params:
        return jax.tree.map(
            lambda w: contrib.MuonDimensionNumbers(tuple(range(w.ndim - 1)), w.ndim - 1), kernels
        )

    def begin(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def of_unit(step: jax.Array, w: jax.Array) -> jax.Array:
            return step + w * (jnp.sqrt(w.shape[-1] / jnp.sum(jnp.square(w))) - 1)

        return jax.tree.map(of_unit, updates, params), state

    direction = contrib.scale_by_muon(ns_steps=3, beta=momentum, weight_dimension_numbers=axes)
    unit = optax.GradientTransformation(lambda params: optax.EmptyState(), begin)
    return optax.chain(direction, rate, unit)


# From a flag's value to constructor.
OPTIMIZERS: dict[str, Callable[[Parts], optax.GradientTransformation]] = {
    make.__name__: make
    for make in (
        *(sgd, momentum, nesterov, adagrad, adadelta, rmsprop, adam, adamw),
        *(nadam, lamb, lars, lion, muon, schedule_free),
    )
}


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
) -> optax.GradientTransformationExtraArgs:
    """The optimizer of that name in `OPTIMIZERS`; every number may be a traced array.

    Args:
      name: a key of `OPTIMIZERS`.
      learning_rate: peak rate.
      schedule: step -> factor of the peak rate, see `schedules`.
      momentum: of SGD, muon and lars; for Adam's kin and lion the decay of the first moment; for
        schedule_free the interpolation, which may not be 0. The others have none.
      adam_b2: decay of the mean squared gradient of adam, adamw, nadam, lamb, schedule_free and
        muon's other parameters.
      adam_epsilon: added to the root of it, but in lamb and muon.
      weight_decay: each step takes `rate * weight_decay` of every kernel away, apart from the
        gradient (Loshchilov & Hutter, 2019); lamb and lars scale it by their trust ratio. Under SGD
        with momentum m, an L2 penalty of w does about as much as a decoupled decay of w / (1 - m).
      clip_norm: gradients of a greater global norm are scaled down to it (Pascanu et al., 2013).
      clip_value: greatest size of each entry of the gradient.
      clip_adaptive: greatest norm of each unit's gradient, as a share of the norm of its weights
        (Brock et al., 2021); a bias is one unit, and norms below 0.001 count as that. Of all three,
        inf clips nothing.
      plateau: multiplies the rate, from the loss that `update` is given as `value`, such as
        `optax.contrib.reduce_on_plateau`.
    """

    def rate_of(count: jax.Array) -> jax.Array:
        return learning_rate * schedule(count)

    rate = optax.scale_by_learning_rate(rate_of)
    parts = Parts(
        momentum,
        adam_b2,
        adam_epsilon,
        weight_decay,
        optax.add_decayed_weights(weight_decay, mask=kernels),
        optax.chain(rate, plateau) if plateau else rate,
        rate_of,
    )
    clips = [
        make(limit)
        for make, limit in (
            (optax.clip_by_global_norm, clip_norm),
            (optax.clip, clip_value),
            (optax.adaptive_grad_clip, clip_adaptive),
        )
        if not is_static(limit, float("inf"))
    ]
    return optax.with_extra_args_support(optax.chain(*clips, OPTIMIZERS[name](parts)))


def learning_rate(opt_state: Any, peak: Rate, schedule: optax.Schedule) -> jax.Array:
    """Learning rate of the last update that an `optimizer` with this peak and schedule made.

    Args:
      opt_state: the optimizer's state after that update; also a state that contains it.
      peak: as for `optimizer`.
      schedule: likewise.

    Returns:
      A float32 scalar, scaled down by a plateau where the optimizer has one.
    """
    kinds = optax.ScaleByScheduleState | contrib.ReduceLROnPlateauState
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, kinds))
    count = next(node.count for node in nodes if isinstance(node, optax.ScaleByScheduleState))
    rate = jnp.asarray(peak * schedule(count - 1), jnp.float32)
    for node in nodes:
        if isinstance(node, contrib.ReduceLROnPlateauState):
            rate *= node.scale
    return rate


def is_static(number: Rate, value: float) -> bool:
    """Returns True if a hyperparameter is the constant `value`, and not traced.

    What a neutral value makes void is then left out of the program.
    """
    return isinstance(number, int | float) and number == value


def kernels(params: optax.Params) -> optax.Params:
    """A mask over `params`: true for leaves named `kernel`, false for biases and norm scales."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _is_kernel(path), params)


def eval_params(opt_state: Any, params: optax.Params) -> optax.Params:
    """The parameters to evaluate: those trained, but schedule_free's average where it is used."""
    is_average = lambda node: isinstance(node, contrib.ScheduleFreeState)  # noqa: E731
    for node in jax.tree.leaves(opt_state, is_leaf=is_average):
        if is_average(node):
            return contrib.schedule_free_eval_params(node, params)
    return params


def _adam(parts: Parts, nesterov: bool = False) -> optax.GradientTransformation:
    return optax.scale_by_adam(parts.momentum, parts.second_decay, parts.epsilon, nesterov=nesterov)


def _is_kernel(path: tuple[Any, ...]) -> bool:
    return getattr(path[-1], "key", None) == "kernel"


def _matrices(params: optax.Params) -> optax.Params:
    def axes(path: tuple[Any, ...], leaf: jax.Array) -> contrib.MuonDimensionNumbers | None:
        if not _is_kernel(path) or leaf.ndim < 2:
            return None
        return contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)

    return jax.tree_util.tree_map_with_path(axes, params)
