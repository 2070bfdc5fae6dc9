"""A run between its first step and its last: what it holds, and the events on its way."""

import functools
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdl import hyperparameters, memory, metrics, saved_config, signals
from jaxdl.config import RunConfig
from jaxdl.console import Training, say
from jaxdl.data import batches
from jaxdl.data.batches import Dataset
from jaxdl.distributed import collectives
from jaxdl.run import environment, logger, pictures
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.run.checkpoint_record import Saved
from jaxdl.run.workdir import Claim
from jaxdl.task import Key, State, Task
from jaxdl.train import flops, nonfinite, resume, rewind, summary
from jaxdl.train.evaluate import evaluate_split
from jaxdl.train.events import EventSchedule, Profiler
from jaxdl.train.feed import Feed, open_feed
from jaxdl.train.hooks import Best, Figures, FinalEval
from jaxdl.train.resume import LoopProgress
from jaxdl.train.step_spec import Operands, StepSpec, build_task, operands
from jaxdl.train.stopwatch import Stopwatch
from jaxdl.train.train_step import LoopState, Program, compile_step


class Parts(NamedTuple):
    """The parts of a run that its steps do not change."""

    config: RunConfig
    spec: StepSpec
    program: Program
    numbers: Operands
    task: Task
    key: Key  # of the initial state
    feed: Feed
    data: Dataset
    best: Best
    figures: Figures
    due: EventSchedule
    identity: resume.Identity
    place: Claim
    request: signals.Request
    clock: Stopwatch
    profiler: Profiler
    checkpoints: Checkpoints
    log: logger.Record
    bar: Training
    speed: Callable[[float], dict[str, float]]  # steps a second -> rates


# Long: it names each part of a run once, in the order in which they are opened.
def begin_run(
    config: RunConfig,
    spec: StepSpec,
    data: Dataset,
    best: Best,
    figures: Figures,
    place: Claim,
    request: signals.Request,
    opened: ExitStack,
) -> "Trainer":
    """Compiles, takes up the newest checkpoint if there is one, and opens the run folder.

    What has to be closed at the end goes into `opened`. The other arguments are those of `train`.
    """
    clock, mesh, examples = Stopwatch(), spec.mesh, data.spec.num_train
    per_epoch, total = config.steps_per_epoch(examples), config.total_steps(examples)
    everys = config.log_every, config.eval_every or per_epoch, config.checkpoint_every or per_epoch
    program = compile_step(spec)
    state_key, data_key = jax.random.split(jax.random.key(config.seed))
    feed = open_feed(program, spec, data.train, data_key)
    opened.callback(feed.close)
    identity = resume.Identity(
        saved_config.identity(config) | {"data": data.spec.fingerprint},
        environment.versions(mesh.size),
        data.spec.to_json(),
    )
    checkpoints = Checkpoints(place.folder / "checkpoints", place.check)
    opened.callback(checkpoints.close)
    checkpoints.clear_leftovers()
    detours: rewind.Detours = collectives.host0_value(lambda: rewind.read(place.folder))
    saved, detours = resume.restore(
        checkpoints, program.like, detours, force=config.resume == "force"
    )
    at = resume.progress(saved, detours)
    if saved:
        resume.check_fits(saved, config, identity, place.named, total)
        clock.resume(saved.record["seconds"], at.timed)
    log = logger.Record(place.folder, config, data.spec, resume.kept_lines(saved))
    opened.callback(log.close)
    resume.announce(program, data, mesh.size, total, at.step, place.folder)
    per_step, device = program.flops.total(), mesh.devices.flat[0]
    batch = config.batch_size * data.spec.per_row
    speed = functools.partial(flops.speed, batch, per_step, device, mesh.size)
    bar = Training(total, at.step, speed)
    opened.callback(bar.close)
    profiler = Profiler(config.profiled_steps(), place.folder)
    opened.callback(profiler.end)
    parts = Parts(
        config=config,
        spec=spec,
        program=program,
        numbers=operands(config, mesh),
        task=build_task(spec, hyperparameters.operands(config)),
        key=state_key,
        feed=feed,
        data=data,
        best=best,
        figures=figures,
        due=EventSchedule(total, per_epoch, *everys),
        identity=identity,
        place=place,
        request=request,
        clock=clock,
        profiler=profiler,
        checkpoints=checkpoints,
        log=log,
        bar=bar,
        speed=speed,
    )
    run = Trainer(parts, saved, detours)
    run.settle(saved)
    return run


