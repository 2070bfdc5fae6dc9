"""The loop: carries a task's state through its steps, and logs, evaluates and saves on the way.

It knows nothing of models, losses or labels. Between two events nothing is brought to the host:
many steps are one call of a loop inside XLA, which gathers their batches from the split on the
device and adds up their metrics. A call takes about half a second, however short a step is.

A checkpoint is of the moment between a step and its events: who goes on from it does the events of
that step again, with the same results. So a run can be left anywhere, in an evaluation too.
"""

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxdl import config as configs
from jaxdl import (
    cost,
    detours,
    environment,
    files,
    finite,
    memory,
    metrics,
    metrics_log,
    parallel,
    plots,
    record,
    signals,
    tree,
)
from jaxdl.checkpoint import Checkpoints, DamagedError, Saved, newest_whole, on_all
from jaxdl.config import RunConfig
from jaxdl.data import batches
from jaxdl.data.batches import Dataset
from jaxdl.data.pipeline import Pipeline
from jaxdl.data.records import Records
from jaxdl.data.stream import Stream
from jaxdl.errors import TrainingError, UserError, first_line
from jaxdl.estimate import estimate
from jaxdl.lock import Lock
from jaxdl.program import Feed, compile_program
from jaxdl.progress import Training, say
from jaxdl.task import State, Task

Best = tuple[str, Callable[[float, float], float]]  # a metric's name, and max or min
Conclude = Callable[[State, Path], dict[str, float]]
Show = Callable[[State], dict[str, plots.Picture]]  # by name
DISPATCH = 0.5  # seconds of steps made in one call: signals and the progress bar wait as long
MOST_SKIPPED = 100  # steps in a row that --on_nonfinite=skip may skip
MOST_REWINDS = 10  # times that --on_nonfinite=rewind goes back to the same step


def nothing_more(state: State, folder: Path) -> dict[str, float]:
    """The conclusion of an experiment that has nothing of its own to show or to measure."""
    del state, folder
    return {}


def no_pictures(state: State) -> dict[str, plots.Picture]:
    """Shows nothing: for an experiment without pictures."""
    del state
    return {}


def train(
    config: RunConfig,
    task: Task,
    data: Dataset,
    best: Best = ("accuracy", max),
    conclude: Conclude = nothing_more,
    show: Show = no_pictures,
) -> dict[str, Any]:
    """Trains a task to its end, from where its workdir's run stopped if there is one.

    Args:
      config: of the run.
      task: what to train.
      data: its splits; evaluation is on validation, the final report on test.
      best: the metric that chooses the best checkpoint on validation, and which of two is better.
      conclude: called at the end with the final state and the run's folder, and again where a
        signal came meanwhile: makes what only the experiment can, such as pictures in plots/, and
        returns what it measures for the summary.
      show: makes pictures of a state, which each evaluation puts into plots/ and TensorBoard.

    Returns:
      What `summary.json` holds; with --dry_run what the run would cost, and no run is begun.

    Raises:
      UserError: the config does not fit the data, the devices or the workdir; nothing is written.
      TrainingError: a step is not finite, or the run folder cannot be written.
      Stopped: a signal ended the run, after its checkpoint was made.
    """
    # Refuses before anything is written.
    config.check_steps(batches.size(data.train))
    # Each is traced once, for all of the run's programs.
    task = Task(*(jax.jit(function, inline=True) for function in task))
    jax.eval_shape(task.init, jax.random.key(0))  # a model that cannot be built says so here
    _check_best(best[0], task, config, data)
    if config.dry_run:
        return estimate(config, task, data)
    mesh = parallel.mesh(config)
    ways = {name: getattr(config, name) for name in ("mesh", "fsdp", "profile", "resume")}
    parallel.check_same(configs.identity(config) | {"data": data.fingerprint} | ways)
    with signals.graceful() as request, _claimed(config) as (folder, named, check):
        try:
            run = _Run(config, task, data, best, show, folder, mesh, request, named, check)
            try:
                run.train()
                return run.finish(conclude)
            except signals.Asked as asked:
                raise run.stop(asked.number) from None
            finally:
                run.close()
        except OSError as error:
            raise TrainingError(
                f"cannot write {error.filename or folder} ({error.strerror}): mend that, and the "
                f"same command with --workdir={named} goes on"
            ) from error


