"""The study's methods, grids and trials."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from paper import methods as m
from paper.methods import COLUMNS, METHODS, Column, Length, Trial
from tunelater.data.benchmarks import DATASETS
from tunelater.losses import FAMILIES
from tunelater.problems import InputError

TABLE = Column("synthetic", "Synthetic", "synthetic", None)


@pytest.mark.parametrize("method", [*m.PAPER, *m.ABLATION, *m.APPENDIX_F], ids=lambda method: method.name)
def test_the_papers_methods_have_16_settings_each_of_which_is_a_config(method: m.Method) -> None:
    settings = method.settings()
    assert len({tuple(setting.items()) for setting in settings}) == len(settings) == 16
    for setting in settings:
        config = Trial("cifar10-automobile-truck", 100, method.name, tuple(setting.items()), 0).config()
        assert config.loss == method.loss
        assert (config.sam is not None) == method.sam
        assert bool(config.lambdas.free) == ("lct" in method.name)
        assert (config.film is not None) == method.film


@pytest.mark.parametrize(
    ("name", "n"), [("vs+lct", 20), ("focal+lct", 16), ("vs+sam+lct", 20), ("vs", 1), ("vs+lct-film", 1)]
)
def test_models_are_evaluated_at_the_lambdas_of_table_2(name: str, n: int) -> None:
    setting = tuple(METHODS[name].settings()[0].items())
    lambdas = Trial("aptos", 100, name, setting, 0).lambdas()
    assert {len(values) for values in lambdas.values()} == {n}
    if n == 20:
        pairs = set(zip(lambdas["gamma"].tolist(), lambdas["tau"].tolist(), strict=True))
        assert pairs == {(gamma, tau) for gamma in (0, 0.1, 0.2, 0.3) for tau in (0, 1, 2, 3, 4)}


def test_where_one_hyperparameter_varies_the_other_is_evaluated_as_trained() -> None:
    trial = Trial("aptos", 100, "vs+lct:tau", (("gamma", "0.3"), ("tau", "linear(0, 3, 0)")), 0)
    assert trial.lambdas()["gamma"].tolist() == [0.3] * 5
    assert trial.lambdas()["tau"].tolist() == [0, 1, 2, 3, 4]
    assert trial.config().lambdas.free == ("tau",)


def test_without_film_a_model_is_evaluated_at_the_mean_of_what_it_was_trained_over() -> None:
    setting = METHODS["focal+lct-film"].settings()[0]
    lambdas = Trial("aptos", 100, "focal+lct-film", tuple(setting.items()), 0).lambdas()
    assert lambdas["alpha"].tolist() == pytest.approx([0.5])
    assert lambdas["phi"].tolist() == pytest.approx([2.0])


@pytest.mark.parametrize("method", [m for m in METHODS.values() if m.learner == "network"], ids=lambda m: m.name)
def test_every_setting_of_a_peer_is_within_what_its_loss_allows(method: m.Method) -> None:
    for setting in method.settings():
        config = Trial("synthetic", None, method.name, tuple(setting.items()), 0).config()
        assert not config.lambdas.problems_for(FAMILIES[config.loss].hyperparameters, config.loss)
        assert (config.model.head == "cosine") == (method.name == "ldam")


def test_multiples_of_a_recipes_rate() -> None:
    plain = Trial("cifar10-automobile-truck", 100, "ce", (), 0).config().optimizer
    setting = (("optimizer.learning_rate", "x0.3"), ("optimizer.weight_decay", "x3"))
    optimizer = Trial("cifar10-automobile-truck", 100, "ce", setting, 0).config().optimizer
    assert optimizer.learning_rate == pytest.approx(0.3 * plain.learning_rate)
    assert optimizer.weight_decay == pytest.approx(3 * plain.weight_decay)


def test_fewer_settings_are_spread_over_both_axes() -> None:
    four = METHODS["vs"].settings(4)
    assert {setting["gamma"] for setting in four} == {"0", "0.2"}
    assert {setting["tau"] for setting in four} == {"0", "2"}
    assert len(METHODS["vs"].settings(1)) == 1
    assert METHODS["vs"].settings(16) == METHODS["vs"].settings()
    assert len(METHODS["la"].settings(4)) == 4  # one of whose axes has a single value


def test_a_study_has_every_combination_once_and_a_whole_seed_first() -> None:
    columns = [COLUMNS["cifar10-auto-truck"], TABLE]
    found = m.trials(columns, m.methods(["paper", "boosting"]), settings=4)
    assert len(found) == len(set(found)) == 3 * 4 * (2 * 6 + 2)  # trees for the table only
    assert [trial.seed for trial in found] == sorted(trial.seed for trial in found)


def test_columns_are_datasets_of_the_library() -> None:
    assert {column.dataset for column in COLUMNS.values()} <= set(DATASETS)
    assert len(COLUMNS) == 9


def test_a_group_and_a_method_in_it_are_the_group() -> None:
    assert m.methods(["vs", "paper", "vs"]) == [METHODS["vs"], *(x for x in m.PAPER if x.name != "vs")]
    with pytest.raises(InputError, match=r"'vss'.*did you mean 'vs'"):
        m.methods(["vss"])


# ------------------------------------------------------------------------------------------------------------- identity


def trial(**changes: object) -> Trial:
    plain = Trial("synthetic", None, "vs+lct", tuple(METHODS["vs+lct"].settings()[0].items()), 0, Length(epochs=3))
    return dataclasses.replace(plain, **changes)


def test_a_trial_survives_its_record() -> None:
    record = json.loads(json.dumps(trial().record()))
    assert Trial.of(record) == trial()


def test_identities_differ_by_all_that_changes_a_result() -> None:
    others = [
        trial(seed=1),
        trial(method="vs+sam+lct"),
        trial(method="vs+lct-film"),
        trial(setting=tuple(METHODS["vs+lct"].settings()[1].items())),
        trial(length=Length(epochs=4)),
        trial(length=Length(epochs=3, precision="bf16-mixed")),
    ]
    identities = [some.identity("data") for some in [trial(), *others]] + [trial().identity("other data")]
    assert len(set(identities)) == len(identities)
    assert trial().identity("data") == identities[0]


def test_the_same_training_evaluated_elsewhere_is_another_trial() -> None:
    """The ablation is trained as no other method is, but the two kinds of point masses are told apart as well."""
    la = Trial("synthetic", None, "la", (("gamma", "0"), ("tau", "1")), 0)
    vs = Trial("synthetic", None, "vs", (("gamma", "0"), ("tau", "1")), 0)
    assert la.config() == vs.config()
    assert la.identity("data") != vs.identity("data")


def test_short_trainings_fall_as_a_cosine_and_full_ones_as_the_recipe_says() -> None:
    short = Trial("cifar10-automobile-truck", 100, "vs", (("gamma", "0"), ("tau", "1")), 0, Length(epochs=10)).config()
    full = Trial("cifar10-automobile-truck", 100, "vs", (("gamma", "0"), ("tau", "1")), 0).config()
    assert (short.epochs, short.schedule.name) == (10, "cosine")
    assert (full.epochs, full.schedule.name) == (500, "multistep")


def test_the_released_recipe_is_one_where_there_is_one() -> None:
    length = Length(recipe="released")
    assert Trial("melanoma", 10, "vs", (("gamma", "0"), ("tau", "1")), 0, length).config().epochs == 10
    assert Trial("aptos", 100, "vs", (("gamma", "0"), ("tau", "1")), 0, length).config().epochs == 35


def test_the_linear_distributions_are_densities() -> None:
    for method in METHODS.values():
        for text in {text for values in method.axes.values() for text in values if "linear" in text}:
            distribution = m.parse_distribution(text)
            x = np.linspace(distribution.a, distribution.b, 2001)
            assert np.trapezoid(distribution.pdf(x), x) == pytest.approx(1, abs=1e-6)


def test_every_method_has_as_many_settings_as_are_asked_for_and_each_is_a_training_of_its_own() -> None:
    for n in m.BUDGETS:
        assert {len(method.settings(n)) for method in m.METHODS.values()} == {n}
    for n in (2, 8, 12, 17):
        with pytest.raises(InputError, match=f"1, 4, 9 or 16, got {n}"):
            m.METHODS["vs"].settings(n)
    for column in ("cifar10-auto-truck", "melanoma-b10", "aptos-b100"):
        for method in (*m.PAPER, *m.PEERS):
            some = m.trials([m.COLUMNS[column]], [method], seeds=[0])
            assert len({trial.identity("data") for trial in some}) == 16
