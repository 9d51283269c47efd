"""What a training step costs, as ratios in one run: LCT against a fixed lambda, and our loop against a bare PyTorch
loop.

Every repetition times all three one after the other, so that a noisy machine slows them alike; the table gives the
median ratio over the repetitions and its quartiles.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from tunelater.config import Config
from tunelater.data.splits import Splits, TensorSplit
from tunelater.distributions import LambdaSpace
from tunelater.models import build
from tunelater.training import train

N, FEATURES, EPOCHS = 12_800, 32, 10


def data() -> Splits:
    g = torch.Generator().manual_seed(0)
    target = (torch.rand(N, generator=g) < 0.02).long()
    whole = TensorSplit(torch.randn(N, FEATURES, generator=g) + 0.5 * target[:, None], target)
    return Splits(whole, whole)


def ours(config: Config, splits: Splits) -> Callable[[], None]:
    return lambda: train(config, splits, build(config, n_features=FEATURES)) and None


def bare(config: Config, splits: Splits) -> Callable[[], None]:
    """The usual hand-written loop on the same network, optimizer, clipping and data."""

    def run() -> None:
        model = build(config, n_features=FEATURES)
        network = torch.nn.Sequential(model.trunk, model.head).train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
        x, target = splits.train.x, splits.train.target
        for _ in range(EPOCHS):
            for index in torch.randperm(N).split(config.batch_size):
                loss = F.cross_entropy(network(x[index]), target[index])
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
                optimizer.step()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=41)
    repeat = parser.parse_args().repeat
    splits = data()
    fixed = LambdaSpace(gamma=0.1, tau=1.0)
    lct = Config(epochs=EPOCHS, batch_size=128, early_stopping=None)
    small = {"width": 64, "depth": 2, "dropout": 0.0}
    pairs = {
        "LCT step / fixed-lambda step, tabular trunk": (
            ours(lct, splits),
            ours(dataclasses.replace(lct, lambdas=fixed), splits),
        ),
        "our loop / bare PyTorch loop, small MLP": tuple(
            make(
                Config(
                    loss="cross_entropy", lambdas=LambdaSpace(), epochs=EPOCHS, batch_size=128, early_stopping=None,
                    model=type(lct.model)("mlp", small),
                ),
                splits,
            )
            for make in (ours, bare)
        ),
    }  # fmt: skip
    steps = EPOCHS * N // 128
    print(f"{torch.get_num_threads()} threads, PyTorch {torch.__version__}, {steps} steps each, {repeat} repetitions")
    for name, (a, b) in pairs.items():
        a(), b()
        ratios = []
        for _ in range(repeat):
            times = []
            for run in (a, b):
                start = time.perf_counter()
                run()
                times.append(time.perf_counter() - start)
            ratios.append(times[0] / times[1])
        low, median, high = np.percentile(ratios, [25, 50, 75])
        print(f"{name}: {median:.2f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
