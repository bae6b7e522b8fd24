"""What an evaluation leaves in its run folder: a table, pictures, a summary and records."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import build
from ..catalogue import find
from ..config import EvaluateSettings
from ..contracts import Rule
from ..evaluation import summaries
from ..evaluation.ledger import LedgerRow
from ..evaluation.panel import PanelAttack, PanelRule, draw_groups, draw_pictures, groups_of
from ..importance.rules import constant
from ..records import Record
from ..rundir import write_json
from .accuracy_table import accuracy_by_radius, shares_of
from .case import Case
from .claims import claims_of, summary_of

FEWEST_CLASSES = 4  # of a model on which standard AutoAttack is defined
# Settings of an evaluation that leave standard AutoAttack what it is; of any other, the default alone does.
CHOSEN = {
    "protocol", "attacks", "norm", "eps", "n", "weights", "parts", "engine", "batch_size", "chunk_size", "save_images",
    "claim",
}  # fmt: skip


def keep(case: Case, rows: Sequence[LedgerRow], records: Sequence[Record]) -> None:
    """Write those of table, panel, summary and records that are not there yet."""
    run, folder = case.target.run, case.ledger.folder
    earlier = [r for r in run.records() if r.details.get("evaluation") == case.key]
    known = {r.name for r in earlier}
    new_claims = [record for record in claims_of(records) if record.name not in known]
    table, panel, summary = folder / "images.csv", folder / "panel.safetensors", folder / "result.json"
    if not {"images", "panel"} <= known:
        summaries.write_table(table, rows, case.images.classes, case.draws)
        _write_panel(case, panel, rows)
    if "result" not in known or new_claims:
        known.discard("result")
        write_json(summary, _summary(case, records, [*claims_of(earlier), *new_claims]))
    condition = f"under {case.attacks[0].name}" if case.attacks else "without attack"
    lacking = _lacking(case)
    why = ""
    if lacking:
        why = f" Training's mask is {lacking}, which these images lack: their full radius is shown."
    files = [
        (table, "images", f"Per-image results of {run.name}."),
        (
            panel,
            "panel",
            f"Images of {run.name} {condition}, or what fooled them first: {_drawn(case, rows)}.{why}",
        ),
        (summary, "result", f"Result of {run.name} under the field names of RobustBench."),
    ]
    artifacts = [run.artifact(file, name, caption) for file, name, caption in files]
    more = {"evaluation": case.key, "fingerprint": case.images.fingerprint}
    artifacts = [replace(record, details={**record.details, **more}) for record in artifacts]
    run.add([record for record in [*records, *artifacts] if record.name not in known])


def _drawn(case: Case, rows: Sequence[LedgerRow]) -> str:
    """How the images of the panel were drawn, in words."""
    drawn = draw_groups(rows, case.target.config.seed)
    words = {
        "fooled": "that fooled the model",
        "held": "that held",
        "wrong": "that were wrong from the start",
    }
    if not case.attacks:
        words["held"] = "that were right"
    counts = [
        f"{len(drawn[name])} of {len(all_of):,} {words[name]}"
        for name, all_of in groups_of(rows).items()
        if case.attacks or name != "fooled"
    ]
    return f"{', '.join(counts)}; drawn at random with seed {case.target.config.seed}"


def _write_panel(case: Case, path: Path, rows: Sequence[LedgerRow]) -> None:
    config = case.target.config
    same = case.norm == config.attack.norm  # the radii of training mean nothing in another norm than theirs
    narrowed = config.train.masked and same and not config.evaluate.fixed_noise
    rule: Rule = constant
    if narrowed and _lacking(case) is None:
        rule = build.build_rule(config, case.target.who.get("trained_eps_low"))
    size = case.sizes.chunk_size

    def fooling(position: int) -> Tensor | None:
        name = rows[position].fooled_by
        units = [name] if case.sample is None else case.sample.units_of(name)
        for unit in units:
            saved = case.ledger.images(unit, position // size)
            if saved is not None and position in saved[1]:
                return saved[0][saved[1].index(position)]
        return None

    full = build.build_training_budget(config) if narrowed else case.budget
    draw_pictures(
        case.model,
        case.images,
        rows,
        attack=PanelAttack(case.view, case.budget, case.attacks[:1]),
        training=PanelRule(case.map_view, config.mask.map, rule, full),
        fooling=fooling,
        device=case.target.device,
        seed=config.seed,
    ).write(path)


def _lacking(case: Case) -> str | None:
    """The name of what training's mask was drawn from, where the images that are judged lack it."""
    if case.target.config.train.masked:
        match case.target.config.mask.rule:
            case "file" if case.images.masks is None:
                return "a file for each training image"
            case "annotated-parts" if case.images.parts is None:
                return "their annotated parts"
    return None


