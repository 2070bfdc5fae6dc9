"""Malicious data sets of texts, as cases of `hostile`."""

from tests.data import folders
from tests.data.folders import example, features, info, png
from tests.data.hostile_cases import EVIL, PUTS, cases, put_pipe
from tests.data.hostile_descriptions import split

IMDB = info(name="imdb_reviews", configName="plain_text")
TEXTS = features(text=folders.text_feature())


@cases({
    "reviews with a class": (IMDB, features(x={"text": {}, "pythonClassName": EVIL}), b"good"),
    "reviews without a text": (IMDB, features(), b"good"),
    "reviews of another name": (info(name="../x"), TEXTS, b"good"),
    "reviews of no UTF-8": (IMDB, TEXTS, b"\xff\xfe"),
})  # fmt: skip
def _reviews(data, argument):
    dataset_info, feature_spec, text = argument
    records = [example(png(), n % 2, text) for n in range(4)]
    place = "imdb_reviews/plain_text/1.0.0"
    folders.pictures(data, records, dataset_info, feature_spec, place)
    return ["imdb_rnn", "--dataset=imdb_reviews", "--data_dir=data"]


@cases(
    {
        "a play that is not in an example": info(name="tiny_shakespeare"),
        "a play with a template": info(
            name="tiny_shakespeare", splits=split(filepathTemplate="/x")
        ),
        "a play without validation": info(name="tiny_shakespeare"),
    }
)
def _plays(data, content):
    records = [example(png())] * 4
    folders.pictures(data, records, content, TEXTS, "tiny_shakespeare/1.0.0")
    return ["shakespeare_lm", "--dataset=tiny_shakespeare", "--data_dir=data"]


def put_large(path):
    with path.open("wb") as file:
        file.truncate(100 << 30)  # a sparse file


@cases({f"{kind} as sentences": put for kind, put in {**PUTS, "a large file": put_large}.items()})
def _sentences(data, put):
    (data / "x.en").write_text("a line\n" * 30, encoding="utf-8")
    put(data / "x.de")
    files = ["--source_file=data/x.en", "--target_file=data/x.de"]
    return ["multi30k_seq2seq", "--dataset=files", *files]


@cases({
    "captions of no UTF-8": lambda path: path.write_bytes(b"\xff\n" * 30),
    "captions on a long line": lambda path: path.write_bytes(b"x" * 20_000),
    "captions that are a pipe": put_pipe,
})  # fmt: skip
def _captions(data, put):
    for part in ("train", "val", "test_2016_flickr"):
        for language in ("en", "de"):
            (data / f"{part}.{language}").write_text("a line\n" * 30, encoding="utf-8")
    (data / "val.de").unlink()
    put(data / "val.de")
    return ["multi30k_seq2seq", "--dataset=multi30k", "--data_dir=data"]
