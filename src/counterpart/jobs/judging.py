"""The evaluation of a target, which is kept in its run folder, and whose accuracies are printed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import build, devices, distributed
from ..attacks.auto_attack import finish
from ..batch import Batch
from ..budget import Budget
from ..build.attacks import Victim
from ..config import plain, readable
from ..data.image_sets import ImageSet, balanced_subset
from ..data.mask_files import masks_fingerprint
from ..errors import UserError
from ..evaluation import accuracy, part_quality, summaries
from ..evaluation.accuracy import Procedure, widest
from ..evaluation.ledger import Ledger, LedgerRow, weights_hash
from ..evaluation.memory_ledger import MemoryLedger
from ..evaluation.model_checks import Doubt, classifier_doubts, model_doubts, result_doubts
from ..evaluation.panel import PanelAttack, PanelRule, draw_pictures
from ..evaluation.radii import budgets_from, budgets_of_planes, draw_radii, keep_radii
from ..importance.rules import constant
from ..models.inference import InferenceView
from ..protocols import Classifier, NamedAttack, Rule
from ..records import Record, fingerprint
from ..renamed_settings import in_first_words
from ..rundir import RunDir, write_atomically
from .accuracy_table import DISTANCE, accuracy_by_radius, print_accuracies
from .notes import say
from .recognition import recognise_model
from .seeds import aggregate
from .targets import Target, claim, open_targets, surrogate
from .views import keep_form, settle_form, with_form

RADII = "radii.safetensors"
CHECKED = 64  # the number of images that a model is checked on before it is attacked
SLOW_BF16 = (
    "This processor computes bf16 in software: --evaluate.precision float32 is several times faster here."
)


@dataclass(frozen=True)
class Case:
    """A target, together with all that decides the result of its evaluation.

    Attributes:
        target: the model and its folder.
        images: the images that are evaluated.
        norm: the norm of the budget: "linf", "l2" or "l1".
        eps: the radius of the budget, or the largest where there are several.
        radii: all radii, rising.
        budget: the budget that norm and eps make.
        attacks: the attacks, in the order in which they run.
        view: the view of the model that the attacks search on.
        identity: everything that decides the ledger's rows.
        why: the reason why the view is not of the fast form, or None where it is.
    """

    target: Target
    images: ImageSet
    norm: str
    eps: float
    radii: Sequence[float]
    budget: Budget
    attacks: Sequence[NamedAttack]
    view: InferenceView
    identity: Mapping[str, Any]
    why: str | None = None

    @property
    def key(self) -> str:
        """The name of the evaluation."""
        return fingerprint(self.identity)

    @cached_property
    def map_view(self) -> InferenceView:
        """The view that maps are drawn from. It is another one where maps need more than attacks do."""
        options = build.choose_view_options(self.target.config)
        if not any(options.values()):
            return self.view
        precision = self.target.config.evaluate.precision
        return InferenceView(self.target.model, precision=precision, form=self.view.form, **options)

    @property
    def procedure(self) -> Procedure:
        """The procedure by which the case is evaluated."""
        wanted = self.target.config.evaluate
        return Procedure(
            chunk_size=wanted.chunk_size,
            batch_size=wanted.batch_size,
            device=self.target.device,
            seed=self.target.config.seed,
            individual=wanted.individual,
            save_images=wanted.save_images,
        )

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger of the rows, in the run's folder, or in memory where nothing shall be written."""
        chunks = accuracy.chunks_of(self.images, self.target.config.evaluate.chunk_size)
        if not self.target.has_folder:
            return MemoryLedger(chunks=chunks)
        return Ledger(self.target.run.path / "evaluations" / self.key, chunks)


@dataclass(frozen=True)
class Judged:
    """The result of an evaluation: the run, its accuracies, a row for each image and attack, and the case."""

    run: RunDir
    records: Sequence[Record]
    rows: Sequence[LedgerRow] = ()
    case: Case | None = None
    doubts: Sequence[Doubt] = ()


def evaluate(text: str, changes: Mapping[str, Any]) -> list[Judged]:
    """The accuracies of what a text names, which are printed as well.

    For a group of seeds, their mean is printed too.

    Args:
        text: a run folder, a group of ``seed-*`` runs, or another of ``targets.FORMS``.
        changes: nested settings that differ from the run's own, such as {"evaluate": {"n": 100}}.
    """
    distributed.start()
    judged = []
    for target in open_targets(text, changes):
        judged.append(judge(target))
        if distributed.is_main():
            print_accuracies(target.run, judged[-1].records)
    if len(judged) > 1 and distributed.is_main():
        seeds = [int(outcome.run.config()["seed"]) for outcome in judged]
        aggregate(RunDir(Path(text).expanduser()), [_shares(outcome.records) for outcome in judged], seeds)
    return judged


