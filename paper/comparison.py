"""What results say of methods, under protocols that are always named.

* "paper": the best value *on the test part* over all settings and lambdas, each a mean over seeds. It flatters whoever
  has more candidates.
* "held-out": setting and lambda are chosen on the validation part, for each seed; so is the threshold, where a metric
  has one. The value is the test part's.
* "matched trainings" and "matched candidates": the held-out value that is to be expected of so many settings, or so
  many pairs of a setting and a lambda, drawn at random: the same number for every method.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats
from scipy.special import expit

from paper.learning import LOWER_IS_BETTER, best
from paper.methods import METHODS, Length
from paper.store import Result
from tunelater.calibration import KINDS, fit_calibration
from tunelater.distributions import keyed_rng
from tunelater.metrics import evaluate
from tunelater.problems import DoubtfulInputWarning

Protocol = Literal["paper", "held-out", "matched trainings", "matched candidates"]
PROTOCOLS: tuple[Protocol, ...] = ("paper", "held-out", "matched trainings", "matched candidates")
Floats = NDArray[np.float64]
Setting = tuple[tuple[str, str], ...]
"""Of a trial: the name and the text of each hyperparameter."""

TRANSFERRED: Mapping[str, str] = {
    "best_f1": "f1",
    "best_balanced_accuracy": "balanced_accuracy",
    "precision@recall>=0.99": "precision@recall>=0.99",
}
"""What a metric with a threshold is called where the threshold comes from the validation part."""


class Key(NamedTuple):
    """What is compared: a method on a dataset at an imbalance ratio."""

    dataset: str
    beta: float | None
    method: str


@dataclass(frozen=True)
class Study:
    """The results of one length, by what is compared."""

    length: Length
    results: Mapping[Key, Sequence[Result]]

    def of(self, dataset: str, beta: float | None, method: str) -> Sequence[Result]:
        return self.results.get(Key(dataset, beta, method), ())


def studies(results: Iterable[Result]) -> list[Study]:
    """Results by length, that of most results first: trainings of different lengths are not compared."""
    by_length: dict[Length, dict[Key, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        trial = result.trial
        by_length[trial.length][Key(trial.dataset, trial.beta, trial.method)].append(result)
    found = [Study(length, dict(keys)) for length, keys in by_length.items()]
    return sorted(found, key=lambda study: (-sum(map(len, study.results.values())), str(study.length)))


@dataclass(frozen=True)
class Cell:
    """A number of a table.

    Args:
        value: mean over seeds.
        std: of the seeds; NaN of fewer than two.
        seeds: how many.
        settings: how many of the method's settings it is made of.
        candidates: how many values were chosen among.
        hours: of all trainings that it took.
    """

    value: float
    std: float
    seeds: int
    settings: int
    candidates: int
    hours: float

    @property
    def whole(self) -> bool:
        return self.seeds >= 3


class Pick(NamedTuple):
    """A candidate of a result."""

    result: Result
    candidate: int


def cell(
    results: Sequence[Result], metric: str, protocol: Protocol, *, kind: str = "logits", budget: int | None = None
) -> Cell | None:
    """A method's number on a dataset; None without results.

    Args:
        metric: of `learning.METRICS`.
        kind: "logits", "softmax" or "posterior".
        budget: settings, or candidates, under a protocol that matches them.
    """
    if not results:
        return None
    hours = sum(result.hours for result in results)
    used = comparable(results) if protocol == "paper" else complete(results)
    seeds, each = by_seed(used), by_setting(used)
    settings, candidates = len(each), sum(len(some[0].values("test", kind, metric)) for some in each.values())
    if protocol == "paper":
        value, per_seed = _best_on_test(used, metric, kind)
    else:
        n = budget if protocol.startswith("matched") else None
        whole = protocol == "matched trainings"
        per_seed = np.array([_held_out(some, metric, kind, n, whole) for some in seeds.values()])
        value = float(per_seed.mean())
    std = float(per_seed.std(ddof=1)) if len(per_seed) > 1 else math.nan
    return Cell(value, std, len(per_seed), settings, candidates, hours)


def by_seed(results: Sequence[Result]) -> dict[int, list[Result]]:
    """Results by the seed of the training, in the order of seeds."""
    found: dict[int, list[Result]] = defaultdict(list)
    for result in results:
        found[result.trial.seed].append(result)
    return dict(sorted(found.items()))


def by_setting(results: Iterable[Result]) -> dict[Setting, list[Result]]:
    """Results by setting, in the order in which settings come."""
    found: dict[Setting, list[Result]] = defaultdict(list)
    for result in results:
        found[result.trial.setting].append(result)
    return dict(found)


def comparable(results: Sequence[Result]) -> list[Result]:
    """As many results as can be compared by their means: each setting's first n seeds, of the settings that have n.

    A mean over fewer seeds than the others' would win by its noise; and the first setting that gets one seed more,
    while a sweep goes on, must not push all others out. So n is what keeps most results, the smaller of equals.
    """
    settings = by_setting(sorted(results, key=lambda result: result.trial.seed)).values()
    most = max(map(len, settings), default=0)
    n = max(range(1, 1 + most), key=lambda n: n * sum(len(some) >= n for some in settings), default=0)
    first = {id(result) for some in settings if len(some) >= n for result in some[:n]}
    return [result for result in results if id(result) in first]


def complete(results: Sequence[Result]) -> list[Result]:
    """Those of as many seeds and settings as have a result for each pair: a seed that could choose among fewer settings
    would lower the mean. Of the seeds with most results the first k, for the k that keeps most; the larger of equals.
    """
    seeds = sorted(by_seed(results).items(), key=lambda item: (-len(item[1]), item[0]))
    of = [(seed, {result.trial.setting for result in some}) for seed, some in seeds]
    shared = [set.intersection(*(each for _, each in of[:k])) for k in range(1, len(of) + 1)]
    k = max(range(1, len(of) + 1), key=lambda k: (k * len(shared[k - 1]), k), default=0)
    kept = {seed for seed, _ in of[:k]}
    return [r for r in results if r.trial.seed in kept and r.trial.setting in shared[k - 1]]


def _best_on_test(results: Sequence[Result], metric: str, kind: str) -> tuple[float, Floats]:
    """The best mean over seeds, and its values."""
    tables = [
        np.stack([result.values("test", kind, metric) for result in some]) for some in by_setting(results).values()
    ]
    means = [table.mean(axis=0) for table in tables]
    tops = [mean[best(mean, metric)] for mean in means]
    first = best(np.array(tops), metric)
    return float(tops[first]), tables[first][:, best(means[first], metric)]


def told(result: Result, metric: str, kind: str) -> Floats:
    """(L,) what is reported of candidates that were chosen on the validation part."""
    if metric in TRANSFERRED and kind == "logits":
        return result.values("transferred", "logits", TRANSFERRED[metric])
    return result.values("test", kind, metric)


def pick(results: Sequence[Result], metric: str, kind: str = "logits") -> Pick:
    """The candidate of one seed's results that is best on the validation part."""
    values = [result.values("validation", kind, metric) for result in results]
    first = best(np.array([v[best(v, metric)] for v in values]), metric)
    return Pick(results[first], best(values[first], metric))


