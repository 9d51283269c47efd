"""Points chosen again for the share of positives in the field, and watched: what comes out, what is refused, what is
left behind."""

import dataclasses
import json
import shlex
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from typer.testing import CliRunner

from tunelater import adaptation
from tunelater.adaptation import CHOSEN, DRIFTED, KEPT, UNMET, Adaptation, Audit, adapt, watch
from tunelater.cli import app
from tunelater.config import Config
from tunelater.distributions import LambdaSpace, Linear, PointMass
from tunelater.points import OperatingPoint
from tunelater.problems import DoubtfulInputWarning, InputError
from tunelater.runs import Run
from tunelater.workflow import evaluate, fit, tune

PRIOR, FIELD_PRIOR = 0.05, 0.25
COST = {"fn": 10, "fp": 1}
CONFIG = Config(
    epochs=3, batch_size=256, lambdas=LambdaSpace(gamma=PointMass(0.1), tau=Linear(0, 3, 0.33)), early_stopping=None
)
runner = CliRunner()


def cases(n: int, prior: float, seed: int, *, moved: float = 0.0) -> pd.DataFrame:
    """Two measurements, of which positives have higher ones, and a column that says nothing."""
    rng = np.random.default_rng(seed)
    y = rng.random(n) < prior
    a, b = rng.normal(1.6 * y + moved, 1), rng.normal(0.8 * y - moved, 1)
    return pd.DataFrame({"a": a, "b": b, "site": rng.choice(["x", "y"], n), "y": np.where(y, "bad", "fine")})


class World(NamedTuple):
    folder: Path
    table: pd.DataFrame
    run: Run
    point: OperatingPoint


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulInputWarning)
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    table = cases(8000, PRIOR, 0)
    table.to_csv(folder / "table.csv", index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulInputWarning)
        run = fit(table, target="y", positive="bad", config=CONFIG, out=folder / "run")
        point = tune(run, table, cost=COST, out=folder / "point.json")
    cases(1500, FIELD_PRIOR, 1).drop(columns="y").to_csv(folder / "field.csv", index=False)
    cases(1500, PRIOR, 2, moved=1.0).drop(columns="y").to_csv(folder / "drifted.csv", index=False)
    return World(folder, table, run, point)


