"""How a command ends: in a sentence and an exit code, and in a traceback only where it is asked for."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from counterpart import interrupts, jobs
from counterpart.cli import COMMANDS, main
from counterpart.errors import UserError

SOURCE = str(Path(__file__).parents[1] / "src")


@pytest.fixture
def fail_with(monkeypatch):
    """Let the work of a command fail."""

    def fail(error):
        def train(config):
            raise error

        monkeypatch.setattr(jobs, "train", train)

    return fail


@pytest.mark.parametrize("kind", [ZeroDivisionError, RuntimeError, AssertionError, LookupError])
def test_a_bug_is_one_line_that_says_so(kind, fail_with, monkeypatch, capsys):
    monkeypatch.setattr("counterpart.sentences.INSTALLED", ("tests",))  # this file is no user's code
    fail_with(kind("ours\nin two lines\x1b[2J"))
    assert main(["train", "digits/at"]) == 70
    [line] = capsys.readouterr().err.splitlines()
    said = rf"counterpart: bug: {kind.__name__}: ours in two lines\\x1b\[2J \(counterpart/cli/train\.py, line \d+\)\. "
    assert re.match(said, line)
    assert line.endswith(
        "This is a mistake in Counterpart. The same command with --debug shows the traceback, and how to report it."
    )


def test_debug_shows_the_traceback_and_how_to_report_it(fail_with, monkeypatch, capsys):
    monkeypatch.setattr("counterpart.sentences.INSTALLED", ("tests",))
    fail_with(ZeroDivisionError("ours\x1b[2J"))
    assert main(["train", "--debug", "digits/at"]) == 70
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "ZeroDivisionError: ours\\x1b[2J" in lines
    assert lines[-2].startswith(
        "counterpart: bug: ZeroDivisionError: ours\\x1b[2J (counterpart/cli/train.py, line "
    )
    assert lines[-1].startswith("To report this, open an issue")
    assert "counterpart doctor" in lines[-1]


def test_debug_of_what_the_user_can_mend_says_nothing_of_reports(fail_with, capsys):
    fail_with(UserError("wrong."))
    assert main(["train", "digits/at", "--debug"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "counterpart: error: wrong."


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_debug(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "--debug" in capsys.readouterr().out
    monkey = [command, "--debug", "--no-such-thing"]
    assert main(monkey) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1].startswith("counterpart: error: ")
    assert "--debug" not in lines[-1]


def test_an_error_of_the_users_own_code_is_not_called_a_bug(tmp_path, monkeypatch, capsys):
    (tmp_path / "mynets.py").write_text("def net():\n    return {}['missing']\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    monkeypatch.setattr(jobs, "train", lambda config: importlib.import_module("mynets").net())
    monkeypatch.setattr("counterpart.sentences.INSTALLED", ("site-packages", Path(__file__).name))
    assert main(["train", "digits/at"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line == (
        "counterpart: error: your code failed with KeyError: 'missing' (mynets.py, line 2). --debug shows where."
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "/data/x"), "/data/x: Permission denied. Mend that"),
        (OSError(28, "No space left on device"), "No space left on device. Mend that"),
        (OSError(36, "File name too long", "a" * 300), "File name too long. Mend that"),
        (MemoryError(), "out of memory. Use a smaller batch"),
    ],
)
def test_what_the_machine_refuses_can_be_mended(error, said, fail_with, capsys):
    fail_with(error)
    assert main(["train", "digits/at"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("counterpart: error: ")
    assert said in line


def test_an_import_that_turns_ctrl_c_into_an_error_was_stopped(fail_with, monkeypatch, capsys):
    monkeypatch.setattr(interrupts._heard, "ctrl_c", True)
    fail_with(ImportError("numpy"))
    assert main(["train", "digits/at"]) == 130
    assert capsys.readouterr().err == "Stopped. The same command continues from the last checkpoint.\n"


FULL = "counterpart: error: No space left on device. Mend that, and run the same command again."


def shell(command):
    environment = {**os.environ, "PYTHONPATH": SOURCE, "C": f"{sys.executable} -m counterpart"}
    return subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("$C list attacks | head -1 >/dev/null; exit ${PIPESTATUS[0]}", (0, 141), ""),
        ("$C list --markdown | true; exit ${PIPESTATUS[0]}", (0, 141), ""),
        ("$C --help | true; exit ${PIPESTATUS[0]}", (0, 141), ""),
        ("$C list attacks >/dev/full", (2,), FULL),
        ("$C recipes list svhn >/dev/full", (2,), FULL),
        ("$C --help >/dev/full", (0, 2), ""),
        ("$C list attacks >&-", (0,), ""),
        ("$C trian 2>&-", (2,), ""),
        ("$C trian 2>/dev/full", (2,), ""),
    ],
)
def test_an_output_that_takes_nothing(command, code, said):
    done = shell(command)
    assert done.returncode in code
    assert done.stderr.strip() == said or (done.returncode == 0 and not done.stderr)


@pytest.mark.parametrize(
    "locale", ["LC_ALL=C", "LC_ALL=POSIX", "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0"]
)
def test_a_locale_without_letters_is_no_error(locale, tmp_path):
    """The last of them has no letters beyond ASCII at all."""
    done = shell(f"{locale} $C list masks; {locale} $C papers list")
    assert (done.returncode, done.stderr) == (0, "")
    name = "naïve-中文"
    train = f"cd '{tmp_path}' && {locale} $C train digits/at --name {name} --data.limit 0"
    done = shell(train)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("counterpart: error: ")


LETTERS = (
    "import sys; from counterpart import cli, terminal; from counterpart.__main__ import main; "
    "cli.main = lambda: terminal.show('na\\xefve \\u2014 \\u4e2d') or 0; sys.exit(main())"
)


def test_letters_that_a_locale_lacks_are_written_out():
    done = shell(f'LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 {sys.executable} -c "{LETTERS}"')
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "na\\xefve \\u2014 \\u4e2d\n"
