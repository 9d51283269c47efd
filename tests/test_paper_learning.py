"""What the study measures of a model's scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from paper import data, learning
from paper.learning import Candidates, measure, worth_keeping
from paper.methods import METHODS, Length, Trial
from tunelater.problems import InputError


def candidates(n_lambdas: int = 3, n: int = 150, *, spread: float = 2.0, seed: int = 0) -> Candidates:
    rng = np.random.default_rng(seed)
    target = {split: (rng.random(n) < 0.2).astype(np.int8) for split in learning.SPLITS}
    logits = {
        split: (spread * (rng.normal(size=(n_lambdas, n)) + 1.5 * y - 1)).astype(np.float32)
        for split, y in target.items()
    }
    posterior = {split: 0.5 * values - 1 for split, values in logits.items()}
    return Candidates({"tau": np.arange(n_lambdas, dtype=float)}, target, logits, posterior)


def test_metrics_are_scikit_learns() -> None:
    found = candidates()
    values = measure(found)["test"]
    y = found.target["test"]
    for i in range(3):
        z, linked = found.logits["test"][i], found.posterior["test"][i]
        assert values["logits"]["auc"][i] == pytest.approx(reference.roc_auc_score(y, z), abs=1e-6)
        assert values["logits"]["average_precision"][i] == pytest.approx(
            reference.average_precision_score(y, z), abs=1e-6
        )
        for kind, scores in (("logits", z), ("posterior", linked)):
            p = 1 / (1 + np.exp(-scores.astype(np.float64)))
            assert values[kind]["brier"][i] == pytest.approx(reference.brier_score_loss(y, p), abs=1e-6)
        precision, recall, _ = reference.precision_recall_curve(y, z)
        assert values["logits"]["precision@recall>=0.99"][i] == pytest.approx(precision[recall >= 0.99].max(), abs=1e-6)


def test_a_float32_softmax_ties_what_the_logits_tell_apart() -> None:
    found = candidates(spread=20)
    values, y = measure(found)["test"], found.target["test"]
    for i in range(3):
        softmax = torch.stack([torch.zeros(150), torch.from_numpy(found.logits["test"][i])]).softmax(0)[1].numpy()
        assert len(np.unique(softmax)) < 150
        assert values["softmax"]["auc"][i] == pytest.approx(reference.roc_auc_score(y, softmax), abs=1e-6)
        assert values["softmax"]["auc"][i] != values["logits"]["auc"][i]
    assert values["softmax"]["brier"] == values["logits"]["brier"]


def test_thresholds_come_from_the_validation_part() -> None:
    found = candidates(seed=3)
    values = measure(found)["transferred"]["logits"]
    for i in range(3):
        z, y = found.logits["validation"][i], found.target["validation"]
        test, told = found.logits["test"][i], found.target["test"]
        thresholds = np.sort(z)[::-1]
        decided = z[:, None] >= thresholds  # a label of scikit-learn's for each
        truth = np.broadcast_to(y[:, None], decided.shape)
        recall = reference.recall_score(truth, decided, average=None)
        threshold = thresholds[int(np.argmax(reference.f1_score(truth, decided, average=None)))]
        assert values["f1"][i] == pytest.approx(reference.f1_score(told, test >= threshold), abs=1e-6)
        balanced = (recall + reference.recall_score(1 - truth, ~decided, average=None)) / 2
        threshold = thresholds[int(np.argmax(balanced))]
        expected = reference.balanced_accuracy_score(told, test >= threshold)
        assert values["balanced_accuracy"][i] == pytest.approx(expected, abs=1e-6)
        precision = reference.precision_score(truth, decided, average=None)
        threshold = thresholds[int(np.argmax(np.where(recall >= 0.99, precision, 0)))]
        assert values["recall@recall>=0.99"][i] == pytest.approx(
            reference.recall_score(told, test >= threshold), abs=1e-6
        )
        assert values["precision@recall>=0.99"][i] == pytest.approx(
            reference.precision_score(told, test >= threshold), abs=1e-6
        )


def test_the_candidates_kept_are_those_that_some_choice_takes() -> None:
    found = candidates(n_lambdas=12)
    values = measure(found)
    kept = worth_keeping(values)
    for split in learning.SPLITS:
        for metric in learning.CHOSEN_BY:
            column = values[split]["logits"][metric]
            assert column.index((min if metric == "brier" else max)(column)) in kept
    assert len(kept) < 12


# ------------------------------------------------------------------------------------------------------------- learners


def run(method: str, setting: dict[str, str], **length: object) -> tuple[dict, Candidates]:
    trial = Trial("synthetic", None, method, tuple(setting.items()), 0, Length(epochs=5, **length))
    loaded = data.load("synthetic", None, None, trial.length.protocol, Path("nowhere"))
    return learning.run(trial, loaded, None, device="cpu")


@pytest.mark.parametrize("method", ["vs+lct", "vs+lct-film", "ldam", "ce"])
def test_a_trial_gives_scores_that_rank(method: str) -> None:
    record, found = run(method, METHODS[method].settings(1)[0])
    n_lambdas = 20 if method == "vs+lct" else 1
    assert {len(values) for values in record["metrics"]["test"]["logits"].values()} == {n_lambdas}
    assert found.logits["test"].shape == (n_lambdas, 600)
    assert min(record["metrics"]["test"]["logits"]["auc"]) > 0.75
    assert record["data"]["sizes"]["test"] == [568, 32]


def test_boosted_trees_with_class_weights_say_their_posterior_without_them() -> None:
    pytest.importorskip("lightgbm")
    plain, weighted = (run(method, {"num_leaves": "7", "learning_rate": "0.1"})[1] for method in ("gbm", "gbm+weights"))
    share = float(plain.target["test"].mean())
    means = [float((1 / (1 + np.exp(-log_odds))).mean()) for log_odds in (
        plain.posterior["test"], weighted.posterior["test"], weighted.logits["test"]
    )]  # fmt: skip
    assert means[0] == pytest.approx(share, rel=0.4)
    assert abs(means[1] - share) < abs(means[2] - share) / 2


def test_trees_are_for_tables() -> None:
    pixels = data.load("synthetic", None, None, "held-out", Path("nowhere"))
    broken = data.Data(
        type(pixels.splits)(*(object(),) * 3),
        "f",
    )
    pytest.importorskip("lightgbm")
    trial = Trial("synthetic", None, "gbm", (("num_leaves", "7"), ("learning_rate", "0.1")), 0)
    with pytest.raises(InputError, match="for tables"):
        learning.candidates(trial, broken, None, None)


def test_seeds_share_the_division_and_the_protocol_of_the_paper_has_no_validation_part_of_its_own() -> None:
    held_out = data.load("synthetic", None, None, "held-out", Path("nowhere"))
    paper = data.load("synthetic", None, None, "paper", Path("nowhere"))
    assert paper.splits.test is not None
    assert torch.equal(paper.splits.validation.target, paper.splits.test.target)
    assert len(paper.splits.train) == len(held_out.splits.train) + len(held_out.splits.validation)
    assert paper.fingerprint != held_out.fingerprint
    sparse = data.load("synthetic", 100, None, "held-out", Path("nowhere"))
    assert sparse.sizes["train"][1] == sparse.sizes["train"][0] // 100
    assert sparse.sizes["test"] == held_out.sizes["test"]
    assert sparse.fingerprint != held_out.fingerprint
