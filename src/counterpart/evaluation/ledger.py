"""The ledger of an evaluation: what happened to every image, committed to disk unit by unit.

A unit is one attack on one chunk of the images. A chunk always has the same images, and a unit holds those of
them that the attack met. Each unit is a file that is written atomically and never made twice, so that a
killed evaluation goes on where it stopped.

A folder belongs to one evaluation. Its identity is everything that decides what the rows say.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch
from safetensors import SafetensorError
from torch import Tensor

from .. import hosts
from ..checksums import load_tensors, save_tensors
from ..errors import UserError
from ..parsing.limits import refuse_large
from ..rundir import read_json, sweep, write_atomically, write_json

FILES = ("*", "units/*", "images/*")  # of an evaluation
CLEAN = "clean"  # the unit that holds the answers on clean images
UNTRIED = "untried"  # said of an image that stands because nobody tried the dear attacks on it


@dataclass(frozen=True)
class LedgerRow:
    """The results of one image: what the model answers, and which attacks fooled the model with it.

    Attributes:
        index: the index of the image in its data set.
        label: the true class.
        clean: the class that the model answers for the clean image.
        fooled: the names of the attacks that fooled the model with it, in the order in which they did.
        answer: the class that the model answers after the first of these attacks; the clean answer if there
            is none.
        forwards: the number of forward passes spent on it by all attacks together, plus the clean pass.
        backwards: the number of backward passes spent on it by all attacks together.
        radii: the radius at which each of ``fooled`` succeeded, rising; empty where an evaluation has one
            radius.
        distances: a mapping from each attack that looks for the nearest adversarial image to the distance of
            what it found; infinite where it found none. See ``contracts.Attacked``.
        first: where images are judged by draws, a mapping from "clean" and each attack that met the image to the right
            answers among the draws that choose an attack. Answers are then the most frequent ones.
        fresh: the same for the fresh draws; see ``evaluation.drawn``.
        untried: whether the image stands before the dear attacks and was not drawn for them, so that nobody knows
            whether it stands; see ``evaluation.sampling``.
    """

    index: int
    label: int
    clean: int
    fooled: tuple[str, ...]
    answer: int
    forwards: int
    backwards: int
    radii: tuple[float, ...] = ()
    distances: Mapping[str, float] = field(default_factory=dict)
    first: Mapping[str, int] = field(default_factory=dict)
    fresh: Mapping[str, int] = field(default_factory=dict)
    untried: bool = False

    @property
    def right(self) -> bool:
        """Whether the clean image is classified correctly."""
        return self.clean == self.label

    @property
    def fooled_by(self) -> str:
        """The first attack that fooled the model.

        It is "" if none did, "clean" if the clean answer is wrong already, and "untried" if the image stands only as
        far as anybody tried.
        """
        if not self.right:
            return CLEAN
        if self.untried:
            return UNTRIED
        return self.fooled[0] if self.fooled else ""


@dataclass(frozen=True)
class Unit:
    """The results of one attack on one chunk. Each list has one entry for each image that the attack met.

    Attributes:
        positions: the places of the images in the evaluated set, from 0.
        answers: the class that the model answers for what the attack returned.
        fooled: whether the image counts as a success: the answer is wrong, and the change is within the
            budget.
        forwards: the number of forward passes spent.
        backwards: the number of backward passes spent.
        seconds: the compute time of the whole unit.
        radii: the smallest radius at which the image fell, or None where it stands. The list itself is None
            where an evaluation has one radius.
        distances: the distance of the nearest image found that fools the model, or None where none was found.
            The list itself is None for attacks that do not look for the nearest image.
        first: the number of right answers among the draws that choose an attack. The list itself is None where images
            are not judged by draws.
        fresh: the number of right answers among the fresh draws.
    """

    positions: list[int]
    answers: list[int]
    fooled: list[bool]
    forwards: list[int]
    backwards: list[int]
    seconds: float
    radii: list[float | None] | None = None
    distances: list[float | None] | None = None
    first: list[int] | None = None
    fresh: list[int] | None = None

    @property
    def with_images(self) -> list[int]:
        """The positions of the images that are kept: those that fooled the model, or all where draws judge them."""
        if self.first is not None:
            return self.positions
        return [p for p, hit in zip(self.positions, self.fooled, strict=True) if hit]

    def fallen_within(self, radius: float | None) -> list[int]:
        """The positions of the images that fell at this radius or a smaller one.

        None stands for the only radius of an evaluation. Where images are judged by draws, one falls if no answer was
        right among those that choose an attack.
        """
        fell = [p for p, hit in zip(self.positions, self.fooled, strict=True) if hit]
        if self.first is not None:
            fell = [p for p, right in zip(self.positions, self.first, strict=True) if right == 0]
        if radius is None or self.radii is None:
            return fell
        within = {p for p, r in zip(self.positions, self.radii, strict=True) if r is not None and r <= radius}
        return [p for p in fell if p in within]


@dataclass
class _Tally:
    """What the units that are read so far say about one image."""

    index: int
    label: int
    clean: int = -1
    forwards: int = 1
    backwards: int = 0
    falls: list[tuple[float, str, int]] = field(default_factory=list)  # radius, unit, answer
    radii: bool = False
    distances: dict[str, float] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)
    fresh: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, unit: Unit, i: int) -> None:
        """Add the i-th entry of a unit."""
        if unit.first is not None and unit.fresh is not None:
            self.first[name], self.fresh[name] = unit.first[i], unit.fresh[i]
        if name == CLEAN:
            self.clean = unit.answers[i]
            return
        self.forwards += unit.forwards[i]
        self.backwards += unit.backwards[i]
        if unit.distances is not None:
            distance = unit.distances[i]
            self.distances[name] = math.inf if distance is None else distance
        if unit.fooled[i]:
            radius = unit.radii[i] if unit.radii is not None else None
            self.radii |= radius is not None
            self.falls.append((radius or 0.0, name, unit.answers[i]))

    def finished(self) -> LedgerRow:
        """The row of the image, once all units are read."""
        # The sort is stable, so that attacks keep their order within one radius.
        falls = sorted(self.falls, key=lambda fall: fall[0])
        return LedgerRow(
            self.index,
            self.label,
            self.clean,
            tuple(name for _, name, _ in falls),
            falls[0][2] if falls else self.clean,
            self.forwards,
            self.backwards,
            tuple(radius for radius, _, _ in falls) if self.radii else (),
            self.distances,
            self.first,
            self.fresh,
        )


@dataclass(frozen=True)
class Ledger:
    """The files of one evaluation.

    Attributes:
        folder: the folder that holds ``identity.json``, ``units/<attack>-<chunk>.json`` and
            ``images/<attack>-<chunk>.safetensors``.
        chunks: the number of chunks that the images are cut into.
    """

    folder: Path
    chunks: int

    def open(self, identity: Mapping[str, Any]) -> None:
        """Make the folder for this identity, or check that an existing folder has the same one.

        One process calls this before any work. Files that killed processes left half-written are removed.

        Raises:
            UserError: the folder holds another evaluation.
        """
        file = self.folder / "identity.json"
        new = json.loads(json.dumps(identity, sort_keys=True, default=str))
        if file.exists():
            old = self.identity()
            changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
            if changed:
                raise UserError(
                    f"{self.folder} is the ledger of another evaluation ({', '.join(changed)} differ). "
                    "Remove it, or evaluate into another run folder."
                )
        else:
            write_json(file, new)
        for folder in (self.folder, self.folder / "units", self.folder / "images"):
            sweep(folder)

    def identity(self) -> dict[str, Any]:
        """Everything that decides what the rows say."""
        file = self.folder / "identity.json"
        loaded = _parse(file)
        if not isinstance(loaded, dict):
            raise _damaged(file)
        return loaded

    def read(self, name: str, chunk: int) -> Unit | None:
        """The unit of an attack and a chunk, or None if there is none.

        There is none before it is made, nor where no image was left for the attack.

        Raises:
            UserError: its file is damaged.
        """
        file = self._file("units", name, chunk, ".json")
        if not file.exists():
            return None
        try:
            unit = Unit(**_parse(file))
        except TypeError:
            raise _damaged(file) from None
        if not _is_sound(unit):
            raise _damaged(file)
        return unit

    def commit(self, name: str, chunk: int, unit: Unit, fooling: Tensor | None) -> None:
        """Write a unit, and before it its images (F, C, H, W) at ``unit.with_images``, unless these are None."""
        if fooling is not None and unit.with_images:
            tensors = {"images": fooling.cpu().contiguous(), "positions": torch.tensor(unit.with_images)}
            write_atomically(
                self._file("images", name, chunk, ".safetensors"), partial(save_tensors, tensors)
            )
        filled = {name: value for name, value in vars(unit).items() if value is not None}
        write_json(self._file("units", name, chunk, ".json"), filled, indent=None)

    def images(self, name: str, chunk: int) -> tuple[Tensor, list[int]] | None:
        """The images (F, C, H, W) that fooled the model and their positions, or None if they are not kept.

        Raises:
            UserError: their file is damaged.
        """
        file = self._file("images", name, chunk, ".safetensors")
        if not file.exists():
            return None
        images, positions = read_images(file)
        return images, positions.tolist()

    def gather(self) -> None:
        """Give every process the units of all, and wait for them. Hosts that share no disk are sent files."""
        hosts.complete(self.folder, FILES)

    def keeps(self, name: str, chunk: int, unit: Unit) -> bool:
        """Whether the images of a unit are kept, which is also true where no image fooled the model."""
        return not unit.with_images or self._file("images", name, chunk, ".safetensors").exists()

    def rows(self, labels: Sequence[int], index: Sequence[int], names: Sequence[str]) -> list[LedgerRow]:
        """One row per image, put together from all units.

        Args:
            labels: the true classes of the N images.
            index: the data-set indices of the N images.
            names: the names of the units, attack by attack.
        """
        rows = [_Tally(index=i, label=label) for i, label in zip(index, labels, strict=True)]
        for name in (CLEAN, *names):
            for chunk in range(self.chunks):
                if (unit := self.read(name, chunk)) is not None:
                    if max(unit.positions, default=0) >= len(rows):
                        raise _damaged(self._file("units", name, chunk, ".json"))
                    for i, position in enumerate(unit.positions):
                        rows[position].add(name, unit, i)
        return [row.finished() for row in rows]

    def seconds(self) -> float:
        """The compute time in seconds, summed over the units, whichever start or process made them."""
        return float(sum(map(_seconds, (self.folder / "units").glob("*.json"))))

    def _file(self, kind: str, name: str, chunk: int, suffix: str) -> Path:
        # The name of a transfer attack may hold the path of the model that it searches on.
        return self.folder / kind / f"{quote(name, safe=' ').replace(' ', '-')}-{chunk:05}{suffix}"


def read_images(file: Path) -> tuple[Tensor, Tensor]:
    """The images (F, C, H, W) that a file of a ledger holds, and their positions (F,) in the evaluated set.

    Raises:
        UserError: it is damaged, too large or no regular file.
    """
    try:
        refuse_large(file, "WEIGHTS")
        tensors = load_tensors(file)
        images, positions = tensors["images"], tensors["positions"]
    except (OSError, SafetensorError, KeyError, ValueError):
        raise _damaged(file) from None
    whole = not positions.is_floating_point() and not positions.is_complex()
    if not whole or positions.ndim != 1 or images.ndim != 4 or len(images) != len(positions):
        raise _damaged(file)
    return images, positions


def _parse(file: Path) -> Any:
    """The JSON content of a file of the ledger."""
    try:
        return read_json(file)
    except ValueError:  # The file is no JSON, or no UTF-8.
        raise _damaged(file) from None


def _seconds(file: Path) -> float:
    """The compute time that the file of a unit states."""
    try:
        return float(_parse(file)["seconds"])
    except (LookupError, TypeError, ValueError, OverflowError):
        raise _damaged(file) from None


def _is_sound(unit: Unit) -> bool:
    """Whether the columns of a unit that was read have one length and hold numbers that are not negative.

    All but radii and distances have to be whole numbers.
    """
    columns: tuple[Sequence[int], ...] = (
        unit.positions, unit.answers, unit.fooled, unit.forwards, unit.backwards,
    )  # fmt: skip
    columns += tuple(column for column in (unit.first, unit.fresh) if column is not None)
    if not all(isinstance(column, list) and len(column) == len(unit.positions) for column in columns):
        return False
    for column in (unit.radii, unit.distances):
        if column is not None and not (isinstance(column, list) and len(column) == len(unit.positions)):
            return False
        if not all(value is None or (type(value) in (int, float) and value >= 0) for value in column or ()):
            return False
    return all(type(value) in (int, bool) and value >= 0 for column in columns for value in column)


def _damaged(file: Path) -> UserError:
    """The error for a file of the ledger that cannot be read."""
    return UserError(f"{file} is damaged. Remove it, and evaluate again: what is missing is made anew.")
