"""Images on their way to the network: held as bytes, cut, augmented and normalised a batch at a time.

Augmentation works on whole batches, on the device that the network is on, and is keyed by a step's seed: the same seed
gives the same boxes and flips on every device.
"""

from __future__ import annotations

import math
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tunelater.config import ImagesConfig
from tunelater.data.splits import problems_of_labels
from tunelater.distributions import keyed_rng
from tunelater.problems import Problems

_TRIES = 10
"""Boxes drawn for an image until one fits, as torchvision's RandomResizedCrop has it."""
_RATIO = 4 / 3
"""How much wider or higher than the result a box may be, as there."""


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """Labelled images as bytes, which become normalised inputs a batch at a time.

    Args:
        pixels: (N, 3, H, W) uint8. A tensor moves to the device as a whole. An array, such as the memory map of
            `cache_images` or its `CachedImages`, becomes a tensor there if it fits well; if not, it stays where it is,
            and what a batch needs is moved.
        target: (N,) class indices, int64.
        config: size, augmentation and normalisation.
        weight: (N,) non-negative sample weights, or None.
        rows: (N,) int64 on the host: where in a larger array each image lies; None where there are no others in it, and
            for a tensor.

    Raises:
        InputError: shapes or types that do not fit; negative targets or weights.
    """

    pixels: Tensor | np.ndarray
    target: Tensor
    config: ImagesConfig
    weight: Tensor | None = None
    rows: Tensor | None = None

    def __post_init__(self) -> None:
        problems = Problems()
        shape, dtype = tuple(self.pixels.shape), str(self.pixels.dtype).removeprefix("torch.")
        sound = len(shape) == 4 and shape[1] == 3 and min(shape[2:]) > 0 and dtype == "uint8"
        problems.check(sound, f"images are uint8 pixels of shape (N, 3, H, W), got {dtype} {shape}")
        n = len(self.pixels if self.rows is None else self.rows)
        problems.add(*problems_of_labels(n, self.target, self.weight))
        if self.rows is not None:
            problems.check(not isinstance(self.pixels, Tensor), "rows are of an array; take them from a tensor itself")
            inside = self.rows.dtype == torch.int64 and bool(((self.rows >= 0) & (self.rows < shape[0])).all())
            problems.check(inside, f"rows are int64 indices of the {shape[0]:,} images, got others")
        problems.add(*self.config.problems())
        problems.raise_if_any()

    def __len__(self) -> int:
        return len(self.target)

    def take(self, index: Tensor) -> ImageSplit:
        weight = None if self.weight is None else self.weight[index]
        rows = index.cpu() if self.rows is None else self.rows[index.cpu()]
        if isinstance(self.pixels, Tensor):
            return ImageSplit(self.pixels[rows.to(self.pixels.device)], self.target[index], self.config, weight)
        return ImageSplit(self.pixels, self.target[index], self.config, weight, rows)

    def to(self, device: torch.device) -> ImageSplit:
        target, weight = self.target.to(device), None if self.weight is None else self.weight.to(device)
        if isinstance(self.pixels, Tensor):
            return ImageSplit(self.pixels.to(device), target, self.config, weight)
        if len(self) * math.prod(self.pixels.shape[1:]) <= _fits_well(device):
            return ImageSplit(self._whole().to(device), target, self.config, weight)
        kind = ImageSplit if device.type == "cpu" else FetchedImages
        return kind(self.pixels, target, self.config, weight, self.rows)

    def _whole(self) -> Tensor:
        """All pixels in memory, read in the order of the array."""
        rows = np.arange(len(self)) if self.rows is None else self.rows.numpy()
        whole = np.empty((len(rows), *self.pixels.shape[1:]), np.uint8)
        for some in np.array_split(np.argsort(rows, kind="stable"), 1 + whole.nbytes // 2**26):
            whole[some] = self.pixels[rows[some]]
        return torch.from_numpy(whole)

    def inputs(self, index: Tensor | slice, noise: int | None = None) -> Tensor:
        """(B, 3, size, size) float32 in the channels-last memory format: (pixel / 255 - mean) / std.

        Args:
            index: which images.
            noise: seed of the boxes and flips of a training step; None gives the inputs of evaluation.
        """
        pixels = self._taken(index)
        if noise is None:
            return self._normalised(resized(pixels, self.config.size))
        height, width = pixels.shape[2:]
        size = (self.config.size or height, self.config.size or width)
        if self.config.crop == "resized":
            crops = random_resized_crops(self.config, len(pixels), (height, width), size, noise)
            return self._normalised(cut_and_resized(pixels, crops, size))
        pixels = resized(pixels, self.config.size)
        padding = self.config.padding if self.config.crop == "pad" else 0
        crops = random_crops(self.config, len(pixels), size, padding, noise)
        return self._normalised(cut(F.pad(pixels, (padding,) * 4) if padding else pixels, crops, size))

    def _taken(self, index: Tensor | slice) -> Tensor:
        if isinstance(self.pixels, Tensor):
            return self.pixels[index]
        device = self.target.device
        return self._on_host(index).to(device, non_blocking=device.type == "cuda")

    def _on_host(self, index: Tensor | slice) -> Tensor:
        return _read(self.pixels, self.rows, index, self.target.device)

    @cached_property
    def _scale_and_shift(self) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (self.config.mean, self.config.std))
        device = self.target.device
        scale, shift = (t.float().to(device)[:, None, None] for t in (1 / (255 * std), -mean / std))
        return scale, shift

    def _normalised(self, pixels: Tensor) -> Tensor:
        scale, shift = self._scale_and_shift
        return torch.addcmul(shift, pixels.contiguous(memory_format=torch.channels_last).float(), scale)


