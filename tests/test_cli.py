import dataclasses
import functools
import os
import re
import subprocess
import sys

import pytest

from experiments import cifar_vgg, grid_qlearning
from jaxdl import cli
from jaxdl.config import RunConfig, flag
from jaxdl.errors import TrainingError, UserError
from jaxdl.flags import flags_help, parse_flags
from jaxdl.signals import Stopped


def run(arguments, monkeypatch, capsys, command=lambda config: {"x": 1.0}):
    monkeypatch.setattr("sys.argv", ["experiment", *arguments])
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)  # what is left at exit stays here
    with pytest.raises(SystemExit) as caught:
        cli.main(command, cifar_vgg.Config)
    out, err = capsys.readouterr()
    return caught.value.code, out, err


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--learning_rat=0.1", "learning_rat"),
        ("--batch_size=-4", "at least 1"),
        ("--batch_size=4.5", "batch_size"),
        ("--learning_rate=nan", "--learning_rate=nan"),
        ("--depth=12", "11, 13, 16, 19"),
        ("--flip=perhaps", "flip"),
        ("--flagfile=/nowhere/flags.txt", "/nowhere/flags.txt"),
        ("--flagfile=/", "/"),
        ("word", "'word' is not a flag"),
        ("--seed=", "seed"),
        ("--noflip=false", "--noflip=false"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(argument, words, monkeypatch, capsys):
    status, out, err = run([argument], monkeypatch, capsys)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert words in err


@pytest.mark.parametrize(
    ("argument", "name"),
    [
        ("--lr=0.1", "learning_rate"),
        ("-lr=0.1", "learning_rate"),
        ("--epochs=3", "num_epochs"),
        ("--steps=3", "num_steps"),
        ("--bs=3", "batch_size"),
        ("--batch=3", "batch_size"),
        ("--batch-size=3", "batch_size"),
        ("--wd=0", "weight_decay"),
        *((f"--{name}=a", "workdir") for name in ("output_dir", "log_dir", "logdir", "out")),
        ("--data=a", "data_dir"),
        ("--data_path=a", "data_dir"),
        ("--num_workers=2", "workers"),
        ("--eval_interval=2", "eval_every"),
        ("--save_every=2", "checkpoint_every"),
        ("--precision=bfloat16", "dtype"),
        ("--opt=adam", "optimizer"),
    ],
)
def test_names_of_other_frameworks_are_answered_by_the_right_one(
    argument, name, monkeypatch, capsys
):
    status, out, err = run([argument], monkeypatch, capsys)
    flag = argument.lstrip("-").split("=")[0]
    assert (status, out) == (2, "")
    assert err == f"error: --{flag} is called --{name} here (--help lists the flags)\n"


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        (
            "--learnig_rate=0.1",
            "unknown flag --learnig_rate: did you mean --learning_rate or --learning_rate_scale?",
        ),
        ("--eval_evry=3", "did you mean --eval_every"),
        ("--noflipp", "did you mean --noflip"),
        ("--flagfil=a", "did you mean --flagfile"),
        ("--device=cuda", "JAX_PLATFORMS"),
        ("--devices=2", "CUDA_VISIBLE_DEVICES"),
        ("--quux=3", "unknown flag --quux (--help lists the flags)"),
    ],
)
def test_a_misspelt_flag_is_answered_by_the_nearest(argument, words, monkeypatch, capsys):
    status, out, err = run([argument], monkeypatch, capsys)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert words in err


def test_a_flag_that_the_experiment_lacks_is_not_recommended():
    for word, message in (("--wd=0.1", "unknown flag --wd"), ("--num_workers=2", "leave it out")):
        with pytest.raises(UserError, match=message):
            parse_flags(grid_qlearning.Config, [word])


@pytest.mark.parametrize("error", [
    (UserError("a"), 2), (TrainingError("a"), 1), (Stopped(15, "a"), 143), (Stopped(2, "a"), 130),
])  # fmt: skip
def test_exit_statuses(error, monkeypatch, capsys):
    def fails(config):
        raise error[0]

    status, _, err = run([], monkeypatch, capsys, fails)
    assert status == error[1]
    assert err.count("\n") == 1


def test_figures_go_to_stdout(monkeypatch, capsys):
    assert run([], monkeypatch, capsys)[:2] == (0, "x = 1\n")


def test_flags_reach_the_config():
    config = parse_flags(cifar_vgg.Config, ["--noflip", "--dropout=0.5", "--depth", "11"])
    assert config == dataclasses.replace(cifar_vgg.Config(), flip=False, dropout=0.5, depth="11")


def test_help_names_every_flag(monkeypatch, capsys):
    status, out, _ = run(["--help"], monkeypatch, capsys)
    assert status == 0
    for field in dataclasses.fields(cifar_vgg.Config):
        assert field.name in out
        assert field.metadata["help"].split()[0] in out


def test_deterministic_reaches_xla_before_its_first_device(monkeypatch):
    """An unknown flag would abort the process, so this holds that these are known."""
    code = "from jaxdl import cli; cli.set_up_jax(True); import jax, os; jax.devices(); "
    code += "print(os.environ['XLA_FLAGS'])"
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert out.stdout.split()[1:] == cli.DETERMINISTIC.split()


