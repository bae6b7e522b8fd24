"""Clean and robust accuracy: a row per image, committed chunk by chunk, so that a killed evaluation goes on.

The evaluator trusts nobody. Attacks search on a fast view of the model; a success counts only if the original
model in float32 is fooled by exactly these pixels and ``budget.contains`` holds.
"""

import csv
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from .. import devices, distributed
from ..batch import Batch
from ..budget import Budget
from ..checks import check_unit_range
from ..data.image_sets import ImageSet
from ..data.loaders import batches
from ..data.transforms import as_floats
from ..errors import NotFinite, UserError
from ..progress import track
from ..protocols import Attack, Classifier
from ..records import Record
from ..rundir import write_atomically
from ..seeding import Keys
from .statistics import wilson

BudgetOf = Callable[[Tensor], Budget]
"""Clean images -> what the attacker may do to them."""


@dataclass(frozen=True)
class NamedAttack:
    """An attack with its options bound, and the name it has in records. Without attack: the clean images."""

    name: str
    attack: Attack | None


@dataclass(frozen=True)
class Row:
    """One image: who it is, what the model says, and which attack fooled it first.

    Attributes:
        index: data-set index.
        label: true class.
        clean: predicted class of the clean image.
        fooled_by: first attack in the list that fooled it; "" if none, "clean" if it was wrong anyway.
        adversarial: predicted class after each attack, by name; the clean prediction where it was not tried.
        forwards: passes spent on it, all attacks together.
        backwards: likewise.
    """

    index: int
    label: int
    clean: int
    fooled_by: str
    adversarial: dict[str, int]
    forwards: int
    backwards: int


