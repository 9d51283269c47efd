"""Calibration: whether probabilities are what they say, and maps that make them so.

The link of a loss gives posterior log-odds in closed form, if the model has learned what its loss asks for. What it got
wrong all the same, held-out samples can mend: a map from log-odds to log-odds for each lambda, `Platt`, `Beta` or
`Isotonic`. Every map is non-decreasing, so none turns a ranking around.

A map is fitted at the samples' own share of positives, and takes and gives log-odds for that share. A deployment prior
comes afterwards, as everywhere: `Scores.at_prior` shifts the calibrated log-odds.

`reliability` and `brier_decomposition` say how well calibrated probabilities are. Measure on other samples than those
that a map was fitted to (`calibrated` does so by cross-fitting): on its own ones it looks perfect.

Weights say how much a sample counts, not how often it was seen: multiplying all by a number changes nothing. The number
of samples of a class is Kish's effective one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import io
import itertools
import json
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats
from scipy.special import expit, gammaln, xlog1py, xlogy

from tunelater import look
from tunelater.distributions import keyed_rng
from tunelater.intervals import PSEUDO, effective_size, problems_of_confidence
from tunelater.losses import logit
from tunelater.metrics import Floats, Labels, check_scores, per_lambda, prior_weight, proper_scores
from tunelater.problems import DoubtfulInputWarning, InputError, Problems, did_you_mean
from tunelater.scoring import Scores

FORMAT = "tunelater.calibration/1"

# ------------------------------------------------------------------------------------------- maps


class CalibrationMap(ABC):
    """A non-decreasing map from log-odds to calibrated log-odds, both for one share of positives."""

    kind: ClassVar[str]
    fewest: ClassVar[int]
    """Samples of the rarer class below which fitting it is doubtful: probabilities that are right already lose over 1%
    of the base rate's Brier score by it (`benchmarks/links.py --fewest`)."""

    @abstractmethod
    def __call__(self, log_odds: ArrayLike) -> Floats:
        """Calibrated log-odds, float64, from log-odds of any shape."""

    @classmethod
    @abstractmethod
    def _fitted(cls, log_odds: Floats, target: NDArray, weight: Floats) -> CalibrationMap:
        """From (N,) sound samples of both classes with weights above 0."""

    def to_dict(self) -> dict[str, Any]:
        """Its kind and parameters, as JSON holds them exactly; `map_of` is the inverse."""
        return {"kind": self.kind, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}}  # type: ignore[arg-type]


@dataclass(frozen=True)
class Platt(CalibrationMap):
    """A straight line: intercept + slope * s (Platt 1999).

    Fitted by maximum likelihood with Platt's smoothed targets, (n_+ + 1) / (n_+ + 2) and 1 / (n_- + 2), so that it is
    finite where scores separate the classes; the slope is 0 where the best one is negative. It mends logits that are
    too sure, not sure enough, or shifted.

    Raises:
        InputError: numbers that are not finite, or a negative slope.
    """

    intercept: float
    slope: float

    kind: ClassVar[str] = "platt"
    fewest: ClassVar[int] = 20

    def __post_init__(self) -> None:
        _check_linear(self, floored=("slope",))

    def __call__(self, log_odds: ArrayLike) -> Floats:
        return self.intercept + self.slope * np.asarray(log_odds, np.float64)

    @classmethod
    def _fitted(cls, log_odds: Floats, target: NDArray, weight: Floats) -> Platt:
        return cls(*_rising_logistic(log_odds[None], _smoothed(target, weight), weight))


@dataclass(frozen=True)
class Beta(CalibrationMap):
    """Beta calibration: c + a log p - b log(1 - p), a and b 0 or more (Kull, Silva Filho & Flach 2017).

    With a = b it is Platt's line; otherwise the line is bent, with slope a where p is small and b where it is large. It
    is the exact map where the probabilities of each class have a Beta distribution. Fitted by maximum likelihood under
    its constraints, with Platt's smoothed targets for the same reason.

    Raises:
        InputError: numbers that are not finite, or a negative a or b.
    """

    c: float
    a: float
    b: float

    kind: ClassVar[str] = "beta"
    fewest: ClassVar[int] = 30

    def __post_init__(self) -> None:
        _check_linear(self, floored=("a", "b"))

    def __call__(self, log_odds: ArrayLike) -> Floats:
        log_p, minus_log_q = _beta_features(np.asarray(log_odds, np.float64))
        return self.c + self.a * log_p + self.b * minus_log_q

    @classmethod
    def _fitted(cls, log_odds: Floats, target: NDArray, weight: Floats) -> Beta:
        return cls(*_rising_logistic(_beta_features(log_odds), _smoothed(target, weight), weight))


