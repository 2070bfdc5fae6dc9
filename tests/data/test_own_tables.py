"""CSV and Parquet tables: reading, kinds of columns, splits, and rows of texts."""

import json
import os

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from sklearn.datasets import load_breast_cancer, load_wine

from jaxdl.data import own_tables, table_files, tables
from jaxdl.data.own_tables import Options
from jaxdl.data.spec import DataSpec
from jaxdl.data.table_files import Rejected
from jaxdl.data.table_rows import encode
from jaxdl.errors import UserError

SPLITS = ("train", "validation", "test")
HEADER = "size,colour,price\n"


def rows(count, seed=0):
    """Lines of a table with numbers, categories and holes."""
    random = np.random.RandomState(seed)
    sizes = random.uniform(1, 9, count)
    colours = random.choice(["red", "blue", ""], count)
    return [
        f"{'NA' if n % 7 == 0 else f'{s:.3f}'},{c},{10 * s + (c == 'red'):.4f}"
        for n, (s, c) in enumerate(zip(sizes, colours, strict=True))
    ]


def save(folder, text, name="t.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def csv_table(text, skip=False, delimiter="comma"):
    content = text if isinstance(text, bytes) else text.encode()
    return table_files.read_csv("t.csv", content, delimiter, Rejected(skip))


def load(path, seed=0, **options):
    return own_tables.load(path, Options("price", **options), seed)


def values(data, split):
    """Rows of a split as tuples."""
    part = getattr(data, split)
    return list(map(tuple, np.column_stack([np.nan_to_num(part["x"], nan=-1), part["y"]])))


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,x\n2,\"y, z\"\n",
        "\ufeffa,b\r\n1,x\r\n2,\"y, z\"",
        "a, b\r1,x\r\r2, \"y, z\"\r",
        " a ,b\n\n 1, x \n2,\"y, z\"\n\n",
    ],
)  # fmt: skip
def test_csv_with_any_line_ends_and_quotes(text):
    table = csv_table(text)
    assert list(table.columns) == ["a", "b"]
    np.testing.assert_array_equal(table.columns["a"].numbers, [1, 2])
    assert [table.columns["b"].text(n) for n in (0, 1)] == ["x", "y, z"]


def test_a_row_has_the_number_of_its_first_line():
    table = csv_table('a,b\n1,"two\nlines"\n2,x\n\n3,y\n')
    assert [table.place(n) for n in range(3)] == ["t.csv, line 2", "t.csv, line 4", "t.csv, line 6"]


def test_semicolons_and_tabs():
    for word, mark in {"semicolon": ";", "tab": "\t"}.items():
        table = csv_table(f"a{mark}b\n1{mark}2,5\n", delimiter=word)
        assert table.columns["b"].text(0) == "2,5"
        with pytest.raises(UserError, match=f"--delimiter={word}"):
            csv_table(f"a{mark}b\n1{mark}2\n")


@pytest.mark.parametrize("text", ["", "NA", "NaN", "nan", "?", "  "])
def test_missing_values(text):
    column = csv_table(f"a,b\n1,{text}\n2,3\n").columns["b"]
    assert column.missing.tolist() == [True, False]
    assert not column.invalid().any()


@pytest.mark.parametrize("text", ["inf", "1e39", "1_000", "0x10", "1,5", "--1", "1e", "\u0661"])
def test_texts_that_are_not_numbers(text):
    assert csv_table(f'a,b\n1,"{text}"\n').columns["b"].invalid().all()


