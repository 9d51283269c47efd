"""The pages of the site do what they say: every example runs, or says why it is not run."""

import re
import shutil
from pathlib import Path

import pytest

from documents import ROOT, Reader, blocks

DOCS = ROOT / "docs"
MADE = {"reference", "repository", "results"}  # what building the site writes, and what the study wrote
PAGES = sorted(page for page in DOCS.rglob("*.md") if page.relative_to(DOCS).parts[0] not in MADE)
ELSEWHERE = re.compile(r"^<!-- examples run in tests/(\w+\.py) -->$", re.MULTILINE)
"""Of a page whose examples need what another test has."""


def other_test_of(page: Path) -> str | None:
    """The test that runs a page's examples, where this is not the one."""
    found = ELSEWHERE.search(page.read_text(encoding="utf-8"))
    return None if found is None else found[1]


@pytest.fixture(scope="module")
def fits() -> dict[tuple[str, ...], Path]:
    """What one page has fitted, for the next."""
    return {}


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks(page) and not other_test_of(page)],
    ids=lambda page: page.relative_to(DOCS).as_posix(),
)
def test_examples_run(
    page: Path, fits: dict[tuple[str, ...], Path], table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copy(table, "thyroid.csv")
    reader = Reader(fits)
    for block in blocks(page):
        if block.reason is None:
            reader.run(block, page)


def test_a_mark_is_of_the_block_below_it() -> None:
    """A comment that marks nothing, by a slip of the pen, would be one that nobody notices."""
    for page in PAGES:
        marks = re.findall(r"^<!-- (?:not run|exit code)", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(marks) == sum(block.reason is not None or block.exit_code > 0 for block in blocks(page)), page


def test_a_test_that_a_page_names_opens_it() -> None:
    for page in PAGES:
        if (name := other_test_of(page)) is not None:
            assert f'"{page.name}"' in Path(__file__).with_name(name).read_text(encoding="utf-8"), page


def test_no_example_escapes() -> None:
    """Indented, or in a language by another name, one would not be found and not be run."""
    for page in PAGES:
        fences = re.findall(
            r"^\s*(?:```|~~~)\s*(?:python|pycon|console|bash|sh)\b", page.read_text(encoding="utf-8"), re.MULTILINE
        )
        assert len(fences) == len(blocks(page)), page


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("```python\n>>> 1 + 1\n3\n```\n", "page.md, line 2"),
        ("```python\nraise ValueError(1)\n```\n", "1"),
        ("```console\ntunelater predict nowhere nothing.csv\n```\n", "page.md, line 2: 2"),
        ("<!-- exit code 3 -->\n```console\ntunelater --help\n```\n", "page.md, line 3: 0"),
        ("```console\npip install tunelater\n```\n", "mark the block with a reason"),
    ],
)
def test_an_example_that_does_not_hold_is_told(text: str, told: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    (block,) = blocks(page)
    with pytest.raises((AssertionError, ValueError), match=told):
        Reader().run(block, page)
