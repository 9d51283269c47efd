"""Reading: CSV and Parquet files, and folders of Parquet files, as batches of rows, and as a whole (`read_table`).

`open_table` looks at the beginning of a file: is it a table, in which dialect, under which names. What it returns, a
`Source`, gives the rows in batches, so that a file may be larger than memory. The cells of a CSV file stay text until
their column is complete, or until a schema says what they are: a type guessed from one block can fail in a later one.

A folder is one table where it holds Parquet files, at any depth: their rows in the order of the files' relative names.
Parquet comes in `Fragment`s, which can be read apart, by other processes too, and in any order.

Everything wrong with a file is an `InputError` that names it. Row numbers count data rows from 1, also those left out;
in a folder each file has its own.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
import warnings
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, islice
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
from tunelater.problems import DoubtfulInputWarning, InputError, Problems

PathLike = str | Path
PARQUET_SUFFIXES = (".parquet", ".pq")
FRAGMENT_ROWS = 1 << 20
"""Row groups are read together up to so many rows."""

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


@dataclass(frozen=True)
class Fragment:
    """Row groups of a Parquet file, from `first` up to `stop`: what is read at a time, by one process."""

    path: Path
    first: int
    stop: int
    start: int
    """Rows of the file before them."""
    rows: int


class Source(Protocol):
    """An open table whose column names are known and whose rows come in batches."""

    @property
    def path(self) -> Path: ...

    @property
    def fragments(self) -> Sequence[Fragment]:
        """What can be read apart, in order; nothing where a file can only be read from its beginning."""

    def fragment(self, index: int) -> Source:
        """The rows of one fragment alone."""

    @property
    def names(self) -> list[str]: ...

    @property
    def schema(self) -> pa.Schema:
        """The columns as the batches give them."""

    def batches(self, rows: int, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Tables of `rows` rows, the last one (of each fragment) shorter, with at least `columns`."""

    def problems(self) -> list[str]:
        """What was wrong with the rows read so far."""

    def row(self, index: int) -> str:
        """The number of the data row which the batches gave as the index-th one, from 0, and in which file of several
        it is."""

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
    fragments: tuple[Fragment, ...] = ()

    def fragment(self, index: int) -> Source:
        raise IndexError("a CSV file is read from its beginning")

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

    def row(self, index: int) -> str:
        number = index + 1
        while (shifted := index + 1 + bisect_right(self.ragged, number)) != number:
            number = shifted
        return str(number)

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


@dataclass(frozen=True)
class _Parquet:
    """Parquet files that are one table; the index that pandas stores beside the columns is not a column.

    Attributes:
        path: of the file, or of the folder.
        schema: of all files: types that differ are widened.
    """

    path: Path
    names: list[str]
    schema: pa.Schema
    fragments: tuple[Fragment, ...]

    def fragment(self, index: int) -> _Parquet:
        return replace(self, fragments=self.fragments[index : index + 1])

    def batches(self, rows: int, columns: Sequence[str]) -> Iterator[pa.Table]:
        wanted = list(columns)
        schema = pa.schema([self.schema.field(name) for name in wanted])
        for fragment in self.fragments:
            with _reading(fragment.path):
                file = pq.ParquetFile(fragment.path)
            with file:
                groups = range(fragment.first, fragment.stop)
                batches = file.iter_batches(min(rows, 1 << 16), row_groups=groups, columns=wanted)
                for table in _rebatched(_safely(batches, fragment.path), rows):
                    yield _widened(table.select(wanted), schema, fragment.path)

    def problems(self) -> list[str]:
        return []

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(fragment.rows for fragment in self.fragments))

    def row(self, index: int) -> str:
        at = min(bisect_right(self._ends, index), len(self.fragments) - 1)
        fragment = self.fragments[at]
        number = fragment.start + index - (self._ends[at] - fragment.rows) + 1
        return str(number) if fragment.path == self.path else f"{number} of {fragment.path}"

    def cells(self, values: pa.ChunkedArray) -> pa.Array:
        return as_cells(one_array(values))

    def pandas(self, table: pa.Table) -> pd.DataFrame:
        for i, column in enumerate(table.schema):
            if pa.types.is_decimal(column.type):
                table = table.set_column(i, column.name, table[i].cast(pa.float64()))
        return table.to_pandas(ignore_metadata=True, date_as_object=False)


def _widened(table: pa.Table, schema: pa.Schema, path: Path) -> pa.Table:
    """The table in the types of all files of its folder."""
    if table.schema.equals(schema):
        return table
    columns = []
    for name, kind in zip(schema.names, schema.types, strict=True):
        try:
            columns.append(table[name].cast(kind))
        except pa.ArrowInvalid as error:
            raise InputError(
                f"{path}: column {name!r} holds values that other files' type {kind} cannot hold ({error}); write all "
                "files with one type"
            ) from error
    return pa.Table.from_arrays(columns, schema=schema)


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
        raise InputError(
            f"{path}: must be a file or a folder of Parquet files, got a folder without one; name the CSV file in it"
        )
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: must be a file, got a pipe or a device; write what comes from it to a file first")
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    with _reading(path):
        if path.stat().st_size == 0:
            raise InputError(f"{path}: must hold a table, got an empty file")
    return path


