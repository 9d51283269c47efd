"""Tables: what is prepared, refused, conformed, streamed and recognized."""

import json
import re
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tables import SCHEMA, messy, problems_of, written
from tunelater.data.reading import read_table
from tunelater.data.tables import (
    TableSchema,
    conform,
    fingerprint,
    label,
    prepare,
    rounded_row_hashes,
    row_hashes,
    stream_table,
)
from tunelater.problems import DoubtfulInputWarning, InputError

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


def test_a_column_of_one_infinity_is_a_problem_and_not_merely_constant() -> None:
    frame = pd.DataFrame({"a": [np.inf] * 3, "b": ["-inf"] * 3, "c": ["1E400"] * 3, "x": [1.0, 2, 3], "y": [0, 1, 0]})
    told = problems_of(lambda: prepare(frame, "y", "1"))
    assert len(told) == 3
    for name, problem in zip("abc", told, strict=True):
        assert f"{name!r} must hold finite numbers, got 3 cells that do not, first in row 1" in problem
    frame["declared"] = frame["a"].astype("category")
    with pytest.warns(DoubtfulInputWarning, match="'declared' .constant: 'inf'"):
        prepare(frame[["declared", "x", "y"]], "y", "1")


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
    assert problems_of(lambda: TableSchema.from_json([]))


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
    told = problems_of(lambda: conform(frame, SCHEMA, row=lambda index: str(index + 101)))
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
    kept = pa.concat_tables([b for _, b in pieces])
    assert kept.column_names == ["label", "colour"]
    assert kept["label"].to_pylist() == frame["label"].tolist()
    pd.testing.assert_frame_equal(conform(read, schema), features)


def test_kept_columns_are_verbatim(tmp_path: Path) -> None:
    path = written(tmp_path, "x,s\n1, 01\n2,NA\n3,\n4,'q'\n")
    ((_, kept),) = stream_table(path, TableSchema({"x": "numeric"}, "y", "1", "0"), keep=["s", "s", "x"])
    assert kept.to_pydict() == {"s": [" 01", "NA", "", "'q'"], "x": ["1", "2", "3", "4"]}
    ((_, nothing),) = stream_table(path, TableSchema({"x": "numeric"}, "y", "1", "0"))
    assert nothing.shape == (4, 0)


def test_kept_parquet_columns_keep_their_types_and_values(tmp_path: Path) -> None:
    case = [2**60 + 1, None, 3, None]
    amount = pa.array(["1.10", None, "2.20", "3.00"]).cast(pa.decimal128(10, 2))
    nested = pa.array([[1], None, [], [2, 3]])
    whole = pa.table({"x": [1.0, 2, 3, 4], "case": case, "amount": amount, "nested": nested})
    pq.write_table(whole, tmp_path / "t.parquet")
    schema, keep = TableSchema({"x": "numeric"}, "y", "1", "0"), ["case", "amount", "nested"]
    stream = stream_table(tmp_path / "t.parquet", schema, batch_rows=2, keep=keep)
    assert stream.names == ("x", "case", "amount", "nested")
    pieces = [kept for _, kept in stream]
    assert all(piece.schema == stream.kept == whole.select(keep).schema for piece in pieces)
    assert pa.concat_tables(pieces).equals(whole.select(keep))
    (told,) = problems_of(lambda: stream_table(tmp_path / "t.parquet", schema, keep=keep, for_csv=True))
    assert "'nested' of the type list" in told


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


@pytest.mark.parametrize(
    ("form", "doubtful"),
    [
        ("{:.2f}%", True), ("$ {:.2f}", True), ("{:.2f}€", True), ("1,{:07.3f}", True), ("{:.0f}/02/2020", True),
        ("{:.0f}.2.20 12:30", True), ("k{:.2f}", False), ("{:.0f} Main St", False), ("{:.0f}.0.0.1", False),
    ],
)  # fmt: skip
def test_numbers_and_dates_in_forms_that_are_not_read_are_doubtful(form: str, doubtful: bool) -> None:
    """As categories where values repeat, and left out as an identifier where they don't."""
    n = np.arange(60)
    table = pd.DataFrame({"x": n * 0.5, "seen": [form.format(10 + i % 30) for i in n], "label": n % 2})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _, _, schema = prepare(table, "label", "1")
        prepare(table.assign(seen=[form.format(10 + i) for i in n]), "label", "1")
    assert schema.columns["seen"] == "categorical"
    told = [str(w.message) for w in caught]
    assert len(told) == 1 + doubtful
    assert ["not read" in message for message in told] == [doubtful] * len(told)
    assert all(repr(form.format(10)) in message for message in told if doubtful)


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


@pytest.mark.parametrize(
    "copied",
    [
        lambda x: x.astype(np.float32).astype(float),
        lambda x: x.round(6),
        lambda x: x.map(lambda value: float(f"{value:.7g}")),
    ],
)
@pytest.mark.parametrize("digits", [0, 1, 3, 15])
def test_rounded_copies_of_rows_share_a_hash_and_other_rows_do_not(copied: Callable, digits: int) -> None:
    rng = np.random.default_rng(digits)
    x = pd.DataFrame(rng.normal(size=(5000, 10)) * 10.0 ** np.arange(-2, 8)).round(digits)
    x = x.set_axis(list("abcdefghij"), axis=1).mask(rng.random(x.shape) < 0.05)
    copy = copied(x)
    mine, theirs = (rounded_row_hashes(frame, list(x)) for frame in (x, copy))
    assert (mine == theirs).any(axis=1).mean() > 0.99
    other = rounded_row_hashes(x.sample(frac=1, random_state=1).assign(j=rng.normal(size=5000) * 1e7), list(x))
    assert not np.isin(other, mine).any()
