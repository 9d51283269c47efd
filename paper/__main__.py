"""`python -m paper`: run the study, see how far it is, make its tables and figures."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

if importlib.util.find_spec("tunelater") is None:  # a plain checkout, where nothing is installed
    _SOURCES = str(Path(__file__).resolve().parents[1] / "src")
    sys.path.insert(0, _SOURCES)
    os.environ["PYTHONPATH"] = os.pathsep.join([_SOURCES, *filter(None, [os.environ.get("PYTHONPATH")])])

import typer

from paper.methods import BUDGETS, BUDGETS_TOLD, COLUMNS, GROUPS, METHODS, Column, Length, Method, Trial
from tunelater.problems import InputError, Problems, did_you_mean

app = typer.Typer(
    name="python -m paper",
    help="The paper's evaluation: train its methods on its datasets, resumably; then its tables and figures.",
    epilog="A first look, in a few minutes: python -m paper run --dataset synthetic --epochs 5 --settings 4",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

Results = Annotated[Path, typer.Option(help="The folder of results.")]
DataFolder = Annotated[
    Path, typer.Option("--data", help="The folder that has the datasets, as their owners ship them.")
]
Datasets = Annotated[
    list[str],
    typer.Option(
        "--dataset",
        metavar="NAME",
        help="A column of the paper's Table 3 such as cifar10-auto-truck or melanoma-b200, `all` nine of them, or a "
        "table: synthetic, hypothyroid, mammography, wine_quality, abalone_19. May be repeated.",
    ),
]
Methods = Annotated[
    str,
    typer.Option(
        help=f"Names or groups, by commas. Groups: {', '.join(GROUPS)}. Names: {', '.join(METHODS)}.",
        show_default=False,
    ),
]
Settings = Annotated[int | None, typer.Option(help="Of each method's 16 settings, evenly spread. [all]")]
Seeds = Annotated[int, typer.Option(help="How many seeds.")]
Epochs = Annotated[int | None, typer.Option(help="[the recipe's]")]
Size = Annotated[int | None, typer.Option(help="Pixels. [the recipe's]")]
Recipe = Annotated[str, typer.Option(metavar="paper|released", help="Whose training settings.")]
Protocol = Annotated[
    str,
    typer.Option(
        metavar="held-out|paper",
        help="Cut a validation part from the training part, or train on all of it, as the paper.",
    ),
]
Precision = Annotated[str, typer.Option(metavar="32-true|bf16-mixed", help="Of the arithmetic.")]
Budget = Annotated[
    str | None, typer.Option(metavar="25m", help="Stop cleanly after so long: 90s, 25m, 2h.", show_default=False)
]
Jobs = Annotated[int | None, typer.Option(help="Trainings at once. [one a core, or several a GPU]")]
Engine = Annotated[str, typer.Option(metavar="local|ray", help="Processes of this machine, or a Ray cluster.")]
Address = Annotated[str | None, typer.Option(help="Of the Ray cluster.", show_default=False)]
Gpus = Annotated[float, typer.Option(help="GPUs of a training, under Ray; 0.25 puts four on one.")]


@app.command()
def run(
    dataset: Datasets,
    methods: Methods = "paper",
    settings: Settings = None,
    seeds: Seeds = 3,
    epochs: Epochs = None,
    size: Size = None,
    recipe: Recipe = "paper",
    protocol: Protocol = "held-out",
    precision: Precision = "32-true",
    results: Results = Path("results"),
    data: DataFolder = Path("data"),
    budget: Budget = None,
    jobs: Jobs = None,
    engine: Engine = "local",
    address: Address = None,
    gpus: Gpus = 0.0,
    retry: Annotated[bool, typer.Option("--retry", help="Try those again that failed.")] = False,
) -> None:
    """Train and evaluate what is not finished. Killed at any time, the same command goes on."""
    with _reported():
        start = time.time()
        problems, trials = Problems(), list[Trial]()
        try:
            trials = _trials(dataset, methods, settings, seeds, epochs, size, recipe, protocol, precision)
        except InputError as error:
            problems.add(*error.problems)
        _run(trials, problems, results, data, start, budget, jobs, engine, address, gpus, retry)


@app.command()
def status(
    dataset: Datasets,
    methods: Methods = "paper",
    settings: Settings = None,
    seeds: Seeds = 3,
    epochs: Epochs = None,
    size: Size = None,
    recipe: Recipe = "paper",
    protocol: Protocol = "held-out",
    precision: Precision = "32-true",
    results: Results = Path("results"),
    data: DataFolder = Path("data"),
) -> None:
    """Say what is done, running, failed and missing."""
    with _reported():
        from paper import sweep
        from paper.store import Store

        trials = _trials(dataset, methods, settings, seeds, epochs, size, recipe, protocol, precision)
        typer.echo(sweep.status(sweep.plan(trials, data), Store(results)))


@app.command()
def tables(
    out: Annotated[Path, typer.Option(help="Where they go, as Markdown, CSV and LaTeX.")] = Path("tables"),
    results: Results = Path("results"),
    only: Annotated[str | None, typer.Option(help="Names that begin so, such as table-3.", show_default=False)] = None,
) -> None:
    """Make the paper's tables, its numbers beside ours, and the fair ones that it lacks."""
    with _reported():
        from paper import tables as of_paper

        for study, folder in _studies(results, out):
            written = of_paper.write(study, folder, only)
            typer.echo(f"{study.length}: {len(written) // 3} tables in {folder}")


