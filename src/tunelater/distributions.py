"""Distributions of loss hyperparameters, and the named product space that training draws lambda from.

A baseline is a point mass: training at one fixed lambda and training over a distribution are the same code with other
distributions in the `LambdaSpace`.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tunelater.problems import InputError, Problems, did_you_mean

LARGEST_GRID = 1_000_000
"""Lambdas of the largest grid: more than that is a slip, and would take hours and a table that no memory holds."""

Lambda = Mapping[str, float]
"""One value of lambda, by name."""
Lambdas = Mapping[str, NDArray[np.float64]]
"""L values of lambda: arrays of shape (L,), by name."""


@runtime_checkable
class Distribution(Protocol):
    """A distribution of one hyperparameter on the closed interval [a, b]."""

    @property
    def a(self) -> float: ...
    @property
    def b(self) -> float: ...
    @property
    def mean(self) -> float: ...
    def pdf(self, x: ArrayLike) -> NDArray[np.float64]: ...
    def cdf(self, x: ArrayLike) -> NDArray[np.float64]: ...
    def quantile(self, p: ArrayLike) -> NDArray[np.float64]: ...


@dataclass(frozen=True)
class Linear:
    """The distribution on [a, b] whose density is a straight line with height h_b at b (Appendix D of the paper).

    The height at a follows from unit area: h_a = 2 / (b - a) - h_b. It is uniform for h_b = 1 / (b - a), triangular for
    h_b = 0 (falling) or h_b = 2 / (b - a) (rising).

    Raises:
        InputError: unless a < b, both finite, and 0 <= h_b <= 2 / (b - a), outside of which the density is negative.
    """

    a: float
    b: float
    h_b: float

    def __post_init__(self) -> None:
        problems = Problems()
        interval = math.isfinite(self.a) and math.isfinite(self.b) and self.a < self.b
        problems.check(interval, f"Linear(a, b, h_b) needs finite a < b, got a={self.a}, b={self.b}")
        if interval:
            top = 2 / (self.b - self.a)
            within = 0 <= self.h_b <= top * (1 + 1e-12)
            problems.check(
                within,
                f"Linear({self.a:g}, {self.b:g}, h_b) needs a height h_b at {self.b:g} in [0, {top:.6g}], the range in "
                f"which the density is nowhere negative; got {self.h_b:g}",
            )
            object.__setattr__(self, "h_b", min(float(self.h_b), top))
        problems.raise_if_any()

    @property
    def h_a(self) -> float:
        """The height of the density at a."""
        return max(0.0, 2 / (self.b - self.a) - self.h_b)

    @property
    def mean(self) -> float:
        return self.a + (self.b - self.a) ** 2 * (self.h_a + 2 * self.h_b) / 6

    def pdf(self, x: ArrayLike) -> NDArray[np.float64]:
        """The density at x, zero outside [a, b]."""
        x = np.asarray(x, np.float64)
        height = self.h_a + (self.h_b - self.h_a) * (x - self.a) / (self.b - self.a)
        return np.where((x >= self.a) & (x <= self.b), height, 0.0)

    def cdf(self, x: ArrayLike) -> NDArray[np.float64]:
        """P(X <= x)."""
        x = np.asarray(x, np.float64)
        u = np.clip(x, self.a, self.b) - self.a
        area = u * (self.h_a + (self.h_b - self.h_a) * u / (2 * (self.b - self.a)))
        return np.where(x >= self.b, 1.0, np.clip(area, 0.0, 1.0))

    def quantile(self, p: ArrayLike) -> NDArray[np.float64]:
        """The inverse of `cdf` for p in [0, 1]; fed with uniform numbers it samples the distribution.

        The root of the quadratic is taken in the form without cancellation, which also covers the uniform case; under
        the square root, h_a^2 + 2 p slope = (1 - p) h_a^2 + p h_b^2, for h_a + h_b = 2 / (b - a).
        """
        p = np.asarray(p, np.float64)
        root = np.sqrt((1 - p) * self.h_a**2 + p * self.h_b**2)
        u = np.divide(2 * p, self.h_a + root, out=np.zeros_like(p), where=p > 0)
        return np.clip(self.a + u, self.a, self.b)


def Uniform(a: float, b: float) -> Linear:
    """The uniform distribution on [a, b]."""
    return Linear(a, b, 1 / (b - a) if b > a else math.nan)


def Triangular(a: float, b: float, *, rising: bool = False) -> Linear:
    """The triangular distribution on [a, b] with its peak at a, or at b where `rising`."""
    return Linear(a, b, 2 / (b - a) if rising and b > a else 0.0)


@dataclass(frozen=True)
class PointMass:
    """All mass on one finite value: a hyperparameter that is not varied."""

    value: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise InputError(f"PointMass needs a finite value, got {self.value}")

    @property
    def a(self) -> float:
        return self.value

    @property
    def b(self) -> float:
        return self.value

    @property
    def mean(self) -> float:
        return self.value

    def pdf(self, x: ArrayLike) -> NDArray[np.float64]:
        """Infinite at the value, zero elsewhere."""
        return np.where(np.asarray(x, np.float64) == self.value, np.inf, 0.0)

    def cdf(self, x: ArrayLike) -> NDArray[np.float64]:
        return np.where(np.asarray(x, np.float64) >= self.value, 1.0, 0.0)

    def quantile(self, p: ArrayLike) -> NDArray[np.float64]:
        return np.full(np.shape(p), float(self.value))


class LambdaSpace(Mapping[str, Distribution]):
    """Independent named distributions, one for each hyperparameter of a loss; a number stands for a `PointMass`.

    Names are in alphabetical order however they were given (TOML keeps no order of numbers and tables), so that equal
    spaces draw the same.

    >>> space = LambdaSpace(gamma=Linear(0, 0.3, 0), tau=1.0)
    >>> space.free
    ('gamma',)
    >>> sorted(space.draw(seed=0, step=7))
    ['gamma', 'tau']

    Raises:
        InputError: what is neither a distribution nor a number.
    """

    def __init__(self, **distributions: Distribution | float) -> None:
        problems = Problems()
        for name, d in distributions.items():
            number = isinstance(d, numbers.Real) and not isinstance(d, bool)
            problems.check(
                number or isinstance(d, Distribution), f"{name} needs a number or a distribution of it, got {d!r}"
            )
        problems.raise_if_any()
        self._distributions: dict[str, Distribution] = {
            name: d if isinstance(d, Distribution) else PointMass(float(d)) for name, d in sorted(distributions.items())
        }
        self._block: tuple[tuple[int, int], list[dict[str, float]]] = ((-1, -1), [])

    def __getitem__(self, name: str) -> Distribution:
        return self._distributions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._distributions)

    def __len__(self) -> int:
        return len(self._distributions)

    def __repr__(self) -> str:
        return f"LambdaSpace({', '.join(f'{name}={d}' for name, d in self.items())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LambdaSpace) and self._distributions == other._distributions

    def __hash__(self) -> int:
        return hash(tuple(self._distributions.items()))

    @property
    def free(self) -> tuple[str, ...]:
        """The names that vary: what FiLM is fed with."""
        return tuple(name for name, d in self.items() if not isinstance(d, PointMass))

    @property
    def mean(self) -> dict[str, float]:
        """The mean of each hyperparameter."""
        return {name: d.mean for name, d in self.items()}

    @property
    def median(self) -> dict[str, float]:
        """The median of each hyperparameter: the default lambda of a model, half of whose training was on either
        side."""
        return {name: float(d.quantile(0.5)) for name, d in self.items()}

    def draw(self, seed: int, step: int, size: int | None = None) -> dict[str, float] | dict[str, NDArray[np.float64]]:
        """The lambda of one training step: floats, or arrays of shape (size,) with one value a sample.

        It depends on (seed, step) alone, through a counter-based generator: every process of data-parallel training,
        and a run resumed in the middle, draws the same. (Single draws are made 256 at a time: a generator costs 10 us.)
        """
        if size is not None:
            return self.sample(size, keyed_rng(seed, "lambda", step))
        block, row = divmod(step, 256)
        key, lams = self._block  # read once: another thread may train with the same space and another seed
        if key != (seed, block):
            draws = self.sample(256, keyed_rng(seed, "lambda", block))
            lams = [at(draws, i) for i in range(256)]
            self._block = ((seed, block), lams)
        return lams[row]

    def sample(self, n: int, rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
        """n independent draws: arrays of shape (n,), by name."""
        return {name: d.quantile(rng.random(n)) for name, d in self.items()}

    def grid(self, points: int | Mapping[str, int | Sequence[float]] = 5) -> dict[str, NDArray[np.float64]]:
        """The Cartesian product of values of each dimension: arrays of shape (L,), by name, the last varying fastest.

        Args:
            points: how many equally spaced values from a to b each varying dimension gets; or, by name, a number or the
                values themselves (also outside [a, b], and also for a point mass). A point mass has one value.

        Raises:
            InputError: an unknown name, numbers that are not whole or below one, values that are no list of finite
                numbers, or more than `LARGEST_GRID` lambdas.
        """
        problems = Problems()
        if not isinstance(points, Mapping):
            problems.add(*_problems_of_count(points, "each hyperparameter"))
            problems.raise_if_any()
            points = dict.fromkeys(self.free, points)
        wanted = dict(points)
        for name in wanted.keys() - self.keys():
            meant = did_you_mean(str(name), self)
            problems.add(f"the lambda grid names {name!r}, which this space does not have{meant}")
        axes: dict[str, int | NDArray[np.float64]] = {}  # numbers of points become points once the grid is known to fit
        for name in self:
            values = wanted.get(name, 5)
            if not isinstance(values, Sequence | np.ndarray) or isinstance(values, str):
                found = _problems_of_count(values, name)
                problems.add(*found)
                axes[name] = int(values) if name in self.free and not found else 1
            else:
                axes[name] = axis = _finite(values)
                problems.check(axis.size > 0, f"the lambda grid needs finite values for {name}, got {list(values)}")
        problems.add(*_problems_of_size({name: n if isinstance(n, int) else len(n) for name, n in axes.items()}))
        problems.raise_if_any()
        mesh = np.meshgrid(*(self._points(name, axis) for name, axis in axes.items()), indexing="ij") if axes else []
        return {name: axis.reshape(-1) for name, axis in zip(self, mesh, strict=True)}

    def _points(self, name: str, axis: int | NDArray[np.float64]) -> NDArray[np.float64]:
        d = self[name]
        if not isinstance(axis, int):
            return axis
        return np.linspace(d.a, d.b, axis) if name in self.free else np.array([d.mean])

    def contains(self, lam: Lambda) -> bool:
        """Whether every value lies in the range that was trained on (to rounding)."""
        return all(d.a - 1e-9 <= lam[name] <= d.b + 1e-9 for name, d in self.items())

    def problems_for(self, hyperparameters: Mapping[str, tuple[float, float]], loss: str) -> list[str]:
        """What keeps this space from being used with a loss that has these hyperparameters and ranges."""
        found = [
            f"loss {loss!r} has no hyperparameter {name!r}{did_you_mean(name, hyperparameters)}"
            if hyperparameters
            else f"loss {loss!r} has no hyperparameters, got {name!r}"
            for name in self
            if name not in hyperparameters
        ]
        for name, (low, high) in hyperparameters.items():
            if name not in self:
                found.append(f"loss {loss!r} needs a value or distribution for {name!r}")
            elif not (low <= self[name].a and self[name].b <= high):
                found.append(f"{name} of loss {loss!r} must lie in [{low:g}, {high:g}], got {self[name]}")
        return found


def _problems_of_count(points: object, of: str) -> list[str]:
    whole = isinstance(points, numbers.Integral) and not isinstance(points, bool)
    if whole and int(points) >= 1:  # type: ignore[call-overload]
        return []
    needed = f"the lambda grid needs a whole number of points for {of}, one or more, or by name a list of values"
    return [f"{needed}; got {points!r}"]


def _problems_of_size(sizes: Mapping[str, int]) -> list[str]:
    """Why a grid with so many values of each hyperparameter is too large, and how large it may be."""
    total = math.prod(sizes.values())
    if total <= LARGEST_GRID:
        return []
    several = {name: size for name, size in sizes.items() if size > 1}
    fits = int(LARGEST_GRID ** (1 / len(several)) + 1e-9)
    return [
        f"a lambda grid has at most {LARGEST_GRID:,} lambdas; {' x '.join(map(str, several.values()))} values of "
        f"{', '.join(several)} make {total:,}, whose table alone takes {8 * total * len(sizes) / 2**30:,.2g} GiB; "
        f"try {fits:,} values of each or fewer"
    ]


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    """The values in one dimension; none where they are not all finite numbers."""
    try:
        axis = np.asarray(values, np.float64).reshape(-1)
    except (TypeError, ValueError):
        return np.empty(0)
    return axis if np.isfinite(axis).all() else np.empty(0)


def keyed_rng(
    seed: int, purpose: Literal["lambda", "shuffle", "noise", "posterior", "bootstrap", "folds"], index: int = 0
) -> np.random.Generator:
    """A generator that depends on its key alone, so that nothing random needs to be carried along or restored."""
    stream = ("lambda", "shuffle", "noise", "posterior", "bootstrap", "folds").index(purpose)
    return np.random.Generator(np.random.Philox(key=np.array([seed, (stream << 56) | index], np.uint64)))


def at(lambdas: Lambdas, index: int) -> dict[str, float]:
    """The lambda at one index of a table of lambdas."""
    return {name: float(values[index]) for name, values in lambdas.items()}


def table(lams: Sequence[Lambda]) -> dict[str, NDArray[np.float64]]:
    """A table of lambdas from a list of them."""
    return {name: np.array([lam[name] for lam in lams], np.float64) for name in lams[0]} if lams else {}
