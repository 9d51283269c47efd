"""The main job on a table: fit once, then choose, predict and assess as often as needs change.

Each function checks all that can be checked before it starts, reports every problem at once, and leaves either its
whole result or nothing.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import torch
from numpy.typing import NDArray
from scipy.special import expit

from tunelater import recipes, vision
from tunelater.assessment import assess, problems_of_classes, problems_of_draws, reliability_of
from tunelater.calibration import BrierDecomposition, Reliability, draw_reliability, problems_of_diagram
from tunelater.config import Config
from tunelater.counting import count as count_scores
from tunelater.data.benchmarks import is_image
from tunelater.data.forms import Data, Labelled, NewRows, Part, Prepared, Stream
from tunelater.data.image_form import ImageForm, ImageSource, find_images, is_one_image, one_image, prepare_images
from tunelater.data.imbalance import problems_of_beta, problems_of_fractions, subsample
from tunelater.data.reading import (
    checked_file,
    checked_table,
    is_parquet,
    is_parquet_folder,
    parquet_files,
    size_in_memory,
)
from tunelater.data.splits import Split, Splits, class_counts
from tunelater.data.table_form import TableForm, prepare_table
from tunelater.distributions import Lambda, Lambdas
from tunelater.engines import Engine
from tunelater.guarantee import check_enough, claims_of, problems_of_division
from tunelater.intervals import Estimate
from tunelater.losses import logit
from tunelater.metrics import one_thread
from tunelater.models import TRUNKS, build, problems_of_images
from tunelater.multiclass import FORMAT as CLASS_FORMAT
from tunelater.multiclass import ClassPoint
from tunelater.needs import Columns, Cost, Need, problems_of_needs
from tunelater.points import FORMAT, OperatingPoint
from tunelater.problems import DoubtfulInputWarning, InputError, Problems
from tunelater.recognition import Recognition
from tunelater.runs import FORMAT as RUN_FORMAT
from tunelater.runs import Run, another_lives, building, output_problems, publish
from tunelater.scoring import Scores, check_lambdas
from tunelater.streaming import FoldedHistograms, HistogramGrid, load_shards, problems_of_rows
from tunelater.tuning import problems_of_calibrating, problems_of_guarantee, select_from

GRID = 9
"""Values of each hyperparameter that are tried."""
MOST_SAVED = 2**24
"""Scores of validation samples that a run keeps, if that makes its grid of lambdas a coarse one."""
SMALLEST_SPLIT_OF_POSITIVES = 5
"""Positives under which a split says next to nothing; fitting warns."""
LEFT_OUT = "they are left out, because they would flatter the model"
FEWEST_CHANGES = 20
"""From one label to the next over which their order tells a table from others."""


def fit(
    data: Data,
    *,
    target: str | None = None,
    positive: str | None = None,
    out: str | Path | None = None,
    config: Config | None = None,
    fractions: tuple[float, float, float] | None = None,
    beta: float | None = None,
    weight: str | None = None,
    header: bool = True,
    images: ImageSource | None = None,
    force: bool = False,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    tracker: str | None = None,
    problems: Sequence[str] = (),
) -> Run:
    """Train one model over a distribution of loss hyperparameters, on a table or on images.

    Args:
        data: a CSV or Parquet file, a folder of Parquet files, or a data frame: numbers, booleans, categories, dates,
            missing values. Or images: a folder with one for each class, and with `images` also a list of paths and
            labels (CSV or Parquet), or the folder of one of the paper's datasets.
        target: the column to predict; it has two values. Folders of images have none.
        positive: the value (or the folder's name) of the rare event; the paper's datasets know theirs. Images of all
            other classes are the negatives, however many these are.
        out: the run folder to write; None keeps the run in memory.
        config: by default, for a table, `recipes.tables`; for a dataset, `recipes.for_dataset`; for other images,
            `recipes.images` with a ConvNeXt-tiny that starts from ImageNet.
        fractions: of the rows to train on, to choose on and to report on, drawn at random within each class; by default
            0.6, 0.2 and 0.2. A dataset's own test part stays what it is: of its training part 20% are to choose on, or
            what the first two fractions say.
        beta: sub-sample the positives to train on to this imbalance ratio n_-/n_+ (see `imbalance.subsample`); None
            leaves them.
        weight: a column of non-negative sample weights.
        header: False where a CSV file has no line of column names; columns are then `column_1`, `column_2`, ...
        images: where images have their labels and how they are read, if it is images that a file or folder holds.
        force: replace an older run at `out`.
        on_epoch: called after each epoch with its metrics.
        tracker: where to follow the training besides `metrics.csv`: `tensorboard` or `wandb`; None is nowhere.
        problems: what the caller found wrong already, to be told with the rest.

    Raises:
        InputError: everything wrong with the arguments and the data.
        TrainingDiverged: the loss turned non-finite; the message says what to change.
    """
    # Fabric brings the compiler of torch along: two seconds that choosing and predicting need not wait for.
    from tunelater.trackers import problems_of_tracker, tracker_of
    from tunelater.training import problems_of_compiling, train

    found = Problems()
    found.add(*problems, *problems_of_tracker(tracker, out))
    if out is not None:
        found.add(*output_problems(out, force=force, folder=True))
    found.add(*(_problems_of_sizes(fractions) if fractions is not None else []))
    found.add(*(problems_of_beta(beta) if beta is not None else []))
    of_types = Problems()
    of_types.add(*_problems_of_data(data))
    of_types.check(
        config is None or isinstance(config, Config),
        f"config is a Config (`Config.read` makes one of a file), got {type(config).__name__}",
    )
    found.add(*of_types)
    if isinstance(config, Config):
        found.add(*problems_of_compiling(config))
    if images is not None and images.protocol == "paper" and fractions is not None:
        told = ",".join(f"{size:g}" for size in fractions)
        found.add(
            "protocol 'paper' divides nothing, and chooses on the test images: leave out fractions (--split), "
            f"got {told}"
        )
    prepared, rows = None, {}
    if not of_types:
        config, prepared = _prepared(data, target, positive, config, weight, header, images, found)
    if prepared is not None:
        with problems_of(found):
            rows = _divided(prepared, fractions, beta, seed=config.seed if config is not None else 0)
            found.add(*prepared.problems(rows))
    found.raise_if_any()
    assert prepared is not None

    _warn_of_positives(prepared, rows)
    config = (config if config is not None else recipes.tables()).for_samples(len(rows["train"]))
    form, samples = prepared.fitted(rows["train"], config)
    splits = Splits(_taken(samples, rows["train"]), _taken(samples, rows["validation"]))
    y = prepared.target
    facts: dict[str, Any] = {
        "fingerprint": prepared.fingerprint,
        "labels": _order_of(y),
        "rows": len(y),
        "positives": int(y.sum()),
        "splits": {name: {"rows": len(index), "positives": int(y[index].sum())} for name, index in rows.items()},
        "class_counts": class_counts(splits.train),
        **prepared.facts,
    }
    hashes_of = {name: prepared.hashes[index] for name, index in rows.items()}

    def trained(folder: Path | None) -> Run:
        model = build(config, **form.shape)
        title = "tunelater" if out is None else Path(out).name
        follow = None if tracker is None else tracker_of(tracker, folder, config, title)
        fitted = train(config, splits, model, folder=folder, on_epoch=on_epoch, tracker=follow).model
        run = Run(config, fitted, form, facts, rows, hashes_of)
        scores = run.score(splits.validation, _saved_grid(config, len(splits.validation)))
        return dataclasses.replace(run, validation=scores)

    if out is None:
        return trained(None)
    with building(Path(out), f"{RUN_FORMAT}\n{config.to_toml()}\n{facts}\n{form.digest()}") as folder:
        run = trained(folder)
        run.save(folder)
        publish(folder, Path(out))
    return dataclasses.replace(run, path=Path(out))


def _saved_grid(config: Config, n: int) -> Lambdas:
    """Where the scores of the n validation samples are kept for `adapt`: where `tune` looks, unless these are many
    scores, or many passes through the trunk."""
    fine = config.lambdas.grid(GRID)
    size = max((len(values) for values in fine.values()), default=1)
    in_the_trunk = config.film is not None and config.film.placement == "stages"
    lambdas = config.lambdas.grid(5) if in_the_trunk or size * n > MOST_SAVED else fine
    return joined_by(lambdas, config.lambdas.median)


def tune(
    run: Run | str | Path,
    data: Data,
    *,
    maximize: str | None = None,
    minimize: str | None = None,
    cost: Cost | Mapping[str, float | str] | None = None,
    subject_to: str | Sequence[str] = (),
    prior: float | tuple[float, float] | None = None,
    simplest: bool = True,
    grid: int | Mapping[str, int | Sequence[float]] = GRID,
    out: str | Path | None = None,
    force: bool = False,
    allow_test: bool = False,
    bootstrap: int | None = None,
    guarantee: float | None = None,
    calibrate: str | None = None,
    stream: bool | None = None,
    memory_mb: int = 1024,
    engine: str = "local",
    address: str | None = None,
    images: ImageSource | None = None,
    problems: Sequence[str] = (),
) -> OperatingPoint:
    """Choose lambda and threshold for a need, on labelled rows that the model was not trained on.

    Args:
        run: a run, or its folder.
        data: labelled rows. Where it is the table that the run was fitted on, or one with the same labels in the same
            order, its validation rows are taken. From any other table, rows that equal training or test rows of that
            table, if only after rounding, are left out, with a warning. Or what `count` wrote: a file, or a folder of
            such files, of shards of one validation set.
        maximize, minimize, cost, subject_to: the need (`tunelater.needs` has the vocabulary). Columns that it names
            are those of `data`, whether the model uses them or not.
        prior: the share of positives where the model will be used, or a range of it, of which the worst counts; by
            default the rows' own.
        simplest: of the lambdas within one standard error of the best, take the one nearest to the model's default.
        grid: how many values of each hyperparameter to try, to which the default lambda is added, or which; see
            `LambdaSpace.grid`. A grid whose scores would not fit in memory is searched in parts.
        out: where to write the operating point as JSON.
        allow_test: choose on the test rows of the table that the run was fitted on.
        bootstrap: intervals from so many resamples, and as many choices again; see `OperatingGrid.select`.
        guarantee: the confidence, such as 0.9, at which the constraints are certified for future data; a part of the
            rows then chooses, and the others certify. See `OperatingGrid.select` and `tunelater.guarantee`. Rows that
            the training stopped on are no fresh ones: of another table they are left out, and where they are all there
            is, a warning says so, which the certificate repeats.
        calibrate: `platt`, `beta` or `isotonic`: calibrate the probabilities of the point by such a map, fitted to the
            same rows at its lambda and prior. Decisions stay on the link's log-odds, which it never turns around.
        stream: whether scores are counted while rows stream by, in memory that does not depend on their number, and
            the point is chosen on histograms (`tunelater.streaming`); by default where the table takes more than
            `memory_mb`, or the engine is another than `local`.
        memory_mb: bound on the histograms, or on the scores held at a time, MiB, in each process.
        engine, address: as for `predict`.
        images: how image files are read, for a run on images.
        problems: what the caller found wrong already, to be told with the rest.

    Raises:
        InputError: everything wrong with the arguments and the data.
        Infeasible: no operating point meets the constraints; the message says what is attainable.
        Uncertified: the rows cannot certify the constraints; the message says how many could.
    """
    found, place, shards = Problems(), Engine(engine, address), shards_in(data)
    found.add(*problems, *place.problems())
    if out is not None:
        found.add(*problems_of_point_file(Path(out), data, force))
    asked: dict[str, Any] = {"maximize": maximize, "minimize": minimize, "cost": cost, "subject_to": subject_to}
    wrong = problems_of_needs(**asked, prior=prior)
    found.add(*wrong, *problems_of_draws(bootstrap=bootstrap), *problems_of_calibrating(calibrate, guarantee))
    found.add(*(problems_of_division(guarantee) if guarantee is not None else []))
    loaded = loaded_run(run, data, found)
    found.add(*problems_of_reading(loaded, images))
    streams = bool(shards)
    lambdas: Lambdas = {}
    if loaded is not None:
        with problems_of(found):
            lambdas = _grid(loaded, grid)
        with problems_of(found):
            own, apart = ("test", ("train",)) if allow_test else ("validation", ("train", "test"))
            if guarantee is not None and loaded.config.early_stopping is not None:
                apart = (*apart, "validation")
            streams = streams or _streams(loaded, data, stream, place, memory_mb)
            named = Need.columns_named(cost, subject_to)
            if not streams:
                samples, split, columns = labelled_samples(loaded, data, own, apart, images, named)
            if not wrong:
                need = Need.of(**asked, prior=prior)
                if streams:
                    found.add(*problems_of_rows(need, bootstrap, guarantee, calibrate))
                else:
                    weight = None if samples.weight is None else samples.weight.numpy()
                    target = samples.target.numpy()
                    found.add(*need.problems_with(columns, target, weight, "choosing"))
                    found.add(*problems_of_guarantee(guarantee, need, target, weight, lambdas, memory_mb))
            if guarantee is not None and not streams:
                found.add(*problems_of_groups(loaded, split))
    found.raise_if_any()
    assert loaded is not None
    doubts: list[str] = []
    if guarantee is not None:
        check_enough(target, claims_of(need.constraints, columns), guarantee)
        doubts = doubts_of_guarantee(loaded, split)
        for doubt in doubts:
            _warn(doubt)
    default = loaded.config.lambdas.median
    if streams:
        histograms = _histograms(loaded, data, shards, lambdas, apart, place, memory_mb)
        point = HistogramGrid(histograms, prior, allow_test, default).select(**asked, simplest=simplest)
    else:
        point = select_from(
            lambda part: dataclasses.replace(loaded.score(samples, part, split=split), columns=columns),
            lambdas,
            len(samples),
            prior=prior,
            allow_test=allow_test,
            default=default,
            simplest=simplest,
            bootstrap=bootstrap,
            guarantee=guarantee,
            calibrate=calibrate,
            memory_mb=memory_mb,
            **asked,
        )
    if doubts and point.certificate is not None:
        point = dataclasses.replace(point, certificate={**point.certificate, "doubts": doubts})
    if out is not None:
        with replacing(Path(out)) as partial:
            point.save(partial)
    return point


def problems_of_groups(run: Run, split: str) -> list[str]:
    """What keeps samples of the run's own from certifying."""
    if split == "given" or not run.data.get("grouped"):
        return []
    return [
        f"the run's {run.form.noun}s come in groups (of a patient, say), and those of a group resemble each other, but "
        f"a guarantee counts independent {run.form.noun}s: give others, one of each group"
    ]


def doubts_of_guarantee(run: Run, split: str) -> list[str]:
    """What is known to break what a guarantee supposes of the samples that it rests on."""
    doubts, noun = [], run.form.noun
    early = run.config.early_stopping
    if split == "validation" and early is not None:
        doubts.append(
            f"the epoch to stop at was chosen by {early.metric} on these {noun}s, so that they are not as fresh as the "
            f"guarantee supposes, and it may hold less often than stated; certify on {noun}s that the run was not "
            "fitted on, or fit with early_stopping = false"
        )
    if split == "given" and run.data.get("grouped"):
        doubts.append(
            f"the run's {noun}s come in groups; if these do too (several of a patient, say), they are not independent, "
            "and the guarantee is void: give one of each group"
        )
    return doubts


def count(
    run: Run | str | Path,
    data: str | Path,
    *,
    out: str | Path,
    grid: int | Mapping[str, int | Sequence[float]] = 9,
    force: bool = False,
    memory_mb: int = 1024,
    engine: str = "local",
    address: str | None = None,
) -> FoldedHistograms:
    """Count the scores of labelled rows at a grid of lambdas, for `tune` to choose on: a shard of a validation set, on
    the machine that has it.

    Rows that the run has seen are left out as in `tune`; that is judged for each shard by itself.

    Args:
        data: labelled rows: a CSV or Parquet file, or a folder of Parquet files, of any size.
        out: where to write the histograms; it ends in .npz.
        grid, memory_mb, engine, address: as for `tune`; shards need the same of the first two.
        force: replace older histograms at `out`.

    Raises:
        InputError: everything wrong with the arguments and the data; `out` is then not written.
    """
    found, place, out = Problems(), Engine(engine, address), Path(out)
    found.add(*place.problems())
    found.check(out.suffix == SHARD, f"histograms are a file that ends in {SHARD}: --out (out), got {out.name!r}")
    if _same_place(out, data):
        found.add(f"{out} is the table to count, which is not replaced; name another place")
    else:
        found.add(*output_problems(out, force=force, folder=False))
    loaded = loaded_run(run, data, found, frames=False)
    if loaded is not None:
        with problems_of(found):
            lambdas: Lambdas = _grid(loaded, grid)
        with problems_of(found):
            _streams(loaded, data, True, place, memory_mb)
    found.raise_if_any()
    assert loaded is not None
    histograms = _counted(loaded, data, lambdas, ("train", "test"), place, memory_mb, both=False)
    histograms.save(out)
    return histograms


@dataclass(frozen=True)
class Evaluation:
    """What an operating point achieves, and on which rows: a split of the run's own table, or "given" ones."""

    estimates: dict[str, Estimate]
    point: OperatingPoint
    split: str
    n: int
    n_positive: int
    noun: str
    """Of one of them: row or image."""
    reliability: Reliability
    """How well the point's probabilities agree with the rows, at the point's prior if one was stated."""
    brier: BrierDecomposition
    """The parts of their Brier score."""
    of_link: tuple[Reliability, BrierDecomposition] | None
    """Both without the point's calibration; None where it has none."""


def evaluate(
    run: Run | str | Path,
    data: Data,
    *,
    at: OperatingPoint | str | Path,
    bootstrap: int | None = None,
    images: ImageSource | None = None,
) -> dict[str, Estimate]:
    """What an operating point achieves on labelled rows, with 95% intervals.

    Args:
        data: labelled rows. Where it is the table that the run was fitted on, or one with the same labels in the same
            order, its test rows are taken. From any other table, rows that equal training rows of that table, if only
            after rounding, or validation rows (on which training stopped and the point was chosen), are left out, with
            a warning.
        at: an operating point, or its file.
        bootstrap: intervals from so many resamples; see `tuning.assess`.
        images: how image files are read, for a run on images.

    Raises:
        InputError: everything wrong with the arguments and the data, or a point of another model.
    """
    return evaluation(run, data, at=at, bootstrap=bootstrap, images=images).estimates


def evaluation(
    run: Run | str | Path,
    data: Data,
    *,
    at: OperatingPoint | str | Path,
    bootstrap: int | None = None,
    reliability: str | Path | None = None,
    force: bool = False,
    images: ImageSource | None = None,
) -> Evaluation:
    """As `evaluate`, with the rows that it was done on, and how well calibrated the probabilities are.

    Args:
        reliability: where to draw a reliability diagram: .png, .pdf or .svg. Of a calibrated point it has the link's
            probabilities too.
        force: replace what is there.

    Raises:
        InputError: as `evaluate`, and Matplotlib that is missing, or a place where no diagram may be written.
    """
    found = Problems()
    if reliability is not None:
        found.add(*problems_of_diagram(Path(reliability)))
        if any(_same_place(Path(reliability), path) for path in (data, run, at)):
            found.add(f"{reliability} is what evaluating reads, which is not replaced; name another place")
        else:
            found.add(*output_problems(reliability, force=force, folder=False))
    found.add(*problems_of_draws(bootstrap=bootstrap))
    loaded = loaded_run(run, data, found)
    found.add(*problems_of_reading(loaded, images))
    point = point_of_run(at, loaded, found)
    if loaded is not None:
        with problems_of(found):
            named = () if point is None else Need.read(point.needs).columns
            samples, split, columns = labelled_samples(loaded, data, "test", ("train", "validation"), images, named)
    found.raise_if_any()
    assert loaded is not None
    assert point is not None
    done = evaluation_of(loaded, point, scores_at(loaded, point, samples, split, columns), bootstrap)
    if reliability is not None:
        series = {"link": done.reliability} if done.of_link is None else {"link": done.of_link[0]}
        if point.calibration is not None:
            series[f"calibrated ({point.calibration.kind})"] = done.reliability
        draw_reliability(series, reliability)
    return done


def scores_at(run: Run, point: OperatingPoint, samples: Split, split: str, columns: Columns) -> Scores:
    """Samples at the lambda of a point, with columns of theirs."""
    scores = run.score(samples, {name: np.array([v]) for name, v in point.lam.items()}, split=split)
    return dataclasses.replace(scores, columns=columns)


def evaluation_of(run: Run, point: OperatingPoint, scores: Scores, bootstrap: int | None = None) -> Evaluation:
    """What a point achieves on samples that were scored at its lambda."""
    return Evaluation(
        assess(point, scores, bootstrap=bootstrap),
        point,
        scores.split,
        len(scores.target),
        int((scores.target == 1).sum()),
        run.form.noun,
        *reliability_of(point, scores),
        reliability_of(point, scores, calibrated=False) if point.calibration is not None else None,
    )


@dataclass(frozen=True)
class Predictions:
    """How many rows were scored and alerted on, and where the result lies."""

    rows: int
    alerts: int
    extrapolated: bool
    out: Path
    noun: str


def predict(
    run: Run | str | Path,
    data: str | Path,
    *,
    at: OperatingPoint | str | Path,
    out: str | Path,
    keep: Sequence[str] = (),
    force: bool = False,
    engine: str = "local",
    address: str | None = None,
    images: ImageSource | None = None,
    on_rows: Callable[[int, str], None] | None = None,
) -> Predictions:
    """Score a file, a folder of Parquet files, or image files, at an operating point, in pieces: they may be larger
    than memory.

    The result (CSV where `out` ends in .csv, Parquet where in .parquet or .pq) has a row for each row of `data`, in
    order: the columns named in `keep` as they are, then `probability` (of the positive class, at the point's prior,
    calibrated if the point is), `log_odds` (the link's, on which rows are decided; without a calibration the same,
    unsaturated), `prediction` (the label) and `extrapolated` (whether the point's lambda lies outside of the range
    trained on). Of images, the path comes first.

    Of Parquet, `out` without an extension is a folder: a Parquet file for each part that was read (up to about a
    million rows), whose rows in the order of their names are the result.

    Args:
        keep: columns of the file to hand on.
        force: replace an older result at `out`.
        engine: `local`, or `ray`: Parquet in parts on a Ray cluster, with the same result.
        address: of the cluster; see `engines.Engine`.
        images: how image files are read, for a run on images.
        on_rows: called after each piece with how many are scored so far and what one is: "row" or "image".

    Raises:
        InputError: everything wrong with the arguments and the file; `out` is then not written.
    """
    found, place = Problems(), Engine(engine, address)
    found.add(*place.problems())
    found.add(*_problems_of_result(Path(out), data, [run, at], force))
    found.add(*_problems_of_kept(keep))
    loaded = loaded_run(run, data, found, frames=False)
    found.add(*problems_of_reading(loaded, images))
    point = point_of_run(at, loaded, found)
    if loaded is not None:
        with problems_of(found):
            stream = loaded.form.stream(data, keep, Path(out).suffix == ".csv", images)
            found.add(*_problems_of_parts(place, stream, data))
            read = chain.from_iterable(_read(stream.part(i)) for i in range(len(stream)))
            first = _first_sound(read, stream)
    found.raise_if_any()
    assert loaded is not None
    assert point is not None
    predicting = _Predicting(loaded, point, stream)
    here = map(predicting.scored, chain([first], read))
    outcomes = here if place.is_local else place.map(predicting, range(len(stream)))
    rows = alerts = 0
    with _result(Path(out)) as result:
        for outcome in outcomes:
            if isinstance(outcome, pa.Table) and stream.sound:
                result.write(outcome)
                rows += outcome.num_rows
                alerts += pc.sum(pc.equal(outcome["prediction"], loaded.form.labels[1])).as_py()
                if on_rows is not None:
                    on_rows(rows, loaded.form.noun)
            elif not isinstance(outcome, pa.Table):
                result.end_of_part()
                stream.absorb(outcome)
        stream.raise_if_any()
        result.told = {"model": loaded.id, "rows": rows, "alerts": alerts}
    for doubt in stream.doubts():
        warnings.warn(doubt, DoubtfulInputWarning, stacklevel=2)
    return Predictions(rows, alerts, _extrapolates(loaded, point), Path(out), loaded.form.noun)


@dataclass(frozen=True)
class _Predicting:
    """Scores parts of new samples; what it needs to do so in another process."""

    run: Run
    point: OperatingPoint
    stream: Stream

    def __call__(self, part: int) -> Iterator[Any]:
        """The results of a part, piece by piece, and at its end what turned up in it."""
        return map(self.scored, _read(self.stream.part(part)))

    def scored(self, rows: Any) -> Any:
        """The result of a piece; anything else as it is."""
        if not isinstance(rows, NewRows):
            return rows
        if not self.stream.sound:
            return _beside(rows.kept.slice(0, 0), RESULT.empty_table())  # what would not be written is not scored
        # Rows of tables are scored as Ray's processes do it, to the last bit.
        with one_thread() if isinstance(self.run.form, TableForm) else nullcontext():
            return _beside(rows.kept, predictions_of(self.run, self.point, rows.samples))


def _read(part: Part) -> Iterator[Any]:
    """The pieces of a part, and what turned up in them."""
    yield from part
    yield part.found


def _first_sound(read: Iterator[Any], stream: Stream) -> Any:
    """The first piece. Where something is wrong with it, everything that is wrong with all of them is raised."""
    for rows in read:
        if not isinstance(rows, NewRows):
            stream.absorb(rows)
        elif stream.sound:
            return rows
    stream.raise_if_any()
    raise AssertionError("a stream without pieces has told why")


# ------------------------------------------------------------------------------------------- pieces


@contextmanager
def problems_of(problems: Problems) -> Iterator[None]:
    """Collect the problems of an InputError instead of raising it."""
    try:
        yield
    except InputError as error:
        problems.add(*error.problems)


def loaded_run(run: Run | str | Path, data: Data, problems: Problems, *, frames: bool = True) -> Run | None:
    """The run; where there is none, at least whether the file of data is there. None where data have no such type."""
    unsound = _problems_of_data(data, frames=frames)
    problems.add(*unsound)
    if not isinstance(run, Run | str | Path):
        problems.add(f"a run is a Run or its folder, got {type(run).__name__}")
        return None
    with problems_of(problems):
        run = run_of_two(run)
        return None if unsound else run
    if isinstance(data, str | Path) and not Path(data).is_dir():
        with problems_of(problems):
            checked_file(data)
    return None


def run_of_two(run: Run | str | Path) -> Run:
    """A run of two classes, loaded where it is a folder.

    Raises:
        InputError: no run there, or one of more classes.
    """
    run = run if isinstance(run, Run) else Run.load(run)
    if (k := len(run.data["class_counts"])) > 2:
        raise InputError(f"the run is of {k} classes: use LCTClassifier.load, this is for two")
    return run


SHARD = ".npz"


def shards_in(data: Data) -> list[Path]:
    """The files of histograms that data are: one, or those of a folder that holds nothing else to choose on."""
    if not isinstance(data, str | Path):
        return []
    path = Path(data)
    if path.is_dir() and not is_parquet_folder(path):
        return sorted(each for each in path.iterdir() if each.suffix == SHARD and each.is_file())
    return [path] if path.suffix == SHARD and path.is_file() else []


def _streams(run: Run, data: Data, stream: bool | None, engine: Engine, memory_mb: int) -> bool:
    """Whether rows are counted as they stream by.

    Raises:
        InputError: rows that cannot be, where that is asked for.
    """
    asked = stream or not engine.is_local
    file = isinstance(data, str | Path) and run.form.name == TableForm.name
    if asked and not file:
        what = "a data frame" if isinstance(data, pd.DataFrame) else f"{run.form.noun}s"
        raise InputError(f"rows are streamed from a table in a file or in a folder of Parquet files, got {what}")
    if stream is False and not engine.is_local:
        raise InputError(f"the engine {engine.name!r} streams rows: leave out --whole (stream=False)")
    if not isinstance(data, str | Path) or not file or stream is False:
        return False
    table = checked_table(data)
    return asked or size_in_memory(table) > memory_mb * 2**20


def _counted(
    run: Run,
    data: str | Path,
    lambdas: Lambdas,
    apart: Sequence[str],
    engine: Engine,
    memory_mb: int,
    *,
    both: bool = True,
) -> FoldedHistograms:
    assert isinstance(run.form, TableForm)
    rows = run.form.labelled_stream(data, both=both)
    if told := _problems_of_parts(engine, rows, data):
        raise InputError(told)
    histograms, verdict = count_scores(run, rows, lambdas, apart=apart, engine=engine, memory_mb=memory_mb, both=both)
    if verdict.doubt or verdict.told:
        _warn(verdict.doubt or f"{verdict.told}; {LEFT_OUT}")
    return histograms


def _histograms(
    run: Run,
    data: Data,
    shards: Sequence[Path],
    lambdas: Lambdas,
    apart: Sequence[str],
    engine: Engine,
    memory_mb: int,
) -> FoldedHistograms:
    """Of shards that were counted before, or of a table."""
    if not shards:
        assert isinstance(data, str | Path)
        return _counted(run, data, lambdas, apart, engine, memory_mb)
    histograms = load_shards(shards)
    if histograms.total.model != run.id:
        told = f"{data}: the histograms belong to model {histograms.total.model}, the run is model {run.id}"
        raise InputError(f"{told}: count the rows with this run (`tunelater count`)")
    return histograms


def _grid(run: Run, grid: int | Mapping[str, int | Sequence[float]]) -> Lambdas:
    """The lambdas to try: with the default one, unless each is given."""
    lambdas = run.config.lambdas.grid(grid)
    return lambdas if isinstance(grid, Mapping) else joined_by(lambdas, run.config.lambdas.median)


def _problems_of_parts(engine: Engine, stream: Stream, data: Data) -> list[str]:
    if engine.is_local or stream.apart:
        return []
    return [
        f"the engine {engine.name!r} reads Parquet, a file or a folder of files, in parts, got {data}, which has none: "
        "write it as Parquet, or leave out --engine (engine)"
    ]


def problems_of_reading(run: Run | None, images: ImageSource | None) -> list[str]:
    """What is wrong with how images are read, or is said of them to a run that reads none."""
    if run is None or images is None:
        return []
    if run.form.name == ImageForm.name:
        return images.problems()
    if not (told := images.told()):
        return []
    return [f"{told} is for a run on images, got one on a {run.form.name}; leave it out"]


def point_of_run(at: OperatingPoint | str | Path, run: Run | None, problems: Problems) -> OperatingPoint | None:
    def fits(model: str, lam: Mapping[str, float]) -> list[str]:
        return [] if run is None else _problems_of_fit(model, lam, run)

    with problems_of(problems):
        point = at
        if not isinstance(point, OperatingPoint):
            point = OperatingPoint.load(point, fits)
        else:
            problems.add(*fits(point.model, point.lam))
        if not point.model:
            _warn("the operating point does not say to which model it belongs; it is taken for one of this run's")
        return point
    return None


def point_among_classes(at: object, run: Run) -> ClassPoint:
    """A point of a run of more than two classes, read where it is a file.

    Raises:
        InputError: no such point, or one of another model.
    """
    point = ClassPoint.load(at) if isinstance(at, str | Path) else at
    if not isinstance(point, ClassPoint):
        k = len(run.data["class_counts"])
        raise InputError(f"a point of {k} classes is a ClassPoint of `tune`, or its file; got {type(point).__name__}")
    if problems := _problems_of_fit(point.model, point.lam, run):
        raise InputError(problems)
    return point


def _problems_of_fit(model: str, lam: Mapping[str, float], run: Run) -> list[str]:
    """Why a point is not one of a run's."""
    if model and model != run.id:
        return [f"the operating point belongs to model {model}, the run is model {run.id}: tune this run"]
    problems = Problems()
    with problems_of(problems):
        check_lambdas(lam, run.family)
    return list(problems)


# ------------------------------------------------------------------------------------------- problems


def _problems_of_data(data: object, *, frames: bool = True) -> list[str]:
    """What is wrong with the type of data."""
    if isinstance(data, str | Path) or (frames and isinstance(data, pd.DataFrame)):
        return []
    if isinstance(data, pd.DataFrame):
        return ["predicting reads a file or a folder, got a data frame; write it to Parquet (`to_parquet`) first"]
    what = "a file, a folder or a data frame" if frames else "a file or a folder"
    return [f"data are {what}, got {type(data).__name__}"]


def _problems_of_sizes(fractions: Sequence[float]) -> list[str]:
    if problems := problems_of_fractions(fractions):
        return problems
    told = ", ".join(f"{size:g}" for size in fractions)
    return [
        f"fractions (--split) must be above 0 for {name} rows, got {told}: {why}; only that of test rows may be 0"
        for name, size, why in zip(
            ("train", "validation"), fractions, ("training needs rows", "choosing needs rows"), strict=False
        )
        if size <= 0
    ]


def _same_place(out: Path, other: Any) -> bool:
    return isinstance(other, str | Path) and out.resolve() == Path(other).resolve()


def problems_of_point_file(out: Path, data: Data, force: bool) -> list[str]:
    """Why an operating point may not be written there: only another one is replaced."""
    if _same_place(out, data):
        return [f"{out} is the table to choose on, which is not replaced; name another place"]
    if problems := output_problems(out, force=True, folder=False):
        return problems
    if out.is_file() and not is_point_file(out):
        return [f"{out} exists and is not an operating point, so it is not replaced; name another place"]
    return output_problems(out, force=force, folder=False)


def is_point_file(path: Path) -> bool:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    kinds = tuple(f"{name.partition('/')[0]}/" for name in (FORMAT, CLASS_FORMAT))
    return isinstance(raw, dict) and str(raw.get("format")).startswith(kinds)


def _problems_of_result(out: Path, data: Any, inputs: Sequence[Any], force: bool) -> list[str]:
    """Why predictions may not be written there."""
    problems, folder = Problems(), not out.suffix and is_parquet(data)
    problems.check(
        folder or out.suffix in RESULT_SUFFIXES,
        f"the result is CSV or Parquet: --out (out) must end in {', '.join(RESULT_SUFFIXES)} (or, where Parquet is "
        f"read, have no ending: a folder of Parquet files), got {out.name!r}",
    )
    if any(_same_place(out, path) for path in [data, *inputs]):
        problems.add(f"{out} is what predicting reads, which is not replaced; name another place")
        return list(problems)
    if isinstance(data, str | Path) and Path(data).is_dir() and Path(data).resolve() in out.resolve().parents:
        problems.add(f"{out} lies in the folder that predicting reads, where nothing is written; name another place")
        return list(problems)
    if folder and out.resolve() in Path(data).resolve().parents:
        problems.add(f"{out} holds what predicting reads, which is not replaced; name another place")
        return list(problems)
    written = frozenset(_files_of_result(out)) if folder else frozenset[str]()
    what = "a folder of predictions"
    problems.add(*output_problems(out, force=force, folder=folder, ours=_is_result, written=written, what=what))
    return list(problems)


def _problems_of_kept(keep: Sequence[str]) -> list[str]:
    return [
        f"the result has its own column {name!r}, so that of the table cannot be kept; rename it in the table"
        for name in dict.fromkeys(keep)
        if name in RESULT.names
    ]


# ------------------------------------------------------------------------------------------- rows


def _prepared(
    data: Data,
    target: str | None,
    positive: str | None,
    config: Config | None,
    weight: str | None,
    header: bool,
    images: ImageSource | None,
    found: Problems,
) -> tuple[Config | None, Prepared | None]:
    """The data, of either form, and the config that images need before they are read; None where anything is wrong."""
    if isinstance(data, str | Path) and not Path(data).exists() and not (images is not None and images.download):
        found.add(f"{data}: there is no such file or folder")
    elif is_one_image(data) and not (images is not None and images.dataset):
        found.add(one_image(data))
    elif images is not None or is_image_folder(data):
        found.check(header, "--no-header (header=False) is for tables: lists of images need a line of column names")
        return _prepared_images(data, target, positive, config, weight, images or ImageSource(), found)
    else:
        found.add(*_problems_of_mixture(data))
        found.check(config is None or config.images is None, "the config is one for images, got a table")
        found.check(target is not None, "say which column to predict: --target (target)")
        found.check(positive is not None, "say which value marks the rare event: --positive (positive)")
        with problems_of(found):
            if target is not None and positive is not None:
                return config, prepare_table(data, target=target, positive=positive, weight=weight, header=header)
            if isinstance(data, str | Path):
                checked_file(data)
    return config, None


def is_image_folder(data: Data) -> bool:
    """Whether data to fit on are a folder, and not one of Parquet files."""
    return isinstance(data, str | Path) and Path(data).is_dir() and not is_parquet_folder(data)


def _problems_of_mixture(data: Data) -> list[str]:
    """Why a folder of Parquet files is none to fit on: it may as well be one of images."""
    if not (is_parquet_folder(data) and isinstance(data, str | Path)):
        return []
    if (image := next(filter(is_image, sorted(Path(data).rglob("*"))), None)) is None:
        return []
    return [
        f"{data} holds images ({image.relative_to(data)}) and Parquet files ({parquet_files(data)[0].relative_to(data)}"
        "), so that it is unclear which are the data: name a folder that holds only one kind, or the list of the "
        "images (with --paths COLUMN)"
    ]


def _prepared_images(
    data: Data,
    target: str | None,
    positive: str | None,
    config: Config | None,
    weight: str | None,
    source: ImageSource,
    found: Problems,
) -> tuple[Config | None, Prepared | None]:
    """Images are found and decoded last: nothing is fetched, or decoded for an hour, for a fit that cannot be."""
    found.check(weight is None, f"images have no column of weights, got {weight!r}")
    if config is None and not found:  # where the caller found problems, they may be why there is none
        with problems_of(found):
            config = _default_for_images(source)
    if config is not None:
        found.check(config.images is not None, "the config is one for tables, got images; it needs a part [images]")
    if config is not None and config.images is not None:
        with problems_of(found):
            trunk = None
            if not (found and config.model.options.get("pretrained")):
                trunk = build(config).trunk
            unfit = []
            if config.model.trunk not in TRUNKS:
                unfit = vision.problems_of_size(config.model.trunk, config.images.size)
            if trunk is not None and config.images.size is not None:
                unfit = unfit or problems_of_images(trunk, config.images.size)
            found.add(*unfit)
    listed = None
    if not (found and source.download):
        with problems_of(found):
            seed = config.seed if config is not None else 0
            listed = find_images(data, target=target, positive=positive, source=source, seed=seed)
    if found or listed is None or config is None or config.images is None:
        return config, None
    with problems_of(found):
        return config, prepare_images(listed, config.images)
    return config, None


def _default_for_images(source: ImageSource) -> Config:
    if source.dataset is not None:
        return recipes.for_dataset(source.dataset)
    return recipes.images("convnext_tiny", pretrained=True)


def _divided(
    prepared: Prepared, fractions: Sequence[float] | None, beta: float | None, seed: int
) -> dict[str, NDArray[np.int64]]:
    """Which samples train, choose and report; the positives of the first sub-sampled to beta."""
    rows = prepared.rows(fractions, seed)
    if beta is not None:
        rows["train"] = rows["train"][subsample(prepared.target[rows["train"]], beta, seed=seed)]
    return rows


def _taken(samples: Split, index: NDArray[np.int64]) -> Split:
    return samples.take(torch.from_numpy(index))


def _warn(message: str) -> None:
    warnings.warn(message, DoubtfulInputWarning, stacklevel=4)


def _warn_of_positives(prepared: Prepared, rows: Mapping[str, NDArray[np.int64]]) -> None:
    y, (negative, positive) = prepared.target, prepared.labels
    few = {name: int(y[index].sum()) for name, index in rows.items() if len(index)}
    few = {name: n for name, n in few.items() if n < SMALLEST_SPLIT_OF_POSITIVES}
    if few:
        listed = ", ".join(f"{name} has {n}" for name, n in few.items())
        _warn(f"so few positives make every figure a guess: {listed}; expect wide intervals")
    trained_on = y[rows["train"]]
    if 2 * trained_on.sum() > len(trained_on):
        fix = f"if the rare event is {negative!r}, say so: --positive (positive)"
        if "dataset" in prepared.facts:
            fix = "to make it the rare one, as the paper does, train on fewer of them: --beta 10 (beta)"
        _warn(
            f"the positive value {positive!r} is the more frequent one ({trained_on.sum()} of {len(trained_on)} "
            f"to train on); {fix}"
        )


def joined_by(lambdas: Lambdas, lam: Lambda) -> Lambdas:
    """With one lambda more, if it is not there."""
    there = np.logical_and.reduce(
        [np.isclose(values, lam[name], rtol=1e-9, atol=1e-12) for name, values in lambdas.items()]
    )
    if not lambdas or there.any():
        return lambdas
    return {name: np.append(values, lam[name]) for name, values in lambdas.items()}


def labelled_samples(
    run: Run, data: Data, own_split: str, apart: Sequence[str], images: ImageSource | None, columns: Sequence[str] = ()
) -> tuple[Split, str, Columns]:
    """Labelled samples, the name of the split that they are, and columns of theirs: the run's own `own_split` where the
    data are those that it was fitted on; else all samples but those that equal samples of the splits kept `apart`."""
    labelled = run.form.labelled(data, images, columns)

    def some(index: NDArray[np.int64], split: str) -> tuple[Split, str, Columns]:
        samples = _taken(labelled.samples, index)
        weight = None if samples.weight is None else samples.weight.numpy()
        if wrong := problems_of_classes(samples.target.numpy(), weight, "choosing, or assessing,"):
            raise InputError(wrong)
        return samples, split, {name: v[index] for name, v in labelled.columns.items()}

    own = labelled.fingerprint == run.data["fingerprint"]
    if not own and _order_of(labelled.samples.target.numpy()) == run.data["labels"] is not None:
        own = True
        _warn(
            f"the labels are those of the {run.form.name} that the run was fitted on, in the same order: this is taken "
            f"for a copy of it in another form (rounded, other columns), so that only its {own_split} {run.form.noun}s "
            "count"
        )
    if own:
        index = run.rows[own_split]
        if run.data.get("chosen_on_test"):
            _warn("the run follows the paper's protocol: it is chosen on the test images, and results flatter it")
        if not len(index):
            raise InputError(
                f"the run kept no {own_split} {run.form.noun}s of these; give some that it was not fitted on"
            )
        return some(index, own_split)
    return some(_not_of_run(run, labelled, apart), "given")


def _order_of(y: NDArray[np.integer]) -> str | None:
    """Of N labels in their order; None where they change so seldom that other samples may well have the same."""
    if np.count_nonzero(np.diff(y)) < FEWEST_CHANGES:
        return None
    return hashlib.sha256(y.astype("<i8").tobytes()).hexdigest()


def _not_of_run(run: Run, labelled: Labelled, splits: Sequence[str]) -> NDArray[np.int64]:
    """The rows that do not equal rows of these splits of the run's own table, or rounded copies of them, which would
    flatter it."""
    kept, told = unseen(run, labelled.hashes, splits, labelled.samples.target.numpy())
    if told:
        _warn(f"{told}; {LEFT_OUT}")
    return np.flatnonzero(kept)


def unseen(
    run: Run, hashes: NDArray[np.uint64], splits: Sequence[str], target: NDArray[np.integer] | None = None
) -> tuple[NDArray[np.bool_], str]:
    """(N,) which rows equal none of these splits, and of those that do how many and of which, in words.

    Args:
        target: (N,) classes, where rows of both must be left.
    """
    recognition = Recognition(run, splits)
    kinds, seen = recognition.kinds(hashes)
    verdict = recognition.verdict(seen)
    if verdict.doubt:
        _warn(verdict.doubt)
    kept = ~np.isin(kinds, verdict.left_out)
    if target is not None:
        recognition.check_rest(verdict, [int((target[kept] == c).sum()) for c in (0, 1)])
    return kept, verdict.told


def _extrapolates(run: Run, at: OperatingPoint) -> bool:
    return not run.config.lambdas.contains(at.lam)


RESULT = pa.schema(
    [
        ("probability", pa.float64()),
        ("log_odds", pa.float64()),
        ("prediction", pa.string()),
        ("extrapolated", pa.bool_()),
    ]
)
RESULT_SUFFIXES = (".csv", ".parquet", ".pq")


def predictions_of(run: Run, at: OperatingPoint, samples: Split, prior: float | None = None) -> pa.Table:
    """What `predict` writes of samples; see there.

    Args:
        prior: another share of positives than the point's, for `probability` and `log_odds`. Decisions are the point's.
    """
    lambdas = {name: np.array([value]) for name, value in at.lam.items()}
    scores: Scores = run.score(samples, lambdas, split="new")
    shift = 0.0 if prior is None else logit(prior) - logit(at.prior)
    alerts = at.decide(scores.log_odds[0], scores.prior)
    columns = [
        expit(at.calibrated_log_odds(scores.log_odds[0], scores.prior) + shift),
        at.log_odds(scores.log_odds[0], scores.prior) + shift,
        np.where(alerts, *reversed(run.form.labels)).astype(object),
        np.full(len(alerts), _extrapolates(run, at)),
    ]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, RESULT, strict=True)]
    return pa.Table.from_arrays(arrays, schema=RESULT)


