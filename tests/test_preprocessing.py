"""Preprocessing: what conformed features become, and what its file may hold; real tables from file to numbers."""

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data_tables import SCHEMA, messy, problems_of, written
from real_data import TABLES, needed
from tunelater.data.imbalance import split_rows
from tunelater.data.preprocessing import Preprocessor
from tunelater.data.reading import read_table
from tunelater.data.tables import TableSchema, prepare, row_hashes, stream_table
from tunelater.problems import DoubtfulInputWarning


def fitted(numeric: Any = "quantile") -> tuple[Preprocessor, pd.DataFrame]:
    features, _, schema = prepare(messy(), "label", "fraud")
    return Preprocessor(numeric).fit(features[:120], schema), features


@pytest.mark.parametrize("numeric", ["quantile", "standard"])
def test_what_a_row_becomes_does_not_depend_on_other_rows(numeric: str) -> None:
    preprocessor, features = fitted(numeric)
    whole = preprocessor.transform(features)
    assert whole.shape == (200, preprocessor.n_features)
    assert whole.dtype == np.float32
    assert whole.flags.c_contiguous
    assert np.isfinite(whole).all()
    for size, n in ((1, 40), (13, 200)):
        pieces = [preprocessor.transform(features[i : min(i + size, n)]) for i in range(0, n, size)]
        np.testing.assert_array_equal(np.concatenate(pieces), whole[:n])
    order = np.random.default_rng(0).permutation(200)
    np.testing.assert_array_equal(preprocessor.transform(features.iloc[order]), whole[order])
    assert preprocessor.transform(features[:0]).shape == (0, preprocessor.n_features)


def test_the_digest_is_of_what_was_learned(tmp_path: Path) -> None:
    """The same after loading and after fitting anew; another for other settings, kinds of columns or values."""
    preprocessor, features = fitted()
    preprocessor.save(tmp_path / "p.skops")
    schema = preprocessor.schema
    others = [Preprocessor().fit(features[:120].drop(columns=["day"]), _without(schema, "day")), fitted("standard")[0]]
    for name, value in (("amount", 1e6), ("flag", np.nan), ("colour", "purple"), ("count", np.nan)):
        changed = features[:120].copy()
        changed.loc[changed.index[:60], name] = value
        others.append(Preprocessor().fit(changed, schema))
    digests = [p.digest() for p in (preprocessor, Preprocessor.load(tmp_path / "p.skops"), fitted()[0], *others)]
    assert digests[0] == digests[1] == digests[2]
    assert len(set(digests)) == 1 + len(others)


def _without(schema: TableSchema, name: str) -> TableSchema:
    columns = {column: kind for column, kind in schema.columns.items() if column != name}
    return TableSchema(columns, schema.target, schema.positive, schema.negative)


def test_categories_are_those_of_training() -> None:
    preprocessor, features = fitted()
    for name, known in preprocessor.categories().items():
        assert known == set(features[name][:120].dropna())
    assert preprocessor.categories().keys() == {"colour", "code"}


def test_quantiles_of_the_training_rows_are_normal() -> None:
    x = pd.DataFrame({"x": np.random.default_rng(0).lognormal(0, 3, 5000)})
    z = Preprocessor().fit(x, TableSchema({"x": "numeric"}, "y", "1", "0")).transform(x)[:, 0]
    np.testing.assert_allclose(np.quantile(z, [0.05, 0.5, 0.95]), [-1.645, 0, 1.645], atol=0.01)
    assert (np.argsort(z, kind="stable")[10:-10] == np.argsort(x["x"], kind="stable")[10:-10]).all()


