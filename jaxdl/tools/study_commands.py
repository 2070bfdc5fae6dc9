"""Commands of `jaxdl` that prepare data, start runs or compare them: their texts and options."""

import math
from argparse import ArgumentParser
from pathlib import Path

from jaxdl.tools.command import Command, count, folder

PREPARED = "mnist, fashion_mnist, cifar10, cifar100, imdb_reviews, tiny_shakespeare or multi30k"
METRIC = (
    "metric of the test split, or entry of summary.json such as best/test/loss (default: the "
    "metric that selected the best state, on the test split)"
)


def _prepare(command: ArgumentParser) -> None:
    command.add_argument("name", help=f"data set: {PREPARED}")
    command.add_argument("--data_dir", default="", help="TFDS folder (default: TFDS's own)")


def _verify(command: ArgumentParser) -> None:
    command.add_argument("experiment", help="module, such as experiments.cifar_vgg")
    command.add_argument("--kills", type=count, default=10, help="interruptions by kill -9 (10)")
    command.add_argument("--terms", type=count, default=0, help="interruptions by SIGTERM (0)")
    command.add_argument(
        "--faults", type=count, default=0, help="kills with a checkpoint damaged after each (0)"
    )
    command.add_argument("--seed", type=int, default=0, help="seed of the interruptions (0)")
    command.add_argument(
        "--workdir", type=Path, help="folder to keep both runs in (default: a temporary one)"
    )


def _sweep(command: ArgumentParser) -> None:
    command.add_argument("experiment", help="module, such as experiments.mnist_lenet")
    command.add_argument(
        "--jobs",
        type=count,
        default=0,
        help="trials at a time (default: one per GPU; of a population: up to 64)",
    )
    command.add_argument(
        "--random", type=count, default=0, help="combinations to draw, per seed; 0: all (0)"
    )
    command.add_argument(
        "--search",
        default="",
        choices=["halving", "hyperband", "pbt", "optuna"],
        help="search that stops trials early, has them copy better ones, or suggests their flags "
        "(default: none)",
    )
    command.add_argument(
        "--eta", type=count, help="halving, hyperband: a rung keeps one of ETA trials (3)"
    )
    command.add_argument(
        "--min_steps",
        type=count,
        help="steps of the first rung of a search; of pbt: steps between two copies",
    )
    command.add_argument(
        "--search_seed", type=count, help="seed of the choices of pbt and optuna (default: 0)"
    )
    command.add_argument(
        "--engine",
        default="local",
        choices=["local", "population", "slurm", "ray"],
        help="engine that runs the trials",
    )
    command.add_argument(
        "--map",
        default="auto",
        choices=["auto", "vmap", "sequential", "devices"],
        help="how the members of a population take their steps",
    )
    command.add_argument(
        "--retries", type=count, default=2, help="restarts of a trial that was killed (2)"
    )
    command.add_argument("--cpus", type=count, default=0, help="CPUs per trial: Slurm, Ray (1)")
    command.add_argument("--gpus", type=count, default=0, help="GPUs per trial: Slurm, Ray (0)")
    command.add_argument(
        "--workdir", default="", help="folder of the sweep (default: named after its flags)"
    )
    command.add_argument("--dry_run", action="store_true", help="print the commands, run nothing")


def _compare(command: ArgumentParser) -> None:
    command.add_argument(
        "groups",
        nargs="+",
        metavar="RUNS",
        help="run folder, folder of runs or of a sweep, quoted pattern of folders, or published "
        "row: EXPERIMENT or EXPERIMENT:FLAGS",
    )
    command.add_argument(
        "--metric",
        default="",
        help=METRIC,
    )
    command.add_argument(
        "--margin",
        type=float,
        default=0.0,
        help="largest difference that does not matter, in units of the metric, to test "
        "equivalence (default: no test)",
    )
    command.add_argument("--output", type=Path, help="PNG of performance profiles to write")


def _diff(command: ArgumentParser) -> None:
    command.add_argument("run", type=Path, help="run folder")
    command.add_argument(
        "other", type=Path, nargs="?", help="second run folder (default: the first)"
    )
    command.add_argument(
        "--tree",
        default="",
        help="checkout of the project that repeats the second run (default: this one)",
    )
    command.add_argument(
        "--python",
        default="",
        help="interpreter of the environment that repeats the second run (default: this one)",
    )
    command.add_argument(
        "--dtype",
        default="",
        choices=("float64",),
        help="compute one step of the run in float64 beside float32, and list the operations that "
        "lose precision",
    )
    command.add_argument(
        "--step", type=int, default=0, help="the step for --dtype (default: the first, 0)"
    )
    command.add_argument(
        "--data_dir", default="", help="TFDS folder to read instead of the runs' own"
    )


