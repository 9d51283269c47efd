"""A folder of results: each trial's is there as a whole or not at all, and several sweeps can fill one folder.

    trials/ab/ab12.../result.json    what was trained, on what, its metrics at every lambda, its time and machine
    trials/ab/ab12.../scores.npz     scores of the candidates that some table may choose, in 16 bits
    running/ab12.../                 checkpoints of what is not finished
    locks/ab12....lock               held by the process that trains it
    failed/ab12....json              why a trial could not be finished
    sweeps/host-pid-n.lock           held by a sweep as long as its workers shall go on
    partial/                         copies that are not whole yet

A trial's name is the digest of its recipe and its data, so that results of several machines are merged by copying.
Locks are those of the operating system, which lets go of them when a process dies: a folder that several machines share
must have them too, as NFS 4 does.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import platform
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from tunelater.runs import another_lives
from tunelater.training import CHECKPOINT

LEVELS = 2**16 - 1
"""Scores are kept in so many steps between their smallest and largest: an AUC moves by a few millionths."""
SPARE = 16 * 2**20
"""Bytes: with less room than that, it is the disk's fault and not the trial's that something went wrong."""


@dataclass(frozen=True, eq=False)
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

    @cached_property
    def hours(self) -> float:
        """Of training, scoring and measuring, earlier attempts included, in its `unit`."""
        return float(sum(self.record["seconds"].values())) / 3600

    @property
    def unit(self) -> str:
        """CPU-hours; GPU-hours by the clock; hours by the clock of results of before processors were asked."""
        if self.record["machine"]["gpu"]:
            return "GPU-hours by the clock"
        return "CPU-hours" if self.record.get("timed") == "processor" else "hours by the clock"

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

    def failed(self, identity: str) -> bool:
        return self._failure(identity).exists()

    def check_writable(self) -> None:
        """Raises:
        InputError: a folder that can't be written to, or a disk that is full.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root) as file:
                file.write(bytes(2**16))
            problem = None if shutil.disk_usage(self.root).free >= SPARE else "No space left on device"
        except OSError as error:
            problem = error.strerror or str(error)
        if problem:
            raise InputError(
                f"results must be written to {self.root}, got: {problem}; make room there, or name another folder"
            )

    @contextlib.contextmanager
    def claim(self, identity: str) -> Iterator[bool]:
        """Whether the trial is this process's to train, as long as the context lasts; a process that dies lets go.

        Whoever has a claim must look again whether the trial is done or failed: only then does its lock's file go, and
        another process may have waited for the file that went.
        """
        lock = self._lock("locks", identity)
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        if not _taken(lock):
            yield False
            return
        try:
            yield True
        finally:
            if self.done(identity) or self.failed(identity):
                Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()

    def is_claimed(self, identity: str) -> bool:
        """Whether a process trains it now."""
        lock = self._lock("locks", identity)
        return Path(lock.lock_file).exists() and not _free(lock)

    def _lock(self, kind: str, name: str) -> FileLock:
        return FileLock(self.root / kind / f"{name}.lock", thread_local=False)

    # -------------------------------------------------------------------------------------------------------- sweeps

    @contextlib.contextmanager
    def sweep(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """A name under which workers train, and what tells them to stop; the end of this process tells them too."""
        name = f"{platform.node()}-{os.getpid()}-{time.monotonic_ns()}"
        lock = self._lock("sweeps", name)
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        try:
            yield name, lock.release
        finally:
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)

    def sweeping(self, name: str) -> bool:
        """Whether the sweep of that name lives and goes on."""
        lock = self._lock("sweeps", name)
        return Path(lock.lock_file).exists() and not _free(lock)

    def tidy(self) -> None:
        """Remove what processes left that were killed: half a copy, locks that guard nothing any more, checkpoints of
        what is finished."""
        for path in self.root.glob("sweeps/*.lock"):
            if _free(FileLock(path)):
                path.unlink(missing_ok=True)
        for path in self.root.glob("partial/*"):
            host, _, pid = path.name.partition(" ")[0].rpartition("-")
            with contextlib.suppress(FileNotFoundError):  # the other has just made it whole
                abandoned = time.time() - path.stat().st_mtime > 86_400
                if abandoned or (host == platform.node() and not another_lives(pid)):
                    shutil.rmtree(path, ignore_errors=True)
        for path in self.root.glob("running/*"):
            if self.done(path.name):
                shutil.rmtree(path, ignore_errors=True)
        for path in self.root.glob("locks/*.lock"):
            if self.done(path.stem) or self.failed(path.stem):
                with self.claim(path.stem):
                    pass  # whose end removes it

    # ------------------------------------------------------------------------------------------------------- results

    def put(self, identity: str, record: Mapping[str, Any], found: Candidates) -> None:
        """Keep a finished trial, which appears as a whole; what it needed to go on is removed."""
        whole = self.work(identity) / "result"
        shutil.rmtree(whole, ignore_errors=True)
        whole.mkdir(parents=True)
        np.savez_compressed(whole / "scores.npz", allow_pickle=False, **_packed(found, record["kept"]))
        _write(whole / "result.json", {"identity": identity, **record, "machine": machine()})
        for path in whole.iterdir():  # or a loss of power could leave a result that is there and empty
            _to_disk(path)
        place = self.place(identity)
        _appear(whole, place)
        shutil.rmtree(self.work(identity), ignore_errors=True)
        self._failure(identity).unlink(missing_ok=True)

    def results(self) -> list[Result]:
        """Every finished trial, in the order of identities.

        Raises:
            InputError: results that are damaged, all at once.
        """
        folders = sorted(self.root.glob("trials/*/[!.]*"))
        # Millions of numbers that stay: the garbage collector would look through them again and again.
        gc.disable()
        try:
            with ThreadPoolExecutor(8) as pool:
                read = list(pool.map(_read, folders))
            gc.freeze()
        finally:
            gc.enable()
        if bad := [f"{f}: {r}" for f, r in zip(folders, read, strict=True) if isinstance(r, str)]:
            raise InputError([f"a result must be whole, got {told}; delete its folder" for told in bad])
        return [Result(f, r) for f, r in zip(folders, read, strict=True) if not isinstance(r, str)]

    def seconds(self, identity: str) -> dict[str, float]:
        """What a finished trial took, by part."""
        record = _read(self.place(identity))
        return {} if isinstance(record, str) else dict(record["seconds"])

    # ------------------------------------------------------------------------------------------------ what went wrong

    def _failure(self, identity: str) -> Path:
        return self.root / "failed" / f"{identity}.json"

    def fail(self, identity: str, trial: Trial, reason: str, details: str = "") -> None:
        self._failure(identity).parent.mkdir(parents=True, exist_ok=True)
        told = {"trial": trial.record(), "reason": reason, "details": details, "machine": machine()}
        _write(self._failure(identity), told)
        (self.work(identity) / _BY).unlink(missing_ok=True)

    def failures(self) -> dict[str, str]:
        """Why trials could not be finished, by identity."""
        return {path.stem: _reason(path) for path in sorted(self.root.glob("failed/*.json"))}

    def forget_failure(self, identity: str) -> None:
        self._failure(identity).unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------------------------- attempts

    def begin(self, identity: str, sweep: str) -> None:
        """An attempt at a trial begins, for a sweep."""
        self.lost(identity)
        self.work(identity).mkdir(parents=True, exist_ok=True)
        (self.work(identity) / _BY).write_text(sweep, encoding="utf-8")

    def lost(self, identity: str) -> None:
        """An attempt, if there was one, came to no end of its own: its time counts up to its last checkpoint."""
        work = self.work(identity)
        with contextlib.suppress(FileNotFoundError):
            self._spend(identity, max(0.0, (work / CHECKPOINT).stat().st_mtime - (work / _BY).stat().st_mtime))
        (work / _BY).unlink(missing_ok=True)

    def begun_by(self, identity: str) -> str | None:
        """The sweep of an attempt that came to no end of its own."""
        try:
            return (self.work(identity) / _BY).read_text(encoding="utf-8")
        except OSError:
            return None

    def stopped(self, identity: str, seconds: float) -> None:
        """An attempt was told to stop, and did; its time counts."""
        self._spend(identity, seconds)
        (self.work(identity) / _BY).unlink(missing_ok=True)

    def _spend(self, identity: str, seconds: float) -> None:
        (self.work(identity) / "seconds").write_text(str(self.spent(identity) + seconds), encoding="utf-8")

    def spent(self, identity: str) -> float:
        """Seconds of earlier attempts, up to their last checkpoint."""
        try:
            return float((self.work(identity) / "seconds").read_text("utf-8"))
        except (OSError, ValueError):  # ValueError: killed as it was written
            return 0.0

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
            if mine is None and self._copy(theirs):
                added += 1
                continue
            mine = _read(place) if mine is None else mine  # another merge has just put it there
            if isinstance(mine, str):
                conflicts.append(f"{place}: {mine}; delete it to take {theirs.folder}")
            elif json.dumps(mine["metrics"]) != json.dumps(theirs.record["metrics"]):  # in which NaN equals NaN
                conflicts.append(f"{theirs.trial}: {_difference(mine, theirs.record)}; {place} is kept")
            else:
                same += 1
        return added, same, conflicts

    def _copy(self, theirs: Result) -> bool:
        """Whether a copy appeared here, as a whole."""
        partial = self.root / "partial" / f"{platform.node()}-{os.getpid()} {theirs.identity}"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            shutil.copytree(theirs.folder, partial)
            for path in partial.iterdir():
                _to_disk(path)
            return _appear(partial, self.place(theirs.identity))
        finally:
            shutil.rmtree(partial, ignore_errors=True)


