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
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from PIL import Image

from .. import progress
from ..errors import UserError
from ..rundir import write_atomically
from .parts import PartNames
from .parts_folder import IMAGES, MASKS, TABLE

MANIFEST = "manifest.jsonl"
STAGE = ".unfinished"
JOURNAL = "journal.jsonl"
SHARE = 0.1  # the share of the samples for validation, and as large a one for testing, as in the paper
SPLITS = ("train", "val", "test")

Rows: TypeAlias = list[dict[str, Any]]


@dataclass(frozen=True)
class Options:
    """How a data set is prepared.

    Attributes:
        published: with the known defects of the published preparation.
        split: what stays together when train, val and test are drawn: "sample", "photograph" or "city".
        seed: of the split and of random crops.
        allow_missing: leave out images that annotations name and that are not there, instead of stopping.
    """

    published: bool = False
    split: str = "sample"
    seed: int = 0
    allow_missing: bool = False


@dataclass(frozen=True)
class Sample:
    """One image with its mask, ready to be written.

    Attributes:
        name: of its files, without suffix; no two samples of a class have the same.
        label: its class.
        photograph: what it was cut from: samples of one photograph resemble each other.
        image: a file that is copied as it is, or (H, W, 3) uint8 that becomes a PNG.
        mask: (H, W) uint8 part ids.
        city: where the photograph was taken, if the data set knows.
    """

    name: str
    label: str
    photograph: str
    image: Path | np.ndarray
    mask: np.ndarray
    city: str | None = None


@dataclass(frozen=True)
class Extracted:
    """What a unit yields: its samples, and for each reason how many others were left out."""

    samples: Sequence[Sample] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A data set that can be prepared, its source read.

    Attributes:
        name: such as "part-imagenet".
        names: classes and parts.
        units: the units by name, in an order that the source decides, never the file system.
        extract: a unit -> what it yields; called in other processes, so a module's function.
        pools: classes that are shuffled together when the split is drawn, in the order of the shuffles.
        count: a tenth of the samples (a float) -> how many go to val, and as many to test.
        published: how many samples the paper has.
        notes: what the user should know, such as images left out.
    """

    name: str
    names: PartNames
    units: Mapping[str, Any]
    extract: Callable[[Any], Extracted]
    pools: Sequence[Sequence[str]]
    count: Callable[[float], int]
    published: int
    notes: Sequence[str] = ()


class Planner(Protocol):
    """A function that reads a source folder and plans what there is to prepare."""

    def __call__(self, source: Path, options: Options) -> Plan:
        """Plan the preparation. Missing or damaged files raise a UserError."""
        ...


@dataclass(frozen=True)
class Prepared:
    """A complete preparation: the counts of samples for each split and class, and of those left out for each reason."""

    target: Path
    counts: Mapping[str, Mapping[str, int]]
    left_out: Mapping[str, int]
    notes: Sequence[str]
    published: int

    @property
    def total(self) -> int:
        """The number of samples in all splits."""
        return sum(sum(classes.values()) for classes in self.counts.values())


def prepare(plan: Plan, target: Path, options: Options, workers: int | None = None) -> Prepared:
    """Write a data set, or go on where an earlier call with the same plan was stopped.

    The result does not depend on the number of workers, on where it was stopped, or on the file system.

    Args:
        plan: what to write.
        target: a folder that is empty or new, or that the same preparation began.
        options: how the data set is prepared.
        workers: the number of processes; 1 for this process alone; one per CPU by default.

    Raises:
        UserError: if a source file is damaged (what is done stays done), or the target belongs to something else.
    """
    about = {
        "preparation": plan.name,
        "options": {"published": options.published, "split": options.split, "seed": options.seed},
        "units": hashlib.sha256("\n".join(plan.units).encode()).hexdigest()[:12],
    }
    stage = target / STAGE
    if (target / MANIFEST).exists():
        before = prepared_with(target)
        refuse_other(target, about, before)
        shutil.rmtree(stage, ignore_errors=True)  # a kill may have come between the manifest and this
        return _summary(plan, target, read_lines(target / MANIFEST), before["left_out"])
    journal = open_journal(target, about)
    with journal.open("a", encoding="utf-8") as file:
        done = _done(journal)
        todo = {name: unit for name, unit in plan.units.items() if name not in done}
        work = partial(_write_unit, extract=plan.extract, stage=stage, names=plan.names)
        workers = min(workers or os.cpu_count() or 1, max(1, len(todo)))
        with progress.track(f"preparing {plan.name}", len(plan.units), len(done)) as bar:
            try:
                for line in _results(work, todo, workers):
                    file.write(json.dumps(line) + "\n")
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
    sizes = np.bincount(sample.mask.reshape(-1), minlength=256)
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
        "bytes": [len(image), len(mask)],
        "sha256": [hashlib.sha256(image).hexdigest(), hashlib.sha256(mask).hexdigest()],
        "pixels": pixels_of_parts,
    }


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Not flushed to disk, which would take longer than all else together."""
    half = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        half.write_bytes(content)
        half.replace(path)
    except OSError as error:
        raise UserError(f"Could not write {path}: {error.strerror or error}. Free some space.") from error


