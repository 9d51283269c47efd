"""What does the link do to Brier scores? Softmax against link, at the training prior and at another, and calibrated.

    python benchmarks/links.py FOLDER_OF_TABLES --out links.csv [--retina retinamnist.npz] [--figure DIAGRAM.png]
    python benchmarks/links.py --skin skin.csv --weights efficientnet-lite0.pth --out skin.csv
    python benchmarks/links.py --table --out links.csv
    python benchmarks/links.py --fewest

Trains LCT, with the VS and the focal loss, on every table (60% to train on, 20% to stop and calibrate on, 20% to report
on); on RetinaMNIST, retinopathy against none (ResNet-32, training images at beta = 10; validation and test images as
they are, more than half of them positive); and on skin images, melanoma against the rest, no lesion torn apart, trained
at beta = 20: a multilayer perceptron on the features that EfficientNet-Lite0 has from ImageNet, and ResNet-32 from
scratch (`--scratch EPOCHS`). The probability of a test sample then comes from

* the softmax of the logits, as in the paper; for a deployment prior shifted as if it were the posterior;
* the loss's link, left at the training prior, or moved to the deployment prior;
* the softmax's or the link's log-odds calibrated on the validation rows and moved there.

A deployment prior is that of the test rows under weights. Brier scores are told as skill: 1 - Brier / (pi (1 - pi)), so
that 0 is the base rate for everybody. "Mean" is over a grid of 5 x 5 lambdas, "chosen" is of the lambda with the best
Brier score of the same probabilities on validation rows (cross-fitted where they are calibrated), "mended" is what the
best recalibration on the test rows themselves would add (CORP miscalibration over pi (1 - pi)).

`--fewest` measures what calibrating costs where probabilities are right, by the number of positives fitted to.
"""

from __future__ import annotations

import argparse
import dataclasses
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.special import expit

from defaults import load
from tunelater import recipes
from tunelater.calibration import (
    KINDS,
    Calibration,
    brier_decomposition,
    calibrated,
    draw_reliability,
    fit_calibration,
    reliability,
)
from tunelater.config import Config, default_space
from tunelater.data.benchmarks import LabelledImages, Parts, image_table
from tunelater.data.decoding import cache_images
from tunelater.data.images import ImageSplit
from tunelater.data.imbalance import subsample
from tunelater.data.splits import Splits, TensorSplit
from tunelater.losses import logit
from tunelater.metrics import evaluate, prior_weight
from tunelater.models import build
from tunelater.problems import DoubtfulInputWarning
from tunelater.scoring import Scores, score
from tunelater.training import train

REFERENCE = "link, moved"
HALF = 0.5
"""The other deployment prior: that of the paper's balanced test sets."""
Sources = dict[str, tuple[Scores, Scores, bool]]
"""By name: scores to choose lambda on, scores to report on, and whether they are moved to the deployment prior."""


def sources(raw: dict[str, Scores], link: dict[str, Scores]) -> Sources:
    """From scores of the validation and test rows: raw differences of logits, and log-odds by the link."""
    made: Sources = {
        "softmax": (raw["validation"], raw["test"], False),
        "softmax, moved": (raw["validation"], raw["test"], True),
        "link": (link["validation"], link["test"], False),
        REFERENCE: (link["validation"], link["test"], True),
    }
    for name, of, kinds in (("softmax", raw, ("platt",)), ("link", link, tuple(KINDS))):
        for kind in kinds:
            fitted = Calibration.fit(kind, of["validation"])
            on, test = calibrated(of["validation"], kind), fitted.apply(of["test"])
            made[f"{name}, {kind}, moved"] = on, test, True
    return made


def skills(on: Scores, test: Scores, moved: bool, prior: float) -> dict[str, float]:
    """Of one source of probabilities at a deployment prior."""
    shift = [np.float32(logit(prior) - logit(s.prior)) if moved else np.float32(0) for s in (on, test)]
    weight = [prior_weight(s.target, None, prior) for s in (on, test)]
    brier = [
        evaluate(s.log_odds + by, s.target, w, ["brier"])["brier"]
        for s, by, w in zip((on, test), shift, weight, strict=True)
    ]
    chosen, base = int(np.argmin(brier[0])), prior * (1 - prior)
    parts = brier_decomposition(test.log_odds[chosen] + shift[1], test.target, weight[1])
    return {
        "mean": 1 - float(brier[1].mean()) / base,
        "worst": 1 - float(brier[1].max()) / base,
        "chosen": 1 - parts.brier / base,
        "mended": parts.miscalibration / base,
    }


def trained_scores(config: Config, splits: Splits, n_features: int | None) -> tuple[dict[str, Scores], ...]:
    """Raw and linked scores of the validation and test rows."""
    model = build(config, n_features=n_features) if n_features else build(config)
    trained = train(config, splits, model)
    grid = config.lambdas.grid(5)
    return tuple(
        {
            name: score(trained.model, getattr(splits, name), grid, trained.family, link=link, split=name)
            for name in ("validation", "test")
        }
        for link in (False, True)
    )


