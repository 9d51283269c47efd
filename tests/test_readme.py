"""README's examples run as written."""

import os
import re
import shlex
import shutil
import warnings
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import real_data
from test_image_workflow import parts
from tunelater.cli import app
from tunelater.problems import DoubtfulInputWarning

README = Path(__file__).parents[1] / "README.md"
CONTRIBUTING = README.with_name("CONTRIBUTING.md")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture
def where_the_demo_ran(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tunelater-demo").mkdir()
    shutil.copy(table, tmp_path / "tunelater-demo" / "thyroid.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_command_line_example(where_the_demo_ran: Path) -> None:
    run_commands("tunelater fit tunelater-demo")
    assert len(pd.read_csv("alerts.csv")) == 3163


def test_image_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    parts(tmp_path / "parts")
    run_commands("tunelater fit parts")
    assert len(pd.read_csv("cracks.csv")) == 90


def run_commands(start: str) -> None:
    (commands,) = [block for block in blocks("console") if block.startswith(start)]
    for line in commands.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == "tunelater"
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.stderr


def test_python_examples(where_the_demo_ran: Path) -> None:
    examples = blocks("python")
    assert len(examples) == 2
    for example in examples:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DoubtfulInputWarning)
            exec(compile(example, "README.md", "exec"), {})
    assert os.path.exists("alerts.parquet")


@pytest.mark.parametrize("place", real_data.PLACES, ids=real_data.told)
def test_a_skipped_test_names_a_place_that_contributors_are_told_of(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = real_data.told(place)
    assert f"`{name}`" in CONTRIBUTING.read_text(encoding="utf-8")
    monkeypatch.setattr(real_data, "CHECKOUT", tmp_path)
    with pytest.raises(pytest.skip.Exception, match=f"needs {re.escape(name)}, real data"):
        real_data.needed(tmp_path / name)


def test_map_names_every_module() -> None:
    text = README.read_text(encoding="utf-8")
    source = README.parent / "src" / "tunelater"
    for module in source.glob("*.py"):
        if not module.name.startswith("__"):
            assert f"`{module.name}`" in text, module.name
    for folder in (p for p in source.iterdir() if p.is_dir() and (p / "__init__.py").exists()):
        assert f"`{folder.name}/`" in text
