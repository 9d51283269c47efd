"""The command line. Heavy modules load inside the commands, so that help answers at once."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from tunelater import interrupt
from tunelater.names import shell_word, shown
from tunelater.problems import DoubtfulInputWarning, InputError, Problems

if TYPE_CHECKING:
    from tunelater.adaptation import Adaptation
    from tunelater.calibration import BrierDecomposition, CalibrationMap, Reliability
    from tunelater.config import Config, FiLMConfig
    from tunelater.data.image_form import ImageSource
    from tunelater.points import OperatingPoint
    from tunelater.workflow import Evaluation

app = typer.Typer(
    name="tunelater",
    help="Rare-event classification: train one model, choose where to operate afterwards, as often as needs change.",
    epilog="A first run: tunelater demo. On your data: tunelater fit, then tune, evaluate and predict.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

SATURATES = 1e-4
"""Nearer than this to 0 or 1, a probability does not tell thresholds apart when printed."""

DataArgument = Annotated[
    Path,
    typer.Argument(
        metavar="DATA", help="A CSV or Parquet file, a folder of Parquet files, or one of images.", show_default=False
    ),
]
RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="The run folder that **fit** wrote.", show_default=False)
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is already at --out.")]
At = Annotated[Path, typer.Option("--at", help="The operating point that **tune** wrote.", show_default=False)]

EngineOption = Annotated[
    str, typer.Option("--engine", metavar="local|ray", help="Where Parquet is worked on: here, or on Ray Data.")
]
Address = Annotated[
    str | None, typer.Option(help="Of a Ray cluster. [RAY_ADDRESS, or this machine]", show_default=False)
]

Memory = Annotated[
    int,
    typer.Option(
        "--memory", metavar="MIB", help="Tables that take more are streamed, into histograms that take no more."
    ),
]
WholeMemory = Annotated[
    int, typer.Option("--memory", metavar="MIB", help="Tables are read as a whole; those that take more are refused.")
]
Grid = Annotated[int, typer.Option(help="Values to try of each loss hyperparameter.")]

Simplest = Annotated[
    bool,
    typer.Option(
        "--simplest/--best",
        help="Of lambdas within one standard error of the best, the nearest to the default; or the best.",
    ),
]

IMAGES, DATASETS = "Images", "The paper's datasets and methods"
Paths = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="DATA is a list of images, CSV or Parquet: the column of their files.",
        show_default=False,
        rich_help_panel=IMAGES,
    ),
]
Bootstrap = Annotated[
    int | None, typer.Option(metavar="N", help="Intervals from N resamples instead.", show_default=False)
]
ImageFolder = Annotated[
    Path | None,
    typer.Option("--images", help="Where those files are. [the list's folder]", rich_help_panel=IMAGES),
]
OnBad = Annotated[
    str, typer.Option(metavar="raise|skip", help="What to do about unreadable images.", rich_help_panel=IMAGES)
]
MaxPixels = Annotated[
    int | None,
    typer.Option(metavar="N", help="The most pixels an image may have. [179 million]", rich_help_panel=IMAGES),
]
Cache = Annotated[
    Path | None,
    typer.Option(help="Where decoded images are kept. [the user's cache folder]", rich_help_panel=IMAGES),
]


@app.command(
    epilog="Example: tunelater fit cases.csv --target diagnosis --positive malignant --out run. With images: "
    "tunelater fit parts/ --positive cracked --backbone convnext_tiny --out run",
    short_help="Train one model on a table or on images.",
)
def fit(
    data: DataArgument,
    out: Annotated[Path, typer.Option(help="The run folder to write.", show_default=False)],
    target: Annotated[
        str | None, typer.Option(help="The column to predict; it must have two values.", show_default=False)
    ] = None,
    positive: Annotated[
        str | None,
        typer.Option(help="The value, or folder of images, that marks the rare event.", show_default=False),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings in TOML, such as another run's config.toml.", show_default=False)
    ] = None,
    loss: Annotated[
        str | None, typer.Option(help="Loss family: vs, focal, weighted_cross_entropy, ldam or cross_entropy. [vs]")
    ] = None,
    lam: Annotated[
        list[str] | None,
        typer.Option(
            "--lambda",
            metavar="NAME=DIST",
            help="A loss hyperparameter's value or distribution: tau=1, 'tau=linear(0,3,0.1)', 'tau=uniform(0,3)'.",
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="At most so many passes over the training rows. [100]")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the split, the weights and everything else random. [0]")] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="Shares of rows to train on, choose on and report on. [0.6,0.2,0.2; of a dataset with its own test "
            "part: 0.8 and 0.2 of the rest]",
        ),
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option(help="Train on fewer positives: 1 to so many negatives. Other rows stay.", show_default=False),
    ] = None,
    weight: Annotated[str | None, typer.Option(help="A column of sample weights.", show_default=False)] = None,
    film: Annotated[
        str | None,
        typer.Option(
            metavar="features|logits|stages",
            help="Where lambda enters the network: on its features, on its logits, or after each stage of its trunk. "
            "[features]",
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="32-true|bf16-mixed",
            help="Train in float32, or faster in bfloat16 on a GPU or processor that has it. [32-true]",
            show_default=False,
        ),
    ] = None,
    compile: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            help="Train through torch.compile: slow to start, faster steps; needs a compiler. [no]",
            show_default=False,
        ),
    ] = None,
    tracker: Annotated[
        str | None,
        typer.Option(metavar="tensorboard|wandb", help="Where else to follow the training. [nowhere]"),
    ] = None,
    no_header: Annotated[
        bool, typer.Option("--no-header", help="The CSV has no line of names: columns are column_1, column_2, ...")
    ] = False,
    force: Force = False,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="The network: resnet32 (small images, from scratch) or a name of timm's; of a table mlp or tabm. "
            "[convnext_tiny; tabm]",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Start from these weights (.safetensors, or a state dict). [ImageNet's, downloaded]",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    scratch: Annotated[
        bool, typer.Option("--scratch", help="Start from random weights.", rich_help_panel=IMAGES)
    ] = False,
    size: Annotated[
        int | None,
        typer.Option(help="Train on images of so many pixels. [the weights' own]", rich_help_panel=IMAGES),
    ] = None,
    bits: Annotated[
        int | None,
        typer.Option(help="Bits in use of grey 16-bit files, such as 12. [all]", rich_help_panel=IMAGES),
    ] = None,
    paths: Paths = None,
    images: ImageFolder = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="In that list, what no split tears apart: a patient, a lesion.",
            show_default=False,
            rich_help_panel=IMAGES,
        ),
    ] = None,
    unlabelled: Annotated[
        bool,
        typer.Option("--unlabelled", help="Images that the list does not name are fine.", rich_help_panel=IMAGES),
    ] = False,
    on_bad: OnBad = "raise",
    max_pixels: MaxPixels = None,
    cache: Cache = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="DATA is the folder of cifar10-automobile-deer, cifar10-automobile-truck, cifar10-animal-vehicle, "
            "cifar100-household, melanoma, aptos or dogs-vs-cats, as their owners ship it.",
            show_default=False,
            rich_help_panel=DATASETS,
        ),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch CIFAR into that folder first.", rich_help_panel=DATASETS)
    ] = False,
    method: Annotated[
        str | None,
        typer.Option(
            help="Of Table 1: focal, focal+lct, vs, vs+lct, vs+sam or vs+sam+lct. [vs+lct]", rich_help_panel=DATASETS
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="paper|released",
            help="Settings of a dataset: the paper's text, or its released code. [paper]",
            rich_help_panel=DATASETS,
        ),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            metavar="held-out|paper",
            help="Choose on images held back from training, or, as the paper did, on the test images.",
            rich_help_panel=DATASETS,
        ),
    ] = "held-out",
) -> None:
    """Train one model over a distribution of loss hyperparameters, on a table or on images.

    DATA is a table with a row for each case: numbers, true/false, categories, dates and missing values, and one target
    column. Or it is a folder of images, with one folder for each class in it; or a list of images (--paths, --target).
    Of several classes of images --positive is one, and all others together are the negatives. A part is held back to
    choose on (**tune**) and to report on (**evaluate**); both find it by themselves when given the same data.
    """
    with _reported("stopped; the same command goes on from its last checkpoint, if it has one"):
        from tunelater.data.image_form import is_one_image
        from tunelater.workflow import fit as run_fit
        from tunelater.workflow import is_image_folder

        problems = Problems()
        asked = _Asked(
            loss, lam or [], epochs, seed, film, precision, compile, method, backbone, weights, scratch, size, bits
        )
        are_images = is_image_folder(data) or dataset is not None or paths is not None
        if data.exists() and not are_images and not is_one_image(data):
            given = {"--images": images, "--group": group, "--unlabelled": unlabelled, "--cache": cache}
            given |= {"--on-bad": on_bad != "raise", "--max-pixels": max_pixels is not None}
            problems.add(*asked.only_for_images(given))
        settings = _settings(config, asked, are_images, dataset, recipe, problems)
        fractions = None if split is None else _fractions(split, problems)
        with _progress("Training", "epochs at most", settings.epochs if settings else epochs or 100) as advance:
            source = None
            if are_images:
                source = _source(
                    progress=lambda done, total: advance(done, total, "Decoding", "images"),
                    dataset=dataset,
                    download=download,
                    protocol=protocol,
                    path=paths,
                    folder=images,
                    group=group,
                    unlabelled=unlabelled,
                    cache=cache,
                    on_bad=on_bad,
                    max_pixels=max_pixels,
                )
            run = run_fit(
                data,
                target=target,
                positive=positive,
                out=out,
                config=settings,
                fractions=fractions,
                beta=beta,
                weight=weight,
                header=not no_header,
                images=source,
                force=force,
                on_epoch=lambda row: advance(int(row["epoch"])),
                tracker=tracker,
                problems=list(problems),
            )
        shares = ", ".join(f"{n['rows']} {name} ({n['positives']} positive)" for name, n in run.data["splits"].items())
        _tell(f"Model {run.id}, trained on {run.form.told}; {run.form.noun}s: {shares}.")
        if run.data.get("chosen_on_test"):
            _warn(
                "protocol paper: the validation images are the test images, so that whatever is chosen flatters itself"
            )
        _tell(f"Run folder: {out}")
        need = ["--maximize", "precision", "--subject-to", "recall>=0.9", "--out", "point.json"]
        reading = _given({"--images": images, "--on-bad": on_bad, "--max-pixels": max_pixels, "--cache": cache})
        _echo_next("tune", out, data, *need, *reading)


@app.command(
    epilog="Example: tunelater tune run cases.csv --maximize precision --subject-to 'recall>=0.9' --out point.json",
    short_help="Choose the operating point for a need.",
)
def tune(
    run: RunArgument,
    data: DataArgument,
    maximize: Annotated[
        str | None, typer.Option(help="A metric: precision, recall, f1, specificity, auc, ...", show_default=False)
    ] = None,
    minimize: Annotated[
        str | None, typer.Option(help="A metric: brier, fpr, alert_rate, ...", show_default=False)
    ] = None,
    cost: Annotated[
        str | None,
        typer.Option(
            metavar="fn=A,fp=B",
            help="Lowest expected cost: of a miss (fn) and a false alarm (fp), each a number, or a column that has it.",
        ),
    ] = None,
    subject_to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'METRIC>=X'",
            help="A constraint: 'recall>=0.9', 'alerts<=20/1000', 'recall>=0.9 in every COLUMN'; may be repeated.",
        ),
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(
            metavar="P or LOW:HIGH",
            help="Share of positives where the model will be used, if other than in DATA; of a range the worst counts.",
            show_default=False,
        ),
    ] = None,
    simplest: Simplest = True,
    grid: Grid = 9,
    out: Annotated[
        Path | None, typer.Option(help="Where to write the operating point (JSON).", show_default=False)
    ] = None,
    allow_test: Annotated[
        bool, typer.Option("--allow-test", help="Choose on the run's test data (figures are then flattered).")
    ] = False,
    force: Force = False,
    bootstrap: Bootstrap = None,
    guarantee: Annotated[
        float | None,
        typer.Option(
            metavar="C",
            help="Certify the constraints for future data with confidence C, such as 0.9: some rows choose, the others "
            "certify.",
            show_default=False,
        ),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="platt|beta|isotonic",
            help="Calibrate the point's probabilities, on the same rows; decisions stay as they are.",
            show_default=False,
        ),
    ] = None,
    stream: Annotated[
        bool | None,
        typer.Option(
            "--stream/--whole",
            help="Count scores while rows stream by, or hold all rows. [by --memory]",
            show_default=False,
        ),
    ] = None,
    memory: Memory = 1024,
    engine: EngineOption = "local",
    address: Address = None,
    paths: Paths = None,
    images: ImageFolder = None,
    on_bad: OnBad = "raise",
    max_pixels: MaxPixels = None,
    cache: Cache = None,
) -> None:
    """Choose lambda and threshold for a need, without retraining.

    DATA are labelled rows or images. If they are those that the run was fitted on, only what was held back for choosing
    is used. Say one of --maximize, --minimize and --cost, and any number of constraints. Beside what the point achieves
    on DATA, which flatters it, stands what to expect on others.

    A table that takes more than --memory streams by: its scores are counted in fine bins, in memory that does not grow
    with it. Metrics of the threshold stay exact, those of a whole lambda are told with how far off they may be. DATA
    may also be what **count** wrote, or a folder of that.
    """
    with _reported(memory="try fewer lambdas (--grid), or fewer rows or images"):
        from tunelater.workflow import is_image_folder
        from tunelater.workflow import tune as run_tune

        problems = Problems()
        with _decoding(path=paths, folder=images, on_bad=on_bad, max_pixels=max_pixels, cache=cache) as source:
            point = run_tune(
                run,
                data,
                maximize=maximize,
                minimize=minimize,
                cost=_costs(cost, problems),
                subject_to=subject_to or [],
                prior=_prior(prior, problems),
                simplest=simplest,
                grid=grid,
                out=out,
                force=force,
                allow_test=allow_test,
                bootstrap=bootstrap,
                guarantee=guarantee,
                calibrate=calibrate,
                stream=stream,
                memory_mb=memory,
                engine=engine,
                address=address,
                images=source,
                problems=list(problems),
            )
        _print_point(point)
        if out is not None:
            _tell(f"Operating point: {out}")
            new = "NEW/" if data.is_dir() else f"NEW{data.suffix if data.suffix in ('.parquet', '.pq') else '.csv'}"
            reading = _given({"--paths": paths, "--images": images, "--on-bad": on_bad, "--max-pixels": max_pixels})
            _echo_next("predict", run, new, "--at", out, "--out", "alerts.csv", *reading)
            if is_image_folder(data) and not point.off_by:
                _tell("NEW/ stands for a folder of image files, of any names and at any depth.")


@app.command(
    epilog="Example: tunelater count run part-1/ --out shards/1.npz, on each machine; then: tunelater tune run shards/ "
    "--maximize precision --subject-to 'recall>=0.9' --out point.json",
    short_help="Count scores of a shard of labelled rows, to choose on.",
)
def count(
    run: RunArgument,
    data: DataArgument,
    out: Annotated[Path, typer.Option(help="Where to write the histograms (.npz).", show_default=False)],
    grid: Grid = 9,
    memory: Memory = 1024,
    force: Force = False,
    engine: EngineOption = "local",
    address: Address = None,
) -> None:
    """Count the scores of labelled rows at a grid of lambdas, where the rows are.

    For validation data on several machines: **tune** takes a folder of what this wrote on each, as if the rows had
    streamed by in one place. --grid and --memory must be the same everywhere.
    """
    with _reported(memory="allow less (--memory)"):
        from tunelater.workflow import count as run_count

        total = run_count(
            run, data, out=out, grid=grid, memory_mb=memory, force=force, engine=engine, address=address
        ).total
        rows, positives = int(total.rows.sum()), int(total.rows[1])
        told = f"{_counted(rows, 'row')}, {positives} positive, at {_counted(len(total), 'lambda')}"
        _tell(f"{told}, in bins of 2^-{total.bins.bits}: {out}")


@app.command(
    epilog="Example: tunelater evaluate run cases.csv --at point.json",
    short_help="Say what an operating point achieves on labelled rows.",
)
def evaluate(
    run: RunArgument,
    data: DataArgument,
    at: At,
    bootstrap: Bootstrap = None,
    reliability: Annotated[
        Path | None,
        typer.Option(
            metavar="FIGURE", help="Where to draw a reliability diagram: .png, .pdf or .svg.", show_default=False
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is already at --reliability.")] = False,
    paths: Paths = None,
    images: ImageFolder = None,
    on_bad: OnBad = "raise",
    max_pixels: MaxPixels = None,
    cache: Cache = None,
) -> None:
    """Say what an operating point achieves on labelled rows or images, with 95% intervals.

    If DATA are those that the run was fitted on, only what was held back for reporting is used: neither the training
    nor the choice has seen it.
    """
    with _reported():
        from tunelater.workflow import evaluation

        with _decoding(path=paths, folder=images, on_bad=on_bad, max_pixels=max_pixels, cache=cache) as source:
            done = evaluation(
                run, data, at=at, bootstrap=bootstrap, reliability=reliability, force=force, images=source
            )
        title = f"Operating point {at} on {done.n} {done.split} {done.noun}s of {data}, {done.n_positive} positive"
        _print_estimates(title, done.point, done.estimates)
        _print_reliability(done)
        if reliability is not None:
            _tell(f"Reliability diagram: {reliability}")


@app.command(
    epilog="Example: tunelater report run cases.csv --out report.html",
    short_help="Write a page on which people choose the operating point.",
)
def report(
    run: RunArgument,
    data: DataArgument,
    out: Annotated[Path, typer.Option(help="The HTML file to write.", show_default=False)],
    at: Annotated[
        Path | None, typer.Option("--at", help="An operating point that the page opens at.", show_default=False)
    ] = None,
    subgroups: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN", help="Tell figures within the values of a column; may be repeated.", show_default=False
        ),
    ] = None,
    grid: Annotated[
        int | None,
        typer.Option(help="Values of each loss hyperparameter. [25 of one, 9 of two]", show_default=False),
    ] = None,
    smallest: Annotated[
        int, typer.Option(metavar="N", help="Cases between two thresholds at the least, 3 or more.")
    ] = 5,
    allow_test: Annotated[
        bool, typer.Option("--allow-test", help="Show the run's test data (figures are then flattered).")
    ] = False,
    memory: Annotated[
        int, typer.Option("--memory", metavar="MIB", help="Scores of a table held at a time take no more.")
    ] = 1024,
    force: Force = False,
    paths: Paths = None,
    images: ImageFolder = None,
    on_bad: OnBad = "raise",
    max_pixels: MaxPixels = None,
    cache: Cache = None,
) -> None:
    """Write a page on which people choose where to operate: one HTML file for any browser, offline.

    DATA are as for **tune**, or what **count** wrote. The file holds counts between thresholds, of --smallest cases or
    more, and no cases, so that it can be passed on. Its readers move lambda and threshold, state needs, priors and
    costs, and save the operating point that **predict** takes.
    """
    with _reported(memory="try fewer lambdas (--grid)"):
        from tunelater.reporting import report as run_report

        with _decoding(path=paths, folder=images, on_bad=on_bad, max_pixels=max_pixels, cache=cache) as source:
            done = run_report(
                run,
                data,
                out=out,
                at=at,
                subgroups=subgroups or [],
                grid=grid,
                smallest=smallest,
                allow_test=allow_test,
                memory_mb=memory,
                force=force,
                images=source,
            )
        told = f"{_counted(sum(done.rows), f'{done.split} {done.noun}')}, {done.rows[1]} positive"
        _tell(f"{told}, at {_counted(done.lambdas, 'lambda')}, {done.size / 1e6:.1f} MB: {out}")
        for column, n in done.joined.items():
            _tell(f"{_counted(n, 'value')} of {column} joined, as missing or rare")
        for what in done.left_out:
            _warn(f"of {at}, {what}")
        _tell(f"Open it in a browser: {out.resolve().as_uri()}")


@app.command(
    epilog="Example: tunelater predict run new.csv --at point.json --out alerts.csv --keep patient_id",
    short_help="Score new rows and decide on them.",
)
def predict(
    run: RunArgument,
    data: DataArgument,
    at: At,
    out: Annotated[
        Path,
        typer.Option(
            help="Where to write the result: .csv, .parquet, .pq or, of Parquet, a folder.", show_default=False
        ),
    ],
    keep: Annotated[
        list[str] | None,
        typer.Option(help="A column of DATA to copy into the result; may be repeated.", show_default=False),
    ] = None,
    force: Force = False,
    engine: EngineOption = "local",
    address: Address = None,
    paths: Paths = None,
    images: ImageFolder = None,
    on_bad: OnBad = "raise",
    max_pixels: MaxPixels = None,
) -> None:
    """Score new rows or images at an operating point and decide on them.

    The result has a row for each row of DATA, or for each image in it: probability, log-odds and prediction. Files
    larger than memory are fine. A folder of Parquet files is one table, and --out without an extension a folder of
    them; --engine ray works on many parts at once, with the same result. Images come as a folder, at any depth, as a
    list (--paths), or as a single file.
    """
    with _reported():
        from tunelater.workflow import predict as run_predict

        with _progress("Predicting", "", None) as advance:
            done = run_predict(
                run,
                data,
                at=at,
                out=out,
                keep=keep or [],
                force=force,
                engine=engine,
                address=address,
                images=_source(path=paths, folder=images, on_bad=on_bad, max_pixels=max_pixels),
                on_rows=lambda n, noun: advance(n, unit=f"{noun}s"),
            )
        rows, alerts = _counted(done.rows, done.noun), _counted(done.alerts, "alert")
        _tell(f"{rows}, {alerts} ({done.alerts / max(done.rows, 1):.2%}): {out}")
        if done.extrapolated:
            _warn("the point's lambda lies outside of the range that the model was trained on (column 'extrapolated')")


@app.command(
    epilog="Example: tunelater export run model.onnx --at point.json",
    short_help="Write the model as one file for other programs.",
)
def export(
    run: RunArgument,
    out: Annotated[Path, typer.Argument(metavar="MODEL", help="The file to write: .onnx or .pt2.", show_default=False)],
    at: Annotated[
        list[Path] | None,
        typer.Option(help="An operating point to go along; may be repeated.", show_default=False),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Weights in float16: a smaller file.")] = False,
    format: Annotated[
        str | None, typer.Option(metavar="onnx|torch", help="What to write. [by the ending of MODEL]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is already there.")] = False,
) -> None:
    """Write the model as ONNX, or as an exported program of PyTorch, with its preprocessing and its link inside.

    Samples, lambda and the prior are its inputs, log posterior odds and the probability its outputs. Operating points
    go along, in the file and as JSON beside it; of a saved `LCTClassifier`, without --at, its own.
    """
    with _reported():
        from tunelater.estimator import LCTClassifier
        from tunelater.export import export_model

        options: dict[str, Any] = {"half": half, "format": format, "force": force}
        if not at and LCTClassifier.is_saved(run):
            done = LCTClassifier.load(run).export(out, **options)
        else:
            done = export_model(run, out, at=at or [], **options)
        _tell(f"Model {done.description['model']}: {done.out}")
        for place in done.points:
            _tell(f"Operating point: {place}")
        _tell(f"To run it:\n\n{done.snippet}")


@app.command(
    epilog="Example: tunelater card run --data cases.csv --at point.json --out README.md",
    short_help="Write a model card.",
)
def card(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="The Markdown file to write.", show_default=False)],
    data: Annotated[
        Path | None,
        typer.Option(help="Labelled data to report on; of the run's own its test rows. [none]", show_default=False),
    ] = None,
    at: Annotated[
        list[Path] | None,
        typer.Option(help="An operating point to report; may be repeated.", show_default=False),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Report each of its values apart; may be repeated.", show_default=False),
    ] = None,
    force: Force = False,
    paths: Paths = None,
    images: ImageFolder = None,
    on_bad: OnBad = "raise",
    max_pixels: MaxPixels = None,
    cache: Cache = None,
) -> None:
    """Write a model card in the layout of the Hugging Face Hub, as far as run, points and data say.

    What only people know (who made it, what for, what it must not be used for besides the obvious) is marked to be
    written.
    """
    with _reported():
        from tunelater.card import write_card

        with _decoding(path=paths, folder=images, on_bad=on_bad, max_pixels=max_pixels, cache=cache) as source:
            written = write_card(
                run, out, data=data, at=at or [], groups=group or [], force=force, images=source if data else None
            )
        for path in written:
            _tell(f"{'Model card' if path == out else 'Figure'}: {path}")


ReferenceData = Annotated[
    Path | None,
    typer.Option(
        "--reference",
        metavar="DATA",
        help="The data that the run was fitted on, to compare with. [the validation scores that the run keeps]",
        show_default=False,
    ),
]

DRIFTED, ALARM, UNMET = 3, 4, 5
"""Exit codes of `adapt` where the inputs have drifted, of `watch` where an alarm stands, and of `adapt` where nothing
meets the needs at the new share of positives."""


@app.command(
    epilog="Example: tunelater adapt run new.csv --at point.json --out new-point.json. Exit code 3: the inputs have "
    "drifted; 5: nothing meets the needs at the new share of positives. In both no point was written.",
    short_help="Choose again for the share of positives that there is now.",
)
def adapt(
    run: RunArgument,
    new: Annotated[
        Path,
        typer.Argument(metavar="NEW", help="New cases, with all labels, some or none.", show_default=False),
    ],
    at: At,
    out: Annotated[Path, typer.Option(help="Where to write the point to use from now on (JSON).", show_default=False)],
    audit: Annotated[
        Path | None, typer.Option(help="Where to write the record (JSON). [OUT as NAME.audit.json]", show_default=False)
    ] = None,
    reference: ReferenceData = None,
    even_if_drifted: Annotated[
        bool, typer.Option("--even-if-drifted", help="Choose again although the inputs have drifted.")
    ] = False,
    alpha: Annotated[
        float, typer.Option(help="How often a mere change of the share of positives may be taken for drift.")
    ] = 0.05,
    simplest: Simplest = True,
    grid: Annotated[int, typer.Option(help="With --reference, values to try of each loss hyperparameter.")] = 9,
    guarantee: Annotated[
        float | None,
        typer.Option(
            metavar="C",
            help="Certify the constraints with confidence C. [that of the point's certificate, if it has one]",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the test's draws.")] = 0,
    force: Force = False,
    memory: WholeMemory = 1024,
    paths: Paths = None,
    images: ImageFolder = None,
    on_bad: OnBad = "raise",
    max_pixels: MaxPixels = None,
    cache: Cache = None,
) -> None:
    """Choose an operating point again, for the share of positives among new cases. The model stays.

    The share is estimated, also without labels, and it is tested whether it is all that has changed. If so, the point's
    own needs are met again at that share, or the point stays if a new one is no better. If the inputs themselves have
    drifted, nothing is chosen. A record of what was found and done is written in any case.
    """
    with _reported():
        from tunelater import adaptation

        with _decoding(path=paths, folder=images, on_bad=on_bad, max_pixels=max_pixels, cache=cache) as source:
            done = adaptation.adapt(
                run,
                new,
                at=at,
                out=out,
                audit=audit,
                reference=reference,
                even_if_drifted=even_if_drifted,
                alpha=alpha,
                grid=grid,
                simplest=simplest,
                guarantee=guarantee,
                seed=seed,
                force=force,
                memory_mb=memory,
                images=source,
            )
        for line in done.audit.in_words():
            _tell(line)
        if done.audit.before:
            _print_change(done)
        _tell(f"Audit: {done.record}")
        if done.audit.outcome == "unmet":
            _warn(f"no operating point was written: {done.audit.verdict}")
            raise typer.Exit(UNMET)
        if done.point is None:
            _warn(f"no operating point was written: {done.audit.verdict}. --even-if-drifted chooses one all the same")
            raise typer.Exit(DRIFTED)
        if done.audit.tests["overridden"]:
            _warn("the inputs have drifted, so that what is estimated here may be wrong")
        _tell(f"Operating point: {out}")
        if done.audit.has_enough_labels:
            _tell("These cases have labels enough to choose on them, once those without are left out:")
            _echo_next("tune", run, new, *done.audit.needs_as_options())


@app.command(
    epilog="Example: tunelater watch run today.csv --at point.json --state watch.json --limit 'recall>=0.85'. Exit "
    "code 4: an alarm stands.",
    short_help="Watch a point on batches of new cases, with few false alarms.",
)
def watch(
    run: RunArgument,
    batches: Annotated[
        list[Path],
        typer.Argument(
            metavar="BATCH...", help="Tables or folders of tables; of images, folders or lists.", show_default=False
        ),
    ],
    at: At,
    state: Annotated[Path, typer.Option(help="The file that remembers from call to call.", show_default=False)],
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'METRIC>=X'",
            help="What labelled cases should keep to, such as 'recall>=0.85'; may be repeated.",
            show_default=False,
        ),
    ] = None,
    alarm_rate: Annotated[
        float, typer.Option(help="The chance that there is ever a false alarm, however long the watch.")
    ] = 0.01,
    prior: Annotated[
        str | None,
        typer.Option(
            metavar="P or LOW:HIGH",
            help="The share of positives, or its range, that is no drift. [the point's]",
            show_default=False,
        ),
    ] = None,
    reference: ReferenceData = None,
    no_drift: Annotated[bool, typer.Option("--no-drift", help="Watch the limits alone, and not the scores.")] = False,
    seen: Annotated[
        bool, typer.Option("--seen", help="These cases were in earlier batches: their labels have come in.")
    ] = False,
    memory: WholeMemory = 1024,
    paths: Paths = None,
    images: ImageFolder = None,
    on_bad: OnBad = "raise",
    max_pixels: MaxPixels = None,
    cache: Cache = None,
) -> None:
    """Watch an operating point on batches of new cases, with labels or without.

    The scores are watched for drift, and labelled cases for the limits. The evidence adds up from batch to batch and
    call to call; batches that were counted already are left out. An e-value says how many times more the evidence
    speaks for a change than chance lets it, and an alarm is raised where it passes its bound.
    """
    with _reported("stopped; the batches that were told are counted, and the same command goes on"):
        from tunelater import adaptation

        problems = Problems()
        with _decoding(path=paths, folder=images, on_bad=on_bad, max_pixels=max_pixels, cache=cache) as source:
            done = adaptation.watch(
                run,
                batches,
                at=at,
                state=state,
                limits=limit or [],
                alarm_rate=alarm_rate,
                prior=_prior(prior, problems),
                reference=reference,
                drift=not no_drift,
                seen=seen,
                memory_mb=memory,
                images=source,
                on_batch=lambda batch: _tell(batch.in_words),
                problems=list(problems),
            )
        if done.alarms:
            lines = [f"alarm since batch {alarm.batch}: {alarm.sentence}" for alarm in done.alarms]
            next_ = (
                "find out with `tunelater adapt` on recent cases whether the share of positives has moved, or retrain"
            )
            raise _ended(ALARM, *lines, f"{next_}; after that begin another watch: --state")


@app.command(short_help="See it work on real data.", epilog="Example: tunelater demo --out tunelater-demo")
def demo(
    out: Annotated[Path, typer.Option(help="Where the run folder, the figure and the table go.")] = Path(
        "tunelater-demo"
    ),
    seed: Annotated[int, typer.Option(help="Of the split and the training.")] = 0,
    force: Force = False,
) -> None:
    """Train on a real thyroid screening table, choose three operating points, and compare on the test rows."""
    with _reported("stopped; the same command goes on from its last checkpoint"):
        from tunelater.demo import EPOCHS, run_demo

        with _progress("Training", "epochs at most", EPOCHS) as advance:
            result = run_demo(out, seed=seed, force=force, on_epoch=advance)
        _tell(result)


def main() -> None:
    """As `tunelater.__main__.main`, for scripts that earlier versions installed."""
    app()


# ------------------------------------------------------------------------------------------- pieces


@contextmanager
def _reported(
    stopped: str = "stopped; nothing was written", memory: str = "try fewer rows or images"
) -> Iterator[None]:
    """Bad input as lines on standard error and exit code 2, doubtful input as warnings, no traceback for either."""
    with _shown_warnings():
        try:
            import_module("tunelater.workflow")  # for seconds, in which Ctrl-C should end at once
            with interrupt.raised():
                yield
        except InputError as error:
            raise _ended(2, *(f"error: {problem}" for problem in error.problems)) from None
        except KeyboardInterrupt:
            raise _ended(130, stopped) from None
        except MemoryError:
            raise _ended(2, f"error: there is not enough memory; {memory}") from None
        except OSError as error:
            told = " ".join(str(error).split()) or type(error).__name__
            raise _ended(2, f"error: reading or writing failed: {told}") from None
        except RuntimeError as error:
            if "allocate memory" in str(error):  # how torch says it
                raise _ended(2, f"error: there is not enough memory; {memory}") from None
            if type(error).__name__ != "TrainingDiverged":
                raise
            raise _ended(1, f"error: {error}") from None


def _tell(text: object, err: bool = False) -> None:
    """Print text, in which names from data and files do nothing to a terminal."""
    typer.echo(shown(str(text)), err=err)


def _ended(code: int, *lines: str) -> typer.Exit:
    for line in lines:
        _tell(line, err=True)
    return typer.Exit(code)


@contextmanager
def _shown_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("always", DoubtfulInputWarning)
        shown = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any) -> None:
            if issubclass(category, DoubtfulInputWarning):
                _warn(str(message))
            else:
                shown(message, category, *rest)

        warnings.showwarning = show  # type: ignore[assignment]
        yield


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _given(options: dict[str, Any]) -> list[str]:
    """Options as words of a command, without those that were not given or say what is usual."""
    return [str(word) for name, value in options.items() if value not in (None, "raise") for word in (name, value)]


def _echo_next(*command: object) -> None:
    """The command to go on with, to be pasted into a shell."""
    _tell(f"Next: tunelater {' '.join(shell_word(str(word)) for word in command)}")


def _warn(message: str) -> None:
    _tell(f"warning: {message}", err=True)


class _Advance(Protocol):
    def __call__(self, done: int, total: int | None = ..., what: str = ..., unit: str = ...) -> None:
        """So much is done; of another total, or of another thing than the bar began with."""


@contextmanager
def _progress(what: str, unit: str, total: int | None) -> Iterator[_Advance]:
    """A progress bar on standard error where it is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks = {}

        def advance(done: int, total: int | None = total, what: str = what, unit: str = unit) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total, unit=unit)
            bar.update(tasks[what], completed=done, total=total, unit=unit)

        advance(0)
        yield advance


