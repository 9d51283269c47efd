"""Watching a deployed operating point: alarms that can be trusted however long the stream is.

A `Monitor` takes batches of scores, with labels where there are any, and keeps for each thing that it watches an
e-process: a wealth that starts at 1 and, as long as all is well, is not expected to grow. By Ville's inequality the
chance that it *ever* reaches 1 / alpha is alpha at most, whenever one looks and whenever one stops. So looking after
every batch for years costs nothing, where a p-value after every batch would alarm in the end for certain (Podkopaev &
Ramdas 2022, "Tracking the risk of a deployed model"; Waudby-Smith & Ramdas 2024, whose bets these are).

Two kinds of things are watched:

* **Limits** on a metric of the decisions, such as `recall>=0.9`, from labelled cases. The null is that the limit holds:
  given the past, the next case that the metric counts (for recall, a positive) is right with probability 0.9 or more.
  Nothing is asked of the reference, and cases may depend on each other.
* **Drift** of the scores, without labels. The null is that new cases come from the mixture of the reference's two
  classes at the prior, or at one within a range. The reference is a sample, and a stream long enough would tell any
  sample from the truth. So the share of new scores above each of a few places is held against Clopper-Pearson bounds of
  the reference's shares, which hold at all places at once but for a part of alpha. The promise is over reference and
  stream together, and a change too small for the reference's size to tell raises no alarm, however long it lasts.

A change may come late, and a wealth that has lost for a year takes as long to recover. So a new one, with a part of the
capital, starts with every batch, and they are added up (a mixture over the time of the change, as Shiryaev's and
Roberts' procedures have). The parts sum to 1, which keeps the promise.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import logsumexp

from tunelater.intervals import effective_size
from tunelater.losses import logit
from tunelater.metrics import Constraint, Floats
from tunelater.problems import InputError, Problems
from tunelater.scoring import Scores
from tunelater.shift import UNKNOWN, Reference, place_of, problems_of_new
from tunelater.tuning import Cost, OperatingPoint

FORMAT = "tunelater.monitor/1"

ODDS_RATIOS = (1.2, 1.5, 2.5, 5.0, 20.0)
"""By how much the odds of an error may have risen: what the bets of an e-process are best against, a fifth each."""
OF_REFERENCE = 0.2
"""The part of drift's alpha that is spent on the reference's own error."""
HALF_LIFE = 10
"""Batches after which a case counts half in what `Watch.recent` says."""
DRIFT = "drift"

Mask = NDArray[np.bool_]
_MEANS: Mapping[str, tuple[Callable[[NDArray, Mask], Mask], Callable[[NDArray, Mask], Mask]]] = {
    # Metrics that are means: of which cases, and which of these are errors, by label and alert.
    "recall": (lambda y, alert: y == 1, lambda y, alert: ~alert),
    "specificity": (lambda y, alert: y == 0, lambda y, alert: alert),
    "fpr": (lambda y, alert: y == 0, lambda y, alert: alert),
    "precision": (lambda y, alert: alert & (y != UNKNOWN), lambda y, alert: y == 0),
    "npv": (lambda y, alert: ~alert & (y != UNKNOWN), lambda y, alert: y == 1),
    "accuracy": (lambda y, alert: y != UNKNOWN, lambda y, alert: alert != (y == 1)),
    "alert_rate": (lambda y, alert: np.ones(len(y), bool), lambda y, alert: alert),
}


class Alarm(NamedTuple):
    """Evidence that something is no longer as it should be."""

    name: str
    """The limit, or `drift`."""
    batch: int
    """After which batch, from 1."""
    log_e: float
    """Logarithm of the e-value, which has passed 1 / alpha."""
    sentence: str


@dataclass
class Watch:
    """One thing that is watched: T mean losses in [0, 1], none of which should be above its ceiling."""

    name: str
    alpha: float
    ceilings: Floats
    """(T,) in (0, 1)."""
    log_wealth: Floats
    """(T, K) of each bet, of all batches that it has started with; -inf at first."""
    n: float = 0.0
    """Cases so far, and the sum of their (first) losses."""
    total: float = 0.0
    recent_n: float = 0.0
    recent_total: float = 0.0

    @classmethod
    def new(cls, name: str, alpha: float, ceilings: Floats) -> Watch:
        return cls(name, alpha, ceilings, np.full((len(ceilings), len(ODDS_RATIOS)), -np.inf))

    @property
    def mean(self) -> float:
        """Of the losses so far; NaN where there are none."""
        return self.total / self.n if self.n else math.nan

    @property
    def recent(self) -> float:
        """The mean of late: cases count half after ten batches."""
        return self.recent_total / self.recent_n if self.recent_n else math.nan

    def log_e(self, batch: int) -> float:
        """Logarithm of the e-value after a batch: the mean wealth, with the capital that has not started yet."""
        wealth = float(logsumexp(self.log_wealth)) - math.log(self.log_wealth.size)
        return float(np.logaddexp(wealth, math.log(_left_after(batch))))

    def add(self, values: Floats, counts: Floats, batch: int) -> None:
        """A batch's losses: (V,) values and, for each ceiling, how many cases have them (T, V)."""
        start = math.log(_left_after(batch - 1) - _left_after(batch))
        self.log_wealth = np.logaddexp(self.log_wealth, start)
        ceilings = self.ceilings[:, None]
        for k, ratio in enumerate(ODDS_RATIOS):
            # Against this ceiling the bet grows fastest if the odds of a loss are `ratio` times those of the ceiling.
            # With losses of 0 and 1 its factors are the likelihood ratio of the two.
            worse = ratio * ceilings / (1 - ceilings + ratio * ceilings)
            stake = (worse - ceilings) / (ceilings * (1 - ceilings))
            self.log_wealth[:, k] += (counts * np.log1p(stake * (values - ceilings))).sum(axis=1)
        fade = 0.5 ** (1 / HALF_LIFE)
        n, total = float(counts[0].sum()), float(counts[0] @ values)
        self.n += n
        self.total += total
        self.recent_n = self.recent_n * fade + n
        self.recent_total = self.recent_total * fade + total


