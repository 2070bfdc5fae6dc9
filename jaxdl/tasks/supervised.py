"""Supervised learning: a task from a model, a loss and an optimizer, and the flags that it has.

Shapes: B examples.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from jaxdl import metrics, optim, regularizers, schedules
from jaxdl.config import RunConfig, flag
from jaxdl.data.spec import DataSpec
from jaxdl.distributed import sharding
from jaxdl.errors import UserError
from jaxdl.metrics import Metrics
from jaxdl.optim import Rate
from jaxdl.task import Batch, Key, Outputs, Predict, Task


@dataclasses.dataclass(frozen=True)
class SupervisedConfig(RunConfig):
    """Optimizer and regularisation."""

    optimizer: str = flag("adam", "optimizer", choices=tuple(optim.OPTIMIZERS))
    momentum: float = flag(
        0.9,
        "of momentum, nesterov, lars and muon; first decay of Adam's kin and lion; interpolation "
        "of schedule_free",
        low=0.0,
        high=0.9999,
    )
    schedule: str = flag(
        "cosine",
        "of the rate; plateau: a tenth of it whenever --plateau_epochs bring no training loss "
        "lower by 0.01 %",
        choices=(*schedules.SCHEDULES, "plateau"),
    )
    warmup_epochs: float = flag(
        0.0,
        "epochs of linear learning-rate warm-up, at most half of the run; parts of one count",
        low=0.0,
        high=1e6,
    )
    warmup_steps: int = flag(
        0,
        "steps of warm-up, at most half of the run, in the place of --warmup_epochs; 0: as many as "
        "that makes",
        low=0,
    )
    adam_b2: float = flag(
        0.999,
        "decay of the mean squared gradient in Adam's kin and muon's Adam",
        low=0.0,
        high=0.999999,
    )
    adam_epsilon: float = flag(
        1e-8,
        "constant added to the root of the mean squared gradient in adam, adamw, nadam and "
        "schedule_free",
        low=1e-30,
        high=1.0,
    )
    plateau_epochs: int = flag(5, "epochs that --schedule=plateau waits", low=1, high=1e6)
    weight_decay: float = flag(
        0.0,
        "decoupled, on kernels only; lamb and lars scale it by their trust ratio, as their papers",
        low=0.0,
        high=1.0,
    )
    l1: float = flag(0.0, "times the sum of |w| of kernels, added to the loss", low=0.0, high=1e6)
    l2: float = flag(
        0.0, "times half the sum of w**2 of kernels; with --l1: elastic net", low=0.0, high=1e6
    )
    clip_norm: float = flag(float("inf"), "greatest global norm of the gradient", low=1e-9)
    clip_value: float = flag(float("inf"), "greatest size of its entries", low=1e-9)
    clip_adaptive: float = flag(
        float("inf"), "greatest norm of a unit's gradient, as a share of its weights'", low=1e-9
    )
    ema_decay: float = flag(
        0.0,
        "of an average of the parameters, evaluated in their place; 0: none",
        low=0.0,
        high=0.999999,
    )
    accumulate: int = flag(
        1,
        "equal parts of a batch, one after the other in memory, with one update; batch norm's "
        "statistics are then those of each part",
        low=1,
    )

    parallel: str = flag(
        "jit",
        "jit: the compiler spreads a step over the devices; pmap: each makes the gradient of its "
        "share of the batch, and these are summed",
        choices=("jit", "pmap"),
    )

    def validate(self) -> None:
        """Refuses parts of a batch that are not equal, what pmap does not do, and a division by 0.

        Raises:
          UserError: --accumulate does not divide --batch_size; --parallel=pmap with a state that is
            split; schedule_free with hardly any momentum.
        """
        super().validate()
        if self.optimizer == "schedule_free" and self.momentum < 1e-3:
            raise UserError(
                f"--momentum={self.momentum} with --optimizer=schedule_free, which divides by it: "
                "give one of at least 0.001"
            )
        if self.parallel == "pmap" and (self.fsdp or sharding.MODEL in self.mesh):
            raise UserError(
                "--parallel=pmap keeps the whole state on each device: leave out --fsdp and the "
                "mesh's model axis, or give --parallel=jit"
            )
        if self.accumulate < 1 or self.batch_size % self.accumulate:
            raise UserError(
                f"--accumulate={self.accumulate} does not divide --batch_size={self.batch_size}: "
                "give one that does"
            )


class TrainState(NamedTuple):
    """The state of supervised learning."""

    step: jax.Array  # int32 scalar: updates made
    key: Key
    params: Any
    model_state: Any  # the model's other collections, such as running statistics
    opt_state: Any
    average: Any  # (params, model_state) to evaluate in the place of the last; None: there is none


class Model(Protocol):
    """The two functions of a Linen module that `supervised` calls."""

    def init(self, rngs: Any, x: jax.Array, *, train: bool) -> Any: ...  # noqa: D102
    def apply(self, variables: Any, *inputs: Any, **kwargs: Any) -> Any: ...  # noqa: D102


class Views(NamedTuple):
    """A model whose outputs, but in training, are a mean of those for several views of its inputs.

    Called with any option beside `train`, it is the model itself.

    Attributes:
      model: what is trained, and sees each view.
      views: x [B, ...] -> pairs of a weight and a view of x, such as `augment.views`.
    """

    model: Model
    views: Callable[[jax.Array], list[tuple[float, jax.Array]]]

    def init(self, rngs: Any, x: jax.Array, *, train: bool) -> Any:  # noqa: D102
        return self.model.init(rngs, x, train=train)

    def apply(self, variables: Any, x: jax.Array, **kwargs: Any) -> Any:  # noqa: D102
        if kwargs != {"train": False}:
            return self.model.apply(variables, x, **kwargs)
        return sum(w * self.model.apply(variables, view, **kwargs) for w, view in self.views(x))


def schedule(config: SupervisedConfig, examples: int) -> optax.Schedule:
    """The schedule that the flags describe: step -> factor of the peak rate.

    Args:
      config: the flags.
      examples: of the training split.
    """
    total = config.total_steps(examples)
    warmup: Any = config.warmup_steps and min(config.warmup_steps, total // 2)
    if not warmup and not optim.is_static(config.warmup_epochs, 0):
        warmup = jnp.round(config.warmup_epochs * config.steps_per_epoch(examples))
        warmup = jnp.minimum(warmup, total // 2)
    name = "constant" if config.schedule == "plateau" else config.schedule
    return schedules.schedule(name, total, warmup)


def optimizer(config: SupervisedConfig, examples: int) -> optax.GradientTransformationExtraArgs:
    """The optimizer that the flags describe, for a training split of so many examples."""
    plateau = None
    if config.schedule == "plateau":
        plateau = contrib.reduce_on_plateau(
            patience=config.plateau_epochs, accumulation_size=config.steps_per_epoch(examples)
        )
    return optim.optimizer(
        config.optimizer,
        config.learning_rate,
        schedule(config, examples),
        momentum=config.momentum,
        adam_b2=config.adam_b2,
        adam_epsilon=config.adam_epsilon,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
        clip_value=config.clip_value,
        clip_adaptive=config.clip_adaptive,
        plateau=plateau,
    )


def penalty(config: SupervisedConfig) -> Callable[[optax.Params], jax.Array]:
    """Penalty that --l1 and --l2 add to the loss."""
    return lambda params: regularizers.elastic_net(params, config.l1, config.l2)


# Long: closures over the model, the loss and the optimizer that it is given.
def supervised(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    loss: Callable[[Any, Batch], jax.Array],
    measure: Callable[[Any, Batch], Metrics],
    example: Any,
    preprocess: Callable[[Batch], Batch] = lambda batch: batch,
    prepare: Callable[[Batch], Any] | None = None,
    finish: Callable[[Any], Outputs] = lambda outputs: outputs,
    augment: Callable[[Key, Batch], Batch] = lambda key, batch: batch,
    measure_train: Callable[[Any, Batch], Metrics] | None = None,
    inputs: str = "image",
    penalty: Callable[[optax.Params], jax.Array] = lambda params: jnp.zeros(()),
    ema_decay: Rate = 0.0,
    learning_rate: Callable[[Any], jax.Array] | None = None,
    accumulate: int = 1,
    across: Callable[[sharding.Gradient], sharding.Gradient] = lambda gradient: gradient,
) -> Task:
    """A task that fits a model's outputs to its batches.

    Args:
      model: called as `model(batch[inputs], train=...)`, with a `dropout` key while training; its
        inputs may be several arrays in one tuple.
      optimizer: gradient -> update; it is given the mean loss as `value`.
      loss: (outputs, batch) -> [B], per example; its masked mean is what the gradient is of. Where
        `preprocess` gives the batch a mask [B, T], the loss is [B, T], such as that of each token.
      measure: (outputs, batch) -> metrics of evaluation, beside the loss.
      example: one batch of the right shapes, of any size, such as `DataSpec.example`; only shapes
        are used.
      preprocess: applied to every batch, in training and evaluation.
      prepare: batch -> the model's inputs, for `predict`; None: `preprocess(batch)[inputs]`.
      finish: the model's outputs -> those of `predict`.
      augment: applied before it, in training only.
      measure_train: like `measure`, for training; None: the same.
      inputs: the entry of the batch that the model is given.
      penalty: params -> scalar, added to the loss for the gradient; the metrics have the loss
        alone.
      ema_decay: of the average of parameters and running statistics that is evaluated in their
        place, see `regularizers.moving_average`; 0: the last ones are, or schedule_free's average.
      learning_rate: optimizer's state -> rate of its last update, such as `optim.learning_rate`, to
        be among the metrics of training.
      accumulate: parts of a batch whose gradients are added up before the one update. The update is
        that of the whole batch, to rounding, but for what looks over examples (batch norm sees a
        part at a time) and dropout, which is drawn for each part.
      across: how a gradient is made on several devices, such as `sharding.on_each_device`; else
        the compiler decides.

    Raises:
      UserError: the model takes no `train`; in `step` and `evaluate`: the loss has another shape
        than the mask.
    """
    _check_model(model)
    measure_train = measure_train or measure
    optimizer = optax.with_extra_args_support(optimizer)
    averages = not optim.is_static(ema_decay, 0)

    def init(key: Key) -> TrainState:
        key, params_key = jax.random.split(key)
        shaped = preprocess(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), example))
        if inputs not in shaped:
            raise UserError(
                f"inputs={inputs!r}: a batch has {', '.join(shaped)}: name one of these"
            )
        variables = dict(model.init({"params": params_key}, shaped[inputs], train=False))
        params = variables.pop("params")
        # A copy: the compiled step gives away its state's buffers, each of them once.
        average = jax.tree.map(jnp.copy, (params, variables)) if averages else None
        return TrainState(jnp.int32(0), key, params, variables, optimizer.init(params), average)

    def apply(params: Any, model_state: Any, x: jax.Array, key: Key) -> Any:
        return model.apply(
            {"params": params, **model_state},
            x,
            train=True,
            mutable=list(model_state),
            rngs={"dropout": key},
        )

    def mean_loss(outputs: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        each, mask = loss(outputs, batch), batch["mask"]
        if each.shape != mask.shape:
            raise UserError(
                f"the loss has the shape {each.shape} for a mask of {mask.shape}: give one number "
                "for each of its entries"
            )
        return metrics.mean(each, mask)

    def objective(params: Any, model_state: Any, part: Batch, key: Key, examples: jax.Array) -> Any:
        """The part's share of the mean loss of a batch of so many examples."""
        outputs, model_state = apply(params, model_state, part[inputs], key)
        total, count = mean_loss(outputs, part)
        found = {"loss": (total, count), **measure_train(outputs, part)}
        share = count / examples
        return total / examples + penalty(params) * share, (dict(model_state), found)

    differentiate = jax.grad(objective, has_aux=True)
    if accumulate > 1:
        differentiate = _added_up(differentiate, accumulate)
    differentiate = across(differentiate)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        augment_key, dropout_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        batch = preprocess(augment(augment_key, batch))
        examples = jnp.sum(batch["mask"])

        gradient, (model_state, found) = differentiate(
            state.params, state.model_state, batch, dropout_key, examples
        )
        total, count = found["loss"]
        updates, opt_state = optimizer.update(
            gradient, state.opt_state, state.params, value=total / count
        )
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if averages:
            new = optim.evaluated(opt_state, params), model_state
            average = regularizers.moving_average(average, new, ema_decay, state.step)
        new_state = TrainState(state.step + 1, state.key, params, model_state, opt_state, average)
        found |= {"gradient_norm": metrics.scalar(optax.tree.norm(gradient))}
        if learning_rate is not None:
            found |= {"learning_rate": metrics.scalar(learning_rate(opt_state))}
        return new_state, found

    def apply_trained(state: TrainState, *inputs: Any, **options: Any) -> Any:
        train = {} if "method" in options else {"train": False}
        return model.apply(evaluated(state), *inputs, **train, **options)

    def evaluate(state: TrainState, batch: Batch) -> Metrics:
        batch = preprocess(batch)
        outputs = apply_trained(state, batch[inputs])
        return {"loss": mean_loss(outputs, batch), **measure(outputs, batch)}

    def preprocessed(batch: Batch) -> Any:
        return preprocess(batch)[inputs]

    return Task(init, step, evaluate, Predict(prepare or preprocessed, apply_trained, finish))


