"""Shared data: a real table, and a run fitted on it once for all tests."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import settings

from tunelater.config import Config
from tunelater.data.reading import read_table
from tunelater.demo import POSITIVE, TARGET, thyroid
from tunelater.runs import Run
from tunelater.workflow import fit

# Two test processes share two cores; waiting threads of OpenMP would take them from each other.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

settings.register_profile(
    "any machine", deadline=None
)  # a busy one takes a second where a quiet one takes a millisecond
settings.load_profile("any machine")

QUICK = Config(epochs=4, batch_size=256)

LONGEST = ("page", "export", "paper_sweep", "image_workflow", "training", "docs", "estimator", "tuning", "models",
           "workflow", "trackers", "readme", "deploying", "paper_cli", "adaptation", "aggregates", "losses",
           "paper_figures", "paper_comparison", "demo", "streaming_memory")  # fmt: skip
"""Files of tests that take ten seconds or more, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files begin first: where processes share them out, none is left alone with one at the end."""
    place = {f"test_{name}.py": i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The thyroid screening table as a CSV file."""
    path = tmp_path_factory.mktemp("table") / "thyroid.csv"
    thyroid().to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def frame(table: Path) -> pd.DataFrame:
    return read_table(table)


@pytest.fixture(scope="session")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of a few epochs on the thyroid table, in a folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = tmp_path_factory.mktemp("runs") / "run"
        return fit(table, target=TARGET, positive=POSITIVE, out=out, config=QUICK)


@pytest.fixture(scope="module")
def on_ray() -> Iterator[None]:
    """Ray on this machine, started once for all tests of a module: that takes longer than they do."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'tunelater[ray]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        some = {"num_cpus": 2, "object_store_memory": 128 * 2**20, "include_dashboard": False}
        ray.init(address="local", log_to_driver=False, logging_level="ERROR", **some)
        yield
        ray.shutdown()
