"""Sharpness-aware steps against two passes by hand."""

import contextlib
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from tunelater.problems import InputError
from tunelater.sam import SAM

Optimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.05),
}


def network(batch_norm: bool = False) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        middle: nn.Module = nn.BatchNorm1d(8) if batch_norm else nn.Identity()
        return nn.Sequential(nn.Linear(4, 8), middle, nn.Tanh(), nn.Linear(8, 2))


def batch(seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(16, 4, generator=g), torch.randint(2, (16,), generator=g)


def closure_of(
    model: nn.Module, optimizer: torch.optim.Optimizer, seed: int, clip: float | None = None
) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        x, y = batch(seed)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        return loss

    return closure


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_equal_two_passes_by_hand(name: str, adaptive: bool) -> None:
    ours, theirs = network(), network()
    sam = SAM(OPTIMIZERS[name](list(ours.parameters())), ours, rho=0.3, adaptive=adaptive)
    base = OPTIMIZERS[name](list(theirs.parameters()))
    for seed in range(6):
        loss = sam.step(closure_of(ours, sam, seed))
        first = closure_of(theirs, base, seed)()
        with torch.no_grad():
            start = [p.clone() for p in theirs.parameters()]
            scaled = [p.grad * (p.abs() if adaptive else 1) for p in theirs.parameters()]
            norm = torch.cat([s.flatten() for s in scaled]).norm()
            for p, s in zip(theirs.parameters(), scaled, strict=True):
                p += 0.3 * s * (p.abs() if adaptive else 1) / norm
        closure_of(theirs, base, seed)()
        with torch.no_grad():
            for p, w in zip(theirs.parameters(), start, strict=True):
                p.copy_(w)
        base.step()
        assert loss.item() == pytest.approx(first.item())
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_first_order_worst_point_lies_on_the_sphere(adaptive: bool) -> None:
    model = network()
    sam = SAM(OPTIMIZERS["sgd"](list(model.parameters())), model, rho=0.7, adaptive=adaptive)
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    seen: list[Tensor] = []
    inner = closure_of(model, sam, 0)

    def closure() -> Tensor:
        seen.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        return inner()

    sam.step(closure)
    assert torch.equal(seen[0], weights)
    epsilon = (seen[1] - weights) / (weights.abs() if adaptive else 1)
    assert epsilon.norm().item() == pytest.approx(0.7, rel=1e-3)


def test_clipping_the_first_gradient_alone_is_no_clipping() -> None:
    def trained(clips: tuple[float | None, float | None]) -> list[Tensor]:
        model = network()
        sam = SAM(OPTIMIZERS["sgd"](list(model.parameters())), model, rho=0.3)
        for seed in range(5):
            passes = iter(clips)
            sam.step(lambda seed=seed, passes=passes: closure_of(model, sam, seed, next(passes))())
        return [p.detach() for p in model.parameters()]

    unclipped, first, both = trained((None, None)), trained((0.01, None)), trained((0.01, 0.01))
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(unclipped, first, strict=True))
    assert not all(torch.allclose(a, b, rtol=1e-2) for a, b in zip(unclipped, both, strict=True))


def test_the_second_pass_leaves_batch_norm_statistics_alone_but_normalises_by_its_batch() -> None:
    model, reference = network(batch_norm=True), network(batch_norm=True)
    sam = SAM(OPTIMIZERS["sgd"](list(model.parameters())), model, rho=0.5)
    for seed in range(3):
        for p, q in zip(reference.parameters(), model.parameters(), strict=True):
            p.data.copy_(q.data)
        reference(batch(seed)[0])
        outputs = []
        hook = model[1].register_forward_hook(lambda _m, _i, out, outputs=outputs: outputs.append(out.detach()))
        sam.step(closure_of(model, sam, seed))
        hook.remove()
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            torch.testing.assert_close(getattr(model[1], name), getattr(reference[1], name))
        for out in outputs:
            torch.testing.assert_close(out.mean(0), model[1].bias.detach(), atol=0.3, rtol=0)
    assert model[1].track_running_stats


def test_a_closure_that_fails_leaves_the_weights_as_they_were() -> None:
    model = network(batch_norm=True)
    sam = SAM(OPTIMIZERS["sgd"](list(model.parameters())), model)
    before = [p.detach().clone() for p in model.parameters()]
    inner, calls = closure_of(model, sam, 0), []

    def closure() -> Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return inner()

    with pytest.raises(RuntimeError, match="out of memory"):
        sam.step(closure)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert model[1].track_running_stats


def test_the_first_pass_runs_in_its_context() -> None:
    model, events = network(), []

    @contextlib.contextmanager
    def first_pass() -> Iterator[None]:
        events.append("in")
        yield
        events.append("out")

    sam = SAM(OPTIMIZERS["sgd"](list(model.parameters())), model, first_pass=first_pass)
    inner = closure_of(model, sam, 0)

    def closure() -> Tensor:
        events.append("pass")
        return inner()

    sam.step(closure)
    assert events == ["in", "pass", "out", "pass"]


def test_state_learning_rate_and_momentum_are_the_base_optimizers() -> None:
    def run(steps: range, state: dict | None, model: nn.Module) -> SAM:
        sam = SAM(OPTIMIZERS["sgd"](list(model.parameters())), model, rho=0.2)
        if state is not None:
            sam.load_state_dict(state)
        for seed in steps:
            sam.param_groups[0]["lr"] = 0.01 * (seed + 1)
            sam.step(closure_of(model, sam, seed))
        return sam

    whole, halves = network(), network()
    run(range(6), None, whole)
    state = run(range(3), None, halves).state_dict()
    run(range(3, 6), state, halves)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), halves.parameters(), strict=True))


def test_bfloat16_passes_give_a_finite_step_near_the_float32_one() -> None:
    def trained(autocast: bool) -> Tensor:
        model = network()
        sam = SAM(OPTIMIZERS["sgd"](list(model.parameters())), model, rho=0.2)
        for seed in range(4):
            inner = closure_of(model, sam, seed)

            def closure(inner: Callable[[], Tensor] = inner) -> Tensor:
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    return inner()

            sam.step(closure)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    half, full = trained(True), trained(False)
    assert half.dtype == torch.float32
    assert (half - full).norm() < 0.05 * full.norm()


@pytest.mark.parametrize("rho", [0, -1, float("nan"), float("inf")])
def test_the_radius_must_be_positive(rho: float) -> None:
    model = network()
    with pytest.raises(InputError, match="rho must be positive"):
        SAM(OPTIMIZERS["sgd"](list(model.parameters())), model, rho=rho)


def test_both_passes_drop_the_same_units() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 2))
    kept = []
    model[1].register_forward_hook(lambda _m, inputs, out: kept.append((out == 0) & (inputs[0] != 0)))
    sam = SAM(torch.optim.SGD(model.parameters(), 0.01), model, rho=0.01)
    x = torch.randn(8, 4)

    def closure() -> Tensor:
        sam.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return loss

    for _ in range(3):
        sam.step(closure)
    for first, second in zip(kept[::2], kept[1::2], strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(kept[0], kept[2])
