"""Scoring labelled tables of any size into histograms, in parts, here or on a cluster.

Rows that the run has seen are recognised as in tables that fit in memory (`tunelater.recognition`). Whether they are
left out depends on how many there are among all rows, so they are counted apart until all are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tunelater.data.forms import NewRows
from tunelater.data.table_form import TableRows
from tunelater.distributions import Lambdas
from tunelater.engines import Engine
from tunelater.histograms import Bins
from tunelater.metrics import one_thread
from tunelater.problems import InputError
from tunelater.recognition import EQUAL, NEW, ROUNDED, Recognition, Seen, Verdict
from tunelater.runs import Run
from tunelater.streaming import FoldedHistograms

PARTS_A_JOB = 8
"""At least: histograms travel once for each job, and parts of it never."""


@dataclass
class _Counted:
    """Histograms of rows of each kind that have turned up, and how many were seen."""

    of_kind: dict[int, FoldedHistograms]
    seen: Seen

    def absorb(self, other: _Counted) -> None:
        self.seen.absorb(other.seen)
        for kind, histograms in other.of_kind.items():
            known = self.of_kind.get(kind)
            self.of_kind[kind] = histograms if known is None else known + histograms


@dataclass(frozen=True)
class _Counting:
    """Scores parts of a labelled table; what it needs to do so in another process."""

    run: Run
    lambdas: Lambdas
    stream: TableRows
    recognition: Recognition
    split: str
    bins: Bins

    def __call__(self, parts: Sequence[int]) -> Iterator[Any]:
        """What turned up in each part, and at the end the histograms of all."""
        counted = _Counted({}, Seen())
        for index in parts:
            part = self.stream.part(index)
            for rows in part:
                self._count(rows, counted)
            yield part.found
        yield counted

    def _count(self, rows: NewRows, counted: _Counted) -> None:
        assert rows.hashes is not None
        kinds, seen = self.recognition.kinds(rows.hashes)
        counted.seen.absorb(seen)
        weight = rows.samples.weight
        some = np.flatnonzero(np.ones(len(kinds), bool) if weight is None else weight.numpy() > 0)
        if not len(some):
            return
        with one_thread():  # as Ray's processes have it
            scores = self.run.score(rows.samples.take(torch.from_numpy(some)), self.lambdas, split=self.split)
        for kind in np.unique(kinds[some]):
            at = np.flatnonzero(kinds[some] == kind)
            if kind not in counted.of_kind:
                counted.of_kind[int(kind)] = self.empty(scores.prior, scores.model, scores.extrapolated)
            counted.of_kind[int(kind)].update(scores.take(at), rows.first + some[at])

    def empty(
        self, prior: float, model: str, extrapolated: NDArray[np.bool_] | None, bins: Bins | None = None
    ) -> FoldedHistograms:
        of: Mapping[str, Any] = {"split": self.split, "model": model, "extrapolated": extrapolated}
        return FoldedHistograms.empty(self.lambdas, prior, bins=bins or self.bins, weighted=self.stream.weighted, **of)


def count(
    run: Run,
    stream: TableRows,
    lambdas: Lambdas,
    *,
    apart: Sequence[str],
    engine: Engine,
    memory_mb: int,
    both: bool = True,
) -> tuple[FoldedHistograms, Verdict]:
    """Histograms of the rows that are not like those of some splits of the run's own table.

    Args:
        apart: these splits.
        memory_mb: bound on the histograms, MiB, in each process.
        both: whether rows of both classes must be left.

    Returns:
        the histograms, and what was left out.

    Raises:
        InputError: everything wrong with the rows; nothing left of a class; memory for less than the coarsest bins.
    """
    recognition = Recognition(run, apart)
    sized = FoldedHistograms.empty(lambdas, run.family.prior, weighted=stream.weighted, memory_mb=memory_mb)
    work = _Counting(run, lambdas, stream, recognition, "given", sized.folds[0].bins)
    total = _Counted({}, Seen())
    for result in engine.map(work, _jobs(len(stream), engine)):
        if isinstance(result, _Counted):
            total.absorb(result)
        else:
            stream.absorb(result)
    stream.raise_if_any()
    verdict = recognition.verdict(total.seen)
    kept = [total.of_kind[k] for k in (NEW, EQUAL, ROUNDED) if k in total.of_kind and k not in verdict.left_out]
    counts = np.sum([h.total.counts[0].sum(axis=1) for h in kept], axis=0) if kept else np.zeros(2)
    recognition.check_rest(verdict, counts.tolist() if both else [counts.sum()] * 2)
    if not kept:
        raise InputError("choosing needs rows with weight, got none")
    histograms = kept[0]
    for more in kept[1:]:
        histograms = histograms + more
    return histograms, verdict


def _jobs(parts: int, engine: Engine) -> list[range]:
    """Runs of parts that a process works on before it gives what it has counted."""
    if engine.is_local:
        return [range(parts)]
    return [range(start, min(start + PARTS_A_JOB, parts)) for start in range(0, parts, PARTS_A_JOB)]
