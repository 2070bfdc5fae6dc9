"""One side of `jaxdl diff`: opens a run in a process of its own, and repeats its steps on request.

    python -P diff_side.py < REQUESTS

The first line of REQUESTS describes the run: `folder` and flags such as `data_dir`. Each line after
it is a request: its `do` is the name of a method of `Side`, the rest are the arguments. An answer
is a line of JSON. The modules of the project may be those of another checkout.
"""

import importlib.util
import json
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

try:
    import numpy as np
except ImportError as error:
    sys.exit(f"{sys.executable} has no package {error.name}")

Digests = dict[str, str]
LoopPath = list[tuple[int, int]]  # as `operations.Path`
MOST_DEVICES = 64


class Side:
    """A run whose steps can be repeated.

    Attributes:
      step: the step that the side stands at.
    """

    def __init__(self, folder: str, tree: str = "", **changes: str):
        """Opens a run.

        Args:
          folder: the run folder.
          tree: the checkout that has to open it; empty for any.
          **changes: values of flags that replace the run's.
        """
        from jaxdl.run.checkpoint import Checkpoints

        self._checkpoints = Checkpoints(Path(folder) / "checkpoints")
        self._record = self._checkpoints.newest_record() or {}
        self._steps, self._damaged = self._intact()
        self._open(Path(folder), tree, changes)

    def _intact(self) -> tuple[list[int], list[int]]:
        """Returns the steps of the intact checkpoints, and those of the damaged ones."""
        from jaxdl.run.checkpoint_record import DamagedError

        intact, damaged = [], []
        for step in self._checkpoints.steps():
            try:
                self._checkpoints.read(step)
                intact.append(step)
            except DamagedError:
                damaged.append(step)
        still_there = self._checkpoints.steps()  # a run that goes on has deleted the others
        return intact, [step for step in damaged if step in still_there]

    def _open(self, folder: Path, tree: str, changes: dict[str, str]) -> None:
        """Loads the data and builds the program."""
        import jax

        from jaxdl.distributed import sharding
        from jaxdl.run.restore import load_data
        from jaxdl.run.run_folder import open_run
        from jaxdl.train import step_spec, train_step
        from jaxdl.train.feed import open_feed

        self._run = run = open_run(folder, "newest", **changes)
        check_tree(tree, run.experiment)
        self._data = data = load_data(run)
        mesh = sharding.mesh(run.config)
        self._spec = spec = step_spec.step_spec(run.experiment.build, run.config, data, mesh)
        self._program = train_step.compile_step(spec)
        self._functions = step_spec.task_functions(spec)
        self._numbers = step_spec.device_operands(run.config, data.spec, mesh)
        self._key, data_key = jax.random.split(jax.random.key(run.config.seed))
        self._feed = open_feed(self._program, spec, data.train, data_key)
        self.step = -1
        self._carry: Any = None
        self._kept: tuple[int, Any] = -1, None

    def about(self) -> dict[str, Any]:
        """Returns config, data, versions and checkpoints of the run."""
        from jaxdl import saved_config
        from jaxdl.run import environment

        config, size = self._run.config, self._spec.mesh.size
        # An older checkout knows of the library that computes convolutions alone, or of none.
        names = [name for name in ("native", "convolves") if hasattr(self._program, name)]
        more = {name: getattr(self._program, name) for name in names}
        here = environment.versions(size, **more)
        return {
            "config": saved_config.identity(config),
            "data": self._data.spec.fingerprint,
            "made_with": self._record.get("versions", {}),
            "here": here | {environment.SOURCE: environment.source_digest(config)},
            "steps": self._steps,
            "damaged": self._damaged,
            "detours": bool(self._record.get("detours")),
        }

    def stored(self, step: int) -> Digests:
        """Returns a digest of each array in the state of a checkpoint."""
        return self._digests(self._restored(step).state)

    def go(self, step: int) -> Digests:
        """Goes to a step by repeating all after the one that was kept; returns its digests."""
        import jax
        import jax.numpy as jnp

        start, state = self._kept
        carry = jax.tree.map(jnp.copy, state)  # the program donates it
        if step > start:
            carry = self._feed.advance(self._numbers, carry, start, step - start)
        self.step, self._carry = step, carry
        return self._digests(carry.state)

    def begin(self, step: int) -> Digests:
        """Goes to a checkpoint, or at step 0 to the initial state, and keeps it."""
        if step in self._steps:
            carry = self._restored(step)
        elif "init_sha256" in self._record.get("identity", {}):
            from jaxdl.errors import UserError

            raise UserError(
                "it began with the weights of --init_from, and its checkpoint of step 0 is gone: "
                "only runs with a common checkpoint of equal states can be repeated from there"
            )
        else:
            carry = self._program.start(self._numbers, self._key)
        self.step, self._carry = step, carry
        self.keep()
        return self._digests(carry.state)

    def keep(self) -> None:
        """Keeps the state of the current step."""
        self._kept = self.step, self._carry

    def batch(self) -> Digests:
        """Returns a digest of each array in the batch of the step that was kept."""
        return self._digests(self._feed.batch(self._kept[0]))

    def operations(self, initial: bool, path: LoopPath) -> list[list[str]]:
        """Returns the operations of the step that was kept, or of the initial state."""
        function, *arguments = self._call(initial)
        return [list(one) for one in _operations().operations(function, path, *arguments)]

    def iterations(self, initial: bool, path: LoopPath, number: int) -> list[str]:
        """Returns digests of the results of each iteration of a loop."""
        function, *arguments = self._call(initial)
        digests: list[str] = _operations().iterations(function, path, number, *arguments)
        return digests

    def result(self, number: int, initial: bool, path: LoopPath, file: str) -> None:
        """Writes the first result of one of the operations to a NumPy file."""
        function, *arguments = self._call(initial)
        array = _operations().result(function, path, number, *arguments)
        np.save(file, array, allow_pickle=False)

    def losses(self) -> list[list[Any]]:
        """Returns the loss of precision of each operation of the step that was kept."""
        from jaxdl.train import precision

        return [list(one) for one in precision.losses(*self._call(initial=False))]

    def array(self, name: str, where: str, step: int, path: str) -> None:
        """Writes one array to a NumPy file.

        Args:
          name: its path in the state or the batch.
          where: state (of the current step), stored (in the checkpoint of `step`) or batch.
          step: step of the checkpoint.
          path: the file.
        """
        if where == "batch":
            tree = self._feed.batch(self._kept[0])
        else:
            tree = (self._restored(step) if where == "stored" else self._carry).state
        np.save(path, dict(_leaves(tree))[name], allow_pickle=False)

    def _call(self, initial: bool) -> tuple[Any, ...]:
        """Returns the function of a step, or of the initial state, and its arguments."""
        if initial:
            return self._functions.init, self._numbers, self._key
        step, carry = self._kept
        return self._functions.step, self._numbers, carry.state, self._feed.batch(step)

    def _restored(self, step: int) -> Any:
        from jaxdl.errors import UserError

        try:
            return self._checkpoints.restore(step, self._program.state_shapes).state
        except UserError as error:
            if step in self._checkpoints.steps():
                raise
            raise UserError(
                f"its checkpoint of step {step} was deleted meanwhile, as the run goes on: give "
                "the command again when it has ended"
            ) from error

    def _digests(self, tree: Any) -> Digests:
        return {name: _operations().digest(array) for name, array in _leaves(tree)}