@pytest.fixture(scope="module")
def adapted(world: World) -> Adaptation:
    """Without labels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulInputWarning)
        return adapt(world.run, cases(1500, FIELD_PRIOR, 1).drop(columns="y"), at=world.point)


def test_without_labels_the_prior_and_most_of_the_cost_come_back(world: World, adapted: Adaptation) -> None:
    audit, new = adapted.audit, adapted.point
    assert audit.outcome == CHOSEN
    assert new is not None
    assert audit.prior["low"] <= FIELD_PRIOR <= audit.prior["high"]
    assert not audit.prior["low"] <= PRIOR <= audit.prior["high"]
    assert new.needs["cost"] == world.point.needs["cost"]
    assert new.prior == pytest.approx(audit.prior["chosen_for"])
    later = cases(20_000, FIELD_PRIOR, 3)

    def cost(point: OperatingPoint) -> float:
        return evaluate(world.run, later, at=dataclasses.replace(point, needs={"cost": COST}))["cost"].value

    labelled = tune(world.run, later, cost=COST)  # on the very cases that it is judged on
    before, after, best = cost(world.point), cost(new), cost(labelled)
    assert best <= after < before
    assert before - after >= 0.8 * (before - best)


def test_the_record_tells_before_and_after_at_the_new_prior(world: World, adapted: Adaptation) -> None:
    audit = adapted.audit
    assert audit.new["n"] == 1500
    assert audit.new["labelled"] == 0
    assert audit.previous["point"] == json.loads(world.point.to_json())
    assert audit.after is not None
    assert audit.after["point"] == json.loads(adapted.point.to_json())
    assert audit.before["cost"][0] > audit.after["estimates"]["cost"][0]
    for estimates in (audit.before, audit.after["estimates"]):
        assert all(low <= value <= high for value, low, high in estimates.values())
    assert any(line.startswith("threshold: ") for line in audit.changed)
    assert audit.model == world.run.id


def test_drifted_inputs_leave_a_record_and_no_point(world: World, tmp_path: Path) -> None:
    arguments = ["adapt", world.folder / "run", world.folder / "drifted.csv", "--at", world.folder / "point.json"]
    out = tmp_path / "new.json"
    result = runner.invoke(app, [*map(str, arguments), "--out", str(out)])
    assert result.exit_code == 3
    assert "inputs have drifted" in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["new.audit.json"]
    audit = Audit.load(tmp_path / "new.audit.json")
    assert (audit.outcome, audit.after) == (DRIFTED, None)
    assert not audit.tests["explained"]

    result = runner.invoke(app, [*map(str, arguments), "--out", str(out), "--force", "--even-if-drifted"])
    assert result.exit_code == 0
    assert "may be wrong" in result.stderr
    assert Audit.load(tmp_path / "new.audit.json").tests["overridden"]
    assert OperatingPoint.load(out).model == world.run.id


def test_a_point_whose_prior_still_holds_stays_to_the_byte(world: World, tmp_path: Path) -> None:
    out = tmp_path / "new.json"
    same = cases(1500, PRIOR, 5)
    same.loc[200:, "y"] = None
    done = adapt(world.run, same, at=world.folder / "point.json", out=out)
    assert done.audit.outcome == KEPT
    assert out.read_bytes() == (world.folder / "point.json").read_bytes()
    assert done.audit.after is not None
    assert done.audit.after["digest"] == done.audit.previous["digest"]
    assert done.audit.before == done.audit.after["estimates"]
    assert (done.audit.new["labelled"], done.audit.new["n"]) == (200, 1500)
    assert done.audit.new["positives"] == (same["y"] == "bad").sum()
    assert {part["name"] for part in done.audit.tests["parts"]} == {"scores", "positives", "negatives"}


def test_records_are_a_chain_and_read_again(world: World, tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    one = adapt(world.run, world.folder / "field.csv", at=world.folder / "point.json", out=first)
    two = adapt(world.run, cases(1500, 0.02, 6), at=first, out=second, audit=tmp_path / "two.json")
    assert Audit.load(tmp_path / "first.audit.json") == one.audit
    assert Audit.load(tmp_path / "two.json") == two.audit == Audit.from_json(two.audit.to_json())
    assert one.audit.after is not None
    assert two.audit.previous["digest"] == one.audit.after["digest"]
    assert two.audit.previous["point"] == one.audit.after["point"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "tunelater.audit/9"}, "later version"),
        ({"outcome": "maybe"}, "outcome is drifted, unmet, kept, chosen"),
        ({"outcome": DRIFTED}, "has a point unless drifted"),
        ({"before": 3, "when": None}, "'when' of an audit is a str.*\n?.*'before' of an audit is a dict"),
        ({"previous": {"digest": "x", "point": {}}}, "operating point has format"),
    ],
)
def test_a_record_that_was_changed_is_refused(adapted: Adaptation, change: dict[str, object], message: str) -> None:
    raw = json.loads(adapted.audit.to_json()) | change
    with pytest.raises(InputError, match=message):
        Audit.from_json(json.dumps(raw))


@pytest.mark.parametrize("older", [False, True])
def test_both_files_are_written_or_neither(
    world: World, adapted: Adaptation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, older: bool
) -> None:
    out, record = tmp_path / "new.json", tmp_path / "new.audit.json"
    if older:
        out.write_text(world.point.to_json())
        record.write_text(adapted.audit.to_json())
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    replace = adaptation.replacing

    def failing(path: Path) -> object:
        if path == out:
            raise OSError("no space left")
        return replace(path)

    monkeypatch.setattr(adaptation, "replacing", failing)
    with pytest.raises(OSError, match="no space"):
        adaptation._write_together({record: "{}", out: "{}"})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_everything_wrong_is_told_at_once_and_nothing_is_written(world: World, tmp_path: Path) -> None:
    other = dataclasses.replace(world.point, model="0" * 16)
    new = cases(50, PRIOR, 7).rename(columns={"a": "A"}).assign(y="broken")
    (tmp_path / "old.json").write_text("{}")
    with pytest.raises(InputError) as caught:
        adapt(world.run, new, at=other, out=tmp_path / "old.json", audit=tmp_path / "no" / "audit.json", alpha=2.0)
    told = "\n".join(caught.value.problems)
    for part in ("not an operating point", "does not exist", "belongs to model 0000", "no column 'a'", "alpha is",
                 "labels in 'y' are 'bad', 'fine', or empty"):  # fmt: skip
        assert part in told, part
    assert [p.name for p in tmp_path.iterdir()] == ["old.json"]


def test_rows_that_the_model_knows_do_not_count(world: World) -> None:
    with pytest.raises(InputError, match="what the run was fitted on"):
        adapt(world.run, world.table, at=world.point)
    known = world.table.iloc[world.run.rows["train"][:300]].drop(columns="y")
    with pytest.raises(InputError, match="the model has not seen"):
        adapt(world.run, known, at=world.point)
    new = cases(200, PRIOR, 8).assign(site="z", spare=1)
    with pytest.warns(DoubtfulInputWarning) as caught:
        done = adapt(world.run, pd.concat([known, new]), at=world.point)
    told = " ".join(str(w.message) for w in caught)
    for part in (
        "300 of 500 rows equal train rows",
        "'site' (200 rows)",
        "training table did not have are ignored: 'spare'",
    ):
        assert part in told, part
    assert (done.audit.new["n"], done.audit.new["left_out"]) == (200, 300)


def test_needs_with_columns_take_the_table(world: World) -> None:
    point = tune(world.run, world.table, maximize="precision", subject_to="recall>=0.6 in every site", grid=2)
    new = cases(1500, FIELD_PRIOR, 1)
    with pytest.raises(InputError, match=r"columns \('site'\).*--reference"):
        adapt(world.run, new, at=point)
    done = adapt(world.run, new, at=point, reference=world.table, grid=2)
    assert done.audit.after is not None
    assert {"recall[site=x]", "recall[site=y]"} <= done.audit.after["estimates"].keys()
    assert done.audit.reference["n"] == len(world.run.rows["validation"])
    assert {part["name"] for part in done.audit.tests["parts"]} >= {"scores", "inputs"}


def test_a_lambda_without_saved_scores_takes_the_table(world: World) -> None:
    point = dataclasses.replace(world.point, lam={**world.point.lam, "tau": 0.123})
    with pytest.raises(InputError, match=r"no validation scores at the lambda.*--reference"):
        adapt(world.run, world.folder / "field.csv", at=point)
    assert adapt(world.run, world.folder / "field.csv", at=point, reference=world.table, grid=2).point is not None


def test_a_point_for_a_range_of_priors_stays_within_it(world: World) -> None:
    wide = tune(world.run, world.table, cost=COST, prior=(0.01, 0.5), grid=2)
    narrow = tune(world.run, world.table, cost=COST, prior=(0.01, 0.05), grid=2)
    field = world.folder / "field.csv"
    assert adapt(world.run, field, at=wide, reference=world.table, grid=2).audit.outcome == KEPT
    done = adapt(world.run, field, at=narrow, reference=world.table, grid=2)
    assert done.audit.outcome == CHOSEN
    assert done.audit.prior["chosen_for"] == pytest.approx([done.audit.prior["low"], done.audit.prior["high"]])


def test_needs_that_nothing_meets_leave_a_record_and_a_code_of_their_own(world: World, tmp_path: Path) -> None:
    need = {"maximize": "specificity", "subject_to": ["recall>=0.6", "precision>=0.2"]}
    tune(world.run, world.table, **need, grid=2, out=tmp_path / "point.json")
    cases(3000, 0.0005, 9).drop(columns="y").to_csv(tmp_path / "rare.csv", index=False)
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / "new.json"
    words = ["adapt", world.folder / "run", tmp_path / "rare.csv", "--at", tmp_path / "point.json", "--out", out]
    done = runner.invoke(app, [*map(str, words), "--reference", str(world.folder / "table.csv"), "--grid", "2"])
    assert done.exit_code == 5
    assert "no operating point was written" in done.stderr
    assert [p.name for p in out.parent.iterdir()] == ["new.audit.json"]
    audit = Audit.load(out.parent / "new.audit.json")
    assert (audit.outcome, audit.after) == (UNMET, None)
    assert audit.needs["after"]["subject_to"] == need["subject_to"]
    attainable = "\n".join(audit.needs["attainable"])
    assert "precision reaches" in attainable
    assert "precision>=0.2 costs recall" in attainable
    assert audit.needs["attainable"][1] in done.stdout
    assert {"recall", "precision"} <= audit.before.keys()
    assert audit.before["precision"][0] < 0.2


def certified(world: World, **need: object) -> OperatingPoint:
    return tune(world.run, world.table, grid=3, guarantee=0.9, **need)


def test_a_guarantee_is_renewed_at_the_new_share(world: World) -> None:
    point = certified(world, maximize="precision", subject_to="recall>=0.5")
    done = adapt(world.run, world.folder / "field.csv", at=point)
    assert done.audit.outcome == CHOSEN
    assert done.point is not None
    assert done.point.certificate is not None
    assert done.point.certificate["constraints"][0]["constraint"] == "recall>=0.5"
    told = done.audit.guarantee
    assert (told["before"], told["asked"], told["after"]) == (0.9, 0.9, 0.9)
    assert "validation scores that the run keeps" in told["told"]
    assert done.audit.changed[-1].startswith("guarantee: by ")


def test_a_certified_point_stays_with_its_certificate_where_no_other_share_shows(world: World) -> None:
    point = certified(world, maximize="precision", subject_to="recall>=0.5")
    done = adapt(world.run, cases(1500, PRIOR, 5).drop(columns="y"), at=point)
    assert (done.audit.outcome, done.point) == (KEPT, point)
    assert done.audit.guarantee["after"] == 0.9


def test_labelled_cases_certify_what_depends_on_the_share(world: World) -> None:
    new = cases(3000, FIELD_PRIOR, 12)
    point = tune(world.run, world.table, maximize="recall", subject_to="precision>=0.6", grid=3)
    done = adapt(world.run, new, at=point, guarantee=0.9)
    assert done.point is not None
    assert done.point.certificate is not None
    assert done.point.split == "new"
    assert done.point.prior == pytest.approx((new["y"] == "bad").mean())
    assert done.audit.guarantee == {
        "before": None, "asked": 0.9, "after": 0.9, "told": done.audit.guarantee["told"]
    }  # fmt: skip
    assert done.audit.guarantee["told"].startswith("by new cases")


def test_a_guarantee_that_cannot_be_renewed_is_said_to_be_gone(world: World, tmp_path: Path) -> None:
    point = certified(world, maximize="recall", subject_to="precision>=0.3")
    point.save(tmp_path / "point.json")
    cases(3000, 0.01, 6).drop(columns="y").to_csv(tmp_path / "rare.csv", index=False)
    words = ["adapt", world.folder / "run", tmp_path / "rare.csv", "--at", tmp_path / "point.json"]
    done = runner.invoke(app, [*map(str, words), "--out", str(tmp_path / "new.json")])
    assert done.exit_code == 0, done.stderr
    assert "the new point has no guarantee" in done.stderr
    assert "guarantee: none at 0.9 could be had" in done.stdout
    assert "positives" in Audit.load(tmp_path / "new.audit.json").guarantee["told"]
    assert OperatingPoint.load(tmp_path / "new.json").certificate is None


def test_a_guarantee_that_makes_no_sense_is_refused_with_the_rest(world: World, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        adapt(world.run, world.folder / "field.csv", at=world.point, guarantee=1.5, alpha=2.0)
    told = "\n".join(caught.value.problems)
    assert all(part in told for part in ("confidence of a guarantee", "the point has none", "alpha is"))


def test_a_table_larger_than_memory_is_refused_before_it_is_read(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tmp_path / "large.csv"
    pd.concat([cases(20_000, PRIOR, 1)] * 2).to_csv(large, index=False)
    monkeypatch.setattr(type(world.run.form), "field", None)
    with pytest.raises(InputError) as caught:
        adapt(world.run, large, at=world.point, reference=large, memory_mb=1, alpha=2.0, out=tmp_path / "new.json")
    assert sum("read as a whole" in problem for problem in caught.value.problems) == 1  # the same for both
    assert "random sample" in caught.value.problems[0]
    with pytest.raises(InputError, match="smaller batches"):
        watch(world.run, large, at=world.point, state=tmp_path / "state.json", memory_mb=1)
    assert [p.name for p in tmp_path.iterdir()] == ["large.csv"]


def test_principal_components_are_those_of_both_together() -> None:
    rng = np.random.default_rng(0)
    known, new = rng.normal(size=(80, 6)) * np.arange(1, 7), rng.normal(size=(50, 6)) + 2
    expected = PCA(3).fit_transform(np.concatenate([known, new]))
    found = np.concatenate(adaptation.principal(known, new, 3))
    assert np.abs(found) == pytest.approx(np.abs(expected), abs=1e-8)


# ------------------------------------------------------------------------------------------- watch


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight batches, of which the last four have drifted."""
    folder = tmp_path_factory.mktemp("stream")
    for i in range(8):
        batch = cases(150, PRIOR, 100 + i, moved=2.5 * (i >= 4))
        batch.to_csv(folder / f"{i}.csv", index=False)
    return folder


