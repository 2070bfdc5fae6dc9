import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxdl import checksums, tree
from jaxdl.errors import TrainingError, UserError
from jaxdl.run import checkpoint, checkpoint_record
from jaxdl.run.checkpoint import Checkpoints
from jaxdl.run.checkpoint_record import DamagedError
from jaxdl.run.recovery import restore_latest_valid


def state(value=1.0):
    return {
        "empty": jnp.zeros((0, 3)),
        "key": jax.random.key(3),
        "step": jnp.int32(value),
        "w": (jnp.full((3, 2), float(value)), jnp.full(4, value, jnp.bfloat16)),
    }


BEST = {"step": 0, "value": None, "since": 0, "than": None}
RECORD = {name: kind() for name, kind in checkpoint_record.RECORD.items()}
RECORD |= {"best": BEST, "anchor": [0, 0], "timed": [0, 0.0]}


def saved(folder, *steps, keep=range(99)):
    folder.parent.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(folder)
    for step in steps:
        checkpoints.save(step, state(step), RECORD | {"step": step, "n": step}, f"log {step}", keep)
    checkpoints.close()
    return checkpoints


def always(step, record):
    return True


def test_a_state_comes_back_bit_by_bit(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(
        5, state(1 / 3), RECORD | {"step": 5, "best": BEST | {"step": 5}}, "a\nb\n", ()
    )
    checkpoints.close()
    again = Checkpoints(tmp_path / "c")
    assert again.steps() == [5]
    found = again.restore(5, state())
    assert tree.digest(found.state) == tree.digest(state(1 / 3)) == found.record["state_sha256"]
    assert jax.tree.structure(found.state) == jax.tree.structure(state())
    assert found.record["best"] == BEST | {"step": 5}
    assert (found.step, found.log) == (5, "a\nb\n")


def save_soon(checkpoints, step, keep=()):
    checkpoints.save(step, state(step), RECORD | {"step": step}, f"log {step}", keep, soon=True)


def save_now(checkpoints, step, keep=()):
    checkpoints.save(step, state(step), RECORD | {"step": step}, f"log {step}", keep)
    checkpoints.wait()


def test_of_copies_that_may_wait_the_last_is_written_before_the_next_that_keeps_it(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    save_soon(checkpoints, 1)
    save_soon(checkpoints, 2)
    assert checkpoints.steps() == []
    save_now(checkpoints, 3, keep=(2,))
    assert checkpoints.steps() == [2, 3]
    assert tree.digest(checkpoints.restore(2, state()).state) == tree.digest(state(2))
    assert checkpoints.read(2)[1] == "log 2"
    save_soon(checkpoints, 4)
    save_now(checkpoints, 5, keep=(2,))  # 4 is not the best any more
    assert checkpoints.steps() == [2, 3, 5]
    save_soon(checkpoints, 6)
    save_now(checkpoints, 6, keep=(6,))
    assert checkpoints.steps() == [5, 6]
    save_soon(checkpoints, 7, keep=(6,))
    checkpoints.close()
    assert checkpoints.steps() == [6, 7]


def test_a_copy_is_written_at_once_if_the_last_write_is_long_ago(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "c")
    monkeypatch.setattr(checkpoint, "SOON", 0.0)
    save_soon(checkpoints, 1)
    checkpoints.wait()
    assert checkpoints.steps() == [1]
    monkeypatch.setattr(checkpoint, "SOON", 60.0)
    save_soon(checkpoints, 2)
    checkpoints.forget()
    checkpoints.close()
    assert checkpoints.steps() == [1]


def test_shapes_of_a_state_will_do(tmp_path):
    whole = {"other": jax.random.key(3, impl="rbg"), **state()}
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, whole, RECORD | {"step": 1}, "", ())
    checkpoints.close()
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), whole)
    found = checkpoints.restore(1, like).state
    assert tree.digest(found) == tree.digest(whole)
    assert [x.dtype for x in jax.tree.leaves(found)] == [x.dtype for x in jax.tree.leaves(whole)]
    assert all(x.sharding == where for x in jax.tree.leaves(found))


