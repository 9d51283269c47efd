"""Preprocessing: conformed features as the finite numbers that a network needs.

The `Preprocessor` is fitted on the training split alone. It is stored without code: its file holds only scikit-learn's
transformers and arrays, and one that names any other type is refused before anything in it is loaded.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import pandas as pd

from tunelater.data.cells import absent_names, some_of
from tunelater.data.reading import PathLike, checked_file
from tunelater.data.tables import Kind, TableSchema
from tunelater.problems import InputError, Problems

_UNKNOWN_FORM = "it was not written by Preprocessor.save, or is damaged; train again, or name another file"
MISSING_CATEGORY = "<missing>"
LARGEST_INPUT = 1e100
LARGEST_OUTPUT = 1e6
# skops trusts far more than this. A file can only hold what a Preprocessor is made of.
_TRUSTED = frozenset(
    {
        "builtins.dict",
        "builtins.list",
        "builtins.slice",
        "builtins.str",
        "builtins.tuple",
        "numpy.dtype",
        "numpy.float32",
        "numpy.float64",
        "numpy.int64",
        "numpy.ndarray",
        "sklearn.compose._column_transformer.ColumnTransformer",
        "sklearn.compose._column_transformer._RemainderColsList",
        "sklearn.impute._base.MissingIndicator",
        "sklearn.impute._base.SimpleImputer",
        "sklearn.pipeline.Pipeline",
        "sklearn.preprocessing._data.QuantileTransformer",
        "sklearn.preprocessing._data.StandardScaler",
        "sklearn.preprocessing._encoders.OneHotEncoder",
    }
)
_TRUSTED_LOADERS = frozenset(
    {"DictNode", "DTypeNode", "JsonNode", "ListNode", "NdArrayNode", "ObjectNode", "SliceNode", "TupleNode", "TypeNode"}
)


class Preprocessor:
    """Features of any kind as finite float32 numbers; what a row becomes does not depend on the other rows.

    * numeric: missing values get the median, a column that had some gets a second one that says where. Then "quantile"
      maps the training distribution to the standard normal one, robust to outliers and skew and within ±5.2;
      "standard" subtracts the mean and divides by the standard deviation.
    * boolean: 0 or 1; missing values get the more frequent one, and a column that says where.
    * categorical: one column a category; missing is a category. Categories with fewer than 5 rows, those beyond the 64
      most frequent ones, and those that training did not have share a column (where no category was rare, new ones are
      all zeros).

    Args:
        numeric: "quantile" or "standard".

    Raises:
        InputError: another value of `numeric`.
    """

    schema: TableSchema
    n_features: int

    def __init__(self, numeric: Literal["quantile", "standard"] = "quantile") -> None:
        if numeric not in ("quantile", "standard"):
            raise InputError(f"numeric must be quantile or standard, got {numeric!r}")
        self.numeric = numeric
        self._transformer: Any = None

    def fit(self, features: pd.DataFrame, schema: TableSchema) -> Self:
        """Learns from the training rows alone.

        Args:
            features: (N, columns) as `prepare` and `conform` give them, N at least 1.
            schema: the schema that they conform to.

        Raises:
            InputError: no rows, or features that do not conform.
        """
        if not len(features):
            raise InputError("a preprocessor needs rows to learn from, got none")
        inputs = _inputs(features, schema)
        self.schema = schema
        self._transformer = _transformer(schema, self.numeric, len(features)).fit(inputs)
        self.n_features = self._transformer.transform(inputs.iloc[:1]).shape[1]
        return self

    def transform(self, features: pd.DataFrame) -> np.ndarray:
        """(N, `n_features`) float32, C-contiguous and finite, of (N, columns) conformed features.

        Raises:
            InputError: the preprocessor is not fitted, or features that do not conform.
        """
        if self._transformer is None:
            raise InputError("a preprocessor must be fitted before it can transform; call fit or load")
        inputs = _inputs(features, self.schema)
        if not len(inputs):
            return np.empty((0, self.n_features), dtype=np.float32)
        outputs = np.asarray(self._transformer.transform(inputs))
        # A value far outside of what training saw is finite as float64 and infinite as float32.
        return np.ascontiguousarray(np.clip(outputs, -LARGEST_OUTPUT, LARGEST_OUTPUT), dtype=np.float32)

    def fitted(self) -> Mapping[str, Any]:
        """The fitted transformers of scikit-learn, in the order of what they give: `numeric` (imputer and scaler),
        `numeric_missing`, `boolean`, `boolean_missing`, `categorical`; without those that have no columns.

        Raises:
            InputError: the preprocessor is not fitted.
        """
        if self._transformer is None:
            raise InputError("a preprocessor must be fitted before it has transformers; call fit or load")
        return {name: fitted for name, fitted, of in self._transformer.transformers_ if len(of) and name != "remainder"}

    def categories(self) -> dict[str, frozenset[str]]:
        """The categories that training had, of each categorical column; what is missing is none of them.

        Raises:
            InputError: the preprocessor is not fitted.
        """
        if self._transformer is None:
            raise InputError("a preprocessor must be fitted before it knows categories; call fit or load")
        names = [name for name, kind in self.schema.columns.items() if kind == "categorical"]
        known = self._transformer.named_transformers_["categorical"].categories_ if names else []
        return {name: frozenset(values) - {MISSING_CATEGORY} for name, values in zip(names, known, strict=True)}

    def numeric_quantiles(self) -> list[list[float]]:
        """Of each numeric column, which are the first that `transform` gives: quantiles of its training values as
        `transform` gives these, from the lowest to the highest, 1,000 or as many as there were rows.

        Raises:
            InputError: the preprocessor is not fitted, or `numeric` is "standard", which learns no quantiles.
        """
        if self._transformer is None:
            raise InputError("a preprocessor must be fitted before it knows quantiles; call fit or load")
        if self.numeric != "quantile":
            raise InputError(f"only numeric='quantile' learns quantiles, got {self.numeric!r}")
        if "numeric" not in self.schema.columns.values():
            return []
        scale = self._transformer.named_transformers_["numeric"].named_steps["scale"]
        return scale.transform(scale.quantiles_).T.tolist()

    def digest(self) -> str:
        """`sha256:...` of all that `transform` depends on: the columns, their kinds and what was learned from them.

        It is made of values, not of the file that holds them.

        Raises:
            InputError: the preprocessor is not fitted.
        """
        if self._transformer is None:
            raise InputError("a preprocessor must be fitted before it has a digest; call fit or load")
        columns = [[name, kind, name in self.schema.dates] for name, kind in self.schema.columns.items()]
        digest = hashlib.sha256(json.dumps([self.numeric, columns]).encode())
        for name, fitted, of in self._transformer.transformers_:
            for step in getattr(fitted, "steps", [(name, fitted)]) if len(of) else ():
                for learned in _learned(step[1]):
                    digest.update(learned)
        return f"sha256:{digest.hexdigest()}"

    def save(self, path: PathLike) -> None:
        """Writes the fitted preprocessor in the format of skops, which holds no code.

        Raises:
            InputError: the preprocessor is not fitted.
        """
        import skops.io

        if self._transformer is None:
            raise InputError("a preprocessor must be fitted before it can be saved; call fit")
        content = {
            "schema": json.dumps(self.schema.to_json()),
            "numeric": self.numeric,
            "n_features": self.n_features,
            "transformer": self._transformer,
        }
        skops.io.dump(content, Path(path))

    @classmethod
    def load(cls, path: PathLike) -> Preprocessor:
        """What `save` wrote. Nothing in the file is run: it may hold only the types that a preprocessor is made of.

        Raises:
            InputError: no such file, another type in it, or a file of another form.
        """
        import skops.io
        from sklearn.compose import ColumnTransformer

        path = checked_file(path)
        _refuse_foreign_types(path)
        try:
            untrusted = skops.io.get_untrusted_types(file=path)
            content = skops.io.load(path, trusted=[name for name in untrusted if name in _TRUSTED])
            loaded = cls(content["numeric"])
            loaded.schema = TableSchema.from_json(json.loads(content["schema"]))
            loaded.n_features = int(content["n_features"])
            loaded._transformer = content["transformer"]
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            raise InputError(f"{path}: {_UNKNOWN_FORM} ({error})") from error
        if not isinstance(loaded._transformer, ColumnTransformer):
            raise InputError(f"{path}: {_UNKNOWN_FORM}")
        return loaded


def _inputs(features: pd.DataFrame, schema: TableSchema) -> pd.DataFrame:
    """Conformed features for scikit-learn: a category for what is missing, numbers whose squares are finite.

    Raises:
        InputError: columns that are missing or of another type, infinite numbers.
    """
    problems = Problems()
    problems.add(*absent_names(schema.columns, list(features.columns), "column"))
    columns: dict[str, np.ndarray] = {}  # arrays, because a series a column makes wide tables slow
    for name, kind in schema.columns.items():
        if name not in features.columns:
            continue
        column = features[name]
        if kind == "categorical":
            columns[name] = np.where(column.notna(), column.astype(object), MISSING_CATEGORY)
            continue
        sound = column.dtype == np.float64 and not np.isinf(column.to_numpy()).any()
        problems.check(
            sound, f"column {name!r} must hold finite float64, got {column.dtype}; pass the table to conform before"
        )
        if sound:
            columns[name] = np.clip(column.to_numpy(), -LARGEST_INPUT, LARGEST_INPUT)
    problems.raise_if_any()
    return pd.DataFrame(columns, index=features.index)


def _transformer(schema: TableSchema, numeric: str, n: int) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import MissingIndicator, SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, QuantileTransformer, StandardScaler

    of_kind = {kind: [name for name, k in schema.columns.items() if k == kind] for kind in get_args(Kind)}
    # All rows, not a sample of them: the quantiles then need no random numbers, and rare rows are the point.
    quantile = QuantileTransformer(n_quantiles=min(1000, n), output_distribution="normal", subsample=None)
    numbers = Pipeline(
        [
            ("impute", SimpleImputer(strategy="median", keep_empty_features=True)),
            ("scale", quantile if numeric == "quantile" else StandardScaler()),
        ]
    )
    categories = OneHotEncoder(
        handle_unknown="infrequent_if_exist", min_frequency=5, max_categories=64, sparse_output=False, dtype=np.float32
    )
    # An indicator goes beside its imputer, not into it: the numbers after it must not be mapped to quantiles.
    return ColumnTransformer(
        [
            ("numeric", numbers, of_kind["numeric"]),
            ("numeric_missing", MissingIndicator(error_on_new=False), of_kind["numeric"]),
            ("boolean", SimpleImputer(strategy="most_frequent", keep_empty_features=True), of_kind["boolean"]),
            ("boolean_missing", MissingIndicator(error_on_new=False), of_kind["boolean"]),
            ("categorical", categories, of_kind["categorical"]),
        ],
        sparse_threshold=0.0,
    )


_LEARNED = (
    "statistics_", "features_", "quantiles_", "references_", "mean_", "scale_", "categories_", "infrequent_categories_",
)  # fmt: skip


def _learned(transformer: Any) -> Iterator[bytes]:
    """The names and values of what a transformer of scikit-learn has learned."""
    for name in _LEARNED:
        value = getattr(transformer, name, None)
        if isinstance(value, list):  # of the categories of each column
            yield json.dumps([name, [None if part is None else list(part) for part in value]]).encode()
        elif value is not None:
            numbers = np.asarray(value, np.float64)
            yield json.dumps([name, numbers.shape]).encode()
            yield numbers.astype("<f8").tobytes()


def _refuse_foreign_types(path: Path) -> None:
    """Reads which types a skops file names, as JSON and without loading any.

    Raises:
        InputError: the file is not of that format, or names a type that no preprocessor has.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            tree = json.loads(archive.read("schema.json"))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, zlib.error) as error:
        raise InputError(f"{path}: {_UNKNOWN_FORM} ({error})") from error
    foreign = sorted({told for node in _nodes(tree) if (told := _foreign(node))})
    if foreign:
        raise InputError(
            f"{path}: a preprocessor must hold only scikit-learn's transformers and arrays, got {some_of(foreign)}; "
            "do not load files from sources that you do not trust"
        )


def _foreign(node: Mapping[str, Any]) -> str | None:
    if "__class__" not in node and "__loader__" not in node:
        return None
    name, loader = f"{node.get('__module__')}.{node.get('__class__')}", str(node.get("__loader__"))
    if name in _TRUSTED and loader in _TRUSTED_LOADERS:
        return None
    return name if name not in _TRUSTED else f"{name} read by {loader}"


def _nodes(tree: Any) -> Iterator[Mapping[str, Any]]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Mapping):
            yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
