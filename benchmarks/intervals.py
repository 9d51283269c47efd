"""What the 95% intervals cover, and what they cost.

1. Coverage on binormal scores (unit variance, posterior log-odds as a perfectly fitted model gives them): how often the
   interval contains the true value, by metric, number of positives and AUC. Once with both class sizes fixed and the
   prior stated, once with classes drawn and no prior stated. For comparison, the percentile bootstrap within classes.
2. Time of the intervals of a million samples against that bootstrap, as ratios in one run.

`--quick` repeats little, to see that it runs.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, special, stats

from tunelater.intervals import of_proper_scores, of_ranking
from tunelater.losses import logit
from tunelater.metrics import Labels, Ranking, auc, average_precision, sample_scores
from tunelater.scoring import Scores
from tunelater.tuning import OperatingPoint, assess

BETA = 20
PRIOR = 1 / (1 + BETA)
CELLS = tuple(itertools.product((10, 30, 100), (0.8, 0.95, 0.99)))
WHOLE = ("auc", "average_precision", "brier", "log_loss")
AT_THRESHOLD = ("recall", "precision", "fpr", "alert_rate", "f1")


class Binormal:
    """Negatives N(0, 1), positives N(d, 1), with the AUC asked for; the threshold alerts on some 60% to 95% of the
    positives."""

    def __init__(self, area: float) -> None:
        self.d = math.sqrt(2) * stats.norm.ppf(area)
        self.threshold = 0.7 * self.d

    def log_odds(self, x: NDArray) -> NDArray:
        return self.d * x - self.d**2 / 2 + logit(PRIOR)

    def sample(self, rng: np.random.Generator, positives: int, negatives: int) -> tuple[NDArray, NDArray]:
        target = np.repeat([1, 0], [positives, negatives])
        return self.log_odds(rng.normal(size=len(target)) + self.d * target), target

    def truth(self) -> dict[str, float]:
        """The values in the population, by quadrature."""
        d, pi = self.d, PRIOR

        def mean(f, centre: float) -> float:
            return integrate.quad(lambda x: f(x) * stats.norm.pdf(x - centre), centre - 9, centre + 9, limit=400)[0]

        def precision(x: float) -> float:
            tp, fp = pi * stats.norm.sf(x - d), (1 - pi) * stats.norm.sf(x)
            return tp / (tp + fp)

        def loss(f) -> float:
            return pi * mean(lambda x: f(-self.log_odds(x)), d) + (1 - pi) * mean(lambda x: f(self.log_odds(x)), 0.0)

        r, f = stats.norm.sf(self.threshold - d), stats.norm.sf(self.threshold)
        alerts = pi * r + (1 - pi) * f
        return {
            "auc": stats.norm.cdf(d / math.sqrt(2)),
            "average_precision": mean(precision, d),
            "brier": loss(lambda s: special.expit(s) ** 2),
            "log_loss": loss(lambda s: np.logaddexp(0, s)),
            "recall": r,
            "precision": pi * r / alerts,
            "fpr": f,
            "alert_rate": alerts,
            "f1": 2 * pi * r / (pi + alerts),
        }


def resampled(log_odds: NDArray, target: NDArray, stated: bool, rng: np.random.Generator, n: int = 300) -> NDArray:
    """(4, 2) percentile intervals of the metrics of the lambda: samples drawn within each class, the share of positives
    too where it is not stated."""
    labels, size = Labels.of(target), len(target)
    ranking, losses = Ranking(log_odds, labels), [loss.numpy() for loss in sample_scores(log_odds, labels.sign)]
    at_once = max(1, min(n, 2_000_000 // size))
    pieces = []
    for start in range(0, n, at_once):
        rows = min(at_once, n - start)
        k = len(labels.positive)
        share = np.full(rows, PRIOR) if stated else rng.beta(k + 0.5, size - k + 0.5, rows)
        w = np.empty((rows, size))
        for members, mass in ((labels.positive, share), (labels.negative, 1 - share)):
            m = len(members)
            drawn = rng.integers(0, m, (rows, m)) + m * np.arange(rows)[:, None]
            w[:, members] = np.bincount(drawn.reshape(-1), minlength=rows * m).reshape(rows, m) * (mass[:, None] / m)
        curve = ranking.curve(w)
        pieces.append(np.concatenate([auc(curve), average_precision(curve), *(w @ x[:, None] for x in losses)], axis=1))
    return np.percentile(np.concatenate(pieces), [2.5, 97.5], axis=0).T


def coverage(job: tuple[int, float, bool, int]) -> tuple[dict[str, float], dict[str, float]]:
    """Coverage by metric in one cell: ours, and the bootstrap's."""
    positives, area, stated, repeats = job
    rng, model = np.random.default_rng([positives, int(area * 100), stated]), Binormal(area)
    truth, n = model.truth(), positives * (1 + BETA)
    line = float(model.log_odds(np.array(model.threshold)))
    needs = {"prior": PRIOR} if stated else {}
    point = OperatingPoint({}, float(special.expit(line)), line, PRIOR, needs=needs)
    ours, bootstrap = dict.fromkeys((*WHOLE, *AT_THRESHOLD), 0), dict.fromkeys(WHOLE, 0)
    for _ in range(repeats):
        k = positives if stated else min(max(1, rng.binomial(n, PRIOR)), n - 1)
        log_odds, target = model.sample(rng, k, n - k)
        scores = Scores(log_odds[None].astype(np.float32), target.astype(np.int8), {}, PRIOR, split="test")
        estimates = assess(point, scores, seed=int(rng.integers(2**32)))
        for name in ours:
            ours[name] += estimates[name].low <= truth[name] <= estimates[name].high
        for name, (low, high) in zip(WHOLE, resampled(log_odds, target, stated, rng), strict=True):
            bootstrap[name] += low <= truth[name] <= high
    return tuple({name: count / repeats for name, count in counts.items()} for counts in (ours, bootstrap))


