"""Regression and classification of a user's table from the command line, without a line of code."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import tabular_mlp
from jaxdl.__main__ import run as jaxdl_command
from jaxdl.cli import guard
from jaxdl.data.table_rows import encode
from jaxdl.errors import UserError
from jaxdl.flags import parse_flags
from jaxdl.run import restore, run_folder
from jaxdl.tasks import tabular

FEW = ["--members=2", "--hidden=16", "--eval_every=100", "--learning_rate=0.01"]
NAMES = ["area, m2", "rooms", "place", "sold", "price"]


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A table with numbers, categories in quotes and missing values of both."""
    random, path = np.random.RandomState(0), tmp_path_factory.mktemp("data") / "house.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        table = csv.writer(file)
        table.writerow(NAMES)
        for n in range(300):
            area, rooms = random.uniform(20, 200), random.randint(1, 7)
            place = ["city, old", 'the "new" city', "country", ""][n % 4]
            price = 3000 * area + 40_000 * rooms + 150_000 * (n % 4 == 0) - 50_000 * (n % 4 == 3)
            shown = "NA" if n % 10 == 0 else f"{area:.1f}"
            table.writerow([shown, rooms, place, ["yes", "no"][n % 2], f"{price:.0f}"])
    return path


def run(house, folder, *flags):
    flags = [f"--dataset={house}", f"--workdir={folder}", *FEW, *flags]
    return tabular_mlp.run(parse_flags(tabular_mlp.Config, flags))


def test_a_number(house, tmp_path):
    folder = tmp_path / "run"
    summary = run(house, folder, "--target=price", "--num_steps=300")
    assert summary["test/r_squared"] > 0.8
    assert summary["test/error"] < 60_000
    task, saved, spec = restore.restore(run_folder.open_run(folder, "newest"))
    assert task.predict.kind == "numbers"
    assert list(task.predict.inputs(spec.example())) == ["x"]
    rows = [{"area, m2": "100", "rooms": 3, "place": place, "sold": "no"} for place in ("", "?")]
    rows += [rows[0] | {"place": "city, old"}, rows[0] | {"area, m2": "200"}]
    prices = task.predict(saved.state, {"x": encode(rows, spec)})
    assert prices[0] == prices[1] < prices[2]
    assert prices[0] < prices[3]
    # Another category would shift the indices of those that the run knows.
    other = tmp_path / "other.csv"
    other.write_bytes(house.read_bytes().replace(b"country", b"village", 1))
    with pytest.raises(UserError, match="has other columns than"):
        jaxdl_command(["evaluate", str(folder), f"--dataset={other}"])


def test_a_class(house, tmp_path):
    summary = run(
        house, tmp_path / "run", "--target=place", "--num_steps=40", "--on_bad_example=skip",
        "--leave_out=rooms", "--label_smoothing=0.1", "--periodic=2",
    )  # fmt: skip
    assert 0 <= summary["test/accuracy"] <= 1
    task, saved, spec = restore.restore(run_folder.open_run(tmp_path / "run", "newest"))
    assert spec.classes == ("city, old", "country", 'the "new" city')
    assert task.predict.kind == "logits"
    x = np.full((2, 3), np.nan, np.float32)  # a row of which nothing is known
    probabilities = np.exp(task.predict(saved.state, {"x": x}))
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert (tmp_path / "run" / "plots" / "test_confusion.png").exists()


BAD = {
    "no target": (b"a,b\n1,2\n", [], "without --target"),
    "unknown column": (b"a,b\n1,2\n", ["--target=c"], "--target=c: t.csv has no such column"),
    "no number": (b"a,b\nx,2\n" + b"1,2.5\n" * 30, ["--numeric=a"], "'x' is not a number"),
    "one class": (b"a,b\n" + b"1,x\n" * 30, [], "has 1 classes"),
    "empty": (b"", [], "t.csv is empty"),
    "ragged": (b"a,b\n1,2\n1,2,3\n", [], "line 3 has 3 fields"),
    "names": (b"a,a\n1,2\n", [], "two columns 'a'"),
    "NUL": (b"a,b\n1,\0\n", [], "line 2 has a NUL byte"),
    "huge": (b"a,b\n1," + b"2" * 200_000, [], "line 2: field larger than field limit"),
    "few rows": (b"a,b\n1,2.5\n2,3.5\n", [], "each split needs at least 2"),
    "loss": (b"a,b\n" + b"1,x\n2,y\n" * 60, ["--loss=huber"], "--loss=huber for a target of class"),
}


