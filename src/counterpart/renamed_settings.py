"""The words of settings, now and when old files were written: one translation for whatever is stored.

Run folders, ledgers and experiments that were made before a setting was renamed go on to work. Two things follow.
Whoever reads stored settings hands them to ``in_current_words``. And whatever is hashed, compared with a stored key or
used as the name of a folder is written ``in_first_words``, so that such keys never change.
"""

from collections.abc import Mapping
from typing import Any

# Today's dotted name -> the name under which the setting was first stored.
FIRST_WORDS = {
    "mask.eps_low": "part.eps_low",
    "mask.rule": "part.mask",
    "mask.files": "part.masks",
    "mask.quantile": "part.quantile",
    "mask.quadrant": "part.quadrant",
    "mask.control": "part.control",
    "mask.map": "part.map",
    "mask.layer": "part.layer",
    "mask.drawn_from": "part.mask_from",
    "mask.map_class": "part.map_class",
    "mask.refresh_epochs": "part.refresh_epochs",
    "mask.burn_in": "part.burn_in",
}
# Settings that are younger than stored hashes, and their defaults: at these, a hash does not know them.
YOUNGER = {
    "data.options": None,
    "data.channels": None,
    "data.split_of": None,
    "data.fold": None,
    "data.crop_to_parts": None,
    "data.parts_min_share": 0,
    "data.workers": None,
    "mask.options": None,
    "mask.projection": "clamp",
    "model.options": None,
    "model.encoder_init": None,
    "attack.eps_warmup": 0.0,
    "attack.noise": 2.0,
    "evaluate.on": None,
    "evaluate.protocol": None,
    "evaluate.draws": 1,
    "evaluate.votes": 1,
    "evaluate.eot": 1,
    "evaluate.fixed_noise": False,
    "evaluate.sampled": None,
    "evaluate.dear_attacks": None,
    "evaluate.sampled_width": 0.01,
    "evaluate.sampled_looks": 4,
    "evaluate.claim": None,
    "optimizer.name": "sgd",
    "optimizer.encoder_scale": 1.0,
    "optimizer.warmup_steps": 0,
    "train.background_weight": 1.0,
}

CURRENT_WORDS = {first: current for current, first in FIRST_WORDS.items()}

# Suites of attacks that were renamed; nothing stored depends on a suite's name.
RENAMED_SUITES = {"part-worst-case": "parts-worst-case"}

# Experiments on part models began with the second word at first; the files of their records did as well.
_EXPERIMENTS_NOW, _EXPERIMENTS_FIRST = "parts/", "part/"


def in_current_words(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings of any age under today's names. What is named as today stays as it is."""
    return _translate(settings, CURRENT_WORDS)


def in_first_words(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings under the names that they were first stored with: the form of hashes and of folder names.

    A setting that is younger than the first stored hashes is left out where it has its default.
    """
    old_enough: dict[str, Any] = {}
    for section, values in settings.items():
        if isinstance(values, Mapping):
            values = {
                leaf: value
                for leaf, value in values.items()
                if f"{section}.{leaf}" not in YOUNGER or value != YOUNGER[f"{section}.{leaf}"]
            }
        old_enough[section] = values
    return _translate(old_enough, FIRST_WORDS)


def current_name(dotted: str) -> str | None:
    """What a setting or a section of an old name is called today; None where nothing was renamed."""
    return CURRENT_WORDS.get(dotted, _sections(CURRENT_WORDS).get(dotted))


def old_words_in(settings: Mapping[str, Any]) -> list[str]:
    """A clause for each setting that has an old name: "part.mask is called mask.rule now"."""
    old = [section for section in _sections(CURRENT_WORDS) if isinstance(settings.get(section), Mapping)]
    names = [f"{section}.{leaf}" for section in old for leaf in settings[section]]
    return [f"{name} is called {CURRENT_WORDS[name]} now" for name in names if name in CURRENT_WORDS]


def current_experiment_name(name: str) -> str:
    """What an experiment is called today: "parts/table-1", at first "part/table-1"."""
    return (
        _EXPERIMENTS_NOW + name.removeprefix(_EXPERIMENTS_FIRST)
        if name.startswith(_EXPERIMENTS_FIRST)
        else name
    )


def first_experiment_name(name: str) -> str:
    """What an experiment was called when it was first stored."""
    return (
        _EXPERIMENTS_FIRST + name.removeprefix(_EXPERIMENTS_NOW)
        if name.startswith(_EXPERIMENTS_NOW)
        else name
    )


def _translate(settings: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    sections, translated = _sections(names), {}
    for section, values in settings.items():
        if section not in sections or not isinstance(values, Mapping):
            translated[section] = values
            continue
        into = translated.setdefault(sections[section], {})
        for leaf, value in values.items():
            _, _, renamed = names.get(f"{section}.{leaf}", f"{section}.{leaf}").partition(".")
            into[renamed] = value
    return translated


def _sections(names: Mapping[str, str]) -> dict[str, str]:
    """The sections of renamed settings, which are renamed as a whole."""
    return {old.partition(".")[0]: new.partition(".")[0] for old, new in names.items()}
