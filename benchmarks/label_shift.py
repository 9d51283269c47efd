"""Adapting to a new prior without labels: what it recovers, and whether tests, intervals and alarms keep their word.

    python benchmarks/label_shift.py train FOLDER_OF_TABLES --scores CACHE [--more creditcard.csv] [--seeds 3]
    python benchmarks/label_shift.py adapt --scores CACHE
    python benchmarks/label_shift.py limits --scores CACHE
    python benchmarks/label_shift.py shift-test --scores CACHE
    python benchmarks/label_shift.py images [--draws 100]
    python benchmarks/label_shift.py prior
    python benchmarks/label_shift.py monitor [--streams 500]
    python benchmarks/label_shift.py quapy      (with QuaPy installed)

`train` fits the default model on every table with `tunelater.fit` (50% to train on, 25% to choose on, 25% held back)
and keeps the scores of the validation and of the held-back rows at 5 x 5 lambdas, those of the held-back rows after a
drift of one column, and the pooled features. The rest works on these.

`adapt`: a point is chosen on validation rows for a prior of 1% and costs of a miss to a false alarm. Then the prior
becomes 5% or 0.1%: a deployment sample is drawn from the held-back rows, and the point is chosen anew (same needs, same
validation rows) for the prior estimated from it without labels (`adopted`, and the most likely one), for the one
estimated from its labels, and for the true one. Costs per case are those of all held-back rows, weighted to the true
prior, so that the sample's luck is not counted.

`limits` says why adapting falls short: the standard error of the most likely prior, and what it comes from. What it is
the mean of is the best function of the scores at that prior, so that no estimate from them does better.

`shift-test`: how often the test says drift where there is label shift alone, and where a column has moved. `images`:
the same for images (scikit-learn's digits), by their scores and by the pooled features, where they are darker or
blurred. `prior` and `monitor` draw binormal scores, of which the truth is known.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.stats import norm
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

import tunelater
from defaults import HEADERLESS
from links import markdown
from tunelater import recipes
from tunelater.config import ImagesConfig
from tunelater.data.image_form import ImageSource
from tunelater.data.reading import read_table
from tunelater.data.splits import TensorSplit
from tunelater.distributions import at as at_lambda
from tunelater.losses import logit
from tunelater.metrics import prior_weight
from tunelater.monitoring import Monitor
from tunelater.problems import DoubtfulInputWarning
from tunelater.scoring import Scores
from tunelater.shift import Reference, check_label_shift, estimate_prior, maximum_likelihood_prior, unlabelled
from tunelater.tuning import OperatingGrid, OperatingPoint

BEFORE, AFTER = 0.01, (0.05, 0.001)
COSTS = (10.0, 100.0)
"""Of a miss, in false alarms."""
MOST = 5_000
"""Cases of a deployment sample; fewer where the table has not enough positives or negatives for the prior."""
FRACTIONS = (0.5, 0.25, 0.25)

# ------------------------------------------------------------------------------------------- models


def tables(folder: Path, more: list[Path]) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """Name, frame and positive label: the rarer value of the last column."""
    for path in [*sorted(folder.glob("*.csv")), *sorted(folder.glob("*.npz")), *more]:
        if path.suffix == ".npz":
            arrays = np.load(path)
            frame = pd.DataFrame(arrays["X"]).rename(columns="x{}".format).assign(target=arrays["y"].astype(int))
        else:
            frame = read_table(path, header=path.stem not in HEADERLESS)
        label = frame[frame.columns[-1]].astype(str).value_counts()
        if label.iloc[-1] / len(frame) < 0.1:
            yield path.stem, frame, str(label.index[-1])


def train(folder: Path, more: list[Path], cache: Path, seeds: int) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name, frame, positive in tables(folder, more):
        for seed in range(seeds):
            path = cache / f"{name}-{seed}.npz"
            if path.exists():
                continue
            start, target = time.monotonic(), str(frame.columns[-1])
            config = tunelater.Config(seed=seed)
            run = tunelater.fit(frame, target=target, positive=positive, config=config, fractions=FRACTIONS)
            held, validation = (frame.iloc[run.rows[split]] for split in ("test", "validation"))
            numeric = [c for c in frame.columns[:-1] if pd.api.types.is_numeric_dtype(frame[c])]
            column = numeric[np.random.default_rng(seed).integers(len(numeric))]
            moved = held.assign(**{column: held[column] + 0.5 * float(frame[column].std())})
            arrays = {}
            for split, rows in (("validation", validation), ("held", held), ("moved", moved)):
                samples = run.form.labelled(rows).samples
                grid = run.config.lambdas.grid(5)
                scores = run.score(samples, grid, split=split)
                with torch.inference_mode():
                    features = run.model.features(samples.inputs(slice(0, len(samples))))
                arrays |= {
                    f"{split}_log_odds": scores.log_odds,
                    f"{split}_target": scores.target,
                    f"{split}_inputs": samples.inputs(slice(0, len(samples))).numpy().astype(np.float32),
                    f"{split}_features": features.numpy().astype(np.float32),
                }
            lambdas = {f"lambda_{k}": v for k, v in scores.lambdas.items()}
            np.savez_compressed(path, prior=scores.prior, **arrays, **lambdas)
            print(path.stem, f"{time.monotonic() - start:.0f} s", flush=True)


class Cached:
    """The scores of one training."""

    def __init__(self, path: Path) -> None:
        self.data, _, seed = path.stem.rpartition("-")
        self.seed = int(seed)
        self.arrays = np.load(path)
        self.lambdas = {k.removeprefix("lambda_"): v for k, v in self.arrays.items() if k.startswith("lambda_")}
        self.validation, self.held = self.scores("validation"), self.scores("held")

    def scores(self, split: str) -> Scores:
        log_odds, target = self.arrays[f"{split}_log_odds"], self.arrays[f"{split}_target"]
        return Scores(log_odds, target, self.lambdas, float(self.arrays["prior"]), None, split, self.data)


def cached(folder: Path) -> Iterator[Cached]:
    for path in sorted(folder.glob("*.npz")):
        yield Cached(path)


def taken(scores: Scores, rows: np.ndarray, lambdas: list[int] | None = None) -> Scores:
    some = list(range(len(scores))) if lambdas is None else lambdas
    names = {name: values[some] for name, values in scores.lambdas.items()}
    return Scores(scores.log_odds[some][:, rows], scores.target[rows], names, scores.prior, None, "field", scores.model)


def cases(target: np.ndarray, prior: float) -> int:
    """How many a deployment sample has."""
    negatives, positives = np.bincount(target, minlength=2)
    return min(MOST, int(positives / prior * 0.75), int(negatives))


def deployed(target: np.ndarray, prior: float, rng: np.random.Generator) -> np.ndarray:
    """Rows of a sample of which a share `prior` is positive, in expectation; each row once at most."""
    rows, n = [np.flatnonzero(target == c) for c in (0, 1)], cases(target, prior)
    positives = min(rng.binomial(n, prior), len(rows[1]))
    return np.concatenate([rng.choice(rows[1], positives, False), rng.choice(rows[0], n - positives, False)])


# ------------------------------------------------------------------------------------------- what adapting recovers


def cost_of(point: OperatingPoint, scores: Scores, prior: float, miss: float) -> float:
    """Per case, at a prior, on all samples."""
    row = next(i for i in range(len(scores)) if scores.lam(i) == point.lam)
    wrong = point.decide(scores.log_odds[row], scores.prior) != (scores.target == 1)
    return float(prior_weight(scores.target, None, prior) @ (wrong * np.where(scores.target == 1, miss, 1.0)))


def adapt(folder: Path, draws: int) -> pd.DataFrame:
    rows = []
    for run in cached(folder):
        rng = np.random.default_rng(run.seed)
        for miss in COSTS:

            def chosen(prior: float, run: Cached = run, miss: float = miss) -> OperatingPoint:
                return OperatingGrid(run.validation, prior).select(cost={"fn": miss, "fp": 1.0})

            before = chosen(BEFORE)
            reference = Reference.of(run.validation, before.lam)
            at = [reference.at]
            for prior in AFTER:
                true = chosen(prior)
                for draw in range(draws):
                    new = taken(run.held, deployed(run.held.target, prior, rng), at)
                    without, by_labels = (
                        estimate_prior(reference, unlabelled(new), before=BEFORE),
                        estimate_prior(reference, new, before=BEFORE),
                    )
                    points = {
                        "before": before,
                        "most likely": chosen(max(without.value, 0.5 / without.n)),
                        "without labels": chosen(without.adopted),
                        "with labels": chosen(by_labels.adopted),
                        "true prior": true,
                    }
                    costs = {name: cost_of(point, run.held, prior, miss) for name, point in points.items()}
                    of = {"data": run.data, "seed": run.seed, "prior": prior, "miss": miss, "draw": draw}
                    of |= {"n": len(new.target), "positives": int(run.validation.target.sum())}
                    told = {"value": without.value, "low": without.low, "high": without.high}
                    rows.append({**of, **told, "share": new.target.mean(), **costs})
        print(run.data, run.seed, flush=True)
    return pd.DataFrame(rows)


def recovered(some: pd.DataFrame) -> tuple[float, float]:
    """The share of the cost reduction by labels that is there without, and that reduction as a share of the cost."""
    before, without, by_labels = (some[c].sum() for c in ("before", "without labels", "with labels"))
    gain = before - by_labels
    return float((before - without) / gain) if gain > 0 else np.nan, float(gain / before)


def adapt_tables(results: pd.DataFrame) -> str:
    columns = {}
    for (prior, miss), some in results.groupby(["prior", "miss"], sort=False):
        cells = {}
        for data, of_data in some.groupby("data"):
            share, gain = recovered(of_data)
            by_seed = [recovered(s)[0] for _, s in of_data.groupby("seed")]
            spread = f" ({np.nanmin(by_seed):.2f} to {np.nanmax(by_seed):.2f})" if gain >= 0.02 else ""
            cells[data] = f"{share:.2f}{spread} of {gain:.0%}" if gain >= 0.02 else f"no gain ({gain:.0%})"
        relative = some.assign(**{c: some[c] / some["before"] for c in ("with labels", "without labels", "before")})
        share, gain = recovered(relative)
        cells["all, relative to the cost before"] = f"**{share:.2f}** of {gain:.0%}"
        columns[f"to {prior:.1%}, miss {miss:g}"] = cells
    told = [markdown(pd.DataFrame(columns).rename_axis("data"))]
    means = {}
    for (prior, miss), some in results.groupby(["prior", "miss"], sort=False):
        names = ["before", "most likely", "without labels", "with labels", "true prior"]
        relative = some[names].div(some["before"], axis=0).groupby(some["data"]).mean()
        inside = ((some["low"] <= prior) & (prior <= some["high"])).groupby([some["data"], some["seed"]]).mean()
        means[f"{prior:.1%}, {miss:g}"] = {
            **{n: f"{relative[n].mean():.3f}" for n in names[1:]},
            "estimate / prior, median and quartiles": "{1:.2f} ({0:.2f} to {2:.2f})".format(
                *np.quantile(some["value"] / prior, [0.25, 0.5, 0.75])
            ),
            "interval holds the prior": f"{inside.mean():.3f}",
        }
    return "\n\n".join([*told, markdown(pd.DataFrame(means).T.rename_axis("prior, miss"))])


# ------------------------------------------------------------------------------------------- why not more


def limits(folder: Path) -> str:
    """Over the prior, means of the trainings: the standard error of the estimate, its parts by their source, and the
    estimate from all held-back rows, weighted to the prior as if they were any number of new cases."""
    rows = []
    for run in cached(folder):
        reference = Reference.of(run.validation, run.validation.lam(len(run.validation) // 2))
        target, held = run.validation.target, reference.log_ratios(run.held)
        for prior in AFTER:
            n = cases(run.held.target, prior)
            h = np.expm1(reference.log_ratios()) / (1 - prior + prior * np.exp(reference.log_ratios()))
            negative, positive = h[target == 0], h[target == 1]
            distance = (positive.mean() - negative.mean()) * prior
            shares = np.array([1 - prior, prior])
            drawn = shares @ [np.mean(x**2) for x in (negative, positive)] - (prior * positive.mean()) ** 2
            parts = {"new cases": np.sqrt(drawn / n)}
            for name, share, x in zip(("negatives", "positives"), shares, (negative, positive), strict=True):
                parts[f"reference's {name}"] = share * x.std() / np.sqrt(len(x))
            error = {"standard error": np.sqrt(sum(v**2 for v in parts.values())), **parts}
            many = maximum_likelihood_prior(held, None, prior_weight(run.held.target, None, prior))
            of = {"prior": f"{prior:.1%}", "data": f"{run.data} ({n:,})"}
            rows.append({**of, **{k: v / distance for k, v in error.items()}, "estimate from any number": many / prior})
    told = []
    for prior, some in pd.DataFrame(rows).groupby("prior", sort=False):
        means = some.drop(columns="prior").groupby("data").mean().map("{:.2f}".format)
        told.append(f"at {prior}, over the prior\n\n" + markdown(means.rename_axis("data (new cases)")))
    return "\n\n".join(told)


# ------------------------------------------------------------------------------------------- the test


def shift_test(folder: Path, draws: int) -> pd.DataFrame:
    rows = []
    for run in cached(folder):
        rng = np.random.default_rng(100 + run.seed)
        some = [0, len(run.validation) // 2, len(run.validation) - 1]
        everything = np.arange(len(run.validation.target))
        small = rng.permutation(everything)[:5_000]
        reference = Reference.of(taken(run.validation, small, some), run.validation.lam(some[1]))
        for prior in AFTER:
            for draw in range(draws):
                at = deployed(run.held.target, prior, rng)
                for what in ("held", "moved"):
                    new = unlabelled(taken(run.scores(what), at, some))
                    of = {"data": run.data, "seed": run.seed, "prior": prior, "draw": draw, "what": what}
                    for columns in ("scores", "features", "inputs"):
                        given = None
                        if columns != "scores":
                            given = (run.arrays[f"validation_{columns}"][small], run.arrays[f"{what}_{columns}"][at])
                        test = check_label_shift(reference, new, features=given, draws=199, seed=draw)
                        rows.append({**of, "columns": columns, "p": test.p})
        print(run.data, run.seed, flush=True)
    return pd.DataFrame(rows)


def shift_table(results: pd.DataFrame) -> str:
    rejected = results.assign(rejected=results["p"] < 0.05)
    by = rejected.groupby(["what", "prior", "data", "columns"])["rejected"].mean().unstack("columns")
    told = []
    for (what, prior), cells in by.groupby(level=["what", "prior"]):
        name = "label shift alone" if what == "held" else "a column moved by half a standard deviation"
        cells = cells.droplevel(["what", "prior"])[["scores", "features", "inputs"]]
        cells.loc["mean"] = cells.mean()
        told.append(f"{name}, prior {prior:.1%}\n\n" + markdown(cells.map("{:.2f}".format).rename_axis("data")))
    return "\n\n".join(told)


def darker(x: torch.Tensor, config: ImagesConfig, share: float) -> torch.Tensor:
    """Normalised images (N, 3, H, W) with a share of their brightness."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (config.mean, config.std))
    return ((x * std + mean) * share - mean) / std