def _source(**options: Any) -> ImageSource:
    from tunelater.data.image_form import ImageSource

    return ImageSource(**{name: value for name, value in options.items() if value is not None})


@contextmanager
def _decoding(**options: Any) -> Iterator[ImageSource]:
    """How images are read, with a progress bar where there are any."""
    with _progress("Decoding", "images", None) as advance:
        yield _source(progress=lambda done, total: advance(done, total), **options)


@dataclass(frozen=True)
class _Asked:
    """What options say of the training."""

    loss: str | None = None
    lambdas: list[str] = field(default_factory=list)
    epochs: int | None = None
    seed: int | None = None
    film: str | None = None
    precision: str | None = None
    compile: bool | None = None
    method: str | None = None
    backbone: str | None = None
    weights: Path | None = None
    scratch: bool = False
    size: int | None = None
    bits: int | None = None

    def only_for_images(self, reading: Mapping[str, object]) -> list[str]:
        """Options that a table has no use for, of these and of how images are read."""
        from tunelater.config import TABLE_TRUNKS

        of_images = self.backbone if self.backbone not in TABLE_TRUNKS else None
        given = {
            "--backbone": of_images, "--weights": self.weights, "--scratch": self.scratch, "--size": self.size,
            "--bits": self.bits, **reading,
        }  # fmt: skip
        if not (told := [name for name, value in given.items() if value]):
            return []
        network = f"; a table's --backbone is {' or '.join(TABLE_TRUNKS)}, got {of_images!r}" if of_images else ""
        return [
            f"{', '.join(told)} is for images, and DATA is a table: if it lists images, say so: --paths COLUMN{network}"
        ]

    @property
    def nothing(self) -> bool:
        return self == _Asked()


