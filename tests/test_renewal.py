"""Guarantees renewed where the share of positives has moved: what they promise, in simulations with known truth."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tunelater.calibration import Platt
from tunelater.data.splits import UNKNOWN
from tunelater.distributions import Lambdas
from tunelater.guarantee import Certificate, parts
from tunelater.losses import logit
from tunelater.points import OperatingPoint
from tunelater.problems import InputError
from tunelater.renewal import Renewal, Samples
from tunelater.scoring import Scores
from tunelater.shift import Reference

DISTANCES = np.array([1.8, 2.2])
PRIOR, FIELD_PRIOR, CONFIDENCE = 0.1, 0.03, 0.9
NEED = {"maximize": "recall", "subject_to": ["precision>=0.3", "alert_rate<=0.06"]}


def drawn(rng: np.random.Generator, n: int, prior: float) -> Scores:
    """Binormal scores: the log-odds of two models, both right."""
    target = (rng.random(n) < prior).astype(np.int8)
    x = rng.standard_normal((2, n)) + DISTANCES[:, None] * target
    log_odds = DISTANCES[:, None] * (x - DISTANCES[:, None] / 2) + logit(PRIOR)
    return Scores(log_odds.astype(np.float32), target, {"distance": DISTANCES}, PRIOR)


def rates(point: OperatingPoint) -> tuple[float, float]:
    """Recall and fpr of the population."""
    d = point.lam["distance"]
    threshold = (point.log_odds_threshold - logit(point.prior)) / d + d / 2
    return float(stats.norm.sf(threshold - d)), float(stats.norm.sf(threshold))


def holds(point: OperatingPoint, prior: float) -> bool:
    recall, fpr = rates(point)
    alerts = prior * recall + (1 - prior) * fpr
    return prior * recall / alerts >= 0.3 and alerts <= 0.06


def samples(scores: Scores) -> Samples:
    def of(lambdas: Lambdas) -> Scores:
        index = [int(np.flatnonzero(d == DISTANCES)[0]) for d in lambdas["distance"]]
        return dataclasses.replace(scores, log_odds=scores.log_odds[index], lambdas=lambdas)

    return Samples(of, {"distance": DISTANCES}, len(scores.target))


def reference_of(scores: Scores) -> Reference:
    enough = min((scores.target == c).sum() for c in (0, 1)) >= Platt.fewest
    return Reference.of(scores, None, "platt" if enough else None)


def renewal(known: Scores, new: Scores, need: dict[str, Any] = NEED) -> Renewal:
    return Renewal(samples(known), samples(new), need, CONFIDENCE, {"distance": 1.8}, PRIOR, reference_of)


def hidden(scores: Scores) -> Scores:
    return dataclasses.replace(scores, target=np.full(len(scores.target), UNKNOWN, np.int8))


@pytest.mark.parametrize("labels", [False, True])
def test_the_promise_holds_at_a_share_that_has_moved(labels: bool) -> None:
    """Precision and alert rate, certified on a reference with another share of positives, or on new cases with labels.
    The error that is allowed, and no more but by chance; and not by certifying nothing."""
    repeats, certified, false = 40, 0, 0
    for seed in range(repeats):
        rng = np.random.default_rng([seed, labels])
        known, new = drawn(rng, 4000, PRIOR), drawn(rng, 4000, FIELD_PRIOR)
        try:
            done = renewal(known, new if labels else hidden(new)).renewed(FIELD_PRIOR)
        except InputError:
            continue
        assert done.on_new == labels
        certified += 1
        false += not holds(done.point, FIELD_PRIOR)
    assert certified >= repeats / 2
    assert false <= stats.binom.ppf(0.999, repeats, 1 - CONFIDENCE)


def test_what_certifies_has_no_say_in_what_is_tested() -> None:
    """Scores and order of part B are other ones: the estimate that candidates are ordered for stays to the bit."""
    rng = np.random.default_rng(0)
    known, new = drawn(rng, 3000, PRIOR), hidden(drawn(rng, 2000, FIELD_PRIOR))
    _, b = parts(known.target, [])
    log_odds = known.log_odds.copy()
    log_odds[:, b] = rng.permuted(log_odds[:, b], axis=1) - 3
    other = dataclasses.replace(known, log_odds=log_odds)
    first, second = (renewal(scores, new).estimate_without_certifying() for scores in (known, other))
    assert first == second
    whole = reference_of(samples(known).score({"distance": DISTANCES[:1]})).prior
    assert first.before != whole


def test_rates_within_a_class_are_certified_as_if_nothing_had_moved() -> None:
    rng = np.random.default_rng(1)
    known, new = drawn(rng, 3000, PRIOR), hidden(drawn(rng, 2000, FIELD_PRIOR))
    need = {"minimize": "fpr", "subject_to": ["recall>=0.7"]}
    certificate = Certificate.from_dict(renewal(known, new, need).renewed(FIELD_PRIOR).point.certificate or {})
    assert certificate.shares is None
    assert "another share of positives alone changes nothing" in str(certificate)


def test_a_certificate_of_a_moved_share_says_so_and_reads_again() -> None:
    rng = np.random.default_rng(2)
    done = renewal(drawn(rng, 8000, PRIOR), hidden(drawn(rng, 8000, FIELD_PRIOR))).renewed(FIELD_PRIOR)
    raw = OperatingPoint.from_json(done.point.to_json()).certificate or {}
    certificate = Certificate.from_dict(raw)
    assert certificate.shares is not None
    assert certificate.shares.low < FIELD_PRIOR < certificate.shares.high
    assert certificate.shares.error == pytest.approx((1 - CONFIDENCE) / 2)
    assert "for shares of positives from" in str(certificate)
    for told in certificate.constraints:
        assert (told.limit >= 0.3) if told.metric == "precision" else (told.limit <= 0.06)


def test_too_few_positives_say_how_many_it_takes() -> None:
    rng = np.random.default_rng(3)
    known, new = drawn(rng, 150, PRIOR), hidden(drawn(rng, 2000, FIELD_PRIOR))
    with pytest.raises(InputError, match=r"precision>=0.3 for shares of positives from .* positives"):
        renewal(known, new).renewed(FIELD_PRIOR)