def _check_best(name: str, task: Task, config: RunConfig, data: Dataset) -> None:
    """Holds the metric that chooses the best checkpoint against those that evaluation gives.

    Raises:
      UserError: it is none of them.
    """
    batch = next(iter(batches.padded_batches(data.validation, config.batch_size)))
    state = jax.eval_shape(task.init, jax.random.key(0))
    names = jax.eval_shape(task.evaluate, state, batch)
    if name not in names:
        raise UserError(
            f"best=({name!r}, ...): evaluation gives {', '.join(names)}: name one of these"
        )


@contextmanager
def _claimed(config: RunConfig) -> Iterator[tuple[Path, str, Callable[[], None]]]:
    """A folder to write, which is nobody else's, and the run's: of the first process the same.

    What another process writes has no reader, and is gone at its end. The third value raises a
    TrainingError where the folder is not the run's any more.

    Raises:
      UserError: the folder is not the run's to write; on all processes.
    """
    folder = record.choose_workdir(config)
    locks: list[Lock] = []
    with ExitStack() as stack:

        def claim() -> str:
            locks.append(stack.enter_context(record.claim(folder, config)))
            return str(folder)

        named = parallel.by_first(claim)
        if not parallel.is_first():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def check() -> None:
            for lock in locks:
                lock.check()

        yield folder, named, check


