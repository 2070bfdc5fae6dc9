"""Weights of classes from files and flags: what they become, and refusals."""

import dataclasses
import json

import numpy as np
import pytest

from jaxdl import flags, saved_config
from jaxdl.errors import UserError
from jaxdl.tasks import class_weights
from tests.tasks.unbalanced import Config, points, run


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_a_file_becomes_the_weights_themselves(tmp_path):
    lines = write(tmp_path / "lines.txt", "rare 4\n\nwith a space   0.5 \ncommon 1e0\n")
    text = '{"common": 1.0, "rare": 4.0, "with a space": 0.5}'
    assert Config(class_weights=lines).class_weights == text
    same = write(tmp_path / "same.json", ' {"with a space": 0.5, "rare": 4, "common": 1}')
    config = Config(class_weights=same)
    assert config.class_weights == text
    (tmp_path / "same.json").unlink()
    saved = json.loads(json.dumps(saved_config.to_dict(config)))
    assert saved_config.from_dict(Config, saved) == config
    listed = write(tmp_path / "flags.txt", saved_config.to_flags(config))
    assert flags.parse_flags(Config, [f"--flagfile={listed}"]) == config
    names = dataclasses.replace(points().spec, classes=("rare", "common"))
    two = class_weights.of_classes('{"common": 1, "rare": 4}', names)
    np.testing.assert_array_equal(two, [4, 1])
    unnamed = dataclasses.replace(names, classes=())
    np.testing.assert_array_equal(class_weights.of_classes('{"1": 3, "0": 2}', unnamed), [2, 3])


def test_a_strangers_config_names_no_file(tmp_path):
    path = write(tmp_path / "secret", "rare 4\ncommon 1")
    values = saved_config.to_dict(Config()) | {"class_weights": path}
    with pytest.raises(UserError, match="not what a run saves"):
        saved_config.from_dict(Config, values)


BAD_FILES = {
    "negative": ("rare -1\ncommon 1", "from 0 to 1000000"),
    "nan": ("rare nan\ncommon 1", "from 0 to"),
    "infinite": ('{"rare": Infinity, "common": 1}', "from 0 to"),
    "huge": ("rare 1e7\ncommon 1", "from 0 to"),
    "zero": ("rare 0\ncommon 0", "greater than 0"),
    "empty": ("", "greater than 0"),
    "text": ("rare much", "line 1"),
    "alone": ("4", "line 1"),
    "twice": ("rare 1\nrare 2", "twice"),
    "binary": (bytes(range(256)), "not text in UTF-8"),
    "large": ("rare 1\n" * 200_000, "more than 1,048,576 bytes"),
    "cut": ('{"rare": 1', "give a JSON object"),
    "nested": ('{"rare": {"a": 1}}', "from 0 to"),
    "deep": ("{" + '"a":[' * 100_000, "give a JSON object"),
    "bool": ('{"rare": true, "common": 1}', "from 0 to"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_of_weights(kind, tmp_path):
    text, words = BAD_FILES[kind]
    with pytest.raises(UserError, match=words) as raised:
        Config(class_weights=write(tmp_path / "weights", text))
    assert "--class_weights=" in str(raised.value)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"class_weights": "balnced"}, "did you mean balanced"),
        ({"class_weights": "/no/such/file"}, "No such file"),
        ({"class_weights": "/dev/zero"}, "not a regular file"),
        ({"class_weights": "/tmp"}, "cannot be read"),
        ({"metrics": "acuracy"}, "did you mean accuracy"),
        ({"metrics": "top_0"}, "top_K"),
        ({"best_metric": "f1,accuracy"}, "one metric"),
        ({"best_metric": "f1_per_class"}, "one metric"),
        ({"sampling": "even"}, "choose one of uniform, balanced"),
    ],
)
def test_bad_flags(values, words):
    with pytest.raises(UserError, match=words):
        Config(**values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"metrics": "top_2"}, "always 1 with 2 classes"),
        ({"class_weights": '{"rare": 1}'}, "'common' has no weight"),
        ({"class_weights": '{"rare": 1, "comon": 1, "common": 2}'}, "did you mean 'common'"),
    ],
)
def test_flags_that_the_classes_do_not_fit(values, words, tmp_path):
    with pytest.raises(UserError, match=words):
        run(Config(workdir=str(tmp_path / "run"), **values))
    assert not (tmp_path / "run").exists()
