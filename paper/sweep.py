"""Many trials over the cores, GPUs or nodes that there are, by joblib: killed at any time, it goes on where it was.

A trial is trained by whichever process claims it first, in whichever sweep; what is finished is not trained again.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import math
import os
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import joblib
import torch
from joblib.externals.loky import get_reusable_executor

from paper import data as data_of_trials
from paper import learning
from paper.methods import ABLATION, APPENDIX_F, COLUMNS, METHODS, PAPER, PEERS, Column, Length, Method, Trial, trials
from paper.store import Store, reason_of
from tunelater.problems import InputError
from tunelater.training import CHECKPOINT, TrainingInterrupted

Engine = Literal["local", "ray"]
State = Literal["done", "failed", "stopped", "elsewhere"]
ATTEMPTS = 3
"""A trial that took its process down so often is not tried again."""
LOOK = 1.0
"""Seconds between two looks of a worker at whether its sweep goes on."""
DEATHS = (
    *("TerminatedWorkerError", "BrokenProcessPool", "ShutdownExecutorError"),
    *("RayActorError", "WorkerCrashedError", "NodeDiedError"),
)
"""Names of what loky and Ray raise where a worker's process ended."""
GRACE = 30.0
"""Seconds in which a worker must reach its checkpoint once its sweep is over."""


@dataclass(frozen=True)
class Plan:
    """Trials with the identities of their results.

    Args:
        trials: in the order in which they are worth having.
        identities: of each.
        left_out: why, of each dataset whose data is not there.
    """

    trials: tuple[Trial, ...]
    identities: tuple[str, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.trials)

    def __iter__(self) -> Iterator[tuple[Trial, str]]:
        return iter(zip(self.trials, self.identities, strict=True))


def plan(trials: Sequence[Trial], folder: Path) -> Plan:
    """The identities of trials, whose data must be there.

    Raises:
        InputError: data that is missing, settings that make no sense, all at once.
    """
    problems: dict[str, None] = {}
    identities = []
    for trial in trials:
        try:
            identities.append(trial.identity(_data(trial, folder).fingerprint))
        except InputError as error:
            problems |= dict.fromkeys(error.problems)
    if problems:
        raise InputError(list(problems))
    return Plan(tuple(trials), tuple(identities))


def _data(trial: Trial, folder: Path) -> data_of_trials.Data:
    images = None if trial.is_table else trial.config().images
    return data_of_trials.load(trial.dataset, trial.beta, images, trial.length.protocol, folder)


# ------------------------------------------------------------------------------------------------------------ one trial


def attend(trial: Trial, identity: str, store: Store, folder: Path, sweep: str, over: Callable[[], bool]) -> State:
    """Train a trial unless it is done, failed or another's; keep its result, or why there is none.

    Args:
        folder: of the data.
        sweep: on whose behalf.
        over: whether nothing may begin any more, and what is running stops at its checkpoint.

    Raises:
        InputError: results can't be written, which is no fault of the trial's.
    """
    if store.done(identity):
        return "done"
    if over():
        return "stopped"
    with store.claim(identity) as ours:
        if not ours:
            return "elsewhere"
        if store.done(identity):
            return "done"
        if store.failed(identity):
            return "failed"
        device = _device(identity)
        now, _ = learning.clock(device)
        start = now()
        try:
            store.begin(identity, sweep)
            record, found = _trained(trial, folder, store.work(identity), over, device)
            record["seconds"]["earlier attempts"] = store.spent(identity)
            store.put(identity, record, found)
        except TrainingInterrupted:
            store.stopped(identity, now() - start)
            return "stopped"
        except Exception as error:  # of any kind: the other trials go on
            store.check_writable()
            store.fail(identity, trial, *reason_of(error))
            return "failed"
    return "done"