@dataclass(frozen=True)
class Isotonic(CalibrationMap):
    """A rising curve through knots, straight between them and level beyond: isotonic regression.

    Within a block of the pooled-adjacent-violators algorithm (Zadrozny & Elkan 2002) the log-odds are those of the
    block's share of positives. Between two blocks they are interpolated as log-odds, because then it is the same curve
    at every prior. Samples of one block tie.

    The lowest block mostly has no positive and the highest no negative: shares of 0 and 1, which no number of samples
    proves, with infinite log-odds. So half an observation is added to each class, as for the library's intervals: a
    positive at the lowest score and a negative at the highest. The curve stays the solution of an isotonic regression,
    and its ends say how many samples are behind them.

    Raises:
        InputError: no knots, knots that do not rise, values that fall, or numbers that are not finite.
    """

    at: tuple[float, ...]
    """Log-odds of the knots, rising."""
    values: tuple[float, ...]
    """Calibrated log-odds there, never falling."""

    kind: ClassVar[str] = "isotonic"
    fewest: ClassVar[int] = 200

    def __post_init__(self) -> None:
        problems = Problems()
        for name in ("at", "values"):
            numbers = getattr(self, name)
            sound = isinstance(numbers, Sequence) and len(numbers) > 0 and all(map(_is_finite, numbers))
            problems.check(sound, f"{name!r} of an isotonic map is one or more finite numbers, got {numbers!r:.60}")
            if sound:
                object.__setattr__(self, name, tuple(map(float, numbers)))
        if not problems:
            sizes = len(self.at), len(self.values)
            problems.check(sizes[0] == sizes[1], f"an isotonic map has as many knots as values, got {sizes}")
            problems.check(bool((np.diff(self.at) > 0).all()), "the knots of an isotonic map must rise: sort them")
            falls = int((np.diff(self.values) < 0).sum())
            problems.check(not falls, f"the values of an isotonic map must not fall, got {falls} that do")
        problems.raise_if_any()

    def __call__(self, log_odds: ArrayLike) -> Floats:
        return np.interp(np.asarray(log_odds, np.float64), self.at, self.values)

    @classmethod
    def _fitted(cls, log_odds: Floats, target: NDArray, weight: Floats) -> Isotonic:
        at, positive, negative = _masses(log_odds, target, weight)
        positive[0] += _half_an_observation(weight[target == 1])
        negative[-1] += _half_an_observation(weight[target == 0])
        starts = _blocks(positive, negative)
        shares = np.log(np.add.reduceat(positive, starts)) - np.log(np.add.reduceat(negative, starts))
        ends = np.append(starts[1:], len(at)) - 1
        knots, first = np.unique(np.stack([starts, ends], axis=1), return_index=True)
        values = np.maximum.accumulate(np.repeat(shares, 2)[first])  # blocks may fall by rounding
        return cls(tuple(at[knots].tolist()), tuple(values.tolist()))


KINDS: Mapping[str, type[CalibrationMap]] = {cls.kind: cls for cls in (Platt, Isotonic, Beta)}


def fit_calibration(
    kind: str, log_odds: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None
) -> CalibrationMap:
    """The calibration map of one lambda, fitted to labelled samples that the model was not trained on.

    Args:
        kind: `platt`, `isotonic` or `beta`.
        log_odds: (N,) finite posterior log-odds for the samples' own share of positives. (For another share the map
            is as good a fit, `beta` apart, but takes log-odds for the other share.)
        target: (N,) 0 or 1, both present.
        weight: (N,) finite weights of 0 or more, some of each class above 0.

    Returns:
        A map that gives log-odds for the samples' (weighted) share of positives.

    Raises:
        InputError: an unknown kind, and all that is wrong with the samples.

    Warns:
        DoubtfulInputWarning: few samples of a class for the kind, or scores that rank the classes the wrong way, which
            makes the map constant.
    """
    problems = problems_of_kind(kind)
    log_odds, target, weight = _samples(log_odds, target, weight, problems)
    fitted = KINDS[kind]._fitted(*_counted(log_odds, target, weight))
    _warn_if_doubtful([fitted], target, weight)
    return fitted


def fit_at_prior(
    kind: str, log_odds: Floats, target: NDArray, weight: NDArray[np.floating] | None, prior: float
) -> CalibrationMap:
    """As `fit_calibration`, where a share `prior` of the cases is positive: the map takes and gives log-odds for it.

    The samples of each class are weighed to that share. Nothing is checked and nothing warned of, so that it may be
    fitted as often as there are folds or resamples (`warn_if_few` is the warning).

    Args:
        log_odds: (N,) for that share.
        weight: (N,), some of each class above 0; None counts all alike.
    """
    counted = _counted(np.asarray(log_odds, np.float64), target, prior_weight(target, weight, prior))
    return KINDS[kind]._fitted(*counted)


def warn_if_few(fitted: CalibrationMap, target: NDArray, weight: NDArray[np.floating] | None) -> None:
    """The warning of `fit_calibration`, for a map of `fit_at_prior`."""
    _warn_if_doubtful([fitted], target, np.ones(len(target)) if weight is None else np.asarray(weight, np.float64))


def map_of(raw: object) -> CalibrationMap:
    """The calibration map of what `CalibrationMap.to_dict` gave.

    Raises:
        InputError: an unknown kind, parameters that are absent, unknown or out of range.
    """
    if not isinstance(raw, Mapping) or "kind" not in raw:
        raise InputError(f"a calibration map is an object with its kind and parameters, got {raw!r:.80}")
    if problems := problems_of_kind(raw["kind"]):
        raise InputError(problems)
    values = {name: value for name, value in raw.items() if name != "kind"}
    if problems := _problems_of_names(raw["kind"], values, f"a {raw['kind']} map"):
        raise InputError(problems)
    return KINDS[raw["kind"]](**values)


def _problems_of_names(kind: str, values: Mapping[str, Any], what: str) -> list[str]:
    names = {field.name for field in dataclasses.fields(KINDS[kind])}  # type: ignore[arg-type]
    if values.keys() == names:
        return []
    return [f"{what} has {', '.join(sorted(names))}; got {', '.join(map(str, values))}"]


def problems_of_kind(kind: object) -> list[str]:
    """What keeps a calibration from being of a kind."""
    if isinstance(kind, str) and kind in KINDS:
        return []
    return [f"there is no calibration {kind!r}{did_you_mean(str(kind), KINDS)}"]


