"""The model card of a run: Markdown with the front matter of the Hugging Face Hub, as far as a run, its operating
points and labelled data say. What only people know is marked to be written.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tunelater import __version__
from tunelater.assessment import assess, rate_of_class
from tunelater.calibration import Reliability, draw_reliability, problems_of_diagram
from tunelater.data.forms import Data
from tunelater.data.image_form import ImageForm, ImageSource
from tunelater.data.table_form import TableForm
from tunelater.intervals import Estimate
from tunelater.needs import MISSING, MOST_VALUES, Columns, Need
from tunelater.points import OperatingPoint
from tunelater.problems import Problems
from tunelater.runs import Run, output_problems
from tunelater.scoring import Scores
from tunelater.workflow import (
    Evaluation,
    evaluation_of,
    labelled_samples,
    loaded_run,
    point_of_run,
    problems_of,
    problems_of_reading,
    replacing,
    run_of_two,
    scores_at,
)

TO_WRITE = "*To be written by whoever publishes this model"
SUBGROUP_METRICS = ("recall", "precision", "fpr")
FEWEST = 10
"""Positives of a subgroup under which its row says that it has few."""


@dataclass(frozen=True)
class _Reported:
    """An operating point, and what it achieves on the data that were given."""

    name: str
    point: OperatingPoint
    done: Evaluation | None
    groups: Mapping[str, Mapping[str, _Group]]


@dataclass(frozen=True)
class _Group:
    """Samples that have one value of a column."""

    n: int
    n_positive: int
    estimates: Mapping[str, Estimate]


Points = Mapping[str, OperatingPoint | str | Path] | Sequence[OperatingPoint | str | Path] | OperatingPoint | str | Path


@dataclass(frozen=True)
class Card:
    """A model card that is not written yet."""

    text: str
    """Markdown, front matter included."""
    figures: Mapping[str, Reliability | Path]
    """The diagrams that it shows, by the names of their files: what to draw, or a file to copy."""

    def save(self, out: Path) -> list[Path]:
        """Write the card, its diagrams beside it first. Returns what was written, the card first."""
        places = [out.with_name(name) for name in self.figures]
        for place, figure in zip(places, self.figures.values(), strict=True):
            with replacing(place) as partial:
                drawn = partial.with_suffix(place.suffix)
                if isinstance(figure, Path):
                    shutil.copyfile(figure, drawn)
                else:
                    draw_reliability({"probability": figure}, drawn)
                drawn.replace(partial)
        with replacing(out) as partial:
            partial.write_text(self.text, encoding="utf-8")
        return [out, *places]


def write_card(
    run: Run | str | Path,
    out: str | Path,
    *,
    data: Data | None = None,
    at: Points = (),
    groups: str | Sequence[str] = (),
    force: bool = False,
    images: ImageSource | None = None,
) -> list[Path]:
    """Write the model card of a run, and beside it a reliability diagram of each point.

    Args:
        out: the Markdown file, README.md on the Hub. Diagrams are called after it and the point.
        data, at, groups, images: as for `make_card`.
        force: replace older files.

    Returns:
        What was written, the card first.

    Raises:
        InputError: everything wrong with the arguments and the data, or packages that are missing.
    """
    found, out = Problems(), Path(out)
    found.check(out.suffix == ".md", f"a model card is Markdown: --out (out) must end in .md, got {out.name!r}")
    names = [name for name, _ in named_points(at)]
    figures = [] if data is None or problems_of_names(names) else [_figure(out.stem, name) for name in names]
    for place in (out, *(out.with_name(figure) for figure in figures)):
        found.add(*output_problems(place, force=force, folder=False))
    return make_card(run, data=data, at=at, groups=groups, images=images, stem=out.stem, problems=list(found)).save(out)


def make_card(
    run: Run | str | Path,
    *,
    data: Data | None = None,
    at: Points = (),
    groups: str | Sequence[str] = (),
    images: ImageSource | None = None,
    stem: str = "README",
    points_in: str | None = None,
    problems: Sequence[str] = (),
) -> Card:
    """The model card of a run, as far as run, points and data say.

    Args:
        data: labelled data to report on, as for `evaluate`: of the table that the run was fitted on its test rows. None
            reports what the points achieved on the rows that they were chosen on, which flatters them.
        at: operating points, or their files; a dict names them.
        groups: columns of `data`, each value of which is reported apart.
        images: how image files are read, for a run on images.
        stem: what the names of its diagrams begin with.
        points_in: the folder beside the card in which the points lie, if they do.
        problems: what the caller found wrong already, to be told with the rest.

    Raises:
        InputError: everything wrong with the arguments and the data, or packages that are missing.
    """
    found = Problems()
    found.add(*problems, *_problems_of_hub())
    given, groups = named_points(at), [groups] if isinstance(groups, str) else list(groups)
    found.add(*problems_of_names([name for name, _ in given]))
    if data is None and groups:
        found.add(f"subgroups are of data: give --data (data), or leave out --group (groups), got {', '.join(groups)}")
    if data is not None and not given:
        found.add("data are reported on at an operating point: give --at (at), or leave out --data (data)")
    if data is not None:
        found.add(*problems_of_diagram(Path(_figure(stem, ""))))
    loaded: Run | None = None
    if data is not None:
        loaded = loaded_run(run, data, found)
    else:
        with problems_of(found):
            loaded = run_of_two(run)
    found.add(*problems_of_reading(loaded, images))
    points = {name: point for name, each in given if (point := point_of_run(each, loaded, found)) is not None}
    values: dict[str, np.ndarray] = {}
    if loaded is not None and data is not None:
        with problems_of(found):
            needed = [column for point in points.values() for column in Need.read(point.needs).columns]
            columns_read = tuple(dict.fromkeys([*groups, *needed]))
            samples, split, columns = labelled_samples(
                loaded, data, "test", ("train", "validation"), images, columns_read
            )
            values = {name: _values(columns, name, found) for name in groups}
    found.raise_if_any()
    assert loaded is not None
    reported = []
    for name, point in points.items():
        if data is None:
            reported.append(_Reported(name, point, None, {}))
            continue
        scores = scores_at(loaded, point, samples, split, columns)
        reported.append(_Reported(name, point, evaluation_of(loaded, point, scores), _of_groups(point, scores, values)))
    figures: dict[str, Reliability | Path] = {
        _figure(stem, each.name): each.done.reliability for each in reported if each.done is not None
    }
    return Card(_text(loaded, reported, list(figures), points_in), figures)


def named_points(at: Points) -> list[tuple[str, OperatingPoint | str | Path]]:
    """Operating points with their names: a dict's, those of their files, or their numbers."""
    if isinstance(at, Mapping):
        return list(at.items())
    given = [at] if isinstance(at, OperatingPoint | str | Path) else at
    return [
        (Path(each).stem if isinstance(each, str | Path) else f"point {i + 1}", each) for i, each in enumerate(given)
    ]


