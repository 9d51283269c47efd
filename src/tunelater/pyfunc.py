"""Runs as MLflow models: a pyfunc whose `predict` takes lambda, threshold and prior as parameters. Needs MLflow.

What MLflow stores is the run folder, the operating point, and three lines that import this module: no pickle.
"""

from __future__ import annotations

import base64
import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

try:
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
except ModuleNotFoundError as missing:
    told = f"MLflow models need {missing.name}: pip install 'tunelater[mlflow]'"
    raise ModuleNotFoundError(told, name=missing.name) from None

from tunelater import __version__
from tunelater.config import ImagesConfig
from tunelater.data.decoding import decode_contents
from tunelater.data.image_form import ImageForm
from tunelater.data.images import ImageSplit
from tunelater.data.splits import Split
from tunelater.data.table_form import TableForm
from tunelater.data.tables import conform
from tunelater.losses import logit
from tunelater.points import OperatingPoint, sigmoid
from tunelater.problems import InputError, Problems
from tunelater.runs import Run
from tunelater.scoring import check_lambdas
from tunelater.workflow import RESULT, point_of_run, predictions_of, problems_of, run_of_two

IMAGE = "image"
"""The column of images."""
_MOST_TOLD = 10
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
        """What `tunelater.predict` writes, of a data frame.

        Args:
            model_input: has the columns of the training table; or, of a run on images, the column `image`: what image
                files hold, as bytes, or as base64 where they come as JSON.
            params: each hyperparameter of the loss by its name; `prior`, the share of positives that probabilities are
                for; `threshold`, the link's probability at that prior from which on rows are alerted on. What is left
                out, or None, is the operating point's: another prior alone changes probabilities, not decisions.

        Raises:
            InputError: parameters out of range, a table that does not fit, images that cannot be read.
        """
        point, prior = _asked(self.point, params or {}, self.run)
        samples = self._samples(pd.DataFrame(model_input))
        return predictions_of(self.run, point, samples, prior).to_pandas()

    def _samples(self, frame: pd.DataFrame) -> Split:
        form = self.run.form
        if isinstance(form, ImageForm):
            return _images(frame, form.images)
        assert isinstance(form, TableForm)
        return form.split(conform(frame, form.schema))


def _images(frame: pd.DataFrame, images: ImagesConfig) -> ImageSplit:
    """The images whose files a column holds."""
    if IMAGE not in frame:
        got = ", ".join(map(str, frame.columns)) or "no column"
        raise InputError(
            f"a model on images takes the column {IMAGE!r}, of what image files hold as bytes or base64; got {got}"
        )
    assert images.size is not None
    decoded = decode_contents([_contents(cell) for cell in frame[IMAGE]], images.size, bits=images.bits)
    bad = [f"row {row} ({image})" for row, image in enumerate(decoded) if isinstance(image, str)]
    if bad:
        more = f" and {len(bad) - _MOST_TOLD:,} more" if len(bad) > _MOST_TOLD else ""
        told = ", ".join(bad[:_MOST_TOLD])
        raise InputError(f"every image must be readable, got {len(bad):,} of {len(decoded):,} not: {told}{more}")
    pixels = np.array(decoded, np.uint8).reshape(-1, 3, images.size, images.size)
    return ImageSplit(torch.from_numpy(pixels), torch.zeros(len(pixels), dtype=torch.int64), images)


def _contents(cell: Any) -> bytes:
    """The bytes of a cell; none where it has no such thing."""
    if isinstance(cell, str):
        try:
            return base64.b64decode(cell, validate=True)
        except ValueError:
            return b""
    return bytes(cell) if isinstance(cell, bytes | bytearray | memoryview) else b""


def _asked(point: OperatingPoint, params: Mapping[str, Any], run: Run) -> tuple[OperatingPoint, float]:
    """The point with the lambda and the threshold of a request, and the share of positives that it is for.

    A calibration is of the point's own lambda. A threshold that nobody gave stays as it is, in log-odds at the point's
    own prior, and so do decisions.
    """
    given = {name: value for name, value in params.items() if value is not None}
    threshold, prior = given.pop("threshold", None), given.pop("prior", point.prior)
    lam = {**point.lam, **{name: float(value) for name, value in given.items()}}
    problems = Problems()
    with problems_of(problems):
        check_lambdas(lam, run.family)
    problems.check(0 < prior < 1, f"prior must lie in (0, 1), got {prior}")
    problems.check(threshold is None or 0 < threshold < 1, f"threshold must lie in (0, 1), got {threshold}")
    problems.raise_if_any()
    if lam != point.lam:
        point = dataclasses.replace(point, lam=lam, calibration=None)
    if threshold is not None:
        odds = logit(threshold) - logit(prior) + logit(point.prior)
        point = dataclasses.replace(point, log_odds_threshold=odds, threshold=sigmoid(odds))
    return point, prior


_TYPES = {pa.float64(): DataType.double, pa.string(): DataType.string, pa.bool_(): DataType.boolean}


def signature(point: OperatingPoint) -> ModelSignature:
    """The columns of the result; lambda, threshold and prior as parameters, lambda and prior with the point's values as
    defaults. The threshold has none, by which one that is given is told from the point's own.

    Columns of the input are not in it: they are read as `tunelater predict` reads them, which MLflow's types would
    forbid (missing values in whole numbers, numbers as text).
    """
    defaults = {**point.lam, "prior": point.prior, "threshold": None}
    return ModelSignature(
        outputs=Schema([ColSpec(_TYPES[field.type], field.name) for field in RESULT]),
        params=ParamSchema([ParamSpec(name, DataType.double, value) for name, value in defaults.items()]),
    )


def log_model(run: Run | str | Path, at: OperatingPoint | str | Path, *, name: str = "model", **options: Any) -> Any:
    """Log a run at an operating point as an MLflow model, into the active MLflow run.

    >>> log_model("run", "point.json", registered_model_name="screen")  # doctest: +SKIP

    Args:
        name: what the model is called.
        options: further ones of `mlflow.pyfunc.log_model`.

    Returns:
        MLflow's `ModelInfo`, whose `model_uri` `mlflow.pyfunc.load_model` takes.

    Raises:
        InputError: no run, one on images of any size, or a point of another model.
    """
    problems = Problems()
    loaded: Run | None = None
    with problems_of(problems):
        loaded = run_of_two(run)
    point = point_of_run(at, loaded, problems)
    extras = "mlflow"
    if loaded is not None and isinstance(loaded.form, ImageForm):
        extras = "mlflow,vision"
        told = "an MLflow model takes images of one size, got a run on images as they are (images.size)"
        problems.check(loaded.form.images.size is not None, told)
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
            **{"pip_requirements": [f"tunelater[{extras}]=={__version__}"], **options},
        )
