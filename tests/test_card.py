"""Model cards, and runs on the Hugging Face Hub (offline)."""

import dataclasses
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_iris
from typer.testing import CliRunner

from data_tables import problems_of
from tunelater import LCTClassifier, card
from tunelater.card import make_card, write_card
from tunelater.cli import app
from tunelater.data.reading import read_table
from tunelater.points import OperatingPoint
from tunelater.problems import DoubtfulInputWarning
from tunelater.runs import Run
from tunelater.workflow import evaluate, labelled_samples, tune

huggingface_hub = pytest.importorskip("huggingface_hub")


@pytest.fixture(scope="module")
def point(run: Run, table: Path) -> OperatingPoint:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulInputWarning)
        return tune(run, table, maximize="precision", subject_to="recall>=0.5", grid=2)


def rows_of(text: str, heading: str) -> dict[str, list[str]]:
    section = text.partition(heading)[2].partition("\n#")[0]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return {line[0]: line[1:] for line in lines[2:]}


def test_card_of_a_run_on_its_table(run: Run, table: Path, point: OperatingPoint, tmp_path: Path) -> None:
    point.save(tmp_path / "screen.json")
    arguments = ["card", str(run.path), "--data", str(table), "--at", str(tmp_path / "screen.json")]
    result = CliRunner().invoke(app, [*arguments, "--group", "sex", "--out", str(tmp_path / "README.md")])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    figure = tmp_path / "README-screen.png"
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert f"({figure.name})" in text

    told = huggingface_hub.ModelCard(text).data
    assert told.library_name == "tunelater"
    assert told.pipeline_tag == "tabular-classification"
    expected = evaluate(run, table, at=point)
    assert {of.metric_type: of.metric_value for of in told.eval_results} == {
        name: pytest.approx(estimate.value, abs=1e-6) for name, estimate in expected.items()
    }

    assert run.id in text
    assert run.data["fingerprint"] in text
    assert f"{run.family.prior:.4g}" in text
    metrics = rows_of(text, "### screen")
    for name, estimate in expected.items():
        assert metrics[name] == [f"{estimate.value:.4f}", f"{estimate.low:.4f} to {estimate.high:.4f}"]
    assert rows_of(text, "## Training\n")["`tau`"][:2] == ["0", "3"]
    splits = rows_of(text, "## Training data")
    assert {name: int(of[0].replace(",", "")) for name, of in splits.items()} == {
        name: len(index) for name, index in run.rows.items()
    }
    for heading in ("## How to use", "## What it must not be used for", "## Calibration"):
        assert heading in text


def test_subgroups_are_those_of_the_reported_rows(run: Run, table: Path, point: OperatingPoint, tmp_path: Path) -> None:
    write_card(run, tmp_path / "README.md", data=table, at=point, groups=["sex"])
    rows = rows_of((tmp_path / "README.md").read_text(encoding="utf-8"), "### sex at point 1")
    test = read_table(table).iloc[run.rows["test"]]
    samples, _, columns = labelled_samples(run, table, "test", (), None, ("sex",))
    scores = run.score(samples, dict(point.lam), split="test")
    alerts = point.decide(scores.log_odds[0], scores.prior)
    for value, (n, positives, recall, *_) in rows.items():
        group = columns["sex"] == value
        assert int(n) == group.sum() == (test["sex"] == value).sum()
        ill = group & (scores.target == 1)
        assert int(positives.split()[0]) == ill.sum()
        assert float(recall.split()[0]) == pytest.approx(alerts[ill].mean(), abs=5e-4)
    assert len(rows) == 2


def test_a_subgroup_of_one_class_tells_what_it_can(run: Run, table: Path, point: OperatingPoint) -> None:
    test = read_table(table).iloc[run.rows["test"]]
    ill = (test["diagnosis"] == "hypothyroid").to_numpy()
    site = np.where(ill, "clinic", "street")
    site[np.flatnonzero(ill)[0]] = site[np.flatnonzero(~ill)[0]] = "both"
    test = test.assign(site=site)
    rows = rows_of(make_card(run, data=test, at=point, groups="site").text, "### site at point 1")
    samples, _, columns = labelled_samples(run, test, "test", ("train", "validation"), None, ("site",))
    scores = run.score(samples, dict(point.lam), split="test")
    alerts = point.decide(scores.log_odds[0], scores.prior)
    for where, place, lacking in (("clinic", 2, "no negatives"), ("street", 4, "no positives")):
        told, some = rows[where], columns["site"] == where
        k, n = int(alerts[some].sum()), int(some.sum())
        low, high = stats.beta.ppf([0.025, 0.975], k + 0.5, n - k + 0.5)
        value, low_told, high_told = map(float, re.findall(r"[\d.]+", told[place]))
        expected = [k / n, min(k / n, low), max(k / n, high)]
        assert [value, low_told, high_told] == pytest.approx(expected, abs=6e-4)
        assert told.count(lacking) == 2


