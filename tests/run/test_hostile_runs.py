"""Run folders of a stranger: nothing is started, or touched outside, and one line says why."""

import hashlib
import json
import os
import shutil
import signal
import sys

import pytest

from experiments import iris_mlp
from experiments.benchmarks import publish
from jaxdl import checksums, cli
from jaxdl.__main__ import run as command

DEEP = "[" * 100_000
FLAGS = {"num_steps": 4, "batch_size": 16, "log_every": 2, "eval_every": 2, "checkpoint_every": 2}
LINE = {"step": 1, "epoch": 0.1, "split": "train", "loss": 1.0, "seconds": 0.1}
SECONDS = 60  # that one command may take: a pipe would hold it for ever


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    iris_mlp.run(iris_mlp.Config(workdir=str(folder), **FLAGS))
    return folder


def link(name):
    def craft(run, outside):
        path = run / name
        if path.is_dir():
            path.rename(outside / "theirs")
        path.unlink(missing_ok=True)
        path.parent.mkdir(exist_ok=True)
        there = outside / "theirs"
        path.symlink_to(there if there.exists() else outside / "file")

    return craft


def text(name, content):
    def craft(run, outside):
        path = run / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return craft


def removed(path):
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    return path


def folder(name):
    return lambda run, outside: removed(run / name).mkdir()


def part_in_a_linked_folder(run, outside):
    (outside / ".theirs.part").write_text("theirs", encoding="utf-8")
    (run / "any").symlink_to(outside)


def config_alone(**changes):
    """A folder without checkpoints, whose config.json may name the folder outside, `{}`."""

    def craft(run, outside):
        shutil.rmtree(run / "checkpoints")
        named = {n: v.format(outside) if isinstance(v, str) else v for n, v in changes.items()}
        (run / "config.json").write_text(json.dumps(named), encoding="utf-8")

    return craft


def pipe(name):
    def craft(run, outside):
        path = removed(run / name)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path)

    return craft


def giant(name):
    def craft(run, outside):
        (run / name).touch()
        os.truncate(run / name, 1 << 40)

    return craft


def newest(run):
    return max((run / "checkpoints").iterdir(), key=lambda path: int(path.name))


def sealed(**changes):
    """Every checkpoint's record changed, and the seal made to agree."""

    def craft(run, outside):
        for step in (run / "checkpoints").iterdir():
            path = step / "record.json"
            path.write_text(
                json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8"
            )
            checksums.seal(step)

    return craft


def sealed_identity(**changes):
    def craft(run, outside):
        for step in (run / "checkpoints").iterdir():
            path = step / "record.json"
            record = json.loads(path.read_text(encoding="utf-8"))
            record["identity"] |= changes
            path.write_text(json.dumps(record), encoding="utf-8")
            checksums.seal(step)

    return craft


def sealed_data(text=None, **changes):
    """Another data.json, and every checkpoint sealed with its digest."""

    def craft(run, outside):
        path = run / "data.json"
        whole = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(whole | changes) if text is None else text, encoding="utf-8")
        sealed(data=hashlib.sha256(path.read_bytes()).hexdigest())(run, outside)

    return craft


def sealed_log(content):
    def craft(run, outside):
        for step in (run / "checkpoints").iterdir():
            (step / "metrics.jsonl").write_text(content, encoding="utf-8")
            checksums.seal(step)

    return craft


def in_newest(craft):
    return lambda run, outside: craft(newest(run), outside)


def line(**values):
    return json.dumps(LINE | values) + "\n"


def summary(**values):
    return text("summary.json", json.dumps({"test/accuracy": 0.5, "seconds": 1.0} | values))


