"""Tables: what is read, refused, prepared, streamed, preprocessed and split."""

import gzip
import json
import re
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunelater.data.tables import (
    Preprocessor,
    TableSchema,
    conform,
    fingerprint,
    label,
    prepare,
    read_table,
    row_hashes,
    split_rows,
    stream_table,
)
from tunelater.problems import DoubtfulInputWarning, InputError

REAL = Path(__file__).parents[2] / "shared" / "data" / "tables"


def written(folder: Path, content: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def problems_of(call: Callable[[], Any]) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        call()
    return caught.value.problems


def messy(n: int = 200, seed: int = 0) -> pd.DataFrame:
    """A table with every kind of column and missing values in each."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "amount": rng.lognormal(3, 2, n).round(2),
            "count": rng.poisson(2, n),
            "flag": rng.choice(["yes", "No"], n),
            "colour": rng.choice(["red", "green", "light blue"], n),
            "code": rng.choice(["007", "12", "A1", "1.50", "TRUE"], n),
            "day": rng.choice(["2024-01-31", "2023-12-24T18:30:00"], n),
            "typed": rng.random(n) < 0.5,
            "label": np.where(np.arange(n) % 10 == 3, "fraud", "fine"),
        }
    )
    holes = rng.random((n, 6)) < 0.05
    for i, name in enumerate(["amount", "count", "flag", "colour", "code", "day"]):
        frame[name] = frame[name].astype(object).mask(holes[:, i], None)
    return frame


SCHEMA = TableSchema(
    {"x": "numeric", "when": "numeric", "on": "boolean", "kind": "categorical"}, "y", "1", "0", dates=("when",)
)

# -------------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_dialects_of_csv_give_the_same_table(tmp_path: Path, delimiter: str, newline: str, mark: str) -> None:
    rows = [
        ["a", "b", "c d", "e"],
        ["1", "1.5", "x", "true"],
        ["-2", "?", '"y ""z"""', "False"],
        ["3", "1e3", "", "TRUE"],
    ]
    text = mark + "".join(delimiter.join(row) + newline for row in rows)
    frame = read_table(written(tmp_path, text))
    assert list(frame.columns) == ["a", "b", "c d", "e"]
    assert frame["a"].tolist() == [1, -2, 3]
    assert frame["a"].dtype == np.int64
    np.testing.assert_array_equal(frame["b"], [1.5, np.nan, 1000])
    assert frame["c d"].tolist()[:2] == ["x", 'y "z"']
    assert frame["c d"].isna().tolist() == [False, False, True]
    assert frame["e"].tolist() == [True, False, True]


def test_a_compressed_file_is_the_same_table(tmp_path: Path) -> None:
    text = messy().to_csv(index=False)
    plain = read_table(written(tmp_path, text))
    for name in ("table.csv.gz", "table.csv"):
        pd.testing.assert_frame_equal(read_table(written(tmp_path, gzip.compress(text.encode()), name)), plain)


@pytest.mark.parametrize("token", ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?", " ? "])
def test_tokens_of_missing_values(tmp_path: Path, token: str) -> None:
    frame = read_table(written(tmp_path, f"x,s\n1.5,a\n{token},{token}\n"))
    assert frame["x"].isna().tolist() == [False, True]
    assert frame["s"].isna().tolist() == [False, True]


def test_without_a_header_the_columns_are_numbered(tmp_path: Path) -> None:
    frame = read_table(written(tmp_path, "1,a\n2,b\n"), header=False)
    assert frame.to_dict("list") == {"column_1": [1, 2], "column_2": ["a", "b"]}


def test_single_quotes_go_where_every_value_has_them(tmp_path: Path) -> None:
    frame = read_table(written(tmp_path, "'y','s','t'\n'-1','a b','x'\n?,'c','it''s'\n'1',?,y'\n"))
    np.testing.assert_array_equal(frame["y"], [-1, np.nan, 1])
    assert frame["s"].tolist()[:2] == ["a b", "c"]
    assert frame["t"].tolist() == ["'x'", "'it''s'", "y'"]


def test_single_quotes_may_protect_the_delimiter(tmp_path: Path) -> None:
    assert read_table(written(tmp_path, "a,b\n'x, y',1\n'z',2\n"))["a"].tolist() == ["x, y", "z"]


def test_line_breaks_in_quotes_do_not_end_a_row(tmp_path: Path) -> None:
    assert read_table(written(tmp_path, 'a,"b\nc"\n"x\ny",1\n')).to_dict("list") == {"a": ["x\ny"], "b\nc": [1]}


def test_a_comma_is_a_decimal_point_between_semicolons_only(tmp_path: Path) -> None:
    assert read_table(written(tmp_path, "a;b\n1,5;x\n-2,25;y\n"))["a"].tolist() == [1.5, -2.25]
    assert read_table(written(tmp_path, 'a,b\n"1,5",x\n"2,5",y\n'))["a"].tolist() == ["1,5", "2,5"]


def test_numbers_that_would_lose_digits_stay_text(tmp_path: Path) -> None:
    frame = read_table(written(tmp_path, "zip,card,day\n01234,4000123412341234,2024-01-31\n99999,1,2024-02-01\n"))
    assert frame["zip"].tolist() == ["01234", "99999"]
    assert frame["card"].tolist() == ["4000123412341234", "1"]
    assert frame["day"].tolist() == ["2024-01-31", "2024-02-01"]


def test_parquet_keeps_types_and_leaves_the_unnamed_index_out(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"i": [1, 2], "s": ["a", None], "d": pd.to_datetime(["2024-01-01", "2024-01-02"])}, index=[7, 3]
    )
    frame["money"] = [Decimal("1.25"), Decimal("2.50")]
    frame.to_parquet(tmp_path / "t.parquet")
    read = read_table(tmp_path / "t.parquet")
    assert list(read.columns) == ["i", "s", "d", "money"]
    assert read["money"].tolist() == [1.25, 2.5]
    assert read["d"].dtype.kind == "M"
    assert read["i"].tolist() == [1, 2]


def parquet_of(names: list[str], rows: int = 3) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table([pa.array(range(rows), pa.int64()) for _ in names], names=names), sink)
    return bytes(sink.getvalue())