def test_one_column_is_subgroups_too(run: Run, table: Path, point: OperatingPoint) -> None:
    of = [make_card(run, data=table, at={"screen": point}, groups=groups).text for groups in ("sex", ["sex"])]
    assert of[0] == of[1]
    assert "### sex at screen" in of[0]


def test_card_without_data_says_that_figures_flatter_or_are_corrected(
    run: Run, point: OperatingPoint, tmp_path: Path
) -> None:
    write_card(run, tmp_path / "a.md", at=point)
    assert "corrected for having been chosen on them" in (tmp_path / "a.md").read_text(encoding="utf-8")
    write_card(run, tmp_path / "b.md", at=dataclasses.replace(point, honest={}))
    assert "which flatter it" in (tmp_path / "b.md").read_text(encoding="utf-8")
    written = write_card(run, tmp_path / "c.md")
    assert written == [tmp_path / "c.md"]
    assert "before it has been evaluated" in written[0].read_text(encoding="utf-8")
    assert huggingface_hub.ModelCard(written[0].read_text(encoding="utf-8")).data.eval_results is None


def test_everything_wrong_is_told_at_once(run: Run, point: OperatingPoint, table: Path, tmp_path: Path) -> None:
    (tmp_path / "card.txt").write_text("mine", encoding="utf-8")
    other = dataclasses.replace(point, model="0" * 16)
    told = problems_of(lambda: write_card(run, tmp_path / "card.txt", at=other, groups=["sex"]))
    for part in ("must end in .md", "subgroups are of data", "belongs to model", "exists"):
        assert any(part in problem for problem in told), told
    told = problems_of(lambda: write_card(run, tmp_path / "card.md", data=table))
    assert any("at an operating point" in problem for problem in told)
    told = problems_of(lambda: write_card(run, tmp_path / "card.md", data=table, at=point, groups=["TSH"]))
    assert re.search("at most 100 values, got .* in 'TSH'", told[0])
    told = problems_of(lambda: write_card(run, tmp_path / "card.txt", data=table, at={"a/b": other}, groups="county"))
    for part in ("must end in .md", "names of operating points", "belongs to model", "exists", "county"):
        assert any(part in problem for problem in told), told
    told = problems_of(lambda: write_card(run, tmp_path / "card.md", at={"a b": point, "a-b": point}))
    assert "files of different names" in told[0]
    assert [path.name for path in tmp_path.iterdir()] == ["card.txt"]


def test_a_missing_package_is_told(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "find_spec", lambda name: None)
    (problem,) = problems_of(lambda: write_card(run, tmp_path / "card.md"))
    assert "pip install 'tunelater[hub]'" in problem


def test_runs_of_more_than_two_classes_are_told_to_have_no_card(tmp_path: Path) -> None:
    from tunelater.hub import HubRun

    X, y = load_iris(return_X_y=True)
    run = LCTClassifier(epochs=1, width=4, depth=1).fit(X, y).run_
    for call in (lambda: write_card(run, tmp_path / "card.md"), lambda: HubRun(run)):
        (problem,) = problems_of(call)
        assert "3 classes: use LCTClassifier.load" in problem


# ------------------------------------------------------------------------------------------------------------- the hub


