"""The trained model as one file that other programs run: ONNX, or PyTorch's exported program.

Its inputs are samples as they come (a table's columns before any preprocessing, images as bytes), lambda by name, and
the prior; its outputs are the log posterior odds by the loss family's link, and the probability (of more than two
classes the log posteriors and the probabilities of all). Lambda and the prior stay inputs: whoever has the file can
still choose. Operating points go along in the file and beside it.

Shapes: N samples, K classes.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, register_parametrization

from tunelater import __version__
from tunelater.config import ImagesConfig
from tunelater.data.image_form import ImageForm
from tunelater.data.portable import PortablePreprocessor
from tunelater.data.table_form import TableForm
from tunelater.film import LossConditional
from tunelater.losses import LossFamily, logit
from tunelater.multiclass import ClassPoint
from tunelater.points import OperatingPoint
from tunelater.problems import DoubtfulInputWarning, InputError, Problems
from tunelater.runs import Run, output_problems
from tunelater.workflow import is_point_file, point_among_classes, point_of_run, problems_of, replacing

FORMAT = "tunelater.model/1"
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
OUTPUTS = ("logit", "probability")
OPSET = 18
"""Of ONNX: what onnxruntime 1.14 (2023) and later run."""
DESCRIPTION = "tunelater.json"
"""The description of the model inside of a .pt2 file."""
_INSIDE = "net."
_ROWS = 3
_SMALL = 256
"""Numbers of a constant that is not worth a cast."""

Point = OperatingPoint | ClassPoint


class PortableModel(nn.Module):
    """Samples, lambda and prior to log posteriors and probabilities, by the loss's link.

    The network computes in float32; what follows its margins (of more than two classes its logits) is float64.

    Args:
        model: in evaluation mode; it is copied.
        family: its loss, with the class counts of training.
        inputs: what makes a network's float32 input of the samples.
        half: round the network's weights to float16 and keep them so. They are widened again where they are used: what
            is lost is digits of weights, and no sum is rounded or overflows. Vectors (biases, normalisation) and
            weights beyond float16's range stay float32.
    """

    def __init__(self, model: LossConditional, family: LossFamily, inputs: nn.Module, *, half: bool = False) -> None:
        super().__init__()
        self.inputs = inputs
        self.model = copy.deepcopy(model).cpu().eval()
        self.family = family
        self.classes = len(family.class_counts)
        if half:
            _keep_in_half(self.model)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of the tensors that samples are."""
        names: tuple[str, ...] = self.inputs.kinds  # type: ignore[assignment]
        return names

    def forward(self, x: Mapping[str, Tensor], lam: Mapping[str, Tensor], prior: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            x: the samples, N rows in each tensor; see `inputs`.
            lam: every hyperparameter of the loss, float32 of shape ().
            prior: the share of positives, float64 of shape (), in (0, 1); of more than two classes their shares,
                float64 of shape (K,), which sum to one.

        Returns:
            Log posterior odds and probability of the positive class, (N,) float32 each; of more than two classes the
            log posteriors and probabilities, (N, K).
        """
        values = {name: value.reshape(1) for name, value in lam.items()}
        exact = {name: value.double() for name, value in lam.items()}
        features = self.model.features(self.inputs(x), values)
        if self.classes > 2:
            logits = self.model.logits(features, values).double()
            trained = torch.tensor(self.family.class_counts, dtype=torch.float64)
            moved = self.family.log_posterior(logits, None, **exact) + prior.log() - (trained / trained.sum()).log()
            log_posterior = moved.log_softmax(-1)
            return log_posterior.float(), log_posterior.exp().float()
        weight, bias = self.model.margins(values, self.family)
        odds = self.family.link((features @ weight[0] + bias).double(), **exact)
        odds = odds + (prior.log() - (1 - prior).log() - logit(self.family.prior))
        return odds.float(), odds.sigmoid().float()


class _Widened(nn.Module):
    """A weight kept in float16 as the float32 that is computed with."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.float()


def _keep_in_half(model: nn.Module) -> None:
    for module in list(model.modules()):
        if isinstance(module, ParametrizationList):  # weights that are computed from others
            continue
        for name, weight in list(module.named_parameters(recurse=False)):
            rounded = weight.detach().half()
            if weight.ndim > 1 and bool(rounded.isfinite().all()):
                setattr(module, name, nn.Parameter(rounded, requires_grad=False))
                register_parametrization(module, name, _Widened(), unsafe=True)  # it changes the type


class _Array(nn.Module):
    """(N, columns) numbers of an array to the preprocessed ones of those that training kept."""

    kinds = ("X",)
    used: Tensor

    def __init__(self, table: PortablePreprocessor, columns: Sequence[str]) -> None:
        super().__init__()
        self.columns = len(columns)
        self.table = table
        self.register_buffer("used", torch.tensor([columns.index(name) for name in table.columns["numeric"]]))

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        return self.table({"numeric": x["X"].index_select(1, self.used)})


class _Pixels(nn.Module):
    """(N, size, size, 3) bytes to (N, 3, size, size) as `ImageSplit.inputs` normalises them."""

    kinds = ("image",)
    scale: Tensor
    shift: Tensor

    def __init__(self, images: ImagesConfig) -> None:
        super().__init__()
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (images.mean, images.std))
        self.register_buffer("scale", (1 / (255 * std)).float())
        self.register_buffer("shift", (-mean / std).float())

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        return (x["image"].float() * self.scale + self.shift).permute(0, 3, 1, 2)


