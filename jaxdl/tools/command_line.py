"""Command line of `jaxdl`: the parser of its commands, their options and help texts."""

import argparse
import math
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from jaxdl.errors import UserError

# Options that replace a run's own data or classifier.
REPLACEMENTS = {
    "data_dir": "TFDS folder to read instead of the run's own",
    "dataset": "folder of images to read instead of the run's own data set",
    "source_file": "source text to read instead of the run's own; with --dataset=files",
    "target_file": "target text to read instead of the run's own; with --dataset=files",
    "classifier": "run folder of the classifier that scores mnist_gan, instead of the run's own",
}
PREPARED = "mnist, fashion_mnist, cifar10, cifar100, imdb_reviews, tiny_shakespeare or multi30k"
CHECKPOINT = "checkpoint to load: best, newest or a step (default: best)"
METRIC = (
    "metric of the test split, or entry of summary.json such as best/test/loss (default: the "
    "metric that selected the best state, on the test split)"
)
# Of each command: a line for the list of commands, a sentence on what it does, an example.
COMMANDS = {
    "list": (
        "list experiments, models, data sets, losses, optimizers and schedules",
        "Prints the names that experiments and their flags accept, each with a line about it.",
        "jaxdl list",
    ),
    "prepare": (
        "download a data set into a TFDS folder",
        "Downloads a data set, verifies it, and writes it into a TFDS folder for runs to read.",
        "jaxdl prepare cifar10 --data_dir=data",
    ),
    "evaluate": (
        "evaluate a checkpoint of a run",
        "Prints the metrics of a checkpoint on one split, and keeps them in the run folder.",
        "jaxdl evaluate runs/cifar_vgg/RUN --checkpoint=newest --split=validation",
    ),
    "generate": (
        "generate text with the language model of a run",
        "Prints a prompt, continued by the language model of a run.",
        "jaxdl generate runs/shakespeare_lm/RUN --prompt=ROMEO: --length=200",
    ),
    "predict": (
        "answer new inputs with the trained model of a run",
        "Classifies images, texts or rows of a table, continues or translates lines of text.\n"
        "An input that cannot be read is named, and the others are answered.",
        "jaxdl predict runs/cifar_vgg/RUN photos/*.jpg --top_k=3",
    ),
    "export": (
        "write the model of a run into a folder that needs no jaxdl",
        "Writes a new folder with the model of a checkpoint: its programs for any batch size, its\n"
        "weights, a card.json and a predict.py that needs JAX alone.",
        "jaxdl export runs/mnist_cnn/RUN --output=exported --check",
    ),
    "latency": (
        "measure the latency of a run's model or of an export",
        "Prints percentiles of the time of a prediction, its throughput and its peak memory, of a\n"
        "run or of each form of an export. Each form is a process; they take turns.",
        "jaxdl latency exported --batch_sizes=1,8,64",
    ),
    "replay": (
        "repeat the training step whose metrics were not finite",
        "Repeats the step that ended a run, and names the first operation that was not finite.",
        "jaxdl replay runs/cifar_vgg/RUN",
    ),
    "verify": (
        "check that a run survives interruptions without a changed bit",
        "Runs an experiment twice, once interrupted at random moments, and compares the results.",
        "jaxdl verify experiments.iris_mlp --kills=5 -- --num_epochs=50",
    ),
    "parity": (
        "compare the layers of a PyTorch model with those of a run's model",
        "Loads a PyTorch model's weights into the model of a run, computes the same batch, and\n"
        "prints the relative error of each layer. docs/pytorch.md has the function that writes\n"
        "FILE. The exit status is 1 if a layer differs by more than the tolerance.",
        "jaxdl parity runs/imagenet_vgg/RUN vgg16.safetensors --tolerance=1e-3",
    ),
    "sweep": (
        "run an experiment once for each combination of flag values",
        "Runs an experiment once for each combination of flag values, several at a time.\n"
        "A flag may be a list (--depth=11,16), a range of integers (--seed=0..4) or, with\n"
        "--random=N, a range to draw from (--learning_rate=1e-4..1e-1:log). The same command\n"
        "continues an interrupted sweep.",
        "jaxdl sweep experiments.mnist_lenet --learning_rate=1e-3,1e-2 --seed=0..2",
    ),
    "compare": (
        "tell whether groups of runs differ: intervals, tests and numbers of seeds",
        "Prints the means of groups of runs, and each difference with a 95 % interval, an effect\n"
        "size, a p-value and the number of seeds that it needs. Runs with the same flags but the\n"
        "seed are a group. Groups with the same seeds are compared in pairs.",
        "jaxdl compare runs/relu runs/tanh --metric=accuracy --margin=0.002",
    ),
    "diff": (
        "find the step and the operation at which two runs part",
        "Opens two runs, repeats their steps from their checkpoints, and finds by bisection the\n"
        "first step after which their states differ. Of this step it compares all operations.\n"
        "The second run may have another checkout of the project and another environment; without\n"
        "a second run the first one is repeated there. The exit status is 1 if the states differ.",
        "jaxdl diff runs/before runs/after --tree=../after --python=../after/env/bin/python",
    ),
    "reproduce": (
        "train a published figure again from its record, and tell whether it is the same",
        "Trains the runs of a record again, with its flags and seeds, and compares the results:\n"
        "the same bits, equal within a margin, or different, and in what. The same command goes\n"
        "on after an interruption. The exit status is 1 if the results are not the same or equal.",
        "jaxdl reproduce experiments.iris_mlp -- --task=species",
    ),
    "report": (
        "show runs or a sweep: a table and a picture",
        "Prints a table of runs and draws their curves; of a sweep, one row per combination.",
        "jaxdl report runs/cifar_vgg/* --output=curves.png",
    ),
}
START = """\
Experiments are modules: `python -m experiments.NAME` starts one, `jaxdl list` names them all.
`jaxdl COMMAND --help` describes a command, its options and an example."""


