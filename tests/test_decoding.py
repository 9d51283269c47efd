"""Decoding against Pillow and torchvision step by step, and a cache that survives whatever stops it."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import struct
import threading
import time
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from real_data import ISIC, needed
from tunelater import vision
from tunelater.config import ImagesConfig
from tunelater.data import decoding
from tunelater.data.decoding import cache_images, decode, decode_contents, digests, equal_images, joined_groups
from tunelater.data.images import ImageSplit
from tunelater.problems import DoubtfulInputWarning, InputError

vision.torchvision()
from torchvision.transforms import functional as reference  # noqa: E402


def noise(height: int = 40, width: int = 30, seed: int = 0) -> np.ndarray:
    """(H, W, 3) smooth enough for a JPEG, and different at every corner."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 4, 3)).astype(np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def saved(path: Path, array: np.ndarray | None = None, **options: Any) -> Path:
    Image.fromarray(noise() if array is None else array).save(path, **options)
    return path


def expected_of(image: Image.Image, size: int) -> np.ndarray:
    return np.asarray(reference.center_crop(reference.resize(image, size), size)).transpose(2, 0, 1)


def forked(function: Callable[[], object]) -> int:
    """The number of a process that runs the function: to be killed, or put under limits, which can't be lifted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on, where there are threads; it needs none
        pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        function()
        code = 0
    finally:
        os._exit(code)


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    (tmp_path / "images").mkdir()
    return [saved(tmp_path / "images" / f"{i}.png", noise(seed=i)) for i in range(6)]


# -------------------------------------------------------------------------------------------------------------- decode


@pytest.mark.parametrize(("height", "width"), [(40, 30), (31, 47), (24, 24), (9, 14), (25, 500)])
def test_images_are_resized_and_cut_as_torchvision_does(height: int, width: int, tmp_path: Path) -> None:
    array = noise(height, width)
    ours = decode(saved(tmp_path / "x.png", array), 24)
    assert ours.dtype == np.uint8
    assert ours.flags.c_contiguous
    assert np.abs(ours.astype(int) - expected_of(Image.fromarray(array), 24)).max() <= 1


def test_contents_are_decoded_as_files_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.jpg"):
        Image.fromarray(rng.integers(0, 256, (40, 90, 3), np.uint8)).save(tmp_path / name)
    files = [tmp_path / "a.png", tmp_path / "b.jpg"]
    whole = [file.read_bytes() for file in files]
    first, second, empty, cut, text = decode_contents([*whole, b"", whole[0][:-900], b"cracked"], 16)
    np.testing.assert_array_equal(first, decode(files[0], 16))
    np.testing.assert_array_equal(second, decode(files[1], 16))
    assert (empty, text) == ("not an image", "not an image")
    assert isinstance(cut, str)
    assert isinstance(decode_contents(whole[:1], 16, max_pixels=100)[0], str)
    with pytest.raises(InputError, match="1 pixel or more"):
        decode_contents(whole, 0)


def test_a_long_strip_does_not_fill_the_memory(tmp_path: Path) -> None:
    """Resized as a whole before it is cut, this one would have 25 million columns."""
    assert decode(saved(tmp_path / "x.png", noise(2, 50_000)), 1024).shape == (3, 1024, 1024)


def test_jpegs_decoded_at_a_fraction_look_as_decoded_in_full(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.jpg", noise(500, 700), quality=95)
    difference = decode(path, 50).astype(int) - expected_of(Image.open(path).convert("RGB"), 50)
    assert np.abs(difference).mean() < 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff"])
def test_images_are_turned_upright(orientation: int, suffix: str, tmp_path: Path) -> None:
    image = Image.fromarray(noise(33, 24))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / f"x.{suffix}", exif=exif)
    with Image.open(tmp_path / f"x.{suffix}") as read:
        upright = ImageOps.exif_transpose(read)
    assert np.abs(decode(tmp_path / f"x.{suffix}", 20).astype(int) - expected_of(upright, 20)).max() <= 1


def test_a_damaged_exif_block_does_not_matter(tmp_path: Path) -> None:
    paths = [saved(tmp_path / "x.jpg", exif=b"Exif\0\0II*\0" + bytes(range(60))), saved(tmp_path / "y.jpg")]
    with pytest.warns(UserWarning, match="Corrupt EXIF"):
        decode(paths[0], 24)
    damaged, sound = cache_images(paths, tmp_path / "cache", size=24)[:]  # and without a warning
    assert np.array_equal(damaged, sound)


def grey16() -> np.ndarray:
    return np.linspace(0, 65535, 24 * 24).reshape(24, 24).astype(np.uint16)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_are_scaled_to_eight(suffix: str, tmp_path: Path) -> None:
    ours = decode(saved(tmp_path / f"x.{suffix}", grey16()), 24)
    assert np.array_equal(ours, np.stack([np.round(grey16() / 257)] * 3))


def test_sixteen_bits_in_wider_integers_are_scaled_alike_and_more_are_refused(tmp_path: Path) -> None:
    narrow = decode(saved(tmp_path / "x.png", grey16()), 24)
    assert np.array_equal(decode(saved(tmp_path / "x.tiff", grey16().astype(np.int32)), 24), narrow)
    for changed in (grey16().astype(np.int32) + 1, -grey16().astype(np.int32)):
        with pytest.raises(ValueError, match="beyond 16 bits"):
            decode(saved(tmp_path / "y.tiff", changed), 24)
    with pytest.raises(ValueError, match="floating-point"):
        decode(saved(tmp_path / "z.tiff", grey16().astype(np.float32)), 24)


def grey12() -> np.ndarray:
    """The twelve bits of a detector, in a file of 16."""
    return np.linspace(0, 4095, 24 * 24).reshape(24, 24).astype(np.uint16)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("bits", [1, 10, 12, 15, 16])
def test_stated_bits_fill_the_range(bits: int, suffix: str, tmp_path: Path) -> None:
    top = 2**bits - 1
    values = np.linspace(0, top, 24 * 24).round().reshape(24, 24).astype(np.uint16)
    ours = decode(saved(tmp_path / f"x.{suffix}", values), 24, bits=bits)
    assert np.array_equal(ours, np.stack([np.floor(values / top * 255 + 0.5)] * 3))
    assert (ours.min(), ours.max()) == (0, 255)
    if bits < 16:
        with pytest.raises(ValueError, match=rf"values up to {top + 1:,}, beyond the {bits} bits"):
            decode(saved(tmp_path / f"y.{suffix}", values + np.uint16(1)), 24, bits=bits)


def packed_tiff(path: Path, values: np.ndarray) -> Path:
    """A TIFF of twelve bits a sample, two samples in three bytes, as detectors write it."""
    height, width = values.shape
    pairs = values.reshape(-1, 2).astype(int)
    strip = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1)
    tags = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: strip.size}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 8 + strip.size) + strip.astype(np.uint8).tobytes() + directory)
    return path


def test_a_tiff_that_packs_twelve_bits_says_so_itself(tmp_path: Path) -> None:
    expected = decode(saved(tmp_path / "x.png", grey12()), 24, bits=12)
    path = packed_tiff(tmp_path / "x.tiff", grey12())
    assert np.array_equal(decode(path, 24), expected)
    assert np.array_equal(decode(path, 24, bits=12), expected)


def test_eight_bits_stay_as_they_are_where_bits_are_stated(tmp_path: Path) -> None:
    for suffix in ("png", "jpg"):
        path = saved(tmp_path / f"x.{suffix}")
        assert np.array_equal(decode(path, 24, bits=12), decode(path, 24))


def png16(path: Path, values: np.ndarray) -> Path:
    """A PNG of (H, W, 3) colours in 16 bits, which Pillow does not write."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    told = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(told))
    return path


