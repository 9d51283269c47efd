"""Trunks: sizes counted by hand, other libraries' networks with the same weights, and what cannot be loaded."""

import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from torch import Tensor, nn
from torch.nn import functional as F

from real_data import LITE0, needed
from tunelater import vision
from tunelater.config import TRUNK_OPTIONS, Config, FiLMConfig, ModelConfig
from tunelater.data.splits import Splits, TensorSplit, class_counts
from tunelater.distributions import LambdaSpace, Linear
from tunelater.film import Stage
from tunelater.losses import loss_family
from tunelater.models import TRUNKS, ResNet32, TimmTrunk, build, problems_of_images
from tunelater.problems import InputError
from tunelater.scoring import score
from tunelater.training import train

SMALL = "test_resnet"
"""One of the tiny models that timm keeps for tests."""


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def n_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def with_trunk(name: str, **options: Any) -> Config:
    return Config(model=ModelConfig(name, options), lambdas=LambdaSpace(gamma=0.1, tau=Linear(0, 3, 0.33)))


def problems_of(name: str, **options: Any) -> tuple[str, ...]:
    with pytest.raises(InputError) as error:
        TimmTrunk(name, **options)
    assert all("\n" not in problem for problem in error.value.problems)
    return error.value.problems


# ---------------------------------------------------------------------------------------------------------------------
# ResNet-32
# ---------------------------------------------------------------------------------------------------------------------


def test_resnet32_has_the_parameters_of_its_convolutions_and_normalizations() -> None:
    first = 3 * 16 * 9
    stage1 = 10 * 16 * 16 * 9
    stage2 = 16 * 32 * 9 + 9 * 32 * 32 * 9
    stage3 = 32 * 64 * 9 + 9 * 64 * 64 * 9
    normalizations = 2 * (16 + 10 * 16 + 10 * 32 + 10 * 64)  # a scale and a shift for each channel
    trunk = ResNet32()
    assert n_parameters(trunk) == first + stage1 + stage2 + stage3 + normalizations == 463_504
    assert n_parameters(trunk) + n_parameters(nn.Linear(64, 10)) == 464_154  # 0.46 M (He et al. 2016, Table 6)
    assert n_parameters(trunk) + n_parameters(nn.Linear(64, 2)) == 463_504 + 130


def test_resnet32_has_31_convolutions_and_no_other_layer_with_weights_but_normalizations() -> None:
    layers = [m for m in ResNet32().modules() if list(m.parameters(recurse=False))]
    convolutions = [m for m in layers if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 31  # the 32nd layer is the head
    assert sum(isinstance(m, nn.BatchNorm2d) for m in layers) == 31
    assert len(layers) == 62
    assert all(m.kernel_size == (3, 3) and m.bias is None for m in convolutions)  # a projection would be 1x1


def test_a_shortcut_keeps_every_other_pixel_and_adds_channels_of_zeros() -> None:
    blocks = list(ResNet32().blocks)
    assert len(blocks) == 15
    assert [i for i, block in enumerate(blocks) if block.stride == 2] == [5, 10]
    x = torch.randn(2, 16, 8, 8)
    assert blocks[0].shortcut(x) is x
    out = blocks[5].shortcut(x)
    assert out.shape == (2, 32, 4, 4)
    torch.testing.assert_close(out[:, 8:24], x[:, :, ::2, ::2], rtol=0, atol=0)
    assert not out[:, :8].any()
    assert not out[:, 24:].any()


def test_with_dead_convolutions_resnet32_is_its_shortcuts() -> None:
    """Each block adds to its shortcut: with second normalizations of zero, only the first layer's features are left."""
    trunk = ResNet32().eval()
    for block in trunk.blocks:
        nn.init.zeros_(block.bn2.weight)
    x = torch.randn(2, 3, 32, 32)
    first = F.relu(trunk.bn(trunk.conv(x)))[:, :, ::4, ::4].mean((2, 3))
    torch.testing.assert_close(trunk(x), F.pad(first, (24, 24)))


def test_resnet32_gives_64_pooled_features() -> None:
    trunk = ResNet32()
    assert trunk.channels == 64
    assert trunk(torch.randn(5, 3, 32, 32)).shape == (5, 64)
    shapes: list[tuple[int, ...]] = []
    for block in trunk.blocks:
        block.register_forward_hook(lambda _module, _inputs, out: shapes.append(tuple(out.shape[1:])))
    trunk(torch.randn(2, 3, 32, 32))
    assert shapes == [(16, 32, 32)] * 5 + [(32, 16, 16)] * 5 + [(64, 8, 8)] * 5


def test_resnet32_starts_kaiming_normal() -> None:
    """Normal with variance 2 / fan-in: in units of it every convolution is standard normal."""
    standard = [
        m.weight.detach().flatten() * math.sqrt(m.in_channels * 9 / 2)
        for m in ResNet32().modules()
        if isinstance(m, nn.Conv2d)
    ]
    for weights in standard:
        assert weights.mean().abs() < 5 / math.sqrt(len(weights))
        assert (weights.std() - 1).abs() < 5 / math.sqrt(2 * len(weights))
    pooled = torch.cat(standard)
    inside = (pooled.abs() < 1).double().mean()
    assert inside == pytest.approx(math.erf(1 / math.sqrt(2)), abs=5 * 0.5 / math.sqrt(len(pooled)))  # not uniform
    assert pooled.abs().max() > 4  # nor truncated at two or three


def test_gradients_reach_every_parameter_of_resnet32() -> None:
    trunk = ResNet32()
    trunk(torch.randn(8, 3, 32, 32)).square().sum().backward()
    for name, parameter in trunk.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
        assert parameter.grad.isfinite().all(), name


# ---------------------------------------------------------------------------------------------------------------------
# timm's models
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size"),
    [
        (SMALL, 64),
        ("test_convnext", 64),
        ("test_vit", 160),
        ("mobilenetv3_small_050", 64),  # a layer between pooling and classifier
    ],
)
def test_channels_are_those_of_the_features(name: str, size: int) -> None:
    trunk = TimmTrunk(name)
    out = trunk(torch.randn(2, 3, size, size))
    assert out.shape == (2, trunk.channels)
    out.sum().backward()


