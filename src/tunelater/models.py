"""Trunks: networks that end in pooled features, by name.

A trunk is any module that gives (N, C) pooled features and says C as its `channels`; those that FiLM can act inside of
say where as their `stages`, and an ensemble how many networks it is as its `members`. `mlp` and `tabm` take tables,
`resnet32` small images, and any model of timm's, by the name it has
there, larger ones.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import register_parametrization

from tunelater import vision
from tunelater.config import TABLE_TRUNKS, Config
from tunelater.film import FiLM, LossConditional, Place, Stage, StageFiLM
from tunelater.problems import InputError, Problems


class NumericEmbedding(nn.Module):
    """Preprocessed rows (N, n_features) with their numeric columns embedded: (N, width) float.

    A line through a network's first layer bends only as all columns together bend it; an embedding lets each numeric
    column bend by itself (Gorishniy et al. 2022, "On Embeddings for Numerical Features in Tabular Deep Learning").

    Args:
        n_features: columns of the preprocessed table, the numeric ones first.
        quantiles: of each numeric column, rising values of training rows (`Preprocessor.numeric_quantiles`).
        kind: `piecewise` (linear, with bends at quantiles) or `periodic`.
        embedding_width: numbers that a numeric column becomes.
        bins: pieces of a line.
        frequency_scale: standard deviation of the first frequencies.
    """

    def __init__(
        self,
        n_features: int,
        quantiles: Sequence[Sequence[float]],
        *,
        kind: str,
        embedding_width: int,
        bins: int,
        frequency_scale: float,
    ) -> None:
        super().__init__()
        import rtdl_num_embeddings as rtdl

        self.n_numeric = len(quantiles)
        self.chunks = [embedding_width] * self.n_numeric + [1] * (n_features - self.n_numeric)
        """How many of the outputs each column has."""
        self.width = sum(self.chunks)
        self.embed: nn.Module | None = None
        if self.n_numeric and kind == "piecewise":
            edges = [_edges(column, bins) for column in quantiles]
            with warnings.catch_warnings(action="ignore"):  # a column of two values has one piece, and needs no more
                self.embed = rtdl.PiecewiseLinearEmbeddings(edges, embedding_width, activation=False, version="B")
        elif self.n_numeric:
            self.embed = rtdl.PeriodicEmbeddings(
                self.n_numeric, embedding_width, frequency_init_scale=frequency_scale, lite=False
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.embed is None:
            return x
        numeric, others = x[:, : self.n_numeric], x[:, self.n_numeric :]
        return torch.cat([self.embed(numeric).flatten(1), others], dim=1)


def _edges(values: Sequence[float], bins: int) -> Tensor:
    """(bins + 1,) rising edges that divide a column's values evenly, or fewer where some would be equal to 0.001."""
    edges = torch.quantile(torch.tensor(values, dtype=torch.float64), torch.linspace(0, 1, bins + 1).double())
    edges = (1000 * edges).round().unique().float() / 1000  # on a narrower piece a line would be a cliff
    return edges if len(edges) > 1 else torch.cat([edges - 0.5, edges + 0.5])  # a constant column


def _embedding(
    n_features: int,
    quantiles: Sequence[Sequence[float]] | None,
    kind: str,
    embedding_width: int,
    bins: int,
    frequency_scale: float,
) -> NumericEmbedding | None:
    """None where columns are taken as they are.

    Raises:
        InputError: no quantiles.
    """
    if kind == "none":
        return None
    if quantiles is None:
        raise InputError(
            f"model.options.embedding {kind!r} needs the training quantiles of the numeric columns, got none: pass "
            "quantiles=Preprocessor.numeric_quantiles() (one with numeric='quantile' has them), or set it to 'none'"
        )
    return NumericEmbedding(
        n_features,
        quantiles,
        kind=kind,
        embedding_width=embedding_width,
        bins=bins,
        frequency_scale=frequency_scale,
    )


class TabularMLP(nn.Module):
    """A multi-layer perceptron for preprocessed tables: (N, n_features) float -> (N, width) features.

    Args:
        n_features: columns of the preprocessed table, the numeric ones first.
        quantiles: of each numeric column, for the embeddings.
        width: hidden units of each layer, and channels of the features.
        depth: number of layers, one or more.
        dropout: probability of dropping a hidden unit in training, in [0, 1).
        embedding: of numeric columns: `none`, `piecewise` or `periodic` (`NumericEmbedding`).
        embedding_width: numbers that a numeric column becomes.
        bins: pieces of a line, for `piecewise`.
        frequency_scale: standard deviation of the first frequencies, for `periodic`.

    Raises:
        InputError: an embedding without quantiles.
    """

    def __init__(
        self,
        n_features: int,
        quantiles: Sequence[Sequence[float]] | None = None,
        *,
        width: int = 128,
        depth: int = 3,
        dropout: float = 0.1,
        embedding: str = "none",
        embedding_width: int = 8,
        bins: int = 16,
        frequency_scale: float = 0.1,
    ) -> None:
        super().__init__()
        self.channels = width
        self.stages: tuple[Stage, ...] = ()
        self.embedding = _embedding(n_features, quantiles, embedding, embedding_width, bins, frequency_scale)
        n_inputs = n_features if self.embedding is None else self.embedding.width
        layers: list[nn.Module] = []
        for i in range(depth):
            layers += [nn.Linear(n_inputs if i == 0 else width, width), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout))
            self.stages += (Stage(f"layers.{len(layers) - 1}", width),)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x if self.embedding is None else self.embedding(x))


