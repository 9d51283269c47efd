"""A conditional loss in a LightningModule, trained and resumed by Lightning's Trainer.

pip install lightning
python examples/lightning_trainer.py
"""

import tempfile
from pathlib import Path

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tunelater import LambdaSpace, Linear, LossConditional, OperatingGrid, loss_family, score

SEED = 0
SPACE = LambdaSpace(gamma=Linear(0, 0.3, 0), tau=Linear(0, 3, 0.33))


class Rare(lightning.LightningModule):
    """Three lines are tunelater's: the wrapped model, the draw, the loss."""

    def __init__(self, class_counts: list[int]) -> None:
        super().__init__()
        backbone = nn.Sequential(nn.Linear(8, 32), nn.ReLU())
        self.model = LossConditional.wrap(backbone, SPACE)
        self.family = loss_family("vs", class_counts=class_counts)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        # Lightning restores global_step with a checkpoint, and every process has the same: so they draw the same.
        lam = SPACE.draw(SEED, self.global_step)
        return self.family.loss(self.model(x, lam), y, **lam).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def samples(n: int, seed: int) -> TensorDataset:
    """n rows of eight numbers; one in ten is a positive, with a larger first number."""
    rng = torch.Generator().manual_seed(seed)
    y = (torch.arange(n) % 10 == 0).long()
    x = torch.randn(n, 8, generator=rng)
    x[:, 0] += 2 * y
    return TensorDataset(x, y)


def trainer(epochs: int, folder: Path) -> lightning.Trainer:
    return lightning.Trainer(
        max_epochs=epochs,
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def main(folder: Path | None = None) -> None:
    folder = folder or Path(tempfile.mkdtemp())
    lightning.seed_everything(SEED, verbose=False)
    train_set, validation_set = samples(1_000, seed=1), samples(1_000, seed=2)
    module = Rare(torch.bincount(train_set.tensors[1]).tolist())
    first = trainer(2, folder)
    first.fit(module, DataLoader(train_set, batch_size=100, shuffle=True))
    first.save_checkpoint(folder / "early.ckpt")
    # Stopped here; the rest goes on at step 20 with the lambda of step 20.
    loader = DataLoader(train_set, batch_size=100, shuffle=True)
    trainer(10, folder).fit(module, loader, ckpt_path=folder / "early.ckpt")

    scores = score(module.model, DataLoader(validation_set, batch_size=500), SPACE.grid(5), module.family)
    point = OperatingGrid(scores).select(maximize="precision", subject_to="recall>=0.8")
    print(f"operating point: lambda {point.lam}, threshold {point.threshold:.3f}")
    print(f"recall {point.metrics['recall']}, precision {point.metrics['precision']}")


if __name__ == "__main__":
    main()
