"""The report's page in a real browser: what it tells is what Python says, and anybody can use it.

Skipped where there is no Chromium, which `make test` installs where it can. What a reader does first is also done in
Firefox, where there is one.
"""

import base64
import dataclasses
import json
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from page_reference import chosen, near_best
from tunelater import look
from tunelater.aggregates import SMALLEST, BinnedGrid
from tunelater.cli import app
from tunelater.config import Config, default_space
from tunelater.demo import POSITIVE, TARGET
from tunelater.distributions import LambdaSpace
from tunelater.losses import logit
from tunelater.needs import Need
from tunelater.points import OperatingPoint
from tunelater.problems import DoubtfulInputWarning, InputError
from tunelater.reporting import SCRIPTS, page, report
from tunelater.runs import Run
from tunelater.workflow import count, fit

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
FIREFOX = next(filter(None, map(shutil.which, ("firefox-esr", "firefox"))), None)


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
    values = {"sex": reporting.joined_values(values["sex"], samples.target.numpy())}
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
        name = saved.value.suggested_filename
        assert f" --at {name} " in self.page.inner_text("#command")
        assert self.page.inner_text("#file") == name
        saved.value.save_as(folder / name)
        return OperatingPoint.load(folder / name)


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
        settled(one.page)
        return one

    yield open_page
    for context in contexts:
        context.close()
    assert [one.wrong for one in pages if one.wrong] == []


def settled(page: Any) -> None:
    """Waits until all that the last move changed is shown."""
    page.wait_for_selector("html[data-ready=yes]")


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
        expected = chosen(counted, need)
        assert point.lam == expected.lam, said
        assert point.log_odds_threshold == pytest.approx(expected.log_odds_threshold, abs=1e-12)
        assert point.prior == pytest.approx(expected.prior, rel=1e-12)
        assert (point.simpler_than, point.model, point.n) == (expected.simpler_than, expected.model, 633)
        assert Need.read(point.needs).in_words == need.in_words
    here.page.uncheck("#simplest")
    ask(here.page, "f1")
    assert here.download(tmp_path).lam == chosen(counted, Need.of(maximize="f1", prior=0.3), simplest=False).lam


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
    set_slider(here.page, "threshold", 12)
    point = here.download(tmp_path)
    assert run.path is not None
    command = here.page.inner_text("#command").split()
    assert command[:3] == ["tunelater", "predict", run.path.name]
    out = tmp_path / "alerts.csv"
    args = ["predict", str(run.path), str(table), *command[4:]]
    args = [str(tmp_path / a) if a.endswith((".json", ".csv")) and "/" not in a else a for a in args]
    done = CliRunner().invoke(app, args)
    assert done.exit_code == 0, done.stderr
    rows = run.rows["validation"]
    alerts = pd.read_csv(out)["prediction"].to_numpy()[rows] == run.form.labels[1]
    positive = run.form.labelled(table, None).samples.target.numpy()[rows] == 1
    assert 0 < alerts.sum() < len(alerts)
    i = next(i for i in range(len(counted)) if counted.lambdas["tau"][i] == point.lam["tau"]
             and counted.lambdas["gamma"][i] == point.lam["gamma"])  # fmt: skip
    one = counted.of_lambdas[i]
    k = counted.edge_near(i, point.log_odds_threshold - logit(point.prior) + logit(counted.prior))
    assert (alerts & positive).sum() == one.positives[: k + 1].sum()
    assert (alerts & ~positive).sum() == one.negatives[: k + 1].sum()
    assert point.metrics["recall"].value == pytest.approx((alerts & positive).sum() / positive.sum())
    assert float(shown(here.page, "recall")[:-1]) == pytest.approx(100 * point.metrics["recall"].value, abs=0.05)


def test_the_map_and_the_curves_pick(opened: Any, written: Path) -> None:
    here = opened(written)

    def saved() -> OperatingPoint:
        return OperatingPoint.from_json(downloaded(here.page))

    here.page.select_option("#heat-metric", "auc")
    over = here.page.locator("#heat .u-over")
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    i, j = 8, 2  # of 10 x 10
    here.page.mouse.click(box["x"] + box["width"] * (i + 0.5) / 10, box["y"] + box["height"] * (1 - (j + 0.5) / 10))
    assert here.page.input_value("#slider-gamma") == str(i)
    assert here.page.input_value("#slider-tau") == str(j)
    before = saved()
    for chart in ("roc", "pr", "cost", "scores", "decision"):
        over = here.page.locator(f"#{chart} .u-over")
        over.scroll_into_view_if_needed()
        box = over.bounding_box()
        here.page.mouse.click(box["x"] + 0.72 * box["width"], box["y"] + 0.3 * box["height"])
        after = saved()
        assert after.lam == before.lam
        assert after.log_odds_threshold != before.log_odds_threshold, chart
        set_slider(here.page, "threshold", 20)
        before = saved()


def test_a_link_reproduces_the_state(opened: Any, written: Path, tmp_path: Path) -> None:
    here = opened(written)
    here.page.fill("#prior", "2.5")
    here.page.fill("#fn", "7")
    ask(here.page, "recall", ("alert_rate", "<=", 8, ""), ("recall", ">=", 50, "sex"))
    here.page.wait_for_function("() => location.hash.includes('s=alert_rate') && location.hash.includes('found=1')")
    again = opened(written, "#" + here.page.url.split("#")[1])
    assert again.download(tmp_path) == here.download(tmp_path)
    for name in ("#prior", "#fn", "#objective", "#column", "#heat-metric"):
        assert again.page.input_value(name) == here.page.input_value(name)
    set_slider(here.page, "threshold", 13)
    here.page.wait_for_function("() => !location.hash.includes('found=1')")
    by_hand = opened(written, "#" + here.page.url.split("#")[1])
    point = by_hand.download(tmp_path)
    assert point == here.download(tmp_path)
    assert point.needs == {"prior": 0.025}


