"""The paper's VGG-16 on a folder of images: at full size, and through the whole of `run`."""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import imagenet_vgg
from jaxdl.__main__ import run as command
from jaxdl.data import batches
from jaxdl.errors import UserError
from jaxdl.flags import parse_flags


@pytest.fixture
def folder(tmp_path):
    """Photographs of nothing: 3 classes, of odd sizes, coloured and grey, JPEG and PNG."""
    random = np.random.RandomState(0)
    for split, count in (("train", 6), ("test", 2)):
        for name in ("bee", "cat", "dog"):
            path = tmp_path / "photographs" / split / name
            path.mkdir(parents=True)
            for n in range(count):
                shape = (60 + 9 * n, 80, 3) if n % 2 else (50, 70 + 5 * n)
                picture = Image.fromarray(random.randint(0, 256, shape).astype(np.uint8))
                picture.save(path / (f"{n}.png" if n % 3 else f"{n}.jpg"))
    return tmp_path / "photographs"


def test_the_papers_size_and_a_step_of_its_images(folder):
    config = imagenet_vgg.Config(dataset=str(folder), batch_size=1, validation_fraction=0.2)
    data = imagenet_vgg.load(config)
    assert data.train["image"].shape == (14, 224, 224, 3)
    state = jax.eval_shape(imagenet_vgg.build(config, data.spec).init, jax.random.key(0))
    # As the paper counts them at 1,000 classes, but for the last layer.
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert count == 138_357_544 - 4097 * (1000 - 3)
    # A tenth of the channels, in a tenth of the time.
    task = imagenet_vgg.build(dataclasses.replace(config, width_multiplier=0.1), data.spec)
    state = jax.jit(task.init)(jax.random.key(0))
    order = batches.epoch_order(jax.random.key(0), 0, 14, 1)
    batch = batches.take(data.train, order, 0, 1)
    state, found = jax.jit(task.step, donate_argnums=0)(state, batch)
    assert int(state.step) == 1
    assert np.isfinite(float(found["loss"][0]))


def test_a_run_on_a_folder(folder, tmp_path):
    flags = [
        *(f"--dataset={folder}", "--image_size=32", "--depth=11", "--width_multiplier=0.02"),
        *("--batch_size=4", "--validation_fraction=0.2", "--num_steps=2"),
    ]
    config = parse_flags(imagenet_vgg.Config, [*flags, f"--workdir={tmp_path / 'run'}"])
    assert imagenet_vgg.run(config)["step"] == 2
    (folder / "test" / "bee" / "0.jpg").unlink()
    with pytest.raises(UserError, match="other bytes"):
        command(["evaluate", str(tmp_path / "run")])