class Parser(argparse.ArgumentParser):
    """Argument parser that reports an error as one line, without its usage."""

    def error(self, message: str) -> NoReturn:
        """Raises a UserError, which `guard` turns into exit status 2."""
        raise UserError(f"{message} ({self.prog} --help)")


class _Version(argparse.Action):
    """Prints the version of the installed package and exits."""

    def __call__(self, parser: argparse.ArgumentParser, *unused: Any) -> None:
        try:
            version = metadata.version("jaxdl")
        except metadata.PackageNotFoundError as error:
            raise UserError(
                "jaxdl has no version, as it is not installed: pip install ."
            ) from error
        print(f"jaxdl {version}")
        parser.exit()


# Long: a list of commands and their options.
def parser() -> Parser:
    """Parser of the command line: all commands and their options."""
    parser = Parser(
        "jaxdl",
        description="Prepares data, and evaluates, verifies, sweeps and compares runs.",
        epilog=START,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = "print the version of jaxdl and exit"
    parser.add_argument("--version", action=_Version, nargs=0, help=version)
    commands = parser.add_subparsers(
        title="commands", required=True, dest="command", metavar="COMMAND", parser_class=Parser
    )

    _add_command(commands, "list")

    command = _add_command(commands, "prepare")
    command.add_argument("name", help=f"data set: {PREPARED}")
    command.add_argument("--data_dir", default="", help="TFDS folder (default: TFDS's own)")

    command = _add_command(commands, "evaluate")
    command.add_argument("run", type=Path, help="run folder; with --ensemble a folder of runs")
    command.add_argument(
        "--ensemble",
        action="store_true",
        help="evaluate the mean prediction of all finished runs in the folder",
    )
    command.add_argument("--checkpoint", default="best", help=CHECKPOINT)
    splits = ["train", "validation", "test"]
    command.add_argument(
        "--split", default="test", choices=splits, help="split to evaluate (default: test)"
    )
    _add_replacements(command)

    command = _add_command(commands, "generate")
    command.add_argument("run", type=Path, help="run folder")
    command.add_argument("--prompt", default="\n", help="text to continue (default: a new line)")
    command.add_argument("--length", type=int, default=500, help="characters to write (500)")
    command.add_argument(
        "--temperature", type=float, default=0.8, help="sampling temperature; 1: unchanged (0.8)"
    )
    command.add_argument(
        "--top_k", type=int, default=0, help="sample from the K likeliest characters; 0: all (0)"
    )
    command.add_argument(
        "--top_p", type=float, default=1.0, help="sample from the likeliest that sum to this (1)"
    )
    command.add_argument("--seed", type=int, default=0, help="seed of the sampling (0)")
    command.add_argument("--checkpoint", default="best", help=CHECKPOINT)
    _add_replacements(command)

    command = _add_command(commands, "predict")
    command.add_argument("run", type=Path, help="run folder")
    command.add_argument(
        "files",
        nargs="*",
        help="images or folders of them, text files, tables in CSV, or arrays in .npy or .npz; "
        "default or -: standard input",
    )
    command.add_argument("--top_k", type=int, default=5, help="likeliest classes to show (5)")
    command.add_argument(
        "--length", type=int, default=100, help="characters that a language model writes (100)"
    )
    command.add_argument(
        "--output", type=Path, help="file to write instead: .csv, .json, or .npz for arrays"
    )
    command.add_argument("--checkpoint", default="best", help=CHECKPOINT)
    _add_replacements(command)

    command = _add_command(commands, "export")
    command.add_argument("run", type=Path, help="run folder")
    command.add_argument("--output", type=Path, required=True, help="new folder to write")
    command.add_argument("--checkpoint", default="best", help=CHECKPOINT)
    command.add_argument(
        "--format",
        default="stablehlo,safetensors",
        help="comma-separated list of stablehlo, safetensors, onnx, torch "
        "(default: stablehlo,safetensors)",
    )
    command.add_argument(
        "--dtype", default="", help="compute dtype: float32 or bfloat16 (default: the run's)"
    )
    command.add_argument(
        "--quantize", default="", help="stored type of the kernels: int8 (default: not quantized)"
    )
    command.add_argument(
        "--check", action="store_true", help="compare all outputs in a process without jaxdl"
    )
    command.add_argument(
        "--split", default="test", choices=splits, help="split of --check (default: test)"
    )
    _add_replacements(command)

    command = _add_command(commands, "latency")
    command.add_argument("folder", type=Path, help="run folder, or a folder that export wrote")
    command.add_argument(
        "--batch_sizes", default="1,8,64", help="comma-separated batch sizes (default: 1,8,64)"
    )
    command.add_argument("--turns", type=_count, default=5, help="turns of each process (5)")
    command.add_argument("--calls", type=_count, default=50, help="calls of a turn (50)")

    command = _add_command(commands, "replay")
    command.add_argument("run", type=Path, help="run folder")
    _add_replacements(command)

    command = _add_command(
        commands,
        "verify",
        usage="jaxdl verify EXPERIMENT [options] -- FLAGS OF THE EXPERIMENT",
    )
    command.add_argument("experiment", help="module, such as experiments.cifar_vgg")
    command.add_argument("--kills", type=_count, default=10, help="interruptions by kill -9 (10)")
    command.add_argument("--terms", type=_count, default=0, help="interruptions by SIGTERM (0)")
    command.add_argument(
        "--faults", type=_count, default=0, help="kills with a checkpoint damaged after each (0)"
    )
    command.add_argument("--seed", type=int, default=0, help="seed of the interruptions (0)")
    command.add_argument(
        "--workdir", type=Path, help="folder to keep both runs in (default: a temporary one)"
    )

    command = _add_command(commands, "parity")
    command.add_argument("run", type=Path, help="run folder")
    command.add_argument(
        "file", type=Path, metavar="FILE", help="safetensors file of weights, layers and a batch"
    )
    command.add_argument(
        "--tolerance", type=float, default=1e-4, help="greatest relative error of a layer (1e-4)"
    )
    command.add_argument("--checkpoint", default="best", help=CHECKPOINT)
    _add_replacements(command)

    command = _add_command(
        commands,
        "sweep",
        usage="jaxdl sweep EXPERIMENT [options] --FLAG=A,B ... [-- FLAGS WITHOUT LISTS]",
        allow_abbrev=False,
    )
    command.add_argument("experiment", help="module, such as experiments.mnist_lenet")
    command.add_argument(
        "--jobs",
        type=_count,
        default=0,
        help="trials at a time (default: one per GPU; of a population: up to 64)",
    )
    command.add_argument(
        "--random", type=_count, default=0, help="combinations to draw, per seed; 0: all (0)"
    )
    command.add_argument(
        "--search",
        default="",
        choices=["halving", "hyperband", "pbt"],
        help="search that stops trials early, or has them copy better ones (default: none)",
    )
    command.add_argument(
        "--eta", type=_count, help="halving, hyperband: a rung keeps one of ETA trials (3)"
    )
    command.add_argument(
        "--min_steps",
        type=_count,
        help="steps of the first rung of a search; of pbt: steps between two copies",
    )
    command.add_argument(
        "--search_seed", type=_count, help="seed of the choices of pbt (default: 0)"
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
        "--retries", type=_count, default=2, help="restarts of a trial that was killed (2)"
    )
    command.add_argument("--cpus", type=_count, default=0, help="CPUs per trial: Slurm, Ray (1)")
    command.add_argument("--gpus", type=_count, default=0, help="GPUs per trial: Slurm, Ray (0)")
    command.add_argument(
        "--workdir", default="", help="folder of the sweep (default: named after its flags)"
    )
    command.add_argument("--dry_run", action="store_true", help="print the commands, run nothing")

    command = _add_command(commands, "compare")
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

    command = _add_command(commands, "diff")
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
        "--data_dir", default="", help="TFDS folder to read instead of the runs' own"
    )

    command = _add_command(
        commands,
        "reproduce",
        usage="jaxdl reproduce RECORD [options] -- FLAGS OF THE ROW, PLACE OF THE DATA",
    )
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
        "--row", type=_count, default=0, help="number of the row, if several have these flags"
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
        "--jobs", type=_count, default=0, help="runs at a time (default: one per GPU)"
    )
    command.add_argument(
        "--workdir", default="", help="folder of the runs (default: named after the flags)"
    )

    command = _add_command(commands, "report")
    command.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="run folders, or the folder of one sweep"
    )
    command.add_argument("--output", type=Path, default=Path("report.png"), help="PNG to write")
    return parser


def _add_command(commands: Any, name: str, **options: Any) -> argparse.ArgumentParser:
    """Adds a command with its texts from `COMMANDS`."""
    help, description, example = COMMANDS[name]
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **options,
    )
    return command


def _add_replacements(command: argparse.ArgumentParser) -> None:
    for name, text in REPLACEMENTS.items():
        command.add_argument(f"--{name}", default=None, help=text)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 on")
    return int(text)
