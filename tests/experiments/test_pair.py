"""Sides that take turns: in order, to their end, or to an error of one line."""

import io
import sys

import pytest

from experiments.benchmarks import pair
from jaxdl.errors import UserError
from tests import fake_side


def test_sides_take_turns_and_end_with_their_input(tmp_path):
    log = tmp_path / "log"
    with (
        pair.started("first", fake_side.command("a", log, 0.5)) as first,
        pair.started("second", fake_side.command("b", log, 0.25, parameters=7)) as second,
        pair.started("third", fake_side.command("c", log)) as third,
    ):
        assert (first.report, second.report) == ({}, {"parameters": 7})
        seconds = pair.take_turns([first, second, third], 3)
    assert log.read_text(encoding="utf-8") == "abccbaabcCBA"
    assert seconds == {"first": [0.5] * 3, "second": [0.25] * 3, "third": [1.0] * 3}
    assert pair.ratios(seconds["first"], seconds["second"]) == [2.0] * 3


def test_spread():
    assert pair.spread([4.0, 1.0, 3.0, 2.0, 5.0]) == {
        "median": 3.0, "lower_quartile": 2.0, "upper_quartile": 4.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise ValueError('no such model')", "ended with status 1: ValueError: no such model"),
        ("pass", "ended with status 0: no message"),
        ("print('{}', flush=True); input(); exit('lost')", "ended with status 1: lost"),
        ("print('{}', flush=True); print('[1]', flush=True); input()", r"said '\[1\]'"),
        ("print('Welcome', flush=True); input()", "said 'Welcome'"),
    ],
)
def test_a_side_that_fails_is_an_error_with_its_last_word(code, error):
    def turns():
        with pair.started("slow", [sys.executable, "-c", code]) as side:
            pair.take_turns([side], 2)

    with pytest.raises(UserError, match=f"the slow side {error}"):
        turns()


def test_a_side_that_died_between_two_turns():
    def turn():
        with pair.started("slow", [sys.executable, "-c", "print('{}'); exit('lost')"]) as side:
            side.process.wait()
            side.turn()

    with pytest.raises(UserError, match="the slow side ended with status 1: lost"):
        turn()


def test_a_side_that_cannot_be_started(tmp_path):
    with (
        pytest.raises(UserError, match=r"python cannot be started \(No such file"),
        pair.started("torch", [str(tmp_path / "python")]),
    ):
        pass


def test_serve_answers_until_its_input_ends(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("turn\nturn\n"))
    pair.serve({"parameters": 1}, turn=lambda: 0.5, kernels=list)
    assert capsys.readouterr().out == '{"parameters": 1}\n0.5\n0.5\n'
