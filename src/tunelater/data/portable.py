"""A table's fitted preprocessing as a PyTorch module, to be exported together with the network.

`Preprocessor.transform` works on data frames through scikit-learn. Here the same numbers come out of tensors alone, by
operations that `torch.export` and ONNX have. Text does not fit into a tensor: a category is its code, which `codes`
lists.

Shapes: N rows; F columns of a kind; Q quantiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tunelater.data.cells import MISSING_TEXTS
from tunelater.data.preprocessing import LARGEST_INPUT, LARGEST_OUTPUT, MISSING_CATEGORY, Preprocessor


class Codes(NamedTuple):
    """The codes of a categorical column: columns of its one-hot encoding."""

    of: dict[str, int]
    """The code of each category that training had, rare ones sharing one."""
    missing: int
    """The code of a cell without a value."""
    other: int
    """The code of any other category; -1 where that is encoded as zeros."""
    width: int
    """How many codes from 0 there are."""

    @classmethod
    def fitted(cls, categories: np.ndarray, rare: np.ndarray | None) -> Codes:
        """From what scikit-learn's `OneHotEncoder` has learned of a column."""
        shared = frozenset(() if rare is None else rare)
        own = [str(category) for category in categories if category not in shared]
        of = {category: code for code, category in enumerate(own)} | dict.fromkeys(map(str, shared), len(own))
        other = len(own) if shared else -1
        missing = of.pop(MISSING_CATEGORY, other)
        return cls(of, missing, other, len(own) + bool(shared))

    def spelled(self) -> dict[str, int]:
        """The code of each text that a cell may have: also other spellings that the library reads as the same.

        A cell is without white space and quotes around it, and a number that is a category without zeros at its end.
        """
        texts = dict.fromkeys(MISSING_TEXTS, self.missing)
        for category, code in self.of.items():
            if category in ("true", "false"):
                texts |= dict.fromkeys((category.capitalize(), category.upper()), code)
            if category.lstrip("-").isdecimal() and str(int(category)) == category:
                texts[f"{category}.0"] = code
        return texts | self.of


class PortablePreprocessor(nn.Module):
    """`Preprocessor.transform` on tensors: (N, n_features) float32.

    Args:
        preprocessor: a fitted one.
    """

    def __init__(self, preprocessor: Preprocessor) -> None:
        super().__init__()
        fitted = preprocessor.fitted()
        kinds = preprocessor.schema.columns.items()
        self.columns = {
            kind: tuple(name for name, k in kinds if k == kind)
            for kind in ("numeric", "boolean", "categorical")
            if kind in preprocessor.schema.columns.values()
        }
        self.blocks = nn.ModuleDict()
        if "numeric" in fitted:
            imputer, scaler = (step for _, step in fitted["numeric"].steps)
            scale = _Quantiles(scaler) if hasattr(scaler, "quantiles_") else _Standard(scaler)
            self.blocks["numeric"] = _Numbers(imputer, fitted["numeric_missing"], scale)
        if "boolean" in fitted:
            self.blocks["boolean"] = _Numbers(fitted["boolean"], fitted["boolean_missing"], nn.Identity())
        self.bounded = _Bounded(-LARGEST_OUTPUT, LARGEST_OUTPUT)
        self.codes: dict[str, Codes] = {}
        if "categorical" in fitted:
            encoder = fitted["categorical"]
            rare = getattr(encoder, "infrequent_categories_", [None] * len(encoder.categories_))
            learned = zip(self.columns["categorical"], encoder.categories_, rare, strict=True)
            self.codes = {name: Codes.fitted(known, few) for name, known, few in learned}
            self.blocks["categorical"] = _OneHot([codes.width for codes in self.codes.values()])

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of columns that there are, in their order in `forward`."""
        return tuple(self.columns)

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        """
        Args:
            x: of each kind of column that there is, (N, F): `numeric` and `boolean` float64, NaN where missing;
                `categorical` int64 codes.
        """
        parts = [self.blocks[kind](x[kind]) for kind in self.columns]
        return self.bounded(torch.cat(parts, dim=1)).float()


class _Bounded(nn.Module):
    """`clamp`, whose bounds PyTorch's ONNX exporter rounds to float32."""

    low: Tensor
    high: Tensor

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(low, dtype=torch.float64))
        self.register_buffer("high", torch.tensor(high, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(x, self.low), self.high)


class _Numbers(nn.Module):
    """Missing values filled in, the numbers scaled, and 0 or 1 for missing beside columns that had some."""

    fill: Tensor
    had_missing: Tensor | None

    def __init__(self, imputer: Any, indicator: Any, scale: nn.Module) -> None:
        super().__init__()
        self.register_buffer("fill", torch.from_numpy(np.asarray(imputer.statistics_, np.float64)))
        had_missing = torch.from_numpy(np.asarray(indicator.features_, np.int64))
        # `torch.export.save` fails at a tensor without values.
        self.register_buffer("had_missing", had_missing if len(had_missing) else None)
        self.scale = scale
        self.bounded = _Bounded(-LARGEST_INPUT, LARGEST_INPUT)

    def forward(self, x: Tensor) -> Tensor:
        gone = x.isnan()
        # Bounded only once nothing is missing: runtimes differ in what a bound makes of NaN.
        scaled = self.scale(self.bounded(torch.where(gone, self.fill, x)))
        if self.had_missing is None:
            return scaled
        return torch.cat([scaled, gone.index_select(1, self.had_missing).double()], dim=1)


class _Standard(nn.Module):
    mean: Tensor
    deviation: Tensor

    def __init__(self, scaler: Any) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(np.asarray(scaler.mean_, np.float64)))
        self.register_buffer("deviation", torch.from_numpy(np.asarray(scaler.scale_, np.float64)))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation


