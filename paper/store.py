"""A folder of results: each trial's is there as a whole or not at all, and several sweeps can fill one folder.

    trials/ab/ab12.../result.json    what was trained, on what, its metrics at every lambda, its time and machine
    trials/ab/ab12.../scores.npz     scores of the candidates that some table may choose, in 16 bits
    running/ab12.../                 checkpoints of what is not finished
    locks/ab12....lock               held by the process that trains it
    failed/ab12....json              why a trial could not be finished

A trial's name is the digest of its recipe and its data, so that results of several machines are merged by copying.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from paper.learning import SPLITS, Candidates
from paper.methods import Trial
from tunelater.problems import InputError

LEVELS = 2**16 - 1
"""Scores are kept in so many steps between their smallest and largest: an AUC moves by a few millionths."""
ATTEMPTS = 3
"""A trial that took its process down so often is not tried again."""


@dataclass(frozen=True)
class Result:
    """A finished trial as it was kept."""

    folder: Path
    record: Mapping[str, Any]

    @cached_property
    def trial(self) -> Trial:
        return Trial.of(self.record["trial"])

    @property
    def identity(self) -> str:
        return self.folder.name

    @property
    def lambdas(self) -> dict[str, NDArray[np.float64]]:
        return {name: np.array(values) for name, values in self.record["lambdas"].items()}

    @property
    def hours(self) -> float:
        return float(sum(self.record["seconds"].values())) / 3600

    def values(self, split: str, kind: str, metric: str) -> NDArray[np.float64]:
        """(L,) a metric of every candidate; NaN where there is none.

        Args:
            split: "validation", "test" or "transferred".
            kind: "logits", "softmax" or "posterior".
        """
        return np.array(self.record["metrics"][split][kind][metric], np.float64)

    def scores(self, split: str, candidate: int, kind: str = "logits") -> tuple[NDArray[np.float64], NDArray[np.int8]]:
        """(N,) scores of a candidate and (N,) targets of a split.

        Raises:
            InputError: a candidate whose scores were not kept.
        """
        kept = list(self.record["kept"])
        if candidate not in kept:
            raise InputError(f"{self.folder} has scores of the candidates {kept}, got {candidate}")
        with np.load(self.folder / "scores.npz", allow_pickle=False) as file:
            row = kept.index(candidate)
            low, high = file[f"{split} {kind} range"][row]
            steps = file[f"{split} {kind}"][row].astype(np.float64)
            target = np.unpackbits(file[f"{split} target"], count=steps.size).astype(np.int8)
        return low + steps * ((high - low) / LEVELS), target


class Store:
    """Results in a folder.

    Raises:
        InputError: a folder that is something else.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"results are kept in a folder, got the file {self.root}")

    def place(self, identity: str) -> Path:
        return self.root / "trials" / identity[:2] / identity

    def work(self, identity: str) -> Path:
        """Where a trial keeps what it needs to go on after a stop."""
        return self.root / "running" / identity

    def done(self, identity: str) -> bool:
        return self.place(identity).is_dir()

    @contextlib.contextmanager
    def claim(self, identity: str) -> Iterator[bool]:
        """Whether the trial is this process's to train, as long as the context lasts; a process that dies lets go."""
        (self.root / "locks").mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.root / "locks" / f"{identity}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def is_claimed(self, identity: str) -> bool:
        """Whether a process trains it now."""
        if not (self.root / "locks" / f"{identity}.lock").exists():
            return False
        with self.claim(identity) as ours:
            return not ours

    def put(self, identity: str, record: Mapping[str, Any], found: Candidates) -> None:
        """Keep a finished trial, which appears as a whole; what it needed to go on is removed."""
        whole = self.work(identity) / "result"
        shutil.rmtree(whole, ignore_errors=True)
        whole.mkdir(parents=True)
        np.savez_compressed(whole / "scores.npz", allow_pickle=False, **_packed(found, record["kept"]))
        _write(whole / "result.json", {"identity": identity, **record, "machine": machine()})
        place = self.place(identity)
        place.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):  # another put it there: it is the same
            os.replace(whole, place)
        shutil.rmtree(self.work(identity), ignore_errors=True)
        self._failure(identity).unlink(missing_ok=True)

    def results(self) -> list[Result]:
        """Every finished trial, in the order of identities.

        Raises:
            InputError: results that are damaged, all at once.
        """
        folders = sorted(self.root.glob("trials/*/*"))
        with ThreadPoolExecutor(8) as pool:
            read = list(pool.map(_read, folders))
        if bad := [f"{f}: {r}" for f, r in zip(folders, read, strict=True) if isinstance(r, str)]:
            raise InputError([f"a result must be whole, got {told}; delete its folder" for told in bad])
        return [Result(f, r) for f, r in zip(folders, read, strict=True) if not isinstance(r, str)]

    # ------------------------------------------------------------------------------------------------ what went wrong

    def _failure(self, identity: str) -> Path:
        return self.root / "failed" / f"{identity}.json"

    def fail(self, identity: str, trial: Trial, reason: str, details: str = "") -> None:
        self._failure(identity).parent.mkdir(parents=True, exist_ok=True)
        told = {"trial": trial.record(), "reason": reason, "details": details, "machine": machine()}
        _write(self._failure(identity), told)

    def failures(self) -> dict[str, dict[str, Any]]:
        """Trials that could not be finished, by identity."""
        return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(self.root.glob("failed/*.json"))}

    def forget_failure(self, identity: str) -> None:
        self._failure(identity).unlink(missing_ok=True)
        (self.work(identity) / "attempts").unlink(missing_ok=True)

    def begin(self, identity: str) -> int:
        """How many attempts at a trial, this one included, have not come to an end of their own."""
        path = self.work(identity) / "attempts"
        path.parent.mkdir(parents=True, exist_ok=True)
        n = len(path.read_text("utf-8").splitlines()) + 1 if path.exists() else 1
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{platform.node()} {os.getpid()}\n")
        return n

    def stopped(self, identity: str, seconds: float) -> None:
        """An attempt was told to stop, and did; its time counts."""
        (self.work(identity) / "attempts").unlink(missing_ok=True)
        (self.work(identity) / "seconds").write_text(str(self.spent(identity) + seconds), encoding="utf-8")

    def spent(self, identity: str) -> float:
        """Seconds of earlier attempts that were told to stop."""
        path = self.work(identity) / "seconds"
        return float(path.read_text("utf-8")) if path.exists() else 0.0

    # -------------------------------------------------------------------------------------------------------- merging

    def merge(self, other: Store) -> tuple[int, int, list[str]]:
        """Copy the other's results in.

        Returns:
            how many were added, how many were here already, and how each differs that is here with other metrics.
        """
        added, same, conflicts = 0, 0, []
        for theirs in other.results():
            place = self.place(theirs.identity)
            mine = _read(place) if place.exists() else None
            if mine is None:
                partial = place.parent / f".{place.name}.{os.getpid()}"
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copytree(theirs.folder, partial)
                os.replace(partial, place)
                added += 1
            elif isinstance(mine, str):
                conflicts.append(f"{place}: {mine}; delete it to take {theirs.folder}")
            elif mine["metrics"] != theirs.record["metrics"]:
                conflicts.append(f"{theirs.trial}: {_largest_difference(mine, theirs.record)}; {place} is kept")
            else:
                same += 1
        return added, same, conflicts