BAD_FILES = {
    "empty": ("t.csv", b"", ["empty"]),
    "blank": ("t.csv", b"\xef\xbb\xbf \n\n", ["empty"]),
    "no rows": ("t.csv", b"x,when,on,kind\n\n", ["header of 4 columns", "rows"]),
    "ragged": ("t.csv", b"a,b\n1,2\n1,2,3\n\n4\n", ["2 fields", "2 rows", "row 2 has 3", "row 3 has 1", "quotes"]),
    "zeros": ("t.csv", b"a,b\n1,\0\n", ["UTF-8", "binary"]),
    "utf-16": ("t.csv", "a,b\n1,2\n".encode("utf-16"), ["UTF-16"]),
    "latin": ("t.csv", "a,b\n1,café\n".encode("latin-1"), ["UTF-8", "0xe9", "iconv"]),
    "late latin": ("t.csv", b"a,b\n" + b"1,22222222\n" * 200_000 + b"1,\xe9\n", ["UTF-8"]),
    "excel": ("t.csv", b"PK\x03\x04 and so on", ["Excel", "CSV"]),
    "parquet as csv": ("t.csv", parquet_of(["a"]), ["Parquet", ".parquet"]),
    "csv as parquet": ("t.parquet", b"a,b\n1,2\n", ["broken"]),
    "truncated parquet": ("t.pq", parquet_of(["a", "b"])[:-40], ["broken or truncated"]),
    "damaged parquet": ("t.parquet", b"PAR1" + bytes(60) + parquet_of(["a"])[64:], ["broken or truncated"]),
    "truncated gzip": ("t.csv.gz", gzip.compress(messy(5000).to_csv().encode())[:-2000], ["broken or truncated"]),
    "parquet no rows": ("t.parquet", parquet_of(["a"], rows=0), ["0 rows"]),
    "repeated": ("t.csv", b"a,b,a, a ,b\n1,2,3,4,5\n", ["unique", "'a' (3 times)", "'b' (2 times)"]),
    "repeated parquet": ("t.parquet", parquet_of(["a", "a"]), ["unique", "'a' (2 times)"]),
    "numbers on top": ("t.csv", b"0.5,-1e3,'2'\n1,2,3\n", ["numbers only", "--no-header"]),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_refused_alike_when_read_and_when_streamed(tmp_path: Path, case: str) -> None:
    name, content, words = BAD_FILES[case]
    path = written(tmp_path, content, name)
    schema = TableSchema({"a": "numeric"}, "b", "1", "0")
    for call in (lambda: read_table(path), lambda: list(stream_table(path, schema))):
        told = "\n".join(problems_of(call))
        assert str(path) in told
        for word in words:
            assert word in told


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    schema = TableSchema({"a": "numeric"}, "b", "1", "0")
    for read in (read_table, lambda path: stream_table(path, schema)):
        assert "no such file" in problems_of(lambda read=read: read(tmp_path / "absent.csv"))[0]
        assert "folder" in problems_of(lambda read=read: read(tmp_path))[0]


# --------------------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("values", "positive", "negative", "ones"),
    [
        (["no", "yes", "no"], "yes", "no", [0, 1, 0]),
        ([1, 2, 2], "1", "2", [1, 0, 0]),
        ([0.0, 1.0, 0.0], "1", "0", [0, 1, 0]),
        ([0, 1, 0], "1.0", "0", [0, 1, 0]),
        ([1.5, 2.0, 2.0], "1.50", "2", [1, 0, 0]),
        ([True, False, False], "1", "false", [1, 0, 0]),
        ([True, False, False], "True", "false", [1, 0, 0]),
        ([True, False, False], "false", "true", [0, 1, 1]),
        (["TRUE", "false", "FALSE"], "true", "false", [1, 0, 0]),
        (["'-1'", "'1'", "'-1'"], "1", "-1", [0, 1, 0]),
        (["01", "02", "02"], "1", "02", [1, 0, 0]),
        (["01", "1", "1"], "1", "01", [0, 1, 1]),
    ],
)
def test_labels_match_by_spelling_and_by_number(
    values: list[object], positive: str, negative: str, ones: list[int]
) -> None:
    y, other = label(pd.Series(values), positive)
    assert (y.dtype, y.tolist(), other) == (np.int64, ones, negative)


def test_labels_of_pandas_own_types() -> None:
    for dtype in ("category", "str", object):
        assert label(pd.Series(["a", "b"], dtype=dtype), "b")[0].tolist() == [0, 1]
    for dtype in ("Int64", "Float64", "boolean", "int8", "float32", "bool", "category"):
        assert label(pd.Series([0, 1], dtype=dtype), "1")[0].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("values", "positive", "words"),
    [
        (["a", "a"], "a", [["exactly two values", "one only", "'a' (2 rows)"]]),
        ([None, None], "a", [["missing", "2, in rows 1, 2"], ["exactly two values", "none"]]),
        (["a", "b", None, "?"], "a", [["missing values", "2, in rows 3, 4", "label or remove"]]),
        (list("abbcccdefg"), "a", [["exactly two", "got 7: 'c' (3 rows), 'b' (2 rows)", "and 2 more"]]),
        (["fine", "fraud"], "Fraud", [["positive value", "'Fraud'", "'fine', 'fraud'", "did you mean 'fraud'"]]),
        ([0, 1], "2", [["positive value", "'2'", "'0', '1'"]]),
        ([0, 1, 2, np.nan], "3", [["missing"], ["exactly two"], ["positive value"]]),
        ([[1], [2]], "1", [["list", "convert"]]),
    ],
)
def test_bad_labels_are_all_told_at_once(values: list[object], positive: str, words: list[list[str]]) -> None:
    told = problems_of(lambda: label(pd.Series(values, name="outcome"), positive))
    assert len(told) == len(words)
    for problem, essential in zip(told, words, strict=True):
        assert "'outcome'" in problem
        for word in essential:
            assert word in problem


def test_a_regression_target_is_named_as_such_and_not_listed() -> None:
    told = problems_of(lambda: label(pd.Series(np.random.default_rng(0).normal(size=5000), name="price"), "1"))
    assert "5,000" in told[0]
    assert "measurement" in told[0]
    assert all(len(problem) < 400 for problem in told)