class FetchedImages(ImageSplit):
    """Images on the host, too many for the device: a thread reads those of the next step while the device works.

    What is read depends on the indices alone, so that batches are the same as without it.
    """

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "tunelater-images")

    @cached_property
    def _expected(self) -> list[tuple[Tensor, Future[Tensor]]]:
        """One, or none."""
        return []

    def expect(self, index: Tensor) -> None:
        reading = self._thread.submit(_read, self.pixels, self.rows, index, self.target.device)
        self._expected[:] = [(index, reading)]

    def _on_host(self, index: Tensor | slice) -> Tensor:
        while self._expected:
            expected, pixels = self._expected.pop()
            if isinstance(index, Tensor) and torch.equal(expected, index.cpu()):
                return pixels.result()
        return super()._on_host(index)


def _read(pixels: Any, rows: Tensor | None, index: Tensor | slice, device: torch.device) -> Tensor:
    """Some pixels of an array, in memory from which a GPU copies them beside its work."""
    rows = torch.arange(len(pixels)) if rows is None else rows
    taken = torch.from_numpy(np.asarray(pixels[rows[index if isinstance(index, slice) else index.cpu()].numpy()]))
    return taken.pin_memory() if device.type == "cuda" else taken


def _fits_well(device: torch.device) -> int:
    """The bytes of pixels that a device holds for a whole training: a share of what a GPU has free."""
    return torch.cuda.mem_get_info(device)[0] // 3 if device.type == "cuda" else 2 * 2**30


# -------------------------------------------------------------------------------------------------------- augmentation


@dataclass(frozen=True)
class Crops:
    """Boxes and flips of N images: (N,) arrays, in pixels of the image or as booleans."""

    top: np.ndarray
    left: np.ndarray
    height: np.ndarray
    width: np.ndarray
    mirrored: np.ndarray
    upside_down: np.ndarray

    def on(self, device: torch.device) -> tuple[Tensor, ...]:
        """The six as (N, 1) int64 tensors: one small copy to the device."""
        arrays = (self.top, self.left, self.height, self.width, self.mirrored, self.upside_down)
        packed = torch.from_numpy(np.stack(arrays).astype(np.int64))
        return packed.to(device, non_blocking=True)[:, :, None].unbind()


def random_crops(config: ImagesConfig, n: int, size: tuple[int, int], padding: int, seed: int) -> Crops:
    """Boxes of `size` (height, width) at every place of images of that size with `padding` on each side alike."""
    rng = keyed_rng(seed, "noise")
    top, left = rng.integers(0, 2 * padding + 1, (2, n))
    height, width = (np.full(n, side) for side in size)
    return Crops(top, left, height, width, *_flips(config, n, rng))


