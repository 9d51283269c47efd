"""What an operating point is needed for, in one vocabulary for Python and the command line.

* what is best: a metric to maximize or minimize (any of `tunelater.metrics`, for instance `precision`, `f2`, `brier` or
  `net_benefit@0.1`), or a `Cost`: numbers, or columns with what each sample's outcome costs.
* constraints: `recall>=0.95`, `fpr<=0.01`, at most so many alerts among so many cases (`alerts<=20/1000`), and any of
  these within each value of a column: `recall>=0.9 in every sex`.
* the prior where the point will be used: a number, or a range of which the worst counts.

`Need.in_words` is a need in JSON types; an operating point carries it, and `Need.read` reads it again.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelater.metrics import Constraint, Curve, Floats, Metric, ThresholdMetric, metric, threshold_metric
from tunelater.problems import InputError, Problems, did_you_mean

Columns = Mapping[str, NDArray[Any]]
"""(N,) values of samples by name: numbers, or text."""
Prior = float | tuple[float, float] | None
"""The share of positives where a point is used, a range of it, or None for the samples' own."""
MOST_VALUES = 100
"""Of a column in every value of which a constraint holds: more are no subgroups, but a number or a name."""
MISSING = "(missing)"
"""The text of a column where it has no value: such samples are in no subgroup."""
_OF_POSITIVES = frozenset({"recall", "precision", "balanced_accuracy", "gmean", "mcc"})
_OF_NEGATIVES = frozenset({"specificity", "fpr", "npv", "balanced_accuracy", "gmean", "mcc"})


