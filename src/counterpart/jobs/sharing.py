"""A model as a folder that others load, judge on and verify: weights, settings, ledgers and a card."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from torch import nn

from .. import records
from ..catalogue import is_users_code
from ..checksums import to_commented, to_json
from ..config import plain
from ..errors import UserError
from ..evaluation.ledger import Ledger
from ..evaluation.weights import weights_hash
from ..parsing.limits import read_text
from ..records import Record
from ..rundir import RunDir, read_json
from ..training.checkpoint import save_weights
from .exporting import header_of
from .hub_folders import HUB, repository, uploaded
from .model_card import lines_of, rows_of_numbers, write_card
from .notes import say
from .packed_code import CODE, pack_code
from .preprocessing import how_images_are_read
from .stored_evaluations import (
    LEDGER,
    SETTINGS,
    StoredEvaluation,
    accuracies_of,
    open_evaluation,
    pack_images,
    verify_stored,
)
from .target import Target
from .targets import open_single_target

CARD = "README.md"
OF_OTHER_WEIGHTS = "the evaluation {} is of other weights, and is left out."
BESIDE = ("result.json", "images.csv", "panel.safetensors")  # what a report shows of it


@dataclass(frozen=True)
class Shared:
    """A shared model.

    Attributes:
        place: the folder, or the address of the commit on the hub.
        evaluations: the names of the evaluations that it holds, each verified.
        left_out: why other evaluations are not in it, a sentence for each.
    """

    place: str
    evaluations: Sequence[str]
    left_out: Sequence[str]


def share_named(
    text: str, changes: Mapping[str, Any], to: str, licence: str | None = None, *, with_code: bool = False
) -> Shared:
    """Share what a text names, as ``share_target`` does; ``changes`` are nested settings."""
    return share_target(open_single_target(text, changes), to, changes, licence, with_code=with_code)


def bundle_run(
    path: Path, evaluations: Sequence[StoredEvaluation], changes: Mapping[str, Any], to: str
) -> Shared:
    """Write the model and the evaluations of a run folder into a folder that verifies alone, outside code included.

    Args:
        path: a run folder, of a training or of evaluations of a model from elsewhere.
        evaluations: its evaluations, each verified.
        changes: nested settings that say where data lie.
        to: a folder that does not exist yet.

    Raises:
        UserError: as of ``share_target``; or the folder holds no evaluation of a model from elsewhere.
    """
    if RunDir(path).checkpoint("best").exists():
        target = open_single_target(str(path), changes)
    elif evaluations:
        target = evaluations[0].target
    else:
        raise UserError(f"{path} holds no evaluation to bundle. Make one: counterpart evaluate {path}")
    return share_target(target, to, changes, with_code=True, verified=evaluations)


def share_target(
    target: Target,
    to: str,
    changes: Mapping[str, Any],
    licence: str | None = None,
    *,
    with_code: bool = False,
    verified: Sequence[StoredEvaluation] | None = None,
) -> Shared:
    """Write a model with its evaluations into a folder of its own, or send it to the hub.

    Every evaluation of these weights is verified before it goes in. The folder is complete or not there.

    Args:
        target: the model.
        to: a folder that does not exist yet, or hf://OWNER/NAME.
        changes: nested settings that say where data lie.
        licence: the licence of the weights.
        with_code: whether a network of the user's own code goes in together with that code.
        verified: the evaluations of the target's run, where they are verified already.

    Raises:
        UserError: the model cannot be rebuilt from a description, the folder exists, or a claim does not hold.
    """
    folder = None if to.startswith(HUB) else Path(to).expanduser()
    if folder is None:
        repository(to)  # a wrong address is refused before anything is verified
    elif folder.exists():
        raise UserError(f"{folder} exists: name a folder that does not, or remove it.")
    header = _header(target, with_code)
    if verified is None:
        evaluations, left_out = _verified(target, changes)
    else:
        evaluations, left_out = _of_these_weights(target, verified)
    say(left_out)
    parent = None if folder is None else folder.parent
    try:
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=parent, prefix=".share-") as place:
            draft = Path(place) / "folder"
            _fill(draft, target, header, evaluations, to, licence)
            if folder is None:
                where = uploaded(draft, to)
            else:
                draft.rename(folder)
                where = str(folder)
    except OSError as error:
        raise UserError(f"Could not write {to}: {error.strerror or error}.") from error
    return Shared(where, [evaluation.folder.name for evaluation in evaluations], left_out)


def _header(target: Target, with_code: bool) -> dict[str, Any]:
    """What the header of the weights says.

    Raises:
        UserError: nobody could rebuild the network by it.
    """
    class_map = target.class_map
    if class_map is not None and class_map.groups is not None:
        header = header_of(target, class_map.unmerged)
        if header:
            return {**header, "classes": list(target.images.classes), "groups": class_map.groups}
    header = header_of(target, target.model)
    if header:
        return header
    advice = "Export it: counterpart export."
    if is_users_code(target.text) and target.config.data.class_map is None:
        if with_code:
            about = {
                "classes": list(target.images.classes),
                "data": target.config.data.name,
                "fingerprint": "",
            }
            return {**about, "config": target.who["config"], "model": {"name": target.text}}
        advice = "Evaluate it, and pack it with its code: counterpart verify RUN --bundle DIR."
    raise UserError(
        f"{target.text} cannot be shared: its network is no network of Counterpart or timm alone, so that nobody could "
        f"rebuild it from a folder. {advice}"
    )


def check_card(run: RunDir, evaluations: Sequence[StoredEvaluation]) -> list[str]:
    """Hold the card and the list of files of a shared folder against what is there, and give a sentence for each fault.

    A folder that nobody shared has neither, and no faults.
    """
    if not run.manifest.exists():
        return []
    try:
        manifest = read_json(run.manifest)
        card = read_text(run.path / CARD, "TEXT").splitlines()
        hashes, shared = dict(manifest["files"]), set(manifest["evaluations"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        return [f"{run.path} is damaged: its {run.manifest.name} or {CARD} cannot be read ({error})."]
    there = _hashes(run.path)
    changed = [name for name, digest in hashes.items() if there.get(name) != digest]
    faults = []
    if changed:
        faults.append(f"{run.path}: {', '.join(changed[:5])} changed since it was shared.")
    opened = {evaluation.folder.name for evaluation in evaluations}
    borne_out: set[str] = set()
    for evaluation in evaluations:
        if evaluation.folder.name not in shared:  # whoever has the folder may judge the model anew
            continue
        lines = lines_of(evaluation)
        borne_out.update(lines)
        missing = [line for line in lines if line and line not in card]
        if missing:
            name = evaluation.folder.name
            faults.append(
                f"{run.path / CARD} does not say what the ledger {name} says: it lacks {missing[0]!r}."
            )
    invented = [line for line in rows_of_numbers(card) if line not in borne_out]
    if invented and shared <= opened:  # an evaluation that cannot be opened is a fault already
        faults.append(f"{run.path / CARD} says what no ledger says: {invented[0]!r}.")
    return faults


def _of_these_weights(
    target: Target, verified: Sequence[StoredEvaluation]
) -> tuple[list[StoredEvaluation], list[str]]:
    """Those evaluations that are of a target's weights, and why others are left out."""
    now = weights_hash(target.model)
    evaluations = [evaluation for evaluation in verified if evaluation.identity["model"] == now]
    others = [evaluation for evaluation in verified if evaluation.identity["model"] != now]
    return evaluations, [OF_OTHER_WEIGHTS.format(evaluation.folder.name) for evaluation in others]


