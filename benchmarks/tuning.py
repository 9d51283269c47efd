"""Choosing an operating point: how long it takes, and what its honest figures are worth.

    python benchmarks/tuning.py speed
    python benchmarks/tuning.py null --repeats 300

`speed` chooses among 400 lambdas and all thresholds on 20,000 samples, again in each of 1,000 bootstrap replicates, by
turns on one thread and on all that PyTorch may use, and measures a loop over scikit-learn's curves on a few lambdas and
replicates, whose time is scaled up.

`null` draws scores whose lambdas are all equally good (one score, blurred anew for each), chooses, and compares what
the choice seems to achieve, its honest figure (cross-fitted; with `--bootstrap` its interval counts choices on
resamples) and its future value, which is known in closed form: how often do the honest 95% intervals cover it, and how
often is choosing lambda said to help (p <= 0.05) where it cannot? And, with one lambda that is better, how often where
it does?
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import stats
from sklearn.metrics import precision_recall_curve

from tunelater.losses import logit
from tunelater.points import OperatingPoint
from tunelater.scoring import Scores
from tunelater.tuning import OperatingGrid

SEPARATION = 1.5
SHARED = 0.8
"""The correlation of the scores of two lambdas within a class."""


def scores(seed: int, n: int, positives: int, lambdas: int, better: float = 0.0) -> Scores:
    """Binormal scores; the last lambda separates the classes by `better` more than the others."""
    rng = np.random.default_rng(seed)
    target = (np.arange(n) < positives).astype(np.int8)
    prior = positives / n
    apart = np.where(np.arange(lambdas) == lambdas - 1, SEPARATION + better, SEPARATION)[:, None]
    log_odds = np.sqrt(1 - SHARED) * rng.standard_normal((lambdas, n), np.float32) + apart * target + logit(prior)
    log_odds += np.sqrt(SHARED) * rng.standard_normal(n)
    return Scores(log_odds.astype(np.float32), target, {"tau": np.linspace(0, 3, lambdas)}, prior)


def speed(arguments: argparse.Namespace) -> None:
    """Seconds of one choice on one thread and on all, and of a loop over scikit-learn's curves."""
    n, lambdas, replicates, all_threads = 20_000, 400, 1000, torch.get_num_threads()
    for positives in (200, 1000):
        s = scores(0, n, positives, lambdas)
        wall: dict[int, list[float]] = {1: [], all_threads: []}
        cpu: dict[int, list[float]] = {1: [], all_threads: []}
        points = []
        for _ in range(arguments.runs):
            for threads in wall:
                torch.set_num_threads(threads)
                start = time.perf_counter(), time.process_time()
                points.append(
                    OperatingGrid(s).select(maximize="precision", subject_to="recall>=0.8", bootstrap=replicates)
                )
                wall[threads].append(time.perf_counter() - start[0])
                cpu[threads].append(time.process_time() - start[1])
        rng, some = np.random.default_rng(0), 20
        start_of_loop = time.process_time()
        for i in range(some):
            rows = np.concatenate([rng.choice(np.flatnonzero(s.target == c), (s.target == c).sum()) for c in (0, 1)])
            precision, recall, _ = precision_recall_curve(s.target[rows], s.log_odds[i][rows])
            precision[recall >= 0.8].max()
        loop = (time.process_time() - start_of_loop) / some * lambdas * replicates
        same = all(point == points[0] for point in points)
        print(f"{positives} positives of {n}; all points {'equal' if same else 'DIFFER'}")
        for threads in wall:
            told = ", ".join(f"{w:.1f} s ({c:.1f} s of CPU)" for w, c in zip(wall[threads], cpu[threads], strict=True))
            print(f"  threads {threads}: {told}")
        ratios = np.divide(wall[1], wall[all_threads])
        print(f"  one thread / {all_threads}: {np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})")
        used = float(np.median(cpu[1]))
        print(f"  loop over scikit-learn's curves: {loop:.0f} s of CPU (scaled from {some}), {loop / used:.0f} times",
              flush=True)  # fmt: skip


