"""The audit of a target: behaviours that tell whether attacks can be trusted, as a table with verdicts."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.table import Table

from .. import build, distributed
from ..config import merge
from ..contracts import Classifier, NamedAttack
from ..errors import UserError
from ..evaluation import accuracy
from ..evaluation.attack_traces import has_graph
from ..evaluation.batches import read_batch
from ..evaluation.further_checks import NECESSARY, Effort, Reachable, check, retry
from ..evaluation.ledger import Ledger, LedgerRow
from ..evaluation.masking_checks import Behaviour, audit, pgd_of, with_its_basis
from ..evaluation.memory_ledger import MemoryLedger
from ..progress import stage
from ..records import Record, fingerprint, hand_over
from ..terminal import open_console
from .case import Case, case_of, refuse_random_answers
from .holding import hold_results
from .notes import say
from .recognition import recognise_model
from .samples import refuse_sample
from .target import Target
from .targets import open_targets
from .views import keep_form


@dataclass(frozen=True)
class Audited:
    """The behaviours that an audit measured, and the case that they were measured on.

    ``cost`` is a sentence that says what it took.
    """

    case: Case
    behaviours: Sequence[Behaviour]
    cost: str


TRACED = 64  # the images that are looked at more closely
POINTS = 999  # inner points around each of them: those of the paper
SEARCH = {"evaluate": {"precision": "float32", "engine": "counterpart"}}
"""The settings that an audit searches with, whatever the run's own evaluation asks for."""


def audit_named(
    text: str,
    changes: Mapping[str, Any],
    *,
    steps: int,
    queries: int,
    draws: int,
    traced: int = TRACED,
    points: int = POINTS,
) -> list[Behaviour]:
    """The behaviours of every model that a text names, which are printed and recorded as well."""
    distributed.start()
    behaviours: list[Behaviour] = []
    for target in open_targets(text, merge(changes, SEARCH)):
        audited = audit_target(
            target, steps=steps, queries=queries, draws=draws, traced=traced, points=points
        )
        if distributed.is_main():
            _print(audited)
        behaviours += audited.behaviours
    return behaviours


def audit_target(
    target: Target, *, steps: int, queries: int, draws: int, traced: int = TRACED, points: int = POINTS
) -> Audited:
    """The behaviours of a model, which are recorded where its results are kept.

    Args:
        target: the model and its images.
        steps: the gradient steps of every iterative attack.
        queries: the queries of Square.
        draws: the random points that the random search tries for each image.
        traced: the number of images whose attacks are traced, and that an adversarial image is planted for.
        points: the points inside each budget that a planted image is told from.
    """
    refuse_random_answers(target.config.evaluate, "an audit")
    refuse_sample(target.config.evaluate, "an audit")
    case, began = case_of(target, "audits"), time.monotonic()
    if len(case.radii) > 1:
        raise UserError("an audit looks at one radius, and tries others itself: give one --evaluate.eps.")
    folder = target.run.path / "audits" / case.key
    with hold_results(target, folder):
        if target.has_folder and distributed.is_main():
            recognise_model(folder, target)
            keep_form(folder, target.model, case.view.form, case.why)
            Ledger(folder, 0).open(case.identity)  # tells the next start its sizes
        searched = _Searched(case, {"steps": steps, "queries": queries, "draws": draws})
        behaviours = audit(searched, case.norm, case.eps, steps=steps, queries=queries, draws=draws)
        if behaviours:
            with stage("tracing attacks, and planting images"):
                behaviours += _check_further(searched, Effort(steps, draws, points), traced)
        say([] if case.why is None else [case.why])
        if distributed.is_main():
            _keep(case, behaviours)
        distributed.barrier()
    return Audited(case, behaviours, searched.cost(time.monotonic() - began))


class _Searched:
    """Runs attacks for an audit, and remembers their rows and what they cost."""

    def __init__(self, case: Case, effort: Mapping[str, int]) -> None:
        self.case, self.effort = case, effort
        self.rows: dict[str, list[LedgerRow]] = {}
        self.forwards, self.backwards = 0, 0
        some = read_batch(case.images, torch.arange(1), case.target.device).images
        climbable = has_graph(case.view, some)
        self.model = case.target.model if climbable else Reachable(case.target.model)
        self.view: Classifier = case.view if climbable else Reachable(case.view)

    def __call__(
        self, attacks: Sequence[NamedAttack], eps: float, name: str, view: Classifier | None = None
    ) -> list[LedgerRow]:
        rows = self.rows[name] = _rows(self, attacks, eps, name, view or self.view)
        self.forwards += sum(row.forwards for row in rows)
        self.backwards += sum(row.backwards for row in rows)
        return rows

    def cost(self, seconds: float) -> str:
        """What the audit took, in words."""
        return (
            f"{self.forwards:,} forward and {self.backwards:,} backward passes of one image, {seconds:.0f} s "
            "(of an audit that goes on: since its start)."
        )


