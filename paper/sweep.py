"""Many trials over the cores, GPUs or nodes that there are, by joblib: killed at any time, it goes on where it was.

A trial is trained by whichever process claims it first, in whichever sweep; what is finished is not trained again.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import joblib
import torch

from paper import data as data_of_trials
from paper import learning
from paper.methods import ABLATION, APPENDIX_F, COLUMNS, METHODS, PAPER, PEERS, Length, Trial, trials
from paper.store import ATTEMPTS, Store, reason_of
from tunelater.problems import InputError
from tunelater.training import TrainingInterrupted

Engine = Literal["local", "ray"]
State = Literal["done", "failed", "stopped", "elsewhere"]


@dataclass(frozen=True)
class Plan:
    """Trials with the identities of their results.

    Args:
        trials: in the order in which they are worth having.
        identities: of each.
    """

    trials: tuple[Trial, ...]
    identities: tuple[str, ...]

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


def attend(trial: Trial, identity: str, root: Path, folder: Path, deadline: float, threads: int) -> State:
    """Train a trial unless it is done, failed or another's; keep its result, or why there is none.

    Args:
        root: of the results.
        folder: of the data.
        deadline: seconds since the epoch after which nothing begins and what is running stops at its checkpoint.
        threads: of this process.
    """
    store = Store(root)
    if store.done(identity):
        return "done"
    if time.time() >= deadline:
        return "stopped"
    with store.claim(identity) as ours:
        if not ours:
            return "elsewhere"
        if store.done(identity):
            return "done"
        if store.begin(identity) > ATTEMPTS:
            store.fail(identity, trial, f"its process died {ATTEMPTS} times, perhaps for want of memory")
            return "failed"
        torch.set_num_threads(threads)
        start = time.monotonic()
        try:
            record, found = learning.run(
                trial, _data(trial, folder), store.work(identity), lambda _: time.time() >= deadline, _device(identity)
            )
            record["seconds"]["earlier attempts"] = store.spent(identity)
            store.put(identity, record, found)
        except TrainingInterrupted:
            store.stopped(identity, time.monotonic() - start)
            return "stopped"
        except Exception as error:  # of any kind: the other trials go on
            store.fail(identity, trial, *reason_of(error))
            return "failed"
    return "done"


def _device(identity: str) -> str:
    """GPUs are shared out by identity; under Ray a process sees only its own."""
    n = torch.cuda.device_count()
    return f"cuda:{int(identity[:8], 16) % n}" if n else "cpu"


# ----------------------------------------------------------------------------------------------------------------- many


@dataclass(frozen=True)
class Engaged:
    """What runs the trials.

    Args:
        engine: "local" for processes of this machine, "ray" for a Ray cluster.
        address: of the cluster; None for one that Ray finds or starts here.
        jobs: trials at once; None for one a core, or three a GPU.
        gpus: of a trial, under Ray; such as 0.25 for four on one.
    """

    engine: Engine = "local"
    address: str | None = None
    jobs: int | None = None
    gpus: float = 0.0

    @property
    def workers(self) -> int:
        if self.jobs is not None:
            return self.jobs
        return 3 * torch.cuda.device_count() if torch.cuda.is_available() else _cores()

    @property
    def threads(self) -> int:
        return max(1, _cores() // self.workers) if self.engine == "local" else 1

    @contextlib.contextmanager
    def backend(self) -> Iterator[None]:
        if self.engine == "local":
            with joblib.parallel_config("loky", n_jobs=self.workers, inner_max_num_threads=self.threads):
                yield
            return
        try:
            import ray
            from ray.util.joblib import register_ray
        except ImportError:
            raise InputError("--engine ray needs the package ray: pip install 'ray[default]'") from None
        if not ray.is_initialized():
            root = Path(__file__).resolve().parents[1]
            paths = os.pathsep.join([str(root), str(root / "src"), os.environ.get("PYTHONPATH", "")])
            ray.init(address=self.address, runtime_env={"env_vars": {"PYTHONPATH": paths}}, log_to_driver=False)
        register_ray()
        resources: dict[str, Any] = {"num_cpus": 1} | ({"num_gpus": self.gpus} if self.gpus else {})
        with joblib.parallel_config("ray", n_jobs=self.jobs or -1, ray_remote_args=resources):
            yield


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Report:
    """What a sweep came to."""

    added: int
    failed: Mapping[str, str]
    """Reasons by identity."""
    left: int
    """Neither finished nor failed: stopped by the deadline, or trained by another sweep."""
    seconds: float


def run(
    planned: Plan,
    store: Store,
    folder: Path,
    *,
    engaged: Engaged = Engaged(),
    budget: float | None = None,
    retry: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Report:
    """Train the trials of a plan that are not finished.

    Args:
        budget: seconds; what is running then stops at a checkpoint, and a later call goes on there.
        retry: whether trials that failed before are tried again.
        tell: called with a line on the progress, now and then.
    """
    start = time.time()
    deadline = start + budget if budget is not None else float("inf")
    for identity in store.failures() if retry else ():
        store.forget_failure(identity)
    failed_before = store.failures().keys()
    waiting = [(t, i) for t, i in planned if not store.done(i) and i not in failed_before]
    with _telling(waiting, store, start, tell):
        _all(waiting, store, folder, deadline, engaged)
    added = sum(store.done(i) for _, i in waiting)
    reasons = {i: f["reason"] for i, f in store.failures().items() if i in {j for _, j in waiting}}
    return Report(added, reasons, len(waiting) - added - len(reasons), time.time() - start)


def _all(waiting: Sequence[tuple[Trial, str]], store: Store, folder: Path, deadline: float, engaged: Engaged) -> None:
    """Until each is done, failed, stopped or another's. Workers that are killed take the whole pool down: a new one
    goes on, and `attend` gives up on trials that do it every time."""
    died = 0
    while waiting and died < ATTEMPTS * (len(waiting) + 1):
        tasks = (
            joblib.delayed(attend)(t, i, store.root.resolve(), folder.resolve(), deadline, engaged.threads)
            for t, i in waiting
        )
        try:
            with engaged.backend():
                joblib.Parallel(batch_size=1, pre_dispatch="2*n_jobs")(tasks)
            return
        except Exception as error:
            if not _is_death(error):
                raise
            died += 1
        failed = store.failures().keys()
        waiting = [(t, i) for t, i in waiting if not store.done(i) and i not in failed]


def _is_death(error: Exception) -> bool:
    """Whether it says that a worker's process ended: loky's words for it, or Ray's."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(
        names & {"TerminatedWorkerError", "BrokenProcessPool", "RayActorError", "WorkerCrashedError", "NodeDiedError"}
    )