def blurred(x: torch.Tensor, _: ImagesConfig, share: float) -> torch.Tensor:
    """Images mixed with means of 3 x 3 pixels."""
    around = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
    return (1 - share) * x + share * torch.nn.functional.avg_pool2d(around, 3, 1)


CHANGES = (
    ("none", darker, 1.0),
    ("0.97 of the brightness", darker, 0.97),
    ("0.9 of the brightness", darker, 0.9),
    ("a tenth blurred", blurred, 0.1),
    ("half blurred", blurred, 0.5),
)


def images_table(draws: int, *, n: int = 200, n_reference: int = 400, epochs: int = 8) -> str:
    """How often drift is said of n unlabelled digits, of which a share is 8, each time against others that were held
    back."""
    torch.set_num_threads(1)
    digits = load_digits()
    with tempfile.TemporaryDirectory() as folder:
        for i, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
            place = Path(folder, "digits", "eight" if digit == 8 else "other")
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pixels * 15.9).astype(np.uint8)).save(place / f"{i}.png")
        config = recipes.shortened(recipes.images("resnet32", size=8), epochs)
        config = dataclasses.replace(config, early_stopping=None)
        source = ImageSource(cache=Path(folder, "cache"))
        data = Path(folder, "digits")
        run = tunelater.fit(data, positive="eight", images=source, config=config, fractions=(0.4, 0.3, 0.3))
        whole = run.form.labelled(data, source).samples
        held = whole.take(torch.from_numpy(np.concatenate([run.rows["validation"], run.rows["test"]])))
        x, y = held.inputs(slice(0, len(held))), held.target
    assert config.images is not None
    grid = run.config.lambdas.grid(3)
    lam = {name: np.asarray(values)[[0, 4, 8]] for name, values in grid.items()}
    seen = {}
    for name, change, share in CHANGES:
        samples = TensorSplit(change(x, config.images, share), y)
        seen[name] = run.score(samples, lam, split="held"), run.features(samples, at_lambda(lam, 1))
    print(f"AUC {roc_auc_score(y, seen['none'][0].log_odds[1]):.3f} of {len(y)} images held back", flush=True)
    target, told = y.numpy(), []
    for prior in (0.03, 0.2):
        for name, (scores, features) in seen.items():
            rejected = np.zeros(2)
            for draw in range(draws):
                rng = np.random.default_rng([draw, round(100 * prior)])
                order = rng.permutation(len(target))
                known, rest = order[:n_reference], order[n_reference:]
                positives = round(n * prior)
                at = np.concatenate([rest[target[rest] == 1][:positives], rest[target[rest] == 0][: n - positives]])
                reference = Reference.of(taken(seen["none"][0], known), scores.lam(1))
                new = unlabelled(taken(scores, at))
                for j, given in enumerate((None, (seen["none"][1][known], features[at]))):
                    rejected[j] += check_label_shift(reference, new, features=given, draws=199, seed=draw).p < 0.05
            row = {"positive": f"{prior:.0%}", "change": name}
            told.append({**row, "scores": rejected[0] / draws, "and pooled features": rejected[1] / draws})
            print(told[-1], flush=True)
    return markdown(pd.DataFrame(told).set_index(["positive", "change"]).map("{:.2f}".format))


