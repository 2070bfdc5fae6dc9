"""Many runs in one program: a step mapped over hyperparameters and keys gives each its own.

`experiments/benchmarks/members.py` does the same with every experiment, in some ten minutes.
"""

import pytest

from experiments.benchmarks import members


@pytest.mark.parametrize("name", ["grid_qlearning", "iris_mlp", "cartpole_dqn", "mnist_vae"])
def test_a_member_has_the_losses_of_its_solo_run(name):
    found = members.differences(name, steps=10)
    assert found.difference < 1e-5
    assert found.other > 1e-4  # the second member is another run
