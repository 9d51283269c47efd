"""Folders of Parquet files as tables: read, streamed, predicted on in parts, here and on Ray Data."""

import json
import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_tables import messy, problems_of
from tunelater import workflow
from tunelater.data import reading
from tunelater.data.reading import read_table
from tunelater.data.tables import LabelColumns, TableSchema, prepare, stream_table
from tunelater.demo import POSITIVE, TARGET
from tunelater.engines import Engine
from tunelater.problems import DoubtfulInputWarning, InputError
from tunelater.runs import Run
from tunelater.tuning import OperatingPoint
from tunelater.workflow import evaluation, fit, predict, tune

NUMBERS = TableSchema({"x": "numeric"}, "y", "1", "0")


@pytest.fixture(scope="module")
def point(run: Run, table: Path) -> OperatingPoint:
    return tune(run, table, maximize="f1")


def cut(frame: pd.DataFrame, folder: Path, cuts: list[int], rows_of_a_group: int = 500) -> Path:
    """A folder of Parquet files at several depths, whose order is that of their relative names."""
    folder.mkdir()
    pieces = [frame.iloc[a:b] for a, b in zip([0, *cuts], [*cuts, len(frame)], strict=True)]
    for i, piece in enumerate(pieces):
        path = folder / ("deep" if i % 2 else ".") / f"{i}.parquet" if i < 2 else folder / f"x{i}" / "0.pq"
        path.parent.mkdir(exist_ok=True)
        piece.to_parquet(path, index=False, row_group_size=rows_of_a_group)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ------------------------------------------------------------------------------------------------------- read


def test_a_folder_is_one_table_in_the_order_of_relative_names(tmp_path: Path) -> None:
    frame = messy(300)
    folder = cut(frame, tmp_path / "t", [40, 40, 200])
    for name in ("_SUCCESS", "_metadata", ".hidden.parquet", "_temporary/0.parquet", ".part.parquet.crc"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"nothing to read")
    frame.to_parquet(tmp_path / "whole.parquet", index=False)
    pd.testing.assert_frame_equal(read_table(folder), read_table(tmp_path / "whole.parquet"))


@pytest.mark.parametrize("fragment_rows", [1, 45, 1 << 20])
def test_a_folder_streams_as_it_reads_whatever_the_fragments(
    tmp_path: Path, fragment_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "FRAGMENT_ROWS", fragment_rows)
    frame = messy(300)
    folder = cut(frame, tmp_path / "t", [70, 200], rows_of_a_group=20)
    features, y, schema = prepare(frame, "label", "fraud")
    stream = stream_table(folder, schema, batch_rows=15, keep=["label"], labelled=LabelColumns("label"))
    assert stream.rows == 300
    pieces = list(stream.pieces())
    pd.testing.assert_frame_equal(pd.concat([piece.features for piece in pieces]), features)
    assert np.concatenate([piece.target for piece in pieces]).tolist() == y.tolist()
    assert pa.concat_tables([piece.kept for piece in pieces])["label"].to_pylist() == frame["label"].tolist()
    apart = [piece.features for i in reversed(range(len(stream))) for piece in list(stream.part(i))[::-1]]
    pd.testing.assert_frame_equal(pd.concat(apart[::-1]), features)


def test_types_that_go_together_are_widened(tmp_path: Path) -> None:
    tables = [
        pa.table({"x": pa.array([1, 2]), "s": pa.array(["a", None])}),
        pa.table({"s": pa.array(["b"]).dictionary_encode(), "x": pa.array([0.5])}),
        pa.table({"x": pa.nulls(1), "s": pa.array(["c"], pa.large_string())}),
    ]
    for i, each in enumerate(tables):
        pq.write_table(each, tmp_path / f"{i}.parquet")
    read = read_table(tmp_path)
    assert read["x"].tolist()[:3] == [1.0, 2.0, 0.5]
    assert read["x"].isna().tolist() == [False, False, False, True]
    assert read["s"].fillna("-").tolist() == ["a", "-", "b", "c"]


def test_files_that_differ_are_told_all_at_once(tmp_path: Path) -> None:
    for name, columns in {
        "a": {"x": [1], "s": ["u"]},
        "b": {"x": [1]},
        "c": {"x": ["one"], "s": ["u"], "more": [1]},
        "d": {"x": [True], "s": [b"u"]},
    }.items():
        pd.DataFrame(columns).to_parquet(tmp_path / f"{name}.parquet")
    told = problems_of(lambda: read_table(tmp_path))
    assert [Path(problem.split(":")[0]).stem for problem in told] == ["b", "c", "d"]
    for problem, words in zip(told, [["lacks 's'"], ["'more' besides", "in 'x'"], ["in 'x'", "in 's'"]], strict=True):
        assert all(word in problem for word in words)


def test_broken_files_are_told_all_at_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.parquet").write_bytes(b"PAR1 and no more")
    told = problems_of(lambda: read_table(tmp_path))
    assert [str(tmp_path / f"{name}.parquet") in problem for name, problem in zip("ab", told, strict=True)] == [
        True
    ] * 2


