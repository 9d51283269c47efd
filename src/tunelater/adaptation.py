"""After deployment: an operating point chosen again for the share of positives that there is now, and watched.

`adapt` estimates the share from new cases, with labels or without, tests whether that share is all that has changed,
and chooses again under the same needs, on scores of validation samples that the run keeps. The model stays. Where the
inputs themselves have drifted it chooses nothing. A guarantee is renewed, or else said to be gone. What it found, and
why it did what it did, is an `Audit`.

`watch` looks at batch after batch, and raises an alarm that is seldom false however long it goes on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from tunelater.assessment import assess, compare, same_lambda
from tunelater.calibration import Platt
from tunelater.data.forms import Data, FieldData
from tunelater.data.image_form import ImageForm, ImageSource
from tunelater.data.reading import checked_table, size_in_memory
from tunelater.data.splits import UNKNOWN, Split, TensorSplit
from tunelater.distributions import Lambdas
from tunelater.guarantee import RATES, Certificate, problems_of_division
from tunelater.intervals import Estimate, effective_size
from tunelater.losses import logit
from tunelater.metrics import Constraint
from tunelater.monitoring import Alarm, Monitor, problems_of_watching
from tunelater.needs import Need
from tunelater.points import OperatingPoint, sigmoid
from tunelater.problems import DoubtfulInputWarning, InputError, Problems
from tunelater.renewal import Renewal, Renewed, Samples, doubting, inside, why_not
from tunelater.runs import Run, environment, output_problems
from tunelater.scoring import Scores
from tunelater.shift import Reference, ShiftTest, check_label_shift
from tunelater.tuning import Infeasible, select_from
from tunelater.workflow import (
    GRID,
    doubts_of_guarantee,
    joined_by,
    labelled_samples,
    loaded_run,
    point_of_run,
    problems_of,
    problems_of_groups,
    problems_of_point_file,
    problems_of_reading,
    replacing,
    unseen,
)

AUDIT_FORMAT = "tunelater.audit/1"
WATCH_FORMAT = "tunelater.watch/1"
DRIFTED, UNMET, KEPT, CHOSEN = "drifted", "unmet", "kept", "chosen"
WITHOUT_POINT = (DRIFTED, UNMET)
TESTED = 5
"""Lambdas whose scores are tested for drift: the point's and others, evenly over the grid."""
MOST_INPUTS = 200
"""Columns of a table that are tested for drift one by one; of wider tables the scores alone are."""
COMPONENTS = 50
"""Of pooled features that are more than that many columns, the principal components that are tested."""
ENOUGH_LABELS = 5
"""Of either class among the new cases, from which on a point may be chosen on them."""
MEMORY_MB = 1024
"""Bound on a table that is read as a whole, MiB."""
REMEMBERED = 10_000
"""Batches that a watch knows again, so that its state stays small."""
SPREADSHEETS = (".csv", ".csv.gz", ".parquet", ".pq")
Read = TypeVar("Read")


# ------------------------------------------------------------------------------------------- the record


