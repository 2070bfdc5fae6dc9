from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxdl import tree
from jaxdl.checkpoint import Checkpoints
from jaxdl.errors import TrainingError, UserError


def state(value=1.0):
    return {
        "key": jax.random.key(3),
        "step": jnp.int32(value),
        "w": (jnp.full((3, 2), value), jnp.full(4, value, jnp.bfloat16)),
    }


def test_a_state_comes_back_bit_by_bit(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(5, state(1 / 3), {"best": {"step": 5}, "seconds": 0.5}, keep=())
    checkpoints.close()
    again = Checkpoints(tmp_path / "c")
    assert again.steps() == [5]
    found = again.restore(5, state())
    assert tree.digest(found) == tree.digest(state(1 / 3))
    assert jax.tree.structure(found) == jax.tree.structure(state())
    assert again.record(5) == {"best": {"step": 5}, "seconds": 0.5}


def test_a_relative_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoints = Checkpoints(Path("runs") / "c")
    checkpoints.save(1, state(), {"best": {}, "seconds": 1.0}, keep=())
    checkpoints.close()
    assert tree.digest(checkpoints.restore(1, state())) == tree.digest(state())


@pytest.mark.parametrize("text", ["", "{", "[]", "5", None])
def test_a_damaged_record_is_one_line(text, tmp_path):
    (tmp_path / "3").mkdir()
    if text is not None:
        (tmp_path / "3" / "record.json").write_text(text)
    with pytest.raises(UserError, match="delete it"):
        Checkpoints(tmp_path).record(3)


def test_the_state_may_be_donated_right_after(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    x = {"w": jnp.arange(1e6)}
    expected = tree.digest(x)
    add = jax.jit(lambda x: jax.tree.map(lambda y: y + 1, x), donate_argnums=0)
    checkpoints.save(1, x, {}, keep=())
    x = add(x)
    checkpoints.close()
    assert tree.digest(checkpoints.restore(1, x)) == expected


def test_only_the_kept_and_the_newest_stay(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in range(1, 6):
        checkpoints.save(step, state(step), {}, keep=(2,))
    checkpoints.close()
    assert checkpoints.steps() == [2, 5]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "5"]


def test_what_a_kill_left_half_written_is_not_seen(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state(), {}, keep=())
    checkpoints.wait()
    (tmp_path / "1").rename(tmp_path / "part-2")
    (tmp_path / "old-1").mkdir()
    assert checkpoints.steps() == []
    checkpoints.clear_leftovers()
    assert not list(tmp_path.iterdir())
    checkpoints.close()


def test_another_models_state_is_refused(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state(), {}, keep=())
    checkpoints.close()
    with pytest.raises(UserError, match="cannot be restored"):
        checkpoints.restore(1, {"other": jnp.zeros(3)})
    with pytest.raises(UserError, match="cannot be restored"):
        checkpoints.restore(1, state() | {"w": (jnp.zeros((2, 2)), jnp.zeros(4, jnp.bfloat16))})


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "c").write_text("a file where the folder should be")
    checkpoints = Checkpoints(tmp_path / "c")
    with pytest.raises(TrainingError, match="cannot write"):
        checkpoints.save(1, state(), {}, keep=())
    checkpoints.close()