def portable(run: Run, *, half: bool = False) -> PortableModel:
    """The whole of a run as one module: preprocessing, network, link.

    Raises:
        InputError: a run whose data have no such form.
    """
    inputs: nn.Module
    if isinstance(run.form, TableForm):
        inputs = table = PortablePreprocessor(run.form.preprocessor)
        if run.data.get("array"):
            inputs = _Array(table, run.form.columns[:-1])  # the last is the target
    elif isinstance(run.form, ImageForm):
        if run.form.images.size is None:
            raise InputError(
                "an exported model takes images of one size, got a run on images as they are (images.size)"
            )
        inputs = _Pixels(run.form.images)
    else:
        raise InputError(f"only runs on tables and images can be exported, got one on {run.form.name}")
    return PortableModel(run.model, run.family, inputs, half=half).eval()


@dataclass(frozen=True)
class Exported:
    """What `export_model` wrote."""

    out: Path
    description: Mapping[str, Any]
    """What is also in the file: inputs, classes, loss, ranges of lambda, points."""
    points: tuple[Path, ...]
    """The operating points beside it."""
    snippet: str
    """Five lines of Python that run it."""


def export_model(
    run: Run | str | Path,
    out: str | Path,
    *,
    at: Sequence[Point | str | Path] | Point | str | Path = (),
    half: bool = False,
    format: str | None = None,
    force: bool = False,
) -> Exported:
    """Write a run's model for other programs, with the preprocessing inside.

    Of a table every column is an input by its name, N values each: float64 for numbers, dates (days since 1970, UTC)
    and truth values (0 or 1), NaN where missing; strings for categories, in the spelling that the library gives them,
    empty where missing. In .pt2 the columns of a kind are one tensor, and categories are integers; the description in
    the file has their codes. Of an `LCTClassifier` that was fitted on an array the input is `X`, (N, columns) float64.
    Of images it is `image`, (N, size, size, 3) bytes: red, green and blue, upright, the shorter side resized to size by
    Pillow's bilinear filter and the centre cut out, which ONNX cannot do to the byte; they are normalised inside.

    Every hyperparameter of the loss is an input by its name, a float32 without dimensions, and so is `prior`, a
    float64. Outputs are `logit` and `probability`, (N,) float32. Where a column has the name of another input or of
    an output, its input is called `column.NAME`. Of K > 2 classes `prior` is (K,), in the order of `classes` in the
    description, and outputs are (N, K): log posteriors and probabilities.

    Args:
        out: ends in .onnx or .pt2.
        at: operating points that go along: in the file, and as JSON beside it (`model.point.json`).
        half: the network's weights in float16, which halves their part of the file. It computes in float32 with the
            rounded weights; log-odds move in the third or fourth digit.
        format: `onnx` or `torch`; by default what `out` ends in.
        force: replace older files.

    Raises:
        InputError: everything wrong with the arguments, or packages that are missing; nothing is then written.
    """
    found, out = Problems(), Path(out)
    points = [at] if isinstance(at, Point | str | Path) or not isinstance(at, Sequence) else list(at)
    format = _format(out, format, found)
    found.add(*output_problems(out, force=force, folder=False))
    beside = _places(out, points, force, found)
    loaded: Run | None = None
    with problems_of(found):
        loaded = run if isinstance(run, Run) else Run.load(run)
    chosen = [point for each in points if (point := _point(each, loaded, found)) is not None]
    model: PortableModel | None = None
    with problems_of(found):
        model = None if loaded is None else portable(loaded, half=half)
    found.raise_if_any()
    assert loaded is not None
    assert model is not None
    description = describe(loaded, model, chosen, half)
    write = _write_onnx if format == "onnx" else _write_torch
    with replacing(out) as partial:
        write(model, loaded, description, partial)
    for point, place in zip(chosen, beside, strict=True):
        with replacing(place) as partial:
            point.save(partial)
    _warn_of_calibration(chosen)
    snippet = (_snippet_onnx if format == "onnx" else _snippet_torch)(out, description, chosen)
    return Exported(out, description, tuple(beside), snippet)