_BY = "by"
"""In the folder of a running trial: the sweep that trains it."""


def _appear(whole: Path, place: Path) -> bool:
    """Whether a folder took its place; it does not where another is, which holds the same.

    Raises:
        OSError: it can't be moved there.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(whole, place)
    except OSError:
        if not place.is_dir():
            raise
        return False
    return True


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _taken(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True


def _free(lock: FileLock) -> bool:
    if not _taken(lock):
        return False
    lock.release()
    return True


def _reason(path: Path) -> str:
    try:
        return str(json.loads(path.read_text("utf-8"))["reason"])
    except (OSError, ValueError, KeyError) as error:
        return f"for a reason that can't be read ({type(error).__name__})"


PARTS = ("trial", "lambdas", "metrics", "kept", "seconds")
"""Of every record."""


def _read(folder: Path) -> dict[str, Any] | str:
    try:
        record = json.loads((folder / "result.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    lacking = [name for name in PARTS if not (isinstance(record, dict) and name in record)]
    return f"a record without {', '.join(lacking)}" if lacking else record


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


def _difference(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """The largest difference of two results' metrics, or the first that one lacks or has at other lambdas."""
    flat = [_flat(record["metrics"]) for record in (mine, theirs)]
    lengths = [{name: len(values) for name, values in metrics.items()} for metrics in flat]
    for name in {**flat[0], **flat[1]}:
        here, there = (of.get(name, 0) for of in lengths)
        if here != there:
            return f"{name} has {here} values here and {there} there"
    size, where = max((float(np.max(np.abs(np.subtract(flat[0][m], flat[1][m])), initial=0)), m) for m in flat[0])
    return f"{where} differs by {size:.2g}"


def _flat(metrics: Mapping[str, Any]) -> dict[str, list[float]]:
    return {f"{s} {k} {m}": v for s, kinds in metrics.items() for k, named in kinds.items() for m, v in named.items()}


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
