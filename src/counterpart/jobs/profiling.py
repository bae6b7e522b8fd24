"""The where-profile of a target: accuracies if the attacker may move a region alone, kept in its run folder.

A profile is a family of ledgers in one folder, one for each region and draw:

    where/<key>/everything  where/<key>/object  where/<key>/object-other-0 ...
    where/<key>/<maps>/maps.safetensors  where/<key>/<maps>/top-25% ...

The key is that of the ordinary evaluation. A profile that was stopped goes on; one that asks for other shares or more
draws makes only what is not there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from .. import distributed, hosts
from ..catalogue import MAPS
from ..checksums import load_tensors, save_tensors
from ..data.image_sets import SPLIT_SEED, ImageSet, content_fingerprint
from ..data.mask_files import masks_of
from ..data.parts import part_names
from ..errors import UserError, nearest
from ..evaluation import accuracy
from ..evaluation.batches import read_batch
from ..evaluation.ledger import Ledger
from ..evaluation.memory_ledger import MemoryLedger
from ..evaluation.region_budgets import NORMS, budgets_of_region
from ..evaluation.regions import (
    KINDS,
    OF_MAPS,
    OF_PARTS,
    AttackRegion,
    RegionSource,
    draw_regions,
    images_to_judge,
    rank_pixels,
)
from ..evaluation.survivors import take_turns
from ..evaluation.where_profile import AreaBetween, RegionOutcome, WhereRow, areas_between, region_rows
from ..importance.rules import explain
from ..models.inference import InferenceView
from ..parsing.limits import refuse_large
from ..progress import Bar, stage, track
from ..records import Record
from ..rundir import sweep, write_atomically
from ..seeding import Keys
from .case import Case, case_of, refuse_random_answers
from .holding import hold_results
from .notes import say
from .profile_records import keep_profile, print_profile
from .recognition import recognise_model
from .samples import refuse_sample
from .target import Target
from .targets import open_targets
from .views import keep_form

SHARES = (0.05, 0.1, 0.25, 0.5)
DRAWS = 3


@dataclass(frozen=True)
class WhereOptions:
    """What a where-profile asks for.

    Attributes:
        regions: some of ``regions.KINDS``; None for those of maps, and those of parts where images have them.
        shares: the shares of the pixels of regions from maps and of windows, rising, in (0, 1).
        draws: how many random regions of each kind a region is compared with; 0 for none.
        map: the kind of map, one of the catalogue; None for that of the run's settings.
        layer: the module at whose output maps are drawn; None for that of the run's settings.
        map_class: what maps explain: "true", "predicted" or "margin"; None for that of the run's settings.
        masks: the user's own maps in place of the model's: a folder of grey PNG files, or a tensor (N, H, W).
    """

    regions: Sequence[str] | None = None
    shares: Sequence[float] = SHARES
    draws: int = DRAWS
    map: str | None = None
    layer: str | None = None
    map_class: str | None = None
    masks: Path | Tensor | None = None

    def __post_init__(self) -> None:
        if not self.shares or any(not 0 < share <= 1 for share in self.shares):
            shares_text = ", ".join(f"{share:g}" for share in self.shares)
            raise UserError(
                f"shares of the pixels lie above 0 and up to 1, such as 5%,25% or 0.05,0.25; got {shares_text}."
            )
        for kind in self.regions or ():
            if kind not in KINDS:
                raise UserError(f"region {kind!r} is unknown. {nearest(kind, KINDS)}")
        if self.map is not None and self.map not in MAPS:
            raise UserError(f"map {self.map!r} is unknown. {nearest(self.map, MAPS)}")
        if self.map_class not in (None, "true", "predicted", "margin"):
            raise UserError(f"map class {self.map_class!r}: expected true, predicted or margin.")
        if self.masks is not None and (self.map or self.layer or self.map_class):
            raise UserError("masks of your own stand in place of maps: leave map, layer and map class out.")

    @property
    def inner_shares(self) -> list[float]:
        """The shares, rising, without that of the whole image, which is the plain attack."""
        return sorted({share for share in self.shares if share < 1})


@dataclass(frozen=True)
class Profiled:
    """The where-profile of a target.

    Attributes:
        case: the evaluation that its ledgers are like, but for their budgets.
        key: the name of the profile in records.
        outcomes: what each region and random region left standing.
        rows: a line for each region.
        areas: the areas between curves.
        records: the numbers as records.
    """

    case: Case
    key: str
    outcomes: Sequence[RegionOutcome]
    rows: Sequence[WhereRow]
    areas: Sequence[AreaBetween]
    records: Sequence[Record]


def profile_named(text: str, changes: Mapping[str, Any], options: WhereOptions) -> list[Profiled]:
    """The where-profile of every model that a text names, which are printed and recorded as well."""
    distributed.start()
    profiles = []
    for target in open_targets(text, changes):
        profiled = profile(target, options)
        profiles.append(profiled)
        if distributed.is_main():
            print_profile(profiled.records, profiled.rows, profiled.areas)
    return profiles


def profile(target: Target, options: WhereOptions) -> Profiled:
    """The where-profile of a target, which is kept where its results are."""
    kinds = _kinds(target, options)
    refuse_random_answers(target.config.evaluate, "a where-profile")
    refuse_sample(target.config.evaluate, "a where-profile")
    case = case_of(target, "where")
    _refuse_other_budgets(case)
    with hold_results(target, target.run.path / "where" / case.key):
        return _profile_held(case, kinds, options)


def _profile_held(case: Case, kinds: Sequence[str], options: WhereOptions) -> Profiled:
    """The where-profile of a case, while nobody else writes it."""
    target, family = case.target, _open_family(case)
    maps_name, maps = "", None
    if set(kinds) & set(OF_MAPS):
        with stage("drawing maps"):
            maps_name, maps = _maps_of(case, family, options)
    source, notes = _source_of(case, kinds, maps)
    say([*target.notes, *([] if case.why is None else [case.why]), *notes])
    shares = options.inner_shares
    regions = draw_regions(source, kinds, shares, options.draws)
    turns = len(take_turns(case.attacks, (None,)))
    outcomes, seconds = [], 0.0
    with track(
        f"where {target.run.name}", turns * images_to_judge(source, kinds, shares, options.draws)
    ) as bar:
        for region in regions:
            outcome, spent = _judge_region(case, family, maps_name, region, bar)
            outcomes.append(outcome)
            seconds += spent
    class_of = [case.images.classes[label] for label in case.images.labels.tolist()]
    rows, areas = region_rows(outcomes, class_of), areas_between(outcomes, class_of)
    key = f"{case.key} {maps_name}".strip()
    records = keep_profile(case, key, rows, areas, seconds, source, shares)
    distributed.barrier()
    return Profiled(case, key, outcomes, rows, areas, records)


def _kinds(target: Target, options: WhereOptions) -> list[str]:
    """The kinds of regions to judge; those that need annotation are refused where there is none."""
    annotated = target.images.parts is not None and bool(target.images.parts.there.any())
    if options.regions is None:
        return [*OF_MAPS, *(OF_PARTS if annotated else ())]
    lacking = [kind for kind in options.regions if kind in OF_PARTS]
    if lacking and not annotated:
        raise UserError(
            f"region {lacking[0]}: the {target.images.split} images of {target.images.name} have no annotated parts. "
            "Ask for top, bottom or window."
        )
    if options.masks is not None and not set(options.regions) & set(OF_MAPS):
        raise UserError(
            "masks of your own say where top and bottom are: ask for these regions, or leave masks out."
        )
    return list(dict.fromkeys(options.regions))


def _refuse_other_budgets(case: Case) -> None:
    wanted = case.target.config.evaluate
    if case.norm not in NORMS:
        raise UserError(f"evaluate.norm {case.norm}: a region is moved in one of {', '.join(NORMS)}.")
    if len(case.radii) > 1:
        raise UserError("a where-profile has one radius inside a region: give one --evaluate.eps.")
    if wanted.engine != "counterpart":
        raise UserError("evaluate.engine official knows no regions: leave it out.")
    if not case.attacks:
        raise UserError("evaluate.attacks none: a where-profile needs an attack, such as pgd.")


def _open_family(case: Case) -> Path:
    """The folder of the profile's ledgers."""
    target, folder = case.target, case.target.run.path / "where" / case.key
    if target.has_folder and distributed.is_main():
        recognise_model(folder, target)
        keep_form(folder, target.model, case.view.form, case.why)
        Ledger(folder, 0).open(case.identity)  # tells the next start its sizes
    distributed.barrier()
    return folder


