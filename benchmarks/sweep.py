"""The study's sweep: what scheduling costs beside the trials, how long many results take to tabulate, and how many
trials a GPU should have at once.

Scheduling: very short trials on two workers that are warm; what the workers' time is beyond the trials' own, for each
trial. Tables: `python -m paper tables` as a process of its own, on a folder of made-up results: copies of real ones,
under the identities of other trials, each with its metrics moved a little. GPU: the same trials with one to four at
once on each GPU, by the trials that an hour would have.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from paper import sweep  # noqa: E402
from paper.methods import ABLATION, APPENDIX_F, COLUMNS, METHODS, PAPER, PEERS, Column, Length, trials  # noqa: E402
from paper.store import Result, Store  # noqa: E402

TABLE = Column("synthetic", "synthetic", "synthetic", None)
ALL = (*PAPER, *ABLATION, *APPENDIX_F, *PEERS)


def spread(values: Sequence[float], digits: int = 3) -> str:
    return f"{np.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f}, n = {len(values)})"


def short_trials(n: int, epochs: int = 1) -> sweep.Plan:
    """n of the shortest there are."""
    some = itertools.chain.from_iterable(
        trials([TABLE], [METHODS["vs"]], seeds=[seed], length=Length(epochs=epochs)) for seed in itertools.count()
    )
    return sweep.plan(list(itertools.islice(some, n)), Path("data"))


# ----------------------------------------------------------------------------------------------------------- scheduling


def overhead(sizes: Sequence[int], repeat: int) -> None:
    engaged = sweep.Engaged(jobs=2)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        sweep.run(short_trials(2), Store(folder), Path("data"), engaged=engaged)
        print(f"starting two workers, and their first trials: {time.perf_counter() - start:.1f} s, once a sweep")
    for n in sizes:
        planned = short_trials(n)
        wall, cpu, own = zip(*(_overhead(planned, engaged) for _ in range(repeat)), strict=True)
        print(f"{n} trials of {np.median(own):.2f} s: a worker's time beyond each, s: {spread(wall)}")
        print(f"  of a trial of one minute, %: {spread([100 * w / 60 for w in wall], 2)}")
        print(f"  the scheduling process's CPU for each, s: {spread(cpu)}")


def _overhead(planned: sweep.Plan, engaged: sweep.Engaged) -> tuple[float, float, float]:
    """Seconds for each trial: of a worker beyond the trial, of the CPU in this process, of the trial."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        wall, cpu = time.perf_counter(), time.process_time()
        report = sweep.run(planned, store, Path("data"), engaged=engaged, tell=lambda line: None)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        assert report.added == len(planned)
        own = sum(sum(store.seconds(identity).values()) for identity in planned.identities)
        return (wall * engaged.workers - own) / len(planned), cpu / len(planned), own / len(planned)


# --------------------------------------------------------------------------------------------------------------- tables


