"""The paper's tables from results, with its own numbers beside them, and those that it lacks.

An entry reads `ours / the paper's`; what is not made of all settings and three seeds says of how many: `4x2` is four
settings and two seeds. Bold is the best of a column, underlined (or marked with *) the better of a method with and
without LCT.
"""

from __future__ import annotations

import csv
import functools
import io
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from paper import comparison
from paper.comparison import COMPARED, PROTOCOLS, Protocol, Study
from paper.learning import LOWER_IS_BETTER
from paper.methods import COLUMNS, METHODS, PAPER, PEERS, Column, Method
from paper.store import Result
from tunelater.problems import InputError

REPORTED = Path(__file__).parent / "reported.csv"
"""Every number of the paper's Tables 3, 4 and 13 to 19."""
_REPORTED_NAMES = {
    "auroc": "auc",
    "average_precision": "average_precision",
    "brier": "brier",
    "f1_max": "best_f1",
    "balanced_accuracy_max": "best_balanced_accuracy",
    "precision_at_recall_0.99": "precision@recall>=0.99",
}
METRIC_TABLES: Mapping[str, tuple[str, str]] = {
    "3": ("auc", "AUC"),
    "13": ("average_precision", "Average precision"),
    "14": ("brier", "Brier score"),
    "15": ("best_f1", "F1 score"),
    "16": ("best_balanced_accuracy", "Balanced accuracy"),
    "17": ("precision@recall>=0.99", "Precision at recall 0.99"),
}
TOLD: Mapping[Protocol, str] = {
    "paper": "best value on the test part over all settings and lambdas, mean over seeds",
    "held-out": "setting, lambda and threshold chosen on the validation part, value on the test part, mean over seeds",
    "matched trainings": "held-out choices, as expected of the same number of trainings for every method, drawn at "
    "random",
    "matched candidates": "held-out choices, as expected of the same number of evaluated candidates for every method",
}
MISSING = "–"


@functools.cache
def reported() -> Mapping[tuple[str, str, str], tuple[float, float]]:
    """The paper's value and standard deviation, by metric, column and label of the method."""
    with REPORTED.open(encoding="utf-8", newline="") as file:
        return {
            (_REPORTED_NAMES[row["metric"]], row["dataset"], row["method"]): (
                float(row["value"]),
                float(row["std_over_3_seeds"] or "nan"),
            )
            for row in csv.DictReader(file)
        }


@dataclass(frozen=True)
class Entry:
    """A cell of a table: text, and what a reader of the CSV wants of it."""

    text: str
    value: float = math.nan
    facts: Mapping[str, object] = field(default_factory=dict)
    best: bool = False
    better: bool = False


NOTHING = Entry(MISSING)


@dataclass(frozen=True)
class Table:
    """A table that can be written as Markdown, CSV and LaTeX."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Entry]]]
    notes: Sequence[str] = ()

    @property
    def empty(self) -> bool:
        return all(entry.text == MISSING for _, entries in self.rows for entry in entries)

    def markdown(self) -> str:
        lines = [f"**{self.title}**", "", _pipes(["method", *self.columns]), _pipes(["---"] * (1 + len(self.columns)))]
        for label, entries in self.rows:
            lines.append(_pipes([label, *(_marked(entry, "**{}**", "{}*") for entry in entries)]))
        return "\n".join([*lines, "", *self.notes]).rstrip() + "\n"

    def csv(self) -> str:
        facts = list(dict.fromkeys(name for _, entries in self.rows for entry in entries for name in entry.facts))
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["table", "method", "column", "value", *facts])
        for label, entries in self.rows:
            for column, entry in zip(self.columns, entries, strict=True):
                value = "" if math.isnan(entry.value) else f"{entry.value:.6g}"
                writer.writerow([self.name, label, column, value, *(entry.facts.get(name, "") for name in facts)])
        return file.getvalue()

    def latex(self) -> str:
        lines = [
            r"\begin{table}",
            rf"\caption{{{_escaped(self.title)}}}",
            rf"\label{{tab:{self.name}}}",
            rf"\begin{{tabular}}{{l{'c' * len(self.columns)}}}",
            r"\toprule",
            " & ".join(["", *map(_escaped, self.columns)]) + r" \\",
            r"\midrule",
        ]
        for label, entries in self.rows:
            cells = (_marked(entry, r"\textbf{{{}}}", r"\underline{{{}}}", _escaped) for entry in entries)
            lines.append(" & ".join([_escaped(label), *cells]) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}", *(rf"\par\footnotesize {_escaped(note)}" for note in self.notes)]
        lines.append(r"\end{table}")
        return "\n".join(lines) + "\n"

    def write(self, folder: Path) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for suffix, text in (("md", self.markdown()), ("csv", self.csv()), ("tex", self.latex())):
            path = folder / f"{self.name}.{suffix}"
            path.write_text(text, encoding="utf-8")
            written.append(path)
        return written


def _pipes(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _marked(entry: Entry, best: str, better: str, clean: Callable[[str], str] = str) -> str:
    head, slash, rest = entry.text.partition(" ")
    head = clean(head)
    head = best.format(head) if entry.best else better.format(head) if entry.better else head
    return head + slash + clean(rest)


def _escaped(text: str) -> str:
    for plain, tex in (("±", r"$\pm$"), ("β", r"$\beta$"), ("–", "--"), ("%", r"\%"), ("_", r"\_"), (">=", r"$\geq$")):
        text = text.replace(plain, tex)
    return text


# --------------------------------------------------------------------------------------------------- the paper's tables


def columns_of(study: Study) -> list[Column]:
    """The paper's columns, and those of other datasets that the study has results of."""
    known = {(column.dataset, column.beta) for column in COLUMNS.values()}
    others = sorted({(key.dataset, key.beta) for key in study.results} - known, key=str)
    return [
        *COLUMNS.values(),
        *(
            Column(name if beta is None else f"{name}-b{beta:g}", _label(name, beta), name, beta)
            for name, beta in others
        ),
    ]


