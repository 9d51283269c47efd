"""The report's page in a real browser: what it tells is what Python says, and anybody can use it.

Skipped where there is no Chromium, which `make test` installs where it can.
"""

import dataclasses
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from tunelater import look
from tunelater.aggregates import SMALLEST, BinnedGrid
from tunelater.cli import app
from tunelater.config import Config, default_space
from tunelater.demo import POSITIVE, TARGET
from tunelater.distributions import LambdaSpace
from tunelater.needs import Need
from tunelater.points import OperatingPoint
from tunelater.problems import DoubtfulInputWarning, InputError
from tunelater.reporting import SCRIPTS, page, report
from tunelater.runs import Run
from tunelater.workflow import count, fit

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def written(run: Run, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the run on the thyroid table, with the sexes."""
    out = tmp_path_factory.mktemp("report") / "report.html"
    done = report(run, table, out=out, subgroups=["sex"])
    assert (done.lambdas, done.rows[1], done.size) == (100, 30, out.stat().st_size)
    return out


@pytest.fixture(scope="module")
def counted(run: Run, table: Path) -> BinnedGrid:
    """What that report is made of."""
    from tunelater import reporting

    made: list[BinnedGrid] = []
    samples, split, values = reporting.labelled_samples(run, table, "validation", (), None, ("sex",))
    values = {"sex": reporting.joined_values(values["sex"])}
    made += reporting._counted(run, samples, reporting._grid(run, None), split, values, SMALLEST, 1024)
    return reporting.joined(made, run.config.lambdas.median)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api", reason="the browser tests need the package playwright")
    if CHROMIUM is None:
        pytest.skip("the browser tests need Chromium, which is not installed: apt-get install chromium")
    with sync.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@dataclasses.dataclass
class Opened:
    """A page in a browser, and what went wrong in it."""

    page: Any
    wrong: list[str]

    def download(self, folder: Path) -> OperatingPoint:
        with self.page.expect_download() as saved:
            self.page.click("#use")
        path = folder / f"point-{len(list(folder.iterdir()))}.json"
        saved.value.save_as(path)
        assert saved.value.suggested_filename == "point.json"
        return OperatingPoint.load(path)


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """Opens files, and at the end checks that nothing went wrong and nothing was fetched."""
    contexts, pages = [], []

    def open_page(path: Path, fragment: str = "", **settings: Any) -> Opened:
        context = browser.new_context(**({"viewport": {"width": 1360, "height": 900}} | settings))
        contexts.append(context)
        one = Opened(context.new_page(), [])
        pages.append(one)
        one.page.on("console", lambda message: one.wrong.append(message.text))
        one.page.on("pageerror", lambda error: one.wrong.append(str(error)))
        one.page.on("dialog", lambda dialog: one.wrong.append(dialog.message))
        one.page.on("request", lambda r: None if r.url.startswith(("file:", "blob:")) else one.wrong.append(r.url))
        one.page.goto(path.as_uri() + fragment)
        one.page.wait_for_selector("html[data-ready=yes]")
        return one

    yield open_page
    for context in contexts:
        context.close()
    assert [one.wrong for one in pages if one.wrong] == []


def set_slider(page: Any, name: str, value: int) -> None:
    page.evaluate(
        "([id, v]) => { const s = document.getElementById(id); s.value = v; s.dispatchEvent(new Event('input')); }",
        [f"slider-{name}", value],
    )


def shown(page: Any, figure: str) -> str:
    return str(page.inner_text(f"#row-{figure} td:nth-of-type(1)"))


def ask(page: Any, objective: str, *constraints: tuple[str, str, float, str]) -> None:
    """State a need in the form, as a reader would, and have it solved."""
    page.select_option("#objective", objective)
    while page.locator(".constraint").count():
        page.click(".constraint button")
    for i, (metric, relation, bound, every) in enumerate(constraints):
        page.click("#add")
        row = page.locator(".constraint").nth(i)
        row.locator("select").nth(0).select_option(metric)
        row.locator("select").nth(1).select_option(relation)
        row.locator("input").fill(f"{bound:g}")
        row.locator("select").nth(2).select_option(every)
    page.click("#need button[type=submit]")


def ask_anything(page: Any) -> None:
    page.select_option("#objective", "f1")
    page.click(".constraint button")
    page.click("#need button[type=submit]")
    assert page.inner_text("#verdict").startswith("Found:")


# ------------------------------------------------------------------------------------------- choosing


def test_needs_are_solved_as_python_does(opened: Any, written: Path, counted: BinnedGrid, tmp_path: Path) -> None:
    here = opened(written)
    cases: list[tuple[str, list[tuple[str, str, float, str]], float | None, dict[str, Any]]] = [
        ("precision", [("recall", ">=", 90, "")], None, {"maximize": "precision", "subject_to": "recall>=0.9"}),
        ("recall", [("alert_rate", "<=", 5, "")], 0.02, {"maximize": "recall", "subject_to": "alerts<=50/1000"}),
        ("cost", [], 0.01, {"cost": {"fn": 80, "fp": 2}}),
        ("recall", [("recall", ">=", 60, "sex"), ("fpr", "<=", 5, "sex")], None,
         {"maximize": "recall", "subject_to": ["recall>=0.6 in every sex", "fpr<=0.05 in every sex"]}),
        ("net_benefit", [], None, {"maximize": "net_benefit@0.1"}),
        ("alert_rate", [("recall", ">=", 70, ""), ("specificity", ">=", 90, "")], 0.3,
         {"minimize": "alert_rate", "subject_to": ["recall>=0.7", "specificity>=0.9"]}),
    ]  # fmt: skip
    here.page.fill("#fn", "80")
    here.page.fill("#fp", "2")
    for objective, constraints, prior, said in cases:
        here.page.fill("#prior", "" if prior is None else f"{prior * 100:g}")
        ask(here.page, objective, *constraints)
        point, need = here.download(tmp_path), Need.of(prior=prior, **said)
        expected = counted.select(need)
        assert point.lam == expected.lam, said
        assert point.log_odds_threshold == pytest.approx(expected.log_odds_threshold, abs=1e-12)
        assert point.prior == pytest.approx(expected.prior, rel=1e-12)
        assert (point.simpler_than, point.model, point.n) == (expected.simpler_than, expected.model, 633)
        assert Need.read(point.needs).in_words == need.in_words
    here.page.uncheck("#simplest")
    ask(here.page, "f1")
    assert here.download(tmp_path).lam == counted.select(Need.of(maximize="f1", prior=0.3), simplest=False).lam


def test_what_cannot_be_had_says_what_can(opened: Any, written: Path) -> None:
    here = opened(written)
    ask(here.page, "precision", ("precision", ">=", 99.9, ""), ("recall", ">=", 99.9, ""))
    told = here.page.inner_text("#verdict")
    assert re.search(r"No lambda and threshold .* precision reaches [\d.]+% alone, and [\d.]+% with the others", told)


def test_a_point_of_the_page_predicts(
    opened: Any, written: Path, run: Run, table: Path, counted: BinnedGrid, tmp_path: Path
) -> None:
    """What is downloaded decides new cases from the command line as the page says it would."""
    here = opened(written)
    set_slider(here.page, "tau", 7)
    set_slider(here.page, "threshold", 60)
    point = here.download(tmp_path)
    assert run.path is not None
    command = here.page.inner_text("#command").split()
    assert command[:3] == ["tunelater", "predict", run.path.name]
    out = tmp_path / "alerts.csv"
    args = ["predict", str(run.path), str(table), *command[4:]]
    args = [{"point.json": str(next(tmp_path.glob("point-*.json"))), "alerts.csv": str(out)}.get(a, a) for a in args]
    done = CliRunner().invoke(app, args)
    assert done.exit_code == 0, done.stderr
    rows = run.rows["validation"]
    alerts = pd.read_csv(out)["prediction"].to_numpy()[rows] == run.form.labels[1]
    positive = run.form.labelled(table, None).samples.target.numpy()[rows] == 1
    assert 0 < alerts.sum() < len(alerts)
    i = next(i for i in range(len(counted)) if counted.lambdas["tau"][i] == point.lam["tau"]
             and counted.lambdas["gamma"][i] == point.lam["gamma"])  # fmt: skip
    one = counted.of_lambdas[i]
    k = len(one) - 1 - 60
    assert (alerts & positive).sum() == one.positives[: k + 1].sum()
    assert (alerts & ~positive).sum() == one.negatives[: k + 1].sum()
    assert point.metrics["recall"].value == pytest.approx((alerts & positive).sum() / positive.sum())
    assert float(shown(here.page, "recall")[:-1]) == pytest.approx(100 * point.metrics["recall"].value, abs=0.05)


def test_the_map_and_the_curves_pick(opened: Any, written: Path, tmp_path: Path) -> None:
    here = opened(written)
    here.page.select_option("#heat-metric", "auc")
    over = here.page.locator("#heat .u-over")
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    i, j = 8, 2  # of 10 x 10
    here.page.mouse.click(box["x"] + box["width"] * (i + 0.5) / 10, box["y"] + box["height"] * (1 - (j + 0.5) / 10))
    assert here.page.input_value("#slider-gamma") == str(i)
    assert here.page.input_value("#slider-tau") == str(j)
    before = here.download(tmp_path)
    for chart in ("roc", "pr", "cost", "scores", "decision"):
        over = here.page.locator(f"#{chart} .u-over")
        over.scroll_into_view_if_needed()
        box = over.bounding_box()
        here.page.mouse.click(box["x"] + 0.72 * box["width"], box["y"] + 0.3 * box["height"])
        after = here.download(tmp_path)
        assert after.lam == before.lam
        assert after.log_odds_threshold != before.log_odds_threshold, chart
        set_slider(here.page, "threshold", 20)
        before = here.download(tmp_path)


def test_a_link_reproduces_the_state(opened: Any, written: Path, tmp_path: Path) -> None:
    here = opened(written)
    here.page.fill("#prior", "2.5")
    here.page.fill("#fn", "7")
    ask(here.page, "recall", ("alert_rate", "<=", 8, ""), ("recall", ">=", 50, "sex"))
    here.page.wait_for_function("() => location.hash.includes('s=alert_rate') && location.hash.includes('found=1')")
    again = opened(written, "#" + here.page.url.split("#")[1])
    assert again.download(tmp_path) == here.download(tmp_path)
    for name in ("#prior", "#fn", "#objective"):
        assert again.page.input_value(name) == here.page.input_value(name)
    set_slider(here.page, "threshold", 33)
    here.page.wait_for_function("() => !location.hash.includes('found=1')")
    by_hand = opened(written, "#" + here.page.url.split("#")[1])
    point = by_hand.download(tmp_path)
    assert point == here.download(tmp_path)
    assert point.needs == {"prior": 0.025}
    for broken in ("#t=x", "#t=1&l.tau=&p=2&o=<b>&s=recall", "#%E0%A4%A"):
        by_hand.page.evaluate("hash => (location.hash = hash)", broken)
        by_hand.page.wait_for_timeout(50)
        by_hand.download(tmp_path)


@pytest.mark.parametrize("loss", ["cross_entropy", "weighted_cross_entropy"])
def test_losses_with_fewer_hyperparameters(opened: Any, table: Path, tmp_path: Path, loss: str) -> None:
    config = Config(loss=loss, lambdas=LambdaSpace(**default_space(loss)), epochs=2, batch_size=256)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulInputWarning)  # of columns that never vary
        fitted = fit(table, target=TARGET, positive=POSITIVE, config=config)
    done = report(fitted, table, out=tmp_path / "page.html")
    assert done.lambdas == {"cross_entropy": 1, "weighted_cross_entropy": 25}[loss]
    here = opened(tmp_path / "page.html")
    ask_anything(here.page)
    (tmp_path / "points").mkdir()
    point = here.download(tmp_path / "points")
    assert set(point.lam) == set(config.lambdas)
    assert here.page.is_visible("#heat-figure") == (done.lambdas > 1)


def test_counts_of_shards_make_a_page(opened: Any, run: Run, table: Path, tmp_path: Path) -> None:
    with pytest.warns(DoubtfulInputWarning, match="left out"):
        total = count(run, table, out=tmp_path / "shard.npz", grid=3).total
    done = report(run, tmp_path / "shard.npz", out=tmp_path / "page.html")
    assert (done.lambdas, done.rows) == (10, tuple(total.rows.tolist()))
    here = opened(tmp_path / "page.html")
    ask_anything(here.page)
    (tmp_path / "points").mkdir()
    assert here.download(tmp_path / "points").model == run.id
    with pytest.raises(InputError, match="no subgroups"):
        report(run, tmp_path / "shard.npz", out=tmp_path / "other.html", subgroups=["sex"])


def test_a_page_opens_at_a_point(opened: Any, run: Run, table: Path, counted: BinnedGrid, tmp_path: Path) -> None:
    start = counted.select(Need.of(maximize="recall", subject_to="fpr<=0.02", prior=0.01))
    out = tmp_path / "at.html"
    report(run, table, out=out, at=start, subgroups=["sex"])
    here = opened(out)
    point = here.download(tmp_path)
    assert point.lam == start.lam
    assert point.log_odds_threshold == pytest.approx(start.log_odds_threshold)
    assert here.page.input_value("#prior") == "1"
    assert here.page.input_value("#objective") == "recall"


# ------------------------------------------------------------------------------------------- for everybody


@pytest.mark.parametrize("settings", [
    {}, {"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 800}, "color_scheme": "light"},
])  # fmt: skip
def test_axe_finds_nothing(opened: Any, written: Path, settings: dict[str, Any]) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    here = opened(written, **settings)
    here.page.focus("#row-recall .term")
    assert here.page.is_visible("#tip")
    results = axe.Axe().run(here.page)
    assert results.violations_count == 0, results.generate_report()
    wide = here.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0


def test_by_keyboard_alone(opened: Any, written: Path, tmp_path: Path) -> None:
    here = opened(written)
    keys = here.page.keyboard
    reached: list[str] = []
    for _ in range(60):
        keys.press("Tab")
        focused = here.page.evaluate("document.activeElement.id || document.activeElement.dataset.explains || ''")
        reached.append(focused)
        if focused == "slider-tau":
            before = here.page.inner_text("output[for=slider-tau]")
            keys.press("ArrowRight")
            assert here.page.inner_text("output[for=slider-tau]") != before
        if focused == "slider-threshold":
            before = shown(here.page, "alert_rate")
            for _ in range(3):
                keys.press("ArrowLeft")
            assert shown(here.page, "alert_rate") != before
        if focused == "recall":
            assert here.page.inner_text("#tip").startswith("Of all truly positive")
            keys.press("Escape")
            assert not here.page.is_visible("#tip")
        if focused == "use":
            with here.page.expect_download() as saved:
                keys.press("Enter")
            saved.value.save_as(tmp_path / "point.json")
            OperatingPoint.load(tmp_path / "point.json")
            break
    assert {"objective", "prior", "slider-gamma", "slider-tau", "slider-threshold", "recall", "use"} <= set(reached)
    here.page.focus("#objective")
    keys.press("Shift+Tab")  # the link that skips to the choice
    here.page.focus(".constraint input")
    keys.press("ControlOrMeta+a")
    keys.type("50")
    keys.press("Enter")
    assert here.page.inner_text("#verdict").startswith("Found:")


def test_the_picture_of_a_thousand_adds_up(opened: Any, written: Path) -> None:
    here = opened(written)
    for prior in ("", "0.1", "30"):
        here.page.fill("#prior", prior)
        for place in (0, 5, 40):
            set_slider(here.page, "threshold", place)
            n = {kind: int(here.page.inner_text(f"#n-{kind}")) for kind in ("hit", "missed", "alarm", "alone")}
            drawn = {kind: here.page.evaluate("k => document.querySelector(`#icons .${k}`).getAttribute('d')", kind)
                     for kind in n}  # fmt: skip
            assert sum(n.values()) == 1000
            assert {kind: path.count("M") for kind, path in drawn.items()} == n
            assert here.page.inner_text("#summary").startswith(f"Of 1,000 cases {n['hit'] + n['missed']} are positive")


def test_paper_is_light(opened: Any, written: Path) -> None:
    here = opened(written, color_scheme="dark")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    assert here.page.evaluate(ground) != "rgb(255, 255, 255)"
    here.page.emulate_media(media="print")
    assert here.page.evaluate(ground) == "rgb(255, 255, 255)"
    assert len(here.page.pdf()) > 20_000


def test_small_and_quick_with_400_lambdas(opened: Any, run: Run, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "large.html"
    done = report(run, table, out=out, grid=19)
    assert done.lambdas == 400
    assert done.size < 3e6
    here = opened(out)
    session = here.page.context.new_cdp_session(here.page)
    # Of the page's thread, not of the clock: other programs may take the processor from it.
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def seconds() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return float(next(m["value"] for m in metrics if m["name"] == "TaskDuration"))

    before = seconds()
    here.page.reload()
    here.page.wait_for_selector("html[data-ready=yes]")
    assert seconds() - before < 1
    before = seconds()
    for i in range(30):
        set_slider(here.page, ("threshold", "tau", "gamma")[i % 3], i % 15 + 3)
    assert (seconds() - before) / 30 < 0.05
    if os.getloadavg()[0] < (os.cpu_count() or 1) / 2:
        paint = here.page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        moves = here.page.evaluate("performance.getEntriesByName('move').map((e) => e.duration)")
        assert paint < 1000
        assert np.median(moves) < 50


# ------------------------------------------------------------------------------------------- what is in it


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{DATA}}"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame, Path]:
    """A report of a table whose names are markup and whose cells can be recognised, the table, and its file."""
    folder = tmp_path_factory.mktemp("hostile")
    rng, n = np.random.default_rng(0), 1200
    sick = rng.random(n) < 0.15
    frame = pd.DataFrame(
        {
            "patient": [f"patient-{i:05}-{rng.integers(10**9)}" for i in range(n)],
            "measured": 71_000 + 900 * sick + np.round(rng.normal(0, 500, n), 4),
            "level": np.round(3 * sick + rng.normal(100, 2, n), 6),
            f"site{HOSTILE}": rng.choice([f"north{HOSTILE}", "south"], n),
            "outcome": np.where(sick, f"ill{HOSTILE}", "well"),
        }
    )
    data = folder / "name & <b>bold<b> 'quoted'.csv"
    frame.to_csv(data, index=False)
    config = Config(epochs=2, batch_size=128)
    with pytest.warns(DoubtfulInputWarning):  # of the column of names
        fitted = fit(data, target="outcome", positive=f"ill{HOSTILE}", out=folder / "run <i>", config=config)
    out = folder / "report.html"
    report(fitted, data, out=out, subgroups=[f"site{HOSTILE}"], grid=4)
    return out, frame, data


def test_names_are_text_and_never_markup(opened: Any, hostile: tuple[Path, pd.DataFrame, Path]) -> None:
    out, _, data = hostile
    here = opened(out)
    assert here.page.title() == "Where to operate: run <i>"
    about = here.page.inner_text("#about")
    assert data.name in about
    assert f"ill{HOSTILE}" in about
    assert here.page.inner_text("#subgroups th[scope=col]:first-child") == f"site{HOSTILE}"
    assert f"north{HOSTILE}" in here.page.inner_text("#subgroups")
    assert "predict 'run <i>' NEW" in here.page.inner_text("#command")
    assert here.page.locator("img, main script, main i, main b:not([id])").count() == 0
    ask(here.page, "recall", ("fpr", "<=", 50, f"site{HOSTILE}"))
    assert "Found" in here.page.inner_text("#verdict")


def test_no_row_of_the_data_is_in_the_file(hostile: tuple[Path, pd.DataFrame, Path]) -> None:
    out, frame, _ = hostile
    text = out.read_text(encoding="utf-8")
    for column in ("patient", "measured", "level"):
        assert [cell for cell in frame[column].astype(str) if cell in text] == []
    # What is told is of several cases, and no list has a place for each.
    told = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    n = sum(told["grid"]["rows"])

    def lengths(value: Any) -> Iterator[int]:
        if isinstance(value, list | dict):
            yield len(value)
            for each in value.values() if isinstance(value, dict) else value:
                yield from lengths(each)

    assert max(lengths(told)) < n / SMALLEST
    assert max(told["grid"]["bins"]) <= n / SMALLEST


def test_the_file_forbids_network_and_other_scripts(opened: Any, written: Path) -> None:
    here = opened(written)
    blocked = here.page.evaluate(
        """async () => {
          const broken = [];
          addEventListener("securitypolicyviolation", (event) => broken.push(event.effectiveDirective));
          await fetch("https://example.org/").catch(() => null);
          const script = document.createElement("script");
          script.textContent = "window.ran = true";
          document.body.append(script);
          const image = new Image();
          image.src = "https://example.org/x.png";
          await new Promise((done) => setTimeout(done, 300));
          return [window.ran ?? false, broken.sort()];
        }"""
    )
    assert blocked == [False, ["connect-src", "img-src", "script-src-elem"]]
    here.wrong.clear()  # the browser's own words about these


def test_equal_inputs_make_equal_files(run: Run, table: Path, written: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.html"
    report(run, table, out=again, subgroups=["sex"], memory_mb=40)  # in parts
    assert again.read_bytes() == written.read_bytes()


def test_all_that_is_wrong_is_told_at_once(run: Run, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.txt"
    with pytest.raises(InputError) as told:
        report(run, table, out=out, grid=50, subgroups=["sexx"])
    assert len(told.value.problems) == 3
    with pytest.raises(InputError, match="no two"):
        report(run, table, out=tmp_path / "report.html", subgroups=["age"])
    assert list(tmp_path.iterdir()) == []


def test_from_the_command_line(run: Run, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    asked = ["report", str(run.path), str(table), "--out", str(out), "--grid", "2", "--subgroups", "sex"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.stderr
    assert "633 validation rows, 30 positive, at 9 lambdas" in done.stdout
    assert out.as_uri() in done.stdout
    again = CliRunner().invoke(app, [*asked, "--smallest", "0"])
    assert again.exit_code == 2
    assert "--force" in again.stderr
    assert "--smallest" in again.stderr


def test_the_page_is_whole(written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    assert "{{" not in re.sub(r"<script.*?</script>|<style.*?</style>", "", text, flags=re.DOTALL)
    assert not re.search(r"\b(src|href)=[\"']?(https?:)?//", text)
    folder = Path(look.__file__).parent / "page"
    assert {p.stem for p in folder.glob("*.mjs")} == set(SCRIPTS)
    names: list[str] = []
    for name in SCRIPTS:
        module = (folder / f"{name}.mjs").read_text("utf-8")
        names += re.findall(r"^(?:export )?(?:async )?(?:const|let|function|class) (\w+)", module, re.MULTILINE)
        assert set(re.findall(r'from "\./(\w+)\.mjs"', module)) <= set(SCRIPTS[: SCRIPTS.index(name)])
    assert len(names) == len(set(names))
    assert page({"run": "{{DATA}}", "grid": {}}).count("{{DATA}}") == 2  # as told: in the title and in the data
