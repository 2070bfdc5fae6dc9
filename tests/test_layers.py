"""Imports point down only, TensorFlow is nowhere, and each heavy package is in its one room."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A module may import from lower floors and, without a circle, from its own.
FLOORS = [
    {
        *("errors", "files", "console", "tree", "signals", "lock", "checksums", "memory"),
        *("markup", "notebook", "import_path"),
        *(
            "compilation_cache",
            "config",
            "config_checks",
            "flags",
            "hyperparameters",
            "native",
            "parameter_groups",
            "saved_config",
            "task",
        ),
        *("losses", "metrics", "class_metrics", "ranking"),
        *("optim", "schedules", "regularizers", "augment", "attacks"),
    },
    {"nn"},
    {"models", "data", "text", "distributed"},
    {"run", "trackers"},
    {"tasks", "analysis", "export"},
    {"train"},
    {"rl"},
    {"cli", "page", "sweep", "tools"},
    {"__main__", "experiments"},
]
ROOMS = {
    "tensorflow_datasets": {"jaxdl/data/tfds.py"},
    "orbax": {"jaxdl/run/checkpoint_io.py"},
    "tensorboardX": {"jaxdl/trackers/tensorboard.py"},
    "wandb": {"jaxdl/trackers/wandb.py"},
    "mlflow": {"jaxdl/trackers/mlflow.py"},
    "matplotlib": {"jaxdl/run/plots.py", "jaxdl/run/curves.py"},
    "safetensors": {"jaxdl/export/tensor_file.py", "experiments/benchmarks/torch_reference.py"},
    "tokenizers": {"jaxdl/text/vocabulary.py"},
    # What Grain needs of it stands where Grain does.
    "absl": {"jaxdl/cli.py", "jaxdl/flags.py", "jaxdl/data/pipeline.py"},
    "grain": {"jaxdl/data/pipeline.py"},
    "torch": {
        f"experiments/benchmarks/torch_{name}.py"
        for name in (
            *("side", "models", "agent", "speedrun", "latency", "reference"),
            *("attribution", "analysis"),
        )
    },
    "torchvision": {"experiments/benchmarks/torch_reference.py"},
    "foolbox": {"experiments/benchmarks/torch_analysis.py"},
    "netcal": {"experiments/benchmarks/torch_analysis.py"},
    "hessian_eigenthings": {"experiments/benchmarks/torch_analysis.py"},
    "captum": {"experiments/benchmarks/torch_attribution.py"},
    "gymnasium": {"experiments/benchmarks/torch_agent.py"},
    "ray": {"jaxdl/sweep/ray.py"},
    "pyarrow": {"jaxdl/data/arrow.py", "jaxdl/data/parquet.py"},
    "datasets": set(),
    "flatbuffers": {"jaxdl/export/stablehlo.py"},
    "jax2onnx": {"jaxdl/export/onnx_model.py"},
    "onnxruntime": {"jaxdl/export/alone.py", "jaxdl/tools/latency_side.py"},
}


# The package itself only imports inside `open`, so that it may name a module above the others.
PACKAGE = ROOT / "jaxdl" / "__init__.py"


def sources():
    return sorted([*ROOT.glob("jaxdl/**/*.py"), *ROOT.glob("experiments/**/*.py")])


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor(module):
    parts = module.split(".")
    name = parts[0] if parts[0] == "experiments" else parts[1] if len(parts) > 1 else None
    return next((level for level, names in enumerate(FLOORS) if name in names), None)


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    if path == PACKAGE:
        return
    own = floor(module_name(path))
    assert own is not None, f"{path} has no floor in this test"
    for imported in imports(path):
        if imported.split(".")[0] in ("jaxdl", "experiments") and floor(imported) is not None:
            assert floor(imported) <= own, f"{path} imports {imported}, which is above it"


def test_no_circles():
    modules = {module_name(path): path for path in sources()}
    graph = {
        name: {i for i in imports(path) if i in modules and i != name}
        for name, path in modules.items()
        if path != PACKAGE
    }
    while leaves := {name for name, needs in graph.items() if not needs & graph.keys()}:
        graph = {name: needs for name, needs in graph.items() if name not in leaves}
    assert not graph, f"these modules import each other in a circle: {sorted(graph)}"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_packages_keep_to_their_rooms(path):
    relative = str(path.relative_to(ROOT))
    for package in {name.split(".")[0] for name in imports(path)}:
        assert package not in ("tensorflow", "pickle", "dill", "cloudpickle")
        if package in ROOMS:
            assert relative in ROOMS[package]
        if package == "flax":
            # The other places are what jaxdl is measured beside, and what breaks its layers.
            others = ("flax_side", "planted_faults", "fault_campaign")
            others = tuple(f"experiments/benchmarks/{name}.py" for name in others)
            assert relative.startswith(("jaxdl/nn/", "jaxdl/models/", *others))


def test_starting_is_light():
    heavy = ["tensorflow", "tensorflow_datasets", "orbax", "matplotlib", "sklearn", "tensorboardX"]
    code = (
        "import sys, experiments.cifar_vgg; from jaxdl.data import image_sources, tables; "
        f"image_sources.digits(), tables.iris(0); print([m for m in {heavy} if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert out.stdout.strip() == "[]"
    code = (
        "import contextlib, io, sys, jaxdl.cli\nfrom jaxdl.__main__ import run\n"
        "for words in (['--help'], ['list', '--help'], ['sweep', '--help']):\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "        run(words)\n"
        "print('jax' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert out.stdout.strip() == "False"
