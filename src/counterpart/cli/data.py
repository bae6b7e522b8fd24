"""Check a folder of images with part masks, prepare annotations or published data in that form, or predict masks.

counterpart data prepare labelme --source DIR --target DIR, or coco, masks, pascal-part, ... (counterpart data describe
lists them); counterpart data check DIR; counterpart data pseudo-label RUN --target DIR, where RUN is a trained part
model.
"""

import argparse
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..config import resolve
from ..errors import UserError
from ..terminal import open_console, show

SETTINGS: Collection[str] = ()

SHOWN = 20  # the most problems that are printed: reading more rarely helps


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "action", choices=("check", "describe", "prepare", "pseudo-label"), help="What to do."
    )
    parser.add_argument(
        "what",
        nargs="?",
        help="For check: a folder. For pseudo-label: a run folder. For prepare and describe: what the annotations are, "
        "such as coco, labelme, masks or part-imagenet; describe without one lists all.",
    )
    parser.add_argument("--source", type=Path, help="For prepare: the folder of the original files.")
    parser.add_argument("--target", type=Path, help="For prepare and pseudo-label: the folder to make.")
    parser.add_argument(
        "--split",
        choices=("source", "sample", "photograph", "city"),
        help="For prepare: the splits of the source; or what is kept together when train, val and test are drawn: each "
        "sample by itself, all samples of a photograph, or all of a city (default: sample for published data sets; for "
        "others source where it has splits, else photograph).",
    )
    parser.add_argument(
        "--classes",
        help="For prepare coco, labelme and masks: where the class of an image comes from: folder (its folder), object "
        "(the category of the object), or a CSV with lines 'image,class' (default: object where objects are "
        "annotated, else folder).",
    )
    parser.add_argument(
        "--objects",
        type=lambda text: tuple(name.strip() for name in text.split(",") if name.strip()),
        default=(),
        metavar="NAME,NAME",
        help="For prepare coco and labelme: the categories that are whole objects; all others are parts.",
    )
    parser.add_argument(
        "--largest",
        action="store_true",
        help="For prepare coco and labelme: of each photograph only its largest object (default: each object).",
    )
    parser.add_argument(
        "--names",
        type=Path,
        help="For prepare masks: the table that names the values of masks, CSV, JSON or text (default: the only one in "
        "the source).",
    )
    parser.add_argument(
        "--sheet",
        type=Path,
        help="For check: where to write the contact sheet, a PNG (default: NAME-sheet.png here, with the "
        "folder's name).",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="For prepare: the seed of the split and of random crops (default: 0).",
    )
    parser.add_argument(
        "--published", action="store_true", help="For prepare: repeat the defects of the published code."
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="For prepare: go on without images that are missing."
    )
    _configure_work(parser)