def test_rows_are_told_by_file(tmp_path: Path) -> None:
    frames = [
        pd.DataFrame({"x": x, "y": y})
        for x, y in ((["1", "2"], "01"), (["3", "?", "wrong", "5"], ["1", "0", None, "1"]))
    ]
    for i, frame in enumerate(frames):
        frame.assign(y=list(frame["y"])).to_parquet(tmp_path / f"{i}.parquet", row_group_size=2)
    where = f"3 of {tmp_path / '1.parquet'}"
    streamed = problems_of(lambda: list(stream_table(tmp_path, NUMBERS, labelled=LabelColumns("y")).pieces()))
    assert f"first in row {where}: 'wrong'" in streamed[0]
    assert f"missing values, got 1, in row {where};" in streamed[1]
    for row, told in ((where, tmp_path), ("3", tmp_path / "1.parquet")):
        problem = "\n".join(problems_of(lambda told=told: fit(told, target="y", positive="1")))
        assert f"missing values, got 1, in row {row};" in problem


def test_what_is_wrong_with_labels_is_told_as_of_a_whole_table(tmp_path: Path) -> None:
    for y in (["0", "1", "2"], ["0", "0", "0"], ["1", "no", "1"]):
        frame = pd.DataFrame({"x": [1.0, 2.0, 3.0], "y": y})
        frame.to_parquet(tmp_path / "t.parquet")
        streamed = problems_of(
            lambda: list(
                stream_table(tmp_path / "t.parquet", NUMBERS, batch_rows=1, labelled=LabelColumns("y")).pieces()
            )
        )
        if y == ["1", "no", "1"]:
            assert "'1' and 'no'; the run was fitted on '1' and '0'" in streamed[0]
        else:
            assert streamed == problems_of(lambda frame=frame: prepare(frame, "y", "1"))


def test_weights_that_are_none_are_told(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1.0] * 4, "y": ["0", "1"] * 2, "w": [1.0, -1.0, np.nan, 2.0]})
    frame.to_parquet(tmp_path / "t.parquet")
    stream = stream_table(tmp_path / "t.parquet", NUMBERS, batch_rows=1, labelled=LabelColumns("y", "w"))
    (told,) = problems_of(lambda: list(stream.pieces()))
    assert "'w' must hold weights, which are finite numbers, 0 or more, got 2 cells that do not, first in row 2" in told


def test_delta_tables_and_folders_without_parquet_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    assert "got a folder without one" in problems_of(lambda: read_table(tmp_path))[0]
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "a.parquet")
    with pytest.warns(DoubtfulInputWarning, match=r"other files than Parquet are not read: notes\.txt"):
        read_table(tmp_path)
    (tmp_path / "_delta_log").mkdir()
    assert "Delta table" in problems_of(lambda: read_table(tmp_path))[0]


def test_values_in_names_of_folders_are_not_read_in_silence(tmp_path: Path) -> None:
    (tmp_path / "site=A").mkdir()
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "site=A" / "0.parquet")
    with pytest.warns(DoubtfulInputWarning, match="not read as columns: site=A"):
        read_table(tmp_path)


def test_images_beside_parquet_are_ambiguous(tmp_path: Path) -> None:
    pd.DataFrame({"x": [1], "y": ["a"]}).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.warns(DoubtfulInputWarning, match=r"not read: b\.png"):
        told = problems_of(lambda: fit(tmp_path, target="y", positive="a"))
    assert any("images (b.png) and Parquet files (a.parquet)" in problem for problem in told)


# --------------------------------------------------------------------------------------------------- workflow


def test_fit_and_evaluate_take_a_folder_for_the_table_that_it_is(
    run: Run, frame: pd.DataFrame, point: OperatingPoint, tmp_path: Path
) -> None:
    folder = cut(frame, tmp_path / "t", [1000, 2000])
    prepared = workflow.prepare_table(folder, target=TARGET, positive=POSITIVE)
    assert prepared.fingerprint == run.data["fingerprint"]
    assert evaluation(run, folder, at=point).split == "test"


@pytest.mark.parametrize("fragment_rows", [600, 1 << 20])
def test_predictions_of_a_folder_are_those_of_its_rows(
    run: Run,
    frame: pd.DataFrame,
    point: OperatingPoint,
    tmp_path: Path,
    fragment_rows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "FRAGMENT_ROWS", fragment_rows)
    folder = cut(frame, tmp_path / "t", [1000, 1001, 2000])
    before = files_of(folder)
    frame.to_parquet(tmp_path / "whole.parquet", index=False, row_group_size=500)
    whole = pd.read_parquet(
        predict(run, tmp_path / "whole.parquet", at=point, out=tmp_path / "w.parquet", keep=["age"]).out
    )
    done = predict(run, folder, at=point, out=tmp_path / "out", keep=["age"])
    assert (done.rows, done.alerts) == (len(frame), (whole["prediction"] == POSITIVE).sum())
    parts = sorted(done.out.glob("part-*.parquet"))
    assert len(parts) == len(stream_table(folder, run.form.schema))
    joined = read_table(done.out)
    pd.testing.assert_frame_equal(joined, whole, atol=1e-5, check_dtype=False)
    one = predict(run, folder, at=point, out=tmp_path / "o.parquet", keep=["age"])
    pd.testing.assert_frame_equal(read_table(one.out), joined)
    told = json.loads((done.out / workflow.MARKER).read_text())
    assert (told["rows"], told["alerts"], told["model"]) == (done.rows, done.alerts, run.id)
    assert files_of(folder) == before
    assert not list(tmp_path.glob(".*"))


