"""Which settings should be the defaults for tables? Each variant on real imbalanced tables, held-out protocol.

    python benchmarks/defaults.py FOLDER_OF_TABLES [--seeds 3] [--out results.csv]

For each table, seed and variant: train on 60%, stop early on 20%, then choose lambda on those 20% (once by average
precision, once by Brier score) and report on the other 20%. The last column is the positive class where it holds the
rarer value. The table demo uses is not among them.
"""

from __future__ import annotations

import argparse
import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tunelater.config import Config, EarlyStoppingConfig, FiLMConfig
from tunelater.data import tables
from tunelater.data.imbalance import split_rows
from tunelater.data.preprocessing import Preprocessor
from tunelater.data.reading import read_table
from tunelater.data.splits import Splits, TensorSplit
from tunelater.distributions import LambdaSpace
from tunelater.metrics import evaluate
from tunelater.models import build
from tunelater.scoring import score
from tunelater.training import train

HEADERLESS = {"mammography", "oil-spill"}
PAPER, IDENTITY = FiLMConfig(), FiLMConfig(start="identity", rescale=True)
BY_AP, BY_LOSS = EarlyStoppingConfig("average_precision"), EarlyStoppingConfig("log_loss")
NEUTRAL = LambdaSpace(gamma=0.0, tau=0.0)

VARIANTS = {
    "LCT, paper start, stop on AP": Config(film=PAPER, early_stopping=BY_AP),
    "LCT, paper start, stop on log-loss": Config(film=PAPER, early_stopping=BY_LOSS),
    "LCT, paper start, no stopping": Config(film=PAPER, early_stopping=None),
    "LCT, identity start, stop on AP": Config(film=IDENTITY, early_stopping=BY_AP),
    "LCT, identity start, stop on log-loss": Config(film=IDENTITY, early_stopping=BY_LOSS),
    "LCT, identity start, no stopping": Config(film=IDENTITY, early_stopping=None),
    "fixed lambda (0, 0), stop on AP": Config(lambdas=NEUTRAL, early_stopping=BY_AP),
    "fixed lambda (0, 0), stop on log-loss": Config(lambdas=NEUTRAL, early_stopping=BY_LOSS),
    "fixed lambda (0, 0), no stopping": Config(lambdas=NEUTRAL, early_stopping=None),
}


def load(path: Path, seed: int) -> tuple[dict[str, TensorSplit], int]:
    frame = read_table(path, header=path.stem not in HEADERLESS)
    target = frame.columns[-1]
    positive = str(frame[target].astype(str).value_counts().index[-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        features, y, schema = tables.prepare(frame, target, positive)
    rows = split_rows(y, seed=seed)
    preprocessor = Preprocessor().fit(features.iloc[rows["train"]], schema)
    x = torch.from_numpy(preprocessor.transform(features))
    return {k: TensorSplit(x[i], torch.from_numpy(y)[i]) for k, i in rows.items()}, preprocessor.n_features


def run(config: Config, splits: dict[str, TensorSplit], n_features: int) -> dict[str, float]:
    trained = train(config, Splits(splits["train"], splits["validation"]), build(config, n_features=n_features))
    grid = config.lambdas.grid(5)
    names = ["auc", "average_precision", "brier"]
    values = {}
    for split in ("validation", "test"):
        s = score(trained.model, splits[split], grid, trained.family)
        values[split] = evaluate(s.log_odds, s.target, metrics=names)
    by_ap = int(np.argmax(values["validation"]["average_precision"]))
    by_brier = int(np.argmin(values["validation"]["brier"]))
    return {
        "auc": values["test"]["auc"][by_ap],
        "average_precision": values["test"]["average_precision"][by_ap],
        "brier": values["test"]["brier"][by_brier],
        "epochs": len(trained.history),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = []
    for path in sorted(arguments.folder.glob("*.csv")):
        for seed in range(arguments.seeds):
            splits, n_features = load(path, seed)
            for name, config in VARIANTS.items():
                result = run(dataclasses.replace(config, seed=seed), splits, n_features)
                rows.append({"table": path.stem, "seed": seed, "variant": name, **result})
            print(path.stem, seed, flush=True)
    results = pd.DataFrame(rows)
    if arguments.out:
        results.to_csv(arguments.out, index=False)
    metrics = ["auc", "average_precision", "brier"]
    mean = results.groupby("variant")[metrics].mean()
    sign = {"auc": -1, "average_precision": -1, "brier": 1}
    for m in metrics:
        ranks = results.assign(key=sign[m] * results[m]).groupby(["table", "seed"])["key"].rank()
        mean[f"rank of {m}"] = ranks.groupby(results["variant"]).mean()
    print(mean.round(4).to_string())


if __name__ == "__main__":
    main()
