"""Image files decoded once, into a cache on disk at the size that training uses; equal images among them.

A cache folder holds, for each size, background and depth, the images as rows of one file of bytes and an index of which
file went into which row. An entry of the index is written after its row is safe on disk, so that whatever stops a
process, what the index lists is whole, and the next call goes on from there.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import stat
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from filelock import FileLock
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tunelater import vision
from tunelater.problems import DoubtfulInputWarning, InputError, Problems

WHITE = (255, 255, 255)
MAX_PIXELS = 178_956_970
"""What an image file may have, unless told otherwise: Pillow's limit, half a GiB of colours."""
_COMMIT_SECONDS = 2.0
"""The work that a kill may cost."""


# -------------------------------------------------------------------------------------------------------------- decode


class _Settings(NamedTuple):
    """What `decode` takes besides a file."""

    size: int
    background: tuple[int, int, int] = WHITE
    bits: int | None = None
    max_pixels: int = MAX_PIXELS

    @property
    def folder(self) -> str:
        depth = "" if self.bits is None else f"-of-{self.bits}-bits"
        return f"v2-{self.size}px-on-{bytes(self.background).hex()}{depth}"

    def problems(self) -> list[str]:
        problems = Problems()
        problems.check(self.size >= 1, f"images are cached at a size of 1 pixel or more, got {self.size}")
        colour = len(self.background) == 3 and all(0 <= value <= 255 for value in self.background)
        problems.check(colour, f"a background is red, green and blue from 0 to 255, got {self.background}")
        deep = self.bits is None or 1 <= self.bits <= 16
        problems.check(deep, f"bits of a 16-bit sample are from 1 to 16, or None, got {self.bits}")
        problems.check(self.max_pixels >= 1, f"max_pixels must be 1 or more, got {self.max_pixels}")
        return list(problems)


def decode(
    path: str | Path,
    size: int,
    background: tuple[int, int, int] = WHITE,
    *,
    bits: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """The image in a file, upright, its shorter side resized to `size`, its centre cut out: (3, size, size) uint8.

    Red, green and blue of the first frame, resized bilinearly with antialiasing, as torchvision's Resize and CenterCrop
    do. A JPEG is decoded at 1/2, 1/4 or 1/8 where that leaves at least twice the size. What is transparent shows the
    background. Colour profiles are ignored.

    Grey samples of 16 bits become 8 by value / (2^bits - 1). How many bits of them are used no file says in general,
    but for a TIFF that packs 12. (PNG's sBIT says how many there were before they were scaled up to 16, as its standard
    demands; TIFF's MaxSampleValue is for statistics alone.) Of 16-bit colours Pillow keeps the upper 8, which is the
    same to within one level where all 16 are used, and loses depth where fewer are.

    Args:
        bits: the bits that 16-bit samples use; None where the file says it, or all 16.
        max_pixels: the most that a file may have.

    Raises:
        Exception: whatever Pillow raises for a file that is no image, is damaged or truncated; ValueError for samples
            that `bits` does not go with; OSError for more than `max_pixels`.
    """
    return _decode(path, _Settings(size, background, bits, max_pixels)).pixels


class Decoded(NamedTuple):
    """An image as `decode` gives it, and what `Depths` takes of it."""

    pixels: np.ndarray
    used: int
    """The lowest bits that hold all values, of samples of 16 bits that were taken for 16; 0 for others."""


def _decode(path: str | Path | io.BytesIO, settings: _Settings) -> Decoded:
    with _pillows_limit(settings.max_pixels), _opened(path, settings) as image, _one_if_large(image):
        deep = _has_deep_colours(image)
        image.load()
        turn = _TURNS.get(_orientation(image))
        rgb, used = _as_rgb(image, settings)
        if deep:
            used = 8 + max(int(high).bit_length() for _, high in rgb.getextrema())
        return Decoded(_cut(rgb, settings.size, turn), used)


def _opened(path: str | Path | io.BytesIO, settings: _Settings) -> Any:
    """The image before its pixels are read, if they may be."""
    pillow, limit = vision.pillow(), settings.max_pixels
    try:
        image = pillow.Image.open(path)
    except pillow.Image.DecompressionBombError:
        raise _too_large(f"more than {2 * limit:,}", limit) from None
    if (n := image.width * image.height) > limit:
        image.close()
        raise _too_large(f"{n:,}", limit)
    if settings.bits is not None and _has_deep_colours(image):
        image.close()
        raise ValueError("16-bit colours, of which the upper 8 are read: bits (images.bits) are of grey images")
    image.draft(None, (2 * settings.size, 2 * settings.size))
    return image


def _has_deep_colours(image: Any) -> bool:
    """Of an image whose pixels were not read: whether its samples have 16 bits, and are not grey."""
    return not image.mode.startswith("I") and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


_LARGE = threading.Lock()


def _one_if_large(image: Any) -> AbstractContextManager[Any]:
    """Large images take some GiB each: one at a time, or a core each would fill the memory."""
    return _LARGE if image.width * image.height > MAX_PIXELS else nullcontext()


def _too_large(n: str, max_pixels: int) -> OSError:
    told = (
        f"{n} pixels, where {max_pixels:,} are allowed; if it is to be trusted, allow more: --max-pixels (max_pixels)"
    )
    return OSError(errno.EFBIG, told)


def _cut(image: Any, size: int, turn: str | None) -> np.ndarray:
    pillow = vision.pillow()
    if turn is not None:
        image = image.transpose(pillow.Image.Transpose[turn])
    # A box of the image gives what the centre of a resized whole would, which may be huge where an image is long.
    shorter = min(image.size)
    whole = [size * side // shorter for side in image.size]
    corner = [round((side - size) / 2) for side in whole]
    box = [(at + end) * image.size[i] / whole[i] for end in (0, size) for i, at in enumerate(corner)]
    resized = image.resize((size, size), pillow.Image.Resampling.BILINEAR, box=tuple(box))
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))


