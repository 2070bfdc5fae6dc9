"""Commands of `jaxdl` that open one run: their texts and options."""

from argparse import ArgumentParser
from pathlib import Path

from jaxdl.tools.command import CHECKPOINT, Command, add_replacements, count, positive

CALIBRATED = "divide the logits by the temperature that `jaxdl analyze` has fitted"
SPLITS = ("train", "validation", "test")


def _evaluate(command: ArgumentParser) -> None:
    command.add_argument("run", type=Path, help="run folder; with --ensemble a folder of runs")
    command.add_argument(
        "--ensemble",
        action="store_true",
        help="evaluate the mean prediction of all finished runs in the folder",
    )
    command.add_argument("--checkpoint", default="best", help=CHECKPOINT)
    command.add_argument(
        "--split", default="test", choices=SPLITS, help="split to evaluate (default: test)"
    )
    add_replacements(command)


def _generate(command: ArgumentParser) -> None:
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
    add_replacements(command)


def _predict(command: ArgumentParser) -> None:
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
    command.add_argument("--calibrated", action="store_true", help=CALIBRATED)
    command.add_argument("--checkpoint", default="best", help=CHECKPOINT)
    add_replacements(command)


def _analyze(command: ArgumentParser) -> None:
    command.add_argument("run", type=Path, help="run folder")
    command.add_argument(
        "parts", nargs="*", metavar="PART", help="parts to do, see docs/analysis.md (default: all)"
    )
    command.add_argument(
        "--examples", type=positive, default=256, help="examples that expensive parts use (256)"
    )
    command.add_argument(
        "--layer",
        default="",
        help="layer of Grad-CAM (default: the last one with positions), of `unknown` (the input "
        "of the last dense layer) and the only one of `features` (up to 12)",
    )
    command.add_argument(
        "--other", type=Path, help="run folder of a model whose features are compared"
    )
    command.add_argument(
        "--unknown", default="", help="data set of foreign examples, as for --dataset of the run"
    )
    command.add_argument(
        "--sanity_check", action="store_true", help="also explain models with random weights"
    )
    command.add_argument("--checkpoint", default="best", help=CHECKPOINT)
    add_replacements(command)


def _export(command: ArgumentParser) -> None:
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
    command.add_argument("--calibrated", action="store_true", help=CALIBRATED)
    command.add_argument(
        "--check", action="store_true", help="compare all outputs in a process without jaxdl"
    )
    command.add_argument(
        "--split", default="test", choices=SPLITS, help="split of --check (default: test)"
    )
    add_replacements(command)


def _latency(command: ArgumentParser) -> None:
    command.add_argument("folder", type=Path, help="run folder, or a folder that export wrote")
    command.add_argument(
        "--batch_sizes", default="1,8,64", help="comma-separated batch sizes (default: 1,8,64)"
    )
    command.add_argument("--turns", type=count, default=5, help="turns of each process (5)")
    command.add_argument("--calls", type=count, default=50, help="calls of a turn (50)")


def _replay(command: ArgumentParser) -> None:
    command.add_argument("run", type=Path, help="run folder")
    add_replacements(command)


def _parity(command: ArgumentParser) -> None:
    command.add_argument("run", type=Path, help="run folder")
    command.add_argument(
        "file", type=Path, metavar="FILE", help="safetensors file of weights, layers and a batch"
    )
    command.add_argument(
        "--tolerance", type=float, default=1e-4, help="greatest relative error of a layer (1e-4)"
    )
    command.add_argument("--checkpoint", default="best", help=CHECKPOINT)
    add_replacements(command)


COMMANDS = {
    "evaluate": Command(
        "evaluate a checkpoint of a run",
        "Prints the metrics of a checkpoint on one split, and keeps them in the run folder.",
        "jaxdl evaluate runs/cifar_vgg/RUN --checkpoint=newest --split=validation",
        add=_evaluate,
    ),
    "generate": Command(
        "generate text with the language model of a run",
        "Prints a prompt, continued by the language model of a run.",
        "jaxdl generate runs/shakespeare_lm/RUN --prompt=ROMEO: --length=200",
        add=_generate,
    ),
    "predict": Command(
        "answer new inputs with the trained model of a run",
        "Classifies images, texts or rows of a table, continues or translates lines of text.\n"
        "An input that cannot be read is named, and the others are answered.",
        "jaxdl predict runs/cifar_vgg/RUN photos/*.jpg --top_k=3",
        add=_predict,
    ),
    "analyze": Command(
        "analyse the trained model of a run: calibration, attribution, robustness, curvature",
        "Writes measures and pictures of a trained model into RUN/analysis, and prints a short\n"
        "table. Without names of parts it does all that fit the model, and names the others.",
        "jaxdl analyze runs/mnist_cnn/RUN calibration attribution",
        add=_analyze,
    ),
    "export": Command(
        "write the model of a run into a folder that needs no jaxdl",
        "Writes a new folder with the model of a checkpoint: its programs for any batch size, its\n"
        "weights, a card.json and a predict.py that needs JAX alone.",
        "jaxdl export runs/mnist_cnn/RUN --output=exported --check",
        add=_export,
    ),
    "latency": Command(
        "measure the latency of a run's model or of an export",
        "Prints percentiles of the time of a prediction, its throughput and its peak memory, of a\n"
        "run or of each form of an export. Each form is a process; they take turns.",
        "jaxdl latency exported --batch_sizes=1,8,64",
        add=_latency,
    ),
    "replay": Command(
        "repeat the training step whose metrics were not finite",
        "Repeats the step that ended a run, and names the first operation that was not finite.",
        "jaxdl replay runs/cifar_vgg/RUN",
        add=_replay,
    ),
    "parity": Command(
        "compare the layers of a PyTorch model with those of a run's model",
        "Loads a PyTorch model's weights into the model of a run, computes the same batch, and\n"
        "prints the relative error of each layer. docs/pytorch.md has the function that writes\n"
        "FILE. The exit status is 1 if a layer differs by more than the tolerance.",
        "jaxdl parity runs/imagenet_vgg/RUN vgg16.safetensors --tolerance=1e-3",
        add=_parity,
    ),
}