@pytest.mark.parametrize("with_rows", [False, True])
def test_saved_and_loaded_runs_are_the_same(run: Run, tmp_path: Path, with_rows: bool) -> None:
    from tunelater.hub import HubRun

    HubRun(run, with_rows=with_rows).save_pretrained(tmp_path / "model")
    loaded = HubRun.from_pretrained(str(tmp_path / "model"))
    assert loaded.run.id == run.id
    assert not loaded.training
    x = torch.randn(5, run.form.shape["n_features"])
    lam = {"gamma": 0.1, "tau": 1.0}
    with torch.no_grad():
        assert torch.equal(loaded(x, lam), run.model(x, lam))
    files = {path.name for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert not {name for name in files if name.endswith((".pkl", ".pickle", ".pt", ".bin"))}
    assert {"README.md", "weights.safetensors"} <= files
    assert ("validation.npz" in files) == with_rows
    assert any(len(of) for of in loaded.run.hashes.values()) == with_rows
    assert all(np.array_equal(loaded.run.rows[name], index) for name, index in run.rows.items())
    assert huggingface_hub.ModelCard.load(tmp_path / "model" / "README.md").data.library_name == "tunelater"


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_points_and_the_whole_card_go_along(run: Run, table: Path, point: OperatingPoint, tmp_path: Path) -> None:
    from tunelater.hub import HubRun

    shared = HubRun(run, points={"at home": point})
    shared.save_pretrained(tmp_path / "model", model_card_kwargs={"data": table, "groups": "sex"})
    text = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert rows_of(text, "### at home").keys() == evaluate(run, table, at=point).keys()
    assert set(rows_of(text, "### sex at at home")) == {*read_table(table)["sex"].dropna()}
    assert huggingface_hub.ModelCard(text).data.eval_results
    assert (tmp_path / "model" / "README-at-home.png").read_bytes().startswith(b"\x89PNG")
    assert "`points/at-home.json`" in text
    loaded = HubRun.from_pretrained(str(tmp_path / "model"))
    assert loaded.points == {"at-home": point}
    assert OperatingPoint.load(tmp_path / "model" / "points" / "at-home.json") == point


def test_a_model_that_is_in_the_cache_needs_no_network(run: Run, point: OperatingPoint, tmp_path: Path) -> None:
    from tunelater.hub import HubRun

    commit, cached = "0" * 40, tmp_path / "cache" / "models--somebody--thyroid"
    HubRun(run, points={"screen": point}).save_pretrained(cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit, encoding="utf-8")
    offline: dict[str, Any] = {"cache_dir": tmp_path / "cache", "local_files_only": True}
    loaded = HubRun.from_pretrained("somebody/thyroid", **offline)
    assert loaded.run.id == run.id
    assert loaded.points == {"screen": point}
    with pytest.raises(huggingface_hub.errors.LocalEntryNotFoundError):
        HubRun.from_pretrained("somebody/else", **offline)


def test_what_cannot_be_saved_leaves_nothing_behind(
    run: Run, table: Path, point: OperatingPoint, tmp_path: Path
) -> None:
    from tunelater.hub import HubRun

    shared = HubRun(run, points={"screen": point})
    asked = {"data": tmp_path / "no.csv", "groups": ["sex"], "licence": "mit"}
    told = problems_of(lambda: shared.save_pretrained(tmp_path / "model", model_card_kwargs=asked))
    for part in ("no.csv", "got licence"):
        assert any(part in problem for problem in told), told
    asked = {"data": table, "groups": ["county"]}
    problems_of(lambda: shared.save_pretrained(tmp_path / "new" / "model", model_card_kwargs=asked))
    assert not list(tmp_path.iterdir())
    assert run.path is not None
    before = {name: (run.path / name).read_bytes() for name in files_of(run.path)}
    (problem,) = problems_of(lambda: shared.save_pretrained(run.path))
    assert "is a run folder, from which hashes and scores of rows would go" in problem
    (problem,) = problems_of(lambda: shared.save_pretrained(run.path / "scores"))
    assert "lies in the run folder" in problem
    assert {name: (run.path / name).read_bytes() for name in files_of(run.path)} == before


def test_what_is_wrong_with_points_is_told_at_once(run: Run, point: OperatingPoint) -> None:
    from tunelater.hub import HubRun

    other = dataclasses.replace(point, model="0" * 16)
    told = problems_of(lambda: HubRun(run, points={"a/b": other}))
    assert ["names of operating points" in told[0], "belongs to model" in told[1]] == [True, True]


def test_saving_again_takes_away_what_the_older_version_had(run: Run, point: OperatingPoint, tmp_path: Path) -> None:
    """Scores of single rows above all; and neither other files nor a card that somebody went on writing."""
    from tunelater.hub import HubRun

    place, card = tmp_path / "model", tmp_path / "model" / "README.md"
    HubRun(run, points={"screen": point}, with_rows=True).save_pretrained(place)
    assert {"scores/validation.npz", "points/screen.json"} <= files_of(place)
    (place / ".gitattributes").write_text("mine", encoding="utf-8")
    card.write_text(card.read_text(encoding="utf-8") + "\nMade by the ward.\n", encoding="utf-8")
    HubRun(run).save_pretrained(place)
    assert Run.load(place).validation is None
    assert ".gitattributes" in files_of(place)
    assert not [name for name in files_of(place) if name.startswith(("scores/", "points/"))]
    assert "Made by the ward." in card.read_text(encoding="utf-8")
    HubRun(run).save_pretrained(place, model_card_kwargs={})
    assert "Made by the ward." not in card.read_text(encoding="utf-8")
    card.write_text("of another", encoding="utf-8")
    assert "is of another model" in problems_of(lambda: HubRun(run).save_pretrained(place))[0]
    assert card.read_text(encoding="utf-8") == "of another"


def test_a_saved_classifier_comes_back_from_the_hub(tmp_path: Path) -> None:
    from tunelater.hub import HubRun

    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"size": rng.normal(size=200), "site": rng.choice(["x", "y"], 200)})
    y = pd.Series(np.where(frame["size"] + rng.normal(size=200) > 1.5, "ill", "well"), name="state")
    model = LCTClassifier(trunk="mlp", epochs=2, pos_label="ill", random_state=0).fit(frame[:150], y[:150])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulInputWarning)  # a row is like another but for rounding
        model.tune(frame[150:], y[150:], maximize="f1", grid=2)
    model.save(tmp_path / "saved")
    HubRun(tmp_path / "saved", points={"screen": model.point_}).save_pretrained(tmp_path / "shared")
    loaded = HubRun.from_pretrained(str(tmp_path / "shared"))
    assert loaded.run.path is not None
    again = LCTClassifier.load(loaded.run.path)
    np.testing.assert_array_equal(again.predict(frame), model.predict(frame))
    np.testing.assert_array_equal(again.at(loaded.points["screen"]).predict_proba(frame), model.predict_proba(frame))


