"""The sweep on a Ray cluster of two nodes, on one machine. Needs the extra `study-ray`."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from paper import sweep
from paper.methods import METHODS, Column, Length, Trial, trials
from paper.store import Store
from paper.sweep import Engaged, Plan, attend, plan
from tunelater.problems import InputError
from tunelater.training import CHECKPOINT

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'tunelater[study-ray]'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]
NO_DATA = Path("data")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    from ray.cluster_utils import Cluster

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        yield cluster.address
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="module")
def planned() -> Plan:
    table = Column("synthetic", "synthetic", "synthetic", None)
    some = trials([table], [METHODS["vs"]], settings=4, seeds=[0], length=Length(epochs=15))
    hopeless = Trial("synthetic", None, "ce", (("optimizer.learning_rate", "x1e30"),), 0, Length(epochs=1))
    return plan([some[0], hopeless, *some[1:]], NO_DATA)


@pytest.fixture(scope="module")
def reference(planned: Plan, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    store, before = Store(tmp_path_factory.mktemp("alone")), torch.get_num_threads()
    torch.set_num_threads(1)
    for trial, identity in planned:
        attend(trial, identity, store, NO_DATA, "alone", lambda: False)
    torch.set_num_threads(before)
    return told(store)


def told(store: Store) -> dict[str, str]:
    return {r.identity: json.dumps(r.record["metrics"]) for r in store.results()}


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where each worker writes its node and its process, as it begins a trial."""
    log = tmp_path / "log"

    def logged(*arguments: Any) -> Any:
        import ray

        from paper import sweep  # the worker's own

        with log.open("a") as file:
            file.write(f"{ray.get_runtime_context().get_node_id()} {os.getpid()}\n")
        return sweep.work(*arguments)

    monkeypatch.setattr(sweep, "work", logged)
    return log


def check_ended(report: sweep.Report, store: Store, reference: dict[str, str]) -> None:
    assert len(reference) == 4
    assert told(store) == reference
    assert (report.added, len(report.failed), report.left) == (4, 1, 0)


def test_two_nodes_train_what_one_process_does(
    address: str, planned: Plan, reference: dict[str, str], tmp_path: Path, log: Path
) -> None:
    store = Store(tmp_path / "results")
    check_ended(sweep.run(planned, store, NO_DATA, engaged=Engaged("ray", address)), store, reference)
    assert len({line.split()[0] for line in log.read_text().splitlines()}) == 2


def test_a_killed_worker_costs_no_trial(
    address: str, planned: Plan, reference: dict[str, str], tmp_path: Path, log: Path
) -> None:
    store, killed = Store(tmp_path / "results"), list[int]()

    def kill() -> None:
        end = time.monotonic() + 300
        while not any(store.root.glob(f"running/*/{CHECKPOINT}")) and time.monotonic() < end:
            time.sleep(0.05)
        killed.append(int(log.read_text().split()[1]))  # ours by its own word: others may run Ray here too
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    report = sweep.run(planned, store, NO_DATA, engaged=Engaged("ray", address))
    killer.join()
    assert killed
    check_ended(report, store, reference)


def test_more_than_the_cluster_has_is_told(address: str, planned: Plan, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"room for two trials, each of a core and 0.5 GPUs, got .*'GPU': 0"):
        sweep.run(planned, Store(tmp_path), NO_DATA, engaged=Engaged("ray", address, gpus=0.5))