def _samples(
    log_odds: ArrayLike, target: ArrayLike, weight: ArrayLike | None, found: Iterable[str] = ()
) -> tuple[Floats, NDArray, Floats]:
    """(N,) log-odds, targets and weights; raises for all that is wrong with them and what was found before."""
    problems = Problems()
    problems.add(*found)
    log_odds, target = np.asarray(log_odds, np.float64), np.asarray(target)
    weights = None if weight is None else np.asarray(weight, np.float64)
    if log_odds.ndim != 1:
        problems.add(f"log-odds of one lambda need shape (N,), got {log_odds.shape}")
    else:
        try:
            check_scores(log_odds[None], target, weights)
        except InputError as error:
            problems.add(*error.problems)
    problems.raise_if_any()
    return log_odds, target, np.ones(len(target)) if weights is None else weights


def _counted(log_odds: Floats, target: NDArray, weight: Floats) -> tuple[Floats, NDArray, Floats]:
    """The samples whose weight is above 0."""
    if weight.all():
        return log_odds, target, weight
    some = weight > 0
    return log_odds[some], target[some], weight[some]


def _warn_if_doubtful(maps: Sequence[CalibrationMap], target: NDArray, weight: Floats) -> None:
    """One warning for all maps that were fitted to the same samples."""
    kind = type(maps[0])
    told = []
    n, c = min((effective_size(weight[target == c]), c) for c in (0, 1))
    if n < kind.fewest:
        other = " or calibrate by 'platt'" if kind is not Platt else ""
        told.append(
            f"{kind.kind!r} calibration wants {kind.fewest} or more samples of each class, got {n:.0f} of class {c}: "
            f"with fewer it may add more noise than it mends; trust the link{other}"
        )
    level = sum(float(np.ptp(m([-1e3, 1e3]))) == 0 for m in maps)
    if level:
        where = f" at {level} of {len(maps)} lambdas" if len(maps) > 1 else ""
        told.append(
            f"the scores rank positives no higher than negatives{where}, so that calibration makes them constant: "
            "check which class is positive"
        )
    if told:
        warnings.warn("; ".join(told), DoubtfulInputWarning, stacklevel=3)


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _check_linear(made: Any, floored: Sequence[str]) -> None:
    problems = Problems()
    for field in dataclasses.fields(made):
        value = getattr(made, field.name)
        told = f"{field.name!r} of a {made.kind} map is a finite number"
        if field.name in floored:
            problems.check(_is_finite(value) and value >= 0, f"{told} of 0 or more, or it would fall; got {value!r}")
        else:
            problems.check(_is_finite(value), f"{told}, got {value!r}")
    problems.raise_if_any()


# ------------------------------------------------------------------------------------------- fitting


def _beta_features(log_odds: Floats) -> Floats:
    """log p and -log(1 - p), stacked in front; both rise with the log-odds."""
    return np.stack([-np.logaddexp(0, -log_odds), np.logaddexp(0, log_odds)])


def _smoothed(target: NDArray, weight: Floats) -> Floats:
    """Platt's targets: the mean of a uniform prior's posterior, had all samples of a class one label."""
    positives, negatives = (effective_size(weight[target == c]) for c in (1, 0))
    return np.where(target == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))


def _rising_logistic(features: Floats, target: Floats, weight: Floats) -> list[float]:
    """Intercept and coefficients, none negative, of logistic regression on (K, N) features.

    The likelihood is concave, so its best point under the constraints is the best one of some set of features with the
    others left out.
    """
    k = len(features)
    fits = []
    for some in (list(c) for size in range(k, -1, -1) for c in itertools.combinations(range(k), size)):
        loss, intercept, coefficients = _logistic(features[some], target, weight)
        if (coefficients >= 0).all():
            full = np.zeros(k)
            full[some] = coefficients
            fits.append((loss, [intercept, *full.tolist()]))
            if len(some) == k:
                break
    return min(fits)[1]


def _logistic(features: Floats, target: Floats, weight: Floats) -> tuple[float, float, Floats]:
    """Mean log-loss, intercept and coefficients of logistic regression without a penalty, by Newton's method.

    Args:
        features: (K, N); those that do not vary get coefficient 0.
        target: (N,) in (0, 1), which keeps the solution finite.
        weight: (N,) above 0.
    """
    w = weight / weight.sum()
    varies = np.ptp(features, axis=1) > 0
    mean, spread = features @ w, np.ones(len(features))
    centred = features - mean[:, None]
    spread[varies] = np.sqrt(centred[varies] ** 2 @ w)
    x = np.concatenate([np.ones((1, len(w))), centred[varies] / spread[varies, None]])
    theta = np.zeros(len(x))
    theta[0] = logit(float(w @ target))
    loss = _log_loss(theta @ x, target, w)
    for _ in range(100):
        p = expit(theta @ x)
        gradient = x @ (w * (p - target))
        step = np.linalg.lstsq(x * (w * p * (1 - p)) @ x.T, gradient, rcond=None)[0]
        before = loss
        theta, loss = _descended(theta, step, x, target, w, loss)
        if np.abs(gradient).max() < 1e-9 or loss == before:  # Newton's last step squares what the gradient left
            break
    coefficients = np.zeros(len(features))
    coefficients[varies] = theta[1:] / spread[varies]
    return loss, float(theta[0] - coefficients @ mean), coefficients


def _descended(theta: Floats, step: Floats, x: Floats, target: Floats, w: Floats, loss: float) -> tuple[Floats, float]:
    """One Newton step, halved until it does not climb."""
    for _ in range(40):
        further = theta - step
        new = _log_loss(further @ x, target, w)
        if new <= loss:
            return further, new
        step = step / 2
    return theta, loss