def test_pushing_uploads_the_run_folder(
    run: Run, point: OperatingPoint, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunelater.hub import HubRun

    uploaded: dict[str, Any] = {}

    class Api:
        def __init__(self, token: object = None) -> None:
            pass

        def create_repo(self, repo_id: str, **options: Any) -> Any:
            uploaded["private"] = options["private"]
            return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

        def upload_folder(self, *, repo_id: str, folder_path: Path, **options: Any) -> str:
            uploaded["repo"] = repo_id
            uploaded["id"] = Run.load(folder_path).id
            uploaded["card"] = (Path(folder_path) / "README.md").read_text(encoding="utf-8")
            uploaded["files"] = files_of(Path(folder_path))
            uploaded["deleted"] = options["delete_patterns"]
            return "done"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    assert HubRun(run).push_to_hub("somebody/thyroid", private=True) == "done"
    assert uploaded["repo"] == "somebody/thyroid"
    assert uploaded["private"] is True
    assert uploaded["id"] == run.id
    assert run.data["fingerprint"] in uploaded["card"]
    assert "points/*" in uploaded["deleted"]

    uploaded.clear()
    shared = HubRun(run, points={"screen": point})
    problems_of(lambda: shared.push_to_hub("somebody/thyroid", model_card_kwargs={"data": tmp_path / "no.csv"}))
    assert not uploaded  # nor was a repository made
    (card, figure) = write_card(run, tmp_path / "README.md", data=table, at={"screen": point})
    card.write_text(card.read_text(encoding="utf-8") + "\nMade by the ward.\n", encoding="utf-8")
    shared.push_to_hub("somebody/thyroid", model_card_kwargs={"card": card})
    assert "Made by the ward." in uploaded["card"]
    assert {figure.name, "points/screen.json", "DONE"} <= uploaded["files"]
    figure.unlink()
    told = problems_of(
        lambda: shared.push_to_hub("somebody/thyroid", model_card_kwargs={"card": card, "groups": "sex"})
    )
    assert ["leave it out" in told[0], "which is not there" in told[1]] == [True, True]


def test_a_run_from_the_hub_tunes_and_predicts(run: Run, table: Path, tmp_path: Path) -> None:
    from tunelater.hub import HubRun
    from tunelater.workflow import predict

    HubRun(run).save_pretrained(tmp_path / "model")
    loaded = HubRun.from_pretrained(str(tmp_path / "model")).run
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulInputWarning)
        point = tune(loaded, table, maximize="recall", subject_to="precision>=0.2", grid=2)
        predict(loaded, table, at=point, out=tmp_path / "out.csv")
    assert len(pd.read_csv(tmp_path / "out.csv")) == 3163


def test_a_run_from_the_hub_says_that_it_recognises_no_rows(
    run: Run, table: Path, point: OperatingPoint, tmp_path: Path
) -> None:
    from tunelater.hub import HubRun

    HubRun(run).save_pretrained(tmp_path / "model")
    loaded = HubRun.from_pretrained(str(tmp_path / "model")).run
    elsewhere = read_table(table).iloc[run.rows["test"][::-1]]
    with pytest.warns(DoubtfulInputWarning, match="came without hashes") as caught:
        found = evaluate(loaded, elsewhere, at=point)
    assert len(caught) == 1
    expected = evaluate(run, table, at=point)
    assert {name: of.value for name, of in found.items()} == {
        name: pytest.approx(of.value) for name, of in expected.items()
    }
