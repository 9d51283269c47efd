"""Images per second of the training loop on CIFAR-10, automobile against truck, with ResNet-32 and batches of 128.

Ours is `training.train` itself, with LCT and the VS loss; the rival is the usual PyTorch loop on the same network: a
`DataLoader` of PIL transforms with two workers, cross-entropy, clipping, SGD. Every repetition runs all of them one
after the other, so that a noisy machine slows them alike; warm-up steps are not timed. Ratios are of the same
repetition: the table gives their median and range.

The roofline is the time that this step's convolutions and batch normalizations would take at the machine's own measured
speed: each the larger of FLOPs / (best matrix product of that precision) and bytes / (best copy), with everything else
fused into them. Bytes are those of each operation's inputs and outputs.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import flop_registry

from tunelater import vision
from tunelater.config import Config, ImagesConfig, ModelConfig, OptimizerConfig, SAMConfig, ScheduleConfig
from tunelater.data.benchmarks import LabelledImages, cifar10
from tunelater.data.images import ImageSplit
from tunelater.data.splits import Splits
from tunelater.distributions import LambdaSpace
from tunelater.models import build, channels_last
from tunelater.training import TrainingInterrupted, train

BATCH = 128
IMAGES = ImagesConfig(crop="pad", padding=4, horizontal_flip=True)
LCT = Config(
    model=ModelConfig("resnet32"), images=IMAGES, batch_size=BATCH, epochs=1000, early_stopping=None, clip_norm=0.5,
    optimizer=OptimizerConfig("sgd", learning_rate=0.01, weight_decay=2e-4, momentum=0.9),
    schedule=ScheduleConfig("constant"),
)  # fmt: skip
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Seconds = Callable[[int, int], np.ndarray]
"""(warm-up steps, timed steps) -> what the timed ones took on the clock, and of this process on the CPU: the second is
disturbed less by other work, but knows nothing of a loader's processes."""


def now() -> np.ndarray:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()])


# ---------------------------------------------------------------------------------------------------------------- ours


def ours(config: Config, images: LabelledImages) -> Seconds:
    split = ImageSplit(torch.from_numpy(images.images), torch.from_numpy(images.target), config.images or IMAGES)

    def seconds(warm_up: int, steps: int) -> np.ndarray:
        at: dict[int, np.ndarray] = {}

        def stop(step: int) -> bool:
            if step in (warm_up, warm_up + steps):
                at[step] = now()
            return step == warm_up + steps

        try:
            train(config, Splits(split, split), build(config), stop=stop)
        except TrainingInterrupted:
            if len(at) < 2:  # by a signal, not by us
                raise
            return at[warm_up + steps] - at[warm_up]
        raise AssertionError("the training ended before it was stopped")

    return seconds


# --------------------------------------------------------------------------------------------------------------- rival


class PILImages(Dataset[tuple[Tensor, int]]):
    """As torchvision's CIFAR10: an array of pixels, an image of PIL's for each item."""

    def __init__(self, images: LabelledImages) -> None:
        vision.torchvision()
        from torchvision import transforms

        assert images.images is not None
        self.data, self.target = images.images.transpose(0, 2, 3, 1).copy(), images.target.tolist()
        self.transform = transforms.Compose([
            transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
            transforms.Normalize(IMAGES.mean, IMAGES.std),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.data[i])), self.target[i]


def network() -> nn.Module:
    model = build(dataclasses.replace(LCT, loss="cross_entropy", lambdas=LambdaSpace()))
    return nn.Sequential(model.trunk, model.head).train().to(DEVICE)


def plain(images: LabelledImages, *, bf16: bool = False) -> Seconds:
    """The usual loop; with `bf16`, in bfloat16 and channels-last as well."""
    loader = DataLoader(PILImages(images), BATCH, shuffle=True, num_workers=2, pin_memory=DEVICE.type == "cuda")

    def seconds(warm_up: int, steps: int) -> np.ndarray:
        model = channels_last(network()) if bf16 else network()
        settings = LCT.optimizer
        optimizer = torch.optim.SGD(
            model.parameters(), settings.learning_rate, settings.momentum, weight_decay=settings.weight_decay
        )
        endless = itertools.chain.from_iterable(itertools.repeat(loader))
        start = now()
        for step, (x, target) in enumerate(endless):
            if step == warm_up:
                start = now()
            if step == warm_up + steps:
                return now() - start
            x, target = x.to(DEVICE, non_blocking=True), target.to(DEVICE, non_blocking=True)
            if bf16:
                x = x.contiguous(memory_format=torch.channels_last)
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=bf16):
                loss = F.cross_entropy(model(x), target)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        raise AssertionError("the loader is endless")

    return seconds


# ------------------------------------------------------------------------------------------------------------ roofline

_HEAVY = {
    torch.ops.aten.convolution, torch.ops.aten.convolution_backward,
    torch.ops.aten.native_batch_norm, torch.ops.aten.native_batch_norm_backward,
    torch.ops.aten.cudnn_batch_norm, torch.ops.aten.cudnn_batch_norm_backward,
}  # fmt: skip


