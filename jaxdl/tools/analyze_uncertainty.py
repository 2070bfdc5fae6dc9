"""Parts of `jaxdl analyze` on what a model does not know.

Shapes: N examples, K classes, S samples.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxdl.analysis import calibration as measures
from jaxdl.analysis import conformal, ensemble, monte_carlo, out_of_distribution
from jaxdl.console import say
from jaxdl.errors import UserError
from jaxdl.export.inputs import IMAGE
from jaxdl.tools import analysis_pictures as pictures
from jaxdl.tools.analysis_subject import Result, Subject

SEED = 0  # of all random numbers
FITTED = 2000  # training examples that the distributions of features are fitted to
MOST_ENTRIES = 1 << 26  # of these features; the fit takes some copies of 8 bytes each
SAMPLES = 32  # draws of Monte Carlo dropout


def calibration(subject: Subject) -> Result:
    """Scores of the test split, and a temperature that is fitted on validation."""
    kind = subject.model.kind
    logits, targets = subject.outputs("test")
    before = measures.scores(logits, targets, kind)
    values: dict[str, Any] = {"split": "test", "examples": len(targets), **before}
    rows: list[tuple[str, Any]] = list(before.items())
    tables = {"as trained": _reliability(logits, targets, kind)}
    t = None
    try:
        t = measures.fit_temperature(*subject.outputs("validation"), kind)
    except UserError as error:
        values |= {"temperature": None, "temperature_reason": str(error)}
        rows.append(("temperature", "none"))
        say(f"calibration: {error}")
    else:
        scaled = np.asarray(logits, np.float64) / t
        after = measures.scores(scaled, targets, kind)
        tables[f"temperature {t:.3g}"] = _reliability(scaled, targets, kind)
        values |= {"temperature": t, "with_temperature": after}
        rows += [("temperature", t)]
        rows += [(f"{name} with it", after[name]) for name in ("nll", "brier", "ece")]
    values["reliability"] = {name: table._asdict() for name, table in tables.items()}
    draw = {"reliability": lambda path: pictures.reliability(tables, path)}
    return Result(values, rows, draw, t)


def _reliability(logits: np.ndarray, targets: np.ndarray, kind: str) -> measures.Reliability:
    log_p = ensemble.log_probabilities(logits, kind)
    return measures.reliability(*measures.predictions(log_p, targets, kind))


def conformal_sets(subject: Subject) -> Result:
    """Sets of classes or intervals of numbers with a coverage of 0.9, calibrated on validation."""
    if subject.model.kind == "numbers":
        return _intervals(subject)
    subject.need_classes()
    random = np.random.RandomState(SEED)
    found: dict[str, Any] = {}
    sizes: dict[str, np.ndarray] = {}
    splits = {name: subject.outputs(name) for name in ("validation", "test")}
    ways: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
        "least_ambiguous": lambda log_p, _: conformal.least_ambiguous(log_p),
        "adaptive": conformal.adaptive,
    }
    for way, score in ways.items():
        scores = {}
        for name, (logits, _) in splits.items():
            log_p = ensemble.log_probabilities(logits, "logits")
            scores[name] = score(log_p, random.uniform(size=len(log_p)))
        limit = conformal.threshold(
            conformal.of_targets(scores["validation"], splits["validation"][1])
        )
        members = conformal.sets(scores["test"], limit)
        covered, size = conformal.coverage(members, splits["test"][1])
        sizes[way.replace("_", " ")] = np.sum(members, axis=1)
        found[way] = {"threshold": limit, "coverage": covered, "mean_size": size}
    rows = [
        (f"{name.replace('_', ' ')} {measure}", found[name][key])
        for name in found
        for measure, key in (("coverage", "coverage"), ("set size", "mean_size"))
    ]
    counts = {name: len(targets) for name, (_, targets) in splits.items()}
    values = {"alpha": conformal.ALPHA, "examples": counts, **found}
    return Result(values, rows, {"sizes": lambda path: pictures.set_sizes(sizes, path)})


def _intervals(subject: Subject) -> Result:
    (calibrating, truth), (test, targets) = (
        tuple(np.asarray(x, np.float64) for x in subject.outputs(name))
        for name in ("validation", "test")
    )
    if test.ndim != 1 or test.shape != targets.shape:
        raise UserError(f"it is for one number per example, and the outputs are {test.shape[1:]}")
    half = conformal.half_width(calibrating, truth)
    covered = float(np.mean(np.abs(test - targets) <= half))
    values: dict[str, Any] = {"alpha": conformal.ALPHA, "half_width": half, "coverage": covered}
    values["examples"] = {"validation": len(truth), "test": len(targets)}
    draw = {"intervals": lambda path: pictures.intervals(test, targets, half, path)}
    return Result(values, [("coverage", covered), ("half width", half)], draw)


def dropout(subject: Subject) -> Result:
    """Scores of the mean of 32 predictions with dropout, beside those without."""
    batch = subject.batch("test", subject.options.examples)
    inputs = subject.inputs(batch)
    program = jax.jit(monte_carlo.samples, static_argnums=(0, 4))
    key = jax.random.key(SEED)
    logits = np.asarray(program(subject.predict, subject.state, inputs, key, SAMPLES))
    if np.array_equal(logits[0], logits[1]):
        raise UserError("the model has no dropout")
    targets = batch[subject.target]
    found = monte_carlo.uncertainty(logits)
    alone = measures.scores(np.asarray(subject.model.outputs(batch)), targets, "logits")
    together = measures.scores(found.log_p, targets, "logits")
    wrong = np.argmax(found.log_p, axis=1) != targets
    values: dict[str, Any] = {"examples": len(targets), "samples": SAMPLES}
    values |= {"without": alone, "with": together}
    rows = [(f"{n} without", alone[n]) for n in ("accuracy", "nll", "ece")]
    rows += [(f"{n} with", together[n]) for n in ("accuracy", "nll", "ece")]
    if 0 < np.sum(wrong) < len(wrong):
        area = out_of_distribution.auroc(found.information[~wrong], found.information[wrong])
        values["auroc_of_errors"] = area
        rows.append(("AUROC of errors", area))
    return Result(values, rows)


def unknown(subject: Subject) -> Result:
    """Areas under ROC curves of three scores that tell test examples from foreign ones."""
    batch = subject.batch("test", subject.options.examples)
    train = subject.batch("train", FITTED)
    layer, features = subject.layers.hidden(train)
    if features.size > MOST_ENTRIES:
        raise UserError(
            f"{features.shape[1]:,} features (the {layer}) of {len(features):,} examples are "
            "beyond the memory: name another --layer"
        )
    gaussians = out_of_distribution.fit_gaussians(features, train[subject.target])

    def scores(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        logits = np.asarray(subject.model.outputs(batch))
        found = {"probability": out_of_distribution.improbability(logits)}
        if logits.shape[1] > 1:
            found["energy"] = out_of_distribution.energy(logits)
        _, own = subject.layers.hidden(batch)
        return found | {"mahalanobis": out_of_distribution.mahalanobis(gaussians, own)}

    inside = scores(batch)
    outside = {name: scores(other) for name, other in _foreign(subject, batch).items()}
    areas = {
        name: {
            score: out_of_distribution.auroc(inside[score], values) for score, values in s.items()
        }
        for name, s in outside.items()
    }
    rows = [(f"{name}: {score}", area) for name, s in areas.items() for score, area in s.items()]
    values = {"layer": layer, "examples": len(batch["index"]), "auroc": areas}
    draw = {"scores": lambda path: pictures.score_histograms(inside, outside, path)}
    return Result(values, rows, draw)


def _foreign(subject: Subject, batch: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Foreign examples: with shuffled entries, of noise if images, and of a data set if named."""
    random = np.random.RandomState(SEED)
    names = list(subject.model.inputs)

    def shuffled(x: np.ndarray) -> np.ndarray:
        order = np.argsort(random.uniform(size=x.shape), axis=0)
        return np.take_along_axis(x, order, axis=0)

    found = {"shuffled": batch | {name: shuffled(batch[name]) for name in names}}
    if subject.form == IMAGE:
        noise = random.randint(0, 256, batch["image"].shape).astype(np.uint8)
        found["noise"] = batch | {"image": noise}
    if subject.options.unknown:
        other = _other_data(subject)
        found["unknown"] = {n: x[: len(batch["index"])] for n, x in other.items()}
    return found


def _other_data(subject: Subject) -> dict[str, np.ndarray]:
    """Test examples of the data set that the user named.

    Raises:
      UserError: it is not here, or its examples have another shape.
    """
    name = subject.options.unknown
    run = subject.model.run
    config = dataclasses.replace(run.config, dataset=name)
    try:
        data = run.experiment.load(config)
    except UserError as error:  # its way out is that of --dataset of a training
        fault = str(error).rpartition(": ")[0]
        fault = fault if " " in fault else str(error)  # it was the flag alone
        raise UserError(
            f"{fault.replace('--dataset=', '--unknown=')}: give a data set that is here, by its "
            "name or a path (`jaxdl prepare NAME` downloads one)"
        ) from error
    if data.spec.fingerprint == subject.data.spec.fingerprint:
        say(f"--unknown={name} is the data of the run itself, so these areas are about 0.5")
    other = dataclasses.replace(subject, data=data)
    found = other.batch("test", subject.options.examples)
    for entry, like in subject.model.inputs.items():
        if entry not in found or found[entry].shape[1:] != like.shape[1:]:
            raise UserError(f"--unknown={name} has examples of another shape: give some like these")
    return found