def _held_out(results: Sequence[Result], metric: str, kind: str, budget: int | None, whole: bool) -> float:
    chosen_on = [result.values("validation", kind, metric) for result in results]
    reported = [told(result, metric, kind) for result in results]
    if whole:  # each training counts once, with its own best lambda
        tops = [best(values, metric) for values in chosen_on]
        chosen_on = [values[[top]] for values, top in zip(chosen_on, tops, strict=True)]
        reported = [values[[top]] for values, top in zip(reported, tops, strict=True)]
    on, report = np.concatenate(chosen_on), np.concatenate(reported)
    return expected_of_best(on, report, budget or len(on), higher_is_better=metric not in LOWER_IS_BETTER)


def expected_of_best(chosen_on: Floats, reported: Floats, n: int, *, higher_is_better: bool = True) -> float:
    """The mean, over all ways to draw n of the N candidates, of what is reported of the best drawn one.

    In the order from best to worst, the i-th is the best of C(N - 1 - i, n - 1) of the C(N, n) draws.
    """
    total = len(chosen_on)
    n = min(n, total)
    order = np.argsort(-chosen_on if higher_is_better else chosen_on, kind="stable")
    share, shares = n / total, []
    for i in range(total - n + 1):
        shares.append(share)
        share *= (total - n - i) / (total - 1 - i) if total - 1 - i else 0.0
    return float(np.array(shares) @ reported[order[: len(shares)]])


# ----------------------------------------------------------------------------------------------------------- comparing