def checked_table(path: PathLike) -> Path:
    """The path of a file that is there and holds something, or of a folder with a Parquet file.

    Raises:
        InputError: as `checked_file`.
    """
    return Path(path) if is_parquet_folder(path) else checked_file(path)


def open_table(path: PathLike, header: bool) -> Source:
    """The file with its column names, after all checks that need no more than its beginning.

    Raises:
        InputError: no such file, a folder without Parquet files, nothing in it, not a table, names that are numbers or
            not unique; files of a folder that differ in their columns.

    Warns:
        DoubtfulInputWarning: most names are numbers, so that the header may be a row of data; other files in a folder
            of Parquet files.
    """
    path = checked_table(path)
    if path.is_dir():
        source: Source = _opened_folder(path)
    else:
        source = _opened_parquet(path) if _is_parquet(path) else _opened_csv(path, header)
    if repeated := repeated_names(source.names):
        raise InputError(f"{path}: column names must be unique, got {some_of(repeated, 10)}; rename them")
    return source


@dataclass(frozen=True)
class _Footer:
    """What the end of a Parquet file says about it."""

    path: Path
    schema: pa.Schema
    rows: tuple[int, ...]
    """Of each row group."""

    @classmethod
    def of(cls, path: Path) -> _Footer:
        with _reading(path), pq.ParquetFile(path) as file:
            groups = file.metadata
            rows = tuple(groups.row_group(i).num_rows for i in range(groups.num_row_groups))
            return cls(path, file.schema_arrow.remove_metadata(), rows)

    @property
    def names(self) -> list[str]:
        return [name for name in self.schema.names if not _INDEX_OF_PANDAS.match(name)]

    def fragments(self) -> Iterator[Fragment]:
        """Row groups, as many at a time as have `FRAGMENT_ROWS` rows, one at the least."""
        first = start = 0
        for stop in range(1, len(self.rows) + 1):
            held = sum(self.rows[first:stop])
            if stop == len(self.rows) or held + self.rows[stop] > FRAGMENT_ROWS:
                if held:
                    yield Fragment(self.path, first, stop, start, held)
                first, start = stop, start + held


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in PARQUET_SUFFIXES


def _opened_parquet(path: Path) -> Source:
    footer = _Footer.of(path)
    if not footer.names or not sum(footer.rows):
        raise InputError(f"{path}: must hold a table, got {len(footer.names)} columns and {sum(footer.rows)} rows")
    return _Parquet(path, footer.names, footer.schema, tuple(footer.fragments()))


def _visible_files(folder: Path) -> Iterator[Path]:
    """The files at any depth below a folder, but those that start with a dot or an underscore, as writers of many files
    leave them beside the table (`_SUCCESS`, `_metadata`, `.part-0.parquet.crc`), or lie in such a folder."""
    for above, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        yield from (Path(above, name) for name in files if not name.startswith((".", "_")))


def parquet_files(folder: PathLike) -> list[Path]:
    """The Parquet files at any depth below a folder, without hidden ones, in the order of their relative names."""
    folder = Path(folder)
    return sorted(filter(_is_parquet, _visible_files(folder)), key=lambda path: path.relative_to(folder).as_posix())


def is_parquet_folder(path: object) -> bool:
    """Whether a path is a folder with a Parquet file in it, at any depth."""
    return isinstance(path, str | Path) and Path(path).is_dir() and any(map(_is_parquet, _visible_files(Path(path))))


def is_parquet(path: object) -> bool:
    """Whether a path is a Parquet file by its name, or a folder with one in it."""
    return isinstance(path, str | Path) and (is_parquet_folder(path) or _is_parquet(Path(path)))


def size_in_memory(path: PathLike) -> int:
    """About how many bytes a table's cells take: of Parquet as its footers say, of CSV as the file has (five times as
    many where it is compressed)."""
    path = Path(path)
    if not is_parquet(path):
        with path.open("rb") as file:
            return path.stat().st_size * (5 if file.read(2) == _GZIP else 1)
    sizes = 0
    for each in parquet_files(path) if path.is_dir() else [path]:
        with _reading(each), pq.ParquetFile(each) as parquet:
            footer = parquet.metadata
            sizes += sum(footer.row_group(i).total_byte_size for i in range(footer.num_row_groups))
    return sizes