def _configure_work(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of how the work is done."""
    parser.add_argument(
        "--root",
        type=Path,
        help="For pseudo-label: where the run's images are now (default: where they were in training).",
    )
    parser.add_argument("--device", help="For pseudo-label: cpu, cuda or mps (default: the run's device).")
    parser.add_argument(
        "--confidence",
        type=float,
        default=0.0,
        help="For pseudo-label: leave out masks whose mean confidence over the pixels, from 0 to 1, is lower "
        "(default: 0, which leaves none out).",
    )
    parser.add_argument(
        "--workers", type=int, help="For prepare: the number of processes (default: one per CPU)."
    )
    parser.add_argument(
        "--wait",
        metavar="TIME",
        help="For prepare and pseudo-label: how long to wait, such as 10m, while another process makes the same folder "
        "(default: not to wait).",
    )


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """Check, describe, prepare or predict."""
    _refuse_idle(arguments)
    if arguments.action == "check":
        return _check(arguments.what, arguments.sheet)
    if arguments.action == "describe":
        return _describe(arguments.what)
    if arguments.action == "pseudo-label":
        return _pseudo_label(arguments)
    return _prepare(arguments)


def _refuse_idle(arguments: argparse.Namespace) -> None:
    """Refuse options of other actions, a missing argument, and values out of range."""
    values, action = vars(arguments), arguments.action
    defaults = {
        "seed": 0, "published": False, "allow_missing": False, "confidence": 0.0, "objects": (), "largest": False
    }  # fmt: skip
    known = {
        "check": {"sheet"},
        "prepare": {
            "source", "target", "workers", "split", "seed", "published", "allow_missing", "classes", "objects",
            "largest", "names", "wait",
        },
        "pseudo-label": {"target", "confidence", "root", "device", "wait"},
    }  # fmt: skip
    others = set[str]().union(*known.values()) - known.get(action, set())
    if idle := [name for name in sorted(others) if values[name] != defaults.get(name)]:
        raise UserError(f"--{idle[0].replace('_', '-')} has no effect on counterpart data {action}.")
    if action != "describe" and arguments.what is None:
        things = {"check": "a folder", "pseudo-label": "the run folder of a trained part model"}
        raise UserError(
            f"counterpart data {action} needs {things.get(action, 'a data set, such as part-imagenet')}."
        )
    if not 0 <= arguments.confidence <= 1:
        raise UserError(f"--confidence {arguments.confidence:g} must be from 0 to 1.")
    if arguments.workers is not None and arguments.workers < 1:
        raise UserError(f"--workers {arguments.workers} must be at least 1.")
    if arguments.seed < 0:
        raise UserError(f"--seed {arguments.seed} must be 0 or more.")


def _check(what: str, sheet: Path | None) -> int:
    """Print what a folder holds and what is wrong with it, and draw a sheet; return 1 if something must be mended."""
    from rich.table import Table

    from ..data.contact_sheet import draw_sheet
    from ..data.parts_check import check

    root = Path(what).expanduser()
    if not root.is_dir():
        raise UserError(
            f"{root} is no folder. Name one that holds images with part masks (docs/parts-data.md)."
        )
    folder = check(root)
    console = open_console(soft_wrap=True)
    table = Table(
        "class",
        *folder.images,
        "parts, and images that show them",
        title=str(root),
        title_justify="left",
    )
    for name, parts in folder.names.items():
        shows = ", ".join(f"{part} {folder.shown.get((name, part), 0):,}" for part in parts)
        counts = [f"{of_split.get(name, 0):,}" for of_split in folder.images.values()]
        table.add_row(name, *counts, shows or "none")
    totals = [sum(counts.values()) for counts in folder.images.values()]
    table.add_row("all", *(f"{total:,}" for total in totals), end_section=True)
    console.print(table)
    for note in folder.notes:
        console.print(f"- {note}", highlight=False)
    if folder.examples:
        file = sheet.expanduser() if sheet else _sheet_beside(root)
        title = f"{root.resolve().name}: {sum(totals):,} images of {len(folder.names):,} classes"
        draw_sheet(folder.examples, folder.names, folder.shown, title, file)
        console.print(
            f"Contact sheet, to see whether masks sit where they should: {file}",
            highlight=False,
        )
    for problem in folder.problems[:SHOWN]:
        console.print(f"problem: {problem}", highlight=False)
    if len(folder.problems) > SHOWN:
        console.print(f"... and {len(folder.problems) - SHOWN:,} more problems.", highlight=False)
    if folder.problems:
        console.print(f"{len(folder.problems):,} to mend before this folder can be used.", highlight=False)
        return 1
    console.print(
        f"{sum(totals):,} images, nothing to mend. Use it with --data.name parts --data.root {root}",
        highlight=False,
    )
    return 0


def _sheet_beside(root: Path) -> Path:
    """Where a contact sheet is written by default: here, or above a data folder that one is in, never within it."""
    root, here = root.resolve(), Path.cwd()
    folder = root.parent if root == here or root in here.parents else Path()
    return folder / f"{root.name}-sheet.png"


def _describe(what: str | None) -> int:
    from ..data.preparations import PREPARATIONS, find

    if what is not None:
        show(*find(what).about.splitlines())
        show("", f"  counterpart data prepare {what} --source DIR --target DIR")
        return 0
    for name, preparation in PREPARATIONS.items():
        show(f"{name:<16}{preparation.about.splitlines()[0]}")
    show("", "What each needs and under which licence: counterpart data describe NAME")
    return 0


def _prepare(arguments: argparse.Namespace) -> int:
    from dataclasses import fields

    from ..data.plans import Options
    from ..data.preparations import prepare_named
    from ..data.staging import REFUSED

    for name in ("source", "target"):
        if getattr(arguments, name) is None:
            raise UserError(f"counterpart data prepare needs --{name} DIR.")
    values = vars(arguments)
    options = Options(**{field.name: values[field.name] for field in fields(Options)})
    source, target = arguments.source.expanduser(), arguments.target.expanduser()
    wait = resolve({"wait": arguments.wait or 0}, source="counterpart data prepare").wait
    done = prepare_named(arguments.what, source, target, options, arguments.workers, wait)
    for split, counts in done.counts.items():
        each = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
        show(f"{split:<6}{sum(counts.values()):>8,}  {each}")
    show(f"{done.total:,} samples" + (f"; the paper has {done.published:,}." if done.published else "."))
    if done.left_out:
        show(
            "Left out: " + ", ".join(f"{reason} {count:,}" for reason, count in sorted(done.left_out.items()))
        )
    for line in done.refused[:SHOWN]:
        show(f"refused: {line}")
    if done.refused:
        more = f"... and {len(done.refused) - SHOWN:,} more; " if len(done.refused) > SHOWN else ""
        show(
            f"{more}{len(done.refused):,} annotations are refused and left out: {target / REFUSED} names them."
        )
    for note in done.notes:
        show(f"- {note}")
    show(f"See whether masks sit where they should: counterpart data check {target}")
    show(f"Use it with --data.name parts --data.root {target}")
    return 0


def _pseudo_label(arguments: argparse.Namespace) -> int:
    from .. import jobs

    if arguments.target is None:
        raise UserError("counterpart data pseudo-label needs --target DIR.")
    changes: dict[str, Any] = {} if arguments.root is None else {"data": {"root": arguments.root}}
    changes |= {} if arguments.device is None else {"device": arguments.device}
    changes |= {} if arguments.wait is None else {"wait": arguments.wait}
    done = jobs.pseudo_label(
        arguments.what, arguments.target.expanduser(), confidence=arguments.confidence, changes=changes
    )
    show(", ".join(f"{count:,} {kind}" for kind, count in sorted(done.counts.items())))
    show(
        f"{done.target / 'manifest.jsonl'} says which. Use it with --data.name parts --data.root {done.target}"
    )
    return 0