class _Limits:
    """The limits that decoding threads ask for at once: Pillow has one, for the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: list[int] = []
        self._users: int | None = None

    def _apply(self) -> None:
        vision.pillow().Image.MAX_IMAGE_PIXELS = max(self._asked) if self._asked else self._users

    @contextmanager
    def __call__(self, max_pixels: int) -> Iterator[None]:
        """Pillow's own check at no less than `max_pixels`, of which it refuses twice as many; afterwards as it was.

        It sees what `_opened` cannot: images within images.
        """
        with self._lock:
            if not self._asked:
                self._users = vision.pillow().Image.MAX_IMAGE_PIXELS
            self._asked.append(max_pixels)
            self._apply()
        try:
            yield
        finally:
            with self._lock:
                self._asked.remove(max_pixels)
                self._apply()


_pillows_limit = _Limits()

_TURNS = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE",
    6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90",
}  # fmt: skip
"""What makes an image of each EXIF orientation upright."""


def _orientation(image: Any) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # whatever a damaged EXIF block makes of it; the pixels are sound
        return 1


def _as_rgb(image: Any, settings: _Settings) -> tuple[Any, int]:
    """The image in 8 bits a colour, and how many bits its samples use, as `Decoded` has it."""
    pillow, used = vision.pillow(), 0
    if image.mode.startswith("I"):
        image, used = _eight_bits(image, settings.bits)
    elif image.mode == "F":
        raise ValueError("floating-point values of unknown range")
    if "transparency" in image.info or image.mode[-1] in "Aa":
        image = image.convert("RGBA")
        behind = pillow.Image.new("RGBA", image.size, (*settings.background, 255))
        image = pillow.Image.alpha_composite(behind, image)
    return image.convert("RGB"), used


def _eight_bits(image: Any, bits: int | None) -> tuple[Any, int]:
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 0xFFFF:
        raise ValueError(f"values from {low} to {high}, beyond 16 bits")
    known = bits or getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))[0]
    top = 2 ** min(known, 16) - 1
    if high > top:
        raise ValueError(f"values up to {high:,}, beyond the {known} bits that bits (images.bits) says")
    # No sum exceeds 2^24.
    scaled = (values.astype(np.uint32) * 255 + top // 2) // top
    return vision.pillow().Image.fromarray(scaled.astype(np.uint8)), high.bit_length() if known >= 16 else 0


_BITS_PER_SAMPLE = 258
"""TIFF's tag of it."""