def _settings(
    path: Path | None, asked: _Asked, are_images: bool, dataset: str | None, recipe: str | None, problems: Problems
) -> Config | None:
    """The config of a file, of a dataset's recipe or for images, with the options on top; None where nothing is set, so
    that `fit` chooses, or on problems."""
    import dataclasses

    from tunelater import recipes
    from tunelater.config import Config
    from tunelater.distributions import LambdaSpace
    from tunelater.workflow import problems_of

    problems.check(recipe is None or dataset is not None, f"--recipe is of a --dataset, got {recipe!r} without one")
    problems.check(
        recipe is None or path is None,
        f"a config file has all settings: give --config or --recipe, got {path} and {recipe!r}",
    )
    recipe = recipe if recipe is not None else "paper"
    problems.check(
        not (asked.scratch and asked.weights),
        f"--scratch starts from random weights, got --weights {asked.weights} too",
    )
    if path is None and asked.nothing and not are_images:
        return None
    base, sound = Config(), False  # to check the other options on, where there is no base to put them on
    with problems_of(problems):
        base, sound = _base(path, asked, are_images, dataset, recipe), True
    if asked.method is not None:
        loss = asked.method.partition("+")[0]
        problems.check(
            asked.loss is None or asked.method not in recipes.METHODS or asked.loss == loss,
            f"--method {asked.method} trains with loss {loss}, got --loss {asked.loss} too: leave one of them out",
        )
        with problems_of(problems):
            base = recipes.with_method(base, asked.method, recipe=recipe)
    if asked.epochs is not None and asked.epochs > 0:
        base = recipes.shortened(base, asked.epochs)
    changes: dict[str, Any] = {"epochs": asked.epochs, "seed": asked.seed, "loss": asked.loss}
    changes |= {"precision": asked.precision, "compile": asked.compile, "film": _film(base, asked.film)}
    with problems_of(problems):
        changes["lambdas"] = LambdaSpace(**_space(base, asked.loss, asked.lambdas, problems))
        config = dataclasses.replace(base, **{name: value for name, value in changes.items() if value is not None})
        return config if sound else None
    return None


