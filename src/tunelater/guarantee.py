"""Guarantees: constraints that hold for future data with a stated confidence.

The search for an operating point flatters what it finds. So the samples are divided: part A only proposes, and part B,
which nothing was chosen on, tests. Part A orders a few candidates (lambda, threshold) from the safest to the one that
it likes best; part B tests them in that order and stops at the first that fails (learn then test: Angelopoulos et al.
2021; fixed-sequence testing: Bauer 1991). All that passed before hold at once with the confidence asked for, whatever
part A did, so nothing is lost by trying several. The last of them is the point.

MAPIE's `BinaryClassificationController` does the testing, with lambda and threshold as its parameters: exact binomial
tests (its p-values for binary losses), and for several constraints the largest p-value, which lets each be tested at
the full level, since a point is only wrong to certify if one of them is wrong. What is added here: the order, which
MAPIE learns from p-values alone, without an objective; subgroups; how many samples are needed; and two of its details
(`_Failures`, `_InOrder`).

Exact tests count samples. A rate within a class (recall, fpr, specificity) holds at any prior. One that depends on the
share of positives (precision, npv, accuracy, alert_rate) holds where the share is that of the samples. Where it is
another, known up to an interval (`FieldPrior`), and label shift is all that has changed, such a rate follows from two
that stay, recall and fpr: it is certified at the worst end of the interval, and the error allowed is divided between
the interval, recall and fpr (Bonferroni).
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from mapie.risk_control import BinaryClassificationController, BinaryRisk, FWERProcedure
from numpy.typing import NDArray
from scipy import special

from tunelater.distributions import keyed_rng
from tunelater.metrics import Constraint, Curve, Floats, per_lambda
from tunelater.needs import Columns, Prior, groups_of, parse_constraint
from tunelater.problems import InputError, Problems, did_you_mean
from tunelater.scoring import Scores

SHARE = 0.6
"""Of the samples that certify, by default: measured in `benchmarks/guarantee.py --split`."""
STEPS = 16
"""Candidates that are tested at most. Each costs a pass over part B, and nothing else."""
SAFEST = -5.0
"""Where the order starts, in standard deviations of part A's own test: a safer candidate gains nothing."""
ROUNDS = 4
"""Refinements of part A's thresholds: each makes the grid four times as fine where it is too coarse for the test."""

Merit = Callable[[int, Curve], Floats]
"""How good each threshold of a lambda is (its index, and its curve): higher is better."""


class Uncertified(InputError):
    """The samples cannot certify what was asked for; the message says how many could."""


class _Rate(NamedTuple):
    """A metric that is a share of samples, by the cells of the confusion table."""

    event: tuple[str, ...]
    of: tuple[str, ...]
    base: str
    """What it takes a number of. Alerts without a failure are positives, so precision takes positives."""
    whole: str
    """What it is a share of, in words."""

    @property
    def needs_prior(self) -> bool:
        """Whether it changes with the share of positives."""
        return {"tp", "fn"} != set(self.of) != {"fp", "tn"}


RATES: Mapping[str, _Rate] = {
    "recall": _Rate(("tp",), ("tp", "fn"), "positives", "positives"),
    "fpr": _Rate(("fp",), ("fp", "tn"), "negatives", "negatives"),
    "specificity": _Rate(("tn",), ("fp", "tn"), "negatives", "negatives"),
    "precision": _Rate(("tp",), ("tp", "fp"), "positives", "alerts"),
    "npv": _Rate(("tn",), ("tn", "fn"), "negatives", "cases left alone"),
    "accuracy": _Rate(("tp", "tn"), ("tp", "fp", "fn", "tn"), "samples", "samples"),
    "alert_rate": _Rate(("tp", "fp"), ("tp", "fp", "fn", "tn"), "samples", "samples"),
}
"""What can be certified: shares of independent samples, for which the binomial test is exact."""

_CELLS = {"tn": 0, "fp": 1, "fn": 2, "tp": 3}
"""2 * target + alert."""


@dataclass(frozen=True)
class FieldPrior:
    """The share of positives where a guarantee is to hold, if it is another than that of the samples."""

    low: float
    high: float
    error: float
    """The chance that it lies outside, a part of what the guarantee may err."""
    chosen_for: Prior
    """What candidates are put in order for: the share, or a range of it, as estimated without part B."""


@dataclass(frozen=True, eq=False)
class Claim:
    """A constraint to certify: on all samples, or on those of one subgroup."""

    constraint: Constraint
    members: NDArray[np.bool_] | None = None
    """(N,) which samples it speaks of; None for all."""
    group: str = ""
    """The subgroup in words, such as `sex=F`."""
    field: FieldPrior | None = None
    """Where it is to hold; None for the samples' own share of positives."""

    def __str__(self) -> str:
        return f"{self.constraint} where {self.group}" if self.group else str(self.constraint)

    @property
    def rate(self) -> _Rate:
        return RATES[self.constraint.metric.name]

    @property
    def is_mixed(self) -> bool:
        """Whether it is of another share of positives than the samples', and so certified by recall and fpr."""
        return self.rate.needs_prior and self.field is not None

    @property
    def is_floor(self) -> bool:
        return self.constraint.relation == ">="

    @property
    def tolerated(self) -> float:
        """The share of failures that the constraint allows."""
        return 1 - self.constraint.bound if self.is_floor else self.constraint.bound

    @property
    def failure(self) -> tuple[str, ...]:
        """The cells that count against it."""
        rate = self.rate
        return tuple(cell for cell in rate.of if (cell in rate.event) != self.is_floor)

    def at(self, rows: NDArray[np.intp]) -> Claim:
        """The same claim for some of the samples."""
        return self if self.members is None else dataclasses.replace(self, members=self.members[rows])

    def base(self, target: NDArray) -> int:
        """How many samples of what it takes there are: positives, negatives or all."""
        base = self.rate.base
        counted = np.ones(len(target), bool) if base == "samples" else target == (base == "positives")
        return int((counted if self.members is None else counted & self.members).sum())

    @property
    def noun(self) -> str:
        """What `base` counts, in words."""
        return f"{self.rate.base} with {self.group}" if self.group else self.rate.base


