"""Pillow, torchvision and timm, loaded when images need them and not before: imports, names, pretrained weights.

Import them from here only: `import torchvision` alone may fail, as `torchvision` below says.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from tunelater.problems import InputError

INSTALL = "install it with: pip install 'tunelater[vision]'"

_declared: list[torch.library.Library] = []
"""Declarations of operators end with the object that made them."""


def torchvision() -> ModuleType:
    """The torchvision package.

    Package indexes ship torchvision for CUDA. Beside a CPU build of torch its compiled operators don't load, and the
    package, which describes `nms` and `qnms` as it is imported, fails: "operator torchvision::nms does not exist".
    Where that happens, and only there, the two are declared (without an implementation: calling them still fails) and
    the import is tried again. Models, transforms and timm need no compiled operator.

    Raises:
        InputError: torchvision is not installed.
    """
    try:
        return _import("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # what the failed import left
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)
    return _import("torchvision")


def pillow() -> ModuleType:
    """The PIL package, with its `Image` loaded.

    Raises:
        InputError: Pillow is not installed.
    """
    _import("PIL.Image")
    return _import("PIL")


def timm() -> ModuleType:
    """The timm package, which imports torchvision.

    Raises:
        InputError: timm or torchvision is not installed.
    """
    torchvision()
    return _import("timm")


def _import(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package.partition(".")[0]:
            raise
        raise InputError(f"images need {error.name}, which is not installed; {INSTALL}") from None


# ---------------------------------------------------------------------------------------------------------------- names


def problems_of_backbone(name: str, others: Collection[str] = ()) -> list[str]:
    """Why `name` is no model of timm's: `resnext50_32x4d`, or with a tag of its weights `resnext50_32x4d.tv_in1k`.

    Args:
        others: names that may have been meant as well.
    """
    try:
        library = timm()
    except InputError as error:
        return [f"trunk {name!r} is not {' or '.join(others)}; for one of timm's, {error}" if others else str(error)]
    architecture, _, tag = name.partition(".")
    if not library.is_model(architecture):
        known = f"; known are {', '.join(others)}{' and ' if others else ''}the names in timm.list_models()"
        return [f"there is no trunk {name!r}{_meant(architecture, [*others, *library.list_models()]) or known}"]
    tagged = library.list_pretrained(f"{architecture}.*")
    if not tag or name in tagged:
        return []
    return [f"there are no weights {name!r}{_meant(name, tagged, cutoff=0) or f'; timm has none of {architecture!r}'}"]


def _meant(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """As `problems.did_you_mean`, but "" where nothing is close, since timm knows too many names to list.

    Names that go on as the word begins come first: `resnext50` is nearer to `res2next50` than to `resnext50_32x4d`.
    """
    known = list(known)
    longer = sorted((name for name in known if word and name.startswith(word)), key=len)
    close = longer[:1] or difflib.get_close_matches(word, known, n=1, cutoff=cutoff)
    return f"; did you mean {close[0]!r}?" if close else ""


@dataclass(frozen=True)
class Expected:
    """What images a model's weights were trained on.

    Attributes:
        size: height and width in pixels.
        fixed: whether the network takes no other size.
        mean, std: of red, green and blue in [0, 1], which were subtracted and divided by.
    """

    size: int
    fixed: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def expected(name: str) -> Expected:
    """What timm states of a model.

    Raises:
        InputError: an unknown name, or timm is not installed.
    """
    problems = problems_of_backbone(name)
    if problems:
        raise InputError(problems)
    stated = timm().models.get_pretrained_cfg(name)
    if stated is None:
        return Expected(224, False, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    (r, g, b), (r_std, g_std, b_std) = stated.mean, stated.std
    return Expected(stated.input_size[-1], bool(stated.fixed_input_size), (r, g, b), (r_std, g_std, b_std))


def problems_of_size(name: str, size: int | None) -> list[str]:
    """Why a known model of timm's does not take images of a size."""
    wanted = expected(name)
    if not wanted.fixed or size == wanted.size:
        return []
    return [f"{name!r} takes images of {wanted.size} pixels only, got {size}: --size {wanted.size} (images.size)"]


# ------------------------------------------------------------------------------------------------------------ backbones


