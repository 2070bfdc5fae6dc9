"""Trainer: the state of one run, and the stages that `loop.train` calls in order.

`begin.begin_run` compiles the step, restores the newest checkpoint and opens the run folder. A
`Trainer` then advances the state, handles events, rewinds after a bad step, and finishes or stops
the run. The work is done in neighbouring modules: `train_step` (the compiled step), `feed`
(batches), `events` (schedule), `evaluate`, `resume` (checkpoint records), `rewind`, `nonfinite` and
`summary`.
"""

import functools
import time
from typing import Any

import jax
import numpy as np

from jaxdl import memory, metrics, saved_config, signals
from jaxdl.console import say
from jaxdl.data import batches
from jaxdl.distributed import collectives
from jaxdl.errors import Paused
from jaxdl.run import pictures, workdir
from jaxdl.run.checkpoint_record import Saved
from jaxdl.task import State
from jaxdl.train import averaging, histograms, nonfinite, resume, rewind, summary
from jaxdl.train.evaluate import evaluate_split
from jaxdl.train.events import EventSchedule
from jaxdl.train.hooks import FinalEval
from jaxdl.train.resume import LoopProgress
from jaxdl.train.run_parts import Parts, draw_figures, is_out_of_patience, poll
from jaxdl.train.train_step import LoopState