class Operations(TorchDispatchMode):
    """FLOPs and bytes of each convolution and batch normalization."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[tuple[float, float]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in _HEAVY:
            counted = flop_registry.get(func.overloadpacket)
            flops = counted(*args, **(kwargs or {}), out_val=out) if counted else 0
            results = out if isinstance(out, tuple | list) else (out,)
            self.counts.append((flops, sum(t.nbytes for t in (*args, *results) if isinstance(t, Tensor))))
        return out


def operations(bf16: bool) -> list[tuple[float, float]]:
    model = channels_last(network())
    x = torch.randn(BATCH, 3, 32, 32, device=DEVICE).contiguous(memory_format=torch.channels_last)
    target = torch.zeros(BATCH, dtype=torch.int64, device=DEVICE)
    with Operations() as counter:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(model(x), target)
        loss.backward()
    return counter.counts


def best_rate(work: Callable[[], object], amount: float, repeat: int = 20) -> float:
    """Amount of work in a second, at the best of the repetitions."""
    times = []
    for _ in range(repeat):
        start = now()
        work()
        times.append((now() - start)[0])
    return amount / min(times)


def peaks(bf16: bool) -> tuple[float, float]:
    """FLOPs and bytes that this machine does in a second."""
    n = 8192 if DEVICE.type == "cuda" else 2048
    a, b = (torch.randn(n, n, device=DEVICE, dtype=torch.bfloat16 if bf16 else torch.float32) for _ in range(2))
    source = torch.ones(2**28 // 4, device=DEVICE)  # 256 MiB: beyond any cache
    target = torch.zeros_like(source)
    return best_rate(lambda: a @ b, 2 * n**3), best_rate(lambda: target.copy_(source), 2 * source.nbytes)


def roofline(bf16: bool) -> tuple[float, str]:
    """The least seconds of a step, and how they come about."""
    counts, (flops_s, bytes_s) = operations(bf16), peaks(bf16)
    least = sum(max(flops / flops_s, moved / bytes_s) for flops, moved in counts)
    flops, moved = (sum(column) for column in zip(*counts, strict=True))
    told = (
        f"{'bf16' if bf16 else 'fp32'}: {flops / 1e9:.1f} GFLOP and {moved / 1e9:.2f} GB a step, at "
        f"{flops_s / 1e9:,.0f} GFLOP/s and {bytes_s / 1e9:,.1f} GB/s at least {1e3 * least:.1f} ms: "
        f"{BATCH / least:,.0f} images/s"
    )
    return least, told


# --------------------------------------------------------------------------------------------------------------- table


def spread(values: np.ndarray, form: str = ".2f") -> str:
    return f"{np.median(values):{form}} ({values.min():{form}} to {values.max():{form}})"


def row(name: str, seconds: np.ndarray, base: np.ndarray, least: float) -> str:
    fraction = least / np.median(seconds)
    return f"| {name} | {spread(BATCH / seconds, ',.0f')} | {spread(base / seconds)} | {fraction:.0%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with cifar-10-batches-bin or -py")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--steps", type=int, default=200 if DEVICE.type == "cuda" else 20, help="timed steps")
    parser.add_argument("--warm-up", type=int, default=50 if DEVICE.type == "cuda" else 5)
    parser.add_argument("--compile", action="store_true", help="also compiled steps; always on a GPU")
    options = parser.parse_args()

    images = cifar10(options.data, "automobile-truck").train
    bf16 = dataclasses.replace(LCT, precision="bf16-mixed")
    fixed = dataclasses.replace(LCT, lambdas=LambdaSpace(gamma=0.1, tau=1.0))
    loops = {
        "plain loop, fp32": (plain(images), False),
        "plain loop, bf16 and channels-last": (plain(images, bf16=True), True),
        "ours, fp32 (channels-last)": (ours(LCT, images), False),
        "ours, bf16 (channels-last)": (ours(bf16, images), True),
        "ours, fp32, fixed lambda": (ours(fixed, images), False),
        "ours, fp32, SAM": (ours(dataclasses.replace(LCT, sam=SAMConfig()), images), False),
    }
    if options.compile or DEVICE.type == "cuda":
        loops["ours, bf16, compiled"] = (ours(dataclasses.replace(bf16, compile=True), images), True)

    machine = torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{machine}, PyTorch {torch.__version__}; {options.repeat} repetitions of {options.steps} steps of {BATCH}")
    took: dict[str, list[np.ndarray]] = {name: [] for name in loops}
    for i in range(options.repeat):
        for name, (seconds, _) in loops.items():
            took[name].append(seconds(options.warm_up, options.steps) / options.steps)
        told = ", ".join(f"{name} {BATCH / each[-1][0]:,.0f}" for name, each in took.items())
        print(f"  {i + 1}: {told}", flush=True)
    clock, cpu = ({name: np.array(each)[:, i] for name, each in took.items()} for i in (0, 1))

    bounds = {precision: roofline(precision) for precision in (False, True)}
    for _, told in bounds.values():
        print(told)
    print("| loop | images/s: median (range) | times the plain loop | of the roofline |\n|---|---|---|---|")
    for name, (_, precision) in loops.items():
        print(row(name, clock[name], clock["plain loop, fp32"], bounds[precision][0]))
    plainly = "ours, fp32 (channels-last)"
    for name, above, below in (
        ("LCT step / fixed-lambda step", plainly, "ours, fp32, fixed lambda"),
        ("SAM step / step", "ours, fp32, SAM", plainly),
    ):
        print(f"{name}: {spread(clock[above] / clock[below])}; in CPU time {spread(cpu[above] / cpu[below])}")


if __name__ == "__main__":
    main()
