"""The main job on a table: fit once, then choose, predict and assess as often as needs change.

Each function checks all that can be checked before it starts, reports every problem at once, and leaves either its
whole result or nothing.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import torch
from numpy.typing import NDArray

from tunelater.config import Config
from tunelater.data import tables
from tunelater.data.imbalance import problems_of_fractions, split_rows
from tunelater.data.preprocessing import Preprocessor
from tunelater.data.reading import read_table
from tunelater.data.splits import Splits, TensorSplit, class_counts
from tunelater.models import build
from tunelater.problems import DoubtfulInputWarning, InputError, Problems, did_you_mean
from tunelater.runs import Run, output_problems, publish, unfinished
from tunelater.scoring import Scores
from tunelater.training import train
from tunelater.tuning import Cost, Estimate, OperatingGrid, OperatingPoint, assess

Table = str | Path | pd.DataFrame

SMALLEST_SPLIT_OF_POSITIVES = 5
"""Positives under which a split says next to nothing; fitting warns."""


def fit(
    data: Table,
    *,
    target: str,
    positive: str,
    out: str | Path | None = None,
    config: Config | None = None,
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
    weight: str | None = None,
    header: bool = True,
    force: bool = False,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> Run:
    """Train one model over a distribution of loss hyperparameters on a table.

    Args:
        data: a CSV or Parquet file, or a data frame: numbers, booleans, categories, dates, missing values.
        target: the column to predict; it has two values.
        positive: the value of the rare event.
        out: the run folder to write; None keeps the run in memory.
        config: by default `Config()` with batches that suit the number of rows.
        fractions: of the rows to train on, to choose on and to report on, drawn at random within each class.
        weight: a column of non-negative sample weights.
        header: False where a CSV file has no line of column names; columns are then `column_1`, `column_2`, ...
        force: replace an older run at `out`.
        on_epoch: called after each epoch with its metrics.

    Raises:
        InputError: everything wrong with the arguments and the data.
        TrainingDiverged: the loss turned non-finite; the message says what to change.
    """
    problems = Problems()
    if out is not None:
        problems.add(*output_problems(out, force=force, folder=True))
    problems.add(*problems_of_fractions(fractions))
    with problems_of(problems):
        frame = _read(data, header)
        frame, weights = _take_weights(frame, weight, problems)
        features, y, schema = tables.prepare(frame, target, positive)
        schema = dataclasses.replace(schema, header=header)
        rows = split_rows(y, fractions, seed=config.seed if config else 0)
    problems.raise_if_any()

    _warn_of_few_positives(y, rows)
    fingerprint = tables.fingerprint(frame)
    config = config or Config(batch_size=batch_size_for(len(rows["train"])))
    preprocessor = Preprocessor().fit(features.iloc[rows["train"]], schema)
    x = torch.from_numpy(preprocessor.transform(features))
    whole = TensorSplit(x, torch.from_numpy(y), None if weights is None else torch.from_numpy(weights))
    splits = Splits(_rows(whole, rows["train"]), _rows(whole, rows["validation"]))
    facts: dict[str, Any] = {
        "fingerprint": fingerprint,
        "rows": len(y),
        "positives": int(y.sum()),
        "splits": {name: {"rows": len(index), "positives": int(y[index].sum())} for name, index in rows.items()},
        "class_counts": class_counts(splits.train),
        "weight": weight,
    }
    folder = None
    if out is not None:
        identity = f"{config.to_toml()}\n{facts}\n{schema.to_json()}"
        folder = unfinished(Path(out), identity)
    model = build(config, n_features=preprocessor.n_features)
    trained = train(config, splits, model, folder=folder, on_epoch=on_epoch)

    hashes = np.sort(tables.row_hashes(features.iloc[rows["train"]], list(schema.columns)))
    run = Run(config, trained.model, schema, preprocessor, facts, rows, hashes)
    run = dataclasses.replace(run, validation=run.score(splits.validation, config.lambdas.grid(5)))  # type: ignore[arg-type]
    if out is not None and folder is not None:
        run.save(folder)
        publish(folder, Path(out))
        run = dataclasses.replace(run, path=Path(out))
    return run


def tune(
    run: Run | str | Path,
    data: Table,
    *,
    maximize: str | None = None,
    minimize: str | None = None,
    cost: Cost | Mapping[str, float] | None = None,
    subject_to: str | Sequence[str] = (),
    prior: float | None = None,
    grid: int | Mapping[str, int | Sequence[float]] = 9,
    out: str | Path | None = None,
    force: bool = False,
    allow_test: bool = False,
) -> OperatingPoint:
    """Choose lambda and threshold for a need, on labelled rows that the model was not trained on.

    Args:
        run: a run, or its folder.
        data: labelled rows. Where it is the table that the run was fitted on, its validation rows are taken.
        maximize, minimize, cost, subject_to: the need; see `OperatingGrid.select`.
        prior: the share of positives where the model will be used; by default the rows' own.
        grid: how many values of each hyperparameter to try, or which; see `LambdaSpace.grid`.
        out: where to write the operating point as JSON.
        allow_test: choose on the test rows of the table that the run was fitted on.

    Raises:
        InputError: everything wrong with the arguments and the data.
        Infeasible: no operating point meets the constraints; the message says what is attainable.
    """
    problems = Problems()
    if out is not None:
        problems.add(*output_problems(out, force=force, folder=False))
    with problems_of(problems):
        run = _loaded(run)
        samples, split = _labelled(run, data, "test" if allow_test else "validation")
        lambdas = run.config.lambdas.grid(grid)
    problems.raise_if_any()
    assert isinstance(run, Run)
    scores = run.score(samples, lambdas, split=split)
    point = OperatingGrid(scores, prior=prior, allow_test=allow_test).select(
        maximize=maximize, minimize=minimize, cost=cost, subject_to=subject_to
    )
    if out is not None:
        with _replacing(Path(out)) as partial:
            point.save(partial)
    return point


def evaluate(run: Run | str | Path, data: Table, *, at: OperatingPoint | str | Path) -> dict[str, Estimate]:
    """What an operating point achieves on labelled rows, with 95% intervals.

    Args:
        data: labelled rows. Where it is the table that the run was fitted on, its test rows are taken.
        at: an operating point, or its file.

    Raises:
        InputError: everything wrong with the arguments and the data, or a point of another model.
    """
    problems = Problems()
    with problems_of(problems):
        run = _loaded(run)
    with problems_of(problems):
        at = _point(at)
    problems.raise_if_any()
    assert isinstance(run, Run)
    assert isinstance(at, OperatingPoint)
    samples, split = _labelled(run, data, "test")
    return assess(at, run.score(samples, {name: np.array([v]) for name, v in at.lam.items()}, split=split))


@dataclass(frozen=True)
class Predictions:
    """How many rows were scored and alerted on, and where the result lies."""

    rows: int
    alerts: int
    extrapolated: bool
    out: Path


def predict(
    run: Run | str | Path,
    data: str | Path,
    *,
    at: OperatingPoint | str | Path,
    out: str | Path,
    keep: Sequence[str] = (),
    force: bool = False,
    on_rows: Callable[[int], None] | None = None,
) -> Predictions:
    """Score a file at an operating point, in pieces: it may be larger than memory.

    The result (CSV, or Parquet where `out` ends in .parquet) has a row for each row of `data`, in order: the columns
    named in `keep`, then `probability` (of the positive class, at the point's prior), `log_odds` (the same,
    unsaturated), `prediction` (the label) and `extrapolated` (whether the point's lambda lies outside of the range
    trained on).

    Raises:
        InputError: everything wrong with the arguments and the file; `out` is then not written.
    """
    problems = Problems()
    problems.add(*output_problems(out, force=force, folder=False))
    with problems_of(problems):
        run = _loaded(run)
    with problems_of(problems):
        at = _point(at)
    if isinstance(run, Run):
        if isinstance(at, OperatingPoint) and at.model and at.model != run.id:
            problems.add(f"the operating point belongs to model {at.model}, the run is model {run.id}: tune this run")
        with problems_of(problems):
            stream = tables.stream_table(data, run.schema, keep=keep)
            first = next(stream, None)
    problems.raise_if_any()
    assert isinstance(run, Run)
    assert isinstance(at, OperatingPoint)
    rows = alerts = 0
    with _replacing(Path(out)) as partial, _writer(partial, Path(out).suffix) as write:
        while first is not None:
            features, kept = first
            result = _predict_piece(run, at, features)
            write(pd.concat([kept.reset_index(drop=True), result], axis=1))
            rows, alerts = rows + len(result), alerts + int((result["prediction"] == run.schema.positive).sum())
            if on_rows is not None:
                on_rows(rows)
            first = next(stream, None)
    return Predictions(rows, alerts, _extrapolates(run, at), Path(out))


def batch_size_for(rows: int) -> int:
    """A power of two with some hundred steps an epoch on large tables, and the paper's 128 on small ones."""
    return int(min(1024, max(128, 2 ** round(np.log2(max(rows, 1) / 200)))))


