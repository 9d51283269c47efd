"""Any network as a trunk: (N, C) pooled features of what a timm model, a Hugging Face encoder or an own module gives.

Shapes: N samples, T tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from torch import Tensor, nn

from tunelater.problems import InputError, Problems

Pool = Literal["mean", "first"] | Callable[[Any], Tensor]
"""How tokens become one vector: their mean, the first (a class token), or a function of the backbone's output."""


class PooledTrunk(nn.Module):
    """A backbone without its classifier, as the trunk of a `LossConditional`.

    What the backbone gives may be (N, C) features, a map (N, C, H, W) or (N, H, W, C), which is averaged, tokens
    (N, T, C), or an output of Hugging Face's with one of these as its `last_hidden_state`. A mean of tokens leaves out
    those that the inputs' `attention_mask` marks as padding.

    Args:
        backbone: a model of timm's loses its classifier, in place (`reset_classifier(0)`); of a model of Hugging
            Face's with a head for some task the encoder is taken (`base_model`); anything else is used as it is.
        channels: C. Where it is not given it comes from the backbone: `num_features` (timm), `config.hidden_size` or
            the last of `config.hidden_sizes` (Hugging Face), `channels`, or `out_features`, its own or of the last
            layer of a `Sequential` that has it.
        pool: how tokens become features.

    Raises:
        InputError: a width that is not given and cannot be found, or not positive; an unknown pooling.
    """

    def __init__(self, backbone: nn.Module, channels: int | None = None, pool: Pool = "mean") -> None:
        super().__init__()
        problems = Problems()
        module = isinstance(backbone, nn.Module)
        problems.check(module, f"a backbone is a torch.nn.Module, got {type(backbone).__name__}")
        known = callable(pool) or pool in get_args(get_args(Pool)[0])
        problems.check(known, f"tokens are pooled by 'mean', 'first' or a function of the output, got {pool!r}")
        width = channels if channels is not None or not module else _width(backbone)
        whole = isinstance(width, int) and not isinstance(width, bool) and width > 0
        told = f"got {channels!r}" if channels is not None else f"{type(backbone).__name__} does not tell it"
        problems.check(whole or not module, f"the pooled features need a number of channels, {told}; pass channels=...")
        problems.raise_if_any()
        self.backbone = _without_classifier(backbone)
        self.channels: int = width  # type: ignore[assignment]
        self.pool = pool

    def forward(self, x: Any) -> Tensor:
        """(N, C) features of a batch: a tensor, or a mapping of keyword arguments (`input_ids`, `pixel_values`, ...).

        Raises:
            InputError: an output that holds no features, or features of another width than `channels`.
        """
        out = self.backbone(**x) if isinstance(x, Mapping) else self.backbone(x)
        features = self.pool(out) if callable(self.pool) else self._pooled(out, x)
        if features.ndim != 2 or features.shape[1] != self.channels:
            shape = tuple(features.shape)
            raise InputError(
                f"pooled features should be (N, {self.channels}), got {shape}; pass another channels= or pool="
            )
        return features

    def _pooled(self, out: Any, x: Any) -> Tensor:
        z = out if isinstance(out, Tensor) else getattr(out, "last_hidden_state", None)
        if not isinstance(z, Tensor):
            raise InputError(
                f"a backbone gives a tensor or an output with last_hidden_state, got {type(out).__name__}; "
                "give the encoder without its head, or pool=, a function of that output"
            )
        if z.ndim == 3:
            return z[:, 0] if self.pool == "first" else _mean_of_tokens(z, x)
        if z.ndim == 4:
            return z.mean((2, 3) if z.shape[1] == self.channels else (1, 2))
        return z


def _mean_of_tokens(z_NTC: Tensor, x: Any) -> Tensor:
    mask = x.get("attention_mask") if isinstance(x, Mapping) else None
    if mask is None or mask.shape != z_NTC.shape[:2]:
        return z_NTC.mean(1)
    weight_NT1 = mask.to(z_NTC).unsqueeze(-1)
    return (z_NTC * weight_NT1).sum(1) / weight_NT1.sum(1).clamp(min=1)


def _is_timm(backbone: nn.Module) -> bool:
    return hasattr(backbone, "reset_classifier") and hasattr(backbone, "num_features")


def _without_classifier(backbone: nn.Module) -> nn.Module:
    if _is_timm(backbone):
        backbone.reset_classifier(0)  # type: ignore[operator]
        return backbone
    encoder = getattr(backbone, "base_model", None) if hasattr(backbone, "base_model_prefix") else None
    return encoder if isinstance(encoder, nn.Module) else backbone


def _width(backbone: nn.Module) -> Any:
    """The channels that a backbone says it has, None where it says nothing."""
    if _is_timm(backbone):
        # Some models have a layer between pooling and classifier; it stays, and makes the features wider.
        return getattr(backbone, "head_hidden_size", None) or backbone.num_features
    config = getattr(backbone, "config", None)
    sizes = getattr(config, "hidden_sizes", None)
    named = getattr(config, "hidden_size", None) or (sizes[-1] if sizes else None)
    last = backbone
    while isinstance(last, nn.Sequential) and len(last):
        last = next((m for m in reversed(last) if isinstance(m, nn.Sequential) or hasattr(m, "out_features")), last[-1])
    return named or next(
        (v for a in ("channels", "num_features", "out_features") if (v := getattr(last, a, None))), None
    )
