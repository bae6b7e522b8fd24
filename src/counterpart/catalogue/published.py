"""The models of RobustBench: which network each is, how its images are normalised and prepared, and in what file.

The rows stand in ``published_models.csv``, written from RobustBench's ``model_zoo`` and ``model_info`` at commit
78fcc9e of March 2025. A row has a network here, or says in ``missing`` which one is not here.
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}
ROWS = Path(__file__).parent / "published_models.csv"


@dataclass(frozen=True)
class PublishedModel:
    """A model that others published.

    Attributes:
        data: the data set that it was trained on.
        threat: the threat model whose leaderboard it is on: "Linf", "L2" or "corruptions".
        name: its name there, which is the stem of its file.
        network: the network here; "" where it is not here.
        missing: the network that it is and that is not here; "" where it is here.
        normalisation: "file": mean and standard deviation are in the file. "network": the network has its own. A key of
            ``models.normalisations.NORMALISATIONS``, or the numbers themselves, as "mean / standard deviation".
        preparation: a key of ``catalogue.protocols.PREPARATIONS``, for models of ImageNet.
        files: the number of files, each a state dict (.pt).
        reference: the paper.
    """

    data: str
    threat: str
    name: str
    network: str
    missing: str
    normalisation: str
    preparation: str
    files: int
    reference: str

    @property
    def protocol(self) -> str:
        """The protocol of its leaderboard."""
        return f"robustbench-{self.data}-{self.threat.lower()}"

    @property
    def classes(self) -> int:
        """The number of its classes."""
        return CLASSES[self.data]

    @property
    def kind(self) -> str:
        """What its file is, in words."""
        return "state dict (.pt)" if self.files == 1 else f"{self.files} state dicts (.pt)"


@cache
def published_models() -> tuple[PublishedModel, ...]:
    """Every model of RobustBench, with the network that it is.

    Returns:
        A row for each model of each leaderboard. ``row.network`` is empty where the network is not here, and
        ``row.missing`` names it then.
    """
    with ROWS.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return tuple(PublishedModel(**{**row, "files": int(row["files"])}) for row in rows)  # type: ignore[arg-type]


def rows_named(name: str) -> list[PublishedModel]:
    """The rows of a name, of which there is one for each leaderboard that has a model of this name."""
    return [row for row in published_models() if row.name == name]