@dataclass(frozen=True)
class Certified:
    """What part B says of one constraint at the certified point."""

    constraint: str
    metric: str
    bound: float
    """Certified: for future data the rate is no worse."""
    observed: float
    """The rate in part B."""
    limit: float
    """The one-sided Clopper-Pearson limit of the rate at the same confidence, for this point taken by itself. It is no
    part of the guarantee: part B also had a say in which of the candidates became the point."""
    failures: int
    """Samples that count against the constraint, of `n`."""
    n: int
    of: str
    """What the rate is a share of: positives, negatives, alerts, ..."""


@dataclass(frozen=True)
class Shares:
    """The shares of positives that a certificate is for, where they are not the samples' own: the interval, and the
    chance that the share lies outside."""

    low: float
    high: float
    error: float


@dataclass(frozen=True)
class Certificate:
    """What is guaranteed, at which confidence, and on what it rests."""

    confidence: float
    constraints: tuple[Certified, ...]
    n: int
    """Samples of part B, which certified."""
    n_positive: int
    n_choosing: int
    """Samples of part A, which proposed."""
    n_choosing_positive: int
    candidates: int
    """How many were to be tested."""
    passed: int
    """How many of them passed before one failed."""
    share: float
    """Of the samples that were put into part B."""
    stratified: bool
    """Whether the parts were drawn within each class."""
    seed: int
    doubts: tuple[str, ...] = ()
    """What is known to break one of its suppositions, in words."""
    shares: Shares | None = None
    """For rates that depend on the share of positives, under label shift: `observed` and `limit` are then those at the
    worst of these shares, and `failures` and `n` those in part B, at its own."""

    def __str__(self) -> str:
        """In plain words, with what is not promised."""
        told = " and ".join(self._told(c) for c in self.constraints)
        fixed = [c.constraint for c in self.constraints if RATES[c.metric].needs_prior]
        share = (
            f"where the share of positives is another, {' and '.join(fixed)} may not hold"
            if fixed
            else "another share of positives alone changes nothing"
        )
        if self.shares is not None:
            share += (
                f", and that it is within {self.shares.low:.3g} to {self.shares.high:.3g} is an estimate, whose error "
                f"of {self.shares.error:.2g} is counted and holds about; of the field nothing else may have changed"
            )
        return (
            f"Certified on {self.n:,} samples ({self.n_positive:,} positive) that nothing was chosen on: {told}. Of "
            f"all draws of such samples, {1 - self.confidence:.4g} at most certify a point that breaks a constraint, "
            "on average over future cases. This supposes that future cases come from where these samples came from, "
            "that samples are independent of each other, and that the model was neither trained nor stopped on them: "
            f"{share}, and nothing is promised after a drift of the inputs, for subgroups that were not asked for, or "
            "for any single batch. It is for one attempt: trying seeds or needs until one passes voids it."
            + "".join(f" In doubt: {doubt}." for doubt in self.doubts)
        )

    def _told(self, c: Certified) -> str:
        if self.shares is None or not RATES[c.metric].needs_prior:
            return f"{c.constraint} ({c.observed:.3f} of {c.n:,} {c.of})"
        ends = f"{self.shares.low:.3g} to {self.shares.high:.3g}"
        return f"{c.constraint} for shares of positives from {ends} ({c.observed:.3f} at the worst of them)"

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; `from_dict` reads them."""
        constraints = [dataclasses.asdict(c) for c in self.constraints]
        return dataclasses.asdict(self) | {"constraints": constraints, "doubts": list(self.doubts)}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Certificate:
        """From what `to_dict` gave.

        Raises:
            InputError: other fields, a metric that cannot be certified, numbers out of range.
        """
        try:
            rows = tuple(Certified(**row) for row in raw["constraints"])
            shares = None if raw.get("shares") is None else Shares(**raw["shares"])
            more = {"constraints": rows, "doubts": tuple(raw.get("doubts", ())), "shares": shares}
            certificate = cls(**{**raw, **more})
            sound = shares is None or (0 <= shares.low <= shares.high <= 1 and 0 <= shares.error < 1)
            sound = sound and 0 < certificate.confidence < 1 and 0 < certificate.passed <= certificate.candidates
            sound = sound and all(c.metric in RATES and 0 <= c.failures <= c.n for c in rows)
            sound = sound and all(isinstance(doubt, str) for doubt in certificate.doubts)
        except (TypeError, KeyError, AttributeError):
            sound = False
        if not sound:
            raise InputError(f"a certificate is what `Certificate.to_dict` gives, got {raw!r}")
        return certificate


class Candidate(NamedTuple):
    """A lambda, by its index, and the lowest log-odds to alert on, at the scores' prior."""

    at: int
    threshold: float


