"""Image files decoded once, into a cache on disk at the size that training uses; equal images among them.

A cache folder holds, for each size and background, the images as rows of one file of bytes and an index of which file
went into which row. An entry of the index is written after its row is safe on disk, so that whatever stops a process,
what the index lists is whole, and the next call goes on from there.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
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
_COMMIT_SECONDS = 2.0
"""The work that a kill may cost."""


# -------------------------------------------------------------------------------------------------------------- decode


def decode(path: str | Path, size: int, background: tuple[int, int, int] = WHITE) -> np.ndarray:
    """The image in a file, upright, its shorter side resized to `size`, its centre cut out: (3, size, size) uint8.

    Red, green and blue of the first frame, resized bilinearly with antialiasing, as torchvision's Resize and CenterCrop
    do. A JPEG is decoded at 1/2, 1/4 or 1/8 where that leaves at least twice the size. 16 bits become 8 by value / 257.
    What is transparent shows the background. Colour profiles are ignored.

    Raises:
        Exception: whatever Pillow raises for a file that is no image, is damaged or truncated, or has more pixels than
            twice `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    pillow = vision.pillow()
    with pillow.Image.open(path) as image:
        image.draft(None, (2 * size, 2 * size))
        image.load()
        turn = _TURNS.get(_orientation(image))
        image = _as_rgb(image, background)
    if turn is not None:
        image = image.transpose(pillow.Image.Transpose[turn])
    # A box of the image gives what the centre of a resized whole would, which may be huge where an image is long.
    shorter = min(image.size)
    whole = [size * side // shorter for side in image.size]
    corner = [round((side - size) / 2) for side in whole]
    box = [(at + end) * image.size[i] / whole[i] for end in (0, size) for i, at in enumerate(corner)]
    resized = image.resize((size, size), pillow.Image.Resampling.BILINEAR, box=tuple(box))
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))


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


def _as_rgb(image: Any, background: tuple[int, int, int]) -> Any:
    pillow = vision.pillow()
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError(f"values from {values.min()} to {values.max()}, beyond 16 bits")
        image = pillow.Image.fromarray(((values + 128) // 257).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating-point values of unknown range")
    if "transparency" in image.info or image.mode[-1] in "Aa":
        image = image.convert("RGBA")
        return pillow.Image.alpha_composite(pillow.Image.new("RGBA", image.size, (*background, 255)), image).convert(
            "RGB"
        )
    return image.convert("RGB")


def decode_all(
    paths: Sequence[str | Path], size: int, *, background: tuple[int, int, int] = WHITE, workers: int | None = None
) -> list[np.ndarray | str]:
    """Each file's image as `decode` gives it, or why there is none, without a cache.

    Args:
        paths: no more than fit into memory, decoded.
        workers: threads, by default one for each core.

    Raises:
        InputError: arguments out of range.
    """
    workers = _cores() if workers is None else workers
    _check(paths, size, background, workers, "skip")
    files = [_File.of(path) for path in paths]
    with _quiet_pillow():
        decoded = _decoded([file for file in files if not file.problem], size, background, workers)
        images = [file.problem or next(decoded)[1] for file in files]
    return [
        image.pixels
        if isinstance(image, _Decoded)
        else image
        if isinstance(image, str)
        else image.strerror or str(image)
        for image in images
    ]


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
    workers: int | None = None,
    on_bad: Literal["raise", "skip"] = "raise",
    progress: Callable[[int, int], None] | None = None,
) -> CachedImages:
    """Image files decoded by `decode`, each once: what is in the cache is not decoded again.

    A file is known by its path, size in bytes and time of change; a changed one is decoded anew (what it was stays in
    the cache until the folder is deleted). A call that was stopped, by a kill too, goes on where it was; processes that
    cache into one folder at once wait for each other.

    Args:
        paths: image files of any format that Pillow reads. One may come several times.
        folder: where the cache is, or will be.
        size: height and width of the result in pixels.
        background: red, green and blue, 0 to 255, behind transparent pixels.
        workers: threads, by default one for each core (decoding leaves the interpreter free).
        on_bad: what to do about files that cannot be decoded: "raise", or "skip" to go on without them.
        progress: called with the number of files done and of all.

    Raises:
        InputError: arguments out of range; files that cannot be decoded, all at once, after the others are cached; a
            folder that cannot be written to, or a disk too small.

    Warns:
        DoubtfulInputWarning: files that were skipped.
    """
    workers = _cores() if workers is None else workers
    _check(paths, size, background, workers, on_bad)
    vision.pillow()
    files = [_File.of(path) for path in paths]
    usable = {file for file in files if not file.problem}
    store = _Store(Path(folder), size, background)
    if usable - store.entries.keys():
        with store.writable(), _quiet_pillow():
            missing = [file for file in dict.fromkeys(files) if file in usable and file not in store.entries]
            failed = _fill(store, missing, workers, progress, len(usable))
    else:
        failed = {}
    problem_of = {file: file.problem or failed.get(file) or store.entries[file].problem for file in files}
    _report({file.path: problem for file, problem in problem_of.items() if problem}, len(problem_of), on_bad)
    kept = np.flatnonzero([not problem_of[file] for file in files])
    entries = [store.entries[files[i]] for i in kept]
    rows = np.array([entry.row for entry in entries], np.int64)
    return CachedImages(store.pixels(), rows, np.array([entry.digest for entry in entries]), kept)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check(paths: Sequence[str | Path], size: int, background: tuple[int, int, int], workers: int, on_bad: str) -> None:
    problems = Problems()
    problems.check(len(paths) > 0, "there are no image files to cache, got an empty list")
    problems.check(size >= 1, f"images are cached at a size of 1 pixel or more, got {size}")
    colour = len(background) == 3 and all(0 <= value <= 255 for value in background)
    problems.check(colour, f"a background is red, green and blue from 0 to 255, got {background}")
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


class _Decoded(NamedTuple):
    pixels: np.ndarray
    digest: str


class _Store:
    """The rows of one size and background in a cache folder, and their index."""

    def __init__(self, folder: Path, size: int, background: tuple[int, int, int]) -> None:
        self._folder = folder / f"v1-{size}px-on-{bytes(background).hex()}"
        self.settings = (size, background)
        self._shape = (3, size, size)
        self.row_bytes = 3 * size * size
        self.entries: dict[_File, _Entry] = {}
        with self._told_of_errors():
            self._read()

    def _read(self) -> int:
        """Take up the index as far as it is sound, which is returned in bytes."""
        self.entries, sound = {}, 0
        with suppress(FileNotFoundError, NotADirectoryError):
            n_rows = (self._folder / "pixels").stat().st_size // self.row_bytes
            with (self._folder / "index.jsonl").open("rb") as lines:
                for line in lines:
                    try:
                        path, size, mtime_ns, row, digest, problem = json.loads(line)
                        whole = row < n_rows and line.endswith(b"\n")
                    except (ValueError, TypeError):
                        whole = False
                    if not whole:
                        break
                    self.entries[_File(path, size, mtime_ns)] = _Entry(row, digest, problem)
                    sound += len(line)
        return sound

    @contextmanager
    def writable(self) -> Iterator[None]:
        """Alone in the folder, and knowing what other processes wrote meanwhile."""
        with ExitStack() as stack:
            with self._told_of_errors():
                self._folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(self._folder / "lock"))
                (self._folder / "pixels").touch()
                sound = self._read()
                # Without buffers, whose rest would be written, and fail, at closing.
                self._rows = stack.enter_context((self._folder / "pixels").open("r+b", buffering=0))
                self._index = stack.enter_context((self._folder / "index.jsonl").open("ab", buffering=0))
                self._index.truncate(sound)  # what a kill left half-written
            self._next = 1 + max((entry.row for entry in self.entries.values()), default=-1)
            self._fresh: dict[_File, _Entry] = {}
            yield

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

    def add(self, file: _File, image: _Decoded | str) -> None:
        """An image, or why there is none; remembered at the next `commit`."""
        if isinstance(image, str):
            self._fresh[file] = _Entry(problem=image)
            return
        with self._told_of_errors():
            self._rows.seek(self._next * self.row_bytes)
            _write(self._rows, image.pixels)
        self._fresh[file] = _Entry(self._next, image.digest)
        self._next += 1

    def commit(self) -> None:
        """Rows first: an entry must never be on disk before its row, also where the power fails."""
        lines = [json.dumps([file.path, file.bytes, file.mtime_ns, *entry]) for file, entry in self._fresh.items()]
        with self._told_of_errors():
            os.fsync(self._rows.fileno())
            _write(self._index, "".join(f"{line}\n" for line in lines).encode())
            os.fsync(self._index.fileno())
        self.entries |= self._fresh
        self._fresh = {}

    def pixels(self) -> np.ndarray:
        path = self._folder / "pixels"
        return np.memmap(path, np.uint8, "r", shape=(path.stat().st_size // self.row_bytes, *self._shape))


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
        for file, image in _decoded(files, *store.settings, workers):
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


def _decoded(
    files: Iterable[_File], size: int, background: tuple[int, int, int], workers: int
) -> Iterator[tuple[_File, _Decoded | str | OSError]]:
    """Each file's image, or why there is none, in the order of the files; decoded a little ahead, on all workers."""
    vision.pillow().Image.init()  # here, and not by several threads at once
    ahead: deque[tuple[_File, Future[_Decoded | str | OSError]]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for file in files:
            ahead.append((file, pool.submit(_tried, file.path, size, background)))
            if len(ahead) > 4 * workers:
                done, image = ahead.popleft()
                yield done, image.result()
        for done, image in ahead:
            yield done, image.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _tried(path: str, size: int, background: tuple[int, int, int]) -> _Decoded | str | OSError:
    try:
        pixels = decode(path, size, background)
        return _Decoded(pixels, digest_of(pixels))
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
        raise InputError(f"{problem}; repair or remove them, or skip them with on_bad='skip'")
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
