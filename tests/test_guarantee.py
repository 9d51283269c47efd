"""Guarantees against exact tests, MAPIE's own, and simulations with known truth."""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mapie import risk_control as mapie
from numpy.typing import NDArray
from scipy import stats

from data_tables import problems_of
from tunelater.guarantee import (
    RATES,
    Candidate,
    Certificate,
    Claim,
    FieldPrior,
    Uncertified,
    _least_slack,
    _Rates,
    _worst_of_mixed,
    certify,
    claims_of,
    divided,
    guaranteed,
    needed,
    ordered,
)
from tunelater.metrics import Constraint, Curve
from tunelater.scoring import Scores

CELLS = ("tp", "fn", "fp", "tn")


def table(tp: int, fn: int, fp: int, tn: int) -> Scores:
    """Samples of one lambda that a threshold of 0 decides so."""
    target, log_odds = np.repeat([1, 1, 0, 0], [tp, fn, fp, tn]), np.repeat([1.0, -1.0, 1.0, -1.0], [tp, fn, fp, tn])
    return Scores(log_odds[None].astype(np.float32), target.astype(np.int8), {}, 0.1)


def drawn(seed: int, positives: int, negatives: int, distances: Sequence[float] = (2.0, 2.5)) -> Scores:
    """Binormal scores, a lambda for each distance between the classes."""
    rng = np.random.default_rng(seed)
    target = rng.permutation(np.repeat([1, 0], [positives, negatives])).astype(np.int8)
    x = rng.normal(size=(len(distances), len(target))) + np.array(distances)[:, None] * target
    return Scores(x.astype(np.float32), target, {"tau": np.arange(len(distances), dtype=float)}, 0.1)


def fewest_alarms(_: int, c: Curve) -> NDArray:
    return -c.fp


def most_found(_: int, c: Curve) -> NDArray:
    return c.tp


def passes(scores: Scores, claims: Sequence[Claim], confidence: float) -> bool:
    return certify([Candidate(0, 0.0)], scores, claims, confidence) == 1


# ------------------------------------------------------------------------------------------- the test

counts = st.integers(0, 60)
bounds = st.sampled_from((0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95))
constraints = st.builds("{}{}{}".format, st.sampled_from(sorted(RATES)), st.sampled_from((">=", "<=")), bounds)


def binomial(c: Constraint, cells: dict[str, int]) -> float:
    """The p-value of the exact test, from its definition."""
    of = sum(cells[name] for name in RATES[c.metric.name].of)
    event = sum(cells[name] for name in RATES[c.metric.name].event)
    if not of:
        return 1.0
    return stats.binomtest(event, of, c.bound, "greater" if c.relation == ">=" else "less").pvalue


@settings(max_examples=60, deadline=None)
@given(counts, counts, counts, counts, st.lists(constraints, min_size=1, max_size=3), st.sampled_from((0.8, 0.9, 0.99)))
def test_a_candidate_passes_where_every_exact_binomial_test_rejects(
    tp: int, fn: int, fp: int, tn: int, asked: list[str], confidence: float
) -> None:
    assume(tp + fn and fp + tn)
    claims = claims_of(asked)
    p = max(binomial(c.constraint, dict(zip(CELLS, (tp, fn, fp, tn), strict=True))) for c in claims)
    assume(abs(p - (1 - confidence)) > 1e-9)
    assert passes(table(tp, fn, fp, tn), claims, confidence) == (p <= 1 - confidence)


OF_MAPIE = {
    "recall>=": mapie.recall,
    "fpr<=": mapie.false_positive_rate,
    "precision>=": mapie.precision,
    "npv>=": mapie.negative_predictive_value,
    "accuracy>=": mapie.accuracy,
    "alert_rate<=": mapie.predicted_positive_fraction,
}


def of_mapie(scores: Scores, asked: Sequence[tuple[str, float]], confidence: float) -> bool:
    controller = mapie.BinaryClassificationController(
        lambda rows, threshold: (scores.log_odds[0] >= threshold).astype(int)[rows],
        [OF_MAPIE[name] for name, _ in asked],
        [bound for _, bound in asked],
        confidence,
        list_predict_params=np.array([[0.0]]),
        fwer_method="bonferroni",
        best_predict_param_choice="recall",
    )
    controller.calibrate(np.arange(len(scores.target)), scores.target)
    return len(controller.valid_predict_params) == 1


