"""What the image cache saves: decoding on several workers against one, and a second start against the first.

Every repetition caches the same files anew with one worker and with several, one after the other, and then starts again
from the cache. Ratios are of the same repetition: median and range.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from tunelater.data.benchmarks import IMAGE_SUFFIXES
from tunelater.data.decoding import cache_images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of image files")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=7)
    options = parser.parse_args()
    paths = sorted(path for path in options.images.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)

    took = []
    for _ in range(options.repeat):
        with tempfile.TemporaryDirectory() as folder:
            row = []
            for name, workers in (("one", 1), ("several", options.workers), ("several", options.workers)):
                start = time.perf_counter()
                cache_images(paths, Path(folder) / name, size=options.size, workers=workers)
                row.append(time.perf_counter() - start)
            took.append(row)
    one, several, again = np.array(took).T
    print(f"{len(paths):,} images at {options.size} pixels, {options.repeat} repetitions")
    for name, values in (
        ("images/s with one worker", len(paths) / one),
        (f"times faster with {options.workers} workers", one / several),
        ("times faster from the cache", several / again),
        ("seconds from the cache", again),
    ):
        print(f"{name}: {np.median(values):.3g} ({values.min():.3g} to {values.max():.3g})")


if __name__ == "__main__":
    main()
