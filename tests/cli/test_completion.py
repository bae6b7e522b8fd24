"""Completion: what a shell offers when Tab is pressed, asked of the shells themselves."""

import contextlib
import io
import shlex
import shutil
import subprocess

import pytest

from counterpart.cli import COMMANDS, main
from counterpart.recipes import names

# What is typed before Tab, and the words that are offered; None where the shell offers files instead.
TYPED = [
    (["counterpart", "tr"], ["train"]),
    (["counterpart", "train", "cifar10/tr"], [name for name in names() if name.startswith("cifar10/tr")]),
    (["counterpart", "train", "cifar10/at", "--mask.ru"], ["--mask.rule"]),
    (["counterpart", "train", "cifar10/at", "--mask.rule", "q"], ["quantile", "quadrant"]),
    (["counterpart", "explain", "x", "--rule", "q"], ["quantile", "quadrant"]),  # the section may be left out
    (["counterpart", "explain", "x", "--ep"], ["--eps", "--eps-low"]),
    (["counterpart", "train", "x", "--model.pretrained", "t"], ["true"]),
    (["counterpart", "export", "x", "--format", "o"], ["onnx"]),
    (["counterpart", "list", "atta"], ["attacks"]),
    (["counterpart", "papers", "show", "pixel/table-1"], ["pixel/table-1"]),
    (
        ["counterpart", "recipes", "show", "digits/a"],
        [name for name in names() if name.startswith("digits/a")],
    ),
]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """The scripts of all shells as files."""
    folder = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh", "fish"):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            assert main(["completion", shell]) == 0
        (folder / shell).write_text(printed.getvalue())
    return folder


def offered(shell, program):
    """The lines that a program of a shell prints; the test skips where there is no such shell."""
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    plain = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    done = subprocess.run(
        [shell, *plain, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize(("words", "expected"), TYPED)
def test_bash_offers(words, expected, scripts):
    program = f"""
        source {shlex.quote(str(scripts / "bash"))}
        COMP_WORDS=({" ".join(map(shlex.quote, words))}) COMP_CWORD={len(words) - 1}
        _counterpart
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    assert sorted(offered("bash", program)) == sorted(expected)


def test_bash_offers_the_same_after_an_equals_sign_and_leaves_files_to_itself(scripts):
    for words, expected in (
        ("counterpart explain x --rule = q", ["quadrant", "quantile"]),  # as bash cuts --rule=q
        ("counterpart explain x --layer lay", []),
        ("counterpart predict x pho", []),
    ):
        program = f"""
            source {shlex.quote(str(scripts / "bash"))}
            COMP_WORDS=({words}) COMP_CWORD={len(words.split()) - 1}
            _counterpart
            [ ${{#COMPREPLY[@]}} -eq 0 ] || printf '%s\\n' "${{COMPREPLY[@]}}"
            complete -p counterpart
        """
        *found, registered = offered("bash", program)
        assert sorted(found) == expected
        assert registered == "complete -o default -F _counterpart counterpart"


@pytest.mark.parametrize(("words", "expected"), TYPED)
def test_fish_offers(words, expected, scripts):
    program = f"source {shlex.quote(str(scripts / 'fish'))}; complete -C {shlex.quote(' '.join(words))}"
    found = [line.partition("\t")[0] for line in offered("fish", program)]
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize(("words", "expected"), TYPED)
def test_zsh_offers(words, expected, scripts):
    """What the script hands to zsh's own functions, which would keep what begins as the word that was typed."""
    program = f"""
        compdef() {{ }}
        compset() {{ }}
        _files() {{ }}
        compadd() {{ shift; print -l -- "$@" }}
        _describe() {{ [[ $1 == -o ]] && shift; print -l -- "${{(@P)2}}" }}
        source {shlex.quote(str(scripts / "zsh"))}
        words=({" ".join(map(shlex.quote, words))}) CURRENT={len(words)} PREFIX={shlex.quote(words[-1])}
        _counterpart || true
    """
    found = [line.partition(":")[0] for line in offered("zsh", program)]
    assert sorted(word for word in found if word.startswith(words[-1])) == sorted(expected)


def test_every_command_and_setting_is_there(scripts):
    text = (scripts / "bash").read_text()
    for name, command in COMMANDS.items():
        assert f"        {name})" in text
        for key in command.SETTINGS:
            assert f"--{key.replace('_', '-')}" in text


def test_an_unknown_shell_is_refused(capsys):
    assert main(["completion", "tcsh"]) != 0
    assert "choose from" in capsys.readouterr().err
