"""README's examples run as written."""

import dataclasses
import os
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

import real_data
import tunelater
from documents import ROOT, Block, Reader, blocks
from test_image_workflow import parts
from tunelater import recipes

README = ROOT / "README.md"
CONTRIBUTING = README.with_name("CONTRIBUTING.md")


def examples(language: str, start: str = "") -> list[Block]:
    return [block for block in blocks(README) if block.language == language and block.text.startswith(start)]


@pytest.fixture
def where_the_demo_ran(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With shorter trainings: examples of the site train as long as they do for users."""
    shorter = dataclasses.replace(recipes.tables(), epochs=5)
    monkeypatch.setattr(recipes, "tables", lambda: shorter)
    (tmp_path / "tunelater-demo").mkdir()
    shutil.copy(table, tmp_path / "tunelater-demo" / "thyroid.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_command_line_example(where_the_demo_ran: Path) -> None:
    (block,) = examples("console", "tunelater fit tunelater-demo")
    Reader().run(block, README)
    assert len(pd.read_csv("alerts.csv")) == 3163


def test_image_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    parts(tmp_path / "parts")
    (block,) = examples("console", "tunelater fit parts")
    Reader().run(block, README)
    assert len(pd.read_csv("cracks.csv")) == 90


def test_python_examples(where_the_demo_ran: Path) -> None:
    assert len(examples("python")) == 2
    for example in examples("python"):
        Reader().run(example, README)
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


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load(README.with_name("CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == tunelater.__version__
