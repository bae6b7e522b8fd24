"""Write one self-contained HTML page about some runs."""

import argparse
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

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


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """Write the page and print its address."""
    from ..report import write_report

    output = arguments.output and arguments.output.expanduser()
    page = write_report([path.expanduser() for path in arguments.runs], output)
    print(page.resolve().as_uri())
    return 0