@pytest.mark.parametrize("numeric", ["quantile", "standard"])
def test_anything_that_conforms_becomes_finite(numeric: Any) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"x": rng.normal(size=50), "huge": rng.choice([1e308, -1e308, 1.0], 50), "b": rng.choice([0.0, 1.0], 50)}
    )
    frame["s"] = pd.Series(rng.choice(["a", "b"], 50), dtype=object)
    kinds: dict[str, Any] = {"x": "numeric", "huge": "numeric", "b": "boolean", "s": "categorical"}
    preprocessor = Preprocessor(numeric).fit(frame, TableSchema(kinds, "y", "1", "0"))
    odd = pd.DataFrame({"x": [1e308, -1e308, np.nan], "huge": [0, np.nan, 5e-324], "b": [np.nan, 0, 1]})
    odd["s"] = pd.Series(["new", None, "a"], dtype=object)
    assert np.isfinite(preprocessor.transform(odd)).all()
    assert np.isfinite(preprocessor.transform(frame)).all()


def test_columns_that_are_empty_in_the_training_rows_do_not_matter() -> None:
    frame = pd.DataFrame({"x": [np.nan] * 4, "b": [np.nan] * 4, "s": pd.Series([None] * 4, dtype=object)})
    kinds: dict[str, Any] = {"x": "numeric", "b": "boolean", "s": "categorical"}
    preprocessor = Preprocessor().fit(frame, TableSchema(kinds, "y", "1", "0"))
    later = pd.DataFrame({"x": [5.0], "b": [1.0], "s": pd.Series(["a"], dtype=object)})
    assert np.isfinite(preprocessor.transform(later)).all()


def test_missing_values_have_columns_of_their_own_where_training_had_some() -> None:
    frame = pd.DataFrame({"some": [1.0, np.nan, 3.0, 4.0], "none": [1.0, 2.0, 3.0, 4.0], "b": [1.0, 1.0, 0.0, np.nan]})
    schema = TableSchema({"some": "numeric", "none": "numeric", "b": "boolean"}, "y", "1", "0")
    preprocessor = Preprocessor("standard").fit(frame, schema)
    z = preprocessor.transform(frame)
    assert z[:, 2:].tolist() == [[0, 1, 0], [1, 1, 0], [0, 0, 0], [0, 1, 1]]
    np.testing.assert_allclose(z[1, 0], (3 - 2.75) / np.std([1, 3, 3, 4]), rtol=1e-6)
    assert np.isfinite(preprocessor.transform(frame * np.nan)).all()


