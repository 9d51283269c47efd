"""Scoring a grid of lambdas and all its metrics, as ratios in one run.

1. `score` (all lambdas as one matrix product) against one pass through the head for each lambda: as the paper writes it
   (features modulated, Eq. 34, then the linear layer), and as our module does it (the modulation folded into the
   layer).
2. `evaluate` of the whole grid against a loop over it with scikit-learn, with and without sample weights.

The slow ways are timed on a few lambdas and scaled up, which is fair to them: each lambda costs the same, and its
result is written to fresh memory, as ours is. Slow and ours alternate in one process; printed are the medians of both
times, and the median and range of the ratios of neighbours. Peak memory is that of the whole process.

Where other programs are running, threads that wait for each other cost both ways more than they gain, and the slow ones
most; compare with `--threads 1`.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import metrics as sk

from tunelater.data.splits import TensorSplit
from tunelater.distributions import LambdaSpace, Linear, at
from tunelater.film import FiLM, LossConditional
from tunelater.losses import loss_family
from tunelater.metrics import evaluate
from tunelater.scoring import score

METRICS = (
    "auc", "average_precision", "brier", "log_loss", "best_f1", "best_balanced_accuracy", "best_gmean",
    "precision@recall>=0.9", "recall@precision>=0.5", "recall@fpr<=0.01", "partial_auc@fpr<=0.1",
)  # fmt: skip
REPEAT = 9


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def with_scikit_learn(logits: NDArray, target: NDArray, weight: NDArray | None) -> list[float]:
    """The same metrics of one lambda, as a user would compute them."""
    s = logits.astype(np.float64)
    probability = np.exp(-np.logaddexp(0, -s))
    kw = {"sample_weight": weight}
    precision, recall, _ = sk.precision_recall_curve(target, s, **kw)
    fpr, tpr, _ = sk.roc_curve(target, s, **kw)
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = np.nanmax(2 * precision * recall / (precision + recall))
    return [
        sk.roc_auc_score(target, s, **kw),
        sk.average_precision_score(target, s, **kw),
        sk.brier_score_loss(target, probability, **kw),
        sk.log_loss(target, probability, **kw),
        f1,
        ((tpr + 1 - fpr) / 2).max(),
        np.sqrt(tpr * (1 - fpr)).max(),
        precision[recall >= 0.9].max(),
        recall[precision >= 0.5].max(),
        tpr[fpr <= 0.01].max(),
        sk.roc_auc_score(target, s, max_fpr=0.1, **kw),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--lambdas", type=int, default=1_000)
    parser.add_argument("--positives", type=float, default=0.02)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", choices=["score", "metrics"], help="one of the two comparisons")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    n, c, few = arguments.samples, arguments.features, 8

    g = torch.Generator().manual_seed(0)
    target = (torch.rand(n, generator=g) < arguments.positives).long()
    data = TensorSplit(torch.randn(n, c, generator=g) + 0.3 * target[:, None], target)
    space = LambdaSpace(gamma=Linear(0, 0.3, 0), tau=Linear(0, 3, 0.33))
    lambdas = space.sample(arguments.lambdas, np.random.default_rng(0))
    model = LossConditional(torch.nn.Identity(), FiLM(space, c, start="identity"), torch.nn.Linear(c, 2)).eval()
    with torch.no_grad():  # a model that ranks, and whose ranking depends on lambda
        model.head.weight.copy_(torch.stack([torch.zeros(c), torch.full((c,), 0.3)]))
        model.film.weight_out.normal_(std=0.02, generator=g)
    family = loss_family("vs", [float((target == 0).sum()), float((target == 1).sum())])
    print(f"{n} samples x {c} features, {len(lambdas['tau'])} lambdas, {arguments.positives:.0%} positive; "
          f"{torch.get_num_threads()} threads, PyTorch {torch.__version__}, NumPy {np.__version__}")  # fmt: skip

    def passes(head: Callable[[torch.Tensor, dict[str, float]], torch.Tensor]) -> Callable[[], None]:
        def run() -> None:
            log_odds = np.empty((few, n), np.float32)
            with torch.inference_mode():
                features = model.features(data.x)
                for i in range(few):
                    lam = at(lambdas, i)
                    log_odds[i] = family.log_odds(head(features, lam), **lam).numpy()

        return run

    def as_written(z: torch.Tensor, lam: dict[str, float]) -> torch.Tensor:
        sigma, mu = model.film(lam)
        return model.head(sigma * z + mu)

    first = score(model, data, lambdas, family).log_odds[1].copy()
    for name, head in (("as the paper writes it", as_written), ("folded, as our module does", model.logits)):
        if arguments.only == "metrics":
            break
        with torch.inference_mode():
            alone = family.log_odds(head(data.x, at(lambdas, 1)), **at(lambdas, 1))
        np.testing.assert_allclose(first, alone, rtol=1e-4, atol=1e-4)
        fast = lambda: score(model, data, lambdas, family)
        report(f"score / passes through the head {name}", passes(head), fast, few, arguments.lambdas)
    scores = score(model, data, lambdas, family)
    weight = np.random.default_rng(1).random(n)
    for name, w in (("without weights", None), ("with sample weights", weight)):
        if arguments.only == "score":
            break
        loop = [with_scikit_learn(scores.log_odds[i], scores.target, w) for i in range(2)]
        ours = evaluate(scores.log_odds[:2], scores.target, w, METRICS)
        np.testing.assert_allclose(np.array(loop).T, [ours[m] for m in METRICS], rtol=1e-9)
        report(
            f"{len(METRICS)} metrics / scikit-learn loop, {name}",
            lambda w=w: [with_scikit_learn(scores.log_odds[i], scores.target, w) for i in range(few)],
            lambda w=w: evaluate(scores.log_odds, scores.target, w, METRICS),
            few,
            arguments.lambdas,
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of the process: {peak:.2f} GiB, of which the scores are {scores.log_odds.nbytes / 2**30:.2f}")


def report(name: str, slow: Callable[[], object], fast: Callable[[], object], few: int, lambdas: int) -> None:
    slow()
    fast()  # what loads on first use
    times = np.array([(timed(slow) * lambdas / few, timed(fast)) for _ in range(REPEAT)])
    ratios = times[:, 0] / times[:, 1]
    theirs, ours = np.median(times, axis=0)
    print(
        f"{name}: {np.median(ratios):.0f} times faster ({ratios.min():.0f} to {ratios.max():.0f}, n = {REPEAT}); "
        f"medians {theirs:.1f} s and {ours:.2f} s"
    )


if __name__ == "__main__":
    main()