@pytest.mark.filterwarnings("ignore:No predict parameters", "ignore:All provided predict_params")
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 64), st.integers(0, 64), st.sampled_from(sorted(OF_MAPIE)), bounds, st.booleans())
def test_one_candidate_is_tested_as_by_mapie(found: int, alarms: int, name: str, bound: float, two: bool) -> None:
    scores = table(found, 64 - found, alarms, 64 - alarms)
    asked = [(name, bound), *([("recall>=", 0.8)] if two else [])]
    ours = passes(scores, claims_of(f"{metric}{b}" for metric, b in asked), 0.9)
    theirs = of_mapie(scores, asked, 0.9)
    # Shares of 64 or 128 are exact; of other counts MAPIE may count one failure too many, and never too few.
    assert ours == theirs if name in ("recall>=", "fpr<=", "accuracy>=", "alert_rate<=") else ours >= theirs


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from((40, 44, 45, 46, 48, 50)), min_size=1, max_size=8))
def test_candidates_pass_in_order_as_in_mapies_fixed_sequence(found: list[int]) -> None:
    log_odds = np.array([np.where(np.arange(60) < k, 1, -1) for k in found], np.float32)
    scores = Scores(log_odds, (np.arange(60) < 50).astype(np.int8), {"tau": np.arange(len(found), dtype=float)}, 0.1)
    p = np.array([stats.binomtest(k, 50, 0.9, "greater").pvalue for k in found])
    valid = mapie.control_fwer(p, 0.3, "split_fixed_sequence")
    assert certify([Candidate(i, 0.0) for i in range(len(found))], scores, claims_of(["recall>=0.9"]), 0.7) == len(
        valid
    )


def test_the_first_failure_ends_the_sequence_which_keeps_the_error_at_its_level() -> None:
    """Ten candidates, all just short of the floor. Testing each at the full level would certify one far too often."""
    rng, claims, repeats = np.random.default_rng(0), claims_of(["recall>=0.9"]), 600
    target = (np.arange(39) < 38).astype(np.int8)  # one miss in 38 has p = 0.0996
    in_order = any_of_them = 0
    for _ in range(repeats):
        log_odds = np.where(rng.random((10, 39)) < 0.8999999, 1, -1).astype(np.float32)
        scores = Scores(log_odds, target, {"tau": np.arange(10.0)}, 0.1)
        in_order += certify([Candidate(i, 0.0) for i in range(10)], scores, claims, 0.9) > 0
        any_of_them += bool(((log_odds[:, :38] < 0).sum(axis=1) <= 1).any())
    error = math.sqrt(0.09 / repeats)
    assert abs(in_order / repeats - 0.1) < 3 * error
    assert any_of_them / repeats > 0.5


@settings(max_examples=100, deadline=None)
@given(st.floats(0.005, 0.6), st.floats(0.55, 0.999), st.integers(0, 4))
def test_the_samples_needed_are_the_fewest_that_pass(tolerated: float, confidence: float, failures: int) -> None:
    n = needed(tolerated, confidence, failures)
    p = stats.binom.cdf(failures, [n - 1, n], tolerated)
    assume((abs(p - (1 - confidence)) > 1e-9).all())
    assert p[1] <= 1 - confidence
    assert p[0] > 1 - confidence or n - 1 <= failures


def test_the_limit_is_clopper_and_pearsons_one_sided() -> None:
    _, certificate = guaranteed(drawn(0, 300, 2000), claims_of(["recall>=0.8", "fpr<=0.3"]), most_found)
    recall, fpr = certificate.constraints
    for c, k, side in ((recall, recall.n - recall.failures, "greater"), (fpr, fpr.failures, "less")):
        interval = stats.binomtest(k, c.n, alternative=side).proportion_ci(0.9, "exact")
        assert c.limit == pytest.approx(interval.low if side == "greater" else interval.high)
        assert c.observed == pytest.approx(k / c.n)


# ------------------------------------------------------------------------------------------- the order and the division


def test_candidates_become_better_and_less_safe() -> None:
    scores = drawn(1, 80, 800, (2.5,))
    candidates = ordered(scores, claims_of(["recall>=0.9"]), fewest_alarms)
    threshold = [c.threshold for c in candidates]
    assert len(candidates) > 5
    assert threshold == sorted(set(threshold))
    missed = (scores.log_odds[0, scores.target == 1, None] < threshold).mean(axis=0)
    assert missed[0] < 0.02
    assert 0.04 < missed[-1] < 0.16  # about what the constraint allows


