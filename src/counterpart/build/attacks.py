"""The attacks of an evaluation, which are built from their names and options."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from ..attacks import official, transfer
from ..attacks.on_parts import Guides, sorted_guides
from ..attacks.users_attacks import call_users_attack
from ..catalogue import Entry, load_code, load_users_object, stated_facts
from ..catalogue.attacks import AttackFacts
from ..config import EvaluateSettings, EvaluationAttack, readable
from ..contracts import Attacked, Classifier, NamedAttack, PartModel
from ..data.image_sets import ImageSet
from ..errors import UserError
from ..losses.classification import LOSSES


@dataclass(frozen=True)
class Victim:
    """The facts that attacks must know of the model they attack.

    Attributes:
        norm: the norm of the budget. AutoAttack's suites depend on it.
        classes: the number of the model's classes, K.
        model: the attacked model. Attacks on parts ask how it predicts them.
        images: the evaluated images, to whose masks attacks on parts may lead.
        load: a function that loads the model of a target, for transfer attacks.
    """

    norm: str
    classes: int
    model: nn.Module
    images: ImageSet
    load: Callable[[str], Classifier]


def build_attacks(evaluate: EvaluateSettings, victim: Victim) -> list[NamedAttack]:
    """The attacks of an evaluation, named by what they do: "PGD-20", "PGD-50x5 margin", "apgd-t target 3".

    Raises:
        UserError: an attack does not work in this norm or with so few classes, two attacks are the same, or
            an attack aims at parts of a model or of images that have none.
    """
    attacks: list[NamedAttack] = []
    for asked in _expand_users_suites(evaluate.attacks):
        if asked.entry.facts.suite:
            attacks += _build_suite(asked, evaluate, victim)
        else:
            attacks.append(_build_attack(asked.averaged(evaluate.eot), victim, to_the_end=evaluate.by_draws))
    names = [attack.name for attack in attacks]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"evaluate.attacks names the same attack twice: {twice}.")
    return attacks


def _expand_users_suites(asked: Iterable[EvaluationAttack]) -> list[EvaluationAttack]:
    """The attacks that are asked for, with each user's list ``module:name`` replaced by its attacks."""
    expanded: list[EvaluationAttack] = []
    for attack in asked:
        code = None if attack.entry.inside else load_users_object(attack.entry.code)
        if isinstance(code, Sequence) and not isinstance(code, str):
            expanded += [_read_suite_row(attack.attack, row) for row in code]
        else:
            expanded.append(attack)
    return expanded


def _read_suite_row(suite: str, row: object) -> EvaluationAttack:
    attack_settings = {"attack": row} if isinstance(row, str) else row
    if not isinstance(attack_settings, Mapping):
        raise UserError(
            f"{suite} is a list, so each of its rows must name an attack, such as {{'attack': 'pgd', 'steps': 50}}; "
            f"one is {row!r}."
        )
    try:
        return EvaluationAttack.model_validate(dict(attack_settings))
    except ValueError as error:
        raise UserError(f"{suite}: {' '.join(str(error).split())}") from None


def _build_suite(asked: EvaluationAttack, evaluate: EvaluateSettings, victim: Victim) -> list[NamedAttack]:
    """The attacks of AutoAttack, of this package or of the published one."""
    version = asked.options["version"]
    if evaluate.engine == "official":
        return official.suite(version, victim.classes)
    suite: Callable[..., list[NamedAttack]] = load_code(asked.entry.facts.suite)
    averages: dict[str, Any] = {"eot": evaluate.eot} if evaluate.eot > 1 else {}
    averages |= {"to_the_end": True} if evaluate.by_draws else {}
    return suite(version, victim.norm, victim.classes, **averages)


