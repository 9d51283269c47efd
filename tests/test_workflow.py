"""Fit, tune, evaluate and predict on a real table: what comes out, what is refused, what is left behind."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import tunelater
from conftest import QUICK
from tunelater.cli import app
from tunelater.config import FiLMConfig
from tunelater.data import tables
from tunelater.data.preprocessing import Preprocessor
from tunelater.data.reading import read_table
from tunelater.demo import POSITIVE, TARGET
from tunelater.guarantee import Certificate, Uncertified
from tunelater.models import build
from tunelater.problems import DoubtfulInputWarning, InputError
from tunelater.runs import LOCK, Run, building, output_problems
from tunelater.tuning import OperatingPoint
from tunelater.workflow import evaluate, evaluation, fit, predict, tune

NEED = {"maximize": "precision", "subject_to": "recall>=0.9"}


def quiet_fit(*args: object, **kwargs: object) -> Run:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulInputWarning)
        return fit(*args, **kwargs)


def test_columns_without_information_are_left_out_and_named(frame: pd.DataFrame) -> None:
    odd = frame.assign(patient_id=range(len(frame)), same="x", nothing=np.nan)
    with pytest.warns(DoubtfulInputWarning) as caught:
        run = fit(odd, target=TARGET, positive=POSITIVE, config=dataclasses.replace(QUICK, epochs=1))
    text = " ".join(str(w.message) for w in caught)
    for column in ("patient_id", "same", "nothing"):
        assert column in text
        assert column not in run.form.schema.columns
    assert "TSH" in run.form.schema.columns


def test_run_folder_holds_everything_and_loads_elsewhere(run: Run, frame: pd.DataFrame, tmp_path: Path) -> None:
    assert run.path is not None
    names = {p.name for p in run.path.iterdir()}
    assert names >= {
        "config.toml", "weights.safetensors", "table.json", "preprocessing.skops", "data.json", "rows.npz", "scores",
        "metrics.csv", "environment.json", "DONE",
    }  # fmt: skip
    assert not {"checkpoint.pt", "identity"} & names
    moved = tmp_path / "moved"
    shutil.copytree(run.path, moved)
    loaded = Run.load(moved)
    assert loaded.id == run.id
    assert loaded.config == run.config
    features = tables.conform(frame.head(50), run.form.schema)
    lambdas = run.config.lambdas.grid(3)
    np.testing.assert_array_equal(
        loaded.score(loaded.form.split(features), lambdas).log_odds,
        run.score(run.form.split(features), lambdas).log_odds,
    )
    assert loaded.validation is not None
    assert run.validation is not None
    np.testing.assert_array_equal(loaded.validation.log_odds, run.validation.log_odds)


def test_a_run_with_film_after_every_stage_loads_and_scores_alike(frame: pd.DataFrame, tmp_path: Path) -> None:
    config = dataclasses.replace(QUICK, epochs=2, film=FiLMConfig(placement="stages", hidden=8, start="identity"))
    run = quiet_fit(frame, target=TARGET, positive=POSITIVE, config=config, out=tmp_path / "run")
    loaded = Run.load(tmp_path / "run")
    features = tables.conform(frame.head(50), run.form.schema)
    lambdas = run.config.lambdas.grid(2)
    expected = run.score(run.form.split(features), lambdas).log_odds
    np.testing.assert_array_equal(loaded.score(loaded.form.split(features), lambdas).log_odds, expected)
    assert (expected[0] != expected[-1]).all()
    assert tune(loaded, frame, **NEED).n == len(run.rows["validation"])


def test_loading_runs_no_code(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("loading a run unpickled something")

    monkeypatch.setattr("pickle.loads", forbidden)
    monkeypatch.setattr("pickle.load", forbidden)
    monkeypatch.setattr("pickle.Unpickler", forbidden)
    assert run.path is not None
    Run.load(run.path)


@pytest.mark.parametrize("victim", ["weights.safetensors", "config.toml", "table.json", "preprocessing.skops", "DONE"])
def test_a_damaged_run_is_refused(run: Run, tmp_path: Path, victim: str) -> None:
    assert run.path is not None
    broken = tmp_path / "broken"
    shutil.copytree(run.path, broken)
    content = (broken / victim).read_bytes()
    (broken / victim).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=f"damaged: {victim}"):
        Run.load(broken)


def test_files_of_another_run_are_refused(run: Run, tmp_path: Path) -> None:
    assert run.path is not None
    mixed = tmp_path / "mixed"
    shutil.copytree(run.path, mixed)
    text = (mixed / "config.toml").read_text()
    assert "    3.0,\n" in text
    (mixed / "config.toml").write_text(text.replace("    3.0,\n", "    2.0,\n"))
    with pytest.raises(InputError, match=r"config\.toml is not what fit wrote"):
        Run.load(mixed)


def test_splits_are_disjoint_and_the_own_table_gives_only_the_rows_held_back(run: Run, table: Path) -> None:
    everything = np.concatenate(list(run.rows.values()))
    assert len(np.unique(everything)) == len(everything) == run.data["rows"]
    point = tune(run, table, **NEED)
    assert (point.split, point.n) == ("validation", len(run.rows["validation"]))
    assert point.n_positive == run.data["splits"]["validation"]["positives"]
    on_test = evaluate(run, table, at=point)
    scores = _scores_of_rows(run, table, point, "test")
    recall = point.decide(scores.log_odds[0], scores.prior)[scores.target == 1].mean()
    assert on_test["recall"].value == pytest.approx(recall)


def _scores_of_rows(run: Run, table: Path, point: OperatingPoint, split: str) -> tunelater.Scores:
    frame = read_table(table)
    y, _ = tables.label(frame[TARGET], POSITIVE)
    rows = run.rows[split]
    samples = run.form.split(tables.conform(frame, run.form.schema).iloc[rows], y[rows])
    return run.score(samples, point.lam, split=split)


@pytest.mark.parametrize("where", ["film.rescale", "film.start", "preprocessing"])
def test_the_identity_depends_on_what_scores_depend_on(run: Run, frame: pd.DataFrame, where: str) -> None:
    """The weights are the same, the scores are not, so the model is another."""
    features = tables.conform(frame.head(50), run.form.schema)
    if where == "preprocessing":
        few = tables.conform(frame.iloc[run.rows["train"][::2]], run.form.schema)
        other = dataclasses.replace(
            run, form=dataclasses.replace(run.form, preprocessor=Preprocessor().fit(few, run.form.schema))
        )
        assert other.form.preprocessor.n_features == run.form.preprocessor.n_features
    else:
        change = {"rescale": True} if where == "film.rescale" else {"start": "identity"}
        config = dataclasses.replace(run.config, film=dataclasses.replace(run.config.film, **change))
        model = build(config, n_features=run.form.preprocessor.n_features)
        model.load_state_dict(run.model.state_dict())
        other = dataclasses.replace(run, config=config, model=model.eval())
    lam = {"gamma": 0.2, "tau": 2.0}
    assert not np.allclose(
        run.score(run.form.split(features), lam).log_odds, other.score(other.form.split(features), lam).log_odds
    )
    assert other.id != run.id


def test_the_identity_does_not_depend_on_settings_of_the_training(run: Run) -> None:
    config = dataclasses.replace(run.config, epochs=77, batch_size=99)
    assert dataclasses.replace(run, config=config).id == run.id


@pytest.mark.parametrize(
    ("first_line", "words"),
    [
        ("tunelater.run/9", "format 9, of a later version .* update tunelater"),
        ("tunelater.run/1", "format 1, of an earlier version .* fit again"),
        ("0123456789abcdef", "format 1, of an earlier version .* fit again"),
        ("something else", "damaged: DONE"),
        ("", "damaged: DONE"),
    ],
)
def test_runs_of_other_formats_say_so_in_one_line(run: Run, tmp_path: Path, first_line: str, words: str) -> None:
    assert run.path is not None
    other = tmp_path / "other"
    shutil.copytree(run.path, other)
    lines = (other / "DONE").read_text().splitlines()
    (other / "DONE").write_text("\n".join([first_line, *lines[1:]]))
    (other / "config.toml").write_text("what a later version may write")
    with pytest.raises(InputError, match=words) as error:
        Run.load(other)
    assert len(error.value.problems) == 1


def test_points_of_a_later_format_say_so(run: Run, table: Path, tmp_path: Path) -> None:
    point = tmp_path / "point.json"
    text = tune(run, table, **NEED).to_json()
    assert "operating_point/2" in text
    point.write_text(text.replace("operating_point/2", "operating_point/3"))
    with pytest.raises(InputError, match=r"operating_point/3', of a later version of tunelater.*: update tunelater"):
        evaluate(run, table, at=point)


def test_everything_wrong_with_a_point_is_a_line_of_its_own(run: Run, table: Path, tmp_path: Path) -> None:
    point = tune(run, table, **NEED)
    (tmp_path / "bad.json").write_text(json.dumps(json.loads(point.to_json()) | {"threshold": 2, "prior": 0}))
    with pytest.raises(InputError) as error:
        predict(run, table, at=tmp_path / "bad.json", out=tmp_path / "o.csv")
    assert len(error.value.problems) == 2
    assert all(problem.startswith(f"{tmp_path / 'bad.json'}: ") for problem in error.value.problems)
    for lam, words in [({"tau": 1.0}, "lack gamma"), ({"tau": -3.0, "gamma": 0.1}, r"tau of loss 'vs' must lie in")]:
        with pytest.raises(InputError) as error:
            predict(run, tmp_path / "no.csv", at=dataclasses.replace(point, lam=lam), out=tmp_path / "o.csv")
        assert re.search(words, str(error.value))
        assert "no such file" in str(error.value)


def test_nothing_is_written_into_a_run_folder(run: Run, table: Path, frame: pd.DataFrame, tmp_path: Path) -> None:
    assert run.path is not None
    folder, link = tmp_path / "run", tmp_path / "link"
    shutil.copytree(run.path, folder)
    link.symlink_to(folder)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    point = tune(run, table, **NEED)
    words = "lies in the run folder .*run, where only fit writes"
    for place in (folder / "metrics.csv", folder / "new.csv", folder / "scores" / "new.csv", link / "metrics.csv"):
        with pytest.raises(InputError, match=words):
            predict(run, table, at=point, out=place, force=True)
    for place in (folder / "data.json", folder / "point.json"):
        with pytest.raises(InputError, match=words):
            tune(run, table, out=place, force=True, **NEED)
    with pytest.raises(InputError, match=words):
        fit(frame, target=TARGET, positive=POSITIVE, out=folder / "again", force=True)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"also holds notes\.txt, which would be lost"):
        fit(frame, target=TARGET, positive=POSITIVE, out=folder, force=True)


def test_a_folder_with_a_file_done_is_not_ours_for_that(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "DONE").write_text("by another program")
    assert "not a run folder" in output_problems(tmp_path / "other", force=True, folder=True)[0]
    assert output_problems(tmp_path / "other" / "x.csv", force=False, folder=False) == []


def test_the_folder_that_one_is_in_is_no_place_for_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for out in (".", "..", "../here"):
        assert "that you are in" in output_problems(out, force=True, folder=True)[0]
    assert output_problems("../there", force=False, folder=True) == []


def test_test_rows_are_chosen_on_only_when_told(run: Run, table: Path) -> None:
    point = tune(run, table, allow_test=True, **NEED)
    assert (point.split, point.n) == ("test", len(run.rows["test"]))


def test_rows_that_were_trained_on_are_recognised_in_another_table(run: Run, frame: pd.DataFrame) -> None:
    shuffled = frame.sample(frac=1, random_state=0)
    with pytest.warns(DoubtfulInputWarning, match=r"\d+ of 3163 rows equal train rows .* equal test rows .* left out"):
        point = tune(run, shuffled, **NEED)
    assert point.split == "given"
    assert len(run.rows["validation"]) - 100 < point.n <= len(run.rows["validation"])
    with pytest.warns(DoubtfulInputWarning, match="rows equal train rows"):
        assert tune(run, shuffled, allow_test=True, **NEED).n > point.n
    with pytest.raises(InputError, match="none is of class 0, 1: give rows"):
        tune(run, frame.iloc[run.rows["train"]], **NEED)


def test_assessing_leaves_out_rows_that_trained_or_chose(run: Run, table: Path, frame: pd.DataFrame) -> None:
    """In another order, the run's own table gives about its test rows; those alone all count, as they do in it."""
    point = tune(run, table, **NEED)
    with pytest.warns(DoubtfulInputWarning, match=r"rows equal train rows .* equal validation rows .* are left out"):
        shuffled = evaluation(run, frame.sample(frac=1, random_state=0), at=point)
    n = len(run.rows["test"])
    assert shuffled.split == "given"
    assert n - 100 < shuffled.n <= n
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone = evaluation(run, frame.iloc[run.rows["test"]], at=point)
        own = evaluation(run, table, at=point)
    assert alone.n == own.n == n
    assert alone.estimates["recall"] == own.estimates["recall"]
    with pytest.raises(InputError, match="give rows that the model has not seen"):
        evaluate(run, frame.iloc[run.rows["validation"]], at=point)