@pytest.mark.parametrize(("text", "value"), [("-1.5e3", -1500), (".5", 0.5), ("+7.", 7)])
def test_texts_that_are_numbers(text, value):
    assert csv_table(f"a,b\n1,{text}\n").columns["b"].numbers == [value]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "t.csv is empty"),
        ("\n\n", "t.csv is empty"),
        ("a,b\n", "no rows below"),
        ("1,2\n3,4\n", "begins with the numbers 1, 2: its first line must have the names"),
        ("a,a\n1,2\n", "two columns 'a'"),
        ("a, \n1,2\n", "a column without name"),
        ("a" * 201 + ",b\n1,2\n", "the name 'aaa"),
        ("a,b\n1,2\n1\n", "line 3 has 1 fields, and there are 2 columns.*--on_bad_example=skip"),
        ("a,b\n1,2,3\n", "line 2 has 3 fields"),
        ("a,b\n1,2\n3,\0\n", "line 3 has a NUL byte"),
        (b"a,b\n1,\xff\n", "line 2 has bytes that are not UTF-8"),
        ('a,b\n1,"2\n', "line 2: unexpected end of data"),
        ('a,b\n1,2\n1,"2"3\n', "line 3: ',' expected after"),
        (f"a,b\n1,{'x' * 200_000}\n", "line 2: field larger than field limit"),
    ],
)
def test_files_that_are_no_table(text, match):
    content = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(UserError, match=match):
        table_files.read(table_files.Source("t.csv", ".csv", content), "comma", Rejected(False))


def test_a_table_of_too_many_fields(monkeypatch):
    monkeypatch.setattr(table_files, "CELLS", 3)
    with pytest.raises(UserError, match=r"save it as \.parquet"):
        csv_table("a,b\n1,2\n3,4\n")


def test_a_number_of_x_is_that_of_the_file(tmp_path):
    text = HEADER + "\n".join(rows(50))
    data = load(save(tmp_path, text))
    assert data.spec.columns == ("size", "colour")
    assert data.spec.categories == (("colour", ("blue", "red")),)
    assert [len(getattr(data, split)["y"]) for split in SPLITS] == [35, 5, 10]
    wanted = []
    for size, colour, price in (line.split(",") for line in rows(50)):
        index = {"blue": 0.0, "red": 1.0, "": -1.0}[colour]
        number = -1.0 if size == "NA" else float(np.float32(size))
        wanted.append((number, index, float(np.float32(price))))
    found = [row for split in SPLITS for row in values(data, split)]
    assert sorted(found) == sorted(wanted)
    for split in SPLITS:
        part = getattr(data, split)
        np.testing.assert_allclose(part["centre"], part["y"].mean(), rtol=1e-6)


def test_constants_ignore_missing_values(tmp_path):
    data = load(save(tmp_path, HEADER + "\n".join(rows(50))))
    x, y = data.train["x"].astype(np.float64), data.train["y"].astype(np.float64)
    size = x[~np.isnan(x[:, 0]), 0]
    mean, std = data.spec.statistics()
    np.testing.assert_allclose(mean, [size.mean(), 0], rtol=1e-5)
    np.testing.assert_allclose(std, [size.std(), 1], rtol=1e-5)
    np.testing.assert_allclose(data.spec.constant("missing"), np.isnan(x).mean(0), rtol=1e-5)
    np.testing.assert_allclose(data.spec.constant("y_mean"), y.mean(), rtol=1e-5)
    np.testing.assert_allclose(data.spec.constant("y_std"), y.std(), rtol=1e-5)
    assert DataSpec.from_json(data.spec.to_json()) == data.spec


def test_the_seed_chooses_the_split_and_not_the_fingerprint(tmp_path):
    path = save(tmp_path, HEADER + "\n".join(rows(50)))
    first, again, other = load(path, 1), load(path, 1), load(path, 2)
    assert values(first, "test") == values(again, "test") != values(other, "test")
    assert first.spec.fingerprint == other.spec.fingerprint


def test_the_fingerprint_is_that_of_the_bytes_and_of_their_reading(tmp_path):
    text = HEADER + "\n".join(rows(50))
    one, moved = save(tmp_path, text), save(tmp_path, text, "moved.csv")
    other = save(tmp_path, text.replace("red", "green", 1), "other.csv")
    found = {
        load(one).spec.fingerprint,
        load(other).spec.fingerprint,
        load(one, leave_out="colour").spec.fingerprint,
        load(one, on_bad_example="skip").spec.fingerprint,
        load(one, test_fraction=0.3).spec.fingerprint,
    }
    assert len(found) == 5
    assert load(moved).spec.fingerprint in found


