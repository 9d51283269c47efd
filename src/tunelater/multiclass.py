"""Choosing where to operate among K classes, after training: needs in, (lambda, offsets) out.

A sample is decided to be of the class whose score plus offset is largest. The score is log P(c|x) at the prior where
the point is used. With a cost matrix C it is minus the logarithm of what deciding for c is expected to cost more than
being right, sum_k P(k|x) (C[k, c] - C[k, k]). Offsets of zero are the largest posterior, or Bayes' decisions for the
costs. Of two classes, the difference of their offsets is a threshold on the log-odds.

For metrics that recalls determine, the best decisions that a true posterior allows have this form (Narasimhan et al.
2015, "Consistent multiclass algorithms for complex performance measures"); for those with precisions it is a
restriction to K numbers, which few samples can still tell.

The search. With all other offsets fixed, samples enter class c one after the other as its offset rises, so that sums
along their order give every figure at every one of at most N + 1 different decisions: the best offset of one class is
found exactly, for any metric. That is repeated class by class until none improves. For two classes the first step is
the best of all thresholds. For more, it may be a local optimum: it starts from the largest posterior, from the largest
likelihood, and for the best lambdas from random offsets too, and the best is taken.

Shapes: N samples, L lambdas, K classes.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax

from tunelater.assessment import problems_of_draws
from tunelater.distributions import Lambda, at
from tunelater.honesty import FOLDS, told_lambda
from tunelater.intervals import Estimate, effective_size
from tunelater.metrics import Floats
from tunelater.problems import InputError, Problems, did_you_mean
from tunelater.scoring import ClassScores
from tunelater.tuning import BEYOND, Infeasible, distances

FORMAT = "tunelater.class_point/1"
EVERY = "class"
"""In constraints: `recall>=0.8 in every class`."""
RESTARTS = 4
"""Random starts of the search, at each of the best lambdas."""
FINALISTS = 5
"""How many lambdas are the best ones."""
MOST_ROUNDS = 50
"""Over all classes, in one ascent; it ends long before, where nothing improves."""
ROUNDING = 1e-9
"""Of weighted sums: constraints hold up to this."""
DRAWS = 4000
"""Of confusion matrices, for an interval."""


class Counts(NamedTuple):
    """What decisions come to, in shares of all cases: (..., K) each but the cost, (...)."""

    right: Floats
    """Of the class, and decided so."""
    decided: Floats
    """Decided to be of the class."""
    total: Floats
    """Of the class."""
    cost: Floats


def _ratio(of: Floats, total: Floats) -> Floats:
    total = np.broadcast_to(total, of.shape)
    return np.divide(of, total, out=np.zeros(of.shape), where=total > 0)


def _rest(c: Counts) -> Floats:
    return c.total.sum(-1, keepdims=True) - c.total


OF_CLASS: Mapping[str, tuple[Callable[[Counts], Floats], bool]] = {
    "recall": (lambda c: _ratio(c.right, c.total), True),
    "precision": (lambda c: _ratio(c.right, c.decided), True),
    "f1": (lambda c: _ratio(2 * c.right, c.total + c.decided), True),
    "specificity": (lambda c: 1 - _ratio(c.decided - c.right, _rest(c)), True),
    "fpr": (lambda c: _ratio(c.decided - c.right, _rest(c)), False),
    "alert_rate": (lambda c: c.decided / c.total.sum(-1, keepdims=True), False),
}
"""(..., K) metrics of a class against all others, and whether higher is better."""

OF_ALL: Mapping[str, tuple[Callable[[Counts], Floats], bool]] = {
    "accuracy": (lambda c: c.right.sum(-1) / c.total.sum(-1), True),
    "balanced_accuracy": (lambda c: OF_CLASS["recall"][0](c).mean(-1), True),
    "macro_recall": (lambda c: OF_CLASS["recall"][0](c).mean(-1), True),
    "macro_precision": (lambda c: OF_CLASS["precision"][0](c).mean(-1), True),
    "macro_f1": (lambda c: OF_CLASS["f1"][0](c).mean(-1), True),
    "gmean": (lambda c: OF_CLASS["recall"][0](c).prod(-1) ** (1 / c.total.shape[-1]), True),
    "worst_recall": (lambda c: OF_CLASS["recall"][0](c).min(-1), True),
}
"""(...) metrics of all classes together: means of classes count each class the same."""

WHOLE = ("log_loss", "brier")
"""Metrics of a lambda's probabilities, to be minimized; the Brier score is half the squared distance, as of two
classes."""


@dataclass(frozen=True)
class ClassMetric:
    """A metric of decisions: of all classes, of one, or the cost."""

    name: str
    values: Callable[[Counts], Floats]
    higher_is_better: bool


@dataclass(frozen=True)
class ClassConstraint:
    """A floor or ceiling, such as `recall[mitosis]>=0.8` or `recall>=0.8 in every class`."""

    metrics: tuple[ClassMetric, ...]
    relation: str
    bound: float
    text: str

    def shortfall(self, c: Counts) -> Floats:
        """(...) by how much the worst of its metrics misses the bound; 0 or less where none does."""
        sign = 1 if self.relation == ">=" else -1
        return np.max([sign * (self.bound - m.values(c)) for m in self.metrics], axis=0)

    def __str__(self) -> str:
        return self.text


_CONSTRAINT = re.compile(r"\s*(\w+)\s*(?:\[(.*)\])?\s*(>=|<=)\s*([-+.\deE]+)\s*(in every class)?\s*")
_NAME = re.compile(r"(\w+)\[(.*)\]")


@dataclass(frozen=True)
class ClassNeed:
    """What a point among K classes is chosen for. `ClassNeed.of` makes one of what a user says."""

    classes: tuple[str, ...]
    objective: ClassMetric | None
    """None where `whole` is."""
    whole: str | None
    constraints: tuple[ClassConstraint, ...]
    cost: Floats | None
    """(K, K): what deciding for a column costs where the row is true."""
    prior: tuple[float, ...] | None
    in_words: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        classes: Sequence[str],
        *,
        maximize: str | None = None,
        minimize: str | None = None,
        cost: ArrayLike | None = None,
        subject_to: str | Sequence[str] = (),
        prior: Mapping[str, float] | Sequence[float] | None = None,
        found: Sequence[str] = (),
    ) -> ClassNeed:
        """From what `select_classes` takes; everything wrong with it, and what was found already, at once.

        Raises:
            InputError: no objective or several, unknown metrics or classes, constraints that do not read, costs or
                shares that cannot be.
        """
        problems = Problems()
        classes = tuple(map(str, classes))
        told: dict[str, Any] = {"maximize": maximize, "minimize": minimize, "cost": cost}
        given = [name for name, value in told.items() if value is not None]
        problems.check(len(given) == 1, f"say one of maximize, minimize and cost, got {' and '.join(given) or 'none'}")
        objective, whole, costs, constraints = None, None, None, []
        for way in given:
            if way == "cost":
                costs = _costs(cost, classes, problems)
                told["cost"] = None if costs is None else costs.tolist()
                objective = ClassMetric("cost", lambda c: c.cost, False)
                continue
            try:
                name = told[way]
                whole = name if name in WHOLE else None
                objective = None if whole else metric_called(name, classes)
                higher = objective.higher_is_better if objective is not None else False
                problems.check(higher == (way == "maximize"), f"{name} is something to {_way(higher)}")
            except InputError as error:
                problems.add(*error.problems)
        if not isinstance(subject_to, str | Sequence):
            problems.add(f"constraints are a list such as ['recall>=0.8 in every class'], got {subject_to!r}")
            subject_to = ()
        for text in [subject_to] if isinstance(subject_to, str) else subject_to:
            try:
                constraints.append(constraint_of(text, classes))
            except InputError as error:
                problems.add(*error.problems)
        problems.check(
            not (whole and constraints),
            f"{whole} is of probabilities, and constraints of decisions: of several classes say what decisions should "
            "be best, such as maximize='balanced_accuracy'",
        )
        shares = shares_of(prior, classes, problems)
        problems.add(*found)
        problems.raise_if_any()
        told["subject_to"] = [str(c) for c in constraints]
        if shares is not None:
            told["prior"] = dict(zip(classes, shares, strict=True))
        in_words = {name: value for name, value in told.items() if value}
        return cls(classes, objective, whole, tuple(constraints), costs, shares, in_words)


def _way(higher: bool) -> str:
    return "maximize" if higher else "minimize"


def metric_called(name: object, classes: Sequence[str]) -> ClassMetric:
    """The metric of decisions called `name`: one of `OF_ALL`, or one of `OF_CLASS` with a class, `recall[mitosis]`.

    Raises:
        InputError: an unknown metric or class, with the closest that is known.
    """
    if not isinstance(name, str):
        raise InputError(f"what to maximize or minimize is the name of a metric, got {name!r}")
    if name in OF_ALL:
        return ClassMetric(name, *OF_ALL[name])
    match = _NAME.fullmatch(name)
    if match and match[1] in OF_CLASS:
        if match[2] not in classes:
            raise InputError(f"{name!r} is of a class that there is not{did_you_mean(match[2], classes)}")
        values, higher = OF_CLASS[match[1]]
        index = classes.index(match[2])
        return ClassMetric(name, lambda c: values(c)[..., index], higher)
    if name in OF_CLASS:
        raise InputError(f"{name!r} is of one class: say of which, such as '{name}[{classes[-1]}]'")
    known = [*OF_ALL, *WHOLE, *(f"{metric}[{classes[-1]}]" for metric in OF_CLASS)]
    raise InputError(f"there is no metric {name!r} of {len(classes)} classes{did_you_mean(name, known)}")


def constraint_of(text: object, classes: Sequence[str]) -> ClassConstraint:
    """Read a constraint: `metric>=value`, `metric[class]>=value` or `metric>=value in every class`, or with `<=`.

    Raises:
        InputError: another form, an unknown metric or class, a bound outside [0, 1].
    """
    match = _CONSTRAINT.fullmatch(text) if isinstance(text, str) else None
    if not match:
        raise InputError(
            f"a constraint reads like 'recall[{classes[-1]}]>=0.8' or 'recall>=0.8 in every class', got {text!r}"
        )
    name, of, relation, number, every = match.groups()
    try:
        bound = float(number)
    except ValueError:
        bound = math.nan
    if not 0 <= bound <= 1:
        raise InputError(f"the bound of a constraint lies in [0, 1], got {number!r} in {text!r}")
    if every and (of is not None or name not in OF_CLASS):
        raise InputError(f"'in every class' goes with one of {', '.join(OF_CLASS)}, without a class; got {text!r}")
    names = [f"{name}[{c}]" for c in classes] if every else [name if of is None else f"{name}[{of}]"]
    told = f"{name}{'' if of is None else f'[{of}]'}{relation}{bound:g}{' in every class' if every else ''}"
    return ClassConstraint(tuple(metric_called(n, classes) for n in names), relation, bound, told)


def shares_of(
    prior: Mapping[Any, float] | Sequence[float] | None, classes: Sequence[str], problems: Problems
) -> tuple[float, ...] | None:
    """The share of each class where a point is used; None where none are stated, or they cannot be."""
    if prior is None:
        return None
    k = len(classes)
    rule = f"the prior of {k} classes is {k} shares that are positive and sum to 1, by class or in their order"
    if isinstance(prior, Mapping):
        by_name = {str(name): value for name, value in prior.items()}
        if by_name.keys() != set(classes):
            problems.add(f"{rule} ({', '.join(classes)}), got {dict(prior)}")
            return None
        prior = [by_name[name] for name in classes]
    try:
        shares = np.asarray(prior, np.float64)
    except (TypeError, ValueError):
        shares = np.empty(0)
    if shares.shape != (k,) or not (shares > 0).all() or abs(shares.sum() - 1) > 1e-6:
        problems.add(f"{rule}, got {prior!r}")
        return None
    return tuple((shares / shares.sum()).tolist())


def _costs(cost: ArrayLike | None, classes: Sequence[str], problems: Problems) -> Floats | None:
    k = len(classes)
    rule = f"the costs of {k} classes are a {k} x {k} matrix: rows the true class, columns the decision"
    try:
        costs = np.asarray(cost, np.float64)
    except (TypeError, ValueError):
        costs = np.empty(0)
    if costs.shape != (k, k) or not np.isfinite(costs).all():
        problems.add(f"{rule}, finite numbers; got {cost!r}")
        return None
    regret = costs - np.diag(costs)[:, None]
    sound = (regret >= 0).all() and ((regret > 0).any(axis=0)).all()
    problems.check(
        bool(sound),
        f"{rule}; no error may cost less than being right, and each decision must have an error that "
        f"costs more: got {costs.tolist()}",
    )
    return costs


@dataclass(frozen=True)
class ClassPoint:
    """A lambda and an offset of each class, with the need that they were chosen for and what they achieve."""

    lam: Mapping[str, float]
    offsets: Mapping[str, float]
    """Of each class, in the order of the classes, added to its score."""
    prior: Mapping[str, float]
    """The share of each class where the point is used, which probabilities are for."""
    cost: Sequence[Sequence[float]] | None = None
    """(K, K) what scores weigh; None where they are the log posterior."""
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    """What it achieves on the samples it was chosen on, with intervals. It flatters: see `honest`."""
    honest: Mapping[str, Estimate] = field(default_factory=dict)
    """The same of decisions about each fifth of the samples that were chosen without it: what to expect on other
    samples. Empty where a class has a single sample."""
    needs: Mapping[str, Any] = field(default_factory=dict)
    split: str = "validation"
    n: int = 0
    model: str = ""
    """Identity of the model that it belongs to."""
    extrapolated: bool = False
    simpler_than: Mapping[str, float] | None = None
    """The lambda that was best on these samples, where a simpler one within one standard error of it was taken."""

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.offsets)

    def scores(self, log_posterior: NDArray[np.floating]) -> Floats:
        """(N, K) what decisions are the largest of, from log posteriors (N, K) at the point's prior."""
        costs = None if self.cost is None else np.asarray(self.cost, np.float64)
        return scores_of(log_posterior.astype(np.float64), costs) + np.array([*self.offsets.values()])

    def decide(self, log_posterior: NDArray[np.floating]) -> NDArray[np.intp]:
        """(N,) the index of the class that each sample is decided to be of."""
        return np.argmax(self.scores(log_posterior), axis=1)

    def to_json(self) -> str:
        """The point as JSON, readable by `from_json` and by other programs."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ClassPoint:
        """The point of a JSON text.

        Raises:
            InputError: text that is not JSON, or not such a point.
        """
        try:
            raw = json.loads(text)
            if not isinstance(raw, dict) or raw.pop("format", None) != FORMAT:
                raise InputError(f"a point among classes has format {FORMAT!r}; make one with LCTClassifier.tune")
            for name in ("metrics", "honest"):
                raw[name] = {metric: Estimate(*map(float, value)) for metric, value in raw[name].items()}
            for name in ("lam", "offsets", "prior"):
                raw[name] = {key: float(value) for key, value in raw[name].items()}
            point = cls(**raw)
            if not point.offsets.keys() == point.prior.keys() or len(point.offsets) < 2:
                raise InputError("a point among classes needs an offset and a share of each")
        except InputError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"a point among classes is JSON of {FORMAT!r}, which this is not: {error}") from None
        return point

    def save(self, path: str | Path) -> None:
        """Write the point as JSON."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> ClassPoint:
        """Read a point that `save` wrote; see `from_json`."""
        if not Path(path).is_file():
            raise InputError(f"there is no operating point {path}; make one with LCTClassifier.tune")
        try:
            text = Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is no operating point: it is not text ({error.reason})") from error
        return cls.from_json(text)


