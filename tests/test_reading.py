"""Reading: which files are tables, what their cells become, and what is refused."""

import gzip
import warnings
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_tables import messy, problems_of, written
from tunelater.data.reading import read_table
from tunelater.data.tables import TableSchema, stream_table
from tunelater.problems import DoubtfulInputWarning


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
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


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_quoted_names_may_hold_anything(tmp_path: Path, delimiter: str) -> None:
    names = ["a\nb", "=cmd()|'é\t\"", 'x;"y",z', "plain"]
    frame = pd.DataFrame([[1, 2, 3, 4], [5, 6, 7, 8]], columns=names)
    pd.testing.assert_frame_equal(read_table(written(tmp_path, frame.to_csv(index=False, sep=delimiter))), frame)


def test_bars_in_cells_do_not_separate_where_commas_do(tmp_path: Path) -> None:
    frame = read_table(written(tmp_path, "film,kinds\n1,drama|war\n2,comedy|war\n"))
    assert frame.to_dict("list") == {"film": [1, 2], "kinds": ["drama|war", "comedy|war"]}


@pytest.mark.parametrize(("text", "doubtful"), [("a b y\n1 2 0\n", True), ("a:b:y\n1:2:0\n", True), ("x\n1\n", False)])
def test_rows_of_one_field_are_doubtful_where_something_else_may_separate(
    tmp_path: Path, text: str, doubtful: bool
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_table(written(tmp_path, text))
    assert ["told apart by commas, semicolons, tabs or |" in str(w.message) for w in caught] == [True] * doubtful
    assert all(w.filename == __file__ for w in caught)


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


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("0.5,-1e3,benign", "2 of 3 column names are numbers (0.5, -1e3)"),
        ("'1','2','?','R'", None),
        ("2019,2020,name,class", None),
        ("2019,2020,2021,class,'4'", "4 of 5 column names are numbers"),
    ],
)
def test_a_header_of_numbers_for_the_most_part_is_doubtful(tmp_path: Path, header: str, told: str | None) -> None:
    path = written(tmp_path, f"{header}\n{header}\n")
    for read in (read_table, lambda path: stream_table(path, TableSchema({}, "y", "1", "0"))):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            read(path)
        assert [w.category for w in caught] == [DoubtfulInputWarning] * bool(told)
        for warning in caught:
            assert told in str(warning.message)
            assert "--no-header" in str(warning.message)
            assert warning.filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_table(path, header=False)


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