def test_reweighting_in_place_of_a_prior(run: Run, table: Path) -> None:
    """A stated prior moves probabilities and metrics, not the ranking."""
    here, rare = tune(run, table, cost={"fn": 50, "fp": 1}), tune(run, table, cost={"fn": 50, "fp": 1}, prior=0.001)
    assert rare.prior == 0.001
    assert rare.metrics["cost"].value < here.metrics["cost"].value
    assert rare.metrics["alert_rate"].value <= here.metrics["alert_rate"].value


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_predict_writes_what_scoring_says_in_order(
    run: Run, table: Path, frame: pd.DataFrame, tmp_path: Path, suffix: str
) -> None:
    point = tune(run, table, prior=0.02, **NEED)
    source = tmp_path / f"new{suffix}"
    new = frame.drop(columns=[TARGET]).assign(extra="ignored", case=np.arange(len(frame)))
    new.to_csv(source, index=False) if suffix == ".csv" else new.to_parquet(source)
    with pytest.warns(DoubtfulInputWarning, match="not have are ignored: 'extra'$"):
        done = predict(run, source, at=point, out=tmp_path / f"out{suffix}", keep=["case"])
    result = pd.read_csv(done.out) if suffix == ".csv" else pd.read_parquet(done.out)
    assert result.columns.tolist() == ["case", "probability", "log_odds", "prediction", "extrapolated"]
    assert result["case"].astype(int).tolist() == list(range(len(frame)))
    scores = run.score(run.form.split(tables.conform(frame, run.form.schema)), point.lam)
    expected = scores.at_prior(0.02).log_odds[0]
    np.testing.assert_allclose(result["log_odds"], expected, atol=1e-5)
    np.testing.assert_allclose(result["probability"], 1 / (1 + np.exp(-expected.astype(float))), atol=1e-6)
    alerts = point.decide(scores.log_odds[0], scores.prior)
    assert (result["prediction"] == POSITIVE).tolist() == alerts.tolist()
    assert set(result["prediction"]) <= {POSITIVE, run.form.schema.negative}
    assert done.rows == len(frame)
    assert done.alerts == alerts.sum()
    assert not result["extrapolated"].any()


