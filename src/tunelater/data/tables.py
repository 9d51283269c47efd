"""Tables: read, checked, prepared, streamed and split, until what reaches a network is finite numbers.

A table is read from CSV or Parquet (`read_table`), and its target and columns are checked (`prepare`). The result is a
`TableSchema`: the columns that are features, and whether each holds numbers, truth values or categories. Every later
table is brought into that form (`conform`), also in pieces (`stream_table`), and turned into numbers by the
`Preprocessor` that was fitted on the training split.

One cell means the same thing wherever it comes from. A CSV column of a later file may look like another type than it
did in training (category codes that happen to be numbers this time), and a stream sees only a piece of a column. So
nothing is decided by looking at a whole column except in `prepare`; `conform` has one rule a cell:

* surrounding white space and one pair of single quotes do not count, and `NA`, `?`, `null` and their like are missing;
* numbers, truth values and dates that are categories have one spelling each: `1.50` is `1.5`, `TRUE` is `true`.

Row numbers in messages count data rows from 1.
"""

from __future__ import annotations

import codecs
import csv
import datetime as dt
import hashlib
import io
import json
import re
import warnings
import zipfile
import zlib
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol, Self, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from tunelater.problems import DoubtfulInputWarning, InputError, Problems, did_you_mean

Kind = Literal["numeric", "boolean", "categorical"]
PathLike = str | Path

# ---------------------------------------------------------------------------------------------------------------- cells

_MISSING = pa.array(
    ["", "NA", "N/A", "n/a", "NaN", "nan", "NAN", "-nan", "-NaN", "null", "Null", "NULL", "None", "?", "<NA>", "#N/A"],
    pa.large_string(),
)
_TRUTH = {"true": 1.0, "t": 1.0, "yes": 1.0, "y": 1.0, "false": 0.0, "f": 0.0, "no": 0.0, "n": 0.0}
_TRUTH_OR_DIGIT = _TRUTH | {"1": 1.0, "0": 0.0}
_NUMBER = r"^[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[iI][nN][fF](?:[iI][nN][iI][tT][yY])?)$"
_WHOLE = r"^[+-]?[0-9]+$"
_CODE = r"^[+-]?(?:0[0-9]+|[0-9]{16,})$"
_DECIMAL_COMMA = r"^('?\s*[+-]?[0-9]*),([0-9]+(?:[eE][+-]?[0-9]+)?\s*'?)$"
_TIME = r"[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?"
_DATE = rf"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}(?:{_TIME})?$"
_EXACT_WHOLE = 2**53
_PLAIN_OBJECTS = (str, bool, int, float, np.bool_, np.integer, np.floating, dt.date)


class _Unsupported(Exception):
    """A column of a type that is neither number, truth value, date nor text."""


def _trimmed(text: pa.Array, decimal_comma: bool = False) -> pa.Array:
    """Text without the white space around it; with a decimal point where the file has decimal commas."""
    text = pc.utf8_trim_whitespace(text)
    if decimal_comma and pc.any(pc.match_substring(text, ",")).as_py():
        text = pc.replace_substring_regex(text, _DECIMAL_COMMA, r"\1.\2")
    return text


def _missing(text: pa.Array) -> pa.Array:
    return pc.is_in(text, value_set=_MISSING)


def _or_null(text: pa.Array, keep: pa.Array) -> pa.Array:
    return pc.if_else(keep, text, pa.scalar(None, text.type))


def _clean(text: pa.Array, decimal_comma: bool = False) -> pa.Array:
    """Large strings without the white space and the pair of single quotes around them; null where missing."""
    text = _trimmed(text, decimal_comma)
    if pc.any(pc.starts_with(text, "'")).as_py():
        text = pc.replace_substring_regex(text, r"(?s)^'\s*(.*?)\s*'$", r"\1")
    return _or_null(text, pc.invert(_missing(text)))


def _one_array(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _arrow(column: pd.Series) -> pa.Array:
    """A column of any origin as an Arrow array; objects of several plain types as their text."""
    if isinstance(column.dtype, pd.SparseDtype):
        column = pd.Series(np.asarray(column), index=column.index, name=column.name)
    try:
        return _one_array(pa.array(column, from_pandas=True))
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        missing = column.isna().to_numpy()
        if not all(isinstance(value, _PLAIN_OBJECTS) for value in column[~missing]):
            raise _Unsupported(str(column.dtype)) from None
        text = [None if gone else str(value) for value, gone in zip(column, missing, strict=True)]
        return pa.array(text, pa.large_string())


def _cells(values: pa.Array, decimal_comma: bool = False) -> pa.Array:
    """Any array as one of: bool, int64, float64, timestamp[us, UTC], clean large string; null where missing.

    Raises:
        _Unsupported: lists, structs, binary, durations and other types that no feature can have.
    """
    kind, types = values.type, pa.types
    if types.is_dictionary(kind):
        return _cells(values.dictionary_decode())
    if types.is_boolean(kind):
        return values
    if types.is_integer(kind) and kind != pa.uint64():
        return values.cast(pa.int64())
    if types.is_null(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        numbers = values.cast(pa.float64(), safe=False)
        return _or_null(numbers, pc.invert(pc.is_nan(numbers)))
    if types.is_date(kind) or types.is_timestamp(kind):
        # A time without a zone is taken for UTC, so that the same file gives the same numbers on every machine.
        return values.cast(pa.timestamp("us", getattr(kind, "tz", None)), safe=False).cast(pa.timestamp("us", "UTC"))
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return _clean(values.cast(pa.large_string()), decimal_comma)
    raise _Unsupported(str(kind))


def _is_text(cells: pa.Array) -> bool:
    return pa.types.is_large_string(cells.type)


def _bits(mask: pa.Array) -> np.ndarray:
    """An Arrow array of truth values as numpy; null counts as false."""
    return np.asarray(mask.fill_null(False).to_numpy(zero_copy_only=False), dtype=bool)


def _all_match(text: pa.Array, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(text, pattern), min_count=0).as_py())


def _any_match(text: pa.Array, pattern: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(text, pattern), min_count=0).as_py())


def _spelling(value: str | float | bool) -> str:
    """The one spelling of a value as a category or label; equal for a typed value and for its text in a file."""
    if isinstance(value, str):
        if value.lower() in ("true", "false"):
            return value.lower()
        if not re.match(_NUMBER, value) or re.match(_CODE, value):
            return value
        if re.match(_WHOLE, value):
            return str(int(value))
        value = float(value)
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if abs(value) <= _EXACT_WHOLE and value == int(value) else repr(value)


def _words(cells: pa.Array) -> tuple[list[str], np.ndarray]:
    """The different spellings of a column, and for each row which one it has; -1 where missing."""
    if pa.types.is_timestamp(cells.type):
        cells = cells.cast(pa.timestamp("us")).cast(pa.large_string())
    encoded = cells.dictionary_encode() if not pa.types.is_boolean(cells.type) else _words_of_booleans(cells)
    spellings = [_spelling(value) for value in encoded.dictionary.to_pylist()]
    words = list(dict.fromkeys(spellings))
    position = {word: i for i, word in enumerate(words)}
    code = np.array([position[spelling] for spelling in spellings] + [-1])
    return words, code[encoded.indices.fill_null(len(spellings)).to_numpy(zero_copy_only=False)]


def _words_of_booleans(cells: pa.Array) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(cells.cast(pa.int32()), pa.array(["false", "true"], pa.large_string()))