def problems_of_names(names: Sequence[str]) -> list[str]:
    """Why points cannot be called so, as parts of the names of files."""
    found = Problems()
    files = {file_name(name) for name in names}
    found.check(len(files) == len(names), f"operating points of a card need files of different names, got {names}")
    bad = [name for name in names if not re.fullmatch(r"[\w.][\w. +-]*", name)]
    found.check(not bad, f"names of operating points are letters, numbers, ' ', '.', '-' and '_', got {bad}")
    return list(found)


def file_name(name: str) -> str:
    """The name of an operating point as a part of the names of files."""
    return name.replace(" ", "-")


def _figure(stem: str, name: str) -> str:
    return f"{stem}-{file_name(name)}.png"


def read_card(path: str | Path, run: Run) -> Card:
    """A card that `write_card` wrote and people went on writing, with the files of its diagrams.

    Raises:
        InputError: no such file, a card of another model, or a diagram that is not there.
    """
    path, found = Path(path), Problems()
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    found.check(path.is_file(), f"there is no model card {path}; make one with `tunelater card`")
    found.check(
        not text or run.id in text, f"{path} does not name model {run.id}; make a card of it with `tunelater card`"
    )
    figures = {name: path.with_name(name) for name in re.findall(r"!\[[^\]]*\]\(([^()/:\s]+)\)", text)}
    for figure in figures.values():
        found.check(figure.is_file(), f"{path} shows {figure}, which is not there")
    found.raise_if_any()
    return Card(text, figures)


def _problems_of_hub() -> list[str]:
    if find_spec("huggingface_hub") is None:
        return ["a model card needs huggingface_hub: pip install 'tunelater[hub]'"]
    return []


def _of_groups(point: OperatingPoint, scores: Scores, values: Mapping[str, np.ndarray]) -> dict[str, dict[str, _Group]]:
    """Samples by the value that they have in each column."""

    def of(rows: np.ndarray) -> _Group:
        some = scores.take(np.flatnonzero(rows))
        n, n_positive = len(some.target), int(some.target.sum())
        if 0 < n_positive < n:
            return _Group(n, n_positive, assess(point, some))
        return _Group(n, n_positive, {"recall" if n_positive else "fpr": rate_of_class(point, some)})

    return {
        name: {str(value): of(texts == value) for value in sorted(set(texts.tolist()) - {MISSING})}
        for name, texts in values.items()
    }


def _values(columns: Columns, name: str, problems: Problems) -> np.ndarray:
    texts = np.asarray(columns[name]).astype(str)
    n = len(set(texts.tolist()))
    problems.check(
        n <= MOST_VALUES, f"a column of subgroups (--group) has at most {MOST_VALUES} values, got {n:,} in {name!r}"
    )
    return texts


