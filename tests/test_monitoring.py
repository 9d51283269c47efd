"""Alarms: how often they are false over whole streams, that they come when something changes, and that a monitor read
from its file goes on as if it had never stopped."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tunelater.losses import logit
from tunelater.monitoring import DRIFT, Limit, Monitor, Watch
from tunelater.problems import InputError
from tunelater.scoring import Scores
from tunelater.shift import UNKNOWN, Reference, unlabelled
from tunelater.tuning import Cost, OperatingPoint

PRIOR, DISTANCE, RECALL = 0.05, 2.0, 0.9


def drawn(rng: np.random.Generator, n: int, prior: float = PRIOR, up: float = 0.0, worse: float = 0.0) -> Scores:
    """Binormal scores; `up` moves all of them, `worse` lowers the positives."""
    y = (rng.random(n) < prior).astype(np.int8)
    z = rng.normal(size=n) + (DISTANCE - worse) * y + up
    log_odds = DISTANCE * z - DISTANCE**2 / 2 + logit(PRIOR)
    return Scores(log_odds.astype(np.float32)[None], y, {"tau": np.zeros(1)}, PRIOR, model="m")


def point_at(recall: float = RECALL, **more: object) -> OperatingPoint:
    """The point with this recall, exactly."""
    z = DISTANCE + stats.norm.ppf(1 - recall)
    threshold = float(DISTANCE * z - DISTANCE**2 / 2 + logit(PRIOR))
    return OperatingPoint({"tau": 0.0}, 1 / (1 + math.exp(-threshold)), threshold, PRIOR, model="m", **more)


def watched(rng: np.random.Generator, n: int = 1000, **more: object) -> Monitor:
    return Monitor.of(point_at(), Reference.of(drawn(rng, n), calibration=None), limits="recall>=0.9", **more)


# ------------------------------------------------------------------------------------------- false alarms


def test_a_wealth_does_not_grow_where_all_is_well() -> None:
    """Of all streams of three batches of two cases, each as likely as its losses: the mean e-value is 1, exactly."""
    ceiling, mean = 0.3, np.zeros(3)
    for stream in range(2**6):
        losses = np.array([stream >> i & 1 for i in range(6)]).reshape(3, 2)
        chance = ceiling ** losses.sum() * (1 - ceiling) ** (6 - losses.sum())
        watch = Watch.new("x", 0.05, np.array([ceiling]))
        for batch, some in enumerate(losses, start=1):
            watch.add(np.array([1.0, 0.0]), np.array([[some.sum(), 2.0 - some.sum()]]), batch)
            mean[batch - 1] += chance * math.exp(watch.log_e(batch))
    np.testing.assert_allclose(mean, 1, rtol=1e-9)


@pytest.mark.parametrize("values", [[0.0, 0.25, 1.0], [0.3]])
def test_losses_between_none_and_one_are_bets_too(values: list[float]) -> None:
    """With a mean at the ceiling no bet gains on average, and none can lose all."""
    of = np.array(values)
    ceiling = float(of.mean())
    gains = []
    for i in range(len(of)):
        watch = Watch.new("x", 0.05, np.array([ceiling]))
        watch.add(of, np.eye(len(of))[[i]], 1)
        gains.append(math.exp(watch.log_e(1)))
    assert np.mean(gains) == pytest.approx(1)
    assert min(gains) > 0


def test_false_alarms_are_as_rare_as_promised_whenever_one_stops() -> None:
    """At a recall that is its limit exactly, with small references: the promise is over these too."""
    alarmed = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        monitor = watched(rng, 300, alpha=0.2)
        for _ in range(60):
            monitor.update(drawn(rng, 40))
        alarmed += bool(monitor.alarms)
    # 60 streams: a rate of 20% goes over 32% in about 1% of them
    assert alarmed / 60 <= 0.32


# ------------------------------------------------------------------------------------------- alarms


def first_alarms(change: dict, start: int = 10, batches: int = 60, size: int = 150) -> list[dict[str, int]]:
    found = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        monitor = watched(rng, 2000)
        for batch in range(batches):
            monitor.update(drawn(rng, size, **(change if batch >= start else {})))
        found.append({alarm.name: alarm.batch for alarm in monitor.alarms})
    return found


@pytest.mark.parametrize(
    ("change", "name"),
    [({"prior": 0.2}, DRIFT), ({"up": 0.6}, DRIFT), ({"worse": 1.0}, "recall>=0.9")],
    ids=["prior", "drift", "recall"],
)
def test_changes_raise_their_alarm_after_they_happen(change: dict, name: str) -> None:
    for alarms in first_alarms(change):
        assert alarms[name] > 10


def test_a_range_of_priors_is_no_drift() -> None:
    rng = np.random.default_rng(0)
    reference = Reference.of(drawn(rng, 2000))
    fixed, wide = (Monitor.of(point_at(), reference, prior=prior) for prior in (PRIOR, (0.05, 0.25)))
    for _ in range(40):
        new = unlabelled(drawn(rng, 150, prior=0.2))
        fixed.update(new)
        wide.update(new)
    assert [alarm.name for alarm in fixed.alarms] == [DRIFT]
    assert not wide.alarms


def test_an_alarm_is_told_once_and_in_words() -> None:
    rng = np.random.default_rng(1)
    monitor = Monitor.of(point_at(), limits=["recall>=0.9"])
    told = [alarm for _ in range(30) for alarm in monitor.update(drawn(rng, 300, worse=1.5))]
    assert monitor.alarms == told
    assert len(told) == 1
    assert told[0].sentence.startswith("recall>=0.9 no longer holds: recall is 0.")
    assert told[0].log_e >= -math.log(0.05)


def test_an_old_stream_notices_a_change_soon() -> None:
    """What good times have cost is not to be earned back."""
    delays = []
    for good in (1, 400):
        monitor = Monitor.of(point_at(), limits="recall>=0.9")
        rng = np.random.default_rng(2)
        for _ in range(good):
            monitor.update(drawn(rng, 100))
        delay = 0
        while not monitor.alarms and delay < 100:
            monitor.update(drawn(rng, 100, worse=1.5))
            delay += 1
        delays.append(delay)
    assert delays[1] <= 3 * delays[0] < 100


# ------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("text", "counted", "wrong"),
    [
        ("recall>=0.8", 3, 1),
        ("precision>=0.4", 4, 2),
        ("fpr<=0.1", 4, 2),
        ("specificity>=0.9", 4, 2),
        ("npv>=0.9", 3, 1),
        ("accuracy>=0.5", 7, 3),
        ("alert_rate<=0.5", 9, 5),
    ],
)
def test_limits_count_the_cases_that_they_are_about(text: str, counted: int, wrong: int) -> None:
    y = np.array([1, 1, 1, 0, 0, 0, 0, UNKNOWN, UNKNOWN])
    alert = np.array([1, 1, 0, 1, 1, 0, 0, 1, 0], bool)
    values, counts = Limit.parse(text, point_at()).counts(y, alert)
    assert (counts.sum(), counts[0] @ values) == (counted, wrong)


def test_costs_are_those_of_the_point() -> None:
    point = point_at(needs={"cost": {"fn": 20.0, "fp": 1.0, "tp": 2.0, "tn": 0.0}})
    limit = Limit.parse("cost<=5", point)
    y, alert = np.array([1, 1, 0, 0, UNKNOWN]), np.array([1, 0, 1, 0, 1], bool)
    values, counts = limit.counts(y, alert)
    assert limit.told(counts[0] @ values / counts.sum()) == pytest.approx((2 + 20 + 1 + 0) / 4)
    assert limit.told(limit.ceiling) == 5
    assert Cost.parse(point.needs["cost"]) == limit.costs


def test_running_figures() -> None:
    monitor = Monitor.of(point_at(), limits="recall>=0.5")
    rng = np.random.default_rng(3)
    batches = [drawn(rng, 200) for _ in range(30)]
    for batch in batches:
        monitor.update(batch)
    y = np.concatenate([b.target for b in batches])
    alert = np.concatenate([monitor.point.decide(b.log_odds[0], b.prior) for b in batches])
    assert monitor.watches[0].mean == pytest.approx(1 - alert[y == 1].mean())
    assert monitor.watches[0].recent == pytest.approx(monitor.watches[0].mean, abs=0.1)
    assert (monitor.batches, monitor.cases, monitor.labelled) == (30, 6000, 6000)


def test_labels_that_come_late_count_once() -> None:
    rng = np.random.default_rng(4)
    at_once = watched(rng)
    late = Monitor.from_json(at_once.to_json())
    new = drawn(rng, 200)
    at_once.update(new)
    late.update(unlabelled(new))
    late.update(new, seen=True)
    assert late.cases == at_once.cases == 200
    assert [w.n for w in late.watches] == [w.n for w in at_once.watches]
    assert late.labelled == 200


# ------------------------------------------------------------------------------------------- on disk


def test_a_monitor_read_back_goes_on_as_if_never_stopped(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    whole = watched(rng)
    path = tmp_path / "monitor.json"
    whole.save(path)
    for batch in range(30):
        new = drawn(rng, 100, worse=1.0 if batch > 10 else 0.0)
        stopped = Monitor.load(path)
        assert stopped.update(new) == whole.update(new)
        stopped.save(path)
    assert Monitor.load(path).to_json() == whole.to_json()
    assert whole.alarms
    assert [p.name for p in tmp_path.iterdir()] == ["monitor.json"]


def test_memory_does_not_grow() -> None:
    rng = np.random.default_rng(6)
    monitor = watched(rng)
    monitor.update(drawn(rng, 50))
    size = len(monitor.to_json())
    for _ in range(50):
        monitor.update(drawn(rng, 500))
    assert len(monitor.to_json()) < 1.3 * size  # more digits


def test_the_order_within_a_batch_does_not_matter() -> None:
    rng = np.random.default_rng(7)
    monitor = watched(rng)
    other = Monitor.from_json(monitor.to_json())
    new = drawn(rng, 300)
    order = rng.permutation(300)
    monitor.update(new)
    other.update(replace(new, log_odds=new.log_odds[:, order], target=new.target[order]))
    assert monitor.to_json() == other.to_json()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda raw: raw.update(format="tunelater.monitor/9"), "later version"),
        (lambda raw: raw.pop("places"), "places"),
        (lambda raw: raw.update(batches="many"), "cannot be"),
        (lambda raw: raw["watches"][0].update(log_wealth=[[0.0]]), "shape"),
        (lambda raw: raw["point"].pop("lam"), "lam"),
    ],
)
def test_files_that_are_no_monitor(change: object, told: str) -> None:
    raw = json.loads(watched(np.random.default_rng(8)).to_json())
    change(raw)
    with pytest.raises(InputError, match=told):
        Monitor.from_json(json.dumps(raw))


def test_files_that_are_not_there_or_not_json(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no monitor"):
        Monitor.load(tmp_path / "none.json")
    (tmp_path / "cut.json").write_text('{"format":', encoding="utf-8")
    with pytest.raises(InputError, match="is JSON"):
        Monitor.load(tmp_path / "cut.json")


# ------------------------------------------------------------------------------------------- bad input


def test_what_cannot_be_watched_is_told_at_once() -> None:
    rng = np.random.default_rng(9)
    other = Reference.of(replace(drawn(rng, 100, 0.3), model="other", lambdas={"tau": np.ones(1)}))
    limits = ["recal>=0.9", "f1>=0.5", "recall<=0.9", "recall>=1", "cost<=3"]
    with pytest.raises(InputError) as told:
        Monitor.of(point_at(), other, limits=limits, prior=(0.5, 0.1), alpha=5.0)
    text = str(told.value)
    assert len(told.value.problems) == 9
    for word in ("did you mean 'recall'", "mean over cases", "good side", "inside (0, 1)", "chosen for costs", "alpha"):
        assert word in text
    for prior in (0.0, 1.0, "half", (0.1, 0.2, 0.3)):
        with pytest.raises(InputError, match="prior"):
            Monitor.of(point_at(), limits="recall>=0.9", prior=prior)
    with pytest.raises(InputError, match="nothing to watch"):
        Monitor.of(point_at())
    with pytest.raises(InputError, match="inside"):
        Monitor.of(point_at(needs={"cost": {"fn": 2.0, "fp": 1.0}}), limits="cost<=2")


def test_a_bad_batch_is_left_out_whole() -> None:
    rng = np.random.default_rng(10)
    monitor = watched(rng)
    monitor.update(drawn(rng, 50))
    before = monitor.to_json()
    new = drawn(rng, 50)
    bad = replace(new, model="other", lambdas={"tau": np.ones(1)}, weight=np.ones(50), target=np.full(50, 7, np.int8))
    with pytest.raises(InputError) as told:
        monitor.update(bad)
    assert len(told.value.problems) == 4
    assert monitor.to_json() == before
