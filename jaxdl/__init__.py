"""jaxdl: deep learning research on JAX and Flax as pure functions of one state."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from jaxdl.export.model import TrainedModel
    from jaxdl.run.run_list import RunList


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


def runs(*folders: "str | Path | Iterable[str | Path]") -> "RunList":
    """Lists the runs in folders, each once; in a notebook with a table and their curves.

    Args:
      *folders: run folders, and folders that hold runs at most three levels below, or lists of
        such; default: runs/.

    Returns:
      A tuple of `RunRecord`s: folder, config, lines of the log, summary, and state.

    Raises:
      UserError: there is no run.
    """
    from jaxdl.run.run_list import read_runs

    return read_runs(folders or ("runs",))
