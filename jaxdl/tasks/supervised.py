"""Supervised learning: a task from a model, a loss and an optimizer.

Shapes: B examples.
"""

import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from jaxdl import hyperparameters, metrics, optim, parameter_groups, regularizers
from jaxdl.distributed import sharding
from jaxdl.errors import UserError
from jaxdl.hyperparameters import Rate
from jaxdl.metrics import Metrics
from jaxdl.nn.norm import frozen_statistics
from jaxdl.parameter_groups import ONE_GROUP, Groups
from jaxdl.task import Batch, Key, Outputs, Predict, Task
from jaxdl.tasks.accumulation import accumulate_gradients
from jaxdl.tasks.adversarial_training import Attack, attacked_gradient


class TrainState(NamedTuple):
    """State of supervised learning.

    Attributes:
      step: number of updates so far, an int32 scalar.
      key: PRNG key; step n uses fold_in(key, n).
      params: trained parameters.
      model_state: the model's other variable collections, such as running statistics.
      opt_state: state of the optimizer.
      average: moving average of (params, model_state), evaluated in their place; None without one.
    """

    step: jax.Array
    key: Key
    params: optax.Params
    model_state: Any
    opt_state: optax.OptState
    average: Any


class Model(Protocol):
    """The two functions of a Linen module that `supervised` calls."""

    def init(self, rngs: Any, x: jax.Array, *, train: bool) -> Any: ...  # noqa: D102
    def apply(self, variables: Any, *inputs: Any, **kwargs: Any) -> Any: ...  # noqa: D102