@dataclass(frozen=True)
class Difference:
    """A method beside its baseline on the same test samples.

    Args:
        value: the method's minus the baseline's, a mean over seeds.
        low, high: 95% interval; NaN of one seed.
        p: two-sided, of no difference; NaN of one seed.
        seeds: how many.
        settings: among how many each of the two could choose.
        adjusted: p by Holm's method for all comparisons of the table.
    """

    value: float
    low: float
    high: float
    p: float
    seeds: int
    settings: tuple[int, int]
    adjusted: float = math.nan


COMPARED = ("auc", "average_precision", "brier")


def difference(
    ours: Sequence[Result], theirs: Sequence[Result], metric: str, *, resamples: int = 400, seed: int = 0
) -> Difference | None:
    """The paired difference of two methods' held-out choices; None where they have no seed in common.

    Its variance is that over resamples of the test samples (within each class, the same for both methods), plus that
    of a mean of so few seeds. What seeds differ by for the samples' sake is counted in both, which errs on the safe
    side. Resampling the seeds as well would give two thirds of the variance of three, and no p below 2 / resamples,
    which no correction for a table of comparisons survives: so the interval and p are those of Student's t, with
    Satterthwaite's degrees of freedom. One seed says nothing of how much seeds differ.
    """
    one, two = by_seed(complete(ours)), by_seed(complete(theirs))
    shared = [s for s in one if s in two]
    if not shared:
        return None
    rows = []
    for s in shared:
        choices = [pick(some[s], metric) for some in (one, two)]
        rows.append(np.subtract(*(_resampled(c.result, c.candidate, metric, resamples, seed) for c in choices)))
    table = np.stack(rows)  # (seeds, 1 + resamples); the first is of the samples as they are
    value, n = float(table[:, 0].mean()), len(table)
    made_of = (n, (len(one[shared[0]]), len(two[shared[0]])))
    if n == 1:
        return Difference(value, math.nan, math.nan, math.nan, *made_of)
    of_samples = float(table[:, 1:].mean(axis=0).var(ddof=1))
    of_seeds = float(table[:, 0].var(ddof=1)) / n
    error = math.sqrt(of_samples + of_seeds)
    if error == 0:  # the same choices, or a difference without any noise
        return Difference(value, value, value, 1.0 if value == 0 else 0.0, *made_of)
    freedom = (of_samples + of_seeds) ** 2 / (of_seeds**2 / (n - 1)) if of_seeds > 0 else math.inf
    reach = float(stats.t.ppf(0.975, freedom)) * error
    p = 2 * float(stats.t.sf(abs(value) / error, freedom))
    return Difference(value, value - reach, value + reach, p, *made_of)


@functools.lru_cache(maxsize=2)
def _weights(target: bytes, resamples: int, seed: int) -> Floats:
    """(N, 1 + resamples) how often each sample is drawn within its class; once each at first."""
    rng, classes = keyed_rng(seed, "bootstrap"), np.frombuffer(target, np.int8)
    weights = np.ones((len(classes), 1 + resamples))
    for c in (0, 1):
        rows = np.flatnonzero(classes == c)
        weights[rows, 1:] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=resamples).T
    return weights


@functools.lru_cache(maxsize=4096)  # a baseline is compared with several methods
def _resampled(result: Result, candidate: int, metric: str, resamples: int, seed: int) -> Floats:
    """(1 + resamples,) a metric of the test part: of its samples, and of each resample of them.

    Where the curve of each resample would be a table of all samples and resamples at every step of the way, one walk
    through the samples in the order of their scores needs no more than a row, which stays in the processor's cache.
    """
    scores, target = result.scores("test", candidate)
    of = {"auc": _auc, "average_precision": _average_precision, "brier": _brier}[metric]
    return of(scores, target, _weights(target.tobytes(), resamples, seed))


def _rising(scores: Floats, target: NDArray[np.int8]) -> list[tuple[list[int], list[int]]]:
    """Positives and negatives of each score, from the lowest on."""
    order = np.argsort(scores)
    found: list[tuple[list[int], list[int]]] = []
    new = np.diff(scores[order], prepend=-np.inf) > 0
    for row, positive, starts in zip(order.tolist(), target[order].tolist(), new.tolist(), strict=True):
        if starts:
            found.append(([], []))
        found[-1][1 - positive].append(row)
    return found


def _auc(scores: Floats, target: NDArray[np.int8], weights: Floats) -> Floats:
    """The share of pairs of a positive and a negative in the right order, ties counted half."""
    below, pairs, some = (np.zeros(weights.shape[1]) for _ in range(3))
    for positives, negatives in _rising(scores, target):
        for row in negatives:
            below += weights[row]
        for row in positives:
            pairs += np.multiply(weights[row], below, out=some)
            for tied in negatives:
                pairs -= 0.5 * weights[row] * weights[tied]
    return pairs / (float(np.count_nonzero(target == 1)) * np.count_nonzero(target == 0))


