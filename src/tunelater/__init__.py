"""Rare-event classification: train once over a distribution of loss hyperparameters, choose where to operate
afterwards.

The public names load on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as type checkers know it, without importing `typing`, which takes a while
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "fit": "workflow",
    "tune": "workflow",
    "predict": "workflow",
    "evaluate": "workflow",
    "adapt": "adaptation",
    "watch": "adaptation",
    "LCTClassifier": "estimator",
    "export_model": "export",
    "write_card": "card",
    "Run": "runs",
    "Config": "config",
    "LambdaSpace": "distributions",
    "Linear": "distributions",
    "PointMass": "distributions",
    "FiLM": "film",
    "LossConditional": "film",
    "loss_family": "losses",
    "train": "training",
    "score": "scoring",
    "Scores": "scoring",
    "OperatingGrid": "tuning",
    "OperatingPoint": "points",
    "InputError": "problems",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from tunelater.adaptation import adapt, watch
    from tunelater.card import write_card
    from tunelater.config import Config
    from tunelater.distributions import LambdaSpace, Linear, PointMass
    from tunelater.estimator import LCTClassifier
    from tunelater.export import export_model
    from tunelater.film import FiLM, LossConditional
    from tunelater.losses import loss_family
    from tunelater.points import OperatingPoint
    from tunelater.problems import InputError
    from tunelater.runs import Run
    from tunelater.scoring import Scores, score
    from tunelater.training import train
    from tunelater.tuning import OperatingGrid
    from tunelater.workflow import evaluate, fit, predict, tune


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