def test_of_sixteen_bit_colours_no_bits_can_be_stated(tmp_path: Path) -> None:
    path = png16(tmp_path / "x.png", np.tile([0x0FFF, 0x0800, 0x0010], (24, 24, 1)))
    assert np.array_equal(decode(path, 24)[:, 0, 0], [15, 8, 0])
    with pytest.raises(ValueError, match="16-bit colours, of which the upper 8 are read"):
        decode(path, 24, bits=12)


def test_colours_of_all_sixteen_bits_are_scaled_as_grey_to_within_a_level(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 65536, (24, 24)).astype(np.uint16)
    grey[0, :2] = 0, 65535
    colours = decode(png16(tmp_path / "x.png", np.stack([grey] * 3, -1)), 24).astype(int)
    assert np.abs(colours - decode(saved(tmp_path / "y.png", grey), 24)).max() <= 1


def test_a_set_of_dark_sixteen_bit_colours_is_doubtful(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (24, 24, 3))
    values[0, 0] = 4095
    dark, bright = png16(tmp_path / "dark.png", values), png16(tmp_path / "bright.png", values * 16)
    for _ in range(2):
        with pytest.warns(
            DoubtfulInputWarning, match="1 of 1 images have 16-bit .* 12 bits.*; colours, .* only be scaled"
        ) as told:
            cache_images([dark], tmp_path / "cache", size=8)
        assert len(told) == 1
    with pytest.warns(DoubtfulInputWarning, match=rf"1 of 2 images with 16-bit samples .* first {dark}: .* scale them"):
        cache_images([dark, bright], tmp_path / "cache", size=8)


