"""A task is three pure functions of one state; `supervised` makes one from model, loss, optimizer.

Shapes: B examples.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from jaxdl import metrics
from jaxdl.metrics import Metrics

Key = jax.Array
Batch = dict[str, jax.Array]  # arrays with a leading axis B, and `mask` [B]: 0 marks padding
State = Any  # a pytree of arrays that carries `step` (int32 scalar) and `key`


class Task(NamedTuple):
    """What an experiment is, whatever it trains. Nothing but fold_in(key, step) is random."""

    init: Callable[[Key], State]
    step: Callable[[State, Batch], tuple[State, Metrics]]
    evaluate: Callable[[State, Batch], Metrics]


class TrainState(NamedTuple):
    """The state of supervised learning."""

    step: jax.Array  # int32 scalar: updates made
    key: Key
    params: Any
    model_state: Any  # the model's other collections, such as running statistics
    opt_state: Any


class Model(Protocol):
    """What `supervised` asks of a model: the two functions of a Linen module."""

    def init(self, rngs: Any, x: jax.Array, *, train: bool) -> Any: ...  # noqa: D102
    def apply(self, variables: Any, x: jax.Array, **kwargs: Any) -> Any: ...  # noqa: D102


def supervised(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    loss: Callable[[jax.Array, Batch], jax.Array],
    measure: Callable[[jax.Array, Batch], Metrics],
    example: Batch,
    preprocess: Callable[[Batch], Batch] = lambda batch: batch,
    augment: Callable[[Key, Batch], Batch] = lambda key, batch: batch,
    measure_train: Callable[[jax.Array, Batch], Metrics] | None = None,
    inputs: str = "image",
) -> Task:
    """A task that fits a model's outputs to its batches.

    Args:
      model: called as `model(batch[inputs], train=...)`, with a `dropout` key while training.
      optimizer: gradient -> update.
      loss: (outputs, batch) -> [B], per example; its masked mean is what the gradient is of.
      measure: (outputs, batch) -> metrics of evaluation, beside the loss.
      example: one batch of the right shapes, of any size; only shapes are used.
      preprocess: applied to every batch, in training and evaluation.
      augment: applied before it, in training only.
      measure_train: like `measure`, for training; None: the same.
      inputs: the entry of the batch that the model is given.
    """
    measure_train = measure_train or measure

    def init(key: Key) -> TrainState:
        key, params_key = jax.random.split(key)
        shaped = preprocess(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), example))
        variables = dict(model.init({"params": params_key}, shaped[inputs], train=False))
        params = variables.pop("params")
        return TrainState(jnp.int32(0), key, params, variables, optimizer.init(params))

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        augment_key, dropout_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        batch = preprocess(augment(augment_key, batch))

        def objective(params: Any) -> tuple[jax.Array, Any]:
            outputs, model_state = model.apply(
                {"params": params, **state.model_state},
                batch[inputs],
                train=True,
                mutable=list(state.model_state),
                rngs={"dropout": dropout_key},
            )
            total, count = metrics.mean(loss(outputs, batch), batch["mask"])
            return total / count, (model_state, outputs, (total, count))

        gradient, aux = jax.grad(objective, has_aux=True)(state.params)
        model_state, outputs, mean_loss = aux
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        new_state = TrainState(state.step + 1, state.key, params, dict(model_state), opt_state)
        return new_state, {
            "loss": mean_loss,
            **measure_train(outputs, batch),
            "gradient_norm": metrics.scalar(optax.tree.norm(gradient)),
        }

    def evaluate(state: TrainState, batch: Batch) -> Metrics:
        batch = preprocess(batch)
        variables = {"params": state.params, **state.model_state}
        outputs = model.apply(variables, batch[inputs], train=False)
        mean_loss = metrics.mean(loss(outputs, batch), batch["mask"])
        return {"loss": mean_loss, **measure(outputs, batch)}

    return Task(init, step, evaluate)


def classification(outputs: jax.Array, batch: Batch) -> Metrics:
    """Accuracy of logits [B, C], for `supervised`'s measures."""
    correct = metrics.correct(outputs, batch["label"])
    return {"accuracy": metrics.mean(correct, batch["mask"])}