def decode_all(
    paths: Sequence[str | Path],
    size: int,
    *,
    background: tuple[int, int, int] = WHITE,
    bits: int | None = None,
    max_pixels: int = MAX_PIXELS,
    workers: int | None = None,
) -> list[Decoded | str]:
    """Each file's image as `decode` gives it, or why there is none, without a cache.

    Args:
        paths: no more than fit into memory, decoded.
        bits, max_pixels: as of `decode`.
        workers: threads, by default one for each core.

    Raises:
        InputError: arguments out of range.
    """
    workers = _cores() if workers is None else workers
    settings = _Settings(size, background, bits, max_pixels)
    _check(paths, settings, workers, "skip")
    files = [_File.of(path) for path in paths]
    with _quiet_pillow():
        decoded = _all_decoded([file for file in files if not file.problem], settings, workers)
        images = [file.problem or next(decoded)[1] for file in files]
    return [_without_digest(image) for image in images]


def decode_contents(
    contents: Sequence[bytes], size: int, *, bits: int | None = None, max_pixels: int = MAX_PIXELS
) -> list[np.ndarray | str]:
    """As `decode`, of what image files hold instead of files; each one's pixels, or why there are none.

    Args:
        bits, max_pixels: as of `decode`.

    Raises:
        InputError: arguments out of range.
    """
    settings = _Settings(size, bits=bits, max_pixels=max_pixels)
    if problems := settings.problems():
        raise InputError(problems)
    with _quiet_pillow():
        images = [_without_digest(_tried(io.BytesIO(each), settings)) for each in contents]
    return [image.pixels if isinstance(image, Decoded) else image for image in images]


def _without_digest(image: _Image | str | OSError) -> Decoded | str:
    if isinstance(image, _Image):
        return Decoded(image.pixels, image.used)
    return image if isinstance(image, str) else image.strerror or str(image)


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Of many pixels, odd metadata and the like: an image that can be decoded is none the worse for them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("ignore", vision.pillow().Image.DecompressionBombWarning)
        yield


# --------------------------------------------------------------------------------------------------------------- cache


@dataclass(frozen=True, eq=False)
class CachedImages:
    """N decoded images on disk. Indexing like an array of shape (N, 3, size, size) reads those that are asked for.

    Args:
        stored: (M, 3, size, size) uint8, a memory map.
        rows: (N,) where each image is in it.
        digests: (N,) text, equal where all pixels are equal.
        kept: (N,) which of the paths that were asked for these are; all of them, where none was bad.
    """

    stored: np.ndarray
    rows: np.ndarray
    digests: np.ndarray
    kept: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.stored.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.stored.dtype

    def __getitem__(self, index: np.ndarray | slice) -> np.ndarray:
        return self.stored[self.rows[index]]