def _log_loss(log_odds: Floats, target: Floats, w: Floats) -> float:
    return float(w @ (np.logaddexp(0, log_odds) - target * log_odds))


def _half_an_observation(weight: Floats) -> float:
    """What half an observation of a class weighs."""
    return PSEUDO * float(weight.sum()) / effective_size(weight)


def _masses(log_odds: Floats, target: NDArray, weight: Floats) -> tuple[Floats, Floats, Floats]:
    """(U,) distinct log-odds, rising, with the weight of the positives and of the negatives at each."""
    at, place = np.unique(log_odds, return_inverse=True)
    positive, negative = (_sums(place, weight * (target == c)) for c in (1, 0))
    return at, positive, negative


def _sums(place: NDArray[np.intp], values: Floats) -> Floats:
    """Sums of (N,) values by place."""
    return np.bincount(place, values).astype(np.float64)


def _blocks(positive: Floats, negative: Floats) -> NDArray[np.intp]:
    """Where the blocks of the isotonic regression of (U,) shares of positives begin."""
    total = positive + negative
    return optimize.isotonic_regression(positive / total, weights=total).blocks[:-1]


# ------------------------------------------------------------------------------------------- all lambdas


@dataclass(frozen=True)
class Calibration:
    """A calibration map for each of L lambdas, fitted to the same samples.

    >>> scores = Scores(np.float32([[-3, -2, -1, 0, 1, 2]]), np.int8([0, 0, 1, 0, 1, 1]), {"tau": np.array([1.0])}, 0.1)
    >>> calibration = Calibration(
    ...     "platt", (Platt(0.5, 2.0),), ({"tau": 1.0},), prior=0.5, model="", split="validation", n=6, n_positive=3
    ... )
    >>> calibration.apply(scores).at_prior(0.01).prior
    0.01

    Raises:
        InputError: all that cannot be: an unknown kind, maps of another kind, numbers of lambdas and maps that differ,
            a prior outside (0, 1).
    """

    kind: str
    maps: tuple[CalibrationMap, ...]
    lambdas: tuple[Mapping[str, float], ...]
    """The lambda of each map."""
    prior: float
    """The share of positives that maps take and give log-odds for: the share among the samples fitted to."""
    model: str
    """Identity of the model whose scores it is for."""
    split: str
    """Which samples it was fitted to, how many, and how many of them positive."""
    n: int
    n_positive: int

    def __post_init__(self) -> None:
        problems = Problems()
        problems.add(*problems_of_kind(self.kind))
        problems.check(len(self.maps) > 0, "a calibration has one or more maps, got none")
        sizes = f"{len(self.maps)} maps for {len(self.lambdas)} lambdas"
        problems.check(len(self.maps) == len(self.lambdas), f"a calibration has one map for each lambda, got {sizes}")
        others = sorted({m.kind for m in self.maps} - {self.kind})
        problems.check(not others, f"all maps of a calibration are of its kind {self.kind!r}, got {', '.join(others)}")
        sound = _is_finite(self.prior) and 0 < self.prior < 1
        problems.check(sound, f"the prior of a calibration lies in (0, 1), got {self.prior!r}")
        names = {tuple(sorted(lam)) for lam in self.lambdas}
        problems.check(len(names) <= 1, "all lambdas of a calibration have the same hyperparameters; these differ")
        problems.raise_if_any()

    @classmethod
    def fit(cls, kind: str, scores: Scores) -> Calibration:
        """Fit a map for each lambda to labelled samples that the model was not trained on.

        Raises:
            InputError: an unknown kind, one class only.

        Warns:
            DoubtfulInputWarning: as `fit_calibration`, once for all lambdas.
        """
        problems = Problems()
        problems.add(*problems_of_kind(kind), *_problems_of_classes(scores))
        problems.raise_if_any()
        maps, prior = _fitted(kind, scores, np.arange(len(scores.target)))
        _warn_if_doubtful(maps, scores.target, _weights(scores))
        return cls(
            kind,
            maps,
            tuple(scores.lam(i) for i in range(len(scores))),
            prior,
            scores.model,
            scores.split,
            len(scores.target),
            int((scores.target == 1).sum()),
        )

    @property
    def id(self) -> str:
        """Short identity: equal for equal maps of the same lambdas."""
        return f"{self.kind}-{hashlib.sha256(self.to_json().encode()).hexdigest()[:8]}"

    def apply(self, scores: Scores) -> Scores:
        """Calibrated scores of the same samples, for this calibration's `prior`; `at_prior` moves them on.

        They name a model of their own (`model+id`), so that an operating point chosen on calibrated scores is not
        applied to others.

        Args:
            scores: of this model, at some of this calibration's lambdas, for any prior.

        Raises:
            InputError: scores of another model, or at lambdas without a map.
        """
        problems = Problems()
        same = not self.model or not scores.model or self.model == scores.model
        problems.check(same, f"the calibration belongs to model {self.model}, the scores to model {scores.model}")
        places = self._places(scores)
        unknown = [scores.lam(int(i)) for i in np.flatnonzero(places < 0)]
        problems.check(
            not unknown,
            f"the calibration has no map for {len(unknown)} of {len(places)} lambdas, such as {unknown[:1]}: fit one "
            "to scores at these lambdas",
        )
        problems.raise_if_any()
        shift = logit(self.prior) - logit(scores.prior)
        log_odds = np.empty(scores.log_odds.shape, np.float32)

        def fill(i: int) -> None:
            log_odds[i] = self.maps[places[i]](scores.log_odds[i].astype(np.float64) + shift)

        per_lambda(fill, len(scores))
        return replace(scores, log_odds=log_odds, prior=self.prior, model=f"{scores.model}+{self.id}")

    def _places(self, scores: Scores) -> NDArray[np.intp]:
        """(L,) which map each lambda of scores has; -1 for none."""
        names = sorted(self.lambdas[0])
        if sorted(scores.lambdas) != names:
            return np.full(len(scores), -1)
        mine = np.array([[lam[name] for name in names] for lam in self.lambdas]).reshape(len(self.maps), len(names))
        theirs = np.array([scores.lambdas[name] for name in names]).T.reshape(len(scores), len(names))
        equal = np.isclose(theirs[:, None], mine[None], rtol=1e-9, atol=1e-12).all(axis=2)
        return np.where(equal.any(axis=1), equal.argmax(axis=1), -1)

    def to_json(self) -> str:
        """The calibration as JSON, readable by `from_json` and by other programs."""
        raw = dataclasses.asdict(self) | {"lambdas": [dict(lam) for lam in self.lambdas]}
        return json.dumps({"format": FORMAT, **raw}, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """The calibration of a JSON text.

        Raises:
            InputError: text that is not JSON or not a calibration; all that is wrong with it.
        """
        try:
            raw = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"a calibration is JSON, which this is not: {error}") from None
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            got = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
            raise InputError(f"a calibration has format {FORMAT!r}, got {got!r}; it may be of a later version")
        problems = Problems()
        problems.add(*_problems_of_raw(raw))
        maps = _maps_of(raw.get("kind"), raw.get("maps"), problems)
        problems.raise_if_any()
        values = {field.name: raw[field.name] for field in dataclasses.fields(cls)}
        return cls(**values | {"maps": tuple(maps), "lambdas": tuple(raw["lambdas"])})

    def save(self, path: str | Path) -> None:
        """Write the calibration as JSON."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a calibration that `save` wrote.

        Raises:
            InputError: no such file, or as `from_json`.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"there is no calibration {path}")
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except InputError as error:
            raise InputError(f"{path}: {problem}" for problem in error.problems) from None
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: a calibration is JSON, which this is not: {error}") from None


def _problems_of_raw(raw: Mapping[str, Any]) -> list[str]:
    """What keeps a parsed JSON object from being a calibration, its maps apart."""

    def lam(value: Any) -> bool:
        return isinstance(value, dict) and all(map(_is_finite, value.values()))

    def count(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0

    rules = {
        "lambdas": ("a list of objects of finite numbers", lambda v: isinstance(v, list) and all(map(lam, v))),
        "prior": ("a number in (0, 1)", lambda v: _is_finite(v) and 0 < v < 1),
        "model": ("a model's identity", lambda v: isinstance(v, str)),
        "split": ("the name of a split", lambda v: isinstance(v, str)),
        "n": ("a number of samples", count),
        "n_positive": ("a number of samples", count),
        "kind": (f"one of {', '.join(sorted(KINDS))}", lambda v: isinstance(v, str) and v in KINDS),
        "maps": ("a list of objects", lambda v: isinstance(v, list) and all(isinstance(m, dict) for m in v)),
    }
    problems = Problems()
    for name, (rule, holds) in rules.items():
        if name not in raw:
            problems.add(f"the calibration lacks {name!r}")
        else:
            problems.check(holds(raw[name]), f"{name!r} of a calibration is {rule}, got {raw[name]!r:.80}")
    return list(problems)


def _maps_of(kind: Any, raw: Any, problems: Problems) -> list[CalibrationMap]:
    """The maps of a parsed JSON list; what is wrong with each is added to the problems."""
    if not (
        isinstance(kind, str) and kind in KINDS and isinstance(raw, list) and all(isinstance(m, dict) for m in raw)
    ):
        return []
    maps = []
    for i, values in enumerate(raw):
        if wrong := _problems_of_names(kind, values, f"map {i} of a {kind} calibration"):
            problems.add(*wrong)
            continue
        try:
            maps.append(KINDS[kind](**values))
        except InputError as error:
            problems.add(*(f"map {i}: {problem}" for problem in error.problems))
    return maps


def calibrated(scores: Scores, kind: str, *, folds: int = 5, seed: int = 0) -> Scores:
    """Scores calibrated by cross-fitting: each sample by maps that were fitted to the others.

    For choosing, and for measuring what calibration gives, where no other samples are at hand. What new samples are
    then scored with is `Calibration.fit(kind, scores)`, whose identity these scores carry.

    Args:
        scores: of labelled samples that the model was not trained on.
        kind: `platt`, `isotonic` or `beta`.
        folds: into how many parts each class is divided, 2 or more.
        seed: of the division.

    Returns:
        Scores for the samples' own share of positives.

    Raises:
        InputError: an unknown kind, one class only, fewer samples of a class than folds.

    Warns:
        DoubtfulInputWarning: as `fit_calibration`, once.
    """
    problems = Problems()
    problems.add(*problems_of_kind(kind), *_problems_of_classes(scores))
    sound = isinstance(folds, Integral) and not isinstance(folds, bool) and folds >= 2
    problems.check(sound, f"cross-fitting needs 2 folds or more, got {folds!r}")
    weight = _weights(scores)
    counts = [int(((scores.target == c) & (weight > 0)).sum()) for c in (0, 1)]
    if sound and min(counts) < folds:
        problems.add(f"{folds} folds need as many samples of each class with weight, got {counts[0]} and {counts[1]}")
    problems.raise_if_any()
    whole = Calibration.fit(kind, scores)
    log_odds = np.empty(scores.log_odds.shape, np.float32)
    fold = _folds(scores.target, weight, folds, seed)
    for i in range(folds):
        maps, prior = _fitted(kind, scores, np.flatnonzero(fold != i))
        held = np.flatnonzero(fold == i)
        before, after = logit(prior) - logit(scores.prior), logit(whole.prior) - logit(prior)
        for row, m in enumerate(maps):
            log_odds[row, held] = m(scores.log_odds[row, held].astype(np.float64) + before) + after
    return replace(scores, log_odds=log_odds, prior=whole.prior, model=f"{scores.model}+{whole.id}")


def _fitted(kind: str, scores: Scores, rows: NDArray[np.intp]) -> tuple[tuple[CalibrationMap, ...], float]:
    """A map for each lambda, fitted to some samples, and the share of positives among these, which it is for."""
    target, weight = scores.target[rows], _weights(scores)[rows]
    prior = float(weight[target == 1].sum() / weight.sum())
    shift = logit(prior) - logit(scores.prior)

    def fit(i: int) -> CalibrationMap:
        return KINDS[kind]._fitted(*_counted(scores.log_odds[i, rows].astype(np.float64) + shift, target, weight))

    return tuple(per_lambda(fit, len(scores))), prior


def _folds(target: NDArray, weight: Floats, folds: int, seed: int) -> NDArray[np.intp]:
    """(N,) the fold of each sample: every fold has its share of each class, of the samples without weight too."""
    rng, fold = keyed_rng(seed, "folds"), np.empty(len(target), np.intp)
    for group in (target == 1) & (weight > 0), (target == 0) & (weight > 0), weight == 0:
        rows = np.flatnonzero(group)
        fold[rng.permutation(rows)] = np.arange(len(rows)) % folds
    return fold


def _weights(scores: Scores) -> Floats:
    return np.ones(len(scores.target)) if scores.weight is None else scores.weight


def _problems_of_classes(scores: Scores) -> list[str]:
    weight = _weights(scores)
    return [
        f"calibrating needs samples of both classes, got none of class {c} (or no weight)"
        for c in (0, 1)
        if not weight[scores.target == c].sum() > 0
    ]


def probabilities(scores: Scores, prior: float | None = None, calibration: Calibration | None = None) -> Floats:
    """(L, N) probabilities of being positive, float64, at every lambda.

    Args:
        scores: posterior log-odds, as the link gives them.
        prior: the share of positives where they are used, in (0, 1); None keeps that of the (calibrated) scores.
        calibration: applied first, if given.

    Raises:
        InputError: a prior outside (0, 1), or scores that the calibration does not fit.
    """
    if calibration is not None:
        scores = calibration.apply(scores)
    shift = 0.0 if prior is None else logit(prior) - logit(scores.prior)
    return expit(scores.log_odds.astype(np.float64) + shift)


# ------------------------------------------------------------------------------------------- how well calibrated


@dataclass(frozen=True, eq=False)
class Reliability:
    """What samples of similar predicted probability turned out to be: the numbers of a reliability diagram.

    Arrays have shape (B,), one element a bin that holds weight, from low probabilities to high.
    """

    predicted: Floats
    """Mean predicted probability."""
    observed: Floats
    """Share of positives."""
    low: Floats
    """Ends of an interval of that share: equal-tailed, of its posterior under Jeffreys' prior, and open to 0 or 1 where
    one class alone was seen (Brown, Cai & DasGupta 2001)."""
    high: Floats
    n: NDArray[np.int64]
    """How many samples."""
    effective: Floats
    """How many equally weighted samples they are worth (Kish)."""
    weight: Floats
    """Share of the total weight; sums to 1."""
    variance: Floats
    """Of a sample's label if every prediction is right: the mean of p (1 - p)."""
    confidence: float
    curve: tuple[Floats, Floats]
    """(K,) predicted probabilities and, at each, the share of positives by isotonic regression: the curve of a CORP
    diagram, which needs no bins (Dimitriadis, Gneiting & Jordan 2021)."""

    @property
    def ece(self) -> float:
        """Expected calibration error: the mean over bins of |observed - predicted|."""
        return float(self.weight @ np.abs(self.observed - self.predicted))

    @property
    def ece_if_calibrated(self) -> float:
        """What `ece` would be on average if every prediction were right, by chance alone.

        It is never 0: a bin's share differs from its probability by the mean absolute deviation of a binomial share,
        in closed form (De Moivre 1730), made smaller as the standard deviation is where probabilities differ within the
        bin.
        """
        n, p = self.effective, self.predicted
        m = np.floor(n * p)
        with np.errstate(invalid="ignore", divide="ignore"):
            log_ways = gammaln(n + 1) - gammaln(m + 1) - gammaln(n - m)
            deviation = 2 / n * np.exp(log_ways + xlogy(m + 1, p) + xlog1py(n - m, -p))
            deviation *= np.sqrt(self.variance / (p * (1 - p)))
        return float(self.weight @ np.where((p > 0) & (p < 1), deviation, 0.0))

    def draw(self, axes: Any, label: str = "", *, colour: str = "black", marker: str = "o") -> None:
        """Draw the bins with their intervals, and the isotonic curve, into Matplotlib axes of linear or logit scale.

        A bin of one class has a hollow marker at the inner end of its interval: a logit scale has no place for 0 and 1.
        """
        place = np.where(self.observed <= 0, self.high, np.where(self.observed >= 1, self.low, self.observed))
        both = (self.observed > 0) & (self.observed < 1)
        low, high = np.maximum(self.low, _LEAST), np.minimum(self.high, 1 - _LEAST)
        style = {"marker": marker, "ms": 5, "color": colour, "lw": 1}
        axes.plot(*np.clip(self.curve, _LEAST, 1 - _LEAST), color=colour, lw=1, alpha=0.5, zorder=2)
        axes.vlines(self.predicted, low, high, color=colour, lw=1, zorder=3)
        axes.plot(self.predicted[both], place[both], ls="none", zorder=4, **style)
        axes.plot(self.predicted[~both], place[~both], ls="none", mfc="white", zorder=4, **style)
        axes.plot([], [], label=label, **style)