def _trained(
    trial: Trial, folder: Path, work: Path, over: Callable[[], bool], device: str
) -> tuple[dict[str, Any], learning.Candidates]:
    """From its checkpoint, or from the start where that can't be used: half of one is no reason to give a trial up."""
    data = _data(trial, folder)
    resumed = (work / CHECKPOINT).exists()
    try:
        return learning.run(trial, data, work, lambda _: over(), device)
    except (InputError, KeyError, TypeError):
        if not resumed:
            raise
    (work / CHECKPOINT).unlink(missing_ok=True)
    return learning.run(trial, data, work, lambda _: over(), device)


def _device(identity: str) -> str:
    """GPUs are shared out by identity; under Ray a process sees only its own."""
    n = torch.cuda.device_count()
    return f"cuda:{int(identity[:8], 16) % n}" if n else "cpu"


# ------------------------------------------------------------------------------------------------------------ a worker


@dataclass(frozen=True)
class Term:
    """How long workers may go on.

    Args:
        sweep: its name; its end is theirs.
        stop: seconds since the epoch after which nothing begins and what is running stops at its checkpoint.
        end: when whoever has not stopped by then is ended, wherever it is.
        parent: the process that workers end with; None where they are another's, as Ray's.
    """

    sweep: str
    stop: float
    end: float
    parent: int | None = None

    @classmethod
    def before(cls, deadline: float | None, sweep: str, parent: int | None = None) -> Term:
        """All stops before the deadline: a twentieth of the time goes to stopping, twenty seconds at most."""
        if deadline is None:
            return cls(sweep, math.inf, math.inf, parent)
        return cls(sweep, deadline - min(20.0, 0.05 * max(0.0, deadline - time.time())), deadline, parent)


def work(trial: Trial, identity: str, root: Path, folder: Path, term: Term, threads: int) -> State:
    """`attend` as a process does that others started: it stops with them."""
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGHUP"):  # the sweep gets them too, and tells when to stop
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_IGN)
    torch.set_num_threads(threads)
    store = Store(root)
    if term.parent is not None:
        _end_with(term.parent)
    with _busy, _watched(store, term) as over:
        return attend(trial, identity, store, folder, term.sweep, over)


_busy = threading.Lock()
"""Held while this process has a trial."""


@functools.cache
def _end_with(parent: int) -> None:
    """End this process after its parent, at the trial's checkpoint: loky's workers would wait for another task."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK)
        _busy.acquire(timeout=GRACE)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _watched(store: Store, term: Term) -> Iterator[Callable[[], bool]]:
    """Whether this process should stop. It is ended if it doesn't: no sweep leaves a training behind."""
    told, left = threading.Event(), threading.Event()

    def is_over() -> bool:
        # Of a sweep that was killed, workers have tasks left.
        orphaned = term.parent not in (None, os.getppid())
        return orphaned or time.time() >= term.stop or not store.sweeping(term.sweep)

    def watch() -> None:
        since = math.inf
        while not left.wait(LOOK):
            if not told.is_set() and is_over():
                told.set()
                since = time.time()
            if time.time() >= min(term.end, since + GRACE):
                os._exit(1)

    if is_over():
        told.set()
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield lambda: told.is_set() or time.time() >= term.stop
    finally:
        left.set()


# ----------------------------------------------------------------------------------------------------------------- many


