"""The sweep: killed, stopped, shared or out of luck, it ends with the results of one that was not."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paper import learning, sweep
from paper.methods import COLUMNS, METHODS, Column, Length, Trial, trials
from paper.store import Store
from paper.sweep import Engaged, Plan, Progress, Report, Term, attend, plan
from tunelater.problems import InputError
from tunelater.training import CHECKPOINT

TABLE = Column("synthetic", "synthetic", "synthetic", None)
NO_DATA = Path("data")
TWO = Engaged(jobs=2)


def short(n: int = 4, epochs: int = 1, method: str = "vs") -> Plan:
    """n trials on the made-up table."""
    some = trials([TABLE], [METHODS[method]], settings=4, seeds=[0], length=Length(epochs=epochs))
    return plan(some[:n], NO_DATA)


def hopeless() -> Trial:
    """Its loss is infinite after a few steps."""
    return Trial("synthetic", None, "ce", (("optimizer.learning_rate", "x1e30"),), 0, Length(epochs=1))


def told(store: Store) -> dict[str, str]:
    """All that is measured, to the last digit."""
    return {r.identity: json.dumps([r.record["metrics"], r.record["kept"]]) for r in store.results()}


def never() -> bool:
    return False


def uninterrupted(planned: Plan, folder: Path, threads: int = TWO.threads) -> Store:
    """Results of trials that nothing happens to, in this very process."""
    store, before = Store(folder), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for trial, identity in planned:
            assert attend(trial, identity, store, NO_DATA, "alone", never) == "done"
    finally:
        torch.set_num_threads(before)
    return store


def eventually(holds: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def after(n: int) -> Callable[[], bool]:
    """False so often, then True."""
    asked = iter(range(10**9))
    return lambda: next(asked) >= n


# ------------------------------------------------------------------------------------------------------------ one trial


def test_a_trial_that_is_done_failed_or_anothers_is_left_alone(tmp_path: Path) -> None:
    store, ((trial, identity), *_) = uninterrupted(short(1), tmp_path), tuple(short(1))
    before = told(store)
    assert attend(trial, identity, store, NO_DATA, "s", never) == "done"
    assert told(store) == before
    unstarted, third = next(iter(short(1, epochs=9)))
    with store.claim(third):
        assert attend(unstarted, third, Store(tmp_path), NO_DATA, "s", never) == "elsewhere"
    assert attend(unstarted, third, store, NO_DATA, "s", lambda: True) == "stopped"
    assert not store.work(third).exists()
    store.fail(third, unstarted, "no good")
    assert attend(unstarted, third, store, NO_DATA, "s", never) == "failed"


def test_a_trial_that_fails_says_why(tmp_path: Path) -> None:
    ((trial, identity),) = plan([hopeless()], NO_DATA)
    store = Store(tmp_path)
    assert attend(trial, identity, store, NO_DATA, "s", never) == "failed"
    assert store.failures()[identity].startswith("TrainingDiverged: ")
    assert "Traceback" in json.loads((tmp_path / "failed" / f"{identity}.json").read_text())["details"]
    assert store.begun_by(identity) is None


def test_a_full_disk_is_not_the_trials_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ((trial, identity),) = short(1)
    store = Store(tmp_path)

    def full(*_: Any, **__: Any) -> None:
        monkeypatch.setattr("paper.store.shutil.disk_usage", lambda _: SimpleNamespace(free=0))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("paper.store.np.savez_compressed", full)
    with pytest.raises(InputError, match=r"results must be written to .*No space left on device"):
        attend(trial, identity, store, NO_DATA, "s", never)
    assert store.failures() == {}


def test_stopped_anywhere_and_resumed_a_trial_is_as_if_it_were_not(tmp_path: Path) -> None:
    """After its data is loaded, in the middle of training, and before the last part is scored."""
    planned = short(1, epochs=3, method="vs+lct")
    ((trial, identity),) = planned
    whole, asked = Store(tmp_path / "whole"), list[bool]()
    assert attend(trial, identity, whole, NO_DATA, "s", lambda: bool(asked.append(True))) == "done"
    for n in (1, len(asked) // 2, len(asked) - 1):
        store = Store(tmp_path / f"stopped {n}")
        assert attend(trial, identity, store, NO_DATA, "s", after(n)) == "stopped"
        assert attend(trial, identity, store, NO_DATA, "s", never) == "done"
        assert told(store) == told(whole)
        assert store.results()[0].record["seconds"]["earlier attempts"] > 0


def test_what_is_stopped_before_scoring_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ((trial, identity),) = short(1)
    store, trained = Store(tmp_path), learning.train

    class Over:
        yes = False

    def training(*arguments: Any, **options: Any) -> Any:
        found = trained(*arguments, **options)
        Over.yes = True
        return found

    with monkeypatch.context() as patch:
        patch.setattr(learning, "train", training)
        assert attend(trial, identity, store, NO_DATA, "s", lambda: Over.yes) == "stopped"
    rows = (store.work(identity) / "metrics.csv").read_text()
    steps: list[int] = []

    def counting(*arguments: Any, stop: Callable[[int], bool], **options: Any) -> Any:
        return trained(*arguments, stop=lambda step: bool(steps.append(step)) or stop(step), **options)

    monkeypatch.setattr(learning, "train", counting)
    assert rows
    assert attend(trial, identity, store, NO_DATA, "s", never) == "done"
    assert steps == []


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"PK" + bytes(9)])
def test_a_damaged_checkpoint_costs_its_work_and_no_more(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    planned = short(1)
    ((trial, identity),) = planned
    store = Store(tmp_path / "damaged")
    assert attend(trial, identity, store, NO_DATA, "s", after(5)) == "stopped"
    checkpoint = store.work(identity) / CHECKPOINT
    checkpoint.write_bytes(damage(checkpoint.read_bytes()))
    assert attend(trial, identity, store, NO_DATA, "s", never) == "done"
    assert told(store) == told(uninterrupted(planned, tmp_path / "whole", torch.get_num_threads()))


# ----------------------------------------------------------------------------------- many, in a world of made-up deaths


class BrokenProcessPool(RuntimeError):
    """Loky's word for a worker that died."""