BROKEN = (
    ("#t=0&o=net_benefit", "what is wanted"),
    ("#t=0&o=net_benefit@0&found=1", "what is wanted"),
    ("#t=0&o=net_benefit@&s=recall>=0.5", "what is wanted"),
    ("#t=0&o=net_benefit@1e-9&found=1", "what is wanted"),
    ("#t=0&o=recall@5", "what is wanted"),
    ("#t=0&o=toString&found=1", "what is wanted"),
    ("#t=0&s=recall>=0.5", "what is wanted"),
    ("#t=0&fn=0&fp=0&o=cost&found=1", "cost of a miss, cost of a false alarm"),
    ("#t=0&fn=1e300&fp=-1&volume=0&o=cost&found=1", "cost of a miss, cost of a false alarm, cases a day"),
    ("#t=0&fn=x&volume=Infinity&p=1e-300", "cost of a miss, cases a day, share of positives"),
    ("#t=0&p=1&o=f1&found=1", "share of positives"),
    ("#t=x", "threshold"),
    ("#t=constructor&l.tau=1", "lambda, threshold"),
    ("#t=1e999&l.tau=99&l.gamma=-99", "lambda (the nearest is shown)"),
    ("#t=1&l.tau=&p=2&o=<b>&s=recall", "share of positives, what is wanted, lambda"),
    ("#t=0&o=f1&s=recall>=7&s=mcc>=-2&s=recall>=0.2&s=net_benefit@0.1>=0&s=precision>=x&found=1", "4 conditions"),
    ("#t=0&o=f1&s=recall>=0.1 in every ward&s=recall>=0.1 in every sex&map=at:x&groups=ward",
     "1 condition, figure in the map, column of subgroups"),
    ("#t=0&o=f1" + "&s=recall>=0.1" * 500, "488 conditions"),
    ("#%E0%A4%A", None),
    ("#o=recall@5", None),
)  # fmt: skip


@pytest.mark.parametrize("how", ["opened", "followed"])
def test_a_broken_link_leaves_a_working_page_that_says_so(opened: Any, written: Path, how: str) -> None:
    here = opened(written)
    for broken, left_out in BROKEN:
        if how == "opened":
            here.page.goto("about:blank")
            here.page.goto(written.as_uri() + broken)
        else:
            here.page.evaluate("hash => { location.hash = hash; }", broken)
            here.page.evaluate("() => new Promise((done) => setTimeout(done, 20))")
        settled(here.page)
        told = here.page.inner_text("#verdict")
        said = "is no choice of this page" if left_out is None else f"makes no sense here: {left_out}."
        assert said in told, (broken, told)
        OperatingPoint.from_json(downloaded(here.page))
        set_slider(here.page, "threshold", 5)
        assert shown(here.page, "recall") != "–"


# What "Use this point" gives to the browser to save.
SAVED = """async () => {
  const [create, click] = [URL.createObjectURL, HTMLAnchorElement.prototype.click];
  let saved = null;
  URL.createObjectURL = (blob) => ((saved = blob), "#");
  HTMLAnchorElement.prototype.click = () => {};
  document.getElementById("use").click();
  [URL.createObjectURL, HTMLAnchorElement.prototype.click] = [create, click];
  return saved.text();
}"""


def downloaded(page: Any) -> str:
    return str(page.evaluate(SAVED))


# A whole state of the form, by the events that entering it would give: a reader's own clicks take a frame or two each.
ENTER = """({ fields, objective, benefit, constraints }) => {
  const enter = (place, value) => {
    place.value = value;
    for (const event of ["input", "change"]) place.dispatchEvent(new Event(event, { bubbles: true }));
  };
  for (const [id, value] of Object.entries(fields)) enter(document.getElementById(id), value);
  enter(document.getElementById("objective"), objective);
  const level = document.getElementById("benefit-at");
  if (level.checkVisibility()) enter(level, benefit);
  for (const row of document.querySelectorAll(".constraint")) row.querySelector("button").click();
  for (const { metric, relation, bound, every } of constraints) {
    document.getElementById("add").click();
    const row = [...document.querySelectorAll(".constraint")].at(-1);
    const selects = row.querySelectorAll("select");
    enter(selects[0], selects[0].options[metric % selects[0].options.length].value);
    enter(selects[1], relation);
    enter(row.querySelector("input"), bound);
    enter(selects[2], every);
  }
  document.querySelector("#need button[type=submit]").click();
}"""


def test_every_point_that_can_be_had_is_one(opened: Any, written: Path, tmp_path: Path) -> None:
    """Whatever is asked for and entered: the page refuses what `predict` would, and keeps what was."""
    here = opened(written)
    rng = np.random.default_rng(0)
    options = "(id) => [...document.querySelectorAll(`${id} option`)].map((o) => o.value)"
    objectives = here.page.evaluate(options, "#objective")
    entered = {
        "prior": ["", "5", "0.0000001", "1e-7", "1e-28", "99.9999999", "100", "0", "-3", "1e-300"],
        "volume": ["1000", "1e300", "0", "", "0.001"],
        "fn": ["0", "50", "1e-300", "1e12", "1e300", "-1", ""],
        "fp": ["0", "1", "1e12", "1e308", "-0", ""],
    }
    found = 0
    for i in range(24):
        constraints = [
            {
                "metric": int(rng.integers(1000)),
                "relation": str(rng.choice([">=", "<="])),
                "bound": str(rng.choice(["0", "0.5", "1e-9", "1", "50", "100", "-1", "101", ""])),
                "every": str(rng.choice(["", "sex"])),
            }
            for _ in range(int(rng.integers(0, 3)))
        ]
        here.page.evaluate(
            ENTER,
            {
                "fields": {field: str(rng.choice(values)) for field, values in entered.items()},
                "objective": objectives[i % len(objectives)],
                "benefit": str(rng.choice(["", "0", "0.1", "0.00001", "10", "99.9", "100"])),
                "constraints": constraints,
            },
        )
        assert here.page.locator(".constraint").count() == len(constraints)
        found += here.page.inner_text("#verdict").startswith("Found:")
        point = OperatingPoint.from_json(downloaded(here.page))
        Need.read(point.needs)
        set_slider(here.page, "threshold", int(rng.integers(0, 200)))
        OperatingPoint.from_json(downloaded(here.page))
    assert found > 10