@dataclass(frozen=True)
class Engaged:
    """What runs the trials.

    Args:
        engine: "local" for processes of this machine, "ray" for a Ray cluster.
        address: of the cluster; None for one that Ray finds or starts here.
        jobs: trials at once; None for one a core, or three a GPU; under Ray as many as it has room for.
        gpus: of a trial, under Ray; such as 0.25 for four on one.
    """

    engine: Engine = "local"
    address: str | None = None
    jobs: int | None = None
    gpus: float = 0.0

    @property
    def workers(self) -> int:
        """Processes at once."""
        if self.engine == "ray":
            room = self._room()
            return min(self.jobs or room, room)
        if self.jobs is not None:
            return self.jobs
        return 3 * torch.cuda.device_count() if torch.cuda.is_available() else _cores()

    @property
    def threads(self) -> int:
        """Of each."""
        return max(1, _cores() // self.workers) if self.engine == "local" else 1

    @property
    def parent(self) -> int | None:
        """Of the workers: this process, or none of ours."""
        return os.getpid() if self.engine == "local" else None

    def problems(self) -> list[str]:
        """Why it can't be."""
        if self.engine == "ray" and importlib.util.find_spec("ray") is None:
            return ["--engine ray needs the package ray: pip install 'ray[default]'"]
        return []

    def connect(self) -> None:
        """Find the cluster, or start one.

        Raises:
            InputError: there is none, or it has no room for a trial.
        """
        if self.engine == "local":
            return
        import ray

        if not ray.is_initialized():
            root = Path(__file__).resolve().parents[1]
            paths = os.pathsep.join([str(root), str(root / "src"), os.environ.get("PYTHONPATH", "")])
            try:
                ray.init(address=self.address, runtime_env={"env_vars": {"PYTHONPATH": paths}}, log_to_driver=False)
            except (ConnectionError, RuntimeError, ValueError) as error:
                told = f"{self.address or 'this machine'}, got: {next(iter(str(error).splitlines()), '')}"
                raise InputError(f"--engine ray needs a cluster at {told}") from None
        if self._room() < 2:  # of one, joblib would make this process the worker
            raise InputError(
                f"a cluster must have room for two trials, each of a core and {self.gpus:g} GPUs, got "
                f"{self._resources()}: add nodes, lower --gpus, or leave --engine ray out"
            )

    def _resources(self) -> dict[str, float]:
        import ray

        return {name: ray.cluster_resources().get(name, 0.0) for name in ("CPU", "GPU")}

    def _room(self) -> int:
        there = self._resources()
        return int(min(there["CPU"], there["GPU"] / self.gpus if self.gpus else math.inf))

    def run(self, tasks: Iterable[Any], workers: int) -> list[Any]:
        """What calls return, so many at once, each in a process of its own: a trial that dies takes no sweep along."""
        # Of one job joblib would make no process.
        at_once = {"n_jobs": max(2, workers), "pre_dispatch": "2*n_jobs" if workers > 1 else 1}
        if self.engine == "local":
            config = joblib.parallel_config("loky", inner_max_num_threads=self.threads)
        else:
            from ray.util.joblib import register_ray

            register_ray()
            resources: dict[str, Any] = {"num_cpus": 1} | ({"num_gpus": self.gpus} if self.gpus else {})
            config = joblib.parallel_config("ray", ray_remote_args=resources)
        with config:
            return list(joblib.Parallel(batch_size=1, **at_once)(tasks))

    def end(self) -> None:
        """End what `run` runs, also workers that still import what they need. Those of Ray end by themselves."""
        if self.engine == "local":
            get_reusable_executor(reuse=True).shutdown(wait=False, kill_workers=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Report:
    """What a sweep came to."""

    added: int
    failed: Mapping[str, str]
    """Reasons by identity, also of those that failed before."""
    left: int
    """Neither finished nor failed: stopped, or trained by another sweep."""
    seconds: float
    signal: int | None = None
    """What stopped it, where that was a signal."""

    @classmethod
    def of(cls, several: Sequence[Report]) -> Report:
        """Of sweeps one after the other."""
        failed = {identity: reason for one in several for identity, reason in one.failed.items()}
        added, left, seconds = (sum(getattr(one, name) for one in several) for name in ("added", "left", "seconds"))
        return cls(added, failed, left, seconds, several[-1].signal)


def missing_packages(trials: Iterable[Trial]) -> list[str]:
    """A problem for each package that trials need and that is not here."""
    needed = {"libauc": ("libauc", "LibAUC's losses need"), "boosting": ("lightgbm", "gradient boosting needs")}
    learners = dict.fromkeys(trial.kind.learner for trial in trials)
    packages = [needed[learner] for learner in learners if learner in needed]
    return [
        f"{what} the package {name}: pip install {name}"
        for name, what in packages
        if importlib.util.find_spec(name) is None
    ]


def run(
    planned: Plan,
    store: Store,
    folder: Path,
    *,
    engaged: Engaged = Engaged(),
    deadline: float | None = None,
    retry: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Report:
    """Train the trials of a plan that are not finished.

    SIGINT, SIGTERM and SIGHUP stop it as the deadline does; a second one at once.

    Args:
        deadline: seconds since the epoch; what is running stops at a checkpoint before it, and a later call goes on
            there.
        retry: whether trials of the plan that failed before are tried again.
        tell: called with a line on the progress, now and then.

    Raises:
        InputError: results that can't be written, a package that is missing, workers that can't begin.
    """
    start = time.time()
    if problems := [*missing_packages(planned.trials), *engaged.problems()]:
        raise InputError(problems)
    store.check_writable()
    store.tidy()
    for identity in planned.identities if retry else ():
        store.forget_failure(identity)
    waiting = [(t, i) for t, i in planned if not store.done(i) and not store.failed(i)]
    arrived = None
    if waiting:
        engaged.connect()
        with store.sweep() as (name, stop), _on_signal(stop, tell) as signals:
            with _telling(waiting, store, start, tell):
                term = Term.before(deadline, name, engaged.parent)
                _Sweep(store, folder, engaged, term).all(waiting)
            arrived = signals[0] if signals else None
    added = sum(store.done(i) for _, i in waiting)
    failures, here = store.failures(), set(planned.identities)
    failed = {i: reason for i, reason in failures.items() if i in here and not store.done(i)}
    left = sum(not store.done(i) and i not in failed for _, i in waiting)
    return Report(added, failed, left, time.time() - start, arrived)


@contextlib.contextmanager
def _on_signal(stop: Callable[[], None], tell: Callable[[str], None] | None) -> Iterator[list[int]]:
    """The signals that arrived; the first of them stops, the second ends.

    The same one within a second is no second one: `timeout` sends its own to the process and to its whole group.
    """
    arrived: list[int] = []
    first = 0.0

    def handle(number: int, _: Any) -> None:
        nonlocal first
        if arrived and number == arrived[0] and time.monotonic() - first < 1:
            return
        first = time.monotonic()
        arrived.append(number)
        stop()
        if len(arrived) > 1:
            raise KeyboardInterrupt
        if tell is not None:
            tell("stopping at the next checkpoints; once more to stop at once")

    before = {}
    if threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
        for number in numbers:
            if signal.getsignal(number) not in (None, signal.SIG_IGN):  # as under nohup
                before[number] = signal.signal(number, handle)
    try:
        yield arrived
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class _Sweep:
    """Rounds of workers, until each trial is done, failed, stopped or another's.

    A worker that dies takes the round's others with it, so that the next round goes on with all of them. Which trial it
    died of isn't known; one that was there too often runs alone at the end, and only who dies alone twice is given up.
    """

    store: Store
    folder: Path
    engaged: Engaged
    term: Term
    deaths: Counter[str] = field(default_factory=Counter)
    alone: Counter[str] = field(default_factory=Counter)
    """Deaths of processes when no other trial ran."""
    died_idle: int = 0

    def all(self, waiting: Sequence[tuple[Trial, str]]) -> None:
        while waiting and not self._over():
            together = [(t, i) for t, i in waiting if self.deaths[i] < ATTEMPTS - 1]
            some = together or waiting[:1]
            states = self._round(some, self.engaged.workers if together else 1)
            settled = {i for i in self._identities(waiting) if self.store.done(i) or self.store.failed(i)}
            if states is not None:
                elsewhere = {i for (_, i), state in zip(some, states, strict=False) if state == "elsewhere"}
                settled |= {i for i in elsewhere if self.store.is_claimed(i)}
            waiting = [(t, i) for t, i in waiting if i not in settled]

    @staticmethod
    def _identities(some: Iterable[tuple[Trial, str]]) -> list[str]:
        return [identity for _, identity in some]

    def _over(self) -> bool:
        return time.time() >= self.term.stop or not self.store.sweeping(self.term.sweep)

    def _round(self, some: Sequence[tuple[Trial, str]], workers: int) -> list[State] | None:
        """What became of trials; None where a worker died."""
        root, folder, threads = self.store.root.resolve(), self.folder.resolve(), self.engaged.threads

        def tasks() -> Iterator[Any]:
            for trial, identity in some:
                if self._over():
                    return
                yield joblib.delayed(work)(trial, identity, root, folder, self.term, threads)

        left = self.term.end - time.time()
        ending = threading.Timer(left, self.engaged.end) if left < threading.TIMEOUT_MAX else None
        if ending is not None:
            ending.daemon = True
            ending.start()
        try:
            return self.engaged.run(tasks(), workers)
        except Exception as error:
            if not _is_death(error) and time.time() < self.term.end:  # which ends workers whatever joblib is about
                raise
            if not self._over():
                self._account(some, error)
        finally:
            if ending is not None:
                ending.cancel()
        return None

    def _account(self, some: Sequence[tuple[Trial, str]], error: Exception) -> None:
        running = [(t, i) for t, i in some if not self.store.done(i) and self.store.begun_by(i) == self.term.sweep]
        self.died_idle = 0 if running else self.died_idle + 1
        if self.died_idle >= ATTEMPTS:
            raise InputError(f"workers die before they begin a trial: {reason_of(error)[0]}") from error
        for trial, identity in running:
            self.deaths[identity] += 1
            self.alone[identity] += len(running) == 1
            self.store.lost(identity)
            # Once alone may be by chance, or somebody's doing.
            if self.alone[identity] >= 2 and self.deaths[identity] >= ATTEMPTS:
                self.store.fail(
                    identity, trial, f"its process died {self.deaths[identity]} times, perhaps for want of memory"
                )


def _is_death(error: Exception) -> bool:
    """Whether it says that a worker's process ended."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return not names.isdisjoint(DEATHS)


# ---------------------------------------------------------------------------------------------------------------- queue


FIRST = ("vs", "vs+lct", "vs+lct-film", "focal", "focal+lct", "focal+lct-film")
FIRST_WITH_SAM = ("vs+sam", "vs+sam+lct", "vs+sam+lct-film")


def queue(folder: Path, length: Length) -> Iterator[Plan]:
    """The paper's trainings whose data is there, most valuable first: automobile-truck with VS and VS + LCT, the rest
    of Table 4; then, in a second plan, the other methods and datasets by what they cost.

    The second is made when it is asked for: large datasets are decoded for it.

    Raises:
        InputError: none of the data is there.
    """
    first = COLUMNS["cifar10-auto-truck"]
    pairs = [(first, METHODS[name]) for name in (*FIRST, *FIRST_WITH_SAM)]
    rest = [(c, m) for c in COLUMNS.values() for m in (*PAPER, *ABLATION, *APPENDIX_F, *PEERS) if (c, m) not in pairs]
    ranked = sorted(rest, key=lambda pair: (pair[1] not in PAPER, cost(trials([pair[0]], [pair[1]], settings=1)[0])))
    plans = [_there(pairs, folder, length)]
    if len(plans[0]):
        yield plans[0]
    plans.append(_there(ranked, folder, length))
    if not any(map(len, plans)):
        reasons = {name: why for found in plans for name, why in found.left_out.items()}
        raise InputError(
            [f"{folder} has none of the paper's datasets: name the folder that has (--data)"]
            + [f"{name} {why}" for name, why in reasons.items()]
        )
    yield plans[1]


def _there(pairs: Iterable[tuple[Column, Method]], folder: Path, length: Length) -> Plan:
    """Trials of those pairs whose data is there."""
    found: list[tuple[Trial, str]] = []
    absent: dict[str, str] = {}
    for column, method in pairs:
        if column.dataset in absent:
            continue
        try:
            found += plan(trials([column], [method], length=length), folder)
        except InputError as error:
            absent[column.dataset] = "; ".join(error.problems)
    return Plan(tuple(t for t, _ in found), tuple(i for _, i in found), absent)


# -------------------------------------------------------------------------------------------------------------- telling


def cost(trial: Trial) -> float:
    """What a trial takes beside others of the same length: its steps, and how large its network and images are."""
    weight = {
        **{"melanoma": 400.0, "aptos": 60.0, "dogs-vs-cats": 100.0},
        **{"cifar10-animal-vehicle": 6.0, "cifar100-household": 0.5},
    }
    return weight.get(trial.dataset, 0.1 if trial.is_table else 1.0) * (2 if trial.kind.sam else 1)


@contextlib.contextmanager
def _telling(
    waiting: Sequence[tuple[Trial, str]], store: Store, start: float, tell: Callable[[str], None] | None
) -> Iterator[None]:
    if tell is None or not waiting:
        yield
        return
    over, progress = threading.Event(), Progress(waiting, store)

    def watch() -> None:
        pause = 5.0
        while not over.wait(pause):
            tell(progress.line(time.time() - start))
            pause = min(60.0, 2 * pause)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


@dataclass
class Progress:
    """How far a sweep is, and how long it may still take: at the rate so far, trials weighed by what those of their
    kind take, and what was done of them in earlier sweeps not counted."""

    waiting: Sequence[tuple[Trial, str]]
    store: Store
    _worth: dict[str, float] = field(default_factory=dict)
    """Of what is finished: its cost, as far as this sweep had it."""

    def line(self, seconds: float) -> str:
        """After so many seconds."""
        failed = self.store.failures()
        left = 0.0
        for trial, identity in self.waiting:
            if identity in self._worth or identity in failed:
                continue
            if self.store.done(identity):
                self._worth[identity] = cost(trial) * self._share(identity)
            else:
                left += cost(trial)
        bad = sum(i in failed and i not in self._worth for _, i in self.waiting)
        told = f"{len(self._worth)} of {len(self.waiting)} trials done" + (f", {bad} failed" if bad else "")
        worth = sum(self._worth.values())
        if not worth:
            return f"{told}; {_duration(seconds)} so far"
        return f"{told}; {_duration(seconds)} so far, about {_duration(left / worth * seconds)} left"

    def _share(self, identity: str) -> float:
        """What of a trial's time was not spent in earlier attempts."""
        seconds = self.store.seconds(identity)
        return 1 - seconds.get("earlier attempts", 0.0) / max(sum(seconds.values()), 1e-9)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def status(planned: Plan, store: Store) -> str:
    """What is done, running, failed, stopped in the middle and missing, by dataset and method."""
    failures = store.failures()
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for trial, identity in planned:
        beta = "" if trial.beta is None else f" β={trial.beta:g}"
        counts[f"{trial.dataset}{beta}", trial.method][_state(identity, store)] += 1
    states = ("done", "running", "stopped", "failed", "missing")
    width = max(len(f"{dataset}  {method}") for dataset, method in counts)
    lines = [f"{'':{width}}" + "".join(f"{state:>9}" for state in states)]
    for (dataset, method), count in counts.items():
        lines.append(f"{f'{dataset}  {method}':{width}}" + "".join(f"{count[state] or '':>9}" for state in states))
    total: Counter[str] = sum(counts.values(), Counter())
    lines.append(f"{'in all':{width}}" + "".join(f"{total[state] or '':>9}" for state in states))
    here = {identity for _, identity in planned}
    lines += [f"failed {i}: {reason}" for i, reason in failures.items() if i in here and not store.done(i)]
    return "\n".join(lines)


def _state(identity: str, store: Store) -> str:
    if store.done(identity):
        return "done"
    if store.is_claimed(identity):
        return "running"
    if store.failed(identity):
        return "failed"
    return "stopped" if store.work(identity).is_dir() else "missing"
