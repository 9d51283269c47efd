"""One look for all that is drawn: the report's page, the demo's figure and the study's.

The colours of Okabe and Ito (2008), which the colour-blind tell apart, and greys; lines also differ by dash and marks
by shape, so that nothing is told by colour alone. Text has a contrast of 4.5 to its ground at the least, and what is
drawn 3 (WCAG 2.2, level AA).
"""

from __future__ import annotations

from collections.abc import Mapping

TYPEFACE = ("DejaVu Sans", "Verdana", "Geneva", "sans-serif")
"""The first that is installed. Matplotlib comes with DejaVu Sans; Verdana, which others have, looks much like it."""

BLUE, VERMILION, GREEN, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9"
INK, MUTED, FAINT = "#1A1C20", "#565B66", "#999999"
"""Text, secondary text and helper lines on white."""

LIGHT: Mapping[str, str] = {
    "ground": "#FFFFFF", "surface": "#F5F6F8", "ink": INK, "muted": MUTED, "line": "#C5CAD3", "edge": "#767C88",
    "chosen": BLUE, "other": MUTED, "positive": VERMILION, "negative": BLUE, "accent": BLUE, "on-accent": "#FFFFFF",
}  # fmt: skip
DARK: Mapping[str, str] = {
    "ground": "#14161A", "surface": "#1E2127", "ink": "#E8EAEE", "muted": "#ABB2BE", "line": "#3B414C",
    "edge": "#8A919D", "chosen": SKY, "other": "#ABB2BE", "positive": ORANGE, "negative": SKY, "accent": SKY,
    "on-accent": "#14161A",
}  # fmt: skip

SEQUENCE = "viridis"
"""Matplotlib's name of the colours of a heat map, whose lightness rises with the value."""
MARK, RIM = "#000000", "#FFFFFF"
"""Of marks on a heat map, black with a white rim, to be seen on any of its colours."""
SEQUENCE_STOPS = (
    "#440154", "#472D7B", "#3B528B", "#2C728E", "#21918C", "#28AE80", "#5EC962", "#ADDC30", "#FDE725",
)  # fmt: skip
"""The same, evenly spaced from low to high."""


def as_css() -> str:
    """The look as custom properties of CSS, for both schemes; paper is light."""

    def told(palette: Mapping[str, str]) -> str:
        return " ".join(f"--{name}: {colour};" for name, colour in palette.items())

    typeface = ", ".join(f'"{name}"' if " " in name else name for name in TYPEFACE)
    fixed = f"--typeface: {typeface}; --sequence: {', '.join(SEQUENCE_STOPS)}; --mark: {MARK}; --rim: {RIM};"
    return (
        f":root {{ color-scheme: light dark; {fixed} {told(LIGHT)} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root:not([data-paper]) {{ {told(DARK)} }} }}\n"
    )