def _build_attack(asked: EvaluationAttack, victim: Victim, *, to_the_end: bool = False) -> NamedAttack:
    """One attack with its options; ``to_the_end``: it takes every step where it can average gradients."""
    entry, options = asked.entry, dict(asked.options)
    facts = entry.facts if entry.inside else stated_facts(entry.facts, load_users_object(entry.code))
    _refuse_what_does_not_fit(entry, facts, options, victim)
    if "loss" in options and entry.inside:
        options["loss"] = LOSSES[options["loss"]]
    if facts.of_parts:
        options |= _build_part_options(asked, victim)
    if to_the_end and entry.inside and "eot" in options:
        options["to_the_end"] = True
    attack: Callable[..., Attacked]
    attack = partial(entry.load(), **options) if entry.inside else call_users_attack(entry, options)
    if asked.surrogate is not None:
        attack = partial(transfer, surrogate=victim.load(asked.surrogate), attack=attack)
    name = _name_attack(asked)
    return NamedAttack(
        name,
        attack,
        name,
        parts=facts.of_parts,
        by_gradient=facts.by_gradient and asked.surrogate is None,
        nearest=facts.nearest and asked.surrogate is None,
        key=asked.attack,
    )


def _refuse_what_does_not_fit(
    entry: Entry[AttackFacts], facts: AttackFacts, options: Mapping[str, Any], victim: Victim
) -> None:
    """Refuse an attack that lacks the norm, or that aims at more wrong classes than there are."""
    if victim.norm not in facts.norms:
        raise UserError(f"attack {entry.key} has no {victim.norm}: it has {', '.join(facts.norms)}.")
    for name in ("target", "targets"):
        if entry.inside and (options.get(name) or 1) > victim.classes - 1:
            raise UserError(
                f"attack {entry.key}: {name} {options[name]} of {victim.classes - 1} wrong classes; "
                f"the model has {victim.classes}."
            )


def _build_part_options(asked: EvaluationAttack, victim: Victim) -> dict[str, Any]:
    """The options that tell an attack on parts about the model, and the masks that it may lead to."""
    model, images = victim.model, victim.images
    if not isinstance(model, PartModel):
        raise UserError(
            f"attack {asked.attack} aims at parts, and this model predicts none: evaluate a part model (model.name "
            "parts/...), or leave the attack out."
        )
    if images.parts is None or not images.parts.there.any():
        raise UserError(
            f"attack {asked.attack} needs images with annotated parts, and {images.name} has none: use data.name parts "
            "or synthetic-parts, or leave the attack out."
        )
    options: dict[str, Any] = {"full_resolution": model.full_resolution}
    if asked.options.get("strategy", "untargeted") == "untargeted":
        return options
    return options | {"guides": _build_guides(asked, model, images)}


def _build_guides(asked: EvaluationAttack, model: PartModel, images: ImageSet) -> Guides:
    """The masks that stage one of an attack on parts may lead to.

    Raises:
        UserError: this model or these images cannot serve the strategy. It is raised before other attacks
            take an hour.
    """
    assert images.parts is not None
    assert isinstance(model, nn.Module)
    there = images.parts.there.nonzero()[:, 0].cpu()
    guides = Guides(lambda rows: images.read_parts(there[rows.cpu()]), images.labels.cpu()[there])
    owners = torch.unique(guides.classes).tolist()
    if asked.options["strategy"] == "sorted":
        return _sort_guides(guides, model, images)
    if len(owners) == 1 and (images.labels == owners[0]).any():
        raise UserError(
            f"attack two-staged leads to masks of wrong classes, and only {images.classes[owners[0]]} has masks: "
            "evaluate on images with masks of two classes, use strategy untargeted, or leave the attack out."
        )
    return guides


def _sort_guides(guides: Guides, model: PartModel, images: ImageSet) -> Guides:
    assert isinstance(model, nn.Module)
    device = next(model.parameters()).device
    with torch.no_grad():
        predicted = model.forward_parts(torch.zeros(1, *images.shape, device=device)).part_logits
    cells = (predicted.shape[2], predicted.shape[3])
    try:
        return sorted_guides(guides, model, predicted.shape[1] - 1, cells)
    except UserError as error:
        raise UserError(
            f"attack two-staged, strategy sorted: {error} Use another strategy; of parts-worst-case, list the "
            "other attacks (docs/parts.md)."
        ) from None


def _name_attack(asked: EvaluationAttack) -> str:
    """The name of an attack in tables.

    Its random draws are named so too, so no name may ever change.
    """
    if asked.entry.inside:
        name = asked.entry.named(asked.options, _show)
    else:
        name = asked.attack + "".join(
            f" {key} {_show(value)}" for key, value in sorted(asked.options.items())
        )
    return name if asked.surrogate is None else f"{name} from {asked.surrogate}"


def _show(value: object) -> str:
    return readable(value) if isinstance(value, float) else str(value)
