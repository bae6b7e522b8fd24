"""What the preparations of part data sets share: parallel, resumable writing of one folder format, splits, a manifest.

    TARGET/images/<split>/<class>/x.jpg  parts/<split>/<class>/x.png  parts.json  manifest.jsonl

A preparation is a list of units (a photograph, a frame, an annotation file), each of which yields samples. Units are
worked on by several processes; every sample is written to ``TARGET/.unfinished``, and a unit counts once its line
stands in the journal there. When all are done the splits are drawn, the files move to their places, and the manifest
is written last: where it stands, the preparation is complete.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import locks, progress
from ..checksums import to_json
from ..errors import UserError
from ..parsing.limits import read_text
from ..records import file_hash
from ..rundir import write_atomically
from .drawn_splits import SPLITS, assign
from .parts import PartNames, largest
from .parts_folder import IMAGES, MASKS, TABLE
from .plans import Extracted, Options, Plan, Prepared, Sample
from .staging import (
    JOURNAL,
    LOCK,
    MANIFEST,
    REFUSED,
    STAGE,
    Rows,
    as_png,
    open_journal,
    prepared_with,
    read_lines,
    refuse_other,
    write_whole,
)  # fmt: skip


def prepare(
    plan: Plan, target: Path, options: Options, workers: int | None = None, wait: float = 0.0
) -> Prepared:
    """Write a data set, or go on where an earlier call with the same plan was stopped.

    The result does not depend on the number of workers, on where it was stopped, or on the file system.

    Args:
        plan: what to write.
        target: a folder that is empty or new, or that the same preparation began.
        options: how the data set is prepared.
        workers: the number of processes; 1 for this process alone; one per CPU by default.
        wait: how many seconds to wait for another process that prepares the same folder.

    Raises:
        UserError: if a source file is damaged (what is done stays done), the target belongs to something else, or
            another process is preparing it.
    """
    options = replace(options, split=options.split or plan.split)
    chosen = {"published": options.published, "split": options.split, "seed": options.seed}
    about = {
        "preparation": plan.name,
        "options": {**chosen, **plan.identity},
        "units": hashlib.sha256("\n".join(plan.units).encode()).hexdigest()[:12],
    }
    if not (target / MANIFEST).exists():
        with locks.hold(target / LOCK, f"the preparation of {target}", wait):
            # Another process may have written it while this one waited.
            if not (target / MANIFEST).exists():
                return _prepare(plan, target, options, workers, about)
    before = prepared_with(target)
    refuse_other(target, about, before)
    # A kill may have come between the manifest and the end. Nothing is left to do under the lock.
    shutil.rmtree(target / STAGE, ignore_errors=True)
    (target / LOCK).unlink(missing_ok=True)
    refused = _refused_before(target / REFUSED) if before.get("refused") else []
    return _summary(plan, target, read_lines(target / MANIFEST), before["left_out"], refused)


def _refused_before(file: Path) -> list[str]:
    """The lines on what an earlier preparation refused."""
    try:
        return read_text(file).splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is damaged: {error}. Remove the folder, and prepare again.") from None


def _prepare(
    plan: Plan, target: Path, options: Options, workers: int | None, about: Mapping[str, Any]
) -> Prepared:
    """Do the units that the journal lacks, and finish the folder."""
    stage, journal = target / STAGE, open_journal(target, about)
    with journal.open("a", encoding="utf-8") as file:
        done = {name for name, line in _done(journal).items() if _is_there(line, stage, target)}
        todo = {name: unit for name, unit in plan.units.items() if name not in done}
        work = partial(_write_unit, extract=plan.extract, stage=stage, names=plan.names)
        workers = min(workers or os.cpu_count() or 1, max(1, len(todo)))
        with progress.track(f"preparing {plan.name}", len(plan.units), len(done), unit="pieces") as bar:
            try:
                for line in _results(work, todo, workers):
                    file.write(to_json(line) + "\n")
                    file.flush()
                    bar.advance(1)
            except UserError as error:
                raise UserError(
                    f"{error} {len(_done(journal))} of {len(plan.units)} are done and stay; then run the same command."
                ) from error
    return _finish(plan, target, options, about)


def _results(
    work: Callable[[tuple[str, Any]], dict[str, Any]], todo: Mapping[str, Any], workers: int
) -> Iterator[dict[str, Any]]:
    """Yield what each unit wrote, in the order of the units."""
    if workers == 1:
        yield from map(work, todo.items())
        return
    # Forking this process would not be safe, because it has threads. A server without threads is forked instead.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"{__package__}.preparations"])
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            yield from pool.map(work, todo.items(), chunksize=4)
        finally:
            pool.shutdown(cancel_futures=True)


def _write_unit(
    unit: tuple[str, Any], *, extract: Callable[[Any], Extracted], stage: Path, names: PartNames
) -> dict[str, Any]:
    """Write a unit's samples and return its line of the journal."""
    name, content = unit
    extracted = extract(content)
    return {
        "unit": name,
        "samples": [_write_sample(sample, stage, names) for sample in extracted.samples],
        "left_out": dict(extracted.left_out),
        **({"refused": list(extracted.refused)} if extracted.refused else {}),
    }


