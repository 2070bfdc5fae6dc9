"""Trained model of a run folder: its parameters, and its answers to new inputs.

Shapes: N examples, B of a compiled batch.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdl import markup
from jaxdl.config import RunConfig
from jaxdl.data.spec import DataSpec
from jaxdl.data.table_columns import DELIMITERS
from jaxdl.errors import UserError
from jaxdl.export import temperature
from jaxdl.export.answers import answer
from jaxdl.export.input_items import encode, to_batch
from jaxdl.export.inputs import PROMPT, Inputs, check_arrays, inputs_of, stack
from jaxdl.run.restore import restore
from jaxdl.run.run_folder import BEST, Run, open_run
from jaxdl.run.run_list import read_run
from jaxdl.task import Outputs, State, Task
from jaxdl.tasks.supervised import TrainState, eval_variables

LARGEST_BATCH = 256  # limit on B: more gives no speed, and takes memory


@dataclasses.dataclass(frozen=True, repr=False)
class TrainedModel:
    """Trained model of a run, opened by `jaxdl.open`.

    Attributes:
      run: the opened run folder.
      task: the run's task, whose `predict` is the model.
      state: state of the task at the chosen checkpoint.
      spec: description of the data that the model was trained on.
      step: step of the checkpoint.
    """

    run: Run
    task: Task
    state: State
    spec: DataSpec
    step: int

    def __repr__(self) -> str:
        return f"<TrainedModel of {self.run.folder}, step {self.step}: {self.kind}>"

    def _repr_html_(self) -> str:
        """Shows the run and the layers in a notebook."""
        about = f"step {self.step} of a model of {self.kind}"
        return "".join(
            (markup.line(about), read_run(self.run.folder)._repr_html_(), self.task._repr_html_())
        )

    @property
    def config(self) -> RunConfig:
        """Config of the run."""
        return self.run.config

    @property
    def kind(self) -> str:
        """Meaning of the outputs, one of `task.KINDS`."""
        return self.task.predict.kind

    @property
    def variables(self) -> dict[str, Any]:
        """Variables of the model that `predict` applies, with `params` and, say, `batch_stats`.

        They are the moving average if the run has one.

        Raises:
          UserError: the state is of a task of one's own, without `params`.
        """
        if isinstance(self.state, TrainState):
            return eval_variables(self.state)
        if getattr(self.state, "average", None) is not None:  # of a GAN's generator
            params, model_state = self.state.average
            return {"params": params, **model_state}
        if not hasattr(self.state, "params"):
            name = type(self.state).__name__
            raise UserError(f"{self.run.folder} has a {name} without params: use its `state`")
        return {"params": self.state.params}

    @property
    def params(self) -> Any:
        """Parameters of the model that `predict` applies."""
        return self.variables["params"]

    @functools.cached_property
    def inputs(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes [1, ...] and types of the entries of a batch that the model reads."""
        return self.task.predict.inputs(self.spec.example())

    @functools.cached_property
    def batch_size(self) -> int:
        """Largest number of examples that are computed together, B, a power of two."""
        return 1 << (min(self.config.batch_size, LARGEST_BATCH).bit_length() - 1)

    @functools.cached_property
    def accepts(self) -> Inputs:
        """Kind of inputs that `predict` takes: images, rows of a table, texts or arrays."""
        delimiter = DELIMITERS.get(getattr(self.config, "delimiter", ""), ",")
        return inputs_of(self.task.predict, self.spec)._replace(delimiter=delimiter)

    def predict(self, inputs: Any, *, length: int = 100) -> Any:
        """Answers for any number of inputs, with the names and units of the data.

        Args:
          inputs: arrays in the data set's own format; or, one or a list: paths of images, images of
            Pillow, texts, or rows as dictionaries or a data frame of Pandas. It depends on the
            model which of these it takes, see `accepts`. A list may mix them with arrays of one
            example each.
          length: characters to write after each prompt, of a language model.

        Returns:
          `Classes` of a classifier. Of other models their outputs, NumPy arrays [N, ...]: numbers,
          images in levels of 0 to 255, or a dictionary with the `action` of an agent. Of texts to
          continue or to translate, a list of texts. A single input has N = 1.

        Raises:
          UserError: the model does not take such inputs.
        """
        batch = to_batch(self.accepts, inputs)
        if isinstance(batch, list):
            return self.write(batch, length)
        return answer(self.outputs(batch), self.kind, self.spec)

    def write(self, texts: Sequence[str], length: int = 100) -> list[str]:
        """Texts that a language model or a translator writes.

        A language model samples with a temperature of 0.8, the same characters each time. A
        translator uses the beam search of its run.

        Args:
          texts: a text to continue or to translate each.
          length: characters to write after each prompt, of a language model.

        Raises:
          UserError: a text has characters that the model lacks, or is too long; or `length` is out
            of range.
        """
        if self.accepts.form == PROMPT:
            from jaxdl.text import generation

            options = generation.Options(length=length)
            return generation.continue_texts(self._generate, self.state, self.spec, texts, options)
        from jaxdl.tasks.translation import decode_line

        assert self.spec.tokenizer is not None
        tokens = self._batched(self._translate, stack([encode(self.accepts, t) for t in texts]))
        return [decode_line(row, self.spec.tokenizer) for row in tokens]

    @functools.cached_property
    def _program(self) -> Any:
        return jax.jit(self.task.predict)

    @functools.cached_property
    def _generate(self) -> Any:
        from jaxdl.text import generation

        assert self.task.predict.decoder is not None
        return generation.generator(self.task.predict.decoder, generation.Options())

    @functools.cached_property
    def _translate(self) -> Any:
        from jaxdl.tasks.translation import beam_translator

        assert self.task.predict.decoder is not None
        width, penalty = (getattr(self.config, name, 1) for name in ("beam", "length_penalty"))
        translate = beam_translator(self.task.predict.decoder, width, penalty)
        (length,) = self.spec.shape("target")
        return lambda state, batch: translate(state, batch["source"], length)

    def outputs(self, batch: Mapping[str, Any]) -> Outputs:
        """Outputs of the task's `predict`, computed in batches of a few sizes.

        Each batch is padded to a power of two, so that few programs are compiled.

        Args:
          batch: arrays [N, ...] in the data set's own format; other entries than `inputs` are not
            read.

        Returns:
          The outputs, NumPy arrays [N, ...].

        Raises:
          UserError: an array is missing, or has another shape or type.
        """
        return self._batched(self._program, check_arrays(self.accepts, batch))

    def _batched(self, program: Any, arrays: dict[str, np.ndarray]) -> Outputs:
        """Applies (state, batch) -> outputs to arrays [N, ...] in padded batches."""
        count = len(next(iter(arrays.values())))
        parts = []
        for start in range(0, count, self.batch_size):
            size = min(self.batch_size, count - start)
            padded = 1 << (size - 1).bit_length()
            rows = start + np.minimum(np.arange(padded), size - 1)
            outputs = program(self.state, {name: a[rows] for name, a in arrays.items()})
            parts.append(jax.tree.map(np.asarray, outputs))
        return jax.tree.map(lambda *arrays: np.concatenate(arrays)[:count], *parts)


def open_model(run: str | Path, checkpoint: str = BEST, **changes: Any) -> TrainedModel:
    """Opens the trained model of a run folder, without its data.

    Only the run folder and the experiment's module are read. The data are loaded only to describe
    them, if the run is from before there was a `data.json`.

    Args:
      run: the run folder.
      checkpoint: `best`, `newest` or a step.
      **changes: new values of runtime fields, see `run_folder.open_run`.

    Raises:
      UserError: as in `run_folder.open_run` and `restore.restore`.
    """
    return restored(open_run(Path(run), checkpoint, **changes))


def restored(run: Run, calibrated: bool = False) -> TrainedModel:
    """Restores the trained model of an opened run.

    Args:
      run: an opened run.
      calibrated: divide the logits by the temperature that is kept beside the run.

    Raises:
      UserError: as in `restore.restore` and `temperature.calibrated`.
    """
    task, saved, spec = restore(run)
    if calibrated:
        task = temperature.calibrated(task, run.folder, saved.record["state_sha256"])
    return TrainedModel(run, task, saved.state, spec, saved.step)
