"""The attacks that an evaluation asks for: a name or a suite, each with its options."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, model_validator

from ..catalogue import ATTACKS, SUITES, is_users_code, known_names
from ..catalogue.attacks import AttackFacts
from ..catalogue.entries import Entry
from ..errors import nearest
from ..renamed_settings import RENAMED_SUITES
from .values import (
    Section,
    check_options,
    entry_of,
    named,
    setting,
)


class EvaluationAttack(Section):
    """An attack of an evaluation, with its options beside its name. Options that it does not have are refused."""

    model_config = ConfigDict(extra="allow")

    attack: named("attacks") = setting("The attack.", default="pgd")  # type: ignore[valid-type]
    surrogate: str | None = setting(
        "Search on this model instead, which makes it a transfer attack: any TARGET of counterpart evaluate.",
        default=None,
    )

    @model_validator(mode="before")
    @classmethod
    def _options_of_this_attack(cls, row: object) -> object:
        if not isinstance(row, Mapping):
            return row
        values = {name: value for name, value in row.items() if value is not None}
        name = str(values.get("attack", "pgd"))
        entry: Entry[AttackFacts] = entry_of("attacks", name)
        options = {key: value for key, value in values.items() if key not in ("attack", "surrogate")}
        if "surrogate" in values and not entry.facts.transferable and entry.inside:
            able = ", ".join(key for key, known in ATTACKS.items() if known.facts.transferable)
            raise ValueError(f"attack {name} cannot search on a surrogate. These can: {able}")
        return {**values, **check_options(f"attack {name}", entry, options)}

    @property
    def entry(self) -> Entry[AttackFacts]:
        """Its row of the catalogue."""
        return entry_of("attacks", self.attack)

    @property
    def options(self) -> dict[str, Any]:
        """Its options, as given or by default."""
        return {**self.entry.defaults, **(self.model_extra or {})}

    @property
    def passes(self) -> int:
        """The passes that each of its gradients is averaged over."""
        return 20 if self.options.get("version") == "rand" else int(self.options.get("eot", 1))

    def averaged(self, passes: int) -> "EvaluationAttack":
        """The attack with gradients averaged over so many passes, if it has that option and was not given it."""
        if passes == 1 or "eot" not in self.entry.defaults or "eot" in (self.model_extra or {}):
            return self
        return EvaluationAttack.model_validate({**self.model_dump(exclude_none=True), "eot": passes})


def refuse_attacks_without_averages(why: str, attacks: Sequence[EvaluationAttack]) -> None:
    """Refuse attacks that take the answer of a single pass for the model's, and so stop at a wrong one.

    Raises:
        ValueError: there is one; ``why`` is the setting that says that answers are random.
    """
    able = [key for key, known in ATTACKS.items() if "eot" in known.defaults]
    for asked in attacks:
        entry = asked.entry
        if not entry.inside or not entry.facts.by_gradient or asked.surrogate is not None:
            continue
        if "eot" not in entry.defaults and asked.options.get("version") != "rand":
            raise ValueError(
                f"{why} is for models with random answers, whose gradients attack {asked.attack} does not average: "
                f"take {', '.join(able)} or autoattack-rand"
            )


def attacks_named(names: str) -> list[Mapping[str, object]]:
    """The attacks that names with commas between them ask for; a name may be that of a suite.

    Raises:
        ValueError: one is unknown.
    """
    asked: list[Mapping[str, object]] = []
    for name in (part.strip() for part in names.split(",")):
        if name in RENAMED_SUITES:
            raise ValueError(f"evaluate.attacks {name!r} is called {RENAMED_SUITES[name]!r} now")
        if name in SUITES:
            asked += SUITES[name]
        elif name in known_names("attacks") or is_users_code(name):
            asked.append({"attack": name})
        else:
            raise ValueError(f"evaluate.attacks {name!r} is unknown. {nearest(name, known_names('attacks'))}")
    return asked


DEAR_ATTACKS = ("fab", "square")
"""Those of AutoAttack that cost most and, on most robust networks, find least."""


def single_attacks(value: object) -> object:
    """Names of single attacks with commas between them, or a list of them."""
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, list | tuple):
        return value
    single = [key for key, entry in ATTACKS.items() if not entry.facts.suite]
    for name in map(str, names):
        if name not in single and not is_users_code(name):
            raise ValueError(f"evaluate.dear_attacks {name!r} is no single attack. {nearest(name, single)}")
    return tuple(names)