# -------------------------------------------------------------------------------------------------------------- prepare


def test_prepare_finds_the_kind_of_each_column() -> None:
    features, y, schema = prepare(messy(), "label", "fraud")
    assert dict(schema.columns) == {
        "amount": "numeric",
        "count": "numeric",
        "flag": "boolean",
        "colour": "categorical",
        "code": "categorical",
        "day": "numeric",
        "typed": "boolean",
    }
    assert schema.dates == ("day",)
    assert (schema.target, schema.positive, schema.negative, schema.header) == ("label", "fraud", "fine", True)
    assert y.sum() == 20
    assert list(features.columns) == list(schema.columns)
    assert set(features["flag"].dropna()) == {0, 1}
    assert set(features["code"].dropna()) == {"007", "12", "A1", "1.5", "true"}
    assert features["day"].max() == (pd.Timestamp("2024-01-31") - pd.Timestamp("1970-01-01")).days


@pytest.mark.parametrize("pair", ["true false", "T F", "yes NO", "y n"])
def test_words_for_truth_are_boolean_only_where_both_occur(pair: str) -> None:
    true, false = pair.split()
    frame = pd.DataFrame({"b": [true, false, None] * 2, "one": [true, None, true] * 2, "y": [0, 1, 0] * 2})
    features, _, schema = prepare(frame, "y", "1")
    assert dict(schema.columns) == {"b": "boolean", "one": "categorical"}
    np.testing.assert_array_equal(features["b"], [1, 0, np.nan] * 2)


def test_columns_that_carry_nothing_are_left_out_with_one_warning() -> None:
    n = 30
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "constant": ["a"] * n,
            "empty": [None] * n,
            "row": rng.permutation(n) + 1000,
            "patient_id": rng.choice(10_000, n, replace=False) * 7,
            "PatientID": np.repeat(np.arange(n // 2), 2),
            "uuid": [f"{i % 25:x}" + "-q" for i in range(n)],
            "name": [f"name {i}" for i in rng.permutation(n)],
            "long": [f"40001234123412{i:02d}" for i in rng.permutation(n)],
            "list": [[1]] * n,
            "bytes": [b"a", b"b"] * (n // 2),
            "wait": pd.to_timedelta(np.arange(n), unit="s"),
            "x": rng.normal(size=n),
            "y": np.arange(n) % 2,
        }
    )
    with pytest.warns(DoubtfulInputWarning) as caught:
        _, _, schema = prepare(frame, "y", "1")
    assert list(schema.columns) == ["x"]
    (told,) = [str(warning.message) for warning in caught]
    for name, reason in {
        "constant": "constant: 'a'",
        "empty": "every value is missing",
        "row": "identifier: 30 different whole numbers without a gap",
        "patient_id": "identifier: its name",
        "PatientID": "identifier: its name",
        "uuid": "identifier: its name",
        "name": "identifier: a different value in each of 30 rows",
        "long": "identifier: a different value",
        "list": "of the unsupported type list",
        "bytes": "of the unsupported type binary",
        "wait": "of the unsupported type duration",
    }.items():
        assert f"{name!r} ({reason}" in told


def test_measurements_are_no_identifiers() -> None:
    n = 40
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "all different": rng.normal(size=n),
            "whole floats": rng.permutation(n).astype(float),
            "gaps": rng.permutation(n) * 2,
            "paid": rng.choice(1000, n, replace=False),
            "acid": rng.choice(1000, n, replace=False),
            "store_id": np.arange(n) % 4,
            "half": np.where(np.arange(n) < 20, np.nan, 3.0),
            "day": pd.date_range("2024-01-01", periods=n).strftime("%Y-%m-%d"),
            "y": np.arange(n) % 2,
        }
    )
    _, _, schema = prepare(frame, "y", "1")
    assert list(schema.columns) == list(frame.columns[:-1])


def test_small_tables_have_no_identifiers_but_by_name() -> None:
    frame = pd.DataFrame({"s": list("abcd"), "i": [1, 2, 3, 4], "id": [9, 2, 5, 1], "y": [0, 0, 1, 1]})
    with pytest.warns(DoubtfulInputWarning, match="'id'"):
        _, _, schema = prepare(frame, "y", "1")
    assert dict(schema.columns) == {"s": "categorical", "i": "numeric"}


def test_a_few_words_among_numbers_are_pointed_out() -> None:
    frame = pd.DataFrame({"x": [str(i % 50) for i in range(200)], "y": np.arange(200) % 2})
    frame.loc[7, "x"] = "unknown"
    with pytest.warns(DoubtfulInputWarning, match="'x' holds numbers in 199 of 200 cells.*row 8: 'unknown'"):
        _, _, schema = prepare(frame, "y", "1")
    assert schema.columns["x"] == "categorical"


def test_text_of_numbers_is_numeric_but_declared_categories_and_codes_are_not() -> None:
    frame = pd.DataFrame({"text": ["1", "2.5", "7"] * 2, "zip": ["01234", "98765", "10001"] * 2, "y": [0, 1] * 3})
    frame["declared"] = pd.Series([1, 2, 3] * 2, dtype="category")
    with pytest.warns(DoubtfulInputWarning, match="'zip' holds numbers with leading zeros"):
        features, _, schema = prepare(frame, "y", "1")
    assert dict(schema.columns) == {"text": "numeric", "zip": "categorical", "declared": "categorical"}
    assert features["zip"].tolist()[:2] == ["01234", "98765"]
    assert features["declared"].tolist()[:2] == ["1", "2"]


