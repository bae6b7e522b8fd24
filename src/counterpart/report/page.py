"""The report page: what the records of some runs say, as one HTML file that needs no other file."""

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import UserError
from ..records import CLEAN, WORST
from ..rundir import lies_within, write_atomically
from . import comparisons, figures, glance, tables
from .artifacts import Artifact
from .audits import shown_behaviour
from .class_names import called
from .corruption_plots import corruption_plots
from .cost import training_cost
from .drawing import Plot, short
from .grouping import differences, group
from .notes import advice_on, headline, methods_in_words, notes_on, on_estimates, summary
from .panel import Panel, png_uri, radius_range, ramp, read_panel
from .provenance import provenance, text_of
from .runs import UNFIT, Corrupted, Run, read_runs, unfit
from .setting import Setting, radius_text, union_in_words
from .tables import TableAccuracy, TableRow
from .usable import read_png, read_standing
from .verdict import constant_answer, note_on, verdict_on
from .where import WhereSection, where_section

MANY_CLASSES, MANY_PARTS, MANY_VERDICTS = 20, 10, 4
LONGEST_NAME = 100  # characters of the names in the name of a page's file; file systems allow 255 bytes


def write_report(runs: Sequence[Path], output: Path | None = None, margin: float | None = None) -> Path:
    """Write one self-contained HTML page about some runs.

    Args:
        runs: run folders, or group folders that hold run folders ``seed-*``.
        output: the file to write. If it is None and one folder is named, the file is ``report/index.html`` in
            it. If several are named, the file is in ``report`` of the nearest folder that holds them all, and
            is named after them, such as ``report/a+b.html``.
        margin: the difference between rows that would matter, in (0, 1): the page says of each pair whether two
            one-sided tests find none beyond it. By default it says what they rule out, by itself.

    Returns:
        The file that was written.

    Raises:
        UserError: a path is no run folder, no run has anything to report, or the file cannot be written.
    """
    read = read_runs(runs)
    if output is None:
        output = _page_of(runs)
        if not lies_within(output.parents[1], output.parent):
            raise UserError(
                f"{output.parent} is a link that leads out of {output.parents[1]}: nothing is written there. Name the "
                "file with --output."
            )
    if output.is_dir():
        raise UserError(f"{output} is a folder; name the file to write, such as {output / 'index.html'}.")
    from jinja2 import TemplateError

    try:
        html = _render(read, output, margin)
    except (*UNFIT, TemplateError) as error:
        raise unfit(read, error) from error
    write_atomically(output, lambda path: path.write_text(html, encoding="utf-8"))
    return output


def _page_of(folders: Sequence[Path]) -> Path:
    """The file of the page about some folders, which differs from that of pages about other folders.

    Folders that are named in another order, or twice, make the same page.
    """
    named = sorted({folder.resolve() for folder in folders})
    if len(named) == 1:
        return folders[0] / "report" / "index.html"
    home = Path(os.path.commonpath([folder.parent for folder in named]))
    names = [folder.relative_to(home).as_posix() for folder in named]
    title = "+".join(re.sub(r"[^\w.-]+", "-", name) for name in names)
    if len(title) > LONGEST_NAME:
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
        title = f"{title[:LONGEST_NAME]}-and-more-{digest}"
    return home / "report" / f"{title}.html"