LINKS = (
    *("config.json", "flags.txt", "environment.json", "metrics.jsonl", "summary.json", ".lock"),
    *("detours.json", "checkpoints", "nonfinite", "plots", "plots/curves.png", "tensorboard"),
    *("evaluations", "evaluations/test-4.json", "profile", "checkpoints/2"),
    *("wandb", "mlflow", "mlflow/0", "tracker_id.txt"),
)
CRAFTED = {
    **{f"link {name}": link(name) for name in LINKS},
    **{f"pipe {n}": pipe(n) for n in ("config.json", "metrics.jsonl", "summary.json", ".lock")},
    **{f"pipe {n}": pipe(n) for n in ("plots/x.png", "detours.json", "environment.json")},
    **{f"pipe {n}": pipe(n) for n in ("plots", "checkpoints", "tensorboard", "evaluations")},
    **{f"folder {n}": folder(n) for n in ("config.json", "metrics.jsonl", "summary.json")},
    **{f"folder {n}": folder(n) for n in ("plots/.x.part", ".x.part", ".lock", "plots/curves.png")},
    "part in a linked folder": part_in_a_linked_folder,
    "config of data to fetch": config_alone(
        experiment="experiments.multi30k_transformer", dataset="multi30k", data_dir="{}/deep"
    ),
    "config of digits to fetch": config_alone(
        experiment="experiments.mnist_lenet", dataset="mnist", data_dir="{}/deep"
    ),
    "config of a long name": config_alone(experiment="experiments" + ".a" * 100_000),
    "pipe manifest": in_newest(pipe("manifest.json")),
    "pipe record": in_newest(pipe("record.json")),
    "giant config": giant("config.json"),
    "giant summary": giant("summary.json"),
    "giant manifest": in_newest(giant("manifest.json")),
    "config deep": text("config.json", DEEP),
    "config of os": text("config.json", '{"experiment": "os"}'),
    "config escapes": text("config.json", json.dumps({"experiment": "\x1b]0;x\x07[red]"})),
    "log of text": text("metrics.jsonl", "hello\n"),
    "log deep": text("metrics.jsonl", DEEP),
    "log of words": text("metrics.jsonl", line(loss="x")),
    "log of lists": text("metrics.jsonl", line(loss=[1])),
    "log huge": text("metrics.jsonl", line(loss=10**400)),
    "log huge step": text("metrics.jsonl", line(step=10**30)),
    "log large": text("metrics.jsonl", line(loss=1e308) + line(step=2, loss=-1e308)),
    "log infinite": text("metrics.jsonl", '{"step": 1, "split": "train", "loss": Infinity}\n'),
    "log formula": text("metrics.jsonl", line(**{"$x$ \\frac": 1.0, "$": 2.0})),
    "log markup": text("metrics.jsonl", line(**{"[/red]": 1.0, "[bold]": 2.0})),
    "log escapes": text("metrics.jsonl", line(**{"\x1b[2J\x07": 1.0, "a\nb": 2.0})),
    "log surrogate": text("metrics.jsonl", line(**{"\ud800": 1.0})),
    "log wide": text("metrics.jsonl", line(**{f"m{n}": 1.0 for n in range(300)})),
    "log binary": text("metrics.jsonl", bytes(range(256))),
    "summary markup": summary(**{"test/[/red]": "[/bold]"}),
    "summary escapes": summary(**{"test/\x1b[2J": "\x1b]0;x\x07"}),
    "summary of lists": summary(**{"test/accuracy": [[1]], "seconds": "x", "step": {}}),
    "summary nothing": text("summary.json", ""),
    "summary sealed wrongly": summary(sha256="0" * 64),
    "environment of a list": text("environment.json", "[]"),
    "environment of nothing": text("environment.json", "{}"),
    "detours deep": text("detours.json", DEEP),
    "detours of words": text("detours.json", '{"detours": [["a", "b"]]}'),
    "picture of PostScript": text("plots/x.png", b"%!PS-Adobe-3.0 EPSF-3.0\n"),
    "picture of noise": text("plots/x.png", b"\x89PNG\r\n\x1a\n" + bytes(100)),
    "checkpoint of 250 digits": lambda run, _: (run / "checkpoints" / ("9" * 250)).mkdir(),
    "checkpoint of 2**31": lambda run, _: (run / "checkpoints" / str(2**31)).mkdir(),
    "checkpoint a file": text("checkpoints/7", "x"),
    "sealed os": sealed_identity(experiment="os"),
    "sealed path": sealed_identity(experiment="experiments.../x"),
    "sealed list": sealed_identity(seed=[1]),
    "sealed dataset": sealed_identity(dataset="x" * 10_000),
    "sealed batch": sealed_identity(batch_size=10**12),
    "sealed unknown": sealed_identity(evil=1),
    "sealed anchor": sealed(anchor=["x", {}]),
    "sealed detours": sealed(detours=[["a"]]),
    "sealed time": sealed(timed=["x", "y"], seconds=float("nan")),
    "sealed leaves": sealed(leaves={".state.step": "float32[9999999999999]"}),
    "sealed leaf types": sealed(leaves={".state.step": "object[1]"}),
    "sealed best": sealed(best={"step": 10**30, "value": 1.0, "since": 0, "than": 1.0}),
    "sealed versions": sealed(versions={"jax": ["x"], "\x1b[2J": "y"}),
    "sealed log": sealed_log("hello\n"),
    "sealed data without arrays": sealed_data(elements=[]),
    "sealed data of giants": sealed_data(
        elements=[{"name": "x", "shape": [2**31], "dtype": "float32"}]
    ),
    "sealed data of objects": sealed_data(
        elements=[{"name": "x", "shape": [2], "dtype": "object"}]
    ),
    "sealed data of many classes": sealed_data(num_classes=2**31),
    "sealed data of negative classes": sealed_data(num_classes=-3),
    "sealed data without constants": sealed_data(constants={}),
    "sealed data with ragged constants": sealed_data(constants={"mean": [[1], [1, 2]]}),
    "sealed data of no examples": sealed_data(num_train=0),
    "sealed data of nothing": sealed_data(text=""),
    "sealed deep data": sealed_data(text=DEEP),
    "sealed data with a control character": sealed_data(name="\x1b[2J", source="\x1b[2J"),
    "data.json is a folder": lambda run, outside: removed(run / "data.json").mkdir(),
    "data.json is a pipe": pipe("data.json"),
    "data.json is giant": giant("data.json"),
    "tokenizer.json of another": lambda run, outside: (run / "tokenizer.json").write_text(
        '{"words": []}', encoding="utf-8"
    ),
    "sealed deep log": sealed_log(DEEP),
    "sealed log of surrogates": sealed_log(
        '{"step": 1, "split": "\\ud800", "\\udfff": 1.0}\n{"step": 3, "split": "train"}\n'
    ),
    "sealed long name": sealed_identity(experiment="experiments" + ".a" * 100_000),
    "sealed number": sealed_identity(hidden=10**400),
}