# ------------------------------------------------------------------------------------------- known truth


def binormal(rng: np.random.Generator, n: int, prior: float, distance: float, spread: float = 1.0) -> Scores:
    """Scores whose log ratios are right where `spread` is 1."""
    y = (rng.random(n) < prior).astype(np.int8)
    z = rng.normal(size=n) * np.where(y == 1, spread, 1.0) + distance * y
    log_odds = (distance * z - distance**2 / 2 + logit(0.02)).astype(np.float32)
    return Scores(log_odds[None], y, {"tau": np.zeros(1)}, 0.02)


def prior_table(runs: int) -> str:
    cells = {}
    for positives, ratio in ((20, 49), (60, 49), (200, 49)):
        for distance, spread in ((2.0, 1.0), (3.0, 1.0), (3.0, 1.5)):
            of = {}
            for after, n in ((0.05, 2000), (0.001, 2000)):
                rng, held, width, value = np.random.default_rng(0), 0, [], []
                for _ in range(runs):
                    reference = binormal(rng, positives * (1 + ratio), 1 / (1 + ratio), distance, spread)
                    if reference.target.sum() < 2:
                        continue
                    e = estimate_prior(Reference.of(reference), unlabelled(binormal(rng, n, after, distance, spread)))
                    held += e.low <= after <= e.high
                    width.append((e.high - e.low) / after)
                    value.append(e.value / after)
                share = held / len(width)
                of[f"{after:.1%}, {n:,} cases"] = (
                    f"{share:.3f}; {np.median(width):.2g}; {np.mean(value):.2f} ± {np.std(value):.2f}"
                )
            wrong = ", ratios wrong" if spread != 1 else ""
            cells[f"{positives}; AUC {norm.cdf(distance / np.hypot(1, spread)):.2f}{wrong}"] = of
            print(cells, flush=True)
    return markdown(pd.DataFrame(cells).T.rename_axis("positives; AUC"))