class Trainer:
    """One run: its parts, its progress and its state on the devices.

    Attributes:
      parts: the parts of the run that its steps do not change.
      progress: the current step and the other host-side values of a checkpoint's record.
      carry: the state on the devices, donated to each call of the compiled step.
    """

    def __init__(self, parts: Parts, saved: Saved | None, detours: rewind.Detours):
        """Creates a trainer at a checkpoint; if `saved` is None, at the initial state."""
        self.parts = parts
        self.progress: LoopProgress
        self.carry: LoopState
        self._set_state(saved, detours)

    def sync_folder(self, saved: Saved | None) -> None:
        """Brings the run folder to the state of the checkpoint that the run continues from.

        The log has been brought there already. A start and a rewind both end with this call, so
        that they leave the same folder.
        """
        folder, config = self.parts.claim.folder, self.parts.identity.config
        if saved is None and workdir.INIT in config:
            self._save()  # from here on the run does not need its --init_from
        if saved and saved_config.differences(config, saved.record["identity"]):
            self._last_saved = -1  # --resume=force or extend: from here on the run has this config
            self._save()
            self.parts.checkpoints.wait()
            (folder / "summary.json").unlink(missing_ok=True)  # it is not at its end any more
        if self.progress.detours:
            rewind.write(folder, self.progress.detours)
        pictures.delete_from(folder / "plots", self.progress.step)
        for step, name, path in pictures.by_step(folder / "plots"):
            self.parts.log.picture(path, step, name)  # trackers begin from nothing

    def has_steps_left(self) -> bool:
        """Returns True before the last step."""
        return self.progress.step < self.parts.schedule.total

    def advance(self) -> None:
        """Takes the steps of one call, waits for them, and polls for signals."""
        clock = self.parts.clock
        self.parts.profiler.follow(self.progress.step)
        start, mark = self.progress.step, time.monotonic()
        self._take_steps()
        jax.block_until_ready(self.carry)
        self.parts.bar.advance(self.progress.step)
        if clock.runs:
            clock.set_stride(self.progress.step - start, time.monotonic() - mark)
        else:  # the first call compiles, so the rates count only the calls after it
            say(f"first step after {clock.since_start():.1f} s")
            memory.keep()
            clock.start_lap(self.progress.step)
        poll(self.parts.request)

    def pending_events(self) -> bool:
        """Handles the events of a restored checkpoint, whose log lacks the lines of its step.

        Returns True if the run ends early.
        """
        return self.progress.step > 0 and self.handle_events()

    def handle_events(self) -> bool:
        """Logs, evaluates and saves if due; rewinds after a step that was not finite.

        Returns True if the run ends early, out of patience.

        Raises:
          TrainingError: a step was not finite, and --on_nonfinite ends the run.
          Paused: --pause_at is reached, and the checkpoint of this step is on disk.
        """
        parts, step, due = self.parts, self.progress.step, self._due()
        logs = due.is_due(step, due.log_every)
        evaluates = due.is_due(step, due.eval_every)
        saves = due.is_due(step, due.checkpoint_every)
        pauses = 0 < parts.config.pause_at <= step < due.total
        if not (logs or evaluates or saves or pauses):
            return False
        jax.block_until_ready(self.carry)
        parts.claim.check()
        parts.checkpoints.wait(patiently=False)  # raises early if the last save failed
        on_host = jax.device_get(self.carry._replace(state=None))
        if parts.config.on_nonfinite == "skip":
            nonfinite.check_skipped(int(on_host.skipped[0]), step)
        elif on_host.bad >= 0:
            _leave_bad_step(self, int(on_host.bad))
            return self.pending_events()
        if logs:
            values = metrics.scalars(metrics.divide(on_host.metrics))
            skipped = int(on_host.skipped[1])
            self._log("train", values | ({"skipped": skipped} if skipped else {}), step)
        parts.clock.end_lap(step)
        ends = False
        if evaluates:
            self._evaluate_validation()
            ends = is_out_of_patience(parts, self.progress)
        if pauses:
            self._last_saved = -1  # a checkpoint from before these events lacks their lines
        if saves or ends or pauses or self.progress.best.step == step:
            if step % due.checkpoint_every == 0:
                anchor = (step, self.progress.best.step)
                self.progress = self.progress._replace(anchor=anchor)
            self._save(soon=not (saves or ends or pauses), logged=True)
        if pauses and not ends:
            raise self._pause()
        if logs:
            self.carry = parts.program.reset(self.carry)
        if parts.clock.runs:
            parts.clock.start_lap(step)
        return ends

    def finish(self, final_eval: FinalEval) -> dict[str, Any]:
        """Evaluates the final and the best state; writes and returns the summary.

        Raises:
          TrainingError: `final_eval` or a plot failed, or a test metric is not finite.
        """
        parts = self.parts
        parts.profiler.end()
        parts.checkpoints.wait()
        parts.claim.check()
        end = _evaluate_end(self)
        steps, seconds = parts.clock.timed
        rates = parts.speed(steps / max(seconds, 1e-9)) if steps else {}
        results = summary.results(end, parts.log.lines(), parts.clock.elapsed(), rates)
        parts.log.sync()
        request = parts.request if jax.process_count() == 1 else None
        failures = summary.run_final_eval(end, results, final_eval, parts.claim.folder, request)
        failures += summary.draw(end, parts.log, parts.data.spec.classes)
        poll(parts.request)
        parts.claim.check()
        parts.log.summarize(results)
        say(f"results: {parts.claim.folder}")
        summary.check(failures, end.final, parts.claim.run_folder)
        return results

    def stop(self, number: int) -> signals.Stopped:
        """Saves a checkpoint after a signal; returns the exception with which the run ends.

        Raises:
          TrainingError: a step was not finite, which ends the run instead.
        """
        # After a bad step the carry is not the state between a step and its events: its key may
        # have changed, and its metrics are zero if it was logged.
        if (bad := int(self.carry.bad)) >= 0:
            _leave_bad_step(self, bad)
        self._save()
        self.parts.checkpoints.wait()
        collectives.barrier()  # the others would end this process while it still writes
        return signals.Stopped(
            number,
            f"stopped by signal {number}; checkpoint of step {self.progress.step} made: the same "
            f"command with --workdir={self.parts.claim.run_folder} goes on",
        )

    def _pause(self) -> Paused:
        """Waits for the checkpoint of the current step; returns the exception that ends the run."""
        self.parts.checkpoints.wait()
        collectives.barrier()  # as in `stop`
        return Paused(
            f"paused at step {self.progress.step} of {self.parts.schedule.total}: the same command "
            f"with --workdir={self.parts.claim.run_folder} and another or no --pause_at goes on"
        )

    def _set_state(self, saved: Saved | None, detours: rewind.Detours) -> None:
        """Moves to a checkpoint; if `saved` is None, to the initial state."""
        parts = self.parts
        self.progress = resume.progress(saved, detours)
        self._last_saved = saved.step if saved else -1
        self.carry = saved.state if saved else parts.start()

    def _take_steps(self) -> None:
        """Takes the steps up to the next event, or as many as fill about half a second."""
        parts, step, detours = self.parts, self.progress.step, self.progress.detours
        for start, left_out in detours:
            if start == step:
                self.carry = parts.program.fold_key(self.carry, left_out)
        if any(left_out == step for _, left_out in detours):
            self.carry = parts.program.leave_out(self.carry)
            self.progress = self.progress._replace(step=step + 1)
            return
        stops = [stop for detour in detours for stop in detour] + parts.profiler.steps
        stops.append(parts.config.pause_at)
        steps = min(parts.clock.stride, parts.schedule.next_stop(step, stops) - step)
        self.carry = parts.feed.advance(parts.operands, self.carry, step, steps)
        self.progress = self.progress._replace(step=step + steps)

    def _log(self, split: str, values: dict[str, float], step: int) -> None:
        """Logs the metrics of the state at a step."""
        epoch = round(step / self.parts.schedule.per_epoch, 4)
        line = {"step": step, "epoch": epoch, "split": split, **values}
        self.parts.log.log(line | {"seconds": round(self.parts.clock.elapsed(), 3)})
        self.parts.bar.show(step, split, values)

    def _evaluate(self, state: State, split: batches.Split) -> dict[str, np.ndarray]:
        """Evaluates a state on a split; a signal interrupts it if the run has one process."""
        parts = self.parts
        poll = parts.request.poll if jax.process_count() == 1 else lambda: None
        return evaluate_split(parts.spec, parts.operands, state, split, poll)

    def _averaged(self) -> list[int]:
        """Returns the steps of the checkpoints to average if the run ended now."""
        count = averaging.count(self.parts.config)
        return self._due().last_checkpoints(self.progress.step, count)

    def _due(self) -> EventSchedule:
        return self.parts.schedule._replace(ends=self.progress.ends)

    def _evaluate_validation(self) -> None:
        """Evaluates on validation, logs, updates the best and draws the figures."""
        parts, step, state = self.parts, self.progress.step, self.carry.state
        values = metrics.scalars(self._evaluate(state, parts.data.validation))
        self._log("validation", values, step)
        name, better = parts.best
        sign, margin = 1.0 if better is max else -1.0, parts.config.min_improvement
        best = self.progress.best.update(step, values[name], sign, margin)
        self.progress = self.progress._replace(best=best)
        draw_figures(parts, step, state)
        if parts.config.histograms:
            parts.log.histograms(
                histograms.compute(parts.task, state, parts.feed.batch(step)), step
            )

    def _save(self, soon: bool = False, logged: bool = False) -> None:
        """Saves a checkpoint of the current step unless there is one.

        Args:
          soon: see `Checkpoints.save`.
          logged: whether the events of the step are in the log.
        """
        if self._last_saved == self.progress.step:
            return
        log, progress, checkpoints = self.parts.log, self.progress, self.parts.checkpoints
        keep = (progress.best.step, *progress.anchor, *self._averaged())
        if not soon:
            log.sync()
            self._last_saved = progress.step
        record = self._record(logged)
        checkpoints.save(progress.step, self.carry, record, log.text(), keep, soon)

    def _record(self, logged: bool = False) -> dict[str, Any]:
        """Returns a checkpoint's record, the part beside the state."""
        clock, (name, better) = self.parts.clock, self.parts.best
        progress: LoopProgress = self.progress._replace(timed=clock.timed)
        metric = [name, better.__name__]
        return progress.to_record(self.parts.identity, clock.elapsed(), metric, logged)


