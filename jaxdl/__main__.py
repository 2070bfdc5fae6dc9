"""The `jaxdl` command: prepares data, and evaluates, verifies, sweeps and compares runs."""

import argparse
import gc
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from jaxdl.cli import guard
from jaxdl.console import say
from jaxdl.errors import TrainingError, UserError
from jaxdl.tools.command import REPLACEMENTS
from jaxdl.tools.command_line import parser


def main() -> None:
    """Entry point of the console script."""
    sys.exit(guard(lambda: run(sys.argv[1:])))


def run(arguments: list[str]) -> None:
    """Runs one command of the command line.

    Args:
      arguments: the command and its options; after `--`, flags of the experiment that it runs.

    Raises:
      UserError: an argument is unknown or out of range, or the command refuses it.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options, unknown = parser().parse_known_args(arguments[:end])
    if options.command == "predict":  # argparse leaves files that come after an option
        options.files += [word for word in unknown if word == "-" or not word.startswith("-")]
        unknown = [word for word in unknown if word not in options.files]
    if unknown and options.command != "sweep":
        raise UserError(f"unrecognized arguments: {' '.join(unknown)} (jaxdl --help)")
    options.lists = unknown  # flags of a sweep's experiment, with lists of values
    _check_encodings(options)
    options.flags = arguments[end + 1 :]
    HANDLERS[options.command](options)


def _check_encodings(options: argparse.Namespace) -> None:
    """Checks every path among the options by `files.check_encoding`.

    A page is made by Python alone, so the runs that it shows may have any name.
    """
    from jaxdl import files

    is_page = options.command == "watch" or getattr(options, "page", None) is not None
    for name, value in vars(options).items():
        if is_page and name == "runs":
            continue
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, Path) or name in (*REPLACEMENTS, "workdir"):
                files.check_encoding(path or "", "" if name in ("run", "runs") else name)


def _list(options: argparse.Namespace) -> None:
    import experiments
    from jaxdl.tools.list import contents

    del options
    _report_other_experiments()
    for section, lines in contents(Path(experiments.__path__[0])).items():
        print(f"{section}:")
        for name, line in lines.items():
            print(f"  {name:<24} {line}")


def _report_other_experiments() -> None:
    """Prints a line if the current folder has an experiments/ package that is not the one in use.

    The console script imports the installed package, which may be from another clone than the one
    that the user is in.
    """
    spec = importlib.util.find_spec("experiments")
    here = Path("experiments").absolute()
    if spec is None or not spec.submodule_search_locations or not (here / "__init__.py").is_file():
        return
    used = Path(next(iter(spec.submodule_search_locations)))
    if used.resolve() != here.resolve():
        say(f"using the experiments in {used}; `python -m jaxdl` uses those in {here}")


def _prepare(options: argparse.Namespace) -> None:
    from jaxdl.data.prepare import prepare

    print(prepare(options.name, options.data_dir))


def _evaluate(options: argparse.Namespace) -> None:
    if not options.ensemble:
        from jaxdl.tools.evaluate import evaluate

        _print(evaluate(_open_run(options, options.checkpoint), options.split))
        return
    from jaxdl.console import number, show
    from jaxdl.tools.ensemble import evaluate_ensemble

    def open_member(folder: Path) -> Any:
        options.run = folder
        return _open_run(options, options.checkpoint)

    rows = evaluate_ensemble(options.run, open_member, options.split)
    cells = [(name, *map(number, values)) for name, values in rows.items()]
    show(("metric", "ensemble", "mean of members"), cells)


def _generate(options: argparse.Namespace) -> None:
    from jaxdl.text.generation import Options
    from jaxdl.tools.generate import generate

    names = ("length", "temperature", "top_k", "top_p", "seed")
    sampling = Options(**{name: getattr(options, name) for name in names})
    print(generate(_open_run(options, options.checkpoint), options.prompt, sampling))


def _predict(options: argparse.Namespace) -> None:
    gc.disable()  # imports make no garbage, and looking for it takes time
    try:
        from jaxdl.export.model import restored
        from jaxdl.tools.predict import predict

        model = restored(_open_run(options, options.checkpoint), options.calibrated)
    finally:
        gc.enable()
    say(f"checkpoint of step {model.step}")
    choices = {name: getattr(options, name) for name in ("top_k", "length", "output")}
    predict(model, options.files, **choices)


def _analyze(options: argparse.Namespace) -> None:
    from jaxdl.tools.analysis_subject import Options
    from jaxdl.tools.analyze import analyze

    run = _open_run(options, options.checkpoint)
    other = None
    if options.other is not None:
        from jaxdl.run import run_folder

        other = run_folder.open_run(options.other)
    names = ("examples", "layer", "unknown", "sanity_check")
    chosen = Options(other=other, **{name: getattr(options, name) for name in names})
    analyze(run, options.parts, chosen)


def _export(options: argparse.Namespace) -> None:
    from jaxdl.tools.export_parts import Options
    from jaxdl.tools.export_run import export

    formats = tuple(filter(None, options.format.split(",")))
    names = ("dtype", "quantize", "calibrated", "check", "split")
    chosen = Options(formats, **{name: getattr(options, name) for name in names})
    print("\n".join(export(_open_run(options, options.checkpoint), options.output, chosen)))


def _latency(options: argparse.Namespace) -> None:
    from jaxdl.tools.latency import Options, latency, parse_sizes, table

    sizes = parse_sizes(options.batch_sizes)
    rows = latency(options.folder, Options(sizes, options.turns, options.calls))
    print("\n".join(table(rows)))


def _replay(options: argparse.Namespace) -> None:
    from jaxdl.run import run_folder
    from jaxdl.tools.replay import replay

    _print(replay(_open_run(options, run_folder.NEWEST, kept=run_folder.NONFINITE)))


def _open_run(options: argparse.Namespace, checkpoint: str, **source: str) -> Any:
    from jaxdl import cli
    from jaxdl.run import run_folder

    _report_other_experiments()
    values = {name: getattr(options, name) for name in REPLACEMENTS}
    changes = {name: value for name, value in values.items() if value is not None}
    run = run_folder.open_run(options.run, checkpoint, **source, **changes)
    cli.set_up_jax(run.config.deterministic)
    cli.check_devices()
    return run


def _print(values: dict[str, Any]) -> None:
    for name, value in values.items():
        print(f"{name} = {value}")


def _verify(options: argparse.Namespace) -> None:
    from jaxdl.tools.verify import KINDS, verify

    counts = {kind: getattr(options, f"{kind}s") for kind in KINDS}
    folder = options.workdir or Path(tempfile.mkdtemp(prefix="jaxdl-verify-"))
    try:
        verify(options.experiment, options.flags, folder, counts, options.seed)
    except TrainingError:
        raise  # the runs differ: their folders are kept for inspection
    except BaseException:
        _delete_temporary(folder, options)
        raise
    _delete_temporary(folder, options)


def _delete_temporary(folder: Path, options: argparse.Namespace) -> None:
    if options.workdir is None:
        shutil.rmtree(folder)


def _parity(options: argparse.Namespace) -> None:
    from jaxdl.tools.parity import parity

    parity(_open_run(options, options.checkpoint), options.file, options.tolerance)


def _sweep(options: argparse.Namespace) -> None:
    from jaxdl.sweep import driver, ledger, search, table

    if os.getcwd() not in sys.path:  # as `python -m EXPERIMENT` does
        sys.path.insert(0, os.getcwd())
    given = search.Given(options.search, options.eta, options.min_steps, options.search_seed)
    searched = search.options(given, options.engine, options.random, options.jobs)
    sweep_options = driver.Options(
        options.engine,
        options.jobs,
        search.draws(searched, options.random),
        options.retries,
        options.cpus,
        options.gpus,
        options.workdir,
        options.map,
        searched,
    )
    flags = options.experiment, options.lists, options.flags
    folder = driver.sweep_folder(*flags, sweep_options)
    if options.dry_run:
        print("\n".join(driver.commands(*flags, sweep_options)))
        return
    try:
        driver.sweep(*flags, sweep_options)
    except TrainingError:
        table.report(folder, folder / ledger.PICTURE)
        raise
    table.report(folder, folder / ledger.PICTURE)


def _compare(options: argparse.Namespace) -> None:
    from jaxdl.tools.compare import Options, compare

    compare(options.groups, Options(options.metric, options.margin, options.output))


def _diff(options: argparse.Namespace) -> None:
    from jaxdl.tools.diff import diff
    from jaxdl.tools.diff_process import Place

    if options.dtype:
        from jaxdl.tools.diff_precision import print_losses

        if options.other or options.tree or options.python:
            raise UserError("--dtype compares one run with itself: leave the second side out")
        print_losses(Place(options.run, data_dir=options.data_dir), options.step)
        return
    if options.step:
        raise UserError("--step is for --dtype=float64: the step of two runs is found by itself")
    if options.other is None and not (options.tree or options.python):
        raise UserError(
            "name a second run, or give --tree or --python to repeat the first one elsewhere, or "
            "--dtype=float64"
        )
    other = Place(options.other or options.run, options.tree, options.python, options.data_dir)
    if diff(Place(options.run, data_dir=options.data_dir), other):
        sys.exit(1)


def _reproduce(options: argparse.Namespace) -> None:
    from jaxdl.tools.reproduce import Options, reproduce

    _report_other_experiments()
    chosen = Options(**{name: getattr(options, name) for name in Options._fields})
    reproduce(options.record, options.flags, chosen)


def _report(options: argparse.Namespace) -> None:
    if options.page is not None:
        from jaxdl.page import html

        if options.output is not None:
            raise UserError("--page and --output are two forms of the report: give one of them")
        html.write(options.runs, options.page)
        return
    from jaxdl.run.finished import check_output
    from jaxdl.sweep import ledger, table
    from jaxdl.tools import report

    picture = options.output or Path("report.png")
    sweeps = [folder for folder in options.runs if (folder / ledger.NAME).exists()]
    if sweeps and len(options.runs) > 1:
        raise UserError(f"{sweeps[0]} holds a sweep: report it alone, or name runs in its trials/")
    if sweeps:
        check_output(picture, "output", ".png")
        table.report(sweeps[0], picture)
    else:
        report.report(options.runs, picture)


def _watch(options: argparse.Namespace) -> None:
    from jaxdl.page.serve import watch

    watch(options.runs, options.port)


HANDLERS = {
    "list": _list,
    "prepare": _prepare,
    "evaluate": _evaluate,
    "generate": _generate,
    "predict": _predict,
    "analyze": _analyze,
    "export": _export,
    "latency": _latency,
    "replay": _replay,
    "verify": _verify,
    "parity": _parity,
    "sweep": _sweep,
    "compare": _compare,
    "diff": _diff,
    "reproduce": _reproduce,
    "report": _report,
    "watch": _watch,
}

if __name__ == "__main__":
    main()