def _format(out: Path, format: str | None, problems: Problems) -> str:
    of_suffix = {suffix: name for name, suffix in SUFFIXES.items()}
    known = ", ".join(f"{name} ({suffix})" for name, suffix in SUFFIXES.items())
    if format is not None and format not in SUFFIXES:
        problems.add(f"format (--format) is one of {known}, got {format!r}")
    elif out.suffix not in of_suffix or (format is not None and SUFFIXES[format] != out.suffix):
        asked = "" if format is None else f" for format {format}"
        problems.add(f"the model's file must end as its format says{asked}: {known}; got {out.name!r}")
    chosen = format or of_suffix.get(out.suffix, "onnx")
    if chosen == "onnx" and (missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]):
        problems.add(f"exporting to ONNX needs {' and '.join(missing)}; pip install 'tunelater[onnx]'")
    return chosen


def _point(at: Any, run: Run | None, problems: Problems) -> Point | None:
    if run is not None and len(run.data["class_counts"]) > 2:
        with problems_of(problems):
            return point_among_classes(at, run)
        return None
    return point_of_run(at, run, problems)


def _places(out: Path, points: Sequence[Any], force: bool, problems: Problems) -> list[Path]:
    """Where the points go: beside the model, by its name and theirs."""
    stems = [Path(point).stem if isinstance(point, str | Path) else "point" for point in points]
    places = [out.with_name(f"{out.stem}.{stem}.json") for stem in stems]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    problems.check(
        not twice, f"operating points that go along need files of different names, got {', '.join(twice)} twice"
    )
    for place in dict.fromkeys(places):
        told = output_problems(place, force=force, folder=False)
        if not told and place.is_file() and not is_point_file(place):
            told = [f"{place} exists and is not an operating point, so it is not replaced; name another place"]
        problems.add(*told)
    return places


def _warn_of_calibration(points: Sequence[Point]) -> None:
    maps = [point.calibration for point in points if isinstance(point, OperatingPoint)]
    for kind in dict.fromkeys(each.kind for each in maps if each is not None):
        warnings.warn(
            f"the point's probabilities are calibrated ({kind}) at its lambda and prior, the exported model's are "
            "the link's at any: `calibration` in the point's file says what to apply to its logit; decisions do not "
            "need it",
            DoubtfulInputWarning,
            stacklevel=3,
        )


# ------------------------------------------------------------------------------------------- what is told of it


def describe(run: Run, model: PortableModel, points: Sequence[Point], half: bool = False) -> dict[str, Any]:
    """What whoever runs the file needs to know, as JSON types."""
    family, several = run.family, model.classes > 2
    return {
        "format": FORMAT,
        "tunelater": __version__,
        "model": run.id,
        "data": run.data["fingerprint"],
        "loss": family.name,
        "lambda": {name: _range(run, name) for name in family.hyperparameters},
        "training_prior": _shares(family) if several else family.prior,
        "classes": list(run.data["classes"] if several else run.form.labels),
        "weights": "float16" if half else "float32",
        "inputs": _columns(run, model.inputs),
        "points": [json.loads(point.to_json()) for point in points],
    }


def _shares(family: LossFamily) -> list[float]:
    return [count / sum(family.class_counts) for count in family.class_counts]


