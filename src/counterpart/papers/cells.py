"""The cells of an experiment: what its columns ask for, and how a trained run is measured for them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from .. import jobs
from ..catalogue import ATTACKS
from ..config import Config, EvaluationAttack
from ..evaluation.where_profile import AREAS
from ..records import Record
from ..rundir import RunDir

Attacks = Sequence[Mapping[str, Any]]
Reading = Callable[[RunDir], Record | None]
Column: TypeAlias = Attacks | Mapping[str, Any] | Reading
"""What a column asks for. One of three things:

- attacks, of which the worst case counts;
- settings of an evaluation, these attacks among them. ``parts`` among the settings names a measure of predicted parts,
  such as "mIoU clean"; ``n`` is the number of images in place of the run's, None for all of them. ``where`` among them
  names an area between the curves of a where-profile, such as "bottom - top"; then ``shares``, ``draws``, ``map``,
  ``layer`` and ``map_class`` may be given as well;
- a function that reads a record off a trained run, or None where the run has no such thing.

A record with a ``unit`` in its details is no share.
"""

STEP_SIZES = {"svhn": "1/255"}
"""Data sets on which the PART paper's PGD takes another step than 2/255."""

SEVERAL_LINES = ("autoattack", "minimum-margin")
"""Attacks that an evaluation reports in several lines, or in a line of another name."""

WHERE_OPTIONS = ("shares", "draws", "map", "layer", "map_class")
"""What a column of a where-profile may say beside settings of an evaluation."""

SMOKE_STEPS = {"steps": 2, "restarts": 2, "queries": 20, "draws": 2}


@dataclass(frozen=True)
class _Wish:
    """What a column asks of an evaluation.

    Attributes:
        settings: of the evaluation, its attacks excepted.
        attacks: in order.
        part_measure: of the parts found, instead of the accuracy.
        worst: whether each attack shall meet what the ones before it left: the last one's line is what counts.
        alone: whether attacks of other columns would change what it says.
    """

    settings: Mapping[str, Any]
    attacks: Attacks
    part_measure: str | None
    worst: bool
    alone: bool


@dataclass
class _Evaluation:
    """An evaluation to make, and the columns that it answers: by their attacks, or by a measure of parts.

    Attributes:
        settings: those of the evaluation.
        attacks: each attack with its defaults, and as the column writes it.
        worst: whether each attack meets only the images that no attack before it fooled. A column then counts what
            survives its attacks, which are the first ones of the evaluation.
        by_attacks: column -> its attacks.
        by_parts: column -> its measure of parts.
    """

    settings: Mapping[str, Any]
    worst: bool
    attacks: dict[EvaluationAttack, Mapping[str, Any]] = field(default_factory=dict)
    by_attacks: dict[str, Attacks] = field(default_factory=dict)
    by_parts: dict[str, str] = field(default_factory=dict)

    def serves(self, wish: _Wish) -> bool:
        """Whether it can answer this as well."""
        if self.settings != wish.settings or self.worst != wish.worst:
            return False
        return not wish.worst or (not wish.alone and self.takes(wish.attacks))

    def takes(self, attacks: Attacks) -> bool:
        """True if one list of attacks, these or its own, is a prefix of the other.

        The attacks behind the prefix are told apart by their lines. So none of them may report several lines.
        """
        asked_attacks = [_resolved(attack) for attack in attacks]
        shorter, longer = sorted((asked_attacks, [*self.attacks]), key=len)
        if longer[: len(shorter)] != shorter:
            return False
        behind = longer[len(shorter) :]
        return not any(attack.attack in SEVERAL_LINES for attack in behind)

    def add(self, column: str, wish: _Wish) -> None:
        """Answer this column, too."""
        for attack in wish.attacks:
            self.attacks.setdefault(_resolved(attack), attack)
        if wish.part_measure is None:
            self.by_attacks[column] = wish.attacks
        else:
            self.by_parts[column] = wish.part_measure


