"""The run folder: all that a trained model needs to be used, moved and audited, and nothing that can run code.

```
RUN/
  config.toml              the resolved configuration
  weights.safetensors      the model
  table.json               a table's columns, target and labels, and
  preprocessing.skops        its fitted preprocessing, checked on loading; or
  images.json              where images have their labels from
  data.json                fingerprint, sizes and class shares of the data
  rows.npz                 which rows went where, and hashes of the rows of each split
  scores/validation.npz    log-odds of the validation rows over a grid of lambdas
  metrics.csv              the course of the training; also tensorboard/ or wandb/, if asked for
  environment.json         versions of Python and of the libraries
  estimator.json           of an `LCTClassifier`: its parameters, classes and operating point
  DONE                     the format, the model's identity, and a digest of each file above; written last
```

A run is built in a hidden folder beside its place and renamed when it is whole. One that was interrupted is found there
and goes on from its checkpoint.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save

from tunelater.config import Config, FiLMConfig
from tunelater.data.cells import some_of
from tunelater.data.forms import Form
from tunelater.data.image_form import ImageForm
from tunelater.data.splits import Split
from tunelater.data.table_form import TableForm
from tunelater.distributions import Lambdas
from tunelater.film import LossConditional
from tunelater.losses import LossFamily, loss_family
from tunelater.models import build
from tunelater.problems import InputError
from tunelater.scoring import Scores, pooled_features, score

FORMAT = 2
"""Of the run folder, stated in the first line of DONE, which every format has. Format 1 had no such line."""
LIBRARIES = (
    "tunelater",
    "torch",
    "lightning-fabric",
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "skops",
    "safetensors",
)

_HASHES = "_hashes"
WRITTEN = (
    "config.toml", "weights.safetensors", "table.json", "preprocessing.skops", "images.json", "data.json", "rows.npz",
    "validation.npz", "environment.json", "estimator.json",
)  # fmt: skip
ALWAYS_WRITTEN = ("config.toml", "weights.safetensors", "data.json", "rows.npz", "environment.json")
FORMS: Mapping[str, type[Form]] = {form.name: form for form in (TableForm, ImageForm)}


@dataclass(frozen=True)
class Run:
    """A trained model, with what is needed to use it.

    Attributes:
        form: how data become inputs of the network.
        data: fingerprint, sizes and class counts of what it was trained on.
        rows: row numbers of the `train`, `validation` and `test` splits in that data.
        hashes: hashes of the rows of each split, as in `Labelled`, to recognise them elsewhere.
        validation: scores of the validation rows over a grid of lambdas.
    """

    config: Config
    model: LossConditional
    form: Form
    data: Mapping[str, Any]
    rows: Mapping[str, NDArray[np.int64]]
    hashes: Mapping[str, NDArray[np.uint64]]
    validation: Scores | None = None
    path: Path | None = None

    @property
    def family(self) -> LossFamily:
        """The loss family with the class counts of the training rows."""
        return loss_family(self.config.loss, self.data["class_counts"])

    @property
    def id(self) -> str:
        """Identity of the model: a digest of all that its scores depend on, and of the data behind it.

        It is made of values, not of files, so that another version of this library finds the same: weights, network,
        conditioning, preprocessing, loss, and the range of lambda. Settings of the training alone don't count.
        """
        digest = hashlib.sha256(self.form.digest().encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        meaning = {
            "network": [self.config.model.trunk, _network_options(self.config)],
            "film": _film_settings(self.config),
            "loss": self.config.loss,
            "lambdas": {name: [float(d.a), float(d.b)] for name, d in self.config.lambdas.items()},
            "class_counts": self.data["class_counts"],
            "fingerprint": self.data["fingerprint"],
        }
        digest.update(json.dumps(meaning, sort_keys=True).encode())
        return digest.hexdigest()[:16]

    def score(
        self,
        samples: Split,
        lambdas: Lambdas | Mapping[str, float],
        *,
        split: str = "validation",
        device: str = "auto",
    ) -> Scores:
        """Log-odds of samples at lambdas, found on the GPU where there is one; a lambda outside the range trained on is
        marked as extrapolated.

        Args:
            device: "auto", or where the model is to score, such as "cpu".
        """
        values = {name: np.atleast_1d(np.asarray(v, np.float64)) for name, v in lambdas.items()}
        with self.on_device(device) as model:
            scores = score(model, samples, values, self.family, split=split, model_id=self.id)
        outside = np.array([not self.config.lambdas.contains(scores.lam(i)) for i in range(len(scores))])
        return Scores(**{**vars(scores), "extrapolated": outside})

    def features(self, samples: Split, lam: Mapping[str, float]) -> NDArray[np.float32]:
        """(N, C) pooled features of samples, found on the GPU where there is one; see `scoring.pooled_features`."""
        with self.on_device() as model:
            return pooled_features(model, samples, lam)

    def __getstate__(self) -> dict[str, Any]:
        """For pickle: PyTorch pickles no module with a parametrization, which an ensemble's head has."""
        weights = {name: tensor.cpu() for name, tensor in self.model.state_dict().items()}
        return {**self.__dict__, "model": weights}

    def __setstate__(self, state: dict[str, Any]) -> None:
        model = _with_weights(state["config"], state["data"], state["form"], state["model"])
        self.__dict__.update({**state, "model": model})

    @contextmanager
    def on_device(self, device: str = "auto") -> Iterator[LossConditional]:
        """The model on a device, by default the GPU where there is one, and afterwards where it was."""
        home = next(self.model.parameters()).device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else str(home)
        try:
            yield self.model.to(device)
        finally:
            self.model.to(home)

    def save(self, folder: Path) -> None:
        """Write everything into an existing folder; DONE comes last."""
        (folder / "config.toml").write_text(self.config.to_toml(), encoding="utf-8")
        weights = {name: tensor.contiguous() for name, tensor in self.model.state_dict().items()}
        (folder / "weights.safetensors").write_bytes(save(weights))  # save_file would make it private
        self.form.save(folder)
        _write_json(folder / "data.json", {"form": self.form.name, **self.data})
        hashes = {f"{name}{_HASHES}": values for name, values in self.hashes.items()}
        np.savez_compressed(folder / "rows.npz", **hashes, **self.rows)  # type: ignore[arg-type]
        if self.validation is not None:
            (folder / "scores").mkdir(exist_ok=True)
            save_scores(self.validation, folder / "scores" / "validation.npz")
        _write_json(folder / "environment.json", environment())
        files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name in WRITTEN]
        lines = [
            f"{_FORMAT_LINE}{FORMAT}",
            self.id,
            *(f"{_digest(p)}  {p.relative_to(folder).as_posix()}" for p in files),
        ]
        (folder / "DONE").write_text("\n".join(lines) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Run:
        """Load a run folder. Nothing in it is executed.

        Raises:
            InputError: no such folder, a run of another format, an unfinished or damaged one, or files that do not
                belong together.
        """
        path = Path(path)
        if not (path / "DONE").is_file():
            what = "is not a finished run" if path.is_dir() else "does not exist"
            raise InputError(f"run folder {path} {what}; make one with `tunelater fit`")
        _check_format(path)
        stated, changed = _changed_files(path)
        if changed:
            raise InputError(f"run folder {path} is damaged: {', '.join(changed)} is not what fit wrote")
        try:
            config = Config.read(path / "config.toml")
            data = json.loads((path / "data.json").read_text(encoding="utf-8"))
            name = data.pop("form")
            if name not in FORMS:
                raise InputError(f"run folder {path} is of the form {name!r}, of a later version: update tunelater")
            form = FORMS[name].load(path, config.images)
            with np.load(path / "rows.npz", allow_pickle=False) as stored:
                rows = {name: stored[name] for name in stored.files if not name.endswith(_HASHES)}
                hashes = {name: stored[f"{name}{_HASHES}"] for name in rows}
            model = _with_weights(config, data, form, load_file(path / "weights.safetensors"))
            scores = path / "scores" / "validation.npz"
            validation = load_scores(scores) if scores.is_file() else None
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"run folder {path} is damaged: {type(error).__name__}: {error}") from error
        run = cls(config, model, form, data, rows, hashes, validation, path)
        if run.id != stated:
            raise InputError(f"run folder {path} is damaged: its files make model {run.id}, but DONE says {stated}")
        return run