def test_prepare_tells_everything_at_once() -> None:
    frame = pd.DataFrame({"a": [1.0, np.inf, -np.inf], "b": [np.inf, 1.0, 2.0], "class": [0, 1, 2]})
    told = problems_of(lambda: prepare(frame, "class", "7"))
    assert len(told) == 4
    text = "\n".join(told)
    for words in (
        "exactly two",
        "positive value",
        "'a' must hold finite numbers, got 2 cells that do not, first in row 2",
        "'b' must hold finite numbers, got 1 cell that does not, first in row 1",
    ):
        assert words in text
    told = problems_of(lambda: prepare(frame, "clas", "1"))
    assert "did you mean 'class'" in told[0]
    assert len(told) == 3


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (pd.DataFrame({"x": [], "y": []}), "rows"),
        (pd.DataFrame({"y": [0, 1]}), "no column that can be a feature"),
        (pd.DataFrame({"c": [1, 1], "y": [0, 1]}), "no column that can be a feature: 'c' (constant: '1')"),
        (pd.DataFrame([[1, 2, 0], [2, 3, 1]], columns=["x", "x", "y"]), "unique, got 'x' (2 times)"),
        (pd.DataFrame([[1, 2, 0], [2, 3, 1]], columns=["1", 1, "y"]), "unique, got '1' (2 times)"),
    ],
)
def test_tables_without_use_are_refused(frame: pd.DataFrame, words: str) -> None:
    assert any(words in problem for problem in problems_of(lambda: prepare(frame, "y", "1")))


# --------------------------------------------------------------------------------------------------------------- schema


def test_a_schema_survives_json() -> None:
    assert TableSchema.from_json(json.loads(json.dumps(SCHEMA.to_json(), sort_keys=True))) == SCHEMA


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"columns": [["x", "colour"]]}, "numeric, boolean, categorical"),
        ({"columns": {"x": "numeric"}}, "'columns' of the type list"),
        ({"dates": ["on"]}, "dates must be numeric"),
        ({"target": None, "header": "yes"}, "'target' of the type str, got None\na table schema needs 'header'"),
    ],
)
def test_a_damaged_schema_is_refused(change: dict[str, Any], words: str) -> None:
    assert words in "\n".join(problems_of(lambda: TableSchema.from_json(SCHEMA.to_json() | change)))
    assert problems_of(lambda: TableSchema.from_json([]))  # type: ignore[arg-type]


# -------------------------------------------------------------------------------------------------------------- conform


def test_conform_gives_one_form_for_text_and_types() -> None:
    text = pd.DataFrame(
        {
            "extra": ["a", "b", "c", "d"],
            "kind": ["1.50", "'007'", "TRUE", "?"],
            "on": ["Yes", "0", "f", ""],
            "x": ["1e3", " -0 ", "+2.5", "NA"],
            "when": ["1970-01-02", "1970-01-01T12:00", "1970-01-01T02:00:00+02:00", None],
        }
    )
    typed = pd.DataFrame(
        {
            "when": pd.to_datetime(["1970-01-02", "1970-01-01T12:00", "1970-01-01", None], format="ISO8601"),
            "x": pd.array([1000, 0, 2.5, None], dtype="Float64"),
            "on": pd.array([True, False, False, None], dtype="boolean"),
            "kind": pd.Series([1.5, "007", True, None], dtype=object),
        }
    )
    a, b = conform(text, SCHEMA), conform(typed, SCHEMA)
    pd.testing.assert_frame_equal(a, b)
    assert list(a.columns) == ["x", "when", "on", "kind"]
    assert [str(dtype) for dtype in a.dtypes] == ["float64", "float64", "float64", "object"]
    assert a["when"].tolist()[:3] == [1, 0.5, 0]
    assert not np.signbit(a["x"]).any()
    assert a["kind"].tolist() == ["1.5", "007", "true", None]


def test_conform_changes_nothing_the_second_time_and_keeps_the_index() -> None:
    frame = messy().drop(columns="day").set_index(np.arange(200)[::-1])
    features, _, schema = prepare(frame, "label", "fraud")
    assert features.index.equals(frame.index)
    pd.testing.assert_frame_equal(conform(features, schema), features)


def test_conform_tells_every_column_once() -> None:
    frame = pd.DataFrame(
        {
            "x": ["1", "two", "3", "four"],
            "when": ["2024-01-31", "31.1.2024", "2024-13-01", None],
            "on": [0, 1, 2, 3],
            "Kind": ["a"] * 4,
        }
    )
    told = problems_of(lambda: conform(frame, SCHEMA, first_row=100))
    assert len(told) == 4
    for problem, words in zip(
        told,
        [
            "no column 'kind'; did you mean 'Kind'?",
            "'x' must hold numbers, got 2 cells that do not, first in row 102: 'two'",
            "'when' must hold dates in the form 2024-01-31 or 2024-01-31T12:30:00, got 2 cells that do not",
            "'on' must hold true or false (or t/f, yes/no, y/n, 1/0), got 2 cells that do not, first in row 103: '2'",
        ],
        strict=True,
    ):
        assert words in problem


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ([1.0, np.inf], "'x' must hold finite numbers, got 1 cell that does not, first in row 2: 'inf'"),
        (["-Infinity", "1"], "'x' must hold finite numbers, got 1 cell that does not, first in row 1: '-Infinity'"),
        ([True, False], "'x' must hold numbers, got 2 cells"),
        (pd.to_datetime(["2024-01-01", None]), "'x' must hold numbers, got 1 cell"),
        ([[1], [2]], "'x' must hold numbers, got the type list"),
        ([b"1", b"2"], "'x' must hold numbers, got the type binary"),
        ([1 + 2j, 2], "'x' must hold numbers, got the type complex128"),
        ([{"a": 1}, 2], "'x' must hold numbers, got the type object"),
    ],
)
def test_numbers_are_needed_where_training_had_numbers(column: Any, words: str) -> None:
    schema = TableSchema({"x": "numeric"}, "y", "1", "0")
    assert words in problems_of(lambda: conform(pd.DataFrame({"x": column}), schema))[0]


def test_plain_numbers_are_no_dates() -> None:
    schema = TableSchema({"when": "numeric"}, "y", "1", "0", dates=("when",))
    assert "dates" in problems_of(lambda: conform(pd.DataFrame({"when": [20240131]}), schema))[0]


def test_a_needed_column_must_be_there_once() -> None:
    schema = TableSchema({"x": "numeric"}, "y", "1", "0")
    twice = pd.DataFrame([[1, 2, 3, 4]], columns=["x", "x", "z", "z"])
    assert "'x' (2 times)" in problems_of(lambda: conform(twice, schema))[0]
    many = pd.DataFrame(np.zeros((1, 300)), columns=[f"column number {i}" for i in range(300)])
    assert len(problems_of(lambda: conform(many, schema))[0]) < 800


