"""Monte Carlo dropout (Gal & Ghahramani, 2016): predictions with dropout left on.

Shapes: S samples, B examples, K classes.
"""

from typing import NamedTuple

import jax
import numpy as np

from jaxdl.analysis import ensemble
from jaxdl.nn.interception import active_dropout
from jaxdl.task import Key, Outputs, Predict, State


def samples(predict: Predict, state: State, inputs: jax.Array, key: Key, count: int) -> Outputs:
    """Outputs [S, B, ...] of a Flax model under S draws of its dropout masks.

    Args:
      predict: the model.
      state: state of the task.
      inputs: normalised inputs, of `predict.prepare`.
      key: PRNG key of all draws.
      count: number of samples, S.
    """

    def sample(key: Key) -> Outputs:
        with active_dropout():
            return predict.finish(predict.apply(state, inputs, rngs={"dropout": key}))

    return jax.lax.map(sample, jax.random.split(key, count))


class Uncertainty(NamedTuple):
    """Uncertainty of the mean prediction of several samples.

    Attributes:
      log_p: logarithm of the mean probabilities, [B, K].
      entropy: entropy of the mean probabilities in nats, [B].
      information: mutual information of prediction and parameters in nats, [B]: the part of the
        entropy on which the samples disagree (Houlsby et al., 2011).
    """

    log_p: np.ndarray
    entropy: np.ndarray
    information: np.ndarray


def uncertainty(logits: np.ndarray) -> Uncertainty:
    """Uncertainty of exclusive classes.

    Args:
      logits: logits of all samples, [S, B, K] or [S, B, 1].
    """
    log_p = np.stack([ensemble.log_probabilities(one, "logits") for one in logits])
    mean = ensemble.average(list(log_p), "logits")
    entropy = _entropy(mean)
    return Uncertainty(mean, entropy, entropy - np.mean([_entropy(one) for one in log_p], axis=0))


def _entropy(log_p: np.ndarray) -> np.ndarray:
    p = np.exp(log_p)
    return -np.sum(np.where(p > 0, p * log_p, 0), axis=-1)
