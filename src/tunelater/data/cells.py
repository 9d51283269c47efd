"""What one cell of a table means, and how cells that break a rule are told.

One cell means the same thing wherever it comes from. A CSV column of a later file may look like another type than it
did in training (category codes that happen to be numbers this time), and a stream sees only a piece of a column. So
nothing here is decided by looking at a whole column (only `prepare` does that); one rule holds for each cell:

* surrounding white space and one pair of single quotes do not count, and `NA`, `?`, `null` and their like are missing;
* numbers, truth values and dates that are categories have one spelling each: `1.50` is `1.5`, `TRUE` is `true`.

A column of any origin becomes an Arrow array (`as_arrow`) of one of five types (`as_cells`), and that becomes what a
feature needs: numbers, truth values, days or categories (`as_numbers` and its siblings), each with the cells that are
no such thing. `Faults` collects those over any number of batches and words them. Row numbers count data rows from 1.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tunelater.problems import did_you_mean

# ---------------------------------------------------------------------------------------------------------------- cells

MISSING_TEXTS = (
    "", "NA", "N/A", "n/a", "NaN", "nan", "NAN", "-nan", "-NaN", "null", "Null", "NULL", "None", "?", "<NA>", "#N/A",
)  # fmt: skip
_MISSING = pa.array(MISSING_TEXTS, pa.large_string())
TRUTH = {"true": 1.0, "t": 1.0, "yes": 1.0, "y": 1.0, "false": 0.0, "f": 0.0, "no": 0.0, "n": 0.0}
TRUTH_OR_DIGIT = TRUTH | {"1": 1.0, "0": 0.0}
NUMBER = r"^[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[iI][nN][fF](?:[iI][nN][iI][tT][yY])?)$"
WHOLE = r"^[+-]?[0-9]+$"
CODE = r"^[+-]?(?:0[0-9]+|[0-9]{16,})$"
_DECIMAL_COMMA = r"^('?\s*[+-]?[0-9]*),([0-9]+(?:[eE][+-]?[0-9]+)?\s*'?)$"
_TIME = r"[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?"
DATE = rf"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}(?:{_TIME})?$"
_EXACT_WHOLE = 2**53
_PLAIN_OBJECTS = (str, bool, int, float, np.bool_, np.integer, np.floating, dt.date)


class UnsupportedType(Exception):
    """A column of a type that is neither number, truth value, date nor text."""


def trimmed(text: pa.Array, decimal_comma: bool = False) -> pa.Array:
    """Text without the white space around it; with a decimal point where the file has decimal commas."""
    text = pc.utf8_trim_whitespace(text)
    if decimal_comma and pc.any(pc.match_substring(text, ",")).as_py():
        text = pc.replace_substring_regex(text, _DECIMAL_COMMA, r"\1.\2")
    return text


def is_missing(text: pa.Array) -> pa.Array:
    """Which texts mean that there is no value."""
    return pc.is_in(text, value_set=_MISSING)


def or_null(values: pa.Array, keep: pa.Array) -> pa.Array:
    """The values where `keep`, else null."""
    return pc.if_else(keep, values, pa.scalar(None, values.type))


def cleaned(text: pa.Array, decimal_comma: bool = False) -> pa.Array:
    """Large strings without the white space and the pair of single quotes around them; null where missing."""
    text = trimmed(text, decimal_comma)
    if pc.any(pc.starts_with(text, "'")).as_py():
        text = pc.replace_substring_regex(text, r"(?s)^'\s*(.*?)\s*'$", r"\1")
    return or_null(text, pc.invert(is_missing(text)))


def one_array(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def as_arrow(column: pd.Series) -> pa.Array:
    """A column of any origin as an Arrow array; objects of several plain types as their text."""
    if isinstance(column.dtype, pd.SparseDtype):
        column = pd.Series(np.asarray(column), index=column.index, name=column.name)
    try:
        return one_array(pa.array(column, from_pandas=True))
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        missing = column.isna().to_numpy()
        if not all(isinstance(value, _PLAIN_OBJECTS) for value in column[~missing]):
            raise UnsupportedType(str(column.dtype)) from None
        text = [None if gone else str(value) for value, gone in zip(column, missing, strict=True)]
        return pa.array(text, pa.large_string())


def as_cells(values: pa.Array, decimal_comma: bool = False) -> pa.Array:
    """Any array as one of: bool, int64, float64, timestamp[us, UTC], clean large string; null where missing.

    Raises:
        UnsupportedType: lists, structs, binary, durations and other types that no feature can have.
    """
    kind, types = values.type, pa.types
    if types.is_dictionary(kind):
        return as_cells(values.dictionary_decode())
    if types.is_boolean(kind):
        return values
    if types.is_integer(kind) and kind != pa.uint64():
        return values.cast(pa.int64())
    if types.is_null(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        numbers = values.cast(pa.float64(), safe=False)
        return or_null(numbers, pc.invert(pc.is_nan(numbers)))
    if types.is_date(kind) or types.is_timestamp(kind):
        # A time without a zone is taken for UTC, so that the same file gives the same numbers on every machine.
        return values.cast(pa.timestamp("us", getattr(kind, "tz", None)), safe=False).cast(pa.timestamp("us", "UTC"))
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return cleaned(values.cast(pa.large_string()), decimal_comma)
    raise UnsupportedType(str(kind))


def is_text(cells: pa.Array) -> bool:
    """Whether `as_cells` found text."""
    return pa.types.is_large_string(cells.type)


def as_mask(mask: pa.Array) -> np.ndarray:
    """An Arrow array of truth values as numpy; null counts as false."""
    return np.asarray(mask.fill_null(False).to_numpy(zero_copy_only=False), dtype=bool)


def all_match(text: pa.Array, pattern: str) -> bool:
    """Whether every value that is there matches."""
    return bool(pc.all(pc.match_substring_regex(text, pattern), min_count=0).as_py())


def any_match(text: pa.Array, pattern: str) -> bool:
    """Whether a value matches."""
    return bool(pc.any(pc.match_substring_regex(text, pattern), min_count=0).as_py())


def spelling_of(value: str | float | bool) -> str:
    """The one spelling of a value as a category or label; equal for a typed value and for its text in a file."""
    if isinstance(value, str):
        if value.lower() in ("true", "false"):
            return value.lower()
        if not re.match(NUMBER, value) or re.match(CODE, value):
            return value
        if re.match(WHOLE, value):
            return str(int(value))
        value = float(value)
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if abs(value) <= _EXACT_WHOLE and value == int(value) else repr(value)


def words_of(cells: pa.Array) -> tuple[list[str], np.ndarray]:
    """The different spellings of a column, and for each row which one it has; -1 where missing."""
    if pa.types.is_timestamp(cells.type):
        cells = cells.cast(pa.timestamp("us")).cast(pa.large_string())
    encoded = cells.dictionary_encode() if not pa.types.is_boolean(cells.type) else _words_of_booleans(cells)
    spellings = [spelling_of(value) for value in encoded.dictionary.to_pylist()]
    words = list(dict.fromkeys(spellings))
    position = {word: i for i, word in enumerate(words)}
    code = np.array([position[spelling] for spelling in spellings] + [-1])
    return words, code[encoded.indices.fill_null(len(spellings)).to_numpy(zero_copy_only=False)]


def _words_of_booleans(cells: pa.Array) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(cells.cast(pa.int32()), pa.array(["false", "true"], pa.large_string()))


def parsed(text: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Clean text as float64, null where it is missing or no number; and which cells are no numbers, (N,) bool."""
    try:
        return text.cast(pa.float64()), np.zeros(len(text), dtype=bool)
    except pa.ArrowInvalid:
        number = pc.match_substring_regex(text, NUMBER)
        numbers = or_null(text, number).cast(pa.float64())
        return numbers, as_mask(pc.invert(number))


