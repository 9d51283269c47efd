"""What a report's file says, and what is refused; `test_page.py` opens it in a browser."""

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from page_reference import point_at
from tunelater import reporting
from tunelater.aggregates import SMALLEST, BinnedGrid, joined_values, shared_weights
from tunelater.calibration import Platt
from tunelater.cli import app
from tunelater.needs import Need
from tunelater.points import OperatingPoint
from tunelater.problems import DoubtfulInputWarning, InputError
from tunelater.reporting import report
from tunelater.runs import Run
from tunelater.workflow import count, labelled_samples


def told(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def a_point(run: Run, **of: Any) -> OperatingPoint:
    given = {
        "lam": run.config.lambdas.median,
        "threshold": 0.2,
        "log_odds_threshold": -1.3862943611198906,
        "prior": 0.05,
    }
    return OperatingPoint(**given | {"model": run.id} | of)


# ------------------------------------------------------------------------------------------- the point it opens at


def test_it_opens_at_the_lambda_of_a_point_and_near_its_threshold(run: Run, table: Path, tmp_path: Path) -> None:
    point = a_point(run, lam={"gamma": 0.1234, "tau": 2.5}, log_odds_threshold=-1.2345678901234)
    done = report(run, table, out=tmp_path / "page.html", at=point, grid=2)
    page = told(tmp_path / "page.html")
    grid, start = page["grid"], page["start"]
    # With the default's and the point's own, four values of each: sliders and map have no holes.
    assert (done.lambdas, done.left_out, start["left_out"]) == (16, (), [])
    assert {name: len(set(values)) for name, values in grid["lambdas"].items()} == {"gamma": 4, "tau": 4}
    assert {name: values[start["lambda"]] for name, values in grid["lambdas"].items()} == point.lam
    counted = counted_as(run, table, np.array([0.1234]), np.array([2.5]))
    near = point_at(counted, 0, start["bin"], Need.of(maximize="f1", prior=point.prior))
    away = [
        abs(
            point_at(counted, 0, k, Need.of(maximize="f1", prior=point.prior)).log_odds_threshold
            - point.log_odds_threshold
        )
        for k in range(len(counted.of_lambdas[0]))
    ]
    assert abs(near.log_odds_threshold - point.log_odds_threshold) == min(away)
    assert "1.2345678" not in (tmp_path / "page.html").read_text("utf-8"), "a threshold is between two cases' scores"


def counted_as(run: Run, table: Path, gamma: Any, tau: Any) -> BinnedGrid:
    samples, split, _ = labelled_samples(run, table, "validation", (), None)
    (grid,) = reporting._counted(run, samples, {"gamma": gamma, "tau": tau}, split, {}, SMALLEST, 1024)
    return grid


LEFT_OUT: dict[str, tuple[dict[str, Any], Any, list[str]]] = {
    "auc": ({"needs": {"maximize": "auc"}}, None, ["chosen for auc"]),
    "what a page knows": (
        {"needs": {"maximize": "recall", "subject_to": ["fpr<=0.1"], "prior": 0.05}},
        {"objective": "recall", "constraints": [{"metric": "fpr", "relation": "<=", "bound": 0.1, "every": None}]},
        [],
    ),
    "costs of cases": ({"needs": {"cost": {"fn": "amount", "fp": 5}}}, None, ["costs are of each case"]),
    "costs of right decisions": ({"needs": {"cost": {"fn": 9, "fp": 5, "tn": 1}}}, None, ["of right decisions"]),
    "conditions": (
        {"needs": {"maximize": "f1", "subject_to": ["recall>=0.5 in every age", "f0.5>=0.1", "recall>=0.4"]}},
        {"objective": "f1", "constraints": [{"metric": "recall", "relation": ">=", "bound": 0.4, "every": None}]},
        ["recall>=0.5 in every age", "f0.5>=0.1"],
    ),
    "a range": (
        {"needs": {"minimize": "alert_rate", "prior": [0.01, 0.25]}},
        {"objective": "alert_rate", "constraints": []},
        ["range of priors is told at one, 0.05"],
    ),
    "more than a threshold": (
        {"calibration": Platt(1.0, 0.5), "certificate": {"confidence": 0.9}}, None, ["calibrated", "guarantee"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_what_it_cannot_show_of_a_point_is_said(run: Run, table: Path, kind: str) -> None:
    of, need, said = LEFT_OUT[kind]
    start = reporting._start(a_point(run, **of), counted_as(run, table, np.array([0.15]), np.array([1.5])))
    assert start["need"] == need
    sentences = [what for what in start["left_out"] if "lambda" not in what]
    assert len(sentences) == len(said)
    for what, words in zip(sentences, said, strict=True):
        assert words in what


def test_metrics_of_a_point_are_those_that_the_page_knows() -> None:
    text = (Path(reporting.__file__).parent / "page" / "form.mjs").read_text("utf-8")
    lists = dict(re.findall(r"^export const ([A-Z]+) = \[(.*?)\];", text, re.MULTILINE | re.DOTALL))
    names = {kind: re.findall(r'"(\w+)"', lists[kind]) for kind in ("OBJECTIVES", "CONSTRAINED")}
    assert set(names["OBJECTIVES"]) - {"cost", "net_benefit"} == set(names["CONSTRAINED"]) == set(reporting.OBJECTIVES)


# ------------------------------------------------------------------------------------------- weights


def test_no_weight_of_a_case_reaches_the_file(run: Run, table: Path) -> None:
    """Weights that change places among cases with similar ones leave the counts as they are."""
    samples, split, columns = labelled_samples(run, table, "validation", (), None, ("sex",))
    target, rng = samples.target.numpy(), np.random.default_rng(0)
    weight = rng.gamma(2, 1, len(target))
    shared, moved = shared_weights(target, weight), weight.copy()
    for y, value in {*zip(target.tolist(), shared.tolist(), strict=True)}:
        rows = np.flatnonzero((target == y) & (shared == value))
        moved[rows] = rng.permutation(moved[rows])

    def counted(weight: Any) -> dict[str, Any]:
        weighted = dataclasses.replace(samples, weight=torch.from_numpy(weight))
        lambdas = {"gamma": np.array([0, 0.3]), "tau": np.array([1.0, 2.0])}
        values = {"sex": joined_values(columns["sex"], target)}
        (grid,) = reporting._counted(run, weighted, lambdas, split, values, SMALLEST, 1024)
        return grid.to_dict()

    assert (moved != weight).mean() > 0.5
    assert counted(moved) == counted(weight)


# ------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("folder", "called", "place"),
    [
        ("-x", "-x", "./-x"),
        ("run\u202excod", r"run\u202excod", r"$'run\xe2\x80\xaexcod'"),
        (b"run\xff", r"run\xff", r"$'run\xff'"),
    ],
)  # fmt: skip
def test_folders_of_any_name(run: Run, table: Path, tmp_path: Path, folder: Any, called: str, place: str) -> None:
    moved = dataclasses.replace(run, path=Path(os.fsdecode(folder)))
    report(moved, table, out=tmp_path / "page.html", grid=1)
    page = told(tmp_path / "page.html")
    assert page["run"] == called
    assert page["command"].startswith(f"tunelater predict {place} NEW ")
    assert f"<title>Where to operate: {called}</title>" in (tmp_path / "page.html").read_text("utf-8")


# ------------------------------------------------------------------------------------------- what is refused


def test_counts_of_shards_have_lambdas_and_rows_of_their_own(
    run: Run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.warns(DoubtfulInputWarning, match="left out"):
        count(run, table, out=tmp_path / "shard.npz", grid=2)
    asked = {"out": tmp_path / "page.html", "subgroups": ["sex"], "grid": 50, "allow_test": True}
    with pytest.raises(InputError) as refused:
        report(run, tmp_path / "shard.npz", **asked)
    assert len(refused.value.problems) == 3
    for option in ("--subgroups", "--grid", "--allow-test"):
        assert option in str(refused.value)
    point = a_point(run, lam={"gamma": 0.1234, "tau": 2.5})
    done = report(run, tmp_path / "shard.npz", out=tmp_path / "page.html", at=point)
    assert ("nearest is shown" in done.left_out[0], told(tmp_path / "page.html")["grid"]["bits"]) == (True, 8)
    monkeypatch.setattr(reporting, "MOST_LAMBDAS", 4)
    with pytest.raises(InputError, match="counts at 5: count again at fewer"):
        report(run, tmp_path / "shard.npz", out=tmp_path / "other.html")
    assert not (tmp_path / "other.html").exists()


def test_a_page_too_large_to_send_is_not_written(
    run: Run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "MOST_BYTES", 100_000)
    with pytest.raises(
        InputError, match=r"at most 0.1 MB, and this one would have 0.*--grid.*--subgroups \(of these sex 0"
    ):
        report(run, table, out=tmp_path / "page.html", subgroups=["sex"], grid=3)
    assert list(tmp_path.iterdir()) == []


def test_fewer_cases_than_three_between_thresholds_are_refused(run: Run, table: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="from 3 up, so that none is alone, got 2"):
        report(run, table, out=tmp_path / "page.html", smallest=2)
    with pytest.raises(
        InputError, match=r"need 2000 in all, got \d+: give more cases, or ask for fewer \(--smallest\)"
    ):
        report(run, table, out=tmp_path / "page.html", smallest=1000)
    with pytest.raises(InputError, match=r"a MiB of memory or more, got memory_mb \(--memory\) 0"):
        report(run, table, out=tmp_path / "page.html", memory_mb=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["   ", "", " sex", "sex\u00a0"])
def test_columns_that_no_need_can_name_are_refused(run: Run, table: Path, tmp_path: Path, name: str) -> None:
    """A condition in every value of such a column, on a page, would come to a point that Python does not read."""
    frame = pd.read_csv(table).rename(columns={"sex": name})
    with pytest.raises(InputError) as told:
        report(run, frame, out=tmp_path / "page.html", subgroups=[name])
    assert f"cannot be of {name!r}: give it another name" in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_was_joined_and_left_out(run: Run, table: Path, tmp_path: Path) -> None:
    point = tmp_path / "point.json"
    a_point(run, needs={"maximize": "auc"}).save(point)
    column = "sex"
    samples, _, columns = labelled_samples(run, table, "validation", (), None, (column,))
    joined = joined_values(columns[column], samples.target.numpy()).joined
    out = tmp_path / "page.html"
    asked = [
        "report",
        str(run.path),
        str(table),
        "--out",
        str(out),
        "--grid",
        "1",
        "--subgroups",
        column,
        "--at",
        str(point),
    ]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.stderr
    assert joined > 0
    assert f"{joined} value" in done.stdout
    assert told(out)["grid"]["subgroups"][0]["joined"] == joined
    assert "warning: of" in done.stderr
    assert "it was chosen for auc" in done.stderr
