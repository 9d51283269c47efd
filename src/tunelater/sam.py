"""Sharpness-aware minimization (Eq. 5; Foret et al. 2021), around any optimizer whose step takes a closure."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tunelater.problems import InputError


class SAM(torch.optim.Optimizer):
    """Takes the base optimizer's step with the gradient at the worst point nearby, w + epsilon.

    epsilon = rho g / |g|, or rho w^2 g / |w g| in the adaptive form, whose neighbourhood scales with the weights (Kwon
    et al. 2021). The closure runs twice: at w for epsilon, and at w + epsilon for the step. It must zero the gradients,
    and be a pure function of the weights: same batch, same lambda. Dropout is: the random state is put back in between.

    A closure that clips bounds the step by the second gradient alone, since epsilon does not depend on the length of
    the first. (The paper's released code clips the first and not the second, which is no clipping at all.) `second`
    tells the closure which of the two it is in.

    Args:
        base: the optimizer that steps; it keeps the state, learning rate and momentum.
        module: the model. Its batch-norm statistics are left alone by the second pass, which sees shifted weights.
        rho: radius of the neighbourhood, positive (0.1 in the paper).
        adaptive: measure the neighbourhood relative to each weight.
        first_pass: a context for the first pass, for instance one that skips the exchange of gradients between
            processes: each then finds its own epsilon, and only the gradient of the step is shared.

    Raises:
        InputError: a radius that is not positive and finite.
    """

    def __init__(
        self,
        base: torch.optim.Optimizer,
        module: nn.Module,
        *,
        rho: float = 0.1,
        adaptive: bool = False,
        first_pass: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> None:
        if not 0 < rho < float("inf"):
            raise InputError(f"SAM's radius rho must be positive and finite, got {rho}")
        super().__init__(base.param_groups, base.defaults)
        self.base, self.module = base, module
        self.rho, self.adaptive, self.first_pass = rho, adaptive, first_pass
        self.param_groups, self.state = base.param_groups, base.state
        self.second = False
        """Whether the closure runs for the second time."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
        """One step; returns the loss at the unshifted weights."""
        closure = torch.enable_grad()(closure)
        random = _random_states(self.param_groups[0]["params"][0].device)
        with self.first_pass():
            loss = closure()
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        weights = [p.detach().clone() for p in parameters]
        torch._foreach_add_(parameters, self._epsilon(parameters))
        self.second = True
        for restore, state in random:  # the same dropout in both: they are passes of one function
            restore(state)
        try:
            with _still_batch_norm(self.module):
                closure()
        finally:
            self.second = False
            torch._foreach_copy_(parameters, weights)  # exactly back: w + epsilon - epsilon would not be w
        self.base.step()
        return loss

    def _epsilon(self, parameters: list[nn.Parameter]) -> list[Tensor]:
        gradients = [p.grad.detach() for p in parameters if p.grad is not None]
        scales = [p.detach().abs() for p in parameters] if self.adaptive else None
        direction = gradients if scales is None else torch._foreach_mul(gradients, scales)
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(direction)))
        factor = self.rho / norm.clamp(min=torch.finfo(norm.dtype).tiny)
        return [
            d * factor if scales is None else d * s * factor
            for d, s in zip(direction, scales or direction, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """The base optimizer's state: SAM has none of its own."""
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.base.load_state_dict(state_dict)
        self.param_groups, self.state = self.base.param_groups, self.base.state


def _random_states(device: torch.device) -> list[tuple[Callable[[Tensor], None], Tensor]]:
    """What puts the random state back that a pass begins with."""
    states: list[tuple[Callable[[Tensor], None], Tensor]] = [(torch.set_rng_state, torch.get_rng_state())]
    if device.type == "cuda":
        states.append((torch.cuda.set_rng_state, torch.cuda.get_rng_state()))
    return states


@contextlib.contextmanager
def _still_batch_norm(module: nn.Module) -> Iterator[None]:
    """Batch norm goes on normalising by the batch, but does not remember it."""
    layers = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