def future(name: str, point: OperatingPoint, prior: float, better: bool, gain: float) -> float:
    """What a point achieves on the population."""
    t = point.log_odds_threshold - logit(point.prior)
    recall = stats.norm.sf(t - SEPARATION - (gain if better else 0.0))
    fpr = stats.norm.sf(t)
    alerts = prior * recall + (1 - prior) * fpr
    figures: dict[str, Callable[[], float]] = {
        "precision": lambda: prior * recall / alerts if alerts else 0.0,
        "recall": lambda: recall,
        "f1": lambda: 2 * prior * recall / (prior + alerts),
        "cost": lambda: 20 * prior * (1 - recall) + (1 - prior) * fpr,
    }
    return float(figures[name]())


NEEDS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "f1": (("f1",), {"maximize": "f1"}),
    "precision at recall >= 0.8": (("precision", "recall"), {"maximize": "precision", "subject_to": "recall>=0.8"}),
    "cost, a miss 20": (("cost",), {"cost": {"fn": 20, "fp": 1}}),
}
"""What is asked for, by name, and the metrics to compare with their future values: first that which is best."""


def null(arguments: argparse.Namespace) -> None:
    """A line of a table for each need, rule and metric: bias, coverage, and how often lambda is said to help."""
    n, positives, lambdas = arguments.n, arguments.positives, arguments.lambdas
    print(f"{n} samples, {positives} positive, {lambdas} lambdas, {arguments.repeats} repeats")
    print("| better by | need | lambda | metric | seems | honest | future | bias | covered | p <= 0.05 | helps |")
    print("|---|" + "---|" * 10)
    for better in arguments.better:
        for need in arguments.needs:
            for simplest in (True, False):
                told, start = NEEDS[need][0], time.process_time()
                rows = np.array([repeat(need, simplest, better, seed, arguments) for seed in range(arguments.repeats)])
                for metric, (seems, honest, future_, covered, noted, helps) in zip(
                    told, rows.transpose(1, 2, 0), strict=True
                ):
                    bias = honest - future_
                    compared = f"{noted.mean():.3f} | {helps.mean():.3f}" if metric == told[0] else "- | -"
                    print(
                        f"| {better:g} | {need} | {'simplest' if simplest else 'best'} | {metric} | {seems.mean():.3f} "
                        f"| {honest.mean():.3f} | {future_.mean():.3f} "
                        f"| {bias.mean():+.3f} ({bias.std() / np.sqrt(len(bias)):.3f}) "
                        f"| {covered.mean():.3f} | {compared} |",
                        flush=True,
                    )
                if arguments.time:
                    print(f"{(time.process_time() - start) / len(rows):.2f} s of CPU a choice", flush=True)


def repeat(need: str, simplest: bool, better: float, seed: int, arguments: argparse.Namespace) -> list[list[float]]:
    """Of each metric: seems, honest, future, whether the interval covers it; whether a difference from the default
    lambda is found, and whether it is a gain."""
    n, positives, lambdas = arguments.n, arguments.positives, arguments.lambdas
    told, asked = NEEDS[need]
    s = scores(seed, n, positives, lambdas, better)
    point = OperatingGrid(s).select(**asked, simplest=simplest, bootstrap=arguments.bootstrap)
    against = point.against_default
    assert against is not None
    gains = against.difference.value * (-1 if told[0] == "cost" else 1) > 0
    noted = against.p_value <= 0.05
    found = []
    for name in told:
        honest = point.honest[name]
        truth = future(name, point, positives / n, point.lam == s.lam(lambdas - 1), better)
        covered = honest.low <= truth <= honest.high
        found.append([point.metrics[name].value, honest.value, truth, covered, noted, noted and gains])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    timed = commands.add_parser("speed")
    timed.add_argument("--runs", type=int, default=3)
    timed.set_defaults(do=speed)
    simulated = commands.add_parser("null")
    for option, value in (("repeats", 300), ("n", 600), ("positives", 40), ("lambdas", 20)):
        simulated.add_argument(f"--{option}", type=int, default=value)
    simulated.add_argument("--better", type=float, nargs="+", default=[0.0, 0.5])
    simulated.add_argument("--bootstrap", type=int, help="resamples in which to choose again, for the intervals")
    simulated.add_argument("--needs", nargs="+", default=list(NEEDS), choices=list(NEEDS))
    simulated.add_argument("--time", action="store_true", help="what a choice takes")
    simulated.set_defaults(do=null)
    arguments = parser.parse_args()
    arguments.do(arguments)


if __name__ == "__main__":
    main()