@pytest.mark.parametrize(
    ("name", "channels", "parameters"),
    [
        # The counts of Xie et al. 2017 and Liu et al. 2022, with 1000 classes, in millions.
        ("resnext50_32x4d", 2048, 25.0),
        ("convnext_tiny", 768, 28.6),
    ],
)
def test_the_papers_backbones(name: str, channels: int, parameters: float) -> None:
    with torch.device("meta"):
        trunk = TimmTrunk(name)
    assert trunk.channels == channels
    assert n_parameters(trunk) + 1000 * (channels + 1) == pytest.approx(parameters * 1e6, abs=0.05e6)


def test_options_go_to_timm() -> None:
    assert TimmTrunk(SMALL, in_chans=1)(torch.randn(2, 1, 64, 64)).shape == (2, 96)
    (problem,) = problems_of(SMALL, depht=3)
    assert "depht" in problem
    assert SMALL in problem


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("vit_tiny_patch16_224", {"drop_rate": "a"}, "correct or remove them"),
        ("vit_tiny_patch16_224", {"drop_rate": 7}, "got 7; correct or remove them"),
        ("convnext_tiny", {"depths": [1]}, "got IndexError with the model.options {'depths': [1]}"),
        ("convnext_tiny", {"pretrained_cfg": 3}, "got AttributeError"),
        (SMALL, {"features_only": True}, "features_only is not to be set: a trunk ends in pooled features"),
        (SMALL, {"num_classes": 3}, "num_classes is not to be set"),
        (SMALL, {"name": "x"}, "name is not to be set: the network is what model.trunk"),
        (SMALL, {"checkpoint_path": "x"}, "by model.options.weights"),
        (SMALL, {"pretrained": "yes"}, "pretrained is true or false, got 'yes'"),
        (SMALL, {"weights": 3}, "weights is a file, got 3"),
        (SMALL, {"weights": "x", "pretrained": True}, "not both; got 'x'"),
    ],
)
def test_impossible_options_are_refused(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        build(Config(model=ModelConfig(name, options)))
    (problem,) = error.value.problems
    assert words in problem


@pytest.mark.parametrize(
    ("name", "options", "size", "words"),
    [
        (SMALL, {}, 64, None),
        (SMALL, {"drop_rate": 7}, 64, "got dropout probability has to be between 0 and 1"),
        (SMALL, {"in_chans": 1}, 64, "3 colours and 64 pixels, got Given groups=1"),
        (SMALL, {"global_pool": ""}, 64, "give features (1, 96), got (1, 96, 2, 2)"),
        ("vit_tiny_patch16_224", {"img_size": 32}, 32, None),
        ("vit_tiny_patch16_224", {"img_size": 32}, 64, "3 colours and 64 pixels, got "),
        ("resnet32", {}, 32, None),
        ("resnet32", {}, 1, None),
    ],
)
def test_trunks_that_take_no_images_are_found(name: str, options: dict[str, Any], size: int, words: str | None) -> None:
    told = problems_of_images(build(with_trunk(name, **options)).trunk, size)
    assert len(told) == (words is not None)
    assert words is None or words in told[0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnext50_32x4", "there is no trunk 'resnext50_32x4'; did you mean 'resnext50_32x4d'?"),
        ("convnext_tiny.fb_in1", "there are no weights 'convnext_tiny.fb_in1'; did you mean 'convnext_tiny.fb_in1k'?"),
        ("hf-hub:timm/resnet18", "there is no trunk 'hf-hub:timm/resnet18'; known are"),
        ("", "there is no trunk ''; known are"),
    ],
)
def test_unknown_names_say_what_may_have_been_meant(name: str, words: str) -> None:
    for problems in (problems_of(name), vision.problems_of_backbone(name)):
        (problem,) = problems
        assert problem.startswith(words)
        assert len(problem) < 200  # not a list of all


