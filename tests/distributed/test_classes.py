"""Balanced sampling and rankings of two processes of two devices are those of one device."""

import pytest

from jaxdl.run import logger
from tests.distributed.test_hosts import ends, start

FLAGS = ["--task=species", "--num_steps=6", "--batch_size=16", "--eval_every=6", "--log_every=1"]
FLAGS += ["--metrics=roc_auc,average_precision,f1_macro,top_2", "--checkpoint_every=6"]
FLAGS += ["--sampling=balanced", "--class_weights=balanced", "--best_metric=f1_macro"]


def test_two_processes_are_one(tmp_path):
    for name, processes, devices in (("one", 1, 1), ("two", 2, 2)):
        module, folder = "experiments.iris_mlp", tmp_path / name
        for status, _, error in ends(
            start(folder, *FLAGS, processes=processes, devices=devices, module=module)
        ):
            assert status == 0, error
    one, two = (logger.read_metrics(tmp_path / name) for name in ("one", "two"))
    assert len(one) == len(two) == 6 + 1 + 1
    for ours, theirs in zip(one, two, strict=True):
        assert set(ours) == set(theirs)
        for name in set(ours) - {"seconds", "split"}:
            assert theirs[name] == pytest.approx(ours[name], rel=1e-4), name
    assert 0.5 < one[-1]["roc_auc"] <= 1
