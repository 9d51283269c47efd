"""The workflow on images: folders, files of paths, the paper's datasets; from Python and from the command line."""

import dataclasses
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from data_tables import problems_of
from test_benchmarks import CIFAR10_FILES, fabricated, household, isic, written_cifar
from tunelater import recipes
from tunelater.adaptation import adapt
from tunelater.cli import app
from tunelater.config import Config, FiLMConfig, ModelConfig
from tunelater.data.benchmarks import DATASETS, HELD_OUT, dataset, labelled_folder
from tunelater.data.image_form import ImageForm, ImageSource
from tunelater.data.splits import UNKNOWN
from tunelater.problems import DoubtfulInputWarning, InputError
from tunelater.reporting import report
from tunelater.runs import Run
from tunelater.scoring import score
from tunelater.workflow import evaluation, fit, predict, tune

SIZE = 12
NEED = {"maximize": "precision", "subject_to": "recall>=0.5"}


def quick(**changes: object) -> Config:
    config = recipes.shortened(recipes.images("resnet32", size=SIZE), 2)
    return dataclasses.replace(config, early_stopping=None, batch_size=16, **changes)


def image(rng: np.random.Generator, cracked: bool) -> Image.Image:
    """A grey part; a bright column, if it is cracked."""
    pixels = rng.integers(60, 120, (16, 20, 3), np.uint8)
    if cracked:
        pixels[:, rng.integers(5, 15)] = 250
    return Image.fromarray(pixels)


