"""Losses against their equations, links against the minimiser of the expected loss, and both far out in float range."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import optimize, stats
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from torch.nn import functional as F

from tunelater import losses
from tunelater.distributions import LambdaSpace, Linear, Uniform
from tunelater.film import FiLM, LossConditional
from tunelater.losses import FAMILIES, LossFamily, VectorScaling, logit, loss_family
from tunelater.problems import InputError

Lam = dict[str, float]

LAMBDAS: list[tuple[str, Lam]] = [
    ("cross_entropy", {}),
    *(("weighted_cross_entropy", {"omega": omega}) for omega in (0.0, 0.5, 1.0)),
    *(("focal", {"alpha": a, "phi": p}) for a in (0.1, 0.5, 0.9) for p in (0.0, 0.3, 1.0, 2.5)),
    *(("vs", {"gamma": g, "tau": t}) for g in (0.0, 0.2) for t in (0.0, 1.0, 3.0)),
    *(("ldam", {"max_m": m, "s": s}) for m in (0.0, 0.5) for s in (1.0, 4.0)),
]
"""Binary lambdas of every family, neutral ones among them."""


def named(cases: Sequence[tuple[str, Lam]]) -> dict[str, object]:
    """Arguments of `parametrize` that name each case after its family and lambda."""
    ids = ["-".join([name, *(f"{key}={value:g}" for key, value in lam.items())]) for name, lam in cases]
    return {"argnames": ("name", "lam"), "argvalues": cases, "ids": ids}


def batch(n: int, k: int, *, seed: int = 0, spread: float = 3.0) -> tuple[Tensor, Tensor]:
    """Logits (n, k) in float64 and targets in which every class occurs."""
    rng = np.random.default_rng(seed)
    target = np.concatenate([np.arange(k), rng.integers(0, k, n - k)])
    return torch.from_numpy(rng.normal(scale=spread, size=(n, k))), torch.from_numpy(target)


def naive_p(z: Sequence[float]) -> list[float]:
    return [math.exp(v) / sum(math.exp(w) for w in z) for v in z]


def balanced_weights(counts: Sequence[float], omega: float) -> list[float]:
    return [(sum(counts) / (len(counts) * n)) ** omega for n in counts]


# ---------------------------------------------------------------------------------------------------------------------
# The equations
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(500, 25), (10, 70), (100, 10, 3), (3, 50, 1000, 40, 7)])
@pytest.mark.parametrize(("gamma", "tau"), [(0, 0), (0.2, 0), (0, 1), (0.3, 2.7)])
def test_vs_loss_equals_a_loop_over_equation_3(counts: Sequence[int], gamma: float, tau: float) -> None:
    logits, target = batch(50, len(counts))
    delta = [(n / max(counts)) ** gamma for n in counts]
    iota = [tau * math.log(n / sum(counts)) for n in counts]
    expected = []
    for z, y in zip(logits.tolist(), target.tolist(), strict=True):
        terms = [math.exp(d * v + i) for d, v, i in zip(delta, z, iota, strict=True)]
        expected.append(-math.log(terms[y] / sum(terms)))
    ours = loss_family("vs", counts).loss(logits, target, gamma=gamma, tau=tau)
    np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("counts", [(20, 1), (137, 11), (10_000, 1)])
def test_binary_vs_loss_equals_equation_4(counts: tuple[int, int]) -> None:
    family, (logits, target) = VectorScaling(counts), batch(50, 2)
    beta, gamma, tau = counts[0] / counts[1], 0.2, 1.7
    assert family.beta == beta
    eta = logits[:, 1] / beta**gamma - (logits[:, 0] + tau * math.log(beta))
    expected = torch.log(1 + torch.exp(torch.where(target == 1, -eta, eta)))
    torch.testing.assert_close(family.loss(logits, target, gamma=gamma, tau=tau), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("counts", [(500, 25), (100, 10, 3)])
def test_focal_loss_equals_a_loop_over_equation_2(counts: Sequence[int]) -> None:
    logits, target = batch(50, len(counts))
    alpha = 0.3 if len(counts) == 2 else torch.tensor([0.2, 0.7, 1.4], dtype=torch.float64)
    alpha_y = [0.7, 0.3] if len(counts) == 2 else [0.2, 0.7, 1.4]
    for phi in (0, 0.4, 1, 2.5):
        expected = []
        for z, y in zip(logits.tolist(), target.tolist(), strict=True):
            p = naive_p(z)[y]
            expected.append(-alpha_y[y] * (1 - p) ** phi * math.log(p))
        ours = loss_family("focal", counts).loss(logits, target, alpha=alpha, phi=phi)
        np.testing.assert_allclose(ours, expected, rtol=1e-10)


@pytest.mark.parametrize("counts", [(500, 25), (100, 10, 3)])
@pytest.mark.parametrize("omega", [0.0, 0.5, 1.0])
def test_weighted_cross_entropy_equals_torchs_class_weights(counts: Sequence[int], omega: float) -> None:
    logits, target = batch(50, len(counts))
    weight = torch.tensor(balanced_weights(counts, omega), dtype=torch.float64)
    expected = F.cross_entropy(logits, target, weight=weight, reduction="none")
    ours = loss_family("weighted_cross_entropy", counts).loss(logits, target, omega=omega)
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)


def test_weights_at_omega_1_are_scikit_learns_balanced_ones() -> None:
    counts = (100, 10, 3)
    labels = np.repeat(np.arange(3), counts)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    logits, target = batch(20, 3)
    ratio = loss_family("weighted_cross_entropy", counts).loss(logits, target, omega=1.0) / F.cross_entropy(
        logits, target, reduction="none"
    )
    np.testing.assert_allclose(ratio, expected[target], rtol=1e-10)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("counts", [(500, 25), (100, 10, 3)])
def test_neutral_lambda_is_the_cross_entropy(name: str, counts: Sequence[int]) -> None:
    """Up to a factor of 1/2 for the focal loss, whose class weights then are alpha = 1 - alpha = 1/2."""
    logits, target = batch(50, len(counts))
    neutral = dict(FAMILIES[name].neutral)
    if name == "focal" and len(counts) == 3:
        neutral["alpha"] = torch.full((3,), 0.5, dtype=torch.float64)
    ours = loss_family(name, counts).loss(logits, target, **neutral)
    expected = F.cross_entropy(logits, target, reduction="none") * (0.5 if name == "focal" else 1)
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)


# ---------------------------------------------------------------------------------------------------------------------
# One lambda a sample
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_a_lambda_for_each_sample_equals_a_loop_over_samples(name: str) -> None:
    family, (logits, target), rng = loss_family(name, (300, 20)), batch(30, 2), np.random.default_rng(1)
    lam = {h: torch.from_numpy(rng.uniform(0.05, 0.95, 30)) for h in family.hyperparameters}
    one = [
        (logits[i : i + 1], target[i : i + 1], {h: float(values[i]) for h, values in lam.items()}) for i in range(30)
    ]
    for ours, singles in [
        (family.loss(logits, target, **lam), [family.loss(z, y, **at) for z, y, at in one]),
        (family.margin(logits, **lam), [family.margin(z, **at) for z, _, at in one]),
        (family.log_odds(logits, 0.2, **lam), [family.log_odds(z, 0.2, **at) for z, _, at in one]),
        (family.log_posterior(logits, **lam), [family.log_posterior(z, **at) for z, _, at in one]),
    ]:
        torch.testing.assert_close(ours, torch.cat(singles), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_lambda_for_each_sample_of_three_classes_equals_a_loop(name: str) -> None:
    family, (logits, target), rng = loss_family(name, (300, 20, 100)), batch(30, 3), np.random.default_rng(1)
    lam = {h: torch.from_numpy(rng.uniform(0.05, 0.95, 30)) for h in family.hyperparameters}
    if name == "focal":
        lam["alpha"] = torch.from_numpy(rng.uniform(0.05, 0.95, (30, 3)))
    ours = family.loss(logits, target, **lam), family.log_posterior(logits, **lam)
    for i in range(30):
        at = {h: values[i] if values.ndim == 2 else float(values[i]) for h, values in lam.items()}
        z, y = logits[i : i + 1], target[i : i + 1]
        torch.testing.assert_close(ours[0][i : i + 1], family.loss(z, y, **at), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(ours[1][i : i + 1], family.log_posterior(z, **at), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("counts", [(500, 25), (100, 10, 3)])
def test_ldam_loss_equals_a_loop_that_takes_the_margin_off_the_target(counts: Sequence[int]) -> None:
    logits, target = batch(50, len(counts))
    expected = []
    for z, y in zip(logits.tolist(), target.tolist(), strict=True):
        margin = 0.5 * (min(counts) / counts[y]) ** 0.25
        expected.append(-math.log(naive_p([5 * (v - margin * (c == y)) for c, v in enumerate(z)])[y]))
    ours = loss_family("ldam", counts).loss(logits, target, max_m=0.5, s=5.0)
    torch.testing.assert_close(ours, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("counts", [(500, 25), (100, 10, 3)])
def test_the_expected_ldam_loss_is_least_where_its_link_gives_the_posterior(counts: Sequence[int]) -> None:
    family, logits = loss_family("ldam", counts), batch(6, len(counts), spread=1)[0].requires_grad_()
    posterior = family.log_posterior(logits, max_m=0.5, s=3.0).exp().detach()
    risk = sum(
        posterior[:, c] @ family.loss(logits, torch.full((len(logits),), c), max_m=0.5, s=3.0)
        for c in range(len(counts))
    )
    (gradient,) = torch.autograd.grad(risk, logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


# ---------------------------------------------------------------------------------------------------------------------
# Far out in the range of floating point
# ---------------------------------------------------------------------------------------------------------------------

EXTREME: list[tuple[str, Lam]] = [
    ("cross_entropy", {}),
    *(("weighted_cross_entropy", {"omega": omega}) for omega in (0.0, 1.0, 2.0)),
    *(("focal", {"alpha": a, "phi": p}) for a in (0.0, 0.01, 1.0) for p in (0.0, 0.01, 0.5, 1.0, 1.5, 7.0)),
    *(("vs", {"gamma": g, "tau": t}) for g in (0.0, 0.3, 2.0) for t in (0.0, 1.0, 10.0)),
    *(("ldam", {"max_m": m, "s": s}) for m in (0.0, 2.0) for s in (0.1, 1.0)),
]


def extreme_logits(largest: float) -> Tensor:
    """Every pair of logits from a set that is dense near zero and reaches to `largest`, equal ones among them."""
    sizes = [size for size in (1e-3, 1, 10, 17, 30, 50, 89, 100, 1e3, 1e4) if size <= largest]
    values = [0.0, *sizes, *(-size for size in sizes)]
    return torch.tensor(list(itertools.product(values, values)), dtype=torch.float64)


def loss_and_gradient(family: LossFamily, logits: Tensor, positive: int, lam: Lam) -> tuple[Tensor, Tensor]:
    z = logits.clone().requires_grad_()
    loss = family.loss(z, torch.full((len(z),), positive), **lam)
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    return loss.detach(), gradient


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("beta", [1.0, 50.0, 1e6])
@pytest.mark.parametrize(**named(EXTREME))
def test_losses_and_gradients_are_finite_for_extreme_logits(
    dtype: torch.dtype, beta: float, name: str, lam: Lam
) -> None:
    """They are also those of float64, as far as the rounding of logits of 1e4 lets them be."""
    family, logits = loss_family(name, (beta, 1)), extreme_logits(1e4).to(dtype)
    for positive in (0, 1):
        loss, gradient = loss_and_gradient(family, logits, positive, lam)
        assert loss.dtype == torch.float32
        assert gradient.dtype == dtype
        assert torch.isfinite(loss).all()
        assert torch.isfinite(gradient).all()
        assert (loss >= 0).all()
        exact, exact_gradient = loss_and_gradient(family, logits.double(), positive, lam)
        size = float(family.loss(torch.zeros(1, 2), torch.tensor([positive]), **lam))
        torch.testing.assert_close(loss.double(), exact, rtol=5e-3, atol=5e-3 * max(size, 1))
        size = float(exact_gradient.abs().max())
        tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-3
        torch.testing.assert_close(gradient.double(), exact_gradient, rtol=1e-2, atol=tolerance * size + 1e-30)


def naive_loss(name: str, lam: Lam, beta: float, logits: Tensor, positive: int) -> Tensor:
    """Equations 2 and 4, the weighted cross-entropy and LDAM as they are printed."""
    p_y = logits.softmax(-1)[:, positive]
    if name == "focal":
        return -(lam["alpha"] if positive else 1 - lam["alpha"]) * (1 - p_y) ** lam["phi"] * torch.log(p_y)
    if name == "vs":
        eta = logits[:, 1] / beta ** lam["gamma"] - (logits[:, 0] + lam["tau"] * math.log(beta))
        return torch.log(1 + torch.exp(-eta if positive else eta))
    if name == "ldam":
        margin = lam["max_m"] * (1.0 if positive else beta**-0.25)
        wrong = logits[:, 1 - positive] - logits[:, positive] + margin
        return torch.log(1 + torch.exp(lam["s"] * wrong))
    return -balanced_weights((beta, 1), lam.get("omega", 0))[positive] * torch.log(p_y)


@pytest.mark.parametrize(**named([case for case in LAMBDAS if case[0] != "focal" or case[1]["phi"] != 0.3]))
def test_gradient_equals_autograd_through_the_equation(name: str, lam: Lam) -> None:
    """Where float64 holds 1 - p to six digits: logits up to 10."""
    beta = 20.0
    family, logits = loss_family(name, (beta, 1)), extreme_logits(10)
    for positive in (0, 1):
        z = logits.clone().requires_grad_()
        (expected,) = torch.autograd.grad(naive_loss(name, lam, beta, z, positive).sum(), z)
        _, in_float64 = loss_and_gradient(family, logits, positive, lam)
        torch.testing.assert_close(in_float64, expected, rtol=1e-6, atol=1e-12)
        _, in_float32 = loss_and_gradient(family, logits.float(), positive, lam)
        size = float(expected.abs().max())
        torch.testing.assert_close(in_float32.double(), expected, rtol=1e-4, atol=1e-6 * size)


@pytest.mark.parametrize(**named(LAMBDAS))
def test_gradient_equals_finite_differences(name: str, lam: Lam) -> None:
    family, (logits, target) = loss_family(name, (20, 1)), batch(12, 2)
    assert torch.autograd.gradcheck(lambda z: family.loss(z, target, **lam), logits.requires_grad_())


@pytest.mark.parametrize("name", FAMILIES)
def test_gradient_of_three_classes_equals_finite_differences(name: str) -> None:
    family, (logits, target) = loss_family(name, (100, 10, 3)), batch(12, 3)
    lam = three_class_lambdas(name)[-1]
    assert torch.autograd.gradcheck(lambda z: family.loss(z, target, **lam), logits.requires_grad_())


# ---------------------------------------------------------------------------------------------------------------------
# The link
# ---------------------------------------------------------------------------------------------------------------------


def log_g(p: Tensor, phi: float) -> Tensor:
    return torch.log(p / ((1 - p) ** phi - phi * (1 - p) ** (phi - 1) * p * torch.log(p)))


@pytest.mark.parametrize("counts", [(500, 25), (20, 90)])
@pytest.mark.parametrize(**named(LAMBDAS))
def test_log_odds_are_the_closed_form(name: str, lam: Lam, counts: tuple[int, int]) -> None:
    logits = batch(200, 2, spread=2)[0]
    beta = counts[0] / counts[1]
    z_neg, z_pos = logits.T
    if name == "vs" and beta > 1:
        expected = z_pos / beta ** lam["gamma"] - (z_neg + lam["tau"] * math.log(beta))
    elif name == "vs":  # Eq. 21: the multiplier is relative to the larger class
        expected = z_pos - (z_neg * beta ** lam["gamma"] + lam["tau"] * math.log(beta))
    elif name == "focal":
        p = logits.softmax(-1)[:, 1]
        expected = log_g(p, lam["phi"]) - log_g(1 - p, lam["phi"]) - math.log(lam["alpha"] / (1 - lam["alpha"]))
    elif name == "ldam":
        s_neg, s_pos = (lam["s"] * lam["max_m"] * (n / min(counts)) ** -0.25 for n in counts)
        m = lam["s"] * (z_pos - z_neg)
        expected = torch.log((1 + torch.exp(m - s_pos)) / (1 + torch.exp(-m - s_neg)))
    else:
        w_neg, w_pos = balanced_weights(counts, lam.get("omega", 0))
        expected = z_pos - z_neg - math.log(w_pos / w_neg)
    torch.testing.assert_close(loss_family(name, counts).log_odds(logits, **lam), expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(**named(LAMBDAS))
def test_link_of_the_margin_of_least_expected_loss_is_the_posterior(name: str, lam: Lam) -> None:
    """For a posterior q, minimise q loss(+) + (1 - q) loss(-) over the margin; the link there is logit(q)."""
    family = loss_family(name, (20, 1))
    scale = family.scale(torch.zeros(1, dtype=torch.float64), **lam).reshape(-1)

    def risk(margin: float | NDArray, q: float) -> NDArray:
        m = torch.as_tensor(np.atleast_1d(margin), dtype=torch.float64)
        logits = torch.stack([-m, m], dim=-1) / (2 * scale)
        torch.testing.assert_close(family.margin(logits, **lam), m)
        positive, negative = (family.loss(logits, torch.full((len(m),), y), **lam).numpy() for y in (1, 0))
        return q * positive + (1 - q) * negative

    grid = np.linspace(-40, 40, 801)
    for q in (0.001, 0.02, 0.3, 0.5, 0.9, 0.995):
        near = grid[np.argmin(risk(grid, q))]
        best = optimize.minimize_scalar(
            lambda m, q=q: risk(m, q)[0], bounds=(near - 0.2, near + 0.2), method="bounded", options={"xatol": 1e-9}
        )
        linked = family.link(torch.tensor(best.x, dtype=torch.float64), **lam)
        assert float(linked) == pytest.approx(logit(q), abs=1e-4)


@pytest.mark.parametrize(("dtype", "largest"), [(torch.float32, 1e4), (torch.float64, 1e3)])
@pytest.mark.parametrize(
    **named([*LAMBDAS, *(("focal", {"alpha": 0.3, "phi": p}) for p in (1e-3, 0.999, 5.0, 50.0))]),
)
def test_link_is_finite_and_strictly_increasing(dtype: torch.dtype, largest: float, name: str, lam: Lam) -> None:
    # Steps of 1e-3 relative and 1e-3 absolute: well above rounding, also after a shift of 9 (tau = 3).
    positive = [0.0]
    while positive[-1] < largest:
        positive.append(positive[-1] * 1.001 + 1e-3)
    half = torch.tensor([*positive[:-1], largest], dtype=torch.float64)
    margin = torch.cat([-half[1:].flip(0), half]).to(dtype)
    linked = loss_family(name, (20, 1)).link(margin, **lam)
    assert linked.dtype == dtype
    assert torch.isfinite(linked).all()
    assert (linked.diff() > 0).all()


@pytest.mark.parametrize("phi", [0.0, 1e-3, 0.3, 1.0, 2.5, 20.0])
def test_focal_link_is_exact_also_where_the_probability_saturates(phi: float) -> None:
    """The link switches between formulas at log(1 - p) = -0.7 and -15; neither switch may show, in any precision."""

    def log_g_of(margin: NDArray) -> NDArray:
        # Sums of positive numbers and log1p of small ones: nothing cancels.
        log_p, log_1mp = -np.log1p(np.exp(-margin)), -np.log1p(np.exp(margin))
        return log_p - (phi - 1) * log_1mp - np.log(np.exp(log_1mp) - phi * np.exp(log_p) * log_p)

    margin = np.linspace(-40, 40, 8_001).astype(np.float32).astype(np.float64)
    expected = torch.from_numpy(log_g_of(margin) - log_g_of(-margin) - math.log(0.3 / 0.7))
    family, exact = loss_family("focal", (20, 1)), torch.from_numpy(margin)
    torch.testing.assert_close(family.link(exact, alpha=0.3, phi=phi), expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(family.link(exact.float(), alpha=0.3, phi=phi).double(), expected, rtol=2e-6, atol=1e-5)
    logits = torch.stack([torch.zeros_like(exact), exact], dim=-1)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        posterior = family.log_posterior(logits.to(dtype), alpha=0.3, phi=phi).double()
        torch.testing.assert_close(posterior[:, 1], F.logsigmoid(expected), rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(posterior[:, 0], F.logsigmoid(-expected), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(**named(LAMBDAS))
def test_log_posterior_of_two_classes_agrees_with_the_log_odds(name: str, lam: Lam) -> None:
    family = loss_family(name, (500, 25))
    for logits in (batch(100, 2)[0], extreme_logits(100)):
        posterior = family.log_posterior(logits, **lam)
        torch.testing.assert_close(posterior.exp().sum(-1), torch.ones(len(logits), dtype=torch.float64))
        torch.testing.assert_close(
            posterior[:, 1] - posterior[:, 0], family.log_odds(logits, **lam), rtol=1e-6, atol=1e-6
        )
        shifted = family.log_posterior(logits, prior=(0.7, 0.3), **lam)
        torch.testing.assert_close(
            shifted[:, 1] - shifted[:, 0], family.log_odds(logits, prior=0.3, **lam), rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("counts", "prior"), [((500, 25), (0.6, 0.4)), ((100, 10, 3), (0.2, 0.5, 0.3))])
def test_another_prior_is_bayes_rule(name: str, counts: Sequence[int], prior: Sequence[float]) -> None:
    """P'(c|x) is proportional to P(c|x) pi'_c / pi_c."""
    family, logits = loss_family(name, counts), batch(100, len(counts))[0]
    lam = dict.fromkeys(family.hyperparameters, 0.3) if len(counts) == 2 else three_class_lambdas(name)[-1]
    trained = np.exp(family.log_posterior(logits, **lam).numpy())
    expected = trained * np.array(prior) / (np.array(counts) / sum(counts))
    expected /= expected.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(np.exp(family.log_posterior(logits, prior, **lam).numpy()), expected, rtol=1e-9)
    same = family.log_posterior(logits, [n / sum(counts) for n in counts], **lam)
    torch.testing.assert_close(same, family.log_posterior(logits, **lam))
    if len(counts) == 2:
        odds = family.log_odds(logits, prior[1], **lam).numpy()
        np.testing.assert_allclose(np.exp(odds), expected[:, 1] / expected[:, 0], rtol=1e-9)
        assert family.prior == counts[1] / sum(counts)


def three_class_lambdas(name: str) -> list[dict[str, float | Tensor]]:
    alphas = torch.tensor([[1.0, 1.0, 1.0], [0.2, 0.7, 1.4]], dtype=torch.float64)
    lams: dict[str, list[dict[str, float | Tensor]]] = {
        "cross_entropy": [{}],
        "weighted_cross_entropy": [{"omega": 0.0}, {"omega": 1.0}],
        "focal": [{"alpha": alpha, "phi": phi} for alpha in alphas for phi in (0.5, 2.0)],
        "vs": [{"gamma": gamma, "tau": tau} for gamma in (0.0, 0.2) for tau in (0.0, 1.5)],
        "ldam": [{"max_m": m, "s": s} for m in (0.2, 1.0) for s in (1.0, 3.0)],
    }
    return lams[name]


@pytest.mark.parametrize("name", FAMILIES)
def test_log_posterior_of_three_classes_minimises_the_expected_loss(name: str) -> None:
    """For a posterior q, minimise sum_c q_c loss(c) over the logits, numerically from zero."""
    family, classes = loss_family(name, (100, 10, 3)), torch.arange(3)

    def risk(free: NDArray, q: Tensor, lam: Mapping[str, float | Tensor]) -> tuple[float, NDArray]:
        z = torch.tensor([0.0, *free], dtype=torch.float64, requires_grad=True)  # one logit is free to choose
        value = q @ family.loss(z.expand(3, 3), classes, **lam)
        (gradient,) = torch.autograd.grad(value, z)
        return float(value.detach()), gradient[1:].numpy()

    for lam in three_class_lambdas(name):
        for q in torch.tensor([[0.2, 0.3, 0.5], [0.9, 0.07, 0.03], [0.01, 0.98, 0.01]], dtype=torch.float64):
            best = optimize.minimize(risk, np.zeros(2), (q, lam), jac=True, method="BFGS", options={"gtol": 1e-9})
            logits = torch.tensor([[0.0, *best.x]], dtype=torch.float64)
            torch.testing.assert_close(family.log_posterior(logits, **lam)[0], q.log(), rtol=0, atol=1e-4)


# ---------------------------------------------------------------------------------------------------------------------
# Training, then linking, recovers the posterior
# ---------------------------------------------------------------------------------------------------------------------

BETA = 20.0
MEAN = np.array([1.0, 1.0])
"""P(x|+) = Normal(MEAN, I), P(x|-) = Normal(0, I)."""

TRAINED_OVER: dict[str, tuple[LambdaSpace, list[Lam]]] = {
    "vs": (
        LambdaSpace(gamma=Linear(0, 0.3, 0), tau=Linear(0, 3, 0.33)),
        [{"gamma": g, "tau": t} for g in (0.0, 0.15) for t in (0.0, 1.0, 2.0, 3.0)],
    ),
    "focal": (
        LambdaSpace(alpha=Uniform(0.25, 0.75), phi=Uniform(0, 3)),
        [{"alpha": a, "phi": p} for a in (0.3, 0.5, 0.7) for p in (0.0, 1.0, 2.0, 2.5)],
    ),
}


def draw_two_gaussians(n: int, prior: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    target = (torch.rand(n, generator=generator) < prior).long()
    x = torch.randn(n, 2, generator=generator) + target[:, None] * torch.from_numpy(MEAN).float()
    return x, target


def true_log_odds(x: Tensor, prior: float) -> NDArray:
    points = x.numpy().astype(np.float64)
    ratio = stats.multivariate_normal(MEAN).logpdf(points) - stats.multivariate_normal(np.zeros(2)).logpdf(points)
    return ratio + math.log(prior / (1 - prior))


def train_two_gaussians(family: LossFamily, space: LambdaSpace, seed: int, steps: int = 1_200) -> LossConditional:
    """A small network trained over the space, on fresh samples, so that only the link is left to be wrong."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        film = FiLM(space, 32, hidden=64, start="identity", rescale=True)
        model = LossConditional(trunk, film, nn.Linear(32, 2))
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        x, target = draw_two_gaussians(4_096, family.prior, generator)
        lam = space.draw(seed, step)
        loss = family.loss(model(x, lam), target, **lam).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return model.eval()