def guaranteed(
    scores: Scores,
    claims: Sequence[Claim],
    merit: Merit,
    *,
    confidence: float = 0.9,
    prior: Prior = None,
    share: float = SHARE,
    seed: int = 0,
) -> tuple[Candidate, Certificate]:
    """The best candidate that the samples certify, with its certificate.

    Args:
        scores: of samples that the model was neither trained nor stopped on.
        claims: what must hold. All at once.
        merit: how good thresholds are; it sees smoothed counts of part A, as shares at `prior` where that is a number.
            Beyond these it may know part A (`parts`), and nothing of part B.
        confidence: of the guarantee, in (0, 1).
        prior: the share of positives where the point will be used, or a range of it; None for that of the samples.
        share: of the samples that certify, in (0, 1); the others choose.
        seed: of the division, a whole number from 0 up.

    Raises:
        InputError: nothing to certify, metrics that are no shares of samples, bounds that no number of samples
            certifies, a prior at which an asked-for metric is not that of the samples, weights that differ, arguments
            out of range.
        Uncertified: too few samples, or none of the candidates passed.
    """
    problems = Problems()
    problems.add(*problems_of_claims(scores.target, scores.weight, claims, prior))
    problems.add(*problems_of_division(confidence, share, seed))
    problems.raise_if_any()
    check_enough(scores.target, claims, confidence, share, seed)
    a, b = parts(scores.target, claims, share, seed)
    open_claims = _open(claims)
    on_a, on_b = _part(scores, a), _part(scores, b)
    at = None if isinstance(prior, tuple) else prior
    candidates = ordered(on_a, [claim.at(a) for claim in open_claims], merit, at)
    of_b = [claim.at(b) for claim in open_claims]
    passed = certify(candidates, on_b, of_b, confidence)
    if not passed:
        raise Uncertified(_failed(candidates[0], on_b, of_b, confidence, share))
    point = candidates[passed - 1]
    certificate = Certificate(
        confidence=float(confidence),
        constraints=tuple(_certified(claim, point, on_b, confidence) for claim in of_b),
        n=len(b),
        n_positive=int((on_b.target == 1).sum()),
        n_choosing=len(a),
        n_choosing_positive=int((on_a.target == 1).sum()),
        candidates=len(candidates),
        passed=passed,
        share=float(share),
        stratified=_stratified(open_claims),
        seed=int(seed),
        shares=next((Shares(c.field.low, c.field.high, c.field.error) for c in claims if c.is_mixed and c.field), None),
    )
    return point, certificate


# ------------------------------------------------------------------------------------------- what can be asked for


def problems_of_claims(target: NDArray, weight: NDArray | None, claims: Sequence[Claim], prior: Prior) -> list[str]:
    """What keeps claims from being certified by any number of such samples."""
    own = float((target == 1).mean())
    problems = Problems()
    problems.check(bool(claims), "a guarantee is of constraints, such as 'recall>=0.9', got none; add one")
    for claim in claims:
        name = claim.constraint.metric.name
        if name not in RATES:
            problems.add(
                f"only shares of samples can be certified ({', '.join(RATES)}), for which there are exact tests; got "
                f"{claim}: constrain those that {name} is made of"
            )
            continue
        problems.check(
            claim.tolerated > 0,
            f"no number of samples certifies {claim}, since a single failure in the future breaks it: leave some room, "
            f"such as {name}{claim.constraint.relation}{0.99 if claim.is_floor else 0.01}",
        )
        if claim.rate.needs_prior and not claim.is_mixed and prior is not None:
            ends = prior if isinstance(prior, tuple) else (prior,)
            problems.check(
                all(math.isclose(end, own, rel_tol=1e-6) for end in ends),
                f"{claim} can be certified only at the samples' own share of positives ({own:.4g}), on which {name} "
                f"depends, got prior {' to '.join(f'{end:.4g}' for end in ends)}: leave the prior out, or constrain "
                "recall and fpr, which hold at any",
            )
    if claims and all(c.constraint.metric.name in RATES and c.tolerated >= 1 for c in claims):
        problems.add(f"{' and '.join(map(str, claims))} always holds, which needs no guarantee: tighten it")
    if weight is not None and np.ptp(weight) > 1e-9 * weight.max():
        low, high = weight.min(), weight.max()
        problems.add(
            "a guarantee counts samples, and exact tests of weighted ones do not exist: give samples without weights "
            f"(or with equal ones), got weights from {low:.4g} to {high:.4g}"
        )
    return list(problems)


def problems_of_division(confidence: float = 0.9, share: float = SHARE, seed: int = 0) -> list[str]:
    """What is wrong with the arguments of a guarantee that do not concern its samples."""

    def within(x: object) -> bool:
        return isinstance(x, int | float | np.number) and not isinstance(x, bool) and bool(0 < x < 1)

    problems = Problems()
    problems.check(within(confidence), f"the confidence of a guarantee lies in (0, 1), such as 0.9; got {confidence!r}")
    problems.check(within(share), f"the share of samples that certify lies in (0, 1), such as {SHARE}; got {share!r}")
    whole = isinstance(seed, Integral) and not isinstance(seed, bool) and 0 <= seed < 2**64
    problems.check(whole, f"a seed is a whole number from 0 up (under 2^64), got {seed!r}")
    return list(problems)


