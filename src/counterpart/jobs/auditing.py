"""The audit of a target: the five behaviours of obfuscated gradients, as a table with verdicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table

from .. import build, distributed
from ..config import merge
from ..contracts import NamedAttack
from ..errors import UserError
from ..evaluation import accuracy
from ..evaluation.ledger import Ledger, LedgerRow
from ..evaluation.masking_checks import Behaviour, audit
from ..evaluation.memory_ledger import MemoryLedger
from ..records import Record, fingerprint
from .case import Case, case_of, of_random_answers
from .notes import say
from .recognition import recognise_model
from .targets import Target, claim, open_targets
from .views import keep_form


@dataclass(frozen=True)
class Audited:
    """The behaviours that an audit measured, and the case that they were measured on."""

    case: Case
    behaviours: Sequence[Behaviour]


SEARCH = {"evaluate": {"precision": "float32", "engine": "counterpart"}}
"""The settings that an audit searches with, whatever the run's own evaluation asks for."""


def audit_named(
    text: str, changes: Mapping[str, Any], *, steps: int, queries: int, draws: int
) -> list[Behaviour]:
    """The five behaviours of every model that a text names, which are printed and recorded as well."""
    distributed.start()
    behaviours: list[Behaviour] = []
    for target in open_targets(text, merge(changes, SEARCH)):
        audited = audit_target(target, steps=steps, queries=queries, draws=draws)
        if distributed.is_main():
            _print(audited.case, audited.behaviours)
        behaviours += audited.behaviours
    return behaviours


def audit_target(target: Target, *, steps: int, queries: int, draws: int) -> Audited:
    """The five behaviours of a model, which are recorded where its results are kept."""
    given = of_random_answers(target.config.evaluate)
    if given:
        raise UserError(
            f"an audit looks at single answers: evaluate.{next(iter(given))} is for counterpart evaluate."
        )
    case = case_of(target, "audits")
    if len(case.radii) > 1:
        raise UserError("an audit looks at one radius, and tries others itself: give one --evaluate.eps.")
    if target.has_folder:
        claim(target)
        if distributed.is_main():
            recognise_model(target.run.path / "audits" / case.key, target)
            keep_form(target.run.path / "audits" / case.key, target.model, case.view.form, case.why)
    effort = {"steps": steps, "queries": queries, "draws": draws}
    behaviours = audit(partial(_rows, case, effort), case.norm, case.eps, **effort)
    say([] if case.why is None else [case.why])
    if distributed.is_main() and target.has_folder:
        _keep(case, behaviours)
    distributed.barrier()
    return Audited(case, behaviours)


def _rows(
    case: Case, effort: Mapping[str, int], attacks: Sequence[NamedAttack], eps: float, name: str
) -> list[LedgerRow]:
    """The rows of every attack on all images that the model gets right.

    They lie in a ledger of their own, so that an audit that was stopped goes on.
    """
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
        target.model,
        case.view,
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
    case.target.run.add_once(records)


def _print(case: Case, behaviours: Sequence[Behaviour]) -> None:
    title = f"{case.target.run.name}: {len(case.images)} images, {case.norm} {case.eps:.4g}"
    if not behaviours:
        Console().print(f"{title}: the model classifies none correctly; there is nothing to audit.")
        return
    table = Table(title=title, title_justify="left", show_lines=True)
    for column in ("behaviour", "share of images that fell", "images", "verdict"):
        table.add_column(column)
    marks = {True: "as it should be: ", False: "SUSPICIOUS: ", None: ""}
    for behaviour in behaviours:
        numbers = "\n".join(f"{name}: {value:.1%}" for name, value in behaviour.numbers.items())
        table.add_row(
            behaviour.name, numbers, f"{behaviour.n:,}", f"{marks[behaviour.honest]}{behaviour.verdict}"
        )
    Console().print(table)
