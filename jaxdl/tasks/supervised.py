"""Supervised learning: a task from a model, a loss and an optimizer, and the flags that it has.

Shapes: B examples.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from jaxdl import metrics, optim, regularizers
from jaxdl.distributed import sharding
from jaxdl.errors import UserError
from jaxdl.metrics import Metrics
from jaxdl.optim import Rate
from jaxdl.task import Batch, Key, Outputs, Predict, Task
from jaxdl.tasks.accumulation import accumulate_gradients


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


# Long: closures over the model, the loss and the optimizer that it is given.
def supervised(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    loss: Callable[[Any, Batch], jax.Array],
    metrics_fn: Callable[[Any, Batch], Metrics],
    example: Any,
    preprocess: Callable[[Batch], Batch] = lambda batch: batch,
    prepare: Callable[[Batch], Any] | None = None,
    finish: Callable[[Any], Outputs] = lambda outputs: outputs,
    augment: Callable[[Key, Batch], Batch] = lambda key, batch: batch,
    train_metrics_fn: Callable[[Any, Batch], Metrics] | None = None,
    inputs: str = "image",
    penalty: Callable[[optax.Params], jax.Array] = lambda params: jnp.zeros(()),
    ema_decay: Rate = 0.0,
    learning_rate: Callable[[Any], jax.Array] | None = None,
    accumulate: int = 1,
    reduce_gradient: Callable[[sharding.Gradient], sharding.Gradient] = lambda gradient: gradient,
) -> Task:
    """A task that fits a model's outputs to its batches.

    Args:
      model: called as `model(batch[inputs], train=...)`, with a `dropout` key while training; its
        inputs may be several arrays in one tuple.
      optimizer: gradient -> update; it is given the mean loss as `value`.
      loss: (outputs, batch) -> [B], per example; its masked mean is what the gradient is of. Where
        `preprocess` gives the batch a mask [B, T], the loss is [B, T], such as that of each token.
      metrics_fn: (outputs, batch) -> metrics of evaluation, beside the loss.
      example: one batch of the right shapes, of any size, such as `DataSpec.example`; only shapes
        are used.
      preprocess: applied to every batch, in training and evaluation.
      prepare: batch -> the model's inputs, for `predict`; None: `preprocess(batch)[inputs]`.
      finish: the model's outputs -> those of `predict`.
      augment: applied before it, in training only.
      train_metrics_fn: like `metrics_fn`, for training; None: the same.
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
      reduce_gradient: computes a gradient on several devices, such as `sharding.on_each_device`;
        by default the compiler places the sums.

    Raises:
      UserError: the model takes no `train`; in `step` and `evaluate`: the loss has another shape
        than the mask.
    """
    _check_model(model)
    train_metrics_fn = train_metrics_fn or metrics_fn
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
        found = {"loss": (total, count), **train_metrics_fn(outputs, part)}
        share = count / examples
        return total / examples + penalty(params) * share, (dict(model_state), found)

    differentiate = jax.grad(objective, has_aux=True)
    if accumulate > 1:
        differentiate = accumulate_gradients(differentiate, accumulate)
    differentiate = reduce_gradient(differentiate)

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
            new = optim.eval_params(opt_state, params), model_state
            average = regularizers.moving_average(average, new, ema_decay, state.step)
        new_state = TrainState(state.step + 1, state.key, params, model_state, opt_state, average)
        found |= {"gradient_norm": metrics.scalar(optax.tree.norm(gradient))}
        if learning_rate is not None:
            found |= {"learning_rate": metrics.scalar(learning_rate(opt_state))}
        return new_state, found

    def apply_trained(state: TrainState, *inputs: Any, **options: Any) -> Any:
        train = {} if "method" in options else {"train": False}
        return model.apply(eval_variables(state), *inputs, **train, **options)

    def evaluate(state: TrainState, batch: Batch) -> Metrics:
        batch = preprocess(batch)
        outputs = apply_trained(state, batch[inputs])
        return {"loss": mean_loss(outputs, batch), **metrics_fn(outputs, batch)}

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


def eval_variables(state: TrainState) -> dict[str, Any]:
    """The variables that a state is evaluated by: its average's, where it has one."""
    if state.average is None:
        params, model_state = optim.eval_params(state.opt_state, state.params), state.model_state
    else:
        params, model_state = state.average
    return {"params": params, **model_state}


def classification(outputs: jax.Array, batch: Batch) -> Metrics:
    """Accuracy of logits [B, C], for `supervised`'s measures."""
    correct = metrics.correct(outputs, batch["label"])
    return {"accuracy": metrics.mean(correct, batch["mask"])}
