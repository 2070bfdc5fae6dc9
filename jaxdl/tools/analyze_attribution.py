"""Part of `jaxdl analyze` on attribution: maps, their measures and their sanity check.

Shapes: B examples, P positions.
"""

from typing import Any

import jax
import numpy as np

from jaxdl.analysis import attribution_checks as checks
from jaxdl.export.inputs import IMAGE, ROW
from jaxdl.tasks.supervised import TrainState, eval_variables, with_average
from jaxdl.text.vocabulary import PAD
from jaxdl.tools import attribution_pictures as pictures
from jaxdl.tools.analysis_subject import Result, Subject
from jaxdl.tools.explained import Explained, explained

MOST = 32  # examples that are explained
SHOWN = 6  # of these that are drawn
STAGES = 5  # models with random weights, from the last layer to all of them


def attribution(subject: Subject) -> Result:
    """Attribution maps of test examples by all methods that fit the model."""
    model = explained(subject, min(subject.options.examples, MOST))
    maps, notes = model.maps(_with_random(subject, [], ""))
    areas = {name: _areas(model, values) for name, values in maps.items()}
    random = checks.random_ranking(jax.random.key(1), next(iter(maps.values())).shape)
    areas["random"] = _areas(model, np.asarray(random))
    values: dict[str, Any] = {"examples": len(model.chosen), "measures": notes, "areas": areas}
    if subject.form == IMAGE:
        values["grad_cam_layer"] = model.grad_cam_layer
    rows: list[tuple[str, Any]] = [("completeness error", notes["completeness_error"])]
    for name, area in areas.items():
        rows.append(
            (f"deletion, insertion: {name}", f"{area['deletion']:.3f} {area['insertion']:.3f}")
        )
    draw = {"maps": lambda path: _draw(model, maps, path)}
    if subject.options.sanity_check:
        found = sanity_check(model, maps)
        values["sanity_check"] = found
        rows += [
            (f"correlation, all random: {n}", float(x[-1])) for n, x in found["methods"].items()
        ]
        draw["sanity"] = lambda path: pictures.sanity(found["methods"], found["layers"], path)
    return Result(values, rows, draw)


def _areas(model: Explained, values: np.ndarray) -> dict[str, float]:
    return {name: float(checks.area(c).mean()) for name, c in model.curves(values).items()}


def sanity_check(model: Explained, maps: dict[str, np.ndarray]) -> dict[str, Any]:
    """Rank correlations of maps with those of models whose last layers are at random.

    A map that explains the model changes with its weights (Adebayo et al., 2018).

    Returns:
      `layers`: the first random layer of each stage; `methods`: mean correlation of the absolute
      values by method and stage.
    """
    subject = model.subject
    names = _stages(subject, list(model.layers))
    found: dict[str, list[float]] = {name: [] for name in maps}
    for stage in names:
        others, _ = model.maps(_with_random(subject, list(model.layers), stage))
        for name in maps:
            correlation = checks.rank_correlations(np.abs(maps[name]), np.abs(others[name]))
            found[name].append(float(correlation.mean()))
    return {"layers": names, "methods": found}


def _stages(subject: Subject, layers: list[str]) -> list[str]:
    """First random layer of each stage, at even distances from the last layer to the first one."""
    if not isinstance(subject.state, TrainState):
        return layers[:1]
    variables = jax.tree_util.tree_leaves_with_path(eval_variables(subject.state))
    with_weights = {checks.layer_of(path) for path, _ in variables}
    own = [name for name in reversed(layers) if name in with_weights]
    return [own[n] for n in np.unique(np.linspace(0, len(own) - 1, STAGES).round().astype(int))]


def _with_random(subject: Subject, layers: list[str], first: str) -> Any:
    """State with random weights in a layer and all after it; in no layer if `first` is empty.

    Its average holds the weights, so that all of these states share a compiled program.
    """
    fresh = subject.model.task.init(jax.random.key(1)) if first else subject.state
    if not isinstance(subject.state, TrainState) or not isinstance(fresh, TrainState):
        return fresh
    chosen = layers[layers.index(first) :] if first else []
    variables = eval_variables(subject.state), eval_variables(fresh)
    return with_average(subject.state, checks.randomized(*variables, chosen))


def _draw(model: Explained, maps: dict[str, np.ndarray], path: Any) -> None:
    """Draws maps beside their images, or bars of columns or tokens."""
    subject = model.subject
    if subject.form == IMAGE:
        titles = [_title(model, n) for n in range(min(SHOWN, len(model.chosen)))]
        pictures.maps(model.batch["image"], maps, titles, path)
    elif subject.form == ROW:
        pictures.columns(maps, subject.model.spec.columns, path)
    else:
        tokens = np.asarray(model.inputs)
        shown = range(min(4, len(tokens)))
        words = [[_word(subject, token) for token in tokens[n] if token != PAD] for n in shown]
        titles = [_title(model, n) for n in shown]
        pictures.words(maps["integrated gradients"], words, titles, path)


def _title(model: Explained, n: int) -> str:
    subject = model.subject
    if subject.model.kind != "logits":
        return f"example {model.batch['index'][n]}"
    predicted = subject.classes[model.chosen[n]]
    true = subject.classes[int(model.batch[subject.target][n])]
    return predicted if predicted == true else f"{predicted},\nnot {true}"


def _word(subject: Subject, token: int) -> str:
    tokenizer = subject.model.spec.tokenizer
    return (tokenizer.decode([int(token)]) if tokenizer else "") or "-"
