"""The page on which people choose: every lambda and threshold of a run in one HTML file, without the data.

The file needs no server and no network. It holds the counts of `tunelater.aggregates`, a small program that solves
needs on them in the reader's browser, and uPlot, which draws axes and scales. Its content security policy lets it run
that program and nothing else, and fetch nothing; all text reaches the page as text, never as markup, and names with
characters that would hide or reorder text are told with these written out.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from tunelater import look
from tunelater.aggregates import (
    BITS,
    SMALLEST,
    SMALLEST_SUBGROUP,
    BinnedGrid,
    JoinedValues,
    joined,
    joined_values,
    least_of_class,
    problems_of_smallest,
)
from tunelater.data.forms import Data
from tunelater.data.image_form import ImageSource
from tunelater.data.splits import Split
from tunelater.distributions import Lambda, Lambdas
from tunelater.histograms import Bins
from tunelater.losses import logit
from tunelater.names import displayed, shell_word
from tunelater.needs import Need
from tunelater.points import OperatingPoint
from tunelater.problems import InputError, Problems
from tunelater.runs import Run, output_problems
from tunelater.streaming import load_shards
from tunelater.workflow import (
    labelled_samples,
    loaded_run,
    point_of_run,
    problems_of,
    problems_of_reading,
    replacing,
    shards_in,
)

MOST_LAMBDAS = 400
"""So that a page answers at once."""
MOST_BYTES = 3_000_000
"""Of a page, so that it can be sent by e-mail."""
POINTS = {0: 1, 1: 25, 2: 9}
"""Values of each hyperparameter, by how many vary; the default lambda's come on top."""
SCRIPTS = (
    "grid", "metrics", "solve", "intervals", "curves", "words", "dom", "draw", "charts", "frames", "state", "terms",
    "form", "outcome", "share", "page",
)  # fmt: skip
"""Modules of the page, each of which imports from those before it alone."""
OBJECTIVES = (
    "precision", "recall", "specificity", "npv", "f1", "f2", "mcc", "balanced_accuracy", "gmean", "accuracy",
    "alert_rate", "fpr",
)  # fmt: skip
"""Metrics of a threshold that the page knows, beside cost and net benefit; all may be constrained."""


@dataclass(frozen=True)
class Report:
    """What a page was made of."""

    out: Path
    size: int
    """Bytes."""
    lambdas: int
    rows: tuple[int, int]
    """Cases, negative and positive."""
    split: str
    noun: str
    joined: Mapping[str, int]
    """By column of subgroups, how many of its values were joined; absent where none were."""
    left_out: tuple[str, ...]
    """What of the point that the page opens at it cannot show, a sentence each."""


