"""Images out of memory are those in memory, in the same order, whoever reads them."""

import multiprocessing
import pickle
import shutil
import subprocess
import sys
import time
from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from experiments import imagenet_vgg
from jaxdl.config import RunConfig
from jaxdl.data import batches, images
from jaxdl.data.pipeline import Pipeline, Steps
from jaxdl.data.records import Draw, random_crop_box
from jaxdl.distributed import sharding
from jaxdl.errors import TrainingError, UserError
from jaxdl.flags import parse_flags
from jaxdl.run import logger
from jaxdl.train.feed import Host

B = 4
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    random = np.random.RandomState(0)
    for split, count in (("train", 12), ("test", 3)):
        for name in ("ant", "bee"):
            (root / split / name).mkdir(parents=True)
            for n in range(count):
                pixels = random.randint(0, 256, (random.randint(9, 30), 20, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{n:02}.png")
    return root


def load(folder, **changes):
    return images.load(str(folder), image_size=8, validation_fraction=0.25, **changes)


def same(one, other):
    assert set(one) == set(other)
    for name in one:
        a, b = np.asarray(one[name]), np.asarray(other[name])
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_splits_are_those_in_memory(folder):
    kept, read = load(folder), load(folder, stream=True, workers=2)
    assert read.spec.fingerprint == kept.spec.fingerprint
    assert read.spec == kept.spec
    for split in ("train", "validation", "test"):
        one, other = getattr(kept, split), getattr(read, split)
        same(one, {name: column[:] for name, column in other.items()})
        same(one, pickle.loads(pickle.dumps(other)).read(np.arange(batches.size(one))))
        for a, b in zip(
            batches.padded_batches(one, 5), batches.padded_batches(other, 5), strict=True
        ):
            same(a, b)
        assert {n: (x.shape, x.dtype, x.nbytes) for n, x in one.items()} == {
            n: (x.shape, x.dtype, x.nbytes) for n, x in other.items()
        }
    same({"image": kept.train["image"][3]}, {"image": read.train["image"][3]})
    for a, b in zip(kept.spec.statistics(), read.spec.statistics(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_workers_make_the_batches_of_each_step(folder):
    kept, read = load(folder), load(folder, stream=True, workers=2)
    shards = sharding.sharded(sharding.mesh(RunConfig(batch_size=B)))
    order = partial(batches.epoch_order, KEY, examples=batches.size(kept.train), batch_size=B)
    host = Host(kept.train, order, B, shards)
    pipeline = Pipeline(read.train, KEY, B, shards)
    try:
        for step in (7, 8, 9, 10, 2):  # an epoch has 4; and it goes back
            same(host.batch(step), pipeline.batch(step))
    finally:
        pipeline.close()
        host.close()


def test_each_host_reads_its_own_rows(folder):
    split = load(folder, stream=True, workers=1, smallest=0.2).train
    known = np.asarray(jax.random.key_data(KEY))
    whole = Steps(split, known, B, np.arange(B))[5]
    for held in (np.array([0, 1]), np.array([2, 3])):
        mine = Steps(split, known, B, held)[5]
        same(mine, {name: array[held] for name, array in whole.items()})


def test_areas_are_drawn_by_seed_epoch_and_image(folder):
    split = load(folder, stream=True, workers=2, smallest=0.1).train
    rows = np.arange(6)
    one = split.read(rows, Draw(1, 0))
    same(one, split.read(rows, Draw(1, 0)))
    same({"image": one["image"][4:]}, {"image": split.read(rows[4:], Draw(1, 0))["image"]})
    for other in (Draw(2, 0), Draw(1, 1), None):
        assert (split.read(rows, other)["image"] != one["image"]).any()
    # What is evaluated is the whole image.
    evaluated = load(folder, stream=True, workers=2, smallest=0.1).validation
    assert evaluated.smallest == 1


@given(st.integers(1, 400), st.integers(1, 400), st.floats(0.01, 1.0), st.integers(0, 2**32))
def test_areas_are_inside_and_of_their_size(h, w, smallest, seed):
    left, top, right, bottom = random_crop_box((h, w), smallest, np.random.default_rng(seed))
    assert 0 <= left < right <= w
    assert 0 <= top < bottom <= h
    width, height = right - left, bottom - top
    # Both sides are rounded; the central one of a long image may be smaller than asked for.
    if (width, height) not in ((w, min(h, round(w * 4 / 3))), (min(w, round(h * 4 / 3)), h)):
        assert (width + 0.5) * (height + 0.5) >= smallest * h * w * 0.999
        assert (width - 0.5) / (height + 0.5) <= 4 / 3
        assert (width + 0.5) / (height - 0.5) >= 3 / 4


def test_areas_have_the_papers_distribution():
    random = np.random.default_rng(0)
    boxes = np.array([random_crop_box((1000, 1000), 0.08, random) for _ in range(4000)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    ratio = np.log(width / height)
    # Where every ratio fits, up to 3/4 of the image, both are uniform.
    part = width * height / 1e6
    small = part[part < 0.75]
    assert np.mean(small) == pytest.approx((0.08 + 0.75) / 2, abs=0.01)
    assert np.var(ratio[part < 0.75]) == pytest.approx((2 * np.log(4 / 3)) ** 2 / 12, rel=0.06)


def test_a_damaged_image_is_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    read = load(tmp_path / "copy", stream=True, workers=1)
    path = tmp_path / "copy" / "train" / "bee" / "05.png"
    path.write_bytes(path.read_bytes()[:90])
    with pytest.raises(UserError, match=r"05\.png is not an image"):
        load(tmp_path / "copy", stream=True, workers=1)  # before anything is written
    with pytest.raises(UserError, match=r"05\.png is not an image"):
        images.statistics(read.train["image"])
    with pytest.raises(TrainingError, match=r"05\.png .* resume with --resume=force"):
        read.train.read(np.arange(18))
    shards = sharding.sharded(sharding.mesh(RunConfig(batch_size=18)))
    pipeline = Pipeline(read.train, KEY, 18, shards)
    try:
        with pytest.raises(TrainingError, match=r"05\.png is not an image"):
            pipeline.batch(0)
    finally:
        pipeline.close()


def test_a_worker_that_is_killed_is_started_again(folder):
    split = load(folder, stream=True, workers=1).train
    pipeline = Pipeline(split, KEY, B, sharding.sharded(sharding.mesh(RunConfig(batch_size=B))))
    known = np.asarray(jax.random.key_data(KEY))
    try:
        for step in range(8):
            if step == 2:
                for process in multiprocessing.active_children():
                    process.kill()
            same(
                pipeline.batch(step),
                Steps(split, known, B, np.arange(B))[step] | {"mask": np.ones(B, np.float32)},
            )
    finally:
        pipeline.close()


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_what_lies_in_no_file_is_not_streamed(name):
    with pytest.raises(UserError, match="leave out --stream"):
        images.load(name, stream=True)


def test_areas_without_a_stream():
    with pytest.raises(UserError, match=r"--crop_area=0\.5 has no effect without --stream"):
        imagenet_vgg.Config(crop_area=0.5)


def test_no_grain(folder, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "grain", None)
    flags = [f"--dataset={folder}", "--stream", f"--workdir={tmp_path / 'run'}"]
    with pytest.raises(UserError, match=r"pip install -e '\.\[grain\]'"):
        imagenet_vgg.run(parse_flags(imagenet_vgg.Config, flags))
    assert not list(tmp_path.iterdir())


def test_a_run_streams_and_its_workers_end_with_it(folder, tmp_path):
    flags = [f"--dataset={folder}", "--image_size=32", "--width_multiplier=0.02", "--depth=11"]
    flags += ["--batch_size=4", "--log_every=1", "--stream", "--workers=2", "--crop_area=0.3"]
    words = [sys.executable, "-m", "experiments.imagenet_vgg", f"--workdir={tmp_path / 'run'}"]
    process = subprocess.Popen([*words, *flags, "--num_epochs=100000"], start_new_session=True)

    def living():
        found = subprocess.run(["ps", "-s", str(process.pid), "-o", "stat="], capture_output=True)
        return [state for state in found.stdout.decode().split() if state[0] != "Z"]

    try:
        while not logger.read_metrics(tmp_path / "run"):
            assert process.poll() is None
            time.sleep(0.05)
        assert len(living()) >= 3
    finally:
        process.kill()
        process.wait()
    until = time.monotonic() + 20
    while living() and time.monotonic() < until:
        time.sleep(0.1)
    assert living() == []
