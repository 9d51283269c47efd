"""Where tests look for real data, which are no part of this repository: CONTRIBUTING.md says what each folder holds."""

import os
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
SHARED = CHECKOUT.parent / "shared" / "data"

CIFAR10 = CHECKOUT / ".data" / "cifar10"
LITE0 = CHECKOUT / ".data" / "lite0" / "efficientnet-lite0-57934424.pth"
HOUSEHOLD = SHARED / "cifar-100-household"
LABELS = SHARED / "labels"
ISIC = SHARED / "isic2020_512_sample"
TABLES = SHARED / "tables"
PLACES = (CIFAR10, LITE0, HOUSEHOLD, LABELS, ISIC, TABLES)


def told(place: Path) -> str:
    """A place as seen from the checkout."""
    return Path(os.path.relpath(place, CHECKOUT)).as_posix()


def needed(place: Path) -> Path:
    """The place; where there is nothing, the test is skipped."""
    if not place.exists():
        pytest.skip(f"needs {told(place)}, real data that are no part of this repository: see CONTRIBUTING.md")
    return place
