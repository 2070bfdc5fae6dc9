"""The picture at the top of the README, made from three run folders.

    python -m experiments.cifar_vgg --dataset=embedded --width_multiplier=0.25 --batch_size=64 \
      --num_epochs=15 --workdir=runs/vgg
    python -m experiments.mnist_vae --workdir=runs/vae
    python -m experiments.multi30k_seq2seq --dataset=addition --num_epochs=8 --batch_size=100 \
      --warmup_epochs=0 --widths=1 --label_smoothing=0 --features=128 --dropout=0 --workdir=runs/add
    python -m experiments.benchmarks.readme_picture --curves=runs/vgg --samples=runs/vae \
      --attention=runs/add

Left: learning curves of VGG-16 on handwritten digits. Middle: digits that a variational autoencoder
draws from its prior. Right: attention of a recurrent network that adds two numbers, last digit
first.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxdl import cli
from jaxdl.config import RunConfig, flag
from jaxdl.errors import UserError
from jaxdl.run import logger, plots

HEIGHT = 480  # pixels of the picture


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Run folders, and the picture."""

    curves: str = flag("", "run folder of a classifier", runtime=True)
    samples: str = flag("", "run folder of mnist_vae", runtime=True)
    attention: str = flag("", "run folder of multi30k_seq2seq", runtime=True)
    output: str = flag("docs/images/overview.png", "PNG to write", runtime=True)


def pixels(path: Path) -> np.ndarray:
    """A picture of a run, uint8 [H, W, 3], without the caption below its square or table."""
    with Image.open(path, formats=["PNG"]) as image:
        return np.asarray(image.convert("RGB"))


def draw(axes: Any, title: str, picture: np.ndarray) -> None:
    """Shows a picture under a title, without ticks."""
    axes.imshow(picture)
    axes.set_title(title)
    axes.set_axis_off()


def run(config: Config) -> dict[str, Any]:
    """Draws the three panels.

    Raises:
      UserError: a run folder lacks its log or its pictures.
    """
    lines = logger.read_metrics(Path(config.curves))
    samples = sorted(Path(config.samples).glob("plots/samples/*.png"))
    attention = sorted(Path(config.attention).glob("plots/attention_*.png"))
    if not (lines and samples and attention):
        raise UserError("--curves, --samples, --attention: name three finished run folders")
    figure = plots.new_figure(figsize=(13.2, HEIGHT / 110), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.2, 1.0, 1.35))
    for split in ("train", "validation"):
        points = [(x["step"], x["accuracy"]) for x in lines if x["split"] == split]
        left.plot(*zip(*points, strict=True), label=split)
    left.set(title="VGG-16 on digits: accuracy", xlabel="step")
    left.legend()
    left.grid(alpha=0.25)
    picture = pixels(samples[-1])
    draw(middle, "samples of a VAE", picture[: picture.shape[1]])  # the grid is a square
    draw(right, "attention while adding two numbers", pixels(attention[0]))
    plots.save_figure(figure, Path(config.output))
    return {"picture": config.output}


if __name__ == "__main__":
    cli.main(run, Config)