def test_predict_in_pieces_equals_predict_whole(
    run: Run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = tune(run, table, **NEED)
    whole = pd.read_csv(predict(run, table, at=point, out=tmp_path / "whole.csv").out)
    original = tables.stream_table
    monkeypatch.setattr(tables, "stream_table", lambda *a, **k: original(*a, **{**k, "batch_rows": 97}))
    pieces = pd.read_csv(predict(run, table, at=point, out=tmp_path / "pieces.csv").out)
    pd.testing.assert_frame_equal(whole, pieces, atol=1e-5)
    assert whole["prediction"].equals(pieces["prediction"])


def test_unseen_categories_and_missing_values_are_scored(
    run: Run, frame: pd.DataFrame, table: Path, tmp_path: Path
) -> None:
    new = frame.drop(columns=[TARGET]).head(30).copy()
    new["sex"] = "unknown to the model"
    new["TSH"] = np.nan
    new.to_csv(tmp_path / "new.csv", index=False)
    with pytest.warns(DoubtfulInputWarning, match=r"1 in column 'sex' \(30 rows\)"):
        done = predict(run, tmp_path / "new.csv", at=tune(run, table, **NEED), out=tmp_path / "out.csv")
    assert np.isfinite(pd.read_csv(done.out)["log_odds"]).all()


def test_a_lambda_outside_of_the_trained_range_is_flagged(run: Run, table: Path, tmp_path: Path) -> None:
    point = tune(run, table, grid={"tau": [5.0]}, **NEED)
    assert point.extrapolated
    done = predict(run, table, at=point, out=tmp_path / "out.csv")
    assert done.extrapolated
    assert pd.read_csv(done.out)["extrapolated"].all()
    assert not tune(run, table, **NEED).extrapolated


def test_a_failure_in_the_middle_leaves_nothing(run: Run, table: Path, frame: pd.DataFrame, tmp_path: Path) -> None:
    bad = pd.concat([frame] * 25, ignore_index=True).astype({"age": object, "TSH": object})
    bad.loc[70_000, "age"] = "old"
    bad.loc[71_000, "TSH"] = "high"
    source = tmp_path / "source"
    source.mkdir()
    bad.to_csv(source / "bad.csv", index=False)
    (tmp_path / "out.csv").write_text("precious")
    with pytest.raises(InputError) as error:
        predict(run, source / "bad.csv", at=tune(run, table, **NEED), out=tmp_path / "out.csv", force=True)
    assert "age" in str(error.value)
    assert "TSH" in str(error.value)
    assert (tmp_path / "out.csv").read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.csv", "source"]


def test_a_point_of_another_model_is_refused(run: Run, table: Path, tmp_path: Path) -> None:
    point = dataclasses.replace(tune(run, table, **NEED), model="0123456789abcdef")
    with pytest.raises(InputError, match="belongs to model 0123456789abcdef"):
        predict(run, table, at=point, out=tmp_path / "out.csv")
    with pytest.raises(InputError, match="belongs to model 0123456789abcdef"):
        evaluate(run, table, at=point)
    assert list(tmp_path.iterdir()) == []


def test_all_problems_of_a_predict_at_once(run: Run, frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.drop(columns=["TSH", "age"]).to_csv(tmp_path / "new.csv", index=False)
    (tmp_path / "out.csv").write_text("here")
    with pytest.raises(InputError) as error:
        predict(run, tmp_path / "new.csv", at=tmp_path / "point.json", out=tmp_path / "out.csv")
    text = str(error.value)
    assert all(word in text for word in ("out.csv exists", "no operating point", "TSH", "age"))


def test_all_problems_of_a_fit_at_once(tmp_path: Path, frame: pd.DataFrame) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.tex").write_text("years of work")
    bad = frame.assign(age=np.inf)
    with pytest.raises(InputError) as error:
        fit(bad, target="diagnosys", positive=POSITIVE, out=taken, weight="wait", force=True)
    text = str(error.value)
    for words in ("not a run folder", "did you mean 'diagnosis'", "weight column 'wait'", "age"):
        assert words in text
    assert (taken / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("weights", [[-1.0], [np.nan], [np.inf]])
def test_unusable_sample_weights_are_refused(frame: pd.DataFrame, weights: list[float]) -> None:
    bad = frame.assign(w=weights + [1.0] * (len(frame) - 1))
    with pytest.raises(InputError, match=r"weights in 'w'.*row 1"):
        fit(bad, target=TARGET, positive=POSITIVE, weight="w")


def test_sample_weights_reach_training_and_tuning(frame: pd.DataFrame) -> None:
    weighted = frame.assign(w=np.where(frame[TARGET] == POSITIVE, 4.0, 1.0))
    run = quiet_fit(weighted, target=TARGET, positive=POSITIVE, weight="w", config=QUICK)
    n = run.data["splits"]["train"]
    assert run.data["class_counts"] == [n["rows"] - n["positives"], 4 * n["positives"]]
    assert "w" not in run.form.schema.columns
    with pytest.warns(DoubtfulInputWarning, match="weights 'w', which this table lacks"):
        tune(run, frame, maximize="f1")
    point = tune(run, weighted, maximize="f1")
    positives = run.data["splits"]["validation"]["positives"]
    rows = run.data["splits"]["validation"]["rows"]
    assert point.prior == pytest.approx(4 * positives / (rows + 3 * positives))


def test_an_older_run_is_replaced_only_by_a_whole_one(frame: pd.DataFrame, tmp_path: Path) -> None:
    once = dataclasses.replace(QUICK, epochs=1)
    first = quiet_fit(frame, target=TARGET, positive=POSITIVE, out=tmp_path / "run", config=once)
    with pytest.raises(InputError, match=r"exists; say --force \(force=True\)"):
        quiet_fit(frame, target=TARGET, positive=POSITIVE, out=tmp_path / "run", config=once)
    other = dataclasses.replace(once, seed=1)

    def fail(_: object) -> None:
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        quiet_fit(
            frame, target=TARGET, positive=POSITIVE, out=tmp_path / "run", config=other, force=True, on_epoch=fail
        )
    assert Run.load(tmp_path / "run").id == first.id
    second = quiet_fit(frame, target=TARGET, positive=POSITIVE, out=tmp_path / "run", config=other, force=True)
    assert Run.load(tmp_path / "run").id == second.id != first.id
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_an_interrupted_fit_goes_on_to_the_same_model(table: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(QUICK, epochs=60, early_stopping=None)
    (tmp_path / "config.toml").write_text(config.to_toml())
    command = [
        sys.executable, "-m", "tunelater", "fit", str(table), "--target", TARGET, "--positive", POSITIVE,
        "--config", str(tmp_path / "config.toml"), "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    checkpoint = tmp_path / ".run.partial" / "checkpoint.pt"
    while not checkpoint.exists() and child.poll() is None:
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    _, stderr = child.communicate(timeout=60)
    assert child.returncode == 130, stderr
    assert "goes on" in stderr
    assert not (tmp_path / "run").exists()
    again = CliRunner().invoke(app, command[3:])
    assert again.exit_code == 0, again.output
    whole = quiet_fit(table, target=TARGET, positive=POSITIVE, config=config)
    assert Run.load(tmp_path / "run").id == whole.id
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.toml", "run"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from Linux's /proc")
def test_predict_needs_memory_for_a_piece_only(run: Run, table: Path, tmp_path: Path) -> None:
    """Four times the rows, hardly more memory, seen from outside: of a process that does nothing else.

    Of a reader that is less far ahead than usual: 32 blocks of its size, which a small file would not fill.
    """
    point = tune(run, table, **NEED)
    point.save(tmp_path / "point.json")
    header, rows = table.read_text().split("\n", 1)
    files = [tmp_path / f"{copies}.csv" for copies in (100, 400)]
    for file in files:
        file.write_text(header + "\n" + rows * int(file.stem))
    code = (
        "import sys; from tunelater.data import reading; from tunelater.workflow import predict\n"
        "reading._BLOCK_BYTES = 1 << 18\n"
        "for data in sys.argv[3:]:\n"
        "    predict(sys.argv[1], data, at=sys.argv[2], out=data + '.parquet')\n"
        "    (peak,) = [line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM:')]\n"
        "    print(peak)\n"
    )
    arguments = [sys.executable, "-c", code, str(run.path), str(tmp_path / "point.json"), *map(str, files)]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True, env=os.environ)
    few, many = map(int, done.stdout.split())
    assert files[1].stat().st_size > 80 * 2**20
    assert many - few < 100 * 1024  # KiB; 950,000 more rows as a data frame take 211 MiB


def test_kept_parquet_columns_come_out_exactly(run: Run, table: Path, frame: pd.DataFrame, tmp_path: Path) -> None:
    point = tune(run, table, **NEED)
    n = len(frame)
    case = pa.array([None if i % 3 else 2**60 + i for i in range(n)], pa.int64())
    amount = pa.array([f"{i}.50" for i in range(n)]).cast(pa.decimal128(12, 2))
    whole = pa.Table.from_pandas(frame.drop(columns=[TARGET]), preserve_index=False)
    whole = whole.append_column("case", case).append_column("amount", amount).append_column("list", pa.array([[1]] * n))
    pq.write_table(whole, tmp_path / "new.parquet")
    keep = ["case", "amount", "list"]
    result = pq.read_table(predict_quietly(run, tmp_path / "new.parquet", point, tmp_path / "o.parquet", keep))
    assert result.select(keep).equals(whole.select(keep).replace_schema_metadata(None))
    lines = predict_quietly(run, tmp_path / "new.parquet", point, tmp_path / "o.csv", keep[:2]).read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:4]] == [str(2**60), "", ""]
    with pytest.raises(InputError) as error:
        predict(run, tmp_path / "new.parquet", at=point, out=tmp_path / "p.csv", keep=["list", "log_odds"])
    assert "'list' of the type list" in str(error.value)
    assert "own column 'log_odds'" in str(error.value)


def predict_quietly(run: Run, data: Path, point: OperatingPoint, out: Path, keep: list[str]) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulInputWarning)
        return predict(run, data, at=point, out=out, keep=keep).out


