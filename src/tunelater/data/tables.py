"""Tables, checked and brought into the form of a schema.

`prepare` checks a table for training. The result is a `TableSchema`: the columns that are features, and whether each
holds numbers, truth values or categories. Every later table is brought into that form (`conform`), also a file in
pieces (`stream_table`). Only `prepare` decides by whole columns; after it each cell means the same in any table (see
`data/cells.py`).

`fingerprint`, `row_hashes` and `rounded_row_hashes` tell whether a table, or a row, is one that training has seen.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from tunelater.data.cells import (
    CODE,
    DATE,
    NEEDS,
    NUMBER,
    TRUTH,
    TRUTH_OR_DIGIT,
    WEIGHTS,
    WHOLE,
    Faults,
    UnsupportedType,
    absent_names,
    all_match,
    any_match,
    as_arrow,
    as_booleans,
    as_categories,
    as_cells,
    as_days,
    as_floats,
    as_mask,
    as_numbers,
    is_text,
    parsed,
    repeated_names,
    row_of_one_table,
    some_of,
    spelling_of,
    told_rows,
    words_of,
)
from tunelater.data.reading import PathLike, Source, open_table
from tunelater.needs import MISSING
from tunelater.problems import DoubtfulInputWarning, InputError, Problems, did_you_mean

Kind = Literal["numeric", "boolean", "categorical"]

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


def label(column: pd.Series, positive: str, row: Callable[[int], str] = row_of_one_table) -> tuple[np.ndarray, str]:
    """Labels as 0 and 1.

    Labels are compared in one spelling: whole numbers without a decimal point, true and false in lower case. `positive`
    may also be another way to write the same number, or 1 or 0 for true or false.

    Args:
        column: (N,) the labels: text, numbers or truth values.
        positive: the label that becomes 1.
        row: tells the data row at an index, for messages.

    Returns:
        (N,) int64, and the other label.

    Raises:
        InputError: missing labels, one label only, three or more, or none that is `positive`.
    """
    problems = Problems()
    found = _label(column, positive, problems, row)
    problems.raise_if_any()
    assert found is not None
    y, _, negative = found
    return y, negative


def _label(
    column: pd.Series, positive: str, problems: Problems, row: Callable[[int], str]
) -> tuple[np.ndarray, str, str] | None:
    """(N,) int64, the positive and the negative label in their spelling; None where there were problems."""
    try:
        cells = as_cells(as_arrow(column))
    except UnsupportedType as error:
        problems.add(_labels_of_type(_told_target(column.name), error))
        return None
    found = Labels()
    words, codes = found.counted(cells, 0)
    problems.add(*found.problems(_told_target(column.name), positive, row))
    if (pair := found.pair(positive)) is None:
        return None
    chosen, negative = pair
    return (codes == words.index(chosen)).astype(np.int64), chosen, negative


def _told_target(name: object) -> str:
    return f"the target {str(name)!r}" if name is not None else "the target"


def _labels_of_type(target: str, got: object) -> str:
    return f"{target} must hold text, numbers or truth values, got the type {got}; convert it before"


MOST_LABELS_COUNTED = 100_000
MOST_ROWS_TOLD = 5


@dataclass
class Labels:
    """How often each label was there, over any number of batches, and where none was."""

    counts: Counter[str] = field(default_factory=Counter)
    missing: int = 0
    rows: list[int] = field(default_factory=list)
    """The first of those without a label, as indices."""

    def counted(self, cells: pa.Array, first_row: int) -> tuple[list[str], np.ndarray]:
        """Counts a batch, before which `first_row` rows came, and gives it as `cells.words_of` does."""
        words, codes = words_of(cells)
        gone = np.flatnonzero(codes < 0)
        counts = np.bincount(codes[codes >= 0], minlength=len(words)).tolist()
        of_words = Counter({word: n for word, n in zip(words, counts, strict=True) if n})
        self.absorb(Labels(of_words, len(gone), (first_row + gone[:MOST_ROWS_TOLD]).tolist()))
        return words, codes

    def absorb(self, other: Labels) -> None:
        """Adds the counts of later batches."""
        for word, n in other.counts.items():
            if word in self.counts or len(self.counts) < MOST_LABELS_COUNTED:
                self.counts[word] += n
        self.missing += other.missing
        self.rows = [*self.rows, *other.rows][:MOST_ROWS_TOLD]

    def problems(self, target: str, positive: str, row: Callable[[int], str]) -> list[str]:
        """What keeps these from being labels of two classes; `target` names their column."""
        problems = Problems()
        if self.missing:
            rows = ("rows " if self.missing > 1 else "row ") + ", ".join(map(row, self.rows))
            more = f" and {self.missing - len(self.rows):,} more" if self.missing > len(self.rows) else ""
            problems.add(
                f"{target} must not have missing values, got {self.missing:,}, in {rows}{more}; label or remove them"
            )
        common = sorted(self.counts, key=lambda word: -self.counts[word])
        told = [f"{word!r} ({told_rows(self.counts[word])})" for word in common]
        problems.add(*_problems_of_values(target, told, common))
        if common and chosen_label(common, positive) is None:
            problems.add(_positive_not_there(target, positive, common))
        return list(problems)

    def pair(self, positive: str) -> tuple[str, str] | None:
        """The positive and the negative label in their spelling; None where there are problems."""
        chosen = chosen_label(list(self.counts), positive)
        if chosen is None or len(self.counts) != 2 or self.missing:
            return None
        return chosen, next(word for word in self.counts if word != chosen)


def _problems_of_values(target: str, told: list[str], words: list[str]) -> list[str]:
    if not words:
        return [f"{target} must have exactly two values, got none"]
    if len(words) == 1:
        return [f"{target} must have exactly two values, got one only: {told[0]}; a model needs rows of both classes"]
    if len(words) == 2:
        return []
    fix = "make it a column with two values, one for the rare class and one for the rest"
    if len(words) > 20 and all(re.match(NUMBER, word) for word in words):
        fix = "it looks like a measurement; make it binary with a limit (1 above it, else 0), or name another target"
    return [f"{target} must have exactly two values, got {len(words):,}: {some_of(told)}; {fix}"]


def _positive_not_there(target: str, positive: str, words: list[str]) -> str:
    rule = f"the positive value must be a value of {target}, got {str(positive)!r}"
    return f"{rule}, which no row has; values are {some_of([repr(word) for word in words])}" + (
        hint if "did you mean" in (hint := did_you_mean(str(positive), words)) else ""
    )


def chosen_label(words: Sequence[str], positive: str) -> str | None:
    """The label that `positive` means: itself, else the only one that is the same number or truth value.

    Args:
        words: all labels, in the spelling of `cells.spelling_of`.
    """
    wanted = spelling_of(str(positive).strip())
    if wanted in words:
        return wanted
    if set(words) <= {"true", "false"} and wanted.lower() in TRUTH_OR_DIGIT:
        truth = "true" if TRUTH_OR_DIGIT[wanted.lower()] else "false"
        return truth if truth in words else None
    if not re.match(NUMBER, wanted):
        return None
    same = [word for word in words if re.match(NUMBER, word) and float(word) == float(wanted)]
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
    frame: pd.DataFrame,
    target: str,
    positive: str,
    *,
    header: bool = True,
    row: Callable[[int], str] = row_of_one_table,
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
        row: tells the data row at an index, for messages.

    Returns:
        (N, columns) features as `conform` gives them, (N,) int64 labels, and the schema.

    Raises:
        InputError: what `label` raises, no such target, names that are not unique, infinite numbers, no usable column.

    Warns:
        DoubtfulInputWarning: columns that are not used, or that hold numbers but for a few values.
    """
    problems = Problems()
    frame = _with_text_names(frame)
    names = list(frame.columns)
    if repeated := repeated_names(names):
        raise InputError(f"column names must be unique, got {some_of(repeated, 10)}; rename them")
    problems.check(len(frame) > 0, "the table must have rows, got none")
    problems.add(*absent_names([target], names, "target column"))
    labels = _label(frame[target], positive, problems, row) if target in names and len(frame) else None
    features, schema, doubts = _features(frame.drop(columns=target, errors="ignore"), problems, row)
    y, chosen, negative = labels or (np.empty(0, np.int64), "", "")
    problems.raise_if_any()
    if doubts:
        warnings.warn(doubts, DoubtfulInputWarning, stacklevel=2)
    return features, y, replace(schema, target=target, positive=chosen, negative=negative, header=header)