_LEAST = 1e-12
"""The nearest to 0 and 1 that is drawn, far outside of the picture."""


class CalibrationError(NamedTuple):
    """An expected calibration error, and what it would be if nothing were wrong."""

    value: float
    if_calibrated: float


class BrierDecomposition(NamedTuple):
    """brier = miscalibration - discrimination + uncertainty, exactly; all are 0 or more."""

    brier: float
    miscalibration: float
    """What the best non-decreasing recalibration of these samples would save; 0 where there is nothing to mend."""
    discrimination: float
    """What the recalibrated probabilities save against the base rate for everybody: worth of the ranking."""
    uncertainty: float
    """The Brier score of the base rate: pi (1 - pi)."""


def reliability(
    log_odds: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    bins: int = 10,
    strategy: str = "quantile",
    confidence: float = 0.95,
) -> Reliability:
    """Predicted probability against observed share of positives, in bins.

    Args:
        log_odds: (N,) finite posterior log-odds, for the samples' own share of positives. For another prior, shift them
            and give `metrics.prior_weight` as weights.
        target: (N,) 0 or 1, both present.
        weight: (N,) finite weights of 0 or more, some of each class above 0.
        bins: how many, 1 or more; fewer come back where scores tie or bins are empty.
        strategy: `quantile`, bins of equal weight (equal scores stay together); or `uniform`, bins of equal width in
            probability, nearly all of which are empty or nearly so where positives are rare.
        confidence: of the intervals, in (0, 1).

    Raises:
        InputError: all that is wrong with samples, bins, strategy and confidence.
    """
    problems = problems_of_confidence(confidence)
    if not (isinstance(bins, Integral) and not isinstance(bins, bool) and bins >= 1):
        problems.append(f"a reliability diagram needs 1 bin or more, got {bins!r}")
    if strategy not in _STRATEGIES:
        problems.append(f"there are no bins {strategy!r}{did_you_mean(str(strategy), _STRATEGIES)}")
    s, y, w = _counted(*_samples(log_odds, target, weight, problems))
    p, share = expit(s), w / w.sum()
    place = np.unique(_STRATEGIES[strategy](s, p, share, bins), return_inverse=True)[1]
    total = _sums(place, share)
    observed = _sums(place, share * (y == 1)) / total
    effective = total**2 / _sums(place, share**2)
    low, high = _jeffreys(observed, effective, confidence)
    return Reliability(
        predicted=_sums(place, share * p) / total,
        observed=observed,
        low=low,
        high=high,
        n=np.bincount(place),
        effective=effective,
        weight=total,
        variance=_sums(place, share * p * expit(-s)) / total,
        confidence=confidence,
        curve=_isotonic_curve(s, y, w),
    )