def needed(tolerated: float, confidence: float, failures: int = 0) -> int:
    """How many samples certify that at most a share `tolerated` fails, if so many of them fail.

    Without a failure this is log(1 - confidence) / log(1 - tolerated), rounded up: 22 positives without a miss for
    recall >= 0.9 at 90%.

    >>> needed(0.1, 0.9), needed(0.1, 0.9, failures=1)
    (22, 38)
    """
    alpha = 1 - confidence
    n = max(1, math.ceil(math.log(alpha) / math.log1p(-tolerated) - 1e-9))
    if failures == 0:
        return n
    low, high = n, max(2 * n, 2 * failures)
    while special.bdtr(failures, high, tolerated) > alpha:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if special.bdtr(failures, middle, tolerated) > alpha else (low, middle)
    return high


def check_enough(
    target: NDArray, claims: Sequence[Claim], confidence: float, share: float = SHARE, seed: int = 0
) -> None:
    """Whether so many samples can certify the claims at all; known before anything is scored.

    Raises:
        Uncertified: too few, with how many it takes.
    """
    shortages = _shortages(target, _open(claims), parts(target, claims, share, seed), confidence, share)
    if shortages:
        raise Uncertified(shortages)


def _open(claims: Sequence[Claim]) -> list[Claim]:
    """Without those that hold whatever is done."""
    return [claim for claim in claims if claim.tolerated < 1]


def _shortages(
    target: NDArray, claims: Sequence[Claim], parts: tuple[NDArray, NDArray], confidence: float, share: float
) -> list[str]:
    """For each claim that part B could not certify even without a failure, what it would take."""
    told = Problems()
    for claim in claims:
        if claim.is_mixed:
            told.add(*_shortage_of_mixed(target, claim, parts, confidence))
            continue
        none, one = (needed(claim.tolerated, confidence, k) for k in (0, 1))
        in_a, in_b = (claim.at(rows).base(target[rows]) for rows in parts)
        if in_b < none or not in_a:
            told.add(
                f"too few {claim.noun} to certify {claim} at {confidence:.4g}: at the least {none:,} are needed in the "
                f"part that certifies, if none of them fails ({one:,} if one does), and so about "
                f"{_whole(max(none, 1), share):,} in all; got {in_b:,} of {claim.base(target):,}. Add samples, relax "
                f"the bound, or lower the confidence"
            )
    for c, noun in ((1, "positives"), (0, "negatives")):
        short = not all((target[rows] == c).any() for rows in parts)
        told.check(not short or bool(told), f"both parts need {noun}, got {int((target == c).sum())} in all; add some")
    return list(told)


def _whole(n: int, share: float) -> int:
    """The fewest samples of a class of which the certifying part gets n."""
    whole = max(n + 1, math.floor((n - 1) / share))  # one at the least chooses
    while _certifying(whole, share) < n:
        whole += 1
    return whole


def _certifying(n: int, share: float) -> int:
    """How many of n samples go into part B."""
    return n - math.floor(n * (1 - share) + 1e-9)


# ------------------------------------------------------------------------------------------- the division