def prepare_features(frame: pd.DataFrame) -> tuple[pd.DataFrame, TableSchema]:
    """As `prepare`, of a table without labels: its features, and their schema, of which target and labels are empty.

    Raises:
        InputError: no rows, names that are not unique, infinite numbers, no usable column.

    Warns:
        DoubtfulInputWarning: columns that are not used, or that hold numbers but for a few values.
    """
    problems = Problems()
    frame = _with_text_names(frame)
    if repeated := repeated_names(frame.columns):
        raise InputError(f"column names must be unique, got {some_of(repeated, 10)}; rename them")
    problems.check(len(frame) > 0, "the table must have rows, got none")
    features, schema, doubts = _features(frame, problems, row_of_one_table)
    problems.raise_if_any()
    if doubts:
        warnings.warn(doubts, DoubtfulInputWarning, stacklevel=2)
    return features, schema


def _features(
    frame: pd.DataFrame, problems: Problems, row: Callable[[int], str]
) -> tuple[pd.DataFrame, TableSchema, str]:
    """The columns that can be features, their schema without labels, and what is doubtful, in words."""
    faults = Faults()
    found = {name: _feature(name, frame[name], row) for name in frame.columns} if len(frame) else {}
    used = {name: feature for name, feature in found.items() if feature.reason is None}
    problems.check(bool(used) or not len(frame), f"the table has no column that can be a feature{_unused(found)}")
    dates = tuple(name for name, feature in used.items() if feature.date)
    schema = TableSchema({name: feature.kind for name, feature in used.items()}, "", "", "", dates=dates)
    features = _conformed({name: as_cells(as_arrow(frame[name])) for name in used}, schema, frame.index, faults, 0)
    problems.add(*faults.messages(row))
    return features, schema, _doubts(found)