def test_a_choice_is_pasted_as_text(opened: Any, written: Path, tmp_path: Path) -> None:
    """Where the page is opened from disk: its address would tell where it lies, and lead nobody else there."""
    here = opened(written)
    here.page.fill("#volume", "250")
    ask(here.page, "precision", ("recall", ">=", 80, "sex"))
    here.page.select_option("#heat-metric", "at:mcc")
    here.page.click("#link")
    copied = here.page.input_value("#state")
    assert copied.startswith("#l.")
    assert written.name not in copied
    other = opened(written)
    other.page.fill("#state", f" {copied} ")
    other.page.click("#paste button[type=submit]")
    assert pictures(other.page) == pictures(here.page)
    assert other.page.input_value("#volume") == "250"
    assert other.download(tmp_path) == here.download(tmp_path)
    other.page.fill("#state", "point.json")
    other.page.click("#paste button[type=submit]")
    assert "no choice of this page" in other.page.inner_text("#taken")


def test_files_of_different_choices_have_different_names(opened: Any, written: Path) -> None:
    """A browser that has saved one would call the next of the same name otherwise, and the command take the older."""
    here = opened(written)
    names = []
    for move in (
        lambda: set_slider(here.page, "threshold", 12),
        lambda: set_slider(here.page, "threshold", 13),
        lambda: set_slider(here.page, "tau", 3),
        lambda: here.page.fill("#prior", "1"),
        lambda: ask(here.page, "f1"),
        lambda: set_slider(here.page, "threshold", 12),
    ):
        move()
        names.append(here.page.inner_text("#file"))
    assert len(set(names)) == len(names)
    set_slider(here.page, "threshold", 13)
    there = here.page.inner_text("#file")
    set_slider(here.page, "threshold", 12)
    assert [here.page.inner_text("#file"), there == names[-1]] == [names[-1], False]


def test_only_what_was_copied_is_told_to_be(opened: Any, written: Path, tmp_path: Path) -> None:
    here = opened(written)
    taken = here.page.locator("#taken")
    here.page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }")
    here.page.evaluate("() => { document.execCommand = () => false; }")
    here.page.focus("#copy")
    for button in ("#copy", "#link", "#use"):
        here.page.click(button)
        here.page.wait_for_function("() => document.getElementById('taken').textContent.includes('does not let')")
        here.page.evaluate("() => (document.getElementById('taken').textContent = '')")
        assert here.page.evaluate("document.activeElement.id") == button[1:]
    here.page.evaluate("() => { navigator.clipboard.writeText = (text) => { window.copied = text; } }")
    here.page.click("#copy")
    here.page.wait_for_function("() => document.getElementById('taken').textContent === 'The command is copied.'")
    assert here.page.evaluate("window.copied") == here.page.inner_text("#command")
    here.download(tmp_path)
    assert here.page.inner_text("#file") in taken.inner_text()


def test_a_threshold_outlasts_the_lambdas_tried(opened: Any, written: Path) -> None:
    here = opened(written)
    home = {name: int(here.page.input_value(f"#slider-{name}")) for name in ("gamma", "tau")}
    for place in (0, 3, 11, 17):
        set_slider(here.page, "threshold", place)
        before = here.page.inner_text("#file")
        for there in (9, 0, 7):
            for name in home:
                set_slider(here.page, name, there)
        assert here.page.inner_text("#file") != before
        for name, back in home.items():
            set_slider(here.page, name, back)
        assert here.page.inner_text("#file") == before


def test_what_is_wrong_in_a_field_is_told_and_leaves_figures(opened: Any, written: Path, tmp_path: Path) -> None:
    here = opened(written)
    here.page.fill("#prior", "5")
    before = here.page.inner_text("#outcome"), here.download(tmp_path)
    for field, bad in (("prior", "150"), ("prior", "0"), ("prior", "-1"), ("volume", "-3"), ("volume", ""),
                       ("fn", ""), ("fp", "-2")):  # fmt: skip
        good = here.page.input_value(f"#{field}")
        here.page.fill(f"#{field}", bad)
        told = here.page.inner_text(f"#{field}-problem")
        assert re.search(r"^Must be .*\. Figures are still for [\d.,%]+\.$", told), (field, bad, told)
        assert here.page.get_attribute(f"#{field}", "aria-invalid") == "true"
        assert f"{field}-problem" in here.page.get_attribute(f"#{field}", "aria-describedby")
        assert (here.page.inner_text("#outcome"), here.download(tmp_path)) == before, (field, bad)
        here.page.fill(f"#{field}", good)
        assert here.page.inner_text(f"#{field}-problem") == ""
        assert here.page.get_attribute(f"#{field}", "aria-invalid") == "false"
    # Errors have to cost something: either field may mend what is wrong with both.
    here.page.fill("#fn", "0")
    here.page.fill("#fp", "0")
    assert all(here.page.inner_text(f"#{field}-problem").startswith("Must be 0 or more, and") for field in ("fn", "fp"))
    here.page.fill("#fp", "3")
    assert [here.page.inner_text(f"#{field}-problem") for field in ("fn", "fp")] == ["", ""]
    assert shown(here.page, "cost") != "–"