def _check_model(model: Model) -> None:
    """Refuses early a model that cannot be called as `supervised` calls it.

    Raises:
      UserError: it takes no `train`.
    """
    if isinstance(model, Views):
        _check_model(model.model)
    elif (call := getattr(type(model), "__call__", None)) is not None:  # noqa: B004
        taken = inspect.signature(call).parameters.values()
        if not any(p.name == "train" or p.kind is p.VAR_KEYWORD for p in taken):
            raise UserError(
                f"{type(model).__name__}.__call__ takes no `train`, by which dropout and running "
                "statistics know training from evaluation: define `__call__(self, x, *, train)`"
            )


def configured(
    config: SupervisedConfig,
    model: Model,
    spec: DataSpec,
    *,
    loss: Callable[[Any, Batch], jax.Array],
    measure: Callable[[Any, Batch], Metrics],
    **rest: Any,
) -> Task:
    """`supervised`, with the optimizer and the regularisation that the flags describe.

    Args:
      config: the flags.
      model: what is fitted.
      spec: of the data.
      loss: see `supervised`, as for `measure`.
      measure: of evaluation.
      rest: `preprocess`, `prepare`, `finish`, `augment`, `measure_train` and `inputs` of
        `supervised`.

    Raises:
      UserError: parts of a batch that are not equal.
    """
    across: dict[str, Any] = {}
    if config.parallel == "pmap":
        mesh = sharding.mesh(config)
        across["across"] = functools.partial(sharding.on_each_device, mesh=mesh)
        if (config.batch_size // mesh.size) % config.accumulate:
            raise UserError(
                f"--accumulate={config.accumulate} does not divide a device's share of "
                f"--batch_size={config.batch_size} on {mesh.size} devices: give one that does"
            )
    peak, factor = config.learning_rate, schedule(config, spec.num_train)
    return supervised(
        model,
        optimizer(config, spec.num_train),
        loss=loss,
        measure=measure,
        example=spec.example(),
        penalty=penalty(config),
        ema_decay=config.ema_decay,
        learning_rate=lambda opt_state: optim.learning_rate(opt_state, peak, factor),
        accumulate=config.accumulate,
        **across,
        **rest,
    )


def _added_up(differentiate: sharding.Gradient, parts: int) -> sharding.Gradient:
    """The sum of the gradients of a batch's parts, the model's state after all, and all metrics."""

    def whole(params: Any, model_state: Any, batch: Batch, key: Key, examples: jax.Array) -> Any:
        # Every device has its share of each part: example i is in part i % parts.
        split = jax.tree.map(lambda a: a.reshape(-1, parts, *a.shape[1:]).swapaxes(0, 1), batch)

        def one(
            now: tuple[Any, Any], given: tuple[Batch, jax.Array]
        ) -> tuple[tuple[Any, Any], Metrics]:
            part, number = given
            gradient, model_state = now
            more, (model_state, found) = differentiate(
                params, model_state, part, jax.random.fold_in(key, number), examples
            )
            return (jax.tree.map(jnp.add, gradient, more), model_state), found

        start = jax.tree.map(jnp.zeros_like, params), model_state
        (gradient, model_state), found = jax.lax.scan(one, start, (split, jnp.arange(parts)))
        return gradient, (model_state, jax.tree.map(lambda a: jnp.sum(a, axis=0), found))

    return whole


def evaluated(state: TrainState) -> dict[str, Any]:
    """The variables that a state is evaluated by: its average's, where it has one."""
    if state.average is None:
        params, model_state = optim.evaluated(state.opt_state, state.params), state.model_state
    else:
        params, model_state = state.average
    return {"params": params, **model_state}


def classification(outputs: jax.Array, batch: Batch) -> Metrics:
    """Accuracy of logits [B, C], for `supervised`'s measures."""
    correct = metrics.correct(outputs, batch["label"])
    return {"accuracy": metrics.mean(correct, batch["mask"])}