def monitor_table(streams: int, batches: int = 100, size: int = 200, start: int = 20) -> str:
    """Alarms of a monitor: the recall is exactly its limit, 0.9, the reference has 3,000 cases, 2% positive."""
    prior, distance = 0.02, 2.5
    z = distance + norm.ppf(0.1)
    threshold = distance * z - distance**2 / 2 + logit(prior)
    point = OperatingPoint({"tau": 0.0}, 1 / (1 + np.exp(-threshold)), threshold, prior)
    changes = {
        "none": (prior, 0.0, 0.0),
        "prior 5%": (0.05, 0.0, 0.0),
        "prior 10%": (0.1, 0.0, 0.0),
        "all scores up by 0.3 sd": (prior, 0.3, 0.0),
        "recall 0.8": (prior, 0.0, norm.ppf(0.8) - norm.ppf(0.9)),
        "recall 0.6": (prior, 0.0, norm.ppf(0.6) - norm.ppf(0.9)),
    }
    cells = {}
    for name, (after, up, positives_up) in changes.items():
        delays: dict[str, list[float]] = {"recall>=0.9": [], "drift": []}
        n = streams if name == "none" else streams // 5
        early = 0
        for stream in range(n):
            rng = np.random.default_rng(stream)
            monitor = Monitor.of(point, Reference.of(binormal(rng, 3000, prior, distance)), limits="recall>=0.9")
            for batch in range(batches):
                changed = batch >= start and name != "none"
                scores = binormal(rng, size, after if changed else prior, distance)
                by = distance * (up + positives_up * (scores.target == 1)) if changed else 0.0
                log_odds = (scores.log_odds + np.float32(1) * by).astype(np.float32)
                monitor.update(Scores(log_odds, scores.target, scores.lambdas, scores.prior))
            early += any(alarm.batch <= start for alarm in monitor.alarms)
            for alarm in monitor.alarms:
                delays[alarm.name].append(alarm.batch - start)
        told = {"streams": str(n)}
        for what, delay in delays.items():
            quartiles = (
                ""
                if not delay or name == "none"
                else "; {1:.0f} ({0:.0f} to {2:.0f})".format(*np.quantile(delay, [0.25, 0.5, 0.75]))
            )
            told[what] = f"{len(delay) / n:.3f}{quartiles}"
        cells[name] = told | {"before the change": "-" if name == "none" else f"{early / n:.3f}"}
        print(cells, flush=True)
    return markdown(pd.DataFrame(cells).T.rename_axis("change after batch 20"))