def _shares(made: Sequence[Record]) -> list[Record]:
    """Those records that are shares of images, and not distances."""
    return [record for record in made if not record.name.startswith(DISTANCE)]


def case_of(target: Target, kind: str = "evaluations") -> Case:
    """The case of a target: what to evaluate, and how.

    ``kind`` names the folder of the run that keeps the form of the view.
    """
    config, images = target.config, target.images
    wanted = config.evaluate
    if wanted.n is not None:
        images = balanced_subset(images, wanted.n, seed=0)  # every run is judged on the same images
    norm = wanted.norm or config.attack.norm
    if norm != config.attack.norm and wanted.eps is None:
        raise UserError(
            f"evaluate.norm {norm} differs from training's {config.attack.norm}: give its radius with --evaluate.eps."
        )
    radii = wanted.radii or (config.attack.eps,)
    eps, several = radii[-1], len(radii) > 1
    drawn = {**config.mask.model_dump(exclude={"files"}), "eps_low": wanted.eps_low}
    mask = in_first_words({"mask": drawn})["part"]
    if (users_masks := masks_fingerprint(images)) is not None:
        mask["masks"] = users_masks
    elsewhere = {"data": config.data.model_dump(exclude_unset=True)}
    surrogates = {}

    def load(text: str) -> Classifier:
        model = surrogate(text, target.device, elsewhere)
        surrogates[text] = weights_hash(model)
        return model

    attacks = build.build_attacks(wanted, Victim(norm, target.classes, target.model, images, load))
    in_float32 = wanted.precision == "bf16" and bool(attacks)
    names = [*attacks, *(finish(target.model, norm, target.classes) if in_float32 else ())]
    identity = {
        "model": weights_hash(target.model),
        "who": dict(target.who),
        "attacks": [[named.name, named.line] for named in names],
        "surrogates": surrogates,
        "options": [spec.model_dump(exclude_none=True) for spec in wanted.attacks],
        "norm": norm,
        "eps": list(radii) if several else eps,
        **({"nearest": [named.name for named in names if named.nearest]} if several else {}),
        **({} if wanted.eps_low is None else {"mask": mask}),
        **({} if not (code := build.hash_users_code(config)) else {"code": code}),
        "data": [images.name, images.split, images.fingerprint],
        "shape": images.shape,
        "labels": config.data.labels,
        "images": fingerprint(images.index.tolist()),
        "n": len(images),
        "seed": config.seed,
        "individual": wanted.individual,
        "engine": wanted.engine,
        "precision": wanted.precision,
        "batch_size": wanted.batch_size,
        "chunk_size": wanted.chunk_size,
        "threads": torch.get_num_threads(),
        "device": target.device.type,
        **({} if target.about is None else {"object": target.about}),
    }
    folder = target.run.path / kind if target.has_folder else None
    form, why = settle_form(folder, identity, target.model, images, target.device)
    if in_float32:
        attacks += finish(InferenceView(target.model, form=form), norm, target.classes)
    view = InferenceView(target.model, precision=wanted.precision, form=form)
    budget = build.build_budget(norm, eps)
    return Case(target, images, norm, eps, radii, budget, attacks, view, with_form(identity, form), why)