def backbone(name: str, /, *, pretrained: bool = False, **options: Any) -> nn.Module:
    """timm's model without its classifier: images -> pooled features.

    Raises:
        InputError: an unknown name, an option that is unknown, impossible or not to be set, or weights that cannot be
            had.
    """
    problems = problems_of_backbone(name)
    problems += [
        f"model.options.{option} is not to be set: {why}" for option, why in _NO_OPTIONS.items() if option in options
    ]
    if problems:
        raise InputError(problems)
    library = timm()
    if pretrained:
        if not library.models.is_model_pretrained(name):
            raise InputError(
                f"timm has no pretrained weights for {name!r}; pass a file: --weights FILE (weights=FILE), or use none"
            )
        _check_hub(name)
    try:
        return library.create_model(name, pretrained=pretrained, num_classes=0, **options)
    except OSError as error:
        raise InputError(_no_download(name, error)) from None
    except Exception as error:  # wherever an odd value leads the code of a model
        raise InputError(
            f"timm must be able to make {name!r}, got {type(error).__name__} with the model.options {options}: "
            f"{first_line(error)}; correct or remove them"
        ) from None


_NO_OPTIONS = {
    **dict.fromkeys(("name", "model_name"), "the network is what model.trunk (--backbone) names"),
    **dict.fromkeys(
        ("num_classes", "features_only"), "a trunk ends in pooled features, and a layer for two classes follows"
    ),
    "checkpoint_path": "weights come from a file by model.options.weights (--weights)",
}
"""Options of timm's that would make something else than a trunk, or that are set here, and why."""