def _with_weights(
    config: Config, data: Mapping[str, Any], form: Form, weights: Mapping[str, torch.Tensor]
) -> LossConditional:
    model = build(config, n_classes=len(data["class_counts"]), pretrained=False, **form.shape)
    model.load_state_dict(weights)
    return model.eval()


_FORMAT_LINE = "tunelater.run/"


def _format_of(folder: Path) -> int | None:
    """The format of a run folder, by the first line of its DONE; None where it is no run folder."""
    try:
        with (folder / "DONE").open("rb") as file:
            first = file.readline(100).decode(errors="replace").strip()
    except OSError:
        return None
    if re.fullmatch(r"[0-9a-f]{16}", first):
        return 1
    stated = re.fullmatch(re.escape(_FORMAT_LINE) + r"(\d{1,9})", first)
    return int(stated[1]) if stated else None


def _check_format(path: Path) -> None:
    found = _format_of(path)
    if found is None:
        raise InputError(f"run folder {path} is damaged: DONE is not what fit wrote")
    if found > FORMAT:
        raise InputError(
            f"run folder {path} has the format {found}, of a later version of tunelater; this version reads format "
            f"{FORMAT}: update tunelater"
        )
    if found < FORMAT:
        raise InputError(
            f"run folder {path} has the format {found}, of an earlier version of tunelater; this version reads format "
            f"{FORMAT}: fit again on the same table (config.toml there holds the settings: --config)"
        )


