"""An own network in an own training loop, stopped half-way and resumed.

    python examples/own_loop.py

Needs nothing besides tunelater.
"""

from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tunelater import LambdaSpace, Linear, LossConditional, OperatingGrid, loss_family, score

SEED = 0
SPACE = LambdaSpace(gamma=Linear(0, 0.3, 0), tau=Linear(0, 3, 0.33))


def samples(n: int, seed: int) -> TensorDataset:
    """n points in the plane; one in ten, on average, is a positive from the ring around the others."""
    rng = torch.Generator().manual_seed(seed)
    y = (torch.rand(n, generator=rng) < 0.1).long()
    x = torch.randn(n, 2, generator=rng)
    ring = nn.functional.normalize(x) * 2.5 + 0.5 * torch.randn(n, 2, generator=rng)
    return TensorDataset(torch.where(y[:, None] == 1, ring, x), y)


def train(train_set: TensorDataset, steps: int, checkpoint: Path) -> LossConditional:
    """Train up to `steps`, going on from the checkpoint where there is one."""
    x, y = train_set.tensors
    family = loss_family("vs", class_counts=torch.bincount(y).tolist())
    torch.manual_seed(SEED)
    backbone = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
    model = LossConditional.wrap(backbone, SPACE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    for step in range(start, steps):
        # Batch and lambda depend on (SEED, step) alone, so a resumed training sees what an unbroken one would.
        rows = torch.randint(len(y), (128,), generator=torch.Generator().manual_seed(step))
        lam = SPACE.draw(SEED, step)
        loss = family.loss(model(x[rows], lam), y[rows], **lam).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": steps}, checkpoint)
    return model


def main(folder: Path = Path()) -> None:
    train_set, validation_set = samples(2_000, seed=1), samples(2_000, seed=2)
    checkpoint = folder / "own_loop.pt"
    checkpoint.unlink(missing_ok=True)
    train(train_set, 100, checkpoint)
    model = train(train_set, 200, checkpoint)

    family = loss_family("vs", class_counts=torch.bincount(train_set.tensors[1]).tolist())
    scores = score(model, DataLoader(validation_set, batch_size=500), SPACE.grid(5), family)
    point = OperatingGrid(scores).select(maximize="precision", subject_to="recall>=0.8")
    print(f"operating point: lambda {point.lam}, threshold {point.threshold:.3f}")
    print(f"recall {point.metrics['recall']}, precision {point.metrics['precision']}")


if __name__ == "__main__":
    main()