def _parsed(text: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Clean text as float64, null where it is missing or no number; and which cells are no numbers, (N,) bool."""
    try:
        return text.cast(pa.float64()), np.zeros(len(text), dtype=bool)
    except pa.ArrowInvalid:
        number = pc.match_substring_regex(text, _NUMBER)
        numbers = _or_null(text, number).cast(pa.float64())
        return numbers, _bits(pc.invert(number))


def _floats(values: pa.Array) -> np.ndarray:
    """(N,) float64, NaN where null. Adding zero makes -0 into 0: one number, but two bit patterns to a hash."""
    floats = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.asarray(floats, dtype=np.float64) + 0.0


def _as_numbers(cells: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(N,) float64 and (N,) bool: the numbers, NaN where there is none, and the cells that should not be there."""
    if _is_text(cells):
        numbers, bad = _parsed(cells)
        return _floats(numbers), bad
    if pa.types.is_boolean(cells.type) or pa.types.is_timestamp(cells.type):
        return np.full(len(cells), np.nan), _bits(cells.is_valid())
    return _floats(cells), np.zeros(len(cells), dtype=bool)


def _looked_up(cells: pa.Array, values: Callable[[list[str]], Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """As `_as_numbers`, for what is decided spelling by spelling; NaN is for a spelling that should not be there."""
    words, codes = _words(cells)
    numbers = np.array([*values(words), np.nan], dtype=np.float64)[codes]
    return numbers, np.isnan(numbers) & (codes >= 0)


def _as_booleans(cells: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    return _looked_up(cells, lambda words: [_TRUTH_OR_DIGIT.get(word.lower(), np.nan) for word in words])


def _days(words: list[str]) -> Sequence[float]:
    dates = [word if re.match(_DATE, word) else None for word in words]
    times = pd.to_datetime(pd.Series(dates, dtype=object), format="ISO8601", utc=True, errors="coerce")
    return ((times - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)).tolist()


def _as_days(cells: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """As `_as_numbers`, for dates: days since 1970, of text in ISO form and of typed dates and times."""
    if pa.types.is_timestamp(cells.type):
        return _floats(cells.cast(pa.int64())) / 86_400e6, np.zeros(len(cells), dtype=bool)
    return _looked_up(cells, _days)


def _as_categories(cells: pa.Array) -> np.ndarray:
    """(N,) object: one spelling for each category, None where missing."""
    words, codes = _words(cells)
    return np.array([*words, None], dtype=object)[codes]


# ------------------------------------------------------------------------------------------------------------- messages


def _some(items: Sequence[str], most: int = 5) -> str:
    """`a, b, c and 7 more`."""
    return ", ".join(items[:most]) + (f" and {len(items) - most:,} more" if len(items) > most else "")


def _rows(n: int) -> str:
    return f"{n:,} row" if n == 1 else f"{n:,} rows"


def _cells_that_do_not(n: int) -> str:
    return "1 cell that does not" if n == 1 else f"{n:,} cells that do not"


def _known(word: str, names: Iterable[str], most: int = 20) -> str:
    """`did_you_mean`, without listing hundreds of columns."""
    names = sorted(names)
    told = did_you_mean(word, names)
    return told if "did you mean" in told or len(names) <= most else f"; known are {_some(names, most)}"


def _repeated(names: Iterable[str]) -> list[str]:
    return [f"{name!r} ({n} times)" for name, n in Counter(names).items() if n > 1]


def _absent(names: Iterable[str], known: Sequence[str], role: str) -> list[str]:
    present = set(known)
    return [f"the table has no {role} {name!r}{_known(name, known)}" for name in names if name not in present]


_CORRECT_CELLS = "correct these cells, or leave them empty if they are missing values"
_NEEDS = {
    "numeric": "numbers",
    "boolean": "true or false (or t/f, yes/no, y/n, 1/0)",
    "date": "dates in the form 2024-01-31 or 2024-01-31T12:30:00",
    "finite": "finite numbers",
}


@dataclass
class _Fault:
    n: int
    first_index: int
    first_value: str


class _Faults:
    """Cells and columns that break a rule, over any number of batches, so that each column is told once."""

    def __init__(self) -> None:
        self._cells: dict[tuple[str, str], _Fault] = {}
        self._types: dict[tuple[str, str], str] = {}

    def __bool__(self) -> bool:
        return bool(self._cells or self._types)

    def cells(self, column: str, need: str, bad: np.ndarray, values: pa.Array, first_row: int) -> None:
        """Notes the cells where `bad`; `first_row` rows came before these."""
        if not bad.any():
            return
        first = int(np.argmax(bad))
        fault = _Fault(0, first_row + first, str(values[first].as_py()))
        self._cells.setdefault((column, need), fault).n += int(bad.sum())

    def type(self, column: str, need: str, got: str) -> None:
        self._types.setdefault((column, need), got)

    def messages(self, row: Callable[[int], int] = lambda index: index + 1) -> list[str]:
        """`row` gives the number of the data row of an index into what was read."""
        types = [
            f"column {column!r} must hold {need}, got the type {got}; convert it before"
            for (column, need), got in self._types.items()
        ]
        cells = [
            f"column {column!r} must hold {need}, got {_cells_that_do_not(fault.n)}, "
            f"first in row {row(fault.first_index)}: {fault.first_value[:60]!r}; {_CORRECT_CELLS}"
            for (column, need), fault in sorted(self._cells.items(), key=lambda item: item[1].first_index)
        ]
        return types + cells


# -------------------------------------------------------------------------------------------------------------- reading

_SAMPLE_BYTES = 1 << 20
_BLOCK_BYTES = 4 << 20
_GZIP = b"\x1f\x8b"
_SIGNATURES = {
    b"PAR1": "it is a Parquet file; give it the extension .parquet",
    b"PK\x03\x04": "it is a zip archive or an Excel workbook; unpack it, or save the sheet as CSV",
    b"\xff\xfe": "it is UTF-16; save it as UTF-8",
    b"\xfe\xff": "it is UTF-16; save it as UTF-8",
    _GZIP: "it is compressed twice; unpack it",
}
_INDEX_OF_PANDAS = re.compile(r"__index_level_\d+__$")


class _Source(Protocol):
    """An open table file whose column names are known and whose rows come in batches."""

    @property
    def names(self) -> list[str]: ...

    def batches(self, rows: int, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Tables of `rows` rows, the last one shorter, with at least `columns`."""

    def problems(self) -> list[str]:
        """What was wrong with the rows read so far."""

    def row_number(self, index: int) -> int:
        """The number of the data row which the batches gave as the index-th one, from 0."""

    def cells(self, values: pa.ChunkedArray) -> pa.Array: ...

    def pandas(self, table: pa.Table) -> pd.DataFrame: ...


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns what the readers raise into an InputError that names the file."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, zlib.error) as error:
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "UTF8" in told:
            raise InputError(f"{path}: must be UTF-8 text ({told}); save it as UTF-8") from error
        raise InputError(f"{path}: cannot be read, it is broken or truncated ({told}); write it again") from error


def _rebatched(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    n = 0
    for batch in batches:
        held.append(batch)
        n += batch.num_rows
        if n < rows:
            continue
        table = pa.Table.from_batches(held)
        whole = n - n % rows
        yield from (table.slice(start, rows) for start in range(0, whole, rows))
        held, n = table.slice(whole).to_batches(), n - whole
    if n:
        yield pa.Table.from_batches(held)


def _safely(batches: Iterator[pa.RecordBatch], path: Path) -> Iterator[pa.RecordBatch]:
    while True:
        with _reading(path):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


@dataclass
class _Csv:
    """A CSV file; every column is read as text, because a type guessed from one block can fail in a later one."""

    path: Path
    names: list[str]
    header: bool
    delimiter: str
    quote: str
    compression: str | None
    ragged: array[int] = field(default_factory=lambda: array("q"))
    """The data rows with another number of fields; they are left out of the batches."""
    ragged_examples: list[str] = field(default_factory=list)

    def batches(self, rows: int, columns: Sequence[str]) -> Iterator[pa.Table]:
        with _reading(self.path):
            stream = pa.input_stream(str(self.path), compression=self.compression)
        with stream:
            yield from _rebatched(self._without_header(_safely(self._reader(stream), self.path)), rows)

    def _reader(self, stream: Any) -> Iterator[pa.RecordBatch]:
        # All columns are converted, wanted or not: broken text should not pass here and fail in read_table.
        yield from pacsv.open_csv(
            stream,
            read_options=pacsv.ReadOptions(column_names=self.names, block_size=_BLOCK_BYTES, use_threads=False),
            parse_options=pacsv.ParseOptions(
                delimiter=self.delimiter,
                quote_char=self.quote,
                newlines_in_values=True,
                invalid_row_handler=self._skip,
            ),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(self.names, pa.large_string()), strings_can_be_null=False
            ),
        )

    def _without_header(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        # The header went through the reader as a row: skipping lines would miscount one with line breaks in quotes.
        for i, batch in enumerate(batches):
            yield batch.slice(1) if i == 0 and self.header else batch

    def _skip(self, row: Any) -> str:
        number = row.number - self.header
        self.ragged.append(number)
        if len(self.ragged_examples) < 3:
            self.ragged_examples.append(f"row {number} has {row.actual_columns}")
        return "skip"

    def problems(self) -> list[str]:
        if not self.ragged:
            return []
        reference = "header" if self.header else "first row"
        examples = ", ".join(self.ragged_examples) + (", ..." if len(self.ragged) > len(self.ragged_examples) else "")
        return [
            f"{self.path}: every row must have {len(self.names)} fields, as the {reference} has, "
            f"got {_rows(len(self.ragged))} with another number: {examples}; "
            f"put quotes around fields that contain {self.delimiter!r}"
        ]

    def row_number(self, index: int) -> int:
        number = index + 1
        while (shifted := index + 1 + bisect_right(self.ragged, number)) != number:
            number = shifted
        return number

    def cells(self, values: pa.ChunkedArray) -> pa.Array:
        return _cells(_one_array(values), self.decimal_comma)

    @property
    def decimal_comma(self) -> bool:
        """Where semicolons separate the fields, the comma is free to be the decimal point, and often is."""
        return self.delimiter == ";"

    def pandas(self, table: pa.Table) -> pd.DataFrame:
        columns = [_typed(_one_array(column), self.decimal_comma) for column in table.columns]
        return pa.table(columns, names=self.names).to_pandas()


@dataclass
class _Parquet:
    """A Parquet file; the index that pandas stores beside the columns is not a column."""

    path: Path
    names: list[str]

    def batches(self, rows: int, columns: Sequence[str]) -> Iterator[pa.Table]:
        with _reading(self.path):
            file = pq.ParquetFile(self.path)
        with file:
            wanted = list(columns)
            batches = _safely(file.iter_batches(min(rows, 1 << 16), columns=wanted), self.path)
            yield from (table.select(wanted) for table in _rebatched(batches, rows))

    def problems(self) -> list[str]:
        return []

    def row_number(self, index: int) -> int:
        return index + 1

    def cells(self, values: pa.ChunkedArray) -> pa.Array:
        return _cells(_one_array(values))

    def pandas(self, table: pa.Table) -> pd.DataFrame:
        for i, column in enumerate(table.schema):
            if pa.types.is_decimal(column.type):
                table = table.set_column(i, column.name, table[i].cast(pa.float64()))
        return table.to_pandas(ignore_metadata=True, date_as_object=False)


def _typed(text: pa.Array, decimal_comma: bool) -> pa.Array:
    """A column of a CSV file as what all its values are: whole numbers, numbers, truth values or text.

    Numbers stay text where converting would lose something: leading zeros (007), more digits than a float holds.
    """
    bare = _trimmed(text, decimal_comma)
    quoted = pc.match_substring_regex(bare, r"(?s)^'.*'$")
    all_quoted = pc.all(pc.or_(quoted, _missing(bare)), min_count=0).as_py()
    some_quoted = pc.any(quoted, min_count=0).as_py()
    clean = _or_null(bare, pc.invert(_missing(bare))) if some_quoted and not all_quoted else _clean(bare)
    if clean.null_count == len(clean):
        return clean.cast(pa.float64())
    numbers, bad = _parsed(clean)
    if not bad.any() and not _any_match(clean, _CODE):
        return numbers.cast(pa.int64()) if _all_match(clean, _WHOLE) else numbers
    if _all_match(clean, r"^(?i:true|false)$"):
        return pc.equal(pc.utf8_lower(clean), "true")
    return clean


def _file(path: PathLike) -> Path:
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: must be a file, got a folder; name the CSV or Parquet file in it")
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    with _reading(path):
        if path.stat().st_size == 0:
            raise InputError(f"{path}: must hold a table, got an empty file")
    return path


def _opened(path: PathLike, header: bool) -> _Source:
    """The file with its column names, after all checks that need no more than its beginning.

    Raises:
        InputError: no such file, a folder, nothing in it, not a table, names that are numbers or not unique.
    """
    path = _file(path)
    source = _opened_parquet(path) if path.suffix.lower() in (".parquet", ".pq") else _opened_csv(path, header)
    if repeated := _repeated(source.names):
        raise InputError(f"{path}: column names must be unique, got {_some(repeated, 10)}; rename them")
    return source


def _opened_parquet(path: Path) -> _Source:
    with _reading(path), pq.ParquetFile(path) as file:
        names, rows = file.schema_arrow.names, file.metadata.num_rows
    names = [name for name in names if not _INDEX_OF_PANDAS.match(name)]
    if not names or not rows:
        raise InputError(f"{path}: must hold a table, got {len(names)} columns and {rows} rows")
    return _Parquet(path, names)


def _opened_csv(path: Path, header: bool) -> _Source:
    sample, complete, compression = _sample(path)
    if not sample.strip():
        raise InputError(f"{path}: must hold a table, got an empty file")
    delimiter, quote = _sniffed(sample)
    records = [record for record in islice(_records(sample, delimiter, quote), 100) if record]
    if not header:
        names = [f"column_{i}" for i in range(1, len(records[0]) + 1)]
        return _Csv(path, names, header, delimiter, quote, compression)
    names = _names(records[0])
    if not _has_names(names):
        raise InputError(
            f"{path}: the first row must hold column names, got numbers only ({_some(names)}); "
            "if the file has no header, say so: --no-header (header=False)"
        )
    if complete and len(records) == 1:
        raise InputError(f"{path}: must hold rows, got a header of {len(names)} columns and nothing below it")
    return _Csv(path, names, header, delimiter, quote, compression)


def _names(record: list[str]) -> list[str]:
    names = [name.strip() for name in record]
    if all(len(name) > 1 and name[0] == name[-1] == "'" for name in names):
        names = [name[1:-1].strip() for name in names]
    return names


def _has_names(names: list[str]) -> bool:
    bare = [name.strip("'") for name in names]
    numbers = sum(bool(re.match(_NUMBER, name)) for name in bare)
    missing = pc.sum(pc.is_in(pa.array(bare, pa.large_string()), value_set=_MISSING)).as_py()
    return not numbers or numbers + missing < len(names)


def _sample(path: Path) -> tuple[str, bool, str | None]:
    """The beginning of a text file, whether that is all of it, and how the file is compressed.

    Raises:
        InputError: the file is not UTF-8 text.
    """
    with _reading(path):
        with path.open("rb") as file:
            compression = "gzip" if file.read(2) == _GZIP else None
        with pa.input_stream(str(path), compression=compression) as stream:
            data = stream.read(_SAMPLE_BYTES)
            complete = len(data) < _SAMPLE_BYTES
    for signature, meaning in _SIGNATURES.items():
        if data.startswith(signature):
            raise InputError(f"{path}: must be UTF-8 text, got binary data: {meaning}")
    if b"\0" in data:
        raise InputError(
            f"{path}: must be UTF-8 text, got binary data (a zero byte at {data.index(0)}); save it as CSV"
        )
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(data, final=complete)
    except UnicodeDecodeError as error:
        _refuse_encoding(path, error)
    cut = len(text) if complete or "\n" not in text else text.rindex("\n") + 1
    return text[:cut], complete, compression


def _refuse_encoding(path: Path, error: UnicodeDecodeError) -> NoReturn:
    raise InputError(
        f"{path}: must be UTF-8 text, got the byte 0x{error.object[error.start]:02x} at {error.start}; "
        "save it as UTF-8, for example: iconv -f WINDOWS-1252 -t UTF-8"
    ) from error


def _records(sample: str, delimiter: str, quote: str) -> Iterator[list[str]]:
    try:
        yield from csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter, quotechar=quote)
    except csv.Error:  # an open quote that swallows the sample; the real reader will name the row
        return


def _sniffed(sample: str) -> tuple[str, str]:
    """The delimiter and quote character under which the first rows have equally many fields, more than one.

    A comma comes last because it is also a decimal point; single quotes come after double ones because they are also
    apostrophes. Where no choice is consistent, the header decides.
    """
    widths: dict[tuple[str, str], int] = {}
    for quote in ('"', "'"):
        for delimiter in "\t;,":
            found = [len(record) for record in islice(_records(sample, delimiter, quote), 50) if record]
            widths[delimiter, quote] = found[0] if found else 0
            if found and found[0] > 1 and len(set(found)) == 1:
                return delimiter, quote
    best = max(widths.values())
    return next(choice for choice in [(",", '"'), *widths] if widths[choice] == best)


def read_table(path: PathLike, *, header: bool = True) -> pd.DataFrame:
    """A CSV file (also compressed by gzip) or, with the extension .parquet or .pq, a Parquet file.

    The delimiter of a CSV file (comma, semicolon or tab) and its quote character are found from its first rows; where
    it is the semicolon, 1,5 is a number. Cells that are empty or NA, N/A, NaN, null, None, ? are missing. Single quotes
    around the values are removed where every value of the column has them. Columns become int64, float64, bool or text;
    dates stay text, and so do numbers with leading zeros or more than 15 digits. Parquet keeps its types; an unnamed
    index that pandas stored is left out.

    Args:
        path: the file.
        header: whether the first row of a CSV file holds the column names; else they are column_1, column_2, ...

    Returns:
        one row a data row, in the order of the file.

    Raises:
        InputError: no such file, a folder, an empty file, no rows, rows of different lengths, binary data or another
            encoding than UTF-8, a broken file, column names that repeat or are numbers only.
    """
    source = _opened(path, header)
    tables = list(source.batches(1 << 20, source.names))
    if problems := source.problems():
        raise InputError(problems)
    if not tables:
        raise InputError(f"{path}: must hold rows, got none")
    return source.pandas(pa.concat_tables(tables))


# --------------------------------------------------------------------------------------------------------------- schema


@dataclass(frozen=True)
class TableSchema:
    """The form of a table that a model was trained on.

    Args:
        columns: the feature columns in order, and what each holds.
        target: the column that holds the labels.
        positive: the label of the rare class, as text in the spelling of `label`.
        negative: the label of the other class.
        header: whether the CSV file had a header; a later file is read in the same way.
        dates: the numeric columns that hold dates, as days since 1970.
    """

    columns: Mapping[str, Kind]
    target: str
    positive: str
    negative: str
    header: bool = True
    dates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", dict(self.columns))
        object.__setattr__(self, "dates", tuple(self.dates))

    def to_json(self) -> dict[str, Any]:
        """Plain lists, strings and booleans; `columns` is a list of pairs, because their order counts."""
        return {
            "columns": [[name, kind] for name, kind in self.columns.items()],
            "target": self.target,
            "positive": self.positive,
            "negative": self.negative,
            "header": self.header,
            "dates": list(self.dates),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TableSchema:
        """The inverse of `to_json`.

        Raises:
            InputError: something is missing, of another type, or not a kind of column.
        """
        if problems := _problems_of_schema(data):
            raise InputError(problems)
        columns: dict[str, Kind] = dict(data["columns"])
        texts = (data["target"], data["positive"], data["negative"])
        return cls(columns, *texts, header=data["header"], dates=tuple(data["dates"]))


def _problems_of_schema(data: Any) -> list[str]:
    if not isinstance(data, Mapping):
        return [f"a table schema must be a JSON object, got {type(data).__name__}"]
    problems = Problems()
    types = {"columns": list, "target": str, "positive": str, "negative": str, "header": bool, "dates": list}
    for key, kind in types.items():
        rule = f"a table schema needs {key!r} of the type {kind.__name__}"
        problems.check(isinstance(data.get(key), kind), f"{rule}, got {data.get(key, 'nothing')!r}")
    if problems:
        return list(problems)
    for pair in data["columns"]:
        sound = (
            isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str) and pair[1] in get_args(Kind)
        )
        problems.check(sound, f"a column needs a name and one of {', '.join(get_args(Kind))}, got {pair!r}")
    if not problems:
        numeric = [name for name, kind in data["columns"] if kind == "numeric"]
        for name in data["dates"]:
            problems.check(name in numeric, f"dates must be numeric columns, got {name!r}")
    return list(problems)


# --------------------------------------------------------------------------------------------------------------- labels


def label(column: pd.Series, positive: str) -> tuple[np.ndarray, str]:
    """Labels as 0 and 1.

    Labels are compared in one spelling: whole numbers without a decimal point, true and false in lower case. `positive`
    may also be another way to write the same number, or 1 or 0 for true or false.

    Args:
        column: (N,) the labels: text, numbers or truth values.
        positive: the label that becomes 1.

    Returns:
        (N,) int64, and the other label.

    Raises:
        InputError: missing labels, one label only, three or more, or none that is `positive`.
    """
    problems = Problems()
    found = _label(column, positive, problems)
    problems.raise_if_any()
    assert found is not None
    y, _, negative = found
    return y, negative


def _label(column: pd.Series, positive: str, problems: Problems) -> tuple[np.ndarray, str, str] | None:
    """(N,) int64, the positive and the negative label in their spelling; None where there were problems."""
    target = f"the target {str(column.name)!r}" if column.name is not None else "the target"
    try:
        words, codes = _words(_cells(_arrow(column)))
    except _Unsupported as error:
        problems.add(f"{target} must hold text, numbers or truth values, got the type {error}; convert it before")
        return None
    missing = np.flatnonzero(codes < 0)
    if missing.size:
        rows = ("rows " if missing.size > 1 else "row ") + _some([str(i + 1) for i in missing])
        problems.add(f"{target} must not have missing values, got {missing.size:,}, in {rows}; label or remove them")
    counts = np.bincount(codes[codes >= 0], minlength=len(words))
    common = [words[i] for i in np.argsort(-counts, kind="stable")]
    told = {word: f"{word!r} ({_rows(int(n))})" for word, n in zip(words, counts, strict=True)}
    problems.add(*_problems_of_values(target, [told[word] for word in common], common))
    chosen = _chosen(words, positive)
    if chosen is None and words:
        problems.add(_positive_not_there(target, positive, common))
    if chosen is None or len(words) != 2 or missing.size:
        return None
    negative = words[1 - words.index(chosen)]
    return (codes == words.index(chosen)).astype(np.int64), chosen, negative


def _problems_of_values(target: str, told: list[str], words: list[str]) -> list[str]:
    if not words:
        return [f"{target} must have exactly two values, got none"]
    if len(words) == 1:
        return [f"{target} must have exactly two values, got one only: {told[0]}; a model needs rows of both classes"]
    if len(words) == 2:
        return []
    fix = "make it a column with two values, one for the rare class and one for the rest"
    if len(words) > 20 and all(re.match(_NUMBER, word) for word in words):
        fix = "it looks like a measurement; make it binary with a limit (1 above it, else 0), or name another target"
    return [f"{target} must have exactly two values, got {len(words):,}: {_some(told)}; {fix}"]


def _positive_not_there(target: str, positive: str, words: list[str]) -> str:
    rule = f"the positive value must be a value of {target}, got {str(positive)!r}"
    return f"{rule}, which no row has; values are {_some([repr(word) for word in words])}" + (
        hint if "did you mean" in (hint := did_you_mean(str(positive), words)) else ""
    )


def _chosen(words: list[str], positive: str) -> str | None:
    """The word that `positive` means: itself, else the only one that is the same number or truth value."""
    wanted = _spelling(str(positive).strip())
    if wanted in words:
        return wanted
    if set(words) <= {"true", "false"} and wanted.lower() in _TRUTH_OR_DIGIT:
        truth = "true" if _TRUTH_OR_DIGIT[wanted.lower()] else "false"
        return truth if truth in words else None
    if not re.match(_NUMBER, wanted):
        return None
    same = [word for word in words if re.match(_NUMBER, word) and float(word) == float(wanted)]
    return same[0] if len(same) == 1 else None


# -------------------------------------------------------------------------------------------------------------- prepare

_FEWEST_FOR_IDENTIFIER = 20
_NAME_OF_IDENTIFIER = re.compile(
    r"(?:^|[\s_.-])(?:id|uuid|guid)$|^(?:id|uuid|guid)[\s_.-]|(?-i:[a-z])(?-i:I[dD]|UUID|GUID)$", re.I
)


@dataclass(frozen=True)
class _Feature:
    """What `prepare` found a column to be; with a reason, it is not used."""

    kind: Kind = "categorical"
    date: bool = False
    reason: str | None = None
    doubt: str | None = None


def prepare(
    frame: pd.DataFrame, target: str, positive: str, *, header: bool = True
) -> tuple[pd.DataFrame, np.ndarray, TableSchema]:
    """Features, labels and the schema of a table, after all checks.

    A column is

    * boolean where its values are true/false, t/f, yes/no or y/n (in any case) and both occur;
    * numeric where all values are numbers or dates. Dates and times (typed, or text in ISO form) are days since 1970 in
      UTC. Text that reads as numbers is numeric too, except with leading zeros or more than 15 digits, as codes have;
    * else categorical, also where the type of the column says so.

    Not used, with a warning that says which and why, are constant columns, columns without a value, columns of types
    that are no features (lists, structs, binary, durations), and identifiers: text that is different in each of at
    least 20 rows; whole numbers that are, and leave no gap; whole numbers or text under a name like `id`, `patient_id`
    or `uuid` of which at least half are different.

    Args:
        frame: one row a sample.
        target: the column with the labels.
        positive: the label of the rare class, see `label`.
        header: whether the file had a header; kept in the schema for later files.

    Returns:
        (N, columns) features as `conform` gives them, (N,) int64 labels, and the schema.

    Raises:
        InputError: what `label` raises, no such target, names that are not unique, infinite numbers, no usable column.

    Warns:
        DoubtfulInputWarning: columns that are not used, or that hold numbers but for a few values.
    """
    problems, faults = Problems(), _Faults()
    frame = _with_text_names(frame)
    names = list(frame.columns)
    if repeated := _repeated(names):
        raise InputError(f"column names must be unique, got {_some(repeated, 10)}; rename them")
    problems.check(len(frame) > 0, "the table must have rows, got none")
    problems.add(*_absent([target], names, "target column"))
    labels = _label(frame[target], positive, problems) if target in names and len(frame) else None
    found = {name: _feature(name, frame[name]) for name in names if name != target} if len(frame) else {}
    used = {name: feature for name, feature in found.items() if feature.reason is None}
    problems.check(bool(used) or not len(frame), f"the table has no column that can be a feature{_unused(found)}")
    y, chosen, negative = labels or (np.empty(0, np.int64), "", "")
    schema = TableSchema(
        columns={name: feature.kind for name, feature in used.items()},
        target=target,
        positive=chosen,
        negative=negative,
        header=header,
        dates=tuple(name for name, feature in used.items() if feature.date),
    )
    features = _conformed({name: _cells(_arrow(frame[name])) for name in used}, schema, frame.index, faults, 0)
    problems.add(*faults.messages())
    problems.raise_if_any()
    _warn(found)
    return features, y, schema


def _with_text_names(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.set_axis([str(name) for name in frame.columns], axis=1)


def _unused(found: Mapping[str, _Feature]) -> str:
    reasons = [f"{name!r} ({feature.reason})" for name, feature in found.items() if feature.reason]
    return ": " + ", ".join(reasons) if reasons else ""


def _warn(found: Mapping[str, _Feature]) -> None:
    told = [
        f"column {name!r} {feature.doubt}" for name, feature in found.items() if feature.doubt and not feature.reason
    ]
    if n := sum(feature.reason is not None for feature in found.values()):
        told.insert(0, f"{n} {'column is' if n == 1 else 'columns are'} not used as features{_unused(found)}")
    if told:
        warnings.warn("; ".join(told), DoubtfulInputWarning, stacklevel=3)


def _feature(name: str, column: pd.Series) -> _Feature:
    try:
        cells = _cells(_arrow(column))
    except _Unsupported as error:
        return _Feature(reason=f"of the unsupported type {error}")
    if cells.null_count == len(cells):
        return _Feature(reason="every value is missing")
    distinct = pc.count_distinct(cells).as_py()
    if distinct == 1 and not cells.null_count:
        return _Feature(reason=f"constant: {str(cells[0].as_py())[:40]!r}")
    feature = _kind(cells, distinct, isinstance(column.dtype, pd.CategoricalDtype))
    identifier = _identifier(name, cells, distinct, feature)
    return _Feature(reason=f"identifier: {identifier}") if identifier else feature


def _kind(cells: pa.Array, distinct: int, declared: bool) -> _Feature:
    """`declared`: the column's own type says that it holds categories."""
    if pa.types.is_boolean(cells.type):
        return _Feature("boolean")
    if pa.types.is_timestamp(cells.type):
        return _Feature("numeric", date=True)
    if not _is_text(cells):
        return _Feature("categorical" if declared else "numeric")
    if distinct <= 16 and _holds_truth(cells):
        return _Feature("boolean")
    return _Feature("categorical") if declared else _kind_of_text(cells, distinct)


def _holds_truth(text: pa.Array) -> bool:
    """Both must occur: a column of t alone, or of y and t, may mean anything."""
    words = {word.lower() for word in text.unique().to_pylist() if word is not None}
    return words <= set(_TRUTH) and {_TRUTH[word] for word in words} == {0.0, 1.0}


def _kind_of_text(text: pa.Array, distinct: int) -> _Feature:
    _, bad = _parsed(text)
    if not bad.any():
        if _all_match(text, _WHOLE) and _any_match(text, _CODE):
            return _Feature(doubt="holds numbers with leading zeros or more than 15 digits, and is used as categories")
        return _Feature("numeric")
    if _all_match(text, _DATE) and not _as_days(text)[1].any():
        return _Feature("numeric", date=True)
    present = len(text) - text.null_count
    if distinct > 20 and bad.sum() * 10 <= present:
        first = int(np.argmax(bad))
        return _Feature(
            doubt=f"holds numbers in {present - bad.sum():,} of {present:,} cells, but is used as categories because "
            f"of the others (first in row {first + 1}: {str(text[first])[:40]!r}); empty them if they mean missing"
        )
    return _Feature()


def _identifier(name: str, cells: pa.Array, distinct: int, feature: _Feature) -> str | None:
    """Why a column is an identifier. Measurements (numbers that are not whole), dates and truth values never are."""
    present = len(cells) - cells.null_count
    text = feature.kind == "categorical"
    if feature.kind == "boolean" or feature.date or not (text or _is_whole(cells)):
        return None
    if _NAME_OF_IDENTIFIER.search(name) and 2 * distinct >= present:
        return f"its name, and {distinct:,} different values in {_rows(present)}"
    if distinct < present or present < _FEWEST_FOR_IDENTIFIER:
        return None
    if text:
        return f"a different value in each of {_rows(present)}"
    numbers, _ = _as_numbers(cells)
    if np.nanmax(numbers) - np.nanmin(numbers) + 1 == present:
        return f"{present:,} different whole numbers without a gap"
    return None


def _is_whole(cells: pa.Array) -> bool:
    """Whole numbers, also those that are floats only because pandas has no missing integer."""
    if pa.types.is_integer(cells.type):
        return True
    if _is_text(cells):
        return _all_match(cells, _WHOLE)
    numbers = _floats(cells.drop_null())
    return cells.null_count > 0 and bool(np.isfinite(numbers).all() and (numbers == np.floor(numbers)).all())


# -------------------------------------------------------------------------------------------------------------- conform


def conform(frame: pd.DataFrame, schema: TableSchema, *, first_row: int = 0) -> pd.DataFrame:
    """The feature columns of any table in the form that a schema asks for; other columns are ignored.

    Numbers may be text, truth values may be 1 and 0 or text, categories may be of any plain type, dates are typed or
    text in ISO form. See the module for what one cell means.

    Args:
        frame: one row a sample, in any types.
        schema: what `prepare` found in the training table.
        first_row: how many rows came before these, for the row numbers in messages.

    Returns:
        (N, columns) in the order of the schema: numeric and boolean columns float64 with NaN where missing, categorical
        columns object with None where missing; the index of `frame`.

    Raises:
        InputError: columns that are missing, twice there or of another type, cells of another type, infinite numbers.
    """
    problems, faults = Problems(), _Faults()
    frame = _with_text_names(frame)
    names = list(frame.columns)
    problems.add(*_absent(schema.columns, names, "column"))
    repeated = _repeated(name for name in names if name in schema.columns)
    problems.check(not repeated, f"column names must be unique, got {_some(repeated, 10)}; rename them")
    if not repeated:
        present = {name: frame[name] for name in schema.columns if name in names}
        cells = _cells_of_columns(present, lambda column: _cells(_arrow(column)), schema, faults)
        features = _conformed(cells, schema, frame.index, faults, first_row)
    problems.add(*faults.messages())
    problems.raise_if_any()
    return features


def _need(name: str, schema: TableSchema) -> str:
    if schema.columns[name] == "categorical":
        return "categories"
    return _NEEDS["date" if name in schema.dates else schema.columns[name]]


def _cells_of_columns(
    columns: Mapping[str, Any], read: Callable[[Any], pa.Array], schema: TableSchema, faults: _Faults
) -> dict[str, pa.Array]:
    cells = {}
    for name, column in columns.items():
        try:
            cells[name] = read(column)
        except _Unsupported as error:
            faults.type(name, _need(name, schema), str(error))
    return cells


def _conformed(
    cells: Mapping[str, pa.Array], schema: TableSchema, index: pd.Index, faults: _Faults, first_row: int
) -> pd.DataFrame:
    """The features of the columns that are there; what is wrong with their cells goes to `faults`."""
    features: dict[str, pd.Series] = {}
    for name, values in cells.items():
        kind = schema.columns[name]
        if kind == "categorical":
            features[name] = pd.Series(_as_categories(values), index=index, dtype=object)
            continue
        convert = _as_booleans if kind == "boolean" else _as_days if name in schema.dates else _as_numbers
        numbers, bad = convert(values)
        faults.cells(name, _need(name, schema), bad, values, first_row)
        faults.cells(name, _NEEDS["finite"], np.isinf(numbers), values, first_row)
        features[name] = pd.Series(numbers, index=index, dtype=np.float64)
    return pd.DataFrame(features, index=index)


def stream_table(
    path: PathLike, schema: TableSchema, *, batch_rows: int = 65_536, keep: Sequence[str] = ()
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """The rows of a file of any size in batches, conformed to a schema; memory is bounded by the batch.

    What can be known from the beginning of the file is checked by the call itself. What is wrong further down is
    collected over the whole file and raised at the end; after the first bad batch no batch is yielded. So a caller that
    writes to a temporary file and renames it at the end leaves nothing half-written.

    Args:
        path: as for `read_table`; a CSV file has a header if the training file had one.
        schema: what `prepare` found in the training table.
        batch_rows: rows in a batch, at least 1; the last batch may have fewer. The rows do not depend on it.
        keep: columns to hand on as they are: the text of a CSV file (an empty cell is ""), the types of a Parquet file.

    Yields:
        the features as `conform` gives them, and the kept columns; both are indexed by the row of the file, from 0.

    Raises:
        InputError: what `read_table` and `conform` raise; names in `keep` that the file does not have.
    """
    problems = Problems()
    problems.check(batch_rows >= 1, f"batch_rows must be at least 1, got {batch_rows}")
    keep = tuple(dict.fromkeys(keep))
    try:
        source = _opened(path, schema.header)
    except InputError as error:
        problems.add(*error.problems)
    else:
        problems.add(*(f"{path}: {told}" for told in _absent(schema.columns, source.names, "column")))
        problems.add(*(f"{path}: {told}" for told in _absent(keep, source.names, "column to keep,")))
    problems.raise_if_any()
    return _streamed(source, schema, batch_rows, keep)


def _streamed(
    source: _Source, schema: TableSchema, batch_rows: int, keep: tuple[str, ...]
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    problems, faults, row = Problems(), _Faults(), 0
    columns = list(dict.fromkeys([*schema.columns, *keep]))
    batches = source.batches(batch_rows, columns)
    while (table := _next(batches, problems)) is not None:
        index = pd.RangeIndex(row, row + table.num_rows)
        cells = _cells_of_columns({name: table[name] for name in schema.columns}, source.cells, schema, faults)
        features = _conformed(cells, schema, index, faults, row)
        row += table.num_rows
        if not faults and not source.problems():
            yield features, _verbatim(table.select(keep), index)
    problems.add(*source.problems(), *faults.messages(source.row_number))
    problems.check(bool(row or problems), "the file must hold rows, got none")
    problems.raise_if_any()


def _next(batches: Iterator[pa.Table], problems: Problems) -> pa.Table | None:
    """The next batch; a file that breaks in the middle ends there, and what was found before is still told."""
    try:
        return next(batches, None)
    except InputError as error:
        problems.add(*error.problems)
        return None


def _verbatim(table: pa.Table, index: pd.Index) -> pd.DataFrame:
    return table.to_pandas(ignore_metadata=True, date_as_object=False).set_axis(index, axis=0)


# -------------------------------------------------------------------------------------------------------- preprocessing

_UNKNOWN_FORM = "it was not written by Preprocessor.save, or is damaged; train again, or name another file"
_MISSING_CATEGORY = "<missing>"
_LARGEST_INPUT = 1e100
_LARGEST_OUTPUT = 1e6
# skops trusts far more than this. A file can only hold what a Preprocessor is made of.
_TRUSTED = frozenset(
    {
        "builtins.dict",
        "builtins.list",
        "builtins.slice",
        "builtins.str",
        "builtins.tuple",
        "numpy.dtype",
        "numpy.float32",
        "numpy.float64",
        "numpy.int64",
        "numpy.ndarray",
        "sklearn.compose._column_transformer.ColumnTransformer",
        "sklearn.compose._column_transformer._RemainderColsList",
        "sklearn.impute._base.MissingIndicator",
        "sklearn.impute._base.SimpleImputer",
        "sklearn.pipeline.Pipeline",
        "sklearn.preprocessing._data.QuantileTransformer",
        "sklearn.preprocessing._data.StandardScaler",
        "sklearn.preprocessing._encoders.OneHotEncoder",
    }
)
_TRUSTED_LOADERS = frozenset(
    {"DictNode", "DTypeNode", "JsonNode", "ListNode", "NdArrayNode", "ObjectNode", "SliceNode", "TupleNode", "TypeNode"}
)


class Preprocessor:
    """Features of any kind as finite float32 numbers; what a row becomes does not depend on the other rows.

    * numeric: missing values get the median, a column that had some gets a second one that says where. Then "quantile"
      maps the training distribution to the standard normal one, robust to outliers and skew and within ±5.2;
      "standard" subtracts the mean and divides by the standard deviation.
    * boolean: 0 or 1; missing values get the more frequent one, and a column that says where.
    * categorical: one column a category; missing is a category. Categories with fewer than 5 rows, those beyond the 64
      most frequent ones, and those that training did not have share a column (where no category was rare, new ones are
      all zeros).

    Args:
        numeric: "quantile" or "standard".

    Raises:
        InputError: another value of `numeric`.
    """

    schema: TableSchema
    n_features: int

    def __init__(self, numeric: Literal["quantile", "standard"] = "quantile") -> None:
        if numeric not in ("quantile", "standard"):
            raise InputError(f"numeric must be quantile or standard, got {numeric!r}")
        self.numeric = numeric
        self._transformer: Any = None

    def fit(self, features: pd.DataFrame, schema: TableSchema) -> Self:
        """Learns from the training rows alone.

        Args:
            features: (N, columns) as `prepare` and `conform` give them, N at least 1.
            schema: the schema that they conform to.

        Raises:
            InputError: no rows, or features that do not conform.
        """
        if not len(features):
            raise InputError("a preprocessor needs rows to learn from, got none")
        inputs = _inputs(features, schema)
        self.schema = schema
        self._transformer = _transformer(schema, self.numeric, len(features)).fit(inputs)
        self.n_features = self._transformer.transform(inputs.iloc[:1]).shape[1]
        return self

    def transform(self, features: pd.DataFrame) -> np.ndarray:
        """(N, `n_features`) float32, C-contiguous and finite, of (N, columns) conformed features.

        Raises:
            InputError: the preprocessor is not fitted, or features that do not conform.
        """
        if self._transformer is None:
            raise InputError("a preprocessor must be fitted before it can transform; call fit or load")
        inputs = _inputs(features, self.schema)
        if not len(inputs):
            return np.empty((0, self.n_features), dtype=np.float32)
        outputs = np.asarray(self._transformer.transform(inputs))
        # A value far outside of what training saw is finite as float64 and infinite as float32.
        return np.ascontiguousarray(np.clip(outputs, -_LARGEST_OUTPUT, _LARGEST_OUTPUT), dtype=np.float32)

    def save(self, path: PathLike) -> None:
        """Writes the fitted preprocessor in the format of skops, which holds no code.

        Raises:
            InputError: the preprocessor is not fitted.
        """
        import skops.io

        if self._transformer is None:
            raise InputError("a preprocessor must be fitted before it can be saved; call fit")
        content = {
            "schema": json.dumps(self.schema.to_json()),
            "numeric": self.numeric,
            "n_features": self.n_features,
            "transformer": self._transformer,
        }
        skops.io.dump(content, Path(path))

    @classmethod
    def load(cls, path: PathLike) -> Preprocessor:
        """What `save` wrote. Nothing in the file is run: it may hold only the types that a preprocessor is made of.

        Raises:
            InputError: no such file, another type in it, or a file of another form.
        """
        import skops.io
        from sklearn.compose import ColumnTransformer

        path = _file(path)
        _refuse_foreign_types(path)
        try:
            untrusted = skops.io.get_untrusted_types(file=path)
            content = skops.io.load(path, trusted=[name for name in untrusted if name in _TRUSTED])
            loaded = cls(content["numeric"])
            loaded.schema = TableSchema.from_json(json.loads(content["schema"]))
            loaded.n_features = int(content["n_features"])
            loaded._transformer = content["transformer"]
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            raise InputError(f"{path}: {_UNKNOWN_FORM} ({error})") from error
        if not isinstance(loaded._transformer, ColumnTransformer):
            raise InputError(f"{path}: {_UNKNOWN_FORM}")
        return loaded


def _inputs(features: pd.DataFrame, schema: TableSchema) -> pd.DataFrame:
    """Conformed features for scikit-learn: a category for what is missing, numbers whose squares are finite.

    Raises:
        InputError: columns that are missing or of another type, infinite numbers.
    """
    problems = Problems()
    problems.add(*_absent(schema.columns, list(features.columns), "column"))
    columns: dict[str, pd.Series] = {}
    for name, kind in schema.columns.items():
        if name not in features.columns:
            continue
        column = features[name]
        if kind == "categorical":
            columns[name] = column.astype(object).where(column.notna(), _MISSING_CATEGORY)
            continue
        sound = column.dtype == np.float64 and not np.isinf(column.to_numpy()).any()
        problems.check(
            sound, f"column {name!r} must hold finite float64, got {column.dtype}; pass the table to conform before"
        )
        if sound:
            columns[name] = column.clip(-_LARGEST_INPUT, _LARGEST_INPUT)
    problems.raise_if_any()
    return pd.DataFrame(columns, index=features.index)


def _transformer(schema: TableSchema, numeric: str, n: int) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import MissingIndicator, SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, QuantileTransformer, StandardScaler

    of_kind = {kind: [name for name, k in schema.columns.items() if k == kind] for kind in get_args(Kind)}
    # All rows, not a sample of them: the quantiles then need no random numbers, and rare rows are the point.
    quantile = QuantileTransformer(n_quantiles=min(1000, n), output_distribution="normal", subsample=None)
    numbers = Pipeline(
        [
            ("impute", SimpleImputer(strategy="median", keep_empty_features=True)),
            ("scale", quantile if numeric == "quantile" else StandardScaler()),
        ]
    )
    categories = OneHotEncoder(
        handle_unknown="infrequent_if_exist", min_frequency=5, max_categories=64, sparse_output=False, dtype=np.float32
    )
    # An indicator goes beside its imputer, not into it: the numbers after it must not be mapped to quantiles.
    return ColumnTransformer(
        [
            ("numeric", numbers, of_kind["numeric"]),
            ("numeric_missing", MissingIndicator(error_on_new=False), of_kind["numeric"]),
            ("boolean", SimpleImputer(strategy="most_frequent", keep_empty_features=True), of_kind["boolean"]),
            ("boolean_missing", MissingIndicator(error_on_new=False), of_kind["boolean"]),
            ("categorical", categories, of_kind["categorical"]),
        ],
        sparse_threshold=0.0,
    )


def _refuse_foreign_types(path: Path) -> None:
    """Reads which types a skops file names, as JSON and without loading any.

    Raises:
        InputError: the file is not of that format, or names a type that no preprocessor has.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            tree = json.loads(archive.read("schema.json"))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, zlib.error) as error:
        raise InputError(f"{path}: {_UNKNOWN_FORM} ({error})") from error
    foreign = sorted({told for node in _nodes(tree) if (told := _foreign(node))})
    if foreign:
        raise InputError(
            f"{path}: a preprocessor must hold only scikit-learn's transformers and arrays, got {_some(foreign)}; "
            "do not load files from sources that you do not trust"
        )


def _foreign(node: Mapping[str, Any]) -> str | None:
    if "__class__" not in node and "__loader__" not in node:
        return None
    name, loader = f"{node.get('__module__')}.{node.get('__class__')}", str(node.get("__loader__"))
    if name in _TRUSTED and loader in _TRUSTED_LOADERS:
        return None
    return name if name not in _TRUSTED else f"{name} read by {loader}"


def _nodes(tree: Any) -> Iterator[Mapping[str, Any]]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Mapping):
            yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


# ------------------------------------------------------------------------------------------------------------ splitting

_SPLITS = ("train", "validation", "test")


def split_rows(
    y: np.ndarray,
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    *,
    seed: int = 0,
    groups: Sequence[Any] | np.ndarray | pd.Series | None = None,
) -> dict[str, np.ndarray]:
    """Rows for training, validation and test, with about the same share of each class.

    Without groups each class is divided by the largest remainders: every split has the number of rows that its fraction
    asks for, rounded up or down, but at least one. With groups, all rows of a group are in one split, every split has
    rows of each class, and the shares are as even as adding one group after the other, those with the largest part of a
    class first, makes them; they are not the closest possible.

    Args:
        y: (N,) integer classes.
        fractions: the sizes of train, validation and test, in [0, 1], of the sum 1. A split of size 0 is empty.
        seed: the same seed gives the same rows; at least 0.
        groups: (N,) what must not be torn apart: a patient, a lesion, a machine.

    Returns:
        "train", "validation" and "test": sorted row indices from 0, int64; together every row once.

    Raises:
        InputError: fractions out of range, a class with fewer rows (or groups) than splits, groups that do not fit.
    """
    problems = Problems()
    y = np.asarray(y)
    sizes = np.array([float(f) for f in fractions])
    problems.check(seed >= 0, f"seed must be at least 0, got {seed}")
    problems.add(*problems_of_fractions(fractions))
    _check_classes(y, int((sizes > 0).sum()), problems)
    group_of_row = None if groups is None else _group_of_row(groups, len(y), problems)
    problems.raise_if_any()
    classes, class_of_row = np.unique(y, return_inverse=True)
    rng = np.random.default_rng(seed)
    if group_of_row is None:
        split_of_row = _split_rows(class_of_row, sizes, rng)
    else:
        split_of_row = _split_groups(class_of_row, group_of_row, sizes, rng)[group_of_row]
        _check_split_groups(split_of_row, class_of_row, group_of_row, classes, sizes, problems)
        problems.raise_if_any()
    return {name: np.flatnonzero(split_of_row == i) for i, name in enumerate(_SPLITS)}


def problems_of_fractions(fractions: Sequence[float]) -> list[str]:
    """What keeps numbers from being the sizes of train, validation and test."""
    problems = Problems()
    sizes = np.array([float(f) for f in fractions])
    told = ", ".join(f"{size:g}" for size in sizes)
    problems.check(len(sizes) == 3, f"fractions must be three: train, validation, test; got {told}")
    inside = bool(np.all((sizes >= 0) & (sizes <= 1)))
    problems.check(inside, f"fractions must be in [0, 1], got {told}")
    problems.check(
        not inside or abs(float(sizes.sum()) - 1) < 1e-6, f"fractions must add up to 1, got {told} = {sizes.sum():g}"
    )
    return list(problems)


def _check_classes(y: np.ndarray, needed: int, problems: Problems) -> None:
    if y.ndim != 1 or not len(y) or y.dtype.kind not in "iub":
        problems.add(f"y must hold one integer class a row, got shape {y.shape} of {y.dtype}")
        return
    classes, counts = np.unique(y, return_counts=True)
    problems.check(len(classes) > 1, f"y must have rows of two classes, got only class {classes[0]}")
    for k, n in zip(classes, counts, strict=True):
        problems.check(
            n >= needed,
            f"every split needs a row of each class, got {_rows(int(n))} of class {k} for {needed} splits; "
            "add rows, or set a fraction to 0",
        )


def _group_of_row(groups: Sequence[Any] | np.ndarray | pd.Series, n: int, problems: Problems) -> np.ndarray:
    """(N,) the number of each row's group, in the order in which the groups appear."""
    codes, _ = pd.factorize(pd.Series(groups, dtype=object))
    problems.check(len(codes) == n, f"groups must name one group a row, got {len(codes):,} for {_rows(n)}")
    if missing := int((codes < 0).sum()):
        problems.add(f"every row must have a group, got {missing:,} without, first in row {int(np.argmin(codes)) + 1}")
    return codes


def _split_rows(class_of_row: np.ndarray, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N,) the split of each row, stratified by class."""
    split_of_row = np.empty(len(class_of_row), dtype=np.int64)
    for k in range(int(class_of_row.max()) + 1):
        rows = rng.permutation(np.flatnonzero(class_of_row == k))
        split_of_row[rows] = np.repeat(np.arange(3), _shares(len(rows), sizes))
    return split_of_row


def _shares(n: int, sizes: np.ndarray) -> np.ndarray:
    """(3,) n divided by the largest remainders; a split of positive size takes one from the largest if it got none."""
    # Without the rounding, 0.6 * 5 = 3.0000000000000004 - 3 would have a larger remainder than an exact 0.
    quotas = np.round(sizes * n, 9)
    shares = np.floor(quotas).astype(np.int64)
    order = np.argsort(shares - quotas, kind="stable")
    shares[order[: n - shares.sum()]] += 1
    while (empty := np.flatnonzero((shares == 0) & (sizes > 0))).size:
        shares[np.argmax(shares)] -= 1
        shares[empty[0]] += 1
    return shares


def _split_groups(
    class_of_row: np.ndarray, group_of_row: np.ndarray, sizes: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """(groups,) the split of each group.

    Each group goes where it adds least to the sum of share²/fraction over splits and classes, which is smallest where
    every share of a class is its split's fraction. Relative to the fractions, so that all splits fill alike from the
    start: otherwise the largest one would draw in the groups with few rows of the rare class by its need of the others.
    """
    n_groups, n_classes = int(group_of_row.max()) + 1, int(class_of_row.max()) + 1
    counts = np.zeros((n_groups, n_classes), dtype=np.int64)
    np.add.at(counts, (group_of_row, class_of_row), 1)
    parts = counts / counts.sum(axis=0)
    order = rng.permutation(n_groups)
    order = order[np.argsort(-parts[order].max(axis=1), kind="stable")]
    usable = np.flatnonzero(sizes > 0)
    filled = np.zeros((len(usable), n_classes))
    split_of_group = np.empty(n_groups, dtype=np.int64)
    for group in order:
        part = parts[group]
        chosen = int(np.argmin(2 * (filled @ part) + (part @ part) / sizes[usable]))
        filled[chosen] += part / sizes[usable[chosen]]
        split_of_group[group] = usable[chosen]
    _fill_empty(split_of_group, counts, usable)
    return split_of_group


def _fill_empty(split_of_group: np.ndarray, counts: np.ndarray, usable: np.ndarray) -> None:
    """Moves the smallest group that helps into each split without rows of a class, if its own split can spare it."""
    for split in usable:
        for k in range(counts.shape[1]):
            if counts[split_of_group == split, k].any():
                continue
            candidates = np.flatnonzero(counts[:, k] > 0)
            for group in candidates[np.argsort(counts[candidates].sum(axis=1), kind="stable")]:
                rest = (split_of_group == split_of_group[group]) & (np.arange(len(counts)) != group)
                if counts[rest].any(axis=0).all():
                    split_of_group[group] = split
                    break


def _check_split_groups(
    split_of_row: np.ndarray,
    class_of_row: np.ndarray,
    group_of_row: np.ndarray,
    classes: np.ndarray,
    sizes: np.ndarray,
    problems: Problems,
) -> None:
    for split in np.flatnonzero(sizes > 0):
        for k, name in enumerate(classes):
            if np.any((split_of_row == split) & (class_of_row == k)):
                continue
            n = len(np.unique(group_of_row[class_of_row == k]))
            problems.add(
                f"every split needs a row of each class, but {_SPLITS[split]} has none of class {name}, whose rows are "
                f"in {n} {'group' if n == 1 else 'groups'}; use fewer or smaller groups, or set a fraction to 0"
            )


# ------------------------------------------------------------------------------------------------------------- identity


def fingerprint(frame: pd.DataFrame) -> str:
    """`sha256:...` of a table: its column names, cells and their order.

    The same file read in the same way has the same fingerprint on every machine; any other cell, name, order of rows or
    columns gives another. The index does not count. 1 and 1.0 are different cells; None and NaN are the same.
    """
    digest = hashlib.sha256(f"{len(frame)} rows, {frame.shape[1]} columns".encode())
    for i, name in enumerate(frame.columns):
        digest.update(json.dumps(str(name)).encode())
        for part in _bytes_of_column(frame.iloc[:, i]):
            digest.update(part)
    return f"sha256:{digest.hexdigest()}"


def _bytes_of_column(column: pd.Series) -> Iterator[bytes]:
    """The kind of the cells, which of them are missing, and the cells, none of which can run into the next."""
    try:
        values = _arrow(column)
    except _Unsupported:
        values = pa.array([repr(value) for value in column], pa.large_string())
    types, tag = pa.types, ""
    if types.is_date(values.type):
        values = values.cast(pa.timestamp("ms"))
    if types.is_timestamp(values.type):
        tag, values = str(values.type), values.cast(pa.int64())
    if types.is_boolean(values.type):
        tag, values = "bool", values.cast(pa.int64())
    if types.is_integer(values.type) or types.is_floating(values.type):
        code = "<f8" if types.is_floating(values.type) else "<u8" if values.type == pa.uint64() else "<i8"
        yield f"{code} {tag}".encode() + np.packbits(_bits(values.is_null())).tobytes()
        yield values.fill_null(0).to_numpy(zero_copy_only=False).astype(code).tobytes()
        return
    text = [value if value is None or isinstance(value, str) else repr(value) for value in values.to_pylist()]
    encoded = [b"" if value is None else value.encode() for value in text]
    yield b"text" + np.array([-1 if v is None else len(e) for v, e in zip(text, encoded, strict=True)], "<i8").tobytes()
    yield b"".join(encoded)


def row_hashes(frame: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """A number for each row that is the same for rows with the same features, to find rows that training has seen.

    Args:
        frame: features as `conform` and `stream_table` give them; other types of the same values give other hashes.
        columns: which columns count, in this order; at least one.

    Returns:
        (N,) uint64, the same on every machine (pandas' hash of the row without its index). Two different rows share a
        hash with a probability of about 5e-20.

    Raises:
        InputError: no columns, or columns that the frame does not have.
    """
    problems = Problems()
    problems.check(len(columns) > 0, "a row needs at least one column to be told from others, got none")
    problems.add(*_absent(columns, [str(name) for name in frame.columns], "column"))
    problems.raise_if_any()
    return pd.util.hash_pandas_object(frame[list(columns)], index=False).to_numpy(dtype=np.uint64)