@app.command()
def figures(
    out: Annotated[Path, typer.Option(help="Where they go, as PDF and PNG.")] = Path("figures"),
    results: Results = Path("results"),
    only: Annotated[str | None, typer.Option(help="Names that begin so, such as fig5.", show_default=False)] = None,
) -> None:
    """Draw the paper's figures of every dataset that has results."""
    with _reported():
        from paper import figures as of_paper
        from paper.tables import columns_of

        for study, folder in _studies(results, out):
            there = {(key.dataset, key.beta) for key in study.results}
            for column in columns_of(study):
                if (column.dataset, column.beta) in there:
                    written = of_paper.figures(study, column, folder / column.name, only=only)
                    typer.echo(f"{study.length}, {column.label}: {len(written)} files in {folder / column.name}")


@app.command()
def merge(
    others: Annotated[list[Path], typer.Argument(help="Folders of results.", show_default=False)],
    into: Annotated[Path, typer.Option(help="The folder that gets them.")] = Path("results"),
) -> None:
    """Copy results of other machines into one folder; results that differ are told, and left as they are."""
    with _reported():
        from paper.store import Store

        missing = [
            f"there are no results in {other}: name a folder of results"
            for other in others
            if not (other / "trials").is_dir()
        ]
        if missing:
            raise InputError(missing)
        conflicts = []
        for other in others:
            added, same, differing = Store(into).merge(Store(other))
            conflicts += differing
            typer.echo(f"{other}: {added} added, {same} here already, {len(differing)} in conflict")
        if conflicts:
            for conflict in conflicts:
                typer.echo(f"conflict: {conflict}", err=True)
            raise typer.Exit(1)


@app.command()
def queue(
    results: Results = Path("results"),
    data: DataFolder = Path("data"),
    budget: Budget = None,
    jobs: Jobs = None,
    precision: Precision = "bf16-mixed",
    protocol: Protocol = "paper",
    dry: Annotated[bool, typer.Option("--dry", help="Only say what would be run.")] = False,
) -> None:
    """Run the next most valuable unfinished trainings at full length, on an accelerator if there is one.

    Automobile-truck with VS and VS + LCT first, then the rest of Table 4, then the other methods and datasets by cost;
    datasets whose files are not in --data are left out. By the paper's protocol their tables are the paper's; with
    --protocol held-out they are also the fair ones.
    """
    with _reported():
        from paper import sweep
        from paper.store import Store
        from tunelater.config import PRECISIONS
        from tunelater.data.benchmarks import PROTOCOLS

        start, problems, store = time.time(), Problems(), Store(results)
        deadline = _deadline(start, budget, jobs, problems)
        for what, value, known in (("protocol", protocol, PROTOCOLS), ("precision", precision, PRECISIONS)):
            problems.check(value in known, f"there is no {what} {value!r}{did_you_mean(value, known)}")
        problems.raise_if_any()
        reports, told = [], set[str]()
        for planned in sweep.queue(data, Length(protocol=protocol, precision=precision)):  # type: ignore[arg-type]
            left = [(trial, identity) for trial, identity in planned if not store.done(identity)]
            typer.echo(f"{len(planned)} trainings, {len(planned) - len(left)} of them finished")
            for name, why in planned.left_out.items():
                if name not in told:
                    typer.echo(f"left out, {name}: {why}")
            told |= {*planned.left_out}
            if dry:
                for trial, identity in left[:20]:
                    typer.echo(f"{identity} {trial}")
                continue
            reports.append(
                sweep.run(planned, store, data, engaged=sweep.Engaged(jobs=jobs), deadline=deadline, tell=_tell)
            )
            for trial, identity in left:
                if store.done(identity):
                    typer.echo(f"added {trial}")
            if reports[-1].left:
                break
        if reports:
            _say(sweep.Report.of(reports))


# ------------------------------------------------------------------------------------------------------------- pieces