def runs(arguments: argparse.Namespace) -> Iterator[tuple[dict[str, object], tuple[dict[str, Scores], ...]]]:
    tables = [] if arguments.folder is None else sorted(arguments.folder.glob("*.csv"))
    for seed in range(arguments.seeds):
        for loss in ("vs", "focal"):
            for path in tables:
                parts, n_features = load(path, seed)
                config = Config(loss=loss, lambdas=default_space(loss), seed=seed)
                key = {"data": path.stem, "of": "tables", "loss": loss, "seed": seed}
                yield key, trained_scores(config, Splits(**parts), n_features)
            if arguments.retina:
                config = recipes.with_method(
                    recipes.shortened(recipes.images("resnet32", size=28, seed=seed), arguments.epochs), f"{loss}+lct"
                )
                config = dataclasses.replace(config, precision="bf16-mixed")
                key = {"data": "retina", "of": "retina", "loss": loss, "seed": seed}
                yield key, trained_scores(config, retina(arguments.retina, config), None)
            if arguments.skin and arguments.weights:
                config = Config(loss=loss, lambdas=default_space(loss), seed=seed)
                key = {"data": "skin", "of": "skin, features of EfficientNet-Lite0", "loss": loss, "seed": seed}
                splits = skin_features(arguments.skin, arguments.weights, seed)
                yield key, trained_scores(config, splits, splits.train.x.shape[1])
            if arguments.skin and arguments.scratch:
                config = recipes.with_method(
                    recipes.shortened(recipes.images("resnet32", size=32, seed=seed), arguments.scratch), f"{loss}+lct"
                )
                config = dataclasses.replace(config, precision="bf16-mixed")
                key = {"data": "skin", "of": "skin, ResNet-32 from scratch", "loss": loss, "seed": seed}
                yield key, trained_scores(config, skin(arguments.skin, config), None)


def retina(path: Path, config: Config) -> Splits:
    """Positives to train on are sub-sampled to beta = 10, by the seed."""
    assert config.images is not None
    parts = {}
    with np.load(path) as arrays:
        for name, part in (("train", "train"), ("validation", "val"), ("test", "test")):
            images, y = (
                arrays[f"{part}_images"].transpose(0, 3, 1, 2),
                (arrays[f"{part}_labels"].ravel() > 0).astype(np.int64),
            )
            rows = subsample(y, 10, seed=config.seed) if name == "train" else np.arange(len(y))
            parts[name] = ImageSplit(torch.from_numpy(images[rows]), torch.from_numpy(y[rows]), config.images)
    return Splits(**parts)


def skin_parts(path: Path, seed: int) -> Parts:
    """Images to train on at beta = 20; others, and the test images, keep the sizes of their classes."""
    return image_table(path, positive="melanoma", group="lesion_id", seed=seed).parts(20, seed=seed)


def pixels_of(images: LabelledImages, cache: Path, size: int) -> np.ndarray:
    assert images.paths is not None
    return np.array(cache_images(images.paths, cache, size=size)[:])


def skin(path: Path, config: Config) -> Splits:
    assert config.images is not None
    assert config.images.size is not None
    parts, made = skin_parts(path, config.seed), {}
    for name in ("train", "validation", "test"):
        part = getattr(parts, name)
        pixels = pixels_of(part, path.parent / "cache", config.images.size)
        made[name] = ImageSplit(torch.from_numpy(pixels), torch.from_numpy(part.target), config.images)
    return Splits(**made)


def skin_features(path: Path, weights: Path, seed: int, size: int = 96) -> Splits:
    """Pooled features of whole images, had in bfloat16, in units of their deviation in the training part.

    Those of all images are kept beside the list.
    """
    kept, whole = path.parent / f"features-{size}.npy", image_table(path, positive="melanoma", group="lesion_id").whole
    if not kept.exists():
        config = recipes.images("tf_efficientnet_lite0", size=size, weights=str(weights))
        assert config.images is not None
        pixels = torch.from_numpy(pixels_of(whole, path.parent / "cache", size))
        images, trunk = ImageSplit(pixels, torch.from_numpy(whole.target), config.images), build(config).trunk.eval()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            pieces = [trunk(images.inputs(slice(i, i + 64))) for i in range(0, len(images), 64)]
        np.save(kept, torch.cat(pieces).float().numpy())
    features, place = np.load(kept), {file: i for i, file in enumerate(whole.paths or ())}
    parts = skin_parts(path, seed)
    rows = {name: [place[file] for file in getattr(parts, name).paths] for name in ("train", "validation", "test")}
    mean, deviation = features[rows["train"]].mean(0), features[rows["train"]].std(0) + 1e-6
    made = {name: torch.from_numpy((features[some] - mean) / deviation) for name, some in rows.items()}
    return Splits(**{n: TensorSplit(x, torch.from_numpy(getattr(parts, n).target)) for n, x in made.items()})


