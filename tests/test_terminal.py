"""What is printed: names from data are shown, and never obeyed."""

import ast
import io
import logging
from pathlib import Path

import pytest
from rich.progress import Progress
from rich.table import Table

import counterpart
from counterpart import terminal
from counterpart.terminal import open_console, show, visible

SOURCE = Path(counterpart.__file__).parent
EVIL = "cat\x1b]0;owned\x07\x1b[2J[red]\u202egnp.exe"
SHOWN = "cat\\x1b]0;owned\\x07\\x1b[2J[red]\\u202egnp.exe"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Müller, 中文, [a]/b — ±", "Müller, 中文, [a]/b — ±"),
        (EVIL, SHOWN),
        ("a\rb\x08c\x7fd\x9be", "a\\rb\\x08c\\x7fd\\x9be"),
        ("two\nlines\tand", "two\nlines\tand"),
        ("\u2028\u2066\u200b\ufeff", "\\u2028\\u2066\\u200b\\ufeff"),
        ("name\udcff", "name\\udcff"),  # a file name that is no UTF-8
    ],
)
def test_what_cannot_be_seen_is_written_out(text, shown):
    assert visible(text) == shown
    assert visible(shown) == shown


def test_a_name_makes_no_line_of_its_own(capsys):
    show("one", f"two {EVIL}\ncounterpart: all is well")
    assert capsys.readouterr().out == f"one\ntwo {SHOWN}\\ncounterpart: all is well\n"
    show("wrong", error=True)
    assert capsys.readouterr() == ("", "wrong\n")


def test_a_closed_output_takes_nothing(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    show("one")


def test_tables_notes_and_bars_show_names_and_keep_their_own_colours():
    file = io.StringIO()
    console = open_console(
        file=file, force_terminal=True, width=200, color_system="truecolor", legacy_windows=False
    )
    table = Table(EVIL, title=EVIL)
    table.add_row(EVIL, style="red")
    console.print(table)
    console.print(EVIL, style="bold", highlight=False)
    with Progress(console=console) as progress:
        progress.add_task("x", total=1)
        progress.console.print(EVIL, highlight=False)
    written = file.getvalue()
    assert written.count(SHOWN) == 5
    assert "\x1b[2J" not in written
    assert "\u202e" not in written
    assert "\x1b[31m" in written  # red, as the table asks for
    assert "[red]" in written  # and not as the name does


def test_what_looks_like_markup_is_no_error():
    file = io.StringIO()
    table = Table(title="[/b]")
    table.add_row("[/x] [link=file:///]")
    open_console(file=file, width=80).print(table, "[/y]", ":smile:")
    assert all(text in file.getvalue() for text in ("[/b]", "[/x] [link=file:///]", "[/y]", ":smile:"))


def test_warnings_hold_names_too(capsys, monkeypatch):
    stream = io.StringIO()
    last = logging.StreamHandler(stream)
    monkeypatch.setattr(logging, "lastResort", last)
    terminal.show_warnings()
    last.handle(logging.makeLogRecord({"msg": "in %s", "args": (EVIL,)}))
    assert stream.getvalue() == f"in {SHOWN}\n"


PRINTERS = {"print", "Console", "input", "pprint"}
ELSEWHERE = {
    "terminal.py",
    "heartbeat.py",
    "interrupts.py",
    "__main__.py",
}  # the latter three end the process in sentences of their own


def test_nothing_else_prints():
    """So that no name finds another way to a terminal."""
    printing = []
    for file in sorted(SOURCE.rglob("*.py")):
        if file.name in ELSEWHERE:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Name) and called.id in PRINTERS:
                printing.append(f"{file.name}:{node.lineno} {called.id}")
            if isinstance(called, ast.Attribute) and ast.unparse(called) in (
                "sys.stdout.write", "sys.stderr.write", "os.write", "rich.print", "traceback.print_exc",
                "traceback.print_exception",
            ):  # fmt: skip
                printing.append(f"{file.name}:{node.lineno} {ast.unparse(called)}")
    assert printing == []
