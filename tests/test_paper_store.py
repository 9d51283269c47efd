"""The folder of results: whole or not at all, one process a trial, nothing left behind."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from paper import store as of_store
from paper.learning import SPLITS, Candidates, measure, worth_keeping
from paper.methods import METHODS, Length, Trial
from paper.store import LEVELS, Result, Store
from tunelater.problems import InputError
from tunelater.training import CHECKPOINT

SETTINGS = METHODS["vs"].settings(4)
NOBODY = 2**22 + 1
"""No process has such a number: Linux stops at 2**22."""


def trial(i: int = 0) -> Trial:
    return Trial("synthetic", None, "vs", tuple(SETTINGS[i].items()), 0, Length(epochs=1))


def made_up(i: int = 0, gain: float = 1.0) -> tuple[str, dict[str, Any], Candidates]:
    rng = np.random.default_rng(i)
    target = {split: (np.arange(40) % 4 == 0).astype(np.int8) for split in SPLITS}
    logits = {s: (rng.normal(size=(2, 40)) + gain * y).astype(np.float32) for s, y in target.items()}
    found = Candidates({"tau": np.array([0.0, 1.0])}, target, logits, {s: z / 2 for s, z in logits.items()})
    values = measure(found)
    record = {
        "trial": trial(i).record(),
        "lambdas": {"tau": [0.0, 1.0]},
        "metrics": values,
        "kept": worth_keeping(values),
        "seconds": {"all": 1.0},
    }
    return trial(i).identity("f"), record, found


def filled(folder: Path, some: Iterator[int] | range = range(2), gain: float = 1.0) -> Store:
    store = Store(folder)
    for i in some:
        store.put(*made_up(i, gain))
    return store


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def told(store: Store) -> dict[str, Any]:
    return {result.identity: result.record["metrics"] for result in store.results()}


@contextmanager
def held_elsewhere(lock: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a lock until it is killed."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    code = "import sys, time, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire()"
    code += "; print('held', flush=True); time.sleep(99)"
    with subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


class Killed(BaseException):
    """Stands for the end of the process."""


def dying(*_: Any, **__: Any) -> None:
    raise Killed


# -------------------------------------------------------------------------------------------------------------- results


def test_scores_come_back_as_exactly_as_sixteen_bits_can(tmp_path: Path) -> None:
    identity, record, found = made_up()
    store = Store(tmp_path)
    store.put(identity, record, found)
    (result,) = store.results()
    assert result.identity == identity
    assert result.trial == trial()
    for split in SPLITS:
        for kind, scores in (("logits", found.logits), ("posterior", found.posterior)):
            for candidate in record["kept"]:
                values, target = result.scores(split, candidate, kind)
                spread = np.ptp(scores[split][candidate])
                np.testing.assert_allclose(values, scores[split][candidate], rtol=0, atol=0.51 * spread / LEVELS)
                np.testing.assert_array_equal(target, found.target[split])
    with pytest.raises(InputError, match="has scores of the candidates"):
        result.scores("test", 99)


@pytest.mark.parametrize("where", ["np.savez_compressed", "_write", "_to_disk", "os.replace"])
def test_a_result_appears_as_a_whole_or_not_at_all(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, (identity, record, found) = Store(tmp_path), made_up()
    with monkeypatch.context() as patch:
        patch.setattr(f"paper.store.{where}", dying)
        with pytest.raises(Killed):
            store.put(identity, record, found)
    assert not store.done(identity)
    assert store.results() == []
    store.put(identity, record, found)
    assert files(store.place(identity)).keys() == {"result.json", "scores.npz"}
    assert not store.work(identity).exists()


def test_a_result_that_another_put_there_is_kept(tmp_path: Path) -> None:
    store = filled(tmp_path, range(1))
    before = files(tmp_path)
    store.put(*made_up(0, gain=2))
    assert files(tmp_path) == before


def test_a_result_that_cant_take_its_place_is_an_error_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, (identity, record, found) = Store(tmp_path), made_up()
    store.begin(identity, "sweep")
    (store.work(identity) / CHECKPOINT).write_bytes(b"epochs of work")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("paper.store.os.replace", full)
        with pytest.raises(OSError, match="No space left"):
            store.put(identity, record, found)
    assert (store.work(identity) / CHECKPOINT).read_bytes() == b"epochs of work"


def test_damaged_results_are_told_all_at_once(tmp_path: Path) -> None:
    store = filled(tmp_path)
    for i, text in enumerate(('{"trial"', "")):
        (store.place(made_up(i)[0]) / "result.json").write_text(text)
    with pytest.raises(InputError) as error:
        store.results()
    assert len(error.value.problems) == 2
    assert all("delete its folder" in problem for problem in error.value.problems)


# --------------------------------------------------------------------------------------------------------------- claims


def test_a_trial_is_one_processs_at_a_time_and_free_once_that_dies(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert not store.is_claimed("a")
    assert files(tmp_path) == {}  # asking leaves nothing
    with held_elsewhere(tmp_path / "locks" / "a.lock") as process:
        assert store.is_claimed("a")
        with store.claim("a") as ours:
            assert not ours
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not store.is_claimed("a")
        with store.claim("a") as ours:
            assert ours
            assert Store(tmp_path).is_claimed("a")


@pytest.mark.parametrize("end", ["done", "failed"])
def test_locks_go_with_what_they_guard(end: str, tmp_path: Path) -> None:
    store, (identity, record, found) = Store(tmp_path), made_up()
    with store.claim(identity):
        pass
    assert (tmp_path / "locks" / f"{identity}.lock").exists()  # another may wait for it
    with store.claim(identity):
        if end == "done":
            store.put(identity, record, found)
        else:
            store.fail(identity, trial(), "it is no good")
    assert not any((tmp_path / "locks").iterdir())


def test_a_sweep_is_over_when_it_says_so_or_its_process_dies(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.sweep() as (name, stop):
        assert store.sweeping(name)
        stop()
        assert not store.sweeping(name)
    with held_elsewhere(tmp_path / "sweeps" / "other.lock") as process:
        assert store.sweeping("other")
        process.kill()
        process.wait()
        assert not store.sweeping("other")
    store.tidy()
    assert files(tmp_path) == {}


# ------------------------------------------------------------------------------------------------------ what went wrong


def test_failures_are_told_until_they_are_forgotten(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.fail("a", trial(), *of_store.reason_of(ValueError("two\nlines")))
    store.fail("b", trial(), "reason")
    (tmp_path / "failed" / "b.json").write_text("{")
    assert store.failures() == {
        "a": "ValueError: two lines",
        "b": "for a reason that can't be read (JSONDecodeError)",
    }
    store.forget_failure("a")
    assert not store.failed("a")
    assert store.failed("b")


def test_the_time_of_earlier_attempts_counts_up_to_their_last_checkpoint(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.begin("a", "one")
    store.stopped("a", 10)
    assert store.begun_by("a") is None
    store.begin("a", "two")
    began, checkpoint = store.work("a") / "by", store.work("a") / CHECKPOINT
    os.utime(began, (1000, 1000))
    checkpoint.touch()
    os.utime(checkpoint, (1030, 1030))
    store.begin("a", "three")  # the second was killed
    assert store.begun_by("a") == "three"
    assert store.spent("a") == 40
    os.utime(began, (2000, 2000))
    store.begin("a", "four")  # the third was too, before it had written a checkpoint
    assert store.spent("a") == 40
    (store.work("a") / "seconds").write_text("")
    assert store.spent("a") == 0


def test_a_folder_that_cant_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(tmp_path / "new").check_writable()
    assert files(tmp_path) == {}
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"results must be written to .*Not a directory"):
        Store(tmp_path / "file" / "results").check_writable()
    with pytest.raises(InputError, match="kept in a folder, got the file"):
        Store(tmp_path / "file")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(InputError, match="No space left on device; make room there"):
        Store(tmp_path).check_writable()


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    store = filled(tmp_path, range(1))
    done, unfinished = made_up(0)[0], made_up(1)[0]
    store.begin(unfinished, "sweep")
    (store.work(unfinished) / CHECKPOINT).touch()
    kept = files(tmp_path)
    store.work(done).mkdir(parents=True)
    (store.work(done) / CHECKPOINT).touch()
    for name in (f"{platform.node()}-{NOBODY} x", "another-machine-1 y"):
        (tmp_path / "partial" / name).mkdir(parents=True)
    os.utime(tmp_path / "partial" / "another-machine-1 y", (0, 0))
    alive = tmp_path / "partial" / f"{platform.node()}-{os.getppid()} z"
    alive.mkdir()
    (tmp_path / "locks").mkdir(exist_ok=True)
    (tmp_path / "locks" / f"{done}.lock").touch()
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "dead.lock").touch()
    store.tidy()
    assert files(tmp_path) == kept
    assert list((tmp_path / "partial").iterdir()) == [alive]
    assert not store.work(done).exists()


# -------------------------------------------------------------------------------------------------------------- merging


def test_merging_is_the_union_in_any_order_and_once_is_enough(tmp_path: Path) -> None:
    one, two = filled(tmp_path / "1", range(3)), filled(tmp_path / "2", range(2, 4))
    forth, back = Store(tmp_path / "forth"), Store(tmp_path / "back")
    assert [forth.merge(one), forth.merge(two)] == [(3, 0, []), (1, 1, [])]
    assert [back.merge(two), back.merge(one)] == [(2, 0, []), (2, 1, [])]
    assert told(forth) == told(back) == told(one) | told(two)
    before = files(tmp_path / "forth")
    assert forth.merge(two) == (0, 2, [])
    assert files(tmp_path / "forth") == before


def test_conflicts_are_told_and_what_is_here_stays(tmp_path: Path) -> None:
    mine, theirs = filled(tmp_path / "1", range(2)), filled(tmp_path / "2", range(1, 3), gain=3)
    before = told(mine)
    added, same, conflicts = mine.merge(theirs)
    assert (added, same, len(conflicts)) == (1, 0, 1)
    assert "differs by" in conflicts[0]
    assert str(trial(1)) in conflicts[0]
    assert {i: told(mine)[i] for i in before} == before


def test_a_conflict_of_other_lambdas_tells_how_many(tmp_path: Path) -> None:
    mine, theirs = filled(tmp_path / "1", range(1)), filled(tmp_path / "2", range(1))
    place = theirs.place(made_up(0)[0]) / "result.json"
    record = json.loads(place.read_text())
    n = len(record["metrics"]["validation"]["logits"]["auc"])
    record["metrics"]["validation"]["logits"]["auc"].append(0.5)
    place.write_text(json.dumps(record))
    assert f"validation logits auc has {n} values here and {n + 1} there" in mine.merge(theirs)[2][0]


def test_a_damaged_result_here_is_a_conflict_too(tmp_path: Path) -> None:
    mine, theirs = filled(tmp_path / "1", range(1)), filled(tmp_path / "2", range(1))
    (mine.place(made_up(0)[0]) / "result.json").write_text("{")
    assert "delete it to take" in mine.merge(theirs)[2][0]


@pytest.mark.parametrize("where", ["_to_disk", "os.replace"])
def test_a_merge_that_is_killed_leaves_no_partial_result(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, mine = filled(tmp_path / "2", range(3)), filled(tmp_path / "1", range(1))
    with monkeypatch.context() as patch:
        patch.setattr(f"paper.store.{where}", dying)
        patch.setattr("paper.store.shutil.rmtree", lambda *_, **__: None)  # a killed process tidies nothing
        with pytest.raises(Killed):
            mine.merge(theirs)
    assert len(mine.results()) == 1
    assert any((tmp_path / "1" / "partial").iterdir())
    assert mine.merge(theirs) == (2, 1, [])
    mine.tidy()
    assert told(mine) == told(theirs)
    assert not any((tmp_path / "1" / "partial").iterdir())


def test_what_another_merge_put_there_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, mine = filled(tmp_path / "2", range(1)), Store(tmp_path / "1")
    copy = Store._copy

    def raced(self: Store, result: Result) -> bool:
        filled(tmp_path / "1", range(1))
        return copy(self, result)

    monkeypatch.setattr(Store, "_copy", raced)
    assert mine.merge(theirs) == (0, 1, [])
    assert json.dumps(told(mine)) == json.dumps(told(theirs))
    assert not any((tmp_path / "1" / "partial").iterdir())
