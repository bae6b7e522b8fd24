"""Write one self-contained HTML page about some runs."""

import argparse
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..terminal import show

SETTINGS: Collection[str] = ()


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", type=Path, help="Run folders, or folders of seed-* runs."
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help="The file to write. The default is report/index.html in the run folder, or for several runs "
        "report/A+B.html in the folder around them.",
    )
    parser.add_argument(
        "--margin",
        metavar="POINTS",
        type=float,
        help="The difference in points that would matter: the page then says of each tested pair whether it is the "
        "same within this margin, by two one-sided tests. State it before you look.",
    )
    parser.add_argument(
        "--table",
        metavar="FORM",
        choices=("markdown", "latex", "csv"),
        help="Print the table of accuracies instead of a page, or write it to --output: markdown, latex (for the "
        "package booktabs) or csv (numbers in full).",
    )


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """Write the page and print its address."""
    from ..report import write_report

    margin = arguments.margin
    if margin is not None and not 0 < margin < 100:
        raise UserError(f"--margin {margin:g}: expected points between 0 and 100, such as 0.5.")
    output = arguments.output and arguments.output.expanduser()
    if arguments.table is not None:
        return _write_table(arguments, output)
    page = write_report(
        [path.expanduser() for path in arguments.runs], output, None if margin is None else margin / 100
    )
    show(page.resolve().as_uri())
    return 0


def _write_table(arguments: argparse.Namespace, output: Path | None) -> int:
    """Print the table of accuracies, or write it into a file."""
    from ..report.export import export_table
    from ..rundir import write_atomically

    if arguments.margin is not None:
        raise UserError("--margin is for the tests of a page, and --table has none.")
    text = export_table([path.expanduser() for path in arguments.runs], arguments.table)
    if output is None:
        show(*text.splitlines())
        return 0
    write_atomically(output, lambda path: path.write_text(text, encoding="utf-8"))
    show(str(output))
    return 0