@pytest.mark.parametrize("seed", range(3))
def test_of_many_samples_candidates_are_as_safe_as_their_counts(seed: int) -> None:
    scores, (claim,) = drawn(seed, 20, 200_000, distances=(2.5,)), claims_of(["fpr<=0.05"])
    candidates = ordered(scores, [claim], most_found)
    negatives = scores.log_odds[0][scores.target == 0]
    counts = np.array([np.count_nonzero(negatives >= c.threshold) for c in (candidates[0], candidates[-1])])
    errors = (counts - 10_000) / math.sqrt(10_000 * 0.95)  # the test's own standard deviation
    np.testing.assert_allclose(errors, [-5, 0], atol=1)


def test_two_constraints_that_barely_meet_find_the_thresholds_between_them() -> None:
    """Of many samples only a sliver of thresholds is safe for both."""
    scores = drawn(2, 30_000, 30_000, (2.7,))
    claims = claims_of(["recall>=0.9", "fpr<=0.09"])
    point, certificate = guaranteed(scores, claims, lambda i, c: c.tp - c.fp)
    assert stats.norm.sf(point.threshold - 2.7) >= 0.9
    assert stats.norm.sf(point.threshold) <= 0.09
    assert certificate.candidates > 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**63), st.integers(3, 60), st.integers(3, 90), st.floats(0.1, 0.9), st.booleans())
def test_the_parts_are_the_whole_and_stratified(
    seed: int, positives: int, negatives: int, share: float, stratified: bool
) -> None:
    scores = drawn(seed % 1000, positives, negatives)
    old = np.arange(len(scores.target)) % 3 == 0
    claims = [Claim(Constraint.parse("recall>=0.9"), old, "old=yes")]
    a, b = divided(scores.target, claims, share, seed, stratified=stratified)
    np.testing.assert_array_equal(np.sort(np.concatenate([a, b])), np.arange(len(scores.target)))
    groups = [old, ~old] if stratified else [np.ones(len(old), bool)]
    for group in groups:
        for kind in [scores.target == 1, scores.target == 0] if stratified else [group]:
            assert share * (group & kind).sum() - 1e-6 <= (group & kind)[b].sum() < share * (group & kind).sum() + 1
    assert all(
        (x == y).all()
        for x, y in zip((a, b), divided(scores.target, claims, share, seed, stratified=stratified), strict=True)
    )


def test_the_part_that_certifies_has_no_say_in_the_candidates() -> None:
    scores, claims = drawn(3, 200, 1000), claims_of(["recall>=0.8"])
    a, b = divided(scores.target, claims, 0.5, 7, stratified=True)
    on_a = Scores(scores.log_odds[:, a], scores.target[a], scores.lambdas, 0.1)
    candidates = ordered(on_a, claims, fewest_alarms)
    told = set()
    for seed in range(5):
        log_odds = scores.log_odds.copy()
        log_odds[:, b] = drawn(seed + 10, 200, 1000).log_odds[:, b] + 2.5 * scores.target[b]
        point, certificate = guaranteed(
            Scores(log_odds, scores.target, scores.lambdas, 0.1), claims, fewest_alarms, seed=7, share=0.5
        )
        assert point in candidates
        told.add((certificate.candidates, certificate.n_choosing))
    assert told == {(len(candidates), len(a))}