def cache_images(
    paths: Sequence[str | Path],
    folder: str | Path,
    *,
    size: int,
    background: tuple[int, int, int] = WHITE,
    bits: int | None = None,
    max_pixels: int = MAX_PIXELS,
    workers: int | None = None,
    on_bad: Literal["raise", "skip"] = "raise",
    progress: Callable[[int, int], None] | None = None,
) -> CachedImages:
    """Image files decoded by `decode`, each once: what is in the cache is not decoded again.

    A file is known by its path, size in bytes and time of change; a changed one is decoded anew. Where more than half
    of a cache is of files that have changed or are gone, it is rewritten without them before others are added. A call
    that was stopped, by a kill too, goes on where it was; processes that cache into one folder at once wait for each
    other.

    Args:
        paths: image files of any format that Pillow reads. One may come several times.
        folder: where the cache is, or will be.
        size: height and width of the result in pixels.
        background: red, green and blue, 0 to 255, behind transparent pixels.
        bits: that grey samples of 16 bits use, as of `decode`.
        max_pixels: the most that a file may have.
        workers: threads, by default one for each core (decoding leaves the interpreter free).
        on_bad: what to do about files that cannot be decoded: "raise", or "skip" to go on without them.
        progress: called with the number of files done and of all.

    Raises:
        InputError: arguments out of range; files that cannot be decoded, all at once, after the others are cached; a
            folder that cannot be written to, or a disk too small.

    Warns:
        DoubtfulInputWarning: files that were skipped; 16-bit files that are nearly black.
    """
    workers = _cores() if workers is None else workers
    settings = _Settings(size, background, bits, max_pixels)
    _check(paths, settings, workers, on_bad)
    vision.pillow()
    files = [_File.of(path) for path in paths]
    usable = {file for file in files if not file.problem}
    store = _Store(Path(folder), settings)
    if usable - store.entries.keys():
        with store.writable(usable), _quiet_pillow():
            missing = [file for file in dict.fromkeys(files) if file in usable and file not in store.entries]
            failed = _fill(store, missing, workers, progress, len(usable))
    else:
        failed = {}
    problem_of = {file: file.problem or failed.get(file) or store.entries[file].problem for file in files}
    _report({file.path: problem for file, problem in problem_of.items() if problem}, len(problem_of), on_bad)
    kept = np.flatnonzero([not problem_of[file] for file in files])
    entries = [store.entries[files[i]] for i in kept]
    depths = Depths()
    for i, entry in zip(kept, entries, strict=True):
        depths.add(files[i].path, entry.used)
    for doubt in depths.doubts():
        warnings.warn(doubt, DoubtfulInputWarning, stacklevel=2)
    rows = np.array([entry.row for entry in entries], np.int64)
    return CachedImages(store.stored, rows, np.array([entry.digest for entry in entries]), kept)


class Depths:
    """How many bits the samples of 16-bit images use, over any number of images, and what is doubtful about it."""

    def __init__(self) -> None:
        self._images = self._deep = self._dark = 0
        self._most = 0
        """Bits that any of the dark ones uses."""
        self._first: str | Path = ""

    def add(self, path: str | Path, used: int) -> None:
        """One more image, which uses so many bits, as `Decoded` has it."""
        self._images += 1
        self._deep += used > 0
        if 0 < used <= _FEW_BITS:
            self._first = self._first if self._dark else path
            self._dark += 1
            self._most = max(self._most, used)

    def doubts(self) -> list[str]:
        """That images are nearly black, because they use fewer bits than their files have."""
        if not self._dark:
            return []
        if self._dark == self._deep:
            return [
                f"{self._dark:,} of {self._images:,} images have 16-bit samples, none of which uses more than the "
                f"lowest {self._most} bits, so that they are nearly black: if their depth is less than 16, fit with "
                "it, such as images.bits = 12 (--bits 12), or scale them up to 16 bits and save them again; colours, "
                "of which the upper 8 bits are read, can only be scaled"
            ]
        return [
            f"{self._dark:,} of {self._deep:,} images with 16-bit samples use no more than the lowest {self._most} "
            f"bits, so that they are nearly black beside the others, first {self._first}: if their depth is less than "
            "16, scale them up to 16 bits and save them again, for images.bits (--bits) is of all images"
        ]