def _base(path: Path | None, asked: _Asked, are_images: bool, dataset: str | None, recipe: str) -> Config:
    """The config of a file, of a dataset's recipe or for images, with the network that was asked for."""
    import dataclasses

    from tunelater import recipes
    from tunelater.config import TABLE_TRUNKS, Config, ModelConfig

    if not are_images:
        base = Config.read(path) if path is not None else recipes.tables()
        if asked.backbone is None or asked.backbone == base.model.trunk:
            return base
        if asked.backbone not in TABLE_TRUNKS:  # which is told where the table is read, if there is one
            return dataclasses.replace(base, model=ModelConfig(asked.backbone))
        return dataclasses.replace(base, model=recipes.tables(asked.backbone).model)
    backbone = asked.backbone or "convnext_tiny"
    small = backbone == "resnet32"
    if asked.weights is not None:
        options: dict[str, Any] = {"weights": str(asked.weights)}
    else:
        options = {} if asked.scratch or small else {"pretrained": True}
    if path is None and dataset is None:
        _check_weights(asked.weights, backbone)
        return recipes.images(backbone, size=asked.size, bits=asked.bits, **options)
    base = Config.read(path) if path is not None else recipes.for_dataset(dataset or "", recipe=recipe)
    _check_weights(asked.weights, asked.backbone or base.model.trunk)
    changes: dict[str, Any] = {}
    if asked.backbone is not None or (base.model.trunk != "resnet32" and (asked.weights or asked.scratch)):
        changes["model"] = ModelConfig(asked.backbone or base.model.trunk, options)
    read: dict[str, Any] = {"size": asked.size, "bits": asked.bits}
    read = {name: value for name, value in read.items() if value is not None}
    if base.images is not None:
        changes["images"] = dataclasses.replace(base.images, **read)
    return dataclasses.replace(base, **changes)