# --------------------------------------------------------------------------------------------------------------- stream


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet"])
@pytest.mark.parametrize("batch_rows", [1, 7, 200, 10_000])
def test_a_stream_is_the_table_in_pieces(tmp_path: Path, name: str, batch_rows: int) -> None:
    frame = messy()
    frame["count"] = frame["count"].astype("Int64")
    frame["amount"] = frame["amount"].astype("Float64")
    if name == "t.parquet":
        frame.to_parquet(tmp_path / name, row_group_size=64)
    else:
        frame.to_csv(tmp_path / name, index=False)
    read = read_table(tmp_path / name)
    features, _, schema = prepare(read, "label", "fraud")
    pieces = list(stream_table(tmp_path / name, schema, batch_rows=batch_rows, keep=["label", "colour"]))
    assert [len(a) for a, _ in pieces[:-1]] == [batch_rows] * (len(pieces) - 1)
    pd.testing.assert_frame_equal(pd.concat([a for a, _ in pieces]), features, check_index_type=False)
    kept = pd.concat([b for _, b in pieces])
    assert list(kept.columns) == ["label", "colour"]
    assert kept["label"].tolist() == frame["label"].tolist()
    pd.testing.assert_frame_equal(conform(read, schema), features)


def test_kept_columns_are_verbatim(tmp_path: Path) -> None:
    path = written(tmp_path, "x,s\n1, 01\n2,NA\n3,\n4,'q'\n")
    ((_, kept),) = stream_table(path, TableSchema({"x": "numeric"}, "y", "1", "0"), keep=["s", "s", "x"])
    assert kept.to_dict("list") == {"s": [" 01", "NA", "", "'q'"], "x": ["1", "2", "3", "4"]}
    ((_, nothing),) = stream_table(path, TableSchema({"x": "numeric"}, "y", "1", "0"))
    assert nothing.shape == (4, 0)


NUMBERS = [
    "1",
    "-0",
    "+5",
    "007",
    "00",
    "1.50",
    "2.",
    ".5",
    "-0.0",
    "1e3",
    "1E400",
    "-inf",
    "1,5",
    "1_0",
    "0x1F",
    " 1 ",
]
NUMBERS += ["12345678901234567890", "9007199254740993", "9007199254740992", "123456789012345.0"]
WORDS = [
    "true",
    "TRUE",
    "False",
    "yes",
    "N",
    "?",
    "NA",
    "",
    "é",
    " a",
    "a,b",
    "a;b",
    "a\tb",
    'a"b',
    "a\nb",
    "2024-01-31",
]
QUOTED = ["'1'", "'a", "a'", "' 7 '", "''", "'NA'", "2024-01-31T10:00:00Z"]
CELLS = st.sampled_from(NUMBERS + WORDS + QUOTED)


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=12),
    need=st.sampled_from(["numeric", "date", "boolean", "categorical"]),
    delimiter=st.sampled_from(",;\t"),
    batch_rows=st.integers(1, 13),
)
def test_a_row_is_the_same_read_whole_or_in_pieces(
    rows: list[tuple[str, str]], need: Any, delimiter: str, batch_rows: int
) -> None:
    """Also where a column of a piece looks like another type than the whole column; and where it is refused."""
    kind = "numeric" if need == "date" else need
    schema = TableSchema({"a": kind, "b": "categorical"}, "y", "1", "0", dates=("a",) if need == "date" else ())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        pd.DataFrame(rows, columns=["a", "b"]).to_csv(path, index=False, sep=delimiter)

        def whole() -> pd.DataFrame:
            return conform(read_table(path), schema)

        def in_pieces() -> pd.DataFrame:
            return pd.concat([piece for piece, _ in stream_table(path, schema, batch_rows=batch_rows)])

        outcomes = []
        for call in (whole, in_pieces):
            try:
                outcomes.append(row_hashes(call(), ["a", "b"]).tolist())
            except InputError as error:
                outcomes.append([re.sub(r": '.*", "", problem) for problem in error.problems])
    assert outcomes[0] == outcomes[1]


def test_a_stream_tells_what_the_header_shows_before_it_yields(tmp_path: Path) -> None:
    path = written(tmp_path, "x,When,on\n1,2024-01-31,yes\n")
    told = problems_of(lambda: stream_table(path, SCHEMA, batch_rows=0, keep=["ID"]))
    assert len(told) == 4
    for words in ("batch_rows", "'when'; did you mean 'When'", "'kind'", "column to keep, 'ID'"):
        assert words in "\n".join(told)


def test_a_stream_stops_yielding_at_the_first_bad_batch_and_tells_all_at_the_end(tmp_path: Path) -> None:
    n = 100
    frame = pd.DataFrame({"x": ["1"] * n, "when": "2024-01-31", "on": "yes", "kind": "a", "y": "0"})
    frame.loc[[25, 55, 95], "x"] = ["bad", "worse", "inf"]
    frame.loc[75, "on"] = "perhaps"
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        seen = []

        def consume(name: str = name, seen: list[int] = seen) -> None:
            for features, _ in stream_table(tmp_path / name, SCHEMA, batch_rows=10):
                seen.append(len(features))

        told = problems_of(consume)
        assert seen == [10, 10]
        assert len(told) == 3
        for words in ("got 2 cells that do not, first in row 26: 'bad'", "finite", "row 96", "row 76: 'perhaps'"):
            assert words in "\n".join(told)


def test_ragged_rows_do_not_shift_the_row_numbers_of_other_problems(tmp_path: Path) -> None:
    lines = ["x,y"] + ["1,0"] * 50
    lines[3] = "1,0,0"
    lines[4] = "1"
    lines[10] = "1,0,0"
    lines[20] = "bad,0"
    lines[30] = "1"
    path = written(tmp_path, "\n".join(lines))
    schema = TableSchema({"x": "numeric"}, "y", "1", "0")
    told = problems_of(lambda: list(stream_table(path, schema, batch_rows=4)))
    assert len(told) == 2
    assert "4 rows with another number: row 3 has 3, row 4 has 1, row 10 has 3, ..." in told[0]
    assert "row 20: 'bad'" in told[1]