def _film_settings(config: Config) -> dict[str, Any] | None:
    """How lambda enters the network, where it does; what has its default is left out, also what later versions add."""
    if config.film is None or not config.lambdas.free:
        return None
    defaults = vars(FiLMConfig())
    return {name: value for name, value in dataclasses.asdict(config.film).items() if value != defaults[name]}


def _network_options(config: Config) -> dict[str, Any]:
    """The options of the trunk without those that say where its first weights came from, and a head that is unusual."""
    options = {name: value for name, value in config.model.options.items() if name not in ("pretrained", "weights")}
    return options if config.model.head == "linear" else {**options, "head": config.model.head}


def _changed_files(folder: Path) -> tuple[str, list[str]]:
    """The identity that DONE states, and the files that are missing or not as DONE describes them."""
    _, stated, *lines = [*(folder / "DONE").read_text(encoding="utf-8").splitlines(), "", ""]
    lines = [line for line in lines if line]
    files = [line.partition("  ")[::2] for line in lines]
    if not {*ALWAYS_WRITTEN} <= {name for _, name in files}:
        return stated, ["DONE"]
    return stated, [name for digest, name in files if not (folder / name).is_file() or _digest(folder / name) != digest]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_scores(scores: Scores, path: Path) -> None:
    """Scores as a compressed .npz without pickles."""
    arrays = {"log_odds": scores.log_odds, "target": scores.target}
    if scores.weight is not None:
        arrays["weight"] = scores.weight
    if scores.extrapolated is not None:
        arrays["extrapolated"] = scores.extrapolated
    arrays |= {f"lambda_{name}": values for name, values in scores.lambdas.items()}
    labels = np.array([scores.split, scores.model])
    np.savez_compressed(path, prior=np.float64(scores.prior), labels=labels, **arrays)  # type: ignore[arg-type]


def load_scores(path: Path) -> Scores:
    """Scores that `save_scores` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        names = [name for name in stored.files if name.startswith("lambda_")]
        split, model = stored["labels"].tolist()
        return Scores(
            log_odds=stored["log_odds"],
            target=stored["target"],
            lambdas={name.removeprefix("lambda_"): stored[name] for name in names},
            prior=float(stored["prior"]),
            weight=stored["weight"] if "weight" in stored.files else None,
            split=split,
            model=model,
            extrapolated=stored["extrapolated"] if "extrapolated" in stored.files else None,
        )


def environment() -> dict[str, Any]:
    """Versions that results depend on."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "format": FORMAT,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "libraries": versions,
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


# ------------------------------------------------------------------------------------------- atomic places


WHOLE_RUN = frozenset({*WRITTEN, "scores", "metrics.csv", "tensorboard", "wandb", "DONE"})


def is_run(folder: Path) -> bool:
    """Whether a folder is a whole run, of any format."""
    return _format_of(folder) is not None


