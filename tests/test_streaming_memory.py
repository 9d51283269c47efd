"""Memory of choosing on a table as it streams by, measured from outside: of a process that does nothing else."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tunelater.config import Config
from tunelater.data.reading import size_in_memory
from tunelater.workflow import fit

LIMIT = 4
"""MiB that the histograms of one lambda fit in."""
FILE_ROWS = 80_000
COLUMNS = list("abcdefgh")

# The highest resident memory since the start of the program: `ru_maxrss` would begin with that of the tests.
MEASURED = """
import sys
import torch
from tunelater.workflow import tune

torch.set_num_threads(1)
run, limit, *tables = sys.argv[1:]
for table in tables:
    point = tune(run, table, maximize="f1", grid={"gamma": [0.1], "tau": [1.0]}, memory_mb=int(limit))
    with open("/proc/self/status") as status:
        (peak,) = [line.split()[1] for line in status if line.startswith("VmHWM:")]
    print(point.n, int(peak) * 2**10, int(bool(point.off_by)))
"""


def made(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    target = rng.random(n) < 0.05
    return pd.DataFrame(rng.normal(size=(n, len(COLUMNS))) + target[:, None], columns=COLUMNS).assign(y=target * 1)


def folder_of(place: Path, files: int, seed: int) -> Path:
    place.mkdir()
    for i in range(files):
        made(FILE_ROWS, seed + i).to_parquet(place / f"{i}.parquet", index=False, compression="none")
    return place


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from Linux's /proc")
def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(made(1000, 0), target="y", positive="1", out=tmp_path / "run", config=Config(epochs=1))
    tables = [folder_of(tmp_path / str(files), files, 100 * files) for files in (2, 4, 8)]
    some = [sys.executable, "-c", MEASURED, tmp_path / "run", str(LIMIT), *tables]
    done = subprocess.run(some, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    rows, peaks, streamed = zip(*(map(int, line.split()) for line in done.stdout.splitlines()), strict=True)
    assert rows == (2 * FILE_ROWS, 4 * FILE_ROWS, 8 * FILE_ROWS)
    assert all(streamed)
    first, short, long = map(size_in_memory, tables)
    assert short > 4 * LIMIT * 2**20, "the table must be larger than the limit by far"
    # What is left is the allocator's: up to 13 MiB from two files on, whose buffers a single file does not fill. Read
    # whole, the last table adds 400 MiB to the second's.
    assert peaks[2] - peaks[1] < (long - short) / 2
    assert peaks[2] - peaks[0] < long - first