def table(results: pd.DataFrame) -> str:
    """Means over data and seeds; the last column is the paired difference of "chosen" from the link's, moved, with its
    standard error over data (of one set of images, over seeds)."""
    told = []
    for (of_what, loss, at), some in results.groupby(["of", "loss", "at"]):
        n = some.groupby(["data", "seed"]).ngroups
        auc = some.groupby(["data", "seed"])["auc"].first()
        reached = f"AUC {auc.mean():.3f} ({auc.min():.3f} to {auc.max():.3f})"
        told.append(f"\n{of_what}, {loss} + LCT, at {at}, n = {n} trainings, {reached}\n")
        over = "data" if some["data"].nunique() > 1 else "seed"
        of = some.groupby(["source", over], sort=False)[["mean", "worst", "chosen", "mended"]]
        means = of.mean()
        cells = means.groupby("source", sort=False).mean().map("{:.3f}".format)
        gain = (means["chosen"] - means.loc[REFERENCE, "chosen"]).groupby("source", sort=False)
        cells["chosen - link's"] = gain.mean().map("{:+.3f}".format) + gain.sem().map(" ± {:.3f}".format)
        told.append(markdown(cells))
    return "\n".join(told)


def markdown(cells: pd.DataFrame) -> str:
    rows = [[str(cells.index.name), *cells.columns], ["---"] * (1 + cells.shape[1])]
    rows += [[str(name), *row] for name, row in zip(cells.index, cells.to_numpy().tolist(), strict=True)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def fewest(repeats: int = 200, ratio: int = 20, distance: float = 2.0) -> str:
    """Mean loss of Brier skill on new samples, over draws of samples whose log-odds are right (binormal)."""
    rng = np.random.default_rng(0)

    def drawn(n: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.repeat([1, 0], [n, ratio * n])
        return distance * (rng.normal(size=len(y)) + distance * y) - distance**2 / 2 - np.log(ratio), y

    new, target = drawn(20_000)
    base = ratio / (1 + ratio) ** 2
    right = np.mean((expit(new) - target) ** 2)
    rows = {}
    for n in (10, 20, 30, 50, 100, 200, 400):
        cost = {kind: [] for kind in KINDS}
        for _ in range(repeats):
            s, y = drawn(n)
            for kind in KINDS:
                cost[kind].append((np.mean((expit(fit_calibration(kind, s, y)(new)) - target) ** 2) - right) / base)
        rows[n] = {kind: f"{np.mean(v):.4f} ± {np.std(v) / np.sqrt(repeats):.4f}" for kind, v in cost.items()}
    return markdown(pd.DataFrame(rows).T.rename_axis("positives"))


def diagram(link: dict[str, Scores], raw: dict[str, Scores], path: Path, title: str) -> None:
    """Of the lambda at the middle of the grid, test rows at their own prior."""
    at = len(link["test"]) // 2
    mended = Calibration.fit("platt", link["validation"]).apply(link["test"])
    series = {"softmax": raw["test"], "link": link["test"], "link, Platt": mended}
    of = {name: reliability(s.log_odds[at].astype(np.float64), s.target) for name, s in series.items()}
    draw_reliability(of, path, title=title)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--retina", type=Path)
    parser.add_argument("--epochs", type=int, default=40, help="on retina images")
    parser.add_argument("--skin", type=Path, help="CSV with path, label (melanoma or other) and lesion_id")
    parser.add_argument("--weights", type=Path, help="of EfficientNet-Lite0, for features of skin images")
    parser.add_argument("--scratch", type=int, help="epochs of ResNet-32 from scratch on skin images")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="a line for each training and source; also what there is so far")
    parser.add_argument("--figure", type=Path, help="reliability diagram of mammography, VS, seed 0")
    parser.add_argument("--table", action="store_true", help="print what --out holds")
    parser.add_argument("--fewest", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", DoubtfulInputWarning)  # few positives are the point
    if arguments.fewest:
        print(fewest())
        return
    if arguments.table:
        print(table(pd.read_csv(arguments.out)))
        return
    if arguments.folder is None and arguments.skin is None:
        parser.error("name the folder of tables, or a list of skin images (--skin)")
    torch.set_num_threads(1)
    rows = []
    for key, (raw, link) in runs(arguments):
        training = link["test"].prior
        key["auc"] = float(evaluate(link["test"].log_odds, link["test"].target, metrics=["auc"])["auc"].mean())
        if arguments.figure and key["data"] == "mammography" and key["loss"] == "vs" and key["seed"] == 0:
            n = f"{len(link['test'].target):,} test rows, {int(link['test'].target.sum())} positive"
            diagram(link, raw, arguments.figure, f"mammography\n{n}")
        for name, (on, test, moved) in sources(raw, link).items():
            for at, prior in (("training prior", training), ("one half", HALF)):
                rows.append({**key, "source": name, "at": at, **skills(on, test, moved, prior)})
        if arguments.out:
            pd.DataFrame(rows).to_csv(arguments.out, index=False)
        print(key, flush=True)
    print(table(pd.DataFrame(rows)))


if __name__ == "__main__":
    main()
