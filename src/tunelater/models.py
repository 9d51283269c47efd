"""Trunks: networks that end in pooled features, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tunelater.config import Config
from tunelater.film import FiLM, LossConditional


class TabularMLP(nn.Module):
    """A multi-layer perceptron for preprocessed tables: (N, n_features) float -> (N, width) features.

    Args:
        n_features: columns of the preprocessed table.
        width: hidden units of each layer, and channels of the features.
        depth: number of layers, one or more.
        dropout: probability of dropping a hidden unit in training, in [0, 1).
    """

    def __init__(self, n_features: int, *, width: int = 128, depth: int = 3, dropout: float = 0.1) -> None:
        super().__init__()
        self.channels = width
        layers: list[nn.Module] = []
        for i in range(depth):
            layers += [nn.Linear(n_features if i == 0 else width, width), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


TRUNKS: Mapping[str, Callable[..., nn.Module]] = {"mlp": TabularMLP}


def build(config: Config, *, n_classes: int = 2, **shape: Any) -> LossConditional:
    """The untrained model that a config describes, started from its seed without touching the global random state.

    Args:
        shape: what the trunk must know of the data, such as `n_features` for a table.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        trunk = TRUNKS[config.model.trunk](**shape, **config.model.options)
        head = nn.Linear(trunk.channels, n_classes)  # type: ignore[arg-type]
        film = None
        if config.film is not None and config.lambdas.free:
            options = config.film
            film = FiLM(
                config.lambdas,
                trunk.channels,  # type: ignore[arg-type]
                hidden=options.hidden,
                start=options.start,
                rescale=options.rescale,
                bias=options.bias,
            )
    return LossConditional(trunk, film, head)
