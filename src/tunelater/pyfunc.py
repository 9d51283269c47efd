"""Runs as MLflow models: a pyfunc whose `predict` takes lambda, threshold and prior as parameters. Needs MLflow.

What MLflow stores is the run folder, the operating point, and three lines that import this module: no pickle.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

try:
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec
except ModuleNotFoundError as missing:
    told = f"MLflow models need {missing.name}: pip install 'tunelater[mlflow]'"
    raise ModuleNotFoundError(told, name=missing.name) from None

from tunelater import __version__
from tunelater.data.table_form import TableForm
from tunelater.data.tables import conform
from tunelater.losses import logit
from tunelater.points import OperatingPoint, sigmoid
from tunelater.problems import Problems
from tunelater.runs import Run
from tunelater.scoring import check_lambdas
from tunelater.workflow import point_of_run, predictions_of, problems_of

_CODE = """import mlflow.models
from tunelater.pyfunc import RunModel
mlflow.models.set_model(RunModel())
"""


class RunModel(mlflow.pyfunc.PythonModel):
    """What MLflow calls."""

    def load_context(self, context: Any) -> None:
        self.run = Run.load(context.artifacts["run"])
        self.point = OperatingPoint.load(context.artifacts["point"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """What `tunelater.predict` writes, of a data frame with the columns of the training table.

        Args:
            params: each hyperparameter of the loss by its name; `prior`, the share of positives that probabilities are
                for; `threshold`, the probability at that prior from which on rows are alerted on. What is left out is
                the operating point's.

        Raises:
            InputError: parameters out of range, a table that does not fit.
        """
        point = _moved(self.point, dict(params or {}), self.run)
        assert isinstance(self.run.form, TableForm)
        features = conform(pd.DataFrame(model_input), self.run.form.schema)
        return predictions_of(self.run, point, self.run.form.split(features)).to_pandas()


def _moved(point: OperatingPoint, params: dict[str, Any], run: Run) -> OperatingPoint:
    """The point with other parameters; where none differs it is the point itself, calibration and all."""
    threshold, prior = params.pop("threshold", point.threshold), params.pop("prior", point.prior)
    lam = dict(point.lam) | {name: float(value) for name, value in params.items()}
    same_place = lam == dict(point.lam) and prior == point.prior
    if same_place and threshold == point.threshold:
        return point
    problems = Problems()
    with problems_of(problems):
        check_lambdas(lam, run.family)
    for name, value in (("threshold", threshold), ("prior", prior)):
        problems.check(0 < value < 1, f"{name} must lie in (0, 1), got {value}")
    problems.raise_if_any()
    calibration = point.calibration if same_place else None
    odds = logit(threshold)
    return dataclasses.replace(
        point, lam=lam, prior=prior, log_odds_threshold=odds, threshold=sigmoid(odds), calibration=calibration
    )


def signature(point: OperatingPoint) -> ModelSignature:
    """Lambda, threshold and prior as parameters, the point's as defaults.

    Columns are not in it: they are read as `tunelater predict` reads them, which MLflow's types would forbid (missing
    values in whole numbers, numbers as text).
    """
    values = {**point.lam, "threshold": point.threshold, "prior": point.prior}
    return ModelSignature(
        params=ParamSchema([ParamSpec(name, DataType.double, float(value)) for name, value in values.items()])
    )


def log_model(run: Run | str | Path, at: OperatingPoint | str | Path, *, name: str = "model", **options: Any) -> Any:
    """Log a run on a table at an operating point as an MLflow model, into the active MLflow run.

    >>> log_model("run", "point.json", registered_model_name="screen")  # doctest: +SKIP

    Args:
        name: what the model is called.
        options: further ones of `mlflow.pyfunc.log_model`.

    Returns:
        MLflow's `ModelInfo`, whose `model_uri` `mlflow.pyfunc.load_model` takes.

    Raises:
        InputError: no run, one on images, or a point of another model.
    """
    problems = Problems()
    loaded: Run | None = None
    with problems_of(problems):
        loaded = run if isinstance(run, Run) else Run.load(run)
    point = point_of_run(at, loaded, problems)
    if loaded is not None and not isinstance(loaded.form, TableForm):
        problems.add("an MLflow model takes data frames, got a run on images: export it to ONNX (`tunelater export`)")
    problems.raise_if_any()
    assert loaded is not None
    assert point is not None
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "run").mkdir()
        loaded.save(folder / "run")
        point.save(folder / "point.json")
        (folder / "model.py").write_text(_CODE, encoding="utf-8")
        return mlflow.pyfunc.log_model(
            name=name,
            python_model=str(folder / "model.py"),
            artifacts={"run": str(folder / "run"), "point": str(folder / "point.json")},
            signature=signature(point),
            **{"pip_requirements": [f"tunelater[mlflow]=={__version__}"], **options},
        )