def test_classes_keep_their_shares(tmp_path):
    text = "x,price\n" + "\n".join(f"{n},{'abbbb'[n % 5]}" for n in range(100))
    data = load(save(tmp_path, text))
    assert data.spec.classes == ("a", "b")
    for split, count in zip(SPLITS, (14, 2, 4), strict=True):
        assert np.bincount(getattr(data, split)["y"]).tolist() == [count, 4 * count]
        assert getattr(data, split)["y"].dtype == np.int32


@pytest.mark.parametrize(
    ("target", "kind", "classes"),
    [
        (["10", "9", "2.0", "2"], "auto", ("2", "9", "10")),
        (["b", "10", "9", "b"], "auto", ("10", "9", "b")),
        (["1", "2"], "number", ()),
        (["0.5", "2", "3"], "auto", ()),
        ([str(n) for n in range(11)], "auto", ()),
        ([str(n) for n in range(11)], "class", tuple(map(str, range(11)))),
    ],
)
def test_kinds_of_targets(target, kind, classes, tmp_path):
    lines = [f"{n},{target[n % len(target)]}" for n in range(40 * len(target))]
    data = load(save(tmp_path, "x,price\n" + "\n".join(lines)), target_type=kind)
    assert data.spec.classes == classes
    for split in SPLITS:
        part = getattr(data, split)
        for (x,), y in zip(part["x"], part["y"], strict=True):
            text = target[int(x) % len(target)]
            assert float(classes[y] if classes else y) == float(text) if text != "b" else y == 2


@pytest.mark.parametrize("text", ["inf", "1e300", "3e38", "-1e31", "1O", "ten"])
@pytest.mark.parametrize("column", ["a", "price"])
def test_a_mistyped_cell_is_named_with_every_seed(column, text, tmp_path, capsys):
    lines = [[f"{n / 7:.3f}", f"{n / 3:.3f}"] for n in range(60)]
    lines[22][column == "price"] = text
    path = save(tmp_path, "a,price\n" + "\n".join(map(",".join, lines)))
    way_out = "--categorical=a" if column == "a" else "--target_type=class"
    for seed in range(4):
        with pytest.raises(UserError, match=f"line 24, column {column}: '{text}' .*1e30") as caught:
            load(path, seed)
        assert way_out in str(caught.value)
        assert "--on_bad_example=skip" in str(caught.value)
        assert capsys.readouterr().err == ""
        data = load(path, seed, on_bad_example="skip")
        assert sum(len(getattr(data, split)["y"]) for split in SPLITS) == 59
        assert (data.spec.categories, data.spec.classes) == ((), ())
        assert "1 rows are left out; first: t.csv, line 24" in capsys.readouterr().err


def test_numbers_are_at_most_1e30(tmp_path):
    lines = [f"{n},{n}.5" for n in range(40)]
    path = save(tmp_path, "a,price\n" + "\n".join([*lines, "1e30,-1e30"]))
    assert sum(len(getattr(load(path), split)["y"]) for split in SPLITS) == 41
    table = pa.table({"a": [*range(40), 1.0], "price": [*np.arange(40) + 0.5, 3e38]})
    parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(
        UserError, match=r"row 41, column price: '3e\+38' is not a number of at most"
    ):
        load(str(tmp_path / "t.parquet"))


def test_rows_of_a_group_stay_in_one_split(tmp_path):
    lines = [f"{n},p{n % 12},{n * 1.5}" for n in range(120)]
    data = load(save(tmp_path, "x,patient,price\n" + "\n".join(lines)), group="patient")
    assert data.spec.columns == ("x",)
    groups = [set(getattr(data, split)["x"][:, 0].astype(int) % 12) for split in SPLITS]
    assert [len(group) for group in groups] == [9, 1, 2]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]


def test_a_folder_has_its_splits(tmp_path):
    save(tmp_path, HEADER + "\n".join(rows(40)), "train.csv")
    turned = "\n".join(",".join(line.split(",")[::-1]) for line in rows(9, 1))
    save(tmp_path, "price,colour,size\n" + turned, "test.csv")
    data = load(str(tmp_path))
    assert [len(getattr(data, split)["y"]) for split in SPLITS] == [36, 4, 9]
    prices = [float(line.split(",")[2]) for line in rows(9, 1)]
    np.testing.assert_allclose(data.test["y"], prices, rtol=1e-6)
    save(tmp_path, HEADER + "\n".join(rows(7, 2)), "validation.csv")
    again = load(str(tmp_path))
    assert [len(getattr(again, split)["y"]) for split in SPLITS] == [40, 7, 9]
    assert again.spec.fingerprint != data.spec.fingerprint