def _equal_weight(s: Floats, p: Floats, share: Floats, bins: int) -> NDArray[np.intp]:
    """(N,) the bin in which the middle of a score's own weight falls, all weights in the order of the scores."""
    _, place = np.unique(s, return_inverse=True)
    each = _sums(place, share)
    middle = np.cumsum(each) - each / 2
    return np.minimum((middle * bins).astype(np.intp), bins - 1)[place]


def _equal_width(s: Floats, p: Floats, share: Floats, bins: int) -> NDArray[np.intp]:
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], p)


_STRATEGIES = {"quantile": _equal_weight, "uniform": _equal_width}


def _jeffreys(share: Floats, n: Floats, confidence: float) -> tuple[Floats, Floats]:
    tail = (1 - confidence) / 2
    k, rest = share * n, (1 - share) * n
    low = np.where(share <= 0, 0.0, stats.beta.ppf(tail, k + 0.5, rest + 0.5))
    high = np.where(share >= 1, 1.0, stats.beta.ppf(1 - tail, k + 0.5, rest + 0.5))
    return low, high


def _isotonic_curve(s: Floats, y: NDArray, w: Floats) -> tuple[Floats, Floats]:
    at, positive, negative = _masses(s, y, w)
    starts = _blocks(positive, negative)
    positive, negative = (np.add.reduceat(mass, starts) for mass in (positive, negative))
    ends = np.append(starts[1:], len(at)) - 1
    return expit(at[np.stack([starts, ends], axis=1).ravel()]), np.repeat(positive / (positive + negative), 2)