def as_png(array: np.ndarray) -> bytes:
    """Encode an image or a mask as the bytes of a PNG file."""
    file = BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def open_journal(target: Path, about: Mapping[str, Any]) -> Path:
    """Open the journal of this preparation, whose first line says what it belongs to."""
    journal = target / STAGE / JOURNAL
    if journal.exists():
        lines = read_lines(journal)
        refuse_other(target, about, lines[0] if lines else {})
        # a line that a kill tore would be continued by the next one
        content = journal.read_bytes()
        if not content.endswith(b"\n"):
            write_atomically(journal, partial(Path.write_bytes, data=content[: content.rfind(b"\n") + 1]))
        return journal
    if target.exists() and any(path.name != STAGE for path in target.iterdir()):
        raise UserError(f"{target} is not empty: --target must name a new or empty folder.")
    write_atomically(journal, partial(Path.write_text, data=json.dumps(about) + "\n", encoding="utf-8"))
    return journal


def refuse_other(target: Path, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Refuse a folder that was prepared otherwise by a UserError."""
    for key, value in ours.items():
        if theirs.get(key) != value:
            raise UserError(
                f"{target} holds another preparation ({key}: {theirs.get(key)} there, {value} now): "
                "name another --target, or remove the folder."
            )


def prepared_with(target: Path) -> dict[str, Any]:
    """The options by which a complete folder was prepared."""
    options = json.loads((target / TABLE).read_text(encoding="utf-8")).get("prepared", {})
    assert isinstance(options, dict)
    return options


def read_lines(path: Path) -> Rows:
    """Read the whole lines of a file; a last one that a kill tore is passed over."""
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def _done(journal: Path) -> set[str]:
    return {line["unit"] for line in read_lines(journal)[1:]}


def _finish(plan: Plan, target: Path, options: Options, about: Mapping[str, Any]) -> Prepared:
    """Draw the splits, move the files, write the table and, last, the manifest."""
    stage = target / STAGE
    by_unit = {line["unit"]: line for line in read_lines(stage / JOURNAL)[1:]}
    lines = [by_unit[name] for name in plan.units]
    rows = [row for line in lines for row in line["samples"]]
    _no_twins(rows, target)
    left_out: Counter[str] = Counter()
    for line in lines:
        left_out.update(line["left_out"])
    for row, split in zip(rows, assign(rows, plan, options), strict=True):
        row["split"] = split
    manifest = [
        _moved(row, stage, target) for row in sorted(rows, key=lambda row: (row["split"], row["image"]))
    ]
    table = {
        "classes": sorted(plan.names),
        "parts": {name: dict(plan.names[name]) for name in sorted(plan.names)},
        "background": 0,
        "prepared": {**about, "left_out": dict(left_out)},
    }
    text = json.dumps(table, indent=1, ensure_ascii=False) + "\n"
    write_atomically(target / TABLE, partial(Path.write_text, data=text, encoding="utf-8"))
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in manifest)
    write_atomically(target / MANIFEST, partial(Path.write_text, data=text, encoding="utf-8"))
    shutil.rmtree(stage)
    return _summary(plan, target, manifest, left_out)


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


def assign(rows: Rows, plan: Plan, options: Options) -> list[str]:
    """Assign each row to a split.

    By sample: each pool is shuffled by numpy's ``RandomState(seed)``, one after the other; the first tenth is val, the
    next is test, as in the published preparations. By photograph or city: groups are shuffled, and fill val, then
    test, up to a tenth each; no group is in two splits.

    """
    if options.split != "sample":
        return _by_group([str(row[options.split]) for row in rows], options.seed)
    random = np.random.RandomState(options.seed)
    splits = ["train"] * len(rows)
    for pool in plan.pools:
        positions = np.array([i for i, row in enumerate(rows) if row["class"] in pool], dtype=np.int64)
        random.shuffle(positions)
        n = plan.count(SHARE * len(positions))
        for split, some in (("val", positions[:n]), ("test", positions[n : 2 * n])):
            for position in some.tolist():
                splits[position] = split
    return splits


def _by_group(groups: Sequence[str], seed: int) -> list[str]:
    sizes = Counter(groups)
    names = sorted(sizes)
    names = [names[i] for i in np.random.RandomState(seed).permutation(len(names)).tolist()]
    goal, split_of = SHARE * len(groups), {}
    waiting = ["val", "test"]
    filled = 0
    for name in names:
        split_of[name] = waiting[0] if waiting else "train"
        filled += sizes[name]
        if waiting and filled >= goal:
            waiting.pop(0)
            filled = 0
    return [split_of[group] for group in groups]


def _summary(plan: Plan, target: Path, manifest: Rows, left_out: Mapping[str, int]) -> Prepared:
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for line in manifest:
        counts[line["split"]][line["class"]] += 1
    lacking = {split: [name for name in plan.names if not counts[split][name]] for split in SPLITS}
    empty = [f"{split} has no {', '.join(names)}" for split, names in lacking.items() if names]
    return Prepared(target, counts, dict(left_out), [*plan.notes, *empty], plan.published)