def test_the_same_seed_gives_the_same_certificate_and_another_seed_another_division() -> None:
    scores, claims = drawn(4, 120, 900), claims_of(["recall>=0.8"])
    first, again, other = (guaranteed(scores, claims, fewest_alarms, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first[1].seed != other[1].seed
    assert first != other


def test_equal_weights_and_a_prior_change_nothing_for_rates_within_a_class() -> None:
    scores, claims = drawn(5, 120, 900), claims_of(["recall>=0.8"])
    weighted = Scores(scores.log_odds, scores.target, scores.lambdas, 0.1, weight=np.full(1020, 3.0))
    plain = guaranteed(scores, claims, fewest_alarms)
    assert guaranteed(weighted, claims, fewest_alarms) == plain
    assert guaranteed(scores, claims, fewest_alarms, prior=0.001) == plain


# ------------------------------------------------------------------------------------------- what is promised


@pytest.mark.parametrize("asked", [["recall>=0.85"], ["precision>=0.6"], ["recall>=0.75", "fpr<=0.08"]])
def test_certified_points_hold_as_often_as_promised(asked: list[str]) -> None:
    distances, repeats, broken, certified = (2.2, 2.4, 2.6), 120, 0, 0
    claims = claims_of(asked)
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        scores = drawn(seed, int(rng.binomial(900, 0.2)), 720, distances)
        try:
            point, _ = guaranteed(scores, claims, most_found if "precision" in asked[0] else fewest_alarms, seed=seed)
        except Uncertified:
            continue
        certified += 1
        r, f = stats.norm.sf(point.threshold - distances[point.at]), stats.norm.sf(point.threshold)
        truth = {"recall": r, "fpr": f, "precision": 0.2 * r / (0.2 * r + 0.8 * f)}
        broken += not all(bool(c.constraint.holds(truth[c.constraint.metric.name])) for c in claims)
    assert certified > 0.3 * repeats
    assert broken <= 0.1 * repeats + 3 * math.sqrt(0.09 * repeats)


def test_a_constraint_in_subgroups_is_tested_in_each() -> None:
    scores = drawn(6, 400, 2000, (3.0,))
    women = np.arange(2400) % 2 == 0
    worse = scores.log_odds.copy()
    worse[0, women & (scores.target == 1)] -= 1.5
    shifted = Scores(worse, scores.target, scores.lambdas, 0.1)
    claims = [Claim(Constraint.parse("recall>=0.85"), women == yes, f"woman={yes}") for yes in (True, False)]
    point, certificate = guaranteed(shifted, claims, fewest_alarms)
    assert [c.constraint for c in certificate.constraints] == [
        f"recall>=0.85 where woman={yes}" for yes in (True, False)
    ]
    assert stats.norm.sf(point.threshold - 1.5) >= 0.85  # of the women
    _, b = divided(scores.target, claims, certificate.share, certificate.seed, stratified=certificate.stratified)
    for c, yes in zip(certificate.constraints, (True, False), strict=True):
        found = worse[0, b][(women[b] == yes) & (scores.target[b] == 1)] >= point.threshold
        assert (c.n, c.failures) == (len(found), int((~found).sum()))
    everybody, _ = guaranteed(shifted, claims_of(["recall>=0.85"]), fewest_alarms)
    assert everybody.threshold > point.threshold


def test_certificates_are_json_and_say_what_they_do_not_promise() -> None:
    _, certificate = guaranteed(drawn(7, 200, 800), claims_of(["precision>=0.5", "recall>=0.6"]), most_found)
    assert Certificate.from_dict(json.loads(json.dumps(certificate.to_dict()))) == certificate
    told = str(certificate)
    for words in ("precision>=0.5", "recall>=0.6", "0.1 at most", "on average", "share of positives", "independent"):
        assert words in told
    assert "precision>=0.5 may not hold" in told
    assert certificate.n + certificate.n_choosing == 1000
    raw = certificate.to_dict()
    for broken in ({}, raw | {"confidence": 2}, raw | {"extra": 1}, raw | {"constraints": [{"constraint": "x>=1"}]}):
        assert "Certificate.to_dict" in problems_of(lambda broken=broken: Certificate.from_dict(broken))[0]


# ------------------------------------------------------------------------------------------- what is refused


def refused(call: Callable[[], Any]) -> list[str]:
    with pytest.raises(Uncertified) as error:
        call()
    return list(error.value.problems)


def test_too_few_positives_are_told_with_how_many_it_takes() -> None:
    asked = claims_of(["recall>=0.9", "fpr<=0.5"])
    (told,) = refused(lambda: guaranteed(drawn(0, 42, 500), asked, fewest_alarms, share=0.5))
    for words in ("at the least 22", "38 if one does", "about 43 in all", "got 21 of 42"):
        assert words in told
    point, _ = guaranteed(
        drawn(0, 43, 500), claims_of(["recall>=0.9"]), fewest_alarms, share=0.5
    )  # by alerting on nearly all
    assert point.threshold < 2


def test_too_few_in_a_subgroup_are_told_with_its_name() -> None:
    scores = drawn(0, 200, 500)
    rare = np.zeros(700, bool)
    rare[np.flatnonzero(scores.target == 1)[:10]] = True
    claims = [Claim(Constraint.parse("recall>=0.9"), members, f"site={k}") for k, members in enumerate((rare, ~rare))]
    (told,) = refused(lambda: guaranteed(scores, claims, fewest_alarms, share=0.5))
    assert "too few positives with site=0" in told
    assert "got 5 of 10" in told


def test_what_even_the_safest_candidate_does_not_reach_is_told() -> None:
    (told,) = refused(lambda: guaranteed(drawn(0, 60, 600, (0.3,)), claims_of(["precision>=0.8"]), most_found))
    assert "precision>=0.8 could not be certified" in told
    assert "not a matter of samples alone" in told
    close = drawn(1, 60, 600, (2.2,))
    told = "\n".join(refused(lambda: guaranteed(close, claims_of(["recall>=0.85", "fpr<=0.16"]), most_found)))
    assert "At that rate it would take some" in told


def test_everything_that_cannot_be_certified_is_told_at_once() -> None:
    scores = drawn(0, 50, 200)
    uneven = Scores(scores.log_odds, scores.target, scores.lambdas, 0.1, weight=np.linspace(1, 2, 250))
    claims = claims_of(["f1>=0.5", "recall>=1", "fpr<=0", "precision>=0.5", "recall>=0.9"])
    told = problems_of(lambda: guaranteed(uneven, claims, fewest_alarms, prior=0.01, confidence=1, share=0, seed=-1))
    expected = [
        "only shares of samples can be certified",
        "no number of samples certifies recall>=1",
        "no number of samples certifies fpr<=0",
        "precision>=0.5 can be certified only at the samples' own share of positives (0.2)",
        "weights from 1 to 2",
        "confidence of a guarantee lies in (0, 1), such as 0.9; got 1",
        "share of samples that certify",
        "seed",
    ]
    assert len(told) == len(expected)
    for words, problem in zip(expected, told, strict=True):
        assert words in problem


@pytest.mark.parametrize(("asked", "words"), [([], "got none"), (["recall>=0"], "always holds")])
def test_nothing_to_certify_is_refused(asked: list[str], words: str) -> None:
    assert words in problems_of(lambda: guaranteed(drawn(0, 50, 200), claims_of(asked), fewest_alarms))[0]


def test_a_prior_that_is_the_samples_own_is_none_of_the_problems() -> None:
    scores = drawn(8, 200, 800)
    claims = claims_of(["precision>=0.5"])
    assert guaranteed(scores, claims, most_found, prior=0.2) == guaranteed(scores, claims, most_found)


def test_a_constraint_in_every_value_is_a_claim_for_each() -> None:
    sex = np.array(["F", "M", "F", "(missing)"])
    plain, women, men = claims_of(["fpr<=0.1", "recall>=0.8 in every sex"], {"sex": sex})
    assert (str(plain), str(women), str(men)) == ("fpr<=0.1", "recall>=0.8 where sex=F", "recall>=0.8 where sex=M")
    assert plain.members is None
    np.testing.assert_array_equal(women.members, sex == "F")
    np.testing.assert_array_equal(men.members, sex == "M")
    told = problems_of(lambda: claims_of(["recall>=0.8 in every sx", "fpr<=0.1 in every site"], {"sex": sex}))
    assert len(told) == 2
    assert "did you mean 'sex'" in told[0]


def test_of_a_range_of_priors_only_rates_within_a_class_can_be_certified() -> None:
    scores, prior = drawn(8, 200, 800), (0.01, 0.2)
    claims = claims_of(["recall>=0.8"])
    assert guaranteed(scores, claims, fewest_alarms, prior=prior) == guaranteed(scores, claims, fewest_alarms)
    (told,) = problems_of(lambda: guaranteed(scores, claims_of(["npv>=0.5"]), fewest_alarms, prior=prior))
    assert "got prior 0.01 to 0.2" in told


# ------------------------------------------------------------------------------------------- another share of positives


FIELD = FieldPrior(0.02, 0.06, 0.05, 0.04)


@settings(deadline=None, max_examples=30)
@given(
    text=st.sampled_from(["precision>=0.4", "npv>=0.97", "accuracy>=0.9", "alert_rate<=0.1", "alert_rate>=0.02",
                          "precision<=0.7"]),
    counts=st.tuples(*[st.integers(0, 400)] * 4),
)  # fmt: skip
def test_the_worst_of_a_mixed_rate_is_the_worst_of_the_box(text: str, counts: tuple[int, ...]) -> None:
    """By a grid over all shares of positives, recalls and fprs that are allowed: nothing inside is worse than what is
    told, and a claim holds where all of it does."""
    (claim,) = claims_of([text], field=FIELD)
    rates = _Rates.of_counts(claim, *counts, 0.9)
    axes = (np.linspace(*ends, 7) for ends in ((FIELD.low, FIELD.high), rates.recall, rates.fpr))
    prior, recall, fpr = (x.ravel() for x in np.meshgrid(*axes))
    tp, fp = prior * recall, (1 - prior) * fpr
    zero = np.zeros_like(tp)
    c = Curve(zero, tp, fp, tp, fp, zero, prior, 1 - prior)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = claim.constraint.metric.values(c)
    values = values[np.isfinite(values)]
    if not len(values):
        return
    worst = values.min() if claim.is_floor else values.max()
    told = _worst_of_mixed(claim, rates)
    assert told == pytest.approx(worst, abs=1e-9) or math.isnan(told)
    assert (_least_slack(claim, rates) >= 0) == bool(claim.constraint.holds(np.array([worst]))[0])
