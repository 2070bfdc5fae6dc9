"""The `jaxdl` command: what stands around a run, from its data to its published figures."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from jaxdl.cli import Parser, guard
from jaxdl.errors import TrainingError, UserError

# Where the data of a run are now.
WHERE = {
    "data_dir": "TFDS folder; default: the run's",
    "dataset": "folder of images; default: the run's",
    "source_file": "with --dataset=files; default: the run's",
    "target_file": "with --dataset=files; default: the run's",
    "classifier": "run that judges mnist_gan; default: the run's",
}
PREPARED = "mnist, fashion_mnist, cifar10, cifar100, imdb_reviews, tiny_shakespeare or multi30k"


def main() -> None:
    """Entry point of the console script."""
    sys.exit(guard(lambda: run(sys.argv[1:])))


def run(arguments: list[str]) -> None:
    """Runs one subcommand; what stands after `--` is for the experiment that it runs."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    chosen, others = parser().parse_known_args(arguments[:end])
    chosen.lists = others
    if chosen.lists and chosen.handler is not _sweep:
        raise UserError(f"unrecognized arguments: {' '.join(chosen.lists)} (jaxdl --help)")
    _check_encodings(chosen)
    chosen.flags = arguments[end + 1 :]
    chosen.handler(chosen)


def _check_encodings(chosen: argparse.Namespace) -> None:
    """Holds every path among the arguments against `files.check_encoding`."""
    from jaxdl import files

    for name, value in vars(chosen).items():
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, Path) or name in (*WHERE, "workdir"):
                files.check_encoding(path or "", "" if name in ("run", "runs") else name)


# Long: a list of options.
def parser() -> Parser:
    """The command line: every verb and its options."""
    parser = Parser("jaxdl", description="Companion of `python -m experiments.NAME`.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    command = commands.add_parser("list", help="what there is: experiments, models, losses, ...")
    command.set_defaults(handler=_list)

    command = commands.add_parser("prepare", help="download a data set into a TFDS folder")
    command.add_argument("name", help=PREPARED)
    command.add_argument("--data_dir", default="", help="TFDS folder; default: TFDS's own")
    command.set_defaults(handler=_prepare)

    command = commands.add_parser("evaluate", help="evaluate a checkpoint of a run")
    command.add_argument("run", type=Path, help="run folder")
    command.add_argument("--checkpoint", default="best", help="best, newest or a step (best)")
    command.add_argument("--split", default="test", choices=["train", "validation", "test"])
    _add_where(command)
    command.set_defaults(handler=_evaluate)

    command = commands.add_parser("generate", help="text from a run of a language model")
    command.add_argument("run", type=Path, help="run folder")
    command.add_argument("--prompt", default="\n", help="what it goes on from (a new line)")
    command.add_argument("--length", type=int, default=500, help="characters to write (500)")
    command.add_argument("--temperature", type=float, default=0.8, help="0.8; lower: surer")
    command.add_argument("--top_k", type=int, default=0, help="likeliest to draw from; 0: all")
    command.add_argument("--top_p", type=float, default=1.0, help="their probability together (1)")
    command.add_argument("--seed", type=int, default=0, help="of the draws (0)")
    command.add_argument("--checkpoint", default="best", help="best, newest or a step (best)")
    _add_where(command)
    command.set_defaults(handler=_generate)

    command = commands.add_parser("replay", help="make the step again that was not finite")
    command.add_argument("run", type=Path, help="run folder")
    _add_where(command)
    command.set_defaults(handler=_replay)

    command = commands.add_parser(
        "verify",
        help="interrupt a run at random moments, and compare it with one left alone",
        usage="jaxdl verify EXPERIMENT [options] -- FLAGS OF THE EXPERIMENT",
    )
    command.add_argument("experiment", help="module, such as experiments.cifar_vgg")
    command.add_argument("--kills", type=_count, default=10, help="times kill -9 (10)")
    command.add_argument("--terms", type=_count, default=0, help="times SIGTERM (0)")
    command.add_argument(
        "--faults", type=_count, default=0, help="times kill -9 and a damaged checkpoint (0)"
    )
    command.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    command.add_argument("--workdir", type=Path, help="keeps both runs; default: a temporary one")
    command.set_defaults(handler=_verify)

    _add_sweep(commands)

    command = commands.add_parser("report", help="compare runs, or show a sweep: table, picture")
    command.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="folders of runs, or of one sweep"
    )
    command.add_argument("--output", type=Path, default=Path("report.png"), help="PNG to write")
    command.set_defaults(handler=_report)

    return parser


def _add_where(command: argparse.ArgumentParser) -> None:
    for name, text in WHERE.items():
        command.add_argument(f"--{name}", default=None, help=text)


