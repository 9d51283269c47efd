"""The study's figures: what is drawn is what the results say, and a part is never taken for the whole."""

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from paper import figures, learning
from paper.comparison import Study, pick, studies
from paper.figures import draw
from paper.methods import METHODS, Column, Length, Trial, trials
from paper.store import Result, Store
from tunelater import InputError
from tunelater.distributions import Linear

COLUMN = Column("cifar10-auto-truck", "Auto Truck", "synthetic", 20)
LENGTH = Length(epochs=4)
NEEDED = ("vs", "vs+lct", "focal", "focal+lct", "vs+lct:gamma", "vs+lct:tau")
Wanted = Callable[[Trial], bool]


def _put(store: Store, trial: Trial) -> None:
    """A result of made-up metrics, better for some settings and lambdas than for others."""
    rng = np.random.default_rng(zlib.crc32(str(trial).encode()))
    lambdas = trial.lambdas()
    rows = len(next(iter(lambdas.values()))) if lambdas else 1
    quality = rng.uniform(0.3, 0.8) + rng.uniform(0, 0.2, rows)

    def made_up() -> dict[str, list[float]]:
        return {metric: (quality * rng.uniform(0.9, 1, rows)).tolist() for metric in learning.METRICS}

    target = {split: np.array([0, 0, 1, 1], np.int8) for split in learning.SPLITS}
    logits = {split: rng.normal(size=(rows, 4)).astype(np.float32) for split in learning.SPLITS}
    record = {
        "trial": trial.record(),
        "data": {"fingerprint": "made up", "sizes": {"test": [2, 2]}},
        "lambdas": {name: array.tolist() for name, array in lambdas.items()},
        "metrics": {split: {"logits": made_up()} for split in learning.SPLITS},
        "kept": [0],
        "seconds": {"training and scoring": 1.0},
    }
    store.put(trial.identity("made up"), record, learning.Candidates(lambdas, target, logits, logits))


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    """Two seeds of every setting of what the paper's figures need, and one of two settings of three methods more."""
    store = Store(tmp_path_factory.mktemp("results"))
    for trial in trials([COLUMN], [METHODS[name] for name in NEEDED], seeds=(0, 1), length=LENGTH):
        _put(store, trial)
    for trial in trials([COLUMN], [METHODS[n] for n in ("ce", "gbm", "ldam")], settings=4, seeds=(0,), length=LENGTH):
        _put(store, trial)
    return store.results()


def _study(results: list[Result], wanted: Wanted = lambda trial: True) -> Study:
    (study,) = studies(r for r in results if wanted(r.trial)) or [Study(LENGTH, {})]
    return study


def _drawn(name: str, study: Study, reported: Mapping[str, float] | None = None) -> Figure:
    figure = draw(name, study, COLUMN, reported)
    assert figure is not None
    return figure


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def _said(figure: Figure) -> str:
    return " ".join(" ".join(_texts(figure)).replace("\N{NO-BREAK SPACE}", " ").split())


def _hatched(figure: Figure) -> list[Rectangle]:
    return [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle) and patch.get_hatch()]


def _blocks(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(mesh.get_array()) for mesh in figure.axes[0].collections if isinstance(mesh, QuadMesh)]


def _mean(study: Study, method: str, setting: Mapping[str, str], metric: str = "auc") -> np.ndarray:
    found = study.of(COLUMN.dataset, COLUMN.beta, method)
    some = [r.values("test", "logits", metric) for r in found if dict(r.trial.setting) == dict(setting)]
    return np.mean(some, axis=0)


HEAT = {"fig4": "vs", "fig5": "vs+lct", "fig6": "vs+lct:gamma", "fig7": "vs+lct:tau"}


@pytest.mark.parametrize(("name", "method"), HEAT.items())
def test_a_heat_map_has_each_settings_means_at_the_place_of_its_lambda(
    results: list[Result], name: str, method: str
) -> None:
    study = _study(results)
    blocks, settings = _blocks(_drawn(name, study)), METHODS[method].settings()
    assert len(blocks) == len(settings) == 16
    for block, setting in zip(blocks, settings, strict=True):
        # gamma goes down and tau to the right, and the last of a trial's hyperparameters varies fastest
        np.testing.assert_allclose(block.ravel(), _mean(study, method, setting))
    across = {"fig4": (1, 1), "fig5": (4, 5), "fig6": (4, 1), "fig7": (1, 5)}[name]
    assert {block.shape for block in blocks} == {across}


@pytest.mark.parametrize(("name", "method"), HEAT.items())
def test_missing_settings_are_hatched_and_counted(results: list[Result], name: str, method: str) -> None:
    kept = [METHODS[method].settings()[i] for i in (1, 6, 11)]
    figure = _drawn(name, _study(results, lambda t: t.method != method or dict(t.setting) in kept))
    assert len(_hatched(figure)) == 13
    assert len(_blocks(figure)) == 3
    assert "3 of 16 settings, 2 seeds" in _said(figure)
    assert "hatched: no result" in _said(figure)
    whole = _drawn(name, _study(results))
    assert not _hatched(whole)
    assert "16 settings, 2 seeds" in _said(whole)
    assert "hatched" not in _said(whole)