def expected_calibration_error(
    log_odds: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    bins: int = 10,
    strategy: str = "quantile",
) -> CalibrationError:
    """Expected calibration error in bins, beside its value for perfect probabilities on as many samples.

    The error of few samples is mostly chance: with 1,000 samples of which 2% are positive, perfect probabilities have
    one of about 0.007 in ten bins. A value near `if_calibrated` shows no miscalibration. And it depends on the bins:
    `brier_decomposition` has none.

    Args:
        log_odds, target, weight, bins, strategy: as for `reliability`.

    Raises:
        InputError: as `reliability`.
    """
    of = reliability(log_odds, target, weight, bins=bins, strategy=strategy)
    return CalibrationError(of.ece, of.ece_if_calibrated)


def brier_decomposition(log_odds: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None) -> BrierDecomposition:
    """The CORP decomposition of the Brier score (Dimitriadis, Gneiting & Jordan 2021), without bins.

    The probabilities are compared with their own isotonic recalibration on the same samples. That fits chance too, so
    that of few samples miscalibration and discrimination are both too high, by the same amount; compare models on the
    same samples rather than a value with 0.

    Args:
        log_odds, target, weight: as for `reliability`.

    Raises:
        InputError: all that is wrong with the samples.
    """
    s, y, w = _counted(*_samples(log_odds, target, weight))
    brier = proper_scores(s, Labels.of(y), w)[0]
    _, positive, negative = _masses(s, y, w / w.sum())
    uncertainty = float(positive.sum() * negative.sum())
    starts = _blocks(positive, negative)
    positive, negative = (np.add.reduceat(mass, starts) for mass in (positive, negative))
    recalibrated = float((positive * negative / (positive + negative)).sum())
    return BrierDecomposition(brier, max(brier - recalibrated, 0.0), max(uncertainty - recalibrated, 0.0), uncertainty)


