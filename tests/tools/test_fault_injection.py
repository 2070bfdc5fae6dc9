"""Three hundred faults: never a wrong state without a word, never a run that cannot go on."""

import random
import shutil

import pytest

from jaxdl import tree
from jaxdl.run.checkpoint_record import DamagedError
from jaxdl.run.recovery import restore_latest_valid
from jaxdl.tools import fault_injection
from tests.run.test_checkpoint import always, saved, state

FAULTS = 300


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "checkpoints"
    saved(folder, 1, 2, 3)
    return folder


@pytest.mark.parametrize("block", range(10))
def test_no_fault_is_restored_silently_and_none_bricks(block, whole, tmp_path):
    for seed in range(block * FAULTS // 10, (block + 1) * FAULTS // 10):
        chance = random.Random(seed)
        folder = tmp_path / str(seed)
        shutil.copytree(whole, folder)
        hit = sorted(chance.sample([1, 2, 3], chance.randint(1, 2)), reverse=True)
        done = [fault_injection.damage(folder / str(step), chance) for step in hit]
        checkpoints = saved(folder)
        for step in hit:
            with pytest.raises(DamagedError):
                checkpoints.restore(step, state())
        found = restore_latest_valid(checkpoints, state(), always)
        assert found.step == max({1, 2, 3} - set(hit)), done
        assert tree.digest(found.state) == tree.digest(state(found.step)), done
        shutil.rmtree(folder)


def test_faults_are_of_every_kind():
    kinds = {random.Random(seed).choice(fault_injection.KINDS) for seed in range(FAULTS)}
    assert kinds == set(fault_injection.KINDS)