def tabulated(n: int, template: Path | None, repeat: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        results = Store(template).results() if template else _trained(root / "template")
        start = time.perf_counter()
        copies(results, n, Store(root / "results"))
        size = sum(p.stat().st_size for p in (root / "results").rglob("*") if p.is_file())
        print(f"{n} results, {size / 2**20:.0f} MiB, made in {time.perf_counter() - start:.0f} s")
        walls, cpus = [], []
        for i in range(repeat):
            out, before = root / f"tables {i}", resource.getrusage(resource.RUSAGE_CHILDREN)
            start = time.perf_counter()
            command = [sys.executable, "-m", "paper", "tables", "--results", root / "results", "--out", out]
            subprocess.run(command, cwd=ROOT, check=True)
            walls.append(time.perf_counter() - start)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
            shutil.rmtree(out)
        print(f"tabulated, s: {spread(walls, 1)}; of CPU: {spread(cpus, 1)}")


def _trained(folder: Path) -> list[Result]:
    """One short trial of each method."""
    some = trials([TABLE], ALL, settings=1, seeds=[0], length=Length(epochs=1))
    sweep.run(sweep.plan(some, Path("data")), Store(folder), Path("data"), engaged=sweep.Engaged(jobs=2))
    return Store(folder).results()


def copies(results: Sequence[Result], n: int, store: Store) -> None:
    """n results of the paper's columns, each a copy of one of its method, or of one with as many lambdas."""
    rng = np.random.default_rng(0)
    (most, _), *_ = Counter(result.trial.dataset for result in results).most_common(1)
    results = [result for result in results if result.trial.dataset == most]  # whose scores are of the same samples
    by_method = {result.trial.method: result for result in results}
    by_lambdas = {len(result.values("test", "logits", "auc")): result for result in results}
    made = 0
    for trial in (t for seed in itertools.count() for t in trials(COLUMNS.values(), ALL, seeds=[seed])):
        place = store.place(trial.identity(f"{trial.dataset} {trial.beta}"))
        if place.exists():  # where a recipe has no weight decay, all multiples of it are the same
            continue
        n_lambdas = len(next(iter(trial.lambdas().values()), [0]))
        of = by_method.get(trial.method) or by_lambdas.get(n_lambdas) or results[0]
        place.mkdir(parents=True)
        metrics = _moved(of.record["metrics"], float(rng.normal(scale=0.01)))
        (place / "result.json").write_text(json.dumps({**of.record, "trial": trial.record(), "metrics": metrics}))
        shutil.copy(of.folder / "scores.npz", place)
        made += 1
        if made == n:
            return


def _moved(values: Any, by: float) -> Any:
    """All numbers by the same, so that the best lambda of a trial stays so, and its scores are there."""
    if isinstance(values, dict):
        return {name: _moved(inner, by) for name, inner in values.items()}
    return [round(value + by, 7) for value in values]


# ------------------------------------------------------------------------------------------------------------------ GPU


def sharing(at_once: Sequence[int], dataset: str, epochs: int, data: Path, precision: str, repeat: int) -> None:
    """Trials an hour, and beside one at a time; the order of the numbers changes from repetition to repetition."""
    gpus = torch.cuda.device_count()
    device = torch.cuda.get_device_name() if gpus else "no GPU: trials share the cores"
    print(f"{max(1, gpus)} x {device}; {dataset}, {epochs} epochs, {precision}")
    column = COLUMNS.get(dataset) or Column(dataset, dataset, dataset, None)
    length = Length(epochs=epochs, protocol="paper", precision=precision)
    rates: dict[int, list[float]] = {k: [] for k in at_once}
    for i, k in _turns(at_once, repeat):
        jobs = k * max(1, gpus)
        engaged = sweep.Engaged(jobs=jobs)
        with tempfile.TemporaryDirectory() as folder:
            warm, timed = (
                sweep.plan(trials([column], [METHODS["vs"]], settings=16, seeds=[s], length=length_), data)
                for s, length_ in ((100, dataclasses.replace(length, epochs=1)), (i, length))
            )
            # Before the timed ones, so that every worker has its data.
            sweep.run(first(warm, 3 * max(2, jobs)), Store(folder), data, engaged=engaged)
            some = first(timed, 2 * max(at_once) * max(1, gpus))
            report = sweep.run(some, Store(folder), data, engaged=engaged)
        assert report.added == len(some), report
        rates[k].append(3600 * report.added / report.seconds)
    for k, found in rates.items():
        gains = [rate / one for rate, one in zip(found, rates[at_once[0]], strict=True)]
        print(f"{k} at once: {spread(found, 1)} trials/h; times {at_once[0]} at once: {spread(gains, 2)}")


def first(planned: sweep.Plan, n: int) -> sweep.Plan:
    return sweep.Plan(planned.trials[:n], planned.identities[:n])


def _turns(at_once: Sequence[int], repeat: int) -> Iterator[tuple[int, int]]:
    for i in range(repeat):
        yield from ((i, k) for k in (at_once if i % 2 == 0 else at_once[::-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["overhead", "tables"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 64, 256], help="trials of a sweep")
    parser.add_argument("--results", type=int, default=10_000, help="how many are tabulated")
    parser.add_argument("--template", type=Path, help="a folder of real results; without one, short trials are trained")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--gpu", action="store_true", help="how many trials should share a GPU; nothing else")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--dataset", default="cifar10-auto-truck")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--precision", default="bf16-mixed")
    told = parser.parse_args()
    if told.gpu:
        sharing(told.at_once, told.dataset, told.epochs, told.data, told.precision, told.repeat)
        return
    if told.only != "tables":
        overhead(told.sizes, told.repeat)
    if told.only != "overhead":
        tabulated(told.results, told.template, told.repeat)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(ROOT / "src"))
    main()