def test_a_watch_that_was_stopped_is_as_one_that_was_not(world: World, stream: Path, tmp_path: Path) -> None:
    files = sorted(stream.glob("*.csv"))
    options = {"at": world.point, "limits": ["recall>=0.5"]}
    whole = watch(world.run, stream, state=tmp_path / "whole.json", **options)
    for some in (files[:3], files[2:5], files[:1], files[5:]):
        apart = watch(world.run, some, state=tmp_path / "apart.json", **options)
    assert (tmp_path / "whole.json").read_bytes() == (tmp_path / "apart.json").read_bytes()
    assert whole.monitor.batches == 8
    assert [batch.name for batch in whole.batches] == [str(path) for path in files]
    assert whole.alarms == apart.alarms
    assert whole.alarms[0].name == "drift"
    assert whole.alarms[0].batch > 4
    assert not any(batch.alarms for batch in whole.batches[:4])
    alerts = [int(world.point.decide(s.log_odds[0], s.prior).sum()) for s in _scores(world, files)]
    assert [batch.alerts for batch in whole.batches] == alerts


def _scores(world: World, files: list[Path]) -> Iterator:
    for file in files:
        yield world.run.score(world.run.form.field(file, None).samples, world.point.lam)


def test_batches_that_were_counted_are_left_out(world: World, stream: Path, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    shutil.copy(stream / "0.csv", tmp_path / "again.csv")
    done = watch(world.run, [stream / "0.csv", tmp_path / "again.csv"], at=world.point, state=state)
    assert [batch.known for batch in done.batches] == [False, True]
    assert "left out" in done.batches[1].in_words
    assert done.monitor.cases == 150
    later = watch(world.run, cases(150, PRIOR, 100), at=world.point, state=state, seen=True)
    assert (later.monitor.cases, later.monitor.batches) == (150, 2)


def test_an_alarm_ends_with_code_4_until_another_watch_begins(world: World, stream: Path, tmp_path: Path) -> None:
    def run(*batches: Path) -> tuple[int, str, str]:
        words = ["watch", world.folder / "run", *batches, "--at", world.folder / "point.json"]
        done = runner.invoke(app, [*map(str, words), "--state", str(tmp_path / "state.json"), "--limit", "recall>=0.5"])
        return done.exit_code, done.stdout, done.stderr

    code, out, _ = run(stream / "0.csv", stream / "1.csv")
    assert code == 0
    assert out.count("no alarm") == 2
    code, out, err = run(*(stream / f"{i}.csv" for i in range(4, 8)))
    assert code == 4
    assert "ALARM" in out
    assert "adapt" in err
    assert "retrain" in err
    code, out, _ = run(stream / "2.csv")
    assert code == 4
    assert "alarm stands" in out


def test_a_state_of_another_watch_is_refused(world: World, stream: Path, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    watch(world.run, stream / "0.csv", at=world.point, state=state)
    before = state.read_bytes()
    other = dataclasses.replace(world.point, log_odds_threshold=0.0, threshold=0.5)
    with pytest.raises(InputError) as caught:
        watch(world.run, stream / "1.csv", at=other, state=state, alarm_rate=0.02, limits="recall>=0.5")
    told = "\n".join(caught.value.problems)
    assert all(part in told for part in ("began with point", "began with alarm_rate 0.01", "began with watched"))
    state.write_bytes(before[:-40])
    with pytest.raises(InputError, match="JSON"):
        watch(world.run, stream / "1.csv", at=world.point, state=state)


def test_what_is_wrong_with_batches_is_told_before_the_first(world: World, stream: Path, tmp_path: Path) -> None:
    pd.read_csv(stream / "1.csv").drop(columns="a").to_csv(tmp_path / "short.csv", index=False)
    (tmp_path / "empty").mkdir()
    batches = [stream / "0.csv", tmp_path / "short.csv", tmp_path / "none.csv", tmp_path / "empty", 3]
    with pytest.raises(InputError) as caught:
        watch(world.run, batches, at=world.point, state=tmp_path / "state.json", limits="recal>=0.5", alarm_rate=0.0)
    told = "\n".join(caught.value.problems)
    for part in ("no column 'a'", "no such file", "got int", "no table in this folder", "recall", "(alpha) lies in"):
        assert part in told, part
    assert not (tmp_path / "state.json").exists()


def test_a_batch_that_cannot_be_read_to_its_end_leaves_those_before(world: World, stream: Path, tmp_path: Path) -> None:
    bad = pd.read_csv(stream / "1.csv").astype({"a": object})
    bad.loc[100, "a"] = "much"
    bad.to_csv(tmp_path / "bad.csv", index=False)
    state = tmp_path / "state.json"
    with pytest.raises(InputError, match=r"bad\.csv.*not counted, and those before it are"):
        watch(world.run, [stream / "0.csv", tmp_path / "bad.csv"], at=world.point, state=state)
    assert watch(world.run, stream / "0.csv", at=world.point, state=state).batches[0].known


def test_limits_alone_need_no_reference(world: World, stream: Path, tmp_path: Path) -> None:
    point = dataclasses.replace(world.point, lam={**world.point.lam, "tau": 0.123})
    with pytest.raises(InputError, match="--reference"):
        watch(world.run, stream / "0.csv", at=point, state=tmp_path / "state.json", limits="recall>=0.5")
    done = watch(
        world.run, stream / "0.csv", at=point, state=tmp_path / "state.json", limits="recall>=0.5", drift=False
    )
    assert list(done.batches[0].evidence) == ["recall>=0.5"]


def test_the_command_that_is_told_for_labelled_cases_runs(world: World, tmp_path: Path) -> None:
    new = tmp_path / "new.csv"
    cases(600, FIELD_PRIOR, 11).to_csv(new, index=False)
    words = ["adapt", world.folder / "run", new, "--at", world.folder / "point.json", "--out", tmp_path / "new.json"]
    done = runner.invoke(app, [*map(str, words)])
    assert done.exit_code == 0
    assert "all with labels" in done.stdout
    (command,) = [line for line in done.stdout.splitlines() if line.startswith("Next: tunelater tune")]
    assert "--cost fn=10.0,fp=1.0" in command
    assert runner.invoke(app, shlex.split(command)[2:]).exit_code == 0


def test_what_is_wrong_with_a_watch_is_told_beside_a_point_of_another_model(world: World, tmp_path: Path) -> None:
    other = dataclasses.replace(world.point, model="0" * 16)
    with pytest.raises(InputError) as caught:
        watch(
            world.run, cases(50, PRIOR, 1), at=other, state=tmp_path / "s.json", limits=["recall>=3", "cost<=x"],
            prior=1.0, alarm_rate=0.0,
        )  # fmt: skip
    told = "\n".join(caught.value.problems)
    for part in ("belongs to model 0000", "no bound can be 3", "a prior lies in (0, 1)", "(alpha) lies in"):
        assert part in told, part
    assert not any(tmp_path.iterdir())