def _label(dataset: str, beta: float | None) -> str:
    return dataset if beta is None else f"{dataset} β={beta:g}"


def _present(study: Study, columns: Sequence[Column]) -> list[Column]:
    """Without those that no method has a result of."""
    there = {(key.dataset, key.beta) for key in study.results}
    return [column for column in columns if (column.dataset, column.beta) in there]


def metric_table(
    study: Study,
    name: str,
    metric: str,
    title: str,
    protocol: Protocol,
    *,
    methods: Sequence[Method] = PAPER,
    columns: Sequence[Column] | None = None,
    kind: str = "logits",
    spread: bool = False,
) -> Table:
    """A metric of every method on every dataset.

    Args:
        kind: of scores; see `learning.measure`.
        spread: whether standard deviations over seeds are told.
    """
    columns = columns_of(study) if columns is None else columns
    entries = [_entries(study, metric, protocol, methods, column, kind, spread) for column in columns]
    rows = [(method.label, [column[i] for column in entries]) for i, method in enumerate(methods)]
    told = f"{protocol}: {TOLD[protocol]}; {study.length}" + ("" if kind == "logits" else f"; scores: {kind}")
    return Table(name, f"{title}: {told}", [column.label for column in columns], rows, _notes(study, methods, columns))


def _entries(
    study: Study, metric: str, protocol: Protocol, methods: Sequence[Method], column: Column, kind: str, spread: bool
) -> list[Entry]:
    found = {method.name: study.of(column.dataset, column.beta, method.name) for method in methods}
    budget = _budget([some for some in found.values() if some], metric, protocol, kind)
    cells = {n: comparison.cell(some, metric, protocol, kind=kind, budget=budget) for n, some in found.items()}
    sign = -1 if metric in LOWER_IS_BETTER else 1
    there = {name: round(sign * cell.value, 3) for name, cell in cells.items() if cell is not None}
    top = max(there.values(), default=math.nan)
    entries = []
    for method in methods:
        cell = cells[method.name]
        unknown = (math.nan, math.nan)  # their Brier scores are of the softmax
        theirs, their_std = (
            unknown if kind == "posterior" else reported().get((metric, column.name, method.label), unknown)
        )
        if cell is None:
            entries.append(NOTHING if math.isnan(theirs) else Entry(f"{MISSING} / {theirs:.3f}"))
            continue
        rival = _rival(method, methods)
        facts = {
            "std": f"{cell.std:.6g}", "seeds": cell.seeds, "settings": cell.settings, "candidates": cell.candidates,
            "budget": budget or "", "hours": f"{cell.hours:.4g}", "paper": "" if math.isnan(theirs) else theirs,
        }  # fmt: skip
        text = f"{cell.value:.3f}" + (f" ± {cell.std:.3f}" if spread and not math.isnan(cell.std) else "")
        if not math.isnan(theirs):
            text += f" / {theirs:.3f}" + (f" ± {their_std:.3f}" if spread and not math.isnan(their_std) else "")
        if cell.seeds < 3 or cell.settings < len(method.settings()):
            text += f" ({cell.settings}x{cell.seeds})"
        mine = there[method.name]
        better = rival is not None and there.get(rival, math.inf) < mine
        entries.append(Entry(text, cell.value, facts, best=mine == top, better=better))
    return entries