def test_a_part_comes_back_alone_and_is_not_trusted_alone(tmp_path):
    checkpoints = saved(tmp_path, 1)
    found = checkpoints.restore(1, state()["w"], part="['w']").state
    assert tree.flat_digest(tree.flatten(found)) == tree.flat_digest(tree.flatten(state()["w"]))
    with pytest.raises(UserError, match="of another model"):
        checkpoints.restore(1, state()["w"][:1], part="['w']")
    path = tmp_path / "1" / "record.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["state_sha256"] = tree.digest(state(2))  # another, and the manifest knows nothing of it
    path.write_text(json.dumps(record), encoding="utf-8")
    checksums.seal(tmp_path / "1")
    with pytest.raises(DamagedError, match="SHA-256"):
        checkpoints.restore(1, state()["w"], part="['w']")


def test_a_relative_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoints = saved(Path("runs") / "c", 1)
    assert tree.digest(checkpoints.restore(1, state()).state) == tree.digest(state())


def test_the_state_may_be_donated_right_after(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    x = {"w": jnp.arange(1e6)}
    expected = tree.digest(x)
    add = jax.jit(lambda x: jax.tree.map(lambda y: y + 1, x), donate_argnums=0)
    checkpoints.save(1, x, RECORD | {"step": 1}, "", ())
    x = add(x)
    checkpoints.close()
    assert tree.digest(checkpoints.restore(1, x).state) == expected


def test_only_the_kept_and_the_newest_two_stay(tmp_path):
    checkpoints = saved(tmp_path, *range(1, 7), keep=(2,))
    assert checkpoints.steps() == [2, 5, 6]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "5", "6"]


def test_a_step_may_be_saved_again(tmp_path):
    checkpoints = saved(tmp_path, 1, 1)
    assert checkpoints.restore(1, state()).record["n"] == 1


def test_what_a_kill_left_half_written_is_not_seen(tmp_path):
    checkpoints = saved(tmp_path / "c", 1)
    (tmp_path / "c" / "1").rename(tmp_path / ".c-part-2")
    (tmp_path / "c" / "old-1").mkdir()
    assert checkpoints.steps() == []
    checkpoints.clear_leftovers()
    assert [path.name for path in tmp_path.rglob("*")] == ["c"]


@pytest.mark.parametrize("name", ["9" * 250, "2147483648", "01", "-1", "1e3", "\u0661"])
def test_a_name_that_is_no_step(name, tmp_path):
    checkpoints = saved(tmp_path, 1)
    (tmp_path / name).mkdir()
    assert checkpoints.steps() == [1]
    assert restore_latest_valid(checkpoints, state(), always).step == 1


def test_who_deletes_the_folder_while_one_is_written_loses_no_file_of_it(tmp_path, monkeypatch):
    checkpoints = saved(tmp_path / "c", 1)

    def seal(folder):
        shutil.rmtree(tmp_path / "c")
        manifest_seal(folder)

    manifest_seal = checksums.seal
    monkeypatch.setattr(checksums, "seal", seal)
    checkpoints = saved(tmp_path / "c", 2)
    assert checkpoints.steps() == [2]
    assert tree.digest(checkpoints.restore(2, state()).state) == tree.digest(state(2))


def test_a_folder_that_is_not_the_runs_any_more_gets_no_checkpoint(tmp_path):
    def check():
        raise TrainingError("moved")

    checkpoints = Checkpoints(tmp_path / "c", check)
    checkpoints.save(1, state(), RECORD | {"step": 1}, "", ())
    with pytest.raises(TrainingError, match=r"^moved$"):
        checkpoints.close()
    assert not list(tmp_path.iterdir())


def test_a_state_larger_than_the_memory_is_not_asked_for(tmp_path):
    checkpoints = saved(tmp_path, 1)
    path = tmp_path / "1" / "record.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["leaves"]["['empty']"] = "float32[1000000000000]"
    path.write_text(json.dumps(record), encoding="utf-8")
    checksums.seal(tmp_path / "1")
    with pytest.raises(DamagedError, match="GiB of memory"):
        checkpoints.restore(1, state()["w"], part="['w']")