def _left_after(batch: int) -> float:
    """The part of the capital that has not started by the end of a batch: it lasts for ever, and what a late batch
    starts with is not much less than one in its number."""
    return math.log(2) / math.log(batch + 2)


@dataclass
class Monitor:
    """Watches an operating point on a stream of batches, with bounded memory. `Monitor.of` makes it.

    >>> scores = Scores(np.float32([[-3, -2, -1, 0, 1, 2]]), np.int8([0, 0, 1, 0, 1, 1]), {"tau": np.array([1.0])}, 0.5)
    >>> point = OperatingPoint({"tau": 1.0}, threshold=0.5, log_odds_threshold=0.0, prior=0.5)
    >>> monitor = Monitor.of(point, limits=["recall>=0.5"])
    >>> monitor.update(scores)
    ()
    >>> Monitor.from_json(monitor.to_json()).batches
    1
    """

    point: OperatingPoint
    """Whose decisions are watched."""
    prior: tuple[float, float]
    """The range that the share of positives may lie in without being drift."""
    places: Floats
    """(P,) log ratios of the link at which scores are compared; none where drift is not watched."""
    watches: list[Watch]
    alpha: float
    """The chance that there ever is a false alarm of any kind, at most."""
    batches: int = 0
    cases: int = 0
    labelled: int = 0
    alarms: list[Alarm] = field(default_factory=list)
    """All so far; each thing that is watched has one at most."""

    @classmethod
    def of(
        cls,
        point: OperatingPoint,
        reference: Reference | None = None,
        *,
        limits: str | Sequence[str] = (),
        prior: float | tuple[float, float] | None = None,
        alpha: float = 0.05,
    ) -> Monitor:
        """Begin to watch.

        Args:
            point: the operating point in use.
            reference: scores that new ones should be like; None to watch limits alone.
            limits: such as `recall>=0.9`, `precision>=0.3`, `fpr<=0.01`, `alert_rate<=0.02`, or `cost<=0.4`, by the
                costs that the point was chosen for. `alert_rate` needs no labels.
            prior: the share of positives that is expected, or a range, such as the interval of
                `shift.estimate_prior`; the point's by default.
            alpha: of any false alarm, ever; half is for drift and half for all limits, where there are both.

        Raises:
            InputError: all that cannot be watched.
        """
        problems = Problems()
        wanted = list(dict.fromkeys([limits] if isinstance(limits, str) else limits))
        problems.check(bool(wanted) or reference is not None, "there is nothing to watch: give a reference or limits")
        problems.add(*problems_of_watching(wanted, prior, alpha, point))
        if reference is not None:
            same = not point.model or not reference.scores.model or point.model == reference.scores.model
            problems.check(
                same, f"the point belongs to model {point.model}, the reference to model {reference.scores.model}"
            )
            place_of(point.lam, reference.scores, problems)
        problems.raise_if_any()
        given = point.prior if prior is None else prior
        ends = (float(given[0]), float(given[1])) if isinstance(given, tuple) else (float(given), float(given))
        ceilings = [Limit.parse(text, point).ceiling for text in wanted]
        parts = int(bool(wanted)) + int(reference is not None)
        watches = [
            Watch.new(text, alpha / parts / len(wanted), np.array([c]))
            for text, c in zip(wanted, ceilings, strict=True)
        ]
        places: Floats = np.empty(0)
        if reference is not None:
            places, bounds = _bounds(reference, point.lam, ends, alpha / parts * OF_REFERENCE)
            watches.append(Watch.new(DRIFT, alpha / parts * (1 - OF_REFERENCE), bounds))
        kept = dataclasses.replace(point, metrics={})
        return cls(kept, ends, places, watches, alpha)

    def update(self, new: Scores, *, seen: bool = False) -> tuple[Alarm, ...]:
        """Take a batch, in time proportional to its size.

        Args:
            new: scores of the point's model that contain its lambda, for any prior; targets 0, 1 or `UNKNOWN`. The
                cases that have labels should be those that the limits are about: for recall, positives whether alerted
                on or not.
            seen: these cases were in an earlier batch, without labels, so that only what labels tell is new.

        Returns:
            The alarms that this batch raises; none that was there already.

        Raises:
            InputError: all that is wrong with the batch, which is then left out as a whole.
        """
        problems = Problems()
        problems.add(*problems_of_new(self.point.model, self.point.lam, new))
        problems.check(new.weight is None, "a monitor counts cases and takes no weights: leave them out")
        problems.raise_if_any()
        row = new.log_odds[place_of(self.point.lam, new, problems)]
        alert = self.point.decide(row, new.prior)
        self.batches += 1
        self.cases += 0 if seen else len(row)
        self.labelled += int((new.target != UNKNOWN).sum())
        raised = []
        told = {alarm.name for alarm in self.alarms}
        for watch in self.watches:
            limit = None if watch.name == DRIFT else Limit.parse(watch.name, self.point)
            if seen and (limit is None or limit.name == "alert_rate"):
                values, counts = np.zeros(1), np.zeros((len(watch.ceilings), 1))
            elif limit is None:
                values, counts = np.array([1.0, 0.0]), self._counts(row.astype(np.float64) - logit(new.prior))
            else:
                values, counts = limit.counts(new.target, alert)
            watch.add(values, counts, self.batches)
            log_e = watch.log_e(self.batches)
            if log_e >= -math.log(watch.alpha) and watch.name not in told:
                raised.append(Alarm(watch.name, self.batches, log_e, self._sentence(watch)))
        self.alarms += raised
        return tuple(raised)

    def _counts(self, ratio: Floats) -> Floats:
        """(2P, 2) how many scores are at or above each place, and how many below; then the other way around."""
        below = np.searchsorted(np.sort(ratio), self.places)
        above = np.stack([len(ratio) - below, below], axis=1)
        return np.concatenate([above, above[:, ::-1]]).astype(np.float64)

    def _sentence(self, watch: Watch) -> str:
        certain = f"by chance this happens in {watch.alpha:.2g} of streams at most, however long"
        if watch.name != DRIFT:
            limit, ceiling = Limit.parse(watch.name, self.point), watch.ceilings[0]
            late, bound = limit.told(watch.recent), limit.told(ceiling)
            return f"{watch.name} no longer holds: {limit.name} is {late:.3g} of late, the limit {bound:.3g}; {certain}"
        at = int(watch.log_wealth.max(axis=1).argmax())
        many = "more" if at < len(self.places) else "fewer"
        place = self.places[at % len(self.places)] + logit(self.prior[0])
        return (
            f"the scores have drifted: {many} of them than the reference allows are above log-odds {place:.3g} (at a "
            f"prior of {self.prior[0]:.3g}); {certain}. Find out by `check_label_shift` whether the share of positives "
            "explains it"
        )

    # ---------------------------------------------------------------------------------------- on disk

    def to_json(self) -> str:
        """All that the monitor knows, readable by `from_json`: what continues from it is as if it had never stopped."""
        raw = {
            "format": FORMAT,
            "point": json.loads(self.point.to_json()),
            "prior": list(self.prior),
            "alpha": self.alpha,
            "places": self.places.tolist(),
            "batches": self.batches,
            "cases": self.cases,
            "labelled": self.labelled,
            "alarms": [alarm._asdict() for alarm in self.alarms],
            "watches": [_watch_to_raw(watch) for watch in self.watches],
        }
        return json.dumps(raw, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Monitor:
        """The monitor of a JSON text.

        Raises:
            InputError: text that is not JSON, or not a monitor's.
        """
        try:
            raw = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"a monitor is JSON, which this is not: {error}") from None
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            got = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
            raise InputError(f"a monitor has format {FORMAT!r}, got {got!r}; it may be of a later version")
        try:
            return cls(
                point=OperatingPoint.from_json(json.dumps(raw["point"])),
                prior=(float(raw["prior"][0]), float(raw["prior"][1])),
                places=np.array(raw["places"], np.float64),
                watches=[_watch_of_raw(watch) for watch in raw["watches"]],
                alpha=float(raw["alpha"]),
                batches=int(raw["batches"]),
                cases=int(raw["cases"]),
                labelled=int(raw["labelled"]),
                alarms=[Alarm(**alarm) for alarm in raw["alarms"]],
            )
        except InputError:
            raise
        except (KeyError, IndexError, TypeError, ValueError) as error:
            told = f"lacks {error}" if isinstance(error, KeyError) else f"has a value that cannot be: {error}"
            raise InputError(f"the monitor {told}; it was changed or cut off, begin a new one") from None

    def save(self, path: str | Path) -> None:
        """Write the monitor as JSON, whole or not at all."""
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        partial.write_text(self.to_json(), encoding="utf-8")
        partial.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> Monitor:
        """Read a monitor that `save` wrote.

        Raises:
            InputError: no such file, or as `from_json`.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"there is no monitor {path}")
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except InputError as error:
            raise InputError(f"{path}: {problem}" for problem in error.problems) from None
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: a monitor is JSON, which this is not: {error}") from None


def _watch_to_raw(watch: Watch) -> dict[str, Any]:
    log_wealth = [[None if math.isinf(v) else v for v in row] for row in watch.log_wealth.tolist()]
    return dataclasses.asdict(watch) | {"ceilings": watch.ceilings.tolist(), "log_wealth": log_wealth}


def _watch_of_raw(raw: Mapping[str, Any]) -> Watch:
    log_wealth = np.array([[-math.inf if v is None else v for v in row] for row in raw["log_wealth"]], np.float64)
    watch = Watch(**{**raw, "ceilings": np.array(raw["ceilings"], np.float64), "log_wealth": log_wealth})
    if log_wealth.shape != (len(watch.ceilings), len(ODDS_RATIOS)):
        raise ValueError(f"the wealth of {watch.name!r} has shape {log_wealth.shape}")
    return watch


# ------------------------------------------------------------------------------------------- limits


@dataclass(frozen=True)
class Limit:
    """A bound on a metric that is a mean over cases, as a ceiling on a mean loss in [0, 1]."""

    name: str
    """Of the metric, or `cost`."""
    floor: bool
    """Whether it is a floor, so that the loss is 1 less the metric."""
    ceiling: float
    costs: Cost | None = None

    @classmethod
    def parse(cls, text: str, point: OperatingPoint | None) -> Limit:
        """Read `metric>=value`, `metric<=value`, or `cost<=value` by the costs that a point was chosen for.

        Raises:
            InputError: another form, a metric that is no mean over cases, a bound the wrong way or at the end of its
                range.
        """
        if isinstance(text, str) and text.replace(" ", "").startswith("cost<="):
            return cls._of_cost(text, point)
        constraint = Constraint.parse(text)
        name = constraint.metric.name
        if name not in _MEANS:
            raise InputError(
                f"a limit to watch is on a metric that is a mean over cases ({', '.join(sorted(_MEANS))}, cost), "
                f"got {name!r}"
            )
        if not constraint.is_demanding:
            raise InputError(f"{text!r} limits {name} from its good side: turn the relation around")
        floor = constraint.relation == ">="
        ceiling = 1 - constraint.bound if floor else constraint.bound
        if not 0 < ceiling < 1:
            raise InputError(f"{text!r} is broken by one case, or by none: a bound to watch lies inside (0, 1)")
        return cls(name, floor, ceiling)

    @classmethod
    def _of_cost(cls, text: str, point: OperatingPoint | None) -> Limit:
        if point is None or "cost" not in point.needs:
            raise InputError(f"{text!r} needs a point that was chosen for costs, and this one was not")
        costs = Cost.parse(point.needs["cost"])
        worst = max(dataclasses.astuple(costs))
        try:
            bound = float(text.partition("<=")[2])
        except ValueError:
            raise InputError(f"a limit on cost reads like 'cost<=0.4', got {text!r}") from None
        if not 0 < bound < worst:
            raise InputError(f"a cost to watch for lies inside (0, {worst:g}), which a case may cost, got {text!r}")
        return cls("cost", False, bound / worst, costs)

    def told(self, loss: float) -> float:
        """The metric at a mean loss."""
        if self.costs is not None:
            return loss * max(dataclasses.astuple(self.costs))
        return 1 - loss if self.floor else loss

    def counts(self, target: NDArray, alert: Mask) -> tuple[Floats, Floats]:
        """(V,) losses in [0, 1] and (1, V) how many of the cases that the metric counts have them."""
        if self.costs is None:
            counted, error = _MEANS[self.name]
            some = counted(target, alert)
            wrong, n = np.count_nonzero(error(target, alert) & some), np.count_nonzero(some)
            return np.array([1.0, 0.0]), np.array([[wrong, n - wrong]], np.float64)
        c, known = self.costs, target != UNKNOWN
        positive = target == 1
        cells = (positive & alert, positive & ~alert, known & ~positive & alert, known & ~positive & ~alert)
        values = np.array([c.tp, c.fn, c.fp, c.tn]) / max(dataclasses.astuple(c))
        return values, np.array([[np.count_nonzero(cell) for cell in cells]], np.float64)


def problems_of_watching(
    limits: Sequence[str],
    prior: float | tuple[float, float] | None,
    alpha: float,
    point: OperatingPoint | None = None,
) -> list[str]:
    """What is wrong with what is to be watched; without a point, all but what limits on cost ask of it."""
    problems = Problems()
    sound = isinstance(alpha, float) and 0 < alpha < 1
    problems.check(sound, f"the chance of a false alarm (alpha) lies in (0, 1), such as 0.01, got {alpha!r}")
    for text in limits:
        if point is None and isinstance(text, str) and text.strip().startswith("cost"):
            continue
        try:
            Limit.parse(text, point)
        except InputError as error:
            problems.add(*error.problems)
    ends = (0.5, 0.5) if prior is None else prior if isinstance(prior, tuple) else (prior, prior)
    proper = len(ends) == 2 and all(isinstance(p, float | np.floating) and 0 < p < 1 for p in ends)
    proper = proper and ends[0] <= ends[1]
    problems.check(proper, f"a prior lies in (0, 1), or is a range (low, high) within; got {prior!r}")
    return list(problems)


# ------------------------------------------------------------------------------------------- drift


def _bounds(
    reference: Reference, lam: Mapping[str, float], prior: tuple[float, float], error: float
) -> tuple[Floats, Floats]:
    """(P,) places, and (2P,) how large the share above each, and then the share below each, may truly be.

    Places are scores of the reference, quantiles of either class. The share of a class above one of its own is that of
    an order statistic, and above one of the other class's it is binomial; Clopper-Pearson bounds hold for both. At a
    threshold that was chosen on both classes they need not, so it is none of the places.
    """
    scores = reference.scores
    ratio = scores.log_odds[place_of(lam, scores, Problems())].astype(np.float64) - logit(scores.prior)
    weight = np.ones(len(ratio)) if scores.weight is None else scores.weight
    of_class = [(ratio[scores.target == c], weight[scores.target == c]) for c in (0, 1)]
    levels = (0.1, 0.25, 0.5, 0.75, 0.9), (0.97, 0.99, 0.997)
    places = np.unique(
        np.concatenate(
            [
                np.quantile(of_class[0][0], levels[0] + levels[1], method="higher"),
                np.quantile(of_class[1][0], levels[0], method="higher"),
            ]
        )
    )
    each = error / (4 * len(places))  # two classes, two sides
    ends = [_clopper_pearson(values, w, places, each) for values, w in of_class]
    most = [(1 - pi) * ends[0][1] + pi * ends[1][1] for pi in prior]
    least = [(1 - pi) * ends[0][0] + pi * ends[1][0] for pi in prior]
    above, below = np.max(most, axis=0), 1 - np.min(least, axis=0)
    return places, np.clip(np.concatenate([above, below]), 1e-12, 1 - 1e-12)


def _clopper_pearson(values: Floats, weight: Floats, places: Floats, error: float) -> tuple[Floats, Floats]:
    """One-sided bounds, each with an error, of the share of values at or above places; of Kish's number of samples."""
    n = effective_size(weight)
    share = np.array([weight[values >= place].sum() for place in places]) / weight.sum()
    k = share * n
    low = np.where(k > 0, stats.beta.ppf(error, np.maximum(k, 1e-9), n - k + 1), 0.0)
    high = np.where(k < n, stats.beta.ppf(1 - error, k + 1, np.maximum(n - k, 1e-9)), 1.0)
    return low, high