def scores_of(log_posterior: Floats, cost: Floats | None) -> Floats:
    """(N, K) scores that offsets are added to, from log posteriors."""
    if cost is None:
        return log_posterior
    regret = cost - np.diag(cost)[:, None]
    return -np.log(np.maximum(np.exp(log_posterior) @ regret, np.finfo(np.float64).tiny))


def at_shares(log_posterior: Floats, now: Sequence[float] | Floats, wanted: Sequence[float] | Floats) -> Floats:
    """(N, K) log posteriors where classes have other shares."""
    return log_softmax(log_posterior + (np.log(wanted) - np.log(now)), axis=1)


def select_classes(
    scores: ClassScores,
    classes: Sequence[str],
    *,
    maximize: str | None = None,
    minimize: str | None = None,
    cost: ArrayLike | None = None,
    subject_to: str | Sequence[str] = (),
    prior: Mapping[str, float] | Sequence[float] | None = None,
    default: Lambda | None = None,
    simplest: bool = True,
    confidence: float = 0.95,
    seed: int = 0,
) -> ClassPoint:
    """The best lambda and offsets for a need, on samples that the model was not trained on.

    Args:
        classes: what the K classes are called.
        maximize, minimize: a metric of all classes (`balanced_accuracy`, which is macro recall, `macro_f1`, `gmean`,
            `worst_recall`, `accuracy`), of one (`recall[mitosis]`, `precision[mitosis]`), or of probabilities
            (`log_loss`, `brier`; decisions are then the largest posterior).
        cost: (K, K), rows the true class, columns the decision; the lowest expected cost is best.
        subject_to: constraints such as `recall[mitosis]>=0.9` or `recall>=0.8 in every class`.
        prior: the share of each class where the point will be used, by name or in order; None takes the samples' own.
        default: the model's default lambda.
        simplest: of the lambdas within one standard error of the best, take the one nearest to the default.
        confidence: of the intervals, in (0, 1).
        seed: of random starts, folds and intervals.

    Raises:
        InputError: everything wrong with the need, or a class without samples.
        Infeasible: no lambda and offsets that were found meet the constraints; says how near they come.
    """
    found = problems_of_draws(confidence, seed, None)
    weight = np.ones(len(scores.target)) if scores.weight is None else scores.weight
    lacking = [str(c) for i, c in enumerate(classes) if not weight[scores.target == i].sum() > 0]
    if lacking:
        found.append(f"choosing needs samples of every class, got none of {', '.join(map(repr, lacking))}")
    asked: dict[str, Any] = {"maximize": maximize, "minimize": minimize, "cost": cost, "subject_to": subject_to}
    need = ClassNeed.of(classes, **asked, prior=prior, found=found)
    return _Choosing(scores, need, default, simplest, confidence, seed).point()


