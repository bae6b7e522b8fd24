"""What the protocol of a benchmark fixes: every setting that could change a number. None may be given beside it."""

from collections.abc import Mapping
from typing import Any

from ..catalogue import PROTOCOLS, Entry, ProtocolFacts, find
from ..dotted_names import settings_in
from ..errors import UserError
from ..numerals import readable
from .corruptions import CorruptionsSettings
from .data import DataSettings
from .evaluation import EvaluateSettings
from .values import Section

SECTIONS: Mapping[str, type[Section]] = {
    "data": DataSettings,
    "evaluate": EvaluateSettings,
    "corruptions": CorruptionsSettings,
}
# Where things lie, which weights are judged, and how the same numbers are computed.
FREE = {
    "data.root", "data.download", "evaluate.protocol", "evaluate.weights", "evaluate.engine", "evaluate.batch_size",
    "evaluate.chunk_size", "evaluate.save_images", "evaluate.claim", "corruptions.source",
}  # fmt: skip
# What shapes training and its validation, and no test image.
OF_TRAINING = {
    "data.validation", "data.limit", "data.crop", "data.padding", "data.flip", "data.labels", "data.labelled",
    "data.parts_min_share",
}  # fmt: skip
BESIDE = ("attack", "mask")  # sections of training from which an evaluation takes what it is not told


def under_protocol(settings: Mapping[str, Any], command: str) -> Mapping[str, Any]:
    """The settings that were given, and those that their protocol stands for; without a protocol, those given.

    Args:
        settings: nested, such as {"evaluate": {"protocol": "robustbench-cifar10-linf"}}.
        command: the command that they were given to: "evaluate" or "corruptions".

    Raises:
        UserError: the protocol is unknown or of another command, or a setting that it fixes was given beside it.
    """
    name = (settings.get("evaluate") or {}).get("protocol")
    if name is None:
        return settings
    entry: Entry[ProtocolFacts] = find("protocols", str(name))
    if entry.facts.command != command:
        raise UserError(f"protocol {name} is for counterpart {entry.facts.command}.")
    fixed = fixed_by(entry)
    for dotted, value in settings_in(settings):
        if dotted in fixed or dotted.partition(".")[0] in BESIDE:
            raise UserError(_refusal(entry, dotted, value))
    changed = {
        section: dict(values) if isinstance(values, Mapping) else values
        for section, values in settings.items()
    }
    for dotted, value in fixed.items():
        section, _, leaf = dotted.partition(".")
        changed.setdefault(section, {})[leaf] = value
    return changed


def fixed_by(entry: Entry[ProtocolFacts]) -> dict[str, Any]:
    """The value of each setting that a protocol fixes, by its dotted name: those that it gives, and defaults."""
    fixed = {}
    for section, schema in SECTIONS.items():
        for leaf, info in schema.model_fields.items():
            dotted = f"{section}.{leaf}"
            if dotted not in FREE | OF_TRAINING:
                fixed[dotted] = info.get_default(call_default_factory=True)
    return {**fixed, **entry.facts.settings}


def departures(name: str, sections: Mapping[str, Section]) -> list[str]:
    """The settings of a configuration that differ from what its protocol fixes."""
    fixed = fixed_by(PROTOCOLS[name])
    differing = []
    for section, schema in SECTIONS.items():
        leaves = {
            key.partition(".")[2]: value for key, value in fixed.items() if key.startswith(f"{section}.")
        }
        expected = schema.model_validate(leaves)
        differing += [
            f"{section}.{leaf}"
            for leaf in leaves
            if getattr(sections[section], leaf) != getattr(expected, leaf)
        ]
    return differing


def _refusal(entry: Entry[ProtocolFacts], dotted: str, value: object) -> str:
    """Why a setting is refused beside a protocol, and the protocol's own value."""
    facts = entry.facts
    value_text = readable(value) if isinstance(value, float) else str(value)
    advice = "Leave it out, or leave out the protocol."
    if dotted == "evaluate.n":
        own_value = f"all {facts.n:,} of its images"
        by_hand = " ".join(
            f"--{key.removeprefix('evaluate.').removeprefix('corruptions.')} {text}"
            for key, text in facts.settings.items()
        )
        advice = f"For a rehearsal, which is no result of the benchmark: {by_hand} --n {value_text}."
    elif dotted in facts.settings:
        own_value = facts.settings[dotted]
    elif dotted.partition(".")[0] in BESIDE:
        return f"{dotted} has no effect beside protocol {entry.key}, which fixes budget and attacks. Leave it out."
    else:
        default = fixed_by(entry)[dotted]
        own_value = "its default" if default is None else f"its default, {_in_words(default)}"
    return (
        f"{dotted} {value_text} does not go with protocol {entry.key}, which fixes it: {own_value}. {advice}"
    )


def _in_words(default: object) -> str:
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return str(default).lower() if isinstance(default, bool) else str(default)