def output_problems(
    out: str | Path,
    *,
    force: bool,
    folder: bool,
    ours: Callable[[Path], bool] = is_run,
    written: frozenset[str] = WHOLE_RUN,
    what: str = "a run folder",
) -> list[str]:
    """Why a result may not be written to `out`: it exists, it is not ours to replace, or it has no place.

    Args:
        folder: whether the result is a folder. One is replaced only if it is empty, or `ours` and without a file that
            is not among those `written` into it.
        what: what `ours` are.
    """
    out = Path(out)
    parent = placed(out).parent
    if run := next((above for above in placed(out).resolve().parents if is_run(above)), None):
        return [f"{out} lies in the run folder {run}, where only fit writes; name another place"]
    if folder and placed(out) in (Path.cwd(), *Path.cwd().parents):
        return [f"{out} is the folder that you are in, or lies above it; name one inside of it"]
    if not parent.is_dir():
        return [f"the folder for {out} does not exist; make it first"]
    if not os.access(parent, os.W_OK | os.X_OK):
        return [f"the folder for {out} cannot be written to; name another place, or change its permissions"]
    if not out.exists() or (folder and out.is_dir() and not any(out.iterdir())):
        return []
    if folder and not ours(out):
        return [f"{out} exists and is not {what}, so it is not replaced; name another place"]
    if folder and (foreign := sorted(p.name for p in out.iterdir() if p.name not in written and p.name != ".DS_Store")):
        return [f"{out} also holds {some_of(foreign)}, which would be lost; move that, or name another place"]
    if not folder and not out.is_file():
        return [f"{out} exists and is not a file; name another place"]
    return [] if force else [f"{out} exists; say --force (force=True) to replace it"]


def placed(out: str | Path) -> Path:
    """The absolute place of a result, without `.` and `..`; a link is a place of its own."""
    return Path(os.path.abspath(out))


def _partial(out: Path) -> Path:
    return placed(out).parent / f".{placed(out).name}.partial"


LOCK = "lock"


@contextmanager
def building(out: Path, identity: str, *, by: str = "fit", resumable: bool = True) -> Iterator[Path]:
    """The hidden folder in which the result for `out` is built: an interrupted one of the same identity, or a new one.

    It stays after an interruption, if it is resumable, and goes after any other failure.

    Args:
        by: the command that builds it, for messages.

    Raises:
        InputError: another process, or another thread, builds the same.
    """
    partial = _partial(out)
    partial.mkdir(exist_ok=True)
    lock = partial / LOCK
    _take(lock, out, by)
    try:
        yield _emptied_unless(partial, identity)
    except BaseException as error:
        if not (resumable and isinstance(error, KeyboardInterrupt)):
            shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        _held.discard(lock)
        lock.unlink(missing_ok=True)


_held: set[Path] = set()
"""Locks of this process: one with its number that is not among them is a leftover, since numbers come again."""


def _take(lock: Path, out: Path, by: str) -> None:
    pid = ""
    for _ in range(2):
        try:
            with lock.open("x", encoding="utf-8") as file:
                file.write(str(os.getpid()))
            _held.add(lock)
            return
        except FileExistsError:
            with suppress(FileNotFoundError):  # the other has just ended
                pid = lock.read_text(encoding="utf-8").strip()
            if lock in _held or another_lives(pid):
                break
            lock.unlink(missing_ok=True)
    raise InputError(
        f"{out} is being made by another {by} (process {pid or 'unknown'}); wait for it, or name another place; if "
        f"there is no such process, remove {lock}"
    )


def another_lives(pid: str) -> bool:
    """Whether a process of that number, as a lock states it, is there and is not this one."""
    if not pid.isdigit():
        return not pid  # the other has made its lock, and not written to it yet
    if int(pid) == os.getpid():
        return False
    if os.name == "nt":  # where signal 0 would end the process
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _emptied_unless(partial: Path, identity: str) -> Path:
    marker = partial / "identity"
    if not (marker.is_file() and marker.read_text(encoding="utf-8") == identity):
        for entry in partial.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != LOCK:
                entry.unlink()
    marker.write_text(identity, encoding="utf-8")
    return partial


def publish(partial: Path, out: Path) -> None:
    """Rename a finished folder into place, replacing an older run only once the new one is whole."""
    for leftover in ("identity", "checkpoint.pt", "checkpoint.pt.partial", LOCK):
        (partial / leftover).unlink(missing_ok=True)
    old, out = None, placed(out)
    if out.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old-", dir=out.parent))
        os.rename(out, old / out.name)
    os.rename(partial, out)
    if old is not None:
        shutil.rmtree(old)
