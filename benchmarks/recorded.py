"""The recorded runs of docs/images.md: the paper's methods on real images, at a length that fits a small machine.

    python benchmarks/recorded.py RESULTS.jsonl --task cifar --data DIR --epochs 20
    python benchmarks/recorded.py RESULTS.jsonl --task skin --data skin.csv --epochs 15
    python benchmarks/recorded.py RESULTS.jsonl --task skin-tuned --data skin.csv --weights lite0.pth --epochs 6
    python benchmarks/recorded.py RESULTS.jsonl --task retina --data train.csv --test test.csv --epochs 30
    python benchmarks/recorded.py RESULTS.jsonl --table [--paper results.csv]

A line of RESULTS is one training: a method, a seed. Those that are there are not repeated. Lambda is chosen on
validation images by average precision among the paper's values (its Table 2), and what it gives on the test images is
reported; so is the best over those values on the test images, which is what the paper reports. Brier scores are those
of the linked posterior at the test images' prior, and of a softmax, as in the paper.

`cifar` is CIFAR-10 automobile-truck at beta = 100 with ResNet-32; `retina` has beta = 10, and the skin its own. The
lists of skin and retina images have columns path and label; that of the skin also lesion_id, which no split tears
apart.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tunelater import recipes
from tunelater.config import Config, FiLMConfig, ScheduleConfig
from tunelater.data.image_form import ImageSource
from tunelater.data.splits import Split
from tunelater.metrics import evaluate
from tunelater.problems import DoubtfulInputWarning
from tunelater.runs import Run
from tunelater.scoring import score
from tunelater.workflow import fit

MEASURED = ("auc", "average_precision", "brier")
TABLE_2: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "vs": {"gamma": (0.0, 0.1, 0.2, 0.3), "tau": (0.0, 1.0, 2.0, 3.0, 4.0)},
    "focal": {"alpha": (0.1, 0.25, 0.5, 0.75), "phi": (0.0, 1.0, 2.0, 3.0)},
}


def config_of(task: str, method: str, epochs: int, seed: int, weights: str | None) -> Config:
    if task == "cifar":
        config = recipes.cifar(method, seed=seed)
    elif task == "skin-tuned":
        config = recipes.images("tf_efficientnet_lite0", size=72, seed=seed, weights=weights)
    else:
        config = recipes.images("resnet32", size=32 if task == "skin" else 28, seed=seed)
    config = recipes.with_method(recipes.shortened(config, epochs), method)
    if task == "cifar":  # the recipe's two milestones suit its 500 epochs, and cost 0.06 AUC at 15
        config = dataclasses.replace(config, schedule=ScheduleConfig("cosine", warmup_epochs=1.0))
    return dataclasses.replace(config, film=FiLMConfig(), early_stopping=None, precision="bf16-mixed")


def lambdas_of(config: Config) -> dict[str, np.ndarray]:
    """Table 2's values where lambda varies, and the one value where it does not."""
    values = TABLE_2[config.loss] if config.lambdas.free else {n: (d.value,) for n, d in config.lambdas.items()}
    product = np.array(list(itertools.product(*values.values())))
    return dict(zip(values, product.T, strict=True))


