"""Scripts that complete a command line in bash, zsh and fish, whole before they are needed: Tab starts no Python."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence

from .completed_words import CompletedCommand, CompletedOption

LONGEST = 70  # characters of what is said of a word


def bash_script(commands: Sequence[CompletedCommand]) -> str:
    """The script for bash. After ``--option=`` the names follow as after ``--option``; files are completed by bash."""
    lines = [
        "# Completion of counterpart in bash: source <(counterpart completion bash)",
        "_counterpart() {",
        '    local current="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"',
        '    local command="${COMP_WORDS[1]}" words=""',
        '    if [[ "$current" == "=" ]]; then current=""',
        '    elif [[ "$before" == "=" ]]; then before="${COMP_WORDS[COMP_CWORD-2]}"; fi',
        '    if (( COMP_CWORD == 1 )); then command=""; fi',
        '    case "$command $before" in',
    ]
    lines += _cases(commands)
    lines += [
        '    *) case "$command" in',
        f'        "") words="{" ".join(command.name for command in commands)}" ;;',
    ]
    for command in commands:
        options = " ".join(name for option in command.options for name in option.names)
        lines += [
            f"        {command.name})",
            f'            if [[ "$current" == -* ]]; then words="{options}"',
            f'            else words="{" ".join(command.words)}"; fi ;;',
        ]
    lines += [
        "        esac ;;",
        "    esac",
        '    COMPREPLY=( $(compgen -W "$words" -- "$current") )',
        "}",
        "complete -o default -F _counterpart counterpart",
    ]
    return "\n".join(lines) + "\n"


def zsh_script(commands: Sequence[CompletedCommand]) -> str:
    """The script for zsh, to be sourced or to lie as ``_counterpart`` in a folder of $fpath."""
    lines = [
        "#compdef counterpart",
        "# Completion of counterpart in zsh: source <(counterpart completion zsh)",
        "_counterpart() {",
        "    local -a described",
        '    local command="${words[2]}" before="${words[CURRENT-1]}" names=""',
        '    if [[ "$PREFIX" == --*=* ]]; then before="${PREFIX%%=*}"; compset -P "*="; fi',
        "    if (( CURRENT == 2 )); then",
        f"        described=({_described({command.name: command.help for command in commands})})",
        "        _describe command described",
        "        return",
        "    fi",
        '    case "$command $before" in',
    ]
    lines += [line.replace("words=", "names=") for line in _cases(commands)]
    lines += [
        '    *) case "$command" in',
    ]
    for command in commands:
        about = {name: option.help for option in command.options for name in option.names}
        lines += [
            f"        {command.name})",
            f"            described=({_described(about)})",
            f'            names="{" ".join(command.words)}" ;;',
        ]
    lines += [
        "        esac",
        '        if [[ "$PREFIX" == -* ]]; then _describe -o option described; return; fi ;;',
        "    esac",
        '    [[ -n "$names" ]] && compadd -- ${=names}',
        "    _files",
        "}",
        'if [[ "$funcstack[1]" == "_counterpart" ]]; then _counterpart "$@"; else compdef _counterpart counterpart; fi',
    ]
    return "\n".join(lines) + "\n"


def fish_script(commands: Sequence[CompletedCommand]) -> str:
    """The script for fish."""
    lines = ["# Completion of counterpart in fish: counterpart completion fish | source"]
    for command in commands:
        about = shlex.quote(_shortened(command.help))
        lines.append(f"complete -c counterpart -n __fish_use_subcommand -f -a {command.name} -d {about}")
        here = f"complete -c counterpart -n '__fish_seen_subcommand_from {command.name}'"
        if command.words:
            lines.append(f"{here} -a {shlex.quote(' '.join(command.words))}")
        lines += [f"{here} {_fish_option(option)}" for option in command.options]
    return "\n".join(lines) + "\n"


def _fish_option(option: CompletedOption) -> str:
    """How fish writes an option."""
    names = []
    for name in option.names:
        names.append(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}")
    value = "" if option.alone else " -r"
    if option.values:
        value = f" -x -a {shlex.quote(' '.join(option.values))}"
    return f"{' '.join(names)}{value} -d {shlex.quote(_shortened(option.help))}"


def _cases(commands: Sequence[CompletedCommand]) -> Iterator[str]:
    """The lines of a case that say which names follow an option of a command; none where a value is free."""
    for command in commands:
        for option in command.options:
            if not option.alone:
                patterns = "|".join(f'"{command.name} {name}"' for name in option.names)
                yield f'    {patterns}) words="{" ".join(option.values)}" ;;'


def _described(words: Mapping[str, str]) -> str:
    """Words with what they mean, as zsh wants them."""
    pairs = []
    for word, help_text in words.items():
        about = _shortened(help_text).replace("\\", "").replace(":", "\\:")
        pairs.append(shlex.quote(f"{word.replace(':', chr(92) + ':')}:{about}"))
    return " ".join(pairs)


def _shortened(text: str) -> str:
    """The beginning of a sentence that is long."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


SCRIPTS: Mapping[str, Callable[[Sequence[CompletedCommand]], str]] = {
    "bash": bash_script,
    "zsh": zsh_script,
    "fish": fish_script,
}
