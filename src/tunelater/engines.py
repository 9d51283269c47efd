"""Where work on the parts of a table is done: in this process, or on Ray Data.

The work is the same callable on the same parts in either place, and its results come in the order of the parts, so that
an engine changes the time and not the numbers.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from tunelater.problems import InputError, did_you_mean

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Engine:
    """One of them.

    Args:
        name: `local`, which works on one part after another in this process, or `ray`.
        address: of a Ray cluster, such as `auto` or `ray://head:10001`; by default the one of `RAY_ADDRESS`, or else
            this machine. Its machines need this library, and the files under the same paths. A process that is
            connected to Ray already stays so, and no address is looked at.
    """

    name: str = "local"
    address: str | None = None

    def problems(self) -> list[str]:
        """What keeps it from being used."""
        if self.name not in ENGINES:
            return [f"there is no engine {self.name!r}{did_you_mean(str(self.name), ENGINES)}"]
        if self.name == "local" and self.address is not None:
            return [
                f"an address is of a Ray cluster, got {self.address!r}: say --engine ray (engine='ray'), or no address"
            ]
        if self.name == "ray" and find_spec("ray") is None:
            return ["the engine 'ray' needs Ray Data, which is not installed: pip install 'tunelater[ray]'"]
        return []

    @property
    def is_local(self) -> bool:
        return self.name == "local"

    def map(self, work: Callable[[Any], Iterator[Any]], items: Sequence[Any]) -> Iterator[Any]:
        """What `work` yields of each item, in the order of the items.

        Args:
            work: what can be pickled, where the engine is another than `local`.

        Raises:
            InputError: what `work` raises as such.
        """
        if self.is_local:
            for item in items:
                yield from work(item)
        else:
            yield from _on_ray(work, items, self.address)


class _Worker:
    """The work in an actor of Ray, which takes it from the object store once and holds it from item to item. Results
    travel as bytes, so that Ray Data does not try to make columns of them; an InputError travels as a result, so that
    it arrives as it was raised."""

    def __init__(self, work: Any) -> None:
        import ray

        self._work = pickle.loads(ray.get(work))  # of the process that started it

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, bytes]]:
        try:
            for result in self._work(pickle.loads(row["item"])):
                yield {"result": pickle.dumps((True, result))}
        except InputError as error:
            yield {"result": pickle.dumps((False, list(error.problems)))}


def _on_ray(work: Callable[[Any], Iterator[Any]], items: Sequence[Any], address: str | None) -> Iterator[Any]:
    import ray
    import ray.data

    started = not ray.is_initialized()
    if started:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # else it tells of each step of its own
    context = ray.data.DataContext.get_current()
    in_order, bars = context.execution_options.preserve_order, context.enable_progress_bars
    context.execution_options.preserve_order, context.enable_progress_bars = True, False
    try:
        most = max(1, min(len(items), int(ray.cluster_resources().get("CPU", 1))))
        rows = ray.data.from_items([{"item": pickle.dumps(item)} for item in items], override_num_blocks=len(items))
        results = rows.flat_map(
            _Worker,
            fn_constructor_args=(ray.put(pickle.dumps(work)),),
            compute=ray.data.ActorPoolStrategy(size=most),
            num_cpus=1,
        )
        for row in results.iter_rows():
            sound, result = pickle.loads(row["result"])
            if not sound:
                raise InputError(result)
            yield result
    finally:
        context.execution_options.preserve_order, context.enable_progress_bars = in_order, bars
        if started:
            ray.shutdown()