@torch.no_grad()
def predictions(model: nn.Module, images: Tensor) -> Tensor:
    """Classes (B,) by the original model: eval mode, float32, no autocast. Its modes are put back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.autocast(images.device.type, enabled=False), devices.exact_float32():
            logits = model(images.float())
    finally:
        for module, training in modes:
            module.training = training
    assert isinstance(logits, Tensor)
    if not bool(logits.isfinite().all()):
        raise NotFinite("the model returns logits that are not finite; it cannot be evaluated.")
    return logits.argmax(dim=1)


def judge(
    model: nn.Module, attacked: Tensor, clean: Tensor, labels: Tensor, budget: Budget
) -> tuple[Tensor, Tensor]:
    """Whether each image counts as fooled (B,), and the predicted classes (B,)."""
    answers = predictions(model, attacked)
    return (answers != labels) & budget.contains(attacked, clean), answers


def quick(
    model: nn.Module,
    view: Classifier,
    images: ImageSet,
    *,
    budget_of: BudgetOf,
    attack: Attack,
    batch_size: int,
    device: torch.device,
    seed: int,
) -> tuple[float, float]:
    """(clean, robust) accuracy by one attack, for validation during training; shared between processes."""
    counts = torch.zeros(3, dtype=torch.int64, device=device)
    for batch in batches(images, batch_size=batch_size, device=device):
        if len(batch) == 0:  # a small last batch may leave a process without images
            continue
        right, kept = _right_and_kept(model, view, batch, budget_of, attack, seed)
        counts += torch.stack([right.sum(), kept.sum(), torch.tensor(len(batch), device=device)])
    distributed.sum_([counts])
    right_n, kept_n, n = counts.tolist()
    return right_n / n, kept_n / n


def _right_and_kept(
    model: nn.Module, view: Classifier, batch: Batch, budget_of: BudgetOf, attack: Attack, seed: int
) -> tuple[Tensor, Tensor]:
    right = predictions(model, batch.images) == batch.labels
    kept = right.clone()
    if right.any():
        tried = batch.select(right)
        budget = budget_of(tried.images)
        keys = Keys(seed, "validation", tried.index)
        attacked = attack(view, tried.images, tried.labels, budget=budget, keys=keys)
        kept[right] = ~judge(model, attacked.images, tried.images, tried.labels, budget)[0]
    return right, kept


def evaluate(
    model: nn.Module,
    view: Classifier,
    images: ImageSet,
    attacks: Sequence[NamedAttack],
    *,
    budget_of: BudgetOf,
    folder: Path,
    batch_size: int,
    device: torch.device,
    seed: int,
    save_images: bool = False,
    title: str = "evaluation",
) -> list[Row]:
    """Every image under every attack.

    Each attack tries all images that the model gets right, so that its own accuracy can be read; the worst case
    over attacks is taken per image. Chunks have fixed membership; each (attack, chunk) is one file in
    ``folder/chunks``, written atomically and never made twice. Under ``torchrun`` chunks are dealt out over
    processes.

    Args:
        model: the original, judged in float32.
        view: what the attacks search on.
        images: what to evaluate.
        attacks: in the order in which "first" is meant.
        budget_of: what the attacker may do.
        folder: where chunks go; the caller names it after everything that decides the result.
        batch_size: images a chunk.
        device: where to compute.
        seed: of the attacks' randomness.
        save_images: keep what every attack returned, as ``folder/images/<attack>-<chunk>.safetensors``.
        title: words before the progress bar.

    Returns:
        A row per image, in data-set order.
    """
    stages = [_CLEAN, *attacks]
    chunks = -(-len(images) // batch_size)
    todo = [
        (stage, chunk)
        for stage in stages
        for chunk in range(chunks)
        if chunk % distributed.world_size() == distributed.rank()
        and not _is_done(folder, stage, chunk, save_images)
    ]
    total = len(stages) * len(images)
    left = sum(min(batch_size, len(images) - chunk * batch_size) for _, chunk in todo)
    with track(title, total, done=total - left) as bar, devices.exact_float32():
        for stage, chunk in todo:
            bar.describe(f"{title}: {stage.name}")
            batch = _chunk(images, chunk, batch_size, device)
            attempt = partial(_attempt, model, view, budget_of=budget_of, seed=seed)
            try:
                written, found = attempt(batch, stage, _answers(folder, stage, chunk))
            except (RuntimeError, MemoryError) as error:
                if not devices.is_out_of_memory(error):
                    raise
                raise _no_memory(attempt, batch, stage, _answers(folder, stage, chunk)) from error
            if save_images and found is not None:
                tensors = {
                    "images": found.cpu(),
                    "index": batch.index.cpu(),
                    "fooled": torch.tensor(written["fooled"]),
                }
                write_atomically(_image_file(folder, stage.name, chunk), partial(save_file, tensors))
            text = json.dumps(written)
            target = _chunk_file(folder, stage.name, chunk)
            write_atomically(target, partial(_write_text, text=text))
            bar.advance(len(batch))
    distributed.barrier()
    return _rows(images, attacks, folder, chunks)


_CLEAN = NamedAttack("clean", None)


def _chunk_file(folder: Path, name: str, chunk: int) -> Path:
    return folder / "chunks" / f"{name.replace(' ', '-')}-{chunk:05}.json"


def _image_file(folder: Path, name: str, chunk: int) -> Path:
    return folder / "images" / f"{name.replace(' ', '-')}-{chunk:05}.safetensors"


def _is_done(folder: Path, stage: NamedAttack, chunk: int, save_images: bool) -> bool:
    """Images that are asked for only now are made again with the same draws."""
    wanted = save_images and stage.attack is not None
    saved = not wanted or _image_file(folder, stage.name, chunk).exists()
    return saved and _chunk_file(folder, stage.name, chunk).exists()


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _chunk(images: ImageSet, chunk: int, batch_size: int, device: torch.device) -> Batch:
    positions = torch.arange(chunk * batch_size, min((chunk + 1) * batch_size, len(images)))
    part = images.subset(positions)
    pixels = as_floats(part.read(torch.arange(len(part))).to(device))
    return Batch(pixels, part.labels.to(device), part.index.to(device))


def _answers(folder: Path, stage: NamedAttack, chunk: int) -> list[int]:
    """The classes that were predicted for the clean images of a chunk, once that stage is done."""
    if stage.attack is None:
        return []
    written = json.loads(_chunk_file(folder, _CLEAN.name, chunk).read_text(encoding="utf-8"))
    return list(written["answers"])


def _attempt(
    model: nn.Module,
    view: Classifier,
    batch: Batch,
    stage: NamedAttack,
    clean: list[int],
    *,
    budget_of: BudgetOf,
    seed: int,
) -> tuple[dict[str, Any], Tensor | None]:
    """One attack on one chunk: what to write, and the images that the attack returned."""
    started = time.monotonic()
    if stage.attack is None:
        check_unit_range(batch.images)
        answers = predictions(model, batch.images)
        return {"answers": answers.tolist(), "seconds": time.monotonic() - started}, None
    answers = torch.tensor(clean, device=batch.labels.device)
    right = answers == batch.labels
    fooled, forwards, backwards = (torch.zeros_like(batch.labels) for _ in range(3))
    found = batch.images.clone()
    if right.any():
        tried = batch.select(right)
        budget = budget_of(tried.images)
        keys = Keys(seed, stage.name, tried.index)
        attacked = stage.attack(view, tried.images, tried.labels, budget=budget, keys=keys)
        hit, after = judge(model, attacked.images, tried.images, tried.labels, budget)
        fooled[right], forwards[right], backwards[right] = hit.long(), attacked.forwards, attacked.backwards
        answers[right] = torch.where(hit, after, tried.labels)
        found[right] = attacked.images
    columns = {"answers": answers, "fooled": fooled, "forwards": forwards, "backwards": backwards}
    written: dict[str, Any] = {name: column.tolist() for name, column in columns.items()}
    return {**written, "seconds": time.monotonic() - started}, found


def _no_memory(
    attempt: Callable[..., object], batch: Batch, stage: NamedAttack, clean: list[int]
) -> UserError:
    """Find out which chunk size fits, and say so."""

    def work(size: int) -> object:
        return attempt(batch.select(slice(0, size)), stage, clean[:size])

    fits = devices.size_that_fits(work, len(batch), batch.images.device)
    advice = f"--evaluate.batch-size {fits} fits" if fits else "not even one image fits"
    return UserError(f"Out of memory with {stage.name} on chunks of {len(batch)}: {advice}.")


def _rows(images: ImageSet, attacks: Sequence[NamedAttack], folder: Path, chunks: int) -> list[Row]:
    keys = ("answers", "fooled", "forwards", "backwards")

    def columns(stage: str) -> dict[str, list[int]]:
        parts = [json.loads(_chunk_file(folder, stage, c).read_text(encoding="utf-8")) for c in range(chunks)]
        return {key: [value for part in parts for value in part.get(key, [])] for key in keys}

    clean, names = columns("clean")["answers"], [a.name for a in attacks]
    table = {name: columns(name) for name in names}
    rows = []
    for i, (index, label) in enumerate(zip(images.index.tolist(), images.labels.tolist(), strict=True)):
        hits = [name for name in names if table[name]["fooled"][i]]
        rows.append(
            Row(
                index=index,
                label=label,
                clean=clean[i],
                fooled_by="clean" if clean[i] != label else hits[0] if hits else "",
                adversarial={name: table[name]["answers"][i] for name in names},
                forwards=1 + sum(table[name]["forwards"][i] for name in names),
                backwards=sum(table[name]["backwards"][i] for name in names),
            )
        )
    return rows


def seconds_spent(folder: Path) -> float:
    """Compute time of an evaluation, all its starts and processes together."""
    return float(sum(json.loads(f.read_text())["seconds"] for f in (folder / "chunks").glob("*.json")))


def write_table(path: Path, rows: Sequence[Row], classes: Sequence[str], names: Sequence[str]) -> None:
    """The per-image table as CSV."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(
                [
                    "index",
                    "label",
                    "clean",
                    "first_fooled_by",
                    *[f"after {n}" for n in names],
                    "forwards",
                    "backwards",
                ]
            )
            for r in rows:
                after = [classes[r.adversarial[n]] for n in names]
                label = classes[r.label]
                table.writerow(
                    [r.index, label, classes[r.clean], r.fooled_by, *after, r.forwards, r.backwards]
                )

    write_atomically(path, write)