def test_a_config_knows_timms_names_and_its_own() -> None:
    for name in (*TRUNK_OPTIONS, SMALL, "convnext_tiny.fb_in1k"):
        config = Config(model=ModelConfig(name))
        assert Config.from_toml(config.to_toml()) == config
    for name, meant in (("mpl", "mlp"), ("resnet_32", "resnet32"), ("resnext50", "resnext50_32x4d"), ("xyzzy", None)):
        with pytest.raises(InputError) as error:
            Config(model=ModelConfig(name))
        hint = (
            f"did you mean {meant!r}?" if meant else "known are mlp, tabm, resnet32 and the names in timm.list_models()"
        )
        assert error.value.problems == (f"there is no trunk {name!r}; {hint}",)
    assert set(TRUNK_OPTIONS) == set(TRUNKS)


# ---------------------------------------------------------------------------------------------------------------------
# Weights
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def state() -> dict[str, Tensor]:
    """A state dict of timm's whole model, classifier included."""
    return vision.timm().create_model(SMALL, num_classes=7).state_dict()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("classifier", [True, False])
def test_weights_come_from_a_file(state: dict[str, Tensor], suffix: str, classifier: bool, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    kept = {key: value for key, value in state.items() if classifier or not key.startswith("fc.")}
    assert (len(kept) == len(state)) == classifier
    save_file(kept, path) if suffix == ".safetensors" else torch.save(kept, path)
    trunk = TimmTrunk(SMALL, weights=path)
    assert trunk.backbone.state_dict().keys() == state.keys() - {"fc.weight", "fc.bias"}
    for key, value in trunk.backbone.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_of_a_checkpoint_the_averaged_model_is_taken(state: dict[str, Tensor], tmp_path: Path) -> None:
    other = {key: torch.zeros_like(value) for key, value in state.items()}
    wrapped = {f"module.{key}": value for key, value in state.items()}
    torch.save({"state_dict": other, "state_dict_ema": wrapped, "epoch": 3}, tmp_path / "checkpoint.pth.tar")
    trunk = TimmTrunk(SMALL, weights=tmp_path / "checkpoint.pth.tar")
    assert torch.equal(trunk.backbone.conv1[0].weight, state["conv1.0.weight"])


def test_weights_without_counters_of_normalization_are_whole(state: dict[str, Tensor], tmp_path: Path) -> None:
    """As PyTorch wrote them before 1.0."""
    save_file({k: v for k, v in state.items() if "num_batches_tracked" not in k}, tmp_path / "old.safetensors")
    trunk = TimmTrunk(SMALL, weights=tmp_path / "old.safetensors")
    assert torch.equal(trunk.backbone.conv1[0].weight, state["conv1.0.weight"])


def test_weights_of_torchvisions_resnets_are_timms(tmp_path: Path) -> None:
    network = vision.torchvision().models.resnet18(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "resnet18.pth")
    trunk = TimmTrunk("resnet18", weights=tmp_path / "resnet18.pth").eval()
    network.fc = nn.Identity()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(trunk(x), network(x))


def test_weights_that_do_not_fit_are_counted_and_named(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    gone = sorted(key for key in state if key.startswith("layer1.") and "num_batches" not in key)
    for key in gone:
        del state[key]
    state["bn1.weight"] = torch.ones(3)
    save_file({**state, "extra.a": torch.ones(1), "fcc.weight": torch.ones(1)}, path)
    (problem,) = problems_of(SMALL, weights=path)
    assert f"{len(gone)} missing ({', '.join(gone[:3])}, ...)" in problem
    assert "2 unexpected (extra.a, fcc.weight)" in problem
    assert "1 of another shape (bn1.weight (3,) instead of (32,))" in problem


class Runs:
    """Unpickling it would end the process."""

    def __reduce__(self) -> tuple[Any, tuple[int]]:
        return sys.exit, (3,)


def test_files_that_hold_no_weights_are_refused_and_not_run(tmp_path: Path) -> None:
    torch.save(Runs(), tmp_path / "code.pth")
    torch.save([torch.ones(2)], tmp_path / "list.pth")
    torch.save({"epoch": 3, "note": "x", "weight": torch.ones(2)}, tmp_path / "other.pth")
    (tmp_path / "text.safetensors").write_text("no weights", encoding="utf-8")
    (tmp_path / "empty.pth").touch()
    for name in ("code.pth", "list.pth", "text.safetensors", "empty.pth"):
        (problem,) = problems_of(SMALL, weights=tmp_path / name)
        assert problem.startswith(f"{tmp_path / name} is not a file of weights"), problem
    (problem,) = problems_of(SMALL, weights=tmp_path / "other.pth")
    assert "2 of its entries are no tensors (epoch, note)" in problem
    for path in (tmp_path, tmp_path / "absent.pth"):
        assert problems_of(SMALL, weights=path) == (f"there is no weights file {path}",)


def test_without_a_network_one_line_says_to_pass_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable() -> Any:
        raise ConnectionError("no route\nto host")

    vision.timm()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils.get_session", unreachable)
    (problem,) = problems_of("convnext_tiny", pretrained=True)
    assert "'convnext_tiny' could not be downloaded (no route); pass a file" in problem


def test_offline_timms_cache_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    vision.timm()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (problem,) = problems_of(SMALL, pretrained=True, cache_dir=tmp_path)
    assert f"{SMALL!r} could not be downloaded" in problem


def test_pretrained_weights_need_one_source() -> None:
    (problem,) = problems_of(SMALL, pretrained=True, weights="some.pth")
    assert problem == "give pretrained=True or a file of weights, not both; got 'some.pth'"
    library = vision.timm()
    name = next(name for name in library.list_models() if not library.models.is_model_pretrained(name))
    (problem,) = problems_of(name, pretrained=True)
    assert problem.startswith(f"timm has no pretrained weights for {name!r}")


# ---------------------------------------------------------------------------------------------------------------------
# EfficientNet-Lite
# ---------------------------------------------------------------------------------------------------------------------


def lite_names(n_blocks: tuple[int, ...], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's state dict under the names of `efficientnet_lite_pytorch`, from an order of layers that both share."""
    outside = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    simple = ["_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
    inverted = ["_expand_conv", "_bn0", *simple]
    starts = [sum(n_blocks[:i]) for i in range(len(n_blocks))]
    layers: dict[str, list[str]] = {}
    for key in state:
        if key.startswith("blocks."):
            place, layer = ".".join(key.split(".")[:3]), key.split(".")[3]
            if layer not in layers.setdefault(place, []):
                layers[place].append(layer)
    renamed = {}
    for key, value in state.items():
        if not key.startswith("blocks."):
            layer, _, rest = key.partition(".")
            renamed[f"{outside[layer]}.{rest}"] = value
            continue
        _, stage, block, layer, rest = key.split(".", 4)
        order = layers[f"blocks.{stage}.{block}"]
        theirs = (inverted if len(order) == 6 else simple)[order.index(layer)]
        renamed[f"_blocks.{starts[int(stage)] + int(block)}.{theirs}.{rest}"] = value
    return renamed


def test_names_of_efficientnet_lite_pytorch_are_timms_in_another_spelling(tmp_path: Path) -> None:
    name, n_blocks = "tf_efficientnet_lite0", (1, 2, 2, 3, 3, 4, 1)
    theirs = vision.timm().create_model(name).state_dict()
    for value in theirs.values():  # every tensor another than at the start
        value.copy_(torch.rand(value.shape) * 9)
    renamed = lite_names(n_blocks, theirs)
    assert {"_fc.bias", "_blocks.15._expand_conv.weight", "_blocks.0._bn2.running_var"} <= renamed.keys()
    torch.save(renamed, tmp_path / "lite0.pth")
    trunk = TimmTrunk(name, weights=tmp_path / "lite0.pth")
    for key, value in trunk.backbone.state_dict().items():
        assert torch.equal(value, theirs[key]), key

    renamed["_blocks.16._bn2.bias"] = renamed["_blocks.0._extra.bias"] = renamed["_swish.beta"] = torch.zeros(2)
    del renamed["_blocks.3._bn1.weight"]
    torch.save(renamed, tmp_path / "lite0.pth")
    (problem,) = problems_of(name, weights=tmp_path / "lite0.pth")
    assert "1 missing (blocks.2.0.bn2.weight)" in problem
    assert "3 unexpected (_blocks.0._extra.bias, _blocks.16._bn2.bias, _swish.beta)" in problem
    (problem,) = problems_of("efficientnet_lite0", weights=tmp_path / "lite0.pth")
    assert "pads its convolutions as TensorFlow does" in problem


def test_efficientnet_lite0_trained_on_imagenet_knows_a_palace_and_a_daisy() -> None:
    stored = torch.load(needed(LITE0), weights_only=True)
    start = TimmTrunk("tf_efficientnet_lite0")
    trunk = TimmTrunk("tf_efficientnet_lite0", weights=LITE0).eval()
    own = trunk.backbone.state_dict()
    assert len(own) == len(stored) - 2  # all but the classifier's
    sums = sorted(float(value.double().sum()) for key, value in stored.items() if not key.startswith("_fc."))
    assert sorted(float(value.double().sum()) for value in own.values()) == sums
    for name, label in (("china.jpg", 698), ("flower.jpg", 985)):  # ImageNet's "palace" and "daisy"
        image = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)[None] / 127.5 - 1
        x = F.interpolate(image, size=(256, 384), mode="bicubic", antialias=True)[:, :, 16:240, 80:304]
        with torch.no_grad():
            z = trunk(x)
            assert not torch.allclose(z, start.eval()(x), atol=0.1)
            assert int((z @ stored["_fc.weight"].T + stored["_fc.bias"]).argmax()) == label


# ---------------------------------------------------------------------------------------------------------------------
# Built from a config
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "size"), [("resnet32", 32), (SMALL, 64)])
def test_a_config_builds_an_image_model_from_its_seed(name: str, size: int) -> None:
    state = torch.random.get_rng_state()
    model, again = build(with_trunk(name)), build(with_trunk(name))
    assert torch.equal(torch.random.get_rng_state(), state)
    for (key, value), other in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(value, other), key
    x = torch.randn(4, 3, size, size)
    logits = model(x, {"gamma": 0.1, "tau": 1.0})
    assert logits.shape == (4, 2)
    assert not torch.equal(logits, model(x, {"gamma": 0.1, "tau": 2.0}))


def test_a_model_that_gets_other_weights_needs_no_pretrained_ones(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    config = with_trunk(SMALL, weights=str(path), drop_rate=0.1)
    model = build(config)
    path.unlink()
    with pytest.raises(InputError, match="no weights file"):
        build(config)
    again = build(config, pretrained=False)
    again.load_state_dict(model.state_dict())
    build(with_trunk(SMALL, pretrained=True), pretrained=False)


@pytest.mark.parametrize(
    ("config", "shape", "problems"),
    [
        (with_trunk("resnet32"), {"n_features": 3}, ("trunk 'resnet32' takes images; a table needs 'mlp' or 'tabm'",)),
        (with_trunk(SMALL), {"n_features": 3}, (f"trunk {SMALL!r} takes images; a table needs 'mlp' or 'tabm'",)),
        (with_trunk("mlp"), {}, ("trunk 'mlp' takes tables; images need 'resnet32' or timm's",)),
    ],
)
def test_trunks_that_do_not_go_with_the_data(config: Config, shape: dict[str, int], problems: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as error:
        build(config, **shape)
    assert error.value.problems == problems


# ---------------------------------------------------------------------------------------------------------------------
# FiLM after every stage
# ---------------------------------------------------------------------------------------------------------------------

SPACE = LambdaSpace(gamma=Linear(0, 0.3, 0), tau=Linear(0, 3, 0.33))
STAGED = [
    ("mlp", (9,), {"width": 16, "depth": 3}, (16, 16, 16)),
    ("resnet32", (3, 32, 32), {}, (16, 32, 64)),
    (SMALL, (3, 64, 64), {}, (32, 48, 4 * 48, 96)),  # the third has bottlenecks
    ("test_convnext", (3, 64, 64), {}, (24, 32, 48, 64)),
    ("test_efficientnet", (3, 64, 64), {}, (24, 32, 48, 64)),
    ("test_mambaout", (3, 64, 64), {}, (16, 32, 48, 64)),  # channels last
    ("test_vit", (1, 32, 32), {"in_chans": 1, "img_size": 32}, (64,) * 6),  # tokens
]


@pytest.mark.parametrize("film", [None, FiLMConfig(start="identity")])
def test_a_cosine_head_gives_cosines_that_scoring_scales(film: FiLMConfig | None) -> None:
    space = LambdaSpace(max_m=Linear(0, 1, 1), s=5.0)
    config = Config("ldam", space, model=ModelConfig("mlp", head="cosine"), film=film, early_stopping=None, epochs=3)
    x = torch.randn(200, 9)
    split = TensorSplit(x, (x[:, 0] > 1).long())
    model = train(config, Splits(split, split), build(config, n_features=9)).model
    features = model.features(x)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(200))
    lam = {"max_m": 0.3, "s": 5.0}
    logits = model(x, lam)
    if film is None:
        rows = model.head.weight.detach().double()
        cosines = F.cosine_similarity(features.double()[:, None], rows[None], dim=-1)
        torch.testing.assert_close(logits.double(), cosines, rtol=1e-5, atol=1e-6)
    family = loss_family("ldam", class_counts(split))
    scores = score(model, split, {name: np.array([value]) for name, value in lam.items()}, family)
    torch.testing.assert_close(
        torch.from_numpy(scores.log_odds[0]), family.log_odds(logits, **lam), rtol=1e-4, atol=1e-4
    )


def staged(name: str, options: dict[str, Any], **film: Any) -> Config:
    return Config(model=ModelConfig(name, options), lambdas=SPACE, film=FiLMConfig(placement="stages", **film))


@pytest.mark.parametrize(("name", "shape", "options", "channels"), STAGED, ids=[case[0] for case in STAGED])
def test_identity_start_after_every_stage_is_the_unconditioned_network(
    name: str, shape: tuple[int, ...], options: dict[str, Any], channels: tuple[int, ...]
) -> None:
    n_features = {"n_features": shape[0]} if name == "mlp" else {}
    model = build(staged(name, options, start="identity"), **n_features).eval()
    plain = build(Config(model=ModelConfig(name, options), lambdas=SPACE, film=None), **n_features).eval()
    x = torch.randn(3, *shape)
    lam = {"gamma": torch.tensor([0.0, 0.1, 0.3]), "tau": torch.tensor([3.0, 0.5, 0.0])}
    for values in (lam, {"gamma": 0.3, "tau": 3.0}):
        assert torch.equal(model(x, values), plain(x, values))
    per_film = [2 * (2 * 128 + 128 + 128 * c + c) for c in channels]
    assert model.stages is not None
    assert [n_parameters(film) for film in model.stages] == per_film
    assert n_parameters(model) == n_parameters(plain) + sum(per_film)

    with torch.no_grad():
        for parameter in model.stages.parameters():
            parameter.normal_(std=0.3)
    together = model(x, lam)
    for i in range(3):
        alone = model(x, {key: float(values[i]) for key, values in lam.items()})
        torch.testing.assert_close(alone[i], together[i], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(together, plain(x, lam), rtol=1e-2)
    together.sum().backward()
    for film in model.stages:  # a stage that does not reach the output would have no gradient
        assert float(film.weight_out.grad.abs().sum()) > 0


def test_after_the_one_layer_of_an_mlp_film_acts_on_its_features() -> None:
    options = {"width": 16, "depth": 1, "dropout": 0.5}
    after = build(staged("mlp", options), n_features=5)
    on_features = build(Config(model=ModelConfig("mlp", options), lambdas=SPACE), n_features=5)
    theirs = {key.replace("film.", "stages.0."): value for key, value in on_features.state_dict().items()}
    assert all(torch.equal(value, theirs[key]) for key, value in after.state_dict().items())
    x, lam = torch.randn(8, 5), {"gamma": 0.1, "tau": 2.0}
    logits = []
    for model in (after, on_features):
        torch.manual_seed(1)  # of the dropout, which acts first
        logits.append(model(x, lam))
    torch.testing.assert_close(*logits)


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("resnext50_32x4d", [(f"layer{i + 1}", 256 * 2**i, 1) for i in range(4)]),
        ("convnext_tiny", [(f"stages.{i}", 96 * 2**i, 1) for i in range(4)]),
        ("regnetx_002", [("s1", 24, 1), ("s2", 56, 1), ("s3", 152, 1), ("s4", 368, 1)]),
        ("swin_tiny_patch4_window7_224", [(f"layers.{i}", 96 * 2**i, -1) for i in range(4)]),
    ],
)
def test_stages_of_timms_models_are_without_the_stem(name: str, stages: list[tuple[str, int, int]]) -> None:
    with torch.device("meta"):
        trunk = TimmTrunk(name)
    modes = [module.training for module in trunk.modules()]
    assert trunk.stages == tuple(Stage(f"backbone.{module}", *rest) for module, *rest in stages)
    assert [module.training for module in trunk.modules()] == modes
    assert not any(module._forward_hooks for module in trunk.modules())


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("hrnet_w18_small", "timm names no stages of 'hrnet_w18_small' that FiLM could act after"),
        ("crossvit_9_240", "give one tensor with their channels a pass; of 'crossvit_9_240', blocks.0, .* do not"),
    ],
)
def test_models_without_stages_are_refused_with_another_way(name: str, problem: str) -> None:
    with torch.device("meta"), pytest.raises(InputError, match=f"{problem}; take film.placement = 'features'"):
        build(staged(name, {}))


