"""Names of data do nothing to what they are shown in."""

import os
import re
import shutil
import subprocess
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tunelater.cli import app
from tunelater.names import displayed, shell_word, shown

BASH = shutil.which("bash")
HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30) | st.binary(max_size=20).map(os.fsdecode))
def test_names_are_seen_as_they_are(name: str) -> None:
    text = displayed(name)
    text.encode("utf-8")
    inside = text.removeprefix("\u2068").removesuffix("\u2069")
    assert {unicodedata.category(c) for c in inside if c not in "\u200c\u200d"}.isdisjoint(HIDDEN)
    # Nothing in it changes the order of what stands around it.
    assert text != inside or {unicodedata.bidirectional(c) for c in inside}.isdisjoint({"R", "AL", "AN"})
    if name.isascii() and name.isprintable():
        assert text == name


@pytest.mark.skipif(BASH is None, reason="words of a command are read by bash, which is not installed")
def test_a_word_of_a_command_is_read_as_it_was_meant() -> None:
    names = ["run", "run <i> 'a' \"b\" $HOME `x`", "a\\b", "run\u202egnp.exe", "a'\\\u202e'", "\u05d0\u05d1 c"]
    names += ["tab\there", "line\nbreak", os.fsdecode(b"run\xff\xfe"), os.fsdecode(b"\x80'")]
    assert BASH is not None
    for name in names:
        word = shell_word(name)
        assert word.isprintable()
        word.encode("utf-8")
        done = subprocess.run([BASH, "-c", f"printf %s {word}"], capture_output=True, check=True)
        assert done.stdout == os.fsencode(name)


@given(st.text(max_size=30))
def test_lines_stay_lines(text: str) -> None:
    out = shown(text)
    assert out.count("\n") == text.count("\n")
    assert {unicodedata.category(c) for c in out if c not in "\n\u200c\u200d"}.isdisjoint(HIDDEN)


def test_names_do_nothing_to_a_terminal(tmp_path: Path) -> None:
    """Columns, classes and files whose names move the cursor, set its colour, or reorder the line."""
    rng = np.random.default_rng(0)
    label = np.where(np.arange(400) % 8 == 0, "y\u202ees", "n\x1b[31mo")
    frame = pd.DataFrame({"x\x1b[2J": rng.normal(size=400), "g\x9b1m": rng.choice(["a\x07", "b"], 400), "t": label})
    data, run = tmp_path / "d\x1b[H.csv", tmp_path / "run"
    frame.to_csv(data, index=False)
    fitted = CliRunner().invoke(
        app,
        ["fit", str(data), "--target", "t", "--positive", "y\u202ees", "--out", str(run), "--epochs", "1"],
    )
    assert fitted.exit_code == 0, fitted.output
    wanted = ["--maximize", "precision", "--subject-to", "recall>=0.5 in every g\x9b1m"]
    chosen = CliRunner().invoke(app, ["tune", str(run), str(data), *wanted, "--out", str(tmp_path / "p.json")])
    refused = CliRunner().invoke(app, ["tune", str(run), str(tmp_path / "no\x1b[2J.csv"), *wanted])
    assert (chosen.exit_code, refused.exit_code) == (0, 2), chosen.output
    for done in (fitted, chosen, refused):
        assert re.search(r"\\(u00|x)(1b|9b)", done.output)
        assert {unicodedata.category(c) for c in done.output if c != "\n"}.isdisjoint(HIDDEN)
