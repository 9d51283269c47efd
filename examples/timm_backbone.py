"""A model of timm's, fine-tuned with a conditional loss.

pip install 'tunelater[vision]'
python examples/timm_backbone.py
"""

import timm
import torch
from torch.utils.data import DataLoader, TensorDataset

from tunelater import LambdaSpace, Linear, LossConditional, OperatingGrid, loss_family, score

SEED = 0
SPACE = LambdaSpace(gamma=Linear(0, 0.3, 0), tau=Linear(0, 3, 0.33))


def images(n: int, seed: int) -> TensorDataset:
    """n noisy images of 32 pixels; one in five has a bright square, and is a positive."""
    rng = torch.Generator().manual_seed(seed)
    y = (torch.arange(n) % 5 == 0).long()
    x = torch.randn(n, 3, 32, 32, generator=rng)
    x[y == 1, :, 10:20, 10:20] += 0.35
    return TensorDataset(x, y)


def main() -> None:
    train_set, validation_set = images(320, seed=1), images(320, seed=2)
    family = loss_family("vs", class_counts=torch.bincount(train_set.tensors[1]).tolist())
    torch.manual_seed(SEED)
    # pretrained=True starts from ImageNet; here nothing is downloaded.
    backbone = timm.create_model("resnet10t", pretrained=False)
    model = LossConditional.wrap(backbone, SPACE)  # its classifier is taken off
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    step = 0
    for _epoch in range(2):
        for x, y in DataLoader(train_set, batch_size=32, shuffle=True):
            lam = SPACE.draw(SEED, step)  # one draw a step, keyed by (seed, step)
            loss = family.loss(model(x, lam), y, **lam).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1

    scores = score(model, validation_set, SPACE.grid(5), family)
    point = OperatingGrid(scores).select(maximize="precision", subject_to="recall>=0.8")
    print(f"operating point: lambda {point.lam}, threshold {point.threshold:.3f}")
    print(f"recall {point.metrics['recall']}, precision {point.metrics['precision']}")


if __name__ == "__main__":
    main()