def judge(target: Target) -> Judged:
    """The result of evaluating a target.

    It is kept in a folder that is named after everything that decides the result, or in memory.
    """
    case = case_of(target)
    wanted, run, ledger = target.config.evaluate, target.run, case.ledger
    if wanted.parts:
        part_quality.refuse_without_parts(target.config.model.name, target.model, case.images)
    first = accuracy.read_batch(case.images, torch.arange(min(CHECKED, len(case.images))), target.device)
    try:
        doubts = [*target.doubts, *model_doubts(target.model, case.view, first)]
    except ValueError as error:
        raise UserError(f"{target.text}: {error}") from error
    slow = [SLOW_BF16] if wanted.precision == "bf16" and not devices.has_bf16(target.device) else []
    running = build.name_users_code(target.config, wanted.attacks)
    fallen_back = [] if case.why is None else [case.why]
    doubted = [f"{doubt.name}: {doubt.text}" for doubt in doubts]
    say([*running, *target.notes, *slow, *fallen_back, *doubted])
    open_ledger(case)
    rows = accuracy.evaluate(
        target.model,
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
    say([f"{doubt.name}: {doubt.text}" for doubt in (*first_of_all, *later)])
    details = _details(case, [*first_of_all, *doubts, *later])
    made = [*_metrics(case, rows, details), *(_part_metrics(case, details) if wanted.parts else ())]
    if distributed.is_main() and target.has_folder:
        keep(case, rows, made)
    distributed.barrier()
    return Judged(run, made, rows, case, [*first_of_all, *doubts, *later])


def open_ledger(case: Case) -> None:
    """Make the folder of an evaluation, or go on with the one that is there, and draw the budgets."""
    target = case.target
    if target.has_folder:
        claim(target)
        if distributed.is_main():
            _keep_settings(case.ledger.folder, target)
            case.ledger.open(case.identity)
            recognise_model(case.ledger.folder, target)
            keep_form(case.ledger.folder, target.model, case.view.form, case.why)
    if target.config.evaluate.eps_low is not None and (distributed.is_main() or not target.has_folder):
        _draw_radii(case)
    distributed.barrier()


def _draw_radii(case: Case) -> None:
    """Draw the radii of a mask-aware attack once, for every attack, every process and ``verify`` to read."""
    target, path = case.target, case.ledger.folder / RADII
    config = target.config
    if target.has_folder and path.exists():
        return
    rule = build.build_mask_rule(config, config.evaluate.eps_low or 0.0)
    try:
        planes, flat = draw_radii(
            case.map_view, case.images, rule, case.budget,
            batch_size=config.evaluate.batch_size, device=target.device, seed=config.seed,
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


def budgets_of(ledger: Ledger, identity: Mapping[str, Any]) -> accuracy.Budgets:
    """The budgets of an evaluation's attacks.

    They come from the planes of radii in its ledger, from one radius for all images, or from each of several
    radii.
    """
    if "mask" in identity and isinstance(ledger, MemoryLedger):
        return budgets_of_planes(*ledger.radii)
    if "mask" in identity:
        return budgets_from(ledger.folder / RADII)
    norm, eps = identity["norm"], identity["eps"]
    if isinstance(eps, list):
        return {radius: partial(_same_for_all, build.build_budget(norm, radius)) for radius in eps}
    return partial(_same_for_all, build.build_budget(norm, eps))


def _same_for_all(budget: Budget, _: Batch) -> Budget:
    return budget


def _keep_settings(folder: Path, target: Target) -> None:
    """Write how the evaluation was asked for, so that it can be verified. This is no part of its identity."""
    text = json.dumps({"target": target.text, "config": plain(target.config)}, indent=1)
    write_atomically(folder / "settings.json", lambda path: path.write_text(text, encoding="utf-8"))


def _details(case: Case, doubts: Sequence[Doubt]) -> dict[str, Any]:
    """The details that every record of an evaluation holds."""
    target, wanted = case.target, case.target.config.evaluate
    return {
        "model": target.config.model.name,
        "data": target.data,
        "split": case.images.split,
        "shape": list(case.images.shape),
        "fingerprint": case.images.fingerprint,
        "norm": case.norm,
        "eps": case.eps,
        **({"radii": list(case.radii)} if len(case.radii) > 1 else {}),
        **({} if wanted.eps_low is None else {"eps_low": wanted.eps_low}),
        "precision": wanted.precision,
        "engine": wanted.engine,
        "evaluation": case.key,
        **({} if case.view.form == "fast" else {"view": {"form": case.view.form, "reason": case.why}}),
        "doubts": {doubt.name: doubt.text for doubt in doubts},
        **{k: v for k, v in target.who.items() if k != "config"},
    }


def _metrics(case: Case, rows: Sequence[LedgerRow], details: Mapping[str, Any]) -> list[Record]:
    target, wanted = case.target, case.target.config.evaluate
    details, seconds = dict(details), case.ledger.seconds()
    radii = case.radii if len(case.radii) > 1 else ()
    made = summaries.metrics(
        rows, case.images.classes, case.attacks, details, seconds, wanted.individual, radii
    )
    made += summaries.median_distances(rows, details)
    return [replace(metric, seed=target.config.seed, config=target.who["config"]) for metric in made]


def _result_doubts(case: Case, rows: Sequence[LedgerRow]) -> list[Doubt]:
    """The doubts that the rows of each radius raise about the attacks, each doubt once."""
    individual, radii = case.procedure.individual, case.radii
    if len(radii) == 1:
        return result_doubts(rows, case.attacks, individual)
    doubts: dict[str, Doubt] = {}
    for radius in radii:
        here = summaries.rows_at(rows, case.attacks, radius, radii, individual)
        for doubt in result_doubts(here, case.attacks, individual):
            doubts.setdefault(doubt.name, Doubt(doubt.name, f"at radius {readable(radius)}, {doubt.text}"))
    return list(doubts.values())


def _part_metrics(case: Case, details: Mapping[str, Any]) -> list[Record]:
    """The records of how well parts are found, read from the run where it has them."""
    target, wanted = case.target, case.target.config.evaluate
    labels = target.config.data.labels
    details = {**details, **({} if labels == "parts" else {"labels": labels})}
    known = {
        r.name: r
        for r in (target.run.records() if target.has_folder else ())
        if r.details.get("evaluation") == case.key
    }
    if known.keys() >= set(part_quality.NAMES):
        return [known[name] for name in part_quality.NAMES]
    made = part_quality.part_metrics(
        target.model, case.view, case.images, budget_of=widest(budgets_of(case.ledger, case.identity)),
        batch_size=wanted.batch_size, device=target.device, seed=target.config.seed, details=details,
    )  # fmt: skip
    return [replace(metric, config=target.who["config"]) for metric in made]


def keep(case: Case, rows: Sequence[LedgerRow], made: Sequence[Record]) -> None:
    """Write those of table, panel, summary and records that are not there yet."""
    run, folder = case.target.run, case.ledger.folder
    known = {r.name for r in run.records() if r.details.get("evaluation") == case.key}
    table, panel, summary = folder / "images.csv", folder / "panel.safetensors", folder / "result.json"
    if not {"images", "panel", "result"} <= known:
        summaries.write_table(table, rows, case.images.classes)
        _write_panel(case, panel, rows)
        text = json.dumps(_summary(case, made), indent=1)
        write_atomically(summary, lambda path: path.write_text(text, encoding="utf-8"))
    shown = f"under {case.attacks[0].name}" if case.attacks else "without attack"
    lacking = _lacking(case)
    why = (
        f" Training's mask is {lacking}, which these images lack: their full radius is shown."
        if lacking
        else ""
    )
    files = [
        (table, "images", f"Per-image results of {run.name}."),
        (panel, "panel", f"Images of {run.name} {shown}, or what fooled them first.{why}"),
        (summary, "result", f"Result of {run.name} under the field names of RobustBench."),
    ]
    artifacts = [run.artifact(file, name, caption) for file, name, caption in files]
    more = {"evaluation": case.key, "fingerprint": case.images.fingerprint}
    artifacts = [replace(record, details={**record.details, **more}) for record in artifacts]
    run.add([record for record in [*made, *artifacts] if record.name not in known])


def _write_panel(case: Case, path: Path, rows: Sequence[LedgerRow]) -> None:
    config = case.target.config
    same = case.norm == config.attack.norm  # the radii of training mean nothing in another norm than theirs
    narrowed = config.train.masked and same
    rule: Rule = constant
    if narrowed and _lacking(case) is None:
        rule = build.build_rule(config, case.target.who.get("trained_eps_low"))
    size = config.evaluate.chunk_size

    def fooling(position: int) -> Tensor | None:
        saved = case.ledger.images(rows[position].fooled_by, position // size)
        return None if saved is None else saved[0][saved[1].index(position)]

    full = build.build_training_budget(config) if narrowed else case.budget
    draw_pictures(
        case.target.model,
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


def _summary(case: Case, made: Sequence[Record]) -> dict[str, Any]:
    """The result under RobustBench's field names (percentages as text), followed by fields of our own."""
    values = {r.name.removeprefix("accuracy/"): r for r in made if not r.name.startswith(DISTANCE)}
    target, wanted = case.target, case.target.config.evaluate
    standard = [
        spec
        for spec in wanted.attacks
        if spec.attack == "autoattack" and spec.options["version"] == "standard"
    ]
    exact = bool(standard) and wanted.precision == "float32" and target.classes >= 4
    eps = case.eps * 255
    return {
        "name": target.run.name,
        "dataset": case.images.name,
        "architecture": target.config.model.name,
        "eps": f"{eps:.4g}/255" if case.norm == "linf" else f"{case.eps:g}",
        "clean_acc": f"{100 * (values['clean'].value or 0):.2f}",
        "autoattack_acc": f"{100 * (values['worst case'].value or 0):.2f}" if exact else None,
        "reported": None,
        "unreliable": bool(made[0].details["doubts"]),
        "counterpart": {
            "norm": case.norm,
            **({"curve": _curve(case, made)} if len(case.radii) > 1 else {}),
            "n": len(case.images),
            "accuracies": {name: [r.value, r.interval] for name, r in values.items()},
            "doubts": made[0].details["doubts"],
            "identity": case.identity,
        },
    }


def _curve(case: Case, made: Sequence[Record]) -> list[dict[str, Any]]:
    """The accuracies at each radius, with the smallest radius first."""
    return [
        {"eps": radius, "accuracies": {line: [r.value, r.interval] for line, r in here.items()}}
        for radius, here in accuracy_by_radius(case.radii, made).items()
    ]