def quapy_table(folder: Path) -> str:
    """Ours beside QuaPy's EMQ at a tight tolerance, on every training's held-back rows."""
    from quapy.method.aggregative import EMQ

    apart, capped, ratio, n = [], [], [], 0
    for run in cached(folder):
        reference = Reference.of(run.validation, run.validation.lam(len(run.validation) // 2))
        rng = np.random.default_rng(run.seed)
        for prior in AFTER:
            new = taken(run.held, deployed(run.held.target, prior, rng), [reference.at])
            g, pi = reference.log_ratios(new), reference.prior
            start = time.perf_counter()
            ours = maximum_likelihood_prior(g)
            middle = time.perf_counter()
            p = 1 / (1 + np.exp(-(g + logit(pi))))
            EMQ.MAX_ITER = 100_000
            theirs, _ = EMQ.EM(np.array([1 - pi, pi]), np.stack([1 - p, p], axis=1), epsilon=1e-10)
            end = time.perf_counter()
            default, _ = EMQ.EM(np.array([1 - pi, pi]), np.stack([1 - p, p], axis=1))
            apart.append(abs(ours - theirs[1]))
            capped.append(abs(ours - default[1]) / max(ours, 1e-4))
            ratio.append((end - middle) / (middle - start))
            n += 1
    return (
        f"n = {n}: apart by {np.median(apart):.1e} in the median, {np.max(apart):.1e} at most (tolerance 1e-10); "
        f"at QuaPy's default tolerance by {np.median(capped):.2%} of the prior in the median, {np.max(capped):.0%} at "
        f"most; ours {np.median(ratio):.0f} times as fast ({np.min(ratio):.1f} to {np.max(ratio):.0f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    jobs = ["train", "adapt", "limits", "shift-test", "images", "prior", "monitor", "quapy"]
    parser.add_argument("job", choices=jobs)
    parser.add_argument("folder", type=Path, nargs="?", help="of tables, to train on")
    parser.add_argument("--more", type=Path, nargs="*", default=[], help="further tables")
    parser.add_argument("--scores", type=Path, help="folder of cached scores")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=4, help="deployment samples of each training and prior")
    parser.add_argument("--runs", type=int, default=500, help="draws of a cell, for `prior`")
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--out", type=Path, help="a CSV file of single results")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", DoubtfulInputWarning)  # few positives are the point
    if arguments.job in ("train", "adapt", "limits", "shift-test", "quapy") and arguments.scores is None:
        parser.error("say where scores are kept: --scores FOLDER")
    if arguments.job == "train":
        if arguments.folder is None:
            parser.error("name the folder of tables")
        train(arguments.folder, arguments.more, arguments.scores, arguments.seeds)
    elif arguments.job in ("adapt", "shift-test"):
        measure, table = (adapt, adapt_tables) if arguments.job == "adapt" else (shift_test, shift_table)
        results = measure(arguments.scores, arguments.draws)
        if arguments.out:
            results.to_csv(arguments.out, index=False)
        print(table(results))
    elif arguments.job == "images":
        print(images_table(arguments.draws))
    elif arguments.job == "limits":
        print(limits(arguments.scores))
    elif arguments.job == "prior":
        print(prior_table(arguments.runs))
    elif arguments.job == "monitor":
        print(monitor_table(arguments.streams))
    else:
        print(quapy_table(arguments.scores))


if __name__ == "__main__":
    main()