def random_resized_crops(
    config: ImagesConfig, n: int, image: tuple[int, int], size: tuple[int, int], seed: int
) -> Crops:
    """Boxes in images of (height, width) `image`, to be resized to `size`; areas uniform in `config.scale`.

    As torchvision's `RandomResizedCrop`: the logarithm of a box's ratio is uniform within 3/4 to 4/3 of the result's;
    of ten boxes the first that fits is taken, or else the largest in the middle within those ratios.
    """
    rng = keyed_rng(seed, "noise")
    shape = size[1] / size[0]
    area = image[0] * image[1] * rng.uniform(*config.scale, (n, _TRIES))
    ratio = shape * np.exp(rng.uniform(-np.log(_RATIO), np.log(_RATIO), (n, _TRIES)))
    height, width = np.rint(np.sqrt(area / ratio)).astype(np.int64), np.rint(np.sqrt(area * ratio)).astype(np.int64)
    fits = (height >= 1) & (height <= image[0]) & (width >= 1) & (width <= image[1])
    first = (np.arange(n), fits.argmax(1))
    middle_height, middle_width = _largest_box(image, shape)
    fitted = fits[first]
    height, width = np.where(fitted, height[first], middle_height), np.where(fitted, width[first], middle_width)
    room = np.stack([image[0] - height, image[1] - width])
    top, left = np.where(fitted, rng.integers(0, room + 1), room // 2)
    return Crops(top, left, height, width, *_flips(config, n, rng))


def _largest_box(image: tuple[int, int], shape: float) -> tuple[int, int]:
    height, width = image
    if width / height < shape / _RATIO:
        return max(1, round(width * _RATIO / shape)), width
    if width / height > shape * _RATIO:
        return height, max(1, round(height * _RATIO * shape))
    return height, width


def _flips(config: ImagesConfig, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    coins = rng.random((2, n)) < 0.5
    return coins[0] & config.horizontal_flip, coins[1] & config.vertical_flip


def cut(pixels: Tensor, crops: Crops, size: tuple[int, int]) -> Tensor:
    """(N, C, *size): the box of each of the images (N, C, H, W), flipped."""
    top, left, _, _, mirrored, upside_down = crops.on(pixels.device)
    rows, columns = (torch.arange(side, device=pixels.device) for side in size)
    # i where it is not flipped, size - 1 - i where it is.
    rows = top + (upside_down * (size[0] - 1) - rows).abs()
    columns = left + (mirrored * (size[1] - 1) - columns).abs()
    image = torch.arange(len(pixels), device=pixels.device)[:, None, None]
    # Indices around a slice put the slice's dimension last: these are channels-last pixels without another copy.
    return pixels[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cut_and_resized(pixels: Tensor, crops: Crops, size: tuple[int, int]) -> Tensor:
    """(N, C, *size) float32: the box of each of the images (N, C, H, W), resized to `size` and flipped.

    Bilinear with antialiasing, as PIL's `resize`, so that where a box is larger than the result, training sees images
    no sharper than evaluation does. As boxes and flips differ between images, both passes are batched matrix products:
    `grid_sample` would alias, and `interpolate` needs a loop over the images.
    """
    top, left, height, width, mirrored, upside_down = crops.on(pixels.device)
    down = _interpolation(top, height, upside_down, pixels.shape[2], size[0])
    across = _interpolation(left, width, mirrored, pixels.shape[3], size[1])
    n, channels, rows, _ = pixels.shape
    # (N, C*H, W) @ (N, W, w), then (N, h, H) @ (N, H, w*C): neither matrix is repeated for the channels.
    narrow = pixels.flatten(1, 2).float() @ across.mT
    narrow = narrow.view(n, channels, rows, size[1]).permute(0, 2, 3, 1).reshape(n, rows, -1)
    return (down @ narrow).view(n, *size, channels).permute(0, 3, 1, 2)


def _interpolation(start: Tensor, length: Tensor, flipped: Tensor, size_in: int, size_out: int) -> Tensor:
    """(N, size_out, size_in) weights that resize the pixels start <= i < start + length of a line to size_out."""
    steps = torch.arange(size_out, device=start.device)
    steps = torch.where(flipped.bool(), size_out - 1 - steps, steps)[:, :, None]
    start, length = start[:, :, None].float(), length[:, :, None].float()
    scale = length / size_out
    centre = start + (steps + 0.5) * scale
    pixel = torch.arange(size_in, device=start.device) + 0.5
    weight = (1 - (pixel - centre).abs() / scale.clamp(min=1)).clamp(min=0)
    weight = weight * ((pixel > start) & (pixel < start + length))
    return weight / weight.sum(2, keepdim=True)


def resized(pixels: Tensor, size: int | None) -> Tensor:
    """Images (N, C, H, W) with the shorter side resized to `size` and the centre cut out: (N, C, size, size).

    As torchvision's Resize and CenterCrop, bilinear with antialiasing. What has the size already, or is to keep its
    own, is returned as it is; otherwise the result is float32, in the same range.
    """
    height, width = pixels.shape[2:]
    if size is None or (height, width) == (size, size):
        return pixels
    whole = whole_size(height, width, size)
    top, left = centre_of(whole, size)
    result = F.interpolate(pixels.float(), size=whole, mode="bilinear", antialias=True, align_corners=False)
    return result[:, :, top : top + size, left : left + size]


def whole_size(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width of the image once its shorter side is `size`."""
    shorter = min(height, width)
    return size * height // shorter, size * width // shorter


def centre_of(whole: tuple[int, int], size: int) -> tuple[int, int]:
    """Top and left of the square of `size` in the middle."""
    return round((whole[0] - size) / 2), round((whole[1] - size) / 2)
