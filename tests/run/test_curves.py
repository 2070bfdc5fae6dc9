"""Learning curves: bands over seeds, order of panels, axes, and legends that fit."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from jaxdl.run import curves, scales


def run(scale, steps=(1, 2, 3, 4), **others):
    lines = [{"step": n, "split": "train", "loss": scale / n, **others} for n in steps]
    lines += [{"step": n, "split": "validation", "accuracy": 1 - 1 / n} for n in steps[1:]]
    return [*lines, {"step": steps[-1], "split": "test", "accuracy": 0.5}]


def panels(figure):
    return {axes.get_title(): axes for axes in figure.axes}


def test_a_group_is_its_mean_with_a_band_at_the_steps_that_all_have():
    runs = {"a": run(1.0), "b": run(2.0), "c": run(6.0, steps=(1, 2, 3))}
    axes = panels(curves.draw(runs, dict.fromkeys(runs, "seeds")))["loss"]
    (line,) = axes.lines
    np.testing.assert_allclose(line.get_xdata(), [1, 2, 3])
    np.testing.assert_allclose(line.get_ydata(), 3.0 / np.array([1, 2, 3]))
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    for step in (1, 2, 3):
        heights = corners[corners[:, 0] == step, 1]
        np.testing.assert_allclose((heights.min(), heights.max()), (1 / step, 6 / step))


def test_each_test_result_of_a_group_is_a_star():
    runs = {"a": run(1.0), "b": run(2.0, steps=(1, 2, 3))}
    axes = panels(curves.draw(runs, dict.fromkeys(runs, "seeds")))["accuracy"]
    stars = next(line for line in axes.lines if line.get_marker() == "*")
    assert list(stars.get_xdata()) == [4, 3]


def test_metrics_of_evaluations_come_first_and_the_rate_last():
    lines = run(1.0, learning_rate=0.1, gradient_norm=1.0, entropy=0.3)
    figure = curves.draw({"": lines})
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["accuracy", "loss", "entropy", "learning rate", "gradient norm"]


@pytest.mark.parametrize(
    ("values", "name", "scale"),
    [
        ((1, 2, 3), "loss", "linear"),
        ((0.01, 0.02, 0.02, 5.0), "loss", "log"),
        ((1e-6, 1e-4, 1e-2, 1e-2), "kl", "log"),
        ((1e-6, 1e-4, 1e-2, 1e-2), "learning_rate", "linear"),
        ((-1, 0.01, 0.01, 9), "loss", "linear"),
        ((0, 0.01, 0.01, 9), "loss", "linear"),
    ],
)
def test_an_axis_is_logarithmic_where_a_linear_one_is_flat(values, name, scale):
    lines = [{"step": n, "split": "train", name: float(v)} for n, v in enumerate(values)]
    (axes,) = curves.draw({"": lines}).axes
    assert axes.get_yscale() == scale


def test_metrics_of_the_same_range_have_the_same_scale():
    losses, norms = (0.0024, 0.0045, 0.0045, 0.087), (0.0024, 0.0024, 0.0024, 0.087)
    lines = [
        {"step": n, "split": "train", "loss": loss, "gradient_norm": norm, "learning_rate": norm}
        for n, (loss, norm) in enumerate(zip(losses, norms, strict=True))
    ]
    assert not scales.is_steep([*losses])
    assert scales.is_steep([*norms])
    axes = curves.draw({"": lines}).axes
    assert [one.get_yscale() for one in axes] == ["log", "log", "linear"]


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ((0.0024, 0.0024, 0.0024, 0.087), ["0.005", "0.01", "0.02", "0.05", "0.1"]),
        ((1.5, 1.5, 1.5, 35.0), ["2", "5", "10", "20"]),
        ((1e-6, 1e-4, 1e-2, 1e-2), []),
    ],
)
def test_less_than_two_decades_have_labels_at_1_2_and_5(values, labels):
    lines = [{"step": n, "split": "train", "loss": v} for n, v in enumerate(values)]
    figure = curves.draw({"": lines})
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    low, high = axes.get_ylim()
    ticks = axes.yaxis.get_major_ticks() + axes.yaxis.get_minor_ticks()
    shown = sorted((t.get_loc(), t.label1.get_text()) for t in ticks if low <= t.get_loc() <= high)
    plain = [text for _, text in shown if text and "$" not in text]
    assert plain == labels


@pytest.mark.parametrize("count", [1, 2, 9, 30])
def test_legends_and_caption_are_within_the_figure(count):
    runs = {f"/runs/{'x' * 150}-{n}": run(n + 1.0) for n in range(count)}
    figure = curves.draw(runs)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = figure.bbox.size
    texts = [text for legend in figure.legends for text in legend.get_texts()]
    boxes = [one.get_window_extent() for one in (*texts, *figure.texts)]
    boxes += [axes.get_tightbbox() for axes in figure.axes]
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    if count > 1:
        labels = [text.get_text() for text in figure.legends[1].get_texts()]
        assert len(set(labels)) == count
    below = min(axes.get_tightbbox().y0 for axes in figure.axes)
    assert all(text.get_window_extent().y1 < below for text in texts)
