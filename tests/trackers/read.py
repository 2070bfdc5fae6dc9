"""Readers of what trackers wrote, by the packages themselves, as values by (split/name, step)."""

import contextlib
import struct
import subprocess
import sys
import warnings
from pathlib import Path

from jaxdl.run import logger

ROOT = Path(__file__).parents[2]
# Kills itself at a step, as the system may.
KILLED = """
import os, signal, sys
from jaxdl import cli
from jaxdl.console import Training
from jaxdl.train import stopwatch
from tests import small
stopwatch.DISPATCH = 0
at = int(sys.argv.pop(1))
def advance(self, step):
    if step == at:
        os.kill(os.getpid(), signal.SIGKILL)
Training.advance = advance
cli.main(small.run, small.Config)
"""


def killed(step, *flags):
    """Runs tests.small until it kills itself at a step; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(step), *flags],
        cwd=ROOT, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode in (-9, 0), done.stderr
    return done.stderr


def expected(folder):
    """Values of metrics.jsonl, sorted: (split/name, step, value)."""
    return sorted(
        (f"{line['split']}/{name}", line["step"], value)
        for line in logger.read_metrics(folder)
        for name, value in line.items()
        if name not in ("step", "split") and value is not None
    )


@contextlib.contextmanager
def tensorboard(folder):
    """TensorBoard's data provider, and the context of its HParams plugin."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing import data_provider
        from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
        from tensorboard.plugins.base_plugin import TBContext
        from tensorboard.plugins.hparams.backend_context import Context

        sizes = dict.fromkeys(("scalars", "histograms", "images", "hparams"), 0)  # all
        events = EventMultiplexer(tensor_size_guidance=sizes).AddRunsFromDirectory(str(folder))
        events.Reload()
        provider = data_provider.MultiplexerDataProvider(events, str(folder))
        yield provider, Context(TBContext(data_provider=provider))


def tensorboard_scalars(folder):
    """All scalars of the one run in a folder: (tag, step, value, wall time)."""
    from tensorboard.context import RequestContext

    with tensorboard(folder) as (provider, _):
        runs = provider.read_scalars(
            RequestContext(), experiment_id="", plugin_name="scalars", downsample=10_000
        )
    (tags,) = runs.values()
    return sorted(
        (tag, point.step, point.value, point.wall_time)
        for tag, points in tags.items()
        for point in points
    )


def mlflow_runs(folder):
    """The client, and the runs of a run folder's store."""
    from mlflow import MlflowClient

    client = MlflowClient((folder / "mlflow").as_uri())
    experiments = [one.experiment_id for one in client.search_experiments()]
    return client, list(client.search_runs(experiments))


def mlflow_values(folder):
    client, (run,) = mlflow_runs(folder)
    return sorted(
        (name, point.step, point.value)
        for name in run.data.metrics
        if not name.startswith("summary/")
        for point in client.get_metric_history(run.info.run_id, name)
    )


def wandb_records(folder):
    """Records of the one offline run of a run folder, by the package's own messages.

    The file is a log in LevelDB's format: blocks of 32 KiB, records with a header of 7 bytes.
    """
    from wandb.proto import wandb_internal_pb2

    (path,) = (folder / "wandb").glob("*/*.wandb")
    data, position, content = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        room = 32768 - position % 32768
        _, size, kind = struct.unpack_from("<IHB", data, position)
        if room < 7 or (kind, size) == (0, 0):
            position += room
            continue
        content += data[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield wandb_internal_pb2.Record.FromString(content)
            content = b""


def wandb_rows(folder):
    """Rows of the history, as dictionaries of JSON texts."""
    for record in wandb_records(folder):
        if record.WhichOneof("record_type") == "history":
            yield {"/".join(i.nested_key) or i.key: i.value_json for i in record.history.item}


def wandb_values(folder):
    return sorted(
        (name, int(row["step"]), float(text))
        for row in wandb_rows(folder)
        for name, text in row.items()
        if name.partition("/")[0] in ("train", "validation", "test")
    )