def test_a_set_of_few_bits_is_doubtful_until_they_are_stated(tmp_path: Path) -> None:
    grey = [saved(tmp_path / f"{i}.png", grey12() // (i + 1)) for i in range(3)]
    colour = saved(tmp_path / "colour.png")
    for _ in range(2):  # when they are decoded, and when they come from the cache
        with pytest.warns(
            DoubtfulInputWarning, match=r"3 of 4 images have 16-bit .* 12 bits,.*images.bits = 12"
        ) as told:
            cache_images([*grey, colour], tmp_path / "cache", size=8)
        assert (len(told), told[0].filename) == (1, __file__)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bright = cache_images([*grey, colour], tmp_path / "cache", size=8, bits=12)
        cache_images([saved(tmp_path / "deep.png", grey16()), colour], tmp_path / "cache", size=8)
        cache_images([colour, packed_tiff(tmp_path / "x.tiff", grey12())], tmp_path / "cache", size=8)
    expected = [decode(path, 8, bits=12) for path in (*grey, colour)]
    assert np.array_equal(bright[:], np.stack(expected))


def test_images_of_few_bits_among_deeper_ones_are_counted_and_one_is_named(tmp_path: Path) -> None:
    dark = [saved(tmp_path / f"dark-{i}.png", grey12()) for i in range(2)]
    deep = [saved(tmp_path / f"deep-{i}.png", grey16()) for i in range(5)]
    black = saved(tmp_path / "black.png", np.zeros((24, 24), np.uint16))  # at any depth
    paths = [saved(tmp_path / "8-bits.png"), black, deep[0], dark[1], *deep[1:], dark[0]]
    for _ in range(2):  # when they are decoded, and when they come from the cache
        with pytest.warns(DoubtfulInputWarning) as told:
            cache_images(paths, tmp_path / "cache", size=8)
        assert len(told) == 1
        assert "2 of 7 images with 16-bit samples use no more than the lowest 12 bits" in str(told[0].message)
        assert f"first {dark[1]}:" in str(told[0].message)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LAB"])
def test_other_modes_become_what_pillow_makes_of_them(mode: str, tmp_path: Path) -> None:
    """Without resizing, so that it is exact."""
    image = Image.fromarray(noise(24, 24)).convert("L" if mode == "1" else "RGB")
    image = image.quantize(16) if mode == "P" else image.convert(mode) if mode != "LAB" else _lab(image)
    image.save(tmp_path / "x.tiff")
    expected = image.convert("RGB") if mode != "LAB" else Image.open(tmp_path / "x.tiff").convert("RGB")
    assert np.array_equal(decode(tmp_path / "x.tiff", 24), expected_of(expected, 24))


def _lab(image: Image.Image) -> Image.Image:
    return Image.merge("LAB", image.split())


def test_a_cmyk_jpeg_keeps_its_colours(tmp_path: Path) -> None:
    array = noise(24, 24)
    Image.fromarray(array).convert("CMYK").save(tmp_path / "x.jpg", quality=100)
    difference = decode(tmp_path / "x.jpg", 24).astype(int) - array.transpose(2, 0, 1)
    assert np.abs(difference).mean() < 4


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("background", [(255, 255, 255), (10, 200, 30)])
def test_what_is_transparent_shows_the_background(mode: str, background: tuple[int, int, int], tmp_path: Path) -> None:
    array = noise(24, 24)
    if mode == "P":
        image = Image.fromarray(array).quantize(16)
        alpha = np.where(np.asarray(image) == 3, 0, 255)
        image.save(tmp_path / "x.png", transparency=3)
    else:
        alpha = np.tile(np.arange(24) * 11, (24, 1))
        image = Image.fromarray(array).convert(mode[:-1])
        image.putalpha(Image.fromarray(alpha.astype(np.uint8)))
        image.save(tmp_path / "x.png")
    colours = np.asarray(image.convert("RGB")).astype(float)
    share = alpha[:, :, None] / 255
    expected = share * colours + (1 - share) * np.array(background)
    ours = decode(tmp_path / "x.png", 24, background).transpose(1, 2, 0)
    assert np.abs(ours - expected).max() <= 1
    assert (share < 1).any()


def test_real_images_look_as_decoded_in_full() -> None:
    for path in sorted(needed(ISIC).glob("*.jpg"))[:6]:
        expected = expected_of(Image.open(path).convert("RGB"), 128)
        assert np.abs(decode(path, 128).astype(int) - expected).mean() < 1, path.name


# --------------------------------------------------------------------------------------------------------------- cache


original = decoding._decode


def forbidden(*arguments: Any) -> np.ndarray:
    raise AssertionError(f"decoded {arguments}")


def test_the_cache_holds_what_decode_gives_in_the_order_asked_for(files: list[Path], tmp_path: Path) -> None:
    asked = [files[i] for i in (3, 0, 3, 5)]
    cached = cache_images(asked, tmp_path / "cache", size=16)
    assert (len(cached), cached.shape, cached.dtype) == (4, (4, 3, 16, 16), np.uint8)
    assert np.array_equal(cached[:], np.stack([decode(path, 16) for path in asked]))
    assert np.array_equal(cached[np.array([2, 1])], np.stack([decode(files[3], 16), decode(files[0], 16)]))
    assert list(cached.digests) == list(digests(cached[:]))
    assert len(cached.stored) == 3  # each file once


def test_what_is_cached_is_not_decoded_again(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cache_images(files[:4], tmp_path / "cache", size=16)
    seen: list[str] = []
    monkeypatch.setattr(decoding, "_decode", lambda path, *rest: seen.append(path) or original(path, *rest))
    again = cache_images(files, tmp_path / "cache", size=16)
    assert sorted(seen) == sorted(map(str, files[4:]))
    assert np.array_equal(again[:4], first[:])
    monkeypatch.setattr(decoding, "_decode", forbidden)
    assert np.array_equal(cache_images(files[::-1], tmp_path / "cache", size=16)[:], again[:][::-1])


@pytest.mark.parametrize("changed", [{"size": 17}, {"background": (0, 0, 0)}, {"bits": 16}])
def test_settings_have_caches_of_their_own(changed: dict[str, Any], files: list[Path], tmp_path: Path) -> None:
    settings = {"size": 16}
    files = [*files, saved(tmp_path / "grey.png", grey16() // 8 * 5)]
    cache_images(files, tmp_path / "cache", **settings)
    other = cache_images(files, tmp_path / "cache", **settings | changed)
    alone = cache_images(files, tmp_path / "other", **settings | changed)
    assert np.array_equal(other[:], alone[:])


def test_a_changed_file_is_decoded_anew(files: list[Path], tmp_path: Path) -> None:
    cache_images(files, tmp_path / "cache", size=16)
    stamp = files[1].stat().st_mtime_ns
    saved(files[0], noise(seed=50))  # of another size in bytes
    saved(files[1], noise(seed=51))
    os.utime(files[0], ns=(stamp, stamp))
    os.utime(files[1], ns=(stamp, stamp + 1))
    cached = cache_images(files, tmp_path / "cache", size=16)
    assert np.array_equal(cached[:], np.stack([decode(path, 16) for path in files]))


# ------------------------------------------------------------------------------------------------------ out of date


def n_rows(cache: Path) -> int:
    (path,) = cache.glob("*/pixels-*")
    return path.stat().st_size // (3 * 16 * 16)


def test_a_cache_does_not_grow_with_files_that_come_and_go(tmp_path: Path) -> None:
    kept = [saved(tmp_path / f"kept-{i}.png", noise(seed=i)) for i in range(8)]
    cache, sizes = tmp_path / "cache", []
    cache_images(kept, cache, size=16)
    for round_ in range(8):
        files = [saved(tmp_path / f"{round_}-{i}.png", noise(seed=100 + 10 * round_ + i)) for i in range(6)]
        cached = cache_images(files, cache, size=16)
        assert np.array_equal(cached[:], np.stack([decode(path, 16) for path in files]))
        sizes.append(n_rows(cache))
        for path in files:
            path.unlink()
    assert max(sizes) <= 2 * 8 + 6, "before 6 are added, no more may be stale than the 8 that are not"
    assert len(set(sizes[-4:])) > 1, "it should be rewritten now and then, not each time"
    left: list[int] = []
    cached = cache_images(kept, cache, size=16, progress=lambda done, total: left.append(done))
    assert not left, "what is as it was should be kept"
    assert np.array_equal(cached[:], np.stack([decode(path, 16) for path in kept]))


def test_a_file_that_changes_again_and_again_does_not_fill_the_cache(files: list[Path], tmp_path: Path) -> None:
    for i in range(20):
        saved(files[0], noise(seed=i))
        os.utime(files[0], ns=(i, i))
        cached = cache_images(files[:1], tmp_path / "cache", size=16)
        assert np.array_equal(cached[0], decode(files[0], 16))
    assert n_rows(tmp_path / "cache") <= 3


def test_bad_files_of_the_past_are_forgotten_too(tmp_path: Path) -> None:
    for i in range(20):
        (bad := tmp_path / f"{i}.jpg").write_text("no image")
        good = saved(tmp_path / f"{i}.png", noise(seed=i))
        with pytest.warns(DoubtfulInputWarning):
            cache_images([bad, good], tmp_path / "cache", size=16, on_bad="skip")
        bad.unlink(), good.unlink()
    (index,) = (tmp_path / "cache").glob("*/index.jsonl")
    assert len(index.read_text().splitlines()) <= 1 + 3 * 2 + 2


def test_readers_keep_their_images_while_a_cache_is_rewritten(files: list[Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cached, expected = cache_images(files, cache, size=16), [decode(path, 16) for path in files]
    slow = decoding._Store(cache, decoding._Settings(16))  # has read the index, and goes on after the others are done
    for path in files[:4]:
        path.unlink()
    new = [saved(tmp_path / "new.png", noise(seed=60))]
    cache_images([*files[4:], *new], cache, size=16)
    assert n_rows(cache) == 3
    assert np.array_equal(cached[:], np.stack(expected))
    rows = [slow.entries[decoding._File.of(path)].row for path in files[4:]]
    assert np.array_equal(slow.stored[rows], np.stack(expected[4:]))


def test_a_reader_that_comes_too_late_for_the_old_rows_reads_again(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its look into the index and at the rows, another process rewrites the cache."""
    cache, expected = tmp_path / "cache", np.stack([decode(path, 16) for path in files[4:]])
    cache_images(files, cache, size=16)
    for path in files[:4]:
        path.unlink()
    mapped, done = decoding._Store._map, []

    def late(store: decoding._Store, name: str) -> None:
        if not done:
            done.append(name)
            cache_images([saved(tmp_path / "new.png", noise(seed=60))], cache, size=16)
        mapped(store, name)

    monkeypatch.setattr(decoding._Store, "_map", late)
    assert np.array_equal(cache_images(files[4:], cache, size=16)[:], expected)
    assert done == ["pixels-1"]
    assert [path.name for path in cache.glob("*/pixels-*")] == ["pixels-2"]


@pytest.mark.parametrize("step", ["fsync", "replace", "unlink"])
def test_a_kill_while_a_cache_is_rewritten_costs_nothing_but_that(
    step: str, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    cache_images(files, cache, size=16)
    for path in files[:4]:
        path.unlink()
    asked = [*files[4:], saved(tmp_path / "new.png", noise(seed=60))]
    expected = np.stack([decode(path, 16) for path in asked])

    class Killed(BaseException):
        pass

    def killed(*arguments: Any, **options: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Path if step == "unlink" else os, step, killed)
        with pytest.raises(Killed):
            cache_images(asked, cache, size=16)
    left: list[int] = []
    assert np.array_equal(cache_images(asked, cache, size=16, progress=lambda n, _: left.append(n))[:], expected)
    assert left == [3], "the two that are left should not be decoded again"
    assert n_rows(cache) == 3
    assert not list(cache.glob("*/*.partial"))


def test_where_there_is_no_room_to_rewrite_a_cache_it_stays(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_images(files, tmp_path / "cache", size=16)
    for path in files[:4]:
        path.unlink()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 3 * 16 * 16 + 1))
    cache_images([*files[4:], saved(tmp_path / "new.png", noise(seed=60))], tmp_path / "cache", size=16)
    assert n_rows(tmp_path / "cache") == 7


def test_progress_counts_up_to_all(files: list[Path], tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    cache_images(files[:2], tmp_path / "cache", size=8)
    cache_images(files, tmp_path / "cache", size=8, progress=lambda *numbers: calls.append(numbers))
    assert calls == [(3, 6), (4, 6), (5, 6), (6, 6)]


def test_workers_decode_at_the_same_time(files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = threading.Barrier(3, timeout=20)

    def waiting(*arguments: Any) -> object:
        meeting.wait()
        return original(*arguments)

    monkeypatch.setattr(decoding, "_decode", waiting)
    assert len(cache_images(files, tmp_path / "cache", size=8, workers=3)) == 6


def test_a_cached_set_trains_and_scores_as_its_pixels_do(files: list[Path], tmp_path: Path) -> None:
    cache_images(files[2:4], tmp_path / "cache", size=16)
    cached = cache_images(files, tmp_path / "cache", size=16)
    config, target = ImagesConfig(size=16, crop="pad", horizontal_flip=True), torch.arange(6) % 2
    mapped = ImageSplit(cached.stored, target, config, rows=torch.from_numpy(cached.rows))
    held = ImageSplit(torch.from_numpy(cached[:]), target, config)
    for index in (torch.tensor([4, 4, 1]), slice(1, 5)):
        for seed in (None, 3):
            assert torch.equal(mapped.inputs(index, seed), held.inputs(index, seed))


# ------------------------------------------------------------------------------------------------------------ stopped


def test_an_interrupted_cache_goes_on(files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache_images(files, tmp_path / "cache", size=16, progress=interrupt)
    seen: list[str] = []
    monkeypatch.setattr(decoding, "_decode", lambda path, *rest: seen.append(path) or original(path, *rest))
    cached = cache_images(files, tmp_path / "cache", size=16)
    assert sorted(seen) == sorted(map(str, files[4:]))
    assert np.array_equal(cached[:], np.stack([decode(path, 16) for path in files]))


def test_a_killed_cache_goes_on_and_its_lock_is_free(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "_COMMIT_SECONDS", 0.0)
    many = [Path(shutil.copy(files[i % 6], tmp_path / f"{i}.png")) for i in range(60)]
    reading, writing = os.pipe()

    def told_slowly(done: int, total: int) -> None:
        os.write(writing, bytes([done]))
        time.sleep(0.01)

    child = forked(lambda: cache_images(many, tmp_path / "cache", size=16, progress=told_slowly))
    while os.read(reading, 1)[0] < 10:
        pass
    os.kill(child, signal.SIGKILL)
    assert exit_code(child) == -signal.SIGKILL
    left: list[int] = []
    cached = cache_images(many, tmp_path / "cache", size=16, progress=lambda done, total: left.append(done))
    assert 0 < len(left) <= 60 - 9
    assert np.array_equal(cached[:], np.stack([decode(path, 16) for path in many]))


@pytest.mark.parametrize("damage", range(-60, 0, 7))
def test_an_index_or_rows_cut_short_anywhere_yield_no_wrong_image(
    damage: int, files: list[Path], tmp_path: Path
) -> None:
    expected = cache_images(files, tmp_path / "cache", size=16)[:]
    for name in ("index.jsonl", "pixels-*"):
        (path,) = (tmp_path / "cache").glob(f"*/{name}")
        os.truncate(path, path.stat().st_size + damage)
        assert np.array_equal(cache_images(files, tmp_path / "cache", size=16)[:], expected)


@pytest.mark.parametrize(
    "line",
    [b"\x00" * 80, b"3\n", b'["a"]\n', b'["a", 1, 1, "x", "", "", 0]\n', b'[[], 1, 1, 0, "", "", 0]\n', b"\xff\xfe\n"],
)
def test_a_line_that_is_no_entry_ends_the_index(line: bytes, files: list[Path], tmp_path: Path) -> None:
    expected = cache_images(files, tmp_path / "cache", size=16)[:]
    (path,) = (tmp_path / "cache").glob("*/index.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], line, *lines[4:]]))
    assert np.array_equal(cache_images(files, tmp_path / "cache", size=16)[:], expected)
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


def test_processes_that_cache_at_once_wait_for_each_other(files: list[Path], tmp_path: Path) -> None:
    reading, writing = os.pipe()

    def told_slowly(done: int, total: int) -> None:
        os.write(writing, bytes([done]))
        time.sleep(0.02)

    children = [
        forked(lambda: cache_images(files, tmp_path / "cache", size=16, progress=told_slowly)) for _ in range(2)
    ]
    assert [exit_code(child) for child in children] == [0, 0]
    assert os.read(reading, 100) == bytes([1, 2, 3, 4, 5, 6])  # the second found all done


def test_a_complete_cache_is_read_where_nothing_can_be_written(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = cache_images(files, tmp_path / "cache", size=16)[:]
    monkeypatch.setattr(decoding._Store, "writable", forbidden)
    assert np.array_equal(cache_images(files, tmp_path / "cache", size=16)[:], expected)


# ----------------------------------------------------------------------------------------------------------- bad files


def bad_files(folder: Path) -> dict[str, Path]:
    """One of each kind, and what is said of it."""
    folder.mkdir()
    whole = saved(folder / "whole.jpg", noise(200, 300)).read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    whole = saved(folder / "whole.png", noise(200, 300)).read_bytes()
    (folder / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("no image")
    (folder / "empty.jpg").touch()
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    saved(folder / "float.tiff", noise()[:, :, 0].astype(np.float32))
    return {
        "image file is truncated": folder / "truncated.jpg",
        "runcated": folder / "truncated.png",
        "not an image": folder / "text.jpg",
        "empty": folder / "empty.jpg",
        "not a file": folder / "folder.jpg",
        "a file": folder / "pipe.jpg",
        "floating-point": folder / "float.tiff",
        "No such file": folder / "absent.jpg",
    }


def test_bad_files_are_named_all_at_once_and_the_others_kept(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = bad_files(tmp_path / "bad")
    mixed = [*bad.values(), *files]
    with pytest.raises(InputError, match="got 8 of 14 that are not") as error:
        cache_images(mixed, tmp_path / "cache", size=16)
    (problem,) = error.value.problems
    for reason, path in bad.items():
        assert reason in problem.split(f"{path} (")[1].split(")")[0], path.name
    with monkeypatch.context() as patched:
        patched.setattr(decoding, "_decode", forbidden)
        with pytest.warns(DoubtfulInputWarning, match="going on without them") as warned:
            cached = cache_images(mixed, tmp_path / "cache", size=16, on_bad="skip")
    assert all(str(path) in str(warned[0].message) for path in bad.values())
    assert warned[0].filename == __file__
    assert list(cached.kept) == list(range(8, 14))
    assert np.array_equal(cached[:], np.stack([decode(path, 16) for path in files]))


def test_many_bad_files_are_counted_and_ten_named(files: list[Path], tmp_path: Path) -> None:
    absent = [tmp_path / f"absent-{i}.png" for i in range(1200)]
    with pytest.raises(InputError, match=r"got 1,200 of 1,201 .*absent-9\.png.* and 1,190 more") as error:
        cache_images([*files[:1], *absent], tmp_path / "cache", size=16)
    assert "absent-10.png" not in str(error.value)


def test_where_every_file_is_bad_skipping_is_no_way_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing left"):
        cache_images(list(bad_files(tmp_path / "bad").values()), tmp_path / "cache", size=16, on_bad="skip")


def test_what_may_pass_is_tried_again(files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: Any) -> np.ndarray:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(decoding, "_decode", refused)
    with pytest.raises(InputError, match="Permission denied"):
        cache_images(files, tmp_path / "cache", size=16)
    monkeypatch.undo()
    assert len(cache_images(files, tmp_path / "cache", size=16)) == 6


def test_an_image_of_more_pixels_than_allowed_is_a_bad_file_until_more_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow's own limit, of 2 x 1,000 pixels here, neither counts nor changes."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    path = saved(tmp_path / "x.png", noise(100, 100))
    for limit, n in ((9_999, "10,000"), (4_000, "more than 8,000")):
        with pytest.raises(InputError, match=rf"{n} pixels, where {limit:,} are allowed.*--max-pixels"):
            cache_images([path], tmp_path / "cache", size=16, max_pixels=limit)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(cache_images([path], tmp_path / "cache", size=16, max_pixels=10_000)) == 1
        assert np.array_equal(decode(path, 16, max_pixels=10_000), decoding.decode_all([path], 16)[0].pixels)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_threads_with_other_limits_do_not_refuse_each_others_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    path = saved(tmp_path / "x.png", noise(100, 100))

    def one(i: int) -> bool:
        try:
            decode(path, 8, max_pixels=100 if i % 2 else 10_000)
        except OSError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, range(60))) == [True, False] * 30
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_images_beyond_the_default_limit_are_decoded_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 9_999)
    files = [saved(tmp_path / f"{i}.png", noise(100, 100, i)) for i in range(6)]
    inside: list[int] = []
    as_rgb = decoding._as_rgb

    def slowly(*arguments: Any) -> Any:
        inside.append(1)
        time.sleep(0.01)
        assert len(inside) == 1
        inside.pop()
        return as_rgb(*arguments)

    monkeypatch.setattr(decoding, "_as_rgb", slowly)
    assert all(not isinstance(image, str) for image in decoding.decode_all(files, 8, max_pixels=10_000, workers=6))


def test_all_arguments_are_checked_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        cache_images(
            [],
            tmp_path / "cache",
            size=0,
            background=(0, 0, 256),
            bits=17,
            max_pixels=0,
            workers=0,
            on_bad="ignore",
        )
    assert len(error.value.problems) == 7
    assert not (tmp_path / "cache").exists()


# ------------------------------------------------------------------------------------------------------------ the disk


def test_a_disk_that_fills_up_is_told_and_what_was_decoded_is_kept(files: list[Path], tmp_path: Path) -> None:
    """A limit on the size of files makes writing fail in the middle of a row, as a full disk would."""

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3 * 3 * 16 * 16 + 100,) * 2)
        with pytest.raises(InputError, match="make room"):
            cache_images(files, tmp_path / "cache", size=16, workers=1)

    assert exit_code(forked(limited)) == 0
    left: list[int] = []
    cached = cache_images(files, tmp_path / "cache", size=16, progress=lambda done, total: left.append(done))
    assert left == [4, 5, 6]
    assert np.array_equal(cached[:], np.stack([decode(path, 16) for path in files]))


def test_a_disk_too_small_is_told_before_anything_is_decoded(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "_decode", forbidden)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 2**29))
    with pytest.raises(InputError, match=r"6 images of 8000 pixels need 1\.1 GiB in .*, where 0\.5 GiB are free"):
        cache_images(files, tmp_path / "cache", size=8000)


def test_a_folder_that_cannot_be_made_is_told(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InputError, match=r"must be readable and writable, got: (Not a directory|File exists)"):
        cache_images(files, tmp_path / "cache", size=16)


def test_an_error_of_the_callers_own_is_not_taken_for_the_caches(files: list[Path], tmp_path: Path) -> None:
    def broken(done: int, total: int) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        cache_images(files, tmp_path / "cache", size=16, progress=broken)


# -------------------------------------------------------------------------------------------------------- equal images


def test_equal_images_are_those_with_equal_pixels(files: list[Path], tmp_path: Path) -> None:
    """In another format, under another name; and one that differs in one value of one pixel is another."""
    array = noise(24, 24, seed=9)
    almost = array.copy()
    almost[5, 7, 1] ^= 1
    paths = [
        saved(tmp_path / "a.png", array), saved(tmp_path / "b.png", almost),
        saved(tmp_path / "c.tiff", array), saved(tmp_path / "d.bmp", array),
    ]  # fmt: skip
    cached = cache_images([*files, *paths], tmp_path / "cache", size=24)
    groups = equal_images(cached.digests)
    pixels = cached[:]
    expected = [[np.array_equal(a, b) for b in pixels] for a in pixels]
    assert np.array_equal(groups[:, None] == groups, expected)
    assert groups[6] == groups[8] == groups[9] != groups[7]


def test_joined_groups_are_the_connected_components_of_both() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        first, second = rng.integers(0, 12, 15), rng.integers(0, 12, 15).astype(str)
        together = (first[:, None] == first) | (second[:, None] == second)
        for _ in range(4):  # paths of up to 16 steps
            together = together.astype(int) @ together > 0
        groups = joined_groups(first, second)
        assert np.array_equal(groups[:, None] == groups, together)
    with pytest.raises(InputError, match="got 2 and 3"):
        joined_groups([1, 2], [1, 2, 3])