@dataclass(frozen=True)
class Mortal(Engaged):
    """Workers of which some die of their trials. A round's trials begin in order, so many at once."""

    deadly: frozenset[str] = frozenset()
    unlucky: dict[str, int] = field(default_factory=dict)
    """Trials whose process someone else kills so often."""
    trained: Counter[str] = field(default_factory=Counter)

    def run(self, tasks: Iterable[Any], workers: int) -> list[Any]:
        states = []
        todo = [arguments for _, arguments, _ in tasks]
        for first in range(0, len(todo), workers):
            some = todo[first : first + workers]
            for _, identity, root, _, term, _ in some:
                Store(root).begin(identity, term.sweep)
            for _, identity, *_ in some:
                if self.unlucky.get(identity, 0) > 0:
                    self.unlucky[identity] -= 1
                    raise BrokenProcessPool
                if identity in self.deadly:
                    raise BrokenProcessPool
            for _, identity, root, *_ in some:
                self.trained[identity] += 1
                Store(root).place(identity).mkdir(parents=True)
                Store(root).stopped(identity, 0)
                states.append("done")
        return states


def fake(n: int) -> Plan:
    some = [Trial("synthetic", None, "vs", (("tau", f"{i}"),), 0, Length(epochs=1)) for i in range(n)]
    return Plan(tuple(some), tuple(f"{i:02}" for i in range(n)))


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_only_trials_that_kill_their_process_are_given_up(data: st.DataObject) -> None:
    n, workers = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 4))
    planned = fake(n)
    deadly = frozenset(data.draw(st.sets(st.sampled_from(planned.identities), max_size=3)))
    unlucky = data.draw(st.sets(st.sampled_from(planned.identities), max_size=3))
    engaged = Mortal(jobs=workers, deadly=deadly, unlucky=dict.fromkeys(unlucky - deadly, 1))
    with tempfile.TemporaryDirectory() as folder:
        report = sweep.run(planned, Store(folder), NO_DATA, engaged=engaged)
        assert set(report.failed) == deadly
        assert all("its process died" in reason for reason in report.failed.values())
        assert engaged.trained == Counter(set(planned.identities) - deadly)  # each once
        assert (report.added, report.left) == (n - len(deadly), 0)


def test_workers_that_cant_begin_end_the_sweep(tmp_path: Path) -> None:
    class Stillborn(Engaged):
        def run(self, tasks: Iterable[Any], workers: int) -> list[Any]:
            raise BrokenProcessPool("cannot import")

    with pytest.raises(InputError, match="workers die before they begin a trial: BrokenProcessPool: cannot import"):
        sweep.run(fake(2), Store(tmp_path), NO_DATA, engaged=Stillborn(jobs=2))


