"""The JSON Schemas of operating points say what points of every kind are, and are in the package."""

import dataclasses
import json
import warnings
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_wine

from tunelater.estimator import LCTClassifier
from tunelater.guarantee import Certificate, Shares
from tunelater.multiclass import FORMAT as CLASS_FORMAT
from tunelater.multiclass import ClassPoint
from tunelater.points import FORMAT, OperatingPoint
from tunelater.problems import DoubtfulInputWarning
from tunelater.runs import Run
from tunelater.workflow import tune

jsonschema = pytest.importorskip("jsonschema")

SCHEMAS = {"operating-point": FORMAT, "class-point": CLASS_FORMAT}
NEEDS: dict[str, dict[str, Any]] = {
    "of subgroups": {"maximize": "precision", "subject_to": ["recall>=0.3", "recall>=0.2 in every sex"]},
    "of costs, at a range of priors": {"cost": {"fn": 50, "fp": 1}, "prior": (0.005, 0.02)},
    "of probabilities": {"minimize": "log_loss"},
    "certified": {"maximize": "recall", "subject_to": "fpr<=0.3", "guarantee": 0.9},
    "calibrated by a line": {"maximize": "f1", "calibrate": "platt"},
    "calibrated by a beta map": {"maximize": "f1", "calibrate": "beta"},
    "calibrated by steps": {"maximize": "f1", "calibrate": "isotonic"},
    "of resamples": {"maximize": "recall", "subject_to": "precision>=0.2", "bootstrap": 100},
    "of histograms": {"maximize": "average_precision", "stream": True, "memory_mb": 16},
}


def schema(name: str) -> dict[str, Any]:
    return json.loads((files("tunelater") / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8"))


def parts(of: Any) -> Iterator[dict[str, Any]]:
    """A schema and all schemas in it."""
    if isinstance(of, dict):
        yield of
    for part in of.values() if isinstance(of, dict) else of if isinstance(of, list) else ():
        yield from parts(part)


def strict(name: str) -> Any:
    """What validates, and takes nothing that the schema does not describe."""
    whole = schema(name)
    for part in parts(whole):
        if "properties" in part and "type" in part:
            part.setdefault("additionalProperties", False)
    return jsonschema.Draft202012Validator(whole)


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_are_sound_and_named_after_the_format(name: str) -> None:
    whole = schema(name)
    jsonschema.Draft202012Validator.check_schema(whole)
    assert whole["properties"]["format"]["const"] == SCHEMAS[name]
    assert whole["$id"] == "urn:" + SCHEMAS[name].replace(".", ":").replace("/", ":")


@pytest.mark.parametrize("kind", NEEDS)
def test_points_that_are_chosen_are_what_the_schema_says(kind: str, run: Run, table: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulInputWarning)
        point = tune(run, table, grid=2, out=tmp_path / "point.json", **NEEDS[kind])
    told = json.loads((tmp_path / "point.json").read_text(encoding="utf-8"))
    strict("operating-point").validate(told)
    assert OperatingPoint.load(tmp_path / "point.json") == point
    asked = {"guarantee": "certificate", "calibrate": "calibration", "stream": "off_by"}
    assert all(told[field] for option, field in asked.items() if option in NEEDS[kind])


def test_a_certificate_for_other_shares_is_what_the_schema_says(run: Run, table: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulInputWarning)
        point = tune(run, table, grid=2, **NEEDS["certified"])
    assert point.certificate is not None
    certificate = Certificate.from_dict(point.certificate)
    moved = dataclasses.replace(certificate, shares=Shares(0.01, 0.03, 0.05), doubts=("rows were stopped on",))
    point = dataclasses.replace(point, certificate=moved.to_dict(), simpler_than={"gamma": 0.1, "tau": 3.0})
    strict("operating-point").validate(json.loads(point.to_json()))
    for name in ("constraints", "passed", "confidence"):
        raw = json.loads(point.to_json())
        del raw["certificate"][name]
        assert not strict("operating-point").is_valid(raw)


def test_points_among_classes_that_are_chosen_are_what_the_schema_says() -> None:
    X, y = load_wine(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    X, y = X[order], y[order]
    model = LCTClassifier(trunk="mlp", epochs=3, random_state=0).fit(X[:90], y[:90])
    needs: list[dict[str, Any]] = [
        {"maximize": "macro_f1", "subject_to": "alert_rate[1]>=0", "prior": {0: 0.2, 1: 0.2, 2: 0.6}},
        {"cost": [[0, 1, 9], [1, 0, 1], [5, 1, 0]]},
        {"minimize": "brier"},
    ]
    for need in needs:
        point = model.tune(X[90:], y[90:], grid=2, **need)
        assert isinstance(point, ClassPoint)
        strict("class-point").validate(json.loads(point.to_json()))
