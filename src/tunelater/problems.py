"""Bad input is one error that lists every problem of a call, found before work starts."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator


class InputError(ValueError):
    """Input that breaks a rule. The command line prints it and exits with code 2.

    Attributes:
        problems: one sentence or two for each: the rule, the value received, the fix.
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class DoubtfulInputWarning(UserWarning):
    """Input that was handled, but that its owner should look at."""


class Problems:
    """Collects what is wrong with a call, so that one error can say all of it.

    >>> problems = Problems()
    >>> problems.check(0.5 < 0, "the learning rate must be negative, got 0.5")
    >>> problems.raise_if_any()
    Traceback (most recent call last):
        ...
    tunelater.problems.InputError: the learning rate must be negative, got 0.5
    """

    def __init__(self) -> None:
        self._found: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def add(self, *problems: str) -> None:
        self._found.extend(problems)

    def check(self, rule_holds: bool, problem: str) -> None:
        if not rule_holds:
            self._found.append(problem)

    def raise_if_any(self) -> None:
        if self._found:
            raise InputError(dict.fromkeys(self._found))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` where one of `known` is close to `word`, else `"; known are ..."`."""
    known = sorted(known)
    in_any_case = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(word.casefold(), in_any_case, n=1, cutoff=0.6)
    return f"; did you mean {in_any_case[close[0]]!r}?" if close else f"; known are {', '.join(known)}"