def measured(run: Run, samples: Split, lambdas: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    prior = float((samples.target == 1).double().mean())
    linked = score(run.model, samples, lambdas, run.family).at_prior(prior)
    softmax = score(run.model, samples, lambdas, run.family, link=False)
    values = evaluate(linked.log_odds, linked.target, metrics=MEASURED)
    values["brier of softmax"] = evaluate(softmax.log_odds, softmax.target, metrics=["brier"])["brier"]
    return {name: np.asarray(value) for name, value in values.items()}


def trained(arguments: argparse.Namespace, method: str, seed: int) -> dict[str, Any]:
    task, data = arguments.task, arguments.data
    cache = arguments.results.parent / "cache"
    config = config_of(task, method, arguments.epochs, seed, arguments.weights)
    source = ImageSource(cache=cache, group="lesion_id" if "skin" in task else None)
    options: dict[str, Any] = {"target": "label", "positive": "melanoma" if "skin" in task else "retinopathy"}
    options["beta"] = 10.0 if task == "retina" else None
    if task == "cifar":
        source, options = ImageSource(dataset="cifar10-automobile-truck"), {"beta": 100.0, "fractions": (0.6, 0.2, 0.2)}
    if arguments.test is not None:
        options["fractions"] = (0.8, 0.2, 0.0)
    start = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulInputWarning)
        run = fit(data, config=config, images=source, **options)
        minutes = (time.monotonic() - start) / 60
        own = run.form.labelled(data, source).samples
        if arguments.test is None:
            test = own.take(torch.from_numpy(run.rows["test"]))
        else:
            test = run.form.labelled(arguments.test, ImageSource(cache=cache)).samples
    lambdas = lambdas_of(config)
    chosen_on = measured(run, own.take(torch.from_numpy(run.rows["validation"])), lambdas)
    values = measured(run, test, lambdas)
    best = int(np.argmax(chosen_on["average_precision"]))
    lowest = {"brier", "brier of softmax"}
    return {
        "minutes": minutes,
        "n": [run.data["splits"]["train"]["rows"], run.data["splits"]["train"]["positives"]],
        "test": [len(test), int((test.target == 1).sum())],
        "lambda": {name: float(value[best]) for name, value in lambdas.items()},
        **{name: float(value[best]) for name, value in values.items()},
        "range of auc": float(np.ptp(values["auc"])),
        **{f"best {name}": float(v.min() if name in lowest else v.max()) for name, v in values.items()},
    }


def table(results: Path, paper: Path | None) -> str:
    rows = pd.DataFrame([json.loads(line) for line in results.read_text().splitlines()])
    theirs: dict[tuple[str, str], str] = {}
    if paper is not None:
        numbers = pd.read_csv(paper).query("dataset == 'cifar10-auto-truck'")
        theirs = {(m, name.lower().replace(" ", "")): f"{v:.3f}" for m, name, v in numbers.iloc[:, [0, 1, 3]].values}
    lines = []
    columns = ["auc", "average_precision", "brier", "brier of softmax", "best auc", "best average_precision"]
    told = {"auc": "auroc", "best auc": "auroc", "average_precision": "average_precision", "brier of softmax": "brier"}
    told["best average_precision"] = "average_precision"
    for (task, epochs), group in rows.groupby(["task", "epochs"], sort=False):
        lines += [f"\n{task}, {epochs} epochs", "| method | n | minutes | range of auc | " + " | ".join(columns) + " |"]
        lines.append("|---" * (4 + len(columns)) + "|")
        for method, some in group.groupby("method", sort=False):
            cells = []
            for column in columns:
                spread = f" ± {some[column].std():.3f}" if len(some) > 1 else ""
                known = theirs.get((told.get(column, ""), str(method))) if task == "cifar" else None
                cells.append(f"{some[column].mean():.3f}{spread}{f' ({known})' if known else ''}")
            start = [str(method), str(len(some)), f"{some['minutes'].mean():.0f}", f"{some['range of auc'].mean():.3f}"]
            lines.append("| " + " | ".join([*start, *cells]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--task", choices=["cifar", "skin", "skin-tuned", "retina"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--weights")
    parser.add_argument("--methods", nargs="+", default=list(recipes.METHODS))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--paper", type=Path, help="the paper's numbers: metric, method, dataset, value")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(arguments.results, arguments.paper))
        return
    torch.set_num_threads(arguments.threads)
    lines = arguments.results.read_text().splitlines() if arguments.results.exists() else []
    keys = ("task", "epochs", "seed", "method")
    done = {tuple(json.loads(line)[key] for key in keys) for line in lines}
    for seed, method in itertools.product(arguments.seeds, arguments.methods):
        key = (arguments.task, arguments.epochs, seed, method)
        if key not in done:
            row = dict(zip(keys, key, strict=True)) | trained(arguments, method, seed)
            with arguments.results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
