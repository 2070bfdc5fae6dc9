"""Files that a reader opens for one run: the import closure of an experiment, without running it.

    python -m experiments.benchmarks.closure
    python -m experiments.benchmarks.closure --modules=experiments.mnist_gan --root=../other

Counts the files of jaxdl and experiments, without packages' `__init__.py`, that are reached by
imports at the top of modules; and those reached by all imports, inside functions too.
"""

import ast
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from jaxdl import cli
from jaxdl.config import RunConfig, flag
from jaxdl.errors import UserError

PACKAGES = ("jaxdl", "experiments")


@dataclasses.dataclass(frozen=True)
class Config(RunConfig):
    """Modules, and the checkout that they are in."""

    modules: str = flag(
        "experiments.cifar_vgg,experiments.mnist_gan", "import names, with commas between"
    )
    root: str = flag("", "folder of a checkout; default: this one", runtime=True)


def closure(root: Path, module: str, inside: bool) -> set[Path]:
    """Files that importing a module reaches; `inside`: by imports in functions as well."""
    seen: set[Path] = set()
    waiting = [module]
    while waiting:
        base = root / waiting.pop().replace(".", "/")
        path = next(
            (p for p in (base.with_suffix(".py"), base / "__init__.py") if p.exists()), None
        )
        if path is None or path in seen:
            continue
        seen.add(path)
        waiting += [name for name in imports(path, inside) if name.split(".")[0] in PACKAGES]
    return {path for path in seen if path.name != "__init__.py"}


def imports(path: Path, inside: bool) -> Iterator[str]:
    """Names that a file imports: modules, and what may be modules in packages."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if inside else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def run(config: Config) -> dict[str, float]:
    """The number of files of each module, by the two counts.

    Raises:
      UserError: a module is not in the checkout.
    """
    root = Path(config.root) if config.root else Path(__file__).parents[2]
    found: dict[str, float] = {}
    for module in config.modules.split(","):
        if not (root / f"{module.replace('.', '/')}.py").exists():
            raise UserError(f"--modules={module}: {root} has no such file: name one that it has")
        found[f"{module}, at the top"] = len(closure(root, module, inside=False))
        found[f"{module}, all"] = len(closure(root, module, inside=True))
    return found


if __name__ == "__main__":
    cli.main(run, Config)