def parts(
    target: NDArray, claims: Sequence[Claim], share: float = SHARE, seed: int = 0
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Sorted rows of part A, which chooses, and of part B, which certifies, as `guaranteed` divides samples."""
    claims = _open(claims)
    return divided(target, claims, share, seed, stratified=_stratified(claims))


def _stratified(claims: Sequence[Claim]) -> bool:
    return not any(claim.rate.needs_prior and not claim.is_mixed for claim in claims)


def divided(
    target: NDArray, claims: Sequence[Claim], share: float, seed: int, *, stratified: bool
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Sorted rows of part A, which chooses, and of part B, which certifies.

    Stratified by class and by the claims' subgroups, which keeps scarce positives from ending in one part. Rates that
    depend on the share of positives need a simple drawing instead: only then are the samples of part B independent
    drawings from the population, share of positives and all.
    """
    strata = np.zeros(len(target), np.intp)
    if stratified:
        strata += target == 1
        for members in (claim.members for claim in claims if claim.members is not None):
            strata = np.unique(2 * strata + members, return_inverse=True)[1]
    in_b = np.zeros(len(target), bool)
    order = keyed_rng(seed, "folds").permutation(len(target))
    for stratum in range(strata.max() + 1):
        rows = order[strata[order] == stratum]
        in_b[rows[: _certifying(len(rows), share)]] = True
    return np.flatnonzero(~in_b), np.flatnonzero(in_b)


def _part(scores: Scores, rows: NDArray[np.intp]) -> Scores:
    log_odds, target = scores.log_odds[:, rows], scores.target[rows]
    return dataclasses.replace(scores, log_odds=log_odds, target=target, weight=None, columns={})


# ------------------------------------------------------------------------------------------- part A: the order


def ordered(
    scores: Scores, claims: Sequence[Claim], merit: Merit, prior: float | None = None, steps: int = STEPS
) -> list[Candidate]:
    """Candidates from the safest to the best, each better than all that are safer.

    How safe a candidate is, is the p-value of its worst claim in the test that is to come, on smoothed counts of these
    samples: without smoothing all thresholds below the lowest positive would be equally safe for recall. The last is
    the best whose rates meet the bounds here. Where none does, the safest alone is left.

    Args:
        scores: part A.
        claims, merit, prior: as for `guaranteed`, for the samples of part A.
        steps: how many candidates at most, evenly spread in safety (on the normal scale).
    """
    proposals = per_lambda(lambda i: _proposals(i, scores, claims, merit, prior), len(scores))
    threshold, z, worth = (np.concatenate(parts) for parts in zip(*proposals, strict=True))
    at = np.repeat(np.arange(len(scores)), [len(p[0]) for p in proposals])
    order = np.lexsort((at, -worth, z))
    best = np.maximum.accumulate(worth[order])
    better = np.append(True, best[1:] > best[:-1])
    front = order[better]
    front = front[: max(1, int((z[front] <= 0).sum()))]
    marks = np.linspace(max(SAFEST, z[front[0]]), max(SAFEST, z[front[-1]]), steps)
    chosen = np.unique(np.searchsorted(z[front], marks + 1e-12, side="right") - 1)
    return [Candidate(int(at[i]), float(threshold[i])) for i in front[chosen]]


def _proposals(
    index: int, scores: Scores, claims: Sequence[Claim], merit: Merit, prior: float | None
) -> tuple[Floats, Floats, Floats]:
    """Thresholds of one lambda, how risky each is (a normal quantile, lower is safer), and how good."""
    log_odds, positive = scores.log_odds[index], scores.target == 1

    def smoothed(members: NDArray[np.bool_] | bool) -> _Smoothed:
        return _Smoothed(*(_Class.of(log_odds[members & (positive == yes)]) for yes in (True, False)))

    whole = smoothed(True)
    parts = [whole if claim.members is None else smoothed(claim.members) for claim in claims]

    def risk(threshold: Floats) -> Floats:
        return np.stack([_risk(claim, part.curve(threshold)) for claim, part in zip(claims, parts, strict=True)])

    threshold = np.unique(np.concatenate([of_class.thresholds for of_class in whole]))
    z = risk(threshold)
    for _ in range(ROUNDS):
        size = len(threshold)
        threshold, z = _refined(threshold, z, risk)
        if len(threshold) == size:
            break
    curve = whole.curve(threshold)
    return threshold, z.max(axis=0), merit(index, curve if prior is None else curve.at_prior(prior))


def _refined(threshold: Floats, z: Floats, risk: Callable[[Floats], Floats], n: int = 3) -> tuple[Floats, Floats]:
    """With n more thresholds between neighbours that are far apart where safety is decided.

    Of many samples the test is sharp: all thresholds of a coarse grid are quite safe or quite hopeless.

    Args:
        threshold: (T,) ascending.
        z: (claims, T) what `risk` says of them.
    """
    low, worst = np.minimum(z[:, :-1], z[:, 1:]).max(axis=0), z.max(axis=0)
    high = np.maximum(worst[:-1], worst[1:])
    gaps = np.flatnonzero((low < 0) & (high > SAFEST) & (np.abs(np.diff(z)).max(axis=0) > 0.5))
    steps = np.arange(1, n + 1) / (n + 1)
    added = (threshold[gaps, None] * (1 - steps) + threshold[gaps + 1, None] * steps).reshape(-1)
    after = np.repeat(gaps + 1, n)
    if not len(gaps):
        return threshold, z
    return np.insert(threshold, after, added), np.insert(z, after, risk(added), axis=1)


def _ranks(n: int, dense: int) -> NDArray[np.intp]:
    """Ranks in [0, n), all near both ends, and geometrically fewer towards the middle."""
    low = np.unique(np.append(np.arange(min(dense, n)), np.geomspace(1, max(n / 2, 1), dense).astype(np.intp)))
    low = low[low < n]
    return np.unique(np.append(low, n - 1 - low))


def _groups(n: int, dense: int) -> NDArray[np.intp]:
    """Ranks in [0, n) at which groups begin: of one sample at both ends, of half a root of the rank towards the middle.

    The root is the error of the test in counts, which groups must not blur.
    """
    low = np.append(np.arange(min(dense, n)), np.arange(math.isqrt(8 * n) + 1) ** 2 // 16)
    low = low[low < n]
    return np.unique(np.append(low, n - 1 - low))


class _Class(NamedTuple):
    """The scores of one class, smoothed by a normal kernel."""

    n: int
    centre: Floats
    """Scores; of many those far from both ends are taken together."""
    weight: Floats
    """How many each stands for."""
    width: float
    """Of the kernel: n^(-1/3) standard deviations, which suits distribution functions."""
    thresholds: Floats
    """Some, halfway between a score and the next below, so that none depends on rounding."""

    @classmethod
    def of(cls, scores: NDArray[np.floating]) -> _Class:
        x, n = np.sort(scores).astype(np.float64), len(scores)
        if not n:
            return cls(0, x, x, 1.0, x)
        quartiles = (x[(3 * n) // 4] - x[n // 4]) / 1.35
        spread = min(x.std(), quartiles) if quartiles > 0 else x.std()
        starts, i = _groups(n, 64), _ranks(n, 24)
        weight = np.diff(np.append(starts, n)).astype(np.float64)
        between = (x[i] + x[np.maximum(i - 1, 0)]) / 2 - (i == 0)
        return cls(n, np.add.reduceat(x, starts) / weight, weight, max(float(spread) * n ** (-1 / 3), 1e-6), between)

    def above(self, threshold: Floats) -> Floats:
        """How many are above each threshold, smoothed."""
        return special.ndtr((self.centre - threshold[:, None]) / self.width) @ self.weight


class _Smoothed(NamedTuple):
    positives: _Class
    negatives: _Class

    def curve(self, threshold: Floats) -> Curve:
        tp, fp = (of_class.above(threshold) for of_class in self)
        nothing = np.zeros_like(tp)
        return Curve(threshold, tp, fp, tp, fp, nothing, float(self.positives.n), float(self.negatives.n))


def _risk(claim: Claim, c: Curve) -> Floats:
    """The p-value of a claim's test at each threshold as a normal quantile, for counts that need not be whole."""
    if claim.is_mixed:
        return _risk_of_mixed(claim, c)
    n = sum(getattr(c, cell) for cell in claim.rate.of)
    k = sum(getattr(c, cell) for cell in claim.failure)
    passes = np.maximum(n - k, 0)
    p = special.betainc(np.maximum(passes, 1e-9), np.maximum(k, 0) + 1, 1 - claim.tolerated)
    return np.clip(special.ndtri(np.where(passes > 1e-9, p, 1.0)), 2 * SAFEST, -2 * SAFEST)


# ------------------------------------------------------------------------------------------- part B: the test


class _Failures(BinaryRisk):
    """The share of failures of a claim, as MAPIE takes it."""

    def __init__(self, claim: Claim) -> None:
        failure, of = (
            np.isin(np.arange(4), [_CELLS[cell] for cell in cells]) for cells in (claim.failure, claim.rate.of)
        )
        members = True if claim.members is None else claim.members
        super().__init__(
            lambda target, alert: failure[2 * target + alert],
            lambda target, alert: of[2 * target + alert] & members,
            higher_is_better=False,
        )

    def get_value_and_effective_sample_size(self, y_true: NDArray, y_pred: NDArray) -> tuple[float, int]:
        # MAPIE gets the number of failures back as ceil(n * value), which is one too many where n * (k / n) is a little
        # more than k: 7 of 24 would count as 8. (With recall as it comes, 1 - the rate, that is every fifth.)
        value, n = super().get_value_and_effective_sample_size(y_true, y_pred)
        return (max(0.0, math.nextafter(value, 0)), n) if n > 0 else (1.0, 1)


class _InOrder(FWERProcedure):
    """Tests hypotheses in the order given, each at the full level, until one is not rejected (Bauer 1991).

    As MAPIE's `split_fixed_sequence`, which takes no other order than the one that it learns itself.
    """

    def _init_state(self, n_lambdas: int, delta: float) -> None:
        self._next, self._levels = 0, np.full(n_lambdas, delta)

    def _select_next_hypothesis(self, p_values: NDArray) -> int | None:
        return self._next if self._next < len(p_values) else None

    def _local_significance_levels(self) -> NDArray:
        return self._levels

    def _update_on_reject(self, hypothesis_index: int) -> None:
        self._next = hypothesis_index + 1


def certify(candidates: Sequence[Candidate], scores: Scores, claims: Sequence[Claim], confidence: float) -> int:
    """How many of the candidates pass, from the first on, before one fails.

    With probability `confidence` or more over the draw of the samples, all claims are true of all that pass.

    Args:
        candidates: in an order that does not depend on these samples.
        scores: part B.
        claims: for the samples of part B; each tolerates a share of failures in (0, 1).
    """
    mixed = [claim for claim in claims if claim.is_mixed]
    claims = [claim for claim in claims if not claim.is_mixed]
    passed = next(
        (i for i, each in enumerate(candidates) if not all(_mixed_holds(c, each, scores, confidence) for c in mixed)),
        len(candidates),
    )
    candidates = candidates[:passed]
    if not claims or not candidates:
        return passed
    # Recall asks nothing of the many negatives.
    classes = {cell in ("tp", "fn") for claim in claims for cell in claim.rate.of}
    rows = np.flatnonzero(np.isin(scores.target == 1, list(classes)))
    scores, claims = _part(scores, rows), [claim.at(rows) for claim in claims]
    risks = [_Failures(claim) for claim in claims]
    controller = BinaryClassificationController(
        predict_function=lambda rows, at, threshold: _alerts(scores, Candidate(int(at), threshold))[rows],
        risk=risks,
        target_level=[claim.tolerated for claim in claims],
        confidence_level=float(confidence),
        best_predict_param_choice=risks[0],
        list_predict_params=np.array(candidates, np.float64),
        fwer_method=_InOrder(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that none passes, which is told otherwise
        controller.calibrate(np.arange(len(scores.target)), scores.target)
    return len(controller.valid_predict_params)


def _alerts(scores: Scores, candidate: Candidate) -> NDArray[np.int8]:
    return (scores.log_odds[candidate.at].astype(np.float64) >= candidate.threshold).astype(np.int8)


def _certified(claim: Claim, point: Candidate, scores: Scores, confidence: float) -> Certified:
    failures, n = _counts(claim, point, scores)
    if claim.is_mixed:
        return Certified(
            constraint=str(claim),
            metric=claim.constraint.metric.name,
            bound=claim.constraint.bound,
            observed=_worst_of_mixed(claim, _Rates.of(claim, point, scores)),
            limit=_worst_of_mixed(claim, _Rates.of(claim, point, scores, confidence)),
            failures=failures,
            n=n,
            of=claim.rate.whole,
        )
    share, high = failures / n, _limit(failures, n, confidence)
    floor = claim.is_floor
    return Certified(
        constraint=str(claim),
        metric=claim.constraint.metric.name,
        bound=claim.constraint.bound,
        observed=1 - share if floor else share,
        limit=1 - high if floor else high,
        failures=failures,
        n=n,
        of=claim.rate.whole,
    )


def _counts(claim: Claim, point: Candidate, scores: Scores) -> tuple[int, int]:
    """Failures, and of how many samples."""
    count = _cells(claim, point, scores)
    return tuple(sum(count[name] for name in cells) for cells in (claim.failure, claim.rate.of))  # type: ignore[return-value]


def _cells(claim: Claim, point: Candidate, scores: Scores) -> dict[str, int]:
    """The confusion table of a claim's samples."""
    cell = 2 * scores.target + _alerts(scores, point)
    count = np.bincount(cell if claim.members is None else cell[claim.members], minlength=4)
    return {name: int(count[i]) for name, i in _CELLS.items()}


def _limit(failures: float, n: float, confidence: float) -> float:
    """The share of failures that is not exceeded, with that confidence (Clopper & Pearson 1934, one-sided)."""
    return 1.0 if failures >= n else float(special.betaincinv(failures + 1, n - failures, confidence))


def _failed(
    safest: Candidate, scores: Scores, claims: Sequence[Claim], confidence: float, share: float
) -> Iterator[str]:
    """Why even the safest candidate failed, for each claim that it did not pass."""
    for claim in claims:
        if claim.is_mixed:
            if not _mixed_holds(claim, safest, scores, confidence):
                yield _failed_of_mixed(claim, safest, scores, confidence, share)
            continue
        failures, n = _counts(claim, safest, scores)
        if n and special.bdtr(failures, n, claim.tolerated) <= 1 - confidence:
            continue
        name = claim.constraint.metric.name
        what = f"{claim} could not be certified at {confidence:.4g}: the safest candidate"
        if not n:
            yield f"{what} leaves no {claim.rate.whole} in the part that certifies; relax another constraint"
            continue
        reached = 1 - failures / n if claim.is_floor else failures / n
        limit = _limit(failures, n, confidence)
        what += (
            f" reaches {name} {reached:.4g} in the part that certifies ({n:,} {claim.rate.whole}), which shows no more "
            f"than {name}{claim.constraint.relation}{1 - limit if claim.is_floor else limit:.4g}"
        )
        if failures / n < claim.tolerated:
            more = _enough(failures / n, claim.tolerated, confidence)
            whole = _whole(more, share)
            yield f"{what}. At that rate it would take some {more:,} {claim.rate.whole} there, {whole:,} in all"
        else:
            yield f"{what}. That is not a matter of samples alone: relax {claim.constraint} or another constraint"


def _enough(share: float, tolerated: float, confidence: float) -> int:
    """About how many samples certify a claim if a given share of them, less than what it tolerates, fails."""
    n = needed(tolerated, confidence)
    while special.bdtr(math.ceil(share * n - 1e-9), n, tolerated) > 1 - confidence:
        n += 1 + n // 50
    return n


# ------------------------------------------------------------------------------------------- another share of positives


class _Rates(NamedTuple):
    """Recall and fpr of a claim's samples, from the lowest to the highest that they may be."""

    recall: tuple[float, float]
    fpr: tuple[float, float]

    @classmethod
    def of(cls, claim: Claim, point: Candidate, scores: Scores, confidence: float | None = None) -> _Rates:
        """As observed, or with a confidence as they may be."""
        n = _cells(claim, point, scores)
        return cls.of_counts(claim, n["tp"], n["fn"], n["fp"], n["tn"], confidence)

    @classmethod
    def of_counts(cls, claim: Claim, tp: float, fn: float, fp: float, tn: float, confidence: float | None) -> _Rates:
        assert claim.field is not None
        if confidence is None:
            recall, fpr = tp / max(tp + fn, 1), fp / max(fp + tn, 1)
            return cls((recall, recall), (fpr, fpr))
        # Of each rate only one limit is taken (`_slack`), so that each errs by half of what the interval leaves.
        one = 1 - max(1 - confidence - claim.field.error, 0) / 2

        def limits(yes: float, no: float) -> tuple[float, float]:
            return 1 - _limit(no, yes + no, one), _limit(yes, yes + no, one)

        return cls(limits(tp, fn), limits(fp, tn))


def _slack(claim: Claim, prior: float) -> tuple[float, float, float]:
    """By how much a claim holds at a prior, as a + b recall + c fpr: its event less its bound times what it is of, both
    as shares of all cases. Of a ceiling the negative."""
    rate, sign = claim.rate, 1 if claim.is_floor else -1
    tp, fn, fp, tn = (
        sign * ((cell in rate.event) - claim.constraint.bound * (cell in rate.of)) for cell in ("tp", "fn", "fp", "tn")
    )
    return prior * fn + (1 - prior) * tn, prior * (tp - fn), (1 - prior) * (fp - tn)


def _ends(claim: Claim) -> tuple[float, float]:
    """Of the interval of the prior: a claim's slack is linear in it, so that one of them is the worst."""
    assert claim.field is not None
    return claim.field.low, claim.field.high


def _least_slack(claim: Claim, rates: _Rates) -> float:
    """At the worst of the rates and at the worst end of the interval."""
    slacks = [_slack(claim, end) for end in _ends(claim)]
    return min(a + min(b * recall for recall in rates.recall) + min(c * fpr for fpr in rates.fpr) for a, b, c in slacks)


def _mixed_holds(claim: Claim, point: Candidate, scores: Scores, confidence: float) -> bool:
    return _least_slack(claim, _Rates.of(claim, point, scores, confidence)) >= 0


def _worst_of_mixed(claim: Claim, rates: _Rates) -> float:
    """The metric itself, likewise; NaN where it is a share of nothing."""
    values = []
    for prior in _ends(claim):
        _, b, c = _slack(claim, prior)
        recall = min(rates.recall, key=lambda x: b * x)
        fpr = min(rates.fpr, key=lambda x: c * x)
        cells = {"tp": prior * recall, "fn": prior * (1 - recall)}
        cells |= {"fp": (1 - prior) * fpr, "tn": (1 - prior) * (1 - fpr)}
        event, of = (sum(cells[name] for name in names) for names in (claim.rate.event, claim.rate.of))
        values.append(event / of if of else math.nan)
    return min(values) if claim.is_floor else max(values)


def _risk_of_mixed(claim: Claim, c: Curve) -> Floats:
    """As `_risk`: by how many standard errors a claim is missed at the worst end, half a case of each kind added."""
    (recall, of_recall), (fpr, of_fpr) = (
        ((yes + 0.5) / (n + 1), (yes + 0.5) * (n - yes + 0.5) / (n + 1) ** 3)
        for yes, n in ((c.tp, c.tp + c.fn), (c.fp, c.fp + c.tn))
    )
    z = [
        -(a + b * recall + d * fpr) / np.sqrt(b**2 * of_recall + d**2 * of_fpr)
        for a, b, d in (_slack(claim, end) for end in _ends(claim))
    ]
    return np.clip(np.max(z, axis=0), 2 * SAFEST, -2 * SAFEST)


def _times_as_many(claim: Claim, counts: tuple[float, float, float, float], confidence: float) -> float | None:
    """How many times such a table (tp, fn, fp, tn) certifies a claim; None where no number of them does."""

    def holds(times: float) -> bool:
        tp, fn, fp, tn = (times * n for n in counts)
        return _least_slack(claim, _Rates.of_counts(claim, tp, fn, fp, tn, confidence)) >= 0

    high = 1.0
    while not holds(high):
        high *= 1.25
        if high > 1e6:
            return None
    return high


def _shortage_of_mixed(
    target: NDArray, claim: Claim, parts: tuple[NDArray, NDArray], confidence: float
) -> Iterator[str]:
    assert claim.field is not None
    members = np.ones(len(target), bool) if claim.members is None else claim.members
    in_b = np.isin(np.arange(len(target)), parts[1]) & members
    positives, negatives = (max(int((in_b & (target == c)).sum()), 1) for c in (1, 0))
    alerted = [x > 0 for x in _slack(claim, claim.field.high)[1:]]  # the best that could be
    tp, fp = positives * alerted[0], negatives * alerted[1]
    counts = (tp, positives - tp, fp, negatives - fp)
    times = _times_as_many(claim, counts, confidence)
    where = f"for shares of positives from {claim.field.low:.3g} to {claim.field.high:.3g}"
    if times is None:
        yield f"no number of samples certifies {claim} {where}: narrow that by more new cases, or relax the bound"
    elif times > 1:
        yield (
            f"too few samples to certify {claim} {where} at {confidence:.4g}: if none of them fails it takes about "
            f"{math.ceil(times * positives):,} positives and {math.ceil(times * negatives):,} negatives in the part "
            f"that certifies, got {positives:,} and {negatives:,}. Add samples, relax the bound, or lower the "
            "confidence"
        )


def _failed_of_mixed(claim: Claim, safest: Candidate, scores: Scores, confidence: float, share: float) -> str:
    assert claim.field is not None
    n = _cells(claim, safest, scores)
    observed, shown = (_worst_of_mixed(claim, _Rates.of(claim, safest, scores, c)) for c in (None, confidence))
    name, relation = claim.constraint.metric.name, claim.constraint.relation
    where = f"at the worst share of positives from {claim.field.low:.3g} to {claim.field.high:.3g}"
    what = (
        f"{claim} could not be certified at {confidence:.4g}: the safest candidate reaches {name} {observed:.4g} "
        f"{where} in the part that certifies ({n['tp'] + n['fn']:,} positives, {n['fp'] + n['tn']:,} negatives), which "
        f"shows no more than {name}{relation}{shown:.4g}"
    )
    times = _times_as_many(claim, (n["tp"], n["fn"], n["fp"], n["tn"]), confidence)
    if times is None:
        return (
            f"{what}. That is not a matter of samples alone: relax {claim.constraint} or another constraint, or give "
            "more new cases, which narrow the interval of the share"
        )
    more = math.ceil(times * (n["tp"] + n["fn"]))
    return f"{what}. At these rates it would take some {more:,} positives there, {_whole(more, share):,} in all"


def claims_of(
    constraints: Iterable[str | Constraint],
    columns: Columns = MappingProxyType({}),
    field: FieldPrior | None = None,
) -> list[Claim]:
    """What constraints claim: one claim each, or of those `in every` value of a column one for each value.

    Args:
        field: the share of positives where they are to hold, if it is not that of the samples.

    Raises:
        InputError: constraints that do not read, columns that are absent.
    """
    claims, problems = [], Problems()
    for c in constraints:
        constraint = c if isinstance(c, Constraint) else parse_constraint(c)
        if constraint.every is None:
            claims.append(Claim(constraint, field=field))
        elif constraint.every not in columns:
            of_column = f"{str(constraint)!r} needs the column {constraint.every!r}"
            problems.add(of_column + did_you_mean(constraint.every, columns))
        else:
            of_all = dataclasses.replace(constraint, every=None)
            groups = groups_of(columns[constraint.every])
            of_column = constraint.every
            claims += [Claim(of_all, members, f"{of_column}={value}", field) for value, members in groups.items()]
    problems.raise_if_any()
    return claims