def test_a_type_surprise_far_down_the_file_is_told_with_its_row(tmp_path: Path) -> None:
    n = 1_000_000
    path = written(tmp_path, "x,y\n" + "1.25,0\n" * n + "oops,1\n")
    schema = TableSchema({"x": "numeric"}, "y", "1", "0")
    assert "row 1000001: 'oops'" in problems_of(lambda: list(stream_table(path, schema)))[0]


# -------------------------------------------------------------------------------------------------------- preprocessing


def fitted(numeric: Any = "quantile") -> tuple[Preprocessor, pd.DataFrame]:
    features, _, schema = prepare(messy(), "label", "fraud")
    return Preprocessor(numeric).fit(features[:120], schema), features


@pytest.mark.parametrize("numeric", ["quantile", "standard"])
def test_what_a_row_becomes_does_not_depend_on_other_rows(numeric: str) -> None:
    preprocessor, features = fitted(numeric)
    whole = preprocessor.transform(features)
    assert whole.shape == (200, preprocessor.n_features)
    assert whole.dtype == np.float32
    assert whole.flags.c_contiguous
    assert np.isfinite(whole).all()
    for size, n in ((1, 40), (13, 200)):
        pieces = [preprocessor.transform(features[i : min(i + size, n)]) for i in range(0, n, size)]
        np.testing.assert_array_equal(np.concatenate(pieces), whole[:n])
    order = np.random.default_rng(0).permutation(200)
    np.testing.assert_array_equal(preprocessor.transform(features.iloc[order]), whole[order])
    assert preprocessor.transform(features[:0]).shape == (0, preprocessor.n_features)


def test_quantiles_of_the_training_rows_are_normal() -> None:
    x = pd.DataFrame({"x": np.random.default_rng(0).lognormal(0, 3, 5000)})
    z = Preprocessor().fit(x, TableSchema({"x": "numeric"}, "y", "1", "0")).transform(x)[:, 0]
    np.testing.assert_allclose(np.quantile(z, [0.05, 0.5, 0.95]), [-1.645, 0, 1.645], atol=0.01)
    assert (np.argsort(z, kind="stable")[10:-10] == np.argsort(x["x"], kind="stable")[10:-10]).all()


@pytest.mark.parametrize("numeric", ["quantile", "standard"])
def test_anything_that_conforms_becomes_finite(numeric: Any) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"x": rng.normal(size=50), "huge": rng.choice([1e308, -1e308, 1.0], 50), "b": rng.choice([0.0, 1.0], 50)}
    )
    frame["s"] = pd.Series(rng.choice(["a", "b"], 50), dtype=object)
    kinds: dict[str, Any] = {"x": "numeric", "huge": "numeric", "b": "boolean", "s": "categorical"}
    preprocessor = Preprocessor(numeric).fit(frame, TableSchema(kinds, "y", "1", "0"))
    odd = pd.DataFrame({"x": [1e308, -1e308, np.nan], "huge": [0, np.nan, 5e-324], "b": [np.nan, 0, 1]})
    odd["s"] = pd.Series(["new", None, "a"], dtype=object)
    assert np.isfinite(preprocessor.transform(odd)).all()
    assert np.isfinite(preprocessor.transform(frame)).all()


def test_columns_that_are_empty_in_the_training_rows_do_not_matter() -> None:
    frame = pd.DataFrame({"x": [np.nan] * 4, "b": [np.nan] * 4, "s": pd.Series([None] * 4, dtype=object)})
    kinds: dict[str, Any] = {"x": "numeric", "b": "boolean", "s": "categorical"}
    preprocessor = Preprocessor().fit(frame, TableSchema(kinds, "y", "1", "0"))
    later = pd.DataFrame({"x": [5.0], "b": [1.0], "s": pd.Series(["a"], dtype=object)})
    assert np.isfinite(preprocessor.transform(later)).all()


def test_missing_values_have_columns_of_their_own_where_training_had_some() -> None:
    frame = pd.DataFrame({"some": [1.0, np.nan, 3.0, 4.0], "none": [1.0, 2.0, 3.0, 4.0], "b": [1.0, 1.0, 0.0, np.nan]})
    schema = TableSchema({"some": "numeric", "none": "numeric", "b": "boolean"}, "y", "1", "0")
    preprocessor = Preprocessor("standard").fit(frame, schema)
    z = preprocessor.transform(frame)
    assert z[:, 2:].tolist() == [[0, 1, 0], [1, 1, 0], [0, 0, 0], [0, 1, 1]]
    np.testing.assert_allclose(z[1, 0], (3 - 2.75) / np.std([1, 3, 3, 4]), rtol=1e-6)
    assert np.isfinite(preprocessor.transform(frame * np.nan)).all()


