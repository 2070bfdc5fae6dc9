"""Subject of `jaxdl analyze`: a trained model with its data, and the form of a part's result."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdl.data.batches import Dataset, read, size
from jaxdl.data.source import LABELS
from jaxdl.errors import UserError
from jaxdl.export.inputs import IMAGE, ROW, TEXT
from jaxdl.export.model import TrainedModel
from jaxdl.run.run_folder import Run
from jaxdl.task import Predict, State
from jaxdl.tools.model_layers import ModelLayers, read_by_model

PREDICTED = {  # the kinds of outputs, as in `jaxdl.task.KINDS`
    "array": "arrays",
    "logits": "classes",
    "labels": "labels",
    "numbers": "numbers",
    "images": "images",
    "actions": "actions",
    "tokens": "texts",
}
MOST = 50_000  # examples of a split that are predicted, at most


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of `jaxdl analyze`.

    Attributes:
      examples: number of examples that the expensive parts use.
      layer: path of the layer for Grad-CAM and the features; "" for the default.
      other: an opened run to compare the features with; None for none.
      unknown: name or path of a data set whose examples are foreign; "" for none.
      sanity_check: also explain models with random weights.
    """

    examples: int = 256
    layer: str = ""
    other: Run | None = None
    unknown: str = ""
    sanity_check: bool = False


class Result(NamedTuple):
    """Result of a part.

    Attributes:
      values: content of the part's JSON file.
      rows: measures and their values, for the table.
      pictures: by the name of a picture, a function that draws it into a file.
      temperature: temperature of the logits to keep beside the run; None for none.
    """

    values: dict[str, Any]
    rows: list[tuple[str, Any]]
    pictures: Mapping[str, Callable[[Path], None]] = {}
    temperature: float | None = None


@dataclasses.dataclass(frozen=True)
class Subject:
    """A trained model, its data, and the options of the analysis.

    Attributes:
      model: the model.
      data: its data.
      digest: SHA-256 of the checkpoint's state.
      options: options of the analysis.
    """

    model: TrainedModel
    data: Dataset
    digest: str
    options: Options

    @property
    def predict(self) -> Predict:
        """The model."""
        return self.model.task.predict

    @property
    def state(self) -> State:
        """State of the task at the checkpoint."""
        return self.model.state

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.model.run.folder

    @functools.cached_property
    def target(self) -> str:
        """Name of the targets in a batch.

        Raises:
          UserError: there are none.
        """
        name = next((name for name in LABELS if name in self.data.test), None)
        if name is None:
            raise UserError(f"the data have no {' or '.join(LABELS)} to compare with")
        return name

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; their numbers if they have none."""
        spec = self.model.spec
        count = max(spec.num_classes, 2)
        return spec.classes if len(spec.classes) == count else tuple(map(str, range(count)))

    @property
    def is_classifier(self) -> bool:
        """True if each example has one of several classes."""
        return self.model.kind == "logits" and self.model.spec.shape(self.target) == ()

    def rows(self, split: str, count: int) -> np.ndarray:
        """Rows of a split at even distances, at most `count`.

        Raises:
          UserError: the split is empty.
        """
        total = size(getattr(self.data, split))
        if not total:
            raise UserError(f"the {split} split has no examples")
        return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))

    def batch(self, split: str, count: int) -> dict[str, np.ndarray]:
        """Examples of a split at even distances, at most `count`, with `index` and `mask`."""
        return self.batch_of(split, self.rows(split, count))

    def batch_of(self, split: str, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Examples in given rows of a split, with `index` and `mask`."""
        arrays = read(getattr(self.data, split), rows)
        batch = {name: np.asarray(x) for name, x in arrays.items()}
        return batch | {"index": rows.astype(np.int32), "mask": np.ones(len(rows), np.float32)}

    def outputs(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Outputs and targets of a split, [N, ...] each; of at most 50,000 examples.

        Raises:
          UserError: an output is not finite.
        """
        if split not in self._outputs:
            rows, step = self.rows(split, MOST), self.model.batch_size
            parts = []
            for start in range(0, len(rows), step):  # images of a whole split may fill the memory
                batch = self.batch_of(split, rows[start : start + step])
                parts.append((np.asarray(self.model.outputs(batch)), batch[self.target]))
            found, targets = (np.concatenate(part) for part in zip(*parts, strict=True))
            if not np.all(np.isfinite(found)):
                raise UserError("outputs of the model are not finite: choose another --checkpoint")
            self._outputs[split] = found, targets
        return self._outputs[split]

    @functools.cached_property
    def _outputs(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        return {}

    def inputs(self, batch: Mapping[str, np.ndarray]) -> Any:
        """Normalised inputs of the model for a batch.

        Raises:
          UserError: the data do not have what the model reads.
        """
        return self.predict.prepare(read_by_model(self.model, batch))

    @functools.cached_property
    def form(self) -> str:
        """Kind of the inputs, one of `export.inputs.FORMS`."""
        return self.model.accepts.form

    def need(self, *kinds: str) -> None:
        """Checks the kind of the outputs.

        Raises:
          UserError: it is none of `kinds`.
        """
        if self.model.kind not in kinds:
            wanted = " or ".join(PREDICTED[kind] for kind in kinds)
            raise UserError(
                f"it is for models of {wanted}, and this one is of {PREDICTED[self.model.kind]}"
            )

    def need_classes(self) -> None:
        """Checks that each example has one class.

        Raises:
          UserError: it has several labels or none, or the outputs are no logits.
        """
        self.need("logits")
        if not self.is_classifier:
            raise UserError("it is for models of one class per example")

    def need_images(self) -> None:
        """Checks that the model classifies images.

        Raises:
          UserError: it does not.
        """
        self.need_classes()
        if self.form != IMAGE:
            raise UserError("it is for models that read images")

    def need_layers(self) -> None:
        """Checks that the layers of the model can be computed from the data.

        Raises:
          UserError: they cannot.
        """
        read_by_model(self.model, self.batch("test", 1))
        _ = self.layers.shapes

    @property
    def is_explainable(self) -> bool:
        """True if the inputs are images, rows of a table or texts."""
        return self.form in (IMAGE, ROW, TEXT)

    @functools.cached_property
    def layers(self) -> ModelLayers:
        """Layers of the model."""
        return ModelLayers(self.model, self.options.layer)
