"""Dear attacks on a sample, as jobs see them: from settings to a plan, and from rows to what is said of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..config import EvaluateSettings
from ..config.evaluation_attacks import DEAR_ATTACKS
from ..contracts import NamedAttack
from ..errors import UserError
from ..evaluation.model_checks import Doubt
from ..evaluation.sampling import SampleOutcome, SamplePlan
from ..records import WORST, Record

FEW = 0.01
"""The share of those tried that may fall before a sample is too little: then it spares much and leaves little open."""


def plan_sample(wanted: EvaluateSettings, attacks: Sequence[NamedAttack], seed: int) -> SamplePlan | None:
    """How the dear ones of some attacks are tried on a sample; None where none is asked for.

    Raises:
        UserError: a sample is asked for, and no attack is dear.
    """
    if wanted.sampled is None:
        return None
    dear = wanted.dear_attacks or DEAR_ATTACKS
    names = tuple(attack.name for attack in attacks if attack.key in dear)
    if not names:
        there = ", ".join(dict.fromkeys(attack.key or attack.line for attack in attacks)) or "none"
        raise UserError(
            f"evaluate.sampled {wanted.sampled} is for dear attacks, which are {', '.join(dear)}; those that run are "
            f"{there}. Name some of these as evaluate.dear_attacks, or leave out evaluate.sampled."
        )
    if wanted.sampled == "auto":
        return SamplePlan("auto", names, seed, wanted.sampled_width, wanted.sampled_looks)
    return SamplePlan(wanted.sampled, names, seed)


def plan_of_identity(identity: Mapping[str, Any]) -> SamplePlan | None:
    """The plan by which a ledger's dear attacks were tried; None where they met all survivors."""
    return SamplePlan.from_identity(identity["sampled"]) if "sampled" in identity else None


def refuse_sample(wanted: EvaluateSettings, job: str) -> None:
    """Refuse the settings of a sample.

    Raises:
        UserError: a sample is asked for, by a job that needs what all attacks do to all images.
    """
    if wanted.sampled is not None:
        raise UserError(
            f"{job} tries every attack on every image: evaluate.sampled is for counterpart evaluate."
        )


def details_of_sample(plan: SamplePlan | None, attacks: Sequence[NamedAttack]) -> dict[str, Any]:
    """What every record of an evaluation says of its sample; nothing where there is none."""
    if plan is None:
        return {}
    stated: dict[str, Any] = {"count": plan.count, "dear": lines_of(plan, attacks)}
    return {"sampled": stated | ({"width": plan.width, "looks": plan.looks} if plan.count == "auto" else {})}


def lines_of(plan: SamplePlan, attacks: Sequence[NamedAttack]) -> list[str]:
    """The lines of the table that the dear attacks count for."""
    return list(dict.fromkeys(attack.line for attack in attacks if attack.name in plan.dear))


def call_estimates(records: Sequence[Record], sample: SampleOutcome) -> list[Record]:
    """The records, of which those that stand on a sample become estimates and say so.

    Their interval is that of the population. No estimate is made for a class, of which few images were tried.
    """
    if sample.complete:
        return list(records)
    called = []
    for record in records:
        name = record.name.removeprefix("accuracy/")
        if name in sample.estimates:
            value, of_these_images, of_population = sample.estimates[name]
            counts = {"survivors": sample.survivors, "tried": sample.tried, "fell": sample.fell[name]}
            details = {key: value for key, value in record.details.items() if key != "per_class"}
            details["estimate"] = {**counts, "of_these_images": list(of_these_images)}
            record = replace(record, value=value, interval=of_population, details=details)
        called.append(record)
    return called


def sample_in_words(sample: SampleOutcome, lines: Sequence[str]) -> list[str]:
    """A note on what was tried on whom; none where every survivor was tried."""
    if sample.complete:
        return []
    return [
        f"{sample.tried:,} of {sample.survivors:,} survivors, drawn at random, met {' and '.join(lines)}: accuracies "
        "that rest on these attacks are estimates, and so is the worst case."
    ]


def sample_doubts(sample: SampleOutcome, lines: Sequence[str]) -> list[Doubt]:
    """The doubt that so many of a sample fell that all survivors should be tried."""
    fell = sample.fell[WORST]
    if sample.complete or fell <= FEW * sample.tried:
        return []
    low, high = sample.estimates[WORST].of_these_images
    return [
        Doubt(
            "sample too small",
            f"{fell:,} of the {sample.tried:,} survivors that met {' and '.join(lines)} fell "
            f"({fell / sample.tried:.1%}), so that the worst case on these very images is only known to lie between "
            f"{low:.2%} and {high:.2%}: run it in full, without evaluate.sampled.",
        )
    ]
