"""The loss families, and what each family's logits say about the posterior.

A family is a loss with named hyperparameters (lambda). One model is trained over many values of lambda, and because
every lambda asks for other logits, only the family can say which probability a logit stands for. Every family therefore
has

* `loss(logits, target, **lam)`: the loss of each sample, and
* `link(margin, **lam)`, `log_odds(logits, prior, **lam)`, `log_posterior(logits, prior, **lam)`: the posterior that
  minimises the expected loss, in closed form, under the class frequencies of the training data or any others.

Shapes: N samples, K classes. For two classes column 0 is the negative (majority) class, column 1 the positive one; beta
is the imbalance ratio n_-/n_+. Every hyperparameter is a float, or a tensor of shape (N,) with one value a sample.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from tunelater.problems import InputError, Problems, did_you_mean

Hyperparameter = float | Tensor


def logit(probability: float) -> float:
    """log(p / (1 - p)) of a probability in (0, 1).

    Raises:
        InputError: a probability that is not.
    """
    if not 0 < probability < 1:
        raise InputError(f"a prior or probability lies in (0, 1) for its log-odds to be finite, got {probability}")
    return math.log(probability) - math.log1p(-probability)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _tensor(value: Hyperparameter, like: Tensor) -> Tensor:
    # `as_tensor(value).to(like)` would take a float through float32.
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)


def _constant(values: Sequence[float], like: Tensor) -> Tensor:
    """The tensor of some numbers, copied to a device once rather than in every step."""
    if torch.compiler.is_compiling():  # what a tracer made must not outlive it
        return like.new_tensor(values)
    return _kept(tuple(values), like.dtype, like.device)


@functools.lru_cache(maxsize=256)
def _kept(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # or training could not use what scoring made
        return torch.tensor(values, dtype=dtype, device=device)


def _column(value: Hyperparameter, like: Tensor) -> Tensor:
    """A hyperparameter that broadcasts against (N, K): shape () or (N, 1)."""
    tensor = _tensor(value, like)
    return tensor.unsqueeze(-1) if tensor.ndim else tensor


@dataclass(frozen=True)
class LossFamily(ABC):
    """A loss with named hyperparameters, and its link.

    Args:
        class_counts: how many training samples (or how much sample weight) each of the K classes has; positive.
            Only the ratios matter.

    Raises:
        InputError: fewer than two classes, or a count that is not positive and finite.
    """

    class_counts: Sequence[float]
    beta: float = field(init=False)

    name: ClassVar[str]
    hyperparameters: ClassVar[Mapping[str, tuple[float, float]]]
    """Each hyperparameter's closed range, where the loss has a link."""
    neutral: ClassVar[Mapping[str, float]]
    """The value of each hyperparameter at which the family is the cross-entropy (up to a constant factor)."""

    def __post_init__(self) -> None:
        counts = tuple(float(n) for n in self.class_counts)
        if len(counts) < 2 or not all(0 < n < math.inf for n in counts):
            raise InputError(f"class_counts needs two or more positive finite numbers, got {counts}")
        object.__setattr__(self, "class_counts", counts)
        object.__setattr__(self, "beta", counts[0] / counts[1] if len(counts) == 2 else max(counts) / min(counts))

    @property
    def domain(self) -> Mapping[str, tuple[float, float]]:
        """Each hyperparameter's closed range, where the loss is defined."""
        return self.hyperparameters

    @property
    def prior(self) -> float:
        """The share of the positive class in the training data.

        Raises:
            InputError: more than two classes, of which none is the positive one. So do `margin` and `log_odds`.
        """
        self._check_binary("prior")
        return self.class_counts[1] / sum(self.class_counts)

    def loss(self, logits: Tensor, target: Tensor, **lam: Hyperparameter) -> Tensor:
        """The loss of each sample, not averaged.

        Args:
            logits: (N, K), any floating dtype; half precision is computed in float32.
            target: (N,) class indices, int64.
            lam: the family's hyperparameters by name: numbers, or tensors of shape () or (N,), whose values are not
                looked at.

        Returns:
            (N,) non-negative losses, float32 or wider.

        Raises:
            InputError: hyperparameters that are missing, unknown or out of range.
        """
        self._check(lam)
        return self._loss(logits, target, **lam)

    @abstractmethod
    def _loss(self, logits: Tensor, target: Tensor, **lam: Hyperparameter) -> Tensor:
        """As `loss`, of hyperparameters that are as they should be."""

    def _check(self, lam: Mapping[str, Hyperparameter]) -> None:
        ranges = self.domain
        numbers = {name: value for name, value in lam.items() if isinstance(value, int | float) and name in ranges}
        if lam.keys() == ranges.keys() and all(low <= numbers.get(n, low) <= high for n, (low, high) in ranges.items()):
            return
        problems = Problems()
        for name in ranges.keys() - lam.keys():
            problems.add(f"loss {self.name!r} needs its hyperparameter {name!r}, got {', '.join(lam) or 'none'}")
        for name in lam.keys() - ranges.keys():
            hint = did_you_mean(name, ranges) if ranges else "; it has none"
            problems.add(f"loss {self.name!r} has no hyperparameter {name!r}{hint}")
        for name, value in numbers.items():
            low, high = ranges[name]
            problems.check(
                low <= value <= high, f"{name} of loss {self.name!r} must lie in [{low:g}, {high:g}], got {value}"
            )
        problems.raise_if_any()

    def scale(self, like: Tensor, **lam: Hyperparameter) -> Tensor:
        """What the family multiplies the logits by, broadcastable to (N, K)."""
        return torch.ones(len(self.class_counts), dtype=like.dtype, device=like.device)

    @abstractmethod
    def unnormalised(self, scaled: Tensor, **lam: Hyperparameter) -> Tensor:
        """(N, K) log posteriors up to a constant a row, from scaled logits (N, K), under the training frequencies."""

    @abstractmethod
    def shift(self, like: Tensor, **lam: Hyperparameter) -> Tensor | None:
        """What the link adds to the margin, in the shape of the hyperparameters; None where `link` is no mere shift."""

    def link(self, margin: Tensor, **lam: Hyperparameter) -> Tensor:
        """Posterior log-odds of the positive class under the training prior, from the margin, elementwise.

        Args:
            margin: s_+ z_+ - s_- z_-, with s the family's `scale`, any shape.
            lam: hyperparameters, broadcastable to `margin`.
        """
        shift = self.shift(margin, **lam)
        assert shift is not None, f"{type(self).__name__} needs a link of its own"
        return margin + shift

    def margin(self, logits: Tensor, **lam: Hyperparameter) -> Tensor:
        """(N,) s_+ z_+ - s_- z_- of binary logits (N, 2): the one number of a sample on which the loss depends."""
        self._check_binary("margin", logits.shape[-1])
        self._check(lam)
        scaled = self._scaled(logits, **lam)
        return scaled[..., 1] - scaled[..., 0]

    def log_odds(self, logits: Tensor, prior: float | None = None, **lam: Hyperparameter) -> Tensor:
        """(N,) posterior log-odds of the positive class, from binary logits (N, 2).

        Args:
            prior: the share of positives where the model is used, in (0, 1); None is the training prior.
        """
        self._check_binary("log_odds", logits.shape[-1])
        shift = 0.0 if prior is None else logit(prior) - logit(self.prior)
        return self.link(self.margin(logits, **lam), **lam) + shift

    def log_posterior(self, logits: Tensor, prior: Sequence[float] | None = None, **lam: Hyperparameter) -> Tensor:
        """(N, K) log posterior probabilities, from logits (N, K).

        Args:
            prior: K positive numbers that sum to one; None is the training frequencies.
        """
        self._check(lam)
        scores = self.unnormalised(self._scaled(logits, **lam), **lam)
        if prior is not None:
            trained = torch.tensor(self.class_counts, dtype=torch.float64)
            wanted = torch.tensor(tuple(prior), dtype=torch.float64)
            if wanted.shape != trained.shape or not (wanted > 0).all() or abs(float(wanted.sum()) - 1) > 1e-6:
                raise InputError(f"prior needs {len(trained)} positive shares that sum to 1, got {list(prior)}")
            scores = scores + (wanted.log() - (trained / trained.sum()).log()).to(scores)
        return F.log_softmax(scores, dim=-1)

    def _check_binary(self, what: str, columns: int = 2) -> None:
        if not len(self.class_counts) == columns == 2:
            k = max(len(self.class_counts), columns)
            raise InputError(f"{what} is of a positive and a negative class, got {k} classes: use log_posterior")

    def _scaled(self, logits: Tensor, **lam: Hyperparameter) -> Tensor:
        logits = _at_least_float32(logits)
        return logits * self.scale(logits, **lam)