def test_nothing_is_stale_while_the_form_is_unfinished(opened: Any, written: Path, tmp_path: Path) -> None:
    """At another share of positives the need that was found for is found again, whatever is half written."""
    here = opened(written)
    ask(here.page, "recall", ("alert_rate", "<=", 5, ""))
    here.page.click("#add")
    here.page.locator(".constraint input").nth(1).fill("")
    here.page.fill("#prior", "0.5")
    half = here.download(tmp_path), here.page.inner_text("#outcome")
    there = opened(written)
    there.page.fill("#prior", "0.5")
    ask(there.page, "recall", ("alert_rate", "<=", 5, ""))
    assert (there.download(tmp_path), there.page.inner_text("#outcome")) == half
    # What could not be had may be had again.
    ask(here.page, "recall", ("precision", ">=", 99, ""), ("recall", ">=", 60, ""))
    assert here.page.inner_text("#verdict").startswith("No lambda and threshold has precision at least 99")
    here.page.fill("#prior", "90")
    assert here.page.inner_text("#verdict").startswith("Found:")


def test_of_nobody_there_is_no_precision(opened: Any, written: Path) -> None:
    here = opened(written)
    set_slider(here.page, "threshold", 0)
    last = int(here.page.get_attribute("#slider-threshold", "max"))
    nobody = {here.page.inner_text("output[for=slider-threshold]"): 0}
    set_slider(here.page, "threshold", last)
    nobody[here.page.inner_text("output[for=slider-threshold]")] = last
    assert set(nobody) == {"nobody", "everybody"}
    set_slider(here.page, "threshold", nobody["nobody"])
    settled(here.page)
    assert shown(here.page, "precision") == "–"
    assert shown(here.page, "recall") == "0%"
    assert "–\nnobody is alerted on" in here.page.inner_text("#comparison").replace("\t", "\n")
    assert here.page.inner_text("#summary").endswith("There are no alerts.")
    set_slider(here.page, "threshold", nobody["everybody"])
    assert shown(here.page, "npv") == "–"
    assert shown(here.page, "precision") not in ("–", "0%")


# ------------------------------------------------------------------------------------------- the map


def figure_in(text: str) -> float:
    return float(re.search(r"([-\d.,]+)%?$", text)[1].replace(",", "")) * (0.01 if text.endswith("%") else 1)


def test_a_day_is_so_many_cases(opened: Any, written: Path) -> None:
    here = opened(written)
    set_slider(here.page, "threshold", 12)
    of = {name: figure_in(shown(here.page, name)) for name in ("alert_rate", "cost")}
    for volume in (1000, 250, 3):
        here.page.fill("#volume", str(volume))
        assert figure_in(shown(here.page, "alerts")) == pytest.approx(volume * of["alert_rate"], rel=0.01)
        assert figure_in(shown(here.page, "cost_a_day")) == pytest.approx(volume * of["cost"], rel=0.01)


def test_the_map_tells_its_figure_in_its_own_unit(opened: Any, written: Path) -> None:
    """Of the chosen lambda what the table has; the bright end is the better one."""
    here = opened(written)
    set_slider(here.page, "tau", 5)
    set_slider(here.page, "threshold", 12)
    for name in ("recall", "precision", "specificity", "cost", "npv", "f1", "alert_rate"):
        here.page.select_option("#heat-metric", f"at:{name}")
        settled(here.page)
        assert here.page.inner_text("#heat-at").endswith(f" {shown(here.page, name)}"), name
        worst, best = (figure_in(here.page.inner_text(f"#heat-{end}")) for end in ("worst", "best"))
        lower = name in ("cost", "alert_rate")
        assert worst >= best if lower else worst <= best, name
    here.page.get_by_role("button", name="Lowest cost").click()
    here.page.select_option("#heat-metric", "need")
    settled(here.page)
    assert here.page.inner_text("#heat-at").endswith(f"expected cost {shown(here.page, 'cost')}")
    assert "%" not in here.page.inner_text("#heat-figure .ramp")
    known = here.page.evaluate("[...document.querySelectorAll('#objective option')].map((o) => `at:${o.value}`)")
    mapped = here.page.evaluate("[...document.querySelectorAll('#heat-metric option')].map((o) => o.value)")
    whole = {"auc", "average_precision", "brier", "log_loss"}
    assert set(mapped) == {"need", *whole, *known}
    for name in mapped:
        here.page.select_option("#heat-metric", name)
        settled(here.page)
        assert re.search(r" -?[\d.]+%?$", here.page.inner_text("#heat-at")), name
        assert "about" not in here.page.inner_text("#heat-at")
    # At another share of positives those of whole lambdas are from counts, but for the area under the ROC curve.
    here.page.fill("#prior", "1")
    for name in mapped:
        here.page.select_option("#heat-metric", name)
        settled(here.page)
        about = name in whole - {"auc"}
        assert (" about " in here.page.inner_text("#heat-at")) == about, name
        assert ("About, for" in here.page.inner_text("#heat-says")) == about, name