def _render(runs: Sequence[Run], output: Path, margin: float | None) -> str:
    """The page as HTML text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    rows = group(runs)
    evaluated = [row for row in rows if row.shown]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=_percent, seconds=_seconds, text=text_of, called=called, short=short)
    images, tests = _images(evaluated), _tests(evaluated)
    return environment.get_template("page.html").render(
        title=headline(runs, evaluated),
        summary=summary(rows, evaluated),
        notes=notes_on(runs, evaluated),
        advice=advice_on(evaluated),
        glance=_glance(evaluated, images["panels"], tests),
        accuracy=_accuracy(evaluated, tests, margin),
        unions=_unions(runs),
        parts=_parts([row for row in evaluated if row.of_parts]),
        plots=_plots(rows),
        curves=_curves(evaluated),
        images=images,
        classes=_classes(evaluated),
        corruptions=_corruptions(runs, rows),
        audits=[(run, list(map(shown_behaviour, run.audit))) for run in runs if run.audit],
        profiles=_profiles(runs),
        behind=_behind(runs, rows, output),
    )


def _tests(evaluated: Sequence[TableRow]) -> list[list[comparisons.PairTest]]:
    """The tests of pairs of rows: of clean accuracy and of the worst case over trainings, and image by image."""
    over_seeds = [comparisons.seed_tests(evaluated, name) for name in (CLEAN, WORST)]
    return [*over_seeds, comparisons.paired(evaluated, _standing)]


def _glance(
    evaluated: Sequence[TableRow],
    panels: Sequence[tuple[TableRow, Panel | None, str]],
    tests: Sequence[Sequence[comparisons.PairTest]],
) -> dict[str, Any]:
    """What stands above everything: verdicts, a bar for each row, and what the radius means."""
    attacked = [row for row in evaluated if row.accuracy(WORST)]
    radius, pair = "", []
    if len({row.setting.budget for row in attacked}) == 1:
        details = attacked[0].shown[0].details
        radius = glance.radius_in_words(details.get("norm"), details.get("eps"), details.get("shape"))
        shown = [panel for row, panel, _ in panels if panel is not None and not constant_answer(row)]
        pair = glance.pair_of(shown)
    many = len(evaluated) > MANY_VERDICTS
    verdicts = []
    for row in evaluated:
        first_box = not many and row is next(iter(attacked), None)
        verdict = verdict_on(row, radius if first_box else "")
        verdicts.append((row, verdict, glance.claims_in_words(row)))
    return {
        "verdicts": verdicts,
        "many": many,
        "over_all": " ".join(filter(None, [glance.over_all(evaluated), comparisons.told_apart(tests)])),
        "bars": glance.bars_of(evaluated),
        "radius": radius if many else "",
        "pair": pair,
    }


def _plots(rows: Sequence[TableRow]) -> dict[str, Any]:
    """The plots of trade-off, cost and training, as far as there are data, and the title over them."""
    drawn = [
        ("trade-off", figures.tradeoff(rows)),
        ("cost", training_cost(rows)),
        ("training", figures.validation(rows)),
        ("training", figures.losses(rows)),
    ]
    shown = {topic: None for topic, plot in drawn if plot}
    return {
        "title": tables.listed(list(shown)).capitalize(),
        "shown": [plot for _, plot in drawn if plot],
    }


def _accuracy(
    evaluated: Sequence[TableRow], tests: Sequence[Sequence[comparisons.PairTest]], margin: float | None
) -> dict[str, Any]:
    """The table at the head of the page, and the sentences that compare its rows."""
    shown, family = comparisons.verdicts(tests, margin)
    places = [*(f"{name}, other trainings" for name in (CLEAN, WORST)), "image by image"]
    told = list(zip(places, shown, strict=True))
    return {
        "rows": evaluated,
        "notes": {row.label: note_on(row) for row in evaluated},
        "methods": methods_in_words(evaluated),
        "names": tables.metric_names(evaluated),
        "one_setting": len({row.setting for row in evaluated}) == 1,
        "estimates": any(on_estimates(row) for row in evaluated),
        "cumulative": any(not row.shown[0].details.get("individual", True) for row in evaluated),
        "comparisons": [
            (n, text) for n in (CLEAN, WORST) for text in comparisons.ranked_in_words(evaluated, n)
        ],
        "tests": [(place, text) for place, group in told if isinstance(group, list) for text in group],
        "matrices": [(place, group) for place, group in told if isinstance(group, comparisons.Matrix)],
        "family": family,
        "explained": comparisons.explained(tests),
    }


def _parts(rows: Sequence[TableRow]) -> dict[str, Any]:
    """The metrics of parts, for the rows that have some."""
    metrics, hows = tables.part_metrics(rows)
    per_part = [_per_part(row, hows) for row in rows]
    names = list(dict.fromkeys(part for _, images, _ in per_part for part in images))
    return {
        "rows": rows,
        "metrics": metrics,
        "hows": hows,
        "per_part": per_part,
        "names": names,
        "many": len(names) > MANY_PARTS,
    }


def _images(evaluated: Sequence[TableRow]) -> dict[str, Any]:
    """The image panel of each row, all with the same scale of colours."""
    files = {row.label: file for row in evaluated if (file := _panel_file(row))}
    low, high = radius_range(file for file, _ in files.values()) if files else (0.0, 0.0)
    norm = evaluated[0].setting.norm if evaluated else None
    panels = [(row, *_panel(row, files.get(row.label), low, high)) for row in evaluated]
    samples = [sample for _, panel, _ in panels if panel for sample in panel.samples]
    names = {tile.name for sample in samples for tile in sample.tiles}
    return {
        "panels": panels,
        "mapped": "map" in names,
        "radii": (radius_text(low, norm), radius_text(high, norm)),
        "ramp": ramp(),
        "tried": any(row.accuracy(WORST) is not None for row in evaluated),
        "constant": {row.label: constant_answer(row) for row in evaluated},
    }


def _classes(evaluated: Sequence[TableRow]) -> dict[str, Any]:
    """The names of the classes and of the metrics in the table by class.

    The metrics are the clean accuracy and the worst case, as far as they were measured.
    """
    measured = tables.metric_names(evaluated)
    names = list(dict.fromkeys(c for row in evaluated for name in measured for c in row.per_class(name)))
    return {
        "names": names,
        "metrics": [name for name in (CLEAN, WORST) if name in measured],
        "many": len(names) > MANY_CLASSES,
    }


def _behind(runs: Sequence[Run], rows: Sequence[TableRow], output: Path) -> dict[str, Any]:
    """What the numbers rest on: settings, other evaluations, the origin of each run and its files."""
    return {
        "rows": rows,
        "differences": differences(rows) if len(rows) > 1 else [],
        "others": [(run, other, Setting.of(other)) for run in runs for other in run.evaluations[1:]],
        "provenance": [(run, provenance(run)) for run in runs],
        "artifacts": [
            (run, a, "" if a.problem else _link(a.file, output)) for run in runs for a in run.artifacts
        ],
    }


def _standing(row: TableRow) -> dict[str, float] | None:
    """The share of each image's draws that stand, 0 or 1 of one draw.

    None where the table is missing or changed, or where attacks were not tried on all images that stand: on some, or,
    in an evaluation of clean accuracy alone, on none.
    """
    if row.accuracy(WORST) is None:
        return None
    standing: dict[str, float] = {}
    for run, evaluation in zip(row.runs, row.shown, strict=True):
        tables_of_images = [
            artifact.file
            for artifact in _intact(run, "images")
            if artifact.file.parent.name == evaluation.key
        ]
        if not tables_of_images:
            return None
        of_run = read_standing(tables_of_images[0])
        if of_run is None:
            return None
        standing |= of_run
    return standing


def _intact(run: Run, name: str) -> list[Artifact]:
    """The artifacts of a run that are recorded under a name and can be trusted."""
    named = [artifact for artifact in run.artifacts if artifact.record.name == name]
    return [artifact for artifact in named if not artifact.problem]


def _panel_file(row: TableRow) -> tuple[Path, str] | None:
    """The file and the caption of the first undamaged panel among the row's runs; None if there is none."""
    for run in row.runs:
        panel = run.panel()
        if panel and not panel.problem:
            return panel.file, str(panel.record.details.get("caption", ""))
    return None