def _average_precision(scores: Floats, target: NDArray[np.int8], weights: Floats) -> Floats:
    """Precision at each score that a positive has, times what recall gains there."""
    seen, true, total, some = (np.zeros(weights.shape[1]) for _ in range(4))
    for positives, negatives in reversed(_rising(scores, target)):
        for row in negatives:
            seen += weights[row]
        if positives:
            gained = weights[positives].sum(axis=0) if len(positives) > 1 else weights[positives[0]]
            seen += gained
            true += gained
            np.maximum(seen, 1, out=some)  # where none of a resample is seen yet, nothing is gained either
            np.divide(true, some, out=some)
            some *= gained
            total += some
    return total / np.count_nonzero(target == 1)


def _brier(scores: Floats, target: NDArray[np.int8], weights: Floats) -> Floats:
    return (expit(scores) - target) ** 2 @ weights / len(target)


def holm(differences: Mapping[object, Difference]) -> dict[object, Difference]:
    """The differences with p-values adjusted for their number, which keeps the chance of any false one at its level."""
    adjusted, largest = dict(differences), 0.0
    ranked = sorted(((d.p, key) for key, d in differences.items() if not math.isnan(d.p)), key=lambda item: item[0])
    for i, (p, key) in enumerate(ranked):
        largest = max(largest, min(1.0, (len(ranked) - i) * p))
        adjusted[key] = dataclasses.replace(differences[key], adjusted=largest)
    return adjusted


# --------------------------------------------------------------------------------------------------- added afterwards


CALIBRATIONS = ("softmax", "link", "temperature", *KINDS)


def calibrated(results: Sequence[Result]) -> dict[str, tuple[float, float]]:
    """Brier score and log-loss on the test part of one seed's held-out choice, by where the probability comes from.

    "softmax" is that of the logits, "link" the loss's own; the others are fitted to the validation part's logits. The
    link's candidate is the one whose linked Brier score is best on the validation part, the others' that of the
    softmax: the lambda whose softmax happens to be near one half is not where the link is at its best.
    """
    result, candidate = pick(results, "brier")
    (on, on_target), (test, target) = (result.scores(split, candidate) for split in ("validation", "test"))
    linked = pick(results, "brier", "posterior")
    temperature = optimize.minimize_scalar(
        lambda t: float(np.logaddexp(0, np.where(on_target == 1, -1, 1) * on * math.exp(t)).mean()), bounds=(-8, 4)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulInputWarning)  # that positives are few, the table shows
        fitted = {kind: fit_calibration(kind, on, on_target)(test) for kind in KINDS}
    log_odds = {
        "softmax": test,
        "temperature": test * math.exp(float(temperature.x)),
        **fitted,
    }
    values = evaluate(np.stack(list(log_odds.values())), target, metrics=["brier", "log_loss"])
    found = {name: (float(values["brier"][i]), float(values["log_loss"][i])) for i, name in enumerate(log_odds)}
    of_link = (linked.result.values("test", "posterior", metric)[linked.candidate] for metric in ("brier", "log_loss"))
    found["link"] = (float(next(of_link)), float(next(of_link)))
    return {name: found[name] for name in CALIBRATIONS}


def ensemble(results: Sequence[Result], metric: str) -> tuple[float, int] | None:
    """The metric of the mean log-odds of the seeds' held-out choices, and of how many; None of fewer than two seeds."""
    picks = [pick(some, metric) for some in by_seed(complete(results)).values()]
    if len(picks) < 2:
        return None
    scores, targets = zip(*(p.result.scores("test", p.candidate, "posterior") for p in picks), strict=True)
    mean = np.mean(scores, axis=0)[None].astype(np.float64)
    return float(evaluate(mean, targets[0], metrics=[metric])[metric][0]), len(picks)


def saturation(results: Sequence[Result], metric: str = "auc") -> tuple[float, float] | None:
    """How much lower a ranking metric is from a float32 softmax than from the logits it saturates: mean and largest
    over all candidates of all results."""
    gaps = [r.values("test", "logits", metric) - r.values("test", "softmax", metric) for r in results]
    if not gaps:
        return None
    together = np.concatenate(gaps)
    return float(together.mean()), float(together[np.argmax(np.abs(together))])


def baseline_of(method: str) -> str | None:
    return METHODS[method].baseline
