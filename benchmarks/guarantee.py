"""What a guarantee at 90% promises and holds, how often nothing can be certified, and what it costs: simulated with
known truth.

Two binormal features, of which each of three lambdas takes another mixture: positives are spread otherwise along each,
so that the lambdas' ROC curves have different slopes and cross. The true rates of every lambda and threshold follow in
closed form. Each repetition draws as many cases as hold the stated number of positives on average, and asks for four
needs; the uncertified choice is the best point that meets the same constraints on all of the cases.

`--quick` repeats little, to see that it runs. `--split` compares shares of the samples that certify. `--moved`
certifies on a reference at 10% positive for a field at 3% or 20%, of which there are unlabelled cases
(`tunelater.renewal`): the truth is that of the field, and the lambdas' log ratios are no straight lines, as Platt's map
has them.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tunelater.data.splits import UNKNOWN
from tunelater.distributions import Lambdas
from tunelater.guarantee import SHARE, Claim, Uncertified, claims_of, guaranteed
from tunelater.losses import logit
from tunelater.metrics import Curve, Labels, Ranking, threshold_metric
from tunelater.problems import InputError
from tunelater.renewal import Renewal, Samples
from tunelater.scoring import Scores
from tunelater.shift import Reference

CONFIDENCE = 0.9
ANGLES = np.array([0.0, 0.35, 0.7])
CENTRE, SPREAD = np.array([2.9, 1.5]), np.array([1.1, 0.6])
CELLS = ((50, 0.001), *((n, pi) for pi in (0.01, 0.1) for n in (50, 100, 200, 500)))
LARGE = ((100, 0.001), (200, 0.001), (500, 0.001))
"""100,000 to 500,000 cases a repetition."""


@dataclass(frozen=True)
class Asked:
    subject_to: tuple[str, ...]
    objective: str

    def __str__(self) -> str:
        return f"{' and '.join(self.subject_to)}, best {self.objective}"

    def merit(self, _: int, c: Curve) -> NDArray:
        m = threshold_metric(self.objective)
        return m.values(c) * (1 if m.higher_is_better else -1)


NEEDS = (
    Asked(("recall>=0.9",), "fpr"),
    Asked(("fpr<=0.05",), "recall"),
    Asked(("precision>=0.5",), "recall"),
    Asked(("recall>=0.9", "fpr<=0.05"), "balanced_accuracy"),
)


class Mixtures:
    """The population: scores of each lambda are N(0, 1) for negatives, N(mean, sd^2) for positives."""

    def __init__(self, prior: float) -> None:
        self.prior = prior
        self.weights = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
        self.mean, self.sd = self.weights @ CENTRE, np.sqrt(self.weights**2 @ SPREAD**2)

    def draw(self, rng: np.random.Generator, positives: int) -> Scores:
        n = round(positives / self.prior)
        k = min(max(2, rng.binomial(n, self.prior)), n - 2)
        x = rng.standard_normal((2, n), dtype=np.float32)
        x[:, :k] = x[:, :k] * SPREAD[:, None] + CENTRE[:, None]
        target = (np.arange(n) < k).astype(np.int8)
        return Scores(self.weights.astype(np.float32) @ x, target, {"angle": ANGLES}, self.prior)

    def truth(self, at: int, threshold: float) -> Curve:
        """Shares of the population, of one decision."""
        tpr = stats.norm.sf(threshold, self.mean[at], self.sd[at])
        tp, fp = (np.array([x]) for x in (tpr * self.prior, stats.norm.sf(threshold) * (1 - self.prior)))
        return Curve(np.array([threshold]), tp, fp, tp, fp, np.zeros(1), self.prior, 1 - self.prior)


def uncertified(curves: Sequence[Curve], claims: Sequence[Claim], merit: Callable[[int, Curve], NDArray]) -> Any:
    """The best lambda and threshold that meet the constraints on the samples; None where none does."""
    best, found = -math.inf, None
    for i, c in enumerate(curves):
        holds = np.all([claim.constraint.holds(claim.constraint.metric.values(c)) for claim in claims], axis=0)
        worth = np.where(holds & np.isfinite(c.threshold), merit(i, c), -math.inf)
        if worth.max() > best:
            best, found = worth.max(), (i, float(c.threshold[worth.argmax()]))
    return found


def repetition(population: Mixtures, positives: int, seed: int, share: float, needs: Sequence[Asked]) -> NDArray:
    """(needs, 5) certified, certified and true, its true objective; the uncertified choice's truth, and objective."""
    scores = population.draw(np.random.default_rng([seed, positives, round(1 / population.prior)]), positives)
    labels = Labels.of(scores.target)
    curves = [Ranking(row, labels).curve() for row in scores.log_odds]
    rows = np.full((len(needs), 5), np.nan)
    for row, need in zip(rows, needs, strict=True):
        claims = claims_of(need.subject_to)

        def judged(
            point: tuple[int, float], need: Asked = need, claims: Sequence[Claim] = claims
        ) -> tuple[bool, float]:
            c = population.truth(*point)
            held = all(bool(x.constraint.holds(x.constraint.metric.values(c))[0]) for x in claims)
            return held, float(threshold_metric(need.objective).values(c)[0])

        try:
            point, _ = guaranteed(scores, claims, need.merit, confidence=CONFIDENCE, share=share, seed=seed)
            row[:3] = True, *judged(point)
        except Uncertified:
            row[0] = False
        if (choice := uncertified(curves, claims, need.merit)) is not None:
            row[3:] = judged(choice)
    return rows


