"""The `list` command: experiments, models, data sets, losses, optimizers and schedules."""

import ast
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxdl
from jaxdl import losses, optim, schedules
from jaxdl.data import image_sources, prepare, series, tables
from jaxdl.rl.agents import ENVIRONMENTS
from jaxdl.text.pairs import PUZZLES

# Attributes of models; the other classes in jaxdl.models are their parts and have none of these.
COUNTS = {"num_classes", "outputs", "vocabulary", "actions", "latents", "channels"}


def contents(experiments: Path) -> dict[str, dict[str, str]]:
    """Names that experiments and flags accept, each with one line about it.

    Experiments and models are parsed, not imported.

    Args:
      experiments: folder of the experiments.

    Returns:
      A dict of name -> line for each section.
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
            **{make.__name__: _line(make) for make in tables.TABLES},
            **_lines(series.SYSTEMS),
            "a CSV file": "A table: tabular_mlp; columns in the order of time: forecast_rnn.",
            **downloads,
            "functions": "Source code to classify, from Python's library: imdb_rnn, embedded.",
            "docstrings": "English text, from Python's library: shakespeare_lm, embedded.",
            **dict.fromkeys(PUZZLES, "Synthetic translation task."),
            "files": "Parallel text for translation, in --source_file and --target_file.",
            **dict.fromkeys(ENVIRONMENTS, "Environment for agents."),
            "a name of TFDS": "any of its image-classification data sets, in --data_dir",
            "a table": "./FILE.csv, ./FILE.parquet, or a folder with train.csv and test.csv",
            "a folder": "train/CLASS/*.jpg and test/CLASS/*.jpg",
        },
        "losses (jaxdl.losses; of logits or of numbers, --loss)": _lines(losses.LOSSES),
        "optimizers (--optimizer)": _lines(optim.OPTIMIZERS),
        "schedules (--schedule)": {
            **_lines(schedules.SCHEDULES),
            "plateau": "Divides the learning rate by ten whenever the training loss stagnates.",
        },
    }


def _lines(functions: dict[str, Callable[..., Any]]) -> dict[str, str]:
    return {name: _line(function) for name, function in functions.items()}


def _line(documented: Any) -> str:
    return (inspect.getdoc(documented) or "").partition("\n")[0]


def _modules(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
    return {path.stem: _first(ast.parse(path.read_text(encoding="utf-8"))) for path in paths}


def _models(folder: Path) -> dict[str, str]:
    """Model classes, which have an attribute of `COUNTS`, with the first line of their module."""
    models = {}
    for path in sorted(folder.glob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        classes = {node.name: node for node in module.body if isinstance(node, ast.ClassDef)}
        parents = {
            name: [b.id for b in classes[name].bases if isinstance(b, ast.Name)] for name in classes
        }
        inherited = {base for bases in parents.values() for base in bases}
        for name in classes.keys() - inherited:
            own = [classes[n] for n in (name, *parents[name]) if n in classes]
            fields = [f for node in own for f in ast.walk(node) if isinstance(f, ast.AnnAssign)]
            if COUNTS & {f.target.id for f in fields if isinstance(f.target, ast.Name)}:
                models[name] = _first(module)
    return dict(sorted(models.items()))


def _first(module: ast.Module) -> str:
    return (ast.get_docstring(module) or "").partition("\n")[0]
