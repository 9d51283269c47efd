"""Which form of FiLM should images have? Each on real images, held-out protocol, beside networks at one fixed lambda.

    python benchmarks/conditioning.py RESULTS.jsonl --cifar DIR --skin CSV --epochs 5 15 --seeds 3

Trains ResNet-32 on CIFAR-10 automobile-truck (beta = 100) and on melanoma against the rest of half of the skin images
(at 32 pixels, beta = 20), in each form: FiLM on the pooled features or after every stage, the paper's start or an
identity start with scaled lambda; over the distribution of lambda ("lct"), and at one lambda with the same FiLM as a
control ("fixed"); and without FiLM at that lambda ("plain"). The learning rate falls as a cosine: the paper's two
milestones suit its 500 epochs, and cost 0.06 AUC at 15.

A line of RESULTS is one training; those that are there are not repeated, so that it can be stopped and started.
`--table` prints what is there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tunelater import recipes
from tunelater.config import Config, FiLMConfig, ScheduleConfig
from tunelater.data import benchmarks
from tunelater.data.decoding import cache_images
from tunelater.data.images import ImageSplit
from tunelater.data.splits import Splits
from tunelater.distributions import LambdaSpace, Linear
from tunelater.metrics import evaluate
from tunelater.models import build
from tunelater.scoring import score
from tunelater.training import train

FORMS = {
    "features, paper start": FiLMConfig(),
    "features, identity start": FiLMConfig(start="identity", rescale=True),
    "stages, paper start": FiLMConfig(placement="stages"),
    "stages, identity start": FiLMConfig(placement="stages", start="identity", rescale=True),
}
WIDE = LambdaSpace(gamma=Linear(0, 0.3, 0.0), tau=Linear(0, 3, 0.33))
FIXED = LambdaSpace(gamma=0.0, tau=2.0)


def arms() -> Iterator[tuple[str, str]]:
    yield "none", "plain"
    for form in FORMS:
        yield form, "lct"
        yield form, "fixed"


def parts_of(name: str, where: Path, seed: int) -> benchmarks.Parts:
    if name == "cifar":
        return benchmarks.dataset("cifar10-automobile-truck", where).parts(100, seed=seed)
    parts = benchmarks.image_table(where, positive="melanoma", group="lesion_id").parts(20, seed=seed)
    half = np.sort(np.random.default_rng(seed).permutation(len(parts.train))[::2])
    return dataclasses.replace(parts, train=parts.train.take(half))


def splits_of(parts: benchmarks.Parts, config: Config, cache: Path) -> Splits:
    def split(images: benchmarks.LabelledImages) -> ImageSplit:
        assert config.images is not None
        pixels = images.images
        if pixels is None:
            assert config.images.size is not None
            pixels = cache_images(images.paths or (), cache, size=config.images.size)[:]
        return ImageSplit(torch.from_numpy(np.array(pixels)), torch.from_numpy(images.target), config.images)

    return Splits(split(parts.train), split(parts.validation), split(parts.test))


def run(config: Config, form: str, kind: str, splits: Splits) -> dict[str, Any]:
    start = time.monotonic()
    config = dataclasses.replace(config, film=FORMS.get(form), lambdas=WIDE)
    model = build(config if kind != "plain" else dataclasses.replace(config, film=None))
    trained = train(config if kind == "lct" else dataclasses.replace(config, lambdas=FIXED), splits, model)
    grid = WIDE.grid(2) if kind == "lct" else {name: np.array([d.value]) for name, d in FIXED.items()}
    names = ["auc", "average_precision", "brier"]
    values = {}
    for split in ("validation", "test"):
        scores = score(trained.model, getattr(splits, split), grid, trained.family)
        values[split] = {m: np.asarray(v) for m, v in evaluate(scores.log_odds, scores.target, metrics=names).items()}
    best = int(np.argmax(values["validation"]["average_precision"]))
    test = values["test"]
    return {
        "auc": float(test["auc"][best]),
        "average_precision": float(test["average_precision"][best]),
        "mean auc over lambda": float(test["auc"].mean()),
        "mean AP over lambda": float(test["average_precision"].mean()),
        "range of auc over lambda": float(np.ptp(test["auc"])),
        "final loss": trained.history[-1]["loss"],
        "seconds": time.monotonic() - start,
    }


def table(results: Path) -> str:
    rows = pd.DataFrame([json.loads(line) for line in results.read_text().splitlines()])
    keys = ["data", "epochs", "kind", "form"]
    measured = ["auc", "average_precision", "mean auc over lambda", "mean AP over lambda", "range of auc over lambda"]
    grouped = rows.groupby(keys)[measured]
    mean, spread = grouped.mean().round(4), grouped.std().round(4)
    return (mean.astype(str) + " ± " + spread.astype(str)).assign(n=grouped.size()).to_markdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--cifar", type=Path)
    parser.add_argument("--skin", type=Path, help="CSV with path, label (melanoma or other) and lesion_id")
    parser.add_argument("--epochs", type=int, nargs="+", default=[10, 30])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--forms", nargs="+", choices=["none", *FORMS], default=["none", *FORMS])
    parser.add_argument("--kinds", nargs="+", choices=["plain", "lct", "fixed"], default=["plain", "lct", "fixed"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(arguments.results))
        return
    torch.set_num_threads(arguments.threads)
    lines = arguments.results.read_text().splitlines() if arguments.results.exists() else []
    keys = ("data", "epochs", "seed", "form", "kind")
    done = {tuple(json.loads(line)[key] for key in keys) for line in lines}
    for epochs in arguments.epochs:
        for seed in range(arguments.seeds):
            for data, where in (("cifar", arguments.cifar), ("skin", arguments.skin)):
                if where is None:
                    continue
                config = dataclasses.replace(
                    recipes.cifar("vs+lct", seed=seed),
                    epochs=epochs,
                    schedule=ScheduleConfig("cosine", warmup_epochs=1.0),
                    precision="bf16-mixed",
                )
                splits = splits_of(parts_of(data, where, seed), config, arguments.results.parent / f"{data}-cache")
                for form, kind in arms():
                    if form not in arguments.forms or kind not in arguments.kinds:
                        continue
                    key = (data, epochs, seed, form, kind)
                    if key in done:
                        continue
                    row = dict(zip(keys, key, strict=True)) | run(config, form, kind, splits)
                    with arguments.results.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(row, flush=True)


if __name__ == "__main__":
    main()