_FEW_BITS = 12
"""A sixteenth of the range: an image of 16 bits is seldom that dark throughout, and those of 12 always are."""


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check(paths: Sequence[str | Path], settings: _Settings, workers: int, on_bad: str) -> None:
    problems = Problems()
    problems.check(len(paths) > 0, "there are no image files to cache, got an empty list")
    problems.add(*settings.problems())
    problems.check(workers >= 1, f"decoding needs 1 worker or more, got {workers}")
    problems.check(on_bad in ("raise", "skip"), f"on_bad is 'raise' or 'skip', got {on_bad!r}")
    problems.raise_if_any()


class _File(NamedTuple):
    """A file as the cache knows it, or why it cannot be one."""

    path: str
    bytes: int = 0
    mtime_ns: int = 0
    problem: str = ""

    @classmethod
    def of(cls, path: str | Path) -> _File:
        name = os.path.abspath(path)
        try:
            status = os.stat(name)
        except OSError as error:
            return cls(name, problem=error.strerror or str(error))
        if not stat.S_ISREG(status.st_mode):  # reading from a pipe would wait for ever
            return cls(name, problem="not a file")
        if not status.st_size:
            return cls(name, problem="empty")
        return cls(name, status.st_size, status.st_mtime_ns)


class _Entry(NamedTuple):
    """Where the cache holds a file's image, or why it has none."""

    row: int = -1
    digest: str = ""
    problem: str = ""
    used: int = 0