def test_there_are_sixty():
    assert len(CRAFTED) >= 60


class Watched:
    """Processes that this one starts, by Python's audit events."""

    def __init__(self):
        self.on, self.seen = False, []
        sys.addaudithook(self.hear)

    def hear(self, event, arguments):
        if self.on and event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
            self.seen.append((event, arguments))


@pytest.fixture(scope="module")
def watched():
    return Watched()


def contents(folder):
    return {
        str(path): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in folder.rglob("*")
    }


def fetched(url, path, *_, **__):
    """A download that works."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"data")
    return path


def late(number, frame):
    raise AssertionError(f"no end after {SECONDS} s")


@pytest.mark.parametrize("kind", CRAFTED)
def test_run_folders(kind, trained, tmp_path, capsys, watched, monkeypatch):
    outside, run = tmp_path / "outside", tmp_path / "run [/red]"
    outside.mkdir()
    (outside / "file").write_text("theirs", encoding="utf-8")
    shutil.copytree(trained, run)
    CRAFTED[kind](run, outside)
    page = tmp_path / "page.md"
    page.write_text(f"{publish.PART.begin}\n{publish.PART.end}\n", encoding="utf-8")
    before = contents(outside)
    monkeypatch.setattr("jaxdl.run.environment.git", lambda *_, **__: None)  # which starts git
    monkeypatch.setattr("jaxdl.data.download.fetch", fetched)
    calls = {
        "report": lambda: command(["report", str(run), f"--output={tmp_path / 'x.png'}"]),
        "replay": lambda: command(["replay", str(run)]),
        "results": lambda: publish.run(
            [str(run), f"--results={tmp_path / 'kept'}", f"--page={page}", f"--readme={page}"]
        ),
        "evaluate": lambda: command(["evaluate", str(run)]),
        "go on": lambda: iris_mlp.run(iris_mlp.Config(workdir=str(run), **FLAGS)),
    }
    if kind.split()[0] in ("log", "summary", "environment"):  # which the others do not read
        calls = {name: calls[name] for name in ("report", "results")}
    previous = signal.signal(signal.SIGALRM, late)
    for name, call in calls.items():
        watched.on, watched.seen = True, []
        signal.alarm(SECONDS)
        try:
            status = cli.guard(call)
        finally:
            signal.alarm(0)
            watched.on = False
        out, err = capsys.readouterr()
        errors = [text for text in err.splitlines() if text.startswith("error: ")]
        assert status in (0, 1, 2), f"{name}: {err}"
        assert len(errors) == (status != 0), f"{name}: {err}"
        assert all(len(text) < 1200 for text in errors), f"{name}: {err}"
        assert "\x1b" not in out + err, name
        assert not watched.seen, name
        assert contents(outside) == before, name
    signal.signal(signal.SIGALRM, previous)
