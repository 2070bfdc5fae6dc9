"""The loop: carries a task's state through its steps, and logs, evaluates and saves on the way.

It knows nothing of models, losses or labels. Between two events nothing is brought to the host:
steps are dispatched ahead, and metrics add up on the device, inside the compiled step.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxdl import metrics, parallel, plots, record, signals, tree
from jaxdl.checkpoint import Checkpoints
from jaxdl.config import RunConfig
from jaxdl.data import batches
from jaxdl.data.batches import Dataset
from jaxdl.errors import TrainingError
from jaxdl.evaluate import Evaluate, evaluator
from jaxdl.progress import Training, say
from jaxdl.task import Metrics, State, Task

Best = tuple[str, Callable[[float, float], float]]  # a metric's name, and max or min
Carry = tuple[State, Metrics]  # the state, and the metrics since the last line of the log


class Program(NamedTuple):
    """The compiled functions of a run."""

    start: Callable[[jax.Array, batches.Split, jax.Array], Carry]  # the carry of step 0
    order: Callable[[jax.Array, int], jax.Array]  # (key, epoch) -> int32 [N]
    advance: Callable[[Carry, batches.Split, jax.Array], Carry]  # one step
    reset: Callable[[Metrics], Metrics]  # the same metrics, all zero
    evaluate: Evaluate


def compile_program(task: Task, config: RunConfig, examples: int, mesh: Mesh) -> Program:
    """Jits a task's functions: the state replicated and donated, the batch sharded over `mesh`."""
    per_epoch = config.steps_per_epoch(examples)
    whole, shards = parallel.replicated(mesh), parallel.sharded(mesh)

    def step(state: State, split: batches.Split, order: jax.Array) -> tuple[State, Metrics]:
        batch = batches.take(split, order, state.step % per_epoch, config.batch_size)
        return task.step(state, jax.lax.with_sharding_constraint(batch, shards))

    def start(key: jax.Array, split: batches.Split, order: jax.Array) -> Carry:
        state = task.init(key)
        _, shapes = jax.eval_shape(step, state, split, order)
        return state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def advance(carry: Carry, split: batches.Split, order: jax.Array) -> Carry:
        state, totals = carry
        state, new = step(state, split, order)
        return state, metrics.add(totals, new)

    return Program(
        start=jax.jit(start, out_shardings=whole),
        order=jax.jit(
            lambda key, epoch: batches.epoch_order(key, epoch, examples), out_shardings=whole
        ),
        advance=jax.jit(advance, donate_argnums=0, out_shardings=whole),
        reset=jax.jit(
            lambda totals: jax.tree.map(jnp.zeros_like, totals),
            donate_argnums=0,
            out_shardings=whole,
        ),
        evaluate=evaluator(task, mesh),
    )


def train(
    config: RunConfig, task: Task, data: Dataset, best: Best = ("accuracy", max)
) -> dict[str, Any]:
    """Trains a task to its end, from where its workdir's run stopped if there is one.

    Args:
      config: of the run.
      task: what to train.
      data: its splits; evaluation is on validation, the final report on test.
      best: the metric that chooses the best checkpoint on validation, and which of two is better.

    Returns:
      What `summary.json` holds.

    Raises:
      UserError: the config does not fit the data, the devices or the workdir; nothing is written.
      TrainingError: the loss is not finite, or a checkpoint cannot be written.
      Stopped: a signal ended the run, after its checkpoint was made.
    """
    with signals.graceful() as request:
        run = _Run(config, task, data, best)
        try:
            run.train(request)
            return run.finish()
        finally:
            run.close()