def _film(base: Config, placement: str | None) -> FiLMConfig | None:
    """A config's FiLM, elsewhere if it is asked for; None where nothing is to be changed.

    In the trunk it begins as the identity: at the paper's start every stage would shrink what the next one gets.
    """
    import dataclasses

    from tunelater.config import FiLMConfig

    if placement is None:
        return None
    film = base.film if base.film is not None else FiLMConfig()
    changes: dict[str, Any] = {"placement": placement}
    if placement == "stages" and film.placement != "stages":
        changes |= {"start": "identity", "rescale": True}
    return dataclasses.replace(film, **changes)


def _check_weights(weights: Path | None, trunk: str) -> None:
    if weights is not None and trunk == "resnet32":
        raise InputError(
            f"resnet32 starts from random weights, got --weights {weights}: leave it out, or name the network that "
            "they are of: --backbone NAME, such as convnext_tiny"
        )


def _space(base: Config, loss: str | None, lams: list[str], problems: Problems) -> dict[str, Any]:
    from tunelater.config import default_space, parse_distribution
    from tunelater.losses import FAMILIES
    from tunelater.workflow import problems_of

    space: dict[str, Any] = dict(base.lambdas)
    if loss is not None and loss != base.loss and loss in FAMILIES:
        space = dict(default_space(loss))
    for text in lams:
        name, equals, value = text.partition("=")
        with problems_of(problems):
            if not equals:
                raise InputError(f"--lambda reads NAME=DISTRIBUTION, got {text!r}")
            space[name.strip()] = parse_distribution(value)
    problems.add(*_given_twice("--lambda", [text.partition("=")[0] for text in lams]))
    return space


