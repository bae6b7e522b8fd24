"""The command that started this process, as records and locks name it."""

import re
import sys
from pathlib import Path


def command() -> str:
    """The command of this process, without paths of the machine and without the passwords of addresses."""
    return without_passwords(" ".join([_program(), *sys.argv[1:]]))


def without_passwords(text: str) -> str:
    """A text in which the password of an address, as of a database, is not to be read: records are passed on."""
    return re.sub(r"(://[^/\s:@]*):\S*@", r"\1:***@", text)


def _program() -> str:
    """The program that this process runs, without paths of the machine."""
    program = Path(sys.argv[0])
    if program.suffix != ".py":
        return program.name
    if program.name == "__main__.py":
        return f"python -m {program.parent.name}"
    if not program.is_absolute():
        return f"python {program}"
    if program.is_relative_to(Path.cwd()):
        return f"python {program.relative_to(Path.cwd())}"
    return f"python {program.name}"
