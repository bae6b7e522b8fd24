"""YAML and JSON from files that anybody may have written or damaged: a value, or one kind of error in one line."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from .limits import read_text, refuse_more


class YamlLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML in C, eight times as fast, where it was built.

    The words on and off are texts, as in YAML 1.2, since ``on`` is a setting. A switch of the schema takes them too.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [pair for pair in pairs if first not in ("o", "O") or not pair[0].endswith(":bool")]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


MOST_DEPTH = 100  # of brackets within brackets: the loader in C overflows its stack at some ten thousand
MOST_VALUES = 100_000  # aliases unfolded: 600 bytes can stand for gigabytes
MOST_YAML = 2**20  # bytes: settings take some thousand
HALF = re.compile(r"\\u[dD][89a-fA-F]")  # how JSON writes half of a character beyond the first 65,536
SHOWN = 200  # characters of a reason; what the loaders say may repeat the input


def parse_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        ValueError: it is no YAML, a value is not what its tag says, or it is too deep or too large to be meant.
    """
    if len(text) > MOST_YAML:
        raise ValueError(f"it holds more than {MOST_YAML:,} characters")
    try:
        _check_extent(text)
        return yaml.load(text, YamlLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(_shortened(error)) from None
    except (
        AttributeError,
        LookupError,
        TypeError,
        OverflowError,
    ) as error:  # PyYAML's own, for tags such as !!bool x
        raise ValueError(f"a value is not what its tag says: {_shortened(error)}") from None


def read_yaml(path: Path) -> Any:
    """The value of a YAML file; a byte-order mark is passed over.

    Raises:
        OSError: the file cannot be read.
        ValueError: as ``parse_yaml``.
    """
    return parse_yaml(read_text(path))


def parse_json(text: str, *, limit: str = "TEXT", **options: Any) -> Any:
    """The value of a JSON text.

    Args:
        text: the text.
        limit: the limit on its length, by its name in ``limits.LIMITS``. A value takes at most 32 times its text.
        options: those of ``json.loads``.

    Raises:
        ValueError: it is no JSON, too long, nested too deeply to be anything that is meant, or half a character.
    """
    refuse_more(limit, len(text), "characters")
    try:
        value = json.loads(text, **options)
        if HALF.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("a text in it holds half a character, a lone surrogate") from None
    return value


def read_json(path: Path, *, limit: str = "TEXT", **options: Any) -> Any:
    """The value of a JSON file; a byte-order mark, as Windows programs write it, is passed over.

    Raises:
        OSError: the file cannot be read.
        ValueError: as ``parse_json``.
    """
    return parse_json(read_text(path, limit), limit=limit, **options)


def _shortened(error: Exception) -> str:
    """What an error says, in one short line."""
    words = " ".join(str(error).split())
    return words if len(words) <= SHOWN else words[:SHOWN] + " ..."


def _check_extent(text: str) -> None:
    """Count depth and values before anything is built, each alias as all that it stands for."""
    counts = [0]  # of the values within each open collection, the document outermost
    anchors: list[str | None] = [None]
    sizes: dict[str, int] = {}
    for event in yaml.parse(text, YamlLoader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in anchors:
                raise ValueError("a value contains itself")
            counts[-1] += sizes.get(event.anchor or "", 1)
        elif isinstance(event, yaml.ScalarEvent):
            counts[-1] += 1
        elif isinstance(event, yaml.CollectionStartEvent):
            counts.append(1)
            anchors.append(event.anchor)
        elif isinstance(event, yaml.CollectionEndEvent):
            size, anchor = counts.pop(), anchors.pop()
            counts[-1] += size
            if anchor is not None:
                sizes[anchor] = size
        if len(counts) > MOST_DEPTH:
            raise ValueError(f"its values are nested more than {MOST_DEPTH} deep")
        if counts[-1] > MOST_VALUES:
            raise ValueError(f"it holds more than {MOST_VALUES:,} values")