def _range(run: Run, name: str) -> dict[str, float]:
    """What training saw of a hyperparameter, and its middle."""
    of = run.config.lambdas[name]
    return {"low": float(of.a), "high": float(of.b), "default": float(run.config.lambdas.median[name])}


def _columns(run: Run, inputs: nn.Module) -> list[dict[str, Any]]:
    if isinstance(inputs, _Array):
        return [{"input": "X", "kind": "array", "type": "float64", "shape": ["N", inputs.columns]}]
    if isinstance(run.form, ImageForm):
        return [_image(run.form.images)]
    assert isinstance(inputs, PortablePreprocessor)
    assert isinstance(run.form, TableForm)
    schema = run.form.schema
    told = []
    for kind, names in inputs.columns.items():
        for name in names:
            column: dict[str, Any] = {"input": _input_name(name, run.family), "column": name, "kind": kind}
            if name in schema.dates:
                column["kind"] = "date"
            if kind == "categorical":
                codes = inputs.codes[name]
                column |= {"codes": dict(codes.of), "missing": codes.missing, "other": codes.other}
            told.append(column)
    return told


def _image(images: ImagesConfig) -> dict[str, Any]:
    """What bytes go in, and what is done to them inside."""
    told = {
        "input": "image",
        "kind": "image",
        "type": "uint8",
        "shape": ["N", images.size, images.size, 3],
        "axes": ["sample", "row", "column", "colour"],
        "colours": ["red", "green", "blue"],
        "before": "upright; the shorter side resized to the size, bilinear with antialiasing; the centre cut out",
        "inside": {"formula": "(value / 255 - mean) / std", "mean": list(images.mean), "std": list(images.std)},
    }
    return told if images.bits is None else told | {"bits": images.bits}


def _input_name(column: str, family: LossFamily) -> str:
    taken = {*family.hyperparameters, "prior", *OUTPUTS}
    unfit = not column or column in taken or column.startswith((_INSIDE, "column."))
    return f"column.{column}" if unfit else column


def _snippet_onnx(out: Path, description: Mapping[str, Any], points: Sequence[Point]) -> str:
    given = {told["input"]: _example(told) for told in description["inputs"][:_ROWS]}
    cells = ", ".join(f"{name!r}: {value}" for name, value in given.items())
    lam, prior = _place(description, points)
    at = [f"{name!r}: np.array({value:g}, np.float32)" for name, value in lam.items()]
    at.append(f"'prior': np.array({prior})")
    start = f"x = {{{cells}}}"
    if "column" in description["inputs"][0]:
        empty = '{i.name: np.array([""] if "string" in i.type else [np.nan]) for i in session.get_inputs()}'
        start = f"x = {empty} | {{{cells}}}  # other cells are missing"
    return "\n".join(
        [
            "import numpy as np, onnxruntime",
            f"session = onnxruntime.InferenceSession({out.as_posix()!r})",
            start,
            f"at = {{{', '.join(at)}}}",
            'logit, probability = session.run(["logit", "probability"], x | at)',
        ]
    )


def _place(description: Mapping[str, Any], points: Sequence[Point]) -> tuple[Mapping[str, float], str]:
    """Lambda, and the prior in Python, of the first point; or the default lambda at the prior of training."""
    if points:
        prior: Any = points[0].prior
        lam, prior = points[0].lam, [*prior.values()] if isinstance(prior, Mapping) else prior
    else:
        lam, prior = {name: of["default"] for name, of in description["lambda"].items()}, description["training_prior"]
    return lam, str([float(f"{share:.6g}") for share in prior]) if isinstance(prior, list) else f"{prior:g}"


def _example(told: Mapping[str, Any]) -> str:
    if "shape" in told:
        return f"np.zeros({(1, *told['shape'][1:])}, np.{told['type']})"
    if told["kind"] == "categorical":
        return f"np.array({[next(iter(told['codes']), '')]!r})"
    return f"np.array([{20000.0 if told['kind'] == 'date' else 1.0}])"


