"""Reading: CSV and Parquet files as batches of rows, and as a whole (`read_table`).

`open_table` looks at the beginning of a file: is it a table, in which dialect, under which names. What it returns, a
`Source`, gives the rows in batches, so that a file may be larger than memory. The cells of a CSV file stay text until
their column is complete, or until a schema says what they are: a type guessed from one block can fail in a later one.

Everything wrong with a file is an `InputError` that names it. Row numbers count data rows from 1, also those left out.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import warnings
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from tunelater.data.cells import (
    CODE,
    NUMBER,
    WHOLE,
    all_match,
    any_match,
    as_cells,
    cleaned,
    is_missing,
    one_array,
    or_null,
    parsed,
    repeated_names,
    some_of,
    told_rows,
    trimmed,
)
from tunelater.problems import DoubtfulInputWarning, InputError

PathLike = str | Path

_SAMPLE_BYTES = 1 << 20
_BLOCK_BYTES = 4 << 20
_GZIP = b"\x1f\x8b"
_SIGNATURES = {
    b"PAR1": "it is a Parquet file; give it the extension .parquet",
    b"PK\x03\x04": "it is a zip archive, an Excel workbook or an .npz file; unpack it, or save the table as CSV",
    b"\xff\xfe": "it is UTF-16; save it as UTF-8",
    b"\xfe\xff": "it is UTF-16; save it as UTF-8",
    _GZIP: "it is compressed twice; unpack it",
}
_INDEX_OF_PANDAS = re.compile(r"__index_level_\d+__$")


class Source(Protocol):
    """An open table file whose column names are known and whose rows come in batches."""

    @property
    def names(self) -> list[str]: ...

    @property
    def schema(self) -> pa.Schema:
        """The columns as the batches give them."""

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
            f"{self.path}: every row must have {_told_fields(len(self.names))}, as the {reference} has, "
            f"got {told_rows(len(self.ragged))} with another number: {examples}; "
            f"put quotes around fields that contain {self.delimiter!r}"
        ]

    def row_number(self, index: int) -> int:
        number = index + 1
        while (shifted := index + 1 + bisect_right(self.ragged, number)) != number:
            number = shifted
        return number

    def cells(self, values: pa.ChunkedArray) -> pa.Array:
        return as_cells(one_array(values), self.decimal_comma)

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([(name, pa.large_string()) for name in self.names])

    @property
    def decimal_comma(self) -> bool:
        """Where semicolons separate the fields, the comma is free to be the decimal point, and often is."""
        return self.delimiter == ";"

    def pandas(self, table: pa.Table) -> pd.DataFrame:
        columns = [_typed(one_array(column), self.decimal_comma) for column in table.columns]
        return pa.table(columns, names=self.names).to_pandas()


@dataclass
class _Parquet:
    """A Parquet file; the index that pandas stores beside the columns is not a column."""

    path: Path
    names: list[str]
    schema: pa.Schema

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
        return as_cells(one_array(values))

    def pandas(self, table: pa.Table) -> pd.DataFrame:
        for i, column in enumerate(table.schema):
            if pa.types.is_decimal(column.type):
                table = table.set_column(i, column.name, table[i].cast(pa.float64()))
        return table.to_pandas(ignore_metadata=True, date_as_object=False)


def _told_fields(n: int) -> str:
    return "1 field" if n == 1 else f"{n} fields"


def _typed(text: pa.Array, decimal_comma: bool) -> pa.Array:
    """A column of a CSV file as what all its values are: whole numbers, numbers, truth values or text.

    Numbers stay text where converting would lose something: leading zeros (007), more digits than a float holds.
    """
    bare = trimmed(text, decimal_comma)
    quoted = pc.match_substring_regex(bare, r"(?s)^'.*'$")
    all_quoted = pc.all(pc.or_(quoted, is_missing(bare)), min_count=0).as_py()
    some_quoted = pc.any(quoted, min_count=0).as_py()
    clean = or_null(bare, pc.invert(is_missing(bare))) if some_quoted and not all_quoted else cleaned(bare)
    if clean.null_count == len(clean):
        return clean.cast(pa.float64())
    numbers, bad = parsed(clean)
    if not bad.any() and not any_match(clean, CODE):
        return numbers.cast(pa.int64()) if all_match(clean, WHOLE) else numbers
    if all_match(clean, r"^(?i:true|false)$"):
        return pc.equal(pc.utf8_lower(clean), "true")
    return clean


def checked_file(path: PathLike) -> Path:
    """The path of a file that is there and holds something.

    Raises:
        InputError: no such file, a folder, an empty file.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: must be a file, got a folder; name the CSV or Parquet file in it")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: must be a file, got a pipe or a device; write what comes from it to a file first")
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    with _reading(path):
        if path.stat().st_size == 0:
            raise InputError(f"{path}: must hold a table, got an empty file")
    return path


def open_table(path: PathLike, header: bool) -> Source:
    """The file with its column names, after all checks that need no more than its beginning.

    Raises:
        InputError: no such file, a folder, nothing in it, not a table, names that are numbers or not unique.

    Warns:
        DoubtfulInputWarning: most names are numbers, so that the header may be a row of data.
    """
    path = checked_file(path)
    source = _opened_parquet(path) if path.suffix.lower() in (".parquet", ".pq") else _opened_csv(path, header)
    if repeated := repeated_names(source.names):
        raise InputError(f"{path}: column names must be unique, got {some_of(repeated, 10)}; rename them")
    return source