# ------------------------------------------------------------------------------------------- text


def _text(run: Run, reported: Sequence[_Reported], figures: Sequence[str], points_in: str | None) -> str:
    parts = [
        f"# {_title(run)}",
        _summary(run),
        _data(run),
        _training(run),
        _points(run, reported),
        _groups(run, reported),
        _calibration(run, reported, figures),
        _usage(run, reported, points_in),
        _limits(run, reported),
    ]
    return f"---\n{_front_matter(run, reported)}\n---\n\n" + "\n\n".join(filter(None, parts)) + "\n"


def _title(run: Run) -> str:
    negative, positive = run.form.labels
    return f"{positive} against {negative}"


def _front_matter(run: Run, reported: Sequence[_Reported]) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    images = isinstance(run.form, ImageForm)
    task = "image-classification" if images else "tabular-classification"
    results = [
        EvalResult(
            task_type=task,
            dataset_type=run.form.name,
            dataset_name=f"{each.done.split} {each.done.noun}s at {each.name}",
            metric_type=name,
            metric_value=round(estimate.value, 6),
        )
        for each in reported
        if each.done is not None
        for name, estimate in each.done.estimates.items()
    ]
    return ModelCardData(
        library_name="tunelater",
        pipeline_tag=task,
        tags=["tunelater", "imbalanced-classification", "loss-conditional-training", run.config.loss],
        model_name=_title(run) if results else None,
        eval_results=results or None,
    ).to_yaml()


def _summary(run: Run) -> str:
    lambdas = ", ".join(run.config.lambdas.free) or "no hyperparameter"
    return (
        f"A binary classifier of {run.form.noun}s for the rare class `{run.form.labels[1]}`, trained once over a "
        f"distribution of its loss's hyperparameters ({lambdas}) with tunelater {__version__}. Where it operates, and "
        "the share of positives that its probabilities are for, are chosen afterwards and can be chosen again.\n\n"
        f"Model `{run.id}`. {TO_WRITE}: what it is for, who made it, under which licence.*"
    )


def _data(run: Run) -> str:
    rows = [
        [name, f"{of['rows']:,}", f"{of['positives']:,}", f"{of['positives'] / max(of['rows'], 1):.2%}"]
        for name, of in run.data.get("splits", {}).items()
    ]
    columns = ""
    if isinstance(run.form, TableForm):
        told = ", ".join(f"`{name}` ({kind})" for name, kind in run.form.schema.columns.items())
        columns = f"\n\nColumns: {told}. Target: `{run.form.schema.target}`."
    return (
        f"## Training data\n\n{run.form.told}. Fingerprint of the data: `{run.data['fingerprint']}`.{columns}\n\n"
        f"{_table(['split', f'{run.form.noun}s', 'positives', 'share'], rows)}\n\n"
        f"{TO_WRITE}: where the data come from, how they were labelled, whom they leave out.*"
    )


def _training(run: Run) -> str:
    rows = []
    for name in run.family.hyperparameters:
        of = run.config.lambdas[name]
        rows.append([f"`{name}`", f"{of.a:g}", f"{of.b:g}", f"{run.config.lambdas.median[name]:.4g}"])
    lambdas = _table(["hyperparameter", "lowest", "highest", "default"], rows) if rows else "It has no hyperparameters."
    early = ", stopped early on the validation part" if run.config.early_stopping is not None else ""
    return (
        f"## Training\n\nLoss `{run.config.loss}`, trunk `{run.config.model.trunk}`, at most {run.config.epochs} epochs"
        f"{early}, seed {run.config.seed}. Share of positives in training (the training prior): "
        f"{run.family.prior:.4g}. Lambda was drawn from these ranges; outside of them the model extrapolates:\n\n"
        f"{lambdas}"
    )


def _points(run: Run, reported: Sequence[_Reported]) -> str:
    if not reported:
        return "## Operating points\n\nNone are reported. `tunelater tune` chooses one for a need."
    return "## Operating points\n\n" + "\n\n".join(_point(run, each) for each in reported)


