"""Runs on the Hugging Face Hub: `HubRun` pushes a run folder with its model card, and loads one. Needs the extra `hub`.

Weights are safetensors and the rest is TOML, JSON and arrays; nothing that is loaded can run code.
"""

from __future__ import annotations

import dataclasses
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

from tunelater.card import card_text
from tunelater.losses import Hyperparameter
from tunelater.runs import FORMAT, Run


class HubRun(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="tunelater",
    tags=["tunelater", "imbalanced-classification"],
):
    """A run as a PyTorch module with `save_pretrained`, `push_to_hub` and `from_pretrained`.

    >>> HubRun.from_pretrained("somebody/thyroid").run  # doctest: +SKIP
    >>> HubRun(Run.load("run")).push_to_hub("somebody/thyroid", private=True)  # doctest: +SKIP

    What is written is the run folder, and a model card unless the folder has one. Hashes of the rows trained on and
    scores of validation rows stay behind: with the former, whoever has a row could tell that it was among them. So a
    run from the Hub does not recognise its training rows in another table, and `adapt` needs `--reference`.

    Args:
        run: its model is shared.
        with_rows: take hashes and validation scores along.
    """

    def __init__(self, run: Run, with_rows: bool = False) -> None:
        super().__init__()
        self.run = run
        self.model = run.model
        self.with_rows = with_rows
        self._hub_mixin_config = {"run_format": FORMAT, "model": run.id}  # config.json, by which the Hub counts

    def forward(self, x: Tensor, lam: Mapping[str, Hyperparameter]) -> Tensor:
        """(N, 2) logits, as `LossConditional` gives them."""
        return self.model(x, lam)

    def _save_pretrained(self, save_directory: Path) -> None:
        run = self.run
        if not self.with_rows:
            run = dataclasses.replace(
                run, validation=None, hashes={name: np.empty((0, 1), np.uint64) for name in run.hashes}
            )
        run.save(Path(save_directory))

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
        strict: bool = True,
        **options: Any,
    ) -> HubRun:
        folder = model_id
        if not Path(model_id).is_dir():
            folder = snapshot_download(
                model_id,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
            )
        return cls(Run.load(folder)).to(map_location).eval()

    def generate_model_card(self, *_: Any, **__: Any) -> ModelCard:
        return ModelCard(card_text(self.run))