def _verified(target: Target, changes: Mapping[str, Any]) -> tuple[list[StoredEvaluation], list[str]]:
    """The evaluations of a target's weights, each verified, and why others are left out."""
    evaluations, left_out = [], []
    if not target.has_folder:
        return [], []
    now = weights_hash(target.model)
    for folder in target.run.evaluation_folders:
        name = folder.name
        if Ledger(folder, 0).identity().get("model") != now:
            left_out.append(OF_OTHER_WEIGHTS.format(name))
            continue
        elsewhere = {section: changes[section] for section in ("data", "device") if section in changes}
        try:
            stored = open_evaluation(target.run, folder, elsewhere)
        except UserError as error:
            left_out.append(f"the evaluation {name} is left out: {error}")
            continue
        result = verify_stored(stored)
        if result.mismatches:
            raise UserError(
                f"{folder} does not hold: {len(result.mismatches)} of its claims fail ({result.mismatches[0]})."
            )
        if not accuracies_of(stored):
            left_out.append(
                f"the evaluation {name} is left out: its records are missing, which alone hold the estimates from a "
                "sample."
            )
            continue
        evaluations.append(stored)
    return evaluations, left_out


def _fill(
    draft: Path,
    target: Target,
    header: Mapping[str, Any],
    evaluations: Sequence[StoredEvaluation],
    to: str,
    licence: str | None,
) -> None:
    """Write all files of a shared folder."""
    copy = RunDir(draft)
    draft.mkdir()
    model: nn.Module = target.model
    if "groups" in header and target.class_map is not None:
        model = target.class_map.unmerged
    save_weights(copy.checkpoint("best"), model, {**header, "data": str(header["data"])})
    if is_users_code(str(header["model"]["name"])):
        pack_code(header["model"]["name"], draft / CODE)
    settings = _by_itself(without_places(plain(target.config)), target)
    _write(copy.config_file, to_commented(yaml.safe_dump(settings, sort_keys=False)))
    _write(draft / "environment.json", to_json({**records.environment(), "command": None}, indent=1))
    _write(draft / "preprocessing.json", to_json(how_images_are_read(target), indent=1))
    for evaluation in evaluations:
        _copy_evaluation(evaluation, draft / "evaluations" / evaluation.folder.name)
    names = {evaluation.folder.name for evaluation in evaluations}
    of_these = [record for record in target.run.records() if record.details.get("evaluation") in names]
    records.write(copy.records_file, [replace(record, provenance=_anonymous(record)) for record in of_these])
    doubts: dict[str, str] = {}
    for record in of_these:
        doubts |= record.details.get("doubts") or {}
    address = to if to.startswith(HUB) else Path(to).name
    moved = [
        replace(evaluation, folder=draft / "evaluations" / evaluation.folder.name)
        for evaluation in evaluations
    ]
    _write(draft / CARD, write_card(target, moved, doubts, address, licence))
    _write(copy.manifest, to_json({"evaluations": sorted(names), "files": _hashes(draft)}, indent=1))