# ------------------------------------------------------------------------------------------- pieces


@contextmanager
def problems_of(problems: Problems) -> Iterator[None]:
    """Collect the problems of an InputError instead of raising it."""
    try:
        yield
    except InputError as error:
        problems.add(*error.problems)


def _read(data: Table, header: bool) -> pd.DataFrame:
    return data if isinstance(data, pd.DataFrame) else read_table(data, header=header)


def _loaded(run: Run | str | Path) -> Run:
    return run if isinstance(run, Run) else Run.load(run)


def _point(at: OperatingPoint | str | Path) -> OperatingPoint:
    return at if isinstance(at, OperatingPoint) else OperatingPoint.load(at)


def _rows(split: TensorSplit, index: NDArray[np.int64]) -> TensorSplit:
    rows = torch.from_numpy(index)
    return TensorSplit(split.x[rows], split.target[rows], None if split.weight is None else split.weight[rows])


def _take_weights(
    frame: pd.DataFrame, weight: str | None, problems: Problems
) -> tuple[pd.DataFrame, NDArray[np.float32] | None]:
    if weight is None:
        return frame, None
    if weight not in frame.columns:
        problems.add(f"there is no weight column {weight!r}{did_you_mean(weight, map(str, frame.columns))}")
        return frame, None
    values = pd.to_numeric(frame[weight], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(bad):
        got = frame[weight].iloc[bad[0]]
        problems.add(
            f"weights in {weight!r} must be finite numbers, 0 or more: {len(bad)} are not, the first in row "
            f"{bad[0] + 1}: {got!r}"
        )
    return frame.drop(columns=[weight]), values.astype(np.float32)


def _warn_of_few_positives(y: NDArray[np.int64], rows: Mapping[str, NDArray[np.int64]]) -> None:
    few = {name: int(y[index].sum()) for name, index in rows.items() if len(index)}
    few = {name: n for name, n in few.items() if n < SMALLEST_SPLIT_OF_POSITIVES}
    if few:
        listed = ", ".join(f"{name} has {n}" for name, n in few.items())
        warnings.warn(
            f"so few positives make every figure a guess: {listed}; expect wide intervals",
            DoubtfulInputWarning,
            stacklevel=3,
        )


def _labelled(run: Run, data: Table, own_split: str) -> tuple[TensorSplit, str]:
    """Labelled samples of a table, and the name of the split that they are; only the run's own `own_split` rows where
    the table is the one that it was fitted on."""
    frame = _read(data, run.schema.header)
    weight = run.data.get("weight")
    problems = Problems()
    weights = None
    if weight in frame.columns:
        frame, weights = _take_weights(frame, weight, problems)
    with problems_of(problems):
        features = tables.conform(frame, run.schema)
    y = np.zeros(0, np.int64)
    if run.schema.target not in frame.columns:
        problems.add(
            f"choosing and assessing need labels: there is no target column {run.schema.target!r}"
            f"{did_you_mean(run.schema.target, map(str, frame.columns))}"
        )
    else:
        with problems_of(problems):
            y, negative = tables.label(frame[run.schema.target], run.schema.positive)
            problems.check(
                negative == run.schema.negative,
                f"target {run.schema.target!r} has the values {run.schema.positive!r} and {negative!r}; the run was "
                f"fitted on {run.schema.positive!r} and {run.schema.negative!r}",
            )
    problems.raise_if_any()
    samples = run.split(features, y, weights)
    if tables.fingerprint(frame) == run.data["fingerprint"]:
        index = run.rows[own_split]
        if not len(index):
            raise InputError(f"the run kept no {own_split} rows of this table; give rows that it was not fitted on")
        return _rows(samples, index), own_split
    seen = int(np.isin(tables.row_hashes(features, list(run.schema.columns)), run.train_hashes).sum())
    if seen:
        warnings.warn(
            f"{seen} of {len(features)} rows equal rows that the model was trained on, which flatters it: give rows "
            "that it has not seen",
            DoubtfulInputWarning,
            stacklevel=3,
        )
    return samples, "given"


def _extrapolates(run: Run, at: OperatingPoint) -> bool:
    return not run.config.lambdas.contains(at.lam)


def _predict_piece(run: Run, at: OperatingPoint, features: pd.DataFrame) -> pd.DataFrame:
    lambdas = {name: np.array([value]) for name, value in at.lam.items()}
    scores: Scores = run.score(run.split(features), lambdas, split="new")
    log_odds = scores.at_prior(at.prior).log_odds[0].astype(np.float64)
    alerts = at.decide(scores.log_odds[0], scores.prior)
    return pd.DataFrame(
        {
            "probability": np.exp(-np.logaddexp(0.0, -log_odds)),
            "log_odds": log_odds,
            "prediction": np.where(alerts, run.schema.positive, run.schema.negative),
            "extrapolated": _extrapolates(run, at),
        }
    )


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """A file to write to that takes its place at the end, or vanishes on any failure."""
    partial = out.absolute().parent / f".{out.name}.{os.getpid()}.partial"
    try:
        yield partial
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _writer(path: Path, suffix: str) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Appends data frames of one schema to a CSV or Parquet file."""
    writer: Any = None

    def write(piece: pd.DataFrame) -> None:
        nonlocal writer
        batch = pa.Table.from_pandas(piece, preserve_index=False)
        if writer is None:
            make = pyarrow.parquet.ParquetWriter if suffix in (".parquet", ".pq") else pyarrow.csv.CSVWriter
            writer = make(str(path), batch.schema)
        writer.write_table(batch.cast(writer.schema) if hasattr(writer, "schema") else batch)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()