def _source_of(case: Case, kinds: Sequence[str], maps: Tensor | None) -> tuple[RegionSource, list[str]]:
    """What regions are drawn from, and sentences on it. All models meet the same random regions."""
    images, size = case.images, (case.images.shape[1], case.images.shape[2])
    keys = Keys(SPLIT_SEED, "where", images.index.cpu())
    ranking, notes = None, []
    if maps is not None:
        ranking, flat = rank_pixels(maps, size, keys)
        if bool(flat.any()):
            notes.append(
                f"{int(flat.sum())} of {len(flat)} images have a flat map: their pixels are ranked at random."
            )
    if not set(kinds) & set(OF_PARTS):
        return RegionSource(ranking, None, None, (), size, keys), notes
    assert images.parts is not None
    parts = images.read_parts(torch.arange(len(images))).to(torch.int16).cpu()
    names = part_names(images.parts.names)
    return RegionSource(ranking, parts, images.parts.there.cpu(), names, size, keys), notes


def _maps_of(case: Case, family: Path, options: WhereOptions) -> tuple[str, Tensor]:
    """The name of the maps, and the maps (N, h, w): the user's own, or those of the attacked model, drawn once."""
    if options.masks is not None:
        planes = _read_masks(case, options.masks)
        return f"masks {content_fingerprint([planes.contiguous()])}", planes
    words = _map_in_words(case, options)
    if not case.target.has_folder:
        return words, _draw_maps(case, options)
    file = family / words.replace(" ", "-") / "maps.safetensors"
    if distributed.is_main():
        sweep(file.parent)
    if distributed.is_main() and not file.exists():
        write_atomically(file, partial(save_tensors, {"maps": _draw_maps(case, options)}))
    hosts.complete(file.parent, [file.name])
    try:
        refuse_large(file, "WEIGHTS")
        return words, load_tensors(file)["maps"]
    except (OSError, SafetensorError, KeyError, ValueError):
        raise UserError(f"{file} is damaged: remove its folder, and run the same command again.") from None