def measure(
    columns: Mapping[str, Column],
    run: RunDir,
    config: Config,
    scale: str,
    *,
    settings: Mapping[str, Any],
    autoattack_n: int | None,
    surrogate: Callable[[str], str],
) -> Iterator[dict[str, Record]]:
    """Yield column -> its record, as they are measured. What a run does not have, such as parts, is missing.

    Columns of a single attack with equal settings share an evaluation, in which each attack meets every image that the
    model gets right. Worst cases share one if the attacks of one of them are the first attacks of the other. Each
    column says what it would say by itself.

    Args:
        columns: what to measure.
        run: the trained run.
        config: its settings.
        scale: the scale of the experiment.
        settings: the settings of every evaluation, such as its radius.
        autoattack_n: the number of images of an AutoAttack column, which would take longer than all the rest.
        surrogate: turns the experiment's name of an attack's surrogate into a target.
    """
    readings = {column: what(run) for column, what in columns.items() if callable(what)}
    present = {column: record for column, record in readings.items() if record is not None}
    if present:
        yield present
    evaluations: list[_Evaluation] = []
    for column, what in columns.items():
        if callable(what):
            continue
        if isinstance(what, Mapping) and "where" in what:
            yield {column: _area(what, run, config, scale, settings, surrogate)}
            continue
        wish = _wish(what, config, scale, settings, autoattack_n, surrogate)
        if wish is None:
            continue
        evaluation = next((known for known in evaluations if known.serves(wish)), None)
        if evaluation is None:
            evaluation = _Evaluation(wish.settings, wish.worst)
            evaluations.append(evaluation)
        evaluation.add(column, wish)
    for evaluation in evaluations:
        yield _answer(evaluation, run)


def _wish(
    what: Attacks | Mapping[str, Any],
    config: Config,
    scale: str,
    settings: Mapping[str, Any],
    autoattack_n: int | None,
    surrogate: Callable[[str], str],
) -> _Wish | None:
    """What a column asks for; None where that needs parts and the run has none.

    A model whose class does not follow from part logits alone meets a column's attacks without those of strategy
    ``sorted``, which ask it which class it takes a mask for.
    """
    changes: dict[str, Any] = dict(what) if isinstance(what, Mapping) else {"attacks": what}
    attacks = [_at_scale(attack, scale, config.data.name, surrogate) for attack in changes.pop("attacks", ())]
    measure, shift = changes.pop("parts", None), changes.pop("shift", None)
    aimed = any(ATTACKS[attack["attack"]].facts.of_parts for attack in attacks)
    if (measure is not None or aimed) and not config.model.segments:
        return None
    if not config.model.reads_parts and attacks:
        attacks = [attack for attack in attacks if attack.get("strategy") != "sorted"]
        if not attacks:
            return None
    slow = any(attack["attack"] == "autoattack" for attack in attacks)
    of_column = changes.pop("n", config.evaluate.n)
    of_run = config.evaluate.n if scale == "smoke" else of_column
    n = _least(of_run, autoattack_n if slow else None)
    data = {"root": config.data.root, **({} if shift is None else {"shift": shift})}
    # A worst case is cheapest by itself, where each attack meets only what the one before left; and in shorter
    # arithmetic every attack has a float32 end of its own.
    shortened = config.evaluate.precision != "float32"
    worst = slow or len(attacks) > 1 or (bool(attacks) and shortened)
    wanted = {"evaluate": {**settings, **changes, "n": n}, "data": data, "wait": config.wait}
    return _Wish(wanted, attacks, measure, worst, alone=shortened)