def parts(folder: Path, n_fine: int = 60, n_cracked: int = 30, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for kind, n in (("fine", n_fine), ("cracked", n_cracked)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            image(rng, kind == "cracked").save(folder / kind / f"{seed}-{i:03}.png")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of parts, and a run on it."""
    place = tmp_path_factory.mktemp("images")
    source = ImageSource(cache=place / "cache")
    fit(parts(place / "parts"), positive="cracked", config=quick(), images=source, out=place / "run")
    return place


def reading(place: Path, **options: object) -> ImageSource:
    return ImageSource(cache=place / "cache", **options)


def test_new_images_have_all_labels_some_or_none(place: Path, tmp_path: Path) -> None:
    run = Run.load(place / "run")
    new = parts(tmp_path / "new", 20, 10, seed=7)
    whole = run.form.field(new, reading(place))
    assert np.bincount(whole.target).tolist() == [20, 10]
    flat = tmp_path / "flat"
    flat.mkdir()
    files = sorted(new.rglob("*.png"))
    for i, file in enumerate(files):
        shutil.copy(file, flat / f"{i:03}.png")
    none = run.form.field(flat, reading(place))
    assert set(none.target) == {UNKNOWN}
    assert sorted(none.hashes[:, 0]) == sorted(whole.hashes[:, 0])
    listed = pd.DataFrame(
        {"path": [str(f) for f in files], "label": [f.parent.name if i % 2 else "" for i, f in enumerate(files)]}
    )
    listed.to_csv(tmp_path / "list.csv", index=False)
    some = run.form.field(tmp_path / "list.csv", reading(place))
    expected = [UNKNOWN if i % 2 == 0 else int(f.parent.name == "cracked") for i, f in enumerate(files)]
    assert some.target.tolist() == expected
    point = tune(run, place / "parts", **NEED, images=reading(place))
    done = adapt(run, tmp_path / "list.csv", at=point, images=reading(place))
    assert (done.audit.new["n"], done.audit.new["labelled"]) == (30, 15)
    listed.assign(label="bent").to_csv(tmp_path / "list.csv", index=False)
    with pytest.raises(InputError, match="does not know: 'bent'"):
        run.form.field(tmp_path / "list.csv", reading(place))


def test_images_that_look_otherwise_have_drifted(place: Path, tmp_path: Path) -> None:
    """With the images that the run was fitted on, the pooled features are tested, and not the scores alone."""
    point = tune(Run.load(place / "run"), place / "parts", **NEED, images=reading(place))
    new = parts(tmp_path / "new", 60, 30, seed=8)
    told = {"at": point, "reference": place / "parts", "grid": 2, "images": reading(place)}
    done = adapt(place / "run", new, **told)
    assert {part["name"] for part in done.audit.tests["parts"]} >= {"scores", "inputs"}
    assert done.audit.tests["explained"]
    for file in new.rglob("*.png"):
        Image.open(file).point(lambda v: v // 2 + 100).save(file)
    done = adapt(place / "run", new, **told)
    p = {part["name"]: part["p"] for part in done.audit.tests["parts"]}
    assert done.point is None
    assert p["inputs"] <= 0.01


def test_pooled_features_are_those_that_scores_are_made_of(place: Path) -> None:
    run = Run.load(place / "run")
    samples = run.form.labelled(place / "parts", reading(place)).samples
    lam = run.config.lambdas.median
    features = run.features(samples, lam)
    with torch.inference_mode():
        margins = run.model.logits(torch.from_numpy(features), lam).diff(dim=1)[:, 0]
    expected = score(run.model, samples, {k: np.array([v]) for k, v in lam.items()}, run.family, link=False)
    assert np.allclose(margins.numpy(), expected.log_odds[0], atol=1e-4)


def test_a_folder_is_fitted_tuned_assessed_and_predicted_on(place: Path, tmp_path: Path) -> None:
    run = Run.load(place / "run")
    assert isinstance(run.form, ImageForm)
    assert run.form.labels == ("fine", "cracked")
    assert {name: len(rows) for name, rows in run.rows.items()} == {"train": 54, "validation": 18, "test": 18}
    point = tune(run, place / "parts", **NEED, images=reading(place), out=tmp_path / "point.json")
    assert (point.split, point.n, point.n_positive) == ("validation", 18, 6)
    done = evaluation(run, place / "parts", at=point, images=reading(place))
    assert (done.split, done.n, done.n_positive, done.noun) == ("test", 18, 6, "image")

    counts = predict(place / "run", place / "parts", at=tmp_path / "point.json", out=tmp_path / "result.csv")
    result = pd.read_csv(tmp_path / "result.csv")
    assert (counts.rows, counts.alerts) == (90, int((result["prediction"] == "cracked").sum()))
    images, _ = labelled_folder(place / "parts", positive="cracked")
    assert result["path"].tolist() == [path.relative_to(place / "parts").as_posix() for path in images.paths]
    # The same scores by another way: decoded into the cache, and all at once.
    labelled = run.form.labelled(place / "parts", reading(place))
    lam = {name: np.array([value]) for name, value in point.lam.items()}
    scores = run.score(labelled.samples, lam).at_prior(point.prior)
    np.testing.assert_allclose(result["log_odds"], scores.log_odds[0], atol=1e-4)


def test_a_page_to_choose_on(place: Path, tmp_path: Path) -> None:
    def told(page: Path) -> dict[str, Any]:
        found = re.search(
            r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL
        )
        assert found is not None
        return json.loads(found[1])

    out = tmp_path / "report.html"
    asked = ["report", str(place / "run"), str(place / "parts"), "--out", str(out), "--cache", str(place / "cache")]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.stderr
    assert "18 validation images, 6 positive, at 100 lambdas" in done.stdout
    assert (told(out)["noun"], told(out)["labels"], told(out)["grid"]["rows"]) == (
        "image",
        ["fine", "cracked"],
        [12, 6],
    )
    assert not [path for path in (place / "parts").rglob("*.png") if path.name in out.read_text("utf-8")]
    # New images of a list, with its columns.
    files = sorted(parts(tmp_path / "new", 80, 40, seed=9).rglob("*.png"))
    columns = {"path": list(map(str, files)), "label": [f.parent.name for f in files], "camera": ["left", "right"] * 60}
    pd.DataFrame(columns).to_csv(tmp_path / "list.csv", index=False)
    point = tune(place / "run", place / "parts", **NEED, images=reading(place))
    given = {"subgroups": ["camera"], "at": point, "grid": 2, "images": reading(place)}
    report(place / "run", tmp_path / "list.csv", out=tmp_path / "list.html", **given)
    (subgroups,) = told(tmp_path / "list.html")["grid"]["subgroups"]
    assert (subgroups["values"], np.sum(subgroups["rows"], 0).tolist()) == (["left", "right"], [80, 40])
    lambdas, start = told(tmp_path / "list.html")["grid"]["lambdas"], told(tmp_path / "list.html")["start"]
    assert {name: values[start["lambda"]] for name, values in lambdas.items()} == pytest.approx(point.lam)


def test_images_are_known_by_their_pixels_wherever_they_lie(place: Path, tmp_path: Path) -> None:
    run = Run.load(place / "run")
    moved = tmp_path / "moved"
    for kind in ("fine", "cracked"):
        for i, path in enumerate(sorted((place / "parts" / kind).iterdir())):
            (moved / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, moved / kind / f"new-{i:03}.png")
    assert tune(run, moved, **NEED, images=reading(place)).split == "validation"
    parts(moved, 20, 10, seed=1)
    with pytest.warns(DoubtfulInputWarning, match="54 of 120 images equal train images.*18 of 120 images equal test"):
        point = tune(run, moved, **NEED, images=reading(place))
    assert (point.split, point.n) == ("given", 120 - 54 - 18)


def test_groups_and_equal_images_stay_in_one_split(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    (tmp_path / "files").mkdir()
    for patient in range(100):
        one = image(rng, patient % 4 == 0)
        for visit in range(2):
            if visit and patient % 8:  # every eighth has two copies of one image
                one = image(rng, patient % 4 == 0)
            name = f"{patient}-{visit}.png"
            one.save(tmp_path / "files" / name)
            rows.append((name, "ill" if patient % 4 == 0 else "well", patient // 2))
    table = pd.DataFrame(rows, columns=["file", "state", "family"])
    table.to_csv(tmp_path / "list.csv", index=False)
    source = reading(tmp_path, path="file", group="family", folder=tmp_path / "files")
    with pytest.warns(
        DoubtfulInputWarning, match=r"26 images are copies of one another \(13 different ones\); copies stay in"
    ):
        run = fit(tmp_path / "list.csv", target="state", positive="ill", config=quick(), images=source)
    families = [set(table["family"][rows]) for rows in run.rows.values()]
    assert sum(map(len, families)) == len(set.union(*families)) == 50
    assert run.data["grouped"] is True
    point = tune(run, tmp_path / "list.csv", **NEED, images=source)
    assert point.split == "validation"
    (told,) = problems_of(lambda: tune(run, tmp_path / "list.csv", **NEED, images=source, guarantee=0.9))
    assert "a guarantee counts independent images" in told
    told = problems_of(lambda: fit(tmp_path / "list.csv", positive="ill", config=quick(), images=source))
    assert "--target" in told[0]
    # New images of a list, with its columns.
    predict(run, tmp_path / "list.csv", at=point, keep=["family"], images=source, out=tmp_path / "r.parquet")
    result = pd.read_parquet(tmp_path / "r.parquet")
    assert result["file"].tolist() == table["file"].tolist()
    assert result["family"].tolist() == table["family"].astype(str).tolist()


def test_copies_with_both_labels_are_told(tmp_path: Path) -> None:
    parts(tmp_path / "parts", 40, 30)
    shutil.copy(tmp_path / "parts" / "fine" / "0-000.png", tmp_path / "parts" / "cracked" / "copy.png")
    copies = pytest.warns(DoubtfulInputWarning, match="2 images are copies")
    named = r"2 equal images have both labels: .*/cracked/copy\.png \(cracked\), .*/fine/0-000\.png \(fine\)$"
    with copies, pytest.warns(DoubtfulInputWarning, match=named):
        fit(tmp_path / "parts", positive="cracked", config=quick(), images=reading(tmp_path))


def test_a_dataset_keeps_its_owners_test_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = fabricated(CIFAR10_FILES, {"labels": 10}, 100)
    folder = written_cifar(tmp_path, "cifar-10-batches-bin", made, monkeypatch)
    config = dataclasses.replace(recipes.shortened(recipes.cifar("vs+lct"), 1), batch_size=32)
    runs = {}
    for protocol in ("held-out", "paper"):
        source = ImageSource(dataset="cifar10-animal-vehicle", protocol=protocol)
        runs[protocol] = fit(folder, config=config, images=source, beta=4, out=tmp_path / protocol)
        assert runs[protocol].data["chosen_on_test"] == (protocol == "paper")
    held_out, paper = runs["held-out"], Run.load(tmp_path / "paper")
    np.testing.assert_array_equal(held_out.rows["test"], paper.rows["test"])
    np.testing.assert_array_equal(paper.rows["validation"], paper.rows["test"])
    assert set(held_out.rows["train"]) | set(held_out.rows["validation"]) < set(range(500))
    assert set(held_out.rows["test"]) == set(range(500, 600))
    n_negative, n_positive = held_out.data["class_counts"]
    assert n_positive == n_negative // 4
    with pytest.warns(DoubtfulInputWarning, match="chosen on the test images"):
        tune(paper, folder, **NEED)
    point = tune(held_out, folder, **NEED)
    assert point.n == len(held_out.rows["validation"])
    assert evaluation(held_out, folder, at=point).n == 100
    told = problems_of(lambda: fit(folder, positive="animal", config=config, images=source))
    assert "the positives of cifar10 animal-vehicle are 'vehicle', got 'animal'" in told[0]


@pytest.mark.parametrize("protocol", ["held-out", "paper"])
def test_a_dataset_divided_by_seed_is_known_again_and_what_trained_is_never_unseen(
    tmp_path: Path, protocol: str
) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"id_code": [f"{i:03}" for i in range(120)], "diagnosis": np.arange(120) % 5})
    (tmp_path / "train_images").mkdir()
    table.to_csv(tmp_path / "train.csv", index=False)
    for name, grade in table.itertuples(index=False):
        image(rng, grade > 0).save(tmp_path / "train_images" / f"{name}.png")
    source = reading(tmp_path, dataset="aptos", protocol=protocol)
    run = fit(tmp_path, config=quick(seed=3), images=source, beta=2, out=tmp_path / "run")
    told = (
        pytest.warns(DoubtfulInputWarning, match="chosen on the test images") if protocol == "paper" else nullcontext()
    )
    with told:
        point = tune(Run.load(tmp_path / "run"), tmp_path, **NEED, images=reading(tmp_path))
    assert (point.split, point.n) == ("validation", len(run.rows["validation"]))
    for i in run.rows["train"]:
        path = run_images(tmp_path)[i]
        kind = run.form.labels[int(table["diagnosis"][int(path.stem)] > 0)]
        (tmp_path / "seen" / kind).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "seen" / kind / path.name)
    with pytest.raises(InputError, match="equal train images of the images that the run was fitted on"):
        evaluation(run, tmp_path / "seen", at=point, images=reading(tmp_path))


def run_images(folder: Path) -> tuple[Path, ...]:
    """In the order of the run's rows."""
    whole = dataset("aptos", folder, seed=3).whole
    assert whole.paths is not None
    return whole.paths


def test_links_are_followed_hidden_folders_are_not_and_names_may_be_of_any_bytes(place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    for kind in ("fine", "cracked"):
        (folder / kind).symlink_to(place / "parts" / kind, target_is_directory=True)
    (folder / ".thumbs").mkdir()
    shutil.copy(place / "parts" / "fine" / "0-000.png", folder / ".thumbs" / "a.png")
    run = Run.load(place / "run")
    assert tune(run, folder, **NEED, images=reading(place)).split == "validation"
    odd = tmp_path / "odd"
    odd.mkdir()
    (odd / "back").symlink_to(odd, target_is_directory=True)
    shutil.copy(place / "parts" / "fine" / "0-000.png", os.path.join(os.fsencode(odd), b"caf\xe9.png"))
    point = tune(run, place / "parts", **NEED, images=reading(place))
    assert predict(run, odd, at=point, out=tmp_path / "r.csv").rows == 1
    assert pd.read_csv(tmp_path / "r.csv")["path"].tolist() == ["caf\ufffd.png"]


def test_what_is_for_a_list_of_images_is_refused_for_a_folder(place: Path) -> None:
    source = reading(place, group="patient", unlabelled=True)
    (told,) = problems_of(lambda: fit(place / "parts", positive="cracked", target="y", config=quick(), images=source))
    assert "--group (group), --unlabelled (unlabelled), --target (target) is for a list" in told


def test_a_network_of_one_size_takes_no_other(place: Path, tmp_path: Path) -> None:
    assert recipes.images("vit_tiny_patch16_384").images.size == 384
    assert recipes.images("tf_efficientnet_lite0").images.mean == (0.5, 0.5, 0.5)
    (told,) = problems_of(lambda: recipes.images("vit_tiny_patch16_224", size=64))
    assert "'vit_tiny_patch16_224' takes images of 224 pixels only, got 64" in told
    config = dataclasses.replace(quick(), model=recipes.images("vit_tiny_patch16_224").model)
    (told,) = problems_of(lambda: fit(place / "parts", positive="cracked", config=config, images=reading(tmp_path)))
    assert "224 pixels only, got 12" in told
    assert not (tmp_path / "cache").exists()


def test_unreadable_images_are_told_at_once_or_left_out(place: Path, tmp_path: Path) -> None:
    folder = parts(tmp_path / "parts", 40, 30)
    (folder / "fine" / "bad.png").write_bytes(b"no image")
    whole = (folder / "cracked" / "0-000.png").read_bytes()
    (folder / "cracked" / "short.png").write_bytes(whole[: len(whole) // 2])
    (told,) = problems_of(lambda: fit(folder, positive="cracked", config=quick(), images=reading(tmp_path)))
    assert "2 of 72" in told
    assert "--on-bad skip (on_bad='skip')" in told
    assert "bad.png" in told
    assert "short.png" in told
    skip = reading(tmp_path, on_bad="skip")
    with pytest.warns(DoubtfulInputWarning, match="2 of 72"):
        run = fit(folder, positive="cracked", config=quick(), images=skip)
    assert run.data["rows"] == 70
    ours = Run.load(place / "run")
    point = tune(ours, place / "parts", **NEED, images=reading(place))
    with pytest.raises(InputError, match=r"2 of 72 not: .*short.png.*bad.png.*--on-bad skip"):
        predict(ours, folder, at=point, out=tmp_path / "r.csv")
    assert not (tmp_path / "r.csv").exists()
    with pytest.warns(DoubtfulInputWarning, match="the result is without them"):
        assert predict(ours, folder, at=point, out=tmp_path / "r.csv", images=skip).rows == 70
    assert len(pd.read_csv(tmp_path / "r.csv")) == 70


def test_bad_calls_are_told_before_work(place: Path, tmp_path: Path) -> None:
    folder = place / "parts"

    def told(**options: object) -> str:
        return "\n".join(problems_of(lambda: fit(folder, **{"images": reading(place), **options})))

    assert "'crack'; did you mean 'cracked'" in told(positive="crack", config=quick())
    assert "--positive" in told(config=quick())
    assert "needs a part [images]" in told(positive="cracked", config=Config())
    assert "no column of weights" in told(positive="cracked", config=quick(), weight="w")
    both = told(config=quick(), images=ImageSource(protocol="papr", on_bad="skipp"), positive="fin")
    for words in ("did you mean 'paper'", "'skipp'", "did you mean 'fine'"):
        assert words in both
    missing = dataclasses.replace(quick(), model=recipes.images("resnet18", weights="no.safetensors").model)
    assert "no weights file" in told(positive="cracked", config=missing, images=reading(tmp_path))
    assert not (tmp_path / "cache").exists()
    (tmp_path / "empty").mkdir()
    assert "must hold images" in problems_of(lambda: fit(tmp_path / "empty", positive="a", config=quick()))[0]
    run = Run.load(place / "run")
    other = parts(tmp_path / "x", 10, 10)
    (other / "fine").rename(other / "good")
    (told_,) = problems_of(lambda: tune(run, other, **NEED, images=reading(place)))
    assert "the classes 'good' and 'cracked'; the run was fitted on 'fine' and 'cracked'" in told_
    (told_,) = problems_of(lambda: tune(run, pd.DataFrame({"x": [1]}), **NEED))
    assert "got a data frame" in told_


KINDS = {"cracked": 25, "fine": 30, "scratched": 15}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parts of three kinds, as a folder and as a list, and a run on each in which one kind is the positive."""
    place = tmp_path_factory.mktemp("kinds")
    rng = np.random.default_rng(3)
    rows = []
    for kind, n in KINDS.items():
        (place / "parts" / kind).mkdir(parents=True)
        for i in range(n):
            image(rng, kind == "cracked").save(place / "parts" / kind / f"{i:02}.png")
            rows.append((f"parts/{kind}/{i:02}.png", kind))
    pd.DataFrame(rows, columns=["path", "kind"]).to_csv(place / "list.csv", index=False)
    config = dataclasses.replace(quick(), epochs=1)
    given = {"positive": "cracked", "config": config}
    fit(place / "parts", images=reading(place), out=place / "folder-run", **given)
    source = reading(place, path="path")
    fit(place / "list.csv", target="kind", images=source, out=place / "list-run", **given)
    return place


@pytest.mark.parametrize("name", ["folder", "list"])
def test_one_class_against_several_is_found_again(kinds: Path, tmp_path: Path, name: str) -> None:
    run = Run.load(kinds / f"{name}-run")
    assert isinstance(run.form, ImageForm)
    assert (run.form.labels, run.form.negatives) == (("not cracked", "cracked"), ("fine", "scratched"))
    assert (run.data["rows"], run.data["positives"]) == (70, 25)
    assert "'cracked' against 'fine' and 'scratched'" in run.form.told
    data = kinds / ("parts" if name == "folder" else "list.csv")
    point = tune(run, data, **NEED, images=reading(kinds))
    assert (point.split, point.n) == ("validation", len(run.rows["validation"]))
    assert evaluation(run, data, at=point, images=reading(kinds)).split == "test"
    predict(run, data, at=point, out=tmp_path / "r.csv", images=reading(kinds))
    told = pd.read_csv(tmp_path / "r.csv")
    assert len(told) == 70
    assert set(told["prediction"]) <= {"cracked", "not cracked"}
    assert set(told["path"].str.split("/").str[-2]) == set(KINDS)

    rng = np.random.default_rng(4)
    for kind, n in (("cracked", 5), ("scratched", 5)):  # some of the classes are enough, and "not cracked" is one
        (tmp_path / "some" / kind).mkdir(parents=True)
        for i in range(n):
            image(rng, kind == "cracked").save(tmp_path / "some" / kind / f"{i}.png")
    done = evaluation(run, tmp_path / "some", at=point, images=reading(kinds))
    assert (done.split, done.n, done.n_positive) == ("given", 10, 5)
    (tmp_path / "some" / "scratched").rename(tmp_path / "some" / "not cracked")
    assert evaluation(run, tmp_path / "some", at=point, images=reading(kinds)).n == 10
    (tmp_path / "some" / "not cracked").rename(tmp_path / "some" / "dented")
    (told_,) = problems_of(lambda: evaluation(run, tmp_path / "some", at=point, images=reading(kinds)))
    assert "the classes 'dented' and 'cracked'; the run was fitted on 'fine', 'scratched', 'cracked'" in told_
    shutil.rmtree(tmp_path / "some" / "dented")
    (told_,) = problems_of(lambda: evaluation(run, tmp_path / "some", at=point, images=reading(kinds)))
    assert "two or more folders" in told_


def test_a_run_that_does_not_name_its_negatives_loads(place: Path, tmp_path: Path) -> None:
    run = Run.load(place / "run")
    assert isinstance(run.form, ImageForm)
    run.form.save(tmp_path)
    told = json.loads((tmp_path / "images.json").read_text())
    assert told.pop("negatives") == ["fine"]
    (tmp_path / "images.json").write_text(json.dumps(told))
    old = dataclasses.replace(run, form=ImageForm.load(tmp_path, run.config.images))
    assert old.id == run.id
    assert tune(old, place / "parts", **NEED, images=reading(place)).split == "validation"


# -------------------------------------------------------------------------------------------------------- command line


def invoked(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: object) -> list[str]:
    """What is told of a command that cannot be."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 2, result.output
    return [line for line in result.stderr.splitlines() if line.startswith("error: ")]


def next_of(output: str) -> list[str]:
    """The command that is proposed, as a shell reads it."""
    (line,) = (line for line in output.splitlines() if line.startswith("Next: tunelater "))
    return shlex.split(line)[2:]


def test_what_is_proposed_next_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parts(tmp_path / "the files", 40, 20)
    paths = sorted(path.relative_to("the files") for path in Path("the files").rglob("*.png"))
    listed = pd.DataFrame({"file": paths, "kind": [path.parts[0] for path in paths]})
    listed.to_csv("list.csv", index=False)
    (Path("the files") / paths[0]).write_bytes(b"broken")
    shutil.copy(Path("the files") / paths[1], Path("the files") / "fine" / "unlabelled.png")
    given = ("--paths", "file", "--target", "kind", "--positive", "cracked", "--images", "the files", "--unlabelled")
    small = ("--backbone", "resnet32", "--size", SIZE, "--epochs", 1, "--method", "vs")
    out = ("--on-bad", "skip", "--cache", "a cache", "--max-pixels", 10_000, "--out", "a run")
    told = invoked("fit", "list.csv", *given, *small, *out)
    told = invoked(*next_of(told))
    assert "Chosen on 12 validation samples" in told
    predicting = ["list.csv" if word == "NEW.csv" else word for word in next_of(told)]
    assert "59 images" in invoked(*predicting)
    assert len(pd.read_csv("alerts.csv")) == 59
    assert os.listdir("a cache")


def test_what_the_negatives_are_is_said(kinds: Path, tmp_path: Path) -> None:
    small = ("--backbone", "resnet32", "--size", SIZE, "--epochs", 1, "--cache", kinds / "cache")
    told = invoked("fit", kinds / "parts", "--positive", "cracked", *small, "--out", tmp_path / "run")
    assert "'cracked' against 'fine' and 'scratched'" in told
    assert "warning" not in told


def test_one_image_can_be_predicted_on(place: Path, tmp_path: Path) -> None:
    run, cache = place / "run", ("--cache", place / "cache")
    invoked("tune", run, place / "parts", "--maximize", "f1", "--out", tmp_path / "p.json", *cache)
    one = place / "parts" / "fine" / "0-003.png"
    assert "1 image," in invoked("predict", run, one, "--at", tmp_path / "p.json", "--out", tmp_path / "r.csv")
    assert pd.read_csv(tmp_path / "r.csv")["path"].tolist() == ["0-003.png"]
    invoked("predict", run, place / "parts", "--at", tmp_path / "p.json", "--out", tmp_path / "all.csv")
    every = pd.read_csv(tmp_path / "all.csv").set_index("path")["log_odds"]
    assert pd.read_csv(tmp_path / "r.csv")["log_odds"][0] == pytest.approx(every["fine/0-003.png"], abs=1e-4)
    given = ("--at", tmp_path / "p.json", "--out", tmp_path / "no.csv")
    assert "an image has no columns to keep" in refused("predict", run, one, *given, "--keep", "x")[0]
    assert "is one image, without a label" in refused("evaluate", run, one, "--at", tmp_path / "p.json")[0]
    assert "is for a list" in refused("predict", run, place / "parts", *given, "--images", place)[0]


def test_too_few_images_are_told_as_what_they_are(place: Path, tmp_path: Path) -> None:
    few = parts(tmp_path / "few", 20, 2)
    small = ("--positive", "cracked", "--backbone", "resnet32", "--size", SIZE, "--cache", place / "cache")
    out = ("--out", tmp_path / "run")
    (told,) = refused("fit", few, *small, *out)
    assert "every split needs a positive image, got 2 positives for 3 splits; add images" in told
    for copy in range(3):
        shutil.copy(few / "cracked" / "0-000.png", few / "cracked" / f"copy-{copy}.png")
    (told,) = refused("fit", few, *small, *out)
    assert "got 5 positives in 2 groups" in told
    assert "equal ones count as one" in told
    rows = [(path, path.parent.name, "one patient") for path in sorted((place / "parts").rglob("*.png"))]
    pd.DataFrame(rows, columns=["path", "kind", "patient"]).to_csv(tmp_path / "list.csv", index=False)
    given = ("--paths", "path", "--target", "kind", "--group", "patient")
    (told,) = refused("fit", tmp_path / "list.csv", *given, *small, *out)
    assert "got 60 negatives in 1 group and 30 positives in 1 group for 3 splits" in told


def test_a_dataset_that_is_not_whole_is_told_to_be_completed(tmp_path: Path) -> None:
    table = pd.DataFrame({"id_code": [f"{i:03}" for i in range(25)], "diagnosis": [0] * 20 + [1] * 5})
    table.to_csv(tmp_path / "train.csv", index=False)
    pictures(tmp_path / "train_images" / f"{code}.png" for code in table["id_code"][:21])
    for code in table["id_code"][21:]:
        shutil.copy(tmp_path / "train_images" / "020.png", tmp_path / "train_images" / f"{code}.png")
    small = ("--backbone", "resnet32", "--size", SIZE, "--cache", tmp_path / "cache")
    (told,) = refused("fit", tmp_path, "--dataset", "aptos", *small, "--out", tmp_path / "run")
    assert "got 4 positives in 1 group for 2 splits" in told
    assert told.endswith("; give all images of the dataset, as its owners ship it")


def test_class_folders_further_inside_are_found(place: Path, tmp_path: Path) -> None:
    for part in ("train", "test"):
        parts(tmp_path / "data" / part, 10, 10)
    parts(tmp_path / "one" / "files", 10, 10)
    given = ("--positive", "cracked", "--backbone", "resnet32", "--out", tmp_path / "run")
    (told,) = refused("fit", tmp_path / "data", *given)
    for words in ("data/test or ", "data/train itself", "--split 0.8,0.2,0", "evaluate on the other"):
        assert words in told
    (told,) = refused("fit", tmp_path / "one", *given)
    assert told.endswith("one/files itself")
    assert Path(told.split(": give ")[1].removesuffix(" itself")).is_dir()


def test_files_that_are_not_beside_their_list_may_be_elsewhere(place: Path, tmp_path: Path) -> None:
    pd.DataFrame({"path": ["fine/0-000.png", "cracked/0-000.png"], "y": [0, 1]}).to_csv(tmp_path / "list.csv")
    given = ("--paths", "path", "--target", "y", "--positive", 1, "--backbone", "resnet32", "--out", tmp_path / "run")
    (told,) = refused("fit", tmp_path / "list.csv", *given)
    assert "2 of 2 without: fine/0-000.png, cracked/0-000.png" in told
    assert told.endswith("or say in which folder they are: --images FOLDER (folder)")
    (told,) = refused("fit", tmp_path / "list.csv", *given, "--images", tmp_path)
    assert told.endswith("fetch them or drop their rows")
    with pytest.raises(InputError, match=r"2 of 2 without: .* --images FOLDER"):
        predict(place / "run", tmp_path / "list.csv", at=tmp_path / "no.json", out=tmp_path / "r.csv")


def test_progress_counts_what_is_scored(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a list that names no column is of images."""
    run = Run.load(place / "run")
    tune(run, place / "parts", **NEED, images=reading(place), out=tmp_path / "point.json")
    pd.DataFrame({"path": [place / "parts" / "fine" / "0-000.png"] * 2}).to_csv(tmp_path / "list.csv")
    told: list[tuple[int, str]] = []

    @contextmanager
    def recording(what: str, unit: str, total: int | None) -> Iterator[Callable[..., None]]:
        yield lambda done, unit: told.append((done, unit))

    monkeypatch.setattr("tunelater.cli._progress", recording)
    at = ("--at", tmp_path / "point.json", "--out", tmp_path / "r.csv")
    assert "2 images" in invoked("predict", place / "run", tmp_path / "list.csv", *at)
    assert told == [(2, "images")]


PARTS, NO_FOLDER, TABLE = "parts", "no-folder", "t.csv"


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        (PARTS, "--positive cracked --backbone nosuch", ["there is no trunk 'nosuch'"]),
        (PARTS, "--positive crackd --backbone nosuch", ["there is no trunk 'nosuch'", "did you mean 'cracked'"]),
        (PARTS, "--positive cracked --backbone resnt32", ["there is no trunk 'resnt32'; did you mean 'resnet32'?"]),
        (PARTS, "--positive cracked --bits 99 --size -3", ["more, or None, got -3", "from 1 to 16, or None, got 99"]),
        (
            PARTS,
            "--positive cracked --backbone resnt32 --bits 99 --size -3",
            ["did you mean 'resnet32'?", "more, or None, got -3", "from 1 to 16, or None, got 99"],
        ),
        (
            PARTS,
            "--positive cracked --config c.toml --bits 99 --size -3 --precision bf16 --film stage",
            [
                "images.size must be 1 pixel or more, or None, got -3",
                "images.bits must be from 1 to 16, or None, got 99",
                "film.placement (--film) is 'features', 'logits' or 'stages', got 'stage'",
                "precision (--precision) is one of 32-true, bf16-mixed, got 'bf16'",
            ],
        ),
        (PARTS, "--positive bare --backbone resnet32", ["parts/bare must hold images"]),
        ("gaps.csv", "--paths path --target y --positive 1 --backbone resnet32", ["without, first row 2"]),
        (PARTS, "--positive cracked --size 0", ["images.size must be 1 pixel or more, or None, got 0"]),
        (PARTS, "--positive cracked --backbone resnet32 --size 0", ["images.size must be 1 pixel or more"]),
        (PARTS, "--positive cracked --backbone resnet32 --method vx", ["there is no method 'vx'"]),
        (PARTS, "--positive cracked --config no.toml", ["no config file no.toml"]),
        (NO_FOLDER, "--positive x", ["no-folder: there is no such file or folder"]),
        (NO_FOLDER, "--positive x --size 32 --backbone resnet32", ["no-folder: there is no such file or folder"]),
        (NO_FOLDER, "--dataset aptos", ["no-folder: there is no such file or folder"]),
        (NO_FOLDER, "--positive x --paths file --target y", ["no-folder: there is no such file or folder"]),
        (TABLE, "--positive 1 --target y --size 32", ["--size, --cache is for images, and DATA is a table"]),
        (f"{PARTS}/fine/0-000.png", "--positive cracked", ["0-000.png is one image, without a label"]),
        (f"{PARTS}/fine/0-000.png", "", ["0-000.png is one image, without a label"]),
        (f"{PARTS}/fine/0-000.png", "--backbone resnet32 --size 12", ["0-000.png is one image, without a label"]),
        (f"{PARTS}/fine/0-000.png", "--paths file", ["0-000.png is one image, without a label"]),
        (
            PARTS,
            "--positive cracked --backbone resnet32 --weights w.pt",
            ["resnet32 starts from random weights, got --weights w.pt: leave it out"],
        ),
        (
            PARTS,
            "--dataset cifar10-automobile-truck --weights w.pt",
            ["resnet32 starts from random weights, got --weights w.pt", "must hold cifar-10-batches-bin"],
        ),
        (PARTS, "--positive cracked --config odd.toml", ["3 colours and 32 pixels, got Given groups=1"]),
        (PARTS, "--positive crackd --config depths.toml", ["timm must be able to make 'resnet18'", "did you mean"]),
        (PARTS, "--positive cracked --config c.toml --weights w.pt", ["resnet32 starts from random weights"]),
        (
            PARTS,
            "--dataset aptos --protocol paper --split 0.6,0.2,0.2",
            ["leave out fractions (--split), got 0.6,0.2,0.2", "train.csv must be a CSV file"],
        ),
        (PARTS, "--dataset aptos --recipe paper --config c.toml", ["give --config or --recipe", "train.csv must be"]),
        (PARTS, "--dataset aptos --group patient --backbone resnet32", ["--group (group) is for a list"]),
    ],
)
def test_what_is_wrong_is_told_without_what_follows_from_it(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, options: str, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("parts", "bare").mkdir(parents=True)
    for kind in ("cracked", "fine"):
        Path("parts", kind).symlink_to(place / "parts" / kind)
    paths = ["parts/fine/0-000.png", "", "parts/cracked/0-000.png"]
    pd.DataFrame({"path": paths, "y": [0, 0, 1]}).to_csv("gaps.csv", index=False)
    pd.DataFrame({"x": np.sqrt(range(40)), "y": [0, 1] * 20}).to_csv("t.csv", index=False)
    Path("c.toml").write_text(quick().to_toml())
    for name, option in (("odd.toml", {"in_chans": 1}), ("depths.toml", {"layers": 3})):
        Path(name).write_text(recipes.images("resnet18", size=32, **option).to_toml())
    told = refused("fit", data, *shlex.split(options), "--out", "run", "--cache", "cache")
    assert len(told) == len(words), told
    for word, line in zip(words, told, strict=True):
        assert word in line
    assert not Path("cache").exists()


@pytest.mark.parametrize("method", recipes.METHODS)
def test_each_method_trains_on_each_form_from_the_command_line(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    common = ("--method", method, "--epochs", 1, "--cache", place / "cache")
    small = ("--backbone", "resnet32", "--size", SIZE, *common)
    invoked("fit", place / "parts", "--positive", "cracked", *small, "--out", tmp_path / "folder")
    images, _ = labelled_folder(place / "parts", positive="cracked")
    listed = pd.DataFrame({"path": images.paths, "label": np.where(images.target, "bad", "good")})
    listed.to_csv(tmp_path / "list.csv", index=False)
    given = ("--paths", "path", "--target", "label", "--positive", "bad")
    invoked("fit", tmp_path / "list.csv", *given, *small, "--out", tmp_path / "list")
    cifar = written_cifar(tmp_path, "cifar-10-batches-bin", fabricated(CIFAR10_FILES, {"labels": 10}), monkeypatch)
    invoked("fit", cifar, "--dataset", "cifar10-animal-vehicle", *common, "--out", tmp_path / "dataset")
    for name in ("folder", "list", "dataset"):
        config = Run.load(tmp_path / name).config
        assert (config.loss, config.epochs) == (method.split("+")[0], 1)
        assert bool(config.lambdas.free) == ("lct" in method)
        assert (config.sam is not None) == ("sam" in method)


def pictures(paths: Iterable[Path], seed: int = 0) -> None:
    """Small pictures under these names, no two alike."""
    rng = np.random.default_rng(seed)
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)


def as_shipped(name: str, folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """The files of a dataset as its owners name and shape them, few and made up."""
    if name.startswith("cifar10-"):
        return written_cifar(folder, "cifar-10-batches-bin", fabricated(CIFAR10_FILES, {"labels": 10}, 100), patch)
    if name == "cifar100-household":
        return written_cifar(folder, "cifar-100-python", household(), patch)
    folder.mkdir()
    if name == "melanoma":
        tables = isic(240)
        for key, file in (
            ("labels_2019", "2019_Training_GroundTruth"),
            ("labels_2020", "2020_Training_GroundTruth"),
            ("lesions_2019", "2019_Training_Metadata"),
            ("duplicates_2020", "2020_Training_Duplicates"),
        ):
            tables[key].to_csv(folder / f"ISIC_{file}.csv", index=False)
        pictures(folder / "ISIC_2019_Training_Input" / f"{name}.jpg" for name in tables["labels_2019"]["image"])
        (folder / "train").mkdir()  # the competition has DICOM files there
        pictures((folder / "jpeg" / "train" / f"{name}.jpg" for name in tables["labels_2020"].image_name), seed=1)
    elif name == "aptos":
        table = pd.DataFrame({"id_code": [f"{i:012x}" for i in range(80)], "diagnosis": [0, 0, 0, 1, 2, 3, 4, 0] * 10})
        table.to_csv(folder / "train.csv", index=False)
        pictures(folder / "train_images" / f"{code}.png" for code in table["id_code"])
    else:
        pictures(folder / "train" / f"{kind}.{i}.jpg" for kind in ("cat", "dog") for i in range(1_030))
    return folder


@pytest.mark.parametrize(
    ("name", "method"),
    list(zip(DATASETS, [*recipes.METHODS, *recipes.METHODS], strict=False)),
)
def test_each_dataset_trains_and_is_known_again_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, method: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = as_shipped(name, tmp_path / "data", monkeypatch)
    small = ("--backbone", "resnet32", "--size", SIZE, "--epochs", 1, "--cache", "cache")
    told = invoked("fit", folder, "--dataset", name, "--method", method, "--beta", 2, *small, "--out", "run")
    told = invoked(*next_of(told))
    assert "Chosen on" in told
    assert "NEW/ stands for a folder of image files" in told
    pictures(Path("NEW", f"{i}/any name {i}.png") for i in range(3))
    assert "3 images" in invoked(*next_of(told))
    if name.startswith("cifar"):
        (line,) = refused(*[folder if word == "NEW/" else word for word in next_of(told)], "--force")
        assert "holds CIFAR's batches, and predicting takes image files" in line
        (line,) = refused("fit", folder, "--positive", "deer", "--backbone", "resnet32", "--out", "no-run")
        assert "CIFAR's batches are read by name: --dataset" in line
    run = Run.load("run")
    recipe = recipes.shortened(recipes.for_dataset(name, method), 1)
    assert recipe.images is not None
    images = dataclasses.replace(recipe.images, size=SIZE)
    assert run.config == dataclasses.replace(recipe, model=ModelConfig("resnet32"), images=images)
    n_negative, n_positive = run.data["class_counts"]
    assert n_positive == n_negative // 2 or n_negative == 2 * n_positive
    benchmark = dataset(name, folder)
    assert run.data["splits"]["test"]["rows"] == len(benchmark.test)
    assert run.form.labels == benchmark.classes
    n = run.data["splits"]["validation"]["rows"]
    assert n / len(benchmark.train) == pytest.approx(HELD_OUT, abs=0.06)


@pytest.mark.parametrize("method", recipes.METHODS)
@pytest.mark.parametrize("name", DATASETS)
def test_each_dataset_has_a_recipe_of_each_method(name: str, method: str) -> None:
    config = recipes.for_dataset(name, method)
    assert recipes.with_method(recipes.for_dataset(name), method) == config
    assert config.loss == method.split("+")[0]
    assert bool(config.lambdas.free) == ("lct" in method)
    assert (config.sam is not None) == ("sam" in method)
    assert Config.from_toml(config.to_toml()) == config


def test_a_dataset_of_many_positives_is_told_what_makes_them_rare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pd.DataFrame({"id_code": [f"{i:03}" for i in range(60)], "diagnosis": [0, 1, 2] * 20})
    table.to_csv(tmp_path / "train.csv", index=False)
    pictures(tmp_path / "train_images" / f"{code}.png" for code in table["id_code"])
    common = ("--dataset", "aptos", "--backbone", "resnet32", "--size", SIZE, "--epochs", 1, "--cache", tmp_path / "c")
    told = invoked("fit", tmp_path, *common, "--out", tmp_path / "run")
    assert "'retinopathy' is the more frequent one" in told
    assert "--beta 10 (beta)" in told
    assert "--positive" not in told
    assert "more frequent" not in invoked("fit", tmp_path, *common, "--beta", 3, "--out", tmp_path / "rare")


def test_the_share_to_choose_on_follows_the_fractions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = as_shipped("cifar10-animal-vehicle", tmp_path / "data", monkeypatch)
    common = ("--dataset", "cifar10-animal-vehicle", "--size", SIZE, "--epochs", 1)
    invoked("fit", folder, *common, "--split", "0.5,0.3,0.2", "--out", tmp_path / "run")
    sizes = {name: n["rows"] for name, n in Run.load(tmp_path / "run").data["splits"].items()}
    assert sizes["test"] == 100
    assert sizes["validation"] / (sizes["train"] + sizes["validation"]) == pytest.approx(0.3 / 0.8, abs=0.01)


def test_the_released_recipe_clips_sams_first_gradient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar = written_cifar(tmp_path, "cifar-10-batches-bin", fabricated(CIFAR10_FILES, {"labels": 10}), monkeypatch)
    options = ("--dataset", "cifar10-animal-vehicle", "--method", "vs+sam", "--epochs", 1)
    invoked("fit", cifar, *options, "--recipe", "released", "--out", tmp_path / "run")
    config = Run.load(tmp_path / "run").config
    assert config.sam is not None
    assert config.sam.clip == "first"
    assert config.averaging is not None


def test_the_command_line_goes_from_a_folder_to_predictions(place: Path, tmp_path: Path) -> None:
    run, folder, cache = place / "run", place / "parts", ("--cache", place / "cache")
    told = invoked("tune", run, folder, "--maximize", "f1", "--out", tmp_path / "point.json", *cache)
    assert f"tunelater predict {run} NEW/" in told
    assert "on 18 test images" in invoked("evaluate", run, folder, "--at", tmp_path / "point.json", *cache)
    done = invoked("predict", run, folder / "fine", "--at", tmp_path / "point.json", "--out", tmp_path / "r.csv")
    assert "60 images" in done


def test_how_lists_are_read_is_refused_where_nothing_reads_a_list(place: Path, tmp_path: Path, run: Run) -> None:
    point = ("--at", tmp_path / "point.json")
    for command in (
        ("tune", "--maximize", "f1"),
        ("evaluate", *point),
        ("predict", *point, "--out", tmp_path / "r.csv"),
    ):
        name, *options = command
        given = ["--paths", "file", "--images", "x", "--on-bad", "skip", "--max-pixels", 5]
        words = "--paths (path), --images (folder), --on-bad (on_bad), --max-pixels (max_pixels)"
        if name != "predict":
            given, words = [*given, "--cache", "c"], f"{words}, --cache (cache)"
        told = "\n".join(refused(name, run.path, tmp_path / "t.csv", *options, *given))
        assert f"{words} is for a run on images, got one on a table" in told
    given = ("--positive", "cracked", "--backbone", "resnet32", "--no-header", "--out", tmp_path / "run")
    (told,) = refused("fit", place / "parts", *given)
    assert "--no-header (header=False) is for tables" in told


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (
            ("--paths", "path", "--target", "y", "--group", "y"),
            "--target and --group are columns of their own, got 'y'",
        ),
        (("--paths", "y", "--target", "y"), "--paths and --target are columns of their own, got 'y'"),
    ],
)
def test_a_column_has_one_part(columns: tuple[str, ...], told: str, tmp_path: Path) -> None:
    pd.DataFrame({"path": ["a.png", "b.png"], "y": [0, 1]}).to_csv(tmp_path / "t.csv", index=False)
    given = ("--positive", "1", "--backbone", "resnet32", "--out", tmp_path / "run")
    (line,) = refused("fit", tmp_path / "t.csv", *columns, *given)
    assert told in line


def test_precision_compiling_and_film_are_options_over_a_config(place: Path, tmp_path: Path) -> None:
    given = quick(precision="bf16-mixed", compile=True, film=FiLMConfig(hidden=7))
    (tmp_path / "c.toml").write_text(dataclasses.replace(given, epochs=1).to_toml())
    common = ("fit", place / "parts", "--positive", "cracked", "--config", tmp_path / "c.toml")
    options = ("--precision", "32-true", "--no-compile", "--film", "stages", "--cache", place / "cache")
    invoked(*common, *options, "--out", tmp_path / "run")
    config = Run.load(tmp_path / "run").config
    assert (config.precision, config.compile) == ("32-true", False)
    assert config.film == FiLMConfig("stages", hidden=7, start="identity", rescale=True)
    (tmp_path / "c.toml").write_text(dataclasses.replace(given, epochs=1, compile=False, film=None).to_toml())
    invoked(*common, "--film", "logits", "--cache", place / "cache", "--out", tmp_path / "run", "--force")
    config = Run.load(tmp_path / "run").config
    assert (config.precision, config.film) == ("bf16-mixed", FiLMConfig("logits"))


def test_a_missing_compiler_is_told_with_the_rest(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler found")

    monkeypatch.setattr("torch.compile", no_compiler)
    common = ("fit", place / "parts", "--positive", "crackd", "--backbone", "resnet32", "--out", tmp_path / "run")
    compiling, positive = refused(*common, "--compile")
    assert "no C++ compiler found" in compiling
    assert "--no-compile" in compiling
    assert "did you mean 'cracked'" in positive
    assert len(refused(*common)) == 1


def test_a_method_and_another_loss_contradict_each_other(place: Path, tmp_path: Path) -> None:
    given = ("--positive", "cracked", "--backbone", "resnet32", "--out", tmp_path / "run")
    (line,) = refused("fit", place / "parts", *given, "--method", "focal", "--loss", "vs")
    assert "--method focal trains with loss focal, got --loss vs too" in line


def test_options_for_images_are_refused_for_a_table(tmp_path: Path) -> None:
    pd.DataFrame({"x": range(40), "y": [0, 1] * 20}).to_csv(tmp_path / "t.csv", index=False)
    arguments = ["fit", tmp_path / "t.csv", "--target", "y", "--positive", "1", "--size", 32, "--group", "x"]
    reading = ["--on-bad", "skip", "--max-pixels", 9]
    told = "\n".join(refused(*arguments, *reading, "--recipe", "released", "--out", tmp_path / "run"))
    for words in ("--size, --group, --on-bad, --max-pixels is for images", "--paths COLUMN", "--recipe is of a"):
        assert words in told


def test_depth_and_size_limit_of_images_hold_from_training_to_prediction(place: Path, tmp_path: Path) -> None:
    """Grey images of twelve bits in files of sixteen: stated, they are what the same in eight bits would be."""
    deep, shallow = tmp_path / "deep", tmp_path / "shallow"
    for path in sorted((place / "parts").glob("*/*.png")):
        grey = np.asarray(Image.open(path).convert("L")).astype(int)
        for folder in (deep, shallow):
            (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey.astype(np.uint8)).save(shallow / path.parent.name / path.name)
        Image.fromarray((grey * 4095 // 255).astype(np.uint16)).save(deep / path.parent.name / path.name)
    cache = ("--cache", tmp_path / "cache")
    options = ("--positive", "cracked", "--backbone", "resnet32", "--size", SIZE, "--epochs", 1, *cache)
    few = CliRunner().invoke(app, list(map(str, ("fit", deep, *options, "--out", tmp_path / "dark"))))
    assert "90 of 90 images have 16-bit samples" in few.output
    assert "--bits 12" in few.output
    assert "warning" not in invoked("fit", deep, *options, "--bits", 12, "--out", tmp_path / "run")
    run, dark = Run.load(tmp_path / "run"), Run.load(tmp_path / "dark")
    assert (run.config.images.bits, dark.config.images.bits) == (12, None)
    assert run.form.digest() != dark.form.digest()
    labelled = run.form.labelled(deep, reading(tmp_path)).samples
    eight = run.form.labelled(shallow, reading(tmp_path)).samples
    assert np.abs(labelled.pixels[:].astype(int) - eight.pixels[:]).max() <= 1
    invoked("tune", tmp_path / "run", deep, "--maximize", "f1", "--out", tmp_path / "point.json", *cache)
    at = ("--at", tmp_path / "point.json")
    assert "warning" not in invoked("predict", tmp_path / "run", deep, *at, "--out", tmp_path / "r.csv")
    invoked("tune", tmp_path / "dark", deep, "--maximize", "f1", "--out", tmp_path / "dark.json", *cache)
    for command in (
        ("tune", "--maximize", "f1", *cache),
        ("evaluate", "--at", tmp_path / "dark.json", *cache),
        ("predict", "--at", tmp_path / "dark.json", "--out", tmp_path / "dark.csv"),
    ):
        name, *options = command
        (told,) = (line for line in invoked(name, tmp_path / "dark", deep, *options).splitlines() if "warning" in line)
        assert "90 of 90 images have 16-bit samples, none of which uses more than the lowest 12 bits" in told
    point = tune(run, deep, maximize="f1", images=reading(tmp_path))
    scores = run.score(labelled, {name: np.array([value]) for name, value in point.lam.items()}).at_prior(point.prior)
    np.testing.assert_allclose(pd.read_csv(tmp_path / "r.csv")["log_odds"], scores.log_odds[0], atol=1e-4)

    limited = ("predict", tmp_path / "run", deep, *at, "--out", tmp_path / "s.csv", "--max-pixels")
    told = CliRunner().invoke(app, list(map(str, (*limited, 16 * 20 - 1))))
    assert told.exit_code == 2
    assert "320 pixels, where 319 are allowed" in told.output
    invoked(*limited, 320)