def _snippet_torch(out: Path, description: Mapping[str, Any], points: Sequence[Point]) -> str:
    inputs = description["inputs"]
    if "shape" in inputs[0]:
        (told,) = inputs
        tensors = {told["input"]: f"torch.zeros({[1, *told['shape'][1:]]}, dtype=torch.{told['type']})"}
    else:
        kinds = [told["kind"].replace("date", "numeric") for told in inputs]
        tensors = {kind: f"torch.full((1, {kinds.count(kind)}), torch.nan, dtype=torch.float64)" for kind in kinds}
        if "categorical" in tensors:
            tensors["categorical"] = f"torch.zeros(1, {kinds.count('categorical')}, dtype=torch.int64)"
    x = ", ".join(f"{kind!r}: {tensor}" for kind, tensor in tensors.items())
    lam, prior = _place(description, points)
    at = ", ".join(f"{name!r}: torch.tensor({value:g})" for name, value in lam.items())
    return "\n".join(
        [
            "import torch",
            f"model = torch.export.load({out.as_posix()!r}).module()",
            f"x = {{{x}}}",
            f"lam, prior = {{{at}}}, torch.tensor({prior}, dtype=torch.float64)",
            "logit, probability = model(x, lam, prior)",
        ]
    )


# ------------------------------------------------------------------------------------------- files


def _program(model: PortableModel, run: Run) -> torch.export.ExportedProgram:
    """The model as a graph for any number of samples."""
    batch = torch.export.Dim("batch", min=1)
    x, n = _example_inputs(model, run), 3
    x = {name: tensor.expand(n, *tensor.shape[1:]).contiguous() for name, tensor in x.items()}
    lam = {name: torch.tensor(run.config.lambdas.median[name]) for name in run.family.hyperparameters}
    prior = torch.tensor(_shares(run.family) if model.classes > 2 else run.family.prior, dtype=torch.float64)
    dynamic = ({name: {0: batch} for name in x}, dict.fromkeys(lam), None)
    with _quietly(), torch.no_grad():
        program = torch.export.export(model, (x, lam, prior), dynamic_shapes=dynamic, strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of the machine that it was made on
    return program


def _example_inputs(model: PortableModel, run: Run) -> dict[str, Tensor]:
    """One sample."""
    if isinstance(run.form, ImageForm):
        size = run.form.images.size
        assert size is not None
        return {"image": torch.zeros(1, size, size, 3, dtype=torch.uint8)}
    if isinstance(model.inputs, _Array):
        return {"X": torch.zeros(1, model.inputs.columns, dtype=torch.float64)}
    assert isinstance(model.inputs, PortablePreprocessor)
    return {
        kind: torch.zeros(1, len(names), dtype=torch.int64 if kind == "categorical" else torch.float64)
        for kind, names in model.inputs.columns.items()
    }


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what torch warns of about itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _write_torch(model: PortableModel, run: Run, description: Mapping[str, Any], out: Path) -> None:
    with _quietly(), out.open("wb") as file:
        torch.export.save(_program(model, run), file, extra_files={DESCRIPTION: json.dumps(description)})


def _write_onnx(model: PortableModel, run: Run, description: Mapping[str, Any], out: Path) -> None:
    import onnx

    made = _onnx_of(model, run)
    if isinstance(model.inputs, PortablePreprocessor):
        _take_columns(made, model.inputs, description)
    if description["weights"] == "float16":
        _store_in_half(made)
    made.producer_name, made.producer_version = "tunelater", __version__
    told = {f"tunelater.{key}": _as_text(value) for key, value in description.items()}
    onnx.helper.set_model_props(made, told)
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, str(out))


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _onnx_of(model: PortableModel, run: Run) -> Any:
    """The network in ONNX, with the inputs of `PortableModel`."""
    from onnx import compose

    names = [*model.kinds, *run.family.hyperparameters, "prior"]
    with _quietly():
        made = torch.onnx.export(
            _program(model, run),
            input_names=names,
            output_names=[f"output.{name}" for name in OUTPUTS],  # inner values may be called logit
            opset_version=OPSET,
            dynamo=True,
            custom_translation_table=_stable_operations(),
            verbose=False,
        )
    assert made is not None
    proto = compose.add_prefix(made.model_proto, _INSIDE)
    split_later = model.kinds if isinstance(model.inputs, PortablePreprocessor) else ()
    outer = {f"{_INSIDE}{name}": name for name in names if name not in split_later}
    outer |= {f"{_INSIDE}output.{name}": name for name in OUTPUTS}
    for node in proto.graph.node:
        node.input[:] = [outer.get(name, name) for name in node.input]
        node.output[:] = [outer.get(name, name) for name in node.output]
    for value in [*proto.graph.input, *proto.graph.output]:
        value.name = outer.get(value.name, value.name)
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = "batch"
    for node in proto.graph.node:
        del node.metadata_props[:]  # how it was traced: a quarter of a small file
    _share_constants(proto)
    return proto


