"""What the report's page does, in Python: the same choices on the same counts, by the search that `tune` uses."""

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from tunelater.aggregates import BinnedGrid
from tunelater.distributions import at
from tunelater.losses import logit
from tunelater.needs import Need
from tunelater.points import OperatingPoint, sigmoid
from tunelater.scoring import Scores
from tunelater.search import Choices, Task, Weighting, pick
from tunelater.tuning import BEYOND, Infeasible, reaches_of


def samples_of(grid: BinnedGrid, index: int, column: str | None = None) -> Scores:
    """The counts of a lambda as samples: one for each bin and class (and subgroup) that holds any, at the bin's mean
    score, with the count as its weight."""
    one = grid.of_lambdas[index]
    if column is None:
        middles, values = one.middles, np.array(["all"])
        counts = np.stack([one.negatives, one.positives], axis=1)[:, :, None]
    else:
        of = next(s for s in grid.subgroups if s.column == column)
        middles, counts, values = one.middles[of.ends[index]], of.counts[index], np.array(of.values)
    k, c, g = np.nonzero(counts)
    return Scores(
        log_odds=grid.bins.centres[middles[k]][None],
        target=c.astype(np.int8),
        lambdas={name: np.asarray(v)[[index]] for name, v in grid.lambdas.items()},
        prior=grid.prior,
        weight=(counts * np.array(grid.units)[:, None])[k, c, g].astype(np.float64),
        split=grid.split,
        model=grid.model,
        columns={} if column is None else {column: values[g]},
    )


def point_at(grid: BinnedGrid, index: int, k: int, need: Need) -> OperatingPoint:
    """The operating point that alerts on a lambda's bins down to number k; -1 is on nobody."""
    one = grid.of_lambdas[index]
    negatives, positives = (n * int(of.sum()) for n, of in zip(grid.units, (one.negatives, one.positives), strict=True))
    prior = need.point_prior if need.point_prior is not None else positives / (positives + negatives)
    if k < 0 or k == len(one) - 1:
        log_odds = BEYOND if k < 0 else -BEYOND
    else:
        log_odds = float(grid.bins.edges[one.edges[k]]) + logit(prior) - logit(grid.prior)
    return OperatingPoint(
        lam=at(grid.lambdas, index),
        threshold=sigmoid(log_odds),
        log_odds_threshold=log_odds,
        prior=prior,
        needs=dict(need.in_words),
        split=grid.split,
        n=sum(grid.rows),
        n_positive=grid.rows[1],
        model=grid.model,
        extrapolated=bool(grid.extrapolated[index]) if grid.extrapolated is not None else False,
    )


def _task_of(grid: BinnedGrid, need: Need, index: int) -> tuple[Scores, Task, Weighting]:
    scores = samples_of(grid, index, need.grouped[0] if need.grouped else None)
    task = Task.of(need, scores)
    weighting = dataclasses.replace(task.weighting(task.weight[:, None]), sizes=(grid.sizes[1], grid.sizes[0]))
    return scores, task, weighting


def choices_of(grid: BinnedGrid, need: Need) -> Choices:
    """Of each lambda the best threshold for a need."""

    def judged(index: int) -> Choices:
        scores, task, weighting = _task_of(grid, need, index)
        return task.choose(scores.log_odds[0], [weighting])[0]

    return Choices.stack([judged(index) for index in range(len(grid))])


def reaches(grid: BinnedGrid, need: Need) -> list[dict[str, float | None]]:
    """How far the metric of each constraint goes alone, and with the others met (None where these fail already)."""
    tasks = [_task_of(grid, need, index) for index in range(len(grid))]
    found = [reaches_of(task, weighting, scores.log_odds[0], 0) for scores, task, weighting in tasks]
    out = []
    for j, c in enumerate(need.constraints):
        least = [min(of[j][way].missed for of in found) for way in (0, 1)]
        values = [c.bound - m if c.relation == ">=" else c.bound + m for m in least]
        alone, together = (v if math.isfinite(v) else None for v in values)
        out.append({"alone": alone, "together": together})
    return out


def near_best(grid: BinnedGrid, need: Need) -> NDArray[np.bool_]:
    """(L,) which lambdas are within one standard error of the best one, as `OperatingGrid.select` counts it."""
    choices = choices_of(grid, need)
    merit = np.where(choices.allowed[:, 0], choices.merit[:, 0], -np.inf)
    _, (best,) = pick(choices, None)
    return np.isfinite(merit) & (merit >= merit[best] - choices.error[best, 0])


def chosen(grid: BinnedGrid, need: Need, *, simplest: bool = True) -> OperatingPoint:
    """The best point for a need, by the rules of `OperatingGrid.select`.

    Raises:
        Infeasible: no lambda and threshold meets the constraints.
    """
    choices = choices_of(grid, need)
    if not (choices.allowed[:, 0] & np.isfinite(choices.merit[:, 0])).any():
        raise Infeasible(f"no lambda and threshold of the grid meets {' and '.join(map(str, need.constraints))}")
    (index,), (best,) = pick(choices, grid.distance if simplest and len(grid) > 1 else None)
    lowest = float(choices.lowest[index, 0])
    k = -1
    if math.isfinite(lowest):
        centres = grid.bins.centres[grid.of_lambdas[index].middles]
        k = int(np.flatnonzero(centres == np.float32(lowest))[0])
    point = point_at(grid, int(index), k, need)
    return point if index == best else dataclasses.replace(point, simpler_than=at(grid.lambdas, int(best)))
