"""Import closure of an experiment: the files that a reader of it has to open.

    python -m experiments.benchmarks.closure
    python -m experiments.benchmarks.closure --modules=experiments.mnist_gan --root=../other

Runs nothing. Counts the files of jaxdl and experiments, without `__init__.py` files, that are
reached by imports at the top of modules, and those reached by all imports, including those inside
functions.
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
    """Modules to count the files of, and their checkout."""

    modules: str = flag(
        "experiments.cifar_vgg,experiments.mnist_gan", "comma-separated names of modules"
    )
    root: str = flag("", "folder of a checkout; default: this one", runtime=True)


def closure(root: Path, module: str, inside: bool) -> set[Path]:
    """Returns the files that importing a module reaches, without `__init__.py` files.

    Args:
      root: the folder of the checkout.
      module: the module's name, such as `experiments.cifar_vgg`.
      inside: follow imports inside functions as well.
    """
    seen: set[Path] = set()
    queue = [module]
    while queue:
        base = root / queue.pop().replace(".", "/")
        path = next(
            (p for p in (base.with_suffix(".py"), base / "__init__.py") if p.exists()), None
        )
        if path is None or path in seen:
            continue
        seen.add(path)
        queue += [name for name in imports(path, inside) if name.split(".")[0] in PACKAGES]
    return {path for path in seen if path.name != "__init__.py"}


def imports(path: Path, inside: bool) -> Iterator[str]:
    """Yields the names that a file imports: modules, and package members that may be modules."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if inside else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def run(config: Config) -> dict[str, float]:
    """Returns both numbers of files for each module.

    Raises:
      UserError: a module is not in the checkout.
    """
    root = Path(config.root) if config.root else Path(__file__).parents[2]
    counts: dict[str, float] = {}
    for module in config.modules.split(","):
        if not (root / f"{module.replace('.', '/')}.py").exists():
            raise UserError(f"--modules={module}: {root} has no such module: name one that it has")
        counts[f"{module}, at the top"] = len(closure(root, module, inside=False))
        counts[f"{module}, all"] = len(closure(root, module, inside=True))
    return counts


if __name__ == "__main__":
    cli.main(run, Config)
