"""The demo as `make demo` runs it."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tunelater.cli import app
from tunelater.demo import METHODS, NEEDS, TARGET, thyroid
from tunelater.runs import Run, building
from tunelater.tuning import OperatingPoint


def test_the_table_is_the_one_it_says() -> None:
    frame = thyroid()
    assert frame.shape == (3163, 26)
    assert frame[TARGET].value_counts().to_dict() == {"negative": 3012, "hypothyroid": 151}


def test_demo_prints_a_table_with_verdicts_and_leaves_everything(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    result = CliRunner().invoke(app, ["demo", "--out", str(out)])
    assert result.exit_code == 0, result.stderr
    text = result.stdout
    for need in NEEDS:
        assert need in text
    rows = re.findall(r"^  (?!  )(.+?) {2,}(-?\d\.\d+) \[(-?\d\.\d+), (-?\d\.\d+)\]", text, flags=re.MULTILINE)
    assert [name for name, *_ in rows] == [*METHODS] * len(NEEDS)
    assert all(float(low) <= float(value) <= float(high) for _, value, low, high in rows)
    verdicts = re.findall(
        r"^    against .+? {2,}([-+]\S+) \[([-+]\S+), ([-+]\S+)\] +(wins|LOSES|does not win)", text, flags=re.MULTILINE
    )
    assert len(verdicts) == len(NEEDS) * (len(METHODS) - 1)
    for value, low, high, word in verdicts:
        excludes_zero = float(low) > 0 or float(high) < 0
        assert (word == "does not win") != excludes_zero
        assert float(low) <= float(value) <= float(high)
    assert {p.name for p in out.iterdir()} == {
        "run", "thyroid.csv", "curves.png", "report.html", "result.txt", "point-1.json", "point-2.json", "point-3.json",
    }  # fmt: skip
    run = Run.load(out / "run")
    assert OperatingPoint.load(out / "point-1.json").model == run.id
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "report.html").read_text(encoding="utf-8")
    assert run.id in page
    assert (out / "report.html").resolve().as_uri() in text
    again = CliRunner().invoke(app, ["demo", "--out", str(out)])
    assert again.exit_code == 2
    assert "--force" in again.stderr


def test_two_demos_at_once_and_files_of_others(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    with building(out, "demo 0"):
        result = CliRunner().invoke(app, ["demo", "--out", str(out)])
    assert result.exit_code == 2
    assert "is being made by another" in result.stderr
    out.mkdir()
    for name in ("result.txt", "alerts.csv"):
        (out / name).write_text("mine")
    result = CliRunner().invoke(app, ["demo", "--out", str(out), "--force"])
    assert result.exit_code == 2
    assert "also holds alerts.csv, which would be lost" in result.stderr


@pytest.mark.parametrize("content", ["notes", "run"])
def test_demo_does_not_replace_what_it_did_not_write(tmp_path: Path, content: str) -> None:
    (tmp_path / content).mkdir()
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path), "--force"])
    assert result.exit_code == 2
    assert [p.name for p in tmp_path.iterdir()] == [content]
