"""jaxdl: deep learning research on JAX and Flax as pure functions of one state."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from jaxdl.export.model import TrainedModel


def open(run: "str | Path", checkpoint: str = "best", **changes: Any) -> "TrainedModel":
    """Opens the trained model of a run folder, without its data.

    Args:
      run: the run folder.
      checkpoint: `best`, `newest` or a step.
      **changes: new values of runtime fields of the config, such as `data_dir`.

    Returns:
      The model; see `TrainedModel`.

    Raises:
      UserError: the folder is not that of a run, its experiment is not here, or it has no such
        checkpoint.
    """
    from jaxdl.export.model import open_model

    return open_model(run, checkpoint, **changes)
