"""The evaluation of a target, which is kept in its run folder, and whose accuracies are printed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from .. import build, devices, distributed
from ..config import plain, readable, under_protocol
from ..errors import UserError
from ..evaluation import accuracy, part_quality, summaries
from ..evaluation.accuracy import widest
from ..evaluation.batches import read_batch
from ..evaluation.ledger import LedgerRow
from ..evaluation.memory_ledger import MemoryLedger
from ..evaluation.model_checks import Doubt, classifier_doubts, model_doubts, result_doubts
from ..evaluation.radii import draw_radii, keep_radii
from ..evaluation.sampling import read_sample, weigh_rows
from ..models.random_passes import seeded_passes
from ..progress import stage
from ..records import Record, fingerprint, hand_over
from ..rundir import RunDir, write_json
from ..seeding import derive
from .accuracy_table import print_accuracies, shares_of
from .case import RADII, Case, budgets_of, case_of, details_of, of_random_answers
from .claims import claims_of, refuse_claim, with_claim
from .holding import hold_results
from .keeping import keep
from .notes import say
from .recognition import recognise_model
from .samples import call_estimates, details_of_sample, lines_of, sample_doubts, sample_in_words
from .seeds import aggregate, print_claim
from .target import Target
from .targets import open_targets
from .views import keep_form

CHECKED = 64  # the number of images that a model is checked on before it is attacked
SLOW_BF16 = (
    "This processor computes bf16 in software: --evaluate.precision float32 is several times faster here."
)


@dataclass(frozen=True)
class Judged:
    """The result of an evaluation: the run, its accuracies, a row for each image and attack, and the case.

    A union of several budgets has no case of its own: its ``members`` are the results of each norm.
    """

    run: RunDir
    records: Sequence[Record]
    rows: Sequence[LedgerRow] = ()
    case: Case | None = None
    doubts: Sequence[Doubt] = ()
    members: Mapping[str, "Judged"] = field(default_factory=dict)


def evaluate(text: str, changes: Mapping[str, Any], *, trust: bool = False) -> list[Judged]:
    """The accuracies of what a text names, which are printed as well.

    For a group of seeds, their mean is printed too.

    Args:
        text: a run folder, a group of ``seed-*`` runs, or another of ``targets.FORMS``.
        changes: nested settings that differ from the run's own, such as {"evaluate": {"n": 100}}.
        trust: whether a TorchScript program may run.
    """
    distributed.start()
    judged = []
    for target in open_targets(text, under_protocol(changes, "evaluate"), trust=trust):
        judged.append(judge(target))
        if distributed.is_main():
            for member in judged[-1].members.values():
                print_accuracies(target.run, member.records)
            print_accuracies(target.run, judged[-1].records)
    if len(judged) > 1 and distributed.is_main():
        seeds = [int(outcome.run.config()["seed"]) for outcome in judged]
        aggregate(RunDir(Path(text).expanduser()), [shares_of(outcome.records) for outcome in judged], seeds)
        print_claim([record for outcome in judged for record in claims_of(outcome.records)])
    return judged


def judge(target: Target) -> Judged:
    """The result of evaluating a target, in one norm or against the union of the budgets of several."""
    norms, config = target.config.evaluate.norms, target.config
    with seeded_passes(target.model, derive(config.seed, "evaluation"), target.device):
        if len(norms) > 1:
            return _judge_union(target)
        case = case_of(target)
        refuse_claim(config.evaluate, case.radii)
        return _judge_case(case)


def _judge_union(target: Target) -> Judged:
    """The result against the union of budgets: each is judged as it is alone, and an image must survive all.

    Every norm has the ledger that an evaluation in this norm alone has, so that either goes on where the other stopped.
    """
    config = target.config
    refuse_claim(config.evaluate, None)
    cases = {}
    for norm, radius in config.evaluate.budgets(config.attack.norm):
        wanted = config.evaluate.model_copy(update={"norm": norm, "eps": radius, "claim": None})
        alone = replace(target, config=config.model_copy(update={"evaluate": wanted}))
        # All are made before the first runs, so that what does not fit is refused now.
        cases[norm] = case_of(alone)
    members = {norm: _judge_case(case) for norm, case in cases.items()}
    first = next(iter(cases.values()))
    details = {
        **_details(first, [doubt for member in members.values() for doubt in member.doubts]),
        "norm": ",".join(cases),
        "eps": [case.eps for case in cases.values()],
        "evaluation": fingerprint([case.key for case in cases.values()]),
        "evaluations": {norm: case.key for norm, case in cases.items()},
    }
    rows = {norm: member.rows for norm, member in members.items()}
    seconds = sum(case.ledger.seconds() for case in cases.values())
    records = [
        replace(metric, seed=config.seed, config=target.who["config"])
        for metric in summaries.union_metrics(rows, first.images.classes, details, seconds, first.draws)
    ]
    records = with_claim(config.evaluate, records)
    if distributed.is_main() and target.has_folder:
        target.run.add_once(records)
    elif distributed.is_main():
        hand_over(records, None)
    doubts = {doubt.name: doubt for member in members.values() for doubt in member.doubts}
    return Judged(target.run, records, summaries.unite(rows), doubts=list(doubts.values()), members=members)


def _judge_case(case: Case) -> Judged:
    """The result of one evaluation.

    It is kept in a folder that is named after everything that decides the result, or in memory.
    """
    target = case.target
    wanted, ledger = target.config.evaluate, case.ledger
    if wanted.parts:
        part_quality.refuse_without_parts(target.config.model.name, target.model, case.images)
    first = read_batch(case.images, torch.arange(min(CHECKED, len(case.images))), target.device)
    try:
        settings = {"by_draws": wanted.by_draws, "averaged": wanted.averages}
        doubts = [*target.doubts, *model_doubts(case.model, case.view, first, **settings)]
    except ValueError as error:
        raise UserError(f"{target.text}: {error}") from error
    slow = [SLOW_BF16] if wanted.precision == "bf16" and not devices.has_bf16(target.device) else []
    running = build.name_users_code(target.config, wanted.attacks)
    fallen_back = [] if case.why is None else [case.why]
    doubted = [f"{doubt.name}: {doubt.text}" for doubt in doubts]
    say([*running, *target.notes, *slow, *fallen_back, *doubted])
    with hold_results(target, ledger.folder):
        return _judge_held(case, doubts)


def _judge_held(case: Case, doubts: Sequence[Doubt]) -> Judged:
    """The result of one evaluation, while nobody else writes it.

    Args:
        case: the evaluation.
        doubts: the doubts about its model and its images.
    """
    target, ledger = case.target, case.ledger
    wanted, run = target.config.evaluate, target.run
    open_ledger(case)
    rows = accuracy.evaluate(
        case.model,
        case.view,
        case.images,
        case.attacks,
        budget_of=budgets_of(ledger, case.identity),
        ledger=ledger,
        procedure=case.procedure,
        title=f"evaluating {run.name}",
    )
    first_of_all = classifier_doubts(rows, case.images.classes)
    later = _result_doubts(case, rows)
    if case.sample is not None:
        sample, lines = read_sample(rows, case.attacks, case.sample), lines_of(case.sample, case.attacks)
        later += sample_doubts(sample, lines)
        say(sample_in_words(sample, lines))
    say([f"{doubt.name}: {doubt.text}" for doubt in (*first_of_all, *later)])
    details = _details(case, [*first_of_all, *doubts, *later])
    records = [*_metrics(case, rows, details), *(_part_metrics(case, details) if wanted.parts else ())]
    records = with_claim(wanted, records)
    if distributed.is_main() and target.has_folder:
        with stage("drawing pictures of what stood and fell"):
            keep(case, rows, records)
    elif distributed.is_main():
        hand_over(records, None)
    distributed.barrier()
    return Judged(run, records, rows, case, [*first_of_all, *doubts, *later])


def open_ledger(case: Case) -> None:
    """Make the folder of an evaluation, or go on with the one that is there, and draw the budgets.

    Whoever calls this holds the folder.
    """
    target = case.target
    if target.has_folder and distributed.is_main():
        _keep_settings(case.ledger.folder, target)
        case.ledger.open(case.identity)
        recognise_model(case.ledger.folder, target)
        keep_form(case.ledger.folder, target.model, case.view.form, case.why)
    if target.config.evaluate.eps_low is not None and (distributed.is_main() or not target.has_folder):
        _draw_radii(case)
    case.ledger.gather()


def _draw_radii(case: Case) -> None:
    """Draw the radii of a mask-aware attack once, for every attack, every process and ``verify`` to read."""
    target, path = case.target, case.ledger.folder / RADII
    config = target.config
    if target.has_folder and path.exists():
        return
    rule = build.build_mask_rule(config, config.evaluate.eps_low or 0.0)
    try:
        with stage("drawing the masks of the attack"):
            planes, flat = draw_radii(
                case.map_view, case.images, rule, case.budget,
                batch_size=case.sizes.batch_size, device=target.device, seed=config.seed,
            )  # fmt: skip
    except ValueError as error:  # the model shows no feature map to draw from
        raise UserError(f"evaluate.eps_low: {error}") from error
    if flat:
        say(
            [
                f"{flat} of {len(planes)} images have a flat map or no mask: they get the full radius everywhere."
            ]
        )
    if isinstance(case.ledger, MemoryLedger):
        case.ledger.radii[:] = [planes, case.images.index.cpu()]
    else:
        keep_radii(path, planes, case.images)


def _keep_settings(folder: Path, target: Target) -> None:
    """Write how the evaluation was asked for, so that it can be verified. This is no part of its identity."""
    write_json(folder / "settings.json", {"target": target.text, "config": plain(target.config)})


def _details(case: Case, doubts: Sequence[Doubt]) -> dict[str, Any]:
    """The details that every record of an evaluation holds."""
    target, wanted = case.target, case.target.config.evaluate
    return {
        **details_of(case),
        **({"radii": list(case.radii)} if len(case.radii) > 1 else {}),
        **({} if wanted.eps_low is None else {"eps_low": wanted.eps_low}),
        "precision": wanted.precision,
        "engine": wanted.engine,
        **({} if wanted.protocol is None else {"protocol": wanted.protocol}),
        **of_random_answers(wanted),
        **details_of_sample(case.sample, case.attacks),
        "evaluation": case.key,
        **({} if case.view.form == "fast" else {"view": {"form": case.view.form, "reason": case.why}}),
        "doubts": {doubt.name: doubt.text for doubt in doubts},
        **{k: v for k, v in target.who.items() if k != "config"},
    }


def _metrics(case: Case, rows: Sequence[LedgerRow], details: Mapping[str, Any]) -> list[Record]:
    target, wanted = case.target, case.target.config.evaluate
    details, seconds = dict(details), case.ledger.seconds()
    radii = case.radii if len(case.radii) > 1 else ()
    records = summaries.metrics(
        rows, case.images.classes, case.attacks, details, seconds, wanted.individual, radii, case.draws
    )
    if case.sample is not None:
        records = call_estimates(records, read_sample(rows, case.attacks, case.sample))
    records += summaries.median_distances(rows, details)
    return [replace(metric, seed=target.config.seed, config=target.who["config"]) for metric in records]


def _result_doubts(case: Case, rows: Sequence[LedgerRow]) -> list[Doubt]:
    """The doubts that the rows of each radius raise about the attacks, each doubt once."""
    individual, radii = case.procedure.individual, case.radii
    if len(radii) == 1:
        weights = None if case.sample is None else weigh_rows(rows, case.attacks, case.sample)
        return result_doubts(rows, case.attacks, individual, weights)
    doubts: dict[str, Doubt] = {}
    for radius in radii:
        here = summaries.rows_at(rows, case.attacks, radius, radii, individual)
        for doubt in result_doubts(here, case.attacks, individual):
            doubts.setdefault(doubt.name, Doubt(doubt.name, f"at radius {readable(radius)}, {doubt.text}"))
    return list(doubts.values())


def _part_metrics(case: Case, details: Mapping[str, Any]) -> list[Record]:
    """The records of how well parts are found, read from the run where it has them."""
    target = case.target
    labels, least = target.config.data.labels, target.config.data.parts_min_share
    details = {**details, **({} if labels == "parts" else {"labels": labels})}
    details |= {"parts_min_share": least} if least > 0 else {}
    known = {
        r.name: r
        for r in (target.run.records() if target.has_folder else ())
        if r.details.get("evaluation") == case.key
    }
    if known.keys() >= set(part_quality.NAMES):
        return [known[name] for name in part_quality.NAMES]
    records = part_quality.part_metrics(
        target.model, case.view, case.images, budget_of=widest(budgets_of(case.ledger, case.identity)),
        batch_size=case.sizes.batch_size, device=target.device, seed=target.config.seed, details=details,
    )  # fmt: skip
    return [replace(metric, config=target.who["config"]) for metric in records]