def as_floats(values: pa.Array) -> np.ndarray:
    """(N,) float64, NaN where null. Adding zero makes -0 into 0: one number, but two bit patterns to a hash."""
    floats = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.asarray(floats, dtype=np.float64) + 0.0


def as_numbers(cells: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(N,) float64 and (N,) bool: the numbers, NaN where there is none, and the cells that should not be there."""
    if is_text(cells):
        numbers, bad = parsed(cells)
        return as_floats(numbers), bad
    if pa.types.is_boolean(cells.type) or pa.types.is_timestamp(cells.type):
        return np.full(len(cells), np.nan), as_mask(cells.is_valid())
    return as_floats(cells), np.zeros(len(cells), dtype=bool)


def _looked_up(cells: pa.Array, values: Callable[[list[str]], Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """As `as_numbers`, for what is decided spelling by spelling; NaN is for a spelling that should not be there."""
    words, codes = words_of(cells)
    numbers = np.array([*values(words), np.nan], dtype=np.float64)[codes]
    return numbers, np.isnan(numbers) & (codes >= 0)


def as_booleans(cells: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """As `as_numbers`, for truth values: 1 or 0, of typed ones, of words and of digits."""
    return _looked_up(cells, lambda words: [TRUTH_OR_DIGIT.get(word.lower(), np.nan) for word in words])


def _days(words: list[str]) -> Sequence[float]:
    dates = [word if re.match(DATE, word) else None for word in words]
    times = pd.to_datetime(pd.Series(dates, dtype=object), format="ISO8601", utc=True, errors="coerce")
    return ((times - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)).tolist()


def as_days(cells: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """As `as_numbers`, for dates: days since 1970, of text in ISO form and of typed dates and times."""
    if pa.types.is_timestamp(cells.type):
        return as_floats(cells.cast(pa.int64())) / 86_400e6, np.zeros(len(cells), dtype=bool)
    return _looked_up(cells, _days)


def as_categories(cells: pa.Array) -> np.ndarray:
    """(N,) object: one spelling for each category, None where missing."""
    words, codes = words_of(cells)
    return np.array([*words, None], dtype=object)[codes]


# ------------------------------------------------------------------------------------------------------------- messages


def some_of(items: Sequence[str], most: int = 5) -> str:
    """`a, b, c and 7 more`."""
    return ", ".join(items[:most]) + (f" and {len(items) - most:,} more" if len(items) > most else "")


def told_rows(n: int) -> str:
    """`1 row`, `2 rows`."""
    return f"{n:,} row" if n == 1 else f"{n:,} rows"


def _cells_that_do_not(n: int) -> str:
    return "1 cell that does not" if n == 1 else f"{n:,} cells that do not"


def _known(word: str, names: Iterable[str], most: int = 20) -> str:
    """`did_you_mean`, without listing hundreds of columns."""
    names = sorted(names)
    told = did_you_mean(word, names)
    return told if "did you mean" in told or len(names) <= most else f"; known are {some_of(names, most)}"


def repeated_names(names: Iterable[str]) -> list[str]:
    """The names that are there more than once, and how often, for a message."""
    return [f"{name!r} ({n} times)" for name, n in Counter(names).items() if n > 1]


def absent_names(names: Iterable[str], known: Sequence[str], role: str) -> list[str]:
    """A problem for each name that is not known; `role` says what it should be: "column", "target column"."""
    present = set(known)
    return [f"the table has no {role} {name!r}{_known(name, known)}" for name in names if name not in present]


WEIGHTS = "weights, which are finite numbers, 0 or more"
_CORRECT_WEIGHTS = "correct them"
_CORRECT_CELLS = "correct these cells, or leave them empty if they are missing values"
NEEDS = {
    "numeric": "numbers",
    "boolean": "true or false (or t/f, yes/no, y/n, 1/0)",
    "date": "dates in the form 2024-01-31 or 2024-01-31T12:30:00",
    "finite": "finite numbers",
}


@dataclass(frozen=True)
class _Fault:
    n: int
    first_index: int
    first_value: str

    def joined(self, other: _Fault) -> _Fault:
        first = min(self, other, key=lambda fault: fault.first_index)
        return _Fault(self.n + other.n, first.first_index, first.first_value)


def row_of_one_table(index: int) -> str:
    """The number of the data row at an index from 0."""
    return str(index + 1)


class Faults:
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
        fault = _Fault(int(bad.sum()), first_row + first, str(values[first].as_py()))
        self._note(column, need, fault)

    def _note(self, column: str, need: str, fault: _Fault) -> None:
        known = self._cells.get((column, need))
        self._cells[column, need] = fault if known is None else known.joined(fault)

    def type(self, column: str, need: str, got: str) -> None:
        self._types.setdefault((column, need), got)

    def absorb(self, other: Faults) -> None:
        """Adds those of other batches of the same table."""
        for (column, need), fault in other._cells.items():
            self._note(column, need, fault)
        for (column, need), got in other._types.items():
            self.type(column, need, got)

    def messages(self, row: Callable[[int], str] = row_of_one_table) -> list[str]:
        """`row` tells the data row of an index into what was read."""
        types = [
            f"column {column!r} must hold {need}, got the type {got}; convert it before"
            for (column, need), got in self._types.items()
        ]
        cells = [
            f"column {column!r} must hold {need}, got {_cells_that_do_not(fault.n)}, "
            f"first in row {row(fault.first_index)}: {fault.first_value[:60]!r}; "
            f"{_CORRECT_WEIGHTS if need == WEIGHTS else _CORRECT_CELLS}"
            for (column, need), fault in sorted(self._cells.items(), key=lambda item: item[1].first_index)
        ]
        return types + cells