class _Store:
    """The rows of one way of decoding in a cache folder, and their index.

    The index names its file of rows in its first line. To drop rows, others are written and an index of them takes the
    place of the old in one step: whoever reads has the old pair or the new one, and goes on with what it has open.
    """

    def __init__(self, folder: Path, settings: _Settings) -> None:
        self._folder = folder / settings.folder
        self.settings = settings
        self._shape = (3, settings.size, settings.size)
        self.row_bytes = 3 * settings.size**2
        with self._told_of_errors():
            self._read()

    def _read(self) -> int:
        """Take up the index as far as it is sound, which is returned in bytes; none of it where there are no rows."""
        self.entries: dict[_File, _Entry] = {}
        self.stored, self._name, sound = np.empty((0, *self._shape), np.uint8), "", 0
        with suppress(FileNotFoundError, NotADirectoryError), self._path("index.jsonl").open("rb") as lines:
            first = next(lines, b"")
            if (header := _parsed(first, [str])) is None:
                return 0
            self._map(header[0])
            sound = len(first)
            for line in lines:
                entry = _parsed(line, [str, int, int, int, str, str, int])
                if entry is None or entry[3] >= len(self.stored):
                    break
                self.entries[_File(*entry[:3])] = _Entry(*entry[3:])
                sound += len(line)
        return sound

    def _path(self, name: str) -> Path:
        return self._folder / name

    def _map(self, name: str) -> None:
        """The rows as they are now; they stay readable where the file is replaced by another."""
        n = self._path(name).stat().st_size // self.row_bytes
        self.stored = np.memmap(self._path(name), np.uint8, "r", shape=(n, *self._shape)) if n else self.stored
        self._name = name

    @contextmanager
    def writable(self, asked: Collection[_File]) -> Iterator[None]:
        """Alone in the folder, knowing what other processes wrote meanwhile, and without much that is out of date.

        Args:
            asked: files as they are now.
        """
        with ExitStack() as stack:
            with self._told_of_errors():
                self._folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(self._path("lock")))
                sound = self._read()
                stale = self._stale(asked)
                if not self._name or 2 * len(stale) > len(self.entries):
                    self._rewrite({file: entry for file, entry in self.entries.items() if file not in stale})
                    sound = self._read()
                for path in self._folder.glob(f"{_ROWS}*"):
                    if path.name != self._name:  # replaced, or left by a kill; Windows keeps what is open somewhere
                        with suppress(OSError):
                            path.unlink()
                # Without buffers, whose rest would be written, and fail, at closing.
                self._rows = stack.enter_context(self._path(self._name).open("r+b", buffering=0))
                self._index = stack.enter_context(self._path("index.jsonl").open("ab", buffering=0))
                self._index.truncate(sound)  # what a kill left half-written
            self._next = 1 + max((entry.row for entry in self.entries.values()), default=-1)
            self._fresh: dict[_File, _Entry] = {}
            yield
            self._map(self._name)

    def _stale(self, asked: Collection[_File]) -> set[_File]:
        """The files that are no longer as they were, where they may be more than half; asking costs a look at each."""
        others = [file for file in self.entries if file not in asked]
        if 2 * len(others) <= len(self.entries):
            return set()
        stale = {file for file in others if _File.of(file.path) != file}
        room = shutil.disk_usage(self._folder).free > (len(self.entries) - len(stale)) * self.row_bytes
        return stale if room else set()

    def _rewrite(self, entries: Mapping[_File, _Entry]) -> None:
        taken = [0, *(int(path.name[len(_ROWS) :]) for path in self._folder.glob(f"{_ROWS}*"))]
        name = f"{_ROWS}{1 + max(taken)}"
        rows = [entry.row for entry in entries.values() if entry.row >= 0]
        with self._path(name).open("wb", buffering=0) as file:
            for row in rows:
                _write(file, self.stored[row])
            os.fsync(file.fileno())
        place = {row: i for i, row in enumerate(rows)}
        lines = [_line(file, entry._replace(row=place.get(entry.row, -1))) for file, entry in entries.items()]
        partial = self._path("index.jsonl.partial")
        with partial.open("wb", buffering=0) as index:
            _write(index, "".join([json.dumps([name]) + "\n", *lines]).encode())
            os.fsync(index.fileno())
        os.replace(partial, self._path("index.jsonl"))

    @contextmanager
    def _told_of_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            raise InputError(
                f"the image cache {self._folder} must be readable and writable, got: {error.strerror or error}; "
                f"{'make room' if full else 'allow it'}, or name another folder; what was decoded so far is kept"
            ) from error

    def check_room(self, n: int) -> None:
        needed, free = n * self.row_bytes, shutil.disk_usage(self._folder).free
        if needed > free:
            raise InputError(
                f"{n:,} images of {self._shape[1]} pixels need {needed / 2**30:.1f} GiB in {self._folder}, where "
                f"{free / 2**30:.1f} GiB are free; make room, name another folder, or cache smaller images"
            )

    def add(self, file: _File, image: _Image | str) -> None:
        """An image, or why there is none; remembered at the next `commit`."""
        if isinstance(image, str):
            self._fresh[file] = _Entry(problem=image)
            return
        with self._told_of_errors():
            self._rows.seek(self._next * self.row_bytes)
            _write(self._rows, image.pixels)
        self._fresh[file] = _Entry(self._next, image.digest, used=image.used)
        self._next += 1

    def commit(self) -> None:
        """Rows first: an entry must never be on disk before its row, also where the power fails."""
        lines = [_line(file, entry) for file, entry in self._fresh.items()]
        with self._told_of_errors():
            os.fsync(self._rows.fileno())
            _write(self._index, "".join(lines).encode())
            os.fsync(self._index.fileno())
        self.entries |= self._fresh
        self._fresh = {}


_ROWS = "pixels-"


def _line(file: _File, entry: _Entry) -> str:
    return json.dumps([file.path, file.bytes, file.mtime_ns, *entry]) + "\n"


def _parsed(line: bytes, kinds: Sequence[type]) -> list[Any] | None:
    """The values of a line of the index, or None where it is not whole."""
    try:
        values = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(values, list) and [type(value) for value in values] == kinds and line.endswith(b"\n")
    return values if whole else None


def _write(file: Any, data: Any) -> None:
    """All of it: an unbuffered write may take a part."""
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[file.write(rest) :]