def test_rare_new_and_missing_categories() -> None:
    values = ["a"] * 10 + ["b"] * 10 + ["rare"] * 2 + ["odd"] + [None] * 6
    frame = pd.DataFrame({"s": pd.Series(values, dtype=object)})
    preprocessor = Preprocessor().fit(frame, TableSchema({"s": "categorical"}, "y", "1", "0"))
    later = pd.DataFrame({"s": pd.Series(["a", "b", None, "rare", "odd", "new"], dtype=object)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        z = preprocessor.transform(later)
    assert z.sum(axis=1).tolist() == [1] * 6
    assert len(np.unique(z[:4], axis=0)) == 4
    assert (z[3:] == z[3]).all()
    many = pd.DataFrame({"s": pd.Series([f"c{i}" for i in range(200)] * 5, dtype=object)})
    assert Preprocessor().fit(many, TableSchema({"s": "categorical"}, "y", "1", "0")).n_features == 64


@pytest.mark.parametrize("numeric", ["quantile", "standard"])
def test_a_preprocessor_survives_its_file(tmp_path: Path, numeric: str) -> None:
    preprocessor, features = fitted(numeric)
    preprocessor.save(tmp_path / "p.skops")
    loaded = Preprocessor.load(tmp_path / "p.skops")
    np.testing.assert_array_equal(loaded.transform(features), preprocessor.transform(features))
    assert (loaded.schema, loaded.n_features, loaded.numeric) == (
        preprocessor.schema,
        preprocessor.n_features,
        preprocessor.numeric,
    )


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("this must never run",))


def test_other_types_in_a_file_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    for content in (Evil(), FunctionTransformer(print), {"transformer": FunctionTransformer(np.log)}):
        skops.io.dump(content, tmp_path / "p.skops")
        told = problems_of(lambda: Preprocessor.load(tmp_path / "p.skops"))
        assert "must hold only" in told[0]
        assert "do not load" in told[0]
    assert capsys.readouterr().out == ""


def test_a_type_smuggled_into_a_real_file_is_refused(tmp_path: Path) -> None:
    preprocessor, _ = fitted()
    preprocessor.save(tmp_path / "p.skops")
    with zipfile.ZipFile(tmp_path / "p.skops") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    for old, new in (
        (b'"ObjectNode"', b'"MethodNode"'),
        (b'"StandardScaler"', b'"Other"'),
        (b'"Pipeline"', b'"system"'),
    ):
        with zipfile.ZipFile(tmp_path / "q.skops", "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data.replace(old, new) if name == "schema.json" else data)
        if old in files["schema.json"]:
            assert "must hold only" in problems_of(lambda: Preprocessor.load(tmp_path / "q.skops"))[0]


def test_what_is_no_preprocessor_is_refused(tmp_path: Path) -> None:
    import skops.io

    skops.io.dump({"numeric": "quantile"}, tmp_path / "other.skops")
    skops.io.dump(
        {"numeric": "quantile", "schema": json.dumps(SCHEMA.to_json()), "n_features": 3, "transformer": {}},
        tmp_path / "hollow.skops",
    )
    preprocessor, _ = fitted()
    preprocessor.save(tmp_path / "p.skops")
    written(tmp_path, (tmp_path / "p.skops").read_bytes()[:-100], "cut.skops")
    written(tmp_path, "text", "text.skops")
    for name in ("other", "hollow", "cut", "text"):
        assert (
            "not written by Preprocessor.save"
            in problems_of(lambda n=name: Preprocessor.load(tmp_path / f"{n}.skops"))[0]
        )
    assert "no such file" in problems_of(lambda: Preprocessor.load(tmp_path / "absent.skops"))[0]


def test_features_that_do_not_conform_are_refused() -> None:
    preprocessor, features = fitted()
    told = problems_of(lambda: preprocessor.transform(features.drop(columns="colour").assign(amount="1", count=np.inf)))
    assert len(told) == 3
    for words in ("'colour'", "'amount' must hold finite float64", "'count' must hold finite float64", "conform"):
        assert words in "\n".join(told)
    assert "rows" in problems_of(lambda: Preprocessor().fit(features[:0], preprocessor.schema))[0]
    assert "fit" in problems_of(lambda: Preprocessor().transform(features))[0]
    assert "fit" in problems_of(lambda: Preprocessor().save("p.skops"))[0]
    assert "quantile or standard" in problems_of(lambda: Preprocessor("log"))[0]  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------ splitting


@st.composite
def fractions(draw: st.DrawFn) -> tuple[float, float, float]:
    cuts = sorted(draw(st.tuples(st.integers(0, 20), st.integers(0, 20))))
    return cuts[0] / 20, (cuts[1] - cuts[0]) / 20, (20 - cuts[1]) / 20


@given(
    y=st.tuples(st.integers(3, 60), st.integers(3, 9)).flatmap(lambda n: st.permutations([0] * n[0] + [1] * n[1])),
    sizes=fractions(),
    seed=st.integers(0, 5),
)
def test_each_row_is_in_one_split_and_each_class_is_divided_evenly(
    y: list[int], sizes: tuple[float, float, float], seed: int
) -> None:
    labels = np.array(y)
    splits = split_rows(labels, sizes, seed=seed)
    assert list(splits) == ["train", "validation", "test"]
    assert sorted(np.concatenate(list(splits.values()))) == list(range(len(y)))
    again = split_rows(labels, sizes, seed=seed)
    for size, name in zip(sizes, splits, strict=True):
        rows = splits[name]
        np.testing.assert_array_equal(rows, again[name])
        assert (np.diff(rows) > 0).all()
        assert size > 0 or not len(rows)
        for k in (0, 1):
            asked, got = size * (labels == k).sum(), (labels[rows] == k).sum()
            assert got >= (size > 0)
            if min(f * (labels == k).sum() for f in sizes if f) >= 1:
                assert abs(got - asked) < 1


def test_shares_are_the_largest_remainders() -> None:
    splits = split_rows(np.repeat([0, 1], [100, 7]), (0.6, 0.2, 0.2))
    assert [int(sum(rows >= 100)) for rows in splits.values()] == [4, 2, 1]
    splits = split_rows(np.repeat([0, 1], [100, 3]), (0.98, 0.01, 0.01))
    assert [int(sum(rows >= 100)) for rows in splits.values()] == [1, 1, 1]


def test_the_seed_decides() -> None:
    y = np.arange(100) % 2
    assert not np.array_equal(split_rows(y, seed=0)["train"], split_rows(y, seed=1)["train"])


@given(
    group=st.lists(st.integers(0, 25), min_size=60, max_size=120),
    seed=st.integers(0, 3),
    sizes=st.sampled_from([(0.6, 0.2, 0.2), (0.5, 0.5, 0), (0.8, 0.1, 0.1)]),
)
def test_no_group_is_in_two_splits(group: list[int], seed: int, sizes: tuple[float, ...]) -> None:
    y = (np.array(group) % 4 == 0).astype(int)
    names = [f"patient {g}" for g in group]
    needed = sum(size > 0 for size in sizes)
    if min(len({g for g in group if (g % 4 == 0) == k}) for k in (True, False)) < needed:
        assert problems_of(lambda: split_rows(y, sizes, seed=seed, groups=names))
        return
    splits = split_rows(y, sizes, seed=seed, groups=names)
    assert sorted(np.concatenate(list(splits.values()))) == list(range(len(y)))
    seen = [set(np.array(names)[rows]) for rows in splits.values()]
    assert sum(len(s) for s in seen) == len(set(names))
    for size, rows in zip(sizes, splits.values(), strict=True):
        assert size == 0 or set(y[rows]) == {0, 1}


def test_many_groups_are_divided_evenly() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 800, 5000)
    y = ((groups % 20 == 0) | (rng.random(5000) < 0.02)).astype(int)
    splits = split_rows(y, groups=pd.Series(groups).astype(str), seed=3)
    for size, rows in zip((0.6, 0.2, 0.2), splits.values(), strict=True):
        assert len(rows) / 5000 == pytest.approx(size, abs=0.01)
        assert y[rows].sum() / y.sum() == pytest.approx(size, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"fractions": (0.6, 0.2, 0.3)}, ["add up to 1", "1.1"]),
        ({"fractions": (1.2, -0.2, 0.0)}, ["in [0, 1]", "1.2, -0.2, 0"]),
        ({"fractions": (np.nan, 0.5, 0.5)}, ["in [0, 1]"]),
        ({"fractions": (0.5, 0.5)}, ["three"]),
        ({"seed": -1, "fractions": (0.5, 0.2, 0.2)}, ["seed", "add up"]),
        ({"y": [0] * 9 + [1] * 2}, ["2 rows of class 1 for 3 splits", "set a fraction to 0"]),
        ({"y": [0] * 9}, ["two classes"]),
        ({"y": []}, ["integer class"]),
        ({"y": [0.5, 1.0]}, ["integer class", "float64"]),
        ({"groups": ["a"] * 7}, ["one group a row", "7 for 12 rows"]),
        ({"groups": ["a", None] * 6}, ["6 without", "first in row 2"]),
        ({"groups": ["a"] * 6 + list("bcdefg")}, ["none of class 1", "in 1 group", "smaller groups"]),
    ],
)
def test_splits_that_cannot_be_are_refused(arguments: dict[str, Any], words: list[str]) -> None:
    given_y = np.array(arguments.pop("y", [1] * 6 + [0] * 6))
    told = "\n".join(problems_of(lambda: split_rows(given_y, **arguments)))
    for word in words:
        assert word in told