def _given_twice(option: str, names: Iterable[str]) -> list[str]:
    counts = Counter(name.strip() for name in names)
    return [f"{option} must give each name once, got {name!r} {n} times" for name, n in counts.items() if n > 1]


def _fractions(text: str, problems: Problems) -> tuple[float, float, float]:
    try:
        a, b, c = (float(part) for part in text.split(","))
    except ValueError:
        problems.add(f"--split needs three shares such as 0.6,0.2,0.2, got {text!r}")
        return 0.6, 0.2, 0.2
    return a, b, c


def _costs(text: str | None, problems: Problems) -> dict[str, float | str] | None:
    if text is None:
        return None
    try:
        pairs = [(name.strip(), value.strip()) for name, value in (part.split("=") for part in text.split(","))]
        problems.add(*_given_twice("--cost", (name for name, _ in pairs)))
        return dict(pairs)
    except ValueError:
        problems.add(f"--cost reads like fn=50,fp=1, got {text!r}")
        return {"fn": 1.0, "fp": 1.0}  # stands for an objective, so that its absence is not told too


def _prior(text: str | None, problems: Problems) -> float | tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(text.partition(":")[0]), float(text.partition(":")[2] or "nan"))
    except ValueError:
        problems.add(f"--prior is a share such as 0.01, or a range such as 0.005:0.02, got {text!r}")
        return None
    return (low, high) if ":" in text else low