def _rival(method: Method, methods: Sequence[Method]) -> str | None:
    """The method with or without LCT that this one is paired with."""
    if method.baseline is not None:
        return method.baseline
    return next((other.name for other in methods if other.baseline == method.name), None)


def _budget(found: Sequence[Sequence[Result]], metric: str, protocol: Protocol, kind: str) -> int | None:
    """The settings, or candidates of a seed, that every method has."""
    whole = [comparison.complete(some) for some in found]
    if protocol == "matched trainings":
        return min((min(len(some) for some in comparison.by_seed(r).values()) for r in whole), default=None)
    if protocol == "matched candidates":
        each = (
            (sum(len(r.values("test", kind, metric)) for r in some) for some in comparison.by_seed(rs).values())
            for rs in whole
        )
        return min((min(sizes) for sizes in each), default=None)
    return None


def _notes(study: Study, methods: Sequence[Method], columns: Sequence[Column]) -> list[str]:
    wanted = len(methods) * len(columns)
    there = sum(bool(study.of(c.dataset, c.beta, m.name)) for m in methods for c in columns)
    used = [r for m in methods for c in columns for r in study.of(c.dataset, c.beta, m.name)]
    notes = [
        "Ours / the paper's; (SxN): made of S settings and N seeds only; bold: best of the column; *: better of a "
        "method with and without LCT.",
    ]
    if there < wanted:
        notes.append(f"{there} of {wanted} cells have results.")
    spent: dict[str, float] = {}
    for result in used:
        spent[result.unit] = spent.get(result.unit, 0.0) + result.hours
    told = " and ".join(f"{hours:.2f} {unit}" for unit, hours in sorted(spent.items())) or "0 hours"
    machines = " and ".join(sorted({_machine(r) for r in used}))
    return [*notes, f"{told} of training and scoring on {machines or 'no machine'}."]


def _machine(result: Result) -> str:
    told = result.record["machine"]
    return str(told["gpu"]) if told["gpu"] else f"{told['threads']} CPU thread{'s' * (told['threads'] != 1)}"


def paper_tables(study: Study) -> list[Table]:
    """Tables 3, 4, 13 to 19, under each protocol that the study allows, and Table 3 once more as it is where samples
    are ranked by their float32 softmax. Of the paper's datasets also those that have no result yet, beside the paper's
    numbers."""
    columns = _present(study, columns_of(study))
    found = []
    for protocol in _protocols(study):
        told = protocol.replace(" ", "-")
        for number, (metric, title) in METRIC_TABLES.items():
            found.append(metric_table(study, f"table-{number}-{told}", metric, title, protocol))
        ranked = METRIC_TABLES["3"]
        found.append(metric_table(study, f"table-3-softmax-{told}", *ranked, protocol, kind="softmax"))
        for number, medical in (("18", False), ("19", True)):
            some = [c for c in COLUMNS.values() if c.name.startswith(("melanoma", "aptos")) == medical]
            table = metric_table(
                study,
                f"table-{number}-{told}",
                "auc",
                "AUC with standard deviations",
                protocol,
                columns=some,
                spread=True,
            )
            found.append(table)
        ablated = [
            METHODS[name] for trio in ("vs", "vs+sam", "focal") for name in (trio, f"{trio}+lct", f"{trio}+lct-film")
        ]
        found.append(
            metric_table(
                study, f"table-4-{told}", "auc", "AUC with and without FiLM", protocol, methods=ablated, columns=columns
            )
        )
    if any(column in COLUMNS.values() for column in columns):
        return found
    return [table for table in found if any(not math.isnan(e.value) for _, entries in table.rows for e in entries)]


def _protocols(study: Study) -> Sequence[Protocol]:
    """Where the network was trained on all but the test part, nothing was held out to choose on."""
    return ("paper",) if study.length.protocol == "paper" else PROTOCOLS


# ------------------------------------------------------------------------------------------------ what the paper lacks


