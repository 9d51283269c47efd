"""Feature-wise linear modulation, and the model that is conditioned on lambda through it.

FiLM acts on the pooled features, as in the paper, on the logits, or after every stage of the trunk. The first two let a
grid of lambdas share one pass through the trunk; the third lets lambda change what the trunk computes.

Shapes: N samples, L lambdas, M of either, C channels of pooled features, K classes, D varying hyperparameters, E
members of an ensemble.
"""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tunelater.backbones import Pool, PooledTrunk
from tunelater.distributions import LambdaSpace
from tunelater.losses import Hyperparameter, LossFamily
from tunelater.problems import InputError, Problems, did_you_mean

Start = Literal["paper", "identity"]
Place = Literal["features", "logits"]


class FiLM(nn.Module):
    """lambda -> (sigma, mu), each from its own two-layer network; features become sigma * f + mu (Section 4.3, Eq. 34).

    The two networks are one batched product, so they cost three kernels rather than six.

    Args:
        space: the distribution that lambda is drawn from; its D varying dimensions are the input.
        channels: C, the number of pooled features; K, where it acts on the logits.
        hidden: width of the hidden layer (128 in the paper).
        start: `"paper"` leaves PyTorch's usual initial weights and uses sigma as it comes out; `"identity"` starts at
            sigma = 1, mu = 0: the last layer is zero and the network gives sigma - 1.
        rescale: map each dimension of lambda from its interval [a, b] to [0, 1] first (the paper feeds it as it is).
        bias: whether the layers have biases. With them a two-dimensional lambda and 64 channels take 17,280 parameters
            (the paper's released code); without them 8,448 a branch (the count in the paper's Section 5.1).
        branches: which of `"scale"` (sigma) and `"shift"` (mu) there are; a missing one is 1 or 0.

    Raises:
        InputError: a space without a varying dimension (such a model needs no FiLM), no branch, or an unknown start.
    """

    low: Tensor
    width: Tensor

    def __init__(
        self,
        space: LambdaSpace,
        channels: int,
        *,
        hidden: int = 128,
        start: Start = "paper",
        rescale: bool = False,
        bias: bool = True,
        branches: Sequence[Literal["scale", "shift"]] = ("scale", "shift"),
    ) -> None:
        super().__init__()
        if not space.free:
            raise InputError(f"FiLM needs a hyperparameter that varies, got {space}; leave FiLM out for a fixed lambda")
        if not branches or not set(branches) <= {"scale", "shift"} or len(set(branches)) < len(branches):
            raise InputError(f"FiLM's branches are 'scale' and 'shift', one or both, each once; got {branches}")
        if start not in get_args(Start):
            raise InputError(f"FiLM's start is 'paper' or 'identity', got {start!r}")
        self.names = space.free
        self.identity = start == "identity"
        self.branches = tuple(branches)
        low = torch.tensor([space[name].a if rescale else 0.0 for name in self.names], dtype=torch.float64)
        high = torch.tensor([space[name].b if rescale else 1.0 for name in self.names], dtype=torch.float64)
        self.register_buffer("low", low.float(), persistent=False)
        self.register_buffer("width", (high - low).float(), persistent=False)

        n, d = len(self.branches), len(self.names)
        self.weight_in = nn.Parameter(torch.empty(n, d, hidden))
        self.weight_out = nn.Parameter(torch.empty(n, hidden, channels))
        self.bias_in = nn.Parameter(torch.empty(n, 1, hidden)) if bias else None
        self.bias_out = nn.Parameter(torch.empty(n, 1, channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """`torch.nn.Linear`'s uniform start; zeros in the last layer for the identity start."""
        for weight, bias in ((self.weight_in, self.bias_in), (self.weight_out, self.bias_out)):
            bound = 1 / math.sqrt(weight.shape[1])
            zero = self.identity and weight is self.weight_out
            for parameter in (weight, bias):
                if parameter is not None:
                    nn.init.zeros_(parameter) if zero else nn.init.uniform_(parameter, -bound, bound)

    def vector(self, lam: Mapping[str, Hyperparameter]) -> Tensor:
        """(M, D) network input from named hyperparameters; M is 1 for floats.

        Raises:
            InputError: hyperparameters that are missing.
        """
        if missing := [name for name in self.names if name not in lam]:
            raise InputError(f"FiLM needs {', '.join(self.names)}, got no {', '.join(missing)}")
        if all(isinstance(lam[name], float | int) for name in self.names):
            raw = self.low.new_tensor([[lam[name] for name in self.names]])
        else:
            columns = [torch.as_tensor(lam[name]).to(self.low).reshape(-1) for name in self.names]
            raw = torch.stack(torch.broadcast_tensors(*columns), dim=-1)
        return (raw - self.low) / self.width

    def forward(self, lam: Mapping[str, Hyperparameter]) -> tuple[Tensor, Tensor]:
        """(sigma, mu), each (M, C), for M values of lambda."""
        lam_MD = self.vector(lam).expand(len(self.branches), -1, -1)
        hidden = F.relu(_affine(lam_MD, self.weight_in, self.bias_in))
        out = dict(zip(self.branches, _affine(hidden, self.weight_out, self.bias_out), strict=True))
        some = next(iter(out.values()))
        sigma = out["scale"] + self.identity if "scale" in out else torch.ones_like(some)
        return sigma, out["shift"] if "shift" in out else torch.zeros_like(some)


def _affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.bmm(x, weight) if bias is None else torch.baddbmm(bias, x, weight)


@dataclass(frozen=True)
class Stage:
    """A place in a trunk where FiLM may act: the output of one of its modules."""

    module: str
    """Its name, as `trunk.get_submodule` takes it."""
    channels: int
    axis: int = 1
    """Where the output has its channels: 1 for (N, C) and (N, C, H, W), -1 for tokens and (N, H, W, C)."""


class StageFiLM(nn.ModuleList):
    """One `FiLM` for each stage of a trunk; the stage's output z becomes sigma * z + mu, channel by channel.

    Dosovitskiy & Djolonga (2020), "You Only Train Once: Loss-Conditional Training of Deep Networks", condition every
    block so; the paper conditions the pooled features alone (`FiLM`).

    Args:
        space: the distribution that lambda is drawn from.
        stages: in the order of the trunk; this library's trunks have theirs as `stages`.
        options: of every `FiLM`: `hidden`, `start`, `rescale`, `bias`, `branches`.

    Raises:
        InputError: no stage, one that is named twice, or what `FiLM` refuses.
    """

    def __init__(self, space: LambdaSpace, stages: Sequence[Stage], **options: Any) -> None:
        names = [stage.module for stage in stages]
        if not names or len(set(names)) < len(names):
            raise InputError(f"FiLM after every stage needs stages of different names, got {names}")
        super().__init__(FiLM(space, stage.channels, **options) for stage in stages)
        self.stages = tuple(stages)

    def forward(self, trunk: nn.Module, x: Any, lam: Mapping[str, Hyperparameter]) -> Tensor:
        """The trunk's output for x where its stages are modulated, at one lambda or at one a sample.

        Raises:
            InputError: the trunk has no module of a stage's name, passes it more or less often than once, or gives
                another shape there.
        """
        missing = [stage.module for stage in self.stages if stage.module not in dict(trunk.named_modules())]
        if missing:
            raise InputError(f"the trunk has no modules {missing}, after which FiLM should act")
        calls = [_StageCall(stage, *film(lam)) for stage, film in zip(self.stages, self, strict=True)]
        # Hooks for this pass alone: a trunk that is copied, shared or used by itself carries nothing along.
        with ExitStack() as attached:
            for call in calls:
                attached.enter_context(trunk.get_submodule(call.stage.module).register_forward_hook(call))
            out = trunk(x)
        wrong = {call.stage.module: call.times for call in calls if call.times != 1}
        if wrong:
            raise InputError(f"FiLM acts after stages that a pass calls once; of this trunk it called {wrong} times")
        return out


def _thread() -> int | None:
    """The running thread; None in compiled code, which cannot ask."""
    # Marking this as constant for the compiler would import the compiler, which takes longer than all of torch.
    return None if torch.compiler.is_compiling() else threading.get_ident()


class _StageCall:
    """The forward hook of one stage in one pass, deaf to passes of the same trunk in other threads."""

    def __init__(self, stage: Stage, sigma: Tensor, mu: Tensor) -> None:
        self.stage, self.sigma, self.mu = stage, sigma, mu
        self.thread = _thread()
        self.times = 0

    def __call__(self, module: nn.Module, inputs: Any, z: Tensor) -> Tensor | None:
        if None not in (here := _thread(), self.thread) and here != self.thread:
            return None
        self.times += 1
        axis, channels = self.stage.axis, self.stage.channels
        if not isinstance(z, Tensor) or z.ndim < 2 or z.shape[axis] != channels:
            got = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
            raise InputError(f"stage {self.stage.module!r} should give {channels} channels on axis {axis}, got {got}")
        shape = [len(self.sigma)] + [1] * (z.ndim - 1)
        shape[axis] = channels
        return torch.addcmul(self.mu.view(shape), z, self.sigma.view(shape))


class LossConditional(nn.Module):
    """A classifier conditioned on lambda: any trunk that gives pooled features, FiLM on them, a linear head.

    >>> from tunelater.distributions import Linear
    >>> space = LambdaSpace(gamma=0.1, tau=Linear(0, 3, 0.33))
    >>> model = LossConditional(nn.Linear(5, 16), FiLM(space, channels=16), nn.Linear(16, 2))
    >>> model(torch.randn(8, 5), {"gamma": 0.1, "tau": 1.0}).shape
    torch.Size([8, 2])

    Args:
        trunk: (N, ...) -> (N, C).
        film: before or after the head. None where lambda is fixed, is meant to reach the loss alone (Eq. 8), or acts
            in the trunk.
        head: (N, C) -> (N, K).
        stages: after the trunk's stages.
        unit: whether features are scaled to length one before all else.
        place: what `film` modulates, the C pooled features or the K logits.
        members: E networks in one, whose features the trunk gives side by side: member e has C / E channels from
            e C / E on, and its logits are E times what these add to the head's, so that the head's are their mean.
            Everything but training takes the mean: scoring stays one matrix product, as wide as all members.

    Raises:
        InputError: an unknown place, or features that are not of so many members.
    """

    def __init__(
        self,
        trunk: nn.Module,
        film: FiLM | None,
        head: nn.Linear,
        stages: StageFiLM | None = None,
        *,
        unit: bool = False,
        place: Place = "features",
        members: int = 1,
    ) -> None:
        super().__init__()
        problems = Problems()
        problems.check(place in get_args(Place), f"FiLM's place is 'features' or 'logits', got {place!r}")
        channels = head.in_features
        fit = members >= 1 and channels % members == 0
        problems.check(fit, f"members must divide the {channels} channels of the features, got {members} members")
        problems.raise_if_any()
        self.members = members
        self.unit = unit
        self.trunk = trunk
        self.film = film
        self.head = head
        self.stages = stages
        self.place = place

    @classmethod
    def wrap(
        cls,
        backbone: nn.Module,
        space: LambdaSpace,
        n_classes: int = 2,
        *,
        channels: int | None = None,
        pool: Pool = "mean",
        **film: Any,
    ) -> LossConditional:
        """Any backbone with FiLM on its pooled features and a new linear head.

        FiLM starts as the identity on lambda scaled to [0, 1], so that a pretrained backbone starts from what it
        learned. A space in which nothing varies gets no FiLM.

        >>> from tunelater.distributions import Linear
        >>> model = LossConditional.wrap(nn.Linear(5, 16), LambdaSpace(gamma=0.1, tau=Linear(0, 3, 0.33)))
        >>> model(torch.randn(8, 5), {"gamma": 0.1, "tau": 1.0}).shape
        torch.Size([8, 2])

        Args:
            backbone, channels, pool: of `PooledTrunk`: a timm model, an encoder of Hugging Face's, an own module.
            space: the distribution that lambda is drawn from.
            n_classes: K, two or more.
            film: other options of `FiLM`, such as `start="paper"` or `hidden`.

        Raises:
            InputError: what `PooledTrunk` and `FiLM` refuse, or fewer than two classes.
        """
        problems = Problems()
        whole = isinstance(n_classes, int) and not isinstance(n_classes, bool)
        problems.check(whole and n_classes >= 2, f"a classifier has two classes or more, got n_classes={n_classes!r}")
        sound = isinstance(space, LambdaSpace)
        problems.check(sound, f"lambda is drawn from a LambdaSpace, got {space!r}; make one: LambdaSpace(tau=1.0)")
        known = [name for name in inspect.signature(FiLM).parameters if name not in ("space", "channels")]
        for name in film.keys() - known:
            problems.add(f"FiLM has no option {name!r}{did_you_mean(name, known)}")
        problems.raise_if_any()
        trunk = PooledTrunk(backbone, channels, pool)
        options = {"start": "identity", "rescale": True, **film}
        modulation = FiLM(space, trunk.channels, **options) if space.free else None
        return cls(trunk, modulation, nn.Linear(trunk.channels, n_classes))

    def features(self, x: Any, lam: Mapping[str, Hyperparameter] | None = None) -> Tensor:
        """(N, C) pooled features. Without `stages` they do not depend on lambda, so a grid of lambdas needs them once.

        Raises:
            InputError: no lambda where the trunk's stages need one.
        """
        if self.stages is None:
            z = self.trunk(x)
        elif lam is not None:
            z = self.stages(self.trunk, x, lam)
        else:
            raise InputError("the features of a model with FiLM after every stage depend on lambda; pass it")
        return F.normalize(z) if self.unit else z

    def logits(self, z: Tensor, lam: Mapping[str, Hyperparameter]) -> Tensor:
        """(N, K) logits from features (N, C), at one lambda (floats) or at one a sample (tensors of shape (N,))."""
        if self.film is None:
            return self.head(z)
        sigma, mu = self.film(lam)
        if self.place == "logits":
            return torch.addcmul(mu, self.head(z), sigma)
        if len(sigma) == 1:
            # W (sigma * f + mu) + b = (W * sigma) f + (W mu + b): K x C numbers change instead of N x C.
            bias = F.linear(mu, self.head.weight, self.head.bias)[0]
            return F.linear(z, self.head.weight * sigma, bias)
        return self.head(z * sigma + mu)

    def member_logits(self, z: Tensor, lam: Mapping[str, Hyperparameter]) -> Tensor:
        """(N, E, K) logits of each member from features (N, C); their mean over the members is `logits`."""
        by_member = (self.members, -1)
        sigma = mu = None
        if self.film is not None:
            sigma, mu = self.film(lam)
            if self.place == "features":
                z = torch.addcmul(mu, z, sigma)
        weight_EcK = self.members * self.head.weight.unflatten(1, by_member).permute(1, 2, 0)
        logits = torch.bmm(z.unflatten(1, by_member).transpose(0, 1), weight_EcK).transpose(0, 1)
        if self.head.bias is not None:
            logits = logits + self.head.bias
        if sigma is not None and mu is not None and self.place == "logits":
            return torch.addcmul(mu[:, None], logits, sigma[:, None])
        return logits

    def forward(self, x: Any, lam: Mapping[str, Hyperparameter]) -> Tensor:
        """(N, K) logits of inputs x at lambda; in training those of each member, (N, E, K), where there are several.

        Members that learned from the loss of their mean would lean on each other: each has its own (`mean_loss`).
        """
        z = self.features(x, lam)
        return self.member_logits(z, lam) if self.training and self.members > 1 else self.logits(z, lam)

    def margins(self, lambdas: Mapping[str, Tensor], family: LossFamily | None) -> tuple[Tensor, Tensor]:
        """The binary head at L lambdas as one linear map of the features: weights (L, C) and biases (L,).

        `features @ weights.T + biases` is the family's margin s_+ z_+ - s_- z_-, or z_+ - z_- for `family=None`.

        Raises:
            InputError: a head of more than two classes, which has no margin.
        """
        weight, bias = self.head.weight, self.head.bias
        if len(weight) != 2:
            raise InputError(f"margins need a head of two classes, got {len(weight)}; use `logits` at each lambda")
        scale = weight.new_ones(1, 2)
        if family is not None:
            scale = family.scale(weight, **lambdas).reshape(-1, 2)
        moved = weight.new_zeros(1)
        if self.film is not None and self.place == "logits":
            sigma, mu = self.film(lambdas)
            moved = scale[:, 1] * mu[:, 1] - scale[:, 0] * mu[:, 0]
            scale = scale * sigma
        contrast = scale[:, 1:] * weight[1] - scale[:, :1] * weight[0]
        offset = moved.expand(len(scale)) if bias is None else moved + scale[:, 1] * bias[1] - scale[:, 0] * bias[0]
        if self.film is not None and self.place == "features":
            sigma, mu = self.film(lambdas)
            offset = offset + (mu * contrast).sum(-1)
            contrast = contrast * sigma
        size = max([len(contrast), *(len(values) for values in lambdas.values())])
        return contrast.expand(size, -1), offset.expand(size)
