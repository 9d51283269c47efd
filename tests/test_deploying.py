"""The examples of docs/deploying.md run as written."""

import gc
import os
import re
import shlex
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from test_export import run_on_images
from tunelater.cli import app
from tunelater.data.decoding import decode
from tunelater.export import export_model, find_spec
from tunelater.points import OperatingPoint
from tunelater.problems import DoubtfulInputWarning
from tunelater.runs import Run
from tunelater.workflow import predict

DOC = Path(__file__).parents[1] / "docs" / "deploying.md"


def sections() -> dict[str, str]:
    parts = re.split(r"^## (.*)$", DOC.read_text(encoding="utf-8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def execute(section: str, names: dict[str, Any] | None = None) -> dict[str, Any]:
    """Runs the commands and the Python of a section in their order."""
    names = {} if names is None else names
    for language, code in re.findall(r"```(console|python)\n(.*?)```", sections()[section], flags=re.DOTALL):
        if language == "python":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DoubtfulInputWarning)
                exec(compile(code, str(DOC), "exec"), names)
            continue
        for line in code.splitlines():
            program, *arguments = shlex.split(line)
            assert program == "tunelater"
            result = CliRunner().invoke(app, arguments)
            assert result.exit_code == 0, result.output
    return names


@pytest.fixture(scope="module")
def place(run: Run, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("deploying")
    assert run.path is not None
    shutil.copytree(run.path, folder / "run")
    shutil.copy(table, folder / "thyroid.csv")
    (folder / "card").mkdir()
    before = os.getcwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.fixture(scope="module")
def point(place: Path) -> OperatingPoint:
    lam = {"gamma": 0.1, "tau": 1.0}
    made = OperatingPoint(lam, 0.5, 0.0, 0.05, model=Run.load("run").id, needs={"maximize": "recall"})
    if not Path("point.json").exists():
        made.save("point.json")
    return made


def test_onnx(place: Path) -> None:
    if any(find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")):
        pytest.skip("needs tunelater[onnx]")
    made = execute("ONNX")
    point = OperatingPoint.load("point.json")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulInputWarning)
        predict("run", "thyroid.csv", at=point, out="out.parquet")
    expected = pd.read_parquet("out.parquet")
    np.testing.assert_allclose(made["logit"], expected["log_odds"], rtol=1e-5, atol=1e-5)
    sure = (expected["log_odds"] - point.log_odds_threshold).abs() > 1e-4
    assert (made["alerts"] == (expected["prediction"] == "hypothyroid"))[sure].all()


def pixels(path: Path, size: int) -> np.ndarray:
    """As the page decodes a file."""
    (code,) = [
        code for code in re.findall(r"```python\n(.*?)```", sections()["ONNX"], flags=re.DOTALL) if "PIL" in code
    ]
    exec(code, made := {"np": np})
    return made["pixels"](path, size)


@pytest.mark.parametrize(("width", "height"), [(40, 40), (37, 91), (123, 50), (16, 16), (9, 31)])
def test_pixels_are_those_that_predict_decodes(width: int, height: int, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    values = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image.fromarray(values).save(tmp_path / "image.png")
    np.testing.assert_array_equal(
        pixels(tmp_path / "image.png", 16), decode(tmp_path / "image.png", 16).transpose(1, 2, 0)
    )


def test_image_files_give_what_predict_writes(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    (tmp_path / "new").mkdir()
    for i in range(12):
        values = rng.integers(0, 256, (20, 12 + i, 3), dtype=np.uint8)
        image.fromarray(values).save(tmp_path / "new" / f"{i:02}.png")
    run, _, _ = run_on_images()
    lam = {"gamma": 0.1, "tau": 1.5}
    point = OperatingPoint(lam, 0.5, 0.0, 0.05, model=run.id)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulInputWarning)
        predict(run, tmp_path / "new", at=point, out=tmp_path / "out.parquet")
    expected = pd.read_parquet(tmp_path / "out.parquet")
    done = export_model(run, tmp_path / "model.pt2", at=point)
    (told,) = done.description["inputs"]
    x = torch.from_numpy(np.stack([pixels(tmp_path / "new" / path, told["shape"][1]) for path in expected["path"]]))
    at = {name: torch.tensor(value) for name, value in lam.items()}
    with torch.no_grad():
        odds, probability = torch.export.load(done.out).module()(
            {"image": x}, at, torch.tensor(0.05, dtype=torch.float64)
        )
    np.testing.assert_allclose(odds, expected["log_odds"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(probability, expected["probability"], atol=1e-5)


def test_a_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if any(find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")):
        pytest.skip("needs tunelater[onnx]")
    monkeypatch.chdir(tmp_path)
    made = execute("From scikit-learn")
    assert (made["predicted"] == made["wines"].predict(made["X_val"])).mean() > 0.95


def test_exported_program(place: Path) -> None:
    assert execute("PyTorch without this library")["probability"].shape == (1,)


def test_card(place: Path, point: OperatingPoint) -> None:
    pytest.importorskip("huggingface_hub")
    execute("A model card")
    text = Path("card/README.md").read_text(encoding="utf-8")
    assert "sex at point" in text
    assert Path("card/README-point.png").is_file()


def test_hub(place: Path, point: OperatingPoint) -> None:
    pytest.importorskip("huggingface_hub")
    made = execute("The Hugging Face Hub")
    assert made["run"].id == Run.load("run").id
    assert made["point"] == OperatingPoint.load("point.json")
    assert "sex at point" in Path("thyroid/README.md").read_text(encoding="utf-8")


def test_mlflow(place: Path, point: OperatingPoint) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("mlflow")
        pytest.importorskip("sqlalchemy")
        made = execute("MLflow", {"rows": pd.read_csv("thyroid.csv")})
        gc.collect()  # MLflow leaves connections to its database open
    assert len(made["alerts"]) == 10