def test_row_names_are_left_out(tmp_path, capsys):
    lines = [f"r{n},{line}" for n, line in enumerate(rows(40))]
    data = load(save(tmp_path, '"",' + HEADER + "\n".join(lines)))
    assert data.spec.columns == ("size", "colour")
    assert "the column of row names, '', is left out" in capsys.readouterr().err
    x = encode([{"": "r1", "size": "2", "colour": "red"}], data.spec)
    np.testing.assert_array_equal(x, [[2, 1]])


def test_a_new_category_counts_as_missing(tmp_path, capsys):
    save(tmp_path, HEADER + "\n".join(rows(40)), "train.csv")
    save(tmp_path, HEADER + "1,green,3.5\n2,red,4.5\n3,green,5\n", "test.csv")
    data = load(str(tmp_path))
    assert np.isnan(data.test["x"][:, 1]).tolist() == [True, False, True]
    assert "colour: 2 values are in no training row" in capsys.readouterr().err


def test_damaged_rows_are_left_out(tmp_path, capsys):
    good = rows(40)
    bad = ["1,red", "1,red,", "1,red,much", "much,red,4.5"]
    text = HEADER + "\n".join([*good[:20], *bad, *good[20:]])
    path, options = save(tmp_path, text), {"numeric": "size", "target_type": "number"}
    data = load(path, on_bad_example="skip", **options)
    assert sum(len(getattr(data, split)["y"]) for split in SPLITS) == 40
    told = capsys.readouterr().err
    assert "4 rows are left out; first: t.csv, line 22 has 2 fields" in told
    with pytest.raises(UserError, match=r"t\.csv, line 22 has 2 fields"):
        load(path, **options)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ("1,red,", "line 42, column price: '' is missing, and it is the target"),
        ("1,red,much", "line 42, column price: 'much' is not a number"),
        ("much,red,4.5", "line 42, column size: 'much' is not a number"),
    ],
)
def test_a_damaged_row_names_file_line_column_and_value(bad, match, tmp_path):
    path = save(tmp_path, HEADER + "\n".join([*rows(40), bad]))
    with pytest.raises(UserError, match=f"t.csv, {match}.*--on_bad_example=skip"):
        load(path, numeric="size", target_type="number")


def test_a_bad_number_outside_training_is_no_category(tmp_path):
    save(tmp_path, HEADER + "\n".join(rows(40)), "train.csv")
    save(tmp_path, HEADER + "much,red,3.5\n2,red,4.5\n", "test.csv")
    with pytest.raises(UserError, match=r"test\.csv, line 2, column size: 'much' is not a number"):
        load(str(tmp_path))


