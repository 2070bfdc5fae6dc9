"""The benchmark of convolutions by oneDNN and by the other forms."""

import pytest

from experiments.benchmarks import convolutions
from jaxdl.errors import UserError
from jaxdl.nn import onednn


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"only": "7x7"}, "--only=7x7: no shape begins so, of 64x32x64x64x3x1, "),
        ({"dtypes": "float32,float16"}, "float16: choose from float32,bfloat16"),
    ],
)
def test_mistakes_are_one_line(flags, message):
    with pytest.raises(UserError, match=message):
        convolutions.run(convolutions.Config(**flags))


def test_a_line_has_both_rates_and_their_ratio_for_each_map(monkeypatch, capsys):
    if onednn.describe() == "XLA":
        pytest.skip(onednn.reason() or "oneDNN is not enabled")
    monkeypatch.setattr(convolutions, "SHAPES", ["2x6x8x4x3x2"])
    convolutions.run(convolutions.Config(dtypes="float32", turns=2))
    dtype, shape, *figures = capsys.readouterr().out.splitlines()[-1].replace("*", "").split()
    assert (dtype, shape, len(figures)) == ("float32", "2x6x8x4x3x2", 9)