def report(
    run: Run | str | Path,
    data: Data,
    *,
    out: str | Path,
    grid: int | None = None,
    subgroups: Sequence[str] = (),
    smallest: int = SMALLEST,
    at: OperatingPoint | str | Path | None = None,
    allow_test: bool = False,
    force: bool = False,
    memory_mb: int = 1024,
    images: ImageSource | None = None,
    problems: Sequence[str] = (),
) -> Report:
    """Write a page on which people choose where to operate: one HTML file that holds counts, and no cases.

    Args:
        run: a run, or its folder.
        data: labelled rows that the model was not trained on, as for `workflow.tune`; or what `workflow.count` wrote,
            of tables of any size.
        out: the file to write; it ends in .html.
        grid: how many values of each hyperparameter, to which those of the default and of `at` are added; by default
            as many as `POINTS` has. 400 lambdas at the most. Counts have lambdas of their own.
        subgroups: columns within whose values the page tells its figures. Values of fewer than 50 cases, or of fewer
            than three of either class (more where `smallest` is above five), are joined.
        smallest: how many cases lie between any two thresholds at the least, 3 or more (of a subgroup, so many or
            none).
        at: the operating point, or its file, that the page opens at; by default it opens at the highest precision at
            a recall of 0.95.
        allow_test: choose on the test rows of the table that the run was fitted on. Counts know no splits.
        force: replace an older file at `out`.
        memory_mb: bound on the scores and counts of a table that are held at a time, MiB. Of counts it changes nothing:
            these are what they are.
        images: how image files are read, for a run on images.
        problems: what the caller found wrong already, to be told with the rest.

    Raises:
        InputError: everything wrong with the arguments and the data, or a page of more than 3 MB; `out` is then not
            written.
    """
    found, out, shards = Problems(), Path(out), shards_in(data)
    found.add(*problems, *_problems_of_page(out, (data, run, at), force))
    found.add(*problems_of_smallest(smallest))
    found.check(memory_mb >= 1, f"scores need a MiB of memory or more, got memory_mb (--memory) {memory_mb}")
    sound = isinstance(subgroups, list | tuple) and all(isinstance(name, str) for name in subgroups)
    found.check(sound, f"subgroups are a list of columns, got {subgroups!r}")
    columns = tuple(dict.fromkeys(subgroups)) if sound else ()
    unsaid = [name for name in columns if not name or name != name.strip()]
    found.check(
        not unsaid,
        "a need calls a column by its name, without spaces around it ('recall>=0.9 in every sex'), so that subgroups "
        f"cannot be of {', '.join(map(repr, unsaid))}: give it another name",
    )
    if shards:
        found.check(not columns, f"counts of shards know no subgroups, got {', '.join(columns)}: leave out --subgroups")
        found.check(grid is None, f"counts of shards are of the lambdas they were counted at, got --grid {grid}: give "
                                  "it to `tunelater count`")  # fmt: skip
        found.check(not allow_test, "counts of shards are of the rows they were given: leave out --allow-test")
    loaded = loaded_run(run, data, found)
    found.add(*problems_of_reading(loaded, images))
    point = None if at is None else point_of_run(at, loaded, found)
    lambdas: Lambdas = {}
    if loaded is not None:
        if not shards:
            with problems_of(found):
                lambdas = _grid(loaded, grid, None if point is None else point.lam)
        with problems_of(found):
            if not shards:
                own, apart = ("test", ("train",)) if allow_test else ("validation", ("train", "test"))
                samples, split, found_columns = labelled_samples(loaded, data, own, apart, images, columns)
                target = samples.target.numpy()
                least = SMALLEST if problems_of_smallest(smallest) else smallest
                values = {name: joined_values(found_columns[name], target, smallest=least) for name in columns}
                found.add(*_problems_of_subgroups(values, least))
    found.raise_if_any()
    assert loaded is not None
    if shards:
        counted = _of_shards(shards, loaded, smallest)
    else:
        counted = joined(
            list(_counted(loaded, samples, lambdas, split, values, smallest, memory_mb)), loaded.config.lambdas.median
        )
    start = None if point is None else _start(point, counted)
    told = {
        **_names(loaded, data),
        "start": start,
        "grid": _displayed_grid(counted),
    }
    text = page(told)
    _check_size(len(text.encode()), told)
    with replacing(out) as partial:
        partial.write_text(text, encoding="utf-8")
    return Report(
        out,
        len(text.encode()),
        len(counted),
        counted.rows,
        counted.split,
        loaded.form.noun,
        {s.column: s.joined for s in counted.subgroups if s.joined},
        tuple(start["left_out"]) if start else (),
    )


def _problems_of_page(out: Path, inputs: Sequence[object], force: bool) -> list[str]:
    if out.suffix.lower() not in (".html", ".htm"):
        return [f"the page is an HTML file: --out (out) must end in .html, got {out.name!r}"]
    if any(isinstance(path, str | Path) and Path(path).resolve() == out.resolve() for path in inputs):
        return [f"{out} is what the report reads, which is not replaced; name another place"]
    return output_problems(out, force=force, folder=False)


def _problems_of_subgroups(values: Mapping[str, JoinedValues], smallest: int) -> list[str]:
    return [
        f"subgroups are values of {SMALLEST_SUBGROUP} cases or more, with {least_of_class(smallest)} or more of either "
        f"class, and of {name!r} there are no two: make classes of it, or leave it out"
        for name, column in values.items()
        if len(np.unique(column.values)) < 2
    ]