def repeated(job: tuple[float, int, float, Sequence[Asked], range]) -> NDArray:
    prior, positives, share, needs, seeds = job
    population = Mixtures(prior)
    return np.stack([repetition(population, positives, seed, share, needs) for seed in seeds])


def simulated(
    pool: ProcessPoolExecutor, positives: int, prior: float, repeats: int, share: float, needs: Sequence[Asked] = NEEDS
) -> NDArray:
    """(repeats, needs, 5), as `repetition` has it."""
    pieces = [range(start, min(start + 25, repeats)) for start in range(0, repeats, 25)]
    return np.concatenate(list(pool.map(repeated, [(prior, positives, share, needs, piece) for piece in pieces])))


def line(rows: NDArray) -> str:
    """Of one need in one cell."""
    certified, held = rows[:, 0] == 1, rows[:, 1]
    false = np.nansum(certified & (held == 0)) / len(rows)
    both = certified & np.isfinite(rows[:, 4])
    chosen = np.isfinite(rows[:, 3])
    broken = (rows[chosen, 3] == 0).mean() if chosen.any() else math.nan
    price = " / ".join(f"{np.median(rows[both, i]):.3f}" for i in (2, 4)) if both.any() else "-"
    error = math.sqrt(false * (1 - false) / len(rows))
    return f"{1 - false:.3f} ± {error:.3f} | {certified.mean():.3f} | {price} | {broken:.3f}"


def table(pool: ProcessPoolExecutor, cells: Sequence[tuple[int, float]], repeats: int, share: float) -> None:
    results = {cell: simulated(pool, *cell, repeats, share) for cell in cells}
    for j, need in enumerate(NEEDS):
        print(f"\n{need}, {repeats:,} repetitions a row:\n")
        print("| prior | positives | held | certified | objective, certified / not | not certified: broken |")
        print("|---|---|---|---|---|---|", flush=True)
        for (positives, prior), rows in results.items():
            print(f"| {prior:.1%} | {positives} | {line(rows[:, j])} |")


def split(pool: ProcessPoolExecutor, repeats: int) -> None:
    print("\n| share that certifies | prior | positives | need | held | certified | objective | broken |")
    print("|---|---|---|---|---|---|---|---|")
    for positives, prior in ((50, 0.1), (200, 0.01)):
        for share in (0.3, 0.5, 0.6, 0.7, 0.8):
            rows = simulated(pool, positives, prior, repeats, share)
            for j, need in enumerate(NEEDS):
                print(f"| {share} | {prior:.1%} | {positives} | {need} | {line(rows[:, j])} |", flush=True)


