"""Parts of `jaxdl analyze` on what a model has learnt: its layers, and its errors.

Shapes: N examples, K classes.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.analysis import ensemble, linear_probe, representations
from jaxdl.errors import UserError
from jaxdl.export.inputs import IMAGE
from jaxdl.export.model import restored
from jaxdl.run import plots
from jaxdl.tools import analysis_pictures as pictures
from jaxdl.tools.analysis_subject import Options, Result, Subject

MOST_LAYERS = 12
FITTED = 1000  # training examples of probes and neighbours
MOST_BYTES = 4e9  # of the outputs of layers
SHOWN = 24  # worst errors in the picture and in the file
LISTED = 10  # pairs of classes in the file


def features(subject: Subject) -> Result:
    """Probes, neighbours and silent units of the layers, and similarities between layers."""
    test = subject.batch("test", subject.options.examples)
    names = _chosen(subject)
    found = _outputs(subject, names, test)
    pooled = {name: representations.pooled(x) for name, x in found.items()}
    values: dict[str, Any] = {"examples": len(test["index"])}
    silent = {name: representations.silent_units(x) for name, x in found.items()}
    table = {
        name: {"units": x.shape[-1], "never_positive": silent[name][0], "constant": silent[name][1]}
        for name, x in found.items()
    }
    rows: list[tuple[str, Any]] = []
    if subject.is_classifier:
        train = subject.batch("train", FITTED)
        for name, x in subject.layers.features(train, names, pool=True).items():
            data = x, train[subject.target], pooled[name], test[subject.target]
            scores = {
                "probe": linear_probe.linear(*data),
                "neighbours": representations.neighbours(*data),
            }
            table[name] |= scores
            rows += [(f"{name}: linear probe", scores["probe"])]
            rows += [(f"{name}: nearest neighbours", scores["neighbours"])]
    rows += [
        (f"{name}: never positive", f"{a} of {found[name].shape[-1]}")
        for name, (a, _) in silent.items()
    ]
    values["layers"] = table
    flat = _flat(found)
    other, label = flat, "the same model"
    if subject.layers.named:  # beside all layers, as the similarity with itself says nothing
        every = dataclasses.replace(subject, options=Options())
        other = _flat(_outputs(every, _chosen(every), test))
    if subject.options.other is not None:
        other, label = _other(subject, test), subject.options.other.folder.name
    matrix = representations.similarities(flat, other)
    values["cka"] = {"with": label, "columns": list(other), "values": matrix}
    if subject.options.other is not None:
        names = [name for name in flat if name in other]
        same = [matrix[list(flat).index(n), list(other).index(n)] for n in names]
        rows += [(f"{n}: CKA with {label}", float(v)) for n, v in zip(names, same, strict=True)]
    draw = {"cka": lambda path: pictures.similarity(matrix, list(flat), list(other), label, path)}
    return Result(values, rows, draw)


def _chosen(subject: Subject) -> list[str]:
    """Paths of at most MOST_LAYERS layers, without those of dropout; of --layer alone."""
    names = subject.layers.named or subject.layers.main
    chosen = np.unique(np.linspace(0, len(names) - 1, min(MOST_LAYERS, len(names))).astype(int))
    return [names[n] for n in chosen]


def _outputs(
    subject: Subject, names: list[str], batch: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Outputs [N, P, C] of layers.

    Raises:
      UserError: they do not fit into the memory.
    """
    size = 4 * len(batch["index"]) * sum(math.prod(subject.layers.shapes[n].shape) for n in names)
    if size > MOST_BYTES:
        raise UserError(
            f"outputs of {len(names)} layers take {size / 1e9:.0f} GB: give fewer --examples or "
            "one --layer"
        )
    return subject.layers.features(batch, names)


def _other(subject: Subject, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Features of the other run for the same examples.

    Raises:
      UserError: its model reads other inputs.
    """
    assert subject.options.other is not None
    other = restored(subject.options.other)
    for name, like in other.inputs.items():
        if name not in batch or batch[name].shape[1:] != like.shape[1:]:
            raise UserError(
                f"--other={other.run.folder} reads other inputs: give a run on these data"
            )
    every = dataclasses.replace(subject, model=other, options=Options())
    return _flat(_outputs(every, _chosen(every), batch))


def _flat(layers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: x.reshape(len(x), -1) for name, x in layers.items()}


def errors(subject: Subject) -> Result:
    """Confusion of the classes of the test split, and the examples with the largest loss."""
    logits, targets = subject.outputs("test")
    log_p = ensemble.log_probabilities(logits, "logits")
    predicted = np.argmax(log_p, axis=1)
    losses = -log_p[np.arange(len(targets)), targets]
    K = log_p.shape[1]
    counts = np.zeros((K, K), int)
    np.add.at(counts, (targets, predicted), 1)
    wrong = np.flatnonzero(predicted != targets)
    wrong = wrong[np.argsort(-losses[wrong], kind="stable")]
    index = subject.rows("test", len(targets))
    worst = [
        {
            "index": int(index[n]),
            "true": subject.classes[targets[n]],
            "predicted": subject.classes[predicted[n]],
            "probability": float(np.exp(log_p[n, predicted[n]])),
        }
        for n in wrong[:SHOWN]
    ]
    pairs = counts - np.diag(np.diag(counts))
    order = np.argsort(-pairs, axis=None, kind="stable")[:LISTED]
    confused = [
        {"true": subject.classes[a], "predicted": subject.classes[b], "count": int(pairs[a, b])}
        for a, b in zip(*np.unravel_index(order, pairs.shape), strict=True)
        if pairs[a, b]
    ]
    values = {
        "examples": len(targets),
        "wrong": len(wrong),
        "confusion": counts,
        "classes": subject.classes,
        "most_confused": confused,
        "worst": worst,
    }
    rows: list[tuple[str, Any]] = [("wrong", f"{len(wrong)} of {len(targets)}")]
    rows += [(f"{p['true']} taken for {p['predicted']}", p["count"]) for p in confused]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    title = "shares of the true classes, test split"

    def draw_worst(path: Path) -> None:
        batch = subject.batch_of("test", index[wrong[:SHOWN]])
        labels = [f"{w['predicted']} {w['probability']:.2f},\nnot {w['true']}" for w in worst]
        caption = (
            "Misclassified test images with the largest loss: predicted class, its probability, "
            "and the true class."
        )
        pictures.labelled_images(batch["image"], labels, caption, path)

    draw = {"confusion": lambda path: plots.confusion_matrix(shares, title, path, subject.classes)}
    if subject.form == IMAGE and len(wrong):
        draw["worst"] = draw_worst
    return Result(values, rows, draw)