def _trials(
    datasets: list[str], names: str, settings: int | None, seeds: int, epochs: int | None, size: int | None,
    recipe: str, protocol: str, precision: str,
) -> list[Trial]:  # fmt: skip
    from paper import methods as of_paper
    from tunelater import recipes
    from tunelater.config import PRECISIONS
    from tunelater.data.benchmarks import PROTOCOLS

    problems = Problems()
    for what, value, known in (
        ("recipe", recipe, recipes.RECIPES), ("protocol", protocol, PROTOCOLS), ("precision", precision, PRECISIONS),
    ):  # fmt: skip
        problems.check(value in known, f"there is no {what} {value!r}{did_you_mean(value, known)}")
    for what, number in (("settings", settings), ("seeds", seeds), ("epochs", epochs), ("size", size)):
        problems.check(number is None or number >= 1, f"--{what} must be 1 or more, got {number}")
    problems.check(
        settings is None or settings < 1 or settings in BUDGETS, f"--settings is {BUDGETS_TOLD}, got {settings}"
    )
    columns = _columns(datasets, problems)
    methods: list[Method] = []
    try:
        methods = of_paper.methods(name.strip() for name in names.split(","))
    except InputError as error:
        problems.add(*error.problems)
    problems.raise_if_any()
    length = Length(epochs, size, recipe, protocol, precision)  # type: ignore[arg-type]
    found = of_paper.trials(columns, methods, settings=settings, seeds=range(seeds), length=length)
    if not found:
        raise InputError(f"there is nothing to train: {names} is for tables, and {', '.join(datasets)} has images")
    return found


def _columns(datasets: list[str], problems: Problems) -> list[Column]:
    from paper.data import TABLES

    known = {**COLUMNS, **{name: Column(name, name, name, None) for name in TABLES}}
    found: dict[str, Column] = {}
    for name in datasets:
        problems.check(
            name == "all" or name in known, f"there is no dataset {name!r}{did_you_mean(name, ['all', *known])}"
        )
        found |= COLUMNS if name == "all" else {name: known[name]} if name in known else {}
    return list(found.values())


def _run(
    trials: list[Trial], problems: Problems, results: Path, data: Path, start: float, budget: str | None,
    jobs: int | None, engine: str, address: str | None, gpus: float, retry: bool,
) -> None:  # fmt: skip
    from paper import sweep
    from paper.store import Store

    problems.check(engine in ("local", "ray"), f"--engine is local or ray, got {engine!r}")
    problems.check(engine == "ray" or address is None, "--address is of a Ray cluster: add --engine ray")
    problems.check(gpus >= 0, f"--gpus must be 0 or more, got {gpus:g}")
    problems.check(engine == "ray" or gpus == 0, "--gpus is of trainings under Ray: add --engine ray")
    engaged = sweep.Engaged(engine, address, jobs, gpus)  # type: ignore[arg-type]
    problems.add(*sweep.missing_packages(trials), *engaged.problems())
    deadline = _deadline(start, budget, jobs, problems)
    planned = None
    try:
        planned = sweep.plan(trials, data)
    except InputError as error:
        problems.add(*error.problems)
    problems.raise_if_any()
    assert planned is not None
    _say(sweep.run(planned, Store(results), data, engaged=engaged, deadline=deadline, retry=retry, tell=_tell))


def _deadline(start: float, budget: str | None, jobs: int | None, problems: Problems) -> float | None:
    """Seconds since the epoch: the budget counts from the command's first moment."""
    problems.check(jobs is None or jobs >= 1, f"--jobs must be 1 or more, got {jobs}")
    try:
        seconds = _seconds(budget)
    except InputError as error:
        problems.add(*error.problems)
        return None
    return None if seconds is None else start + seconds


def _say(report: Any) -> None:
    """What came of it; the exit code says whether a trial stands failed, or which signal stopped it."""
    for identity, reason in report.failed.items():
        typer.echo(f"failed {identity}: {reason}", err=True)
    left = f", {report.left} left: the same command goes on with them" if report.left else ""
    failed = f", {len(report.failed)} failed (--retry tries them again)" if report.failed else ""
    typer.echo(f"{report.added} trainings added{failed}{left}.")
    if report.signal is not None:
        raise typer.Exit(128 + report.signal)
    if report.failed:
        raise typer.Exit(1)


def _tell(line: str) -> None:
    typer.echo(line, err=True)


def _seconds(budget: str | None) -> float | None:
    if budget is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", budget.strip())
    if not match:
        raise InputError(f"--budget reads like 90s, 25m or 2h, got {budget!r}")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def _studies(results: Path, out: Path) -> list[tuple[Any, Path]]:
    """Each study with its folder: `out` itself where there is one."""
    from paper.comparison import studies
    from paper.store import Store

    found = studies(Store(results).results())
    if not found:
        raise InputError(f"there are no results in {results}: run some first, or name their folder (--results)")
    if len(found) == 1:
        return [(found[0], out)]
    return [(study, out / re.sub(r"[^\w]+", "-", str(study.length))) for study in found]


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        for problem in error.problems:
            typer.echo(f"error: {problem}", err=True)
        raise typer.Exit(2) from None
    except OSError as error:  # a disk that is full, a folder that can't be read
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from the last checkpoints", err=True)
        raise typer.Exit(130) from None


if __name__ == "__main__":
    app()
