"""YAML and JSON from files that anybody may have written or damaged: a value, or one kind of error in one line."""

import json
from pathlib import Path
from typing import Any

import yaml


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


def parse_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        ValueError: it is no YAML, a value is not what its tag says, or it is too deep or too large to be meant.
    """
    try:
        _check_extent(text)
        return yaml.load(text, YamlLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(" ".join(str(error).split())) from None
    except (
        AttributeError,
        LookupError,
        TypeError,
        OverflowError,
    ) as error:  # PyYAML's own, for tags such as !!bool x
        raise ValueError(f"a value is not what its tag says: {error}") from None


def read_yaml(path: Path) -> Any:
    """The value of a YAML file; a byte-order mark is passed over.

    Raises:
        OSError: the file cannot be read.
        ValueError: as ``parse_yaml``.
    """
    return parse_yaml(path.read_text(encoding="utf-8-sig"))


def parse_json(text: str, **options: Any) -> Any:
    """The value of a JSON text; ``options`` are those of ``json.loads``.

    Raises:
        ValueError: it is no JSON, or nested too deeply to be anything that is meant.
    """
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None


def read_json(path: Path, **options: Any) -> Any:
    """The value of a JSON file; a byte-order mark, as Windows programs write it, is passed over.

    Raises:
        OSError: the file cannot be read.
        ValueError: as ``parse_json``.
    """
    return parse_json(path.read_text(encoding="utf-8-sig"), **options)


def _check_extent(text: str) -> None:
    """Count depth and values before anything is built, each alias as all that it stands for."""
    counts = [0]  # of the values within each open collection, the document outermost
    anchors: list[str | None] = [None]
    sizes: dict[str, int] = {}
    for event in yaml.parse(text, YamlLoader):
        if isinstance(event, yaml.AliasEvent):
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