def _read(folder: Path) -> dict[str, Any] | str:
    try:
        return json.loads((folder / "result.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def _write(path: Path, value: Any) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(value, separators=(",", ":")) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _packed(found: Candidates, kept: Sequence[int]) -> dict[str, NDArray[Any]]:
    packed: dict[str, NDArray[Any]] = {}
    for split in SPLITS:
        packed[f"{split} target"] = np.packbits(found.target[split].astype(bool))
        for kind, scores in (("logits", found.logits[split]), ("posterior", found.posterior[split])):
            some = scores[list(kept)].astype(np.float64)
            low, high = some.min(axis=1, keepdims=True), some.max(axis=1, keepdims=True)
            share = (some - low) / np.where(high > low, high - low, 1)
            packed[f"{split} {kind}"] = np.rint(share * LEVELS).astype(np.uint16)
            packed[f"{split} {kind} range"] = np.concatenate([low, high], axis=1)
    return packed


def _largest_difference(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    differences = [
        (float(np.max(np.abs(np.array(mine["metrics"][s][k][m]) - np.array(values)))), f"{s} {k} {m}")
        for s, kinds in theirs["metrics"].items()
        for k, metrics in kinds.items()
        for m, values in metrics.items()
        if len(mine["metrics"].get(s, {}).get(k, {}).get(m, [])) == len(values)
    ]
    size, where = max(differences, default=(float("nan"), "its metrics"))
    return f"{where} differs by {size:.2g}"


def machine() -> dict[str, Any]:
    """Where a trial ran."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "host": platform.node(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def reason_of(error: BaseException) -> tuple[str, str]:
    """A line and the traceback of an exception."""
    line = " ".join(str(error).split()) or type(error).__name__
    return f"{type(error).__name__}: {line}"[:500], "".join(traceback.format_exception(error))[-4000:]