# ------------------------------------------------------------------------------------------- the diagram

_LOOKS = ((look.INK, "o"), (look.VERMILION, "s"), (look.BLUE, "^"), (look.FAINT, "D"), (look.SKY, "v"))
"""Colours with markers, which also tell in greyscale."""
_TICKS = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)

_DIGITS = 41
"""How many digits of a label fit side by side into a diagram."""


def draw_reliability(
    of: Reliability | Mapping[str, Reliability], path: str | Path, *, title: str = "", scale: str = "logit"
) -> None:
    """Write a reliability diagram: one series or several, up to five, by name.

    Args:
        of: what `reliability` gives.
        path: a file, overwritten, whose ending says its format: .png, .pdf or .svg.
        scale: of both axes: `logit`, which shows the small probabilities of rare events, or `linear`.

    Raises:
        InputError: Matplotlib is missing; another ending or scale, or too many series.
    """
    path = Path(path)
    series = {"": of} if isinstance(of, Reliability) else dict(of)
    problems = Problems()
    problems.add(*problems_of_diagram(path))
    scales = ("linear", "logit")
    if scale not in scales:
        problems.add(f"there is no scale {scale!r}{did_you_mean(str(scale), scales)}")
    several = 0 < len(series) <= len(_LOOKS)
    problems.check(several, f"a diagram holds 1 to {len(_LOOKS)} series, got {len(series)}: draw several diagrams")
    problems.raise_if_any()

    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6, 3.6), dpi=200, layout="constrained")
    axes = figure.subplots()
    low, high = _limits(series.values()) if scale == "logit" else (0.0, 1.0)
    along = expit(np.linspace(logit(low), logit(high), 200)) if scale == "logit" else np.array([0.0, 1.0])
    axes.plot(along, along, color=look.FAINT, ls="--", lw=1, zorder=1)
    for (name, one), (colour, marker) in zip(series.items(), _LOOKS, strict=False):
        one.draw(axes, name, colour=colour, marker=marker)
    axes.set(xscale=scale, yscale=scale, xlim=(low, high), ylim=(low, high), title=title)
    axes.set(xlabel="predicted probability", ylabel="observed share of positives")
    if scale == "logit":
        for axis, ticks in ((axes.xaxis, _side_by_side(low, high)), (axes.yaxis, _ticks(low, high))):
            axis.set_ticks(ticks, [_told_tick(p) for p in ticks])
            axis.set_ticks([], minor=True)
    axes.tick_params(labelsize=8)
    axes.set_aspect("equal")
    axes.spines[["top", "right"]].set_visible(False)
    if any(series):
        axes.legend(loc="upper left", frameon=False, fontsize=8)
    file = io.BytesIO()
    figure.savefig(file, format=path.suffix[1:])
    path.write_bytes(file.getvalue())


def _ticks(low: float, high: float) -> list[float]:
    return [p for p in _TICKS if low <= p <= high]


def _told_tick(p: float) -> str:
    return f"{p:.6f}".rstrip("0")


def _side_by_side(low: float, high: float) -> list[float]:
    """Ticks of a horizontal logit axis whose labels do not touch, the nearest to 0.5 first."""
    kept: list[float] = []
    a_digit = (logit(high) - logit(low)) / _DIGITS
    for p in sorted(_ticks(low, high), key=lambda p: abs(logit(p))):
        reach = [(len(_told_tick(p)) + len(_told_tick(other))) / 2 + 0.5 for other in kept]
        if all(abs(logit(p) - logit(q)) >= r * a_digit for q, r in zip(kept, reach, strict=True)):
            kept.append(p)
    return sorted(kept)


def problems_of_diagram(path: Path) -> list[str]:
    """What keeps a diagram from being drawn into a file of that name."""
    problems = Problems()
    if importlib.util.find_spec("matplotlib") is None:
        problems.add("a reliability diagram needs matplotlib: pip install 'tunelater[demo]'")
    formats = (".png", ".pdf", ".svg")
    problems.check(path.suffix in formats, f"a diagram's file ends in {', '.join(formats)}, got {path.name!r}")
    return list(problems)


def _limits(all_series: Iterable[Reliability]) -> tuple[float, float]:
    """What a logit scale must hold: all bins, and the ends of their intervals that are inside of (0, 1)."""
    seen = np.concatenate([np.concatenate([one.predicted, one.low, one.high]) for one in all_series])
    seen = seen[(seen > 1e-6) & (seen < 1 - 1e-6)]
    ends = np.array([seen.min(), seen.max()]) if len(seen) else np.array([0.01, 0.99])
    low, high = expit(np.log(ends) - np.log1p(-ends) + [-0.7, 0.7])
    return float(low), float(high)
