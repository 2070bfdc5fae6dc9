"""Grid world with walls, a goal and a pit; each step has a small cost.

Physics: int32, the number of the agent's square, counted row by row.
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
    """A finite, deterministic Markov decision process with S squares and A actions.

    Attributes:
      following: int32 [S, A], the square after an action.
      reward: float32 [S, A].
      terminal: bool [S, A], whether the episode ends with the action.
      start: the initial square.
      inside: bool [S], False for walls and for terminal squares.
    """

    following: np.ndarray
    reward: np.ndarray
    terminal: np.ndarray
    start: int
    inside: np.ndarray


def table(text: str = MAP) -> Table:
    """Decision process of a map. A move into a wall or out of the map leaves the agent in place.

    Args:
      text: the map, one line per row, in the letters of `MAP`.

    >>> table("S.G").following[0].tolist()  # up, right, down, left
    [0, 1, 0, 0]
    """
    rows = text.strip().splitlines()
    height, width = len(rows), len(rows[0])
    cells = "".join(rows)
    following = np.zeros((height * width, len(MOVES)), np.int32)
    for square in range(height * width):
        for action, (down, right) in enumerate(MOVES):
            y, x = square // width + down, square % width + right
            free = 0 <= y < height and 0 <= x < width and rows[y][x] != "#"
            following[square, action] = y * width + x if free else square
    kinds = np.array(list(cells))
    target = kinds[following]
    reward = np.where(target == "G", GOAL, np.where(target == "P", PIT, COST)).astype(np.float32)
    inside = ~np.isin(kinds, ["#", "G", "P"])
    return Table(following, reward, np.isin(target, ["G", "P"]), cells.index("S"), inside)


def environment(text: str = MAP) -> Environment:
    """Grid world of a map: episodes start at S, observations are one-hot squares [S]."""
    process, rows = table(text), text.strip().splitlines()
    following, reward, terminal = (jnp.asarray(a) for a in process[:3])
    squares, actions = process.following.shape

    def step(physics: Physics, action: jax.Array) -> tuple[Physics, jax.Array, jax.Array]:
        entry = physics, action
        return following[entry], reward[entry], terminal[entry]

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
    """Strokes of a picture: pale walls, a grey goal, a black bar for the pit, a black agent."""
    height, width = len(rows), len(rows[0])
    side = 1 / max(height, width)

    def bar(cell: int, wide: float, high: float, shade: float) -> list[float]:
        y, x = 1 - (cell // width + 0.5) * side, (cell % width + 0.5) * side
        return [x - wide * side / 2, y, x + wide * side / 2, y, high * side, shade]

    shapes = {"#": (1.0, 1.0, 0.8), "G": (0.9, 0.9, 0.5), "P": (0.9, 0.2, 0.0)}
    cells = enumerate("".join(rows))
    strokes = [bar(cell, *shapes[kind]) for cell, kind in cells if kind in shapes]
    return np.array([*strokes, bar(square, 0.5, 0.5, 0.0)])