def _point(run: Run, each: _Reported) -> str:
    point, done = each.point, each.done
    lam = ", ".join(f"{name} = {value:.4g}" for name, value in point.lam.items()) or "no lambda"
    asked = json.dumps(point.needs) if point.needs else "not stated"
    told = [
        f"### {each.name}",
        f"Needs: `{asked}`. {lam}; alert where the probability at prior {point.prior:.4g} is {point.threshold:.4g} or "
        f"more (log-odds {point.log_odds_threshold:.4g}).",
    ]
    if point.certificate is not None:
        from tunelater.guarantee import Certificate

        told.append(str(Certificate.from_dict(point.certificate)))
    if done is not None:
        told.append(
            f"On {done.n:,} {done.split} {done.noun}s, {done.n_positive:,} positive, with 95% intervals:\n\n"
            + _estimates(done.estimates)
        )
    elif point.honest or point.metrics:
        honest = bool(point.honest)
        how = "corrected for having been chosen on them" if honest else "which flatter it"
        told.append(
            f"On the {point.n:,} {point.split} samples that it was chosen on, {point.n_positive:,} positive, {how}:\n\n"
            + _estimates(point.honest or point.metrics)
        )
    return "\n\n".join(told)


def _estimates(estimates: Mapping[str, Estimate]) -> str:
    rows = [[_cell(name), f"{e.value:.4f}", f"{e.low:.4f} to {e.high:.4f}"] for name, e in estimates.items()]
    return _table(["metric", "value", "interval"], rows)


def _groups(run: Run, reported: Sequence[_Reported]) -> str:
    parts = [
        f"### {column} at {each.name}\n\n"
        + _table(["value", f"{run.form.noun}s", "positives", *SUBGROUP_METRICS], rows)
        for each in reported
        for column, groups in each.groups.items()
        if (rows := [list(_group_row(value, group)) for value, group in groups.items()])
    ]
    if not parts:
        return (
            "## Subgroups\n\nNot reported. Before use, look at the subgroups that matter: `tunelater card --data DATA "
            "--group COLUMN`."
        )
    few = f"Intervals are wide where positives are few; under {FEWEST} positives (marked) they say next to nothing."
    return "## Subgroups\n\n" + "\n\n".join([*parts, few])


def _group_row(value: str, group: _Group) -> Iterator[str]:
    yield _cell(value)
    yield f"{group.n:,}"
    yield f"{group.n_positive:,}{' (few)' if group.n_positive < FEWEST else ''}"
    for name in SUBGROUP_METRICS:
        estimate = group.estimates.get(name)
        lacking = "no negatives" if group.n_positive else "no positives"
        yield f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})" if estimate else lacking


def _calibration(run: Run, reported: Sequence[_Reported], figures: Sequence[str]) -> str:
    told = []
    for each, figure in zip(reported, figures, strict=False):
        if each.done is None:
            continue
        of, brier = each.done.reliability, each.done.brier
        told.append(
            f"![Reliability diagram of {each.name}]({figure})\n\n{each.name}: expected calibration error {of.ece:.4f} "
            f"({of.ece_if_calibrated:.4f} by chance, were every probability right); Brier score {brier.brier:.4f}."
        )
    rule = (
        "Probabilities are the posterior by the loss's link for the prior that is stated, not a softmax. For another "
        "share of positives state another prior."
    )
    return "## Calibration\n\n" + "\n\n".join([rule, *told])


def _usage(run: Run, reported: Sequence[_Reported], points_in: str | None) -> str:
    what = "images/" if isinstance(run.form, ImageForm) else "new.csv"
    chosen = 'point = tune("run", "labelled.csv", maximize="precision", subject_to="recall>=0.9")'
    points = ""
    if points_in is not None and reported:
        names = ", ".join(f"`{points_in}/{file_name(each.name)}.json`" for each in reported)
        points = f" Its operating points, files for `at`, are {names}."
    return (
        f"## How to use\n\n```python\nfrom tunelater import predict, tune\n\n{chosen}\n"
        f'predict("run", "{what}", at=point, out="alerts.csv")\n```\n\n'
        "`run` is the folder that holds this card, if it came from the Hub: "
        f"`tunelater.hub.HubRun.from_pretrained(...).run`.{points} `tunelater export run model.onnx` makes a file that "
        "runs without Python."
    )


def _limits(run: Run, reported: Sequence[_Reported]) -> str:
    positives = run.data.get("splits", {}).get("train", {}).get("positives")
    limits = [
        f"Deciding alone about people, or anything that cannot be undone: it was trained on {positives:,} positives."
        if positives is not None
        else "Deciding alone about people, or anything that cannot be undone.",
        f"{run.form.noun.capitalize()}s unlike those of the training data. `tunelater watch` and `tunelater adapt` "
        "tell drift; nothing here does.",
        "Another meaning of the labels, of the columns or their units than in training.",
        "Lambdas outside of the ranges above, where what it does was never learned.",
        "A prior that nobody has stated: probabilities are wrong by the ratio of the priors' odds.",
    ]
    if any(each.done is None for each in reported) or not reported:
        limits.append("Anything that counts before it has been evaluated on data that nothing was chosen on.")
    told = "\n".join(f"* {limit}" for limit in limits)
    return f"## What it must not be used for\n\n{told}\n\n{TO_WRITE}: uses that are out of the question.*"


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
