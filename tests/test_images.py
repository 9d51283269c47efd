"""Image inputs against per-image loops with PIL and torchvision."""

from __future__ import annotations

import dataclasses
import gc
import threading
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from scipy import stats
from torch import Tensor

from tunelater import vision
from tunelater.config import Config, ImagesConfig, ModelConfig
from tunelater.data import images
from tunelater.data.images import (
    Crops,
    FetchedImages,
    ImageSplit,
    cut,
    cut_and_resized,
    random_crops,
    random_resized_crops,
    resized,
)
from tunelater.data.splits import Splits
from tunelater.models import build
from tunelater.problems import InputError
from tunelater.training import _Batches, train

vision.torchvision()
from torchvision.transforms import RandomResizedCrop  # noqa: E402
from torchvision.transforms import functional as reference  # noqa: E402

CIFAR = ImagesConfig(crop="pad", horizontal_flip=True)
MELANOMA = ImagesConfig(size=24, crop="resized", scale=(0.65, 1.0), horizontal_flip=True, vertical_flip=True)


def pixels(n: int, height: int = 32, width: int = 32, seed: int = 0) -> Tensor:
    """Noise over a slope, so that a shift, a flip or a blur shows."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(0, 155, height)[:, None] + np.linspace(0, 50, width)
    return torch.from_numpy((slope + rng.integers(0, 50, (n, 3, height, width))).astype(np.uint8))


def split(x: Tensor | np.ndarray, config: ImagesConfig) -> ImageSplit:
    return ImageSplit(x, torch.arange(len(x)) % 2, config)


def as_pil(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def from_pil(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def flipped(image: Image.Image, crops: Crops, i: int) -> Image.Image:
    image = ImageOps.mirror(image) if crops.mirrored[i] else image
    return ImageOps.flip(image) if crops.upside_down[i] else image


def boxes(crops: Crops, i: int) -> tuple[int, int, int, int]:
    return int(crops.top[i]), int(crops.left[i]), int(crops.height[i]), int(crops.width[i])


# ------------------------------------------------------------------------------------------------------------- inputs


def test_evaluation_normalises_as_torchvision_does() -> None:
    x = pixels(5)
    expected = torch.stack([reference.normalize(reference.to_tensor(as_pil(i)), CIFAR.mean, CIFAR.std) for i in x])
    torch.testing.assert_close(split(x, CIFAR).inputs(slice(None)), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(40, 30), (30, 41), (24, 24), (12, 17)])
def test_evaluation_resizes_the_shorter_side_and_cuts_the_centre_out(height: int, width: int) -> None:
    x = pixels(3, height, width)
    expected = reference.center_crop(reference.resize(x.float(), 24, antialias=True), [24, 24])
    torch.testing.assert_close(resized(x, 24).float(), expected, rtol=0, atol=1e-3)
    by_pil = torch.stack([from_pil(reference.center_crop(reference.resize(as_pil(i), 24), 24)) for i in x])
    assert float((resized(x, 24) - by_pil).abs().max()) <= 1.5  # PIL rounds to whole levels, once for each direction


@pytest.mark.parametrize(
    "config", [CIFAR, MELANOMA, ImagesConfig(size=28, crop="pad"), ImagesConfig(vertical_flip=True)]
)
@pytest.mark.parametrize("noise", [None, 7])
def test_inputs_are_float32_channels_last_and_of_one_size(config: ImagesConfig, noise: int | None) -> None:
    x = split(pixels(6), config).inputs(torch.tensor([3, 3, 0]), noise)
    side = config.size or 32
    assert x.shape == (3, 3, side, side)
    assert x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("config", [CIFAR, MELANOMA])
def test_noise_keys_a_batch_and_touches_no_global_state(config: ImagesConfig) -> None:
    data, index = split(pixels(40), config), torch.arange(39, -1, -1)
    state = torch.random.get_rng_state()
    first = data.inputs(index, 2**63 - 1)
    torch.rand(3)
    assert torch.equal(data.inputs(index, 2**63 - 1), first)
    torch.random.set_rng_state(state)
    data.inputs(index, 5)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.equal(data.inputs(index, 5), first)


@pytest.mark.parametrize("noise", [None, 3])
@pytest.mark.parametrize("index", [slice(2, 9), torch.tensor([8, 1, 1])])
def test_an_array_on_the_host_gives_what_a_tensor_does(index: Any, noise: int | None, tmp_path: Any) -> None:
    x = pixels(10)
    np.save(tmp_path / "x.npy", x.numpy())
    mapped = split(np.load(tmp_path / "x.npy", mmap_mode="r"), CIFAR)
    assert isinstance(mapped.pixels, np.memmap)
    assert torch.equal(mapped.inputs(index, noise), split(x, CIFAR).inputs(index, noise))


def test_a_split_says_all_that_is_wrong_with_it() -> None:
    with pytest.raises(InputError) as error:
        ImageSplit(torch.zeros(4, 8, 8, 3), torch.zeros(3), ImagesConfig(size=0), torch.ones(2))
    words = ("uint8 pixels of shape (N, 3, H, W), got float32 (4, 8, 8, 3)", "4 targets", "int64", "4 weights", "size")
    assert len(error.value.problems) == len(words)
    assert all(word in problem for word, problem in zip(words, error.value.problems, strict=True))


@pytest.mark.parametrize("rows", [torch.tensor([0, 4]), torch.tensor([-1, 0]), torch.tensor([0.0, 1.0])])
def test_rows_lie_in_the_array(rows: Tensor) -> None:
    x, target = pixels(4).numpy(), torch.arange(2)
    assert len(ImageSplit(x, target, CIFAR, rows=torch.tensor([3, 0]))) == 2
    with pytest.raises(InputError, match="int64 indices of the 4 images"):
        ImageSplit(x, target, CIFAR, rows=rows)
    with pytest.raises(InputError, match="take them from a tensor itself"):
        ImageSplit(torch.from_numpy(x), target, CIFAR, rows=torch.tensor([3, 0]))


class Recorded:
    """An array that knows which rows were read, by which thread."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.read: list[tuple[str, list[int]]] = []

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        self.read.append((threading.current_thread().name, np.atleast_1d(index).tolist()))
        return self.array[index]


