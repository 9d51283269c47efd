"""Operating points: what choosing gives, what predictions are made with, and their form on disk."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from tunelater.calibration import CalibrationMap, map_of
from tunelater.intervals import Estimate
from tunelater.losses import logit
from tunelater.metrics import Floats
from tunelater.needs import Need
from tunelater.problems import InputError, Problems

FORMAT = "tunelater.operating_point/2"
Fits = Callable[[str, Mapping[str, float]], list[str]]


@dataclass(frozen=True)
class AgainstDefault:
    """A choice of lambda against the same model at its default lambda with a moved threshold, on the samples chosen
    on, each decided by a choice that did not see it."""

    metric: str
    lam: Mapping[str, float]
    """The default lambda."""
    difference: Estimate
    """Of the metric, chosen less default, with the point's confidence: negative is better for a cost."""
    p_value: float
    """Two-sided, that there is no difference."""
    sentence: str
    """The same in plain words."""
    at_same: str | None = None
    """The metric of the constraint that binds, whose value both are brought to before they are compared."""


@dataclass(frozen=True)
class OperatingPoint:
    """A lambda and a threshold, with the needs that it was chosen for and what it achieves."""

    lam: Mapping[str, float]
    """The loss hyperparameters that the model is conditioned on."""
    threshold: float
    """Alert where the probability of being positive is at least this, in [0, 1], at `prior`: `log_odds_threshold` for
    people to read. Near 0 and 1 it is rounded, and different thresholds may share it, so nothing is decided on it."""
    log_odds_threshold: float
    """The threshold as log-odds at `prior`. Every decision is taken on it."""
    prior: float
    """The share of positives where the point is used, which probabilities are for; of a range of priors that was asked
    for, the geometric middle."""
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    """What it achieves on the samples it was chosen on, with 95% intervals (or the confidence asked for), at the prior
    stated, or of a range of priors at the one that is worst for each. It flatters: see `honest`."""
    needs: Mapping[str, Any] = field(default_factory=dict)
    """What was asked for, in words: `Need.in_words`."""
    split: str = "validation"
    """Which samples it was chosen on."""
    n: int = 0
    n_positive: int = 0
    model: str = ""
    """Identity of the model that it belongs to."""
    extrapolated: bool = False
    """Whether its lambda lies outside of the range that the model was trained on."""
    honest: Mapping[str, Estimate] = field(default_factory=dict)
    """What to expect of it on other samples: corrected for having been chosen on these (`tunelater.honesty`), but not
    for a training that stopped on them. Empty where there are too few samples to tell."""
    against_default: AgainstDefault | None = None
    """Whether choosing lambda helped; None where there was one lambda, or too few samples."""
    simpler_than: Mapping[str, float] | None = None
    """The lambda that was best on these samples, where a simpler one within one standard error of it was taken."""
    off_by: Mapping[str, float] = field(default_factory=dict)
    """Where samples were counted in bins (`tunelater.streaming`): by how much metrics of the whole lambda may be off at
    the most. Empty where they are exact, as metrics of the threshold always are."""
    certificate: Mapping[str, Any] | None = None
    """Where constraints were certified: what `tunelater.guarantee.Certificate.from_dict` reads. `metrics` are then
    those of the samples that certified, on which nothing was chosen, and `honest` is empty."""
    calibration: CalibrationMap | None = None
    """What makes the link's log-odds at `prior` into calibrated ones, if that was asked for. It never falls, so that it
    changes no ranking and no decision: these stay on the link's log-odds, and so does the threshold. Probabilities,
    Brier score and log-loss are the calibrated ones."""

    def log_odds(self, log_odds: NDArray[np.floating], prior: float) -> Floats:
        """(N,) the link's log-odds at the point's prior, float64, from those at `lam` for a share `prior` of
        positives."""
        return log_odds.astype(np.float64) + (logit(self.prior) - logit(prior))

    def calibrated_log_odds(self, log_odds: NDArray[np.floating], prior: float) -> Floats:
        """(N,) as `log_odds`, and calibrated; the same where the point has no calibration."""
        moved = self.log_odds(log_odds, prior)
        return moved if self.calibration is None else self.calibration(moved)

    def probability(self, log_odds: NDArray[np.floating], prior: float) -> Floats:
        """(N,) probabilities of being positive at the point's prior, calibrated if the point is, from log-odds at `lam`
        for a share `prior` of positives."""
        return expit(self.calibrated_log_odds(log_odds, prior))

    def decide(self, log_odds: NDArray[np.floating], prior: float) -> NDArray[np.bool_]:
        """Which samples to alert on, from their log-odds at `lam` for a share `prior` of positives."""
        return self.log_odds(log_odds, prior) >= self.log_odds_threshold

    def to_json(self) -> str:
        """The point as JSON, readable by `from_json` and, as schemas/operating-point.schema.json describes it, by
        other programs."""
        raw = {"format": FORMAT, **dataclasses.asdict(self)}
        raw["calibration"] = None if self.calibration is None else self.calibration.to_dict()
        return json.dumps(raw, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, fits: Fits | None = None) -> OperatingPoint:
        """The point of a JSON text.

        Args:
            fits: what keeps the point of a model's identity and a lambda from being used, to be told with the rest.

        Raises:
            InputError: text that is not JSON, or not an operating point.
        """
        try:
            raw = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"an operating point is JSON, which this is not: {error}") from None
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            got = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
            if _is_later(got):
                raise InputError(
                    f"the operating point has the format {got!r}, of a later version of tunelater; this version reads "
                    f"{FORMAT!r}: update tunelater"
                )
            raise InputError(f"an operating point has format {FORMAT!r}, got {got!r}; make one with `tunelater tune`")
        problems = _problems_of_point(raw, fits)
        if problems:
            raise InputError(problems)
        known = {f.name for f in dataclasses.fields(cls)}
        values = {name: value for name, value in raw.items() if name in known}
        for name in ("metrics", "honest"):
            values[name] = {metric: Estimate(*value) for metric, value in raw.get(name, {}).items()}
        if against := raw.get("against_default"):
            told = {f.name: against.get(f.name) for f in dataclasses.fields(AgainstDefault)}
            values["against_default"] = AgainstDefault(**told | {"difference": Estimate(*told["difference"])})
        if (calibration := raw.get("calibration")) is not None:
            values["calibration"] = map_of(calibration)
        return cls(**values)

    def save(self, path: str | Path) -> None:
        """Write the point as JSON."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path, fits: Fits | None = None) -> OperatingPoint:
        """Read a point that `save` or `tunelater tune --out` wrote; see `from_json`."""
        if not isinstance(path, str | Path):
            raise InputError(f"an operating point is an OperatingPoint or its file, got {type(path).__name__}")
        path = Path(path)
        if not path.is_file():
            raise InputError(f"there is no operating point {path}; make one with `tunelater tune`")
        try:
            return cls.from_json(path.read_text(encoding="utf-8"), fits)
        except InputError as error:
            raise InputError(f"{path}: {problem}" for problem in error.problems) from None
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: an operating point is JSON, which this is not: {error}") from None


def _is_later(found: object) -> bool:
    kind, _, number = FORMAT.partition("/")
    later = re.fullmatch(rf"{re.escape(kind)}/(\d+)", str(found))
    return later is not None and int(later[1]) > int(number)


def _problems_of_point(raw: Mapping[str, Any], fits: Fits | None) -> list[str]:
    """What keeps a parsed JSON object from being an operating point."""

    def number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

    def estimate(value: Any) -> bool:
        return isinstance(value, list) and len(value) == 3 and all(map(number, value))

    def estimates(value: Any) -> bool:
        return isinstance(value, dict) and all(map(estimate, value.values()))

    def lam(value: Any) -> bool:
        return isinstance(value, dict) and all(map(number, value.values()))

    def against(value: Any) -> bool:
        return value is None or (
            isinstance(value, dict)
            and isinstance(value.get("metric"), str)
            and isinstance(value.get("sentence"), str)
            and lam(value.get("lam"))
            and estimate(value.get("difference"))
            and number(value.get("p_value"))
        )

    rules: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "lam": ("an object of finite numbers", lam),
        "threshold": ("a number in [0, 1]", lambda v: number(v) and 0 <= v <= 1),
        "log_odds_threshold": ("a finite number", number),
        "prior": ("a number in (0, 1)", lambda v: number(v) and 0 < v < 1),
        "model": ("a model's identity", lambda v: isinstance(v, str)),
        "needs": ("what `select` was asked for", _are_needs),
        "metrics": ("an object of [value, low, high]", estimates),
        "honest": ("an object of [value, low, high]", estimates),
        "against_default": ("a comparison with the default lambda, or null", against),
        "simpler_than": ("an object of finite numbers, or null", lambda v: v is None or lam(v)),
        "certificate": ("what `Certificate.to_dict` gives, or null", lambda v: v is None or isinstance(v, dict)),
    }
    optional = ("needs", "metrics", "honest", "against_default", "simpler_than", "certificate")
    problems = Problems()
    for name, (rule, holds) in rules.items():
        if name in raw:
            problems.check(holds(raw[name]), f"{name!r} of an operating point is {rule}, got {raw[name]!r}")
        else:
            problems.check(name in optional, f"the operating point lacks {name!r}")
    if raw.get("calibration") is not None:
        try:
            map_of(raw["calibration"])
        except InputError as error:
            problems.add(*(f"'calibration' of an operating point: {problem}" for problem in error.problems))
    if fits is not None and all(name in raw and rules[name][1](raw[name]) for name in ("model", "lam")):
        problems.add(*fits(raw["model"], raw["lam"]))
    if not problems and abs(sigmoid(raw["log_odds_threshold"]) - raw["threshold"]) > 1e-6:
        problems.add(
            f"threshold {raw['threshold']} and log_odds_threshold {raw['log_odds_threshold']} of a point must"
            " be one threshold; decisions are taken on the second"
        )
    return list(problems)


def _are_needs(needs: Any) -> bool:
    if not isinstance(needs, dict) or not isinstance(needs.get("subject_to", []), list):
        return False
    try:
        Need.read(needs)
    except (InputError, TypeError, AttributeError):
        return False
    return not isinstance(needs.get("prior", 0.5), int)


def sigmoid(log_odds: float) -> float:
    """The probability of log-odds, to people's eyes: rounded near 0 and 1."""
    return 1 / (1 + math.exp(-max(log_odds, -700.0)))