@dataclass(frozen=True)
class Cost:
    """What each outcome of a decision costs, in any one unit; the expected cost is per case.

    Each is a number, or the name of a column that has it for each sample (the amount of a transaction).

    Raises:
        InputError: a cost that is negative or not finite, or errors that cost no more than being right.
    """

    fn: float | str = 0.0
    """A miss: a positive that is not alerted on."""
    fp: float | str = 0.0
    """A false alarm."""
    tp: float | str = 0.0
    tn: float | str = 0.0

    def __post_init__(self) -> None:
        problems = Problems()
        for name, value in dataclasses.asdict(self).items():
            sound = isinstance(value, str) or 0 <= value < math.inf
            problems.check(sound, f"cost {name} must be 0 or more and finite, got {value}; correct it")
        fn, fp, tp, tn = self.fn, self.fp, self.tp, self.tn
        if not (isinstance(fn, str) or isinstance(fp, str) or isinstance(tp, str) or isinstance(tn, str)):
            problems.check((fn > tp and fp >= tn) or (fn >= tp and fp > tn), f"{_ERRORS_COST_MORE}, got {self}")
        problems.raise_if_any()

    @classmethod
    def parse(cls, costs: Cost | Mapping[str, float | str]) -> Cost:
        """From `{"fn": 50, "fp": 1}`, or `{"fn": "amount", "fp": 5}` with a column."""
        if isinstance(costs, Cost):
            return costs
        known = [f.name for f in dataclasses.fields(cls)]
        if not isinstance(costs, Mapping) or costs.keys() - set(known):
            got = ", ".join(sorted(map(str, costs.keys() - set(known)))) if isinstance(costs, Mapping) else repr(costs)
            raise InputError(f"costs are given for {', '.join(known)}; got {got}")
        try:
            return cls(**{name: _number_or_column(value) for name, value in costs.items()})
        except (TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"costs are numbers, or names of columns that have them, got {dict(costs)}") from None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that costs of samples come from; none where all costs are numbers."""
        return tuple(dict.fromkeys(v for v in dataclasses.astuple(self) if isinstance(v, str)))

    def values(self, c: Curve) -> Floats:
        """The expected cost of a case at each threshold, of costs that are numbers."""
        fn, fp, tp, tn = (float(v) for v in dataclasses.astuple(self))
        return (fn * c.fn + fp * c.fp + tp * c.tp + tn * c.tn) / (c.positives + c.negatives)

    def metric(self) -> ThresholdMetric:
        return ThresholdMetric("cost", self.values, higher_is_better=False)

    def of_samples(self, columns: Columns, target: NDArray) -> SampleCosts:
        """What each sample costs, from columns that `Need.problems_with` found sound."""
        fn, fp, tp, tn = (
            np.asarray(columns[v], np.float64) if isinstance(v, str) else np.full(len(target), float(v))
            for v in dataclasses.astuple(self)
        )
        positive = target == 1
        return SampleCosts(alerted=np.where(positive, tp, fp), passed=np.where(positive, fn, tn))


_ERRORS_COST_MORE = "errors must cost more than being right (fn over tp, or fp over tn)"


@dataclass(frozen=True)
class SampleCosts:
    """(N,) what each sample costs where it is alerted on, and where it is not."""

    alerted: Floats
    passed: Floats

    def of(self, alerts: NDArray[np.bool_]) -> Floats:
        """(..., N) the cost of each sample under decisions (..., N)."""
        return np.where(alerts, self.alerted, self.passed)


def _number_or_column(value: object) -> float | str:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return float(value)  # type: ignore[arg-type]


def parse_constraint(text: object) -> Constraint:
    """Read a constraint: `metric>=value`, `metric<=value`, `alerts<=20/1000`, each with or without `in every COLUMN`.

    `alerts<=20/1000` is `alert_rate<=0.02`: at most 20 alerts among 1,000 cases.

    Raises:
        InputError: another form, an unknown metric, a bound out of range.
    """
    if not isinstance(text, str):
        return Constraint.parse(text)  # type: ignore[arg-type]
    rule, within, column = text.partition(" in every ")
    if within and not column.strip():
        raise InputError(f"'in every' is followed by the name of a column, got {text!r}")
    alerts = re.fullmatch(r"\s*alerts\s*(>=|<=)\s*([\d.]+)\s*(?:/|per)\s*([\d,]+)\s*", rule)
    if alerts:
        try:
            k, n = float(alerts[2]), float(alerts[3].replace(",", ""))
        except ValueError:
            k, n = math.nan, 1.0
        if not 0 <= k <= n or n == 0:
            raise InputError(f"alerts are counted like 'alerts<=20/1000', at most all of the cases, got {text!r}")
        rule = f"alert_rate{alerts[1]}{k / n!r}"
    elif re.match(r"\s*alerts\b", rule):
        raise InputError(f"alerts are counted per number of cases, such as 'alerts<=20/1000', got {text!r}")
    constraint = Constraint.parse(rule)
    return dataclasses.replace(constraint, every=column.strip()) if within else constraint


@dataclass(frozen=True)
class Need:
    """What a point is chosen for. `Need.of` makes one of what a user says."""

    objective: ThresholdMetric | Metric
    """What is best; for a `cost` with columns, what it is called and that less is better."""
    constraints: tuple[Constraint, ...]
    cost: Cost | None
    prior: Prior
    in_words: Mapping[str, Any]
    """The same in JSON types: `maximize` or `minimize` or `cost`, `subject_to`, and `prior` where one was stated."""

    @classmethod
    def of(
        cls,
        *,
        maximize: str | None = None,
        minimize: str | None = None,
        cost: Cost | Mapping[str, float | str] | None = None,
        subject_to: str | Sequence[str] = (),
        prior: float | Sequence[float] | None = None,
        found: Iterable[str] = (),
    ) -> Need:
        """From what `OperatingGrid.select` takes; everything wrong with it, and what was found already, at once.

        Raises:
            InputError: no objective or several, unknown metrics, constraints that do not read, a prior out of range.
        """
        problems = Problems()
        told: dict[str, Any] = {"maximize": maximize, "minimize": minimize, "cost": cost}
        given = [name for name, value in told.items() if value is not None]
        problems.check(len(given) == 1, f"say one of maximize, minimize and cost, got {' and '.join(given) or 'none'}")
        objective: ThresholdMetric | Metric | None = None
        costs: Cost | None = None
        constraints = []
        for way in given:
            try:
                if way == "cost":
                    assert cost is not None
                    costs = Cost.parse(cost)
                    told["cost"] = dataclasses.asdict(costs)
                    objective = costs.metric()
                else:
                    objective = objective_called(told[way])
                    wanted = "maximize" if objective.higher_is_better else "minimize"
                    problems.check(wanted == way, f"{objective.name} is something to {wanted}")
            except InputError as error:
                problems.add(*error.problems)
        if not isinstance(subject_to, str | Sequence):
            problems.add(f"constraints are a list such as ['recall>=0.9'], got {type(subject_to).__name__}")
            subject_to = ()
        for text in [subject_to] if isinstance(subject_to, str) else subject_to:
            try:
                constraints.append(parse_constraint(text))
            except InputError as error:
                problems.add(*error.problems)
        wrong = problems_of_prior(prior)
        problems.add(*wrong, *found)
        problems.raise_if_any()
        assert objective is not None
        told["subject_to"] = [str(c) for c in constraints]
        in_words = {name: value for name, value in told.items() if value}
        at: Prior = None
        if prior is not None:
            at = (float(prior[0]), float(prior[1])) if isinstance(prior, Sequence) else float(prior)
            in_words["prior"] = list(at) if isinstance(at, tuple) else at
        return cls(objective, tuple(constraints), costs, at, in_words)

    @classmethod
    def read(cls, in_words: Mapping[str, Any]) -> Need:
        """From `in_words`, as a point carries them. A point that was made by hand may tell no objective; recall stands
        in for it.

        Raises:
            InputError: words that are no need.
        """
        told = {name: in_words[name] for name in ("maximize", "minimize", "cost") if name in in_words}
        rest = {name: in_words[name] for name in ("subject_to", "prior") if name in in_words}
        return cls.of(**(told or {"maximize": "recall"}), **rest)

    @staticmethod
    def columns_named(cost: object, subject_to: object) -> tuple[str, ...]:
        """The columns that arguments of `of` name, as far as they read: all that is wrong is told by `of`."""
        names: list[str] = []
        if isinstance(cost, Cost | Mapping):
            values = dataclasses.astuple(cost) if isinstance(cost, Cost) else cost.values()
            numbers_or_columns = (_number_or_column(value) for value in values if isinstance(value, str))
            names += [value for value in numbers_or_columns if isinstance(value, str)]
        texts = [subject_to] if isinstance(subject_to, str) else subject_to
        for text in texts if isinstance(texts, Sequence) else ():
            column = text.partition(" in every ")[2].strip() if isinstance(text, str) else ""
            names += [column] if column else []
        return tuple(dict.fromkeys(names))

    @property
    def priors(self) -> tuple[float, ...]:
        """The priors at which constraints hold and of which the worst counts; none where none was stated.

        For a range, its two ends: at a fixed threshold, with recall R and false positive rate F, accuracy, cost, net
        benefit and the alert rate are linear in the prior p; precision, negative predictive value and F-scores are
        ratios of linear functions, which only rise or only fall; recall and specificity do not depend on it. Brier
        score and log-loss of given probabilities are linear, and average precision is a mean of precisions. Only the
        correlation coefficient, sqrt(p (1 - p)) (R - F) / sqrt(a (1 - a)) with a = p R + (1 - p) F, can be lowest
        inside (where F > R), so that priors between are looked at too.
        """
        if not isinstance(self.prior, tuple):
            return () if self.prior is None else (self.prior,)
        low, high = self.prior
        named = {self.objective.name, *(c.metric.name for c in self.constraints)}
        inner = 5 if "mcc" in named else 2
        return (low, *np.geomspace(low, high, inner)[1:-1].tolist(), high)

    @property
    def point_prior(self) -> float | None:
        """The prior of the point's probabilities: the one stated, the geometric middle of a range, or None."""
        return math.sqrt(self.prior[0] * self.prior[1]) if isinstance(self.prior, tuple) else self.prior

    @property
    def sample_costs(self) -> bool:
        """Whether the costs are of samples, from columns."""
        return self.cost is not None and bool(self.cost.columns)

    @property
    def grouped(self) -> tuple[str, ...]:
        """The columns in every value of which a constraint is to hold."""
        return tuple(dict.fromkeys(c.every for c in self.constraints if c.every is not None))

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that samples must have."""
        return tuple(dict.fromkeys((*self.grouped, *(self.cost.columns if self.cost is not None else ()))))

    def problems_with(self, columns: Columns, target: NDArray, weight: NDArray | None, job: str) -> list[str]:
        """What keeps the need from being met, or judged, on samples: columns that are absent, costs that are no costs,
        subgroups without positives or negatives.

        Args:
            job: what is done with the samples, in messages: choosing or assessing.
        """
        problems = Problems()
        for name in self.columns:
            what = "the costs of" if name not in self.grouped else "the subgroups of"
            problems.check(name in columns, f"{job} needs {what} the column {name!r}{did_you_mean(name, columns)}")
        counts = np.ones(len(target), bool) if weight is None else np.asarray(weight) > 0
        for name in self.grouped:
            if name in columns:
                problems.add(*self._problems_of_groups(name, columns[name], target, counts))
        if self.cost is not None and all(name in columns for name in self.cost.columns):
            problems.add(*_problems_of_costs(self.cost, columns, target))
        return list(problems)

    def _problems_of_groups(self, column: str, values: NDArray, target: NDArray, counts: NDArray) -> list[str]:
        groups = groups_of(values)
        if len(groups) > MOST_VALUES:
            return [
                f"a constraint in every {column} is for a column of at most {MOST_VALUES} values, got {len(groups):,}; "
                "make classes of them"
            ]
        if not groups:
            return [
                f"a constraint in every {column} is for a column with values, got none in {len(values):,} rows; name "
                "another"
            ]
        problems = Problems()
        positive = target == 1
        kinds = (
            (positive, "positive", needs_positives),
            (~positive, "negative", needs_negatives),
            (np.ones(len(target), bool), "sample", lambda _: True),  # that counts: others have no weight
        )
        for c in self.constraints:
            if c.every != column:
                continue
            for of_kind, what, concerns in kinds:
                empty = [v for v, of in groups.items() if not (of & counts & of_kind).any()]
                problems.check(
                    not (empty and concerns(c.metric.name)),
                    f"{str(c)!r} needs {what}s in every value of {column!r}, got none with "
                    f"{', '.join(map(repr, empty))}; leave these rows out, or join values",
                )
        return list(problems)


def needs_positives(name: str) -> bool:
    """Whether a threshold metric means nothing where there is no positive."""
    return name in _OF_POSITIVES or re.fullmatch(r"f[\d.]+", name) is not None


def needs_negatives(name: str) -> bool:
    """Whether a threshold metric means nothing where there is no negative."""
    return name in _OF_NEGATIVES


def _problems_of_costs(cost: Cost, columns: Columns, target: NDArray) -> list[str]:
    problems = Problems()
    for name, column in dataclasses.asdict(cost).items():
        if not isinstance(column, str):
            continue
        values = np.asarray(columns[column])
        if values.dtype.kind not in "fiub":
            problems.add(f"the costs {name} are the numbers in column {column!r}, got text such as {str(values[0])!r}")
            continue
        concerned = target == (1 if name in ("fn", "tp") else 0)
        bad = np.flatnonzero(concerned & ~(np.isfinite(values.astype(np.float64)) & (values >= 0)))
        if len(bad):
            problems.add(
                f"the costs {name} in column {column!r} must be finite numbers, 0 or more: {len(bad)} are not, the "
                f"first {values[bad[0]]}; correct them"
            )
    if not problems:
        of = cost.of_samples(columns, target)
        worse = np.where(target == 1, of.passed - of.alerted, of.alerted - of.passed)
        if (n := int((worse < 0).sum())) or not (worse > 0).any():
            got = f"{n} samples for which they do not" if n else "none for which they do"
            problems.add(f"{_ERRORS_COST_MORE}, got {got}")
    return list(problems)


def groups_of(values: NDArray) -> dict[str, NDArray[np.bool_]]:
    """(N,) which samples have each value of a column, by the value's text in order; where it is missing, none."""
    names = text_of(values)
    return {str(name): names == name for name in np.unique(names) if name != MISSING}