@dataclass(frozen=True)
class Audit:
    """What `adapt` found and did, for people who ask later. All of it is JSON types."""

    outcome: str
    """`drifted` or `unmet` (no point), `kept` (the old point) or `chosen` (a new one)."""
    verdict: str
    """The same in plain words, with why and what to do."""
    when: str
    """UTC, ISO 8601."""
    versions: Mapping[str, str]
    """Of the libraries."""
    model: str
    """Identity of the run's model."""
    new: Mapping[str, Any]
    """The new cases: `file`, `fingerprint`, `n`, `labelled`, `positives` and `negatives` known, `left_out`."""
    reference: Mapping[str, Any]
    """What they were compared with: `source`, `fingerprint`, `n`, `positives`, `lambdas`."""
    previous: Mapping[str, Any]
    """The point that was in use: `file`, `digest` (SHA-256 of its JSON) and `point`."""
    prior: Mapping[str, Any]
    """`before`; the `estimate` with `low`, `high` and `confidence`; `chosen_for`; and the `method`."""
    tests: Mapping[str, Any]
    """`explained` by label shift, `p`, `alpha`, whether that was `overridden`, and the `parts`."""
    needs: Mapping[str, Any]
    """What points were chosen for, `before` and `after`; where nothing meets these, what is `attainable`."""
    before: Mapping[str, Sequence[float]]
    """[value, low, high] of each metric of the previous point at the new prior, on the reference; none if drifted. The
    intervals reach over the interval of the prior."""
    after: Mapping[str, Any] | None
    """Of the point that is now in use: `digest`, `point` and `estimates`, as `before` has them; None if none is."""
    changed: Sequence[str]
    """What changed, a sentence each."""
    guarantee: Mapping[str, Any] = field(default_factory=dict)
    """The confidence of the guarantee that the point had `before`, that was `asked` for, and that the point has
    `after`, each None where there is none; `told` says in words what certified, or why nothing did."""

    def in_words(self) -> list[str]:
        """For people: what the new cases are, what was found, what changed."""
        new, tests = self.new, self.tests
        labels = "no labels"
        if new["labelled"]:
            some = "all" if new["labelled"] == new["n"] else f"{new['labelled']:,}"
            labels = f"{some} with labels ({new['positives']:,} positive, {new['negatives']:,} negative)"
        parts = ", ".join(f"{part['name']} p = {part['p']:.2g}" for part in tests["parts"])
        return [
            f"New cases: {new['n']:,}, {labels}. Compared with {self.reference['source']} ({self.reference['n']:,}, "
            f"{self.reference['positives']:,} positive).",
            f"Tests: {parts}.",
            f"{self.verdict[0].upper()}{self.verdict[1:]}.",
            *self.changed,
        ]

    @property
    def has_enough_labels(self) -> bool:
        """Whether a point may be chosen on the new cases themselves."""
        return bool(min(self.new["positives"], self.new["negatives"]) >= ENOUGH_LABELS)

    def needs_as_options(self) -> list[str]:
        """What points were chosen for, as words of the command line."""
        needs = self.needs["after"] or self.needs["before"]
        words = [w for name in ("maximize", "minimize") if name in needs for w in (f"--{name}", str(needs[name]))]
        if "cost" in needs:
            words += ["--cost", ",".join(f"{name}={value}" for name, value in needs["cost"].items() if value)]
        words += [w for constraint in needs.get("subject_to", ()) for w in ("--subject-to", constraint)]
        if "prior" in needs:
            ends = needs["prior"] if isinstance(needs["prior"], list) else [needs["prior"]]
            words += ["--prior", ":".join(f"{p:.4g}" for p in ends)]
        return words

    def to_json(self) -> str:
        """The record as JSON, readable by `from_json` and by other programs."""
        return json.dumps({"format": AUDIT_FORMAT, **dataclasses.asdict(self)}, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Audit:
        """The record of a JSON text.

        Raises:
            InputError: text that is not JSON, not an audit, or an audit that was changed.
        """
        raw = _json_of(text, "an audit", AUDIT_FORMAT)
        fields = dataclasses.fields(cls)
        problems = Problems()
        for f in fields:
            kinds: tuple[type, ...] = {"str": (str,), "Sequence[str]": (list,)}.get(str(f.type), (dict,))
            kinds += (type(None),) if "None" in str(f.type) else ()
            given = raw.setdefault(f.name, {}) if f.name == "guarantee" else raw.get(f.name, ...)
            told = "nothing" if given is ... else repr(given)
            problems.check(isinstance(given, kinds), f"{f.name!r} of an audit is a {kinds[0].__name__}, got {told}")
        problems.raise_if_any()
        outcomes = (*WITHOUT_POINT, KEPT, CHOSEN)
        problems.check(raw["outcome"] in outcomes, f"an outcome is {', '.join(outcomes)}, got {raw['outcome']!r}")
        has_point = raw["after"] is not None
        problems.check(
            has_point != (raw["outcome"] in WITHOUT_POINT),
            f"an audit has a point unless {' or '.join(WITHOUT_POINT)}, got {raw['outcome']}",
        )
        for name, told in (("previous", raw["previous"]), ("after", raw["after"])):
            if told is not None:
                with problems_of(problems):
                    OperatingPoint.from_json(json.dumps(told.get("point")))
                problems.check(isinstance(told.get("digest"), str), f"{name!r} of an audit lacks the point's digest")
        problems.raise_if_any()
        return cls(**{f.name: raw[f.name] for f in fields})

    @classmethod
    def load(cls, path: str | Path) -> Audit:
        """Read a record that `adapt` wrote.

        Raises:
            InputError: no such file, or as `from_json`.
        """
        return _read_json(Path(path), "audit", cls.from_json)


def _json_of(text: str, what: str, form: str) -> dict[str, Any]:
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{what} is JSON, which this is not: {error}") from None
    if not isinstance(raw, dict) or raw.get("format") != form:
        got = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
        raise InputError(f"{what} has format {form!r}, got {got!r}; it may be of a later version, or another file")
    return raw


def _read_json(path: Path, what: str, of: Callable[[str], Read]) -> Read:
    if not path.is_file():
        raise InputError(f"there is no {what} {path}")
    try:
        return of(path.read_text(encoding="utf-8"))
    except InputError as error:
        raise InputError(f"{path}: {problem}" for problem in error.problems) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: this is no JSON: {error}") from None


@dataclass(frozen=True)
class Adaptation:
    """What came of `adapt`."""

    audit: Audit
    point: OperatingPoint | None
    """To use from now on: a new one, or the old one where it stays. None where the inputs have drifted, or nothing
    meets the needs: `audit.outcome` says which."""
    out: Path | None = None
    """Where the point was written."""
    record: Path | None = None
    """Where the audit was written."""


# ------------------------------------------------------------------------------------------- adapt


def adapt(
    run: Run | str | Path,
    data: Data,
    *,
    at: OperatingPoint | str | Path,
    out: str | Path | None = None,
    audit: str | Path | None = None,
    reference: Data | None = None,
    even_if_drifted: bool = False,
    alpha: float = 0.05,
    grid: int | Mapping[str, int | Sequence[float]] = GRID,
    simplest: bool = True,
    guarantee: float | None = None,
    seed: int = 0,
    force: bool = False,
    memory_mb: int = MEMORY_MB,
    images: ImageSource | None = None,
    problems: Sequence[str] = (),
) -> Adaptation:
    """Choose an operating point again, for the share of positives among new cases.

    The share is `shift.estimate_prior`'s, and `shift.check_label_shift` tests whether it is all that has changed. If
    not, nothing is chosen. Otherwise the point's own needs are met again at that share: at the estimate, or, where the
    point is for a range of priors, over the estimate's interval. The old point stays where its prior lies within the
    interval and the new choice is no better than chance lets it be.

    A point with a certificate gets a new one where that can be had (`tunelater.renewal`): on the new cases where all
    have labels, otherwise on the reference. Where it cannot be had the new point has none, and the audit and a warning
    say why. A certified point stays where its prior lies within the interval.

    Args:
        run: a run, or its folder.
        data: new cases: a table, a folder of images or a list of them. Labels may be there for all, some (empty cells)
            or none (no target column). Cases that equal training or validation rows are left out, with a warning.
        at: the operating point in use, or its file.
        out: where to write the point.
        audit: where to write the record; by default beside `out`, as `NAME.audit.json`.
        reference: labelled samples to compare with and to choose on: the data that the run was fitted on, of which the
            validation samples count, or others that the model has not seen. By default the validation scores that the
            run keeps. Needs with columns, and lambdas that were not kept, take it.
        even_if_drifted: choose again all the same.
        alpha: the error of the test: how often a mere change of the share is taken for drift.
        grid: with a reference, the lambdas to try; see `LambdaSpace.grid`.
        simplest: as in `tune`.
        guarantee: the confidence at which the new point's constraints are certified; by default what the point had.
        seed: of everything random.
        force: replace an older point and audit.
        memory_mb: bound on what a table may take, MiB: it is read as a whole.
        images: how image files are read, for a run on images.
        problems: what the caller found wrong already, to be told with the rest.

    Raises:
        InputError: everything wrong with the arguments and the data; nothing is written.

    Warns:
        DoubtfulInputWarning: a guarantee that could not be renewed, or is in doubt.
    """
    found = Problems()
    found.add(*problems)
    record = _place_of_audit(out, audit)
    found.add(*_problems_of_places(out, record, data, reference, force))
    loaded = loaded_run(run, data, found)
    found.add(*problems_of_reading(loaded, images))
    point = point_of_run(at, loaded, found)
    known: _Known | None = None
    cases: _Cases | None = None
    if guarantee is not None:
        found.add(*problems_of_division(guarantee))
        of_none = point is not None and not point.needs.get("subject_to")
        found.check(
            not of_none, "a guarantee is of constraints, and the point has none: `tunelater tune` with --subject-to"
        )
    elif point is not None and point.certificate is not None:
        guarantee = Certificate.from_dict(point.certificate).confidence
    if loaded is not None:
        too_large = _problems_of_size(loaded, data, memory_mb, SAMPLE)
        if reference is not None:
            too_large += _problems_of_size(loaded, reference, memory_mb, SAMPLE)
        found.add(*too_large)
        with problems_of(found):
            cases = None if too_large else _new_cases(loaded, data, images)
        if point is not None and not too_large:
            with problems_of(found):
                known = _known(loaded, point, reference, grid, images, certifying=guarantee is not None)
    sound = isinstance(alpha, float) and 0 < alpha < 1
    found.check(sound, f"alpha is an error allowed, in (0, 1), such as 0.05; got {alpha!r}")
    found.check(
        isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**64,
        f"a seed is a whole number from 0 up (under 2^64), got {seed!r}",
    )
    found.raise_if_any()
    assert loaded is not None
    assert point is not None
    assert known is not None
    assert cases is not None
    test = _tested(loaded, point, known, cases, alpha, seed)
    made = _Adapting(loaded, point, known, cases, test, even_if_drifted, simplest, guarantee).done(_origin(at, point))
    texts = {} if record is None else {record: made.audit.to_json()}
    if out is not None and made.point is not None:
        texts[Path(out)] = _text_of(at, point) if made.audit.outcome == KEPT else made.point.to_json()
    _write_together(texts)
    placed = Path(out) if out is not None and made.point is not None else None
    return dataclasses.replace(made, out=placed, record=record)


SAMPLE = "a random sample of its rows tells the share of positives nearly as well"


def _problems_of_size(run: Run, data: Data, memory_mb: int, instead: str) -> list[str]:
    """Why a table is not read as a whole."""
    if not isinstance(data, str | Path) or run.form.name == ImageForm.name or not Path(data).exists():
        return []
    problems = Problems()
    with problems_of(problems):
        size = math.ceil(size_in_memory(checked_table(data)) / 2**20)
        problems.check(
            size <= memory_mb,
            f"{data} takes about {size:,} MiB and is read as a whole, got a bound of {memory_mb:,}: {instead}, or "
            "allow more (--memory, memory_mb)",
        )
    return list(problems)


def _place_of_audit(out: str | Path | None, audit: str | Path | None) -> Path | None:
    if audit is not None:
        return Path(audit)
    return None if out is None else Path(out).with_suffix(".audit.json")


def _problems_of_places(
    out: str | Path | None, record: Path | None, data: Data, reference: Data | None, force: bool
) -> list[str]:
    problems = Problems()
    if out is not None:
        problems.add(*problems_of_point_file(Path(out), data, force))
        if reference is not None:
            problems.add(*problems_of_point_file(Path(out), reference, force))
    if record is not None:
        own = out is None or record.resolve() != Path(out).resolve()
        problems.check(own, f"the audit is a file of its own, got {record} for the point too")
        problems.add(*_problems_of_own_json(record, AUDIT_FORMAT, "an audit", force=force))
    return list(problems)


def _problems_of_own_json(path: Path, form: str, what: str, *, force: bool) -> list[str]:
    """Why a file of ours may not be written there: only one of the same kind is replaced."""
    if problems := output_problems(path, force=True, folder=False):
        return problems
    if path.is_file():
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raw = None
        kind = form.partition("/")[0] + "/"
        if not (isinstance(raw, dict) and str(raw.get("format")).startswith(kind)):
            return [f"{path} exists and is not {what}, so it is not replaced; name another place"]
    return output_problems(path, force=force, folder=False)


def _origin(at: OperatingPoint | str | Path, point: OperatingPoint) -> dict[str, Any]:
    return {
        "file": None if isinstance(at, OperatingPoint) else str(at),
        "digest": _digest(_text_of(at, point)),
        "point": json.loads(point.to_json()),
    }


def _text_of(at: OperatingPoint | str | Path, point: OperatingPoint) -> str:
    """A point as it stands in its file, so that what is kept is the same to the byte."""
    return point.to_json() if isinstance(at, OperatingPoint) else Path(at).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _write_together(texts: Mapping[Path, str]) -> None:
    """All files or none. No system renames two files at once; if the second cannot take its place, the first gives way
    to what was there. The audit comes first, so that no new point is ever there without its record."""
    before = {path: path.read_bytes() if path.is_file() else None for path in texts}
    placed: list[Path] = []
    try:
        for path in texts:
            with replacing(path) as partial:
                partial.write_text(texts[path], encoding="utf-8")
            placed.append(path)
    except BaseException:
        for path in placed:
            old = before[path]
            if old is None:
                path.unlink(missing_ok=True)
            else:
                with replacing(path) as partial:
                    partial.write_bytes(old)
        raise


# ------------------------------------------------------------------------------------------- what there is


@dataclass(frozen=True, eq=False)
class _Cases:
    """New cases that the model has not seen."""

    data: FieldData
    told: Mapping[str, Any]

    def scores(self, run: Run, lambdas: Lambdas) -> Scores:
        scored = run.score(self.data.samples, lambdas, split="new")
        return dataclasses.replace(scored, target=self.data.target)


def _new_cases(run: Run, data: Data, images: ImageSource | None) -> _Cases:
    new = run.form.field(data, images)
    noun = run.form.noun
    if not len(new.target):
        raise InputError(f"there are no new {noun}s in {_name(data)}")
    if new.fingerprint == run.data["fingerprint"]:
        raise InputError(
            f"{_name(data)} is what the run was fitted on, from which nothing is to be learned: give new {noun}s"
        )
    kept, told = unseen(run, new.hashes, ("train", "validation"))
    if not kept.any():
        raise InputError(f"{told}: give {noun}s that the model has not seen")
    if told:
        known = f"{told}; they are left out, because the model knows them"
        warnings.warn(known, DoubtfulInputWarning, stacklevel=3)
    fingerprint = new.fingerprint
    if not kept.all():
        index = np.flatnonzero(kept)
        samples = new.samples.take(torch.from_numpy(index))
        new = FieldData(samples, new.target[index], new.hashes[index], fingerprint)
    return _Cases(
        new, {"file": _file_of(data), "fingerprint": fingerprint, "left_out": int((~kept).sum()), **_counts(new.target)}
    )


def _counts(target: NDArray[np.int8]) -> dict[str, int]:
    return {
        "n": len(target),
        "labelled": int((target != UNKNOWN).sum()),
        "positives": int((target == 1).sum()),
        "negatives": int((target == 0).sum()),
    }


def _file_of(data: Data) -> str | None:
    return None if isinstance(data, pd.DataFrame) else str(data)


def _name(data: Data) -> str:
    return "the data frame" if isinstance(data, pd.DataFrame) else str(data)


@dataclass(frozen=True, eq=False)
class _Known:
    """Labelled samples that new ones are compared with and that a point is chosen on."""

    score: Callable[[Lambdas], Scores]
    lambdas: Lambdas
    """(L,) arrays: where there are scores, or may be; the point's own is among them."""
    n: int
    told: Mapping[str, Any]
    samples: Split | None = None
    """Those that are scored, where they are at hand and not the scores alone."""
    own: Lambdas = field(default_factory=dict)
    """(L,) those that would be there whatever the point."""

    def tested(self, lam: Mapping[str, float]) -> Lambdas:
        """The lambda of the point first, and some others."""
        size = max((len(values) for values in self.lambdas.values()), default=1)
        at = next(i for i in range(size) if same_lambda({k: float(v[i]) for k, v in self.lambdas.items()}, lam))
        spread = np.unique(np.linspace(0, size - 1, TESTED).round().astype(int))
        index = [at, *[i for i in spread.tolist() if i != at][: TESTED - 1]]
        return {name: np.asarray(values)[index] for name, values in self.lambdas.items()}


def _known(
    run: Run,
    point: OperatingPoint,
    reference: Data | None,
    grid: int | Mapping[str, int | Sequence[float]],
    images: ImageSource | None,
    *,
    choosing: bool = True,
    certifying: bool = False,
) -> _Known:
    problems = Problems()
    need: Need | None = None
    if choosing and not {"maximize", "minimize", "cost"} & set(point.needs):
        problems.add(
            "the point does not say what it was chosen for, so that it cannot be chosen again: `tunelater tune`"
        )
    else:
        need = Need.read(point.needs) if choosing else None
    columns = need.columns if need is not None else ()
    if reference is None:
        problems.add(*_problems_of_saved(run, point, columns))
        problems.raise_if_any()
        assert run.validation is not None
        return _saved(run.validation, run)
    own: Lambdas = {}
    with problems_of(problems):
        own = joined_by(run.config.lambdas.grid(grid), run.config.lambdas.median)
    with problems_of(problems):
        if isinstance(reference, str | Path) and Path(reference).is_dir() and images is not None:
            images = dataclasses.replace(images, path=None, folder=None)
        apart: tuple[str, ...] = ("train", "test")
        if certifying and run.config.early_stopping is not None:
            apart = (*apart, "validation")
        samples, split, of_samples = labelled_samples(run, reference, "validation", apart, images, columns)
        if need is not None:
            weight = None if samples.weight is None else samples.weight.numpy()
            problems.add(*need.problems_with(of_samples, samples.target.numpy(), weight, "choosing"))
    problems.raise_if_any()
    y = samples.target.numpy()
    told = {"source": _name(reference), "split": split, "n": len(y), "positives": int(y.sum())}
    told |= {"fingerprint": run.data["fingerprint"] if split == "validation" else None}

    def score(part: Lambdas) -> Scores:
        return dataclasses.replace(run.score(samples, part, split=split), columns=of_samples)

    return _Known(score, joined_by(own, point.lam), len(y), told, samples, own)


def _problems_of_saved(run: Run, point: OperatingPoint, columns: Sequence[str]) -> list[str]:
    """Why the scores that a run keeps do not do."""
    what = f"give the {run.form.name} that the run was fitted on: --reference (reference)"
    if run.validation is None:
        return [f"the run keeps no validation scores to compare with; {what}"]
    problems = Problems()
    told = ", ".join(map(repr, columns))
    problems.check(
        not columns, f"the needs of the point are about columns ({told}), which the run does not keep; {what}"
    )
    saved = run.validation
    there = any(same_lambda(saved.lam(i), point.lam) for i in range(len(saved)))
    problems.check(there, f"the run keeps no validation scores at the lambda of the point, {dict(point.lam)}; {what}")
    return list(problems)


def _saved(saved: Scores, run: Run) -> _Known:
    def score(part: Lambdas) -> Scores:
        size = max((len(values) for values in part.values()), default=1)
        wanted = [{name: float(values[i]) for name, values in part.items()} for i in range(size)]
        index = [next(i for i in range(len(saved)) if same_lambda(saved.lam(i), lam)) for lam in wanted]
        some = None if saved.extrapolated is None else saved.extrapolated[index]
        return dataclasses.replace(saved, log_odds=saved.log_odds[index], lambdas=part, extrapolated=some)

    told = {"source": "the validation scores that the run keeps", "split": saved.split, "n": len(saved.target)}
    told |= {"positives": int((saved.target == 1).sum()), "fingerprint": run.data["fingerprint"]}
    return _Known(score, saved.lambdas, len(saved.target), told, own=saved.lambdas)


def _reference_of(scores: Scores, lam: Mapping[str, float]) -> Reference:
    """With Platt's calibration, unless there are too few samples for it: the link alone is nearer then."""
    weight = np.ones(len(scores.target)) if scores.weight is None else scores.weight
    of_class = [weight[scores.target == c] for c in (0, 1)]
    enough = all(w.any() and effective_size(w) >= Platt.fewest for w in of_class)
    return Reference.of(scores, lam, "platt" if enough else None)


def _tested(run: Run, point: OperatingPoint, known: _Known, cases: _Cases, alpha: float, seed: int) -> ShiftTest:
    lambdas = known.tested(point.lam)
    reference = _reference_of(known.score(lambdas), point.lam)
    features = None if known.samples is None else _features(run, point, known.samples, cases.data.samples)
    return check_label_shift(
        reference, cases.scores(run, lambdas), features=features, before=float(point.prior), alpha=alpha, seed=seed
    )


def _features(
    run: Run, point: OperatingPoint, known: Split, new: Split
) -> tuple[NDArray[np.floating], NDArray[np.floating]] | None:
    """What a drift of the inputs is looked for in, besides scores: the columns of a table that is not too wide, and of
    images the pooled features."""
    if isinstance(known, TensorSplit) and isinstance(new, TensorSplit):
        return (known.x.numpy(), new.x.numpy()) if known.x.shape[1] <= MOST_INPUTS else None
    both = [run.features(samples, point.lam).astype(np.float64) for samples in (known, new)]
    return (both[0], both[1]) if both[0].shape[1] <= MOST_INPUTS else principal(both[0], both[1])


def principal(known: NDArray[np.float64], new: NDArray[np.float64], n: int = COMPONENTS) -> tuple[Any, Any]:
    """The first n principal components of both together, so that neither is the one that they fit: (N, n) and (M, n).

    Args:
        known, new: (N, C) and (M, C).
    """
    centre = np.concatenate([known, new]).mean(axis=0)
    known, new = known - centre, new - centre
    _, axes = np.linalg.eigh(known.T @ known + new.T @ new)
    return known @ axes[:, ::-1][:, :n], new @ axes[:, ::-1][:, :n]


# ------------------------------------------------------------------------------------------- what to do about it


@dataclass(frozen=True, eq=False)
class _Adapting:
    """One adaptation, with all that it is decided on."""

    run: Run
    old: OperatingPoint
    known: _Known
    cases: _Cases
    test: ShiftTest
    even_if_drifted: bool
    simplest: bool
    confidence: float | None
    """Of a guarantee."""

    def done(self, previous: Mapping[str, Any]) -> Adaptation:
        if not self.test.explained and not self.even_if_drifted:
            return self._told(previous, DRIFTED, self.test.verdict, None, {}, {})
        need = Need.read(self.old.needs)
        prior = self._prior(need)
        why = self._stays(need)
        if why is not None:
            mine = self._estimates(self.old)
            return self._told(previous, KEPT, f"the point stays: {why}", self.old, mine, mine)
        certified, told = self._certified(prior)
        try:
            new = self._chosen(prior) if certified is None else certified.point
        except Infeasible as error:
            verdict = f"{self._because}, at which nothing meets the needs of the point: {error.problems[0]}"
            moved = _at_prior(self.old, self.test.prior.adopted)
            before = self._estimates(moved)
            return self._told(previous, UNMET, verdict, None, before, {}, attainable=error.problems, wanted=prior)
        moved = _moved(self.old, new)
        before, after = self._estimates(moved), self._estimates(new)
        why_not = None if self.confidence is not None else self._no_better(need, moved, new, before, after)
        if why_not is not None:
            return self._told(previous, KEPT, f"the point stays: {why_not}", self.old, before, before)
        if self.confidence is not None and certified is None:
            warnings.warn(f"the new point has no guarantee; {told}", DoubtfulInputWarning, stacklevel=3)
        verdict = f"{self._because}, and a new point was chosen under the same needs"
        if _decide_alike(moved, new):
            verdict = f"{self._because}, and under the same needs the same decisions remain the best at that share"
        return self._told(previous, CHOSEN, verdict, new, before, after, guarantee=told)

    def _stays(self, need: Need) -> str | None:
        """Why the old point stays, whatever a new one would be; None where it may not."""
        if self._covered(need):
            low, high = need.prior  # type: ignore[misc]
            return f"it was chosen for every prior from {low:.3g} to {high:.3g}, and the share of positives is within"
        if self._had is None or self._had.confidence != self.confidence or isinstance(need.prior, tuple):
            return None
        # What certified has no say in whether another point takes its place.
        estimate = self._renewal.estimate_without_certifying()
        if estimate.excludes(self.old.prior):
            return None
        return (
            f"it is certified, and its prior {self.old.prior:.3g} lies within the interval of the share of positives, "
            f"{estimate}"
        )

    @property
    def _had(self) -> Certificate | None:
        return None if self.old.certificate is None else Certificate.from_dict(self.old.certificate)

    @cached_property
    def _renewal(self) -> Renewal:
        def of_new(lambdas: Lambdas) -> Scores:
            return self.cases.scores(self.run, lambdas)

        assert self.confidence is not None
        return Renewal(
            Samples(self.known.score, self.known.own, self.known.n),
            Samples(of_new, self.known.own, len(self.cases.data.target)),
            self.old.needs,
            self.confidence,
            self.run.config.lambdas.median,
            float(self.old.prior),
            lambda scores: _reference_of(scores, scores.lam(0)),
        )

    def _certified(self, prior: float | tuple[float, float]) -> tuple[Renewed | None, str]:
        """A certified point, if a guarantee is wanted and can be had; and what certified it, or why nothing did."""
        if self.confidence is None:
            return None, "none was asked for"
        split = str(self.known.told["split"])
        try:
            if not self.test.explained:
                raise InputError("nothing can be guaranteed after a drift of the inputs")
            done = self._renewal.renewed(prior)
            if not done.on_new and (wrong := problems_of_groups(self.run, split)):
                raise InputError(wrong)
        except InputError as error:
            told = f"none at {self.confidence:.4g} could be had: {why_not(error)}"
            if self._had is not None and not any(RATES[c.metric].needs_prior for c in self._had.constraints):
                told += ". The point before keeps its own, which is for any share of positives"
            return None, told
        doubts = doubts_of_guarantee(self.run, "given" if done.on_new else split)
        for doubt in doubts:
            warnings.warn(doubt, DoubtfulInputWarning, stacklevel=4)
        point = doubting(done.point, doubts)
        by = "new cases" if done.on_new else str(self.known.told["source"])
        return Renewed(point, done.on_new), f"by {by}. {Certificate.from_dict(point.certificate or {})}"

    @property
    def _because(self) -> str:
        if self.test.explained:
            return self.test.verdict
        return f"the inputs have drifted (p = {self.test.p:.2g}), which was overridden: what follows may be wrong"

    @property
    def _interval(self) -> tuple[float, float]:
        return inside(self.test.prior)

    def _prior(self, need: Need) -> float | tuple[float, float]:
        """What to choose for: the estimate, or the interval of it where the need is for a range."""
        low, high = self._interval
        return (low, high) if isinstance(need.prior, tuple) and low < high else self.test.prior.adopted

    def _covered(self, need: Need) -> bool:
        low, high = self._interval
        return isinstance(need.prior, tuple) and need.prior[0] <= low and high <= need.prior[1]

    def _chosen(self, prior: float | tuple[float, float]) -> OperatingPoint:
        words = {name: self.old.needs[name] for name in ("maximize", "minimize", "cost") if name in self.old.needs}
        return select_from(
            self.known.score,
            self.known.lambdas,
            self.known.n,
            prior=prior,
            default=self.run.config.lambdas.median,
            simplest=self.simplest,
            subject_to=self.old.needs.get("subject_to", ()),
            **words,
        )

    def _estimates(self, point: OperatingPoint) -> dict[str, Estimate]:
        """What a point achieves on the reference at the new prior; over the interval of it, unless a range is meant."""
        scores = self.known.score({name: np.array([value]) for name, value in point.lam.items()})
        if isinstance(point.needs.get("prior"), list):
            return assess(point, scores)
        at = [
            assess(dataclasses.replace(point, needs={**point.needs, "prior": prior}), scores)
            for prior in (self.test.prior.adopted, *self._interval)
        ]
        return {
            name: Estimate(middle.value, min(e[name].low for e in at), max(e[name].high for e in at))
            for name, middle in at[0].items()
        }

    def _no_better(
        self,
        need: Need,
        moved: OperatingPoint,
        new: OperatingPoint,
        before: Mapping[str, Estimate],
        after: Mapping[str, Estimate],
    ) -> str | None:
        """Why the old point stays; None where it does not."""
        if isinstance(need.prior, tuple) or self.test.prior.excludes(self.old.prior):
            return None
        if any(not _may_hold(c, before) for c in need.constraints):
            return None
        name = need.objective.name
        scores = [self.known.score({k: np.array([v]) for k, v in p.lam.items()}) for p in (new, moved)]
        try:
            difference = compare((new, scores[0]), (moved, scores[1]), name)
            within = difference.low <= 0 <= difference.high
        except InputError:  # a metric that is not compared in pairs
            within = name not in after or before[name].low <= after[name].value <= before[name].high
        if not within:
            return None
        return (
            f"its prior {self.old.prior:.3g} lies within the interval of the share of positives, {self.test.prior}, "
            f"and a new choice is no better in {name} than chance lets it be"
        )

    def _told(
        self,
        previous: Mapping[str, Any],
        outcome: str,
        verdict: str,
        point: OperatingPoint | None,
        before: Mapping[str, Estimate],
        after: Mapping[str, Estimate],
        *,
        guarantee: str | None = None,
        attainable: Sequence[str] = (),
        wanted: float | tuple[float, float] | None = None,
    ) -> Adaptation:
        if not self.test.explained and outcome == KEPT:
            verdict = f"{self._because}; {verdict}"
        now = None
        if point is not None:
            digest = previous["digest"] if outcome == KEPT else _digest(point.to_json())
            now = {"digest": digest, "point": json.loads(point.to_json()), "estimates": _plain(after)}
        estimate = self.test.prior
        needs: dict[str, Any] = {"before": dict(self.old.needs), "after": None if point is None else dict(point.needs)}
        if outcome == UNMET:
            needs |= {"after": {**self.old.needs, "prior": wanted}, "attainable": list(attainable)}
        audit = Audit(
            outcome=outcome,
            verdict=verdict,
            when=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=environment()["libraries"],
            model=self.run.id,
            new=self.cases.told,
            reference={**self.known.told, "lambdas": max(map(len, self.known.lambdas.values()), default=1)},
            previous=previous,
            prior={
                "before": self.old.needs.get("prior", self.old.prior),
                "estimate": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "confidence": estimate.confidence,
                "chosen_for": None if point is None else needs["after"].get("prior", self.old.prior),
                "method": METHOD,
            },
            tests={
                "explained": self.test.explained,
                "p": self.test.p,
                "alpha": self.test.alpha,
                "overridden": not self.test.explained and outcome != DRIFTED,
                "parts": [part._asdict() for part in self.test.parts],
            },
            needs=needs,
            before=_plain(before),
            after=now,
            changed=self._changes(outcome, point, before, after, attainable, guarantee),
            guarantee={
                "before": None if self._had is None else self._had.confidence,
                "asked": self.confidence,
                "after": None if point is None or point.certificate is None else point.certificate["confidence"],
                "told": guarantee,
            },
        )
        # As it will be read again: lists instead of tuples.
        return Adaptation(Audit.from_json(audit.to_json()), point)

    def _changes(
        self,
        outcome: str,
        point: OperatingPoint | None,
        before: Mapping[str, Estimate],
        after: Mapping[str, Estimate],
        attainable: Sequence[str],
        guarantee: str | None,
    ) -> list[str]:
        estimate = self.test.prior
        at = f"{estimate.confidence:.0%} interval {estimate.low:.3g} to {estimate.high:.3g}"
        if outcome == DRIFTED:
            return [
                f"share of positives: {self.old.prior:.3g} when the point was chosen; the estimate now, "
                f"{estimate.value:.3g}, means nothing where the inputs have drifted",
                "operating point: none chosen",
            ]
        lines = [f"share of positives: {self.old.prior:.3g} when the point was chosen, {estimate.value:.3g} now ({at})"]
        if point is None:
            return [*lines, *attainable, "operating point: none chosen"]
        if outcome == KEPT:
            lines.append("operating point: unchanged")
            if self._had is not None:
                lines.append(f"guarantee: as it was. {self._had}")
            return lines
        same = same_lambda(self.old.lam, point.lam)
        lines.append(
            f"lambda: {_told_lam(self.old)}, unchanged"
            if same
            else f"lambda: {_told_lam(self.old)} before, {_told_lam(point)} now"
        )
        moved = _moved(self.old, point)
        if _decide_alike(moved, point):
            lines.append(
                f"threshold: the same decisions; probabilities, and the threshold, are now for prior {point.prior:.3g}"
            )
        else:
            lines.append(
                f"threshold: probability {moved.threshold:.4g} before, {point.threshold:.4g} now, both at prior "
                f"{point.prior:.3g}"
            )
        need = Need.read(point.needs)
        told = dict.fromkeys([need.objective.name, *(c.metric.name for c in need.constraints), "alert_rate"])
        lines += [
            f"{name} at the new share: {before[name].value:.4g} before, {after[name].value:.4g} now"
            for name in told
            if name in before and name in after
        ]
        if self.confidence is not None:
            lines.append(f"guarantee: {guarantee}")
        return lines


METHOD = (
    "maximum likelihood of Saerens et al. (2002), with the interval of tunelater.shift.estimate_prior; points are "
    "chosen for the median of what it may be, given what it was before"
)


def _plain(estimates: Mapping[str, Estimate]) -> dict[str, list[float]]:
    return {name: list(map(float, e)) for name, e in estimates.items()}


def _told_lam(point: OperatingPoint) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in point.lam.items()) or "none"


