"""The examples and the guide for users of PyTorch run, with one draw of lambda a step, also where training resumes."""

import importlib.util
import re
import runpy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tunelater import vision
from tunelater.distributions import LambdaSpace

ROOT = Path(__file__).parents[1]
NEEDS = {
    "own_loop": (),
    "timm_backbone": ("timm",),
    "lightning_trainer": ("lightning",),
    "hf_trainer": ("transformers", "accelerate"),
}
STEPS = {"own_loop": 200, "timm_backbone": 20, "lightning_trainer": 100, "hf_trainer": 40}


def needed(*packages: str) -> None:
    """Skip where one is missing; and get torchvision past a CPU build of torch, for those that import it."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'tunelater[examples]'")
    if packages and importlib.util.find_spec("torchvision"):
        vision.torchvision()


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(seed, step) of each draw."""
    made: list[tuple[int, int]] = []
    original = LambdaSpace.draw

    def draw(self: LambdaSpace, seed: int, step: int, size: int | None = None) -> Any:
        made.append((seed, step))
        return original(self, seed, step, size)

    monkeypatch.setattr(LambdaSpace, "draw", draw)
    return made


@pytest.fixture(autouse=True)
def others_may_warn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Lightning and transformers say about themselves
        yield


def test_every_example_is_run_by_some_test() -> None:
    tests = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert [path.stem for path in (ROOT / "examples").glob("*.py") if path.stem not in tests] == []


@pytest.mark.parametrize("name", NEEDS)
def test_an_example_chooses_an_operating_point(
    name: str, draws: list[tuple[int, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    needed(*NEEDS[name])
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    assert draws == [(0, step) for step in range(STEPS[name])]
    out = capsys.readouterr().out
    told = re.search(r"^operating point: lambda \{.*\}, threshold [\d.]+$\n^recall ([\d.]+)", out, re.MULTILINE)
    assert told is not None, out
    assert float(told[1]) >= 0.8


def test_a_resumed_loop_equals_an_unbroken_one(tmp_path: Path) -> None:
    example = runpy.run_path(str(ROOT / "examples" / "own_loop.py"))
    samples, train = example["samples"], example["train"]
    whole = train(samples(500, seed=1), 30, tmp_path / "whole.pt").state_dict()
    train(samples(500, seed=1), 17, tmp_path / "parts.pt")
    resumed = train(samples(500, seed=1), 30, tmp_path / "parts.pt").state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    shorter = train(samples(500, seed=1), 17, tmp_path / "other.pt").state_dict()
    assert not all(torch.equal(whole[name], shorter[name]) for name in whole)


def test_the_guide_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Its blocks in their order, each after those before it; Lightning's and transformers' where they are installed."""
    namespace: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "pytorch.md").read_text("utf-8"), re.DOTALL)
    left_out = []
    for block in blocks:
        packages = {"lightning", "timm", "transformers"} & {*re.findall(r"^(?:import|from) (\w+)", block, re.MULTILINE)}
        if missing := [package for package in packages if importlib.util.find_spec(package) is None]:
            left_out += missing
            continue
        needed(*packages)
        exec(compile(block, "docs/pytorch.md", "exec"), namespace)
    assert len(blocks) > 4
    assert namespace["alerts"].shape == namespace["y_new"].shape
    if left_out:
        pytest.skip(f"the blocks for {', '.join(left_out)} did not run: pip install 'tunelater[examples]'")
