"""Where the course of a training is followed: loggers of Lightning Fabric for TensorBoard and Weights & Biases."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import Logger
from lightning_fabric.utilities.rank_zero import rank_zero_only

from tunelater.config import Config
from tunelater.problems import Problems, did_you_mean

TRACKERS = ("tensorboard", "wandb")
Tracker = Callable[[int], Logger]
"""Makes a logger for a training that has so many epochs behind it."""


def problems_of_tracker(name: str | None, out: str | Path | None) -> list[str]:
    """Why a training cannot be followed so.

    Args:
        out: the run folder, None where there is none.
    """
    problems = Problems()
    if name is None:
        return []
    if name not in TRACKERS:
        return [f"tracker (--tracker) is one of {', '.join(TRACKERS)}, got {name!r}{did_you_mean(name, TRACKERS)}"]
    if find_spec(name) is None:
        problems.add(f"tracker {name!r} needs the package {name}: pip install 'tunelater[{name}]'")
    problems.check(
        name != "tensorboard" or out is not None, "tracker 'tensorboard' writes into the run folder: name one (out)"
    )
    return list(problems)


def tracker_of(name: str, folder: Path | None, config: Config, title: str) -> Tracker:
    """What makes the logger of that name.

    Args:
        folder: where files go, into a folder called after the tracker; None leaves the place to wandb.
        title: what the run is called there.
    """

    def made(epochs: int) -> Logger:
        if name == "wandb":
            return WandbLogger(title, folder, config)
        from lightning_fabric.loggers.tensorboard import TensorBoardLogger

        assert folder is not None
        return TensorBoardLogger(folder, name="tensorboard", version="", purge_step=epochs + 1)

    return made


class WandbLogger(Logger):
    """Weights & Biases as a logger of Fabric. (wandb's own needs all of Lightning.)

    Project, entity and mode are what wandb's environment variables say (`WANDB_PROJECT`, by default `tunelater`;
    `WANDB_MODE=offline` needs no network). A resumed training goes on in a new run of the same name.
    """

    def __init__(self, title: str, folder: Path | None, config: Config) -> None:
        import wandb

        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "tunelater"),
            name=title,
            dir=None if folder is None else str(folder),
            config=tomllib.loads(config.to_toml()),
            reinit="create_new",
        )

    @property
    def name(self) -> str:
        return str(self._run.name)

    @property
    def version(self) -> str:
        return str(self._run.id)

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        self._run.config.update(dict(params))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._run.log(dict(metrics), step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self._run.finish(exit_code=int(status != "success"))