def test_a_user_without_a_home_is_told_what_to_set(tmp_path, monkeypatch, capsys):
    def nobody(uid):
        raise KeyError(uid)

    for name in ("HOME", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    status, out, err = run([f"--workdir={tmp_path / 'run'}"], monkeypatch, capsys)
    assert (status, out) == (2, "")
    assert err.startswith("error: user ")
    assert "XDG_CACHE_HOME" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_help_groups_flags_the_experiments_own_first():
    text = flags_help(cifar_vgg.Config)
    places = [
        text.index(part)
        for part in ("--depth", "loss:\n", "--mixup", "regularisation:\n", "--l1", "every run:\n",
                     "--workdir", "--flagfile")
    ]  # fmt: skip
    assert places == sorted(places)
    for field in dataclasses.fields(cifar_vgg.Config):
        assert len(re.findall(rf"^  --(\[no\])?{field.name} ", text, re.MULTILINE)) == 1


def chain(folder, links):
    for n in range(links):
        (folder / f"{n}").write_text(f"--flagfile={folder / str(n + 1)}\n", encoding="utf-8")
    (folder / f"{links}").write_text("# the end\n\n// of it\n  --seed=7  \n", encoding="utf-8")
    return f"--flagfile={folder / '0'}"


def test_epochs_that_are_typed_count_where_steps_are_the_default():
    from experiments import shakespeare_lm

    parse = functools.partial(parse_flags, shakespeare_lm.Config)
    assert parse([]).num_steps == 2000
    typed = parse(["--num_epochs=1"])
    assert (typed.num_steps, typed.num_epochs) == (0, 1)
    assert parse(["--num_epochs=1", "--num_steps=7"]).num_steps == 7


@pytest.mark.parametrize("name", ["cuda", "tpu", "nonsense"])
def test_a_device_that_is_not_here_is_one_line(name):
    code = "from jaxdl import cli; import sys; sys.exit(cli.guard(cli.check_devices))"
    environ = os.environ | {"JAX_PLATFORMS": name}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 2
    error = done.stderr.splitlines()[-1]  # XLA may warn before it
    assert error.startswith(f"error: JAX_PLATFORMS={name}: JAX finds no such device")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("links", [0, 3, 9])
def test_flag_files_may_name_others(links, tmp_path):
    assert parse_flags(cifar_vgg.Config, [chain(tmp_path, links)]).seed == 7
    assert parse_flags(cifar_vgg.Config, chain(tmp_path, links).split("=")).seed == 7


@pytest.mark.parametrize("links", [10, 2000])
def test_flag_files_name_each_other_only_so_deep(links, tmp_path):
    with pytest.raises(UserError, match=r"10: more than 10 flag files name each other"):
        parse_flags(cifar_vgg.Config, [chain(tmp_path, links)])


@pytest.mark.parametrize("kind", ["pipe", "device", "binary", "itself", "absent", "folder"])
def test_what_a_flag_file_names_is_a_text(kind, tmp_path):
    path = tmp_path / "named"
    {
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "binary": lambda: path.write_bytes(b"\xff\xfe"),
        "itself": lambda: path.write_text(f"--flagfile={path}", encoding="utf-8"),
        "absent": lambda: None,
        "folder": lambda: path.mkdir(),
    }[kind]()
    (tmp_path / "first").write_text(f"--flagfile={path}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"--flagfile=\S*named") as caught:
        parse_flags(cifar_vgg.Config, [f"--flagfile={tmp_path / 'first'}"])
    assert "\n" not in str(caught.value)


def test_an_error_of_a_strangers_values_is_short_and_moves_no_cursor(capsys):
    def fail():
        raise UserError("\x1b[2J\x07" + "x" * 100_000 + ": way out")

    assert cli.guard(fail) == 2
    text = capsys.readouterr().err
    assert len(text) < 1100
    assert text.startswith(r"error: \x1b[2J\x07x")
    assert text.endswith(": way out\n")


@dataclasses.dataclass(frozen=True)
class WithoutHelp(RunConfig):
    gamma: float = 2.0


@dataclasses.dataclass(frozen=True)
class OfNoKind(RunConfig):
    hidden: tuple = flag((64, 64), "units of the hidden layers")


@dataclasses.dataclass(frozen=True)
class OfAnotherKind(RunConfig):
    learning_rate: float = "0.003"


@dataclasses.dataclass(frozen=True)
class WithoutType(RunConfig):
    learning_rate = 0.5


class WithoutDecorator(RunConfig):
    learning_rate: float = 0.5


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (WithoutType, r"WithoutType\.learning_rate has no type: write learning_rate: float"),
        (WithoutDecorator, r"WithoutDecorator lacks a line above it: @dataclasses"),
        (
            WithoutHelp,
            r"WithoutHelp\.gamma is a new flag .*: write gamma: float = flag\(2\.0",
        ),
        (OfNoKind, r"OfNoKind\.hidden is declared as tuple"),
        (OfAnotherKind, r"OfAnotherKind\.learning_rate is declared as float, .* is '0\.003'"),
    ],
)
def test_a_field_that_can_be_no_flag_is_named(config, message):
    with pytest.raises(UserError, match=message):
        parse_flags(config, [])
    with pytest.raises(UserError, match=message):
        config()


def test_data_that_an_experiment_does_not_read_are_refused():
    with pytest.raises(UserError, match="--dataset=mnist: choose one of embedded"):
        parse_flags(RunConfig, ["--dataset=mnist"])
