"""What a preparation of part data is told and what it makes: options, plans, samples, and what there is at the end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .parts import PartNames


@dataclass(frozen=True)
class Options:
    """How a data set is prepared.

    Attributes:
        published: with the known defects of the published preparation.
        split: what stays together when train, val and test are drawn: "sample", "photograph" or "city"; or "source",
            the splits that the source has. By default what the plan says.
        seed: of the split and of random crops.
        allow_missing: leave out images that annotations name and that are not there, instead of stopping.
        classes: where the class of an image comes from: "folder", "object", or the path of a CSV; by default from
            objects where there are any, else from folders.
        objects: the categories that are whole objects; all others are parts.
        largest: of each photograph only its largest object.
        names: the table that names the values of masks.
    """

    published: bool = False
    split: str | None = None
    seed: int = 0
    allow_missing: bool = False
    classes: str | None = None
    objects: tuple[str, ...] = ()
    largest: bool = False
    names: Path | None = None


@dataclass(frozen=True)
class Sample:
    """One image with its mask, ready to be written.

    Attributes:
        name: of its files, without suffix; no two samples of a class have the same.
        label: its class.
        photograph: what it was cut from: samples of one photograph resemble each other.
        image: a file that is copied as it is, or (H, W, 3) uint8 that becomes a PNG.
        mask: (H, W) part ids, uint8 or uint16.
        city: where the photograph was taken, if the data set knows.
        source: the split that it has in the source, if it has one there.
    """

    name: str
    label: str
    photograph: str
    image: Path | np.ndarray
    mask: np.ndarray
    city: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class Extracted:
    """What a unit yields.

    Attributes:
        samples: to be written.
        left_out: for each reason, how many others were left out.
        refused: annotations that are wrong, a line each.
    """

    samples: Sequence[Sample] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    refused: Sequence[str] = ()


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
        published: how many samples the paper has; None for data that no paper is about, whose splits are drawn so
            that each has every class.
        notes: what the user should know, such as images left out.
        split: what stays together where the options do not say.
        identity: what else decides the result, such as options of this data set alone.
        left_out: for each reason how many were left out while the source was read.
        refused: annotations that were refused while the source was read, a line each.
    """

    name: str
    names: PartNames
    units: Mapping[str, Any]
    extract: Callable[[Any], Extracted]
    pools: Sequence[Sequence[str]] = ()
    count: Callable[[float], int] = int
    published: int | None = None
    notes: Sequence[str] = ()
    split: str = "sample"
    identity: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    refused: Sequence[str] = ()


class Planner(Protocol):
    """A function that reads a source folder and plans what there is to prepare."""

    def __call__(self, source: Path, options: Options) -> Plan:
        """Plan the preparation. Missing or damaged files raise a UserError."""
        ...


@dataclass(frozen=True)
class Prepared:
    """A complete preparation.

    Attributes:
        target: the folder.
        counts: samples for each split and class.
        left_out: for each reason, how many were left out.
        notes: what the user should know.
        published: how many samples the paper has, if a paper is about the data.
        refused: annotations that are wrong, a line each; ``refused.txt`` holds the same.
    """

    target: Path
    counts: Mapping[str, Mapping[str, int]]
    left_out: Mapping[str, int]
    notes: Sequence[str]
    published: int | None
    refused: Sequence[str] = ()

    @property
    def total(self) -> int:
        """The number of samples in all splits."""
        return sum(sum(classes.values()) for classes in self.counts.values())