class TabM(nn.Module):
    """An ensemble of perceptrons in one: (N, n_features) float -> (N, members * width) features, member by member.

    The members share the weights of their layers; each scales the units before and after them in its own way, and all
    are trained at once (Gorishniy et al. 2025, "TabM: Advancing Tabular Deep Learning with Parameter-Efficient
    Ensembling"). The layers are those of the authors' package.

    Args:
        members: number of perceptrons, two or more; `LossConditional` takes the mean of their logits.
        width: hidden units of each layer of a member.
        n_features, quantiles, depth, dropout, embedding, embedding_width, bins, frequency_scale: as in `TabularMLP`.

    Raises:
        InputError: an embedding without quantiles.
    """

    def __init__(
        self,
        n_features: int,
        quantiles: Sequence[Sequence[float]] | None = None,
        *,
        members: int = 8,
        width: int = 64,
        depth: int = 3,
        dropout: float = 0.1,
        embedding: str = "none",
        embedding_width: int = 8,
        bins: int = 16,
        frequency_scale: float = 0.1,
    ) -> None:
        super().__init__()
        import tabm

        self.members = members
        self.channels = members * width
        self.stages = tuple(Stage(f"layers.blocks.{i}", width, -1) for i in range(depth))
        self.embedding = _embedding(n_features, quantiles, embedding, embedding_width, bins, frequency_scale)
        # All that one column has become starts with one scale, so that members differ in how they weigh columns.
        chunks = [1] * n_features if self.embedding is None else self.embedding.chunks
        self.layers = tabm.make_tabm_backbone(
            d_in=sum(chunks),
            n_blocks=depth,
            d_block=width,
            dropout=dropout,
            k=members,
            start_scaling_init="random-signs" if self.embedding is None else "normal",
            start_scaling_init_chunks=chunks,
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.embedding is None else self.embedding(x)
        return self.layers(x[:, None].expand(-1, self.members, -1)).flatten(1)


class ResNet32(nn.Module):
    """The ResNet of 32 layers for CIFAR (He et al. 2016, Section 4.2): (N, 3, 32, 32) float -> (N, 64) features.

    A 3x3 convolution and three stages of five basic blocks, 16, 32 and 64 channels wide. Where a stage halves the image
    and doubles the channels, the shortcut skips every other pixel and pads with channels of zeros: "option A", without
    parameters. Weights start Kaiming-normal (He et al. 2015).
    """

    channels = 64
    stages = (Stage("blocks.4", 16), Stage("blocks.9", 32), Stage("blocks.14", 64))

    def __init__(self) -> None:
        super().__init__()
        self.conv = _conv3x3(3, 16)
        self.bn = nn.BatchNorm2d(16)
        widths = [16] * 6 + [32] * 5 + [64] * 5
        self.blocks = nn.Sequential(*map(_BasicBlock, widths, widths[1:]))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(x)))
        return self.blocks(x).mean((2, 3))


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; halves the image where it widens."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.stride = 1 if channels == channels_in else 2
        self.conv1 = _conv3x3(channels_in, channels, self.stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)

    def shortcut(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            return x
        missing = self.conv1.out_channels - self.conv1.in_channels
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, missing // 2, missing - missing // 2))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


def _conv3x3(channels_in: int, channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)


class TimmTrunk(nn.Module):
    """Any image model of timm's without its classifier: (N, 3, H, W) float -> (N, C) pooled features.

    C is `channels`. What the images should look like (`mean`, `std`, `input_size`) is in `backbone.pretrained_cfg`.
    `stages` are what timm's `feature_info` names, without the stem: layer1 to layer4 of a ResNet, every block of a ViT.

    Args:
        name: timm's, such as `resnext50_32x4d` or `convnext_tiny`; a tag (`convnext_tiny.fb_in1k`) picks among its
            pretrained weights.
        pretrained: download weights trained on ImageNet, as timm does, or take them from its cache.
        weights: a file of weights instead: .safetensors, or a state dict of PyTorch.
        options: for `timm.create_model`, such as `drop_path_rate` or `in_chans`.

    Raises:
        InputError: an unknown name or option, or weights that cannot be had or do not fit.
    """

    def __init__(
        self, name: str, /, *, pretrained: bool = False, weights: str | Path | None = None, **options: Any
    ) -> None:
        super().__init__()
        problems = Problems()
        problems.check(isinstance(pretrained, bool), f"model.options.pretrained is true or false, got {pretrained!r}")
        problems.check(
            weights is None or isinstance(weights, str | Path), f"model.options.weights is a file, got {weights!r}"
        )
        problems.check(
            pretrained is not True or weights is None,
            f"give pretrained=True or a file of weights, not both; got {str(weights)!r}",
        )
        problems.raise_if_any()
        self.name, self.options = name, options
        self.backbone = vision.backbone(name, pretrained=pretrained, **options)
        if weights is not None:
            vision.load_weights(self.backbone, weights, name=name)
        # Some models have a layer between pooling and classifier; it stays, and makes the features wider.
        self.channels: int = getattr(self.backbone, "head_hidden_size", None) or self.backbone.num_features  # type: ignore[assignment]

    @functools.cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Raises: InputError: timm names no stages of this model, or some that FiLM cannot act after."""
        found = vision.stages(self.backbone, self.name, **self.options)
        return tuple(Stage(f"backbone.{module}", channels, axis) for module, channels, axis in found)

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone(x)


def problems_of_images(trunk: nn.Module, size: int) -> list[str]:
    """Why a trunk gives no features (N, C) of images (N, 3, size, size); it is passed a black one, to see.

    It is left in evaluation mode.
    """
    told = f"the trunk must take images of 3 colours and {size} pixels"
    try:
        with torch.inference_mode():
            features = trunk.eval()(torch.zeros(1, 3, size, size))
    except Exception as error:  # of any model's code
        return [f"{told}, got {vision.first_line(error)}; change model.options or images.size (--size)"]
    shape, expected = tuple(features.shape), (1, cast(int, trunk.channels))
    return [] if shape == expected else [f"{told} and give features {expected}, got {shape}; change model.options"]


TRUNKS: Mapping[str, Callable[..., nn.Module]] = {"mlp": TabularMLP, "tabm": TabM, "resnet32": ResNet32}
"""The trunks of this library; `build` takes any other name for one of timm's."""


def build(config: Config, *, n_classes: int = 2, pretrained: bool = True, **shape: Any) -> LossConditional:
    """The untrained model that a config describes, started from its seed without touching the global random state.

    Args:
        pretrained: False leaves out the weights that the config's trunk starts from, for a model that is about to get
            others: their file, or a network, need not be there.
        shape: what the trunk must know of the data: `n_features` for a table, with `quantiles` where its numeric
            columns are embedded; nothing for images.

    Raises:
        InputError: a trunk that does not go with the data, unknown options of it, weights that cannot be had, or FiLM
            after the stages of a trunk that has none.
    """
    trunk_options = dict(config.model.options)
    if not pretrained:
        trunk_options = {key: value for key, value in trunk_options.items() if key not in ("pretrained", "weights")}
    _check_trunk(config.model.trunk, shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.model.trunk in TRUNKS:
            trunk = TRUNKS[config.model.trunk](**shape, **trunk_options)
        else:
            trunk = TimmTrunk(config.model.trunk, **trunk_options)
        channels = cast(int, trunk.channels)  # a module's attributes have no types
        head = nn.Linear(channels, n_classes, bias=config.model.head == "linear")
        members = cast(int, getattr(trunk, "members", 1))
        if members > 1:
            nn.init.uniform_(head.weight, -((members / channels) ** 0.5), (members / channels) ** 0.5)
            register_parametrization(head, "weight", _MeanOf(members))
        if config.model.head == "cosine":
            register_parametrization(head, "weight", _UnitRows())
        film = stages = None
        place: Place = "features"
        if config.film is not None and config.lambdas.free:
            options = dataclasses.asdict(config.film)
            del options["placement"]
            if config.film.placement == "stages":
                stages = StageFiLM(config.lambdas, cast(Sequence[Stage], trunk.stages), **options)
            else:
                place = config.film.placement
                film = FiLM(config.lambdas, channels if place == "features" else n_classes, **options)
    unit = config.model.head == "cosine"
    return channels_last(LossConditional(trunk, film, head, stages, unit=unit, place=place, members=members))


class _MeanOf(nn.Module):
    """Weights of the mean of members, from those of the members: steps of the optimizer are of a member's size."""

    def __init__(self, members: int) -> None:
        super().__init__()
        self.members = members

    def forward(self, weight: Tensor) -> Tensor:
        return weight / self.members

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


class _UnitRows(nn.Module):
    """Rows of length one."""

    def forward(self, weight: Tensor) -> Tensor:
        return F.normalize(weight, dim=1)


def channels_last(model: LossConditional) -> LossConditional:
    """The same model, its image convolutions with the channels innermost in memory: the order that fast kernels want.

    Inputs and what follows a convolution take the order over from its weights.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    return model


def _check_trunk(name: str, shape: Mapping[str, Any]) -> None:
    problems = Problems()
    for_table = name in TABLE_TRUNKS
    problems.check(
        for_table or "n_features" not in shape, f"trunk {name!r} takes images; a table needs 'mlp' or 'tabm'"
    )
    problems.check(
        not for_table or "n_features" in shape, f"trunk {name!r} takes tables; images need 'resnet32' or timm's"
    )
    problems.raise_if_any()
