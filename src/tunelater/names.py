"""Names of columns, classes, values and files, which may hold any character, as people see them.

A name can hold what moves a terminal's cursor, what nobody sees, or what reorders the text around it. Shown, these
characters are written out.
"""

from __future__ import annotations

import shlex
import unicodedata


def shown(text: str) -> str:
    """Text with the characters written out that are not seen, or that reorder what is around them; its lines stay."""
    return "".join(c if _is_shown(c) or c == "\n" else _written_out(c) for c in text)


def displayed(name: str) -> str:
    """A name as it is shown within a sentence of a page: without hidden characters or line breaks, and set apart from
    the sentence where its script runs from right to left."""
    out = shown(name).replace("\n", "\\u000a")
    return f"\u2068{out}\u2069" if any(unicodedata.bidirectional(c) in ("R", "AL", "AN") for c in out) else out


def shell_word(text: str) -> str:
    """One word of a command, for a shell to read as this text and for people to see as it is."""
    if all(map(_is_shown, text)):
        return shlex.quote(text)
    out = ""
    for c in text:
        hidden = "".join(f"\\x{byte:02x}" for byte in c.encode("utf-8", "surrogateescape"))
        out += (f"\\{c}" if c in "\\'" else c) if _is_shown(c) else hidden
    return f"$'{out}'"


def _is_shown(character: str) -> bool:
    # Joiners shape letters of some scripts, and families of emoji.
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp") or character in "\u200c\u200d"


def _written_out(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no text, as Python reads it in the name of a file
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
