"""CSV and Parquet tables: reading, kinds of columns, splits, and rows of texts."""

import json

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from sklearn.datasets import load_breast_cancer, load_wine

from jaxdl.data import tables
from jaxdl.data.spec import DataSpec
from jaxdl.data.table_rows import encode
from jaxdl.errors import UserError
from tests.data.made_tables import HEADER, SPLITS, load, rows, save, values


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
