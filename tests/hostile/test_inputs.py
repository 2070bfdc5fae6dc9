"""Over a hundred hostile or broken inputs: one line, the right status, nothing run or written."""

import gzip
import json
import shutil

import numpy as np
import pytest

from experiments import cifar_vgg
from jaxdl import checksums
from jaxdl.__main__ import run as command
from jaxdl.data import prepare
from jaxdl.flags import parse_flags
from tests import small
from tests.data.official import cifar_file, mnist_files
from tests.hostile.tried import DEEP, refused, reseal

PICKLE = b"cos\nsystem\n(S'touch x'\ntR."  # makes a file where it is unpickled
TINY = ["--depth=11", "--width_multiplier=0.05", "--num_steps=1"]  # if a bad flag should pass
FLAGS = [
    *("--nonsense=1", "--nonsense", "-x", "--", "word", "--learning_rate", "--flagfile"),
    *("--learning_rate=", "--learning_rate=nan", "--learning_rate=-1", "--learning_rate=1e400"),
    *("--learning_rate=0x1p3", "--learning_rate=1,5", "--learning_rate=1;2", "--momentum=inf"),
    *("--batch_size=0", "--batch_size=-1", "--batch_size=1.5", "--batch_size=1e3"),
    *(
        "--batch_size=99999999999999999999",
        "--batch_size=\u0661x",
        "--seed=-1",
        "--seed=2147483648",
    ),
    *("--num_epochs=0", "--num_steps=-1", "--log_every=0", "--eval_every=-5", "--patience=-1"),
    *("--dtype=float64", "--depth=12", "--depth=", "--optimizer=Adam", "--schedule=none"),
    *("--on_nonfinite=ignore", "--resume=yes", "--flip=perhaps", "--norm=2"),
    *("--dataset=", "--dataset=nothing", "--dataset=../mnist", "--dataset=/etc/passwd"),
    *("--dataset=mnist:99.9.9", "--dataset=mnist/x/y", "--dataset=$(touch x)", "--dataset=a\nb"),
    *("--dataset=__import__('os').system('touch x')", "--dataset=imdb_reviews"),
    *(
        "--workdir=/proc/x",
        "--workdir=/dev/null",
        "--workdir=/dev/null/x",
        f"--workdir={'x' * 300}",
    ),
    *("--workdir=a\0b", "--workdir=a\tb", "--flagfile=/nowhere", "--flagfile=/", "--flagfile="),
    *("--image_size=31", "--image_size=100000", "--cutout=-1", "--mixup=-0.1", "--dropout=1.0"),
    *("--label_smoothing=1.1", "--width_multiplier=0", "--width_multiplier=1e9", "--clip_norm=-1"),
    *("--loss=none", "--l1=-1", "--l2=nan", "--clip_adaptive=-1", "--min_improvement=nan"),
    *("--ema_decay=1.1", "--noise=256", "--dataset=/", "--dataset=./", "--warmup_epochs=-1"),
    *("--validation_fraction=1.0", "--validation_fraction=2", "--validation_fraction=1e-9"),
]
CONFIGS = [
    *("", "{", "[]", "5", "null", '"x"', "\0", DEEP, "{}", '{"experiment": 3}', "\ud7ff" * 10),
    *(json.dumps({"experiment": name}) for name in ("os", "experiments", "experiments.", "x.y")),
    *(json.dumps({"experiment": name}) for name in ("experiments.nothing", "../x", "jaxdl.cli")),
    *(json.dumps({"experiment": name}) for name in ("experiments.cifar_vgg;os", "experiments\n.x")),
    json.dumps({"experiment": "experiments.benchmarks.host_overhead"}),
]
VALUES = [
    {"batch_size": -1}, {"batch_size": "16"}, {"batch_size": None}, {"batch_size": [16]},
    {"learning_rate": "fast"}, {"learning_rate": float("nan")}, {"dropout": 1.5}, {"extra": 1},
    {"flip": 1}, {"dtype": "object"}, {"seed": 2**40}, {"batch_size": True}, {"depth": 16},
]  # fmt: skip


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: repr(flag)[:40])
def test_flags(flag, here, capsys):
    if flag == "--":
        flag = "--=x"
    first = [*TINY] if flag.startswith("--dataset") else [*TINY, "--dataset=synthetic"]

    def call():
        cifar_vgg.run(parse_flags(cifar_vgg.Config, [*first, flag]))

    refused(call, here, capsys)


@pytest.mark.parametrize("text", CONFIGS, ids=lambda text: repr(text)[:40])
def test_run_folders(text, here, capsys):
    (here / "config.json").write_text(text, encoding="utf-8")
    for name in ("evaluate", "replay"):
        refused(lambda name=name: command([name, "."]), here, capsys)


@pytest.mark.parametrize("change", VALUES, ids=str)
def test_configs_of_runs(change, trained, here, capsys):
    shutil.copytree(trained, here / "run")
    path = here / "run" / "config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8"
    )
    (step,) = (here / "run" / "checkpoints").iterdir()
    reseal(
        step,
        identity=json.loads((step / "record.json").read_text(encoding="utf-8"))["identity"]
        | change,
    )
    refused(lambda: command(["evaluate", "run"]), here, capsys)