class _Quantiles(nn.Module):
    """As scikit-learn's `QuantileTransformer` to the normal distribution: x to its share among the training values,
    interpolated (the middle of its shares where values tie), and that to a normal quantile."""

    blocks: Tensor
    starts: Tensor
    row: Tensor
    quantiles: Tensor
    column: Tensor
    shares: Tensor
    lowest: Tensor
    highest: Tensor
    _ENDS = 1e-7

    def __init__(self, scaler: Any) -> None:
        super().__init__()
        quantiles_FQ = torch.from_numpy(np.ascontiguousarray(scaler.quantiles_.T, np.float64))
        self.columns, self.size = quantiles_FQ.shape
        self.width = math.isqrt(self.size) + 1
        room = torch.full((self.columns, self.width**2 - self.size), torch.inf, dtype=torch.float64)
        blocks = torch.cat([quantiles_FQ, room], dim=1).reshape(self.columns, self.width, self.width)
        self.register_buffer("blocks", blocks.flatten(0, 1))
        self.register_buffer("starts", blocks[:, :, 0].clone())
        self.register_buffer("row", torch.arange(self.columns) * self.width)
        self.register_buffer("quantiles", quantiles_FQ.flatten())
        self.register_buffer("column", torch.arange(self.columns) * self.size)
        self.register_buffer("shares", torch.from_numpy(np.array(scaler.references_, np.float64)))
        self.register_buffer("lowest", quantiles_FQ[:, 0].clone())
        self.register_buffer("highest", quantiles_FQ[:, -1].clone())
        self.inside = _Bounded(self._ENDS, 1 - self._ENDS)
        self.normal = NormalQuantile()

    def forward(self, x: Tensor) -> Tensor:
        last = self._count(x.unsqueeze(2), torch.le) - 1
        first = self._count(x.unsqueeze(2), torch.lt)
        low, high = last.clamp(0, self.size - 1), first.clamp(0, self.size - 1)
        start, end = self.quantiles[low + self.column], self.quantiles[high + self.column]
        low_share, high_share = self.shares[low], self.shares[high]
        tied = last >= first
        slope = (high_share - low_share) / torch.where(tied, 1.0, end - start)
        share = torch.where(tied, (low_share + high_share) / 2, low_share + slope * (x - start))
        share = torch.where(x + self._ENDS > self.highest, 1.0, share)
        share = torch.where(x - self._ENDS < self.lowest, 0.0, share)
        return self.normal(self.inside(share))

    def _count(self, x: Tensor, below: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """(N, F) how many quantiles are `below` x (N, F, 1): of blocks of them, and within one. ONNX has no search."""
        block = (below(self.starts, x).long().sum(2) - 1).clamp(min=0)
        within = below(self.blocks[block + self.row], x).long().sum(2)
        return block * self.width + within


class _OneHot(nn.Module):
    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.widths = widths

    def forward(self, codes: Tensor) -> Tensor:
        known = [torch.arange(width, device=codes.device) for width in self.widths]
        return torch.cat([(codes[:, i : i + 1] == some).double() for i, some in enumerate(known)], dim=1)


# Of three rational functions, of the middle and of either end: numerator and denominator, from the constant up.
_AS_241 = torch.tensor(
    [
        [
            [3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
             4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3],
            [1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
             2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3],
        ],
        [
            [1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0,
             3.64784832476320460504e0, 1.27045825245236838258e0, 2.41780725177450611770e-1,
             2.27238449892691845833e-2, 7.74545014278341407640e-4],
            [1.0, 2.05319162663775882187e0, 1.67638483018380384940e0,
             6.89767334985100004550e-1, 1.48103976427480074590e-1, 1.51986665636164571966e-2,
             5.47593808499534494600e-4, 1.05075007164441684324e-9],
        ],
        [
            [6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0,
             2.96560571828504891230e-1, 2.65321895265761230930e-2, 1.24266094738807843860e-3,
             2.71155556874348757815e-5, 2.01033439929228813265e-7],
            [1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
             7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7,
             2.04426310338993978564e-15],
        ],
    ],
    dtype=torch.float64,
)  # fmt: skip


class NormalQuantile(nn.Module):
    """The standard normal quantile of shares in (0, 1), float64, to about 15 digits: algorithm AS 241 (Wichura 1988),
    since ONNX has neither it nor the inverse error function."""

    coefficients: Tensor
    exponents: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("coefficients", _AS_241)
        self.register_buffer("exponents", torch.arange(_AS_241.shape[-1], dtype=torch.float64))

    def forward(self, share: Tensor) -> Tensor:
        centred = share - 0.5
        tail = (-torch.log(torch.where(centred < 0, share, 1 - share))).sqrt()
        near = tail <= 5
        middle = centred * self._ratio(0.180625 - centred * centred, 0)
        end = torch.where(near, self._ratio(tail - 1.6, 1), self._ratio(tail - 5, 2))
        return torch.where(centred.abs() <= 0.425, middle, torch.where(centred < 0, -end, end))

    def _ratio(self, x: Tensor, which: int) -> Tensor:
        # One product for all terms: a tenth of the operations of Horner's rule. No term is negative, so none cancel.
        terms = x.clamp(min=0).unsqueeze(-1) ** self.exponents
        above, below = (terms @ self.coefficients[which].T).unbind(-1)
        return above / below
