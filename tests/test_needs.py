"""The vocabulary of needs: what reads, what is refused, and that the point chosen is the best of a slow search."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tunelater.assessment import assess, confusion_shares, decision_curve
from tunelater.losses import logit
from tunelater.metrics import THRESHOLD_METRICS, threshold_metric
from tunelater.needs import MISSING, Cost, Need, groups_of, parse_constraint
from tunelater.points import OperatingPoint
from tunelater.problems import InputError
from tunelater.scoring import Scores
from tunelater.tuning import Infeasible, OperatingGrid


def scores(seed: int = 0, n: int = 300, lambdas: int = 3, weighted: bool = False) -> Scores:
    rng = np.random.default_rng(seed)
    target = (rng.random(n) < 0.15).astype(np.int8)
    log_odds = np.round(rng.normal(size=(lambdas, n)) + 1.5 * target + logit(0.15), 2).astype(np.float32)  # with ties
    columns = {"sex": rng.choice(["F", "M"], n), "amount": rng.exponential(100, n), "site": rng.integers(3, size=n) / 1}
    weight = rng.random(n) + 0.1 if weighted else None
    return Scores(log_odds, target, {"tau": np.arange(float(lambdas))}, 0.15, weight, columns=columns)


def every_decision(s: Scores) -> list[NDArray[np.bool_]]:
    return [row >= t for row in s.log_odds for t in [np.inf, *np.unique(row)]]


def test_needs_are_read_again_from_their_words() -> None:
    for asked in (
        {"maximize": "net_benefit@0.1", "subject_to": ["recall>=0.9 in every sex", "alerts<=20/1,000"], "prior": 0.02},
        {"cost": {"fn": "amount", "fp": 5}, "prior": (0.005, 0.02)},
        {"minimize": "brier", "subject_to": "f2>=0.1"},
    ):
        need = Need.of(**asked)
        again = Need.read(need.in_words)
        assert again.in_words == need.in_words
        assert (again.prior, again.cost, again.columns) == (need.prior, need.cost, need.columns)
        assert [str(c) for c in again.constraints] == [str(c) for c in need.constraints]


@pytest.mark.parametrize(
    ("text", "as_rate"),
    [
        ("alerts<=20/1000", "alert_rate<=0.02"),
        ("alerts <= 2.5 per 1,000", "alert_rate<=0.0025"),
        ("alerts>=1/10 in every sex", "alert_rate>=0.1 in every sex"),
        ("net_benefit@0.2>=-0.25", "net_benefit@0.2>=-0.25"),
    ],
)
def test_constraints_that_read(text: str, as_rate: str) -> None:
    assert str(parse_constraint(text)) == as_rate


def test_everything_wrong_with_needs_is_told_at_once() -> None:
    with pytest.raises(InputError) as error:
        Need.of(
            maximize="precison",
            cost={"fn": -1},
            subject_to=["alerts<=20", "alerts<=11/10", "recall>=0.9 in every ", "net_benefit@2>=0", "recall>=1.5"],
            prior=(0.2, 0.1),
        )
    told = "\n".join(error.value.problems)
    for words in (
        "say one of maximize, minimize and cost",
        "did you mean 'precision'?",
        "errors must cost more than being right",
        "cost fn must be 0 or more",
        "such as 'alerts<=20/1000', got 'alerts<=20'",
        "at most all of the cases, got 'alerts<=11/10'",
        "followed by the name of a column",
        "with the probability in (0, 1)",
        "recall lies in [0, 1], so no bound can be 1.5",
        "a range of priors is its lower and its higher end, both in (0, 1), got (0.2, 0.1)",
    ):
        assert words in told, words
    assert len(error.value.problems) == 10


def test_everything_wrong_between_needs_and_samples_is_told_at_once() -> None:
    s = scores()
    columns = dict(s.columns)
    columns["sex"] = np.where((s.target == 0) & (np.arange(300) < 5), "X", columns["sex"])
    columns["name"] = np.arange(300).astype(str)
    columns["amount"] = np.where(np.arange(300) == np.flatnonzero(s.target)[0], np.nan, columns["amount"])
    told = Need.of(
        cost={"fn": "amount", "fp": "sex"},
        subject_to=[
            "recall>=0.5 in every sex",
            "fpr<=0.5 in every sex",
            "recall>=0.5 in every name",
            "fpr<=1 in every sx",
        ],
    ).problems_with(columns, s.target, None, "choosing")
    assert len(told) == 5
    for words in (
        "did you mean 'sex'?",
        "'recall>=0.5 in every sex' needs positives in every value of 'sex', got none with 'X'",
        "at most 100 values, got 300",
        "the costs fn in column 'amount' must be finite numbers, 0 or more: 1 are not",
        "the costs fp are the numbers in column 'sex', got text",
    ):
        assert any(words in problem for problem in told), (words, told)
    dear = Need.of(cost={"fn": "amount", "tp": 1e9}).problems_with(s.columns, s.target, None, "choosing")
    assert "errors must cost more than being right" in dear[0]


def test_subgroups_need_values_and_samples_that_count() -> None:
    target = np.array([1, 0, 1, 0, 0], np.int8)
    need = Need.of(maximize="f1", subject_to=["alert_rate<=0.5 in every site", "alert_rate<=0.5 in every ward"])
    columns = {"site": np.array(["a", "a", "b", "b", "c"]), "ward": np.full(5, np.nan)}
    assert need.problems_with(columns, target, np.array([1, 1, 1, 1, 0]), "choosing") == [
        "'alert_rate<=0.5 in every site' needs samples in every value of 'site', got none with 'c'; leave these rows "
        "out, or join values",
        "a constraint in every ward is for a column with values, got none in 5 rows; name another",
    ]
    assert len(need.problems_with(columns, target, None, "choosing")) == 1


def test_groups_by_text() -> None:
    groups = groups_of(np.array([1.0, 2.0, np.nan, 1.0]))
    assert list(groups_of(np.array(["b", MISSING, "a"]))) == ["a", "b"]
    assert {value: rows.tolist() for value, rows in groups.items()} == {
        "1": [True, False, False, True],
        "2": [False, True, False, False],
    }


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("prior", [None, 0.02])
def test_a_constraint_in_every_value_equals_a_search_over_everything(weighted: bool, prior: float | None) -> None:
    s = scores(weighted=weighted)
    w = np.ones(300) if s.weight is None else s.weight
    if prior is not None:
        w = w * np.where(s.target == 1, prior / w[s.target == 1].sum(), (1 - prior) / w[s.target == 0].sum())

    def figures(alerts: NDArray[np.bool_]) -> tuple[float, float, float]:
        def recall(rows: NDArray[np.bool_]) -> float:
            return w[rows & alerts & (s.target == 1)].sum() / w[rows & (s.target == 1)].sum()

        def precision(rows: NDArray[np.bool_]) -> float:
            return w[rows & alerts & (s.target == 1)].sum() / max(w[rows & alerts].sum(), 1e-300)

        by_sex = [s.columns["sex"] == value for value in "FM"]
        return precision(np.ones(300, bool)), min(map(recall, by_sex)), min(map(precision, by_sex))

    least = 0.15 if prior is None else 0.02
    allowed = [f for f in map(figures, every_decision(s)) if f[1] >= 0.8 - 1e-9 and f[2] >= least]
    need: dict[str, Any] = {
        "maximize": "precision",
        "subject_to": ["recall>=0.8 in every sex", f"precision>={least} in every sex"],
    }
    point = OperatingGrid(s, prior).select(**need, simplest=False)
    assert point.metrics["precision"].value == pytest.approx(max(f[0] for f in allowed))
    for name, at in (("recall", 1), ("precision", 2)):
        values = [point.metrics[f"{name}[sex={value}]"].value for value in "FM"]
        assert any(min(values) == pytest.approx(f[at]) for f in allowed)
    assert min(point.metrics[f"recall[sex={value}]"].value for value in "FM") >= 0.8 - 1e-9


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("prior", [None, 0.02])
def test_costs_of_samples_equal_a_search_over_everything(weighted: bool, prior: float | None) -> None:
    s = scores(weighted=weighted)
    w = np.ones(300) if s.weight is None else s.weight / s.weight.sum() * 300
    if prior is not None:
        w = w * np.where(s.target == 1, prior / w[s.target == 1].sum(), (1 - prior) / w[s.target == 0].sum())
    costs = [
        (w * np.where(s.target == 1, np.where(alerts, 3.0, 3.0 + s.columns["amount"]), 20.0 * alerts)).sum() / w.sum()
        for alerts in every_decision(s)
    ]
    raised = {**s.columns, "loss": s.columns["amount"] + 3.0}
    s = Scores(**{**vars(s), "columns": raised})
    point = OperatingGrid(s, prior).select(cost={"fn": "loss", "fp": 20, "tp": 3}, simplest=False)
    assert point.metrics["cost"].value == pytest.approx(min(costs))
    assert point.metrics["cost"].low <= point.metrics["cost"].value <= point.metrics["cost"].high


def test_a_column_of_equal_costs_is_a_cost() -> None:
    s = scores()
    s = Scores(**{**vars(s), "columns": {"fifty": np.full(300, 50.0)}})
    by_column = OperatingGrid(s).select(cost={"fn": "fifty", "fp": 1}, bootstrap=100)
    by_number = OperatingGrid(s).select(cost={"fn": 50, "fp": 1}, bootstrap=100)
    assert (by_column.lam, by_column.threshold) == (by_number.lam, by_number.threshold)
    for figures in ("metrics", "honest"):
        a, b = (getattr(point, figures)["cost"].value for point in (by_column, by_number))
        assert a == pytest.approx(b)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.001, 0.5), st.floats(1.05, 1.9))
def test_no_prior_inside_a_range_is_worse_than_those_looked_at(r: float, f: float, low: float, factor: float) -> None:
    """At any threshold, for every metric but the correlation coefficient, which is checked at more of them."""
    names = [name for name in THRESHOLD_METRICS if name != "mcc"] + ["net_benefit@0.3", "f0.5"]
    cells = np.array([[r], [1 - r], [f], [1 - f]])
    need = Need.of(cost={"fn": 5, "fp": 1}, prior=(low, low * factor))
    assert need.cost is not None
    metrics = [*(threshold_metric(name) for name in names), need.cost.metric()]
    for m in metrics:
        sign = 1 if m.higher_is_better else -1
        seen = min(sign * float(m.values(confusion_shares(cells, p))[0]) for p in need.priors)
        for p in np.linspace(low, low * factor, 7):
            assert sign * float(m.values(confusion_shares(cells, float(p)))[0]) >= seen - 1e-9, m.name


def test_a_range_of_priors_chooses_for_the_worst_of_it() -> None:
    s = scores(n=400)
    cost = Cost(fn=10, fp=1)
    of_range = OperatingGrid(s, (0.01, 0.1)).select(cost=cost, subject_to="precision>=0.03", simplest=False)
    worst = []
    for alerts in every_decision(s):
        y = s.target == 1
        cells = np.array([[(alerts & y).sum()], [(~alerts & y).sum()], [(alerts & ~y).sum()], [(~alerts & ~y).sum()]])
        shares = [confusion_shares(cells.astype(float), p) for p in (0.01, 0.1)]
        if min(float(THRESHOLD_METRICS["precision"].values(c)[0]) for c in shares) >= 0.03:
            worst.append(max(float(cost.values(c)[0]) for c in shares))
    assert of_range.metrics["cost"].value == pytest.approx(min(worst))
    assert of_range.metrics["precision"].value >= 0.03
    assert of_range.prior == pytest.approx(np.sqrt(0.01 * 0.1))
    assert OperatingPoint.from_json(of_range.to_json()) == of_range
    assert assess(of_range, s)["cost"] == of_range.metrics["cost"]


@pytest.mark.parametrize("prior", [None, 0.03])
def test_net_benefit_is_what_decision_curves_are_made_of(prior: float | None) -> None:
    s = scores(lambdas=2)
    curve = decision_curve(s, [0.05, 0.2], prior=prior)
    share = s.target.mean() if prior is None else prior
    p = 1 / (1 + np.exp(-(s.log_odds.astype(float) + logit(share) - logit(s.prior))))
    for j, r in enumerate((0.05, 0.2)):
        for i in range(2):
            hit, false = ((p[i] >= r)[s.target == c].mean() for c in (1, 0))
            assert curve["model"][i, j] == pytest.approx(share * hit - (1 - share) * false * r / (1 - r))
        assert curve["all"][j] == pytest.approx(share - (1 - share) * r / (1 - r))
        best = OperatingGrid(s, prior).select(maximize=f"net_benefit@{r}", simplest=False).metrics[f"net_benefit@{r}"]
        assert best.value >= max(curve["model"][:, j].max(), curve["all"][j], 0) - 1e-12
    with pytest.raises(InputError, match="threshold probabilities lie in"):
        decision_curve(s, [0.0, 0.5])


def test_what_nothing_meets_names_the_closest_points_and_their_price() -> None:
    s = scores()
    with pytest.raises(Infeasible) as error:
        OperatingGrid(s).select(maximize="f1", subject_to=["recall>=0.95 in every sex", "alerts<=50/1000"])
    reach, rate = [], []
    for alerts in every_decision(s):
        recall = min(alerts[(s.target == 1) & (s.columns["sex"] == value)].mean() for value in "FM")
        reach += [recall] if alerts.mean() <= 0.05 else []
        rate += [alerts.mean()] if recall >= 0.95 else []
    _, of_recall, of_alerts = error.value.problems
    assert f"recall in every sex reaches 1 alone, and {max(reach):.4g} with alert_rate<=0.05, at tau" in of_recall
    assert f"recall>=0.95 in every sex costs alert_rate {min(rate):.4g}, at tau" in of_recall
    assert f"alert_rate reaches 0 alone, and {min(rate):.4g} with recall>=0.95 in every sex" in of_alerts


def test_assessing_needs_the_columns_of_the_need() -> None:
    s = scores()
    point = OperatingGrid(s).select(cost={"fn": "amount", "fp": 5}, subject_to="recall>=0.5 in every sex")
    with pytest.raises(InputError) as error:
        assess(point, Scores(**{**vars(s), "columns": {"amunt": s.columns["amount"]}}))
    assert len(error.value.problems) == 2
    assert "column 'amount'; did you mean 'amunt'?" in str(error.value)
    other = scores(1)
    rows = other.columns["sex"] == "F"
    some = Scores(
        **{
            **vars(other),
            "log_odds": other.log_odds[:, rows],
            "target": other.target[rows],
            "columns": {name: values[rows] for name, values in other.columns.items()},
        }
    )
    told = assess(point, some)
    assert told["recall[sex=F]"].value == pytest.approx(told["recall"].value)
    assert "recall[sex=M]" not in told