@dataclass(frozen=True)
class CrossEntropy(LossFamily):
    """The cross-entropy, -log p_y. It has no hyperparameters; its link is the identity."""

    name: ClassVar[str] = "cross_entropy"
    hyperparameters: ClassVar[Mapping[str, tuple[float, float]]] = {}
    neutral: ClassVar[Mapping[str, float]] = {}

    def _loss(self, logits: Tensor, target: Tensor, **lam: Hyperparameter) -> Tensor:
        return F.cross_entropy(_at_least_float32(logits), target, reduction="none")

    def unnormalised(self, scaled: Tensor, **lam: Hyperparameter) -> Tensor:
        return scaled

    def shift(self, like: Tensor, **lam: Hyperparameter) -> Tensor:
        return like.new_zeros(())


@dataclass(frozen=True)
class WeightedCrossEntropy(LossFamily):
    """Class-weighted cross-entropy, -w_y log p_y with w_c = (n / (K n_c))^omega.

    omega = 0 is the plain cross-entropy and omega = 1 is scikit-learn's `class_weight="balanced"` (Xie & Manski 1989).
    Weights move the minimiser by log w: P(c|x) is proportional to exp(z_c) / w_c.
    """

    name: ClassVar[str] = "weighted_cross_entropy"
    hyperparameters: ClassVar[Mapping[str, tuple[float, float]]] = {"omega": (0.0, math.inf)}
    neutral: ClassVar[Mapping[str, float]] = {"omega": 0.0}

    def _loss(self, logits: Tensor, target: Tensor, **lam: Hyperparameter) -> Tensor:
        loss = F.cross_entropy(_at_least_float32(logits), target, reduction="none")
        return loss * self._log_weight(loss, **lam).expand(*loss.shape, -1).gather(-1, target[:, None])[:, 0].exp()

    def unnormalised(self, scaled: Tensor, **lam: Hyperparameter) -> Tensor:
        return scaled - self._log_weight(scaled, **lam)

    def shift(self, like: Tensor, **lam: Hyperparameter) -> Tensor:
        return -_tensor(lam["omega"], like) * math.log(self.class_counts[0] / self.class_counts[1])

    def _log_weight(self, like: Tensor, *, omega: Hyperparameter) -> Tensor:
        balanced = [math.log(sum(self.class_counts) / (len(self.class_counts) * n)) for n in self.class_counts]
        return _column(omega, like) * _constant(balanced, like)