def _beside(left: pa.Table, right: pa.Table) -> pa.Table:
    schema = pa.schema([*left.schema, *right.schema])
    return pa.Table.from_arrays([*left.columns, *right.columns], schema=schema)


PREDICTIONS = "tunelater.predictions/1"
MARKER = "_tunelater.json"
"""In a folder of predictions; readers of Parquet folders pass over files that start with an underscore."""


def _files_of_result(out: Path) -> list[str]:
    """What predicting wrote into a folder; nothing where it did not write it."""
    try:
        raw = json.loads((out / MARKER).read_text(encoding="utf-8"))
        ours = str(raw["format"]).startswith(PREDICTIONS.partition("/")[0] + "/")
        return [MARKER, *map(str, raw["files"])] if ours else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _is_result(out: Path) -> bool:
    return bool(_files_of_result(out))


class _ResultFile:
    """Predictions as one file, whatever parts they come in."""

    told: Mapping[str, Any]

    def __init__(self, write: Callable[[pa.Table], None]) -> None:
        self.write = write

    def end_of_part(self) -> None:
        pass


class _ResultFolder:
    """Predictions as a folder with a file for each part."""

    told: Mapping[str, Any]

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[str] = []
        self._open = ExitStack()
        self._write: Callable[[pa.Table], None] | None = None

    def write(self, piece: pa.Table) -> None:
        if self._write is None:
            self._files.append(f"part-{len(self._files):05}.parquet")
            self._write = self._open.enter_context(_writer(self._folder / self._files[-1], ".parquet"))
        self._write(piece)

    def end_of_part(self) -> None:
        self._open.close()
        self._write = None

    def finish(self) -> None:
        told = {"format": PREDICTIONS, **self.told, "files": self._files}
        (self._folder / MARKER).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _result(out: Path) -> Iterator[_ResultFile | _ResultFolder]:
    """Where predictions are written to; they are in their place at the end, all of them, or else none is."""
    if out.suffix:
        with replacing(out) as partial, _writer(partial, out.suffix) as write:
            yield _ResultFile(write)
        return
    with _terminated_as_interrupted(), building(out, "predictions", by="predict", resumable=False) as folder:
        result = _ResultFolder(_emptied(folder))
        try:
            yield result
        finally:
            result.end_of_part()
        result.finish()
        publish(folder, out)


def _emptied(folder: Path) -> Path:
    """Without what a killed process left there."""
    for leftover in folder.glob("part-*.parquet"):
        leftover.unlink()
    return folder


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """A file to write to that takes its place at the end, or vanishes on any failure and on SIGTERM."""
    partial = out.absolute().parent / f".{out.name}.{os.getpid()}.partial"
    for leftover in partial.parent.glob(f".{glob.escape(out.name)}.*.partial"):  # of processes that were killed
        if (pid := leftover.name.split(".")[-2]).isdigit() and not another_lives(pid):
            leftover.unlink(missing_ok=True)
    with _terminated_as_interrupted():
        try:
            yield partial
            os.replace(partial, out)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM as a KeyboardInterrupt, so that what is unfinished is cleaned up."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is None:
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _writer(path: Path, suffix: str) -> Iterator[Callable[[pa.Table], None]]:
    """Appends tables of one schema to a CSV or Parquet file."""
    writer: Any = None

    def write(piece: pa.Table) -> None:
        nonlocal writer
        if writer is None:
            make = pyarrow.csv.CSVWriter if suffix == ".csv" else pyarrow.parquet.ParquetWriter
            writer = make(str(path), piece.schema)
        writer.write_table(piece)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()