def metrics(
    rows: Sequence[Row], classes: Sequence[str], names: Sequence[str], details: dict[str, Any], seconds: float
) -> list[Record]:
    """Accuracies with intervals: clean, under each attack, and in the worst case."""
    survivors = {"clean": [r.clean == r.label for r in rows]}
    for name in names:
        survivors[name] = [r.clean == r.label and r.adversarial[name] == r.label for r in rows]
    survivors["worst case"] = [r.fooled_by == "" for r in rows]
    return [_accuracy(name, kept, rows, classes, details, seconds) for name, kept in survivors.items()]


def _accuracy(
    name: str,
    kept: Sequence[bool],
    rows: Sequence[Row],
    classes: Sequence[str],
    details: dict[str, Any],
    seconds: float,
) -> Record:
    per_class = {classes[label]: [0, 0] for label in sorted({row.label for row in rows})}
    for row, right in zip(rows, kept, strict=True):
        counts = per_class[classes[row.label]]
        counts[0] += right
        counts[1] += 1
    passes = {"forwards": sum(r.forwards for r in rows), "backwards": sum(r.backwards for r in rows)}
    return Record(
        kind="metric",
        name=f"accuracy/{name}",
        value=sum(kept) / len(rows),
        n=len(rows),
        interval=wilson(sum(kept), len(rows)),
        details={**details, "per_class": per_class, **passes},
        seconds=seconds,
    )