def table(repeats: int) -> None:
    print(
        f"Coverage of 95% intervals, {repeats} samples a cell; a standard error of {math.sqrt(0.0475 / repeats):.3f}."
    )
    for stated in (True, False):
        print(f"\n{'prior stated' if stated else 'no prior stated'}; (positives, AUC):\n")
        print(f"| interval | {' | '.join(f'{n}, {area:g}' for n, area in CELLS)} |\n|{'---|' * (len(CELLS) + 1)}")
        with ProcessPoolExecutor() as pool:
            cells = list(pool.map(coverage, [(n, area, stated, repeats) for n, area in CELLS]))
        for name in (*WHOLE, *AT_THRESHOLD):
            print(f"| {name} | {' | '.join(f'{ours[name]:.3f}' for ours, _ in cells)} |")
            if name in WHOLE:
                print(f"| {name}, bootstrap | {' | '.join(f'{theirs[name]:.3f}' for _, theirs in cells)} |")


def timed(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def cost(samples: int, repeats: int) -> None:
    rng, model = np.random.default_rng(0), Binormal(0.9)
    k = samples // (1 + BETA)
    log_odds, target = model.sample(rng, k, samples - k)

    def ours() -> None:
        of_ranking(log_odds, target)
        of_proper_scores(log_odds, target)

    few = 10
    ours()
    seconds, ratios = [], []
    for _ in range(repeats):
        bootstrap = timed(lambda: resampled(log_odds, target, False, rng, few))
        seconds.append(timed(ours))
        ratios.append(bootstrap / few * 1000 / seconds[-1])
    print(
        f"\n{samples:,} samples: {np.median(seconds):.2f} s; 1,000 bootstrap replicates on one core (from {few}) take "
        f"{np.median(ratios):.0f} times as long ({min(ratios):.0f} to {max(ratios):.0f}, n = {repeats})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    table(20 if quick else 500)
    cost(100_000 if quick else 1_000_000, 3 if quick else 7)


if __name__ == "__main__":
    main()