def _with_text_names(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.set_axis([str(name) for name in frame.columns], axis=1)


def _unused(found: Mapping[str, _Feature]) -> str:
    reasons = [f"{name!r} ({feature.reason})" for name, feature in found.items() if feature.reason]
    return ": " + ", ".join(reasons) if reasons else ""


def _doubts(found: Mapping[str, _Feature]) -> str:
    told = [
        f"column {name!r} {feature.doubt}" for name, feature in found.items() if feature.doubt and not feature.reason
    ]
    if n := sum(feature.reason is not None for feature in found.values()):
        told.insert(0, f"{n} {'column is' if n == 1 else 'columns are'} not used as features{_unused(found)}")
    return "; ".join(told)


def _feature(name: str, column: pd.Series, row: Callable[[int], str]) -> _Feature:
    try:
        cells = as_cells(as_arrow(column))
    except UnsupportedType as error:
        return _Feature(reason=f"of the unsupported type {error}")
    if cells.null_count == len(cells):
        return _Feature(reason="every value is missing")
    distinct = pc.count_distinct(cells).as_py()
    declared = isinstance(column.dtype, pd.CategoricalDtype)
    if distinct == 1 and not cells.null_count and (declared or not _is_infinite(cells)):
        return _Feature(reason=f"constant: {str(cells[0].as_py())[:40]!r}")
    feature = _kind(cells, distinct, declared, row)
    identifier = _identifier(name, cells, distinct, feature)
    return _Feature(reason=f"identifier: {identifier}") if identifier else feature


def _is_infinite(constant: pa.Array) -> bool:
    """An infinite number is no value to leave out in silence: more likely something overflowed."""
    return bool(np.isinf(as_numbers(constant[:1])[0]).any())


def _kind(cells: pa.Array, distinct: int, declared: bool, row: Callable[[int], str]) -> _Feature:
    """`declared`: the column's own type says that it holds categories."""
    if pa.types.is_boolean(cells.type):
        return _Feature("boolean")
    if pa.types.is_timestamp(cells.type):
        return _Feature("numeric", date=True)
    if not is_text(cells):
        return _Feature("categorical" if declared else "numeric")
    if distinct <= 16 and _holds_truth(cells):
        return _Feature("boolean")
    return _Feature("categorical") if declared else _kind_of_text(cells, distinct, row)


def _holds_truth(text: pa.Array) -> bool:
    """Both must occur: a column of t alone, or of y and t, may mean anything."""
    words = {word.lower() for word in text.unique().to_pylist() if word is not None}
    return words <= set(TRUTH) and {TRUTH[word] for word in words} == {0.0, 1.0}


def _kind_of_text(text: pa.Array, distinct: int, row: Callable[[int], str]) -> _Feature:
    _, bad = parsed(text)
    if not bad.any():
        if all_match(text, WHOLE) and any_match(text, CODE):
            return _Feature(doubt="holds numbers with leading zeros or more than 15 digits, and is used as categories")
        return _Feature("numeric")
    if all_match(text, DATE) and not as_days(text)[1].any():
        return _Feature("numeric", date=True)
    present = len(text) - text.null_count
    if distinct > 20 and bad.sum() * 10 <= present:
        first = int(np.argmax(bad))
        return _Feature(
            doubt=f"holds numbers in {present - bad.sum():,} of {present:,} cells, but is used as categories because "
            f"of the others (first in row {row(first)}: {str(text[first])[:40]!r}); empty them if they mean missing"
        )
    if distinct > 20 and (example := _unread_number(text)):
        return _Feature(
            doubt=f"looks like numbers or dates in a form that is not read (such as {example!r}), and is used as "
            "categories; write them like 1234.5 or 2024-01-31"
        )
    return _Feature()


_UNREAD_NUMBER = (
    r"^\s*(?:[+-]?[$€£¥]?\s?[+-]?[0-9][0-9,']*\.?[0-9]*\s?[%$€£¥]?"
    r"|[0-9]{1,4}[./-][0-9]{1,2}[./-][0-9]{1,4}(?:[ T].+)?)\s*$"
)


def _unread_number(text: pa.Array) -> str | None:
    """One of the cells, where nine of ten are numbers with signs and separators, or dates that are not in ISO form."""
    alike = pc.match_substring_regex(text.drop_null(), _UNREAD_NUMBER)
    if not len(alike) or pc.mean(alike).as_py() < 0.9:
        return None
    return str(text.drop_null()[int(np.argmax(as_mask(alike)))])[:40]


def _identifier(name: str, cells: pa.Array, distinct: int, feature: _Feature) -> str | None:
    """Why a column is an identifier. Measurements (numbers that are not whole), dates and truth values never are."""
    present = len(cells) - cells.null_count
    text = feature.kind == "categorical"
    if feature.kind == "boolean" or feature.date or not (text or _is_whole(cells)):
        return None
    if _NAME_OF_IDENTIFIER.search(name) and 2 * distinct >= present:
        return f"its name, and {distinct:,} different values in {told_rows(present)}"
    if distinct < present or present < _FEWEST_FOR_IDENTIFIER:
        return None
    if text:
        form = _unread_number(cells) if is_text(cells) else None
        hint = f", in a form that is not read as numbers or dates (such as {form!r})" if form else ""
        return f"a different value in each of {told_rows(present)}{hint}"
    numbers, _ = as_numbers(cells)
    if np.nanmax(numbers) - np.nanmin(numbers) + 1 == present:
        return f"{present:,} different whole numbers without a gap"
    return None


def _is_whole(cells: pa.Array) -> bool:
    """Whole numbers, also those that are floats only because pandas has no missing integer."""
    if pa.types.is_integer(cells.type):
        return True
    if is_text(cells):
        return all_match(cells, WHOLE)
    numbers = as_floats(cells.drop_null())
    return cells.null_count > 0 and bool(np.isfinite(numbers).all() and (numbers == np.floor(numbers)).all())


# -------------------------------------------------------------------------------------------------------------- conform


def conform(frame: pd.DataFrame, schema: TableSchema, *, row: Callable[[int], str] = row_of_one_table) -> pd.DataFrame:
    """The feature columns of any table in the form that a schema asks for; other columns are ignored.

    Numbers may be text, truth values may be 1 and 0 or text, categories may be of any plain type, dates are typed or
    text in ISO form. See the module for what one cell means.

    Args:
        frame: one row a sample, in any types.
        schema: what `prepare` found in the training table.
        row: tells the data row at an index, for messages.

    Returns:
        (N, columns) in the order of the schema: numeric and boolean columns float64 with NaN where missing, categorical
        columns object with None where missing; the index of `frame`.

    Raises:
        InputError: columns that are missing, twice there or of another type, cells of another type, infinite numbers.
    """
    problems, faults = Problems(), Faults()
    frame = _with_text_names(frame)
    names = list(frame.columns)
    problems.add(*absent_names(schema.columns, names, "column"))
    repeated = repeated_names(name for name in names if name in schema.columns)
    problems.check(not repeated, f"column names must be unique, got {some_of(repeated, 10)}; rename them")
    if not repeated:
        present = {name: frame[name] for name in schema.columns if name in names}
        cells = _cells_of_columns(present, lambda column: as_cells(as_arrow(column)), schema, faults)
        features = _conformed(cells, schema, frame.index, faults, 0)
    problems.add(*faults.messages(row))
    problems.raise_if_any()
    return features


def _need(name: str, schema: TableSchema) -> str:
    if schema.columns[name] == "categorical":
        return "categories"
    return NEEDS["date" if name in schema.dates else schema.columns[name]]


def _cells_of_columns(
    columns: Mapping[str, Any], read: Callable[[Any], pa.Array], schema: TableSchema, faults: Faults
) -> dict[str, pa.Array]:
    cells = {}
    for name, column in columns.items():
        try:
            cells[name] = read(column)
        except UnsupportedType as error:
            faults.type(name, _need(name, schema), str(error))
    return cells


def _conformed(
    cells: Mapping[str, pa.Array], schema: TableSchema, index: pd.Index, faults: Faults, first_row: int
) -> pd.DataFrame:
    """The features of the columns that are there; what is wrong with their cells goes to `faults`."""
    features: dict[str, pd.Series] = {}
    for name, values in cells.items():
        kind = schema.columns[name]
        if kind == "categorical":
            features[name] = pd.Series(as_categories(values), index=index, dtype=object)
            continue
        convert = as_booleans if kind == "boolean" else as_days if name in schema.dates else as_numbers
        numbers, bad = convert(values)
        faults.cells(name, _need(name, schema), bad, values, first_row)
        faults.cells(name, NEEDS["finite"], np.isinf(numbers), values, first_row)
        features[name] = pd.Series(numbers, index=index, dtype=np.float64)
    return pd.DataFrame(features, index=index)


@dataclass
class Findings:
    """What is wrong with rows that come in pieces; those of the parts of a table add up."""

    rows: int = 0
    problems: list[str] = field(default_factory=list)
    """Of the reader."""
    faults: Faults = field(default_factory=Faults)
    labels: Labels = field(default_factory=Labels)
    foreign: int = 0
    """Rows of labels that the run does not know."""

    def __bool__(self) -> bool:
        return bool(self.problems or self.faults or self.labels.missing or self.foreign)

    def absorb(self, later: Findings) -> None:
        """Adds those of the part that follows."""
        self.rows += later.rows
        self.problems += later.problems
        self.faults.absorb(later.faults)
        self.labels.absorb(later.labels)
        self.foreign += later.foreign


@dataclass(frozen=True)
class LabelColumns:
    """Columns of a table beside its features, for rows that come with labels."""

    target: str
    weight: str | None = None
    both: bool = True
    """Whether rows of both classes must be there; a shard may have those of one."""

    @property
    def names(self) -> list[str]:
        return [self.target] if self.weight is None else [self.target, self.weight]


class Piece(NamedTuple):
    """Some rows of a table."""

    features: pd.DataFrame
    """As `conform` gives them, indexed by the row of the table from 0."""
    kept: pa.Table
    """Columns handed on as they are."""
    target: np.ndarray | None
    """(N,) int64 classes, where labels were asked for."""
    weight: np.ndarray | None
    """(N,) float32, where there is a column of weights."""


@dataclass
class TablePart:
    """A part of a table, that is read by itself: an iterator that also collects what is wrong with its rows.

    No piece is given after the first with something wrong.
    """

    source: Source
    schema: TableSchema
    batch_rows: int
    kept: pa.Schema
    labelled: LabelColumns | None
    first_row: int
    """Rows of the table before it."""
    found: Findings = field(default_factory=Findings)

    def __iter__(self) -> Iterator[Piece]:
        found, schema, row = self.found, self.schema, self.first_row
        extra = [] if self.labelled is None else self.labelled.names
        batches = self.source.batches(self.batch_rows, list(dict.fromkeys([*schema.columns, *self.kept.names, *extra])))
        while (table := _next(batches, found.problems)) is not None:
            index = pd.RangeIndex(row, row + table.num_rows)
            columns = {name: table[name] for name in schema.columns}
            cells = _cells_of_columns(columns, self.source.cells, schema, found.faults)
            features = _conformed(cells, schema, index, found.faults, row)
            target = weight = None
            if self.labelled is not None:
                target = self._target(table[self.labelled.target], row)
                if self.labelled.weight is not None:
                    weight = self._weight(table[self.labelled.weight], row)
            row += table.num_rows
            found.rows += table.num_rows
            if not found and not self.source.problems():
                yield Piece(features, table.replace_schema_metadata(None).select(self.kept.names), target, weight)
        found.problems += self.source.problems()

    def _target(self, column: pa.ChunkedArray, row: int) -> np.ndarray | None:
        try:
            cells = self.source.cells(column)
        except UnsupportedType as error:
            told = _labels_of_type(_told_target(self.schema.target), error)
            self.found.problems += [told] * (told not in self.found.problems)
            return None
        words, codes = self.found.labels.counted(cells, row)
        class_of = np.array([*(_class_of(word, self.schema) for word in words), 0])
        target = class_of[codes]
        self.found.foreign += int((target < 0).sum())
        return target

    def _weight(self, column: pa.ChunkedArray, row: int) -> np.ndarray | None:
        assert self.labelled is not None
        assert self.labelled.weight is not None
        name = self.labelled.weight
        try:
            cells = self.source.cells(column)
        except UnsupportedType as error:
            self.found.faults.type(name, WEIGHTS, str(error))
            return None
        numbers, _ = as_numbers(cells)
        self.found.faults.cells(name, WEIGHTS, ~(np.isfinite(numbers) & (numbers >= 0)), cells, row)
        return numbers.astype(np.float32)


def _class_of(word: str, schema: TableSchema) -> int:
    """1 or 0, or -1 for a label that the schema does not know."""
    if word == schema.negative:
        return 0
    return 1 if chosen_label([word], schema.positive) is not None else -1


class TableStream:
    """What `stream_table` gives: the pieces of a table, which can also be read in parts, by other processes.

    Attributes:
        names: all columns of the table.
        kept: the kept columns, in the types that every piece of them has.
        rows: how many there are, where that is known before they are read.
        found: what is wrong with the parts so far.
    """

    def __init__(
        self, source: Source, schema: TableSchema, batch_rows: int, kept: pa.Schema, labelled: LabelColumns | None
    ) -> None:
        self.names, self.kept = tuple(source.names), kept
        self._source, self._schema, self._batch_rows, self._labelled = source, schema, batch_rows, labelled
        self.found = Findings()

    def __len__(self) -> int:
        """In how many parts it can be read."""
        return max(1, len(self._source.fragments))

    @property
    def rows(self) -> int | None:
        return sum(fragment.rows for fragment in self._source.fragments) or None

    @property
    def weighted(self) -> bool:
        """Whether its pieces come with weights."""
        return self._labelled is not None and self._labelled.weight is not None

    def part(self, index: int) -> TablePart:
        """One of the parts."""
        fragments = self._source.fragments
        source = self._source.fragment(index) if fragments else self._source
        before = sum(fragment.rows for fragment in fragments[:index])
        return TablePart(source, self._schema, self._batch_rows, self.kept, self._labelled, before)

    def __iter__(self) -> Iterator[tuple[pd.DataFrame, pa.Table]]:
        for piece in self.pieces():
            yield piece.features, piece.kept

    def pieces(self) -> Iterator[Piece]:
        """All pieces in order; raises what is wrong with any at the end."""
        for index in range(len(self)):
            part = self.part(index)
            for piece in part:
                if not self.found:
                    yield piece
            self.found.absorb(part.found)
        self.raise_if_any()

    def raise_if_any(self) -> None:
        """Raise what is wrong with the parts that `found` has taken in, which should be all.

        Raises:
            InputError: everything.
        """
        problems, found = Problems(), self.found
        problems.add(*found.problems, *found.faults.messages(self._source.row))
        problems.check(bool(found.rows or problems), "the file must hold rows, got none")
        if self._labelled is not None and found.rows:
            problems.add(*self._problems_of_labels())
        problems.raise_if_any()

    def _problems_of_labels(self) -> list[str]:
        labels, schema = self.found.labels, self._schema
        assert self._labelled is not None
        if not (self._labelled.both or labels.missing or self.found.foreign):
            return []
        problems = labels.problems(_told_target(schema.target), schema.positive, self._source.row)
        pair = labels.pair(schema.positive)
        return problems or (other_labels(schema, pair[1]) if pair is not None else [])


def other_labels(schema: TableSchema, negative: str) -> list[str]:
    """Why labels are not those of a run, whose positive label they have: the negative one is another."""
    if negative == schema.negative:
        return []
    return [
        f"target {schema.target!r} has the values {schema.positive!r} and {negative!r}; the run was "
        f"fitted on {schema.positive!r} and {schema.negative!r}"
    ]


def stream_table(
    path: PathLike,
    schema: TableSchema,
    *,
    batch_rows: int = 65_536,
    keep: Sequence[str] = (),
    for_csv: bool = False,
    labelled: LabelColumns | None = None,
) -> TableStream:
    """The rows of a table of any size in pieces, conformed to a schema; memory is bounded by the piece.

    What can be known from the beginning of the file is checked by the call itself. What is wrong further down is
    collected over the whole table and raised at the end; after the first bad piece none is yielded. So a caller that
    writes to a temporary file and renames it at the end leaves nothing half-written.

    Args:
        path: as for `read_table`; a CSV file has a header if the training file had one.
        schema: what `prepare` found in the training table.
        batch_rows: rows in a piece, at least 1; the last of each part may have fewer. The rows do not depend on it.
        keep: columns to hand on as they are: the text of a CSV file (an empty cell is ""), the types of a Parquet file.
        for_csv: refuse to keep columns that a CSV file cannot hold, such as lists.
        labelled: where `pieces` come with labels, and weights.

    Returns:
        an iterable of the features as `conform` gives them, indexed by the row of the table from 0, and the kept
        columns; see also its `pieces` and `part`.

    Raises:
        InputError: what `read_table` and `conform` raise; names in `keep` that the file does not have. From the
            iterator: labels that are missing, or others than the schema's two; weights that are none.
    """
    problems = Problems()
    problems.check(batch_rows >= 1, f"batch_rows must be at least 1, got {batch_rows}")
    keep = tuple(dict.fromkeys(keep))
    try:
        source = open_table(path, schema.header)
    except InputError as error:
        problems.add(*error.problems)
    else:
        problems.add(*(f"{path}: {told}" for told in absent_names(schema.columns, source.names, "column")))
        problems.add(*(f"{path}: {told}" for told in absent_names(keep, source.names, "column to keep,")))
        if labelled is not None:
            problems.add(*(f"{path}: {told}" for told in absent_names([labelled.target], source.names, TARGET_ROLE)))
        if labelled is not None and labelled.weight not in source.names:
            labelled = replace(labelled, weight=None)
        kept = pa.schema([source.schema.field(name) for name in keep if name in source.names])
        problems.add(*(f"{path}: {told}" for told in no_csv_columns(kept) if for_csv))
    problems.raise_if_any()
    return TableStream(source, schema, batch_rows, kept, labelled)


TARGET_ROLE = "target column, and choosing and assessing need labels:"


def no_csv_columns(columns: pa.Schema) -> list[str]:
    """Why some columns cannot be kept in a CSV file."""
    return [
        f"column {column.name!r} of the type {column.type} cannot be kept in a CSV file; write Parquet (--out ending "
        "in .parquet), or do not keep it"
        for column in columns
        if not _has_text_form(column.type)
    ]


def _has_text_form(kind: pa.DataType) -> bool:
    types = pa.types
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return False
    try:
        with pacsv.CSVWriter(pa.BufferOutputStream(), pa.schema([("x", kind)])) as writer:
            writer.write_table(pa.table({"x": pa.nulls(1, kind)}))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        return False
    return True


def _next(batches: Iterator[pa.Table], problems: list[str]) -> pa.Table | None:
    """The next batch; a file that breaks in the middle ends there, and what was found before is still told."""
    try:
        return next(batches, None)
    except InputError as error:
        problems.extend(error.problems)
        return None


# ------------------------------------------------------------------------------------------------------------- identity


def named_columns(frame: pd.DataFrame, names: Sequence[str]) -> dict[str, np.ndarray]:
    """(N,) columns of a table by name, features or not: numbers as float64, NaN where missing, anything else as text.

    Raises:
        InputError: names that the table does not have, columns of lists and the like.
    """
    problems = Problems()
    known = [str(name) for name in frame.columns]
    problems.add(*absent_names(dict.fromkeys(names), known, "column"))
    columns = {}
    for name in dict.fromkeys(names):
        if name not in known:
            continue
        try:
            cells = as_cells(as_arrow(frame.iloc[:, known.index(name)]))
        except UnsupportedType as error:
            problems.add(f"column {name!r} must hold numbers or text, got {error}")
            continue
        if pa.types.is_integer(cells.type) or pa.types.is_floating(cells.type):
            columns[name] = as_floats(cells)
        else:
            columns[name] = np.array([MISSING if word is None else word for word in as_categories(cells)], str)
    problems.raise_if_any()
    return columns


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
        values = as_arrow(column)
    except UnsupportedType:
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
        yield f"{code} {tag}".encode() + np.packbits(as_mask(values.is_null())).tobytes()
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
    problems.add(*absent_names(columns, [str(name) for name in frame.columns], "column"))
    problems.raise_if_any()
    return pd.util.hash_pandas_object(frame[list(columns)], index=False).to_numpy(dtype=np.uint64)


def rounded_row_hashes(frame: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Numbers for each row that survive a copy with rounded numbers: float32, or written with six decimals.

    Numbers count to four significant digits, whole ones below a million in full, none finer than 1e-5. A number at a
    border of one rounding may fall on its other side in the copy, so there are two, with borders half a step apart: a
    row is the same where either hash is. Columns in units so small that all is under 1e-5 tell nothing.

    Args:
        frame, columns: as for `row_hashes`.

    Returns:
        (N, 2) uint64.

    Raises:
        InputError: as `row_hashes`.
    """
    numeric = [name for name in columns if name in frame and pd.api.types.is_float_dtype(frame[name].dtype)]
    roundings = [_rounded(frame[numeric].to_numpy(np.float64), offset) for offset in OFFSETS]
    rounded = [frame.assign(**dict(zip(numeric, values.T, strict=True))) for values in roundings]
    return np.stack([row_hashes(some, columns) for some in rounded], axis=1)


OFFSETS = (0.618034, 0.118034)
"""Of the borders of both roundings, in steps: half a step apart, and where no decimal number of a few digits lies, as
they would be moved over it by a copy in float32."""


def _rounded(values: np.ndarray, offset: float) -> np.ndarray:
    """Which step each number lies in; `offset` moves the borders by a part of a step."""
    with np.errstate(divide="ignore"):
        size = np.nan_to_num(np.floor(np.log10(np.abs(values))), neginf=-9)
    place = np.clip(size - 3, -5, np.maximum(size - 5, 0)).astype(int)
    up, down = 10.0 ** np.maximum(place, 0), 10.0 ** np.maximum(-place, 0)  # exact, where a negative power is not
    return np.floor(values / up * down + offset) / down * up + 0.0  # -0.0 + 0.0 is 0.0, which hashes alike
