import re
import time

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import parameter_groups
from jaxdl.errors import UserError
from jaxdl.parameter_groups import merge, parse, restrict

VARIABLES = {
    "params": {"Conv_0": {"kernel": 1, "bias": 2}, "block": {"Dense_0": {"kernel": 3}}},
    "batch_stats": {"BatchNorm_0": {"mean": 4}},
}


def test_a_split_merges_to_the_same():
    groups = parse("Conv_0/kernel", "")
    trained, frozen = groups.split(VARIABLES["params"])
    assert trained == {"Conv_0": {"bias": 2}, "block": {"Dense_0": {"kernel": 3}}}
    assert frozen == {"Conv_0": {"kernel": 1}}
    assert merge(trained, frozen) == merge(frozen, trained) == VARIABLES["params"]
    assert restrict(VARIABLES["params"], trained) == trained


def test_without_an_expression_nothing_is_touched():
    params = object()
    assert parse("", "").split(params) == (params, {})
    assert merge(params, {}) is not None
    assert merge(VARIABLES, {}) is VARIABLES


def test_frozen_leaves_keep_their_old_values():
    new = {"params": {"Conv_0": {"kernel": 9, "bias": 9}, "block": {"Dense_0": {"kernel": 9}}}}
    new["batch_stats"] = {"BatchNorm_0": {"mean": 9}}
    held = parse("kernel|BatchNorm", "").hold(new, VARIABLES)
    assert held["params"] == {
        "Conv_0": {"kernel": 1, "bias": 9},
        "block": {"Dense_0": {"kernel": 3}},
    }
    assert held["batch_stats"] == VARIABLES["batch_stats"]


def test_the_first_factor_that_matches_counts():
    groups = parse("", "Conv_0/b:2,Conv:0.5,params/block:1e-3")
    assert groups.factor("params/Conv_0/bias") == 2
    assert groups.factor("params/Conv_0/kernel") == 0.5
    assert groups.factor("params/block/Dense_0/kernel") == 1e-3
    assert groups.factor("params/other") == 1
    updates = {"Conv_0": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}, "z": jnp.ones(2)}
    transformation = groups.scale()
    scaled, _ = transformation.update(updates, transformation.init(updates))
    np.testing.assert_array_equal(scaled["Conv_0"]["kernel"], [0.5, 0.5])
    np.testing.assert_array_equal(scaled["Conv_0"]["bias"], [2, 2])
    assert scaled["z"] is updates["z"]


@pytest.mark.parametrize(
    "scales",
    [
        *("Conv", "Conv:", ":0.1", "Conv:0", "Conv:-1", "Conv:nan", "Conv:inf", "Conv:1e999"),
        *("Conv:0x1", "Conv:1_0", "Conv: 1", "Conv:٣", "Conv:0.1,", "Conv:1e-999", "(:0.1"),
    ],
)
def test_factors_are_numbers_above_zero(scales):
    with pytest.raises(UserError, match=r"^--learning_rate_scale=[^\n]*: [^\n]+$"):
        parse("", scales)


@pytest.mark.parametrize(
    "text",
    [
        *("(a+)+$", "(.*)*", "(a|a)*b", "(?:x{1,9}){1,9}", ".*.*.*.*b", "(a", "[", "*"),
        *("a" * 1001, "(a|b)" * 24, "x{99999999999}", "(?P<n>a)(?P=n)" * 12),
    ],
)
def test_expressions_that_are_wrong_or_slow_are_refused(text):
    with pytest.raises(UserError, match=r"^--freeze=[^\n]*$"):
        parse(text, "")


@pytest.mark.parametrize(
    "text", [".*.*.*b", "(a|p|r)(a|r|m).*/(c|d|e).", "a?a?a?a?.*a?b", "^params"]
)
def test_expressions_that_are_accepted_take_no_time(text):
    regex = parameter_groups.compile_pattern("freeze", text)
    start = time.monotonic()
    for _ in range(10):
        regex.search("params/encoder/blocks_11/attention/query/kernelkernelkernel")
    assert time.monotonic() - start < 2


def test_expressions_have_to_choose_some_leaves_and_leave_some():
    parse("Conv|BatchNorm", "block:0.1").check(VARIABLES)
    for freeze, scales, message in (
        ("Conv_1", "", "--freeze=Conv_1 matches no leaf"),
        ("params", "", "--freeze=params chooses all parameters"),
        (".", "", "chooses all parameters"),
        ("", "Conv_1:0.1", "--learning_rate_scale=Conv_1 matches no leaf"),
        ("Conv_0", "Conv_0:0.1", "--learning_rate_scale=Conv_0 matches no leaf"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            parse(freeze, scales).check(VARIABLES)