def _reproduce(command: ArgumentParser) -> None:
    command.add_argument(
        "record",
        metavar="RECORD",
        help="experiment with published rows, JSON file of such rows, run folder, or folder of "
        "runs that differ only in the seed",
    )
    command.add_argument(
        "--seeds", default="", help="seeds to train, such as 0..2 or 0,3 (default: all)"
    )
    command.add_argument(
        "--row", type=count, default=0, help="number of the row, if several have these flags"
    )
    command.add_argument("--metric", default="", help=METRIC)
    command.add_argument(
        "--margin",
        type=float,
        default=math.nan,
        help="largest difference that does not matter, in units of the metric (default: two "
        "standard deviations of the record's runs)",
    )
    command.add_argument(
        "--jobs", type=count, default=0, help="runs at a time (default: one per GPU)"
    )
    command.add_argument(
        "--workdir", default="", help="folder of the runs (default: named after the flags)"
    )


def _report(command: ArgumentParser) -> None:
    command.add_argument(
        "runs",
        type=folder,
        nargs="+",
        metavar="RUN",
        help="run folders, or the folder of one sweep; with --page also folders that hold such",
    )
    command.add_argument("--output", type=Path, help="PNG to write (default: report.png)")
    command.add_argument(
        "--page", type=Path, help="HTML page to write instead of the table and the PNG"
    )


def _watch(command: ArgumentParser) -> None:
    command.add_argument(
        "runs",
        type=folder,
        nargs="+",
        metavar="RUNS",
        help="run folders, folders of sweeps, or folders that hold such; runs may begin and end",
    )
    command.add_argument(
        "--port", type=count, default=0, help="port to listen on; 0: a free one (0)"
    )


BEFORE = {  # before there is a run
    "list": Command(
        "list experiments, models, data sets, losses, optimizers and schedules",
        "Prints the names that experiments and their flags accept, each with a line about it.",
        "jaxdl list",
    ),
    "prepare": Command(
        "download a data set into a TFDS folder",
        "Downloads a data set, verifies it, and writes it into a TFDS folder for runs to read.",
        "jaxdl prepare cifar10 --data_dir=data",
        add=_prepare,
    ),
}
RUNS = {  # of several runs
    "verify": Command(
        "check that a run survives interruptions without a changed bit",
        "Runs an experiment twice, once interrupted at random moments, and compares the results.",
        "jaxdl verify experiments.iris_mlp --kills=5 -- --num_epochs=50",
        add=_verify,
        usage="jaxdl verify EXPERIMENT [options] -- FLAGS OF THE EXPERIMENT",
    ),
    "sweep": Command(
        "run an experiment once for each combination of flag values",
        "Runs an experiment once for each combination of flag values, several at a time.\n"
        "A flag may be a list (--depth=11,16), a range of integers (--seed=0..4) or, with\n"
        "--random=N, a range to draw from (--learning_rate=1e-4..1e-1:log). The same command\n"
        "continues an interrupted sweep.",
        "jaxdl sweep experiments.mnist_lenet --learning_rate=1e-3,1e-2 --seed=0..2",
        add=_sweep,
        usage="jaxdl sweep EXPERIMENT [options] --FLAG=A,B ... [-- FLAGS WITHOUT LISTS]",
        allow_abbrev=False,
    ),
    "compare": Command(
        "tell whether groups of runs differ: intervals, tests and numbers of seeds",
        "Prints the means of groups of runs, and each difference with a 95 % interval, an effect\n"
        "size, a p-value and the number of seeds that it needs. Runs with the same flags but the\n"
        "seed are a group. Groups with the same seeds are compared in pairs.",
        "jaxdl compare runs/relu runs/tanh --metric=accuracy --margin=0.002",
        add=_compare,
    ),
    "diff": Command(
        "find the step and the operation at which two runs part",
        "Opens two runs, repeats their steps from their checkpoints, and finds by bisection the\n"
        "first step after which their states differ. Of this step it compares all operations.\n"
        "The second run may have another checkout of the project and another environment; without\n"
        "a second run the first one is repeated there. The exit status is 1 if the states differ.\n"
        "With --dtype=float64 the operations of one step that lose precision are listed instead.",
        "jaxdl diff runs/before runs/after --tree=../after --python=../after/env/bin/python",
        add=_diff,
    ),
    "reproduce": Command(
        "train a published figure again from its record, and tell whether it is the same",
        "Trains the runs of a record again, with its flags and seeds, and compares the results:\n"
        "the same bits, equal within a margin, or different, and in what. The same command goes\n"
        "on after an interruption. The exit status is 1 if the results are not the same or equal.",
        "jaxdl reproduce experiments.iris_mlp -- --task=species",
        add=_reproduce,
        usage="jaxdl reproduce RECORD [options] -- FLAGS OF THE ROW, PLACE OF THE DATA",
    ),
    "report": Command(
        "show runs or a sweep: a table and a picture",
        "Prints a table of runs and draws their curves; of a sweep, one row per combination.\n"
        "With --page it writes one HTML file instead, which opens without a network: tables,\n"
        "curves, flags, lineage, pictures, differences, and the commands that make runs again.",
        "jaxdl report runs/cifar_vgg/* --page=report.html",
        add=_report,
    ),
    "watch": Command(
        "show runs in a browser while they train",
        "Serves the page of `jaxdl report --page` on this machine, and reads the folders again\n"
        "every two seconds. The address has a secret token. Nothing is written. Ctrl-C ends it.",
        "jaxdl watch runs/cifar_vgg",
        add=_watch,
    ),
}