class _Run:
    """One run between its first step and its last: what `train` carries from event to event."""

    def __init__(self, config: RunConfig, task: Task, data: Dataset, best: Best):
        self._began = time.monotonic()
        self._config, self._data, self._best_metric = config, data, best
        examples = batches.size(data.train)
        self._per_epoch = config.steps_per_epoch(examples)
        self._total = config.total_steps(examples)
        mesh = parallel.data_mesh(config.batch_size)
        folder = record.choose_workdir(config)
        record.claim(folder, config)

        self._program = compile_program(task, config, examples, mesh)
        state_key, self._data_key = jax.random.split(jax.random.key(config.seed))
        self._split = jax.device_put(data.train, parallel.replicated(mesh))
        order = self._program.order(self._data_key, 0)
        self._carry: Carry = self._program.start(state_key, self._split, order)
        self._checkpoints = Checkpoints(folder / "checkpoints")
        self._step, self._seconds = 0, 0.0
        self._best: dict[str, Any] = {"step": 0, "value": None}  # none evaluated yet
        self._timed_steps, self._timed_seconds = 0, 0.0
        if saved := self._checkpoints.steps():
            self._step = saved[-1]
            self._carry = self._checkpoints.restore(self._step, self._carry)
            known = self._checkpoints.record(self._step)
            self._best, self._seconds = known["best"], known["seconds"]
            self._timed_steps, self._timed_seconds = known["timed"]
        self._last_saved = self._step if saved else -1
        self._checkpoints.clear_leftovers()
        about = {"name": data.name, "version": data.version, "fingerprint": data.fingerprint}
        self._record = record.Record(folder, config, about | {"source": data.source}, self._step)
        self._announce(folder, mesh.size)
        self._bar = Training(self._total, self._step)

    def train(self, request: signals.Request) -> None:
        """Steps from where the run stands to its end, with an event wherever one is due."""
        config = self._config
        eval_every = config.eval_every or self._per_epoch
        checkpoint_every = config.checkpoint_every or self._per_epoch
        order, first, mark, timed = None, self._step, 0.0, self._step
        while self._step < self._total:
            if order is None or self._step % self._per_epoch == 0:
                order = self._program.order(self._data_key, self._step // self._per_epoch)
            self._carry = self._program.advance(self._carry, self._split, order)
            self._step += 1
            self._bar.advance(self._step)
            if self._step == first + 1:
                # The one wait that no event asks for: what comes after it is free of compiling.
                jax.block_until_ready(self._carry)
                say(f"first step after {time.monotonic() - self._began:.1f} s")
                mark, timed = time.monotonic(), self._step

            last = self._step == self._total
            logs = last or self._step % config.log_every == 0
            evaluates = last or self._step % eval_every == 0
            saves = last or self._step % checkpoint_every == 0
            if not (logs or evaluates or saves or request.number):
                continue
            jax.block_until_ready(self._carry)
            if logs:
                self._log_training()
            self._timed_seconds += time.monotonic() - mark
            self._timed_steps += self._step - timed
            if evaluates and self._evaluate_validation():
                saves = True
            if saves or request.number:
                self._save()
            if request.number:
                raise self._stop(request.number)
            mark, timed = time.monotonic(), self._step

    def finish(self) -> dict[str, Any]:
        """Evaluates the last state and the best one, and writes the summary and the pictures."""
        state, _ = self._carry
        summary: dict[str, Any] = {}
        self._checkpoints.wait()
        for line in record.read_metrics(self._record.folder):
            summary |= {f"{line['split']}/{k}": line[k] for k in record.metric_names(line)}
        final = self._evaluate(state, self._data.test)
        self._log("test", metrics.scalars(final))
        summary |= {f"test/{k}": v for k, v in metrics.scalars(final).items()}
        best_state = state
        if self._best["step"] != self._step:
            best_state, _ = self._checkpoints.restore(self._best["step"], self._carry)
        for name, split in (("validation", self._data.validation), ("test", self._data.test)):
            values = metrics.scalars(self._evaluate(best_state, split))
            summary |= {f"best/{name}/{k}": v for k, v in values.items()}
        rate = self._timed_steps * self._config.batch_size / max(self._timed_seconds, 1e-9)
        summary |= {
            "step": self._step,
            "best_step": self._best["step"],
            "seconds": round(self._elapsed(), 3),
            "examples_per_second": round(rate, 1) if self._timed_steps else None,
            "parameters": parameters(state),
            "state_sha256": tree.digest(state),
        }
        self._record.sync()
        self._draw(final)
        self._record.summarize(summary)
        return summary

    def close(self) -> None:
        """Ends what is still open, also after a failure."""
        self._bar.close()
        self._record.close()
        self._checkpoints.close()

    def _announce(self, folder: Any, devices: int) -> None:
        data, state = self._data, self._carry[0]
        sizes = "/".join(f"{batches.size(s):,}" for s in (data.train, data.validation, data.test))
        say(f"data: {data.name} ({data.source}), {sizes} to train/validate/test")
        kind = jax.devices()[0].device_kind
        say(f"{parameters(state):,} parameters, {self._total:,} steps on {devices} x {kind}")
        goes_on = f", going on from step {self._step:,}" if self._step else ""
        say(f"run folder: {folder}{goes_on}")

    def _elapsed(self) -> float:
        return self._seconds + time.monotonic() - self._began

    def _log(self, split: str, values: dict[str, float]) -> None:
        epoch = round(self._step / self._per_epoch, 4)
        line = {"step": self._step, "epoch": epoch, "split": split, **values}
        self._record.log(line | {"seconds": round(self._elapsed(), 3)})
        self._bar.show(self._step, split, values)

    def _log_training(self) -> None:
        state, totals = self._carry
        values = metrics.scalars(metrics.divide(totals))
        self._carry = state, self._program.reset(totals)
        self._log("train", values)
        for name, value in values.items():
            if not np.isfinite(value):
                raise TrainingError(
                    f"{name} is {value} by step {self._step}: lower --learning_rate, or start "
                    "again from an earlier state"
                )

    def _evaluate(self, state: State, split: batches.Split) -> dict[str, np.ndarray]:
        return self._program.evaluate(state, split, self._config.batch_size)

    def _evaluate_validation(self) -> bool:
        """Evaluates, logs, and returns whether this is the best so far."""
        values = metrics.scalars(self._evaluate(self._carry[0], self._data.validation))
        self._log("validation", values)
        name, choose = self._best_metric
        old, new = self._best["value"], values[name]
        if old is None or (new != old and choose(new, old) == new):
            self._best = {"step": self._step, "value": new}
            return True
        return False

    def _save(self) -> None:
        if self._last_saved == self._step:
            return
        self._record.sync()
        timed = (self._timed_steps, self._timed_seconds)
        known = {"best": self._best, "seconds": self._elapsed(), "timed": timed}
        self._checkpoints.save(self._step, self._carry, known, keep=(self._best["step"],))
        self._last_saved = self._step

    def _stop(self, number: int) -> signals.Stopped:
        self._checkpoints.wait()
        return signals.Stopped(
            number,
            f"stopped by signal {number}; checkpoint of step {self._step} made: the same command "
            f"with --workdir={self._record.folder} goes on",
        )

    def _draw(self, final: dict[str, np.ndarray]) -> None:
        folder = self._record.folder / "plots"
        plots.curves({"": record.read_metrics(self._record.folder)}, folder / "curves.png")
        for name, value in final.items():
            if np.ndim(value) == 2:
                plots.matrix(value, f"test {name}", folder / f"test_{name}.png")
        for path in sorted(folder.glob("*.png")):
            self._record.picture(path, self._step)


def parameters(state: State) -> int:
    """Number of trained scalars: those of the state's fields named `params` or `..._params`."""
    return sum(
        leaf.size for path, leaf in tree.flatten(state).items() if "params" in path.split("[")[0]
    )
