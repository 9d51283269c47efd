"""What the tests of tables share: a messy table, a schema, files and the problems of a call."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tunelater.data.tables import TableSchema
from tunelater.problems import InputError


def written(folder: Path, content: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def problems_of(call: Callable[[], Any]) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        call()
    return caught.value.problems


def messy(n: int = 200, seed: int = 0) -> pd.DataFrame:
    """A table with every kind of column and missing values in each."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "amount": rng.lognormal(3, 2, n).round(2),
            "count": rng.poisson(2, n),
            "flag": rng.choice(["yes", "No"], n),
            "colour": rng.choice(["red", "green", "light blue"], n),
            "code": rng.choice(["007", "12", "A1", "1.50", "TRUE"], n),
            "day": rng.choice(["2024-01-31", "2023-12-24T18:30:00"], n),
            "typed": rng.random(n) < 0.5,
            "label": np.where(np.arange(n) % 10 == 3, "fraud", "fine"),
        }
    )
    holes = rng.random((n, 6)) < 0.05
    for i, name in enumerate(["amount", "count", "flag", "colour", "code", "day"]):
        frame[name] = frame[name].astype(object).mask(holes[:, i], None)
    return frame


SCHEMA = TableSchema(
    {"x": "numeric", "when": "numeric", "on": "boolean", "kind": "categorical"}, "y", "1", "0", dates=("when",)
)
