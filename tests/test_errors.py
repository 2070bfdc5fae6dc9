import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdl import console
from jaxdl.errors import TrainingError, UserError, printable


@given(st.text(st.characters(exclude_categories=[])))
def test_every_message_is_a_printable_line(text):
    for error in (UserError(text), TrainingError(text)):
        assert str(error).isprintable()
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert printable(str(UserError(text))) == str(UserError(text))


def test_what_can_be_printed_stays():
    text = "café \N{GREEK SMALL LETTER MU} [/red] \\x1b 'x'"
    assert str(UserError(text)) == text
    assert str(UserError("a\r\nb\tc")) == "a b c"
    assert str(UserError("\x1b[2J\x9b\u202e\udcff\x00")) == "\\x1b[2J\\x9b\\u202e\\udcff\\x00"


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_prints_names_as_they_are(terminal, capsys, monkeypatch):
    monkeypatch.setattr(console.sys.stderr, "isatty", lambda: terminal)
    assert list(console.track(range(2), "decoding [/b][red]\x1b[2J\n")) == [0, 1]
    assert "\x1b[2J\n" not in capsys.readouterr().err
    console.say("a\x1b[2J\nb")
    assert capsys.readouterr().err == "a\\x1b[2J b\n"