def _check_hub(name: str) -> None:
    """Without a network the hub's own client tries for most of a minute, and says so a dozen times."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:  # its cache is asked alone
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=10)
    except Exception as error:  # of whichever HTTP library the hub's client is built on
        raise InputError(_no_download(name, error)) from None


def _no_download(name: str, error: Exception) -> str:
    return (
        f"the pretrained weights of {name!r} could not be downloaded ({first_line(error)}); pass a file of them "
        "instead: --weights FILE (weights=FILE), .safetensors or a state dict of PyTorch"
    )


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def stages(
    model: nn.Module, name: str, *, in_chans: int = 3, img_size: Any = None, **_: Any
) -> list[tuple[str, int, int]]:
    """Where the stages of a backbone end: (module, channels, axis of the channels in its output), in order.

    They are those of timm's `feature_info`, without the stem. The axes are read off a pass of shapes, without numbers.

    Raises:
        InputError: timm names no stages, or some that give something else than one tensor a pass with their channels.
    """
    named = [(entry["module"], entry["num_chs"]) for entry in getattr(model, "feature_info", None) or ()]
    known = dict(model.named_modules())
    named = named if all(module in known for module, _ in named) else []
    named = named[1:] if named and _is_stem(model, named[0][0]) else named
    if not named:
        raise InputError(f"timm names no stages of {name!r} that FiLM could act after; {_INSTEAD}")
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size or _image_size(model)
    try:
        shapes = _shapes(model, [module for module, _ in named], (2, in_chans, height, width))
    except Exception as error:  # of any model's code
        raise InputError(f"the stages of {name!r} cannot be traced ({first_line(error)}); {_INSTEAD}") from None
    channels_last = getattr(model, "output_fmt", None) == "NHWC"
    axes = [_channel_axis(shapes[module], channels, channels_last) for module, channels in named]
    if None in axes or len(shapes) < len(named):
        bad = [module for (module, _), axis in zip(named, axes, strict=True) if axis is None]
        raise InputError(
            f"FiLM acts after stages that give one tensor with their channels a pass; of {name!r}, "
            f"{_few(bad or shapes)} do not; {_INSTEAD}"
        )
    return [(module, channels, axis) for (module, channels), axis in zip(named, axes, strict=True) if axis is not None]


_INSTEAD = "take film.placement = 'features'"


def _is_stem(model: nn.Module, module: str) -> bool:
    """Whether timm's first feature comes before the stages: it has no two layers of weights, or is named so."""
    layers = [m for m in model.get_submodule(module).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return not module or module.startswith("stem") or len(layers) < 2


def _image_size(model: nn.Module) -> tuple[int, int]:
    return getattr(model, "pretrained_cfg", {}).get("input_size", (3, 224, 224))[1:]


def _shapes(model: nn.Module, modules: Sequence[str], image: Sequence[int]) -> dict[str, list[Any]]:
    """What each module gave in one pass, from shapes alone: for each call a shape, None where it was no tensor."""
    seen: dict[str, list[Any]] = {module: [] for module in modules}
    training = model.training
    with contextlib.ExitStack() as attached, torch.no_grad():
        for module, calls in seen.items():

            def see(_module: nn.Module, _inputs: Any, out: Any, calls: list[Any] = calls) -> None:
                calls.append(tuple(out.shape) if isinstance(out, Tensor) else None)

            attached.enter_context(model.get_submodule(module).register_forward_hook(see))
        attached.callback(model.train, training)
        tensors = {key: value.to("meta") for key, value in (*model.named_parameters(), *model.named_buffers())}
        torch.func.functional_call(model.eval(), tensors, torch.empty(*image, device="meta"))
    return seen


def _channel_axis(calls: Sequence[tuple[int, ...] | None], channels: int, channels_last: bool) -> int | None:
    """1 or -1; None for a stage that is not passed once, or has its channels elsewhere."""
    if len(calls) != 1 or calls[0] is None or len(calls[0]) < 2:
        return None
    shape = calls[0]
    preferred = (-1, 1) if channels_last or len(shape) == 3 else (1, -1)
    return next((axis for axis in preferred if shape[axis] == channels), None)


# -------------------------------------------------------------------------------------------------------------- weights


def load_weights(model: nn.Module, path: str | Path, *, name: str = "the model") -> None:
    """Load all weights of a backbone from a file: .safetensors, or a state dict that `torch.load` reads as data alone.

    Weights of the file's own classifier are ignored. The names are timm's (torchvision's ResNets have the same);
    EfficientNet-Lite files of `efficientnet_lite_pytorch` are understood too.

    Raises:
        InputError: no such file, one that holds more than tensors, or weights that do not fit the model one to one.
    """
    state = read_weights(path)
    if "_conv_stem.weight" in state:
        if not name.startswith("tf_efficientnet_lite"):
            raise InputError(
                f"{path} holds weights of efficientnet_lite_pytorch, which pads its convolutions as TensorFlow does; "
                f"they fit timm's 'tf_efficientnet_lite0' to '..4', got {name!r}"
            )
        state = _from_efficientnet_lite(state, model)
    own = model.state_dict()
    classifier = tuple(f"{prefix}." for prefix in _classifiers(model))
    # Files older than PyTorch 1.0 do not have the counters of batch normalization, which nothing here reads.
    missing = [key for key in own.keys() - state.keys() if not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state.keys() - own.keys() if not key.startswith(classifier)]
    shapes = {key: (tuple(state[key].shape), tuple(own[key].shape)) for key in own.keys() & state.keys()}
    misfits = [f"{key} {theirs} instead of {ours}" for key, (theirs, ours) in shapes.items() if theirs != ours]
    found = [("missing", missing), ("unexpected", unexpected), ("of another shape", misfits)]
    if any(keys for _, keys in found):
        told = ", ".join(f"{len(keys)} {what} ({_few(keys)})" for what, keys in found if keys)
        raise InputError(f"{path} does not fit {name!r}, which has {len(own)} weights: {told}")
    model.load_state_dict({key: state[key] for key in shapes}, strict=False)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors in a weights file by name; of a training's checkpoint its model, averaged where it has that.

    Raises:
        InputError: no such file, or one that holds anything else.
    """
    if not Path(path).is_file():
        raise InputError(f"there is no weights file {path}")
    library = timm()
    try:
        state = library.models.load_state_dict(str(path), device="cpu", weights_only=True)
    except Exception as error:  # of zip files, pickles and safetensors alike
        raise InputError(
            f"{path} is not a file of weights alone (.safetensors, or a state dict of PyTorch), or is damaged "
            f"({type(error).__name__})"
        ) from None
    others = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise InputError(f"{path} is not a state dict: {len(others)} of its entries are no tensors ({_few(others)})")
    return state


def _few(keys: Iterable[str], n: int = 3) -> str:
    keys = sorted(keys)
    return ", ".join([*keys[:n], *(["..."] if len(keys) > n else [])])


def _classifiers(model: nn.Module) -> tuple[str, ...]:
    names = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_SIMPLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_INVERTED = {
    "_expand_conv": "conv_pw", "_bn0": "bn1",
    "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip


def _from_efficientnet_lite(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The state with timm's names, which number blocks within stages, where `efficientnet_lite_pytorch` counts through.

    A name of neither stays as it is, to be told as unexpected.
    """
    stages: Any = model.blocks
    places = [f"blocks.{i}.{j}" for i, stage in enumerate(stages) for j in range(len(stage))]
    inverted = {key.split(".")[1] for key in state if "._expand_conv." in key}
    renamed = {}
    for key, value in state.items():
        block, layer, rest = "", *key.partition(".")[::2]
        if layer == "_blocks":
            number, layer, rest = rest.split(".", 2)
            if int(number) < len(places):
                block = f"{places[int(number)]}."
            names = _INVERTED if number in inverted else _SIMPLE
        else:
            names = _OUTSIDE
        known = layer in names and (bool(block) or names is _OUTSIDE)
        renamed[f"{block}{names[layer]}.{rest}" if known else key] = value
    return renamed
