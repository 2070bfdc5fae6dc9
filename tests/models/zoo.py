"""All models in their smallest forms, and inputs for them."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.models import airbench, resnet, vgg
from jaxdl.models.actor_critic import ActorCritic
from jaxdl.models.airbench import Airbench, whiten
from jaxdl.models.cnn import CNN
from jaxdl.models.dcgan import Discriminator, Generator
from jaxdl.models.lenet import LeNet5
from jaxdl.models.mlp import MLP
from jaxdl.models.resnet import ResNet
from jaxdl.models.rnn_classifier import SequenceClassifier
from jaxdl.models.rnn_lm import RecurrentLanguageModel
from jaxdl.models.seq2seq import ATTENTIONS, Seq2Seq
from jaxdl.models.series import Forecaster, Reconstructor
from jaxdl.models.tabular import TabularMLP
from jaxdl.models.transformer_lm import LanguageModel
from jaxdl.models.translator import Translator
from jaxdl.models.vae import VAE, Autoencoder
from jaxdl.models.vgg import VGG
from jaxdl.models.vit import ViT
from jaxdl.nn.cells import CELLS
from jaxdl.nn.norm import NORMS

V = 7  # tokens; 0 is padding
BLOCKS = {"vocabulary": V, "layers": 1, "heads": 2, "features": 4, "hidden": 6, "length": 5}


class Case(NamedTuple):
    """Model, its options, and the shapes of its inputs without the axis of examples.

    Inputs with one axis are tokens, for the models in OF_TOKENS.
    """

    model: type
    options: dict[str, Any]
    shapes: tuple[tuple[int, ...], ...]


def images(size: int, channels: int) -> tuple[tuple[int, ...], ...]:
    return ((size, size, channels),)


WHITENING = whiten(np.random.RandomState(0).normal(size=(4, 9, 9, 1)).astype(np.float32))
CLASSES = {"num_classes": 3}
SMALL = {"hidden": (4,)}
CASES = {
    "mlp": Case(MLP, SMALL | {"outputs": 3, "norm": NORMS["batch"]}, ((5,),)),
    "tabular": Case(TabularMLP, SMALL | {"outputs": 3, "numeric": 2, "members": 2}, ((5,),)),
    "tabular_periodic": Case(
        TabularMLP, SMALL | {"outputs": 3, "numeric": 5, "members": 2, "features": 2}, ((5,),)
    ),
    "agent": Case(ActorCritic, SMALL | {"actions": 2}, ((5,),)),
    "lenet": Case(LeNet5, CLASSES, images(12, 1)),
    "cnn": Case(CNN, CLASSES | {"channels": (2, 3), "hidden": 4}, images(5, 1)),
    "vgg": Case(
        VGG,
        CLASSES | {"depth": 11, "width_multiplier": 0.02, "norm": NORMS["layer"]},
        images(32, 1),
    ),
    "resnet": Case(ResNet, CLASSES | {"width_multiplier": 0.02}, images(16, 1)),
    "airbench": Case(
        Airbench, CLASSES | {"whitening": WHITENING, "width_multiplier": 0.05}, images(9, 1)
    ),
    "vit": Case(
        ViT,
        CLASSES | {"patch": 2, "layers": 1, "heads": 2, "features": 4, "hidden": 6},
        images(4, 1),
    ),
    "generator": Case(Generator, {"size": 4, "channels": 1, "width": 2, "hidden": 4}, ((3,),)),
    "discriminator": Case(Discriminator, {"width": 2, "hidden": 4}, images(4, 1)),
    "autoencoder": Case(Autoencoder, SMALL | {"shape": (3, 3, 1), "latents": 2}, images(3, 1)),
    "vae": Case(VAE, SMALL | {"shape": (3, 3, 1), "latents": 2}, (*images(3, 1), (2,))),
    **{
        f"forecast_{objective}": Case(
            Forecaster,
            {"outputs": 2, "length": 4, "horizon": 2, "features": 4, "cell": cell, "heads": 2}
            | {"linear": ((0.9, 0.7), (0.1, 0.0)), "scale": (0.5, 1.0), "objective": objective},
            ((6, 2), (6, 2)),
        )
        for objective, cell in (("one_step", "lstm"), ("free_run", "gru"), ("direct", "rnn"))
    },
    "reconstructor": Case(
        Reconstructor, {"outputs": 2, "features": 4, "keep": True}, ((5, 2), (5, 2))
    ),
    "transformer": Case(LanguageModel, BLOCKS, ((5,),)),
    "translator": Case(Translator, BLOCKS, ((4,), (5,))),
    **{
        f"classifier_{cell}": Case(
            SequenceClassifier,
            CLASSES
            | {"vocabulary": V, "embedding": 4, "cell": cell, "features": 3}
            | {"bidirectional": cell == "rnn"},
            ((5,),),
        )
        for cell in CELLS
    },
    "language": Case(
        RecurrentLanguageModel, {"vocabulary": V, "cell": "gru", "features": 4}, ((5,),)
    ),
    **{
        attention: Case(
            Seq2Seq,
            {"vocabulary": V, "cell": cell, "features": 4, "attention": attention},
            ((4,), (3,)),
        )
        for attention, cell in zip(ATTENTIONS, ("gru", "rnn"), strict=True)
    },
}
OF_TOKENS = (LanguageModel, Translator, SequenceClassifier, RecurrentLanguageModel, Seq2Seq)


def inputs(case: Case, examples: int, seed: int = 0) -> Any:
    """Returns random inputs of so many examples: one array, or a tuple of arrays."""
    random = np.random.RandomState(seed)
    arrays = []
    for shape in ((examples, *shape) for shape in case.shapes):
        if case.model in OF_TOKENS:
            # Sequences of different lengths, padded with 0.
            rows = random.randint(1, V, shape)
            lengths = random.randint(1, shape[1] + 1, (examples, 1))
            arrays.append(np.where(np.arange(shape[1]) < lengths, rows, 0).astype(np.int32))
        else:
            arrays.append(random.normal(size=shape).astype(np.float32))
    return arrays[0] if len(arrays) == 1 else tuple(arrays)


def built(name: str, dtype: str) -> tuple[Any, dict[str, Any]]:
    """Returns a model and random variables; initialising it would need a compilation."""
    case = CASES[name]
    model = case.model(**case.options, dtype=dtype)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), inputs(case, 2), **told(case)))
    random = np.random.RandomState(1)

    def draw(path: Any, like: jax.ShapeDtypeStruct) -> jax.Array:
        kind = path[-1].key
        if kind == "whitening":
            return jnp.asarray(WHITENING)
        scale = math.prod(like.shape[:-1]) ** -0.5 if len(like.shape) > 1 else 0.1
        centre = 1.0 if kind in ("scale", "var") else 0.0
        return jnp.asarray(centre + scale * random.normal(size=like.shape), like.dtype)

    return model, jax.tree_util.tree_map_with_path(draw, shapes)


def told(case: Case) -> dict[str, bool]:
    """Returns the options of a call besides its inputs."""
    return {} if case.model is ActorCritic else {"train": False}


def make_shallow(monkeypatch: Any) -> None:
    """Cuts deep networks to as many layers as differ: their derivatives take seconds to compile."""
    monkeypatch.setattr(vgg, "WIDTHS", (64, 128))
    monkeypatch.setitem(vgg.CONVOLUTIONS, 11, (1, 1))
    monkeypatch.setattr(resnet, "WIDTHS", (64, 128))
    monkeypatch.setitem(resnet.BLOCKS, 18, (0, 1))
    monkeypatch.setattr(airbench, "WIDTHS", (64,))