def _fill(
    store: _Store, files: Sequence[_File], workers: int, progress: Callable[[int, int], None] | None, total: int
) -> dict[_File, str]:
    """Decode files into the store. What may be otherwise at another time, such as a permission, is returned instead."""
    store.check_room(len(files))
    failed = {}
    done, committed = total - len(files), time.monotonic()
    try:
        for file, image in _all_decoded(files, store.settings, workers):
            if isinstance(image, OSError):
                failed[file] = image.strerror or str(image)
            else:
                store.add(file, image)
            done += 1
            if progress is not None:
                progress(done, total)
            if time.monotonic() - committed > _COMMIT_SECONDS:
                store.commit()
                committed = time.monotonic()
    finally:
        store.commit()
    return failed


class _Image(NamedTuple):
    pixels: np.ndarray
    digest: str
    used: int


def _all_decoded(
    files: Iterable[_File], settings: _Settings, workers: int
) -> Iterator[tuple[_File, _Image | str | OSError]]:
    """Each file's image, or why there is none, in the order of the files; decoded a little ahead, on all workers."""
    vision.pillow().Image.init()  # here, and not by several threads at once
    ahead: deque[tuple[_File, Future[_Image | str | OSError]]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for file in files:
            ahead.append((file, pool.submit(_tried, file.path, settings)))
            if len(ahead) > 4 * workers:
                done, image = ahead.popleft()
                yield done, image.result()
        for done, image in ahead:
            yield done, image.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _tried(path: str | io.BytesIO, settings: _Settings) -> _Image | str | OSError:
    try:
        pixels, used = _decode(path, settings)
        return _Image(pixels, digest_of(pixels), used)
    except vision.pillow().UnidentifiedImageError:
        return "not an image"
    except MemoryError:
        return OSError(errno.ENOMEM, "too large for the memory that is left")
    except Exception as error:  # Pillow raises whatever a damaged file leads it to
        if isinstance(error, OSError) and error.errno is not None:
            return error
        return (str(error).strip() or type(error).__name__).splitlines()[0]


def _report(problem_of: dict[str, str], total: int, on_bad: str) -> None:
    if not problem_of:
        return
    told = ", ".join(f"{path} ({problem})" for path, problem in list(problem_of.items())[:10])
    more = f" and {len(problem_of) - 10:,} more" if len(problem_of) > 10 else ""
    problem = f"every image file must be readable, got {len(problem_of):,} of {total:,} that are not: {told}{more}"
    if on_bad == "raise":
        raise InputError(f"{problem}; repair or remove them, or skip them: --on-bad skip (on_bad='skip')")
    if len(problem_of) == total:
        raise InputError(f"{problem}; there is nothing left to go on with")
    warnings.warn(f"{problem}; going on without them", DoubtfulInputWarning, stacklevel=3)


# -------------------------------------------------------------------------------------------------------- equal images


def digest_of(image: np.ndarray) -> str:
    """A hash of an image's bytes (BLAKE2b, 128 bits)."""
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).hexdigest()


def digests(images: np.ndarray) -> np.ndarray:
    """(N,) text: the `digest_of` each of the images (N, ...)."""
    return np.array([digest_of(image) for image in images])


def equal_images(digests: np.ndarray) -> np.ndarray:
    """(N,) int64: the number of the group of equal images that each belongs to; by the digests of their pixels."""
    return np.unique(digests, return_inverse=True)[1].astype(np.int64)


def joined_groups(first: Sequence[Any] | np.ndarray, second: Sequence[Any] | np.ndarray) -> np.ndarray:
    """(N,) int64: the finest groups that tear apart none of two groupings of N images, say by patient and by equality.

    Two patients who share an image become one group, so that a split by groups keeps equal images together.
    """
    _, a = np.unique(np.asarray(first), return_inverse=True)
    _, b = np.unique(np.asarray(second), return_inverse=True)
    if len(a) != len(b):
        raise InputError(f"two groupings must be of the same images, got {len(a):,} and {len(b):,}")
    n = int(a.max(initial=-1)) + 1
    edges = coo_array((np.ones(len(a)), (a, n + b)), shape=(n + len(b), n + len(b)))
    return connected_components(edges, directed=False)[1][a].astype(np.int64)
