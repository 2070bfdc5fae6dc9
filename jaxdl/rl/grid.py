"""A world of squares with walls, a goal and a pit; each step costs a little.

Physics: int32, the square's number, row by row.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.rl.environment import Environment, Physics

MAP = """
....#...
.##.#.#.
.#....#.
.#.##.#.
.....P#.
.###.##.
.....#..
S..#...G
"""  # S: the start, G: the goal, P: the pit, #: walls
GOAL, PIT, COST = 1.0, -1.0, -0.01  # rewards
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left


class Table(NamedTuple):
    """A finite, deterministic decision process of S squares and A actions."""

    following: np.ndarray  # int32 [S, A]
    reward: np.ndarray  # float32 [S, A]
    terminal: np.ndarray  # bool [S, A]: the episode ends with it
    start: int
    inside: np.ndarray  # bool [S]: no wall, and no end


def table(text: str = MAP) -> Table:
    """The process of a map; who walks into a wall, or out of the map, stays."""
    rows = text.strip().splitlines()
    height, width = len(rows), len(rows[0])
    cells = "".join(rows)
    following = np.zeros((height * width, len(MOVES)), np.int32)
    for square in range(height * width):
        for action, (down, right) in enumerate(MOVES):
            y, x = square // width + down, square % width + right
            free = 0 <= y < height and 0 <= x < width and rows[y][x] != "#"
            following[square, action] = y * width + x if free else square
    kind = np.array(list(cells))
    there = kind[following]
    reward = np.where(there == "G", GOAL, np.where(there == "P", PIT, COST)).astype(np.float32)
    inside = ~np.isin(kind, ["#", "G", "P"])
    return Table(following, reward, np.isin(there, ["G", "P"]), cells.index("S"), inside)


def environment(text: str = MAP) -> Environment:
    """Episodes begin at S; what is observed is one number for each square, 1 where one stands."""
    process, rows = table(text), text.strip().splitlines()
    following, reward, terminal = (jnp.asarray(a) for a in process[:3])
    squares, actions = process.following.shape

    def step(physics: Physics, action: jax.Array) -> tuple[Physics, jax.Array, jax.Array]:
        given = physics, action
        return following[given], reward[given], terminal[given]

    def sketch(physics: Physics) -> np.ndarray:
        return _strokes(rows, int(physics))

    return Environment(
        name="grid",
        size=squares,
        actions=actions,
        horizon=100,
        reset=lambda key: jnp.int32(process.start),
        step=step,
        observe=lambda physics: jax.nn.one_hot(physics, squares),
        sketch=sketch,
    )


def _strokes(rows: list[str], square: int) -> np.ndarray:
    """Walls as pale squares, the goal as a dark one, the pit as a bar, the agent as a small one."""
    height, width = len(rows), len(rows[0])
    side = 1 / max(height, width)

    def bar(cell: int, wide: float, high: float, shade: float) -> list[float]:
        y, x = 1 - (cell // width + 0.5) * side, (cell % width + 0.5) * side
        return [x - wide * side / 2, y, x + wide * side / 2, y, high * side, shade]

    shapes = {"#": (1.0, 1.0, 0.8), "G": (0.9, 0.9, 0.5), "P": (0.9, 0.2, 0.0)}
    cells = enumerate("".join(rows))
    made = [bar(cell, *shapes[kind]) for cell, kind in cells if kind in shapes]
    return np.array([*made, bar(square, 0.5, 0.5, 0.0)])