def fair_tables(study: Study) -> list[Table]:
    """Peers beside the paper's methods, paired differences, saturation, calibration, ensembles, hours.

    All but peers, saturation and hours need held-out choices, which a study by the paper's protocol has not.
    """
    columns = _present(study, columns_of(study))
    methods = [m for m in METHODS.values() if any(study.of(c.dataset, c.beta, m.name) for c in columns)]
    peers = [
        metric_table(
            study,
            f"peers-{name}-{protocol.replace(' ', '-')}",
            metric,
            f"{title}, all methods",
            protocol,
            methods=methods,
            columns=columns,
            kind="posterior" if name == "brier-linked" else "logits",
        )
        for protocol in _protocols(study)
        for name, metric, title in (
            ("auc", "auc", "AUC"),
            ("average-precision", "average_precision", "Average precision"),
            ("brier-linked", "brier", "Brier score"),
            ("f1", "best_f1", "F1 score"),
            ("precision", "precision@recall>=0.99", "Precision at recall 0.99"),
        )
    ]
    always = [*peers, _saturation_table(study, methods, columns), _hours_table(study, methods, columns)]
    if study.length.protocol == "paper":
        return always
    held_out = (_calibration_table(study, methods, columns), _ensemble_table(study, methods, columns))
    return [*always, *_difference_tables(study, methods, columns), *held_out]


def _each(
    study: Study, methods: Sequence[Method], columns: Sequence[Column], entry: Callable[[Sequence[Result]], Entry]
) -> list[tuple[str, list[Entry]]]:
    return [
        (m.label, [entry(some) if (some := study.of(c.dataset, c.beta, m.name)) else NOTHING for c in columns])
        for m in methods
    ]


def _pairs(methods: Sequence[Method]) -> list[tuple[Method, Method]]:
    """What is compared: each method with the one it adds something to, and VS + LCT with what a user would pick
    instead."""
    pairs = [(method, METHODS[method.baseline]) for method in methods if method.baseline]
    vs_lct = METHODS["vs+lct"]
    return pairs + ([(vs_lct, peer) for peer in PEERS if peer in methods] if vs_lct in methods else [])


def _difference_tables(study: Study, methods: Sequence[Method], columns: Sequence[Column]) -> list[Table]:
    tables = []
    pairs = _pairs(methods)
    for metric in COMPARED:
        found: dict[object, comparison.Difference] = {}
        for (one, other), c in itertools.product(pairs, columns):
            ours, theirs = (study.of(c.dataset, c.beta, m.name) for m in (one, other))
            if ours and theirs and (d := comparison.difference(ours, theirs, metric)) is not None:
                found[one.name, other.name, c.name] = d
        adjusted = comparison.holm(found)
        rows = [
            (
                f"{one.label} - {other.label}",
                [
                    NOTHING
                    if (d := adjusted.get((one.name, other.name, c.name))) is None
                    else _difference_entry(d, one, other)
                    for c in columns
                ],
            )
            for one, other in pairs
        ]
        tables.append(
            Table(
                f"differences-{metric.replace('_', '-')}",
                f"{metric.replace('_', ' ')}, a method minus another: held-out choices on the same test samples; "
                f"{study.length}",
                [c.label for c in columns],
                rows,
                [
                    "In brackets the 95% interval, of a paired bootstrap of the test samples and of the seeds' spread; "
                    f"p adjusted by Holm's method for the {len(found)} comparisons of this table. Bold: p below 0.05. "
                    "(SxN): made of S settings and N seeds only; of one seed there is no interval."
                ],
            )
        )
    return tables


def _difference_entry(d: comparison.Difference, one: Method, other: Method) -> Entry:
    full = (len(one.settings()), len(other.settings()))
    text = f"{d.value:+.3f}"
    if d.seeds > 1:
        text += f" [{d.low:+.3f}, {d.high:+.3f}], p {d.adjusted:.2g}"
    if d.seeds < 3 or d.settings != full:
        ours, theirs = d.settings
        text += f" ({ours}{'' if ours == theirs else f' and {theirs}'}x{d.seeds})"
    facts = {"low": d.low, "high": d.high, "p": d.p, "p_holm": d.adjusted, "seeds": d.seeds}
    facts |= dict(zip(("settings", "settings of the other"), d.settings, strict=True))
    return Entry(text, d.value, facts, best=d.adjusted < 0.05)