@dataclass(frozen=True)
class Focal(LossFamily):
    """alpha-balanced focal loss, -alpha_y (1 - p_y)^phi log p_y (Eq. 2; Lin et al. 2017).

    Two classes: alpha_+ = alpha, alpha_- = 1 - alpha; at 0 or 1 one class would not count, and no link could tell it. K
    classes: alpha is a tensor of K (or N x K) positive weights; or one number in (0, 1), of which the rarest class has
    alpha, the most frequent 1 - alpha, and those between alpha^t (1 - alpha)^(1 - t), where t falls linearly with the
    logarithm of their frequency. Where all are equally frequent, all weigh the same.

    Its minimiser is not the posterior, but maps to it: with g(p) = p / ((1-p)^phi - phi (1-p)^(phi-1) p log p), P(c|x)
    is proportional to g(p_c) / alpha_c (Charoenphakdee et al., CVPR 2021, for alpha constant).
    """

    name: ClassVar[str] = "focal"
    hyperparameters: ClassVar[Mapping[str, tuple[float, float]]] = {"alpha": (1e-3, 1 - 1e-3), "phi": (0.0, math.inf)}
    neutral: ClassVar[Mapping[str, float]] = {"alpha": 0.5, "phi": 0.0}

    @property
    def domain(self) -> Mapping[str, tuple[float, float]]:
        return {**self.hyperparameters, "alpha": (0.0, 1.0)} if len(self.class_counts) == 2 else self.hyperparameters

    def _loss(self, logits: Tensor, target: Tensor, **lam: Hyperparameter) -> Tensor:
        log_p = F.log_softmax(_at_least_float32(logits), dim=-1)
        is_target = F.one_hot(target, log_p.shape[-1]).bool()
        log_p_y = log_p.gather(-1, target[:, None])[:, 0]
        log_1mp_y = log_p.masked_fill(is_target, -math.inf).logsumexp(-1)
        alpha_y = self._weights(log_p, lam["alpha"]).expand_as(log_p).gather(-1, target[:, None])[:, 0]
        phi = _tensor(lam["phi"], log_p)
        return -alpha_y * torch.exp(phi * log_1mp_y) * log_p_y

    def unnormalised(self, scaled: Tensor, **lam: Hyperparameter) -> Tensor:
        log_p = F.log_softmax(scaled, dim=-1)
        others = ~torch.eye(log_p.shape[-1], dtype=torch.bool, device=log_p.device)
        log_1mp = log_p.unsqueeze(-2).masked_fill(~others, -math.inf).logsumexp(-1)
        phi = _column(lam["phi"], log_p)
        return _log_g(log_p, log_1mp, phi) - self._weights(log_p, lam["alpha"]).log()

    def shift(self, like: Tensor, **lam: Hyperparameter) -> None:
        return None

    def link(self, margin: Tensor, **lam: Hyperparameter) -> Tensor:
        phi, alpha = (_tensor(lam[name], margin) for name in ("phi", "alpha"))
        log_p, log_1mp = F.logsigmoid(margin), F.logsigmoid(-margin)
        return _log_g(log_p, log_1mp, phi) - _log_g(log_1mp, log_p, phi) - torch.logit(alpha)

    def _weights(self, like: Tensor, alpha: Hyperparameter) -> Tensor:
        if len(self.class_counts) == 2:
            positive = _column(alpha, like)
            return torch.stack([1 - positive, positive], dim=-1).reshape(-1, 2)
        weights = _tensor(alpha, like)
        if not weights.ndim:
            return torch.exp(_constant(self._rarity, like) * torch.logit(weights) + torch.log1p(-weights))
        if weights.shape[-1] != len(self.class_counts):
            k = len(self.class_counts)
            raise InputError(
                f"focal loss of {k} classes needs alpha with {k} weights, or one number, got shape "
                f"{tuple(weights.shape)}"
            )
        return weights

    @property
    def _rarity(self) -> list[float]:
        """Of each class, from 0 for the most frequent to 1 for the rarest; all 1/2 where they are alike."""
        most, ratio = max(self.class_counts), math.log(self.beta)
        return [math.log(most / n) / ratio if ratio > 0 else 0.5 for n in self.class_counts]


