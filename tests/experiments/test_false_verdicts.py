"""The tables of docs/statistics.md are those of the command, to the noise of fewer draws."""

import re
from pathlib import Path

import numpy as np

from experiments.benchmarks import false_verdicts

PAGE = Path(__file__).parents[2] / "docs" / "statistics.md"


def rows(text):
    cells = (line.strip("| \n").split(" | ") for line in text.splitlines())
    return {row[0]: np.array(row[1:], float) for row in cells if row[0] in false_verdicts.VALUES}


def shares(text):
    """Shares of equal and different, by shift and correlation."""
    cells = (re.fullmatch(r"\| ([\d.]+) \| ([\d.]+) \|(.*)\|", line) for line in text.splitlines())
    return {c.groups()[:2]: np.array(re.findall(r"\d+", c[3]), float) for c in cells if c}


def test_the_page_has_the_figures_of_the_command(capsys):
    false_verdicts.run(["--count=4000"])
    printed = capsys.readouterr().out
    page = PAGE.read_text(encoding="utf-8")
    measured, shown = rows(printed), rows(page)
    assert measured.keys() == shown.keys() == false_verdicts.VALUES.keys()
    for name, figures in shown.items():
        np.testing.assert_allclose(measured[name], figures, atol=2.0)  # 4 deviations
    measured, shown = shares(printed), shares(page)
    assert measured.keys() == shown.keys()
    assert len(shown) == len(false_verdicts.SHIFTS)
    for name, figures in shown.items():
        np.testing.assert_allclose(measured[name], figures, atol=4.0)  # 4 deviations, and rounding
    powers = [float(power) for power in re.findall(r"power.*: ([\d.]+)", printed)]
    np.testing.assert_allclose(powers, 0.807, atol=0.03)
