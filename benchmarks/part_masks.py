"""Part labels of Cityscapes crops: 23 comparisons of the whole crop at every access, against one look into a table.

    python benchmarks/part_masks.py

The published loader keeps hierarchical ids and converts them whenever a sample is read. Ours converts once, in the
preparation; what is left per access is reading a PNG, which is timed as well, beside reading the published TIFF.
"""

from io import BytesIO
from statistics import median

import numpy as np
import torch
from PIL import Image
from timing import alternate, arguments, keep, ratio, timing

from counterpart.data.cityscapes_parts import CLASS_IDS, NAMES, decode_ids, part_ids

SIDE = 400  # pixels of a crop
CROPS = 8


def main() -> None:
    """Time both on the same crops, and check that they agree."""
    given = arguments(__doc__).parse_args()
    crops = [crop(seed) for seed in range(CROPS)]
    if not all(np.array_equal(comparisons(ids), part_ids(ids)) for ids in crops):
        raise SystemExit("The two ways differ.")
    tiffs, pngs = ([stored(ids, kind) for ids in crops] for kind in ("TIFF", "PNG"))
    cpu = torch.device("cpu")
    works = {
        "comparisons": lambda: [comparisons(ids) for ids in crops],
        "table": lambda: [part_ids(ids) for ids in crops],
        "read and compare": lambda: [comparisons(np.array(Image.open(file))) for file in tiffs],
        "read the prepared mask": lambda: [np.array(Image.open(file)) for file in pngs],
    }
    taken = alternate(works, cpu, max(given.repeats, 5))
    rows = [timing(f"part labels/{name}", seconds, CROPS, side=SIDE) for name, seconds in taken.items()]
    for name, slow, fast, aim in (
        ("table, times faster than comparisons", "comparisons", "table", ">= 20"),
        ("prepared, times faster per access", "read and compare", "read the prepared mask", ">= 20"),
    ):
        factor = median(taken[slow]) / median(taken[fast])
        rows.append(ratio(f"part labels/{name}", factor, len(taken[fast]), aim, side=SIDE, crops=CROPS))
    keep("part_masks.jsonl", rows)


def crop(seed: int) -> np.ndarray:
    """(400, 400) int32 ids: road, and some objects with a part on every pixel, as crops of cars and persons have."""
    random = np.random.default_rng(seed)
    ids = np.full((SIDE, SIDE), 7, dtype=np.int32)
    for _ in range(12):
        label = str(random.choice(list(CLASS_IDS)))
        number, instance = random.choice(CLASS_IDS[label]), random.integers(0, 40)
        part = random.integers(1, 1 + len(NAMES[label]))
        top, left = random.integers(0, SIDE - 50, 2)
        tall, wide = random.integers(30, 250, 2)
        ids[top : top + tall, left : left + wide] = number * 100_000 + instance * 100 + part
    return ids


def comparisons(ids: np.ndarray) -> np.ndarray:
    """The published way: pairs of class and part, compared with each of the 23 pairs that have a label."""
    classes, _, parts = decode_ids(ids)
    pairs = np.stack([classes, parts], axis=-1)
    labels = np.zeros(ids.shape, dtype=np.uint8)
    for label, numbers in CLASS_IDS.items():
        for number in numbers:
            for part, ours in enumerate(NAMES[label].values(), start=1):
                labels[np.all(pairs == (number, part), axis=-1)] = ours
    return labels


def stored(ids: np.ndarray, kind: str) -> BytesIO:
    """A crop as the published preparation keeps it (TIFF of ids) or as ours does (PNG of labels)."""
    file = BytesIO()
    Image.fromarray(ids if kind == "TIFF" else part_ids(ids)).save(file, kind)
    return file


if __name__ == "__main__":
    main()
