"""Lists of experiments, models, losses and the like, each with the first line of its docstring."""

import ast
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxdl
from jaxdl import losses, optim, schedules
from jaxdl.data import image_sources, prepare, tables
from jaxdl.rl.agents import ENVIRONMENTS
from jaxdl.text.pairs import PUZZLES

# Attributes of models, and of no other module of theirs.
COUNTS = {"num_classes", "outputs", "vocabulary", "actions", "latents", "channels"}


def contents(experiments: Path) -> dict[str, dict[str, str]]:
    """Sections, each of names and one line about each.

    Experiments (in that folder) and models are read as text: nothing is imported for it.
    """
    downloads = {name: "by `jaxdl prepare`, or at the first run" for name in prepare.NAMES}
    return {
        "experiments (python -m experiments.NAME)": _modules(experiments),
        "models (jaxdl.models)": _models(Path(jaxdl.__path__[0]) / "models"),
        "data sets (--dataset)": {
            **{
                make.__name__: _line(make)
                for make in (image_sources.digits, image_sources.synthetic)
            },
            **{make.__name__: _line(make) for make in (tables.iris, tables.diabetes)},
            **downloads,
            "functions": "Of Python's library, six packages to be told apart: imdb_rnn, embedded.",
            "docstrings": "Of Python's library, to be continued: shakespeare_lm, embedded.",
            **dict.fromkeys(PUZZLES, "A puzzle that is made here, for translators."),
            "files": "Any parallel text, by --source_file and --target_file, for translators.",
            **dict.fromkeys(ENVIRONMENTS, "An environment, for agents."),
            "a name of TFDS": "any of its image-classification data sets, in --data_dir",
            "a folder": "train/CLASS/*.jpg and test/CLASS/*.jpg",
        },
        "losses (jaxdl.losses; of logits or of numbers, --loss)": _lines(losses.LOSSES),
        "optimizers (--optimizer)": _lines(optim.OPTIMIZERS),
        "schedules (--schedule)": {
            **_lines(schedules.SCHEDULES),
            "plateau": "A tenth of the rate whenever the training loss stands.",
        },
    }


def _lines(chosen: dict[str, Callable[..., Any]]) -> dict[str, str]:
    return {name: _line(make) for name, make in chosen.items()}


def _line(documented: Any) -> str:
    return (inspect.getdoc(documented) or "").partition("\n")[0]


def _modules(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
    return {path.stem: _first(ast.parse(path.read_text(encoding="utf-8"))) for path in paths}


def _models(folder: Path) -> dict[str, str]:
    """Classes with a number of what they give or are given, each with its module's first line."""
    found = {}
    for path in sorted(folder.glob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        classes = {node.name: node for node in module.body if isinstance(node, ast.ClassDef)}
        above = {
            name: [b.id for b in classes[name].bases if isinstance(b, ast.Name)] for name in classes
        }
        inherited = {base for bases in above.values() for base in bases}
        for name in classes.keys() - inherited:
            own = [classes[n] for n in (name, *above[name]) if n in classes]
            fields = [f for node in own for f in ast.walk(node) if isinstance(f, ast.AnnAssign)]
            if COUNTS & {f.target.id for f in fields if isinstance(f.target, ast.Name)}:
                found[name] = _first(module)
    return dict(sorted(found.items()))


def _first(module: ast.Module) -> str:
    return (ast.get_docstring(module) or "").partition("\n")[0]