# ---------------------------------------------------------------------------------------------------------------- queue


def queue(folder: Path, length: Length) -> Plan:
    """The paper's trainings whose data is there, most valuable first: automobile-truck with VS and VS + LCT, the rest
    of Table 4, then the other methods and datasets by what they cost."""
    first = COLUMNS["cifar10-auto-truck"]
    pairs = [(first, METHODS[name]) for name in ("vs", "vs+lct")]
    pairs += [(first, METHODS[name]) for name in ("vs+lct-film", "focal", "focal+lct", "focal+lct-film")]
    pairs += [(first, METHODS[name]) for name in ("vs+sam", "vs+sam+lct", "vs+sam+lct-film")]
    rest = [(c, m) for c in COLUMNS.values() for m in (*PAPER, *ABLATION, *APPENDIX_F, *PEERS) if (c, m) not in pairs]
    ranked = sorted(rest, key=lambda pair: (pair[1] not in PAPER, cost(trials([pair[0]], [pair[1]], settings=1)[0])))
    found: list[tuple[Trial, str]] = []
    absent: set[str] = set()
    for column, method in [*pairs, *ranked]:
        if column.dataset in absent:
            continue
        try:
            found += plan(trials([column], [method], length=length), folder)
        except InputError:
            absent.add(column.dataset)
    if not found:
        raise InputError(f"{folder} has none of the paper's datasets: name the folder that has (--data)")
    return Plan(tuple(t for t, _ in found), tuple(i for _, i in found))


# -------------------------------------------------------------------------------------------------------------- telling


def cost(trial: Trial) -> float:
    """What a trial takes beside others of the same length: its steps, and how large its network and images are."""
    weight = {"melanoma": 400.0, "aptos": 60.0, "dogs-vs-cats": 100.0, "cifar10-animal-vehicle": 6.0}
    return weight.get(trial.dataset, 0.1 if trial.is_table else 1.0) * (2 if trial.kind.sam else 1)


@contextlib.contextmanager
def _telling(
    waiting: Sequence[tuple[Trial, str]], store: Store, start: float, tell: Callable[[str], None] | None
) -> Iterator[None]:
    if tell is None or not waiting:
        yield
        return
    over = threading.Event()

    def watch() -> None:
        pause = 5.0
        while not over.wait(pause):
            tell(progress(waiting, store, time.time() - start))
            pause = min(60.0, 2 * pause)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def progress(waiting: Sequence[tuple[Trial, str]], store: Store, seconds: float) -> str:
    """How far a sweep is after so many seconds, and how long it may still take: at the rate so far, trials weighed by
    what those of their kind take."""
    finished = [(t, i) for t, i in waiting if store.done(i)]
    failed = store.failures()
    left = [t for t, i in waiting if not store.done(i) and i not in failed]
    bad = sum(i in failed for _, i in waiting)
    told = f"{len(finished)} of {len(waiting)} trials done" + (f", {bad} failed" if bad else "")
    if not finished:
        return f"{told}; {_duration(seconds)} so far"
    remaining = sum(map(cost, left)) / sum(cost(t) for t, _ in finished) * seconds
    return f"{told}; {_duration(seconds)} so far, about {_duration(remaining)} left"


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
        counts[f"{trial.dataset}{beta}", trial.method][_state(identity, store, failures.keys())] += 1
    states = ("done", "running", "stopped", "failed", "missing")
    width = max(len(f"{dataset}  {method}") for dataset, method in counts)
    lines = [f"{'':{width}}" + "".join(f"{state:>9}" for state in states)]
    for (dataset, method), count in counts.items():
        lines.append(f"{f'{dataset}  {method}':{width}}" + "".join(f"{count[state] or '':>9}" for state in states))
    total: Counter[str] = sum(counts.values(), Counter())
    lines.append(f"{'in all':{width}}" + "".join(f"{total[state] or '':>9}" for state in states))
    here = {identity for _, identity in planned}
    lines += [f"failed {i}: {f['reason']}" for i, f in failures.items() if i in here]
    return "\n".join(lines)


def _state(identity: str, store: Store, failed: Collection[str]) -> str:
    if store.done(identity):
        return "done"
    if store.is_claimed(identity):
        return "running"
    if identity in failed:
        return "failed"
    return "stopped" if store.work(identity).is_dir() else "missing"