def test_results_replace_no_inputs_and_no_foreign_files(run: Run, table: Path, tmp_path: Path) -> None:
    data, point = tmp_path / "cases.csv", tmp_path / "point.json"
    shutil.copy(table, data)
    tune(run, data, out=point, **NEED)
    tune(run, data, out=point, force=True, **NEED)
    for out, words in [(data, "what predicting reads"), (tmp_path / "o.csv.gz", "must end in .csv, .parquet, .pq")]:
        with pytest.raises(InputError, match=words):
            predict(run, data, at=point, out=out, force=True)
    (tmp_path / "thesis.json").write_text("{}")
    for out, words in [(data, "the table to choose on"), (tmp_path / "thesis.json", "not an operating point")]:
        with pytest.raises(InputError, match=words):
            tune(run, data, out=out, force=True, **NEED)
    assert data.read_bytes() == table.read_bytes()


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "cannot be written to" in output_problems(tmp_path / "x", force=False, folder=True)[0]


def test_a_failed_fit_leaves_nothing_and_a_second_one_is_refused(frame: pd.DataFrame, tmp_path: Path) -> None:
    def second(_: object) -> None:
        quiet_fit(frame, target=TARGET, positive=POSITIVE, out=tmp_path / "run", config=QUICK)

    with pytest.raises(InputError, match=rf"being made by another fit \(process {os.getpid()}\)"):
        quiet_fit(frame, target=TARGET, positive=POSITIVE, out=tmp_path / "run", config=QUICK, on_epoch=second)
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    (tmp_path / ".run.partial").mkdir()
    for pid in (child.pid, os.getpid()):
        (tmp_path / ".run.partial" / LOCK).write_text(str(pid))
        with pytest.raises(KeyboardInterrupt), building(tmp_path / "run", "a") as folder:
            raise KeyboardInterrupt
        assert [p.name for p in folder.iterdir()] == ["identity"]
    (folder / LOCK).write_text(str(os.getppid()))
    with pytest.raises(InputError, match="another fit"), building(tmp_path / "run", "b"):
        pass
    assert (folder / "identity").read_text() == "a"