class _Choice(NamedTuple):
    """The best found at one lambda."""

    missed: float
    """By how much constraints are missed, in all."""
    merit: float
    """More is better."""
    offsets: Floats

    def better_than(self, other: _Choice | None) -> bool:
        if other is None or self.missed < other.missed - ROUNDING:
            return True
        return self.missed <= other.missed + ROUNDING and self.merit > other.merit + 1e-12


@dataclass(frozen=True, eq=False)
class _Rows:
    """Some samples, weighted so that their classes have the shares at which the point is used."""

    need: ClassNeed
    target: NDArray[np.int64]
    weight: Floats

    @classmethod
    def of(cls, need: ClassNeed, target: NDArray[np.int64], weight: Floats, shares: Floats) -> _Rows:
        own = np.bincount(target, weight, len(shares))
        return cls(need, target, weight * np.divide(shares, own, out=np.zeros_like(own), where=own > 0)[target])

    @cached_property
    def total(self) -> Floats:
        return _sums(self.target, self.weight, len(self.need.classes))

    def judged(self, c: Counts) -> tuple[Floats, Floats]:
        """(...) by how much constraints are missed in all, and how good the objective is."""
        missed = np.zeros(np.shape(c.cost))
        for constraint in self.need.constraints:
            missed = missed + np.maximum(constraint.shortfall(c) - ROUNDING, 0)
        if self.need.objective is None:
            return missed, np.zeros(np.shape(c.cost))
        sign = 1 if self.need.objective.higher_is_better else -1
        return missed, sign * self.need.objective.values(c)

    def counts(self, decided: NDArray[np.intp]) -> Counts:
        """Of one decision about each sample."""
        k, right = len(self.need.classes), decided == self.target
        return Counts(
            _sums(self.target, self.weight * right, k),
            _sums(decided, self.weight, k),
            self.total,
            np.asarray(self.weight @ self.cost_of(decided)),
        )

    def cost_of(self, decided: NDArray[np.intp]) -> Floats:
        return np.zeros(len(decided)) if self.need.cost is None else self.need.cost[self.target, decided]

    def along(self, rival: NDArray[np.intp], c: int, order: NDArray[np.intp]) -> Counts:
        """(N + 1,) counts as samples go over from their rival to class c, one after the other."""
        n, k = len(order), len(self.need.classes)
        w, y, b = self.weight[order], self.target[order], rival[order]
        right, decided = np.zeros((n + 1, k)), np.zeros((n + 1, k))
        first = self.counts(rival)
        right[0], decided[0] = first.right, first.decided
        step = np.arange(1, n + 1)
        right[step, b] = -w * (y == b)
        right[step, c] = w * (y == c)
        decided[step, b] = -w
        decided[step, c] = w
        change = (self.cost_of(np.full(len(y), c)) - self.cost_of(rival))[order] * w
        cost = first.cost + np.append(0.0, np.cumsum(change))
        for sums in (right, decided):
            np.cumsum(sums, axis=0, out=sums)
            np.maximum(sums, 0, out=sums)  # rounding left where nothing is
        return Counts(right, decided, self.total, cost)

    def ascend(self, scores: Floats, start: Floats) -> _Choice:
        """The best offsets that are found from a start, class by class."""
        offsets, best, since = start.copy(), None, 0
        classes = range(len(offsets)) if len(offsets) > 2 else (1,)
        for c in itertools.islice(itertools.cycle(classes), MOST_ROUNDS * len(classes)):
            found = self._best_offset(scores, offsets, c)
            if found.better_than(best):
                best, offsets, since = found, found.offsets, 0
            since += 1
            if since == len(classes):  # in no other, since the last that was moved
                break
        assert best is not None
        return best._replace(offsets=best.offsets - np.median(best.offsets))

    def _best_offset(self, scores: Floats, offsets: Floats, c: int) -> _Choice:
        others = scores + offsets
        others[:, c] = -np.inf
        rival = np.argmax(others, axis=1)
        margin = others[np.arange(len(others)), rival] - scores[:, c]
        order = np.argsort(margin, kind="stable")
        m = margin[order]
        missed, merit = self.judged(self.along(rival, c, order))
        between = np.append(True, np.append(m[1:] > m[:-1], True))  # equal scores are decided alike
        missed = np.where(between, missed, np.inf)
        least = missed.min()
        good = missed <= least + ROUNDING
        top = np.where(good, merit, -np.inf)
        equal = np.flatnonzero(top >= top.max() - 1e-12)
        now = np.searchsorted(m, offsets[c], "left")
        j = int(equal[np.argmin(np.abs(equal - now))])
        place = m[0] - BEYOND if j == 0 else m[-1] + BEYOND if j == len(m) else (m[j - 1] + m[j]) / 2
        moved = offsets.copy()
        moved[c] = place
        return _Choice(float(missed[j]), float(merit[j]), moved)