def recorded(n: int = 40, **options: Any) -> tuple[Recorded, FetchedImages, ImageSplit]:
    """Images in an array, of which a split takes some in another order; the same in memory."""
    x, order = pixels(n + 5, 9, 10), torch.randperm(n, generator=torch.Generator().manual_seed(1)) + 5
    array = Recorded(x.numpy())
    fetched = FetchedImages(array, torch.arange(n) % 2, CIFAR, rows=order, **options)
    return array, fetched, ImageSplit(x[order], torch.arange(n) % 2, CIFAR, **options)


def test_a_batch_of_an_array_reads_its_own_images_alone() -> None:
    array, fetched, held = recorded()
    for index in (torch.tensor([7, 7, 1]), slice(3, 9)):
        array.read.clear()
        assert torch.equal(fetched.inputs(index, 3), held.inputs(index, 3))
        ((_, rows),) = array.read
        assert rows == fetched.rows[index].tolist()


def test_an_array_is_taken_into_memory_where_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    array, fetched, held = recorded(weight=torch.rand(40))
    cpu = torch.device("cpu")
    inside = fetched.to(cpu)
    assert torch.equal(inside.pixels, held.pixels)
    assert (inside.rows, inside.weight) == (None, fetched.weight)
    assert [row for _, rows in array.read for row in rows] == sorted(fetched.rows.tolist()), "in the order of the disk"
    n_bytes = 40 * 3 * 9 * 10
    for limit in (n_bytes, n_bytes - 1):
        monkeypatch.setattr(images, "_fits_well", lambda device, limit=limit: limit)
        assert isinstance(fetched.to(cpu).pixels, Tensor) == (limit == n_bytes)
    assert fetched.to(cpu).pixels is array
    assert isinstance(fetched.take(torch.tensor([3])).to(cpu).pixels, Tensor), "one image fits"


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("rank", "processes"), [(0, 1), (1, 2)])
def test_batches_that_are_fetched_ahead_are_the_same_batches(rank: int, processes: int, weighted: bool) -> None:
    array, fetched, held = recorded(**({"weight": torch.rand(40)} if weighted else {}))
    config = Config(model=ModelConfig("resnet32"), images=CIFAR, epochs=3, batch_size=9, early_stopping=None)
    ours, theirs = (_Batches(data, config, rank, processes) for data in (fetched, held))
    for step in [*range(15), 3, 12]:  # and after a jump, as where a training goes on
        for a, b in zip(ours.at(step), theirs.at(step), strict=True):
            assert torch.equal(a, b)
        assert all(torch.equal(a, theirs.lam(step)[name]) for name, a in ours.lam(step).items())
    fetched._thread.shutdown()  # the last that it was told to expect is still to come
    by_main = [thread == threading.current_thread().name for thread, _ in array.read]
    # The first of an epoch, and the two after a jump.
    assert by_main.count(True) == 3 + 2
    assert by_main.count(False) == 3 * 4 + 2


