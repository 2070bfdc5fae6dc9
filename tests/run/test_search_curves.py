"""Picture of a search: who descends from whom, and values that cannot be drawn."""

import math

import pytest
from PIL import Image

from jaxdl.run import search_curves
from jaxdl.run.search_curves import Tried


def tried(parent=None, born=0, values=(0.5, 0.4), rate=0.1):
    points = [(born + 10 * (n + 1), value) for n, value in enumerate(values)]
    return Tried(points, born, points[-1][0] if points else born, {"rate": rate}, parent)


@pytest.mark.parametrize(
    ("parents", "winners", "line"),
    [
        ([None, 0, None, 1], [3], {0, 1, 3}),
        ([None, 0, None, 1], [2], {2}),
        ([None, None, None], [0, 2], {0, 2}),  # seeds of one setting
        ([None], [], set()),
        ([1, 0], [0], {0, 1}),  # a stranger's ledger
    ],
)
def test_the_winners_line(parents, winners, line):
    trials = [tried(parent) for parent in parents]
    assert search_curves._lineage(trials, winners) == line


def test_the_winner_is_strong_up_to_the_step_of_its_copy():
    drawn = []

    class Axes:
        def plot(self, steps, values, color, linewidth=0, **_):
            if color == search_curves.STRONG and isinstance(steps, tuple):
                drawn.append(steps)

    trials = [tried(values=[0.5, 0.4, 0.3]), tried(parent=0, born=20)]
    search_curves._draw_metric(Axes(), trials, {0, 1})
    assert drawn == [(10, 20), (30, 40)]


def test_values_that_cannot_be_drawn_are_left_out(tmp_path):
    trials = [
        tried(values=[None, 1e300, math.nan, 0.5]),
        tried(values=[]),
        tried(parent=0, born=20, rate=math.nan),
        tried(parent=0, born=20, rate=1e300),
    ]
    search_curves.search_curves(trials, [0], [20], "validation/loss", False, tmp_path / "it.png")
    with Image.open(tmp_path / "it.png") as picture:
        assert picture.height > 0.6 * picture.width  # two panels


@pytest.mark.parametrize(("largest", "word"), [(True, "higher"), (False, "lower")])
def test_the_caption_names_the_better_direction_the_winner_and_the_gray(largest, word):
    text = search_curves._caption("validation/top_5", largest, has_winner=True, has_flags=False)
    assert text.startswith(f"Lines: validation/top 5 of a trial; {word} is better.")
    assert "Gray: all trials" in text
    assert "Blue: the winner" in text
    assert "copied" not in text
    assert "Blue" not in search_curves._caption("loss", largest, False, True)


def test_the_caption_is_within_the_picture(tmp_path, monkeypatch):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figures = []
    monkeypatch.setattr(search_curves, "save_figure", lambda figure, _: figures.append(figure))
    for parent in (None, 0):
        trials = [tried(), tried(parent=parent, born=10)]
        search_curves.search_curves(trials, [1], [10], "validation/" + "x" * 60, True, tmp_path)
    for figure in figures:
        FigureCanvasAgg(figure).draw()
        box = figure._supxlabel.get_window_extent()
        assert box.x1 <= figure.bbox.width
        assert box.y0 >= 0
