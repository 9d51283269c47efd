"""Tables as a model takes them; see `data/forms.py`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray

from tunelater.config import Config, ImagesConfig
from tunelater.data import tables
from tunelater.data.cells import as_arrow, as_cells, row_of_one_table, some_of, words_of
from tunelater.data.forms import Data, FieldData, Labelled, NewRows
from tunelater.data.imbalance import OWN_FRACTIONS, split_rows
from tunelater.data.preprocessing import Preprocessor
from tunelater.data.reading import open_table, read_source
from tunelater.data.splits import UNKNOWN, TensorSplit
from tunelater.problems import DoubtfulInputWarning, InputError, Problems, did_you_mean

MOST_UNSEEN_COUNTED = 10_000


@dataclass(frozen=True, eq=False)
class PreparedTable:
    """A table to fit on: its features, labels and weights, checked."""

    features: pd.DataFrame
    target: NDArray[np.int64]
    weights: NDArray[np.float32] | None
    schema: tables.TableSchema
    columns: tuple[str, ...]
    """Of the whole table but for the weights."""
    weight: str | None
    """The column of weights."""
    fingerprint: str

    @property
    def labels(self) -> tuple[str, str]:
        return self.schema.negative, self.schema.positive

    @cached_property
    def hashes(self) -> NDArray[np.uint64]:
        return _hashes(self.features, self.schema)

    @property
    def facts(self) -> Mapping[str, Any]:
        return {}

    def rows(self, fractions: Sequence[float] | None, seed: int) -> dict[str, NDArray[np.int64]]:
        return split_rows(self.target, fractions or OWN_FRACTIONS, seed=seed)

    def problems(self, rows: Mapping[str, NDArray[np.int64]]) -> list[str]:
        if self.weights is None:
            return []
        return [
            f"weights in {self.weight!r} must be above 0 in some rows of each class, got none among the {name} rows of "
            f"class {c} (1 is the positive one); correct them, or change the seed or the fractions of the split"
            for name in ("train", "validation")
            for c in (0, 1)
            if not self.weights[rows[name]][self.target[rows[name]] == c].sum() > 0
        ]

    def fitted(self, train: NDArray[np.int64], config: Config) -> tuple[TableForm, TensorSplit]:
        preprocessor = Preprocessor().fit(self.features.iloc[train], self.schema)
        form = TableForm(self.schema, preprocessor, self.columns, self.weight)
        return form, form.split(self.features, self.target, self.weights)


def prepare_table(
    data: Data, *, target: str, positive: str, weight: str | None = None, header: bool = True
) -> PreparedTable:
    """A CSV or Parquet file, a folder of Parquet files, or a data frame, to fit on.

    Args:
        target: the column to predict; it has two values.
        positive: the value of the rare event.
        weight: a column of non-negative sample weights.
        header: False where a CSV file has no line of column names; columns are then `column_1`, `column_2`, ...

    Raises:
        InputError: everything wrong with the table.
    """
    problems = Problems()
    frame, row = _read(data, header)
    frame, weights = _take_weights(frame, weight, problems, target, row)
    try:
        features, y, schema = tables.prepare(frame, target, positive, row=row)
    except InputError as error:
        problems.add(*error.problems)
    problems.raise_if_any()
    schema = dataclasses.replace(schema, header=header)
    columns = tuple(str(name) for name in frame.columns)
    return PreparedTable(features, y, weights, schema, columns, weight, tables.fingerprint(frame))


@dataclass(frozen=True, eq=False)
class TableForm:
    """A table's schema and fitted preprocessing.

    Attributes:
        columns: of the training table but for the weights, features or not.
        weight: the column of its weights, or None.
    """

    name: ClassVar[str] = "table"
    noun: ClassVar[str] = "row"
    equal_by_chance: ClassVar[bool] = True

    schema: tables.TableSchema
    preprocessor: Preprocessor
    columns: tuple[str, ...]
    weight: str | None = None

    @property
    def labels(self) -> tuple[str, str]:
        return self.schema.negative, self.schema.positive

    @property
    def shape(self) -> Mapping[str, Any]:
        learned = self.preprocessor.numeric == "quantile"
        quantiles = self.preprocessor.numeric_quantiles() if learned else None
        return {"n_features": self.preprocessor.n_features, "quantiles": quantiles}

    @property
    def told(self) -> str:
        n = len(self.schema.columns)
        return f"{n} column{'s' * (n != 1)}"

    def digest(self) -> str:
        labels = json.dumps([self.schema.target, *self.labels])
        return hashlib.sha256(f"{self.preprocessor.digest()} {labels}".encode()).hexdigest()

    def save(self, folder: Path) -> None:
        told = {"schema": self.schema.to_json(), "columns": list(self.columns), "weight": self.weight}
        (folder / "table.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        self.preprocessor.save(folder / "preprocessing.skops")

    @classmethod
    def load(cls, folder: Path, images: ImagesConfig | None = None) -> TableForm:
        told = json.loads((folder / "table.json").read_text(encoding="utf-8"))
        schema = tables.TableSchema.from_json(told["schema"])
        preprocessor = Preprocessor.load(folder / "preprocessing.skops")
        return cls(schema, preprocessor, tuple(told["columns"]), told["weight"])

    def split(
        self, features: pd.DataFrame, target: NDArray | None = None, weight: NDArray | None = None
    ) -> TensorSplit:
        """Preprocessed samples, from feature columns as `tables.conform` gives them."""
        x = torch.from_numpy(self.preprocessor.transform(features))
        y = torch.zeros(len(x), dtype=torch.int64) if target is None else torch.from_numpy(np.asarray(target, np.int64))
        w = None if weight is None else torch.from_numpy(np.asarray(weight, np.float32))
        return TensorSplit(x, y, w)

    def hashes(self, features: pd.DataFrame) -> NDArray[np.uint64]:
        """Of rows as `tables.conform` gives them; see `Labelled`."""
        return _hashes(features, self.schema)

    def labelled(self, data: Data, reading: Any = None, columns: Sequence[str] = ()) -> Labelled:
        read = self._samples(data, self._labels, columns)
        samples = dataclasses.replace(read.samples, target=torch.from_numpy(read.target))
        return Labelled(samples, read.hashes, tables.fingerprint(read.frame), read.columns)

    def field(self, data: Data, reading: Any = None) -> FieldData:
        read = self._samples(data, self._labels_there_are)
        found = TableFindings.empty(self, tables.Findings())
        for name, known in self.preprocessor.categories().items():
            found.count(name, known, read.features[name])
        for doubt in found.doubts(self, map(str, read.frame.columns)):
            warnings.warn(doubt, DoubtfulInputWarning, stacklevel=3)
        return FieldData(read.samples, read.target.astype(np.int8), read.hashes, tables.fingerprint(read.frame))

    def _samples(
        self,
        data: Data,
        labels: Callable[[pd.DataFrame, Callable[[int], str]], NDArray[np.int64]],
        columns: Sequence[str] = (),
    ) -> _ReadTable:
        frame, row = _read(data, self.schema.header)
        problems = Problems()
        weights, named = None, {}
        try:
            named = tables.named_columns(frame, columns)
        except InputError as error:
            problems.add(*error.problems)
        if self.weight in frame.columns:
            frame, weights = _take_weights(frame, self.weight, problems, self.schema.target, row)
        elif self.weight is not None:
            warnings.warn(self._lacks_weights(), DoubtfulInputWarning, stacklevel=6)
        features, y = None, None
        try:
            features = tables.conform(frame, self.schema, row=row)
        except InputError as error:
            problems.add(*error.problems)
        try:
            y = labels(frame, row)
        except InputError as error:
            problems.add(*error.problems)
        problems.raise_if_any()
        assert features is not None
        assert y is not None
        return _ReadTable(
            frame, features, self.split(features, weight=weights), y, _hashes(features, self.schema), named
        )

    def _lacks_weights(self) -> str:
        told = f"the run was fitted with the weights {self.weight!r}, which this table lacks"
        return f"{told}: each row counts the same here"

    def _labels(self, frame: pd.DataFrame, row: Callable[[int], str]) -> NDArray[np.int64]:
        schema = self.schema
        if schema.target not in frame.columns:
            raise InputError(
                f"choosing and assessing need labels: there is no target column {schema.target!r}"
                f"{did_you_mean(schema.target, map(str, frame.columns))}"
            )
        y, negative = tables.label(frame[schema.target], schema.positive, row)
        if problems := tables.other_labels(schema, negative):
            raise InputError(problems)
        return y

    def _labels_there_are(self, frame: pd.DataFrame, row: Callable[[int], str]) -> NDArray[np.int64]:
        schema = self.schema
        if schema.target not in frame.columns:
            return np.full(len(frame), UNKNOWN, np.int64)
        words, codes = words_of(as_cells(as_arrow(frame[schema.target])))
        meaning = {tables.chosen_label(words, label): c for c, label in enumerate(self.labels)}
        if other := [word for word in words if word not in meaning]:
            raise InputError(
                f"labels in {schema.target!r} are {schema.positive!r}, {schema.negative!r}, or empty where they are "
                f"not known; got {some_of([repr(word) for word in other])}"
            )
        return np.array([*(meaning[word] for word in words), UNKNOWN])[codes]

    def stream(self, data: str | Path, keep: Sequence[str], for_csv: bool, reading: Any = None) -> TableRows:
        return TableRows(self, tables.stream_table(data, self.schema, keep=keep, for_csv=for_csv), keep)

    def labelled_stream(self, data: str | Path, *, both: bool = True) -> TableRows:
        """Labelled rows of a table of any size.

        Args:
            both: whether rows of both classes must be there.

        Raises:
            InputError: what can be known from the beginning of the file.

        Warns:
            DoubtfulInputWarning: a table without the weights that the run was fitted with.
        """
        labelled = tables.LabelColumns(self.schema.target, self.weight, both)
        stream = tables.stream_table(data, self.schema, labelled=labelled)
        if self.weight is not None and self.weight not in stream.names:
            warnings.warn(self._lacks_weights(), DoubtfulInputWarning, stacklevel=4)
        return TableRows(self, stream, ())


@dataclass
class TableFindings:
    """What turned up in a part of a table: what is wrong with it, and categories that training did not have."""

    table: tables.Findings
    rows_of_new: dict[str, int]
    new: dict[str, set[str]]

    @classmethod
    def empty(cls, form: TableForm, table: tables.Findings) -> TableFindings:
        """Nothing of categories yet."""
        known = form.preprocessor.categories()
        return cls(table, dict.fromkeys(known, 0), {name: set() for name in known})

    def absorb(self, later: TableFindings) -> None:
        """Adds those of the part that follows."""
        self.table.absorb(later.table)
        for name, n in later.rows_of_new.items():
            self.rows_of_new[name] += n
            self._note(name, later.new[name])

    def count(self, name: str, known: frozenset[str], values: pd.Series) -> None:
        counts = values.value_counts()  # missing ones do not count
        new = counts[[value not in known for value in counts.index]]
        self.rows_of_new[name] += int(new.sum())
        self._note(name, new.index)

    def _note(self, name: str, values: Iterable[str]) -> None:
        room = MOST_UNSEEN_COUNTED - len(self.new[name])
        self.new[name].update(islice(values, max(room, 0)))

    def doubts(self, form: TableForm, names: Iterable[str], keep: Sequence[str] = ()) -> list[str]:
        """What is doubtful about a table of these columns, some of which are handed on."""

        def categories(name: str) -> str:
            n = len(self.new[name])
            more = " or more" if n >= MOST_UNSEEN_COUNTED else ""
            return f"{n}{more} in column {name!r} ({self.rows_of_new[name]} rows)"

        doubts = []
        if told := [categories(name) for name, n in self.rows_of_new.items() if n]:
            doubts.append(f"categories that training did not have, which count as rare ones: {', '.join(told)}")
        known = {*form.columns, form.schema.target, form.weight, *keep}
        if extra := [repr(name) for name in names if name not in known]:
            doubts.append(f"columns that the training table did not have are ignored: {some_of(extra, 10)}")
        return doubts


class TablePart:
    """Rows of one part of a table, ready for the network."""

    def __init__(self, form: TableForm, part: tables.TablePart) -> None:
        self._form, self._part = form, part
        self._known = form.preprocessor.categories()
        self.found = TableFindings.empty(form, part.found)

    def __iter__(self) -> Iterator[NewRows]:
        for piece in self._part:
            for name, known in self._known.items():
                self.found.count(name, known, piece.features[name])
            labelled = piece.target is not None
            yield NewRows(
                self._form.split(piece.features, piece.target, piece.weight),
                piece.kept,
                _hashes(piece.features, self._form.schema) if labelled else None,
                int(piece.features.index[0]),
            )


@dataclass(frozen=True, eq=False)
class _ReadTable:
    """A table that was read with the labels that it has."""

    frame: pd.DataFrame
    """Without the weights."""
    features: pd.DataFrame
    samples: TensorSplit
    """Their targets mean nothing."""
    target: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    columns: Mapping[str, NDArray[Any]]


class TableRows:
    """New rows of a table in pieces; what has turned up in them that training did not have."""

    def __init__(self, form: TableForm, stream: tables.TableStream, keep: Sequence[str]) -> None:
        self._form, self._stream, self._keep = form, stream, keep
        self._found = TableFindings.empty(form, stream.found)

    def __len__(self) -> int:
        return len(self._stream)

    @property
    def rows(self) -> int | None:
        return self._stream.rows

    @property
    def weighted(self) -> bool:
        """Whether its rows come with weights."""
        return self._stream.weighted

    @property
    def kept(self) -> pa.Schema:
        return self._stream.kept

    @property
    def apart(self) -> bool:
        return self._stream.rows is not None

    def part(self, index: int) -> TablePart:
        return TablePart(self._form, self._stream.part(index))

    def absorb(self, found: TableFindings) -> None:
        self._found.absorb(found)

    @property
    def sound(self) -> bool:
        return not self._found.table

    def raise_if_any(self) -> None:
        self._stream.raise_if_any()

    def doubts(self) -> list[str]:
        return self._found.doubts(self._form, self._stream.names, self._keep)


# -------------------------------------------------------------------------------------------------------------- pieces


def _read(data: Data, header: bool) -> tuple[pd.DataFrame, Callable[[int], str]]:
    """A table, and what tells its rows in messages."""
    if isinstance(data, pd.DataFrame):
        return data, row_of_one_table
    source = open_table(data, header)
    return read_source(source), source.row


def _hashes(features: pd.DataFrame, schema: tables.TableSchema) -> NDArray[np.uint64]:
    columns = list(schema.columns)
    return np.column_stack([tables.row_hashes(features, columns), tables.rounded_row_hashes(features, columns)])


def _take_weights(
    frame: pd.DataFrame, weight: str | None, problems: Problems, target: str, row: Callable[[int], str]
) -> tuple[pd.DataFrame, NDArray[np.float32] | None]:
    if weight is None:
        return frame, None
    if weight == target:
        problems.add(f"the weight column must be another one than the target, got {weight!r} for both")
        return frame, None
    if weight not in frame.columns:
        problems.add(f"there is no weight column {weight!r}{did_you_mean(weight, map(str, frame.columns))}")
        return frame, None
    values = pd.to_numeric(frame[weight], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(bad):
        got = frame[weight].astype(object).iloc[bad[0]]
        problems.add(
            f"weights in {weight!r} must be finite numbers, 0 or more: {len(bad)} are not, the first in row "
            f"{row(int(bad[0]))}: {str(got)!r}; correct them"
        )
    return frame.drop(columns=[weight]), values.astype(np.float32)
