"""Cross-validation over photographs: in each of N folds other photographs are judged, and every image once in all."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..errors import UserError
from ..numerals import read_fold
from ..records import read_rows
from .image_sets import ImageSet, Splits, content_fingerprint

MANIFEST = "manifest.jsonl"  # what a preparation writes beside the images
SEPARATOR = "__"  # between the name of a photograph and what was cut from it


def photographs_of(root: Path, files: Sequence[Path]) -> tuple[list[str], str]:
    """The photograph that each image was cut from, and in words how that is known.

    A manifest tells it for the images that it lists: ``manifest.jsonl`` in the folder, or above a folder ``images``.
    Elsewhere the name tells it: images with ``__`` in their names belong to the photograph that stands before the last
    ``__``, whatever their split and class, and every other image is a photograph of its own.

    Raises:
        UserError: the manifest is damaged.
    """
    home = root.parent if root.name == "images" and not (root / MANIFEST).is_file() else root
    sources = _sources(home / MANIFEST)
    photographs, listed = [], 0
    for file in files:
        source = sources.get(file.relative_to(home).as_posix())
        listed += source is not None
        stem, separator, _ = file.stem.rpartition(SEPARATOR)
        by_name = f"{SEPARATOR}{stem}" if separator and stem else file.relative_to(root).as_posix()
        photographs.append(by_name if source is None else source)
    by_names = f"names (what stands before {SEPARATOR!r}, or each file by itself)"
    if listed == 0:
        return photographs, by_names
    manifest = str(home / MANIFEST)
    return photographs, manifest if listed == len(
        files
    ) else f"{manifest} and, where that is silent, {by_names}"


def _sources(manifest: Path) -> dict[str, str]:
    """A mapping from the path of an image to its photograph, as far as a manifest says; empty without one."""
    if not manifest.is_file():
        return {}
    try:
        rows = [row for _, _, row in read_rows(manifest, "is damaged")]
    except UserError as error:
        raise UserError(
            f"{error} Or make it again with counterpart data prepare; without it, photographs are told by the names of "
            "files."
        ) from error
    pairs = [(row.get("path"), row.get("source")) for row in rows]
    return {path: source for path, source in pairs if isinstance(path, str) and isinstance(source, str)}


def deal(
    groups: Mapping[str, Counter[str]], weights: Sequence[float], salt: str = ""
) -> tuple[dict[str, int], list[str]]:
    """Deal groups of images to piles, so that piles of equal weight get about as many images of each class.

    Groups come in the order of their size, and among equals of a hash of their name. Each goes to the pile in which
    its classes, and images as a whole, are scarcest for the pile's weight. So the deal depends on names, sizes and
    classes alone, and no pile of equal weights stays empty while there are groups enough.

    Args:
        groups: the number of images of each class in each group.
        weights: how much of everything each pile should get; they add up to 1.
        salt: another one makes another deal.

    Returns:
        The pile of each group, and the groups in the order in which they were dealt.
    """
    totals: Counter[str] = Counter()
    for counts in groups.values():
        totals.update(counts)
    everything = totals.total()
    piles: list[Counter[str]] = [Counter() for _ in weights]
    sizes = [0] * len(weights)

    def scarcity(pile: int, counts: Counter[str]) -> float:
        size = counts.total()
        crowd = size * (sizes[pile] + size / 2) / everything
        for name in sorted(counts):
            crowd += counts[name] * (piles[pile][name] + counts[name] / 2) / totals[name]
        return crowd / weights[pile]

    order = sorted(groups, key=lambda name: (-groups[name].total(), _hash(f"{salt}{name}")))
    dealt = {}
    for name in order:
        dealt[name] = min(range(len(weights)), key=lambda pile: scarcity(pile, groups[name]))
        piles[dealt[name]].update(groups[name])
        sizes[dealt[name]] += groups[name].total()
    return dealt, order


def split_by_fold(
    images: ImageSet, photographs: Sequence[str], fold: str, share: float, told_by: str = "their names"
) -> Splits:
    """Split a whole data set for one fold of a cross-validation.

    The photographs are dealt to N folds. Those of fold K are the test split, a share of the others is for validation,
    and the rest to learn from. All images of one photograph are on one side. The deal is the same in every run, and
    every image is in the test split of one fold exactly.

    Args:
        images: all images of the data set.
        photographs: the photograph of each image.
        fold: "K/N".
        share: the share of the images outside the fold that is for validation.
        told_by: how the photographs are known, for the note on the splits.

    Raises:
        UserError: there are too few photographs.
    """
    number, count = read_fold(fold)
    groups: dict[str, Counter[str]] = {}
    for photograph, label in zip(photographs, images.labels.tolist(), strict=True):
        groups.setdefault(photograph, Counter())[images.classes[label]] += 1
    folds, _ = deal(groups, [1 / count] * count)
    others = {name: counts for name, counts in groups.items() if folds[name] != number - 1}
    needed = 1 if share == 0 else 2
    if len(groups) < count or len(others) < needed:
        raise UserError(
            f"data.fold {fold} needs {count} photographs at least, {needed} of them outside the fold, and "
            f"{images.name} has {len(groups)} (told by {told_by})."
        )
    if share == 0:
        held = dict.fromkeys(others, 0)
    else:
        held, order = deal(others, [1 - share, share], salt="validation ")
        for pile in (0, 1):
            if pile not in held.values():
                held[order[-1]] = pile
    place = {name: held.get(name, 2) for name in groups}
    places = torch.tensor([place[photograph] for photograph in photographs])
    train, validation, test = (images.subset((places == pile).nonzero()[:, 0]) for pile in range(3))
    rows = ",".join(map(str, test.index.tolist()))
    fingerprint = content_fingerprint([f"{images.fingerprint} fold {number}/{count} {rows}".encode()])
    named = {"train": train, "validation": validation, "test": test}
    sizes = ", ".join(f"{len(part):,} for {split}" for split, part in named.items())
    note = (
        f"data.fold {number}/{count}: {len(images):,} images of {len(groups):,} photographs, which are told by "
        f"{told_by}; {sizes}."
    )
    return Splits(
        **{split: replace(part, split=split, fingerprint=fingerprint) for split, part in named.items()},
        notes=(note,),
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