MOVED = tuple((n, prior, new) for prior in (0.03, 0.2) for n, new in ((100, 1000), (300, 1000), (300, 5000)))
"""Positives of the reference, share of positives in the field, and cases from there."""
NEEDS_OF_FIELD = (Asked(("precision>=0.5",), "recall"), Asked(("precision>=0.4", "alert_rate<=0.3"), "recall"),
                  Asked(("recall>=0.8",), "precision"))  # fmt: skip


def renewed(job: tuple[int, float, int, range]) -> NDArray:
    """(repeats, needs, 2) certified, and certified and true in the field."""
    positives, prior, new, seeds = job
    reference, field = Mixtures(0.1), Mixtures(prior)
    rows = np.full((len(seeds), len(NEEDS_OF_FIELD), 2), np.nan)
    for row, seed in zip(rows, seeds, strict=True):
        rng = np.random.default_rng([seed, positives, new, round(1000 * prior)])
        known, cases = reference.draw(rng, positives), field.draw(rng, round(new * prior))
        cases = dataclasses.replace(cases, target=np.full(len(cases.target), UNKNOWN, np.int8), prior=known.prior)

        def samples(scores: Scores) -> Samples:
            def of(lambdas: Lambdas) -> Scores:
                at = [int(np.flatnonzero(a == ANGLES)[0]) for a in lambdas["angle"]]
                return dataclasses.replace(scores, log_odds=scores.log_odds[at], lambdas=lambdas)

            return Samples(of, {"angle": ANGLES}, len(scores.target))

        for cell, need in zip(row, NEEDS_OF_FIELD, strict=True):
            words = {"maximize": need.objective, "subject_to": list(need.subject_to)}
            renewal = Renewal(
                samples(known), samples(cases), words, CONFIDENCE, {"angle": ANGLES[1]}, 0.1, Reference.of
            )
            try:
                point = renewal.renewed(prior).point
            except InputError:
                cell[0] = False
                continue
            threshold = point.log_odds_threshold + logit(known.prior) - logit(point.prior)
            c = field.truth(int(np.flatnonzero(point.lam["angle"] == ANGLES)[0]), threshold)
            constraints = [claim.constraint for claim in claims_of(need.subject_to)]
            cell[:] = True, all(bool(x.holds(x.metric.values(c))[0]) for x in constraints)
    return rows


def moved(pool: ProcessPoolExecutor, repeats: int) -> None:
    print(f"\n{repeats:,} repetitions a row:\n")
    print("| need | field | positives of the reference | new cases | held | certified |")
    print("|---|---|---|---|---|---|")
    for positives, prior, new in MOVED:
        pieces = [range(start, min(start + 25, repeats)) for start in range(0, repeats, 25)]
        rows = np.concatenate(list(pool.map(renewed, [(positives, prior, new, piece) for piece in pieces])))
        for need, cells in zip(NEEDS_OF_FIELD, rows.transpose(1, 0, 2), strict=True):
            certified = cells[:, 0] == 1
            false = (certified & (cells[:, 1] == 0)).mean()
            error = math.sqrt(false * (1 - false) / len(rows))
            told = f"{1 - false:.3f} ± {error:.3f} | {certified.mean():.3f}"
            print(f"| {need} | {prior:.0%} | {positives} | {new:,} | {told} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--split", action="store_true")
    parser.add_argument("--moved", action="store_true")
    parser.add_argument("--large", action="store_true", help="instead 100, 200 and 500 positives at 0.1%%")
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    repeats = 20 if asked.quick else asked.repeats
    start = time.perf_counter()
    with ProcessPoolExecutor(asked.workers) as pool:
        if asked.split:
            split(pool, repeats)
        elif asked.moved:
            moved(pool, repeats)
        else:
            table(pool, LARGE if asked.large else CELLS, repeats, share=SHARE)
    print(f"\n{time.perf_counter() - start:.0f} s with {asked.workers} process(es)")


if __name__ == "__main__":
    main()