class Trainer:
    """One run between its first step and its last: what `train` carries from event to event."""

    def __init__(self, parts: Parts, saved: Saved | None, detours: rewind.Detours):
        self.parts = parts
        self._stand_at(saved, detours)

    def _stand_at(self, saved: Saved | None, detours: rewind.Detours) -> None:
        """Stands at a checkpoint; None: at the initial state."""
        at, parts = resume.progress(saved, detours), self.parts
        self.at: LoopProgress = at
        self._last_saved = saved.step if saved else -1
        self.carry: LoopState = (
            saved.state if saved else parts.program.start(parts.numbers, parts.key)
        )

    def settle(self, saved: Saved | None) -> None:
        """Brings the run folder to the state of a checkpoint that the run goes on from.

        The log is there already. Both a start and a rewind end with it, so that the two are alike.
        """
        folder, config = self.parts.place.folder, self.parts.identity.config
        if saved and saved_config.differences(config, saved.record["identity"]):
            self._last_saved = -1  # forced: from here on it is a run of this config
            self._save()
        if self.at.detours:
            rewind.write(folder, self.at.detours)
        pictures.delete_from(folder / "plots", self.at.step)

    def train(self) -> None:
        """Steps from where the run stands to its end, with an event wherever one is due."""
        clock, total = self.parts.clock, self.parts.due.total
        _poll(self.parts.request)
        ends = self._pending_events()
        while self.at.step < total and not ends:
            self.parts.profiler.follow(self.at.step)
            began, mark = self.at.step, time.monotonic()
            self._advance()
            jax.block_until_ready(self.carry)
            self.parts.bar.advance(self.at.step)
            if not clock.runs:  # what comes after it is free of compiling
                say(f"first step after {clock.since_start():.1f} s")
                memory.keep()
                clock.start_lap(self.at.step)
            else:
                clock.set_stride(self.at.step - began, time.monotonic() - mark)
            _poll(self.parts.request)
            ends = self._events()
        self.parts.profiler.end()

    def finish(self, final_eval: FinalEval) -> dict[str, Any]:
        """Evaluates the final state and the best one, and writes the summary and the pictures."""
        parts, at = self.parts, self.at
        parts.checkpoints.wait()
        parts.place.check()
        best = resume.best_state(parts.checkpoints, at.best.step, at.step, self.carry)
        keeps_best = parts.config.final == "best" or parts.config.patience > 0
        is_best = keeps_best and best is not None
        state = best if is_best else self.carry.state
        final = self._evaluate(state, parts.data.test)
        self._log("test", metrics.scalars(final), at.best.step if is_best else at.step)
        of_best: dict[str, dict[str, np.ndarray]] = {}
        if best is not None:
            of_best["validation"] = self._evaluate(best, parts.data.validation)
            of_best["test"] = final if is_best else self._evaluate(best, parts.data.test)
        end = summary.End(parts.task, state, final, of_best, at, parts.best)
        steps, seconds = parts.clock.timed
        rates = parts.speed(steps / max(seconds, 1e-9)) if steps else {}
        figures = summary.figures(end, parts.log.lines(), parts.clock.elapsed(), rates)
        parts.log.sync()
        alone = parts.request if jax.process_count() == 1 else None
        failures = summary.conclude(end, figures, final_eval, parts.place.folder, alone)
        failures += summary.draw(end, parts.log, parts.data.spec.classes)
        _poll(parts.request)
        parts.place.check()
        parts.log.summarize(figures)
        say(f"results: {parts.place.folder}")
        summary.check(failures, final, parts.place.named)
        return figures

    def stop(self, number: int) -> signals.Stopped:
        """Makes a checkpoint of the step the run stands at; returns how it ended.

        Raises:
          TrainingError: a step was not finite, and the run ends for it.
        """
        # After a bad step the state is none between a step and its events: its key may be another
        # by now, and its metrics are zero if it was logged.
        bad = int(self.carry.bad)
        if bad >= 0:
            self._leave_bad_step(bad)
        self._save()
        self.parts.checkpoints.wait()
        return signals.Stopped(
            number,
            f"stopped by signal {number}; checkpoint of step {self.at.step} made: the same "
            f"command with --workdir={self.parts.place.named} goes on",
        )

    def _pending_events(self) -> bool:
        """Does the events of the checkpoint that the run goes on from; returns whether it ends.

        A checkpoint is of the moment before them, and the log has no line of its step.
        """
        return self.at.step > 0 and self._events()

    def _advance(self) -> None:
        """Makes the steps up to the next event, or as many as take about half a second."""
        parts, step, detours = self.parts, self.at.step, self.at.detours
        for began, left_out in detours:
            if began == step:
                self.carry = parts.program.fold_key(self.carry, left_out)
        if any(left_out == step for _, left_out in detours):
            self.carry = parts.program.leave_out(self.carry)
            self.at = self.at._replace(step=step + 1)
            return
        others = [other for detour in detours for other in detour] + parts.profiler.steps
        steps = min(parts.clock.stride, parts.due.next_stop(step, others) - step)
        self.carry = parts.feed.advance(parts.numbers, self.carry, step, steps)
        self.at = self.at._replace(step=step + steps)

    def _events(self) -> bool:
        """Logs, evaluates and saves, where it is due; returns whether the run ends early."""
        parts, step, due = self.parts, self.at.step, self.parts.due
        logs = due.is_due(step, due.log_every)
        evaluates = due.is_due(step, due.eval_every)
        saves = due.is_due(step, due.checkpoint_every)
        if not (logs or evaluates or saves):
            return False
        jax.block_until_ready(self.carry)
        parts.place.check()
        parts.checkpoints.wait(patiently=False)  # says early that one could not be written
        heard = jax.device_get(self.carry._replace(state=None))
        if parts.config.on_nonfinite == "skip":
            nonfinite.check_skipped(int(heard.skipped[0]), step)
        elif heard.bad >= 0:
            self._leave_bad_step(int(heard.bad))
            return self._pending_events()
        if logs:
            values = metrics.scalars(metrics.divide(heard.metrics))
            skipped = int(heard.skipped[1])
            self._log("train", values | ({"skipped": skipped} if skipped else {}), step)
        parts.clock.end_lap(step)
        ends = False
        if evaluates:
            self._evaluate_validation()
            saves = saves or self.at.best.step == step
            ends = self._is_out_of_patience()
        if saves or ends:
            if step % due.checkpoint_every == 0:
                self.at = self.at._replace(anchor=(step, self.at.best.step))
            self._save()
        if logs:
            self.carry = parts.program.reset(self.carry)
        if parts.clock.runs:
            parts.clock.start_lap(step)
        return ends

    def _log(self, split: str, values: dict[str, float], step: int) -> None:
        """Logs the metrics of the state of a step."""
        epoch = round(step / self.parts.due.per_epoch, 4)
        line = {"step": step, "epoch": epoch, "split": split, **values}
        self.parts.log.log(line | {"seconds": round(self.parts.clock.elapsed(), 3)})
        self.parts.bar.show(step, split, values)

    def _evaluate(self, state: State, split: batches.Split) -> dict[str, np.ndarray]:
        parts = self.parts
        poll = parts.request.poll if jax.process_count() == 1 else lambda: None
        return evaluate_split(parts.spec, parts.numbers, state, split, poll)

    def _evaluate_validation(self) -> None:
        """Evaluates, logs, keeps the best and draws."""
        parts, step, state = self.parts, self.at.step, self.carry.state
        values = metrics.scalars(self._evaluate(state, parts.data.validation))
        self._log("validation", values, step)
        name, better = parts.best
        sign, margin = 1.0 if better is max else -1.0, parts.config.min_improvement
        best = self.at.best.update(step, values[name], sign, margin)
        self.at = self.at._replace(best=best)
        for shown, picture in parts.figures(parts.task, state).items():
            path = parts.place.folder / "plots" / shown / f"{step:07}.png"
            pictures.picture(picture._replace(caption=f"Step {step}: {picture.caption}"), path)
            parts.log.picture(path, step, shown)

    def _is_out_of_patience(self) -> bool:
        best, patience = self.at.best, self.parts.config.patience
        ends = 0 < patience <= (self.at.step - best.since) // self.parts.due.eval_every
        if ends:
            say(f"--patience={patience}: no better {self.parts.best[0]} since step {best.step}")
        return ends

    def _save(self) -> None:
        if self._last_saved == self.at.step:
            return
        log, at = self.parts.log, self.at
        log.sync()
        keep = (at.best.step, *at.anchor)
        self.parts.checkpoints.save(at.step, self.carry, self._record(), log.text(), keep)
        self._last_saved = at.step

    def _record(self) -> dict[str, Any]:
        """A checkpoint's record, beside the state."""
        clock = self.parts.clock
        at: LoopProgress = self.at._replace(timed=clock.timed)
        return at.to_record(self.parts.identity, clock.elapsed())

    def _leave_bad_step(self, bad: int) -> None:
        """Goes back for a step that is not finite, after which all stood still.

        Raises:
          TrainingError: the run ends for it.
        """
        parts = self.parts
        if parts.config.on_nonfinite == "abort":
            self.at = self.at._replace(step=bad)
            parts.checkpoints.wait()
            keep = functools.partial(
                nonfinite.keep, parts.place.folder, self._record(), parts.log.text()
            )
            pair = self.carry.state, parts.feed.batch(bad)
            raise nonfinite.abort(parts.task, *pair, bad, parts.place.named, keep)
        self._rewind(bad)

    def _rewind(self, bad: int) -> None:
        """Back to the last checkpoint that was due, with another key, and without one batch."""
        parts = self.parts
        parts.checkpoints.wait()
        detours = rewind.back(self.at.detours, bad, parts.due.checkpoint_every)
        rewind.write(parts.place.folder, detours)  # before anything of the old course is gone
        parts.profiler.end()
        like, force = parts.program.like, parts.config.resume == "force"
        saved, detours = resume.restore(parts.checkpoints, like, detours, force=force)
        self._stand_at(saved, detours)
        parts.clock.start_lap(self.at.step)  # steps that are made again count anew
        parts.log.go_back(resume.kept_lines(saved))
        self.settle(saved)


def _poll(request: signals.Request) -> None:
    """Leaves the run where a signal came; all its processes at the same step."""
    if jax.process_count() == 1:
        request.poll()
        return
    # Kept apart from the request: a signal that comes meanwhile waits for the next one.
    number = collectives.all_max(request.number)
    if number is not None:
        raise signals.Asked(number)