# ------------------------------------------------------------------------------------------------------------- identity


def test_a_fingerprint_is_that_of_the_content() -> None:
    frame = messy(30)
    same = messy(30).set_index(np.arange(100, 130))
    assert fingerprint(frame) == fingerprint(same)
    assert fingerprint(frame).startswith("sha256:")
    assert len(fingerprint(frame)) == len("sha256:") + 64
    others = [
        frame.rename(columns={"code": "Code"}),
        frame[::-1],
        frame[:-1],
        frame[frame.columns[::-1]],
        frame.drop(columns="code"),
    ]
    for name in frame.columns:
        changed = frame.copy()
        row = int(np.flatnonzero(frame[name].notna())[3])
        changed[name] = changed[name].astype(object)
        changed.loc[row, name] = None
        others.append(changed)
    prints = {fingerprint(other) for other in [frame, *others]}
    assert len(prints) == len(others) + 1


@given(st.lists(st.sampled_from(["a", "ab", "b", "", "ba"]), min_size=2, max_size=4), st.data())
def test_cells_do_not_run_into_each_other(values: list[str], data: st.DataObject) -> None:
    other = data.draw(st.lists(st.sampled_from(["a", "ab", "b", "", "ba"]), min_size=len(values), max_size=len(values)))
    a, b = (fingerprint(pd.DataFrame({"s": pd.Series(v, dtype=object)})) for v in (values, other))
    assert (a == b) == (values == other)


def test_fingerprints_of_odd_columns() -> None:
    def odd(x: int) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "list": [[1], [x]],
                "bytes": [b"a", b"%d" % x],
                "when": pd.to_datetime([0, x]),
                "bool": [x == 2, None],
                "mixed": [1, str(x)],
            }
        )

    assert fingerprint(odd(2)) == fingerprint(odd(2))
    assert (
        len({fingerprint(odd(2)[[name]]) for name in odd(2)} | {fingerprint(odd(3)[[name]]) for name in odd(2)}) == 10
    )


def test_equal_rows_have_equal_hashes_and_others_do_not() -> None:
    features, _, schema = prepare(messy(), "label", "fraud")
    columns = list(schema.columns)
    hashes = row_hashes(features, columns)
    assert (hashes.dtype, hashes.shape) == (np.uint64, (200,))
    assert len(np.unique(hashes)) == len(features.drop_duplicates())
    twice = pd.concat([features, features[::-1]])
    np.testing.assert_array_equal(row_hashes(twice, columns), [*hashes, *hashes[::-1]])
    assert (row_hashes(features, columns[:2]) != hashes).all()
    told = problems_of(lambda: row_hashes(features, ["amout"]))
    assert "did you mean 'amount'" in told[0]
    assert "at least one" in problems_of(lambda: row_hashes(features, []))[0]


# ----------------------------------------------------------------------------------------------------------- real files

FILES = {
    "abalone_19": [],
    "churn": ["phone_number"],
    "jm1": [],
    "mammography": [],
    "oil-spill": ["column_23"],
    "ozone_level_8hr": [],
    "us_crime": [],
    "wilt": [],
    "wine_quality": [],
}


@pytest.mark.parametrize("name", FILES)
def test_real_tables_become_finite_numbers(name: str) -> None:
    path = REAL / f"{name}.csv"
    if not path.exists():
        pytest.skip("the folder with real data is not there")
    header = name not in ("mammography", "oil-spill")
    frame = read_table(path, header=header)
    target = frame.columns[-1]
    positive = str(frame[target].value_counts().index[-1])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        features, y, schema = prepare(frame, target, positive, header=header)
    assert [column for column in frame.columns[:-1] if column not in schema.columns] == FILES[name]
    assert [warning.category for warning in caught] == [DoubtfulInputWarning] * bool(FILES[name])
    assert 0 < y.mean() < 0.5
    splits = split_rows(y)
    preprocessor = Preprocessor().fit(features.iloc[splits["train"]], schema)
    z = preprocessor.transform(features)
    assert z.dtype == np.float32
    assert z.shape == (len(frame), preprocessor.n_features)
    assert np.isfinite(z).all()
    streamed = np.concatenate(
        [row_hashes(a, [*schema.columns]) for a, _ in stream_table(path, schema, batch_rows=1000)]
    )
    np.testing.assert_array_equal(streamed, row_hashes(features, [*schema.columns]))