def _log_g(log_p: Tensor, log_1mp: Tensor, phi: Tensor) -> Tensor:
    """log g(p) of the focal link from log p and log(1-p), without leaving the log domain.

    g(p) = p / ((1-p)^(phi-1) ((1-p) - phi p log p)). log(-log p) comes from whichever of log p and log(1-p) is far from
    zero, and from its series where 1-p is tiny.
    """
    log_minus_log_p = torch.where(
        log_1mp < -15,
        log_1mp + log_1mp.exp() / 2,
        torch.where(log_1mp < -0.7, torch.log(-torch.log1p(-log_1mp.exp())), torch.log(-log_p)),
    )
    inner = torch.logaddexp(log_1mp, torch.log(phi) + log_p + log_minus_log_p)
    return log_p - (phi - 1) * log_1mp - inner


@dataclass(frozen=True)
class VectorScaling(LossFamily):
    """Vector scaling (VS) loss: the cross-entropy of Delta_c z_c + iota_c (Eq. 3; Kini et al. 2021).

    Delta_c = (n_c / n_max)^gamma and iota_c = tau log(n_c / n). For two classes it is the logistic loss of
    eta = z_+ / beta^gamma - (z_- + tau log beta) (Eq. 4). gamma = 0, tau = 1 is logit adjustment (Menon et al. 2021).
    Being a cross-entropy of the transformed logits, its link is the transformation itself.
    """

    name: ClassVar[str] = "vs"
    hyperparameters: ClassVar[Mapping[str, tuple[float, float]]] = {"gamma": (0.0, math.inf), "tau": (0.0, math.inf)}
    neutral: ClassVar[Mapping[str, float]] = {"gamma": 0.0, "tau": 0.0}

    def _loss(self, logits: Tensor, target: Tensor, **lam: Hyperparameter) -> Tensor:
        return F.cross_entropy(self.unnormalised(self._scaled(logits, **lam), **lam), target, reduction="none")

    def scale(self, like: Tensor, **lam: Hyperparameter) -> Tensor:
        log_ratio = _constant([math.log(n / max(self.class_counts)) for n in self.class_counts], like)
        return torch.exp(_column(lam["gamma"], like) * log_ratio)

    def unnormalised(self, scaled: Tensor, **lam: Hyperparameter) -> Tensor:
        log_share = _constant([math.log(n / sum(self.class_counts)) for n in self.class_counts], scaled)
        return scaled + _column(lam["tau"], scaled) * log_share

    def shift(self, like: Tensor, **lam: Hyperparameter) -> Tensor:
        return -_tensor(lam["tau"], like) * math.log(self.class_counts[0] / self.class_counts[1])