# ---------------------------------------------------------------------------------------------------------------------
# Imports
# ---------------------------------------------------------------------------------------------------------------------


def in_a_new_process(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_tables_and_resnet32_need_neither_timm_nor_torchvision_nor_choosing_a_compiler() -> None:
    code = """
import importlib, pkgutil, sys
sys.modules["torchmetrics"] = None  # where it is installed, Fabric imports it, and it imports torchvision
import tunelater, tunelater.workflow
print([name for name in ("torch._dynamo", "lightning_fabric") if name in sys.modules])
for module in pkgutil.walk_packages(tunelater.__path__, "tunelater."):
    if module.name.rpartition(".")[2] not in ("__main__", "hub", "pyfunc"):  # which say what they need
        importlib.import_module(module.name)
from tunelater.config import ModelConfig
from tunelater.models import build
build(tunelater.Config(), n_features=3)
build(tunelater.Config(model=ModelConfig("resnet32")))
print(sorted({name.partition(".")[0] for name in sys.modules} & {"timm", "torchvision", "huggingface_hub"}))
"""
    assert in_a_new_process(code) == "[]\n[]"


def test_torchvision_and_timm_load_beside_any_torch() -> None:
    code = """
import torch
from tunelater import vision
assert vision.torchvision() is vision.torchvision()
vision.timm()
import timm
from torchvision.transforms import v2
assert v2.RandomCrop(8)(torch.zeros(3, 16, 16)).shape == (3, 8, 8)
print(len(vision._declared))
"""
    assert in_a_new_process(code) in ("0", "1")


def test_operators_that_exist_are_not_declared_again() -> None:
    code = """
import torch
try:
    import torchvision
except RuntimeError:
    import sys
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from tunelater import vision
vision.timm()
print(len(vision._declared))
"""
    assert in_a_new_process(code) == "0"


def test_what_is_not_installed_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    vision.torchvision()
    monkeypatch.setitem(sys.modules, "timm", None)
    remedy = "images need timm, which is not installed; install it with: pip install 'tunelater[vision]'"
    with pytest.raises(InputError) as error:
        Config(model=ModelConfig("resnet34"), epochs=0)
    assert error.value.problems == (
        f"trunk 'resnet34' is not mlp or tabm or resnet32; for one of timm's, {remedy}",
        "epochs must be 1 or more, got 0",
    )
    assert problems_of("resnet34") == (remedy,)
    Config(model=ModelConfig("resnet32"))