def _check_further(searched: _Searched, effort: Effort, traced: int) -> list[Behaviour]:
    """The checks beyond the five behaviours, on images that the model gets right, evenly chosen."""
    case, rows = searched.case, searched.rows["bounded"]
    right = torch.tensor([position for position, row in enumerate(rows) if row.right])
    chosen = right[torch.linspace(0, len(right) - 1, min(traced, len(right))).round().long()]
    parts = torch.split(chosen, case.procedure.batch_size)
    batches = [read_batch(case.images, part, case.target.device) for part in parts]
    budget = build.build_budget(case.norm, case.eps)
    model, seed = searched.model, case.target.config.seed
    fallen = torch.tensor(
        [not {"PGD", "APGD"}.isdisjoint(rows[position].fooled) for position in chosen.tolist()]
    )
    checked = check(model, case.view, batches, fallen.to(case.target.device), budget, seed, effort)
    searched.forwards += checked.forwards
    searched.backwards += checked.backwards

    def again(view: Classifier) -> list[LedgerRow]:
        return searched([pgd_of(effort.steps)], case.eps, "straight-through", view)

    retried = retry(case.target.model, batches[0], budget, seed, rows, again)
    return [*checked.behaviours, with_its_basis(retried, len(right))]


def _rows(
    searched: _Searched, attacks: Sequence[NamedAttack], eps: float, name: str, view: Classifier
) -> list[LedgerRow]:
    """The rows of every attack on all images that the model gets right.

    They lie in a ledger of their own, so that an audit that was stopped goes on.
    """
    case, effort = searched.case, searched.effort
    target = case.target
    identity = {
        **case.identity,
        **effort,
        "attacks": [attack.name for attack in attacks],
        "eps": eps,
        "audit": name,
    }
    chunks = accuracy.chunks_of(case.images, case.procedure.chunk_size)
    ledger: Ledger = MemoryLedger(chunks=chunks)
    if target.has_folder:
        ledger = Ledger(target.run.path / "audits" / fingerprint(identity), chunks)
    if distributed.is_main():
        ledger.open(identity)
    distributed.barrier()
    budget = build.build_budget(case.norm, eps)
    return accuracy.evaluate(
        searched.model,
        view,
        case.images,
        attacks,
        budget_of=lambda _: budget,
        ledger=ledger,
        procedure=replace(case.procedure, individual=True, save_images=False),
        title=f"auditing {target.run.name} ({name})",
    )


def _keep(case: Case, behaviours: Sequence[Behaviour]) -> None:
    details = {
        "data": case.images.name,
        "fingerprint": case.images.fingerprint,
        "norm": case.norm,
        "eps": case.eps,
        "audit": case.key,
    }
    records = [
        Record(
            "metric",
            f"audit/{behaviour.name}",
            None if behaviour.honest is None else float(behaviour.honest),
            behaviour.n,
            seed=case.target.config.seed,
            config=case.target.who["config"],
            details={**details, "numbers": behaviour.numbers, "verdict": behaviour.verdict},
        )
        for behaviour in behaviours
    ]
    if case.target.has_folder:
        case.target.run.add_once(records)
    else:
        hand_over(records, None)


def _print(audited: Audited) -> None:
    case, behaviours = audited.case, audited.behaviours
    title = f"{case.target.run.name}: {len(case.images)} images, {case.norm} {case.eps:.4g}"
    if not behaviours:
        open_console().print(f"{title}: the model classifies none correctly; there is nothing to audit.")
        return
    table = Table(title=title, title_justify="left", show_lines=True)
    for column in ("behaviour", "measured", "images", "verdict"):
        table.add_column(column)
    marks = {True: "as it should be: ", False: "SUSPICIOUS: ", None: ""}
    for behaviour in behaviours:
        numbers = "\n".join(f"{name}: {value:.1%}" for name, value in behaviour.numbers.items())
        table.add_row(
            behaviour.name, numbers, f"{behaviour.n:,}", f"{marks[behaviour.honest]}{behaviour.verdict}"
        )
    alarms = [behaviour.name for behaviour in behaviours if behaviour.honest is False]
    said = f"Suspicious, {len(alarms)} of {len(behaviours)}: {'; '.join(alarms)}." if alarms else "No alarm."
    open_console().print(table)
    open_console().print(f"{said} {NECESSARY}")
    open_console().print(f"Cost: {audited.cost}")