@dataclass(frozen=True)
class LDAM(LossFamily):
    """Label-distribution-aware margin loss: the cross-entropy of s (z - Delta_y e_y) (Cao et al. 2019).

    Delta_c = max_m (n_c / n_min)^(-1/4): the rarest class has the margin max_m. Made for logits that are cosines
    (`model.head = "cosine"`), which s brings back to a range where a softmax can be sure of itself; other logits can
    make up for any margin by growing.

    With a = s Delta, the derivative of the conditional risk is zero where P(c|x) is proportional to
    e^(s z_c) (sum_k e^(s z_k) - e^(s z_c) (1 - e^(-a_c))).
    """

    name: ClassVar[str] = "ldam"
    hyperparameters: ClassVar[Mapping[str, tuple[float, float]]] = {"max_m": (0.0, math.inf), "s": (1e-3, math.inf)}
    neutral: ClassVar[Mapping[str, float]] = {"max_m": 0.0, "s": 1.0}

    def _loss(self, logits: Tensor, target: Tensor, **lam: Hyperparameter) -> Tensor:
        scaled = self._scaled(logits, **lam)
        margin = F.one_hot(target, scaled.shape[-1]) * self._margins(scaled, **lam)
        return F.cross_entropy(scaled - margin, target, reduction="none")

    def scale(self, like: Tensor, **lam: Hyperparameter) -> Tensor:
        return _column(lam["s"], like) * _constant([1.0] * len(self.class_counts), like)

    def unnormalised(self, scaled: Tensor, **lam: Hyperparameter) -> Tensor:
        others = ~torch.eye(scaled.shape[-1], dtype=torch.bool, device=scaled.device)
        rest = scaled.unsqueeze(-2).masked_fill(~others, -math.inf).logsumexp(-1)
        return scaled + torch.logaddexp(rest, scaled - self._margins(scaled, **lam))

    def shift(self, like: Tensor, **lam: Hyperparameter) -> None:
        return None

    def link(self, margin: Tensor, **lam: Hyperparameter) -> Tensor:
        height = _tensor(lam["s"], margin) * _tensor(lam["max_m"], margin)
        negative, positive = (height * root for root in self._roots)
        return F.logsigmoid(margin + negative) - F.logsigmoid(positive - margin)

    @property
    def _roots(self) -> list[float]:
        return [(n / min(self.class_counts)) ** -0.25 for n in self.class_counts]

    def _margins(self, like: Tensor, *, max_m: Hyperparameter, s: Hyperparameter) -> Tensor:
        return _column(s, like) * _column(max_m, like) * _constant(self._roots, like)


FAMILIES: Mapping[str, type[LossFamily]] = {
    family.name: family for family in (CrossEntropy, WeightedCrossEntropy, Focal, VectorScaling, LDAM)
}


def loss_family(name: str, class_counts: Sequence[float], **options: Any) -> LossFamily:
    """The loss family called `name`: one of `cross_entropy`, `weighted_cross_entropy`, `focal`, `vs`, `ldam`."""
    if name not in FAMILIES:
        raise InputError(f"there is no loss {name!r}{did_you_mean(name, FAMILIES)}")
    return FAMILIES[name](class_counts, **options)