def _add_sweep(commands: Any) -> None:
    command = commands.add_parser(
        "sweep",
        help="many runs: flags with lists (A,B), ranges (0..4) and --random=N of LOW..HIGH:log",
        usage="jaxdl sweep EXPERIMENT [options] --FLAG=A,B ... [-- FLAGS THAT ARE NO LISTS]",
        allow_abbrev=False,
    )
    command.add_argument("experiment", help="module, such as experiments.mnist_lenet")
    command.add_argument(
        "--jobs", type=_count, default=0, help="trials at a time; default: a GPU each"
    )
    command.add_argument(
        "--random", type=_count, default=0, help="combinations to draw; 0: all; seeds are not drawn"
    )
    command.add_argument("--engine", default="local", choices=["local", "slurm", "ray"])
    command.add_argument("--retries", type=_count, default=2, help="of a trial that was killed (2)")
    command.add_argument("--cpus", type=_count, default=0, help="of a trial: Slurm, Ray (1)")
    command.add_argument("--gpus", type=_count, default=0, help="of a trial: Slurm, Ray (0)")
    command.add_argument("--workdir", default="", help="of the sweep; default: by what it tries")
    command.add_argument("--dry_run", action="store_true", help="print the commands, run nothing")
    command.set_defaults(handler=_sweep)


def _list(chosen: argparse.Namespace) -> None:
    import experiments
    from jaxdl.tools.list import contents

    del chosen
    for section, lines in contents(Path(experiments.__path__[0])).items():
        print(f"{section}:")
        for name, line in lines.items():
            print(f"  {name:<24} {line}")


def _prepare(chosen: argparse.Namespace) -> None:
    from jaxdl.data.prepare import prepare

    print(prepare(chosen.name, chosen.data_dir))


def _evaluate(chosen: argparse.Namespace) -> None:
    from jaxdl.tools.evaluate import evaluate

    _print(evaluate(_reopened(chosen, chosen.checkpoint), chosen.split))


def _generate(chosen: argparse.Namespace) -> None:
    from jaxdl.text.generation import Options
    from jaxdl.tools.generate import generate

    names = ("length", "temperature", "top_k", "top_p", "seed")
    options = Options(**{name: getattr(chosen, name) for name in names})
    print(generate(_reopened(chosen, chosen.checkpoint), chosen.prompt, options))


def _replay(chosen: argparse.Namespace) -> None:
    from jaxdl.run import restore
    from jaxdl.tools.replay import replay

    _print(replay(_reopened(chosen, restore.NEWEST, kept=restore.NONFINITE)))


def _verify(chosen: argparse.Namespace) -> None:
    from jaxdl.tools.verify import KINDS, verify

    counts = {kind: getattr(chosen, f"{kind}s") for kind in KINDS}
    folder = chosen.workdir or Path(tempfile.mkdtemp(prefix="jaxdl-verify-"))
    try:
        verify(chosen.experiment, chosen.flags, folder, counts, chosen.seed)
    except TrainingError:
        raise  # the runs differ, and can be looked at
    except BaseException:
        _delete(folder, chosen.workdir)
        raise
    _delete(folder, chosen.workdir)


def _delete(folder: Path, wanted: Path | None) -> None:
    if wanted is None:
        shutil.rmtree(folder)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 0 on")
    return int(text)


def _reopened(chosen: argparse.Namespace, checkpoint: str, **where: str) -> Any:
    from jaxdl import cli
    from jaxdl.run import restore

    changes = {name: getattr(chosen, name) for name in WHERE}
    changes = {name: place for name, place in changes.items() if place is not None}
    run = restore.open_run(chosen.run, checkpoint, **where, **changes)
    cli.set_up_jax(run.config.deterministic)
    cli.check_devices()
    return run


def _print(values: dict[str, Any]) -> None:
    for name, value in values.items():
        print(f"{name} = {value}")


def _sweep(chosen: argparse.Namespace) -> None:
    from jaxdl.sweep import driver, ledger, table

    options = driver.Options(
        chosen.engine,
        chosen.jobs,
        chosen.random,
        chosen.retries,
        chosen.cpus,
        chosen.gpus,
        chosen.workdir,
    )
    given = chosen.experiment, chosen.lists, chosen.flags
    folder = driver.place(*given, options)
    if chosen.dry_run:
        trials = driver.planned(*given, chosen.random)
        print("\n".join(driver.commands(chosen.experiment, trials, folder)))
        return
    try:
        driver.sweep(*given, options)
    except TrainingError:
        table.report(folder, folder / ledger.PICTURE)
        raise
    table.report(folder, folder / ledger.PICTURE)


def _report(chosen: argparse.Namespace) -> None:
    from jaxdl.sweep import ledger, table
    from jaxdl.tools import report

    sweeps = [folder for folder in chosen.runs if (folder / ledger.NAME).exists()]
    if sweeps and len(chosen.runs) > 1:
        raise UserError(f"{sweeps[0]} holds a sweep: report it alone, or name runs in its trials/")
    if sweeps:
        report.check_picture(chosen.output)
        table.report(sweeps[0], chosen.output)
    else:
        report.report(chosen.runs, chosen.output)


if __name__ == "__main__":
    main()