def _grid(run: Run, points: int | None, also: Lambda | None = None) -> Lambdas:
    """The product of evenly spread values of each hyperparameter, the default's, and those of one more lambda."""
    space = run.config.lambdas
    if points is None:
        points = POINTS[len(space.free)]
    evenly, axes = space.grid(points), {}
    for name in space:
        if name not in space.free and also is None:
            continue
        values = np.unique(evenly[name])
        for more in (space.median[name], *(() if also is None else (also[name],))):
            if not np.isclose(values, more, rtol=1e-9, atol=1e-12).any():
                values = np.sort(np.append(values, more))
        axes[name] = values.tolist()
    lambdas = space.grid(axes)
    size = max((len(values) for values in lambdas.values()), default=1)
    if size > MOST_LAMBDAS:
        with_default = "with the default's" if also is None else "with the default's and those of --at"
        raise InputError(
            f"a page has at most {MOST_LAMBDAS} lambdas, so that it answers at once: {points} values of each of "
            f"{len(space.free)} hyperparameters, {with_default}, make {size:,}; try fewer (--grid)"
        )
    return lambdas


def _counted(
    run: Run,
    samples: Split,
    lambdas: Lambdas,
    split: str,
    values: Mapping[str, JoinedValues],
    smallest: int,
    memory_mb: int,
) -> Iterator[BinnedGrid]:
    """The counts at a few lambdas at a time."""
    size = max((len(v) for v in lambdas.values()), default=1)
    of_one = 16 * len(Bins(BITS)) * (1 + sum(len(np.unique(of.values)) for of in values.values())) * 2
    at_once = max(1, memory_mb * 2**20 // (of_one + 8 * len(samples)))
    for start in range(0, size, at_once):
        part = {name: np.asarray(v)[start : start + at_once] for name, v in lambdas.items()}
        yield BinnedGrid.of_scores(run.score(samples, part, split=split), smallest=smallest, columns=values)


def _of_shards(shards: Sequence[Path], run: Run, smallest: int) -> BinnedGrid:
    """The counts that `workflow.count` wrote."""
    histograms = load_shards(list(shards)).total
    problems = Problems()
    problems.check(
        histograms.model == run.id, f"these are counts of model {histograms.model}, the run is model {run.id}"
    )
    problems.check(
        len(histograms) <= MOST_LAMBDAS,
        f"a page has at most {MOST_LAMBDAS} lambdas, so that it answers at once, and these are counts at "
        f"{len(histograms):,}: count again at fewer (`tunelater count --grid`)",
    )
    problems.raise_if_any()
    return BinnedGrid.of(histograms, default=run.config.lambdas.median, smallest=smallest)


def _start(point: OperatingPoint, grid: BinnedGrid) -> dict[str, Any]:
    """Where the page opens: a lambda and a bin of its own, so that no threshold of another grid is in the file; and
    what of the point's need it can solve."""
    need = Need.read(point.needs)
    lam, distance = _nearest(point.lam, grid)
    threshold = point.log_odds_threshold - logit(point.prior) + logit(grid.prior)
    at = grid.edge_near(lam, threshold)
    left_out = [] if distance < 1e-9 else ["its lambda is not among those here: the nearest is shown"]
    objective = need.objective.name
    if need.cost is not None and (need.sample_costs or need.cost.tp or need.cost.tn):
        left_out.append("its costs are of each case, or of right decisions too, which a page does not know")
        objective = ""
    elif need.cost is None and objective not in OBJECTIVES and not objective.startswith("net_benefit@"):
        left_out.append(f"it was chosen for {objective}, which a page does not choose by")
        objective = ""
    elif not point.needs.keys() & {"maximize", "minimize", "cost"}:
        objective = ""  # made by hand
    known = [s.column for s in grid.subgroups if s.column in need.grouped][:1]  # one column at a time
    constraints = []
    for c in need.constraints:
        if c.metric.name not in OBJECTIVES or (c.every is not None and c.every not in known):
            left_out.append(f"its condition {displayed(str(c))} is not judged here")
        else:
            constraints.append({"metric": c.metric.name, "relation": c.relation, "bound": c.bound, "every": c.every})
    if isinstance(need.prior, tuple):
        left_out.append(f"its range of priors is told at one, {point.prior:.3g}")
    if point.calibration is not None:
        left_out.append("its probabilities are calibrated, and those here are the model's own")
    if point.certificate is not None:
        left_out.append("its guarantee is for its own threshold, not for those here")
    return {
        "lambda": lam,
        "bin": at,
        "prior": None if need.prior is None else point.prior,
        "need": None if not objective else {"objective": objective, "constraints": constraints},
        "costs": {"fn": need.cost.fn, "fp": need.cost.fp} if need.cost is not None and objective else None,
        "left_out": left_out,
    }


def _nearest(lam: Lambda, grid: BinnedGrid) -> tuple[int, float]:
    """The lambda of a grid that is nearest to another, in units of each hyperparameter's range, and how far it is."""
    distance = np.zeros(len(grid))
    for name, values in grid.lambdas.items():
        distance += ((values - lam[name]) / (np.ptp(values) or 1.0)) ** 2
    return int(np.argmin(distance)), float(np.sqrt(distance.min()))


# ------------------------------------------------------------------------------------------- names


def _names(run: Run, data: Data) -> dict[str, Any]:
    """What the page calls things."""
    folder = run.path if run.path is not None else Path("RUN")
    # Where folders lie on this machine is nobody else's business.
    place = folder.name if folder.is_absolute() else str(folder)
    place = f"./{place}" if place.startswith("-") else place
    return {
        "run": displayed(folder.name),
        "command": f"tunelater predict {shell_word(place)} NEW --at point.json --out alerts.csv",
        "data": displayed(Path(data).name) if isinstance(data, str | Path) else "data frame",
        "noun": run.form.noun,
        "labels": [displayed(str(label)) for label in run.form.labels],
    }


def _displayed_grid(grid: BinnedGrid) -> dict[str, Any]:
    """The counts, with names of columns and values as they are shown. A need calls a column by its own name."""
    raw = grid.to_dict()
    for s in raw["subgroups"]:
        s |= {"called": displayed(s["column"]), "values": [displayed(value) for value in s["values"]]}
    return raw


def _check_size(size: int, told: Mapping[str, Any]) -> None:
    """
    Raises:
        InputError: a page that is too large, with what takes how much.
    """
    if size <= MOST_BYTES:
        return
    subgroups = {s["called"]: len(s["ends"]) + len(s["counts"]) for s in told["grid"]["subgroups"]}
    largest = ", ".join(f"{name} {n / 1e6:.1f} MB" for name, n in sorted(subgroups.items(), key=lambda of: -of[1]))
    fewer = f", or fewer --subgroups (of these {largest})" if subgroups else ""
    raise InputError(
        f"a page has at most {MOST_BYTES / 1e6:g} MB, and this one would have {size / 1e6:.1f}: take fewer lambdas "
        f"(--grid){fewer}"
    )


# ------------------------------------------------------------------------------------------- the file


def page(told: Mapping[str, Any]) -> str:
    """The HTML of a page from what it tells, in JSON types."""
    files = resources.files("tunelater") / "page"
    script = files.joinpath("vendor", "uPlot.iife.min.js").read_text("utf-8") + "\n" + _joined_scripts()
    style = look.as_css() + files.joinpath("vendor", "uPlot.min.css").read_text("utf-8")
    style += files.joinpath("page.css").read_text("utf-8")
    # Neither ends the element that it is in: JSON may hold any text, for `<` is written as an escape.
    data = json.dumps(told, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    assert "</script" not in script.lower()
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "POLICY": policy,
        "TITLE": html.escape(f"Where to operate: {told['run']}"),
        "STYLE": style,
        "DATA": data,
        "SCRIPT": script,
    }
    template = files.joinpath("page.html").read_text("utf-8")
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda match: parts[match[1]], template)


def _joined_scripts() -> str:
    """The page's modules as one script: names are unique among them, so that imports and exports can be left out."""
    files = resources.files("tunelater") / "page"
    texts = []
    for name in SCRIPTS:
        text = files.joinpath(f"{name}.mjs").read_text("utf-8")
        text = re.sub(r"^import\b[^;]*;\n", "", text, flags=re.MULTILINE)
        texts.append(re.sub(r"^export ", "", text, flags=re.MULTILINE))
    return '(() => {\n"use strict";\n' + "\n".join(texts) + "\n})();\n"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