def test_what_fails_while_fetching_is_raised_and_the_thread_ends_with_the_split() -> None:
    _, fetched, _ = recorded()
    fetched.expect(torch.tensor([0, 1]))
    fetched.inputs(torch.tensor([0, 1]))
    fetched.expect(torch.tensor([400]))
    with pytest.raises(IndexError):
        fetched.inputs(torch.tensor([400]))
    fetched.inputs(torch.tensor([4]))
    assert threads()
    del fetched
    gc.collect()
    for thread in threads():
        thread.join(5)
    assert not threads()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("tunelater-images")]


def test_the_loop_trains_alike_on_images_that_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    array, fetched, held = recorded()
    config = Config(model=ModelConfig("resnet32"), images=CIFAR, epochs=2, batch_size=9, early_stopping=None)
    expected = train(config, Splits(held, held), build(config)).model.state_dict()
    monkeypatch.setattr(FetchedImages, "to", lambda self, device: self)
    ours = train(config, Splits(fetched, held), build(config)).model.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in expected.items())
    assert any(thread.startswith("tunelater-images") for thread, _ in array.read)


def test_the_loop_trains_on_images() -> None:
    """Class 1 is brighter: a constant shift, which augmentation keeps."""
    x, target = pixels(64, 8, 8) // 2, torch.arange(64) % 2
    x[target == 1] += 100
    data = ImageSplit(x, target, dataclasses.replace(CIFAR, padding=1))
    config = Config(model=ModelConfig("resnet32"), images=CIFAR, epochs=3, batch_size=16, early_stopping=None)
    trained = train(config, Splits(data, data), build(config))
    assert trained.history[-1]["loss"] < trained.history[0]["loss"]


# --------------------------------------------------------------------------------------------------------------- boxes


def test_padded_crops_are_those_of_a_loop_with_pil() -> None:
    x, config = pixels(30, 20, 26), dataclasses.replace(CIFAR, vertical_flip=True)
    crops = random_crops(config, len(x), (20, 26), 4, seed=3)
    ours = cut(torch.nn.functional.pad(x, (4,) * 4), crops, (20, 26))
    for i, image in enumerate(x):
        top, left, height, width = boxes(crops, i)
        padded = ImageOps.expand(as_pil(image), 4, fill=0)
        expected = flipped(padded.crop((left, top, left + width, top + height)), crops, i)
        assert torch.equal(ours[i], from_pil(expected)), i
    data = split(x, config)
    torch.testing.assert_close(data.inputs(slice(None), 3), split(ours, config).inputs(slice(None)))


