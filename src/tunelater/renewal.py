"""A guarantee renewed, where the share of positives has moved.

New cases certify where all of them have labels: some choose, the others certify, and no label shift is supposed.
Otherwise the reference certifies, at the share of positives that the new cases tell. Under label shift recall and fpr
are in the field what they are in the reference; precision and the like follow from both and the share, and hold at the
worst end of its interval (`guarantee.FieldPrior`).

What certifies must not have chosen. So candidates are put in order for the share that the part of the reference which
chooses tells together with the new cases, at the model's default lambda: neither that nor the order depends on the part
that certifies. Nor does which samples certify, beyond the sizes of their classes where only these matter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tunelater.data.splits import UNKNOWN
from tunelater.distributions import Lambda, Lambdas
from tunelater.guarantee import FieldPrior, Uncertified, check_enough, claims_of, parts, problems_of_claims
from tunelater.needs import Need, Prior
from tunelater.points import OperatingPoint
from tunelater.problems import InputError
from tunelater.scoring import Scores
from tunelater.shift import PriorEstimate, Reference, estimate_prior
from tunelater.tuning import select_from


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples that can be scored."""

    score: Callable[[Lambdas], Scores]
    lambdas: Lambdas
    """(L,) arrays: where a point may be chosen. None of them depends on an earlier choice on the same samples."""
    n: int


class Renewed(NamedTuple):
    """A certified point."""

    point: OperatingPoint
    on_new: bool
    """Whether the new cases certified it, or the reference."""


def inside(estimate: PriorEstimate) -> tuple[float, float]:
    """The interval of a share of positives, inside (0, 1): an end at 0 or 1 is half a case away from it."""
    half = 0.5 / estimate.n
    low = max(estimate.low, min(half, estimate.adopted))
    high = min(estimate.high, max(1 - half, estimate.adopted))
    return min(low, estimate.adopted), max(high, estimate.adopted)


@dataclass(frozen=True, eq=False)
class Renewal:
    """What a guarantee is renewed on, for one need.

    Args:
        reference: labelled samples.
        new: those of the field; target `UNKNOWN` where there is no label.
        needs: `Need.in_words`; its prior says only whether a range of them is meant.
        confidence: of the guarantee.
        default: the model's default lambda.
        before: the share of positives that was believed until now.
        reference_of: what new scores are compared with, of labelled ones at a single lambda.
    """

    reference: Samples
    new: Samples
    needs: Mapping[str, Any]
    confidence: float
    default: Lambda
    before: float
    reference_of: Callable[[Scores], Reference]

    def estimate_without_certifying(self) -> PriorEstimate:
        """The share of positives by the part of the reference that chooses; by all of it, if it cannot be divided."""
        known = self._at_default(self.reference)
        claims = claims_of(self._need.constraints, known.columns, _SOME)
        chooses, _ = parts(known.target, claims)
        both = all((known.target[chooses] == c).any() for c in (0, 1))
        return self._estimate(known.take(chooses) if both else known, 0.95)

    def renewed(self, prior: Prior) -> Renewed:
        """The best point that can be certified.

        Args:
            prior: the share of positives that the point is for, or the range of it.

        Raises:
            InputError: why none can be.
        """
        words = {name: self.needs[name] for name in ("maximize", "minimize", "cost") if name in self.needs}
        words["subject_to"] = self.needs.get("subject_to", ())
        certifying: dict[str, Any] = {"guarantee": self.confidence, "default": self.default, **words}
        if self._on_new():
            ranged = prior if isinstance(prior, tuple) else None
            samples = self.new
            point = select_from(samples.score, samples.lambdas, samples.n, prior=ranged, **certifying)
            return Renewed(point, True)
        samples = self.reference
        point = select_from(
            samples.score, samples.lambdas, samples.n, prior=prior, field=self._field(prior), **certifying
        )
        return Renewed(point, False)

    @property
    def _need(self) -> Need:
        return Need.read(self.needs)

    def _at_default(self, samples: Samples) -> Scores:
        return samples.score({name: np.array([value]) for name, value in self.default.items()})

    def _estimate(self, known: Scores, confidence: float) -> PriorEstimate:
        reference, new = self.reference_of(known), self._at_default(self.new)
        return estimate_prior(reference, new, before=self.before, confidence=confidence)

    def _field(self, prior: Prior) -> FieldPrior:
        # Half of what the guarantee may err goes to the interval.
        error = (1 - self.confidence) / 2
        low, high = inside(self._estimate(self._at_default(self.reference), 1 - error))
        chosen_for = self.estimate_without_certifying()
        return FieldPrior(low, high, error, inside(chosen_for) if isinstance(prior, tuple) else chosen_for.adopted)

    def _on_new(self) -> bool:
        """Whether new cases certify: they alone where the share of positives matters, and otherwise where they are
        enough, and have more positives than the reference or that is too small."""
        new = self._at_default(self.new)
        if (new.target == UNKNOWN).any() or self._need.columns:
            return False
        claims = claims_of(self._need.constraints)
        if problems_of_claims(new.target, new.weight, claims, None):
            return False
        if any(claim.rate.needs_prior for claim in claims):
            return True
        known = self._at_default(self.reference)
        enough = [_are_enough(scores, self._need, self.confidence) for scores in (new, known)]
        return enough[0] and (not enough[1] or (new.target == 1).sum() >= (known.target == 1).sum())


_SOME = FieldPrior(0.0, 1.0, 0.0, None)
"""Of any share of positives: what division it takes."""


def _are_enough(scores: Scores, need: Need, confidence: float) -> bool:
    try:
        check_enough(scores.target, claims_of(need.constraints, scores.columns), confidence)
    except Uncertified:
        return False
    return True


def why_not(error: InputError) -> str:
    """Why nothing was certified, in a sentence."""
    return "; ".join(problem.rstrip(".") for problem in error.problems)


def doubting(point: OperatingPoint, doubts: list[str]) -> OperatingPoint:
    """A certified point that tells what its certificate is in doubt for."""
    if not doubts or point.certificate is None:
        return point
    return dataclasses.replace(point, certificate={**point.certificate, "doubts": doubts})