def _copy_evaluation(evaluation: StoredEvaluation, folder: Path) -> None:
    """Copy the ledger of an evaluation, what a report shows of it, and the images that were judged."""
    folder.mkdir(parents=True)
    for name in (*LEDGER, *BESIDE):
        source = evaluation.folder / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns(".*"))
        elif source.exists():
            shutil.copyfile(source, folder / name)
    asked = {"target": evaluation.settings["target"], "config": dict(evaluation.settings["config"])}
    asked = without_places(asked)
    asked["config"] = _by_itself(asked["config"], evaluation.target)
    _write(folder / SETTINGS, to_json(asked, indent=1))
    pack_images(evaluation, folder)


def without_places(value: Any) -> Any:
    """Settings in which a path of this machine is the last name of it."""
    if isinstance(value, Mapping):
        return {name: without_places(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_places(inner) for inner in value]
    if isinstance(value, str) and value.startswith(("/", "~", "..")):
        return PurePosixPath(value).name
    return value


def _by_itself(settings: dict[str, Any], target: Target) -> dict[str, Any]:
    """Settings that say of the data what the run they come from said: a folder of its own has no other to ask.

    The class map stands without its file, in terms of the answers of the shared model; and data that the model did not
    learn from are of the size and the channels that it takes.
    """
    data = dict(settings["data"])
    if target.class_map is not None:
        data["class_map"] = dict(target.class_map.answers)
    if target.header is not None and target.header["data"] != data["name"]:
        channels, height, width = target.images.shape
        if data.get("size") is None and height == width:
            data["size"] = height
        if data.get("channels") is None and data["name"] == "folder":
            data["channels"] = channels
    return {**settings, "data": data}


def _anonymous(record: Record) -> dict[str, Any]:
    """Where a record comes from, without the paths of this machine in its command."""
    words = str(record.provenance.get("command") or "").split(" ")
    command = []
    for word in words:
        option, equals, value = word.partition("=")
        command.append(f"{option}={without_places(value)}" if equals else without_places(word))
    return {**record.provenance, "command": " ".join(command)}


def _hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file that a shared folder consists of; its card is its owner's to edit.

    Records grow where a folder is verified or judged, and what these write besides is not the sharer's.
    """
    hashes = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") for part in PurePosixPath(name).parts)
        if (
            path.is_file()
            and not hidden
            and name not in (CARD, RunDir(folder).manifest.name, "records.jsonl")
        ):
            hashes[name] = records.file_hash(path)
    return hashes


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