def test_kinds_of_columns_can_be_forced(tmp_path, capsys):
    lines = [f"{n % 5},{n % 30},{n * 1.5}" for n in range(60)]
    path = save(tmp_path, "a,b,price\n" + "\n".join(lines))
    data = load(path, categorical='"a", b')
    assert [name for name, _ in data.spec.categories] == ["a", "b"]
    assert dict(data.spec.categories)["a"] == ("0", "1", "2", "3", "4")
    assert load(path).spec.categories == ()
    mixed = save(tmp_path, "a,price\n" + "\n".join([*(f"{n},{n}.5" for n in range(40)), "x,1.5"]))
    for seed in range(5):
        with pytest.raises(
            UserError, match=r"t\.csv, line 42, column a: 'x' .*--categorical=a, or"
        ):
            load(mixed, seed)
    few = [f"{n % 9},{n}.5" for n in range(40)]
    found = [
        load(save(tmp_path, "a,price\n" + "\n".join([*few, "x,1.5"])), seed) for seed in range(5)
    ]
    assert all([name for name, _ in data.spec.categories] == ["a"] for data in found)
    assert "as 'x' is not a number: --numeric=a refuses it" in capsys.readouterr().err
    names = save(tmp_path, "a,price\n" + "\n".join(f"n{n},{n}.5" for n in range(40)))
    with pytest.raises(UserError, match="most rows have a text of their own in a"):
        load(names)


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        ({"leave_out": "weight"}, "--leave_out=weight: t.csv has no such column.*size, colour"),
        ({"numeric": "size,b"}, "--numeric=b"),
        ({"categorical": "b"}, "--categorical=b"),
        ({"group": "b"}, "--group=b"),
        ({"group": "price"}, "two flags name column price"),
        ({"numeric": "size", "categorical": "size"}, "two flags name column size"),
        ({"leave_out": "size,colour"}, "no column besides"),
        ({"group": "colour"}, "'' is missing, and it is the group"),
        ({"test_fraction": 0.0}, "--test_fraction=0.0"),
        ({"target_type": "class"}, None),
    ],
)
def test_flags_that_do_not_fit(flags, match, tmp_path):
    path = save(tmp_path, HEADER + "\n".join(rows(1500 if match is None else 40)))
    with pytest.raises(UserError, match=match or "classes: the limits are 2 and 1,000"):
        load(path, **flags)


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        (["1,a"] * 20, "has 1 classes"),
        (["1,7.5"] * 20, "the target is 7.5 in all rows"),
        (["1,"] * 20, "is missing, and it is the target"),
    ],
)
def test_targets_without_information(lines, match, tmp_path):
    path = save(tmp_path, "x,price\n" + "\n".join(lines))
    with pytest.raises(UserError, match=match):
        load(path)


def test_the_only_row_of_a_class_is_for_training(tmp_path):
    path = save(tmp_path, "x,price\n" + "\n".join(f"1,{text}" for text in "ab" + 18 * "a"))
    for seed in range(5):
        assert np.bincount(load(path, seed).train["y"]).tolist() == [13, 1]
    save(tmp_path, "x,price\n" + "\n".join(f"1,{text}" for text in "ab" * 10), "train.csv")
    save(tmp_path, "x,price\n1,a\n2,c\n", "test.csv")
    with pytest.raises(UserError, match="class 'c' of the target is in no training row"):
        load(str(tmp_path))


def test_links_and_folders(tmp_path):
    (tmp_path / "in").mkdir()
    outside = save(tmp_path, HEADER + "\n".join(rows(40)))
    (tmp_path / "in" / "train.csv").symlink_to(outside)
    (tmp_path / "in" / "test.csv").symlink_to(outside)
    with pytest.raises(UserError, match=r"train\.csv is a link out of the folder"):
        load(str(tmp_path / "in"))
    with pytest.raises(UserError, match=r"has no train\.csv or train\.parquet"):
        load(str(tmp_path))
    with pytest.raises(UserError, match="No such file"):
        load(str(tmp_path / "none.csv"))
    with pytest.raises(UserError, match=r"a table ends in \.csv or \.parquet"):
        load(str(tmp_path / "none.xlsx"))
    with pytest.raises(UserError, match="File name too long"):
        load("/" + "a" * 300 + ".csv")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(UserError, match="not a regular file"):
        load(str(tmp_path / "pipe.csv"))
    (tmp_path / "in" / "train.parquet").touch()
    with pytest.raises(UserError, match=r"has train.csv and train.parquet"):
        load(str(tmp_path / "in"))


def test_a_file_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setitem(table_files.LARGEST, ".csv", 10)
    with pytest.raises(UserError, match="has more than 10 bytes: leave out rows"):
        load(save(tmp_path, HEADER + "1,red,3.5\n"))


def test_parquet_is_read_as_the_same_csv(tmp_path):
    lines = [line.split(",") for line in rows(50)]
    number = [None if size == "NA" else float(size) for size, _, _ in lines]
    colour = pa.array([colour or None for _, colour, _ in lines]).dictionary_encode()
    price = pa.array([float(price) for _, _, price in lines])
    table = pa.table({"size": pa.array(number, pa.float64()), "colour": colour, "price": price})
    parquet.write_table(table, tmp_path / "t.parquet")
    first = load(save(tmp_path, HEADER + "\n".join(rows(50))))
    second = load(str(tmp_path / "t.parquet"))
    for split in SPLITS:
        for name, array in getattr(first, split).items():
            np.testing.assert_array_equal(array, getattr(second, split)[name])
    assert first.spec.categories == second.spec.categories
    assert first.spec.fingerprint != second.spec.fingerprint