def test_the_map_is_read_by_pointer_and_keys(opened: Any, written: Path, counted: BinnedGrid) -> None:
    here = opened(written)
    here.page.select_option("#heat-metric", "auc")
    set_slider(here.page, "gamma", 3)
    set_slider(here.page, "tau", 3)
    settled(here.page)
    before = here.page.inner_text("#heat-at"), here.page.inner_text("#file")
    here.page.focus("#heat")
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "ArrowLeft"):
        here.page.keyboard.press(key)
    read = here.page.inner_text("#heat-at")
    assert read != before[0]
    assert here.page.inner_text("#file") == before[1]  # nothing is chosen yet
    over = here.page.locator("#heat .u-over")
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    here.page.mouse.move(box["x"] + box["width"] * 0.05, box["y"] + box["height"] * 0.05)
    pointed = here.page.inner_text("#heat-at")
    assert pointed not in (read, before[0])
    here.page.mouse.move(box["x"] + box["width"] * 0.45, box["y"] + box["height"] * 0.55)
    assert here.page.inner_text("#heat-at") == read
    here.page.mouse.move(0, 0)
    assert here.page.inner_text("#heat-at") == before[0]
    here.page.keyboard.press("ArrowUp")
    here.page.keyboard.press("Enter")
    settled(here.page)
    assert here.page.input_value("#slider-tau") == "4"
    assert "(chosen)" in here.page.inner_text("#heat-at")


def test_the_map_marks_what_may_be_chance(opened: Any, written: Path, counted: BinnedGrid, tmp_path: Path) -> None:
    """A dot in each lambda within one standard error of the best, as choosing counts it."""
    here = opened(written)

    def dotted() -> int:
        settled(here.page)
        told = re.search(r"Dotted, (\d+) of 100: within", here.page.inner_text("#heat-says"))
        return int(told[1]) if told else -1

    for objective, constraints, said in (
        ("precision", [("recall", ">=", 80, "")], {"maximize": "precision", "subject_to": "recall>=0.8"}),
        ("recall", [("alert_rate", "<=", 5, "")], {"maximize": "recall", "subject_to": "alert_rate<=0.05"}),
        ("cost", [], {"cost": {"fn": 50, "fp": 1}}),
        ("recall", [("fpr", "<=", 10, "sex")], {"maximize": "recall", "subject_to": "fpr<=0.1 in every sex"}),
    ):
        ask(here.page, objective, *constraints)
        assert dotted() == near_best(counted, Need.of(**said)).sum(), said
        assert "within one standard error of the best" in here.page.inner_text("#heat-at")
    # At one threshold: here of recall, whose standard error has half an observation more of either kind.
    set_slider(here.page, "threshold", 12)
    here.page.select_option("#heat-metric", "at:recall")
    point = here.download(tmp_path)
    wanted = point.log_odds_threshold - logit(point.prior) + logit(counted.prior)
    found = np.array([
        one.positives[: counted.edge_near(i, wanted) + 1].sum() for i, one in enumerate(counted.of_lambdas)
    ])  # fmt: skip
    rate = (found.max() + 0.5) / 31
    step = np.sqrt(rate * (1 - rate) / 31)
    error = (min(rate + step, 1) - max(rate - step, 0)) / 2
    assert dotted() == (found / 30 >= found.max() / 30 - error).sum()
    # None is counted of metrics of whole lambdas.
    here.page.select_option("#heat-metric", "auc")
    assert dotted() == -1


# The address is written a moment after a move, and of sizes and schemes a page hears a frame later.
AT_REST = "() => new Promise((done) => setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(done)), 300))"
PICTURES = """() => Object.fromEntries([
  ...[...document.querySelectorAll(".chart")].flatMap((chart) => [
    [chart.id, [
      ...[...chart.querySelectorAll("canvas")].map((canvas) => canvas.toDataURL()),
      ...[...chart.querySelectorAll(".mark:not([hidden])")].map((mark) => mark.outerHTML),
    ]],
    [`${chart.id} in words`, chart.getAttribute("aria-label")],
  ]),
  ...[...document.querySelectorAll("section:not(#choose, #take), #sliders")].map((of) => [of.id, of.innerText]),
])"""


def pictures(page: Any) -> dict[str, Any]:
    """All that the page shows: the pixels and the marks of every chart, and texts."""
    settled(page)
    return page.evaluate(PICTURES)


def test_what_moves_leave_is_what_is_drawn_anew(opened: Any, written: Path) -> None:
    """A move draws only what it changes; a page that is opened in the same state draws all of it."""
    here = opened(written)
    before = pictures(here.page)
    moves: list[tuple[Callable[[], None], set[str]]] = [
        (lambda: set_slider(here.page, "threshold", 14), {"roc", "scores", "outcome", "compare", "groups"}),
        (lambda: set_slider(here.page, "tau", 7), {"roc", "heat", "reliability"}),
        (lambda: here.page.fill("#volume", "77"), {"outcome"}),
        (lambda: here.page.fill("#prior", "3"), {"pr", "cost", "decision", "reliability", "scores", "groups"}),
        (lambda: here.page.fill("#fn", "9"), {"cost", "cost in words", "compare"}),
        (lambda: here.page.select_option("#heat-metric", "at:cost"), {"heat", "heat in words", "pictures"}),
        (lambda: here.page.fill("#fp", "2"), {"cost", "heat", "pictures"}),
        (lambda: here.page.set_viewport_size({"width": 1000, "height": 900}), {"roc", "heat"}),
        (lambda: here.page.emulate_media(color_scheme="dark"), {"roc", "heat", "scores"}),
    ]
    for move, changed in moves:
        move()
        here.page.evaluate(AT_REST)
        after = pictures(here.page)
        assert changed <= {name for name in after if after[name] != before[name]}
        before = after
    settings = {"viewport": {"width": 1000, "height": 900}, "color_scheme": "dark"}
    again = pictures(opened(written, "#" + here.page.url.split("#")[1], **settings).page)
    assert {name for name in again if again[name] != before[name]} == set()


