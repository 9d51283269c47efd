"""Which rows a run has seen: rows that equal those of its own table flatter it, and are left out.

Rows are recognised by hashes, exactly and after rounding (`data.tables.row_hashes`, `rounded_row_hashes`). Rows of few
categories equal others by chance; where they do so no more often than the run's own splits among themselves, they
count. The rule needs no more than how many rows of each kind there were, so that it is the same for rows that come in
pieces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tunelater.problems import InputError
from tunelater.runs import Run

EQUAL_BY_CHANCE = 0.1
"""Share of rows of one split that equal rows of another over which equal rows are no sign of the same table."""
NEW, EQUAL, ROUNDED = 0, 1, 2
"""Kinds of rows: equal to none, equal, and equal but for rounding."""


@dataclass
class Seen:
    """How many rows, of how many, equal rows of which split; each counts for the first split that has it."""

    rows: int = 0
    equal: Counter[str] = field(default_factory=Counter)
    rounded: Counter[str] = field(default_factory=Counter)
    """Only after rounding."""
    equal_rounded: Counter[str] = field(default_factory=Counter)
    """Also before rounding: where these count nonetheless, they are judged once more among the rounded."""

    def absorb(self, other: Seen) -> None:
        """Adds other rows."""
        self.rows += other.rows
        for name in ("equal", "rounded", "equal_rounded"):
            getattr(self, name).update(getattr(other, name))


@dataclass(frozen=True)
class Verdict:
    """What becomes of rows of each kind."""

    left_out: tuple[int, ...]
    told: str
    """Of the rows left out; empty where there are none."""
    doubt: str
    """Of rows that count all the same: because so many equal others by chance, or because nothing is known to recognise
    them by. Empty where there are none."""


class Recognition:
    """Recognises rows of some splits of a run's own table.

    Args:
        splits: the splits that rows must not equal.
    """

    def __init__(self, run: Run, splits: Sequence[str]) -> None:
        self._noun, self._form, self._splits = run.form.noun, run.form.name, tuple(splits)
        self._hashes = {name: np.asarray(run.hashes[name]) for name in splits}
        self._blind = not any(map(len, run.hashes.values())) and any(map(len, run.rows.values()))
        width = max((rows.shape[1] for rows in self._hashes.values()), default=1)
        self._columns = [slice(0, 1), slice(1, None)][: min(width, 2)]
        self.by_chance = [_equal_by_chance(run, splits, columns) for columns in self._columns]

    def kinds(self, hashes: NDArray[np.uint64]) -> tuple[NDArray[np.int8], Seen]:
        """The kind of each of N rows, by their (N, kinds) hashes, and how many there are of each."""
        first = [self._first_split(hashes, columns) for columns in self._columns]
        exact, rounded = first[0], first[-1]
        kind = np.where(exact >= 0, EQUAL, np.where(rounded >= 0, ROUNDED, NEW)).astype(np.int8)
        seen = Seen(len(kind), self._counted(exact))
        if len(self._columns) == 2:
            seen.rounded = self._counted(rounded[kind == ROUNDED])
            seen.equal_rounded = self._counted(rounded[kind == EQUAL])
        return kind, seen

    def _first_split(self, hashes: NDArray[np.uint64], columns: slice) -> NDArray[np.int64]:
        first = np.full(len(hashes), -1)
        for i, rows in reversed(list(enumerate(self._hashes.values()))):
            first[_among(hashes[:, columns], rows[:, columns])] = i
        return first

    def _counted(self, first: NDArray[np.int64]) -> Counter[str]:
        counts = np.bincount(first[first >= 0], minlength=len(self._splits)).tolist()
        return Counter({name: n for name, n in zip(self._splits, counts, strict=True) if n})

    def verdict(self, seen: Seen) -> Verdict:
        """Which kinds are left out: those of which there are twice as many as by chance, or more."""
        if self._blind:
            told_of = f"{self._noun}s that the run was fitted on"
            return Verdict(
                (),
                "",
                f"the run came without hashes of the {told_of} (they stay behind on the Hub), so that these are not "
                f"recognised among the {seen.rows} {self._noun}s here; they would flatter it",
            )
        left_out: list[int] = []
        told: list[str] = []
        kinds = [(EQUAL, "equal", seen.equal), (ROUNDED, "equal, but for rounding,", seen.rounded)]
        for (kind, what, counts), by_chance in zip(kinds, self.by_chance, strict=False):
            also = kind == ROUNDED and EQUAL not in left_out
            found = counts + seen.equal_rounded if also else counts
            of_kind = [
                f"{n} of {seen.rows} {self._noun}s {what} {name} {self._noun}s of the {self._form} that the run was "
                "fitted on"
                for name in self._splits
                if (n := found[name])
            ]
            if by_chance > EQUAL_BY_CHANCE:
                if of_kind and kind == EQUAL:
                    many = f"they count, because many of those {self._noun}s equal others by chance"
                    return Verdict((), "", f"{'; '.join(of_kind)}; {many}")
                break  # rounded rows are still more alike
            if found.total() > 2 * by_chance * seen.rows:  # otherwise as among rows that nobody saw
                left_out += [EQUAL, ROUNDED] if also else [kind]
                told += of_kind
        return Verdict(tuple(left_out), "; ".join(told), "")

    def check_rest(self, verdict: Verdict, counts: Sequence[float]) -> None:
        """Whether rows that are not left out, so many of class 0 and of class 1, are enough.

        Raises:
            InputError: none of a class.
        """
        lacking = [str(c) for c, n in enumerate(counts) if not n]
        if verdict.told and lacking:
            raise InputError(
                f"{verdict.told}; they are left out, and of the others none is of class {', '.join(lacking)}: give "
                f"{self._noun}s that the model has not seen"
            )


def _among(rows: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """(N,) which rows share any of their (N, kinds) hashes with another row, of the same kind."""
    return np.any([np.isin(a, b) for a, b in zip(rows.T, others.T, strict=True)], axis=0)


def _equal_by_chance(run: Run, splits: Sequence[str], columns: slice) -> float:
    """The share of the rows of the run's other splits that equal a row of these all the same."""
    if not run.form.equal_by_chance or not any(map(len, run.hashes.values())):
        return 0.0
    others = [rows[:, columns] for name, rows in run.hashes.items() if name not in splits]
    if not sum(map(len, run.hashes.values())) > len(run.hashes["train"]):  # nothing was held back to tell by
        of_training = run.hashes["train"][:, columns].T
        counts = [np.unique(column, return_inverse=True, return_counts=True)[1:] for column in of_training]
        return float(np.any([count[place] > 1 for place, count in counts], axis=0).mean())
    if not sum(map(len, others)):
        others, splits = [run.hashes["validation"][:, columns]], ("train",)
    known = np.concatenate([run.hashes[name][:, columns] for name in splits])
    return float(_among(np.concatenate(others), known).mean())
