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
    "report": "reporting",
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

if TYPE_CHECKING:  # `as`, or type checkers take the names for this module's own
    from tunelater.adaptation import adapt as adapt
    from tunelater.adaptation import watch as watch
    from tunelater.card import write_card as write_card
    from tunelater.config import Config as Config
    from tunelater.distributions import LambdaSpace as LambdaSpace
    from tunelater.distributions import Linear as Linear
    from tunelater.distributions import PointMass as PointMass
    from tunelater.estimator import LCTClassifier as LCTClassifier
    from tunelater.export import export_model as export_model
    from tunelater.film import FiLM as FiLM
    from tunelater.film import LossConditional as LossConditional
    from tunelater.losses import loss_family as loss_family
    from tunelater.points import OperatingPoint as OperatingPoint
    from tunelater.problems import InputError as InputError
    from tunelater.reporting import report as report
    from tunelater.runs import Run as Run
    from tunelater.scoring import Scores as Scores
    from tunelater.scoring import score as score
    from tunelater.training import train as train
    from tunelater.tuning import OperatingGrid as OperatingGrid
    from tunelater.workflow import evaluate as evaluate
    from tunelater.workflow import fit as fit
    from tunelater.workflow import predict as predict
    from tunelater.workflow import tune as tune


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