def _saturation_table(study: Study, methods: Sequence[Method], columns: Sequence[Column]) -> Table:
    def entry(results: Sequence[Result]) -> Entry:
        told = [comparison.saturation(results, metric) or (0.0, 0.0) for metric in ("auc", "average_precision")]
        text = " , ".join(f"{mean:.4f} ({most:.4f})" for mean, most in told)
        names = ("mean auc gap", "largest auc gap", "mean ap gap", "largest ap gap")
        facts = dict(zip(names, (v for pair in told for v in pair), strict=True))
        return Entry(text.replace("-0.0000", "0.0000"), told[0][0], {**facts, "trainings": len(results)})

    return Table(
        "saturation",
        f"AUC and average precision from logits, minus those from their float32 softmax; {study.length}",
        [c.label for c in columns],
        _each(study, methods, columns, entry),
        ["Mean over all trainings and lambdas, in brackets the largest; AUC first, then average precision."],
    )


def _calibration_table(study: Study, methods: Sequence[Method], columns: Sequence[Column]) -> Table:
    def entry(results: Sequence[Result]) -> Entry:
        seeds = comparison.by_seed(comparison.complete(results))
        each = [comparison.calibrated(some) for some in seeds.values()]
        means = {name: sum(found[name][0] for found in each) / len(each) for name in comparison.CALIBRATIONS}
        facts = {f"{name} brier": value for name, value in means.items()}
        facts |= {f"{n} log-loss": sum(found[n][1] for found in each) / len(each) for n in comparison.CALIBRATIONS}
        facts |= {"seeds": len(seeds), "settings": (settings := len(next(iter(seeds.values()))))}
        text = " ".join(f"{value:.3f}" for value in means.values())
        full = METHODS[results[0].trial.method].settings()
        short = len(seeds) < 3 or settings < len(full)
        return Entry(text + (f" ({settings}x{len(seeds)})" if short else ""), means["link"], facts)

    return Table(
        "calibration",
        f"Brier score by source of the probability: {', '.join(comparison.CALIBRATIONS)}; {study.length}",
        [c.label for c in columns],
        _each(study, methods, columns, entry),
        [
            "Of the candidate with the best Brier score on the validation part (for the link, of the linked "
            "probabilities; else of the softmax), mean over seeds. The last four are fitted to the validation part, "
            "whose share of positives is that of the test part; the link is fitted to nothing, and is told that "
            "share. (SxN): made of S settings and N seeds only."
        ],
    )


def _ensemble_table(study: Study, methods: Sequence[Method], columns: Sequence[Column]) -> Table:
    def entry(results: Sequence[Result]) -> Entry:
        together, single = comparison.ensemble(results, "auc"), comparison.cell(results, "auc", "held-out")
        if together is None or single is None:
            return NOTHING
        value, n = together
        facts = {"members": n, "mean of members": single.value}
        return Entry(f"{value:.3f} ({value - single.value:+.3f}, of {n})", value, facts)

    return Table(
        "ensembles",
        f"AUC of an ensemble of the seeds' held-out choices, and its gain over their mean; {study.length}",
        [c.label for c in columns],
        _each(study, methods, columns, entry),
    )


def _hours_table(study: Study, methods: Sequence[Method], columns: Sequence[Column]) -> Table:
    def entry(results: Sequence[Result]) -> Entry:
        hours = sum(result.hours for result in results)
        return Entry(f"{hours:.3f} ({len(results)})", hours, {"trainings": len(results)})

    used = [result for results in study.results.values() for result in results]
    units, machines = sorted({result.unit for result in used}), sorted({_machine(result) for result in used})
    return Table(
        "hours",
        f"Hours of training and scoring, and in brackets trainings; {study.length}",
        [c.label for c in columns],
        _each(study, methods, columns, entry),
        [
            f"In {' and '.join(units)}, on {' and '.join(machines)}. What ran beside a training is in hours by the "
            "clock too: other programs, and other trainings on its GPU."
        ],
    )


def write(study: Study, folder: Path, only: str | None = None) -> list[Path]:
    """Every table that has results, as Markdown, CSV and LaTeX.

    Args:
        only: names that begin so.

    Raises:
        InputError: no table whose name begins so.
    """
    tables = [table for table in (*paper_tables(study), *fair_tables(study)) if not table.empty]
    wanted = [table for table in tables if table.name.startswith(only or "")]
    if not wanted:
        raise InputError(f"no table begins with {only!r}; there are {', '.join(table.name for table in tables)}")
    return [path for table in wanted for path in table.write(folder)]