def test_parts_are_the_same_whoever_works_on_them(
    run: Run, frame: pd.DataFrame, point: OperatingPoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an engine does it: the work goes elsewhere as bytes, and takes parts in any order."""
    monkeypatch.setattr(reading, "FRAGMENT_ROWS", 600)
    folder = cut(frame, tmp_path / "t", [1000, 2000])

    def elsewhere(engine: Engine, work: object, items: range) -> object:
        packed = pickle.dumps(work)
        results = {i: list(pickle.loads(packed)(i)) for i in reversed(items)}
        return (result for i in items for result in results[i])

    predict(run, folder, at=point, out=tmp_path / "here")
    monkeypatch.setattr(Engine, "map", elsewhere)
    monkeypatch.setattr(Engine, "problems", lambda self: [])
    predict(run, folder, at=point, out=tmp_path / "there", engine="ray")
    assert files_of(tmp_path / "here") == files_of(tmp_path / "there")


def test_a_bad_row_leaves_no_result_and_is_told_by_file(
    run: Run, frame: pd.DataFrame, point: OperatingPoint, tmp_path: Path
) -> None:
    spoiled = frame.astype({"age": object})
    spoiled.loc[2500, "age"] = "old"
    folder = cut(spoiled.assign(age=spoiled["age"].astype(str)), tmp_path / "t", [1000, 2000])
    with pytest.raises(InputError, match=rf"column 'age' must hold numbers.*first in row 501 of {folder}.*'old'"):
        predict(run, folder, at=point, out=tmp_path / "out")
    assert os.listdir(tmp_path) == ["t"]


def test_results_replace_folders_of_results_only(
    run: Run, frame: pd.DataFrame, point: OperatingPoint, tmp_path: Path
) -> None:
    folder = cut(frame, tmp_path / "t", [1000])
    place = lambda out, **more: problems_of(lambda: predict(run, folder, at=point, out=out, **more))[0]
    assert "lies in the folder that predicting reads" in place(folder / "out")
    assert "lies in the folder that predicting reads" in place(folder / "out.parquet")
    assert "holds what predicting reads" in place(tmp_path)
    assert "what predicting reads" in place(folder, force=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert "not a folder of predictions" in place(tmp_path / "mine", force=True)
    out = predict(run, folder, at=point, out=tmp_path / "out").out
    assert "--force" in place(out)
    before = files_of(out)
    predict(run, folder, at=point, out=out, force=True)
    assert files_of(out) == before
    (out / "notes.txt").write_text("mine")
    assert "also holds notes.txt" in place(out, force=True)


def test_an_interruption_leaves_nothing(
    run: Run, frame: pd.DataFrame, point: OperatingPoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cut(frame, tmp_path / "t", [1000])

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(run, folder, at=point, out=tmp_path / "out", on_rows=stop)
    assert os.listdir(tmp_path) == ["t"]


# ----------------------------------------------------------------------------------------------------- engines


def test_impossible_engines_are_told(run: Run, table: Path, point: OperatingPoint, tmp_path: Path,
                                     monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    told = lambda **options: "\n".join(
        problems_of(lambda: predict(run, table, at=point, out=tmp_path / "o.csv", **options))
    )
    assert "no engine 'Ray'; did you mean 'ray'?" in told(engine="Ray")
    assert "an address is of a Ray cluster, got 'auto'" in told(address="auto")
    monkeypatch.setattr("tunelater.engines.find_spec", lambda name: None)
    assert "pip install 'tunelater[ray]'" in told(engine="ray")
    monkeypatch.setattr("tunelater.engines.find_spec", lambda name: "there")
    assert "reads Parquet" in told(engine="ray")
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("on_ray")
def test_ray_gives_the_same_bytes(
    run: Run, frame: pd.DataFrame, point: OperatingPoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "FRAGMENT_ROWS", 600)
    folder = cut(frame, tmp_path / "t", [1000, 2000])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        predict(run, folder, at=point, out=tmp_path / "ray", engine="ray", keep=["age"])
        predict(run, folder, at=point, out=tmp_path / "ray.csv", engine="ray")
        (folder / "z.parquet").write_bytes((folder / "0.parquet").read_bytes())
        spoiled = read_table(folder / "z.parquet").astype({"age": str})
        spoiled.loc[600, "age"] = "old"
        spoiled.to_parquet(folder / "z.parquet", row_group_size=300)
        with pytest.raises(InputError):
            predict(run, folder, at=point, out=tmp_path / "no", engine="ray")
        (folder / "z.parquet").unlink()
    predict(run, folder, at=point, out=tmp_path / "local", keep=["age"])
    predict(run, folder, at=point, out=tmp_path / "local.csv")
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "local")
    assert (tmp_path / "ray.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()
