"""Imports point one way, and the public names load."""

import ast
import re
import statistics
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pytest

import tunelater

SOURCE = Path(tunelater.__file__).parent

# Each layer may import from the layers above it, and within itself downwards in the order given.
LAYERS = [
    ["problems", "names", "interrupt", "look"],
    ["losses", "distributions", "engines", "backbones"],
    ["film", "metrics", "sam", "vision"],
    ["intervals"],
    ["needs"],
    ["config"],
    ["models", "data.splits", "data.imbalance"],
    ["data.cells", "data.decoding"],
    ["data.reading", "data.images"],
    ["data.tables"],
    ["data.benchmarks", "data.preprocessing", "data.forms"],
    ["data.table_form", "data.image_form", "data.portable"],
    ["recipes", "scoring"],
    ["calibration"],
    ["points"],
    ["shift"],
    ["histograms"],
    ["guarantee"],
    ["assessment"],
    ["search"],
    ["honesty"],
    ["tuning"],
    ["renewal"],
    ["multiclass", "monitoring"],
    ["streaming"],
    ["aggregates"],
    ["runs"],
    ["recognition"],
    ["counting"],
    ["trackers"],
    ["training"],
    ["workflow"],
    ["export"],
    ["adaptation", "estimator", "card", "reporting"],
    ["hub", "pyfunc"],
    ["demo"],
    ["cli"],
    ["__main__"],
]


OPTIONAL = {"hub": ("huggingface_hub",), "pyfunc": ("mlflow",)}
"""Modules that are of no use without a package of an extra."""


def modules() -> list[str]:
    names = [".".join(p.relative_to(SOURCE).with_suffix("").parts) for p in SOURCE.rglob("*.py")]
    return sorted(name for name in names if not name.endswith("__init__"))


def imports(module: str) -> set[str]:
    tree = ast.parse((SOURCE / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tunelater"):
            inside = node.module.removeprefix("tunelater").removeprefix(".")
            for alias in node.names:
                name = f"{inside}.{alias.name}".strip(".")
                found.add(name if name in modules() else inside)
    return found - {""}


def test_every_module_has_a_layer() -> None:
    assert sorted(name for layer in LAYERS for name in layer) == modules()


@pytest.mark.parametrize("module", modules())
def test_imports_point_one_way(module: str) -> None:
    level = next(i for i, layer in enumerate(LAYERS) if module in layer)
    allowed = {name for layer in LAYERS[:level] for name in layer}
    assert imports(module) <= allowed, imports(module) - allowed


def test_the_library_knows_nothing_of_the_study() -> None:
    assert not [
        path for path in SOURCE.rglob("*.py") if re.search(r"^\s*(from|import) paper\b", path.read_text("utf-8"), re.M)
    ]


@pytest.mark.parametrize("name", tunelater.__all__)
def test_public_names_load(name: str) -> None:
    assert getattr(tunelater, name) is not None


def test_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'tune_later'"):
        tunelater.tune_later  # noqa: B018


def test_docstring_examples_run() -> None:
    import doctest
    import importlib

    for module in modules():
        if module != "__main__":
            try:
                with warnings.catch_warnings():
                    if module in OPTIONAL:
                        warnings.simplefilter("ignore")  # of other packages about themselves
                    loaded = importlib.import_module(f"tunelater.{module}")
            except ModuleNotFoundError as missing:
                assert missing.name in OPTIONAL.get(module, ()), module  # noqa: PT017
                assert "pip install 'tunelater[" in str(missing), module  # noqa: PT017
                continue
            result = doctest.testmod(loaded)
            assert result.failed == 0, module


def test_importing_the_package_takes_under_a_fifth_of_a_second() -> None:
    """The processor's time beyond that of Python itself: waiting for other programs is not counted."""
    resource = pytest.importorskip("resource")

    def spent(code: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    beyond = [spent("import tunelater") - spent("pass") for _ in range(5)]
    assert statistics.median(beyond) < 0.2
    assert spent("import torch") - spent("pass") > 0.2, "the limit should tell an import of torch"


def test_the_wheel_holds_every_module_and_its_types(tmp_path: Path) -> None:
    wheels = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed: pip install hatchling")
    root = Path(__file__).parents[1]
    (wheel,) = wheels.WheelBuilder(str(root)).build(directory=str(tmp_path), versions=["standard"])
    names = zipfile.ZipFile(wheel).namelist()
    inside = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*") if path.suffix in {".py", ".typed"}}
    assert "py.typed" in inside
    assert {f"tunelater/{name}" for name in inside} == {
        name for name in names if name.startswith("tunelater/") and Path(name).suffix in {".py", ".typed"}
    }
    assert {name.split("/")[0] for name in names} == {"tunelater", f"tunelater-{tunelater.__version__}.dist-info"}