def _summary(case: Case, records: Sequence[Record], claims: Sequence[Record]) -> dict[str, Any]:
    """The result under RobustBench's field names (percentages as text), followed by fields of our own."""
    values = {r.name.removeprefix("accuracy/"): r for r in shares_of(records)}
    target, wanted = case.target, case.target.config.evaluate
    exact = _is_standard_autoattack(case)
    eps = case.eps * 255
    return {
        "name": target.run.name,
        "dataset": case.images.name,
        "architecture": target.config.model.name,
        "eps": f"{eps:.4g}/255" if case.norm == "linf" else f"{case.eps:g}",
        "clean_acc": f"{100 * (values['clean'].value or 0):.2f}",
        "autoattack_acc": f"{100 * (values['worst case'].value or 0):.2f}" if exact else None,
        "reported": None,
        "unreliable": bool(records[0].details["doubts"]),
        "counterpart": {
            "norm": case.norm,
            **({} if wanted.protocol is None else {"protocol": wanted.protocol}),
            **({"curve": _curve(case, records)} if len(case.radii) > 1 else {}),
            **_sampled(records),
            "n": len(case.images),
            "accuracies": {
                name: [r.value, r.interval] for name, r in values.items() if "estimate" not in r.details
            },
            "doubts": records[0].details["doubts"],
            **({"claims": [summary_of(claim) for claim in claims]} if claims else {}),
            "identity": case.identity,
        },
    }


def _sampled(records: Sequence[Record]) -> dict[str, Any]:
    """The design of a sample, and the accuracies that are estimates because of it; nothing where there is none."""
    if "sampled" not in records[0].details:
        return {}
    estimates = {}
    for record in records:
        if "estimate" in record.details:
            name = record.name.removeprefix("accuracy/")
            estimates[name] = {
                "value": record.value,
                **record.details["estimate"],
                "of_population": record.interval,
            }
    return {"sampled": records[0].details["sampled"], "estimates": estimates}


def _is_standard_autoattack(case: Case) -> bool:
    """Whether the worst case is that of standard AutoAttack alone, on all images: what RobustBench's field means."""
    whole = len(case.images) == len(case.target.images) and len(case.radii) == 1
    return (
        whole and case.target.classes >= FEWEST_CLASSES and asks_for_autoattack(case.target.config.evaluate)
    )


def asks_for_autoattack(wanted: EvaluateSettings) -> bool:
    """Whether settings ask for standard AutoAttack alone, with no option changed, whatever the budget."""
    names = [(asked.attack, asked.options) for asked in wanted.attacks]
    if names != [("autoattack", find("attacks", "autoattack").defaults)]:
        return False
    plain, others = EvaluateSettings(), set(EvaluateSettings.model_fields) - CHOSEN
    return all(getattr(wanted, name) == getattr(plain, name) for name in others)


def _curve(case: Case, records: Sequence[Record]) -> list[dict[str, Any]]:
    """The accuracies at each radius, with the smallest radius first."""
    return [
        {"eps": radius, "accuracies": {line: [r.value, r.interval] for line, r in here.items()}}
        for radius, here in accuracy_by_radius(case.radii, records).items()
    ]