def _opened_parquet(path: Path) -> Source:
    with _reading(path), pq.ParquetFile(path) as file:
        schema, rows = file.schema_arrow.remove_metadata(), file.metadata.num_rows
    names = [name for name in schema.names if not _INDEX_OF_PANDAS.match(name)]
    if not names or not rows:
        raise InputError(f"{path}: must hold a table, got {len(names)} columns and {rows} rows")
    return _Parquet(path, names, schema)


def _opened_csv(path: Path, header: bool) -> Source:
    sample, complete, compression = _sample(path)
    if not sample.strip():
        raise InputError(f"{path}: must hold a table, got an empty file")
    delimiter, quote = _sniffed(sample)
    _warn_of_one_field(path, sample, delimiter, quote)
    records = [record for record in islice(_records(sample, delimiter, quote), 100) if record]
    if not header:
        names = [f"column_{i}" for i in range(1, len(records[0]) + 1)]
        return _Csv(path, names, header, delimiter, quote, compression)
    names = _names(records[0])
    numbers = _numbers_among(names)
    if numbers and not _has_names(names, numbers):
        raise InputError(
            f"{path}: the first row must hold column names, got numbers only ({some_of(names)}); "
            "if the file has no header, say so: --no-header (header=False)"
        )
    if complete and len(records) == 1:
        raise InputError(f"{path}: must hold rows, got a header of {len(names)} columns and nothing below it")
    if 2 * len(numbers) > len(names):
        warnings.warn(
            f"{path}: {len(numbers)} of {len(names)} column names are numbers ({some_of(numbers)}); "
            "if the first row is data, say so: --no-header (header=False)",
            DoubtfulInputWarning,
            stacklevel=4,  # the caller of read_table or stream_table
        )
    return _Csv(path, names, header, delimiter, quote, compression)


def _warn_of_one_field(path: Path, sample: str, delimiter: str, quote: str) -> None:
    first = next((record for record in _records(sample, delimiter, quote) if record), [])
    if len(first) == 1 and re.search(r"\S[\s:^~]+\S", first[0]):
        warnings.warn(
            f"{path}: each row is read as one field, got {first[0][:40]!r} first; fields are told apart by commas, "
            "semicolons, tabs or |: if these are by something else, save the file anew",
            DoubtfulInputWarning,
            stacklevel=5,  # the caller of read_table or stream_table
        )


def _names(record: list[str]) -> list[str]:
    names = [name.strip() for name in record]
    if all(len(name) > 1 and name[0] == name[-1] == "'" for name in names):
        names = [name[1:-1].strip() for name in names]
    return names


def _bare(names: list[str]) -> list[str]:
    return [name.strip("'") for name in names]


def _numbers_among(names: list[str]) -> list[str]:
    return [name for name in _bare(names) if re.match(NUMBER, name)]


def _has_names(names: list[str], numbers: list[str]) -> bool:
    missing = pc.sum(is_missing(pa.array(_bare(names), pa.large_string()))).as_py()
    return len(numbers) + missing < len(names)


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


def _records(sample: str, delimiter: str, quote: str, *, strict: bool = False) -> Iterator[list[str]]:
    try:
        yield from csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter, quotechar=quote, strict=strict)
    except csv.Error:  # an open quote that swallows the sample; the real reader will name the row
        return


def _sniffed(sample: str) -> tuple[str, str]:
    """The delimiter and quote character under which the first rows have equally many fields, more than one.

    A comma comes last because it is also a decimal point; single quotes come after double ones because they are also
    apostrophes. Where no choice is consistent, the header decides.
    """
    widths: dict[tuple[str, str], int] = {}
    for quote in ('"', "'"):
        for delimiter in "\t;|,":
            records = _records(sample, delimiter, quote, strict=True)  # else an open quote makes one record of it all
            found = [len(record) for record in islice(records, 50) if record]
            widths[delimiter, quote] = found[0] if found else 0
            if found and found[0] > 1 and len(set(found)) == 1:
                return delimiter, quote
    best = max(widths.values())
    return next(choice for choice in [(",", '"'), *widths] if widths[choice] == best)


def read_table(path: PathLike, *, header: bool = True) -> pd.DataFrame:
    """A CSV file (also compressed by gzip) or, with the extension .parquet or .pq, a Parquet file.

    The delimiter of a CSV file (comma, semicolon, tab or |) and its quote character are found from its first rows;
    where it is the semicolon, 1,5 is a number. Cells that are empty or NA, N/A, NaN, null, None, ? are missing. Single
    quotes around the values are removed where every value of the column has them. Columns become int64, float64, bool
    or text; dates stay text, and so do numbers with leading zeros or more than 15 digits. Parquet keeps its types; an
    unnamed index that pandas stored is left out.

    Args:
        path: the file.
        header: whether the first row of a CSV file holds the column names; else they are column_1, column_2, ...

    Returns:
        one row a data row, in the order of the file.

    Raises:
        InputError: no such file, a folder, an empty file, no rows, rows of different lengths, binary data or another
            encoding than UTF-8, a broken file, column names that repeat or are numbers only.

    Warns:
        DoubtfulInputWarning: most column names are numbers, so that the header may be a row of data.
    """
    source = open_table(path, header)
    tables = list(source.batches(1 << 20, source.names))
    if problems := source.problems():
        raise InputError(problems)
    if not tables:
        raise InputError(f"{path}: must hold rows, got none")
    return source.pandas(pa.concat_tables(tables))