def _print_point(point: OperatingPoint) -> None:
    if point.certificate is not None:
        _print_certified(point)
        return
    title = f"Chosen on {point.n} {point.split} samples, {point.n_positive} positive"
    _print_estimates(title, point, dict(point.metrics), dict(point.honest))
    _tell(
        "These chose the point, so their figures flatter it, for which the honest ones are corrected: see `tunelater "
        "evaluate` for samples that did not."
        if point.honest
        else "These chose the point, so its figures flatter it: see `tunelater evaluate` for samples that did not."
    )
    if point.off_by:
        most = ", ".join(f"{name} {value:.1g}" for name, value in point.off_by.items())
        _tell(
            "The samples streamed by and were counted in bins: metrics of the threshold are exact, of the others these "
            f"are off by at most: {most}."
        )
    if point.simpler_than is not None:
        from tunelater.honesty import told_lambda

        _tell(
            f"The best lambda on these is {told_lambda(point.simpler_than)}, within one standard error of which this "
            "one is the nearest to the default; --best takes the best."
        )
    if point.against_default is not None:
        _tell(f"{point.against_default.sentence[0].upper()}{point.against_default.sentence[1:]}.")
    if point.calibration is not None:
        _tell(
            f"Probabilities are calibrated ({_told_calibration(point.calibration)}) on the same samples, which "
            "flatters their Brier score and log-loss."
            + (" The honest ones are of maps fitted without the samples that they tell of." if point.honest else "")
            + " Decisions are taken on the link's log-odds, as without."
        )
    _warn_of_extrapolation(point)