def test_kinds_of_parquet_columns(tmp_path):
    columns = {
        "flag": pa.array([True, False, None] * 20),
        "whole": pa.array([1, 2, None] * 20, pa.int8()),
        "text": pa.array(["NA", "", "x"] * 20, pa.large_string()),
        "day": pa.array([0, 1, 1] * 20, pa.date32()),
        "price": pa.array(np.arange(60) * 0.5),
    }
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    data = load(str(tmp_path / "t.parquet"))
    assert data.spec.categories == (
        ("flag", ("false", "true")),
        ("text", ("", "NA", "x")),
        ("day", ("1970-01-01", "1970-01-02")),
    )
    assert np.nanmax(data.train["x"][:, 1]) == 2
    nested = pa.table(columns | {"list": pa.array([[1]] * 60)})
    parquet.write_table(nested, tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"column list is of type list.*as numbers or texts"):
        load(str(tmp_path / "t.parquet"))


def test_a_damaged_parquet_file(tmp_path):
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"a": list(range(1000)), "price": np.arange(1000) * 0.5}), path)
    whole = path.read_bytes()
    for content in (b"", b"PAR1", whole[:-9], whole[:300] + whole[400:]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"t\.parquet"):
            load(str(path))


def test_a_parquet_file_that_is_too_large(tmp_path, monkeypatch):
    from jaxdl.data import parquet as parquet_files

    parquet.write_table(pa.table({"a": [1, 2], "price": [0.5, 1.5]}), tmp_path / "t.parquet")
    monkeypatch.setattr(parquet_files, "CELLS", 3)
    with pytest.raises(UserError, match="has 2 rows and 2 columns"):
        load(str(tmp_path / "t.parquet"))


def test_rows_of_texts_are_encoded_by_the_description_alone(tmp_path):
    data = load(save(tmp_path, HEADER + "\n".join(rows(50))))
    spec = DataSpec.from_json(data.spec.to_json())
    names = HEADER.strip().split(",")
    texts = [dict(zip(names, line.split(","), strict=True)) for line in rows(50)]
    x = encode(texts, spec, ignored=("price",))
    found = {tuple(row) for row in np.nan_to_num(x, nan=-1)}
    assert found == {row[:2] for split in SPLITS for row in values(data, split)}
    raw = [{"size": 2, "colour": None}, {"size": None, "colour": "green"}]
    np.testing.assert_array_equal(encode(raw, spec), [[2, np.nan], [np.nan, np.nan]])
    assert encode([], spec).shape == (0, 2)


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ({"size": "1"}, "row 1: no column 'colour'"),
        ({"size": "1", "colour": "red", "price": "3"}, "row 1: a column 'price'"),
        ({"size": "big", "colour": "red"}, "row 1: column size: 'big' is not a number"),
        ({"size": float("inf"), "colour": "red"}, "'inf' is not a number"),
    ],
)
def test_rows_that_do_not_fit_the_description(row, match, tmp_path):
    data = load(save(tmp_path, HEADER + "\n".join(rows(50))))
    with pytest.raises(UserError, match=match):
        encode([row], data.spec)


@pytest.mark.parametrize(
    ("load_table", "bunch", "sizes"),
    [
        (tables.breast_cancer, load_breast_cancer(), (398, 57, 114)),
        (tables.wine, load_wine(), (124, 18, 36)),
    ],
)
def test_embedded_tables(load_table, bunch, sizes):
    data = load_table(1)
    splits = [getattr(data, name) for name in SPLITS]
    assert tuple(len(split["y"]) for split in splits) == sizes
    found = np.concatenate([np.column_stack([split["x"], split["y"]]) for split in splits])
    wanted = np.column_stack([bunch.data.astype(np.float32), bunch.target])
    np.testing.assert_array_equal(sorted(map(tuple, found)), sorted(map(tuple, wanted)))
    assert json.loads(data.spec.to_json())["classes"] == list(bunch.target_names)