def fails(arguments, folder, capsys):
    """The one line of a command that ends with status 2 and writes nothing."""
    before = sorted(folder.rglob("*"))

    def command():
        tabular_mlp.run(parse_flags(tabular_mlp.Config, [*arguments, f"--workdir={folder}/run"]))

    capsys.readouterr()
    assert guard(command) == 2
    told = capsys.readouterr()
    assert not told.out
    assert sorted(folder.rglob("*")) == before
    lines = [line for line in told.err.splitlines() if "error: " in line]
    assert lines == told.err.splitlines()[-1:]
    return lines[0]


@pytest.mark.parametrize("name", BAD)
def test_bad_tables(name, tmp_path, capsys):
    content, flags, wanted = BAD[name]
    (tmp_path / "t.csv").write_bytes(content)
    target = [] if name == "no target" or "--target=c" in flags else ["--target=b"]
    line = fails([f"--dataset={tmp_path}/t.csv", *target, *flags], tmp_path, capsys)
    assert wanted in line


def test_bad_places(tmp_path, capsys):
    (tmp_path / "outside.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "t.csv").mkdir()
    cases = [(folder, "has no train.csv"), (tmp_path / "t.csv", "has no train.csv")]
    cases += [(tmp_path / "none.csv", "No such file"), ("/dev/zero", "a table ends in .csv")]
    for path, wanted in cases:
        assert wanted in fails([f"--dataset={path}", "--target=b"], tmp_path, capsys)
    (folder / "train.csv").symlink_to(tmp_path / "outside.csv")
    (folder / "test.csv").symlink_to(tmp_path / "outside.csv")
    line = fails([f"--dataset={folder}", "--target=b"], tmp_path, capsys)
    assert "train.csv is a link out of the folder" in line
    assert "--target=b with --dataset=wine" in fails(
        ["--dataset=wine", "--target=b"], tmp_path, capsys
    )
    assert "--dataset=mnist: give embedded" in fails(["--dataset=mnist"], tmp_path, capsys)


def test_the_inputs_of_the_model(house):
    """Against a loop over rows and columns in float64."""
    config = parse_flags(tabular_mlp.Config, [f"--dataset={house}", "--target=price"])
    data = tabular.load(config)
    spec, x = data.spec, data.train["x"]
    mean, std = spec.statistics()
    wanted = []
    for row in x.astype(np.float64):
        z = (row[:2] - mean[:2]) / std[:2]
        z = [0.0 if np.isnan(value) else value / (1 + (value / 3) ** 2) ** 0.5 for value in z]
        holes = [float(np.isnan(row[0])), float(np.isnan(row[2]))]
        place = [float(row[2] == n) for n in range(3)]
        sold = [float(row[3] == n) for n in range(2)]
        wanted.append([*z, *holes, *place, *sold])
    found = jax.jit(tabular.inputs(spec))(jnp.asarray(x))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", ["huber", "cross_entropy"])
def test_each_member_has_its_own_loss(loss):
    config = tabular_mlp.Config(dataset="diabetes" if loss == "huber" else "wine", loss=loss)
    data = tabular_mlp.load(config)
    task = tabular_mlp.build(config, data.spec)
    batch = {name: jnp.asarray(array[:8]) for name, array in data.test.items()}
    batch |= {"mask": jnp.ones(8), "index": jnp.arange(8)}
    state = task.init(jax.random.key(0))
    outputs = np.asarray(task.predict.apply(state, task.predict.prepare(batch)), np.float64)
    y = np.asarray(batch["y"])
    if loss == "huber":
        error = outputs[..., 0] - (y - data.spec.constant("y_mean"))[:, None] / data.spec.constant(
            "y_std"
        )
        size = np.abs(error)
        losses = np.where(size <= 1, error**2 / 2, size - 0.5)
        mean = outputs[..., 0].mean(1) * data.spec.constant("y_std") + data.spec.constant("y_mean")
    else:
        p = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)
        losses = -np.log(p[np.arange(8), :, y])
        mean = np.log(p.mean(1))
    total, count = task.evaluate(state, batch)["loss"]
    np.testing.assert_allclose(total / count, losses.mean(), rtol=1e-4)
    np.testing.assert_allclose(task.predict(state, batch), mean, rtol=1e-3, atol=1e-4)


def test_unknown_flags_are_refused():
    with pytest.raises(UserError, match="target_type"):
        tabular_mlp.Config(target_type="text")
