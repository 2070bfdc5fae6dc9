"""Pictures of runs in tests: drawn once for each form of a log or a matrix, and then copied.

Drawing takes three quarters of the time of a small run whose programs are compiled.
"""

import numpy as np

from jaxdl import files
from jaxdl.run import curves, metrics_log, plots, scales

CURVES = curves.curves
MATRIX = plots.confusion_matrix


class Pictures:
    """The pictures drawn so far; replaces the module `curves` in `jaxdl.train.summary`."""

    def __init__(self):
        self.drawn = {}

    def curves(self, runs, path, groups=None):
        """Draws learning curves, as `jaxdl.run.curves.curves`."""
        if curves.curves is not CURVES or groups:  # a test has patched it, or looks at bands
            curves.curves(runs, path, groups)
            return
        form = tuple(_form(lines) for lines in runs.values())
        self._draw(form, path, lambda: CURVES(runs, path))

    def confusion_matrix(self, matrix, title, path, classes=()):
        """Draws a confusion matrix, as `jaxdl.run.plots.confusion_matrix`."""
        finite = bool(np.isfinite(matrix).all()), bool(np.any(matrix))
        form = np.shape(matrix), finite, title, tuple(classes)
        self._draw(form, path, lambda: MATRIX(matrix, title, path, classes))

    def _draw(self, form, path, draw):
        if form in self.drawn:
            path.parent.mkdir(parents=True, exist_ok=True)
            with files.replacing(path) as file:
                file.write(self.drawn[form])
        else:
            draw()
            self.drawn[form] = path.read_bytes()


def _form(lines):
    """Everything that decides what is drawn, but for the values: metrics, points and scales."""
    names = list(dict.fromkeys(name for line in lines for name in metrics_log.metric_names(line)))
    form = []
    for name in names:
        points = [curves._points(lines, split, name) for split in curves.STYLES]
        values = [value for some in points for _, value in some]
        scale = scales.is_steep(values), scales.is_wide(values)
        form.append((name, *(min(len(some), 2) for some in points), *scale))
    return tuple(form)
