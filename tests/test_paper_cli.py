"""The study from the command line."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from paper.__main__ import app

RUN = ["--dataset", "synthetic", "--methods", "vs,vs+lct", "--settings", "1", "--seeds", "2", "--epochs", "2"]


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "results"
    done = call("run", *RUN, "--results", str(folder), "--jobs", "1")
    assert done.exit_code == 0, done.output
    assert "4 trainings added." in done.output
    return folder


def test_a_second_run_has_nothing_to_do_and_status_says_so(results: Path) -> None:
    again = call("run", *RUN, "--results", str(results), "--jobs", "1")
    assert "0 trainings added." in again.output
    told = call("status", *RUN, "--results", str(results)).output.splitlines()
    assert told[-1].split() == ["in", "all", "4"]
    more = call("status", *RUN[:-2], "--epochs", "3", "--results", str(results)).output.splitlines()
    assert more[0].split()[-1] == "missing"
    assert more[-1].rstrip().endswith("4")


def test_tables_come_by_one_command(results: Path, tmp_path: Path) -> None:
    done = call("tables", "--results", str(results), "--out", str(tmp_path), "--only", "table-3")
    assert done.exit_code == 0, done.output
    with (tmp_path / "table-3-held-out.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["method"]: row for row in csv.DictReader(file) if row["column"] == "synthetic"}
    assert {name for name, row in rows.items() if row["value"]} == {"VS", "VS + LCT"}
    assert rows["VS"]["seeds"] == "2"


def test_results_of_two_machines_are_merged(results: Path, tmp_path: Path) -> None:
    done = call("merge", str(results), "--into", str(tmp_path / "all"))
    assert "4 added, 0 here already, 0 in conflict" in done.output
    assert "0 added, 4 here already" in call("merge", str(results), "--into", str(tmp_path / "all")).output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "--dataset", "cifar10-auto-trucks"], ["there is no dataset 'cifar10-auto-trucks'; did you mean"]),
        (
            ["run", "--dataset", "synthetic", "--methods", "vss", "--epochs", "0", "--protocol", "papre"],
            ["--epochs must be 1 or more, got 0", "there is no method 'vss'", "there is no protocol 'papre'"],
        ),
        (["run", "--dataset", "cifar10-auto-truck", "--data", "nowhere"], ["nowhere", "folder of the dataset"]),
        (["run", "--dataset", "cifar10-auto-truck", "--methods", "gbm"], ["gbm is for tables"]),
        (["run", *RUN, "--budget", "soon"], ["--budget reads like 90s, 25m or 2h, got 'soon'"]),
        (["run", *RUN, "--engine", "slurm"], ["--engine is local or ray, got 'slurm'"]),
        (
            ["run", "--dataset", "sintetic", "--engine", "slurm", "--jobs", "0", "--budget", "soon"],
            ["did you mean 'synthetic'", "--engine is local or ray", "--jobs must be 1", "--budget reads like"],
        ),
        (["run", *RUN, "--address", "here"], ["--address is of a Ray cluster"]),
        (["tables", "--results", "nowhere"], ["there are no results in nowhere"]),
        (["merge", "nowhere"], ["there are no results in nowhere"]),
        (["queue", "--data", "nowhere"], ["nowhere has none of the paper's datasets"]),
    ],
)
def test_wrong_input_is_told_with_exit_code_2(
    arguments: list[str], told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call(*arguments)
    assert done.exit_code == 2
    for text in told:
        assert text in done.output
    assert not any(tmp_path.iterdir())


def test_a_budget_that_is_over_leaves_all_for_the_next_run(tmp_path: Path) -> None:
    done = call("run", *RUN, "--results", str(tmp_path / "r"), "--jobs", "1", "--budget", "0s")
    assert done.exit_code == 0, done.output
    assert "0 trainings added, 4 left: the same command goes on with them." in done.output
