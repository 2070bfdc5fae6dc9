"""Malicious descriptions and names of data sets, as cases of `hostile`."""

import json
import os

from tests.data import folders
from tests.data.folders import features, image_feature, info, label_feature
from tests.data.hostile_cases import EVIL, SECRET, TFDS, case, cases

DEEP = "[" * 100_000


def nested(name):
    return {"featuresDict": {"features": {}}, "pythonClassName": name}


@cases({
    "class at the top": nested(EVIL),
    "class of a feature": features(more={"text": {}, "pythonClassName": EVIL}),
    "class in a sequence": features(more={
        "pythonClassName": f"{folders.CORE}.sequence_feature.Sequence",
        "sequence": {"feature": nested(EVIL)},
    }),
    "class in a data set in a dictionary": features(more={
        "pythonClassName": f"{folders.CORE}.features_dict.FeaturesDict",
        "featuresDict": {"features": {"x": {"dataset": {"feature": nested(EVIL)}}}},
    }),
    "class by its other key": features(more={"python_class_name": EVIL, "text": {}}),
    "class by both keys": features(more={
        "pythonClassName": f"{folders.CORE}.text_feature.Text", "python_class_name": EVIL,
    }),
    "class in text": features(more={
        "pythonClassName": f"{folders.CORE}.features_dict.FeaturesDict",
        "jsonFeature": {"json": json.dumps({"x": nested(EVIL)})},
    }),
    "class in text in text": features(more={
        "pythonClassName": f"{folders.CORE}.features_dict.FeaturesDict",
        "jsonFeature": {"json": json.dumps({"json": json.dumps(nested(EVIL))})},
    }),
    "class of the old form": {"type": EVIL, "content": {}, "proto_cls": ""},
    "class of the old form, nested": {
        "type": f"{folders.CORE}.features_dict.FeaturesDict",
        "content": {"x": {"type": EVIL, "content": {}}},
    },
    "class that would be TFDS's": nested(f"{folders.CORE}.evil.Feature"),
    "class of Python": nested("os.path"),
    "class above": nested("...payload.evil"),
    "class without a dot": nested("evil"),
    "class that is a list": nested([EVIL]),
    "class with escapes": nested("\x1b[2J\x1b]0;evil\x07\n\x9b"),
    "classes, deep": DEEP,
    "classes, deep in text": features(more={"jsonFeature": {"json": DEEP}}),
    "classes, large": json.dumps(features()) + " " * (5 << 20),
    "features of nothing": "",
    "features of a number": "5",
    "features without a label": features(label=image_feature()),
    "features of no class": features(label=label_feature("0")),
    "features of many classes": features(label=label_feature("99999999999")),
    "features of minus one class": features(label=label_feature("-1")),
    "features of infinite classes": features(label=label_feature(float("inf"))),
    "features of four channels": features(image=image_feature(4)),
})  # fmt: skip
def _features(data, content):
    folders.pictures(data, features=content)
    return TFDS


def split(**changes):
    first, second = info()["splits"]
    return [first, second | changes]


@cases({
    "info with a class": info(features=nested(EVIL)),
    "info, deep": DEEP,
    "info of text": '"x"',
    "template above": info(splits=split(filepathTemplate=f"../../../{SECRET}/{{SHARD_X_OF_Y}}")),
    "template of the root": info(splits=split(filepathTemplate="/etc/passwd")),
    "template that formats": info(splits=split(filepathTemplate="{SPLIT:>9999999999}")),
    "template of attributes": info(splits=split(filepathTemplate="{SPLIT.__class__.__mro__}")),
    "template of a number": info(splits=split(filepathTemplate=5)),
    "split above": info(splits=split(name=f"x/../../../../{SECRET}/x")),
    "split with escapes": info(splits=split(name="\x1b[2J\n")),
    "name above": info(name=f"../../../{SECRET}/x"),
    "name with escapes": info(name="\x1b[2J\x9b\u202e\n"),
    "config above": info(configName=f"../../{SECRET}"),
    "config of a list": info(configName=["x"]),
    "another version": info(version="9.9.9"),
    "another format": info(fileFormat="tfrecord"),
    "formats of a number": info(fileFormat="tfrecord", alternativeFileFormats=5),
    "splits of a number": info(splits=5),
    "no splits": info(splits=[]),
    "shards of a number": info(splits=split(shardLengths=5)),
    "no shards": info(lengths=()),
    "minus one example": info(lengths=("-1",)),
    "half an example": info(lengths=(0.5,)),
    "too many examples": info(lengths=("999999999999",)),
    "examples beyond 64 bits": info(lengths=("9" * 30,)),
    "an example too few": info(lengths=("3",)),
    "a shard that is not there": info(lengths=("2", "2")),
    "300,000 shards": info(lengths=("0",) * 300_000),
})  # fmt: skip
def _info(data, content):
    folders.pictures(data, info=content)
    return TFDS


@case
def the_default_config_above(data):
    folders.pictures(data)
    (data / "pictures" / ".config").mkdir()
    content = json.dumps({"default_config_name": f"../../{SECRET}"})
    (data / "pictures" / ".config" / "metadata.json").write_text(content, encoding="utf-8")
    return TFDS


@case
def the_default_config_a_pipe(data):
    folders.pictures(data)
    (data / "pictures" / ".config").mkdir()
    os.mkfifo(data / "pictures" / ".config" / "metadata.json")
    return TFDS


@cases({
    "a name of a module": "data.payload.evil",
    "a name of a community": "kaggle:evil",
    "a name of a hub": "huggingface:data/payload",
    "a name with arguments": "pictures/data_dir=secret-outside",
    "a name above": "pictures/../../secret-outside",
    "a version of everything": "pictures:*.*.*",
    "a version that is not there": "pictures:2.0.0",
    "a config that is not there": "pictures/x",
    "a name of Python": "pictures:__import__('os')",
})  # fmt: skip
def _names(data, name):
    folders.pictures(data)
    return [f"--dataset={name}", "--data_dir=data"]


@case
def a_data_folder_of_no_utf_8(data):
    folders.pictures(data)
    return ["--dataset=pictures", os.fsdecode(b"--data_dir=data/\xff")]


@case
def a_data_folder_with_an_escape(data):
    folders.pictures(data)
    return ["--dataset=pictures", "--data_dir=data\x9b2J"]
