"""Tables as a model takes them; see `data/forms.py`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray

from tunelater.config import Config, ImagesConfig
from tunelater.data import tables
from tunelater.data.cells import some_of
from tunelater.data.forms import Data, Labelled
from tunelater.data.imbalance import OWN_FRACTIONS, split_rows
from tunelater.data.preprocessing import Preprocessor
from tunelater.data.reading import read_table
from tunelater.data.splits import TensorSplit
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
    """A CSV or Parquet file, or a data frame, to fit on.

    Args:
        target: the column to predict; it has two values.
        positive: the value of the rare event.
        weight: a column of non-negative sample weights.
        header: False where a CSV file has no line of column names; columns are then `column_1`, `column_2`, ...

    Raises:
        InputError: everything wrong with the table.
    """
    problems = Problems()
    frame = _read(data, header)
    frame, weights = _take_weights(frame, weight, problems, target)
    try:
        features, y, schema = tables.prepare(frame, target, positive)
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
        return {"n_features": self.preprocessor.n_features}

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

    def labelled(self, data: Data, reading: Any = None, columns: Sequence[str] = ()) -> Labelled:
        frame = _read(data, self.schema.header)
        problems = Problems()
        weights, named = None, {}
        try:
            named = tables.named_columns(frame, columns)
        except InputError as error:
            problems.add(*error.problems)
        if self.weight in frame.columns:
            frame, weights = _take_weights(frame, self.weight, problems, self.schema.target)
        elif self.weight is not None:
            warnings.warn(
                f"the run was fitted with the weights {self.weight!r}, which this table lacks: each row counts the "
                "same here",
                DoubtfulInputWarning,
                stacklevel=5,
            )
        features, y = None, None
        try:
            features = tables.conform(frame, self.schema)
        except InputError as error:
            problems.add(*error.problems)
        try:
            y = self._labels(frame)
        except InputError as error:
            problems.add(*error.problems)
        problems.raise_if_any()
        assert features is not None
        samples, hashes = self.split(features, y, weights), _hashes(features, self.schema)
        return Labelled(samples, hashes, tables.fingerprint(frame), named)

    def _labels(self, frame: pd.DataFrame) -> NDArray[np.int64]:
        schema = self.schema
        if schema.target not in frame.columns:
            raise InputError(
                f"choosing and assessing need labels: there is no target column {schema.target!r}"
                f"{did_you_mean(schema.target, map(str, frame.columns))}"
            )
        y, negative = tables.label(frame[schema.target], schema.positive)
        if negative != schema.negative:
            raise InputError(
                f"target {schema.target!r} has the values {schema.positive!r} and {negative!r}; the run was "
                f"fitted on {schema.positive!r} and {schema.negative!r}"
            )
        return y

    def stream(self, data: str | Path, keep: Sequence[str], for_csv: bool, reading: Any = None) -> TableRows:
        return TableRows(self, tables.stream_table(data, self.schema, keep=keep, for_csv=for_csv), keep)


class TableRows:
    """New rows of a table in pieces; what has turned up in them that training did not have."""

    def __init__(self, form: TableForm, stream: tables.TableStream, keep: Sequence[str]) -> None:
        self._form, self._stream, self._keep = form, stream, keep
        self._known = form.preprocessor.categories()
        self._found = dict.fromkeys(self._known, 0)
        self._values: dict[str, set[str]] = {name: set() for name in self._known}

    def __iter__(self) -> Iterator[tuple[TensorSplit, pa.Table]]:
        for features, kept in self._stream:
            self._count(features)
            yield self._form.split(features), kept

    def _count(self, features: pd.DataFrame) -> None:
        for name, known in self._known.items():
            counts = features[name].value_counts()  # missing ones do not count
            new = counts[[value not in known for value in counts.index]]
            self._found[name] += int(new.sum())
            room = MOST_UNSEEN_COUNTED - len(self._values[name])
            self._values[name].update(new.index[: max(room, 0)])

    def doubts(self) -> list[str]:
        def categories(name: str) -> str:
            n = len(self._values[name])
            return f"{n}{' or more' if n >= MOST_UNSEEN_COUNTED else ''} in column {name!r} ({self._found[name]} rows)"

        doubts = []
        if new := [categories(name) for name, n in self._found.items() if n]:
            doubts.append(f"categories that training did not have, which count as rare ones: {', '.join(new)}")
        known = {*self._form.columns, self._form.schema.target, self._form.weight, *self._keep}
        if extra := [repr(name) for name in self._stream.names if name not in known]:
            doubts.append(f"columns that the training table did not have are ignored: {some_of(extra, 10)}")
        return doubts


# -------------------------------------------------------------------------------------------------------------- pieces


def _read(data: Data, header: bool) -> pd.DataFrame:
    return data if isinstance(data, pd.DataFrame) else read_table(data, header=header)


def _hashes(features: pd.DataFrame, schema: tables.TableSchema) -> NDArray[np.uint64]:
    columns = list(schema.columns)
    return np.column_stack([tables.row_hashes(features, columns), tables.rounded_row_hashes(features, columns)])


def _take_weights(
    frame: pd.DataFrame, weight: str | None, problems: Problems, target: str
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
            f"{bad[0] + 1}: {str(got)!r}; correct them"
        )
    return frame.drop(columns=[weight]), values.astype(np.float32)
