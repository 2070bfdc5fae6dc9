"""Time of a step of one member of a population, by each map and alone.

    python -m experiments.benchmarks.populations
    python -m experiments.benchmarks.populations --only=iris_mlp --turns=15

`alone` is one member after the other on one device, with both the cores that XLA gives it. A ratio
is the time of `alone` over that of a map in the same turn; above 1 the population is faster.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import cartpole_ppo, cifar_vgg, iris_mlp, mnist_lenet
from jaxdl import cli
from jaxdl.config import RunConfig, flag
from jaxdl.console import say
from jaxdl.distributed import sharding
from jaxdl.errors import UserError
from jaxdl.flags import parse_flags
from jaxdl.train import seats
from jaxdl.train.step_spec import Operands, device_operands, step_spec
from jaxdl.train.train_step import Epoch, LoopState, Program, compile_step


class Case(NamedTuple):
    """A population: its experiment with flags, members, and steps of a turn."""

    module: Any
    flags: list[str]
    members: int
    steps: int


CASES = {
    "iris_mlp": Case(iris_mlp, [], 32, 2000),
    "mnist_lenet": Case(mnist_lenet, ["--dataset=embedded"], 8, 20),
    "cartpole_ppo": Case(cartpole_ppo, [], 16, 10),
    "cifar_vgg": Case(
        cifar_vgg, ["--dataset=embedded", "--width_multiplier=0.25", "--batch_size=64"], 4, 3
    ),
}


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Populations to time, and number of turns."""

    only: str = flag("", "comma-separated names of experiments; default: all")
    turns: int = flag(7, "number of times that each map is timed", low=2)
    vmap: bool = flag(True, "also time the mapped program, which compiles long for convolutions")


@dataclasses.dataclass
class Member:
    """A member and its state."""

    program: Program
    numbers: Operands
    carry: LoopState
    epoch: Epoch

    def advance(self, steps: int) -> None:
        """Takes steps and waits for them."""
        result = self.program.advance(self.numbers, self.carry, self.epoch, steps)
        self.carry, self.epoch = jax.block_until_ready(result)


def members(name: str, devices: list[jax.Device]) -> list[Member]:
    """Returns the members of a case at their first steps, spread over devices."""
    module = CASES[name].module
    config = parse_flags(module.Config, CASES[name].flags)
    assert config is not None
    data = module.load(config)
    splits: dict[jax.Device, Any] = {}
    made = []
    for number in range(CASES[name].members):
        device = devices[number % len(devices)]
        own = dataclasses.replace(config, seed=number)
        mesh = sharding.mesh(own, [device])
        program = compile_step(step_spec(module.build, own, data, mesh))
        numbers = device_operands(own, data.spec, mesh)
        if device not in splits:
            splits[device] = sharding.put(data.train, sharding.replicated(mesh))
        state_key, data_key = jax.random.split(jax.random.key(number))
        decisive = ("length", data.spec.balanced_by)
        order = program.order({n: data.train[n] for n in data.train if n in decisive}, data_key, 0)
        carry = program.start(numbers, state_key)
        made.append(Member(program, numbers, carry, Epoch(splits[device], data_key, order)))
    return made


def mapped(population: list[Member]) -> Callable[[int], None]:
    """Returns a function that takes steps of all members by one mapped program."""
    program = seats.mapped(population[0].program.loop)

    def advance(steps: int) -> None:
        results = program(
            [one.numbers for one in population],
            [(one.carry, one.epoch.order) for one in population],
            [population[0].epoch.split],
            [one.epoch.key for one in population],
            np.int32(steps),
        )
        jax.block_until_ready(results)
        for one, (carry, order) in zip(population, results, strict=True):
            one.carry, one.epoch = carry, one.epoch._replace(order=order)

    return advance


def ratios(name: str, turns: int, with_vmap: bool) -> dict[str, list[float]]:
    """Returns the time of members alone over that of each map, for each turn."""
    devices, steps = jax.local_devices(), CASES[name].steps
    alone, spread = members(name, devices[:1]), members(name, devices)
    pool = ThreadPoolExecutor(len(devices))

    def in_turn(some: list[Member], steps: int) -> None:
        for one in some:
            one.advance(steps)

    def side_by_side(steps: int) -> None:
        groups = [spread[n :: len(devices)] for n in range(len(devices))]
        list(pool.map(lambda group: in_turn(group, steps), groups))

    forms: dict[str, Callable[[int], None]] = {
        "alone": lambda steps: in_turn(alone, steps),
        "devices": side_by_side,
    }
    if with_vmap:
        forms["vmap"] = mapped(members(name, devices[:1]))
    times: dict[str, list[float]] = {form: [] for form in forms}
    for advance in forms.values():  # compiles
        advance(1)
        advance(steps)
    for _ in range(turns):
        for form, advance in forms.items():
            start = time.perf_counter()
            advance(steps)
            times[form].append((time.perf_counter() - start) / steps / CASES[name].members)
    say(f"{name}: {1e3 * statistics.median(times['alone']):.3g} ms for a step of one member alone")
    return {
        form: [a / b for a, b in zip(times["alone"], times[form], strict=True)]
        for form in list(forms)[1:]
    }


def run(config: Config) -> dict[str, float]:
    """Returns the median ratio of each map, by experiment."""
    names = config.only.split(",") if config.only else list(CASES)
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise UserError(f"--only={unknown[0]}: give some of {', '.join(CASES)}")
    return {
        f"{name} {form}": statistics.median(found)
        for name in names
        for form, found in ratios(name, config.turns, config.vmap).items()
    }


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 2)
    cli.main(run, Config)
