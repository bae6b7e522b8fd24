"""A stored evaluation, opened again: its ledger, and the very model and images that it is of."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from .. import devices
from ..catalogue import is_users_code
from ..checksums import load_tensors, save_tensors
from ..config import Config, resolve
from ..contracts import NamedAttack
from ..data.image_sets import ImageSet, balanced_subset
from ..errors import UserError
from ..evaluation import accuracy, summaries
from ..evaluation.accuracy import units_of
from ..evaluation.ledger import Ledger
from ..evaluation.verify import Verified, verify
from ..evaluation.weights import weights_hash
from ..models.hub import read_metadata
from ..parsing import parse_json
from ..parsing.limits import refuse_large
from ..records import Record, file_hash, fingerprint
from ..renamed_settings import in_current_words
from ..report.runs import without_untried
from ..rundir import RunDir, read_json, write_atomically
from ..training import checkpoint
from .case import budgets_of, draw_plan_of, judged_model, on_corrupted
from .packed_code import run_packed_code
from .samples import plan_of_identity
from .stored_models import UNAVERAGED, load_checkpoint
from .target import Target
from .targets import open_targets

SETTINGS = "settings.json"
LEDGER = ("identity.json", "radii.safetensors", "units", "images")  # what the claims of an evaluation rest on
PACKED = "judged.safetensors"  # the images that were judged, in a folder that shall do without the data set


@dataclass(frozen=True)
class StoredEvaluation:
    """A stored evaluation with what it is of.

    Attributes:
        folder: the folder of its ledger.
        identity: everything that decides what its rows say.
        settings: the settings that it was asked for with.
        target: the model, and the images that were judged.
        packed: whether the images are those that the folder holds, and not the data set's.
    """

    folder: Path
    identity: Mapping[str, Any]
    settings: Mapping[str, Any]
    target: Target
    packed: bool

    @property
    def ledger(self) -> Ledger:
        """Its ledger."""
        return Ledger(self.folder, accuracy.chunks_of(self.target.images, self.identity["chunk_size"]))

    @property
    def digest(self) -> str:
        """The first 16 hex digits of a hash of all that its claims rest on: rows, attacked images, images judged."""
        names = []
        for name in (*LEDGER, PACKED):
            path = self.folder / name
            files = sorted(path.iterdir()) if path.is_dir() else [path]
            names += [file for file in files if file.is_file() and not file.name.startswith(".")]
        lines = [f"{file.relative_to(self.folder).as_posix()} {file_hash(file)}" for file in names]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    @property
    def attacks(self) -> list[NamedAttack]:
        """Its attacks by name, which cannot run."""
        nearest = self.identity.get("nearest", ())
        return [
            NamedAttack(name, _never, line, nearest=name in nearest)
            for name, line in self.identity["attacks"]
        ]


def open_evaluation(
    run: RunDir, folder: Path, changes: Mapping[str, Any], *, trust: bool = False
) -> StoredEvaluation:
    """A stored evaluation of a run folder, with the model and the images that it is of.

    Where its folder holds the images that were judged, they are taken, unless ``changes`` say where the data lie. Code
    that was packed into the folder, or a TorchScript program, runs where the user said ``trust``.

    Raises:
        UserError: its images were not saved, or the weights or data are not those of the ledger.
    """
    identity = Ledger(folder, 0).identity()
    asked = _settings(folder / SETTINGS)
    if not asked["config"]["evaluate"]["save_images"]:
        raise UserError(
            f"{folder} was made with --save-images false: evaluate again without that, then verify."
        )
    packed = (folder / PACKED).exists() and (changes.get("data") or {}).get("root") is None
    if packed:
        target = _packed_target(
            run, folder, identity, resolve(asked["config"], changes, source=str(folder)), trust
        )
    else:
        target = _target_on_its_data(run, identity, asked, changes, trust)
    images = target.images
    now = {
        "model": weights_hash(target.model),
        "data": [images.name, images.split, images.fingerprint],
        "images": fingerprint(images.index.tolist()),
        "n": len(images),
    }
    changed = [
        f"{name}: {identity[name]} there, {value} now"
        for name, value in now.items()
        if identity[name] != value
    ]
    if changed:
        raise UserError(f"{folder} cannot be verified, it belongs to something else ({'; '.join(changed)}).")
    return StoredEvaluation(folder, identity, asked, target, packed)


def verify_stored(stored: StoredEvaluation, *, eight_bits: bool = False) -> Verified:
    """The outcome of deriving every claim of a stored evaluation again.

    Raises:
        UserError: it cannot be verified, for instance because answers are not finite.
    """
    identity, target = stored.identity, stored.target
    try:
        return verify(
            judged_model(target),
            target.images,
            stored.attacks,
            stored.ledger,
            budget_of=budgets_of(stored.ledger, identity),
            batch_size=identity["batch_size"],
            device=target.device,
            individual=identity["individual"],
            eight_bits=eight_bits,
            plan=draw_plan_of(identity) or plan_of_identity(identity),
        )
    except ValueError as error:  # for instance where answers are not finite
        raise UserError(f"{stored.folder} cannot be verified: {error}") from error


def accuracies_of(stored: StoredEvaluation) -> list[Record]:
    """The accuracies of a stored evaluation, derived from its ledger.

    Where dear attacks were tried on a sample, the ledger alone gives no estimate: they are read from the run's records.
    Where no attack was tried, there is no worst case among them.
    """
    identity, images = stored.identity, stored.target.images
    if "sampled" in identity:
        metrics = [record for record in stored.target.run.records() if record.kind == "metric"]
        of_this = [record for record in metrics if record.details.get("evaluation") == stored.folder.name]
        return [record for record in of_this if record.name.startswith("accuracy/")]
    eps = identity["eps"]
    radii = eps if isinstance(eps, list) else []
    units = units_of(stored.attacks, tuple(radii) or (None,))
    rows = stored.ledger.rows(images.labels.tolist(), images.index.tolist(), list(units))
    draws = draw_plan_of(identity)
    records = summaries.metrics(
        rows, images.classes, stored.attacks, {"eps": eps}, 0.0, identity["individual"], radii,
        None if draws is None else draws.draws,
    )  # fmt: skip
    return without_untried(records)


def pack_images(stored: StoredEvaluation, folder: Path) -> None:
    """Write the images that were judged into the folder of a copy of the evaluation, as the model met them."""
    images = stored.target.images
    tensors = {
        "images": images.read(torch.arange(len(images))).cpu().contiguous(),
        "labels": images.labels.cpu(),
        "index": images.index.cpu(),
    }
    about = {
        "name": images.name, "split": images.split, "fingerprint": images.fingerprint, "classes": list(images.classes),
    }  # fmt: skip
    header = {"judged": json.dumps(about), "format": "pt"}
    write_atomically(folder / PACKED, partial(save_tensors, tensors, metadata=header))


def _packed_images(folder: Path) -> ImageSet:
    """The images that the folder of an evaluation holds.

    Raises:
        UserError: the file is damaged.
    """
    file = folder / PACKED
    try:
        refuse_large(file, "WEIGHTS")
        about = parse_json(read_metadata(file)["judged"])
        tensors = load_tensors(file)
        pixels, labels = tensors["images"], tensors["labels"]
        channels, height, width = pixels.shape[1:]
        if not len(pixels) == len(labels) == len(tensors["index"]) or int(labels.max()) >= len(
            about["classes"]
        ):
            raise ValueError("its columns do not fit each other")
        return ImageSet(
            name=str(about["name"]),
            split=str(about["split"]),
            classes=tuple(map(str, about["classes"])),
            labels=labels,
            index=tensors["index"],
            fingerprint=str(about["fingerprint"]),
            shape=(channels, height, width),
            pixels=pixels,
        )
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{file} is damaged: {error}.") from None


def _packed_target(
    run: RunDir, folder: Path, identity: Mapping[str, Any], config: Config, trust: bool
) -> Target:
    """The model that a folder holds and the images that were judged, from this folder alone."""
    device = devices.resolve(config.device, config.threads)
    file, images = run.checkpoint("best"), _packed_images(folder)
    weights, about = checkpoint.read(file)
    described = about.get("model")
    name = described.get("name") if isinstance(described, Mapping) else None
    model: nn.Module
    if isinstance(name, str) and is_users_code(name):
        model = run_packed_code(run.path, name, weights, images, device, trust)
    else:
        model, about = load_checkpoint(file, of_run=False)
    return Target(
        str(run.path), run, config, model.to(device).eval(), len(about["classes"]), images.to(device), device,
        identity["who"], header=about,
    )  # fmt: skip


def _target_on_its_data(
    run: RunDir,
    identity: Mapping[str, Any],
    asked: Mapping[str, Any],
    changes: Mapping[str, Any],
    trust: bool,
) -> Target:
    """The model that was judged, on those images of its data set that were judged."""
    trained = run.checkpoint("best").exists()
    text, which = asked["target"], identity["who"]["weights"]
    if trained:  # because the folder may have been moved
        text = str(run.path if which in ("best", "last", UNAVERAGED) else run.path / which)
    settings = _changes(asked["config"], run if not trained else None, changes)
    target = on_corrupted(next(open_targets(text, settings, trust=trust)))
    if identity["n"] < len(target.images):
        target = replace(target, images=balanced_subset(target.images, identity["n"], seed=0))
    return target


def _settings(file: Path) -> dict[str, Any]:
    """The target and the settings of an evaluation, as {"target": ..., "config": ...}."""
    try:
        asked = read_json(file)
        config = asked["config"]
        sound = isinstance(asked["target"], str) and isinstance(config["data"], dict)
        sound = sound and isinstance(config["evaluate"]["save_images"], bool)
    except (OSError, ValueError, LookupError, TypeError):
        sound = False
    if not sound:
        raise UserError(f"{file} is missing or damaged: without it nothing says how the evaluation was made.")
    return {**asked, "config": in_current_words(config)}


def _changes(config: Mapping[str, Any], outside: RunDir | None, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the evaluation had, overridden by those that say where things lie now."""
    evaluated = {
        name: config[name]
        for name in ("evaluate", "corruptions", "data", "threads", "seed")
        if config.get(name) is not None
    }
    # No masks are needed, because the planes of radii were kept.
    evaluated["evaluate"] = {**evaluated["evaluate"], "eps_low": None}
    if outside is not None:
        evaluated |= {"model": config["model"], "name": outside.name, "runs": str(outside.path.parent)}
    for section, value in changes.items():
        evaluated[section] = {**evaluated.get(section, {}), **value} if isinstance(value, Mapping) else value
    return evaluated


def _never(*_: object, **__: object) -> Any:
    raise AssertionError("verification runs no attack")
