"""One palette for all that is drawn, which everybody can tell apart."""

import re
from pathlib import Path

import pytest

from tunelater import look

ROOT = Path(__file__).parents[1]
OWN = {v.upper() for v in vars(look).values() if isinstance(v, str) and v.startswith("#")}
OWN |= {colour.upper() for palette in (look.LIGHT, look.DARK) for colour in palette.values()}
DRAWN = ["docs/_static/*.svg", "docs/_static/site.css", "paper/*.py", "src/tunelater/demo.py",
         "src/tunelater/page/*.*"]  # fmt: skip


@pytest.mark.parametrize("pattern", DRAWN)
def test_what_is_drawn_has_no_colours_of_its_own(pattern: str) -> None:
    files = sorted(ROOT.glob(pattern))
    assert files
    for path in files:
        text = path.read_text(encoding="utf-8")
        colours = re.findall(r"(?<=[\"':= ])#[0-9A-Fa-f]{3,8}\b", text)
        named = re.findall(r"[\"'](?:black|white|gr[ae]y|red|blue|green)[\"']", text)
        assert {c.upper() for c in colours} <= OWN, path
        assert named == [], path
        if path.suffix == ".svg":
            typeface = re.search(r'font-family="([^"]*)"', text)
            assert typeface is not None
            assert [name.strip(" '") for name in typeface[1].split(",")] == list(look.TYPEFACE)


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", [look.LIGHT, look.DARK])
def test_text_and_marks_stand_out(palette: dict[str, str]) -> None:
    for ground in (palette["ground"], palette["surface"]):
        assert all(contrast(palette[text], ground) >= 4.5 for text in ("ink", "muted"))
        assert all(contrast(palette[name], ground) >= 3 for name in ("edge", "chosen", "other", "positive", "negative"))
    assert contrast(palette["on-accent"], palette["accent"]) >= 4.5


def test_colours_of_the_map_rise_in_lightness() -> None:
    rising = [luminance(colour) for colour in look.SEQUENCE_STOPS]
    assert rising == sorted(rising)
    assert all(max(contrast(colour, on) for on in (look.MARK, look.RIM)) >= 3 for colour in look.SEQUENCE_STOPS)