def _print_certified(point: OperatingPoint) -> None:
    import dataclasses

    from tunelater.guarantee import Certificate

    certificate = Certificate.from_dict(point.certificate or {})
    title = (
        f"Chosen on {certificate.n_choosing} {point.split} samples, {certificate.n_choosing_positive} positive; "
        f"certified on {certificate.n} others, {certificate.n_positive} positive, which these figures are of"
    )
    _print_estimates(title, point, dict(point.metrics))
    _tell(str(dataclasses.replace(certificate, doubts=())))  # which were told as warnings
    _warn_of_extrapolation(point)


def _warn_of_extrapolation(point: OperatingPoint) -> None:
    if point.extrapolated:
        _warn("this lambda lies outside of the range that the model was trained on")


def _print_change(done: Adaptation) -> None:
    """What the point before and the point from now on achieve at the new share of positives."""
    from rich.console import Console
    from rich.table import Table

    after = done.audit.after if done.audit.outcome == "chosen" else None
    table = Table(
        "at the new share",
        "before",
        "95% interval",
        *([] if after is None else ["now", "95% interval"]),
        box=None,
        pad_edge=False,
    )
    for name, before in done.audit.before.items():
        columns = [before] if after is None else [before, after["estimates"][name]]
        table.add_row(name, *(cell for v, low, high in columns for cell in (f"{v:.4f}", f"{low:.4f} to {high:.4f}")))
    Console().print(table)


def _told_calibration(calibration: CalibrationMap) -> str:
    """In words; of an isotonic map, how much of it is flat."""
    if not isinstance(knots := getattr(calibration, "values", None), tuple):
        return calibration.kind
    return f"{calibration.kind}, {_counted(len(set(knots)), 'level')}: samples of one level share a probability"


def _print_reliability(done: Evaluation) -> None:
    """Expected calibration error, beside what chance gives, and the parts of the Brier score."""

    def told(of: Reliability, brier: BrierDecomposition) -> str:
        return (
            f"expected calibration error {of.ece:.4f} in {_counted(len(of.n), 'bin')} of equal weight "
            f"({of.ece_if_calibrated:.4f} by chance, were every probability right); Brier score {brier.brier:.4f} = "
            f"reliability {brier.miscalibration:.4f} - resolution {brier.discrimination:.4f} + uncertainty "
            f"{brier.uncertainty:.4f}"
        )

    calibration = done.point.calibration
    _tell(f"Probabilities{f', {calibration.kind}' if calibration else ''}: {told(done.reliability, done.brier)}.")
    if done.of_link is not None:
        _tell(f"Without calibration: {told(*done.of_link)}.")


def _print_estimates(
    title: str, point: OperatingPoint, estimates: dict[str, Any], honest: dict[str, Any] | None = None
) -> None:
    from rich.console import Console
    from rich.table import Table

    from tunelater.points import sigmoid

    lam = ", ".join(f"{name} {value:.4g}" for name, value in point.lam.items()) or "none"
    threshold = f"probability >= {point.threshold:.4g}"
    if point.calibration is not None:
        calibrated = sigmoid(float(point.calibration(point.log_odds_threshold)))
        threshold = f"the link's {threshold}, calibrated {calibrated:.4g}"
    if not SATURATES < point.threshold < 1 - SATURATES:
        threshold += f" (log-odds >= {point.log_odds_threshold:.4g}, on which rows are decided)"
    _tell(f"{title}\nlambda: {lam}; threshold: {threshold} at prior {point.prior:.4g}")
    if isinstance(stated := point.needs.get("prior"), list):
        _tell(f"Metrics are at the worst prior from {stated[0]:.4g} to {stated[1]:.4g} for each.")
    table = Table("metric", "value", "95% interval", *(("honest", "95% interval") if honest else ()), box=None)
    table.pad_edge = False

    def cells(estimate: Any) -> tuple[str, str]:
        return (f"{estimate.value:.4f}", f"{estimate.low:.4f} to {estimate.high:.4f}") if estimate else ("", "")

    for name, estimate in estimates.items():
        more = cells(honest.get(name)) if honest else ()
        table.add_row(_escaped(name), *cells(estimate), *more)
    Console().print(table)


def _escaped(text: str) -> str:
    """Text as it is, not as rich's markup, nor as a terminal's."""
    from rich.markup import escape

    return escape(shown(text))