@pytest.mark.parametrize("image", [(32, 32), (20, 40), (60, 50)])
def test_resized_crops_are_those_of_loops_with_torchvision_and_pil(image: tuple[int, int]) -> None:
    """Both where a box shrinks and where it grows."""
    x, config = pixels(30, *image), dataclasses.replace(MELANOMA, scale=(0.05, 1.0))
    crops = random_resized_crops(config, len(x), image, (24, 24), seed=5)
    ours = cut_and_resized(x, crops, (24, 24))
    for i, each in enumerate(x):
        box = boxes(crops, i)
        expected = reference.resized_crop(each.float(), *box, [24, 24], antialias=True)
        expected = expected.flip(2) if crops.mirrored[i] else expected
        expected = expected.flip(1) if crops.upside_down[i] else expected
        torch.testing.assert_close(ours[i], expected, rtol=0, atol=1e-3)
        by_pil = from_pil(flipped(reference.resized_crop(as_pil(each), *box, [24, 24]), crops, i))
        assert float((ours[i] - by_pil).abs().max()) <= 1.5
    data = split(x, config)
    expected = (ours / 255 - torch.tensor(config.mean)[:, None, None]) / torch.tensor(config.std)[:, None, None]
    torch.testing.assert_close(data.inputs(slice(None), 5), expected, rtol=0, atol=1e-5)


def test_offsets_and_flips_of_padded_crops_are_uniform() -> None:
    n, config = 81_000, dataclasses.replace(CIFAR, vertical_flip=True)
    crops = random_crops(config, n, (32, 32), 4, seed=0)
    cells = crops.top * 9 + crops.left
    counts = np.bincount(cells * 4 + crops.mirrored * 2 + crops.upside_down, minlength=81 * 4)
    assert len(counts) == 81 * 4
    assert stats.chisquare(counts).pvalue > 1e-3
    assert stats.chisquare(np.bincount(cells)).pvalue > 1e-3


@pytest.mark.parametrize("image", [(32, 32), (24, 60)])
def test_resized_boxes_are_distributed_as_torchvisions(image: tuple[int, int]) -> None:
    n, scale = 4000, (0.2, 0.9)
    crops = random_resized_crops(dataclasses.replace(MELANOMA, scale=scale), n, image, (24, 24), seed=0)
    torch.manual_seed(0)
    blank = torch.zeros(3, *image)
    theirs = np.array([RandomResizedCrop.get_params(blank, list(scale), [3 / 4, 4 / 3]) for _ in range(n)])
    ours = np.stack([crops.top, crops.left, crops.height, crops.width], 1)
    assert bool((ours[:, :2] >= 0).all() and (ours[:, 2:] >= 1).all() and (ours[:, :2] + ours[:, 2:] <= image).all())
    for name, a, b in [
        *zip(("top", "left", "height", "width"), ours.T, theirs.T, strict=True),
        ("area", ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]),
        ("ratio", ours[:, 3] / ours[:, 2], theirs[:, 3] / theirs[:, 2]),
    ]:
        assert stats.ks_2samp(a, b).pvalue > 1e-3, name


@pytest.mark.parametrize("image", [(10, 100), (100, 10), (10, 21)])
def test_where_no_box_fits_the_largest_in_the_middle_is_taken(image: tuple[int, int]) -> None:
    """A box of at least 90% of an image so long would be far from square; torchvision then has nothing left to draw."""
    crops = random_resized_crops(dataclasses.replace(MELANOMA, scale=(0.9, 1.0)), 20, image, (24, 24), seed=0)
    expected = RandomResizedCrop.get_params(torch.zeros(3, *image), [0.9, 1.0], [3 / 4, 4 / 3])
    assert {boxes(crops, i) for i in range(20)} == {expected}


def test_flips_that_are_off_never_happen() -> None:
    for crops in (
        random_crops(ImagesConfig(), 1000, (8, 8), 0, seed=0),
        random_resized_crops(ImagesConfig(), 1000, (8, 8), (8, 8), seed=0),
    ):
        assert not crops.mirrored.any()
        assert not crops.upside_down.any()
