"""Score histograms of rows that no memory holds: rate, memory, shards against one pass, and error against the exact
metrics.

Rows are made in pieces from their number, so that every pass sees the same ones: two normal variables a row, of which
each lambda takes another mixture. Making them is timed apart. One pass counts all; then eight shards, each with every
eighth piece, are counted, saved, read back and merged. The error is that of the first rows alone, whose scores are held
for the exact metrics.

`taskset -c 0` in front takes one core.
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from tunelater.histograms import METRICS, Bins, ScoreHistograms, merged
from tunelater.losses import logit
from tunelater.metrics import evaluate
from tunelater.scoring import Scores

SHARDS = 8


@dataclasses.dataclass
class Stream:
    """Pieces of labelled scores, and the seconds that making them took."""

    rows: int
    lambdas: int
    piece: int
    positives: float
    weighted: bool = False
    seconds: float = 0.0
    processor: float = 0.0

    def __len__(self) -> int:
        return -(-self.rows // self.piece)

    def pieces(self, numbers: range) -> Iterator[Scores]:
        for number in numbers:
            start, used = time.perf_counter(), time.process_time()
            scores = self.made(number)
            self.seconds += time.perf_counter() - start
            self.processor += time.process_time() - used
            yield scores

    def made(self, number: int) -> Scores:
        n = min(self.piece, self.rows - number * self.piece)
        g = torch.Generator().manual_seed(number)
        target = (torch.rand(n, generator=g) < self.positives).to(torch.int8)
        x = torch.randn(2, n, generator=g) + 1.5 * target
        angle = torch.linspace(0.2, 1.2, self.lambdas)
        mixture = torch.stack([angle.cos(), angle.sin()], dim=1) * (1 + angle[:, None])
        log_odds = torch.addmm(torch.full((self.lambdas, 1), logit(self.positives) - 1), mixture, x)
        weight = torch.rand(n, generator=g).double().numpy() if self.weighted else None
        lambdas = {"tau": np.linspace(0, 3, self.lambdas)}
        return Scores(log_odds.numpy(), target.numpy(), lambdas, self.positives, weight)

    def empty(self, bits: int) -> ScoreHistograms:
        lambdas = {"tau": np.linspace(0, 3, self.lambdas)}
        return ScoreHistograms.empty(lambdas, self.positives, weighted=self.weighted, bins=Bins(bits))


def peak() -> float:
    """MiB that the process has taken at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--lambdas", type=int, default=20)
    parser.add_argument("--piece", type=int, default=500_000, help="rows at a time")
    parser.add_argument("--positives", type=float, default=0.01)
    parser.add_argument("--bits", type=int, default=12, help="bins are 2^-bits wide")
    parser.add_argument("--exact-rows", type=int, default=2_000_000)
    parser.add_argument("--weighted", action="store_true")
    options = parser.parse_args()
    stream = Stream(options.rows, options.lambdas, options.piece, options.positives, options.weighted)
    print(f"{stream.rows:,} rows x {stream.lambdas} lambdas in pieces of {stream.piece:,}, {stream.positives:.0%} "
          f"positive{', weighted' if stream.weighted else ''}; {len(Bins(options.bits)):,} bins of 2^-{options.bits}; "
          f"PyTorch {torch.__version__}, NumPy {np.__version__}; {peak():.0f} MiB before")  # fmt: skip

    one = stream.empty(options.bits)
    counting, processor, rates = 0.0, 0.0, []
    for number, scores in enumerate(stream.pieces(range(len(stream)))):
        start, used = time.perf_counter(), time.process_time()
        one.update(scores)
        took = time.perf_counter() - start
        counting, processor = counting + took, processor + time.process_time() - used
        rates.append(len(scores.target) / took)
        if number == max(1, len(stream) // 10):
            early = peak()
    low, median, high = np.percentile(rates, [5, 50, 95])
    print(f"counted in {counting:.1f} s ({processor:.1f} s of processors): "
          f"{stream.rows / counting / 1e6:.1f} million rows/s, {stream.rows * stream.lambdas / counting / 1e6:.0f} "
          f"million scores/s; by piece {median / 1e6:.1f} "
          f"({low / 1e6:.1f} to {high / 1e6:.1f}, 5% to 95% of {len(rates)}) million rows/s; making them took "
          f"{stream.seconds:.1f} s ({stream.processor:.1f} s)")  # fmt: skip
    print(f"peak memory {peak():.0f} MiB, {early:.0f} MiB after a tenth of the rows; "
          f"counts are {one.counts.nbytes / 2**20:.0f} MiB")  # fmt: skip
    for name in METRICS:
        start = time.perf_counter()
        values, (lower, upper) = one.evaluate([name])[name], one.bounds(name)
        took, away = time.perf_counter() - start, max((upper - values).max(), (values - lower).max())
        print(f"{name} {values.min():.5f} to {values.max():.5f}, bounds at most {away:.1e} away; {took:.1f} s")

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{shard}.npz" for shard in range(SHARDS)]
        for shard, path in enumerate(paths):
            counted = stream.empty(options.bits)
            for scores in stream.pieces(range(shard, len(stream), SHARDS)):
                counted.update(scores)
            counted.save(path)
            del counted
        start = time.perf_counter()
        total = merged(ScoreHistograms.load(path) for path in paths)
        took, size = time.perf_counter() - start, sum(path.stat().st_size for path in paths)
    same = np.array_equal(total.counts, one.counts) and np.array_equal(total.rows, one.rows)
    apart = np.abs(total.counts - one.counts).max() / one.counts.max()
    verdict = "the same to the bit" if same else f"apart by {apart:.1e} of the largest count"
    print(f"{SHARDS} shards read and merged in {took:.1f} s ({size / 2**20:.0f} MiB of files): {verdict}; "
          f"peak {peak():.0f} MiB")  # fmt: skip

    first = dataclasses.replace(stream, rows=min(options.exact_rows, stream.rows))
    held = [first.made(number) for number in range(len(first))]
    log_odds, target = np.concatenate([s.log_odds for s in held], axis=1), np.concatenate([s.target for s in held])
    weight = np.concatenate([s.weight for s in held]) if stream.weighted else None
    few = stream.empty(options.bits)
    for scores in held:
        few.update(scores)
    exact, values = evaluate(log_odds, target, weight, METRICS), few.evaluate(METRICS)
    for name in METRICS:
        lower, upper = few.bounds(name)
        inside = ((lower - 1e-12 <= exact[name]) & (exact[name] <= upper + 1e-12)).all()
        print(f"{name} of {len(target):,} rows: off the exact one by {np.abs(values[name] - exact[name]).max():.1e} at "
              f"most; the bounds {'contain it' if inside else 'DO NOT CONTAIN IT'}")  # fmt: skip


if __name__ == "__main__":
    main()