class Views(NamedTuple):
    """A model with test-time augmentation: in evaluation, it averages its outputs over views.

    In training, and when called with options other than `train`, it is the model itself.

    Attributes:
      model: the model that is trained and applied to each view.
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


# Long: the functions of the task are closures over the model, the loss and the optimizer.
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
    kind: str = "array",
    augment: Callable[[Key, Batch], Batch] = lambda key, batch: batch,
    attack: Attack | None = None,
    train_metrics_fn: Callable[[Any, Batch], Metrics] | None = None,
    inputs: str = "image",
    penalty: Callable[[optax.Params], jax.Array] = lambda params: jnp.zeros(()),
    ema_decay: Rate = 0.0,
    learning_rate: Callable[[Any], jax.Array] | None = None,
    accumulate: int = 1,
    groups: Groups = ONE_GROUP,
    reduce_gradient: Callable[[sharding.Gradient], sharding.Gradient] = lambda gradient: gradient,
) -> Task:
    """Builds a supervised task.

    Args:
      model: called as `model(batch[inputs], train=...)`, with a `dropout` key in training; its
        inputs may be a tuple of arrays.
      optimizer: optax optimizer; its `update` gets the mean loss as `value`.
      loss: (outputs, batch) -> loss per example [B]; the gradient is that of its masked mean. If
        `preprocess` gives the batch a mask [B, T], the loss is [B, T], such as one per token.
      metrics_fn: (outputs, batch) -> metrics of evaluation, in addition to the loss.
      example: a batch with the right shapes and any batch size, such as `DataSpec.example`; only
        its shapes are used.
      preprocess: batch -> batch, applied in training and evaluation.
      prepare: batch -> the model's inputs, for `predict`; None: `preprocess(batch)[inputs]`.
      finish: the model's outputs -> the outputs of `predict`.
      kind: meaning of the outputs of `predict`, see `task.KINDS`.
      augment: (key, batch) -> batch, applied before `preprocess`, in training only.
      attack: attack on the inputs, applied after `augment` and before `preprocess` in training, so
        the training metrics are those of attacked inputs; see `adversarial_training`.
      train_metrics_fn: like `metrics_fn`, for training; None: the same metrics.
      inputs: name of the batch entry that is the model's input.
      penalty: params -> scalar, added to the loss in the gradient only; the logged loss is without
        it.
      ema_decay: decay of the moving average of parameters and running statistics that is evaluated
        in their place, see `regularizers.moving_average`. 0 disables it: evaluation then uses the
        current parameters, or schedule_free's average.
      learning_rate: optimizer state -> learning rate of its last update, for the training metrics,
        such as `optim.learning_rate`.
      accumulate: number of parts of a batch whose gradients are accumulated before one update. The
        update equals that of the whole batch, to rounding, except that batch normalisation sees
        one part at a time, and dropout draws a mask for each part.
      groups: frozen leaves of the model's variables. They keep every bit, the optimizer has no
        state for them, and their gradient is not computed. A batch normalisation with frozen
        running statistics normalises by them in training too.
      reduce_gradient: wraps the gradient function to run on several devices, such as
        `sharding.data_parallel`; by default the compiler inserts the sums over devices.

    Returns:
      A task with a `TrainState`.

    Raises:
      UserError: the model does not take `train`; in `step` and `evaluate`: the shapes of the loss
        and the mask differ.
    """
    _check_model(model)
    train_metrics_fn = train_metrics_fn or metrics_fn
    optimizer = optax.with_extra_args_support(optimizer)
    use_average = not hyperparameters.is_static(ema_decay, 0)

    def init(key: Key) -> TrainState:
        key, params_key = jax.random.split(key)
        batch = preprocess(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), example))
        if inputs not in batch:
            raise UserError(f"inputs={inputs!r}: a batch has {', '.join(batch)}: name one of these")
        variables = dict(model.init({"params": params_key}, batch[inputs], train=False))
        return begin(key, variables.pop("params"), variables)

    def begin(key: Key, params: optax.Params, model_state: Any) -> TrainState:
        groups.check(_named(params, model_state))
        # A copy: the compiled step donates the buffers of its state, and may donate each only once.
        average = jax.tree.map(jnp.copy, (params, model_state)) if use_average else None
        opt_state = optimizer.init(groups.split(params)[0])
        return TrainState(jnp.int32(0), key, params, model_state, opt_state, average)

    def with_variables(state: TrainState, leaves: Mapping[str, jax.Array]) -> TrainState:
        new = parameter_groups.unflatten(_named(state.params, state.model_state), leaves)
        return begin(state.key, *_join(new))

    def apply(params: optax.Params, model_state: Any, x: jax.Array, key: Key) -> Any:
        with frozen_statistics(groups.is_frozen) if groups.freeze else nullcontext():
            return model.apply(
                {"params": params, **model_state},
                x,
                train=True,
                mutable=list(model_state),
                rngs={"dropout": key},
            )

    def mean_loss(outputs: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        values, mask = loss(outputs, batch), batch["mask"]
        if values.shape != mask.shape:
            raise UserError(
                f"the loss has shape {values.shape}, but the mask has shape {mask.shape}: return "
                "one loss for each entry of the mask"
            )
        return metrics.mean(values, mask)

    def objective(
        trained: optax.Params, rest: Any, part: Batch, key: Key, examples: jax.Array
    ) -> Any:
        """Contribution of a part of a batch to the mean loss over all `examples` of the batch."""
        model_state, frozen = rest
        params = parameter_groups.merge(trained, frozen)
        outputs, model_state = apply(params, model_state, part[inputs], key)
        total, count = mean_loss(outputs, part)
        values = with_loss((total, count), train_metrics_fn(outputs, part))
        share = count / examples
        rest = dict(model_state), frozen
        return total / examples + penalty(trained) * share, (rest, values)

    differentiate, prepare_step = jax.grad(objective, has_aux=True), preprocess
    if attack:  # preprocesses what it has attacked
        differentiate = attacked_gradient(objective, attack, preprocess, inputs)
        prepare_step = lambda batch: batch  # noqa: E731
    if accumulate > 1:
        differentiate = accumulate_gradients(differentiate, accumulate)
    differentiate = reduce_gradient(differentiate)

    def differentiate_at(state: TrainState, batch: Batch) -> Any:
        augment_key, dropout_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        batch = prepare_step(augment(augment_key, batch))
        examples = jnp.sum(batch["mask"])
        trained, frozen = groups.split(state.params)
        return differentiate(trained, (state.model_state, frozen), batch, dropout_key, examples)

    def gradient_at(state: TrainState, batch: Batch) -> Any:
        return differentiate_at(state, batch)[0]

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        trained, frozen = groups.split(state.params)
        gradient, ((model_state, _), values) = differentiate_at(state, batch)
        model_state = groups.hold(model_state, state.model_state)
        total, count = values["loss"]
        updates, opt_state = optimizer.update(
            gradient, state.opt_state, trained, value=total / count
        )
        params = parameter_groups.merge(optax.apply_updates(trained, updates), frozen)
        average = state.average
        if use_average:
            new = optim.eval_params(opt_state, params), model_state
            average = regularizers.moving_average(average, new, ema_decay, state.step)
            average = _join(groups.hold(_named(*average), _named(*new)))
        new_state = TrainState(state.step + 1, state.key, params, model_state, opt_state, average)
        values |= {"gradient_norm": metrics.scalar(optax.tree.norm(gradient))}
        if learning_rate is not None:
            values |= {"learning_rate": metrics.scalar(learning_rate(opt_state))}
        return new_state, values

    def apply_eval(state: TrainState, *inputs: Any, **options: Any) -> Any:
        train = {} if "method" in options else {"train": False}
        return model.apply(eval_variables(state), *inputs, **train, **options)

    def evaluate(state: TrainState, batch: Batch) -> Metrics:
        batch = preprocess(batch)
        outputs = apply_eval(state, batch[inputs])
        return with_loss(mean_loss(outputs, batch), metrics_fn(outputs, batch))

    def model_input(batch: Batch) -> Any:
        return preprocess(batch)[inputs]

    predict = Predict(prepare or model_input, apply_eval, finish, kind=kind)
    return Task(init, step, evaluate, predict, with_variables, gradient_at)


def with_loss(loss: tuple[jax.Array, jax.Array], values: Metrics) -> Metrics:
    """Adds the loss to the metrics of a task.

    Raises:
      UserError: a metric has the name of one that is always logged.
    """
    taken = [name for name in ("loss", "gradient_norm", "learning_rate") if name in values]
    if taken:
        raise UserError(f"a metric is called {taken[0]!r}, which is logged anyway: rename it")
    return {"loss": loss, **values}


def _check_model(model: Model) -> None:
    """Checks that a model's `__call__` takes `train`.

    Raises:
      UserError: it does not.
    """
    if isinstance(model, Views):
        _check_model(model.model)
    elif (call := getattr(type(model), "__call__", None)) is not None:  # noqa: B004
        parameters = inspect.signature(call).parameters.values()
        if not any(p.name == "train" or p.kind is p.VAR_KEYWORD for p in parameters):
            raise UserError(
                f"{type(model).__name__}.__call__ takes no `train`, which switches dropout and "
                "running statistics to training: define `__call__(self, x, *, train)`"
            )


def eval_variables(state: TrainState) -> dict[str, Any]:
    """Returns the variables to evaluate: the moving average if there is one, else the last ones."""
    if state.average is None:
        params, model_state = optim.eval_params(state.opt_state, state.params), state.model_state
    else:
        params, model_state = state.average
    return {"params": params, **model_state}


def variables(state: TrainState) -> dict[str, Any]:
    """Returns the variables that are trained, by collection: `params`, `batch_stats`, ..."""
    return _named(state.params, state.model_state)


def with_average(state: TrainState, average: Mapping[str, Any]) -> TrainState:
    """Returns a state in which the given variables, by collection, are evaluated."""
    return state._replace(average=_join(average))


def _named(params: optax.Params, model_state: Any) -> dict[str, Any]:
    return {"params": params, **model_state}


def _join(variables: Mapping[str, Any]) -> tuple[optax.Params, dict[str, Any]]:
    return variables["params"], {k: v for k, v in variables.items() if k != "params"}


def accuracy_metrics(outputs: jax.Array, batch: Batch) -> Metrics:
    """Accuracy of logits [B, C], as a `metrics_fn` of `supervised`."""
    correct = metrics.correct(outputs, batch["label"])
    return {"accuracy": metrics.mean(correct, batch["mask"])}


def accuracy_and_confusion(logits: jax.Array, batch: Batch) -> metrics.Metrics:
    """Accuracy and confusion matrix of logits [B, K], as a `metrics_fn` of `supervised`."""
    confusion = metrics.confusion(logits, batch["label"], batch["mask"])
    return accuracy_metrics(logits, batch) | {"confusion": confusion}