CHECKPOINTS = {
    "no manifest": lambda c: (c / "manifest.json").unlink(),
    "deep manifest": lambda c: (c / "manifest.json").write_text(DEEP, encoding="utf-8"),
    "binary manifest": lambda c: (c / "manifest.json").write_bytes(bytes(range(256))),
    "manifest of text": lambda c: (c / "manifest.json").write_bytes(b'{"files": "x", "sha256": 1}'),
    "empty": lambda c: (shutil.rmtree(c), c.mkdir()),
    "a file": lambda c: (shutil.rmtree(c), c.write_text("x", encoding="utf-8")),
    "a link": lambda c: (shutil.rmtree(c), c.symlink_to("/etc")),
    "a record of another": lambda c: (c / "record.json").write_text("{}", encoding="utf-8"),
    "a pickle": lambda c: next(c.glob("state/state/d/*")).write_bytes(PICKLE),
    "sealed: deep record": lambda c: (
        (c / "record.json").write_bytes(DEEP.encode()),
        checksums.seal(c),
    ),
    "sealed: no object": lambda c: ((c / "record.json").write_bytes(b"[]"), checksums.seal(c)),
    "sealed: no leaves": lambda c: reseal(c, leaves=None),
    "sealed: other leaves": lambda c: reseal(c, leaves={"x": "float32[2]"}),
    "sealed: leaves of text": lambda c: reseal(c, leaves="x"),
    "sealed: no digest": lambda c: reseal(c, state_sha256=None),
    "sealed: another digest": lambda c: reseal(c, state_sha256="0" * 64),
    "sealed: no best": lambda c: reseal(c, best=None),
    "sealed: best of text": lambda c: reseal(c, best="x"),
    "sealed: no best step": lambda c: reseal(c, best={"value": 1.0}),
    "sealed: no patience": lambda c: reseal(c, best={"step": 2, "value": 1.0, "since": 2}),
    "sealed: no state": lambda c: (shutil.rmtree(c / "state"), checksums.seal(c)),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_checkpoints(kind, trained, here, capsys):
    shutil.copytree(trained, here / "run")
    (step,) = (here / "run" / "checkpoints").iterdir()
    CHECKPOINTS[kind](step)
    for chosen in ("newest", "best"):
        call = ["evaluate", "run", f"--checkpoint={chosen}"]
        refused(lambda call=call: command(call), here, capsys)
    flags = [f"--flagfile={trained / 'flags.txt'}", f"--workdir={here / 'run'}"]
    refused(lambda: cifar_vgg.run(parse_flags(cifar_vgg.Config, flags)), here, capsys)
    assert not (here / "x").exists()


DAMAGES = {
    "empty": lambda b: b"",
    "half": lambda b: b[: len(b) // 2],
    "not gzip": lambda b: b"PK\3\4" + b,
    "gzip of nothing": lambda b: gzip.compress(b""),
    "gzip of noise": lambda b: gzip.compress(np.random.RandomState(0).bytes(5000)),
    "a pickle": lambda b: gzip.compress(PICKLE),
    "more behind": lambda b: gzip.compress(gzip.decompress(b) + b"\1" * 513),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100"])
def test_archives(name, damage, tmp_path, here, capsys):
    if name != "mnist" and damage == "more behind":
        pytest.skip("what follows the end of a tar is no part of it")
    files, _ = mnist_files(tmp_path) if name == "mnist" else cifar_file(tmp_path, name)
    path = sorted(files.values())[0]
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    refused(lambda: prepare.prepare_from(name, str(here / "tfds"), files), here, capsys)


FOLDERS = {
    "info of nothing": ("dataset_info.json", ""),
    "info of text": ("dataset_info.json", "[]"),
    "deep info": ("dataset_info.json", DEEP),
    "noise": (None, "x" * 1000),
    "no shard": (None, None),
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    files, _ = mnist_files(folder)
    prepare.prepare_from("mnist", str(folder / "tfds"), files)
    return folder / "tfds"


@pytest.mark.parametrize("kind", FOLDERS)
def test_data_folders(kind, stored, here, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(stored, here / "tfds")
    name, text = FOLDERS[kind]
    pattern = name or "*train*array_record*"
    path = next((here / "tfds").rglob(pattern))
    path.unlink() if text is None else path.write_text(text, encoding="utf-8")
    flags = ["--dataset=mnist", "--data_dir=tfds"]
    refused(lambda: cifar_vgg.run(parse_flags(cifar_vgg.Config, flags)), here, capsys)
    assert not (here / "x").exists()


@pytest.mark.parametrize("text", [*CONFIGS[:8], "force"])
def test_a_workdir_with_a_broken_config(text, here, capsys):
    (here / "config.json").write_text(text, encoding="utf-8")
    refused(lambda: small.run(small.Config(workdir=str(here))), here, capsys)


COMMANDS = [
    [], ["nonsense"], ["evaluate"], ["evaluate", "/nowhere"], ["evaluate", "a\0b"], ["replay"],
    ["evaluate", ".", "--split=x"], ["report"], ["report", "/nowhere"], ["report", "."],
    ["prepare"], ["prepare", "nothing"], ["prepare", "mnist", "--data_dir=/proc/x"], ["verify"],
    ["verify", "nonsense"], ["verify", "experiments.nothing"], ["verify", "x", "--kills=-1"],
    ["verify", "x", "--kills=many"], ["verify", "--", "x"], ["evaluate", ".", "--checkpoint=../1"],
]  # fmt: skip


@pytest.mark.parametrize("arguments", COMMANDS, ids=str)
def test_commands(arguments, here, capsys):
    refused(lambda: command(arguments), here, capsys)


def test_there_are_over_a_hundred():
    archives = 3 * len(DAMAGES) - 2
    counts = [FLAGS, CONFIGS, VALUES, CHECKPOINTS, FOLDERS, COMMANDS]
    assert sum(map(len, counts)) + archives + 9 > 170
