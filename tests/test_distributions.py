"""The linear distribution against its definition, and the named product space."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from tunelater.distributions import LambdaSpace, Linear, PointMass, Triangular, Uniform, at, table
from tunelater.problems import InputError


@st.composite
def linears(draw: st.DrawFn) -> Linear:
    a = draw(st.floats(-50, 50))
    width = draw(st.floats(1e-3, 100))
    return Linear(a, a + width, draw(st.floats(0, 1)) * 2 / (a + width - a))


@given(linears())
def test_density_has_unit_area_and_the_cdf_and_mean_that_follow_from_it(d: Linear) -> None:
    assert integrate.quad(d.pdf, d.a, d.b)[0] == pytest.approx(1)
    assert integrate.quad(lambda x: x * float(d.pdf(x)), d.a, d.b)[0] == pytest.approx(d.mean, rel=1e-6, abs=1e-6)
    middle = d.a + 0.37 * (d.b - d.a)
    assert integrate.quad(d.pdf, d.a, middle)[0] == pytest.approx(float(d.cdf(middle)))
    assert float(d.pdf(d.b)) == pytest.approx(d.h_b)
    assert d.pdf([d.a - 1, d.b + 1]).tolist() == [0, 0]
    assert d.cdf([d.a - 1, d.b + 1]).tolist() == [0, 1]


@given(linears())
def test_quantile_inverts_the_cdf(d: Linear) -> None:
    p = np.linspace(0, 1, 101)
    x = d.quantile(p)
    np.testing.assert_allclose(d.cdf(x), p, atol=1e-7)
    assert np.all(np.diff(x) >= 0)
    assert (x[0], x[-1]) == pytest.approx((d.a, d.b), abs=1e-6)


@pytest.mark.parametrize("d", [Linear(0, 3, 0.1), Linear(0, 0.3, 0), Linear(1, 4, 2 / 3), Uniform(-1, 2)])
def test_samples_follow_the_cdf(d: Linear) -> None:
    draws = LambdaSpace(x=d).sample(20_000, np.random.default_rng(0))["x"]
    assert stats.kstest(draws, d.cdf).pvalue > 0.01


def test_uniform_and_triangular_are_special_cases() -> None:
    x = np.linspace(-1, 5, 50)
    np.testing.assert_allclose(Uniform(1, 4).cdf(x), stats.uniform(1, 3).cdf(x))
    np.testing.assert_allclose(Triangular(1, 4).pdf(x), stats.triang(0, 1, 3).pdf(x))
    np.testing.assert_allclose(Triangular(1, 4, rising=True).cdf(x), stats.triang(1, 1, 3).cdf(x))


@pytest.mark.parametrize(("a", "b", "h_b", "top"), [(1, 3, 2, "1"), (0, 0.3, 6.7, "6.66667"), (0, 3, -0.1, "0.666667")])
def test_impossible_height_is_refused_with_the_allowed_range(a: float, b: float, h_b: float, top: str) -> None:
    with pytest.raises(InputError, match=rf"in \[0, {top}\].*got {h_b:g}"):
        Linear(a, b, h_b)


@pytest.mark.parametrize(("a", "b"), [(1, 1), (2, 1), (0, np.inf), (np.nan, 1)])
def test_impossible_interval_is_refused(a: float, b: float) -> None:
    with pytest.raises(InputError, match="finite a < b"):
        Linear(a, b, 0)


def test_point_mass_is_a_distribution_and_is_not_free() -> None:
    space = LambdaSpace(gamma=0.2, tau=Linear(0, 3, 0.33), phi=PointMass(1))
    assert space.free == ("tau",)
    assert space["gamma"].quantile(np.array([0, 0.5, 1])).tolist() == [0.2] * 3
    assert space["gamma"].cdf([0.1, 0.2, 0.3]).tolist() == [0, 1, 1]
    assert space.mean["gamma"] == 0.2


def test_draw_depends_on_seed_and_step_alone() -> None:
    def fresh() -> LambdaSpace:
        return LambdaSpace(gamma=Linear(0, 0.3, 0), tau=Linear(0, 3, 0.33))

    first = [fresh().draw(seed=3, step=step) for step in (5, 700, 6)]
    again = fresh()
    assert [again.draw(seed=3, step=step) for step in (5, 700, 6)] == first
    assert len({d["tau"] for d in first}) == 3
    assert fresh().draw(seed=4, step=5) != first[0]


def test_draws_over_steps_follow_the_distribution() -> None:
    space = LambdaSpace(gamma=Linear(0, 0.3, 0), tau=Linear(0, 3, 0.1))
    draws = table([space.draw(seed=1, step=step) for step in range(5_000)])
    for name in space:
        assert stats.kstest(draws[name], space[name].cdf).pvalue > 0.01
    assert abs(np.corrcoef(draws["gamma"], draws["tau"])[0, 1]) < 0.05
    per_sample = space.draw(seed=1, step=0, size=4_000)
    assert stats.kstest(per_sample["tau"], space["tau"].cdf).pvalue > 0.01


def test_grid_is_the_product_with_names() -> None:
    space = LambdaSpace(gamma=Linear(0, 0.3, 0), tau=Linear(0, 3, 0.33), phi=1)
    grid = space.grid({"gamma": [0, 0.1], "tau": 3})
    assert [at(grid, i) for i in range(6)] == [{"gamma": g, "tau": t, "phi": 1} for g in (0, 0.1) for t in (0, 1.5, 3)]
    assert {len(v) for v in space.grid(4).values()} == {16}
    with pytest.raises(InputError, match="did you mean 'gamma'"):
        space.grid({"gama": 3})
    with pytest.raises(InputError, match=r"points for tau, one or more, .*got 0"):
        space.grid({"tau": 0})


def test_contains_flags_extrapolation() -> None:
    space = LambdaSpace(gamma=0.1, tau=Linear(0, 3, 0.33))
    assert space.contains({"gamma": 0.1, "tau": 3})
    assert not space.contains({"gamma": 0.1, "tau": 4})
    assert not space.contains({"gamma": 0, "tau": 1})


GRID = LambdaSpace(gamma=Linear(0, 0.3, 0), tau=Linear(0, 3, 0.33), omega=1.0)


@pytest.mark.parametrize("points", [np.int64(4), np.uint8(4), {"gamma": np.int32(4), "tau": 4, "omega": 7}])
def test_whole_numbers_of_numpys_are_numbers_of_points(points: Any) -> None:
    grid, expected = GRID.grid(points), GRID.grid(4)
    assert len(grid["tau"]) == 16
    assert all(np.array_equal(grid[name], expected[name]) for name in GRID)


@pytest.mark.parametrize("points", [0, -1, 5.0, 2.5, True, np.True_, "5", None, np.float64(5)])
@pytest.mark.parametrize("space", [GRID, LambdaSpace(tau=1.0), LambdaSpace()], ids=["free", "fixed", "empty"])
def test_what_is_no_number_of_points_is_refused(points: Any, space: LambdaSpace) -> None:
    with pytest.raises(InputError) as error:
        space.grid(points)
    (problem,) = error.value.problems
    assert "a whole number of points for each hyperparameter, one or more" in problem
    assert problem.endswith(repr(points))
    if "tau" in space:
        with pytest.raises(InputError, match="whole number of points for tau, one or more"):
            space.grid({"tau": points})


@pytest.mark.parametrize("values", [[], [math.nan], [0, math.inf], ["a"], [[1], [2, 3]], np.array([])])
def test_values_of_a_grid_are_finite_numbers(values: Any) -> None:
    with pytest.raises(InputError, match="needs finite values for tau"):
        GRID.grid({"tau": values})


def test_all_that_is_wrong_with_a_grid_is_reported_at_once() -> None:
    with pytest.raises(InputError) as error:
        GRID.grid({"gama": 3, "gamma": 0, "tau": [math.nan]})
    assert len(error.value.problems) == 3
    assert any("'gama'" in p and "did you mean 'gamma'?" in p for p in error.value.problems)


@pytest.mark.parametrize("value", ["1", None, True, [1, 2]])
def test_what_is_neither_distribution_nor_number_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="tau needs a number or a distribution of it, got"):
        LambdaSpace(gamma=0.1, tau=value)


def test_a_grid_that_no_memory_holds_is_refused_with_the_largest_that_fits() -> None:
    space = LambdaSpace(gamma=Linear(0, 0.3, 0), tau=Linear(0, 3, 0.33), omega=0.5)
    assert len(space.grid(1000)["tau"]) == 1_000_000
    with pytest.raises(InputError, match=r"1001 x 1001 values of gamma, tau make 1,002,001.* GiB; try 1,000 values"):
        space.grid(1001)
    with pytest.raises(InputError, match="make 1,000,000,000,000,000,000,"):
        space.grid(10**9)
    with pytest.raises(InputError, match="try 100 values of each"):
        space.grid({"gamma": 200, "tau": 200, "omega": np.linspace(0, 1, 200)})
    assert len(space.grid({"gamma": 2, "tau": np.linspace(0, 3, 500_000)})["omega"]) == 1_000_000
