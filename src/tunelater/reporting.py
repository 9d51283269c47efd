"""The page on which people choose: every lambda and threshold of a run in one HTML file, without the data.

The file needs no server and no network. It holds the counts of `tunelater.aggregates`, a small program that solves
needs on them in the reader's browser, and uPlot, which draws axes and scales. Its content security policy lets it run
that program and nothing else, and fetch nothing; all text reaches the page as text, never as markup.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelater import look
from tunelater.aggregates import (
    BITS,
    SMALLEST,
    SMALLEST_SUBGROUP,
    BinnedGrid,
    joined,
    joined_values,
    problems_of_smallest,
)
from tunelater.data.forms import Data
from tunelater.data.image_form import ImageSource
from tunelater.data.splits import Split
from tunelater.distributions import Lambdas
from tunelater.histograms import Bins, ScoreHistograms
from tunelater.needs import Columns
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
"""A page stays under 3 MB with them, and answers at once."""
POINTS = {0: 1, 1: 25, 2: 9}
"""Values of each hyperparameter, by how many vary; the default lambda's come on top."""
SCRIPTS = ("grid", "metrics", "solve", "intervals", "words", "draw", "charts", "page")
"""Modules of the page, each of which imports from those before it alone."""


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
        grid: how many values of each hyperparameter, to which the default's is added; by default as many as `POINTS`
            has. 400 lambdas at the most.
        subgroups: columns within whose values the page tells its figures. Values of fewer than 50 cases are joined.
        smallest: how many cases lie between any two thresholds at the least (of each subgroup, where it has them).
        at: the operating point, or its file, that the page opens at; by default it opens at the highest precision at
            a recall of 0.95.
        allow_test: choose on the test rows of the table that the run was fitted on.
        force: replace an older file at `out`.
        memory_mb: bound on the scores and counts held at a time, MiB.
        images: how image files are read, for a run on images.
        problems: what the caller found wrong already, to be told with the rest.

    Raises:
        InputError: everything wrong with the arguments and the data; `out` is then not written.
    """
    found, out, shards = Problems(), Path(out), shards_in(data)
    found.add(*problems, *_problems_of_page(out, (data, run, at), force))
    found.add(*problems_of_smallest(smallest))
    sound = isinstance(subgroups, list | tuple) and all(isinstance(name, str) for name in subgroups)
    found.check(sound, f"subgroups are a list of columns, got {subgroups!r}")
    columns = tuple(dict.fromkeys(subgroups)) if sound else ()
    found.check(not (shards and columns), f"counts of shards know no subgroups, got {', '.join(columns)}")
    loaded = loaded_run(run, data, found)
    found.add(*problems_of_reading(loaded, images))
    point = None if at is None else point_of_run(at, loaded, found)
    lambdas: Lambdas = {}
    if loaded is not None:
        with problems_of(found):
            lambdas = _grid(loaded, grid)
        with problems_of(found):
            if not shards:
                own, apart = ("test", ("train",)) if allow_test else ("validation", ("train", "test"))
                samples, split, values = labelled_samples(loaded, data, own, apart, images, columns)
                values = {name: joined_values(values[name]) for name in columns}
                found.add(*_problems_of_subgroups(values))
    found.raise_if_any()
    assert loaded is not None
    default = loaded.config.lambdas.median
    if shards:
        histograms = load_shards(shards).total
        if histograms.model != loaded.id:
            raise InputError(f"{data}: these are counts of model {histograms.model}, the run is model {loaded.id}")
        counted = BinnedGrid.of(histograms, default=default, smallest=smallest)
    else:
        parts = _counted(loaded, samples, lambdas, split, values, smallest, memory_mb)
        counted = joined(list(parts), default)
    folder = loaded.path if loaded.path is not None else Path("RUN")
    # Where folders lie on this machine is nobody else's business.
    place = shlex.quote(folder.name if folder.is_absolute() else str(folder))
    told = {
        "run": folder.name,
        "command": f"tunelater predict {place} NEW --at point.json --out alerts.csv",
        "data": Path(data).name if isinstance(data, str | Path) else "data frame",
        "noun": loaded.form.noun,
        "labels": list(loaded.form.labels),
        "start": None if point is None else _start(point),
        "grid": counted.to_dict(),
    }
    text = page(told)
    with replacing(out) as partial:
        partial.write_text(text, encoding="utf-8")
    return Report(out, len(text.encode()), len(counted), counted.rows, counted.split, loaded.form.noun)


def _problems_of_page(out: Path, inputs: Sequence[object], force: bool) -> list[str]:
    if out.suffix.lower() not in (".html", ".htm"):
        return [f"the page is an HTML file: --out (out) must end in .html, got {out.name!r}"]
    if any(isinstance(path, str | Path) and Path(path).resolve() == out.resolve() for path in inputs):
        return [f"{out} is what the report reads, which is not replaced; name another place"]
    return output_problems(out, force=force, folder=False)


def _problems_of_subgroups(values: Columns) -> list[str]:
    return [
        f"subgroups are values of {SMALLEST_SUBGROUP} cases or more, and of {name!r} there are no two: make classes of "
        "it, or leave it out"
        for name, column in values.items()
        if len(np.unique(column)) < 2
    ]


def _grid(run: Run, points: int | None) -> Lambdas:
    """The product of evenly spread values of each hyperparameter, and the default's."""
    space = run.config.lambdas
    if points is None:
        points = POINTS[len(space.free)]
    axes = {}
    for name, values in ((name, np.unique(space.grid(points)[name])) for name in space.free):
        default = space.median[name]
        known = np.isclose(values, default, rtol=1e-9, atol=1e-12).any()
        axes[name] = values.tolist() if known else sorted([*values.tolist(), default])
    lambdas = space.grid(axes)
    size = max((len(values) for values in lambdas.values()), default=1)
    if size > MOST_LAMBDAS:
        raise InputError(
            f"a page has at most {MOST_LAMBDAS} lambdas, so that it stays small: {points} values of each of "
            f"{len(axes)} hyperparameters, with the default's, make {size:,}; try fewer (--grid)"
        )
    return lambdas


def _counted(
    run: Run,
    samples: Split,
    lambdas: Lambdas,
    split: str,
    values: Mapping[str, NDArray[Any]],
    smallest: int,
    memory_mb: int,
) -> Iterator[BinnedGrid]:
    """The counts at a few lambdas at a time."""
    rows_of = {
        name: {str(value): np.flatnonzero(column == value) for value in np.unique(column)}
        for name, column in values.items()
    }
    size = max((len(v) for v in lambdas.values()), default=1)
    bins = Bins(BITS)
    of_one = 16 * len(bins) * (1 + sum(map(len, rows_of.values()))) * 2 + 8 * len(samples)
    at_once = max(1, memory_mb * 2**20 // of_one)
    for start in range(0, size, at_once):
        part = {name: np.asarray(v)[start : start + at_once] for name, v in lambdas.items()}
        scores = run.score(samples, part, split=split)
        within = {
            name: {value: ScoreHistograms.of(scores.take(index), bins) for value, index in groups.items()}
            for name, groups in rows_of.items()
        }
        yield BinnedGrid.of(ScoreHistograms.of(scores, bins), smallest=smallest, within=within)


def _start(point: OperatingPoint) -> dict[str, Any]:
    """Where the page opens."""
    return {
        "lam": dict(point.lam),
        "log_odds_threshold": point.log_odds_threshold,
        "prior": point.prior,
        "needs": json.loads(json.dumps(dict(point.needs))),
    }


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
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
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