def _panel(row: TableRow, file: tuple[Path, str] | None, low: float, high: float) -> tuple[Panel | None, str]:
    """The row's panel and its caption, or the reason why there is none."""
    if file is None:
        problems = [str(panel.problem) for run in row.runs if (panel := run.panel())]
        return None, "; ".join(problems) or "this evaluation recorded none"
    return read_panel(file[0], row.setting.norm, low, high, row.accuracy(WORST) is not None), file[1]


def _per_part(
    row: TableRow, hows: Iterable[str]
) -> tuple[TableRow, dict[str, int], dict[str, dict[str, tuple[TableAccuracy, int]]]]:
    """The row, the number of images that show each part, and the results of the parts.

    The results are mappings from "clean", or the words of an attack, to the accuracy of each part.
    """
    measured = {how: row.per_part(how) for how in hows}
    images = {part: n for shares in measured.values() for part, (_, n) in shares.items()}
    return row, images, measured


def _curves(
    rows: Sequence[TableRow],
) -> list[tuple[Plot, list[float], list[str], list[tuple[TableRow, dict[str, dict[float, TableAccuracy]]]]]]:
    """For each norm the plot, the radii and their texts, and each row with a mapping from line to curve."""
    curves_of_norms = []
    for judged, plot in figures.radius_curves(rows):
        lines = [(row, {line: row.curve(line) for line in row.lines_of_radii}) for row in judged]
        radii = sorted({radius for _, curves in lines for curve in curves.values() for radius in curve})
        norm = judged[0].setting_of_radii.norm
        words = [CLEAN if radius == 0 else radius_text(radius, norm) for radius in radii]
        curves_of_norms.append((plot, radii, words, lines))
    return curves_of_norms


