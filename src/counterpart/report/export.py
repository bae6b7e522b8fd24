"""The table of accuracies without a page: Markdown, LaTeX for the package booktabs, or CSV with numbers in full."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..errors import UserError
from ..spreadsheets import CsvWriter
from ..terminal import visible
from .grouping import group
from .runs import UNFIT, read_runs, unfit
from .tables import TableAccuracy, TableRow, metric_names
from .verdict import note_on

IN_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "—": "---",
    "±": r"$\pm$", "ℓ": r"$\ell$", "∞": r"$\infty$", "≤": r"$\leq$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}  # fmt: skip


def export_table(runs: Sequence[Path], form: str) -> str:
    """The table at the head of a report about some runs, as text that papers and spreadsheets take.

    Args:
        runs: run folders, or group folders that hold run folders ``seed-*``.
        form: one of ``FORMS``: "markdown", "latex" or "csv".

    Returns:
        The table. Shares are in per cent with two digits and their 95 % interval in brackets, but in CSV, where they
        are numbers in [0, 1] with columns for the ends of the interval. A number in doubt has a note that says so.

    Raises:
        UserError: a path is no run folder, none of the runs is evaluated, or its records do not fit together.
    """
    read = read_runs(runs)
    try:
        rows = [row for row in group(read) if row.shown]
        text = FORMS[form](rows) if rows else ""
    except UNFIT as error:
        raise unfit(read, error) from error
    if not rows:
        raise UserError(f"none of {', '.join(map(str, runs))} is evaluated: there is no table to write.")
    return text


def escape_latex(text: str) -> str:
    """A text in which LaTeX sees no commands."""
    return "".join(IN_LATEX.get(sign, sign) for sign in text)


def _markdown(rows: Sequence[TableRow]) -> str:
    head, *body = _cells(rows)
    lines = []
    for cells in (head, *body):
        escaped = " | ".join(cell.replace("|", "\\|") for cell in cells)
        lines.append(f"| {escaped} |")
    return "\n".join([lines[0], f"|---{'|--:' * (len(head) - 1)}|", *lines[1:]]) + "\n"


def _latex(rows: Sequence[TableRow]) -> str:
    table = _cells(rows)
    head, *body = [" & ".join(map(escape_latex, cells)) + r" \\" for cells in table]
    columns = "l" + "r" * (len(table[0]) - 1)
    lines = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        head,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _csv(rows: Sequence[TableRow]) -> str:
    text = io.StringIO()
    table = CsvWriter(text, lineterminator="\n")
    names = metric_names(rows)
    columns = [f"{name}{end}" for name in names for end in ("", " low", " high", " sd")]
    table.writerow(["method", "run", "judged on", "n", "seeds", *columns, "note"])
    for row in rows:
        shares: list[object] = []
        for name in names:
            accuracy = row.accuracy(name)
            shares += (
                [""] * 4 if accuracy is None else [accuracy.value, accuracy.low, accuracy.high, accuracy.sd]
            )
        table.writerow([row.method, row.name, str(row.setting), row.n, row.seed_count, *shares, note_on(row)])
    return text.getvalue()


def _cells(rows: Sequence[TableRow]) -> list[list[str]]:
    """The head and the rows of the table as texts."""
    names = metric_names(rows)
    columns = {
        "method": [row.label for row in rows],
        **{f"{name}, %": [_in_words(row.accuracy(name)) for row in rows] for name in names},
        "n": [f"{row.n:,}" for row in rows],
        "seeds": [str(row.seed_count) for row in rows],
    }
    if len({row.setting for row in rows}) > 1:
        columns["judged on"] = [str(row.setting) for row in rows]
    notes = [note_on(row) for row in rows]
    if any(notes):
        columns["note"] = notes
    table = [list(columns), *zip(*columns.values(), strict=True)]
    return [[visible(cell, keep="") for cell in cells] for cells in table]


def _in_words(accuracy: TableAccuracy | None) -> str:
    if accuracy is None:
        return "—"
    value = f"{100 * accuracy.value:.2f}"
    if accuracy.estimated:
        value = f"about {value}"
    if accuracy.sd is not None and not accuracy.points:
        value += f" ± {100 * accuracy.sd:.2f}"
    if accuracy.low is None or accuracy.high is None:
        return value
    return f"{value} ({100 * accuracy.low:.1f}–{100 * accuracy.high:.1f})"


FORMS: Mapping[str, Callable[[Sequence[TableRow]], str]] = {
    "markdown": _markdown,
    "latex": _latex,
    "csv": _csv,
}