class _Run:
    """One run between its first step and its last: what `train` carries from event to event."""

    def __init__(
        self,
        config: RunConfig,
        task: Task,
        data: Dataset,
        best: Best,
        show: Show,
        folder: Path,
        mesh: Mesh,
        request: signals.Request,
        named: str,
        check: Callable[[], None],
    ):
        self._began = time.monotonic()
        self._config, self._task, self._data, self._best_metric = config, task, data, best
        self._show, self._folder, self._request, self._named = show, folder, request, named
        self._check = check
        self._alone = jax.process_count() == 1
        examples = batches.size(data.train)
        self._per_epoch = config.steps_per_epoch(examples)
        self._total = config.total_steps(examples)
        self._eval_every = config.eval_every or self._per_epoch
        self._checkpoint_every = config.checkpoint_every or self._per_epoch
        self._identity = configs.identity(config) | {"data": data.fingerprint}
        self._versions = environment.versions(mesh.size)

        self._program = compile_program(task, config, data.train, mesh)
        self._state_key, self._data_key = jax.random.split(jax.random.key(config.seed))
        self._feed, self._stream = self._feeding(mesh)
        self._profiled: tuple[int, ...] = config.profiled_steps() or ()
        self._tracing = False
        self._stride = 1  # steps of a call that takes about DISPATCH
        self._checkpoints = Checkpoints(folder / "checkpoints", check)
        self._checkpoints.clear_leftovers()
        self._detours: detours.Detours = parallel.by_first(lambda: detours.read(folder))
        saved = self._restore()
        if saved:
            self._check_fits(saved)
        self._seconds = saved.record["seconds"] if saved else 0.0
        self._timed: list[float] = saved.record["timed"] if saved else [0, 0.0]
        self._lap: tuple[int, float] | None = None  # since when steps are timed
        about = {
            field: getattr(data, field)
            for field in ("name", "version", "fingerprint", "source", "classes")
        }
        self._record = record.Record(folder, config, about, _standing_lines(saved))
        for name, text in data.files.items():
            files.write_text(folder / name, text)
        self._announce(mesh.size)
        self._settle(saved)
        flops = self._program.flops.total()
        examples = config.batch_size * data.per_row
        self._speed = partial(_speed, examples, flops, mesh.devices.flat[0], mesh.size)
        self._bar = Training(self._total, self._step, self._speed)

    def train(self) -> None:
        """Steps from where the run stands to its end, with an event wherever one is due."""
        self._poll()
        ends = self._pending_events()
        while self._step < self._total and not ends:
            self._trace()
            began = self._step, time.monotonic()
            self._advance()
            jax.block_until_ready(self._carry)
            self._bar.advance(self._step)
            if self._lap is None:  # what comes after it is free of compiling
                say(f"first step after {time.monotonic() - self._began:.1f} s")
                memory.keep()
                self._lap = self._step, time.monotonic()
            else:
                each = (time.monotonic() - began[1]) / max(self._step - began[0], 1)
                stride = max(1, min(2 * self._stride, int(DISPATCH / max(each, 1e-9))))
                self._stride = parallel.agreed(stride) or 1
            self._poll()
            ends = self._events()
        self._end_trace()

    def finish(self, conclude: Conclude) -> dict[str, Any]:
        """Evaluates the final state and the best one, and writes the summary and the pictures.

        The final state is the last one; with early stopping it is the best.
        """
        summary: dict[str, Any] = {}
        self._checkpoints.wait()
        self._check()
        for line in self._record.lines():
            summary |= {f"{line['split']}/{k}": line[k] for k in metrics_log.metric_names(line)}
        best_state = self._best_state()
        stops_early = self._config.patience and best_state is not None
        state = best_state if stops_early else self._carry.state
        final = self._evaluate(state, self._data.test)
        self._log("test", metrics.scalars(final), self._best["step"] if stops_early else self._step)
        summary |= {f"test/{k}": v for k, v in metrics.scalars(final).items()}
        if best_state is not None:
            splits = {"validation": self._evaluate(best_state, self._data.validation)}
            is_final = best_state is state
            splits["test"] = final if is_final else self._evaluate(best_state, self._data.test)
            for name, values in splits.items():
                summary |= {f"best/{name}/{k}": v for k, v in metrics.scalars(values).items()}
        steps, seconds = self._timed
        summary |= {
            "step": self._step,
            "best_step": self._best["step"],
            "best_metric": self._best_metric[0],
            "better": self._best_metric[1].__name__,
            "seconds": round(self._elapsed(), 3),
            **(self._speed(steps / max(seconds, 1e-9)) if steps else {}),
            "parameters": parameters(state),
            "state_sha256": tree.flat_digest(parallel.on_host(state)),
        }
        self._record.sync()
        failures: list[str] = []
        with self._request.at_once() if self._alone else nullcontext(), _deferred(failures):
            summary |= conclude(state, self._folder)
        with _deferred(failures):
            self._draw(final)
        with _deferred(failures):
            self._show_pictures()
        self._poll()
        self._check()
        self._record.summarize(summary)
        say(f"results: {self._folder}")
        if failures:
            raise TrainingError(
                f"the run is at its end and its summary is written, but: {'; '.join(failures)}: "
                f"mend that, and the same command with --workdir={self._named} makes the rest"
            )
        for name, value in metrics.scalars(final).items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"the run is at its end, and test/{name} is {value}: lower --learning_rate "
                    "(the summary is written)"
                )
        return summary

    def stop(self, number: int) -> signals.Stopped:
        """Makes a checkpoint of the step the run stands at; returns how it ended.

        Raises:
          TrainingError: a step was not finite, and the run ends for it.
        """
        # After a bad step the state is none between a step and its events: its key may be another
        # by now, and its metrics are zero if it was logged.
        bad = int(self._carry.bad)
        if bad >= 0:
            self._leave_bad_step(bad)
        self._save()
        self._checkpoints.wait()
        return signals.Stopped(
            number,
            f"stopped by signal {number}; checkpoint of step {self._step} made: the same command "
            f"with --workdir={self._named} goes on",
        )

    def close(self) -> None:
        """Ends what is still open, also after a failure."""
        self._end_trace()
        self._bar.close()
        self._record.close()
        self._checkpoints.close()
        if self._stream is not None:
            self._stream.close()

    # Where a run begins, and begins again.

    def _restore(self) -> Saved | None:
        """Takes up the newest checkpoint that is whole and on course, or the initial state."""
        self._step, self._last_saved = 0, -1
        # None evaluated yet. Patience counts `since` one was better than the value `than`.
        self._best: dict[str, Any] = {"step": 0, "value": None, "since": 0, "than": None}
        self._anchor = [0, 0]  # the last checkpoint that was due, and the best one then
        like = self._program.like

        def on_course(step: int, its: dict[str, Any]) -> bool:
            # The file may be lost: the newest checkpoint has the list of its time.
            self._detours = max(self._detours, its["detours"], key=len)
            return detours.on_course(self._detours, step, its["detours"])

        def newest() -> Saved | None:
            record = self._checkpoints.newest_record()
            if record and self._config.resume != "force":
                environment.check_settings(record["versions"], f"--workdir={self._folder}")
            return newest_whole(self._checkpoints, like, on_course)

        saved = on_all(newest, like)
        self._detours = parallel.by_first(lambda: self._detours)
        if saved is None:
            self._carry = self._program.start(self._state_key)
        else:
            self._step = self._last_saved = saved.step
            self._carry = saved.state
            self._best, self._anchor = saved.record["best"], saved.record["anchor"]
        self._find_order(self._step)
        return saved

    def _check_fits(self, saved: Saved) -> None:
        """Holds the checkpoint that a process starts from against this run.

        Raises:
          UserError: it is of another config or other data, or beyond this run's end.
        """
        if self._config.resume != "force":
            there = saved.record["identity"]
            newer = configs.new_defaults(self._config, there)
            record.check_same(self._folder, self._identity, there, newer)
        then, now = saved.record["versions"], self._versions
        changed = [
            f"{k} {then.get(k)} then, {now.get(k)} now" for k in now if then.get(k) != now[k]
        ]
        if changed:
            say(f"{'; '.join(changed)}: the run goes on, equal to rounding, not to the last bit")
        if saved.step > self._total:
            raise UserError(
                f"{self._named} is at step {saved.step}, and this run would end at {self._total}: "
                "give more --num_steps or --num_epochs, or another --workdir"
            )

    def _settle(self, saved: Saved | None) -> None:
        """Brings the run folder to the state of a checkpoint that the run goes on from.

        The log is there already. Both a start and a rewind end with it, so that the two are alike.
        """
        if saved and configs.differences(self._identity, saved.record["identity"]):
            self._last_saved = -1  # forced: from here on it is a run of this config
            self._save()
        if self._detours:
            detours.write(self._folder, self._detours)
        _delete_pictures(self._folder / "plots", self._step)

    def _pending_events(self) -> bool:
        """Does the events of the checkpoint that the run goes on from; returns whether it ends.

        A checkpoint is of the moment before them, and the log has no line of its step.
        """
        return self._step > 0 and self._events()

    def _find_order(self, step: int) -> None:
        order = self._program.order(self._data_key, step // self._per_epoch)
        self._feed = self._feed._replace(order=order)

    def _feeding(self, mesh: Mesh) -> tuple[Feed, Stream | Pipeline | None]:
        """Puts the training split on the devices; or where it is too large, streams its batches."""
        order = partial(self._program.order, self._data_key)
        split, room = self._data.train, parallel.room(mesh)
        shards, batch_size = parallel.sharded(mesh), self._config.batch_size
        if isinstance(split, Records):
            pipeline = Pipeline(split, self._data_key, batch_size, shards)
            return Feed({}, self._data_key, order(0)), pipeline
        size = sum(array.nbytes for array in split.values())
        if size <= room:
            split = parallel.put(split, parallel.replicated(mesh))
            return Feed(split, self._data_key, order(0)), None
        say(
            f"{size / 1e9:.1f} GB of training data: batches stream from the host, for a device "
            f"has {room / 1e9:.1f} GB to spare"
        )
        stream = Stream(split, order, batch_size, shards)
        return Feed({}, self._data_key, order(0)), stream

    def _announce(self, devices: int) -> None:
        data, state = self._data, self._carry.state
        sizes = "/".join(f"{batches.size(s):,}" for s in (data.train, data.validation, data.test))
        say(f"data: {data.name} ({data.source}), {sizes} to train/validate/test")
        kind = jax.devices()[0].device_kind
        say(f"{parameters(state):,} parameters, {self._total:,} steps on {devices} x {kind}")
        if self._program.branches > 2:
            say(
                f"compiling a step of {self._program.branches} branches, such as one for each of "
                "--widths; they are kept for the next start"
            )
        if not self._program.loops:
            say(
                "one step a call: the model has convolutions that XLA would run slowly on a CPU "
                "inside a loop (jaxdl.models.conv has those that it does not)"
            )
        goes_on = f", going on from step {self._step:,}" if self._step else ""
        say(f"run folder: {self._folder}{goes_on}")
        needed = 2 * sum(leaf.nbytes for leaf in tree.flatten(self._carry).values())
        free = shutil.disk_usage(self._folder).free
        if free < needed:
            say(
                f"warning: {free / 1e6:,.1f} MB free in {self._folder}, and two checkpoints take "
                f"{needed / 1e6:,.1f}: make room there, or the run will stop when it is full"
            )

    # One step, and what comes after it.

    def _advance(self) -> None:
        """Makes the steps up to the next event, or as many as take about DISPATCH seconds."""
        for began, left_out in self._detours:
            if began == self._step:
                self._carry = self._program.turn(self._carry, left_out)
        if any(left_out == self._step for _, left_out in self._detours):
            self._carry = self._program.leave_out(self._carry)
            self._step += 1
            self._find_order(self._step)
            return
        steps = min(self._stride, self._next_stop() - self._step)
        if self._stream is None:
            self._carry, self._feed = self._program.advance(self._carry, self._feed, steps)
        else:
            for step in range(self._step, self._step + steps):
                self._carry = self._program.consume(self._carry, self._stream.batch(step))
        self._step += steps

    def _next_stop(self) -> int:
        """The first step after this one at which the host has something to do."""
        everys = (self._config.log_every, self._eval_every, self._checkpoint_every)
        dues = [(self._step // every + 1) * every for every in everys]
        turns = [step for detour in self._detours for step in detour]
        others = [step for step in (*turns, *self._profiled) if step > self._step]
        return min(self._total, *dues, *others)

    def _trace(self) -> None:
        """Begins and ends the trace of the steps that --profile names, where it is their turn."""
        if self._step in self._profiled[:1]:
            jax.profiler.start_trace(self._folder / "profile")
            self._tracing = True
        elif self._tracing and self._step >= self._profiled[1]:
            self._end_trace()

    def _end_trace(self) -> None:
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing = False
            say(f"trace in {self._folder / 'profile'}: tensorboard --logdir={self._folder}")

    def _events(self) -> bool:
        """Logs, evaluates and saves, where it is due; returns whether the run ends early."""
        config, step = self._config, self._step
        last = step == self._total
        logs = last or step % config.log_every == 0
        evaluates = last or step % self._eval_every == 0
        saves = last or step % self._checkpoint_every == 0
        if not (logs or evaluates or saves):
            return False
        jax.block_until_ready(self._carry)
        self._check()
        self._checkpoints.wait(patiently=False)  # says early that one could not be written
        heard = jax.device_get(self._carry._replace(state=None))
        if self._config.on_nonfinite == "skip":
            self._check_skipped(int(heard.skipped[0]))
        elif heard.bad >= 0:
            self._leave_bad_step(int(heard.bad))
            return self._pending_events()
        if logs:
            values = metrics.scalars(metrics.divide(heard.metrics))
            skipped = int(heard.skipped[1])
            self._log("train", values | ({"skipped": skipped} if skipped else {}), step)
        if self._lap:
            began, mark = self._lap
            self._timed = [self._timed[0] + step - began, self._timed[1] + time.monotonic() - mark]
        ends = False
        if evaluates:
            saves = self._evaluate_validation() or saves
            for name, shown in self._show(self._carry.state).items():
                path = self._folder / "plots" / name / f"{step:07}.png"
                plots.picture(shown._replace(caption=f"Step {step}: {shown.caption}"), path)
                self._record.picture(path, step, name)
            in_vain = (step - self._best["since"]) // self._eval_every
            ends = 0 < config.patience <= in_vain
            if ends:
                name, step_of_best = self._best_metric[0], self._best["step"]
                say(f"--patience={config.patience}: no better {name} since step {step_of_best}")
        if saves or ends:
            if step % self._checkpoint_every == 0:
                self._anchor = [step, self._best["step"]]
            self._save()
        if logs:
            self._carry = self._program.reset(self._carry)
        if self._lap:
            self._lap = step, time.monotonic()
        return ends

    def _poll(self) -> None:
        """Leaves the run where a signal came; all its processes at the same step."""
        if self._alone:
            self._request.poll()
        else:
            # Kept apart from the request: a signal that comes meanwhile waits for the next one.
            number = parallel.agreed(self._request.number)
            if number is not None:
                raise signals.Asked(number)

    def _elapsed(self) -> float:
        return self._seconds + time.monotonic() - self._began

    def _log(self, split: str, values: dict[str, float], step: int) -> None:
        """Logs the metrics of the state of a step."""
        epoch = round(step / self._per_epoch, 4)
        line = {"step": step, "epoch": epoch, "split": split, **values}
        self._record.log(line | {"seconds": round(self._elapsed(), 3)})
        self._bar.show(step, split, values)

    def _evaluate(self, state: State, split: batches.Split) -> dict[str, np.ndarray]:
        poll = self._request.poll if self._alone else lambda: None
        return self._program.evaluate(state, split, self._config.batch_size, poll)

    def _evaluate_validation(self) -> bool:
        """Evaluates, logs, and returns whether this is the best so far."""
        values = metrics.scalars(self._evaluate(self._carry.state, self._data.validation))
        self._log("validation", values, self._step)
        name, choose = self._best_metric
        best, new = self._best, values[name]

        def tops(old: float | None, margin: float) -> bool:
            if old is None or math.isnan(old):
                return True
            return choose(new, old) == new and abs(new - old) > margin

        if tops(best["than"], self._config.min_improvement):
            best = best | {"since": self._step, "than": new}
        if tops(best["value"], 0.0):
            best = best | {"step": self._step, "value": new}
        self._best = best
        return best["step"] == self._step

    def _best_state(self) -> State | None:
        step = self._best["step"]
        if step == self._step:
            return self._carry.state

        def restored() -> Saved | None:
            try:
                return self._checkpoints.restore(step, self._carry)
            except DamagedError as error:
                say(f"{error}; it was the best, so the summary has no figures of the best")
                return None

        saved = on_all(restored, self._carry)
        return saved and saved.state.state

    def _save(self) -> None:
        if self._last_saved == self._step:
            return
        self._record.sync()
        keep = (self._best["step"], *self._anchor)
        log = self._record.text()
        self._checkpoints.save(self._step, self._carry, self._known(), log, keep)
        self._last_saved = self._step

    def _known(self) -> dict[str, Any]:
        """A checkpoint's record, beside the state; `checkpoint.RECORD` says what each entry is."""
        return {
            "step": self._step,
            "identity": self._identity,
            "versions": self._versions,
            "best": self._best,
            "anchor": self._anchor,
            "detours": self._detours,
            "seconds": self._elapsed(),
            "timed": self._timed,
        }

    # Steps that are not finite.

    def _check_skipped(self, in_a_row: int) -> None:
        """Ends a run that skips one step after the other.

        Raises:
          TrainingError: it has skipped too many.
        """
        if in_a_row >= MOST_SKIPPED:
            raise TrainingError(
                f"{in_a_row} steps in a row up to {self._step} were not finite: lower "
                "--learning_rate, or start again from an earlier state"
            )

    def _leave_bad_step(self, bad: int) -> None:
        """Goes back for a step that is not finite, after which all stood still.

        Raises:
          TrainingError: the run ends for it.
        """
        if self._config.on_nonfinite == "abort":
            raise self._abort(bad)
        self._rewind(bad)

    def _abort(self, step: int) -> TrainingError:
        """Keeps what makes the step happen again; returns how the run ends."""
        self._step = step
        say(f"step {step} is not finite: looking for the place where that began")
        state = self._carry.state
        self._find_order(step)
        if self._stream is None:
            batch = self._program.batch(self._feed, jnp.int32(step))
        else:
            batch = self._stream.batch(step)
        place = finite.origin(lambda *given: self._task.step(*given)[1], state, batch)
        self._checkpoints.wait()
        kept = Checkpoints(self._folder / "nonfinite")
        kept.save(step, (state, batch), self._known(), self._record.text(), ())
        kept.close()
        return TrainingError(
            f"step {step} is not finite, from {place or 'an operation that is fused'} on; "
            f"`jaxdl replay {self._named}` makes it again: lower --learning_rate, or give "
            "--on_nonfinite=skip (with --resume=force to go on from here)"
        )

    def _rewind(self, step: int) -> None:
        """Back to the last checkpoint that was due, with another key, and without one batch."""
        back = step // self._checkpoint_every * self._checkpoint_every
        if sum(began == back for began, _ in self._detours) == MOST_REWINDS:
            raise TrainingError(
                f"step {step} is not finite, and the run has gone back to step {back} for such "
                f"steps {MOST_REWINDS} times: lower --learning_rate"
            )
        self._checkpoints.wait()
        self._detours = [*self._detours, [back, step]]
        detours.write(self._folder, self._detours)  # before anything of the old course is gone
        say(f"step {step} is not finite: back to {back}, with another key and without its batch")
        self._end_trace()
        saved = self._restore()
        self._lap = self._step, time.monotonic()  # steps that are made again count anew
        self._record.go_back(_standing_lines(saved))
        self._settle(saved)

    def _draw(self, final: dict[str, np.ndarray]) -> None:
        folder = self._folder / "plots"
        plots.curves({"": self._record.lines()}, folder / "curves.png")
        for name, value in final.items():
            if np.ndim(value) == 2:
                path = folder / f"test_{name}.png"
                plots.matrix(value, f"test {name}", path, self._data.classes)

    def _show_pictures(self) -> None:
        for path in sorted((self._folder / "plots").glob("*.png")):
            self._record.picture(path, self._step)


@contextmanager
def _deferred(failures: list[str]) -> Iterator[None]:
    """Adds an error to a list: what fails at the end must not cost the figures of the whole run."""
    try:
        yield
    except Exception as error:
        failures.append(first_line(error))


def _speed(
    examples: int, flops: int, device: jax.Device, devices: int, steps_per_second: float
) -> dict[str, float]:
    """Rates of a run that makes so many steps a second, of so many examples and FLOPs each."""
    return {
        "examples_per_second": round(steps_per_second * examples, 1),
        **cost.share(steps_per_second * flops, device, devices),
    }


def _standing_lines(saved: Saved | None) -> list[dict[str, Any]]:
    """The lines of the log that a run which goes on from a checkpoint does not write again."""
    return record.before(saved.step, saved.log) if saved else []


def _delete_pictures(folder: Path, step: int) -> None:
    """Deletes the pictures of evaluations from `step` on, which are to be made again or never."""
    for path in folder.glob("*/*.png"):
        if path.stem.isdecimal() and int(path.stem) >= step and path.is_file():
            path.unlink()


def parameters(state: State) -> int:
    """Number of trained scalars."""
    return sum(leaf.size for leaf in tree.trained(state).values())