def _write_sample(sample: Sample, stage: Path, names: PartNames) -> dict[str, Any]:
    if isinstance(sample.image, Path):
        suffix, image = sample.image.suffix.lower(), sample.image.read_bytes()
        suffix = ".jpg" if suffix == ".jpeg" else suffix
    else:
        suffix, image = ".png", as_png(sample.image)
    mask = as_png(sample.mask)
    for folder, ending, content in ((IMAGES, suffix, image), (MASKS, ".png", mask)):
        write_whole(stage / folder / sample.label / f"{sample.name}{ending}", content)
    sizes = np.bincount(sample.mask.reshape(-1), minlength=largest(names) + 1)
    pixels_of_parts = {
        f"{label} {part}": int(sizes[number])
        for label, parts in names.items()
        for part, number in parts.items()
        if sizes[number]
    }
    return {
        "image": f"{sample.label}/{sample.name}{suffix}",
        "class": sample.label,
        "photograph": sample.photograph,
        "city": sample.city,
        **({"in the source": sample.source} if sample.source else {}),
        "bytes": [len(image), len(mask)],
        "sha256": [hashlib.sha256(image).hexdigest(), hashlib.sha256(mask).hexdigest()],
        "pixels": pixels_of_parts,
    }


def _done(journal: Path) -> dict[str, dict[str, Any]]:
    """The last line of each unit in the journal, by its name."""
    return {line["unit"]: line for line in read_lines(journal)[1:]}


def _is_there(line: Mapping[str, Any], stage: Path, target: Path) -> bool:
    """Whether all that a unit wrote is there. Files are not flushed one by one: a loss of power may have taken some."""
    for row in line["samples"]:
        image = Path(row["image"])
        files = (IMAGES, image), (MASKS, image.with_suffix(".png"))
        for (folder, file), wanted in zip(files, row["sha256"], strict=True):
            places = [stage / folder / file, *(target / folder / split / file for split in SPLITS)]
            place = next(filter(Path.is_file, places), None)
            if place is None or file_hash(place) != wanted:
                return False
    return True


def _finish(plan: Plan, target: Path, options: Options, about: Mapping[str, Any]) -> Prepared:
    """Draw the splits, move the files, write the table and, last, the manifest."""
    stage = target / STAGE
    by_unit = _done(stage / JOURNAL)
    lines = [by_unit[name] for name in plan.units]
    rows = [row for line in lines for row in line["samples"]]
    _no_twins(rows, target)
    left_out = Counter(plan.left_out)
    for line in lines:
        left_out.update(line["left_out"])
    refused = [*plan.refused, *(text for line in lines for text in line.get("refused", ()))]
    if not rows:
        raise UserError(_nothing(plan, left_out, refused))
    for row, split in zip(rows, assign(rows, plan, options), strict=True):
        row["split"] = split
    manifest = [
        _moved(row, stage, target) for row in sorted(rows, key=lambda row: (row["split"], row["image"]))
    ]
    table = {
        "classes": sorted(plan.names),
        "parts": {name: dict(plan.names[name]) for name in sorted(plan.names)},
        "background": 0,
        "prepared": {
            **about,
            "left_out": dict(left_out),
            **({"refused": len(refused)} if refused else {}),
        },
    }
    if refused:
        text = "".join(f"{line}\n" for line in refused)
        write_atomically(target / REFUSED, partial(Path.write_text, data=text, encoding="utf-8"))
    os.sync()  # once for all images and masks: the manifest must not outlast them
    text = json.dumps(table, indent=1, ensure_ascii=False) + "\n"
    write_atomically(target / TABLE, partial(Path.write_text, data=text, encoding="utf-8"))
    text = "".join(to_json(line, ensure_ascii=False) + "\n" for line in manifest)
    write_atomically(target / MANIFEST, partial(Path.write_text, data=text, encoding="utf-8"))
    shutil.rmtree(stage)
    return _summary(plan, target, manifest, left_out, refused)


def _nothing(plan: Plan, left_out: Mapping[str, int], refused: Sequence[str]) -> str:
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(left_out.items()))
    first = f" {len(refused):,} annotations were refused, the first: {refused[0]}." if refused else ""
    return f"{plan.name}: no sample can be made of the source ({reasons or 'nothing is annotated'}).{first}"


def _moved(row: Mapping[str, Any], stage: Path, target: Path) -> dict[str, Any]:
    """Move a sample's two files to their places, unless an earlier call did; return its line of the manifest."""
    image = Path(row["image"])
    for folder, file, size in (
        (IMAGES, image, row["bytes"][0]),
        (MASKS, image.with_suffix(".png"), row["bytes"][1]),
    ):
        old, new = stage / folder / file, target / folder / row["split"] / file
        new.parent.mkdir(parents=True, exist_ok=True)
        if old.exists():
            old.replace(new)
        if not new.is_file() or new.stat().st_size != size:
            raise UserError(
                f"{new} is not what was written there: the disk lost it. Remove {target} and start again."
            )
    return {
        "path": f"{IMAGES}/{row['split']}/{row['image']}",
        "mask": f"{MASKS}/{row['split']}/{image.with_suffix('.png').as_posix()}",
        "class": row["class"],
        "split": row["split"],
        "source": row["photograph"],
        "sha256": row["sha256"][0],
        "mask_sha256": row["sha256"][1],
        "pixels": row["pixels"],
    }


def _no_twins(rows: Rows, target: Path) -> None:
    counts = Counter(Path(row["image"]).with_suffix("").as_posix() for row in rows)
    if twins := [name for name, count in counts.items() if count > 1]:
        raise UserError(
            f"Two samples would be written to {target} as {twins[0]}: the source has an id twice."
        )


def _summary(
    plan: Plan, target: Path, manifest: Rows, left_out: Mapping[str, int], refused: Sequence[str]
) -> Prepared:
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for line in manifest:
        counts[line["split"]][line["class"]] += 1
    lacking = {split: [name for name in plan.names if not counts[split][name]] for split in SPLITS}
    if plan.published is None:  # a split that is not there at all is one that the loader draws
        lacking = {split: names for split, names in lacking.items() if counts[split]}
    empty = [f"{split} has no {', '.join(names)}" for split, names in lacking.items() if names]
    return Prepared(target, counts, dict(left_out), [*plan.notes, *empty], plan.published, tuple(refused))