def test_another_models_state_is_refused_and_not_called_damaged(tmp_path):
    checkpoints = saved(tmp_path, 1)
    for other in (
        {"other": jnp.zeros(3)},
        state() | {"w": (jnp.zeros((2, 2)), jnp.zeros(4, jnp.bfloat16))},
        state() | {"w": (jnp.zeros((3, 2)), jnp.zeros(4))},
    ):
        with pytest.raises(UserError, match=r"another model.* there, .* here") as caught:
            restore_latest_valid(checkpoints, other, always)
        assert not isinstance(caught.value, DamagedError)
    assert checkpoints.steps() == [1]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "c").write_text("a file where the folder should be", encoding="utf-8")
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(1, state(), RECORD | {"step": 1}, "", ())
    with pytest.raises(TrainingError, match="was not written"):
        checkpoints.close()


def test_falls_back_to_the_newest_that_is_whole_and_says_so(tmp_path, capsys):
    checkpoints = saved(tmp_path, 1, 2, 3)
    (tmp_path / "3" / "record.json").write_text("{}", encoding="utf-8")
    (tmp_path / "2" / "manifest.json").unlink()
    found = restore_latest_valid(checkpoints, state(), always)
    assert found.step == 1
    first, second = capsys.readouterr().err.splitlines()
    assert "3 is damaged (record.json has 2 bytes, not" in first
    assert first.endswith("going on from step 1")
    assert "2 is damaged (No such file" in second
    assert checkpoints.steps() == [1]
    assert {path.name for path in tmp_path.iterdir()} == {"1", "damaged-2", "damaged-3"}


def test_none_whole_is_an_error_and_none_at_all_a_start(tmp_path):
    assert restore_latest_valid(Checkpoints(tmp_path / "new"), state(), always) is None
    checkpoints = saved(tmp_path, 1)
    (tmp_path / "1" / "metrics.jsonl").write_text("log 2", encoding="utf-8")
    with pytest.raises(UserError, match=r"metrics\.jsonl is not what was written.*--workdir"):
        restore_latest_valid(checkpoints, state(), always)
    assert checkpoints.steps() == [1]


def test_what_is_not_wanted_is_deleted(tmp_path):
    checkpoints = saved(tmp_path, 1, 2, 3)
    assert (
        restore_latest_valid(checkpoints, state(), lambda step, record: record["n"] < 3).step == 2
    )
    assert checkpoints.steps() == [1, 2]


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "[" * 10**6, '{"files": {"x": 1}}', None])
def test_a_manifest_of_garbage(text, tmp_path):
    checkpoints = saved(tmp_path, 1)
    path = tmp_path / "1" / "manifest.json"
    path.unlink() if text is None else path.write_text(text, encoding="utf-8")
    with pytest.raises(DamagedError, match="is damaged"):
        checkpoints.read(1)


def test_a_manifest_that_names_other_files_reads_none_of_them(tmp_path):
    checkpoints = saved(tmp_path / "c", 1)
    (tmp_path / "secret").write_text("x", encoding="utf-8")
    path = tmp_path / "c" / "1" / "manifest.json"
    files = json.loads(path.read_text(encoding="utf-8"))["files"] | {"../../secret": [1, "0"]}
    path.write_text(
        json.dumps({"files": files, "sha256": checksums.digest(files)}), encoding="utf-8"
    )
    with pytest.raises(DamagedError, match="secret is missing"):
        checkpoints.read(1)


def test_a_checkpoint_under_another_number_is_not_believed(tmp_path):
    checkpoints = saved(tmp_path, 1, 2)
    (tmp_path / "2").rename(tmp_path / "7")
    with pytest.raises(DamagedError, match=r"record\.json is of step 2, not"):
        checkpoints.read(7)
    assert restore_latest_valid(checkpoints, state(), always).step == 1
