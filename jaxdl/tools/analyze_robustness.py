"""Parts of `jaxdl analyze` on robustness: adversarial attacks and corruptions of images.

Shapes: B images of H by W pixels with C channels, K classes.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import attacks as methods
from jaxdl import losses
from jaxdl.analysis import calibration
from jaxdl.analysis import corruptions as kinds
from jaxdl.run import pictures as grids
from jaxdl.tools import analysis_pictures as pictures
from jaxdl.tools.analysis_subject import Result, Subject

EPSILONS = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)  # largest changes of a pixel, in levels of 0 to 255
RADII = (32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)  # of the Euclidean norm, in levels
RESTARTS, STEPS, QUERIES = 2, 20, 200
SHOWN, SHOWN_AT = 4, 3  # images of the pictures, and the position of their strength
MIDDLE = 3  # severity of the pictures


def attacks(subject: Subject) -> Result:
    """Accuracy on test images against the strength of four attacks."""
    batch = subject.batch("test", subject.options.examples)
    x, labels = jnp.asarray(batch["image"], jnp.float32), jnp.asarray(batch[subject.target])
    key = jax.random.key(0)

    def logits(x: jax.Array, n: jax.Array) -> jax.Array:
        inputs = {name: jnp.asarray(batch[name])[n] for name in subject.model.inputs}
        outputs = subject.predict(subject.state, inputs | {"image": x}).astype(jnp.float32)
        return outputs if outputs.shape[1] > 1 else jnp.pad(outputs, ((0, 0), (1, 0)))

    def entropy(x: jax.Array, n: jax.Array) -> jax.Array:
        return losses.cross_entropy(logits(x, n), labels[n])

    def margin(x: jax.Array, n: jax.Array) -> jax.Array:
        return methods.margin(logits(x, n), labels[n])

    descent = functools.partial(methods.pgd, key=key, steps=STEPS, restarts=RESTARTS)
    chosen: dict[str, tuple[Callable[..., jax.Array], Any, tuple[float, ...]]] = {
        "FGSM": (methods.fgsm, entropy, EPSILONS),
        "PGD": (descent, entropy, EPSILONS),
        "square": (functools.partial(methods.square, key=key, steps=QUERIES), margin, EPSILONS),
        "PGD, 2-norm": (functools.partial(descent, norm="2"), entropy, RADII),
    }
    clean = float(np.mean(_right(logits, x, jnp.arange(len(x)), labels)))
    found: dict[str, dict[str, Any]] = {}
    examples = []
    for name, (attack, loss, strengths) in chosen.items():
        program = jax.jit(_attack(attack, loss, logits, labels))
        results = [program(x, epsilon, jnp.arange(len(x))) for epsilon in strengths]
        accuracy = [float(np.mean(right)) for _, right in results]
        found[name] = {"epsilon": strengths, "accuracy": accuracy}
        examples.append(np.asarray(results[SHOWN_AT][0][:SHOWN]))
    values = {"examples": len(x), "clean_accuracy": clean, "attacks": found}
    rows: list[tuple[str, Any]] = [("accuracy without", clean)]
    rows += [
        (f"accuracy, {name} of {strength:g}", accuracy)
        for name, curve in found.items()
        for strength, accuracy in list(zip(curve["epsilon"], curve["accuracy"], strict=True))[1::2]
    ]
    shown = np.concatenate([np.asarray(x[:SHOWN]), *examples])
    caption = (
        f"Rows: test images, and the same after {', '.join(chosen)}, with changes of at most "
        f"{EPSILONS[SHOWN_AT]:g} of 255 in a pixel, or {RADII[SHOWN_AT]:g} in the 2-norm."
    )
    picture = grids.Picture(grids.grid(shown, SHOWN), caption)
    draw = {
        "accuracy": lambda path: pictures.attack_curves(found, clean, path),
        "images": lambda path: grids.picture(picture, path),
    }
    return Result(values, rows, draw)


def _right(logits: Any, x: jax.Array, n: jax.Array, labels: jax.Array) -> jax.Array:
    """True for each image [B, H, W, C] that is classified right, with the row numbers n [B]."""
    return jnp.argmax(logits(x, n), axis=1) == labels[n]


def _attack(attack: Any, loss: Any, logits: Any, labels: jax.Array) -> Any:
    """Function from images, epsilon and row numbers to the attacked images and which are right."""

    def call(x: jax.Array, epsilon: jax.Array, n: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = attack(lambda x: loss(x, n), x, epsilon)
        return found, _right(logits, found, n, labels)

    return call


def corruptions(subject: Subject) -> Result:
    """Accuracy and calibration on corrupted test images, of each kind in five severities."""
    batch = subject.batch("test", subject.options.examples)
    x, labels = batch["image"], batch[subject.target]
    key = jax.random.key(0)

    def outputs(images: Any) -> np.ndarray:
        found = subject.model.outputs(batch | {"image": np.asarray(images).astype(np.uint8)})
        return np.asarray(found)

    clean = calibration.scores(outputs(x), labels, "logits")
    table: dict[str, dict[str, list[float]]] = {}
    shown = [x[:1].astype(np.float32)]
    for number, kind in enumerate(kinds.KINDS):
        program = jax.jit(functools.partial(kinds.corrupt, kind))
        images = [program(jax.random.fold_in(key, number), x, s) for s in range(1, 6)]
        scores = [calibration.scores(outputs(one), labels, "logits") for one in images]
        table[kind] = {name: [s[name] for s in scores] for name in ("accuracy", "ece", "nll")}
        shown.append(np.asarray(images[MIDDLE - 1][:1]))
    errors = {kind: 1 - float(np.mean(found["accuracy"])) for kind, found in table.items()}
    mean = float(np.mean([errors[kind] for kind in kinds.HENDRYCKS]))
    values = {"examples": len(x), "clean": clean, "kinds": table, "mean_error": errors}
    values |= {"mean_corruption_error": mean}
    rows = [
        ("accuracy without", clean["accuracy"]),
        ("mean corruption error", mean),
        ("above the error without", mean - (1 - clean["accuracy"])),
    ]
    rows += [(f"accuracy, {kind}", 1 - error) for kind, error in errors.items()]
    names = ["none", *(kind.replace("_", " ") for kind in kinds.KINDS)]
    caption = f"A test image, and the same with each kind of corruption in severity {MIDDLE} of 5."
    examples = np.concatenate(shown)
    draw = {
        "accuracy": lambda path: pictures.corruption_table(table, clean["accuracy"], path),
        "images": lambda path: pictures.labelled_images(examples, names, caption, path),
    }
    return Result(values, rows, draw)