def _leaves(tree: Any) -> list[tuple[str, np.ndarray]]:
    """Returns the arrays of a pytree with their paths, in order."""
    import jax

    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [
        (jax.tree_util.keystr(path, simple=True, separator="/"), _operations().to_numpy(x))
        for path, x in leaves
    ]


def _operations() -> ModuleType:
    """Imports `train/operations.py` of this checkout, which an older one may lack."""
    name = "jaxdl_diff_operations"
    if name not in sys.modules:
        path = Path(__file__).parents[1] / "train" / "operations.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def check_tree(tree: str, experiment: ModuleType) -> None:
    """Checks that the project and an experiment are those of a checkout.

    Args:
      tree: folder of the checkout; empty: any will do.
      experiment: the experiment's module.

    Raises:
      UserError: one of them was imported from elsewhere.
    """
    import jaxdl
    from jaxdl.errors import UserError

    for module in (jaxdl, experiment) if tree else ():
        file = Path(module.__file__ or "").resolve()
        if not file.is_relative_to(Path(tree).resolve()):
            raise UserError(
                f"{module.__name__} is not in --tree={tree}, but in {file}: put it there, or name "
                "another checkout"
            )


def set_up(folder: str) -> None:
    """Sets this process up as that of a run, with as many devices if they are those of a CPU."""
    import jax

    from jaxdl import cli
    from jaxdl.run.checkpoint import Checkpoints

    cli.set_up_jax(False)
    record = Checkpoints(Path(folder) / "checkpoints").newest_record() or {}
    devices = re.match(r"(\d+) x cpu$", record.get("versions", {}).get("devices", ""))
    if devices:
        jax.config.update("jax_num_cpu_devices", min(int(devices[1]), MOST_DEVICES))


def message(error: Exception) -> str:
    """Returns the line that describes an error."""
    if any(parent.__name__ == "UserError" for parent in type(error).__mro__):
        return str(error)
    if isinstance(error, ImportError):
        return f"{error}: its environment lacks a package, or its checkout is too old or too new"
    return f"{type(error).__name__}: {error}"


def main() -> None:
    """Answers the requests on standard input until it is closed."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the project prints is no answer
    side: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if side is None:
                set_up(request["folder"])
                side, answer = Side(**request), None
            else:
                answer = getattr(side, request.pop("do"))(**request)
            text = {"answer": answer}
        except Exception as error:
            text = {"error": message(error)}
        answers.write(json.dumps(text) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