def _evaluate_end(trainer: Trainer) -> summary.End:
    """Evaluates the final, the best and the averaged state; logs the final one."""
    parts, progress, evaluate = trainer.parts, trainer.progress, trainer._evaluate
    best_step, test = progress.best.step, parts.data.test
    best = resume.best_state(parts.checkpoints, best_step, progress.step, trainer.carry)
    keeps_best = parts.config.final == "best" or parts.config.patience > 0
    is_best = keeps_best and best is not None
    state = best if is_best else trainer.carry.state
    final = evaluate(state, test)
    trainer._log("test", metrics.scalars(final), best_step if is_best else progress.step)
    others: dict[str, dict[str, np.ndarray]] = {}
    if best is not None:
        others["best/validation"] = evaluate(best, parts.data.validation)
        others["best/test"] = final if is_best else evaluate(best, test)
    average = averaging.average_state(parts.checkpoints, trainer._averaged(), trainer.carry)
    if average is not None:
        others["average/test"] = evaluate(average, test)
    return summary.End(parts.task, state, final, others, progress, parts.best)


def _leave_bad_step(trainer: Trainer, bad: int) -> None:
    """Rewinds from a step that was not finite, after which the carry did not change.

    Raises:
      TrainingError: --on_nonfinite=abort, or too many rewinds.
    """
    parts = trainer.parts
    if parts.config.on_nonfinite == "abort":
        trainer.progress = trainer.progress._replace(step=bad)
        parts.checkpoints.wait()
        folder, record, log = parts.claim.folder, trainer._record(), parts.log.text()
        keep = functools.partial(nonfinite.save_bad_step, folder, record, log)
        pair = trainer.carry.state, parts.feed.batch(bad)
        error = nonfinite.abort(parts.task, *pair, bad, parts.claim.run_folder, keep)
        collectives.barrier()  # as in `stop`
        raise error
    _rewind(trainer, bad)


def _rewind(trainer: Trainer, bad: int) -> None:
    """Returns to the last checkpoint that was due, with a new key and without the bad batch."""
    parts = trainer.parts
    parts.checkpoints.forget()
    detours = rewind.add_detour(trainer.progress.detours, bad, parts.schedule.checkpoint_every)
    rewind.write(parts.claim.folder, detours)  # before anything of the old course is deleted
    parts.profiler.end()
    shapes, force = parts.program.state_shapes, parts.config.resume == "force"
    saved, detours = resume.restore(parts.checkpoints, shapes, detours, force=force)
    trainer._set_state(saved, detours)
    parts.clock.start_lap(trainer.progress.step)  # repeated steps count again
    parts.log.go_back(resume.kept_lines(saved))
    trainer.sync_folder(saved)
