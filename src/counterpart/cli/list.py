"""List what has a name: attacks, mask rules, controls, maps, methods, data sets, networks and protocols.

counterpart list attacks; counterpart list models --published. Names that installed packages add are listed as well.
"""

import argparse
import textwrap
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ..catalogue import (
    KINDS,
    MISSING_PROTOCOLS,
    SUITES,
    Entry,
    Option,
    PublishedModel,
    find,
    known_names,
    published_models,
)
from ..config import readable
from ..errors import UserError
from ..terminal import show

SETTINGS: Collection[str] = ()

TITLES = {
    "attacks": "Attacks", "masks": "Mask rules", "controls": "Controls of masks", "maps": "Maps", "methods": "Methods",
    "data": "Data sets", "models": "Networks", "protocols": "Protocols of benchmarks",
}  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "kind", metavar="KIND", nargs="?", choices=KINDS, help=f"What to list: {', '.join(KINDS)}."
    )
    parser.add_argument(
        "--markdown", action="store_true", help="Write all kinds as a page, which is docs/reference.md."
    )
    parser.add_argument(
        "--published",
        action="store_true",
        help="For models: list the models of RobustBench, each with the network that it is here.",
    )


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """List one kind, or write the page of all."""
    if arguments.markdown:
        show(*reference_page().splitlines())
        return 0
    if arguments.kind is None:
        raise UserError(f"counterpart list needs a kind: {', '.join(KINDS)}.")
    if arguments.published:
        if arguments.kind != "models":
            raise UserError("--published is for counterpart list models.")
        show(*_published_lines())
        return 0
    kind = KINDS[arguments.kind]
    for entry in _entries(arguments.kind):
        show(*_describe(entry))
    if arguments.kind == "attacks":
        show("", "Suites, which are lists of these:")
        for name, rows in SUITES.items():
            show(*_wrap(f"{name}: {_show_suite(rows)}", 2).splitlines())
    if arguments.kind == "protocols":
        show("", "Not here:")
        for name, reason in MISSING_PROTOCOLS.items():
            show(*_wrap(f"{name}: {reason}.", 2).splitlines())
    if kind.open:
        show("", f"Your own, as module:function: {kind.expects}")
    return 0


def reference_page() -> str:
    """What the package itself has of every kind, in Markdown."""
    lines = [
        "# Reference",
        "",
        "Everything with a name, from the catalogue (`src/counterpart/catalogue`). Made by "
        "`counterpart list --markdown`; a test holds this page to it.",
    ]
    for name, kind in KINDS.items():
        lines += ["", f"## {TITLES[name]}", "", "| name | what it is | options |", "|---|---|---|"]
        for entry in kind.entries.values():
            options = "; ".join(_describe_option(option) for option in entry.options)
            norms = getattr(entry.facts, "norms", None)
            what = _sentence(entry.sentence) + (f" Norms: {', '.join(norms)}." if norms else "")
            source = getattr(entry.facts, "source", "")
            what += f" Source: {source}." if source else ""
            lines.append(f"| `{entry.key}` | {_cell(what)} | {_cell(options)} |")
        if name == "attacks":
            lines += ["", "Suites, which are lists of attacks:", "", "| name | attacks |", "|---|---|"]
            lines += [f"| `{suite}` | {_cell(_show_suite(rows))} |" for suite, rows in SUITES.items()]
        if name == "protocols":
            missing = (f"`{key}`, {reason}" for key, reason in MISSING_PROTOCOLS.items())
            lines += ["", f"Not here: {'; '.join(missing)}. docs/evaluation.md says what a protocol fixes."]
        if kind.open:
            lines += ["", f"Your own, as `module:function`: `{kind.expects}`."]
    return "\n".join(lines) + "\n"


def _published_lines() -> list[str]:
    """A line for each published model, under the protocol of its leaderboard."""
    lines: list[str] = []
    models = published_models()
    title = ("NAME", "NETWORK HERE", "NORMALISATION", "PREPARATION", "FILE", "REFERENCE")
    for protocol in dict.fromkeys(row.protocol for row in models):
        rows = [row for row in models if row.protocol == protocol]
        here = len([row for row in rows if row.network])
        lines += ["", f"{protocol}: {here} of {len(rows)} models are here", ""]
        cells = [title, *(_published_cells(row) for row in rows)]
        widths = [max(len(line[column]) for line in cells) for column in range(len(title))]
        lines += ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
    example = "Rebuffi2021Fixing_70_16_cutmix_extra"
    return [
        *lines[1:],
        "",
        "If you have the file, under its name there:",
        f"  counterpart evaluate {example}@{example}.pt --protocol robustbench-cifar10-linf --data.root DIR",
    ]


def _published_cells(row: PublishedModel) -> tuple[str, ...]:
    network = row.network or f"not here: {row.missing}"
    normalised = {"file": "in the file", "network": "in the network"}.get(
        row.normalisation, row.normalisation
    )
    return row.name, network, normalised or "-", row.preparation or "-", row.kind, row.reference


def _entries(kind: str) -> Iterator[Entry[Any]]:
    """Ours, then those that other packages add."""
    yield from KINDS[kind].entries.values()
    for name in known_names(kind):
        if name not in KINDS[kind].suggestions:
            yield find(kind, name)


def _describe(entry: Entry[Any]) -> list[str]:
    lines = [entry.key, _wrap(_sentence(entry.sentence), 4)]
    norms = getattr(entry.facts, "norms", None)
    if norms is not None:
        lines.append(f"    norms: {', '.join(norms)}")
    source = getattr(entry.facts, "source", "")
    if source:
        lines.append(f"    source: {source}")
    return lines + [_wrap(_describe_option(option), 6) for option in entry.options]


def _describe_option(option: Option) -> str:
    default = "" if option.default is None else f" (default: {_show(option.default)})"
    choices = f" [{', '.join(option.choices)}]" if option.choices else ""
    return f"{option.name}{choices}: {option.sentence}{default}"


def _show_suite(rows: Collection[Mapping[str, object]]) -> str:
    return ", ".join(map(_show_row, rows)) or "no attack"


def _show_row(row: Mapping[str, object]) -> str:
    full_row = {"attack": "pgd", **row}
    options = " ".join(f"{name} {_show(value)}" for name, value in full_row.items() if name != "attack")
    return f"{full_row['attack']} {options}".strip()


def _show(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return readable(value) if isinstance(value, float) else str(value)


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text[0].upper()}{text[1:]}."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _wrap(text: str, indent: int) -> str:
    space = " " * indent
    return textwrap.fill(text, 110, initial_indent=space, subsequent_indent=space + "  ")
