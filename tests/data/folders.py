"""TFDS folders and image folders written by hand, valid or damaged."""

import io
import json

import numpy as np
from PIL import Image

CORE = "tensorflow_datasets.core.features"
TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


def png(size=(8, 8), seed=0, mode="RGB", **options):
    """Returns a PNG of noise, as bytes."""
    shape = (*size[::-1], 3) if mode == "RGB" else size[::-1]
    pixels = np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", **options)
    return file.getvalue()


def image_feature(channels=3):
    shape = {"dimensions": ["-1", "-1", str(channels)]}
    name = f"{CORE}.image_feature.Image"
    return {"image": {"dtype": "uint8", "shape": shape}, "pythonClassName": name}


def label_feature(classes="2"):
    name = f"{CORE}.class_label_feature.ClassLabel"
    return {"classLabel": {"numClasses": classes}, "pythonClassName": name}


def text_feature():
    return {"text": {}, "pythonClassName": f"{CORE}.text_feature.Text"}


def features(**named):
    """Returns the content of `features.json`."""
    named = {"image": image_feature(), "label": label_feature()} | named
    name = f"{CORE}.features_dict.FeaturesDict"
    return {"featuresDict": {"features": named}, "pythonClassName": name}


def info(lengths=("4",), **changes):
    """Returns the content of `dataset_info.json`."""
    splits = [
        {"name": name, "numBytes": "9", "shardLengths": list(lengths), "filepathTemplate": TEMPLATE}
        for name in ("train", "test")
    ]
    basic = {"name": "pictures", "version": "1.0.0", "fileFormat": "array_record"}
    return basic | {"splits": splits} | changes


def example(image=None, label=0, text=None):
    """Returns a serialised record."""
    from tensorflow_datasets.proto import tf_example_pb2

    record = tf_example_pb2.Example()
    record.features.feature["label"].int64_list.value.append(label)
    for name, data in (("image", image), ("text", text)):
        if data is not None:
            record.features.feature[name].bytes_list.value.append(data)
    return record.SerializeToString()


def write_records(path, records):
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


def pictures(data_dir, records=None, info=None, features=None, place="pictures/1.0.0"):
    """Writes a data set with two equal splits into a TFDS folder; returns its path."""
    folder = data_dir / place
    folder.mkdir(parents=True)
    if records is None:
        records = [example(png(seed=n), n % 2) for n in range(4)]
    for split in ("train", "test"):
        write_records(
            folder / f"{place.partition('/')[0]}-{split}.array_record-00000-of-00001", records
        )
    for name, content in (
        ("dataset_info.json", globals()["info"]() if info is None else info),
        ("features.json", globals()["features"]() if features is None else features),
    ):
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def image_folder(folder, count=2):
    """Writes train/{ant,bee}/*.png and test/{ant,bee}/*.png; returns `folder`."""
    for split in ("train", "test"):
        for label, name in enumerate(("ant", "bee")):
            (folder / split / name).mkdir(parents=True)
            for n in range(count):
                (folder / split / name / f"{n}.png").write_bytes(png(seed=2 * n + label))
    return folder