def _map_in_words(case: Case, options: WhereOptions) -> str:
    """Such as "grad-cam", or "layer-cam at layer3 of margin"."""
    mask = case.target.config.mask
    kind = options.map or mask.map
    facts, chosen = MAPS[kind].facts, options.map_class or mask.map_class
    layer = options.layer or mask.layer
    if facts.of_attention and options.layer is not None:
        raise UserError(f"layer {options.layer}: map {kind} runs through all blocks; leave it out.")
    words = [kind]
    if layer is not None and not facts.of_attention:
        words.append(f"at {layer}")
    if facts.of_a_class and chosen != "true":
        words.append(f"of {chosen}")
    return " ".join(words)


def _read_masks(case: Case, masks: Path | Tensor | None) -> Tensor:
    """The user's own masks (N, H, W) of the images that are judged."""
    images = case.images
    if isinstance(masks, Path):
        return masks_of(images, masks)
    assert masks is not None
    everyone, size = len(case.target.images), tuple(images.shape[1:])
    if masks.ndim != 3 or tuple(masks.shape[1:]) != size or len(masks) not in (everyone, len(images)):
        raise UserError(
            f"masks have shape {tuple(masks.shape)}; expected ({len(images)}, {size[0]}, {size[1]}), "
            "one for each image."
        )
    planes = masks.detach().float().cpu()
    if not bool(planes.isfinite().all()):
        raise UserError("masks hold NaN or infinity; expected finite numbers.")
    if len(masks) == len(images):
        return planes
    place = {index: position for position, index in enumerate(case.target.images.index.tolist())}
    return planes[[place[index] for index in images.index.tolist()]]


def _draw_maps(case: Case, options: WhereOptions) -> Tensor:
    config, device = case.target.config, case.target.device
    kind = options.map or config.mask.map
    chosen = options.map_class or config.mask.map_class
    layer = None if MAPS[kind].facts.of_attention else options.layer or config.mask.layer
    maps = []
    try:
        view = InferenceView(
            case.target.model, form=case.view.form, layer=layer, attention=MAPS[kind].facts.of_attention
        )
        for positions in torch.split(torch.arange(len(case.images)), case.sizes.batch_size):
            batch = read_batch(case.images, positions, device)
            drawn = explain(view.probe(batch.images), batch.labels, chosen, kind)
            maps.append(drawn.detach().float().cpu())
    except ValueError as error:  # the model shows no such map
        reason = str(error).replace("mask.layer", "--layer").replace("mask.map", "--map")
        raise UserError(f"map {kind}: {reason}") from error
    return torch.cat(maps).contiguous()


def _judge_region(
    case: Case, family: Path, maps_name: str, region: AttackRegion, bar: Bar
) -> tuple[RegionOutcome, float]:
    """What the attacks leave standing if they may move a region alone, and the seconds that it took."""
    images: ImageSet = case.images
    if len(region.positions) < len(images):
        images = images.subset(region.positions)
    identity = {
        **case.identity,
        "images": content_fingerprint([images.index.cpu()]),
        "n": len(images),
        "region": [region.kind, region.folder, region.share],
        "mask": content_fingerprint([region.mask.contiguous()]),
    }
    chunks = accuracy.chunks_of(images, case.procedure.chunk_size)
    ledger: Ledger = MemoryLedger(chunks=chunks)
    if case.target.has_folder:
        home = family / maps_name.replace(" ", "-") if region.kind in OF_MAPS else family
        ledger = Ledger(home / region.folder.replace("/", "-").replace(" ", "-"), chunks)
        if distributed.is_main():
            ledger.open(identity)
    distributed.barrier()
    rows = accuracy.evaluate(
        case.target.model,
        case.view,
        images,
        case.attacks,
        budget_of=budgets_of_region(case.norm, case.eps, region.mask, images.index),
        ledger=ledger,
        procedure=replace(case.procedure, individual=False, save_images=False),
        title=region.folder,
        bar=bar,
    )
    outcome = RegionOutcome(
        region.name,
        region.kind,
        region.share,
        region.control,
        region.draw,
        region.positions.tolist(),
        [row.right and not row.fooled for row in rows],
        [row.right for row in rows],
        float(region.mask.float().mean()),
    )
    return outcome, ledger.seconds()