def _opened_folder(folder: Path) -> Source:
    if (folder / "_delta_log").is_dir():
        raise InputError(
            f"{folder}: must be a folder of plain Parquet files, got a Delta table, whose files still hold rows that "
            "were removed from it; write the table to a folder of its own"
        )
    problems, footers = Problems(), []
    for path in parquet_files(folder):
        try:
            footers.append(_Footer.of(path))
        except InputError as error:
            problems.add(*error.problems)
    problems.raise_if_any()
    schema = _common_schema(footers, problems)
    problems.raise_if_any()
    if not schema.names or not any(sum(footer.rows) for footer in footers):
        told = f"{len(footers)} files with {len(schema.names)} columns and no row"
        raise InputError(f"{folder}: must hold a table, got {told}")
    _warn_of_others(folder)
    return _Parquet(folder, schema.names, schema, tuple(part for footer in footers for part in footer.fragments()))


def _common_schema(footers: Sequence[_Footer], problems: Problems) -> pa.Schema:
    """The columns of the first file, in types that hold those of all."""
    first, names = footers[0], footers[0].names
    types: dict[str, pa.DataType] = {name: _decoded(first.schema.field(name).type) for name in names}
    for footer in footers[1:]:
        told = [f"lacks {name!r}" for name in names if name not in footer.names]
        told += [f"has {name!r} besides" for name in footer.names if name not in types]
        for name in filter(types.__contains__, footer.names):
            kind = _decoded(footer.schema.field(name).type)
            wider = _wider(types[name], kind)
            if wider is None:
                told.append(f"holds the type {kind} in {name!r}, where others have {types[name]}")
            else:
                types[name] = wider
        if told:
            problems.add(
                f"{footer.path}: all files of a folder must have the same columns, in types that go together, got one "
                f"that {some_of(told, 10)} (compared with {first.path}); write it as the others, or move it away"
            )
    return pa.schema(list(types.items()))


def _decoded(kind: pa.DataType) -> pa.DataType:
    """The type without a dictionary: each file has one of its own."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _wider(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """A type that both fit in: whole numbers and floats, text of two kinds, anything and nothing; else None."""
    if a == b:
        return a
    if _kind(a) != _kind(b) and not (pa.types.is_null(a) or pa.types.is_null(b)):
        return None  # which Arrow would widen too: true to 1, text to bytes
    try:
        both = [pa.schema([("x", kind)]) for kind in (a, b)]
        return pa.unify_schemas(both, promote_options="permissive").field("x").type
    except (pa.ArrowTypeError, pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def _kind(kind: pa.DataType) -> str:
    types = pa.types
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "text"
    return "time" if types.is_timestamp(kind) or types.is_date(kind) else str(kind)


def _warn_of_others(folder: Path) -> None:
    """Of files that may have been meant, and of values that only the names of folders have."""
    others = sorted(str(path.relative_to(folder)) for path in _visible_files(folder) if not _is_parquet(path))
    keys = {part for path in parquet_files(folder) for part in path.relative_to(folder).parts[:-1] if "=" in part}
    told = [f"other files than Parquet are not read: {some_of(others)}"] if others else []
    if keys:
        told.append(f"names of folders are not read as columns: {some_of(sorted(keys))}")
    if told:
        warnings.warn(f"{folder}: {'; '.join(told)}", DoubtfulInputWarning, stacklevel=4)


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
    """A CSV file (also compressed by gzip); with the extension .parquet or .pq, a Parquet file; or a folder of these.

    The delimiter of a CSV file (comma, semicolon, tab or |) and its quote character are found from its first rows;
    where it is the semicolon, 1,5 is a number. Cells that are empty or NA, N/A, NaN, null, None, ? are missing. Single
    quotes around the values are removed where every value of the column has them. Columns become int64, float64, bool
    or text; dates stay text, and so do numbers with leading zeros or more than 15 digits. Parquet keeps its types; an
    unnamed index that pandas stored is left out.

    A folder is one table: the Parquet files in it, at any depth, in the order of their relative names, without those
    whose name, or whose folder's, starts with a dot or an underscore. All must have the same columns, in any order and
    in types that go together (int64 and float64 become float64).

    Args:
        path: the file or folder.
        header: whether the first row of a CSV file holds the column names; else they are column_1, column_2, ...

    Returns:
        one row a data row, in the order of the file.

    Raises:
        InputError: no such file, a folder without Parquet files, an empty file, no rows, rows of different lengths,
            binary data or another encoding than UTF-8, a broken file, column names that repeat or are numbers only,
            files of a folder that differ in their columns.

    Warns:
        DoubtfulInputWarning: most column names are numbers, so that the header may be a row of data; files in a folder
            that are not read.
    """
    return read_source(open_table(path, header))


def read_source(source: Source) -> pd.DataFrame:
    """All rows of an open table; see `read_table`."""
    tables = list(source.batches(1 << 20, source.names))
    if problems := source.problems():
        raise InputError(problems)
    if not tables:
        raise InputError(f"{source.path}: must hold rows, got none")
    return source.pandas(pa.concat_tables(tables))
