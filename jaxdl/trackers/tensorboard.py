"""TensorBoard's event files, written in the process of the run.

They go into tensorboard/ of the run folder. HParams has the config of the run: TensorBoard derives
the columns of its table from all runs that it shows, so flags that only later runs have appear too.
"""

import contextlib
import io
import shutil
import time
from pathlib import Path
from typing import Any

from jaxdl import files
from jaxdl.trackers.tracker import Histogram, Line, RunInfo, time_of, values

FLUSH_EVERY = 10.0  # seconds between two flushes
LARGEST_PICTURE = 1 << 26  # bytes
START, END = "_hparams_/session_start_info", "_hparams_/session_end_info"


class TensorBoard:
    """Writer of TensorBoard's events."""

    def __init__(self) -> None:
        """Creates it without files."""
        self._events: Any = None

    def on_start(self, run: RunInfo) -> None:
        """Opens a new event file in place of the old ones, and writes the config."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData, SessionStartInfo

        self.close()
        self._run = run
        folder = Path(run.folder) / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        # Not SummaryWriter: on a full disk its thread would die, and the run would wait for it.
        self._events, self._flushed = EventsWriter(str(folder / "events")), time.monotonic()
        info = SessionStartInfo(start_time_secs=run.started)
        for name, value in run.config.items():
            kind = {bool: "bool_value", str: "string_value"}.get(type(value), "number_value")
            setattr(info.hparams[name], kind, value)
        self._write_hparams(START, HParamsPluginData(session_start_info=info, version=0))

    def on_log(self, *lines: Line) -> None:
        """Writes the numbers of lines, at the times at which they were logged."""
        from tensorboardX.proto.summary_pb2 import Summary

        for line in lines:
            shown = [Summary.Value(tag=tag, simple_value=v) for tag, v in values(line).items()]
            when = time_of(self._run, line, time.time())
            self._write(Summary(value=shown), line["step"], when)

    def on_figure(self, name: str, path: Path, step: int) -> None:
        """Writes a picture."""
        from PIL import Image
        from tensorboardX.proto.summary_pb2 import Summary

        content = files.read_bytes(path, LARGEST_PICTURE)
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            width, height, channels = *image.size, len(image.getbands())
            image.verify()
        picture = Summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=content
        )
        self._write(Summary(value=[Summary.Value(tag=name, image=picture)]), step)

    def on_histograms(self, histograms: dict[str, Histogram], step: int) -> None:
        """Writes histograms."""
        from tensorboardX.proto.summary_pb2 import HistogramProto, Summary

        shown = [
            Summary.Value(
                tag=name,
                histo=HistogramProto(
                    min=one.edges[0],
                    max=one.edges[-1],
                    num=sum(one.counts),
                    sum=one.total,
                    sum_squares=one.squares,
                    bucket_limit=one.edges,  # upper edges: no value is below the first
                    bucket=[0, *one.counts],
                ),
            )
            for name, one in histograms.items()
        ]
        self._write(Summary(value=shown), step)

    def on_end(self, summary: dict[str, Any] | None) -> None:
        """Marks the session of a finished run as successful."""
        if summary is not None:
            from tensorboardX.proto.api_pb2 import Status
            from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData, SessionEndInfo

            success = Status.Value("STATUS_SUCCESS")
            info = SessionEndInfo(status=success, end_time_secs=time.time())
            self._write_hparams(END, HParamsPluginData(session_end_info=info, version=0))
            self.flush()

    def flush(self) -> None:
        """Writes everything to disk."""
        self._events.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Closes the file; errors are ignored, because only `flush` promises data on disk."""
        if self._events is not None:
            with contextlib.suppress(OSError):
                self._events.close()

    def _write_hparams(self, tag: str, content: Any) -> None:
        from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata

        plugin = SummaryMetadata.PluginData(
            plugin_name="hparams", content=content.SerializeToString()
        )
        value = Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin))
        self._write(Summary(value=[value]), 0)

    def _write(self, summary: Any, step: int, when: float | None = None) -> None:
        """Writes an event, and flushes if `FLUSH_EVERY` has passed."""
        from tensorboardX.proto.event_pb2 import Event

        event = Event(summary=summary, step=step, wall_time=when or time.time())
        self._events.write_event(event)
        if time.monotonic() - self._flushed > FLUSH_EVERY:
            self.flush()