def _share_constants(made: Any) -> None:
    """Keep one of equal constants: PyTorch's exporter writes what is used twice twice."""
    first: dict[bytes, str] = {}
    name_of: dict[str, str] = {}
    for constant in list(made.graph.initializer):
        nameless = type(constant)()
        nameless.CopyFrom(constant)
        nameless.ClearField("name")
        name_of[constant.name] = first.setdefault(nameless.SerializeToString(deterministic=True), constant.name)
        if name_of[constant.name] != constant.name:
            made.graph.initializer.remove(constant)
    for node in made.graph.node:
        node.input[:] = [name_of.get(name, name) for name in node.input]


def _stable_operations() -> dict[Any, Any]:
    """What PyTorch's exporter translates in a way that overflows, in a way that does not."""
    from onnxscript import opset18 as op

    def logaddexp(a: Any, b: Any) -> Any:
        return op.Add(op.Max(a, b), op.Softplus(op.Neg(op.Abs(op.Sub(a, b)))))

    def log_sigmoid(x: Any) -> Any:
        return op.Neg(op.Softplus(op.Neg(x)))

    return {torch.ops.aten.logaddexp.default: logaddexp, torch.ops.aten.log_sigmoid.default: log_sigmoid}


def _store_in_half(made: Any) -> None:
    """Store float32 constants that float16 holds exactly as such: weights that PyTorch's exporter has widened."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for constant in made.graph.initializer:
        if constant.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(constant)
        with np.errstate(over="ignore"):
            rounded = values.astype(np.float16)
        if values.size < _SMALL or not np.array_equal(rounded.astype(np.float32), values):
            continue
        wide, stored = constant.name, f"{constant.name}.half"
        constant.CopyFrom(numpy_helper.from_array(rounded, stored))
        casts.append(helper.make_node("Cast", [stored], [wide], to=TensorProto.FLOAT))
    _put_first(made, casts)


def _put_first(made: Any, nodes: Sequence[Any]) -> None:
    """Nodes before those that are there: a graph lists them in the order that they run in."""
    later = list(made.graph.node)
    del made.graph.node[:]
    made.graph.node.extend([*nodes, *later])


def _take_columns(made: Any, inputs: PortablePreprocessor, description: Mapping[str, Any]) -> None:
    """Replace the inputs of a kind by one for each column; texts become codes."""
    from onnx import TensorProto, helper

    name_of = {told["column"]: told["input"] for told in description["inputs"]}
    nodes, taken = [], []
    column_axis = f"{_INSIDE}column_axis"
    made.graph.initializer.append(helper.make_tensor(column_axis, TensorProto.INT64, [1], [1]))
    for kind, names in inputs.columns.items():
        columns = []
        for name in names:
            cell = name_of[name]
            text = kind == "categorical"
            element = TensorProto.STRING if text else TensorProto.DOUBLE
            taken.append(helper.make_tensor_value_info(cell, element, ["batch"]))
            if text:
                nodes.append(_codes_node(cell, f"{_INSIDE}code.{cell}", inputs.codes[name]))
                cell = f"{_INSIDE}code.{cell}"
            columns.append(f"{_INSIDE}column.{cell}")
            nodes.append(helper.make_node("Unsqueeze", [cell, column_axis], [columns[-1]]))
        nodes.append(helper.make_node("Concat", columns, [f"{_INSIDE}{kind}"], axis=1))
    kinds = {f"{_INSIDE}{kind}" for kind in inputs.columns}
    rest = [value for value in made.graph.input if value.name not in kinds]
    del made.graph.input[:]
    made.graph.input.extend([*taken, *rest])
    _put_first(made, nodes)
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))


def _codes_node(text: str, code: str, codes: Any) -> Any:
    from onnx import helper

    spelled = codes.spelled()
    return helper.make_node(
        "LabelEncoder",
        [text],
        [code],
        domain="ai.onnx.ml",
        keys_strings=list(spelled),
        values_int64s=list(spelled.values()),
        default_int64=codes.other,
    )
