"""The command line as its users meet it: a whole job, help, and every kind of bad input."""

import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import special
from typer.testing import CliRunner

from conftest import QUICK
from tunelater import interrupt
from tunelater.cli import _print_estimates, app
from tunelater.config import FiLMConfig
from tunelater.demo import POSITIVE, TARGET
from tunelater.guarantee import Certificate
from tunelater.runs import Run
from tunelater.tuning import OperatingPoint

runner = CliRunner()
COMMANDS = ["fit", "tune", "count", "evaluate", "predict", "adapt", "watch", "demo"]


def tunelater(*arguments: object) -> tuple[int, str, str]:
    result = runner.invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_it_does_with_an_example(command: str) -> None:
    code, out, _ = tunelater(command, "--help")
    assert code == 0
    assert "Example: tunelater" in out


def test_help_is_quick() -> None:
    """In processor time, which other processes on the machine do not lengthen."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    times = []
    for _ in range(3):
        start = spent()
        done = subprocess.run([sys.executable, "-m", "tunelater", "--help"], capture_output=True, text=True, check=True)
        times.append(spent() - start)
    assert all(command in done.stdout for command in COMMANDS)
    assert min(times) < 0.5


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, tunelater; print([m for m in ('torch', 'numpy', 'pandas', 'sklearn') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_whole_job(table: Path, tmp_path: Path) -> None:
    (tmp_path / "quick.toml").write_text(QUICK.to_toml())
    run, point, result = tmp_path / "my run", tmp_path / "point.json", tmp_path / "alerts.csv"
    fit = ["fit", table, "--target", TARGET, "--positive", POSITIVE, "--out", run, "--config", tmp_path / "quick.toml"]
    code, out, _ = tunelater(*fit)
    assert code == 0
    assert f"tunelater tune '{run}'" in out
    need = ["--maximize", "precision", "--subject-to", "recall>=0.9"]
    code, out, _ = tunelater("tune", run, table, *need, "--out", point)
    assert code == 0
    assert "precision" in out
    assert "flatter" in out
    assert json.loads(point.read_text())["metrics"]["recall"][0] >= 0.9
    code, out, _ = tunelater("evaluate", run, table, "--at", point)
    assert code == 0
    assert "95% interval" in out
    assert f"{Run.load(run).data['splits']['test']['rows']} test rows" in out
    code, out, _ = tunelater("predict", run, table, "--at", point, "--out", result, "--keep", "age", "--keep", "sex")
    assert code == 0
    alerts = (pd.read_csv(result)["prediction"] == POSITIVE).sum()
    assert f"3163 rows, {alerts} alerts" in out
    assert pd.read_csv(result).columns[:2].tolist() == ["age", "sex"]


@pytest.mark.parametrize(
    ("log_odds", "shown"),
    [(-9.3, True), (-9.1, False), (0.0, False), (9.1, False), (9.3, True), (50.0, True), (-800.0, True)],
)
def test_a_threshold_that_is_nearly_certain_is_told_as_log_odds_too(
    log_odds: float, shown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    point = OperatingPoint({}, float(special.expit(log_odds)), log_odds, 0.1)
    _print_estimates("Chosen", point, {})
    assert (f"log-odds >= {log_odds:g}" in capsys.readouterr().out) == shown


def test_settings_from_options_land_in_the_run(table: Path, tmp_path: Path) -> None:
    code, _, _ = tunelater(
        "fit", table, "--target", TARGET, "--positive", POSITIVE, "--out", tmp_path / "run", "--epochs", 1, "--seed", 3,
        "--loss", "focal", "--lambda", "alpha=0.25", "--lambda", "phi=uniform(0, 2)", "--split", "0.5,0.3,0.2",
        "--film", "stages", "--precision", "bf16-mixed",
    )  # fmt: skip
    assert code == 0
    run = Run.load(tmp_path / "run")
    assert (run.config.loss, run.config.seed, run.config.lambdas.free) == ("focal", 3, ("phi",))
    assert run.config.lambdas.mean == {"alpha": 0.25, "phi": 1.0}
    assert run.config.film == FiLMConfig("stages", start="identity", rescale=True)
    assert (run.config.precision, run.config.compile) == ("bf16-mixed", False)
    assert run.data["splits"]["validation"]["rows"] == pytest.approx(0.3 * 3163, abs=2)


def edited(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[pd.DataFrame, Path], None]:
    return lambda frame, path: change(frame).to_csv(path, index=False)


def raw(content: str | bytes) -> Callable[[pd.DataFrame, Path], None]:
    data = content.encode() if isinstance(content, str) else content
    return lambda _, path: path.write_bytes(data) and None


BAD_TABLES: dict[str, tuple[Callable[[pd.DataFrame, Path], None], list[str]]] = {
    "one class": (edited(lambda f: f[f[TARGET] == POSITIVE]), ["two values", POSITIVE]),
    "three values": (
        edited(lambda f: f.assign(**{TARGET: ["a", "b", POSITIVE, "c"] * 790 + ["a"] * 3})),
        ["two values"],
    ),
    "missing labels": (edited(lambda f: f.assign(**{TARGET: f[TARGET].mask(f.index < 5)})), ["missing", "5"]),
    "wrong positive": (edited(lambda f: f.replace({POSITIVE: "hypo-thyroid"})), [POSITIVE, "hypo-thyroid"]),
    "too few positives": (
        edited(lambda f: pd.concat([f[f[TARGET] == POSITIVE].head(2), f[f[TARGET] != POSITIVE]])),
        ["2 positives for 3 splits"],
    ),
    "infinities": (
        edited(
            lambda f: f.assign(
                TSH=f["TSH"].mask(f.index == 5, float("inf")), T3=f["T3"].mask(f.index == 6, -float("inf"))
            )
        ),
        ["TSH", "T3", "row 6", "row 7", "finite"],
    ),
    "duplicate names": (raw("diagnosis,a,a\nhypothyroid,1,2\nnegative,1,2\n"), ["unique", "'a'"]),
    "empty": (raw(""), ["empty"]),
    "header alone": (raw("diagnosis,a\n"), ["must hold rows"]),
    "ragged": (raw("diagnosis,a\nhypothyroid,1\nnegative,1,2\n"), ["row 2", "3"]),
    "binary": (raw(bytes(range(256)) * 20), ["text"]),
    "no header": (raw("1,2,3\n4,5,6\n"), ["--no-header"]),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_tables_get_a_message_and_exit_code_2(case: str, frame: pd.DataFrame, tmp_path: Path) -> None:
    write, words = BAD_TABLES[case]
    write(frame, tmp_path / "bad.csv")
    code, out, err = tunelater(
        "fit", tmp_path / "bad.csv", "--target", TARGET, "--positive", POSITIVE, "--out", tmp_path / "run"
    )
    assert code == 2, out
    assert all(word in err for word in words), err
    assert "Traceback" not in err
    assert [p.name for p in tmp_path.iterdir()] == ["bad.csv"]


def test_broken_parquet_and_missing_files(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.to_parquet(tmp_path / "whole.parquet")
    content = (tmp_path / "whole.parquet").read_bytes()
    (tmp_path / "broken.parquet").write_bytes(content[: len(content) // 2])
    for name, words in [("broken.parquet", "Parquet"), ("missing.csv", "no such file")]:
        code, _, err = tunelater(
            "fit", tmp_path / name, "--target", TARGET, "--positive", POSITIVE, "--out", tmp_path / "run"
        )
        assert code == 2
        assert words in err
        assert name in err
    assert not (tmp_path / "run").exists()


def test_all_problems_of_a_fit_are_printed_at_once(table: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    code, _, err = tunelater(
        "fit", table, "--target", "diagnosi", "--positive", POSITIVE, "--out", tmp_path / "run", "--weight", "w",
        "--split", "0.9,0.2,0.1",
    )  # fmt: skip
    assert code == 2
    for words in ("not a run folder", "did you mean 'diagnosis'", "weight column 'w'", "0.9"):
        assert words in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--lambda", "tau"], ["NAME=DISTRIBUTION"]),
        (["--lambda", "tau=linear(0,3,9)", "--epochs", "0"], ["[0, 0.666667]", "epochs must be 1 or more"]),
        (["--lambda", "tua=1"], ["did you mean 'tau'"]),
        (["--lambda", "TAU=1"], ["did you mean 'tau'"]),
        (["--lambda", "tau=1", "--lambda", "tau=2"], ["--lambda must give each name once, got 'tau' 2 times"]),
        (["--split", "1,0,0"], ["above 0 for validation rows"]),
        (["--split", "nan,0.5,0.5"], ["must be in [0, 1]"]),
        (["--split", "0.5,0.5,0.5"], ["must add up to 1", "= 1.5"]),
        (["--split=-0.1,0.6,0.5"], ["must be in [0, 1]"]),
        (["--loss", "vss"], ["did you mean 'vs'"]),
        (["--split", "0.5,0.5"], ["three shares"]),
        (["--config", "none.toml"], ["no config file none.toml"]),
    ],
)
def test_bad_settings(table: Path, tmp_path: Path, options: list[str], words: list[str]) -> None:
    code, _, err = tunelater(
        "fit", table, "--target", TARGET, "--positive", POSITIVE, "--out", tmp_path / "run", *options
    )
    assert code == 2
    assert all(word in err for word in words), err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["one of maximize, minimize and cost"]),
        (["--maximize", "precison"], ["did you mean 'precision'"]),
        (["--maximize", "f1", "--subject-to", "recall=0.9"], ["recall>=0.9"]),
        (["--maximize", "f1", "--subject-to", "recall>=1.2"], ["[0, 1]"]),
        (["--cost", "fn:50"], ["fn=50,fp=1"]),
        (["--cost", "fn=50,fn=1"], ["each name once, got 'fn' 2 times"]),
        (["--cost", "fn=-1,fp=1"], ["cost fn must be 0 or more"]),
        (["--maximize", "f1", "--prior", "1"], ["a prior lies in (0, 1)"]),
        (["--maximize", "f1", "--grid", "0"], ["points for each hyperparameter, one or more"]),
        (["--maximize", "f1", "--subject-to", "precision>=1", "--subject-to", "recall>=1"], ["reaches"]),
    ],
)
def test_bad_needs(run: Run, table: Path, tmp_path: Path, options: list[str], words: list[str]) -> None:
    code, _, err = tunelater("tune", run.path, table, *options, "--out", tmp_path / "point.json")
    assert code == 2
    assert all(word in err for word in words), err
    assert list(tmp_path.iterdir()) == []


def test_bad_predict_input(run: Run, table: Path, frame: pd.DataFrame, tmp_path: Path) -> None:
    point = tmp_path / "point.json"
    assert tunelater("tune", run.path, table, "--maximize", "f1", "--out", point)[0] == 0
    frame.drop(columns=["TSH"]).assign(age="old").to_csv(tmp_path / "new.csv", index=False)
    code, _, err = tunelater("predict", run.path, tmp_path / "new.csv", "--at", point, "--out", tmp_path / "o.csv")
    assert code == 2
    assert "TSH" in err
    foreign = json.loads(point.read_text()) | {"model": "another"}
    (tmp_path / "foreign.json").write_text(json.dumps(foreign))
    code, _, err = tunelater("predict", run.path, table, "--at", tmp_path / "foreign.json", "--out", tmp_path / "o.csv")
    assert code == 2
    assert "belongs to model another" in err
    code, _, err = tunelater("predict", tmp_path / "norun", table, "--at", point, "--out", tmp_path / "no" / "o.csv")
    assert code == 2
    assert "does not exist" in err
    assert "norun" in err
    code, _, err = tunelater("predict", run.path, table, "--at", point, "--out", point, "--force")
    assert code == 2
    assert "must end in .csv, .parquet, .pq" in err
    assert "what predicting reads" in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["foreign.json", "new.csv", "point.json"]


def test_extrapolation_is_said_aloud(run: Run, table: Path, tmp_path: Path) -> None:
    point = tmp_path / "point.json"
    assert tunelater("tune", run.path, table, "--maximize", "f1", "--out", point)[0] == 0
    outside = json.loads(point.read_text())
    outside["lam"]["tau"] = 9.0
    point.write_text(json.dumps(outside))
    code, _, err = tunelater("predict", run.path, table, "--at", point, "--out", tmp_path / "o.csv")
    assert code == 0
    assert "outside of the range" in err


def test_all_problems_of_options_and_files_at_once(run: Run, tmp_path: Path) -> None:
    code, _, err = tunelater(
        "fit", tmp_path / "nofile.csv", "--target", "y", "--positive", "1", "--lambda", "tua=1", "--epochs", "0",
        "--split", "a,b", "--out", tmp_path / "nodir" / "x",
    )  # fmt: skip
    assert code == 2
    for words in ("no such file", "did you mean 'tau'", "epochs must be", "three shares", "nodir/x does not exist"):
        assert words in err, err
    code, _, err = tunelater("tune", tmp_path / "norun", tmp_path / "nofile.csv", "--cost", "x", "--prior", "2")
    assert code == 2
    assert len(err.splitlines()) == 4
    for words in ("norun does not exist", "no such file", "fn=50,fp=1", "a prior lies in"):
        assert words in err
    code, _, err = tunelater("evaluate", run.path, tmp_path / "nofile.csv", "--at", tmp_path / "nopoint.json")
    assert code == 2
    for words in ("no such file", "no operating point"):
        assert words in err


INTERRUPTED = """
import importlib.metadata, os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
(command,) = importlib.metadata.EntryPoints(
    [importlib.metadata.EntryPoint("tunelater", {entry!r}, "console_scripts")]
)
sys.argv = ["tunelater", "evaluate", "norun", "nodata", "--at", "nopoint"]
command.load()()
"""


@pytest.mark.parametrize("module", ["typer", "tunelater.problems", "tunelater.workflow", "torch"])
def test_control_c_while_the_command_is_being_imported_is_one_line(module: str) -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    code = INTERRUPTED.format(module=module, entry=project["project"]["scripts"]["tunelater"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


def test_control_c_is_quiet_only_where_nothing_handles_it() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupt.quiet()
        with pytest.raises(KeyboardInterrupt), interrupt.raised():
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        interrupt.quiet()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (OSError(28, "No space left on device", "x.csv"), "error: reading or writing failed: [Errno 28] No space"),
        (MemoryError(), "fewer lambdas (--grid)"),
        (KeyboardInterrupt(), "stopped; nothing was written"),
    ],
)
def test_failures_of_the_machine_are_one_line(
    run: Run, table: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, words: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr("tunelater.workflow.tune", fail)
    code, _, err = tunelater("tune", run.path, table, "--maximize", "f1")
    assert code == (130 if isinstance(failure, KeyboardInterrupt) else 2)
    assert words in err
    assert len(err.splitlines()) == 1


def test_needs_with_columns_and_a_range_of_priors(run: Run, frame: pd.DataFrame, tmp_path: Path) -> None:
    half = np.where(np.arange(len(frame)) % 2, "a", "b")
    frame.assign(half=half, stay=np.arange(len(frame)) % 7 + 20).to_csv(tmp_path / "cases.csv", index=False)
    point = tmp_path / "point.json"
    need = ["--cost", "fn=stay,fp=1", "--subject-to", "recall>=0.5 in every half", "--subject-to", "alerts<=500/1000"]
    code, out, _ = tunelater("tune", run.path, tmp_path / "cases.csv", *need, "--prior", "0.01:0.05", "--out", point)
    assert code == 0
    for words in ("honest", "recall[half=a]", "worst prior from 0.01 to 0.05", "default"):
        assert words in out
    told = json.loads(point.read_text())
    assert told["needs"]["prior"] == [0.01, 0.05]
    assert told["needs"]["cost"]["fn"] == "stay"
    code, best, _ = tunelater("tune", run.path, tmp_path / "cases.csv", *need, "--prior", "0.01:0.05", "--best")
    assert code == 0
    assert "--best takes" not in best
    code, out, _ = tunelater("evaluate", run.path, tmp_path / "cases.csv", "--at", point)
    assert code == 0
    assert "recall[half=b]" in out
    code, _, err = tunelater("tune", run.path, tmp_path / "cases.csv", "--cost", "fn=sty,fp=1", "--prior", "0.05:x")
    assert code == 2
    assert "did you mean 'stay'" in err
    assert "a range such as 0.005:0.02, got '0.05:x'" in err


def test_a_guarantee_is_told_in_words_or_refused(run: Run, table: Path, tmp_path: Path) -> None:
    point = tmp_path / "point.json"
    asked = ["tune", run.path, table, "--maximize", "precision", "--out", point]
    code, out, err = tunelater(*asked, "--subject-to", "recall>=0.6", "--guarantee", "0.8")
    assert code == 0
    certificate = Certificate.from_dict(json.loads(point.read_text())["certificate"])
    assert str(dataclasses.replace(certificate, doubts=())) in out.replace("\n", " ")
    assert f"certified on {certificate.n} others, {certificate.n_positive} positive" in out
    assert certificate.doubts[0] in err
    assert "flatter" not in out
    point.unlink()
    code, _, err = tunelater(*asked, "--subject-to", "recall>=0.9", "--guarantee", "0.9")
    assert code == 2
    assert "at the least 22 are needed" in err
    assert list(tmp_path.iterdir()) == []
