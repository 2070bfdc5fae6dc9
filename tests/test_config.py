import dataclasses
import json
from pathlib import Path

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from jaxdl import config_checks, saved_config
from jaxdl.config import RunConfig, flag
from jaxdl.errors import UserError
from jaxdl.flags import parse_flags


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    dataset: str = flag("embedded", "name of a data set")
    share: float = flag(0.5, "a share", low=0.0, high=1.0)
    clip: float = flag(float("inf"), "a norm", low=0.0)
    on: bool = flag(True, "a switch")
    kind: str = flag("a", "a choice", choices=("a", "b"))


@settings(max_examples=30)
@given(
    share=st.floats(0, 1),
    clip=st.floats(0, allow_infinity=True, allow_nan=False),
    on=st.booleans(),
    kind=st.sampled_from("ab"),
    seed=st.integers(0, 2**31 - 1),
    dataset=st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1).filter(
        lambda text: text == text.strip() and len(text.splitlines()) == 1
    ),
)
def test_flags_and_json_bring_every_config_back(tmp_path_factory, **values):
    made = Config(**values)
    config_checks.check(made)
    path = tmp_path_factory.mktemp("flags") / "flags.txt"
    path.write_text(saved_config.to_flags(made), encoding="utf-8")
    assert parse_flags(Config, [f"--flagfile={path}"]) == made
    assert saved_config.from_dict(Config, saved_config.to_dict(made)) == made


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"share": float("nan")}, ["--share=nan", "from 0 to 1"]),
        ({"share": 1.01}, ["--share=1.01", "from 0 to 1"]),
        ({"batch_size": -1}, ["--batch_size=-1", "at least 1"]),
        ({"kind": "c"}, ["--kind=c", "a, b"]),
        ({"dataset": "a\nb"}, ["--dataset"]),
        ({"workdir": "a\x9b2Jb"}, ["--workdir", "\\x9b"]),
        ({"data_dir": "/a\udcff"}, ["--data_dir", "UTF-8"]),
        ({"learning_rate": float("inf")}, ["--learning_rate=inf"]),
    ],
)
def test_a_value_out_of_range_is_named_with_its_limit(change, words):
    with pytest.raises(UserError) as caught:
        config_checks.check(Config(**change))
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [{"nope": 1}, {"seed": "0"}, {"on": 1}, {"seed": True}])
def test_a_foreign_config_is_refused(values):
    with pytest.raises(UserError):
        saved_config.from_dict(Config, values)


def another(field, config):
    """Another value that a field may have."""
    value, choices = getattr(config, field.name), field.metadata["choices"]
    if choices:
        return next(choice for choice in choices if choice != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return f"{value}x"
    return type(value)((field.metadata["low"] or 0) + min(value, 1e6) // 2 + 1)


def test_identity_leaves_out_places_only():
    left, right = (Config(workdir=w, data_dir=w) for w in "xy")
    assert saved_config.identity(left) == saved_config.identity(right)
    for field in dataclasses.fields(Config):
        if not field.metadata["runtime"]:
            other = dataclasses.replace(left, **{field.name: another(field, left)})
            assert saved_config.identity(other) != saved_config.identity(left), field.name


def test_steps():
    made = Config(batch_size=30, num_epochs=3)
    assert made.steps_per_epoch(100) == 3
    assert made.total_steps(100) == 9
    assert dataclasses.replace(made, num_steps=5).total_steps(100) == 5
    with pytest.raises(UserError, match=r"--batch_size=30 .* 29 .*--batch_size=29"):
        made.steps_per_epoch(29)


@dataclasses.dataclass(frozen=True)
class Narrow(Config):
    share: float = 0.25


def test_a_plain_value_is_another_default_of_the_same_flag():
    by_name = {field.name: field for field in dataclasses.fields(Narrow)}
    assert Narrow().share == 0.25
    assert Config().share == 0.5
    assert (
        by_name["share"].metadata
        == {f.name: f for f in dataclasses.fields(Config)}["share"].metadata
    )
    with pytest.raises(UserError, match="--share=2"):
        config_checks.check(Narrow(share=2.0))


def test_another_default_of_any_parents_flag():
    @dataclasses.dataclass(frozen=True)
    class One(RunConfig):
        one: int = flag(1, "of the first")

    @dataclasses.dataclass(frozen=True)
    class Other(RunConfig):
        other: int = flag(2, "of the second", high=9)

    @dataclasses.dataclass(frozen=True)
    class Both(One, Other):
        other: int = 3

    (field,) = [field for field in dataclasses.fields(Both) if field.name == "other"]
    assert (field.default, field.metadata["high"]) == (3, 9)
    with pytest.raises(UserError, match="--other=10"):
        config_checks.check(Both(other=10))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"learning_rate": -1.0}, "--learning_rate=-1.0: give a number, from 0"),
        ({"learning_rate": np.float32("nan")}, "--learning_rate=nan"),
        ({"batch_size": 0}, "--batch_size=0: give a number, at least 1"),
        ({"batch_size": np.int64(0)}, "--batch_size=0"),
        ({"batch_size": "3"}, "--batch_size='3': give a whole number"),
        ({"batch_size": 16.0}, "--batch_size=16.0: give a whole number"),
        ({"seed": True}, "--seed=True: give a whole number"),
        ({"fsdp": 1}, "--fsdp=1: give true or false"),
        ({"dtype": "float64"}, "--dtype=float64: choose one of"),
        ({"dataset": None}, "--dataset=None: give text"),
        ({"workdir": b"runs"}, "--workdir=b'runs': give text"),
    ],
)
def test_a_config_made_in_python_is_checked_as_flags_are(values, words):
    with pytest.raises(UserError) as caught:
        Config(**values)
    assert words in str(caught.value)
    with pytest.raises(UserError):
        dataclasses.replace(Config(), **values)


def test_numbers_of_numpy_and_paths_are_taken():
    made = Config(
        batch_size=np.int64(4), seed=np.array(3), learning_rate=np.float64(0.5), workdir=Path("x"),
        fsdp=np.bool_(True), min_improvement=1,
    )  # fmt: skip
    plain = Config(
        batch_size=4, seed=3, learning_rate=0.5, workdir="x", fsdp=True, min_improvement=1.0
    )
    assert made == plain
    assert json.loads(json.dumps(saved_config.to_dict(made))) == saved_config.to_dict(plain)


def test_arrays_of_jax_with_values_are_numbers_too():
    made = Config(batch_size=jnp.int32(4), learning_rate=jnp.float32(0.5))
    assert made == Config(batch_size=4, learning_rate=0.5)
    assert type(made.learning_rate) is float
    for value in (jnp.float32(-1), jnp.ones(2)):
        with pytest.raises(UserError, match="--learning_rate="):
            Config(learning_rate=value)


def test_traced_values_are_left_alone():
    rate = jax.jit(lambda x: 2 * Config(learning_rate=x).learning_rate)(-1.0)
    assert rate == -2.0


def test_a_new_default_of_a_flag_is_one_of_its_choices():
    @dataclasses.dataclass(frozen=True)
    class Own(RunConfig):
        dataset: str = "points"

    assert Own().dataset == "points"
    assert Own(dataset="embedded").dataset == "embedded"
    with pytest.raises(UserError, match="choose one of embedded, points"):
        Own(dataset="mnist")
    assert RunConfig().dataset == "embedded"