# As who drags the edge of a window does.
RESIZED = """async () => {
  const main = document.querySelector("main");
  for (let i = 0; i < 41; i++) {
    main.style.width = i % 2 ? "60%" : "";
    await new Promise(requestAnimationFrame);
  }
}"""


def test_a_window_that_is_resized_keeps_all_curves(opened: Any, written: Path) -> None:
    """Also where a size changes while the curves of another are still being drawn."""
    here = opened(written)
    before = pictures(here.page)
    for _ in range(3):
        here.page.evaluate(RESIZED)
        here.page.evaluate(AT_REST)
        assert pictures(here.page) == before


def test_in_firefox(written: Path, counted: BinnedGrid, tmp_path: Path) -> None:
    client = pytest.importorskip("firefox", reason="Firefox is driven with the package websockets, which is missing")
    if FIREFOX is None:
        pytest.skip("this test needs Firefox, which is not installed: apt-get install firefox-esr")
    ready = "document.documentElement.dataset.ready === 'yes'"
    with client.firefox(FIREFOX, tmp_path) as tab:
        tab.goto(written.as_uri())
        tab.wait_for(ready)
        # A need, typed; the point, saved.
        tab.click("#prior")
        tab.type("2")
        tab.click("#presets button:nth-of-type(2)")  # few alerts
        assert tab.evaluate("() => document.getElementById('verdict').textContent").startswith("Found:")
        tab.click("#use")
        saved = tmp_path / "saved" / tab.evaluate("() => document.getElementById('file').textContent")
        tab.wait_for("document.getElementById('taken').textContent.includes('copied')")
        until = time.monotonic() + 30
        while not (saved.is_file() and saved.stat().st_size) and time.monotonic() < until:
            time.sleep(0.05)
        point = OperatingPoint.load(saved)
        expected = chosen(counted, Need.of(maximize="recall", subject_to="alert_rate<=0.05", prior=0.02))
        assert point.lam == expected.lam
        assert point.log_odds_threshold == pytest.approx(expected.log_odds_threshold, abs=1e-12)
        # By hand: the map with the mouse, the threshold with the keys.
        tab.click("#heat .u-over", 0.85, 0.75)  # of 10 x 10
        sliders = "() => ['gamma', 'tau', 'threshold'].map((name) => document.getElementById(`slider-${name}`).value)"
        assert tab.evaluate(sliders)[:2] == ["8", "2"]
        told = "() => parseFloat(document.querySelector('output[for=slider-threshold]').textContent)"
        before = tab.evaluate(told)
        tab.evaluate("() => document.getElementById('slider-threshold').focus()")
        tab.type("\ue014")  # the right arrow
        assert tab.evaluate(told) > before
        # A page that is opened at the address draws the same, also on the other screen that this one was moved to.
        tab.to_screen_of(2)
        tab.evaluate(AT_REST)
        tab.wait_for(ready)
        left = tab.evaluate(PICTURES)
        address = tab.evaluate("() => location.href")
        tab.goto("about:blank")
        tab.goto(address)
        tab.wait_for(ready)
        anew = tab.evaluate(PICTURES)
        assert {name for name in anew if anew[name] != left[name]} == set()
        axe = pytest.importorskip("axe_playwright_python.base", reason="needs axe-playwright-python")
        tab.evaluate(f"() => {{ {axe.AXE_SCRIPT} }}")
        assert tab.evaluate("() => axe.run().then(({ violations }) => violations.map(({ id }) => id))") == []
        # Charts are as wide as paper before Firefox copies the page for its printer, in which nothing can be drawn.
        widths = "[...document.querySelectorAll('.uplot')].map((plot) => plot.offsetWidth)"
        tab.evaluate(f"() => {{ addEventListener('beforeprint', () => (window.printed = {widths})); }}")
        assert tab.print().startswith(b"%PDF")
        assert set(tab.evaluate("() => window.printed")) == {308}
        assert tab.wrong == []


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
    for about_lambdas in ("#heat-figure", "#compare", "#simplest", ".key-other"):
        assert here.page.is_visible(about_lambdas) == (done.lambdas > 1)
    assert ("lambda" in here.page.inner_text("#verdict")) == (done.lambdas > 1)


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
    start = chosen(counted, Need.of(maximize="recall", subject_to="fpr<=0.02", prior=0.01))
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
    {"viewport": {"width": 320, "height": 640}},
])  # fmt: skip
def test_axe_finds_nothing(opened: Any, written: Path, settings: dict[str, Any]) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    here = opened(written, **settings)
    here.page.focus("#row-recall .term")
    assert here.page.is_visible("#tip")
    results = axe.Axe().run(here.page)
    assert results.violations_count == 0, results.generate_report()
    here.page.click("#add")
    inside = "(e) => e.scrollWidth <= e.clientWidth && e.getBoundingClientRect().right <= innerWidth"
    for part in ("#choose", ".constraint", ".fields", "#sliders", "#take", "#heat-figure"):
        assert here.page.eval_on_selector(part, inside), part
    wide = here.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_an_empty_field_says_can_be_read(opened: Any, written: Path, scheme: str) -> None:
    """Which axe does not look at: WCAG 2.2, 1.4.3."""
    here = opened(written, color_scheme=scheme)
    colours = here.page.evaluate("""() => {
      const field = document.getElementById("prior");
      const of = (style, name) => style[name].match(/[\\d.]+/g).map(Number);
      const hint = getComputedStyle(field, "::placeholder");
      return [of(hint, "color"), of(getComputedStyle(field), "backgroundColor"), Number(hint.opacity)];
    }""")
    *both, opacity = colours
    assert opacity == 1
    channels = np.array([colour[:3] for colour in both]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    dark, bright = sorted(linear @ [0.2126, 0.7152, 0.0722])
    assert [len(colour) for colour in both] == [3, 3]
    assert (bright + 0.05) / (dark + 0.05) >= 4.5


def test_by_keyboard_alone(opened: Any, written: Path, tmp_path: Path) -> None:
    here = opened(written)
    keys = here.page.keyboard
    reached: list[str] = []
    for _ in range(80):
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


def test_terms_are_explained_where_they_stand_and_in_the_glossary(opened: Any, written: Path) -> None:
    here = opened(written)
    page = here.page
    explained = "[...document.querySelectorAll('dt')].map((term) => [term.id.slice(5), term.nextSibling.textContent])"
    glossary = dict(page.evaluate(explained))
    terms = page.evaluate("[...document.querySelectorAll('[data-explains]')].map((b) => b.dataset.explains)")
    assert set(terms) <= set(glossary)
    assert {"gamma", "tau", "threshold", "miss", "false_alarm", "alert", "alerts", "standard_error", "validation",
            "specificity", "alert_rate"} <= set(terms)  # fmt: skip
    assert page.locator("label button, label a").count() == 0
    # What opens at the pointer can be pointed at, and goes when told to (WCAG 2.2, 1.4.13).
    term, tip = page.locator("#row-precision .term"), page.locator("#tip")
    term.scroll_into_view_if_needed()
    term.hover()
    assert tip.inner_text() == glossary["precision"]
    box = tip.bounding_box()
    page.mouse.move(box["x"] + 8, box["y"] + box["height"] / 2, steps=4)
    page.wait_for_timeout(500)
    assert tip.is_visible()
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    # Nor does that of a term that lay under it come, as a browser says that the pointer is on it now.
    entered = (
        """(at) => document.elementFromPoint(at.clientX, at.clientY).dispatchEvent(new MouseEvent("mouseenter", at))"""
    )
    page.evaluate(entered, {"clientX": box["x"] + 8, "clientY": box["y"] + box["height"] / 2})
    assert not tip.is_visible()
    term.hover()
    assert tip.is_visible()
    page.mouse.move(0, 0)
    tip.wait_for(state="hidden")


def test_the_picture_of_a_thousand_adds_up(opened: Any, written: Path) -> None:
    here = opened(written)
    for prior in ("", "0.1", "30"):
        here.page.fill("#prior", prior)
        for place in (0, 5, 16):
            set_slider(here.page, "threshold", place)
            n = {kind: int(here.page.inner_text(f"#n-{kind}")) for kind in ("hit", "missed", "alarm", "alone")}
            drawn = {kind: here.page.evaluate("k => document.querySelector(`#icons .${k}`).getAttribute('d')", kind)
                     for kind in n}  # fmt: skip
            assert sum(n.values()) == 1000
            assert {kind: path.count("M") for kind, path in drawn.items()} == n
            positives = n["hit"] + n["missed"]
            is_are = "is" if positives == 1 else "are"
            assert here.page.inner_text("#summary").startswith(f"Of 1,000 cases {positives} {is_are} positive: ")
            if prior:
                assert positives == round(10 * float(prior))


def test_rare_events_are_told_among_more_cases(opened: Any, written: Path) -> None:
    here = opened(written)
    set_slider(here.page, "threshold", 12)
    for prior, many, positives in (("0.01", "100,000", 10), ("0.0003", "10,000,000", 30), ("0.07", "100,000", 70)):
        here.page.fill("#prior", prior)
        told = here.page.inner_text("#summary")
        found = re.search(rf"Of {many} cases {positives} are positive: (\d+) (?:is|are) found and (\d+) missed\.", told)
        assert found, told
        assert int(found[1]) + int(found[2]) == positives
        assert int(found[1]) / positives == pytest.approx(figure_in(shown(here.page, "recall")), abs=0.5 / positives)
    here.page.fill("#prior", "0.01")
    assert here.page.inner_text("#summary").startswith("Of 1,000 cases fewer than 1 is positive, 0.1 on average. ")


def test_finds_and_misses_that_a_thousand_cases_round_to_none_are_told(opened: Any, written: Path) -> None:
    here = opened(written)
    stops = int(here.page.get_attribute("#slider-threshold", "max"))
    told_in_more = 0
    for prior in ("0.2", "0.5", "2"):
        here.page.fill("#prior", prior)
        for place in (3, stops // 2, stops - 3, stops - 1):
            set_slider(here.page, "threshold", place)
            recall = figure_in(shown(here.page, "recall"))
            summary = here.page.inner_text("#summary")
            counts = re.findall(r"([\d,]+) (?:is|are) found and ([\d,]+) missed", summary)
            found, missed = (int(n.replace(",", "")) for n in counts[-1])
            assert (found > 0, missed > 0) == (recall > 0, recall < 1), summary
            told_in_more += len(counts) - 1
    assert told_in_more > 0


def test_whoever_is_alerted_on_is_said_in_words(opened: Any, written: Path) -> None:
    here = opened(written)
    stops = here.page.get_attribute("#slider-threshold", "max")
    told = []
    for place in ("0", "5", stops):
        set_slider(here.page, "threshold", place)
        told.append(here.page.get_attribute("#slider-threshold", "aria-valuetext"))
    assert [told[0], told[2]] == ["alert on everybody", "alert on nobody"]
    assert re.fullmatch(r"alert from probability [\d.]+%", told[1])
    # Of everybody all are negative that are not positive, with a mark between thousands.
    set_slider(here.page, "threshold", 0)
    here.page.fill("#prior", "0.001")
    assert here.page.inner_text("#n-alarm") == "1,000"
    here.page.fill("#fp", "1")
    here.page.evaluate(AT_REST)
    settled(here.page)
    assert " 1,000 at the point" in here.page.get_attribute("#cost", "aria-label")


def test_paper_is_light_and_as_wide_as_paper(opened: Any, written: Path) -> None:
    """On whatever screen, and before the page is laid out on a sheet, of which some browsers print a copy."""
    here = opened(written, color_scheme="dark", viewport={"width": 540, "height": 900})
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    widths = "[...document.querySelectorAll('.uplot')].map((plot) => plot.offsetWidth)"
    # In print, clearing a canvas clears what lies under it too: there are no two over each other.
    layers = "[...document.querySelectorAll('.chart')].map((chart) => chart.querySelectorAll('canvas').length)"
    assert here.page.evaluate(layers) == [1] * 7
    before = pictures(here.page)
    wide = here.page.evaluate(widths)
    assert min(wide) > 400
    assert here.page.evaluate(ground) != "rgb(255, 255, 255)"
    here.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert here.page.evaluate(ground) == "rgb(255, 255, 255)"
    assert set(here.page.evaluate(widths)) == {308}
    on_paper = pictures(here.page)
    assert all(on_paper[chart] != before[chart] for chart in ("roc", "heat", "scores"))
    here.page.evaluate("dispatchEvent(new Event('afterprint'))")
    here.page.wait_for_selector("html:not([data-paper])")
    assert here.page.evaluate(widths) == wide
    assert pictures(here.page) == before
    here.page.emulate_media(media="print")
    assert here.page.evaluate(ground) == "rgb(255, 255, 255)"
    printed = pictures(here.page)
    assert all(printed[chart] == on_paper[chart] for chart in ("roc", "heat", "scores"))
    assert len(here.page.pdf()) > 20_000


def test_small_and_quick_with_400_lambdas(opened: Any, run: Run, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "large.html"
    done = report(run, table, out=out, grid=19)
    assert done.lambdas == 400
    assert done.size < 3e6
    here = opened(out)
    page = here.page
    session = page.context.new_cdp_session(page)
    # Of the page's thread, not of the clock: other programs may take the processor from it.
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def seconds() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return float(next(m["value"] for m in metrics if m["name"] == "TaskDuration"))

    before = seconds()
    page.reload()
    settled(page)
    assert seconds() - before < 1
    moves: dict[str, Callable[[int], None]] = {
        "threshold": lambda i: set_slider(page, "threshold", 5 * i + 3),
        "tau": lambda i: set_slider(page, "tau", 2 * i + 3),
        "gamma": lambda i: set_slider(page, "gamma", 2 * i + 3),
        "map": lambda i: page.evaluate(CLICK, ["heat", 0.1 + 0.15 * i, 0.5]),
        "curve": lambda i: page.evaluate(CLICK, ["roc", 0.05 + 0.1 * i, 0.3]),
        "costs": lambda i: page.fill("#fn", f"{20 + i}"),
        "prior": lambda i: page.fill("#prior", f"{2 + i}"),
        "need": lambda i: page.evaluate("i => document.querySelectorAll('#presets button')[i % 3].click()", i),
        "prior of a need": lambda i: page.fill("#prior", f"{2.5 + i}"),
    }
    took: dict[str, list[float]] = {}
    for kind, move in moves.items():
        for i in range(5):
            before = seconds()
            move(i)
            settled(page)
            took.setdefault(kind, []).append(seconds() - before)
    # Another prior changes the pictures of all lambdas too, which are worked on in several frames.
    frames = {"prior": 2, "prior of a need": 2}
    late = {kind: each for kind, each in took.items() if not np.median(each) < 0.05 * frames.get(kind, 1)}
    assert late == {}
    if os.getloadavg()[0] < (os.cpu_count() or 1) / 2:
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        assert paint < 1000


CLICK = """([id, x, y]) => {
  const over = document.querySelector(`#${id} .u-over`);
  const box = over.getBoundingClientRect();
  const at = { clientX: box.left + x * box.width, clientY: box.top + y * box.height, bubbles: true };
  over.dispatchEvent(new MouseEvent("click", at));
}"""


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
    # What is told is of several cases: every bin of every lambda, and of every value of a column, or of none.
    told = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])
    grid = told["grid"]
    cases = [n + p for n, p in zip(unpacked(grid["negatives"]), unpacked(grid["positives"]), strict=True)]
    assert len(cases) == sum(grid["bins"])
    assert min(cases) >= SMALLEST
    assert sum(cases) == sum(grid["rows"]) * len(grid["bins"])
    (subgroups,) = grid["subgroups"]
    counts = np.array(unpacked(subgroups["counts"])).reshape(sum(subgroups["bins"]), 2, -1).sum(axis=1)
    assert counts[counts > 0].min() >= SMALLEST
    assert min(map(min, subgroups["rows"])) >= SMALLEST
    # And nothing else is as long as the cases are many.
    assert max(lengths(told)) < sum(grid["rows"]) / SMALLEST
    assert {name for name, value in told.items() if isinstance(value, str) and len(value) > 200} == set()


def unpacked(text: str) -> list[int]:
    out, value, place = [], 0, 0
    for byte in base64.b64decode(text):
        value |= (byte & 127) << place
        place += 7
        if byte < 128:
            out.append(value)
            value, place = 0, 0
    return out


def lengths(value: Any) -> Iterator[int]:
    if isinstance(value, list | dict):
        yield len(value)
        for each in value.values() if isinstance(value, dict) else value:
            yield from lengths(each)


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