def test_the_next_prediction_cleans_up_after_one_that_was_killed(run: Run, table: Path, tmp_path: Path) -> None:
    point = tune(run, table, **NEED)
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    names = [f".o.csv.{child.pid}.partial", f".o.csv.{os.getppid()}.partial", f".p.csv.{child.pid}.partial"]
    for name in names:
        (tmp_path / name).write_text("half")
    predict(run, table, at=point, out=tmp_path / "o.csv")
    assert {p.name for p in tmp_path.iterdir()} == {"o.csv", *names[1:]}


def test_sigterm_leaves_no_part_of_a_prediction(run: Run, table: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        predict(
            run, table, at=tune(run, table, **NEED), out=tmp_path / "o.csv",
            on_rows=lambda *_: os.kill(os.getpid(), signal.SIGTERM),
        )  # fmt: skip
    assert signal.getsignal(signal.SIGTERM) is before
    assert list(tmp_path.iterdir()) == []


def test_doubtful_and_wrong_arguments_of_fit(frame: pd.DataFrame) -> None:
    negative = "negative"
    with pytest.warns(DoubtfulInputWarning) as caught:
        fit(frame, target=TARGET, positive=negative, config=dataclasses.replace(QUICK, epochs=1))
    assert any("'negative' is the more frequent one" in str(w.message) for w in caught)
    with pytest.raises(InputError, match=r"--split\) must be above 0 for validation rows, got 0\.8, 0, 0\.2"):
        quiet_fit(frame, target=TARGET, positive=POSITIVE, fractions=(0.8, 0.0, 0.2))
    with pytest.raises(InputError, match="another one than the target"):
        quiet_fit(frame, target=TARGET, positive=POSITIVE, weight=TARGET)
    weighted = frame.assign(w=(frame[TARGET] != POSITIVE).astype(float))
    with pytest.raises(InputError) as error:
        quiet_fit(weighted, target=TARGET, positive=POSITIVE, weight="w")
    assert "train rows of class 1" in str(error.value)
    assert "validation rows of class 1" in str(error.value)
    run = quiet_fit(frame.assign(w=1.0), target=TARGET, positive=POSITIVE, weight="w", config=QUICK)
    with pytest.raises(InputError) as error:
        tune(run, weighted, prior=1.0, **NEED)
    told = "\n".join(error.value.problems)
    assert "a prior lies in (0, 1)" in told
    assert "got none of class 1 (or no weight)" in told
    with pytest.raises(InputError, match=r"row 1: 'nan'"):
        quiet_fit(frame.assign(w=np.nan), target=TARGET, positive=POSITIVE, weight="w")


def test_rows_alike_by_chance_are_not_left_out(frame: pd.DataFrame) -> None:
    few = frame[["sex", "on_thyroxine", "goitre", TARGET]]
    run = quiet_fit(few, target=TARGET, positive=POSITIVE, config=dataclasses.replace(QUICK, epochs=1))
    with pytest.warns(DoubtfulInputWarning, match="they count, because many of those rows"):
        assert tune(run, few[::-1], maximize="f1").n == len(few)


@pytest.mark.parametrize("copied", [lambda x: x.astype(np.float32).astype(float), lambda x: x.round(6)])
def test_rounded_copies_of_training_rows_are_recognised(copied: Callable, tmp_path: Path) -> None:
    """Whatever their order: written in float32, or with six decimals."""
    rng = np.random.default_rng(0)
    y = rng.random(600) < 0.2
    x = pd.DataFrame(rng.normal(size=(600, 4)), columns=list("abcd")) + y[:, None]
    x["group"] = rng.choice(["red", "green"], 600)
    run = quiet_fit(x.assign(y=y), target="y", positive="True", config=dataclasses.replace(QUICK, epochs=1))
    copy = x.assign(**copied(x[list("abcd")])).assign(y=y).sample(frac=1, random_state=0)
    fresh = pd.DataFrame(rng.normal(size=(600, 4)), columns=list("abcd")).assign(group="red", y=y)
    for data, n in ((copy, len(run.rows["validation"])), (pd.concat([copy, fresh]), len(run.rows["validation"]) + 600)):
        with pytest.warns(DoubtfulInputWarning, match="equal, but for rounding, train rows .* left out"):
            assert tune(run, data, maximize="f1").n == n
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tune(run, fresh[::-1], maximize="f1").n == 600
    coarse = x.assign(**x[list("abcd")].round(1)).assign(y=y)  # the order of its labels tells
    with pytest.warns(DoubtfulInputWarning, match=r"in the same order: .* only its validation rows count"):
        assert tune(run, coarse, maximize="f1").n == len(run.rows["validation"])


def test_everything_wrong_with_a_call_is_told_at_once(
    run: Run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for data, target in ((tmp_path / "no.csv", TARGET), (table, "diagnose")):
        told = told_by(lambda: fit(data, target=target, positive=POSITIVE, beta=-3))  # noqa: B023
        assert len(told) == 2
        assert "beta is n_-/n_+, a finite number from 1 on, got -3" in told
    point = tune(run, table, **NEED)
    (tmp_path / "p.json").write_text(json.dumps(json.loads(point.to_json()) | {"prior": 2, "lam": {"gamma": 0.1}}))
    told = told_by(lambda: evaluate(run, table, at=tmp_path / "p.json"))
    assert [re.search(r"lack tau|'prior'", problem) is not None for problem in told] == [True, True]

    def offline(*_: object, **__: object) -> None:
        raise InputError("these weights cannot be had")

    monkeypatch.setattr("tunelater.workflow.build", offline)
    (tmp_path / "empty").mkdir()
    told = told_by(lambda: fit(tmp_path / "empty", positive="cracked"))
    assert told[0] == "these weights cannot be had"
    assert len(told) == 2
    assert str(tmp_path / "empty") in told[1]


def told_by(call: Callable[[], object]) -> tuple[str, ...]:
    with pytest.raises(InputError) as error:
        call()
    return error.value.problems


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda run, frame: fit(frame, target="x", positive="y", config={"epochs": 3}),
            "config is a Config .*got dict",
        ),
        (
            lambda run, frame: fit([1, 2], target="x", positive="y"),
            "data are a file, a folder or a data frame, got list",
        ),
        (lambda run, frame: tune(run, [1], **NEED), "data are a file, a folder or a data frame, got list"),
        (lambda run, frame: tune(3, frame, **NEED), "a run is a Run or its folder, got int"),
        (lambda run, frame: tune(run, frame, prior="0.2", **NEED), r"a prior lies in \(0, 1\), got '0.2'"),
        (lambda run, frame: tune(run, frame, maximize="f1", subject_to=[3]), "constraint reads like .*got 3"),
        (lambda run, frame: tune(run, frame, maximize="f1", subject_to=3), "constraints are a list .*got int"),
        (lambda run, frame: tune(run, frame, maximize=3), "name of a metric, got 3"),
        (lambda run, frame: evaluate(run, frame, at=3), "an operating point is an OperatingPoint or its file, got int"),
        (lambda run, frame: predict(run, frame, at="p.json", out="o.csv"), "got a data frame; write it to Parquet"),
    ],
)
def test_arguments_of_another_type_are_refused_by_name(
    run: Run, frame: pd.DataFrame, call: Callable[[Run, pd.DataFrame], object], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        call(run, frame)


def test_a_point_that_names_no_model_is_doubtful(run: Run, table: Path) -> None:
    point = tune(run, table, **NEED)
    with pytest.warns(DoubtfulInputWarning, match="does not say to which model it belongs"):
        assert evaluate(run, table, at=dataclasses.replace(point, model="")) == evaluate(run, table, at=point)


def test_all_files_of_a_run_have_the_same_permissions(run: Run) -> None:
    assert run.path is not None
    assert len({p.stat().st_mode for p in run.path.iterdir() if p.is_file()}) == 1


def test_beta_thins_the_positives_to_train_on_and_no_others(frame: pd.DataFrame) -> None:
    config = dataclasses.replace(QUICK, epochs=1)
    whole = quiet_fit(frame, target=TARGET, positive=POSITIVE, config=config)
    thin = quiet_fit(frame, target=TARGET, positive=POSITIVE, config=config, beta=50)
    for name in ("validation", "test"):
        np.testing.assert_array_equal(thin.rows[name], whole.rows[name])
    n_negative, n_positive = thin.data["class_counts"]
    assert n_negative == whole.data["class_counts"][0]
    assert n_positive == n_negative // 50 < whole.data["class_counts"][1]
    assert set(thin.rows["train"]) < set(whole.rows["train"])
    assert thin.family.beta == pytest.approx(n_negative / n_positive)
    with pytest.raises(InputError, match="beta"):
        fit(frame, target=TARGET, positive=POSITIVE, config=config, beta=0.5)


def test_needs_take_columns_of_the_table(frame: pd.DataFrame) -> None:
    rng = np.random.default_rng(0)
    told = {"site": rng.choice(["north", "south"], len(frame)), "stay": rng.exponential(50, len(frame))}
    with_columns = frame.assign(**told)
    run = quiet_fit(with_columns, target=TARGET, positive=POSITIVE, config=dataclasses.replace(QUICK, epochs=1))
    asked = {"cost": {"fn": "stay", "fp": 1}, "subject_to": "recall>=0.5 in every site", "prior": (0.01, 0.05)}
    point = tune(run, with_columns, **asked)
    assert point.needs["cost"]["fn"] == "stay"
    assert (point.split, point.n) == ("validation", len(run.rows["validation"]))
    for figures in (point.metrics, point.honest, on_test := evaluate(run, with_columns, at=point)):
        assert {"recall[site=north]", "recall[site=south]", "cost"} <= figures.keys()
    assert point.against_default is not None
    assert dict(point.against_default.lam) == pytest.approx(run.config.lambdas.median)
    test = with_columns.iloc[run.rows["test"]]
    scores = run.score(run.form.labelled(test).samples, point.lam, split="test")
    alerts, ill = point.decide(scores.log_odds[0], scores.prior), scores.target == 1
    missed = (~alerts * test["stay"].to_numpy())[ill].mean()
    costs = [prior * missed + (1 - prior) * alerts[~ill].mean() for prior in (0.01, 0.05)]
    assert on_test["cost"].value == pytest.approx(max(costs))
    south = test["site"].to_numpy() == "south"
    assert on_test["recall[site=south]"].value == pytest.approx(alerts[ill & south].mean())


def test_what_is_wrong_between_needs_data_and_run_is_told_at_once(
    run: Run, table: Path, frame: pd.DataFrame, tmp_path: Path
) -> None:
    (tmp_path / "notes.json").write_text("{}")
    told = told_by(
        lambda: tune(
            run, table, maximize="f3x", subject_to=["recall>=2", "recall>=0.9 in every sx"], prior=(0.2, 0.1), grid=0,
            out=tmp_path / "notes.json",
        )
    )  # fmt: skip
    for words in ("notes.json exists", "no metric 'f3x'", "no bound can be 2", "did you mean 'sex'", "range of priors",
                  "one or more"):  # fmt: skip
        assert any(words in problem for problem in told), (words, told)
    chosen_on = frame.iloc[run.rows["validation"]]
    empty = set(chosen_on["tumor"]) - set(chosen_on["tumor"][chosen_on[TARGET] == POSITIVE])
    assert empty == {"t"}
    told = told_by(lambda: tune(run, table, maximize="f1", subject_to="recall>=0.9 in every tumor", out=tmp_path))
    assert any("needs positives in every value of 'tumor', got none with 't'" in problem for problem in told)
    assert len(told) == 2


def test_rows_that_the_run_stopped_on_put_a_guarantee_in_doubt(run: Run, table: Path, tmp_path: Path) -> None:
    need = {"maximize": "precision", "subject_to": "recall>=0.6", "guarantee": 0.8}
    with pytest.warns(DoubtfulInputWarning, match="the epoch to stop at was chosen by log_loss on these rows"):
        point = tune(run, table, **need, out=tmp_path / "point.json")
    assert OperatingPoint.load(tmp_path / "point.json") == point
    assert "In doubt: the epoch" in str(Certificate.from_dict(point.certificate))
    fresh = dataclasses.replace(run, config=dataclasses.replace(run.config, early_stopping=None))
    with warnings.catch_warnings():
        warnings.simplefilter("error", DoubtfulInputWarning)
        of_fresh = tune(fresh, table, **need)
        on_test = tune(run, table, **need, allow_test=True)
    assert of_fresh.certificate == point.certificate | {"doubts": []}
    assert on_test.certificate["doubts"] == []


def test_a_guarantee_leaves_out_rows_of_other_tables_that_the_run_stopped_on(run: Run, frame: pd.DataFrame) -> None:
    other = frame.iloc[run.rows["validation"]].sample(frac=1, random_state=0)
    changed = other.assign(age=np.where(np.arange(len(other)) < 500, other["age"] + 1000.5, other["age"]))
    with pytest.warns(DoubtfulInputWarning, match="left out"):
        point = tune(run, changed, maximize="precision", subject_to="recall>=0.3", guarantee=0.8)
    assert (point.split, point.n) == ("given", int((changed["age"] > 1000).sum()))


def test_guarantees_that_cannot_be_had_are_refused_with_the_rest(run: Run, table: Path, tmp_path: Path) -> None:
    told = told_by(lambda: tune(run, table, maximize="f1", subject_to="recall>=1", guarantee=1.5, grid=0, out=tmp_path))
    assert any("confidence of a guarantee" in problem for problem in told)
    assert any("one or more" in problem for problem in told)
    (told,) = told_by(lambda: tune(run, table, maximize="f1", subject_to="recall>=0.9", guarantee=0.9, stream=True))
    assert "which histograms do not keep: choose on rows that fit in memory" in told
    told = told_by(lambda: tune(run, table, maximize="f1", subject_to="mcc>=0.5", prior=0.5, guarantee=0.9))
    assert len(told) == 1
    assert "only shares of samples can be certified" in told[0]
    with pytest.raises(Uncertified, match=r"22 are needed .* got 18 of 30"):
        tune(run, table, maximize="f1", subject_to="recall>=0.9", guarantee=0.9)