def test_failures_are_skipped_told_and_retried_if_they_are_the_plans(tmp_path: Path) -> None:
    planned, store = fake(3), Store(tmp_path)
    store.fail("00", planned.trials[0], "no good")
    store.fail("another", planned.trials[0], "of another plan")
    report = sweep.run(planned, store, NO_DATA, engaged=Mortal(jobs=2))
    assert (report.added, report.failed, report.left) == (2, {"00": "no good"}, 0)
    report = sweep.run(planned, store, NO_DATA, engaged=Mortal(jobs=2), retry=True)
    assert (report.added, report.failed, report.left) == (1, {}, 0)
    assert store.failures() == {"another": "of another plan"}


def test_what_another_sweep_trains_is_left_to_it(tmp_path: Path) -> None:
    class Shared(Mortal):
        def run(self, tasks: Iterable[Any], workers: int) -> list[Any]:
            todo = list(tasks)
            states = super().run((t for t in todo if not store.is_claimed(t[1][1])), workers)
            return ["elsewhere" if store.is_claimed(t[1][1]) else states.pop() for t in todo]

    store = Store(tmp_path)
    with store.claim("01"):
        report = sweep.run(fake(3), store, NO_DATA, engaged=Shared(jobs=2))
    assert (report.added, report.left) == (2, 1)
    assert sweep.run(fake(3), store, NO_DATA, engaged=Shared(jobs=2)).added == 1


def test_a_missing_package_is_told_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep.importlib.util, "find_spec", lambda name: None)
    some = trials([TABLE], [METHODS[name] for name in ("vs", "aucm", "ap", "gbm")], settings=1, seeds=[0])
    with pytest.raises(InputError) as error:
        sweep.run(Plan(tuple(some), ("a", "b", "c", "d")), Store(tmp_path / "r"), NO_DATA, engaged=Engaged("ray"))
    assert [problem.partition(":")[0] for problem in error.value.problems] == [
        "LibAUC's losses need the package libauc",
        "gradient boosting needs the package lightgbm",
        "--engine ray needs the package ray",
    ]
    assert not (tmp_path / "r").exists()


# -------------------------------------------------------------------------------------------------------------- telling


def test_the_time_left_does_not_count_what_earlier_sweeps_did(tmp_path: Path) -> None:
    store = Store(tmp_path)
    waiting = list(fake(4))
    progress = Progress(waiting, store)
    assert progress.line(10) == "0 of 4 trials done; 10 s so far"

    def finished(identity: str, **seconds: float) -> None:
        store.place(identity).mkdir(parents=True)
        record = {"trial": {}, "lambdas": {}, "metrics": {}, "kept": [], "seconds": seconds}
        (store.place(identity) / "result.json").write_text(json.dumps(record))

    finished("00", training=10.0)
    assert progress.line(10) == "1 of 4 trials done; 10 s so far, about 30 s left"
    finished("01", training=1.0, **{"earlier attempts": 9.0})  # a tenth of it was left
    assert progress.line(11) == "2 of 4 trials done; 11 s so far, about 20 s left"
    store.fail("02", waiting[2][0], "no good")
    assert progress.line(11) == "2 of 4 trials done, 1 failed; 11 s so far, about 10 s left"


def test_status_counts_each_state(tmp_path: Path) -> None:
    planned, store = fake(5), Store(tmp_path)
    store.place("00").mkdir(parents=True)
    store.fail("01", planned.trials[1], "no good")
    store.begin("02", "sweep")
    with store.claim("03"):
        lines = sweep.status(planned, store).splitlines()
    assert lines[0].split() == ["done", "running", "stopped", "failed", "missing"]
    assert lines[2].split() == ["in", "all", *"11111"]
    assert lines[3] == "failed 01: no good"


@pytest.mark.parametrize(("seconds", "margin"), [(0.0, 0.0), (60.0, 3.0), (1500.0, 20.0)])
def test_all_stops_before_the_deadline(seconds: float, margin: float) -> None:
    deadline = time.time() + seconds
    term = Term.before(deadline, "s")
    assert term.end == deadline
    assert deadline - term.stop == pytest.approx(margin, abs=0.1)
    assert Term.before(None, "s").stop == math.inf


