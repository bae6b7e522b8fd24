"""The evaluation of a target under common corruptions, which is kept in its run folder and printed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from .. import build, distributed
from ..batch import Batch
from ..config import Config, under_protocol
from ..data.corruptions import constants_for, corrupt, read_textures, unfit
from ..data.corruptions.files import CorruptedFiles, open_files
from ..data.corruptions.folders import CorruptedFolders, open_folders
from ..data.image_sets import ImageSet, balanced_subset, content_fingerprint
from ..data.transforms import as_floats
from ..errors import UserError
from ..evaluation import corruption
from ..evaluation.corruption import CLEAN, PREFIX
from ..evaluation.ledger import Ledger
from ..evaluation.weights import weights_hash
from ..records import Record, fingerprint
from ..rundir import RunDir
from ..seeding import Keys
from ..terminal import open_console
from .holding import hold_results
from .judging import Judged
from .notes import say
from .seeds import aggregate
from .sizes import settle_sizes
from .target import Target
from .targets import open_targets

OfficialFiles = CorruptedFiles | CorruptedFolders
PUBLISHED = "published protocol (PART, Table 4): severity 1 of the test images"


def evaluate_corruptions(text: str, changes: Mapping[str, Any]) -> list[Judged]:
    """The accuracies of what a text names, under each corruption, which are printed as well.

    For a group of seeds, the means over the seeds are printed too.

    Args:
        text: a run folder, a group of ``seed-*`` runs, or another of ``targets.FORMS``.
        changes: nested settings that differ from the run's own, such as {"corruptions": {"severities": [1]}}.
    """
    distributed.start()
    targets = open_targets(text, under_protocol(changes, "corruptions"))
    judged = [Judged(target.run, _judge(target)) for target in targets]
    if len(judged) > 1 and distributed.is_main():
        seeds = [int(outcome.run.config()["seed"]) for outcome in judged]
        means = []
        for outcome in judged:
            means.append([r for r in outcome.records if "severity" not in r.name or "mean" in r.name])
        aggregate(RunDir(Path(text).expanduser()), means, seeds)
    return judged


def _judge(target: Target) -> list[Record]:
    config, images = target.config, target.images
    wanted, protocol = config.corruptions, build.protocol_of(config)
    followed = {} if protocol is None else {"protocol": protocol.key}
    if wanted.published and config.evaluate.split != "test":
        raise UserError("corruptions.published is of the test images: leave --evaluate.split out.")
    if config.evaluate.n is not None:
        images = balanced_subset(images, config.evaluate.n, seed=0)  # every run is judged on the same images
    files = _files(config, images)
    textures = None if wanted.frost is None else read_textures(wanted.frost)
    left_out = _left_out(wanted.names, images, files, textures is not None)
    names = [name for name in wanted.names if name not in left_out]
    if not names:
        raise UserError(f"no corruption is left to evaluate: {_reasons(left_out)}.")
    strengths = wanted.constants or constants_for(images.shape[1], images.shape[2])
    identity = {
        "model": weights_hash(target.model),
        "who": dict(target.who),
        "data": [images.name, images.split, images.fingerprint],
        "shape": images.shape,
        "images": fingerprint(images.index.tolist()),
        "n": len(images),
        **followed,
        "seed": config.seed,
        "source": f"generated, {strengths} constants" if files is None else "official files",
        "threads": torch.get_num_threads(),
        "device": target.device.type,
    }
    home = target.run.path / "corruptions"
    sizes = settle_sizes(
        home, identity, config.evaluate, target.model, images, target.device, entries=["batch_size"]
    )
    identity["batch_size"] = sizes.batch_size
    folder = home / fingerprint(identity)
    say([*target.notes, *([f"Left out: {_reasons(left_out)}."] if left_out else [])])
    with hold_results(target, folder):
        if distributed.is_main():
            Ledger(folder, 0).open(identity)
        distributed.barrier()
        counts = corruption.count(
            target.model,
            images,
            [CLEAN, *((name, severity) for name in names for severity in wanted.wanted)],
            corrupted=partial(
                _corrupted, files=files, textures=textures, seed=config.seed, constants=strengths
            ),
            stamp=partial(_stamp, files, textures),
            folder=folder,
            batch_size=sizes.batch_size,
            device=target.device,
            title=f"corrupting for {target.run.name}",
        )  # fmt: skip
    details = {
        "model": config.model.name,
        "data": target.data,
        "split": images.split,
        **({} if config.data.fold is None else {"fold": config.data.fold}),
        "shape": list(images.shape),
        "fingerprint": images.fingerprint,
        "corruptions_key": folder.name,
        "source": identity["source"],
        "published": wanted.published,
        **followed,
        **{k: v for k, v in target.who.items() if k != "config"},
    }
    records = [
        replace(metric, seed=config.seed, config=target.who["config"])
        for metric in corruption.metrics(counts, names, wanted.wanted, left_out, details)
    ]
    if distributed.is_main():
        target.run.add_once(records)
        _print(target.run.name, records, names, wanted.wanted, left_out)
    distributed.barrier()
    return records


def _stamp(files: OfficialFiles | None, textures: list[Tensor] | None, name: str) -> str:
    """A text that names what decides a count of a corruption beside the identity: the textures, or the file."""
    if files is not None and name != CLEAN[0]:
        return files.stamp(name)
    return content_fingerprint(textures) if textures and name == "frost" else ""


def _files(config: Config, images: ImageSet) -> OfficialFiles | None:
    """The official files of corrupted images, if they are asked for; under a protocol they must be, and whole."""
    wanted, protocol = config.corruptions, build.protocol_of(config)
    if wanted.source is not None:
        files = _open(wanted.source, images)
        if protocol is not None and distributed.is_main():
            files.check_official(images.name, wanted.names, wanted.wanted)
        return files
    if protocol is not None:
        raise UserError(
            f"protocol {protocol.key} is of the official files: name their folder with --corruptions.source DIR."
        )
    return None


def _open(source: Path, images: ImageSet) -> OfficialFiles:
    if images.name == "imagenet" and images.split == "test":
        return open_folders(source, images)
    if images.shape != (3, 32, 32) or images.split != "test":
        shape = "x".join(map(str, images.shape))
        raise UserError(
            f"corruptions.source holds the test set of CIFAR at 3x32x32, or of ImageNet: {images.name} is the "
            f"{images.split} split at {shape} here. Leave it out to corrupt these images."
        )
    files = open_files(source)
    files.check_labels(images.labels, images.index)
    return files


def _left_out(
    names: Sequence[str], images: ImageSet, files: OfficialFiles | None, textures: bool
) -> dict[str, str]:
    """The reason why a corruption cannot be evaluated, for each that cannot."""
    if files is not None:
        return {name: f"{files.folder} does not have it" for name in names if not files.has(name)}
    reasons = {name: unfit(name, images.shape[0], textures) for name in names}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _reasons(left_out: Mapping[str, str]) -> str:
    hint = " (--corruptions.frost DIR)"
    return "; ".join(
        f"{name}, {reason}{hint if 'textures' in reason else ''}" for name, reason in left_out.items()
    )


def _corrupted(
    batch: Batch,
    name: str,
    severity: int,
    *,
    files: OfficialFiles | None,
    textures: Sequence[Tensor] | None,
    seed: int,
    constants: Any,
) -> Tensor:
    """The images of a batch under one corruption, which are read from files or made here."""
    if files is not None:
        return as_floats(files.read(name, severity, batch.index).to(batch.images.device))
    keys = Keys(seed, "corruption", batch.index)
    return corrupt(batch.images, name, severity, keys, constants=constants, frost=textures)


def _print(
    run: str,
    records: Sequence[Record],
    names: Sequence[str],
    severities: Sequence[int],
    left_out: Mapping[str, str],
) -> None:
    """Print a table with a line for each corruption and a column for each severity, in per cent."""
    values = {record.name.removeprefix(PREFIX): record for record in records}
    clean, label = values["clean"], corruption.severities_text(severities)
    d = clean.details
    shows = d.get("protocol") or (PUBLISHED if d["published"] else label)
    title = f"{run}: accuracy in %, {d['data']} {d['split']}, n = {clean.n}, {d['source']}, {shows}"
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    several = len(severities) > 1
    for severity in severities:
        table.add_column(str(severity) if several else label, justify="right")
    if several:
        table.add_column("mean", justify="right")
    table.add_column("95 %", justify="right", no_wrap=True)

    def line(title: str, last: Record, cells: Sequence[Record] = ()) -> None:
        assert last.interval is not None
        low, high = last.interval
        percentages = [f"{100 * (record.value or 0):.2f}" for record in (*cells, last)]
        blank = [""] * (len(severities) + several - len(percentages))
        table.add_row(title, *blank, *percentages, f"{100 * low:.1f}-{100 * high:.1f}")

    line("clean", clean)
    for name in names:
        cells = [values[f"{name}/severity {severity}"] for severity in severities]
        line(name, values[f"{name}/{label}"], cells if several else ())
    for name in left_out:
        table.add_row(name, *["—"] * (len(severities) + several), "left out")
    for name, record in values.items():
        if name.startswith("mean of"):
            line(name.rpartition("/")[0], record)
    open_console().print(table)
