"""`LCTClassifier`: train once, choose later, as a classifier of scikit-learn's.

It is a thin face: tables are prepared as `tunelater.fit` prepares them, training, scoring and choosing are the
library's, and what is saved is a run folder. Its own part is what scikit-learn asks for: parameters, arrays of any
kind, labels of any type, two classes or more.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from lightning_fabric import Fabric
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import assert_all_finite, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from tunelater import recipes
from tunelater.config import (
    TABLE_TRUNKS,
    Config,
    EarlyStoppingConfig,
    FiLMConfig,
    ModelConfig,
    OptimizerConfig,
    parse_distribution,
)
from tunelater.data import tables
from tunelater.data.cells import spelling_of
from tunelater.data.imbalance import split_rows
from tunelater.data.preprocessing import Preprocessor
from tunelater.data.splits import Splits, TensorSplit, class_counts
from tunelater.data.table_form import TableForm
from tunelater.distributions import LambdaSpace
from tunelater.export import Exported, export_model
from tunelater.losses import logit
from tunelater.metrics import Floats
from tunelater.models import build
from tunelater.multiclass import ClassNeed, ClassPoint, select_classes, shares_of
from tunelater.needs import Cost, Need, problems_of_needs, problems_of_prior
from tunelater.points import OperatingPoint
from tunelater.problems import DoubtfulInputWarning, InputError, Problems, did_you_mean
from tunelater.runs import Run, building, output_problems, publish
from tunelater.scoring import check_lambdas, score_classes
from tunelater.training import train
from tunelater.tuning import problems_of_calibrating, problems_of_draws, problems_of_guarantee, select_from
from tunelater.workflow import GRID, joined_by, problems_of, unseen

FORMAT = "tunelater.estimator/1"
CLASS_GRID = 5
"""Values of each hyperparameter that `tune` tries for more than two classes, where each takes a longer search."""
MOST_DENSE_MB = 1024
"""Of a sparse matrix to train on, as dense float64. Its preparation takes nine times as much at the peak."""
PIECE = 64 * 2**20
"""Bytes of dense float64 at a time, in predicting."""
DEVICES = ("auto", "cpu", "cuda", "mps")


class LCTClassifier(ClassifierMixin, BaseEstimator):
    """A neural network for imbalanced classes that is trained over a distribution of loss hyperparameters (lambda).

    `fit` trains one network for all of them; `tune` chooses lambda and the decision rule for a need on validation data,
    as often as needs change; `at` gives the same network at a chosen point. Probabilities are of the posterior, by the
    loss's link, for the prior that one states.

    Inputs are prepared by `fit`: data frames (pandas, polars, or any that gives Arrow) may hold numbers, truth values,
    categories, dates and missing values, and columns that cannot be features (constants, identifiers) are left out
    with a warning. Arrays are numbers, NaN where missing. Preparing takes some 70 bytes a cell at its peak. A SciPy
    sparse matrix is made dense for it, and refused beyond 1 GiB of float64 (2^27 cells; reduce its columns before); in
    predicting it is made dense a piece at a time.

    It is not for `partial_fit`: preprocessing, class frequencies (which the loss and the link of every lambda are made
    of) and early stopping are of the whole training data, and a network that goes on training on new rows alone
    forgets the old ones. What changes after training - costs, priors, limits - is what `tune` is for.

    Args:
        loss: `vs`, `focal`, `weighted_cross_entropy`, `cross_entropy` or `ldam`; of K classes too (VS is Eq. 3).
        lambdas: a `LambdaSpace`, or a dict of distributions (`Linear`, numbers, or text such as `"linear(0, 3, 0.33)"`)
            by hyperparameter; None takes the loss's default.
        trunk: the network: `tabm`, an ensemble with embeddings of numeric columns (where `numeric` is `quantile`), or
            `mlp`, one perceptron, which takes a quarter of the time and is the better choice for hundreds of columns
            (see docs/tables.md).
        width, depth, dropout: of the trunk; None takes its default.
        trunk_options: what else there is to set of it (`config.TabMOptions`, `config.MLPOptions`), such as
            `{"members": 16, "embedding": "periodic"}`.
        head: `linear`, or `cosine`, which `ldam` is made for (with trunk `mlp`).
        film: where lambda enters: on the pooled `features`, after the trunk's `stages`, on the `logits`, or None.
        numeric: how numbers are scaled, `quantile` or `standard`.
        epochs, batch_size, learning_rate, weight_decay: None takes `Config`'s default.
        early_stopping: hold rows back to keep the best epoch's weights and to stop. Where a class has a single row,
            nothing is held back, with a warning.
        validation_fraction: the share of the rows of each class that is held back, in (0, 1).
        patience: stop after so many epochs without a lower validation log-loss; None takes `Config`'s default.
        prior: the share of positives where the model is used, or of each of K classes (by label, or in the order of
            `classes_`); None is that of the training data.
        pos_label: of two classes the one that is positive, in `tune` and for the focal loss's alpha; None is
            `classes_[1]`.
        random_state: the seed: equal seeds give equal models on the same machine with the same number of threads,
            whatever the global random state (PyTorch adds in another order on other machines or with more threads, and
            dropout in several threads of one process draws from one generator). None draws one from NumPy's.
        device: `auto` (the GPU where there is one), `cpu`, `cuda` or `mps`.
        verbose: 1 prints a line an epoch.

    Attributes:
        classes_: (K,) the labels, sorted.
        n_features_in_: columns of the training data.
        feature_names_in_: (n_features_in_,) their names, where all are text.
        lam_: the default lambda, the median of the distribution.
        point_: the operating point that predictions are made at; None where `tune` has not chosen one.
        n_iter_: epochs trained.
        best_epoch_: the epoch that the weights are of, from 1.
        history_: one dict an epoch.
        run_: the trained model as the rest of the library knows it.

    Raises (in `fit`):
        InputError: everything wrong with parameters and data.
    """

    _array: bool
    """Whether it was fitted on an array."""
    _columns: list[str]

    def __init__(
        self,
        loss: str = "vs",
        lambdas: LambdaSpace | Mapping[str, Any] | None = None,
        *,
        trunk: str = "tabm",
        width: int | None = None,
        depth: int | None = None,
        dropout: float | None = None,
        trunk_options: Mapping[str, Any] | None = None,
        head: str = "linear",
        film: str | None = "features",
        numeric: str = "quantile",
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        early_stopping: bool = True,
        validation_fraction: float = 0.2,
        patience: int | None = None,
        prior: Any = None,
        pos_label: Any = None,
        random_state: Any = None,
        device: str = "auto",
        verbose: int = 0,
    ) -> None:
        self.loss = loss
        self.lambdas = lambdas
        self.trunk = trunk
        self.width = width
        self.depth = depth
        self.dropout = dropout
        self.trunk_options = trunk_options
        self.head = head
        self.film = film
        self.numeric = numeric
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.prior = prior
        self.pos_label = pos_label
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = True
        return tags

    # ---------------------------------------------------------------------------------------------------------- fit

    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> Self:
        """Train the network; a former operating point is forgotten.

        Args:
            X: (N, columns) data frame, array or sparse matrix.
            y: (N,) labels of two classes or more, of one type.
            sample_weight: (N,) 0 or more; rows of weight 0 are left out.

        Raises:
            InputError: everything wrong with parameters and data.
            TrainingDiverged: the loss turned non-finite; the message says what to change.
        """
        before = dict(self.__dict__)
        try:
            self._fit(X, y, sample_weight)
        except BaseException:  # also where it is stopped: what was fitted before stays whole
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
        return self

    def _fit(self, X: Any, y: Any, sample_weight: ArrayLike | None) -> None:
        problems = Problems()
        config = self._config(problems)
        try:
            frame, codes, weight = self._training_data(X, y, sample_weight, problems)
        except (ValueError, TypeError) as error:
            if problems:  # scikit-learn's checks stop at the first
                raise InputError([*problems, *getattr(error, "problems", [str(error)])]) from error
            raise
        problems.raise_if_any()
        assert config is not None
        self._learn(config, frame, codes, weight, str(getattr(y, "name", None) or "target"))

    def _config(self, problems: Problems) -> Config | None:
        """What the parameters say about the training; None where they say nothing that works."""
        before = len([*problems])
        space: LambdaSpace | None = None
        with problems_of(problems):
            space = _space(self.lambdas)
        held = self.validation_fraction
        sound = isinstance(held, float | int | np.number) and not isinstance(held, bool) and 0 < held < 1
        problems.check(sound, f"validation_fraction lies in (0, 1), got {held!r}")
        sound = isinstance(self.early_stopping, bool | np.bool_)
        problems.check(sound, f"early_stopping is True or False, got {self.early_stopping!r}")
        problems.check(self.device in DEVICES, f"device is one of {', '.join(DEVICES)}, got {self.device!r}")
        gone = (self.device == "cuda" and not torch.cuda.is_available()) or (
            self.device == "mps" and not torch.backends.mps.is_available()
        )
        problems.check(not gone, f"PyTorch can use no device {self.device!r} here; use 'auto'")
        numerics = ("quantile", "standard")
        problems.check(self.numeric in numerics, f"numeric is one of {', '.join(numerics)}, got {self.numeric!r}")
        known = self.trunk in TABLE_TRUNKS
        hint = did_you_mean(str(self.trunk), TABLE_TRUNKS)
        problems.check(known, f"trunk is {' or '.join(TABLE_TRUNKS)}, got {self.trunk!r}{hint}")
        trunk = self.trunk if known else "mlp"
        more = self.trunk_options
        sound = more is None or isinstance(more, Mapping)
        problems.check(sound, f"trunk_options is a dict of values by name, or None, got {more!r}")
        of_trunk: dict[str, Any] = dict(recipes.tables(trunk).model.options) if self.numeric == "quantile" else {}
        of_trunk |= more if more is not None and sound and known else {}
        of_trunk |= _given({"width": self.width, "depth": self.depth, "dropout": self.dropout})
        optimizer = {"learning_rate": self.learning_rate, "weight_decay": self.weight_decay}
        rest = {"lambdas": space, "epochs": self.epochs, "batch_size": self.batch_size, "seed": self._seed(problems)}
        with problems_of(problems):
            config = Config(
                loss=self.loss,
                model=ModelConfig(trunk, of_trunk, self.head),  # type: ignore[arg-type]
                film=None if self.film is None else FiLMConfig(placement=self.film),  # type: ignore[arg-type]
                optimizer=OptimizerConfig(**_given(optimizer)),
                early_stopping=EarlyStoppingConfig(**_given({"patience": self.patience})),
                **_given(rest),
            )
            if len([*problems]) == before:
                return config if self.early_stopping else dataclasses.replace(config, early_stopping=None)
        return None

    def _seed(self, problems: Problems) -> int:
        if isinstance(self.random_state, int | np.integer) and not isinstance(self.random_state, bool):
            return int(self.random_state)
        try:
            return int(check_random_state(self.random_state).randint(2**31 - 1))
        except ValueError as error:
            problems.add(str(error))
            return 0

    def _training_data(
        self, X: Any, y: Any, sample_weight: ArrayLike | None, problems: Problems
    ) -> tuple[pd.DataFrame, NDArray[np.int64], Floats | None]:
        """The rows with weight, their codes and weights; sets what is known of columns and classes."""
        frame = self._checked(X, reset=True, problems=problems)
        y = _checked_labels(self, y)
        if len(y) != len(frame):
            raise InputError(f"each row needs a label, got {len(frame)} rows and {len(y)} labels")
        weight = _weights(sample_weight, frame)
        if weight is not None and (keep := weight > 0).any():
            frame, y, weight = frame[keep], y[keep], weight[keep]
        self.classes_, codes = np.unique(y, return_inverse=True)
        k = len(self.classes_)
        problems.check(k > 1, f"y needs rows of two classes or more (with weight), got 1 class: {self.classes_[:1]}")
        self._order = np.arange(k)
        if self.pos_label is not None:
            there = np.ndim(self.pos_label) == 0 and self.pos_label in self.classes_.tolist()
            problems.check(k == 2 and there, f"pos_label is one of two classes, got {self.pos_label!r} of {self._told}")
            if k == 2 and there and self.classes_[0] == self.pos_label:
                self._order = np.array([1, 0])
        if k > 1:
            self._shares(self.prior, problems)
        return frame, self._order[codes], weight

    def _learn(
        self, config: Config, frame: pd.DataFrame, codes: NDArray[np.int64], weight: Floats | None, target: str
    ) -> None:
        k = len(self.classes_)
        features, schema = self._schema(frame)
        names = [_spelled(label) for label in self.classes_[self._order].tolist()]
        schema = dataclasses.replace(schema, target=target, positive=names[-1], negative=" or ".join(names[:-1]))
        held = min(np.bincount(codes)) > 1
        if config.early_stopping is not None and not held:
            config = dataclasses.replace(config, early_stopping=None)
            warnings.warn(
                "a class has a single row, so that none is held back to stop early on: trained for all epochs",
                DoubtfulInputWarning,
                stacklevel=4,
            )
        share = self.validation_fraction if config.early_stopping is not None else 0.0
        rows = split_rows(codes, (1 - share, share, 0.0), seed=config.seed)
        form = TableForm(
            schema,
            Preprocessor(self.numeric).fit(features.iloc[rows["train"]], schema),  # type: ignore[arg-type]
            (*map(str, frame.columns), target),
        )
        samples = form.split(features, codes, weight)
        training = samples.take(torch.from_numpy(rows["train"]))
        held_back = samples.take(torch.from_numpy(rows["validation"])) if share else training
        config = config.for_samples(len(training))
        fabric = None
        if self.device != "auto":
            fabric = Fabric(accelerator=self.device, devices=1, precision=config.precision)
        trained = train(
            config,
            Splits(training, held_back),
            build(config, n_classes=k, **form.shape),
            fabric=fabric,
            on_epoch=_print if self.verbose else None,
        )
        hashes = form.hashes(features)
        facts = {
            "fingerprint": tables.fingerprint(frame.assign(**{target: np.asarray(self.classes_)[self._order[codes]]})),
            "labels": None,
            "rows": len(codes),
            "positives": int((codes == 1).sum()),
            "splits": {n: {"rows": len(i), "positives": int((codes[i] == 1).sum())} for n, i in rows.items()},
            "class_counts": class_counts(training, k),
            "classes": self._names,
            "array": self._array,
        }
        of_split = {name: hashes[index] for name, index in rows.items()}
        self.run_ = Run(trained.config, trained.model, form, facts, rows, of_split)
        self.lam_ = dict(config.lambdas.median)
        self.history_, self.n_iter_, self.best_epoch_ = trained.history, len(trained.history), trained.best_epoch
        self.point_: OperatingPoint | ClassPoint | None = None

    # ------------------------------------------------------------------------------------------------------ predict

    def decision_function(self, X: Any, lam: Mapping[str, float] | None = None) -> Floats:
        """What `predict` decides on: of two classes (N,), positive for `classes_[1]`; of K (N, K), the largest wins.

        They are log-odds (log posteriors) at `prior`, less the threshold (plus the offsets) where there is a point.

        Args:
            lam: another lambda by name, at which it is log-odds (log posteriors) at `prior` alone.
        """
        check_is_fitted(self)
        point = self.point_ if lam is None else None
        if isinstance(point, ClassPoint):
            return point.scores(self._log_posterior(X, point.lam, [*point.prior.values()]))
        if isinstance(point, OperatingPoint):
            log_odds = point.log_odds(self._log_odds(X, point.lam), self.run_.family.prior)
            return self._turned(log_odds - point.log_odds_threshold)
        log_posterior = self._log_posterior(X, self._lambda(lam), self._shares(self.prior))
        if len(self.classes_) > 2:
            return log_posterior
        return self._turned(log_posterior[:, 1] - log_posterior[:, 0])

    def predict_proba(
        self, X: Any, lam: Mapping[str, float] | None = None, prior: float | Mapping[Any, float] | None = None
    ) -> Floats:
        """(N, K) posterior probabilities in the order of `classes_`, by the loss's link.

        Args:
            lam: another lambda than that of the point (or the default one).
            prior: of the positive class, or of each of K, where the cases come from; by default the point's, or the
                parameter `prior`, or that of the training data. The probabilities of a calibrated point are calibrated,
                at its own lambda.
        """
        check_is_fitted(self)
        problems = Problems()
        shares = self._shares(prior, problems)
        problems.raise_if_any()
        point = self.point_
        if isinstance(point, OperatingPoint) and lam is None:
            log_odds = point.calibrated_log_odds(self._log_odds(X, point.lam), self.run_.family.prior)
            if shares is not None:
                log_odds = log_odds + (logit(shares[1]) - logit(point.prior))
            p = np.stack([expit(-log_odds), expit(log_odds)], axis=1)
            return p[:, self._order]
        if shares is None:
            shares = self._shares(self.prior) if point is None else _shares_of(point)
        where = self._lambda(lam) if point is None or lam is not None else point.lam
        return np.exp(self._log_posterior(X, where, shares))[:, self._order]

    def predict(self, X: Any) -> NDArray[Any]:
        """(N,) labels: those that the point decides, or of the largest posterior at `prior`."""
        scores = self.decision_function(X)
        if isinstance(self.point_, OperatingPoint):
            positive = self._order[1] == 1
            return self.classes_[(scores >= 0 if positive else scores > 0).astype(int)]
        return self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else np.argmax(scores, axis=1)]

    # --------------------------------------------------------------------------------------------------------- tune

    def tune(
        self,
        X_val: Any,
        y_val: Any,
        *,
        sample_weight: ArrayLike | None = None,
        maximize: str | None = None,
        minimize: str | None = None,
        cost: Any = None,
        subject_to: str | Sequence[str] = (),
        prior: Any = None,
        simplest: bool = True,
        grid: int | Mapping[str, int | Sequence[float]] | None = None,
        bootstrap: int | None = None,
        guarantee: float | None = None,
        calibrate: str | None = None,
    ) -> OperatingPoint | ClassPoint:
        """Choose lambda and the decision rule for a need, on labelled rows that the model was not trained on.

        Predictions are then made at the point, which is returned and kept as `point_`. Rows that equal training rows
        are left out, with a warning. (With a guarantee, so are those that it stopped early on.)

        Args:
            X_val, y_val: as for `fit`, with labels that it knows.
            sample_weight: (N,) 0 or more.
            maximize, minimize, subject_to: of two classes as for `tunelater.tune`; columns of subgroups and costs are
                those of a data frame. Of K classes as for `tunelater.multiclass.select_classes`: `macro_f1`,
                `balanced_accuracy`, `recall[label]>=0.8`, `recall>=0.8 in every class`.
            cost: `{"fn": 50, "fp": 1}`, or a K x K matrix in the order of `classes_`: rows the true class, columns the
                decision.
            prior: where the model will be used, as the parameter `prior`; of two classes also a range. By default the
                parameter's, or the rows' own.
            simplest: of the lambdas within one standard error of the best, take the one nearest to the default.
            grid: how many values of each hyperparameter to try, or which (`LambdaSpace.grid`); by default 9, and 5 of
                more than two classes.
            bootstrap, guarantee, calibrate: as for `tunelater.tune`; of two classes alone.

        Raises:
            InputError: everything wrong with the need and the data.
            Infeasible: nothing meets the constraints; the message says what is attainable.
            Uncertified: the rows cannot certify the constraints; the message says how many could.
        """
        check_is_fitted(self)
        k, problems = len(self.classes_), Problems()
        prior = self.prior if prior is None else prior
        need: dict[str, Any] = {"maximize": maximize, "minimize": minimize, "cost": cost, "subject_to": subject_to}
        if k == 2:
            need["cost"] = self._cost(cost, problems)
            problems.add(*problems_of_needs(**need, prior=prior), *problems_of_draws(bootstrap=bootstrap))
            problems.add(*problems_of_calibrating(calibrate, guarantee))
        else:
            with problems_of(problems):
                ClassNeed.of(self._names, **need, prior=prior)
            for name, value in {"bootstrap": bootstrap, "guarantee": guarantee, "calibrate": calibrate}.items():
                problems.check(value is None, f"{name} is of two classes alone, got {value!r} with {k}; leave it out")
        lambdas: Any = {}
        space = self.run_.config.lambdas
        with problems_of(problems):
            points = (GRID if k == 2 else CLASS_GRID) if grid is None else grid
            lambdas = space.grid(points)
            lambdas = lambdas if isinstance(points, Mapping) else joined_by(lambdas, space.median)
        columns = Need.columns_named(cost, subject_to) if k == 2 else ()
        apart = ("train", "validation") if guarantee is not None else ("train",)
        samples, named = self._labelled(X_val, y_val, sample_weight, apart, columns, problems)
        default = space.median
        if k > 2:
            with self.run_.on_device(self.device) as model:
                scores = score_classes(model, samples, lambdas, self.run_.family, model_id=self.run_.id)
            outside = np.array([not space.contains({n: v[i] for n, v in lambdas.items()}) for i in range(len(scores))])
            scores = dataclasses.replace(scores, split="given", extrapolated=outside)
            self.point_ = select_classes(scores, self._names, **need, prior=prior, default=default, simplest=simplest)
            return self.point_
        if self.pos_label is None and 2 * self.run_.data["positives"] > self.run_.data["rows"]:
            rare, frequent = map(repr, self.classes_.tolist())
            warnings.warn(
                f"the positive class, {frequent}, is the more frequent one; if the rare event is {rare}, say so: "
                f"pos_label={rare}",
                DoubtfulInputWarning,
                stacklevel=2,
            )
        wanted = Need.of(**need, prior=prior)
        weight = None if samples.weight is None else samples.weight.numpy()
        wrong = wanted.problems_with(named, samples.target.numpy(), weight, "choosing")
        wrong += problems_of_guarantee(guarantee, wanted, samples.target.numpy(), weight, lambdas, 1024)
        if wrong:
            raise InputError(wrong)
        self.point_ = select_from(
            lambda part: dataclasses.replace(
                self.run_.score(samples, part, split="given", device=self.device), columns=named
            ),
            lambdas,
            len(samples),
            prior=prior,
            default=default,
            simplest=simplest,
            bootstrap=bootstrap,
            guarantee=guarantee,
            calibrate=calibrate,
            **need,
        )
        return self.point_

    def at(self, point: OperatingPoint | ClassPoint | str | Path | None) -> Self:
        """The same model at another operating point: a copy that shares the network.

        Args:
            point: what `tune` returned, or its file; None for no point.

        Raises:
            InputError: a point of another model, or none at all.
        """
        check_is_fitted(self)
        kind = OperatingPoint if len(self.classes_) == 2 else ClassPoint
        if isinstance(point, str | Path):
            point = kind.load(point)
        if point is not None:
            if not isinstance(point, kind):
                raise InputError(
                    f"a point of {len(self.classes_)} classes is an {kind.__name__} of `tune`, or its file; "
                    f"got {type(point).__name__}"
                )
            if point.model != self.run_.id:
                raise InputError(
                    f"the operating point belongs to model {point.model or '(unknown)'}, this is model {self.run_.id}: "
                    "tune this one"
                )
            check_lambdas(point.lam, self.run_.family)
        other = copy.copy(self)
        other.point_ = point
        return other

    # ---------------------------------------------------------------------------------------------------- save, load

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the fitted model as a run folder, without code (unlike a pickle); `load` reads it.

        Of two classes, trained on a data frame, the command line reads it too.

        Args:
            path: the folder to make.
            force: replace an older run there.

        Raises:
            InputError: a folder that cannot be made, or labels that are not numbers, text or truth values.
        """
        check_is_fitted(self)
        problems = Problems()
        problems.add(*output_problems(path, force=force, folder=True))
        labels = self.classes_.tolist()
        plain = all(isinstance(label, bool | int | float | str) for label in labels)
        problems.check(plain, f"labels that can be saved are numbers, text or truth values, got {self._told}")
        problems.raise_if_any()
        params = self.get_params(deep=False)
        shares = self._shares(self.prior)
        params["lambdas"] = None if self.lambdas is None else "config.toml"
        params["prior"] = None if shares is None else shares[1] if len(labels) == 2 else shares
        params["pos_label"] = None if self.pos_label is None else int(self._order[1])
        params["random_state"] = self.run_.config.seed if self.random_state is not None else None
        told = {
            "format": FORMAT,
            "params": {name: _plain(value) for name, value in params.items()},
            "classes": labels,
            "classes_dtype": self.classes_.dtype.str,
            "order": self._order.tolist(),
            "columns": self._columns,
            "array": self._array,
            "n_features_in": self.n_features_in_,
            "feature_names_in": self.feature_names_in_.tolist() if hasattr(self, "feature_names_in_") else None,
            "history": self.history_,
            "best_epoch": self.best_epoch_,
            "point": None if self.point_ is None else json.loads(self.point_.to_json()),
        }
        with building(Path(path), f"{FORMAT}\n{self.run_.id}", by="save", resumable=False) as folder:
            (folder / "estimator.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
            self.run_.save(folder)
            publish(folder, Path(path))

    @staticmethod
    def is_saved(path: str | Path) -> bool:
        """Whether a folder is one that `save` wrote."""
        return (Path(path) / "estimator.json").is_file()

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote. Nothing in it is executed.

        Raises:
            InputError: no such folder, one that is damaged, or a run of `tunelater fit`.
        """
        run, file = Run.load(path), Path(path) / "estimator.json"
        if not cls.is_saved(path):
            raise InputError(f"run folder {path} was not written by LCTClassifier.save: use tunelater.Run.load")
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
            if told["format"] != FORMAT:
                raise InputError(f"{file} has the format {told['format']!r}, this version reads {FORMAT!r}")
            params = told["params"]
            classes = np.array(told["classes"], dtype=told["classes_dtype"])
            if params["lambdas"] is not None:
                params["lambdas"] = run.config.lambdas
            if params["pos_label"] is not None:
                params["pos_label"] = classes[params["pos_label"]]
            made = cls(**params)
            made.run_, made.classes_, made._order = run, classes, np.array(told["order"])
            made._columns, made._array, made.n_features_in_ = told["columns"], told["array"], told["n_features_in"]
            if told["feature_names_in"] is not None:
                made.feature_names_in_ = np.array(told["feature_names_in"], object)
            made.history_, made.best_epoch_ = told["history"], told["best_epoch"]
            made.n_iter_, made.lam_ = len(made.history_), dict(run.config.lambdas.median)
            kind = OperatingPoint if len(classes) == 2 else ClassPoint
            made.point_ = None if told["point"] is None else kind.from_json(json.dumps(told["point"]))
        except InputError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{file} is damaged: {type(error).__name__}: {error}") from error
        return made

    def export(
        self,
        out: str | Path,
        *,
        at: Sequence[OperatingPoint | ClassPoint | str | Path] | OperatingPoint | ClassPoint | str | Path | None = None,
        half: bool = False,
        format: str | None = None,
        force: bool = False,
    ) -> Exported:
        """Write the fitted model as one file for other programs, as `tunelater.export.export_model` does of a run.

        Inputs are the columns of the data frame that it was fitted on, or the array as `X`; lambda; and `prior`, the
        share of the positive class, or of each of K in the order of `classes_`. Outputs of two classes are the log
        posterior odds and the probability of the positive one, of K the log posteriors and probabilities, (N, K).

        Args:
            out: ends in .onnx (extra `onnx`) or .pt2.
            at: points that go along; by default the one that predictions are made at.
            half, format, force: as for `export_model`.

        Raises:
            InputError: everything wrong with the arguments; nothing is then written.
        """
        check_is_fitted(self)
        if at is None:
            at = () if self.point_ is None else self.point_
        return export_model(self.run_, out, at=at, half=half, format=format, force=force)

    # --------------------------------------------------------------------------------------------------------- inputs

    def _checked(self, X: Any, *, reset: bool, problems: Problems | None = None) -> pd.DataFrame:
        """The columns of training or later data as a data frame, checked by scikit-learn's rules."""
        frame = _as_frame(X)
        if not reset and self._array and frame is not None:
            X, frame = frame, None  # of numbers, as the array was that it was trained on
        if frame is not None:
            validate_data(self, frame, reset=reset, skip_check_array=True)
            if reset:
                self._array, self._columns = False, [str(name) for name in frame.columns]
            return frame.set_axis(self._columns, axis=1)
        finite: Any = "allow-nan"
        keeps = {"dtype": np.float64} if reset or self._array else {"dtype": None}
        values = validate_data(self, X, reset=reset, accept_sparse="csr", ensure_all_finite=finite, **keeps)
        if reset:
            self._array, self._columns = True, [f"x{i}" for i in range(values.shape[1])]
        if sparse.issparse(values):
            needed = 8 * values.shape[0] * values.shape[1] / 2**20
            if reset and needed > MOST_DENSE_MB:
                raise InputError(
                    f"a sparse matrix is made dense to train on, up to {MOST_DENSE_MB:,} MiB; {values.shape} takes "
                    f"{needed:,.0f}: reduce its columns (TruncatedSVD, feature selection), or train on fewer rows"
                )
            values = values.toarray()
        return pd.DataFrame(values, columns=self._columns)

    def _schema(self, frame: pd.DataFrame) -> tuple[pd.DataFrame, tables.TableSchema]:
        """Conformed features of the training rows, and their schema; columns of arrays that do not vary are left out.

        Raises:
            InputError: no column can be a feature.
        """
        if not self._array:
            return tables.prepare_features(frame)
        values = frame.to_numpy()
        low, high = np.fmin.reduce(values, axis=0), np.fmax.reduce(values, axis=0)
        varies = (low < high) | (np.isnan(values).any(axis=0) & ~np.isnan(low))
        used = [name for name, so in zip(self._columns, varies, strict=True) if so]
        if not used:
            raise InputError(f"X needs a column that varies, got {len(self._columns)} that do not")
        return frame[used], tables.TableSchema(dict.fromkeys(used, "numeric"), "", "", "")

    def _features(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Conformed features of later rows."""
        schema = self.run_.form.schema  # type: ignore[attr-defined]
        return frame[[*schema.columns]] if self._array else tables.conform(frame, schema)

    def _pieces(self, X: Any) -> Iterator[NDArray[np.float32]]:
        """Preprocessed rows, a piece at a time."""
        size = max(1, PIECE // (8 * max(1, self.n_features_in_)))
        if sparse.issparse(X):
            X = validate_data(self, X, reset=False, accept_sparse="csr", ensure_all_finite="allow-nan")
            for i in range(0, X.shape[0], size):
                part = self._features(self._checked(X[i : i + size], reset=False))
                yield self.run_.form.preprocessor.transform(part)  # type: ignore[attr-defined]
            return
        features = self._features(self._checked(X, reset=False))
        for i in range(0, len(features), size):
            yield self.run_.form.preprocessor.transform(features.iloc[i : i + size])  # type: ignore[attr-defined]

    def _log_posterior(self, X: Any, lam: Mapping[str, float], shares: Sequence[float] | None) -> Floats:
        """(N, K) in the network's order of classes, where these have such shares (None: the training data's).

        In float64: a float32 product of matrices gives a row another last digit beside other rows, and no row's
        prediction should depend on its neighbours.
        """
        model, family = copy.deepcopy(self.run_.model).cpu().double().eval(), self.run_.family
        lam = {name: float(value) for name, value in lam.items()}
        out = []
        with torch.inference_mode():
            for piece in self._pieces(X):
                logits = model(torch.from_numpy(piece).double(), lam)
                out.append(family.log_posterior(logits, shares, **lam).numpy())
        return np.concatenate(out) if out else np.empty((0, len(self.classes_)))

    def _log_odds(self, X: Any, lam: Mapping[str, float]) -> Floats:
        """(N,) of the positive class, at the prior of the training data."""
        log_posterior = self._log_posterior(X, lam, None)
        return log_posterior[:, 1] - log_posterior[:, 0]

    def _labelled(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None,
        apart: Sequence[str],
        columns: Sequence[str],
        problems: Problems,
    ) -> tuple[TensorSplit, dict[str, NDArray[Any]]]:
        """Labelled rows that equal none of some splits, and columns of theirs; raises all problems."""
        try:
            frame = self._checked(X, reset=False)
            y = _checked_labels(self, y)
            if len(y) != len(frame):
                raise InputError(f"each row needs a label, got {len(frame)} rows and {len(y)} labels")
            weight = _weights(sample_weight, frame)
            features, codes = self._features(frame), self._codes(y)
            named = {}
            if columns:
                table = _as_frame(X)
                if table is None:
                    raise InputError(f"{', '.join(columns)} are columns of a data frame, got an array; pass a frame")
                named = tables.named_columns(table, columns)
        except (ValueError, TypeError) as error:
            if problems:
                raise InputError([*problems, *getattr(error, "problems", [str(error)])]) from error
            raise
        problems.raise_if_any()
        form = self.run_.form
        assert isinstance(form, TableForm)
        kept, told = unseen(self.run_, form.hashes(features), apart)
        if told:
            warnings.warn(f"{told}; they are left out, because they would flatter the model", DoubtfulInputWarning, 3)
        kept &= True if weight is None else weight > 0
        lacking = [str(label) for i, label in enumerate(self.classes_) if not (codes[kept] == self._order[i]).any()]
        if lacking:
            raise InputError(
                f"choosing needs rows of every class that the model was not trained on, got none of "
                f"{', '.join(lacking)}" + (f" ({told}; they are left out)" if told else "")
            )
        index = np.flatnonzero(kept)
        samples = form.split(features.iloc[index], codes[index], None if weight is None else weight[index])
        return samples, {name: values[index] for name, values in named.items()}

    # --------------------------------------------------------------------------------------------------------- pieces

    @property
    def _told(self) -> str:
        return ", ".join(map(repr, self.classes_.tolist()[:10]))

    @property
    def _names(self) -> list[str]:
        """What classes are called in needs and points, in the network's order."""
        return [str(label) for label in self.classes_[self._order].tolist()]

    def _codes(self, y: NDArray[Any]) -> NDArray[np.int64]:
        """(N,) the network's indices of known labels."""
        known = {label: i for i, label in enumerate(self.classes_.tolist())}
        values = y.tolist()
        if unknown := [label for label in dict.fromkeys(values) if label not in known]:
            told = ", ".join(map(repr, unknown[:5]))
            raise InputError(f"labels are {self._told}, got {told}{did_you_mean(str(unknown[0]), map(str, known))}")
        return self._order[np.array([known[label] for label in values], np.int64)]

    def _turned(self, log_odds: Floats) -> Floats:
        """Log-odds of the positive class as those of `classes_[1]`."""
        return log_odds if self._order[1] == 1 else -log_odds

    def _lambda(self, lam: Mapping[str, float] | None) -> Mapping[str, float]:
        if lam is None:
            return self.lam_
        sound = isinstance(lam, Mapping) and all(
            isinstance(v, int | float | np.number) and not isinstance(v, bool) for v in lam.values()
        )
        if not sound:
            raise InputError(f"lam is a value of each hyperparameter by name, such as {self.lam_}, got {lam!r}")
        check_lambdas(lam, self.run_.family)
        if not self.run_.config.lambdas.contains(lam):
            told = ", ".join(f"{name} {value:g}" for name, value in lam.items())
            warnings.warn(
                f"the network was not trained at {told}: what it says there is extrapolated", DoubtfulInputWarning, 3
            )
        return lam

    def _shares(self, prior: Any, problems: Problems | None = None) -> list[float] | None:
        """The share of each class, in the network's order, of a prior as users state it."""
        if problems is None:  # of a parameter that may have been set after `fit`
            found = Problems()
            shares = self._shares(prior, found)
            found.raise_if_any()
            return shares
        if prior is None:
            return None
        if len(self.classes_) > 2:
            of_each = shares_of(prior, self._names, problems)
            return None if of_each is None else [*of_each]
        wrong = (
            problems_of_prior(prior)
            if not isinstance(prior, Sequence | np.ndarray)
            else [f"the prior of two classes is the share of positives, in (0, 1), got {prior!r}"]
        )
        problems.add(*wrong)
        return None if wrong else [1 - float(prior), float(prior)]

    def _cost(self, cost: Any, problems: Problems) -> Any:
        """Costs of two classes, of a 2 x 2 matrix as by outcome."""
        if cost is None or isinstance(cost, Cost | Mapping):
            return cost
        try:
            (tn, fp), (fn, tp) = np.asarray(cost, np.float64).tolist()
            (tn, fp), (fn, tp) = np.array([[tn, fp], [fn, tp]])[np.ix_(self._order, self._order)].tolist()
        except (TypeError, ValueError):
            problems.add(f"costs are like {{'fn': 50, 'fp': 1}}, or a 2 x 2 matrix, got {cost!r}")
            return {"fn": 1, "fp": 1}
        return {"fn": fn, "fp": fp, "tp": tp, "tn": tn}


def _as_frame(X: Any) -> pd.DataFrame | None:
    """A data frame as pandas'; None of anything else."""
    if isinstance(X, pd.DataFrame):
        return X
    if hasattr(X, "__arrow_c_stream__") and hasattr(X, "columns"):  # polars, Arrow's tables, DuckDB's results
        return pa.table(X).to_pandas()
    return None


def _checked_labels(estimator: Any, y: Any) -> NDArray[Any]:
    """(N,) labels, by scikit-learn's rules.

    Raises:
        ValueError: labels that are missing, continuous, or not one a row.
    """
    if hasattr(y, "__arrow_c_stream__") and not isinstance(y, pd.Series | pd.DataFrame):
        y = pa.chunked_array(y).to_pandas()
    if y is None:
        raise ValueError(f"{type(estimator).__name__} requires y to be passed, but the target y is None")
    labels = column_or_1d(y, warn=True)
    assert_all_finite(labels, input_name="y")
    if labels.dtype == object and (gone := int(pd.isna(labels).sum())):
        raise InputError(f"y must not have missing labels, got {gone}; label or remove these rows")
    check_classification_targets(labels)
    return labels


def _weights(sample_weight: ArrayLike | None, frame: pd.DataFrame) -> Floats | None:
    if sample_weight is None:
        return None
    return _check_sample_weight(sample_weight, frame.to_numpy()[:, :0], dtype=np.float64, ensure_non_negative=True)


def _space(lambdas: Any) -> LambdaSpace | None:
    """What a user says of lambda, as a space.

    Raises:
        InputError: what is no distribution.
    """
    if lambdas is None or isinstance(lambdas, LambdaSpace):
        return lambdas
    if not isinstance(lambdas, Mapping):
        raise InputError(f"lambdas is a LambdaSpace or a dict of distributions by name, got {lambdas!r}")
    if unnamed := [name for name in lambdas if not isinstance(name, str)]:
        raise InputError(f"lambdas has distributions by the names of hyperparameters, got the key {unnamed[0]!r}")
    return LambdaSpace(**{n: parse_distribution(d) if isinstance(d, str) else d for n, d in lambdas.items()})


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _shares_of(point: OperatingPoint | ClassPoint) -> list[float]:
    """Of the classes where the point is used, in the network's order."""
    return [*point.prior.values()] if isinstance(point, ClassPoint) else [1 - point.prior, point.prior]


def _plain(value: Any) -> Any:
    """A parameter as JSON has it."""
    if isinstance(value, Mapping):
        return {name: _plain(v) for name, v in value.items()}
    return value.item() if isinstance(value, np.generic) else value


def _spelled(label: Any) -> str:
    return spelling_of(label) if isinstance(label, bool | int | float | str) else str(label)


def _print(row: Mapping[str, float]) -> None:
    print("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