@dataclass(frozen=True, eq=False)
class _Choosing:
    """One choice, on all samples and without each fold."""

    scores: ClassScores
    need: ClassNeed
    default: Lambda | None
    simplest: bool
    confidence: float
    seed: int

    @cached_property
    def weight(self) -> Floats:
        s = self.scores
        return np.ones(len(s.target)) if s.weight is None else s.weight.astype(np.float64)

    @cached_property
    def shares(self) -> Floats:
        """Of the classes where the point is used."""
        own = np.bincount(self.scores.target, self.weight, len(self.need.classes))
        return own / own.sum() if self.need.prior is None else np.array(self.need.prior)

    def log_posterior(self, index: int) -> Floats:
        """(N, K) at the shares where the point is used."""
        return at_shares(self.scores.log_posterior[index].astype(np.float64), self.scores.prior, self.shares)

    def rule(self, index: int) -> Floats:
        return scores_of(self.log_posterior(index), self.need.cost)

    def rows(self, which: NDArray[np.intp]) -> _Rows:
        return _Rows.of(self.need, self.scores.target[which], self.weight[which], self.shares)

    def point(self) -> ClassPoint:
        used = np.flatnonzero(self.weight > 0)
        choices = self._searched(used)
        distance, _ = distances(self.scores.lambdas, len(self.scores), self.default)
        best = _best(choices)
        if choices[best].missed > 0:
            raise Infeasible(self._nearest(choices, best, used))
        error = self._error(used, best, choices[best])
        chosen = self._picked(choices, error, distance)
        lam, offsets = at(self.scores.lambdas, chosen), choices[chosen].offsets
        decided = np.argmax(self.rule(chosen) + offsets, axis=1)
        folds = self._folds()
        honest: dict[str, Estimate] = {}
        if folds is not None:
            of_fold, lam_of = np.empty_like(decided), np.empty(len(decided), np.intp)
            for f in np.unique(folds):
                held = folds == f
                without = self._searched(np.flatnonzero((self.weight > 0) & ~held))
                there = self._picked(without, error, distance)
                of_fold[held] = np.argmax(self.rule(there)[held] + without[there].offsets, axis=1)
                lam_of[held] = there
            honest = self._estimates(of_fold, lam_of)
        extrapolated = self.scores.extrapolated
        return ClassPoint(
            lam=lam,
            offsets=dict(zip(self.need.classes, offsets.tolist(), strict=True)),
            prior=dict(zip(self.need.classes, self.shares.tolist(), strict=True)),
            cost=None if self.need.cost is None else self.need.cost.tolist(),
            metrics=self._estimates(decided, np.full(len(decided), chosen)),
            honest=honest,
            needs=dict(self.need.in_words),
            split=self.scores.split,
            n=len(self.scores.target),
            model=self.scores.model,
            extrapolated=bool(extrapolated[chosen]) if extrapolated is not None else False,
            simpler_than=at(self.scores.lambdas, best) if chosen != best else None,
        )

    # ------------------------------------------------------------------------------------------------------- search

    def _searched(self, which: NDArray[np.intp]) -> list[_Choice]:
        """The best that is found at each lambda, by some samples."""
        rows, k = self.rows(which), len(self.need.classes)
        if self.need.whole is not None:
            return [_Choice(0.0, -self._whole(i, self.need.whole, which), np.zeros(k)) for i in range(len(self.scores))]
        starts = [np.zeros(k)] if k == 2 else [np.zeros(k), -np.log(self.shares)]
        choices = [_best_of(rows, self.rule(i)[which], starts) for i in range(len(self.scores))]
        if k > 2:
            order = sorted(range(len(choices)), key=lambda i: (choices[i].missed, -choices[i].merit))
            rng = np.random.default_rng(self.seed)
            more = [rng.normal(0, 2, k) for _ in range(RESTARTS)]
            for i in order[:FINALISTS]:
                found = _best_of(rows, self.rule(i)[which], [*more, choices[order[0]].offsets])
                choices[i] = found if found.better_than(choices[i]) else choices[i]
        return choices

    def _picked(self, choices: Sequence[_Choice], error: float, distance: Floats) -> int:
        """The best, or the nearest to the default lambda of those within one standard error of it."""
        best = _best(choices)
        if not self.simplest or choices[best].missed > 0:
            return best
        near = [i for i, c in enumerate(choices) if not c.missed > 0 and c.merit >= choices[best].merit - error]
        return min(near, key=lambda i: distance[i])

    def _folds(self) -> NDArray[np.intp] | None:
        """(N,) the fold of each sample, stratified by class; None where a class has a single sample."""
        used = self.weight > 0
        n = min(FOLDS, int(np.bincount(self.scores.target[used], minlength=len(self.need.classes)).min()))
        if n < 2:
            return None
        folds, rng = np.zeros(len(used), np.intp), np.random.default_rng(self.seed)
        for c in range(len(self.need.classes)):
            of_class = rng.permutation(np.flatnonzero(self.scores.target == c))
            of_class = of_class[np.argsort(~used[of_class], kind="stable")]  # those with weight are dealt out first
            folds[of_class] = np.arange(len(of_class)) % n
        return folds

    # ------------------------------------------------------------------------------------------------------ figures

    def _losses(self, index: NDArray[np.intp], name: str) -> Floats:
        """(N,) losses of probabilities, each at a lambda of its own."""
        out = np.empty(len(index))
        for i in np.unique(index):
            some = index == i
            log_p, y = self.log_posterior(int(i))[some], self.scores.target[some]
            if name == "log_loss":
                out[some] = -log_p[np.arange(len(y)), y]
            else:
                out[some] = ((np.exp(log_p) - np.eye(log_p.shape[1])[y]) ** 2).sum(axis=1) / 2
        return out

    def _whole(self, index: int, name: str, which: NDArray[np.intp]) -> float:
        rows = self.rows(which)
        losses = self._losses(np.full(len(self.weight), index), name)[which]
        return float(rows.weight @ losses / rows.weight.sum())

    def _error(self, used: NDArray[np.intp], index: int, choice: _Choice) -> float:
        """The standard error of the best's merit."""
        rows = self.rows(used)
        if self.need.whole is not None:
            losses = self._losses(np.full(len(self.weight), index), self.need.whole)[used]
            return _spread(losses, rows.weight)
        decided = np.argmax(self.rule(index)[used] + choice.offsets, axis=1)
        return float(rows.judged(self._drawn(rows, decided))[1].std())

    def _drawn(self, rows: _Rows, decided: NDArray[np.intp]) -> Counts:
        """Confusion matrices that may be behind the one seen: of each true class the decisions are drawn from their
        posterior, with one pseudo-observation spread over all (Jeffreys' prior, for two classes) and Kish's effective
        size; so are the classes' shares where none were stated."""
        k, rng = len(self.need.classes), np.random.default_rng(self.seed)
        shares = np.broadcast_to(self.shares, (DRAWS, k))
        if self.need.prior is None:
            shares = rng.dirichlet(self.shares * effective_size(rows.weight) + 1 / k, DRAWS)
        confusion = np.empty((DRAWS, k, k))
        for c in range(k):
            w, d = rows.weight[rows.target == c], decided[rows.target == c]
            seen = np.bincount(d, w, k) / w.sum() * effective_size(w)
            confusion[:, c] = rng.dirichlet(seen + 1 / k, DRAWS) * shares[:, c, None]
        cost = np.zeros(DRAWS) if self.need.cost is None else (confusion * self.need.cost).sum((1, 2))
        return Counts(confusion[:, range(k), range(k)], confusion.sum(1), shares, cost)

    def _estimates(self, decided: NDArray[np.intp], lam_of: NDArray[np.intp]) -> dict[str, Estimate]:
        """What decisions achieve, each taken at a lambda of its own, with intervals."""
        used = np.flatnonzero(self.weight > 0)
        rows, tail = self.rows(used), (1 - self.confidence) / 2
        seen, drawn = rows.counts(decided[used]), self._drawn(rows, decided[used])
        out = {}
        for m in self._told():
            value = float(m.values(seen))
            low, high = np.quantile(m.values(drawn), [tail, 1 - tail])
            out[m.name] = Estimate(value, min(value, float(low)), max(value, float(high)))
        z = -float(_normal_quantile(tail))
        for name in WHOLE:
            losses = self._losses(lam_of, name)[used]
            value, error = float(rows.weight @ losses / rows.weight.sum()), _spread(losses, rows.weight)
            out[name] = Estimate(value, max(0.0, value - z * error), value + z * error)
        return out

    def _told(self) -> Iterator[ClassMetric]:
        names = ["accuracy", "balanced_accuracy", "macro_f1", "worst_recall"]
        names += [f"{name}[{c}]" for name in ("recall", "precision") for c in self.need.classes]
        asked = [m for c in self.need.constraints for m in c.metrics]
        objective = self.need.objective
        yield from (metric_called(name, self.need.classes) for name in names)
        yield from (m for m in [*([objective] if objective else []), *asked] if m.name not in names)

    def _nearest(self, choices: Sequence[_Choice], best: int, used: NDArray[np.intp]) -> list[str]:
        """What comes nearest to constraints that nothing meets, in words."""
        rows = self.rows(used)
        c = rows.counts(np.argmax(self.rule(best)[used] + choices[best].offsets, axis=1))
        lines = [f"no lambda and offsets found meet {' and '.join(map(str, self.need.constraints))} on these samples"]
        for constraint in self.need.constraints:
            worst = constraint.metrics[int(np.argmax([_missed(constraint, m, c) for m in constraint.metrics]))]
            line = f"{worst.name} comes to {float(worst.values(c)):.4g} where all come nearest"
            if len(self.need.constraints) > 1:
                alone = dataclasses.replace(self.need, constraints=(constraint,))
                there = dataclasses.replace(self, need=alone)._searched(used)
                reach = there[_best(there)].missed
                line += f"; alone, {constraint} " + ("can be met" if reach <= 0 else f"is missed by {reach:.4g}")
            lines.append(f"{line}, at {told_lambda(at(self.scores.lambdas, best))}")
        return lines


def _sums(classes: NDArray[np.intp], weight: Floats, k: int) -> Floats:
    """(k,) sums of weights by class."""
    return np.bincount(classes, weight, k).astype(np.float64)


def _missed(constraint: ClassConstraint, m: ClassMetric, c: Counts) -> float:
    return float(dataclasses.replace(constraint, metrics=(m,)).shortfall(c))


def _best_of(rows: _Rows, scores: Floats, starts: Sequence[Floats]) -> _Choice:
    best: _Choice | None = None
    for start in starts:
        found = rows.ascend(scores, start)
        best = found if found.better_than(best) else best
    assert best is not None
    return best


def _best(choices: Sequence[_Choice]) -> int:
    best = 0
    for i, choice in enumerate(choices):
        if choice.better_than(choices[best]):
            best = i
    return best


def _spread(values: Floats, weight: Floats) -> float:
    """The standard error of a weighted mean."""
    share = weight / weight.sum()
    return float(np.sqrt((share**2 * (values - share @ values) ** 2).sum()))


def _normal_quantile(p: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(p))