def errors(log_odds: NDArray, truth: NDArray) -> tuple[float, float]:
    """Mean absolute error of the log-odds, and the Brier score in excess of the Bayes classifier's: E (p - p*)^2."""
    p, best = (np.exp(-np.logaddexp(0, -scores)) for scores in (log_odds, truth))
    return float(np.abs(log_odds - truth).mean()), float(((p - best) ** 2).mean())


@pytest.mark.parametrize("name", TRAINED_OVER)
def test_training_then_linking_recovers_the_posterior_at_every_lambda(name: str) -> None:
    family, (space, lams) = loss_family(name, (BETA, 1)), TRAINED_OVER[name]
    model = train_two_gaussians(family, space, seed=0)
    generator = torch.Generator().manual_seed(1)
    linked_errors = []
    for prior in (family.prior, 0.3):
        x, _ = draw_two_gaussians(20_000, prior, generator)
        truth = true_log_odds(x, prior)
        for lam in lams:
            with torch.inference_mode():
                logits = model(x, lam)
                linked = errors(family.log_odds(logits, prior, **lam).numpy(), truth)
                # The softmax, taken for the posterior under the training prior and moved to the other prior likewise.
                as_softmax = logits[:, 1] - logits[:, 0] + logit(prior) - logit(family.prior)
                softmax = errors(as_softmax.numpy(), truth)
            linked_errors.append(linked[0])
            assert linked[0] < 0.4, (lam, prior, linked)
            assert linked[1] < 0.004, (lam, prior, linked)
            # A softmax is right at the neutral lambda, and not far off where tau or phi is 0.
            if (lam["tau"] if name == "vs" else lam["phi"]) > 0:
                assert linked[0] < softmax[0] / 4, (lam, prior, linked, softmax)
                assert linked[1] < softmax[1] / 5, (lam, prior, linked, softmax)
    assert np.mean(linked_errors) < 0.2


