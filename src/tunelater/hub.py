"""Runs on the Hugging Face Hub: `HubRun` pushes a run folder with its operating points and its model card, and loads
one. Needs the extra `hub`.

Weights are safetensors and the rest is TOML, JSON and arrays; nothing that is loaded can run code.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

try:
    from huggingface_hub import ModelCard, PyTorchModelHubMixin, snapshot_download
except ModuleNotFoundError as missing:
    told = f"the Hugging Face Hub needs {missing.name}: pip install 'tunelater[hub]'"
    raise ModuleNotFoundError(told, name=missing.name) from None

from tunelater.card import Card, Points, file_name, make_card, named_points, problems_of_names, read_card
from tunelater.losses import Hyperparameter
from tunelater.points import OperatingPoint
from tunelater.problems import Problems
from tunelater.runs import FORMAT, Run, is_run, placed
from tunelater.workflow import point_of_run, problems_of, run_of_two

CARD, CONFIG, POINTS = "README.md", "config.json", "points"
_DESCRIBED: dict[str, Any] = {"run_format": FORMAT}
"""In config.json, by which the Hub counts downloads."""
ESTIMATOR = "estimator.json"
"""What makes a saved `LCTClassifier` of a run folder."""
_REPLACED = (f"{POINTS}/*", "scores/*", "README-*.png", ESTIMATOR)
"""Files that another version may lack; what else is written, every version has."""


class HubRun(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="tunelater",
    tags=["tunelater", "imbalanced-classification"],
):
    """A run as a PyTorch module with `save_pretrained`, `push_to_hub` and `from_pretrained`.

    >>> shared = HubRun("run", points="point.json")  # doctest: +SKIP
    >>> shared.push_to_hub("somebody/thyroid", model_card_kwargs={"data": "thyroid.csv"})  # doctest: +SKIP
    >>> HubRun.from_pretrained("somebody/thyroid").points["point"]  # doctest: +SKIP

    What is written is the run folder, its points in `points/`, and a model card. Hashes of the rows trained on and
    scores of validation rows stay behind: with the former, whoever has a row could tell that it was among them. So a
    run from the Hub does not recognise its training rows in another table, and `adapt` needs `--reference`.

    Args:
        run: a run of two classes, or its folder; the model is shared. What makes a folder that `LCTClassifier.save`
            wrote one that `LCTClassifier.load` reads goes along.
        points: operating points of it that go along, or their files; a dict names them. The card reports them.
        with_rows: take hashes and validation scores along.

    Attributes:
        points: the operating points by name.

    Raises:
        InputError: a run of more classes, or points of another model.
    """

    _hub_mixin_config = _DESCRIBED  # without one, the mixin copies the run, weights and all, to make one of arguments

    def __init__(self, run: Run | str | Path, points: Points = (), with_rows: bool = False) -> None:
        super().__init__()
        found, loaded = Problems(), None
        with problems_of(found):
            loaded = run_of_two(run)
        given = named_points(points)
        found.add(*problems_of_names([name for name, _ in given]))
        read = {name: point_of_run(each, loaded, found) for name, each in given}
        found.raise_if_any()
        assert loaded is not None
        self.run = loaded
        self.points = {name: point for name, point in read.items() if isinstance(point, OperatingPoint)}
        self.model = loaded.model
        self.with_rows = with_rows
        self._hub_mixin_config = {**_DESCRIBED, "model": loaded.id}

    def forward(self, x: Tensor, lam: Mapping[str, Hyperparameter]) -> Tensor:
        """(N, 2) logits, as `LossConditional` gives them."""
        return self.model(x, lam)

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        config: Any = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: Mapping[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Write run, points and card into a folder: all of it, or nothing.

        Files of other names in the folder stay; of a run that was saved there before, nothing does but its card.

        Args:
            save_directory: the folder; it is made where there is none.
            config: what config.json holds; by default the format and the model's identity.
            repo_id, push_to_hub, push_to_hub_kwargs: to push it then; by default to the folder's name.
            model_card_kwargs: `data`, `groups` and `images`, as for `tunelater.card.write_card`; or `card`, a card that
                it wrote, and that people went on writing. Without it a card that is there stays, if it is this model's,
                and otherwise one reports the points on the rows that they were chosen on.

        Raises:
            InputError: everything wrong with the place, the card and the data.
        """
        out, found = Path(save_directory), Problems()
        found.add(*_problems_of_place(out))
        if model_card_kwargs is None and (out / CARD).is_file():
            if self.run.id in (out / CARD).read_text(encoding="utf-8"):
                model_card_kwargs = {"card": out / CARD}
            else:
                found.add(f"{out / CARD} is of another model; model_card_kwargs={{}} replaces it")
        card = self._card(model_card_kwargs or {}, found)
        home = placed(out)
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{home.name}.", dir=home.parent) as temporary:
            made = Path(temporary) / "made"
            made.mkdir()
            self._save_pretrained(made)
            described = self._hub_mixin_config if config is None else config
            told = json.dumps(described, sort_keys=True, indent=2, default=vars)  # or a dataclass
            (made / CONFIG).write_text(f"{told}\n", encoding="utf-8")
            card.save(made / CARD)
            _move(made, home)
        if not push_to_hub:
            return None
        return self.push_to_hub(
            repo_id or home.name, config=config, model_card_kwargs={"card": card}, **push_to_hub_kwargs
        )

    def push_to_hub(self, repo_id: str, *, model_card_kwargs: Mapping[str, Any] | None = None, **options: Any) -> str:
        """Upload what `save_pretrained` writes. What is wrong is told before a repository is made.

        Points, diagrams and scores of an older version there go.

        Args:
            repo_id: such as `somebody/thyroid`; the repository is made where there is none.
            model_card_kwargs: as for `save_pretrained`.
            options: `private`, `commit_message`, `branch`, `create_pr`, `token` and further ones of huggingface_hub.

        Returns:
            The address of the commit.

        Raises:
            InputError: everything wrong with the card and the data.
        """
        card = self._card(model_card_kwargs or {}, Problems())
        options.setdefault("delete_patterns", [*_REPLACED])
        return super().push_to_hub(repo_id, model_card_kwargs={"card": card}, **options)

    def generate_model_card(self, **model_card_kwargs: Any) -> ModelCard:
        """The model card that `save_pretrained` would write."""
        return ModelCard(self._card(model_card_kwargs, Problems()).text)

    def _card(self, asked: Mapping[str, Any], found: Problems) -> Card:
        """The card that was asked for; what was found already is told with what is wrong with it."""
        known = ("card", "data", "groups", "images")
        unknown = sorted(asked.keys() - {*known})
        found.check(not unknown, f"a model card (model_card_kwargs) takes {', '.join(known)}, got {', '.join(unknown)}")
        card, rest = asked.get("card"), {name: value for name, value in asked.items() if name in known[1:]}
        if card is None:
            return make_card(self.run, at=self.points, points_in=POINTS, problems=list(found), **rest)
        found.check(
            not rest,
            f"card is one that is written; what it reports cannot be changed by {', '.join(rest)}: leave it out",
        )
        if not isinstance(card, Card):
            with problems_of(found):
                card = read_card(card, self.run)
        found.raise_if_any()
        return card

    def _save_pretrained(self, save_directory: Path) -> None:
        run, folder = self.run, Path(save_directory)
        if run.path is not None and (run.path / ESTIMATOR).is_file():
            shutil.copyfile(run.path / ESTIMATOR, folder / ESTIMATOR)
        if not self.with_rows:
            none = {name: np.empty((0, 1), np.uint64) for name in run.hashes}
            run = dataclasses.replace(run, validation=None, hashes=none)
        run.save(folder)
        if self.points:
            (folder / POINTS).mkdir()
        for name, point in self.points.items():
            point.save(folder / POINTS / f"{file_name(name)}.json")

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        map_location: str = "cpu",
        **options: Any,
    ) -> HubRun:
        folder = Path(model_id)
        if not folder.is_dir():
            folder = Path(
                snapshot_download(
                    model_id,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                )
            )
        points = sorted((folder / POINTS).glob("*.json"))
        return cls(folder, points, **options).to(map_location).eval()


def _problems_of_place(out: Path) -> list[str]:
    """Why nothing may be saved there."""
    if run := next((above for above in placed(out).resolve().parents if is_run(above)), None):
        return [f"{out} lies in the run folder {run}; name another place"]
    if out.exists() and not out.is_dir():
        return [f"{out} exists and is not a folder; name another place"]
    if is_run(out) and not (out / CONFIG).is_file():
        return [f"{out} is a run folder, from which hashes and scores of rows would go; name another place"]
    return []


def _move(made: Path, out: Path) -> None:
    """Into its place; where there is a folder, over what another version left there. DONE goes first and comes last."""
    if not out.is_dir():
        os.replace(made, out)
        return
    (out / "DONE").unlink(missing_ok=True)
    for pattern in _REPLACED:
        for older in out.glob(pattern):
            older.unlink()
    files = sorted((path for path in made.rglob("*") if path.is_file()), key=lambda path: path.name == "DONE")
    for path in files:
        place = out / path.relative_to(made)
        place.parent.mkdir(exist_ok=True)
        os.replace(path, place)