def test_the_frame_is_around_the_best_of_the_settings_with_most_seeds(results: list[Result]) -> None:
    whole = _study(results)
    means = [_mean(whole, "vs", setting)[0] for setting in METHODS["vs"].settings()]
    first = METHODS["vs"].settings()[int(np.argmax(means))]
    fewer = _study(results, lambda t: not (dict(t.setting) == first and t.seed == 1))
    for study, left_out in ((whole, None), (fewer, first)):
        figure = _drawn("fig4", study)
        (frame,) = [p for p in figure.axes[0].patches if isinstance(p, Rectangle)]
        values = {s: m for s, m in enumerate(means) if METHODS["vs"].settings()[s] != left_out}
        top = max(values, key=lambda s: values[s])
        assert frame.get_xy() == (top % 4, top // 4)
        assert ("1 to 2 seeds" in _said(figure)) == (left_out is not None)
        italic = [t for t in figure.axes[0].texts if t.get_style() == "italic"]
        assert len(italic) == (left_out is not None)


@pytest.mark.parametrize("family", ["vs", "focal"])
def test_figure_1_shows_every_baseline_that_is_best_somewhere_and_the_lct_of_best_average_precision(
    results: list[Result], family: str
) -> None:
    study = _study(results)
    axes = _drawn("fig1", study).axes[("vs", "focal").index(family)]
    *baselines, lct, chance = (np.asarray(line.get_ydata()) for line in axes.lines)
    np.testing.assert_allclose(chance, 0.5)  # the share of positives of the test part
    metrics = [f"precision@recall>={recall:g}" for recall in learning.RECALLS]
    every = np.array([[_mean(study, family, s, m)[0] for m in metrics] for s in METHODS[family].settings()])
    np.testing.assert_allclose(np.max(baselines, axis=0), every.max(axis=0))
    for line, values in zip(axes.lines[:-2], baselines, strict=True):
        where = line.get_markevery()
        np.testing.assert_allclose(values[where], every.max(axis=0)[where])
        assert len(where) > 0
    conditional = METHODS[f"{family}+lct"].settings()
    precision = np.array([_mean(study, f"{family}+lct", s, "average_precision") for s in conditional])
    row, candidate = np.unravel_index(np.argmax(precision), precision.shape)
    expected = [_mean(study, f"{family}+lct", conditional[row], m)[candidate] for m in metrics]
    np.testing.assert_allclose(lct, expected)


def test_of_equal_baselines_one_that_is_best_elsewhere_is_shown() -> None:
    curves = {(("tau", "0"),): np.array([1.0] * 4 + [0.2] * 4), (("tau", "1"),): np.array([1.0] * 8)}
    curves[("tau", "2"),] = np.array([1.0] * 8)
    found = figures.winners(curves)
    assert sum(map(len, found.values())) == 8
    assert list(found) == [(("tau", "0"),), (("tau", "1"),)]


@pytest.mark.parametrize(("name", "family", "shade"), [("fig2", "vs", "tau"), ("fig8", "focal", "phi")])
def test_figures_2_and_8_show_one_training_of_each_by_lambda(
    results: list[Result], name: str, family: str, shade: str
) -> None:
    study = _study(results)
    figure = _drawn(name, study)
    found = {m: study.of(COLUMN.dataset, COLUMN.beta, m) for m in (family, f"{family}+lct")}
    assert figure.legends[0].get_title().get_text().replace("\N{NO-BREAK SPACE}", " ") == METHODS[f"{family}+lct"].label
    one, many = (max(some, key=lambda r: r.values("test", "logits", "auc").max()) for some in found.values())
    for axes, metric in zip(figure.axes, ("brier", "precision@recall>=0.99", "best_f1"), strict=True):
        *dots, cross = axes.lines
        single, points = (
            np.stack([result.values("test", "logits", m) for m in (metric, "auc")], axis=1) for result in (one, many)
        )
        np.testing.assert_allclose(cross.get_xydata(), single)
        levels = np.unique(many.lambdas[shade])
        assert len(dots) == len(levels)
        for level, line in zip(levels, dots, strict=True):
            np.testing.assert_allclose(line.get_xydata(), points[many.lambdas[shade] == level])
        looks = {(line.get_marker(), line.get_color().tobytes()) for line in dots}
        assert len({marker for marker, _ in looks}) == len({colour for _, colour in looks}) == len(dots)


def test_figure_3_is_the_distribution() -> None:
    figure = _drawn("fig3", Study(LENGTH, {}))
    for axes, function in zip(figure.axes, ("pdf", "cdf"), strict=True):
        assert len(axes.lines) == len(figures.HEIGHTS)
        for line, h in zip(axes.lines, figures.HEIGHTS, strict=True):
            x, y = line.get_data()
            np.testing.assert_allclose(y, getattr(Linear(0, 3, h), function)(x))


def test_held_out_values_are_those_of_the_validation_parts_choice(results: list[Result]) -> None:
    study = _study(results)
    figure = _drawn("heldout", study, {"VS": 0.918})
    names = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    vs = [line for line in figure.axes[0].lines if set(line.get_ydata()) == {names.index("VS")}]
    by_seed = [[r for r in study.of(COLUMN.dataset, COLUMN.beta, "vs") if r.trial.seed == s] for s in (0, 1)]
    picks = [pick(some, "auc") for some in by_seed]
    expected = [p.result.values("test", "logits", "auc")[p.candidate] for p in picks]
    drawn = sorted((tuple(map(float, line.get_xdata())) for line in vs), key=lambda x: (len(x), x))
    assert sorted(expected) == pytest.approx(sorted(x for line in vs if line.get_markerfacecolor() == figures.GROUND
                                                    for x in line.get_xdata()))  # fmt: skip
    assert (pytest.approx(np.mean(expected)),) in drawn
    assert (0.918,) in drawn
    assert {"Cross-entropy", "LightGBM", "LDAM"} <= set(names)
    assert "4 of 16 settings, 1 seed" in _said(figure)


def test_each_figure_says_how_its_content_was_chosen(results: list[Result]) -> None:
    study = _study(results)
    for name in figures.FIGURES:
        said = _said(_drawn(name, study))
        assert ("chosen on the test part, as in the paper" in said) == (name not in ("fig3", "heldout"))
        assert ("4 epochs" in said) == (name != "fig3")
    assert "on the validation part" in _said(_drawn("heldout", study))
    on_test = Study(Length(epochs=4, protocol="paper"), study.results)
    assert "not held out" in _said(_drawn("heldout", on_test))


def test_files_are_written_and_what_has_no_results_is_told(results: list[Result], tmp_path: Path) -> None:
    lines: list[str] = []
    numbers = tmp_path / "numbers.csv"
    numbers.write_text("metric,method,dataset,value\nauroc,VS,cifar10-auto-truck,0.918\n")
    study = _study(results, lambda t: t.method in ("vs", "focal"))
    written = figures.figures(study, COLUMN, tmp_path / "out", formats=("svg",), paper=numbers, tell=lines.append)
    names = ["fig1", "fig2", "fig3", "fig4", "fig8", "heldout"]
    assert written == [tmp_path / "out" / f"{name}.svg" for name in names]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(p.name for p in written)
    assert [line.split()[0] for line in lines] == ["fig5", "fig6", "fig7"]
    assert all("no results" in line and METHODS_NAMED[line.split()[0]] in line for line in lines)
    assert "VS + LCT: no results" in _said(_drawn("fig1", study))


def test_without_any_results_there_is_figure_3_for_print_and_screen(tmp_path: Path) -> None:
    lines: list[str] = []
    written = figures.figures(Study(LENGTH, {}), COLUMN, tmp_path, tell=lines.append)
    assert [path.name for path in written] == ["fig3.png", "fig3.pdf"]
    assert [path.read_bytes()[:4] for path in written] == [b"\x89PNG", b"%PDF"]
    assert [line.split()[0] for line in lines] == [name for name in figures.FIGURES if name != "fig3"]


METHODS_NAMED = {name: method for name, method in HEAT.items() if name != "fig4"}


@pytest.mark.parametrize("name", [*figures.FIGURES])
def test_letters_are_of_seven_points_and_within_the_page(results: list[Result], name: str) -> None:
    figure = _drawn(name, _study(results), {"VS": 0.918})
    assert figure.get_figwidth() in (figures.COLUMN, figures.PAGE)
    figure.draw_without_rendering()
    page = figure.bbox
    for text in figure.findobj(Text):
        if not text.get_text() or not text.get_visible():
            continue
        assert text.get_size() >= 7
        box = text.get_window_extent()
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= page.x1 + 1 and box.y1 <= page.y1 + 1
        assert inside, f"{text.get_text()!r} at {box} is beyond {page}"


@given(st.lists(st.floats(0, 10), min_size=1, max_size=8), st.floats(0.1, 1.2))
def test_labels_keep_their_order_and_distance(wanted: list[float], apart: float) -> None:
    places = figures._spaced(np.sort(wanted), apart, 0.0, 10.0)
    assert np.all(np.diff(places) >= apart - 1e-9)
    assert places[0] >= -1e-9
    assert places[-1] <= 10 + 1e-9


def test_wrong_arguments_are_told(results: list[Result], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"(?s)'gif'.*got the file"):
        figures.figures(_study(results), COLUMN, file, formats=("gif",))
    with pytest.raises(InputError, match="need the columns metric, method, dataset, value"):
        figures.figures(_study(results), COLUMN, tmp_path / "out", paper=file)
    with pytest.raises(InputError, match="CSV file"):
        figures.figures(_study(results), COLUMN, tmp_path / "out", paper=tmp_path / "none.csv")
    assert not (tmp_path / "out").exists()
