"""Names of TFDS's data sets in all their forms; what is no damage is not called damage."""

import builtins
import json
import sys

import numpy as np
import pytest

from jaxdl import __main__
from jaxdl.data import catalog, images, prepare, stored, tfds
from jaxdl.errors import UserError
from tests.data import folders
from tests.data.official import mnist_files


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    """A TFDS folder with MNIST."""
    folder = tmp_path_factory.mktemp("tfds")
    prepare.prepare_from("mnist", str(folder), mnist_files(folder)[0])
    return str(folder)


@pytest.mark.parametrize("name", ["mnist", "mnist:3.0.1", "mnist/3.0.1", "mnist:3.*.*"])
def test_a_version_is_named_in_each_form(name, mnist, capsys):
    data = images.load(name, data_dir=mnist, image_size=28, stream=True, workers=1)
    assert (data.spec.version, data.spec.num_classes, data.spec.mirrored) == ("3.0.1", 10, False)
    __main__.run(["prepare", name, f"--data_dir={mnist}"])
    assert capsys.readouterr().out.endswith("/mnist/3.0.1\n")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("pictures/small", "small/2.0.0"),
        ("pictures/small/1.0.0", "small/1.0.0"),
        ("pictures/small:1.0.0", "small/1.0.0"),
        ("pictures/small:1.*.*", "small/1.2.0"),
        ("pictures/small:*.*.*", "small/2.0.0"),
        ("pictures/3.0.0", "3.0.0"),
        ("pictures:3.0.0", "3.0.0"),
    ],
)
def test_a_config_and_a_version(name, place, tmp_path):
    for other in ("small/1.0.0", "small/1.2.0", "small/2.0.0", "3.0.0"):
        config, _, version = other.rpartition("/")
        about = {"version": version} | ({"configName": config} if config else {})
        folders.pictures(tmp_path, info=folders.info(**about), place=f"pictures/{other}")
    found = catalog.open_dataset(name, str(tmp_path), ("image", "label"))
    assert found.folder == tmp_path / "pictures" / place


@pytest.mark.parametrize("name", ["mnist:9.9.9", "mnist/1.0.0", "mnist/grey", "mnist/grey/3.0.1"])
def test_a_version_that_is_not_there_is_no_damage(name, mnist):
    with pytest.raises(UserError, match="holds no such version") as caught:
        images.load(name, data_dir=mnist)
    assert "damaged" not in str(caught.value)
    assert "3.0.1" in str(caught.value)


def test_an_absent_version_is_prepared_as_the_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "_download", lambda name: mnist_files(tmp_path)[0])
    for name in ("mnist/3.0.1", "mnist:3.0.1"):
        folder = prepare.prepare(name, str(tmp_path / name[5:6].replace("/", "slash")))
        assert folder.parts[-2:] == ("mnist", "3.0.1")


class Failing:
    """A builder whose description needs what is not there."""

    @property
    def info(self):
        raise ModuleNotFoundError("No module named 'pretty_midi'")


def test_a_builder_that_fails_is_no_damage(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds, "stock", lambda *name: tfds.Stock("music/1.0.0", Failing))
    with pytest.raises(UserError, match=r"cannot describe music.*pretty_midi") as caught:
        catalog.open_dataset("music", str(tmp_path), ("image",))
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize(
    ("package", "error"),
    [
        ("tensorflow_datasets", ImportError("cannot import name 'runtime_version'")),
        ("tensorflow_datasets", TypeError("Descriptors cannot be created directly.")),
        ("tensorflow_datasets.proto", ImportError("no such proto")),
        ("array_record.python", OSError("libfoo.so: cannot open shared object file")),
    ],
)
def test_a_package_that_cannot_be_imported(package, error, mnist, monkeypatch):
    original = builtins.__import__

    def broken(name, *args, **kwargs):
        if name.startswith(package):
            raise error
        return original(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.startswith(package)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(UserError, match=r"cannot be imported.*pip install --force-reinstall") as it:
        images.load("mnist", data_dir=mnist, image_size=29)
    assert str(error) in str(it.value)
    assert "damaged" not in str(it.value)


def test_too_little_memory_is_no_damage(mnist, monkeypatch):
    def full(self, split):
        raise MemoryError

    monkeypatch.setattr(stored.PreparedDataset, "_readers", full)
    with pytest.raises(UserError, match="does not fit into memory"):
        images.load("mnist", data_dir=mnist, image_size=27)


@pytest.mark.parametrize("stream", [False, True])
def test_splits_and_names_of_classes(stream, tmp_path, capsys):
    records = [folders.example(folders.png(seed=n), n % 2) for n in range(8)]
    splits = folders.info(("8",))["splits"]
    splits += [splits[0] | {"name": name, "shardLengths": ["2"]} for name in ("validation", "more")]
    folder = folders.pictures(tmp_path, records, folders.info(splits=splits))
    for name in ("validation", "more"):
        path = folder / f"pictures-{name}.array_record-00000-of-00001"
        folders.write_records(path, records[:2])
    (folder / "label.labels.txt").write_bytes("été\nbee\n".encode())
    options = {"image_size": 8, "stream": stream, "data_dir": str(tmp_path), "workers": 1}
    data = images.load("pictures", **options)
    assert data.spec.classes == ("été", "bee")
    assert [len(s["label"]) for s in (data.train, data.validation, data.test)] == [8, 2, 8]
    assert "unused splits: more" in capsys.readouterr().err
    info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
    (folder / "dataset_info.json").write_text(
        json.dumps(info | {"splits": splits[:2]}), encoding="utf-8"
    )
    (folder / "label.labels.txt").write_bytes(b"one\nfor\nmany\n")
    data = images.load("pictures", validation_fraction=0.25, **options)
    assert data.spec.classes == ()
    assert np.bincount(data.validation["label"][:]).tolist() == [1, 1]