def _moved(old: OperatingPoint, new: OperatingPoint) -> OperatingPoint:
    """The old point as it decides, told for the prior and the needs of the new one."""
    return dataclasses.replace(_at_prior(old, new.prior), needs=new.needs)


def _at_prior(point: OperatingPoint, prior: float) -> OperatingPoint:
    """The same decisions, told for another prior."""
    log_odds = point.log_odds_threshold + logit(prior) - logit(point.prior)
    return dataclasses.replace(point, prior=prior, log_odds_threshold=log_odds, threshold=sigmoid(log_odds))


def _decide_alike(a: OperatingPoint, b: OperatingPoint) -> bool:
    """Whether two points for one prior alert on the same cases."""
    return same_lambda(a.lam, b.lam) and math.isclose(a.log_odds_threshold, b.log_odds_threshold, abs_tol=1e-9)


def _may_hold(c: Constraint, estimates: Mapping[str, Estimate]) -> bool:
    """Whether the intervals of a constraint's metric, of every subgroup, allow that it holds."""
    name = c.metric.name
    of = [e for told, e in estimates.items() if told == name or told.startswith(f"{name}[")]
    return all(e.high >= c.bound if c.relation == ">=" else e.low <= c.bound for e in of)


# ------------------------------------------------------------------------------------------- watch