def _unions(runs: Sequence[Run]) -> list[tuple[str, list[str], list[tuple[Run, list[TableAccuracy | None]]]]]:
    """A table for each union of budgets: the setting, the names of the columns, and each run with its accuracies."""
    tables_of: dict[tuple[str, tuple[str, ...]], list[tuple[Run, list[TableAccuracy | None]]]] = {}
    for run in runs:
        for union in run.unions:
            setting, columns = union_in_words(union)
            shares = [tables.accuracy_of(record) for record in union.values()]
            tables_of.setdefault((setting, tuple(columns)), []).append((run, shares))
    return [(setting, [*columns], lines) for (setting, columns), lines in tables_of.items()]


def _corruptions(
    runs: Sequence[Run], rows: Sequence[TableRow]
) -> list[tuple[str, list[tuple[Run, Corrupted]], list[str], list[Plot]]]:
    """For each setting: its words, the runs that were judged in it, the names of the table's lines, and plots."""
    chance_of = {run.folder.path: row.chance for row in rows for run in row.runs}
    tables: dict[str, list[tuple[Run, Corrupted]]] = {}
    for run in runs:
        latest = {evaluated.setting: evaluated for evaluated in run.corruptions}
        for setting, evaluated in latest.items():
            tables.setdefault(setting, []).append((run, evaluated))
    return [
        (
            setting,
            columns,
            list(dict.fromkeys(name for _, evaluated in columns for name in evaluated.lines)),
            corruption_plots(columns, [chance_of.get(run.folder.path) for run, _ in columns]),
        )
        for setting, columns in tables.items()
    ]


def _profiles(runs: Sequence[Run]) -> list[tuple[Run, WhereSection, str | None]]:
    """The latest where-profile of each run that has some, and the picture of its regions."""
    profiles = []
    for run in runs:
        section = where_section(run.profile)
        if section is None:
            continue
        key = run.profile[-1].details["where"]
        pictures = [
            artifact.file
            for artifact in _intact(run, "where regions")
            if artifact.record.details.get("where") == key
        ]
        profiles.append((run, section, png_uri(read_png(pictures[-1])) if pictures else None))
    return profiles


def _link(file: Path, output: Path) -> str:
    """The link from the page to a file, relative to the folder of the page."""
    return quote(os.path.relpath(file.resolve(), output.resolve().parent))


def _percent(share: float | None, digits: int = 2) -> str:
    """A share in [0, 1] in percent, without the sign; a dash for None."""
    return "—" if share is None else f"{100 * share:.{digits}f}"


def _seconds(seconds: float | None) -> str:
    """A duration in seconds, with a digit after the point below 10; a dash for None."""
    if seconds is None:
        return "—"
    return f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.1f}"
