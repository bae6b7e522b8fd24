"""Settings on the command line: ``--train.epochs 5``, wherever it stands, and their help."""

import argparse
import textwrap
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from ..catalogue import KINDS
from ..config import nearest_key, readable, settings
from ..config.values import OfKind
from ..errors import UserError, nearest
from ..parsing import parse_yaml

_IN_WORDS = {"evaluate.attacks": "PGD-20", "corruptions.names": "all"}  # defaults of many values
_BOOLEANS = ("true", "false", "yes", "no", "on", "off", "1", "0")


def from_arguments(
    words: Sequence[str], accepted: Collection[str], sections: Sequence[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """Take the settings out of a command line, wherever they stand in it.

    Args:
        words: such as ["cifar10/part", "--train.epochs", "5", "--seed=1", "--data.download"].
        accepted: dotted names of the settings that have an effect.
        sections: the sections whose settings may be written without the section's name, such as --n for --evaluate.n.
            Where several of them have the setting, the first one counts.

    Returns:
        The settings as a nested mapping, in which a switch without a value is true; and the words that are no settings.

    Raises:
        UserError: a setting is unknown, has no effect, or lacks its value. Other words that nobody knows are left to
            whoever reads the rest.
    """
    known = dict(settings())
    nested: dict[str, Any] = {}
    waiting, others = list(words), []
    while waiting:
        word = waiting.pop(0)
        dotted, has_value, value = word.removeprefix("--").partition("=")
        dotted = dotted.replace("-", "_")
        if word.startswith("--") and dotted not in known:
            in_sections = [f"{section}.{dotted}" for section in sections]
            dotted = next((key for key in in_sections if key in accepted), dotted)
        if not word.startswith("--") or ("." not in dotted and dotted not in known):
            others.append(word)
            continue
        if dotted not in accepted:
            raise unknown(word, accepted, sections)
        if not has_value:
            switch = known[dotted].annotation is bool
            follows = waiting and not waiting[0].startswith("--") and (not switch or waiting[0] in _BOOLEANS)
            if not follows and not switch:
                raise UserError(f"{word} needs a value.")
            value = waiting.pop(0) if follows else "true"
        *heads, last = dotted.split(".")
        target = nested
        for head in heads:
            target = target.setdefault(head, {})
        target[last] = _read_value(dotted, value)
    return nested, others


def _read_value(dotted: str, text: str) -> object:
    """Null, lists and mappings are read as YAML. All else is left to the schema, so that ``--name 010`` stays text."""
    if text != "null" and not text.startswith(("[", "{")):
        return text
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise UserError(f"--{dotted}: cannot read {text[:200]!r} as YAML: {error}") from None


def unknown(word: str, accepted: Collection[str], sections: Sequence[str] = ()) -> UserError:
    """The error for a word that looks like a setting and is none here."""
    name = word.partition("=")[0]
    dotted = name.removeprefix("--").replace("-", "_")
    if dotted in dict(settings()):
        twins = [f"--{key}" for key in accepted if key.split(".")[-1] == dotted.split(".")[-1]]
        hint = f"Did you mean {twins[0]}?" if twins else f"Settings that have: {', '.join(accepted)}."
        return UserError(f"{name} has no effect here. {hint}")
    if not sections:
        return UserError(f"unknown setting {name}. {nearest_key(dotted)}")
    short = []
    for key in accepted:
        section, _, leaf = key.rpartition(".")
        short.append(f"--{leaf if section in sections else key}".replace("_", "-"))
    return UserError(f"unknown setting {name}. {nearest(name, short)}")


def describe(accepted: Collection[str]) -> str:
    """The settings with their choices, meanings and defaults, for ``--help``."""
    rows = []
    for key, info in settings():
        if key not in accepted:
            continue
        default = info.get_default(call_default_factory=True)
        default_text = readable(default) if isinstance(default, float) else str(default).lower()
        if isinstance(default, tuple):
            default_text = _IN_WORDS[key] if key in _IN_WORDS else ",".join(map(readable, default))
        kinds = [mark.kind for mark in info.metadata if isinstance(mark, OfKind)]
        choices = (*KINDS[kinds[0]].entries,) if kinds else choices_of(info.annotation)
        names = f" [{', '.join(map(str, choices))}]" if choices else ""
        ending = "" if default is None or default == () else f" Default: {default_text}."
        rows.append(
            f"  --{key.replace('_', '-')}{names}\n"
            + textwrap.indent(
                textwrap.fill(f"{info.description}{ending}", 92, break_on_hyphens=False), " " * 8
            )
        )
    return "\n".join(rows)


def choices_of(annotation: object) -> tuple[object, ...]:
    """The names that a setting takes; empty where it takes numbers or text as well."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    members = [member for member in get_args(annotation) if member is not type(None)]
    return choices_of(members[0]) if len(members) == 1 else ()


def count(text: str) -> int:
    """Read a whole number of at least 1, for an option that is no setting."""
    if not text.isdigit() or int(text) < 1:
        raise UserError(f"{text!r} must be a whole number of at least 1.")
    return int(text)


def declare_model_and_images(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of a command that asks a model about image files."""
    parser.add_argument("target", metavar="TARGET", help="A model, as counterpart evaluate takes it.")
    parser.add_argument(
        "images", metavar="IMAGES", nargs="+", type=Path, help="Image files, or folders of them."
    )
    parser.add_argument(
        "--size",
        type=count,
        metavar="PIXELS",
        help="The side to which images are resized and cropped, for a model that does not say its own.",
    )
    parser.add_argument(
        "--device",
        default="auto",
        choices=("auto", "cpu", "cuda", "mps"),
        help="The device to compute on (default: auto, which takes a CUDA device if there is one).",
    )