def text_of(values: NDArray) -> NDArray[np.str_]:
    """(N,) values of a column as text; whole numbers without a point."""
    values = np.asarray(values)
    if values.dtype.kind != "f":
        return values.astype(str)
    distinct, place = np.unique(values, return_inverse=True)
    return np.array([MISSING if math.isnan(v) else f"{v:g}" for v in distinct.tolist()], str)[place]


def problems_of_needs(**needs: Any) -> list[str]:
    """Everything wrong with what `Need.of` would be given, before there are samples to choose on."""
    try:
        Need.of(**needs)
    except InputError as error:
        return list(error.problems)
    return []


def problems_of_prior(prior: object) -> list[str]:
    """What is wrong with a prior, or a range of priors."""

    def sound(p: object) -> bool:
        return isinstance(p, int | float | np.number) and not isinstance(p, bool) and bool(0 < p < 1)

    if prior is None or sound(prior):
        return []
    if isinstance(prior, Sequence) and not isinstance(prior, str):
        if len(prior) == 2 and all(map(sound, prior)) and prior[0] < prior[1]:
            return []
        told = f"a range of priors is its lower and its higher end, both in (0, 1), got {tuple(prior)!r}"
        return [f"{told}: give shares of positives, such as 0.005 and 0.02"]
    return [f"a prior lies in (0, 1), got {prior!r}: give the share of positives, such as 0.01"]


def objective_called(name: object) -> ThresholdMetric | Metric:
    """The metric to maximize or minimize that is called `name`.

    Raises:
        InputError: an unknown name, with the closest known one, or one that has its search over thresholds built in.
    """
    if not isinstance(name, str):
        raise InputError(f"what to maximize or minimize is the name of a metric, got {name!r}")
    if re.match(r"net_benefit(@[\d.]+)?$", name):
        return threshold_metric(name)
    inner, _, constraint = name.removeprefix("best_").partition("@")
    if name.startswith("best_") or (constraint and inner != "partial_auc"):
        how = f", subject to {constraint!r}" if constraint else ""
        raise InputError(
            f"{name!r} already is the best over thresholds: ask for {inner!r}{how}, which finds the threshold"
        )
    try:
        return threshold_metric(name)
    except InputError as unknown:
        try:
            return metric(name)
        except InputError as also_unknown:
            better = [e for e in (unknown, also_unknown) if "did you mean" in str(e)]
            raise (better or [also_unknown])[0] from None
