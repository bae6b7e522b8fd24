"""Which sample is for training, validation or testing."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from .plans import Options, Plan
from .staging import Rows

SHARE = 0.1  # the share of the samples for validation, and as large a one for testing, as in the paper
SPLITS = ("train", "val", "test")
DRAWS = 100  # at most, until every split has every class


def assign(rows: Rows, plan: Plan, options: Options) -> list[str]:
    """Assign each row to a split.

    By sample: each pool is shuffled by numpy's ``RandomState(seed)``, one after the other; the first tenth is val, the
    next is test, as in the published preparations. By photograph or city: groups are shuffled, and fill val, then
    test, up to a tenth each; no group is in two splits. Data that no paper is about: groups likewise, class by class.
    """
    split = options.split or plan.split
    if split == "source":
        return [str(row["in the source"]) for row in rows]
    if plan.published is None:
        groups = [str(row["photograph" if split == "photograph" else "image"]) for row in rows]
        return _in_every_class(groups, [row["class"] for row in rows], options.seed)
    if split != "sample":
        return _by_group([str(row[split]) for row in rows], options.seed)
    random = np.random.RandomState(options.seed)
    splits = ["train"] * len(rows)
    for pool in plan.pools:
        positions = np.array([i for i, row in enumerate(rows) if row["class"] in pool], dtype=np.int64)
        random.shuffle(positions)
        n = plan.count(SHARE * len(positions))
        for name, some in (("val", positions[:n]), ("test", positions[n : 2 * n])):
            for position in some.tolist():
                splits[position] = name
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


def _in_every_class(groups: Sequence[str], classes: Sequence[str], seed: int) -> list[str]:
    """Draw a tenth of each class for validation and as much for testing, until every split has every class.

    Where groups show several classes, the draw for one class can take all that another one has. Then all is drawn anew.
    Where no draw gives every split every class, it is the first.
    """
    random = np.random.RandomState(seed)
    first = splits = _draw(groups, classes, random)
    for _ in range(DRAWS):
        there = set(zip(classes, splits, strict=True))
        if len(there) == len(set(classes)) * len(set(splits)) and "test" in splits:
            return splits
        splits = _draw(groups, classes, random)
    return first


def _draw(groups: Sequence[str], classes: Sequence[str], random: np.random.RandomState) -> list[str]:
    """Draw a tenth of each class for validation and as much for testing, at least one group, the rarest class first.

    A class of two groups has none for validation; then no class has, for every split needs every class.
    """
    members: dict[str, Counter[str]] = {}
    for group, label in zip(groups, classes, strict=True):
        members.setdefault(label, Counter())[group] += 1
    split_of: dict[str, str] = {}
    without_validation = False
    for label in sorted(members, key=lambda label: (len(members[label]), label)):
        sizes = members[label]
        goal = max(1, round(SHARE * sizes.total()))
        names = sorted(set(sizes) - set(split_of))
        waiting = [names[i] for i in random.permutation(len(names)).tolist()]
        for split, reserved in (("val", 2), ("test", 1)):
            filled = sum(size for group, size in sizes.items() if split_of.get(group) == split)
            while filled < goal and len(waiting) > reserved:
                filled += sizes[waiting[0]]
                split_of[waiting.pop(0)] = split
            without_validation |= split == "val" and not filled
        split_of.update(dict.fromkeys(waiting, "train"))
    return [
        "train" if without_validation and split_of[group] == "val" else split_of[group] for group in groups
    ]