# ---------------------------------------------------------------------------------------------------------------- queue


def test_the_queue_is_in_the_order_of_worth_and_loads_large_data_last(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def data(trial: Trial, folder: Path) -> Any:
        loaded.append(trial.dataset)
        if trial.dataset == "aptos":
            raise InputError("there is none")
        return SimpleNamespace(fingerprint=trial.dataset)

    monkeypatch.setattr(sweep, "_data", data)
    monkeypatch.setattr(Trial, "identity", lambda self, fingerprint: f"{fingerprint} {self}")  # which is slow
    plans = sweep.queue(NO_DATA, Length(protocol="paper"))
    first = next(plans)
    assert set(loaded) == {"cifar10-automobile-truck"}
    methods = list(dict.fromkeys(trial.method for trial in first.trials))
    assert methods[:2] == ["vs", "vs+lct"]
    assert {t.method for t in first.trials[:96]} == {"vs", "vs+lct"}
    assert {trial.seed for trial in first.trials} == {0, 1, 2}
    (second,) = plans
    paper = [trial.method in {m.name for m in sweep.PAPER} for trial in second.trials]
    assert paper == sorted(paper, reverse=True)
    costs = [sweep.cost(trial) for trial, ours in zip(second.trials, paper, strict=True) if ours]
    assert costs == sorted(costs)
    assert "aptos" not in {trial.dataset for trial in second.trials}
    assert not first.left_out
    assert second.left_out == {"aptos": "there is none"}
    everything = [(t.dataset, t.beta, t.method, t.setting, t.seed) for p in (first, second) for t in p.trials]
    assert len(set(everything)) == len(everything)
    beside_aptos = [c for c in COLUMNS.values() if c.dataset != "aptos"]
    assert {(t.dataset, t.beta) for p in (first, second) for t in p.trials} == {
        (c.dataset, c.beta) for c in beside_aptos
    }


# -------------------------------------------------------------------------------------------- many, in real processes


def children(pid: int) -> list[int]:
    """Of a process, by Linux."""
    with contextlib.suppress(FileNotFoundError):
        return [int(c) for f in Path(f"/proc/{pid}/task").glob("*/children") for c in f.read_text().split()]
    return []


def is_worker(pid: int) -> bool:
    return b"LokyProcess" in Path(f"/proc/{pid}/cmdline").read_bytes()


def alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def training(store: Store) -> bool:
    return any(store.root.glob(f"running/*/{CHECKPOINT}"))


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc to find workers")


@pytest.fixture(scope="module")
def planned() -> Plan:
    """Trials of a second or two, the second of which fails."""
    some = trials([TABLE], [METHODS["vs"]], settings=4, seeds=[0], length=Length(epochs=15))
    return plan([some[0], hopeless(), *some[1:]], NO_DATA)


@pytest.fixture(scope="module")
def reference(planned: Plan, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    good = [(t, i) for t, i in planned if t.method == "vs"]
    folder = tmp_path_factory.mktemp("uninterrupted")
    return told(uninterrupted(Plan(*map(tuple, zip(*good, strict=True))), folder))


def check_ended(report: Report, store: Store, planned: Plan, reference: dict[str, str]) -> None:
    """As if nothing had happened, and nothing left behind."""
    assert told(store) == reference
    assert {*report.failed} == {i for t, i in planned if t.method == "ce"}
    assert report.left == 0
    assert not any((store.root / "locks").iterdir())
    assert not any((store.root / "sweeps").iterdir())
    assert {p.name for p in (store.root / "running").iterdir()} <= {*report.failed}


def test_a_signal_stops_at_checkpoints_and_the_next_sweep_goes_on(
    planned: Plan, reference: dict[str, str], tmp_path: Path
) -> None:
    store, lines = Store(tmp_path), list[str]()

    def interrupt() -> None:
        eventually(lambda: training(store))
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # as `timeout` sends it: to the process, and to its whole group

    before = signal.getsignal(signal.SIGTERM)
    sender = threading.Thread(target=interrupt)
    sender.start()
    report = sweep.run(planned, store, NO_DATA, engaged=TWO, tell=lines.append)
    sender.join()
    assert report.signal == signal.SIGTERM
    assert report.left >= 1
    assert any("stopping at the next checkpoints" in line for line in lines)
    assert signal.getsignal(signal.SIGTERM) is before
    unfinished = [i for _, i in planned if store.work(i).is_dir() and not store.failed(i)]
    assert not any(store.begun_by(i) for i in unfinished)  # each came to an end of its own
    assert not any(store.is_claimed(i) for i in planned.identities)
    check_ended(sweep.run(planned, store, NO_DATA, engaged=TWO), store, planned, reference)


def test_a_budget_ends_a_sweep_in_time(tmp_path: Path) -> None:
    TWO.end()  # workers start with the sweep, as those of a command do
    store, deadline = Store(tmp_path), time.time() + 5
    length = Length(epochs=100_000)  # until they stop early, after seconds; all of them take a minute or more
    many = plan(trials([TABLE], [METHODS["vs"]], seeds=range(8), length=length), NO_DATA)
    report = sweep.run(many, store, NO_DATA, engaged=TWO, deadline=deadline)
    assert time.time() < deadline + 2
    assert (report.failed, report.signal) == ({}, None)
    assert report.left == len(many) - report.added > 0
    assert not any(store.begun_by(i) for i in many.identities)


@contextlib.contextmanager
def logging(log: Path, learning: Any) -> Iterator[None]:
    """Each training adds a line."""
    run = learning.run

    def logged(trial: Trial, *rest: Any) -> Any:
        with log.open("a") as file:
            file.write(f"{trial}\n")
        return run(trial, *rest)

    learning.run = logged
    try:
        yield
    finally:
        learning.run = run


def test_two_sweeps_share_a_folder_and_train_nothing_twice(
    planned: Plan, reference: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, log = tmp_path / "results", tmp_path / "log"

    def logged_work(*arguments: Any) -> Any:  # in a worker, whose own functions are as they are
        from paper import learning, sweep

        with logging(log, learning):
            return sweep.work(*arguments)

    def another() -> None:  # a sweep in this process, in the opposite order
        torch.set_num_threads(TWO.threads)
        for trial, identity in reversed(list(planned)):
            attend(trial, identity, Store(root), NO_DATA, "another", never)

    monkeypatch.setattr(sweep, "work", logged_work)
    with logging(log, learning):
        other = threading.Thread(target=another)
        other.start()
        report = sweep.run(planned, Store(root), NO_DATA, engaged=TWO)
        other.join()
    if report.left:
        report = sweep.run(planned, Store(root), NO_DATA, engaged=TWO)
    check_ended(report, Store(root), planned, reference)
    assert Counter(log.read_text().splitlines()) == Counter(str(trial) for trial in planned.trials)


@needs_proc
def test_a_killed_worker_takes_no_other_trial_along(planned: Plan, reference: dict[str, str], tmp_path: Path) -> None:
    store, killed = Store(tmp_path), list[int]()

    def kill() -> None:
        eventually(lambda: training(store))
        workers = [pid for pid in children(os.getpid()) if is_worker(pid)]
        killed.extend(workers[:1])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    report = sweep.run(planned, store, NO_DATA, engaged=TWO)
    killer.join()
    assert killed
    check_ended(report, store, planned, reference)


@needs_proc
def test_a_killed_sweep_leaves_no_worker_and_the_next_goes_on(
    planned: Plan, reference: dict[str, str], tmp_path: Path
) -> None:
    """Its folder is as the command line makes it; the next sweep finds the same trials in it."""
    results = tmp_path / "results"
    store = Store(results)
    command = "paper run --dataset synthetic --methods vs --settings 4 --seeds 1 --epochs 15 --jobs 1 --results"
    first = subprocess.Popen([sys.executable, "-m", *command.split(), str(results)], cwd=Path(__file__).parents[1])
    try:
        # A worker may be done with the trial that it has, and begins none after it.
        eventually(lambda: training(store) and any(results.glob("trials/*/*")))
    finally:
        workers = [pid for pid in children(first.pid) if is_worker(pid)]
        first.kill()
        first.wait()
    assert workers
    began = time.monotonic()
    eventually(lambda: not any(map(alive, workers)), 2 * sweep.LOOK + sweep.GRACE)
    assert time.monotonic() - began < sweep.GRACE  # of their own accord
    assert not any(store.is_claimed(i) for i in planned.identities)
    finished = {path: path.stat().st_mtime_ns for path in results.glob("trials/*/*/*")}
    assert finished
    assert len(finished) < 2 * len(reference)
    check_ended(sweep.run(planned, store, NO_DATA, engaged=TWO), store, planned, reference)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
