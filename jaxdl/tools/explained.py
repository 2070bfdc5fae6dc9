"""Explained model of `jaxdl analyze`: its score, baseline and positions, by the form of its inputs.

Images have pixels as positions, tables have columns, texts have tokens, whose embeddings stand for
them.

Shapes: B examples, F features of an input, P positions.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.analysis import attribution, attribution_checks, layers
from jaxdl.analysis.attribution import Score
from jaxdl.analysis.guided import guided
from jaxdl.errors import UserError
from jaxdl.export.inputs import IMAGE, ROW, TEXT
from jaxdl.task import State
from jaxdl.text.vocabulary import PAD
from jaxdl.tools.analysis_subject import Subject

STEPS = 256  # of integrated gradients
MOST_TEXTS = 8  # texts that are explained: a recurrent network takes long for each
SPREAD = 0.15  # noise of SmoothGrad, as a share of the range of the inputs
FITTED = 1000  # training rows whose median is the baseline of a table


def _smooth(score: Score, x: jax.Array) -> attribution.Smoothed:
    deviation = SPREAD * (jnp.max(x) - jnp.min(x))
    return attribution.smooth_gradients(score, x, jax.random.key(0), deviation)


def _integrated(score: Score, x: jax.Array, base: jax.Array) -> attribution.Integrated:
    return attribution.integrated_gradients(score, x, base, STEPS)


def _curves(score: Score, x: jax.Array, base: jax.Array, ranking: jax.Array) -> dict[str, Any]:
    return {
        name: attribution_checks.removal_curve(score, x, base, ranking, insert=name == "insertion")
        for name in ("deletion", "insertion")
    }


# Functions of (score, x) and, as the second entry says, of the baseline or also of masks.
METHODS: dict[str, tuple[Callable[..., Any], str]] = {
    "gradient": (attribution.gradient, ""),
    "gradient x input": (attribution.gradient_x_input, "base"),
    "SmoothGrad": (lambda score, x: _smooth(score, x).mean, ""),
    "VarGrad": (lambda score, x: _smooth(score, x).variance, ""),
    "guided": (lambda score, x: attribution.gradient(guided(score), x), ""),
    "occlusion": (attribution.ablation, "masks"),
    "integrated gradients": (_integrated, "base"),
}


@dataclasses.dataclass(frozen=True)
class Explained:
    """A model and the examples whose predictions are explained.

    Attributes:
      subject: the model and its data.
      batch: the examples, B.
      chosen: class that is explained for each example, int [B]; zeros for numbers.
    """

    subject: Subject
    batch: Mapping[str, np.ndarray]
    chosen: np.ndarray

    @functools.cached_property
    def inputs(self) -> Any:
        """Normalised inputs of the model."""
        return self.subject.inputs(self.batch)

    @functools.cached_property
    def layers(self) -> dict[str, Any]:
        """Shapes of the outputs of the model's layers."""
        return layers.shapes(self.subject.predict, self.subject.state, self.inputs)

    @functools.cached_property
    def embedding(self) -> str:
        """Path of the layer that embeds tokens, the first one; "" without tokens."""
        return next(iter(self.layers)) if self.subject.form == TEXT else ""

    @functools.cached_property
    def baseline(self) -> np.ndarray | float:
        """Input without content: a black image, the median row, or embeddings of zero."""
        if self.subject.form == TEXT:
            return 0.0
        if self.subject.form == IMAGE:
            black = {n: np.zeros_like(self.batch[n][:1]) for n in self.subject.model.inputs}
            return np.asarray(self.subject.inputs(black))
        train = self.subject.inputs(self.subject.batch("train", FITTED))
        return np.median(np.asarray(train), axis=0, keepdims=True)

    @functools.cached_property
    def groups(self) -> np.ndarray:
        """Position of each feature of a row or of each token, int."""
        if self.subject.form == TEXT:
            return np.arange(self.inputs.shape[1])
        (name,) = self.subject.model.inputs
        x, before = self.batch[name], np.asarray(self.inputs)
        groups = np.zeros(before.shape[1], int)
        for column in reversed(range(x.shape[1])):
            moved = x.copy()
            moved[:, column] = np.roll(x[:, column], 1)
            after = np.asarray(self.subject.inputs({**self.batch, name: moved}))
            groups[np.any(after != before, axis=0)] = column
        return groups

    def run(self, state: State, name: str, *arrays: Any) -> Any:
        """Calls a method or `curves` in a program that is compiled once.

        Args:
          state: state of the task, such as one with other weights.
          name: name of the method.
          *arrays: further arrays that it takes.
        """
        if name not in self._programs:
            prob = name == "curves"
            function = _curves if prob else METHODS[name][0]

            def call(state: State, inputs: Any, chosen: jax.Array, *arrays: Any) -> Any:
                x, rest = self.split(state, inputs, self.embedding)
                return function(lambda x: self._pick(rest(x), chosen, prob), x, *arrays)

            self._programs[name] = jax.jit(call)
        return jax.device_get(self._programs[name](state, self.inputs, self.chosen, *arrays))

    @functools.cached_property
    def _programs(self) -> dict[str, Any]:
        return {}

    def split(self, state: State, inputs: Any, layer: str) -> tuple[jax.Array, Any]:
        """A layer's output and the model from there on; of "" the inputs and the model."""
        predict = self.subject.predict
        if layer:
            return layers.split_at(predict, state, inputs, layer)
        return inputs, lambda x: predict.of_inputs(state, x)

    def _pick(self, outputs: jax.Array, chosen: jax.Array, prob: bool) -> jax.Array:
        """Score [B] of the chosen class, or the number that is predicted."""
        outputs = outputs.astype(jnp.float32)
        if self.subject.model.kind == "numbers":
            return outputs.reshape(len(outputs), -1)[:, 0]
        if self.subject.model.kind == "logits" and outputs.shape[1] == 1:
            z = jnp.where(chosen == 1, outputs[:, 0], -outputs[:, 0])
            return jax.nn.sigmoid(z) if prob else z
        if prob:
            kind = self.subject.model.kind
            outputs = jax.nn.softmax(outputs) if kind == "logits" else jax.nn.sigmoid(outputs)
        return jnp.take_along_axis(outputs, chosen[:, None], axis=1)[:, 0]

    def maps(self, state: State) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Attribution maps [B, ...] of the positions by method, and measures of the methods.

        A method that does not fit the model has its reason among the measures.
        """
        found: dict[str, np.ndarray] = {}
        notes: dict[str, Any] = {}
        base, masks = np.float32(self.baseline), self._masks()
        for name, (_, uses) in METHODS.items():
            arrays = {"": (), "base": (base,), "masks": (base, masks)}[uses]
            try:
                values = self.run(state, name, *arrays)
            except UserError as error:
                notes[name] = str(error)
                continue
            if isinstance(values, attribution.Integrated):
                notes["completeness_error"] = float(np.max(values.error))
                values = values.values
            found[name] = self._positions(values)
        for name, explain in {"Grad-CAM": self._grad_cam, "rollout": self._rollout}.items():
            try:
                found[name] = explain(state)
            except UserError as error:
                notes[name] = str(error)
        return found, notes

    def _masks(self) -> np.ndarray:
        """Masks of ablation: windows of images, columns of tables, tokens of texts."""
        if self.subject.form == IMAGE:
            height, width = self.inputs.shape[1:3]
            window = max(2, min(height, width) // 7)
            return attribution.window_masks((height, width), window, max(1, window // 2))
        masks = attribution.group_masks(self.groups)
        masks = masks[masks.any(axis=1)]
        return masks[..., None] if self.subject.form == TEXT else masks

    def _positions(self, values: np.ndarray) -> np.ndarray:
        """Sums attributions over channels, over features of a column, or over embeddings."""
        values = np.asarray(values, np.float32)
        if self.subject.form != ROW:
            return np.asarray(np.sum(values, axis=-1))
        return values @ attribution.group_masks(self.groups).astype(np.float32).T

    def _grad_cam(self, state: State) -> np.ndarray:
        """Grad-CAM of a layer, in the size of the image.

        Raises:
          UserError: the model is not of images, or has no such layer.
        """
        layer = self.grad_cam_layer

        def call(state: State, inputs: Any, chosen: jax.Array) -> jax.Array:
            x, rest = self.split(state, inputs, layer)
            slope = attribution.gradient(lambda x: self._pick(rest(x), chosen, False), x)
            return attribution.grad_cam(x, slope)

        program = self._programs.setdefault("Grad-CAM", jax.jit(call))
        return self._enlarged(np.asarray(program(state, self.inputs, self.chosen)))

    @functools.cached_property
    def grad_cam_layer(self) -> str:
        """Path of the layer of Grad-CAM.

        Raises:
          UserError: the model is not of images, or has no such layer.
        """
        if self.subject.form != IMAGE:
            raise UserError("Grad-CAM is for images")
        return layers.spatial(self.layers, self.subject.options.layer)

    def _rollout(self, state: State) -> np.ndarray:
        """Attention rollout from the patches of an image to the class token or to all of them.

        Raises:
          UserError: the model is not of images, or no Transformer of their patches.
        """
        if self.subject.form != IMAGE:
            raise UserError("rollout is for vision Transformers")
        predict = self.subject.predict
        flow = attribution.rollout(layers.attentions(predict, state, self.inputs))
        rows, columns = layers.patch_grid(flow.shape[-1], *self.inputs.shape[1:3])
        has_class = rows * columns < flow.shape[-1]
        return self._enlarged(np.asarray(flow[:, 0] if has_class else jnp.mean(flow, axis=1)))

    def _enlarged(self, found: np.ndarray) -> np.ndarray:
        """Maps of positions [B, h, w], or of patches [B, N] in rows, in the size of the images."""
        size = self.inputs.shape[1:3]
        if found.ndim == 2:
            rows, columns = layers.patch_grid(found.shape[1], *size)
            found = found[:, -rows * columns :].reshape(-1, rows, columns)
        shape = (len(found), *size)
        return np.asarray(jax.image.resize(found, shape, "linear"))

    def curves(self, ranking: np.ndarray) -> dict[str, np.ndarray]:
        """Deletion and insertion curves [S + 1, B] of a map."""
        if self.subject.form == ROW:
            ranking = np.abs(ranking)[:, self.groups]
        ranking = np.asarray(ranking, np.float32)
        found = self.run(self.subject.state, "curves", np.float32(self.baseline), ranking)
        return {name: np.asarray(curve) for name, curve in found.items()}


def explained(subject: Subject, count: int) -> Explained:
    """Explains the predictions of test examples.

    Args:
      subject: the model and its data.
      count: number of examples, at most.

    Raises:
      UserError: the inputs are no images, rows or texts, or the outputs have no one score.
    """
    subject.need("logits", "labels", "numbers")
    if not subject.is_explainable:
        raise UserError("it is for images, rows of a table and texts to classify")
    batch = subject.batch("test", count if subject.form != TEXT else MOST_TEXTS)
    if subject.form == TEXT:  # the positions that are padding in all texts have no attribution
        longest = int(np.max(np.sum(batch["tokens"] != PAD, axis=1)))
        batch["tokens"] = batch["tokens"][:, : max(longest, 1)]
    inputs = {name: batch[name] for name in subject.model.inputs}
    outputs = np.asarray(jax.jit(subject.predict)(subject.state, inputs))
    if subject.model.kind == "numbers":
        if outputs.reshape(len(outputs), -1).shape[1] != 1:
            raise UserError(f"it is for one number per example, not {outputs.shape[1:]}")
        return Explained(subject, batch, np.zeros(len(outputs), np.int32))
    if outputs.shape[1] == 1:
        return Explained(subject, batch, (outputs[:, 0] > 0).astype(np.int32))
    return Explained(subject, batch, np.argmax(outputs, axis=1).astype(np.int32))