# ---------------------------------------------------------------------------------------------------------------------
# Errors
# ---------------------------------------------------------------------------------------------------------------------


def test_unknown_loss_names_are_explained() -> None:
    with pytest.raises(InputError, match="no loss 'focall'; did you mean 'focal'"):
        loss_family("focall", (10, 1))
    with pytest.raises(InputError, match="known are cross_entropy, focal, ldam, vs, weighted_cross_entropy"):
        loss_family("zzz", (10, 1))


@pytest.mark.parametrize("counts", [(), (10,), (10, 0), (10, -1), (10, math.nan), (math.inf, 1)])
@pytest.mark.parametrize("name", FAMILIES)
def test_class_counts_that_cannot_be_are_refused(name: str, counts: Sequence[float]) -> None:
    with pytest.raises(InputError, match="two or more positive finite numbers, got"):
        loss_family(name, counts)


@pytest.mark.parametrize("alpha", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("counts", [(70, 9, 30), (50, 50, 50)])
def test_one_alpha_of_three_classes_lies_between_the_rarest_and_the_most_frequent(
    alpha: float, counts: tuple[int, int, int]
) -> None:
    """Weights are a geometric sequence in the logarithm of the frequency, whose ends are alpha and 1 - alpha."""
    family = loss_family("focal", counts)
    logits, target = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0])
    log_n = torch.tensor(counts, dtype=torch.float64).log()
    t = (log_n.max() - log_n) / (log_n.max() - log_n.min()) if len({*counts}) > 1 else torch.full((3,), 0.5)
    weights = alpha**t * (1 - alpha) ** (1 - t)
    for ours, theirs in (
        (family.loss(logits, target, alpha=alpha, phi=1.5), family.loss(logits, target, alpha=weights, phi=1.5)),
        (family.log_posterior(logits, alpha=alpha, phi=1.5), family.log_posterior(logits, alpha=weights, phi=1.5)),
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("alpha", [torch.tensor([0.3, 0.7]), torch.full((5, 2), 0.5)])
def test_focal_loss_of_three_classes_needs_three_weights(alpha: float | Tensor) -> None:
    family, (logits, target) = loss_family("focal", (100, 10, 3)), batch(5, 3)
    with pytest.raises(
        InputError, match="focal loss of 3 classes needs alpha with 3 weights, or one number, got shape"
    ):
        family.loss(logits, target, alpha=alpha, phi=1)
    with pytest.raises(
        InputError, match="focal loss of 3 classes needs alpha with 3 weights, or one number, got shape"
    ):
        family.log_posterior(logits, alpha=alpha, phi=1)


@pytest.mark.parametrize("prior", [0.0, 1.0, -0.1, math.nan])
def test_impossible_priors_are_refused(prior: float) -> None:
    family, logits = loss_family("cross_entropy", (10, 1)), torch.zeros(1, 2)
    with pytest.raises(InputError, match=r"lies in \(0, 1\)"):
        family.log_odds(logits, prior=prior)
    with pytest.raises(InputError, match="2 positive shares that sum to 1"):
        family.log_posterior(logits, prior=(1 - prior, prior))


@pytest.mark.parametrize("prior", [(0.5,), (0.5, 0.5), (0.2, 0.3, 0.6), (0.25, 0.25, 0.25, 0.25)])
def test_priors_that_do_not_fit_the_classes_are_refused(prior: Sequence[float]) -> None:
    with pytest.raises(InputError, match="3 positive shares that sum to 1"):
        loss_family("cross_entropy", (100, 10, 3)).log_posterior(torch.zeros(1, 3), prior=prior)


@pytest.mark.parametrize("name", ["vs", "weighted_cross_entropy"])
def test_what_scoring_made_serves_training(name: str) -> None:
    """The numbers of a family are copied to a device once; made in inference mode they would have no gradient."""
    losses._kept.cache_clear()
    family = loss_family(name, [70, 30])
    lam = dict.fromkeys(family.hyperparameters, torch.tensor(0.5, requires_grad=True))
    logits, target = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 1, 0])
    with torch.inference_mode():
        family.log_posterior(logits, **lam)
    made = losses._kept.cache_info().misses
    assert made
    family.loss(logits, target, **lam).sum().backward()
    assert all(value.grad is not None for value in lam.values())
    assert losses._kept.cache_info().misses == made, "the same numbers serve both"
    assert family.log_posterior(logits.double(), **lam).dtype == torch.float64


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_of_two_classes_is_refused_of_more(name: str) -> None:
    family, lam = loss_family(name, [70, 20, 10]), dict(FAMILIES[name].neutral)
    for ask in (
        lambda: family.prior,
        lambda: family.margin(torch.zeros(4, 3), **lam),
        lambda: family.log_odds(torch.zeros(4, 3), **lam),
        lambda: family.log_odds(torch.zeros(4, 3), 0.1, **lam),
        lambda: loss_family(name, [70, 30]).margin(torch.zeros(4, 3), **lam),
        lambda: loss_family(name, [70, 30]).log_odds(torch.zeros(4, 3), **lam),
    ):
        with pytest.raises(InputError, match=r"got 3 classes: use log_posterior"):
            ask()


@pytest.mark.parametrize(
    ("lam", "words"),
    [
        ({"gamma": 0.1, "tau": 1.0, "foo": 2.0}, ["has no hyperparameter 'foo'"]),
        ({"gamma": 0.1, "tua": 1.0}, ["needs its hyperparameter 'tau', got gamma, tua", "'tua'; did you mean 'tau'?"]),
        ({"gamma": -5.0, "tau": math.nan}, ["gamma of loss 'vs' must lie in [0, inf], got -5", "tau of loss 'vs'"]),
        ({}, ["'gamma', got none", "'tau', got none"]),
    ],
)
def test_hyperparameters_that_are_wrong_are_told_at_once(lam: Lam, words: list[str]) -> None:
    family = loss_family("vs", [90, 10])
    z, y = torch.zeros(3, 2), torch.tensor([0, 1, 0])
    calls = [
        lambda: family.loss(z, y, **lam),
        lambda: family.log_odds(z, **lam),
        lambda: family.log_posterior(z, **lam),
    ]
    for call in calls:
        with pytest.raises(InputError) as error:
            call()
        told = "\n".join(error.value.problems)
        assert all(word in told for word in words), told