def _area(
    what: Mapping[str, Any],
    run: RunDir,
    config: Config,
    scale: str,
    settings: Mapping[str, Any],
    surrogate: Callable[[str], str],
) -> Record:
    """The area between two curves of the run's where-profile, whose ledgers columns of the same settings share."""
    changes = dict(what)
    name = changes.pop("where")
    if name not in AREAS:
        raise ValueError(f"where {name!r}: expected one of {', '.join(AREAS)}.")
    of_profile = {key: changes.pop(key) for key in WHERE_OPTIONS if key in changes}
    kinds = {AREAS[name][0], "top"}
    if AREAS[name][1] == "":
        of_profile["draws"] = 0
    options = jobs.WhereOptions(regions=sorted(kinds), **of_profile)
    attacks = [_at_scale(attack, scale, config.data.name, surrogate) for attack in changes.pop("attacks")]
    profile_settings = {
        "evaluate": {**settings, **changes, "n": few(config, changes.get("n")), "attacks": attacks},
        "data": {"root": config.data.root},
        "wait": config.wait,
    }
    [profiled] = jobs.profile_named(str(run.path), profile_settings, options)
    [area] = [record for record in profiled.records if record.details.get("area") == name]
    return area


def _answer(asked: _Evaluation, run: RunDir) -> dict[str, Record]:
    individual = not asked.worst and len(asked.by_attacks) > 1
    wish = {"attacks": [*asked.attacks.values()], "individual": individual, "parts": bool(asked.by_parts)}
    settings = {**asked.settings, "evaluate": {**asked.settings["evaluate"], **wish}}
    [judged] = jobs.evaluate(str(run.path), settings)
    by_name = {record.name: record for record in judged.records}
    clean, *lines, worst = (name for name in by_name if name.startswith("accuracy/"))
    answers = {column: by_name[f"parts/{measure}"] for column, measure in asked.by_parts.items()}
    for column, attacks in asked.by_attacks.items():
        if individual:
            name = clean if not attacks else lines[[*asked.attacks].index(_resolved(attacks[0]))]
            right = [row.right and _attack(name) not in row.fooled for row in judged.rows]
        else:
            behind = len(asked.attacks) - len(attacks)  # the attacks that this column does not have
            name = lines[-1 - behind] if behind else worst
            later = {_attack(line) for line in lines[len(lines) - behind :]}
            right = [row.right and later.issuperset(row.fooled) for row in judged.rows]
        bits = "".join("1" if was_right else "0" for was_right in right)
        answers[column] = replace(by_name[name], details={**by_name[name].details, "right": bits})
    return answers


def _attack(name: str) -> str:
    """The name of an accuracy without its prefix: a line of attacks, in most cases a single attack."""
    return name.removeprefix("accuracy/")


def _resolved(attack: Mapping[str, Any]) -> EvaluationAttack:
    """Fill in the defaults of an attack, so that it equals every other way of writing it."""
    return EvaluationAttack(**{**ATTACKS[attack["attack"]].defaults, **attack})


def _at_scale(
    attack: Mapping[str, Any], scale: str, data: str, surrogate: Callable[[str], str]
) -> Mapping[str, Any]:
    """The attack for this data set and scale. At smoke scale, whose numbers mean nothing, it is cut short."""
    if attack["attack"] == "autoattack":
        return {"attack": "apgd", "steps": SMOKE_STEPS["steps"]} if scale == "smoke" else attack
    changes: dict[str, Any] = {}
    if scale == "smoke":
        options = {**ATTACKS[attack["attack"]].defaults, **attack}
        changes = {k: min(options[k], most) for k, most in SMOKE_STEPS.items() if k in options}
    if data in STEP_SIZES and "step_size" in attack:
        changes["step_size"] = STEP_SIZES[data]
    if "surrogate" in attack:
        changes["surrogate"] = surrogate(attack["surrogate"])
    return {**attack, **changes}


def few(config: Config, most: int | None) -> int | None:
    """The number of images to evaluate, as the run says and at most ``most``; None stands for all."""
    return _least(config.evaluate.n, most)


def _least(*counts: int | None) -> int | None:
    """The least of some numbers of images, of which None stands for all."""
    return min((count for count in counts if count is not None), default=None)