def test_rare_new_and_missing_categories() -> None:
    values = ["a"] * 10 + ["b"] * 10 + ["rare"] * 2 + ["odd"] + [None] * 6
    frame = pd.DataFrame({"s": pd.Series(values, dtype=object)})
    preprocessor = Preprocessor().fit(frame, TableSchema({"s": "categorical"}, "y", "1", "0"))
    later = pd.DataFrame({"s": pd.Series(["a", "b", None, "rare", "odd", "new"], dtype=object)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        z = preprocessor.transform(later)
    assert z.sum(axis=1).tolist() == [1] * 6
    assert len(np.unique(z[:4], axis=0)) == 4
    assert (z[3:] == z[3]).all()
    many = pd.DataFrame({"s": pd.Series([f"c{i}" for i in range(200)] * 5, dtype=object)})
    assert Preprocessor().fit(many, TableSchema({"s": "categorical"}, "y", "1", "0")).n_features == 64


@pytest.mark.parametrize("numeric", ["quantile", "standard"])
def test_a_preprocessor_survives_its_file(tmp_path: Path, numeric: str) -> None:
    preprocessor, features = fitted(numeric)
    preprocessor.save(tmp_path / "p.skops")
    loaded = Preprocessor.load(tmp_path / "p.skops")
    np.testing.assert_array_equal(loaded.transform(features), preprocessor.transform(features))
    assert (loaded.schema, loaded.n_features, loaded.numeric) == (
        preprocessor.schema,
        preprocessor.n_features,
        preprocessor.numeric,
    )


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("this must never run",))


def test_other_types_in_a_file_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    for content in (Evil(), FunctionTransformer(print), {"transformer": FunctionTransformer(np.log)}):
        skops.io.dump(content, tmp_path / "p.skops")
        told = problems_of(lambda: Preprocessor.load(tmp_path / "p.skops"))
        assert "must hold only" in told[0]
        assert "do not load" in told[0]
    assert capsys.readouterr().out == ""


def test_a_type_smuggled_into_a_real_file_is_refused(tmp_path: Path) -> None:
    preprocessor, _ = fitted()
    preprocessor.save(tmp_path / "p.skops")
    with zipfile.ZipFile(tmp_path / "p.skops") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    for old, new in (
        (b'"ObjectNode"', b'"MethodNode"'),
        (b'"StandardScaler"', b'"Other"'),
        (b'"Pipeline"', b'"system"'),
    ):
        with zipfile.ZipFile(tmp_path / "q.skops", "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data.replace(old, new) if name == "schema.json" else data)
        if old in files["schema.json"]:
            assert "must hold only" in problems_of(lambda: Preprocessor.load(tmp_path / "q.skops"))[0]


def test_what_is_no_preprocessor_is_refused(tmp_path: Path) -> None:
    import skops.io

    skops.io.dump({"numeric": "quantile"}, tmp_path / "other.skops")
    skops.io.dump(
        {"numeric": "quantile", "schema": json.dumps(SCHEMA.to_json()), "n_features": 3, "transformer": {}},
        tmp_path / "hollow.skops",
    )
    preprocessor, _ = fitted()
    preprocessor.save(tmp_path / "p.skops")
    written(tmp_path, (tmp_path / "p.skops").read_bytes()[:-100], "cut.skops")
    written(tmp_path, "text", "text.skops")
    for name in ("other", "hollow", "cut", "text"):
        assert (
            "not written by Preprocessor.save"
            in problems_of(lambda n=name: Preprocessor.load(tmp_path / f"{n}.skops"))[0]
        )
    assert "no such file" in problems_of(lambda: Preprocessor.load(tmp_path / "absent.skops"))[0]


def test_features_that_do_not_conform_are_refused() -> None:
    preprocessor, features = fitted()
    told = problems_of(lambda: preprocessor.transform(features.drop(columns="colour").assign(amount="1", count=np.inf)))
    assert len(told) == 3
    for words in ("'colour'", "'amount' must hold finite float64", "'count' must hold finite float64", "conform"):
        assert words in "\n".join(told)
    assert "rows" in problems_of(lambda: Preprocessor().fit(features[:0], preprocessor.schema))[0]
    assert "fit" in problems_of(lambda: Preprocessor().transform(features))[0]
    assert "fit" in problems_of(lambda: Preprocessor().save("p.skops"))[0]
    assert "quantile or standard" in problems_of(lambda: Preprocessor("log"))[0]


# ----------------------------------------------------------------------------------------------------------- real files

FILES = {
    "abalone_19": [],
    "churn": ["phone_number"],
    "jm1": [],
    "mammography": [],
    "oil-spill": ["column_23"],
    "ozone_level_8hr": [],
    "us_crime": [],
    "wilt": [],
    "wine_quality": [],
}


@pytest.mark.parametrize("name", FILES)
def test_real_tables_become_finite_numbers(name: str) -> None:
    path = needed(TABLES / f"{name}.csv")
    header = name not in ("mammography", "oil-spill")
    frame = read_table(path, header=header)
    target = frame.columns[-1]
    positive = str(frame[target].value_counts().index[-1])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        features, y, schema = prepare(frame, target, positive, header=header)
    assert [column for column in frame.columns[:-1] if column not in schema.columns] == FILES[name]
    assert [warning.category for warning in caught] == [DoubtfulInputWarning] * bool(FILES[name])
    assert 0 < y.mean() < 0.5
    splits = split_rows(y)
    preprocessor = Preprocessor().fit(features.iloc[splits["train"]], schema)
    z = preprocessor.transform(features)
    assert z.dtype == np.float32
    assert z.shape == (len(frame), preprocessor.n_features)
    assert np.isfinite(z).all()
    streamed = np.concatenate(
        [row_hashes(a, [*schema.columns]) for a, _ in stream_table(path, schema, batch_rows=1000)]
    )
    np.testing.assert_array_equal(streamed, row_hashes(features, [*schema.columns]))