@dataclass(frozen=True)
class BatchReport:
    """What `watch` saw in a batch."""

    name: str
    n: int = 0
    labelled: int = 0
    alerts: int = 0
    evidence: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Of each thing watched the logarithm of its e-value, and from where on it is an alarm."""
    alarms: tuple[Alarm, ...] = ()
    """Raised by this batch."""
    standing: int = 0
    """Alarms of this and earlier batches."""
    known: bool = False
    """Whether it was counted before, and left out."""

    @property
    def in_words(self) -> str:
        """One line."""
        if self.known:
            return f"{self.name}: counted before, left out"
        told = [f"{name}: e-value {_told_e(e)} of {math.exp(bound):.3g}" for name, (e, bound) in self.evidence.items()]
        status = "ALARM" if self.alarms else "alarm stands" if self.standing else "no alarm"
        counts = f"n {self.n:,}, labelled {self.labelled:,}, alerts {self.alerts:,}"
        return f"{self.name}: {counts}; {'; '.join(told)}; {status}"


def _told_e(log_e: float) -> str:
    return f"{math.exp(log_e):.3g}" if log_e < 30 else f"10^{log_e / math.log(10):.0f}"


@dataclass(frozen=True)
class Watching:
    """What came of `watch`: the batches given, and the monitor as it stands."""

    batches: tuple[BatchReport, ...]
    monitor: Monitor

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """All that stand, of these batches and of earlier ones."""
        return tuple(self.monitor.alarms)


def watch(
    run: Run | str | Path,
    batches: Data | Sequence[Data],
    *,
    at: OperatingPoint | str | Path,
    state: str | Path,
    limits: str | Sequence[str] = (),
    alarm_rate: float = 0.01,
    prior: float | tuple[float, float] | None = None,
    reference: Data | None = None,
    drift: bool = True,
    seen: bool = False,
    memory_mb: int = MEMORY_MB,
    images: ImageSource | None = None,
    on_batch: Callable[[BatchReport], None] | None = None,
    problems: Sequence[str] = (),
) -> Watching:
    """Watch an operating point on batches of new cases; see `tunelater.monitoring`.

    The state is written after each batch, whole or not at all, so that a watch that was stopped goes on where it was. A
    batch that was counted already is left out (of the last 10,000). Memory is that of a batch.

    Args:
        run: a run, or its folder.
        batches: tables, or folders of tables, which are taken in the order of their names; for a run on images, folders
            or lists of images. Labels may be there for all, some or none.
        at: the operating point in use, or its file.
        state: the file that remembers. Where there is none, a watch begins.
        limits: such as `recall>=0.85` or `precision>=0.3`, watched on labelled cases.
        alarm_rate: the chance that there is ever a false alarm, however long the watch.
        prior: the share of positives, or the range of it, that is no drift; the point's by default.
        reference: as in `adapt`, for drift of the scores.
        drift: whether the scores are watched; False watches the limits alone.
        seen: the cases of these batches were in earlier ones, without labels: only their labels are new.
        memory_mb: bound on what a batch may take, MiB: it is read as a whole.
        images: how image files are read, for a run on images.
        on_batch: called after each batch.
        problems: what the caller found wrong already, to be told with the rest.

    Raises:
        InputError: everything wrong with the arguments, before the first batch; or a batch that cannot be read, of
            which nothing is counted, while those before it are.
    """
    found = Problems()
    found.add(*problems)
    listed = [batches] if isinstance(batches, str | Path | pd.DataFrame) else list(batches)
    found.check(bool(listed), "there is nothing to watch: give one or more batches")
    found.add(*_problems_of_own_json(Path(state), WATCH_FORMAT, "the state of a watch", force=True))
    for batch in listed:
        if isinstance(batch, str | Path) and Path(batch).resolve() == Path(state).resolve():
            found.add(f"{state} is the state, which is no batch")
    loaded = loaded_run(run, listed[0] if listed and not _is_folder(listed[0]) else "", found) if listed else None
    found.add(*problems_of_reading(loaded, images))
    point = point_of_run(at, loaded, found)
    if loaded is not None:
        listed = list(_opened(loaded, listed, images, memory_mb, found))
    monitor: Monitor | None = None
    if loaded is None or point is None:
        found.add(*problems_of_watching([limits] if isinstance(limits, str) else limits, prior, alarm_rate, point))
    else:
        with problems_of(found):
            compared = None
            if drift:
                if reference is not None and (wrong := _problems_of_size(loaded, reference, memory_mb, SAMPLE)):
                    raise InputError(wrong)
                known = _known(loaded, point, reference, GRID, images, choosing=False)
                lam = {name: np.array([value]) for name, value in point.lam.items()}
                compared = _reference_of(known.score(lam), point.lam)
            monitor = Monitor.of(point, compared, limits=limits, prior=prior, alpha=alarm_rate)
    seen_before: list[str] = []
    settings: dict[str, Any] = {}
    if monitor is not None and point is not None and loaded is not None:
        settings = {
            "model": loaded.id,
            "point": _digest(point.to_json()),
            "prior": list(monitor.prior),
            "alarm_rate": monitor.alpha,
            "watched": sorted(watched.name for watched in monitor.watches),
        }
        if Path(state).is_file():
            with problems_of(found):
                monitor, seen_before = _state_of(Path(state), settings)
    found.raise_if_any()
    assert loaded is not None
    assert point is not None
    assert monitor is not None
    reports = []
    for batch in listed:
        report = _counted(loaded, point, monitor, batch, images, seen, seen_before)
        if not report.known:
            _save_state(Path(state), settings, monitor, seen_before)
        reports.append(report)
        if on_batch is not None:
            on_batch(report)
    return Watching(tuple(reports), monitor)


def _is_folder(batch: Data) -> bool:
    return isinstance(batch, str | Path) and Path(batch).is_dir()


def _opened(
    run: Run, batches: Sequence[Data], images: ImageSource | None, memory_mb: int, found: Problems
) -> Iterator[Data]:
    """The batches one by one, folders of tables opened, each checked by its beginning."""
    for batch in batches:
        parts: list[Data] = [batch]
        if not isinstance(batch, str | Path | pd.DataFrame):
            found.add(f"a batch is a file, a folder or a data frame, got {type(batch).__name__}")
            continue
        if _is_folder(batch) and run.form.name != ImageForm.name:
            assert isinstance(batch, str | Path)
            names = sorted(p for p in Path(batch).iterdir() if p.is_file() and p.name.endswith(SPREADSHEETS))
            parts = [p for p in names if not p.name.startswith(".")]
            found.check(bool(parts), f"{batch}: there is no table in this folder ({', '.join(SPREADSHEETS)})")
        for part in parts:
            if isinstance(part, str | Path) and not Path(part).exists():
                found.add(f"{part}: there is no such file or folder")
            elif isinstance(part, str | Path) and not _is_folder(part):
                with problems_of(found):
                    run.form.stream(part, (), False, images)
                found.add(*_problems_of_size(run, part, memory_mb, "divide it into smaller batches"))
            yield part


def _counted(
    run: Run,
    point: OperatingPoint,
    monitor: Monitor,
    batch: Data,
    images: ImageSource | None,
    seen: bool,
    seen_before: list[str],
) -> BatchReport:
    """A batch that goes into the monitor, unless it is known."""
    name = _name(batch)
    try:
        whole_file = isinstance(batch, str | Path) and Path(batch).is_file() and run.form.name != ImageForm.name
        digest = _digest_of_file(Path(batch)) if whole_file else ""  # type: ignore[arg-type]
        if digest in seen_before:
            return BatchReport(name, known=True)
        new = run.form.field(batch, images)
        digest = digest or new.fingerprint
        if digest in seen_before:
            return BatchReport(name, known=True)
        scored = run.score(new.samples, {k: np.array([v]) for k, v in point.lam.items()}, split="new")
        scores = dataclasses.replace(scored, target=new.target, weight=None)
        alarms = monitor.update(scores, seen=seen)
    except InputError as error:
        told = f"batch {name}: {{}}; it is not counted, and those before it are"
        raise InputError(told.format(problem) for problem in error.problems) from None
    seen_before.append(digest)
    del seen_before[:-REMEMBERED]
    alerts = int(point.decide(scores.log_odds[0], scores.prior).sum())
    evidence = {w.name: (w.log_e(monitor.batches), -math.log(w.alpha)) for w in monitor.watches}
    labelled = int((new.target != UNKNOWN).sum())
    return BatchReport(name, len(new.target), labelled, alerts, evidence, alarms, len(monitor.alarms))


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _save_state(path: Path, settings: Mapping[str, Any], monitor: Monitor, seen: Sequence[str]) -> None:
    raw = {
        "format": WATCH_FORMAT,
        "settings": settings,
        "monitor": json.loads(monitor.to_json()),
        "counted": list(seen),
    }
    with replacing(path) as partial:
        partial.write_text(json.dumps(raw, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _state_of(path: Path, settings: Mapping[str, Any]) -> tuple[Monitor, list[str]]:
    """What a state remembers, if it is of a watch with these settings."""

    def read(text: str) -> tuple[Monitor, list[str]]:
        raw = _json_of(text, "the state of a watch", WATCH_FORMAT)
        counted, theirs = raw.get("counted"), raw.get("settings")
        if not (isinstance(counted, list) and all(isinstance(v, str) for v in counted) and isinstance(theirs, dict)):
            raise InputError("the state of a watch was changed or cut off; begin a new one")
        monitor = Monitor.from_json(json.dumps(raw.get("monitor")))
        problems = Problems()
        for name, value in settings.items():
            told = f"the watch began with {name} {theirs.get(name)!r}, and is now asked for {value!r}"
            problems.check(theirs.get(name) == value, f"{told}: ask for the same, or begin another: --state (state)")
        problems.raise_if_any()
        return monitor, counted

    return _read_json(path, "state", read)
