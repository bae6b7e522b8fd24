"""Run folders as the report sees them: configuration, epochs, evaluations and artifacts."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..claims import PREFIX as CLAIM
from ..errors import UserError
from ..numerals import readable
from ..records import CLEAN, WORST, Record, read_sound
from ..rundir import RunDir, lies_within, members
from .artifacts import Artifact
from .usable import fault, sound_fold, sound_seed

ACCURACY, PARTS = "accuracy", "parts"
CORRUPTION = "corruption/"
UNION = "union/"
WHERE = "where/"
UNFIT = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError)  # what such records end in


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of one run.

    Attributes:
        key: its identity, the name of its folder.
        metrics: {"clean": record, "PGD-20": record, ..., "worst case": record}, in the order of measurement.
        parts: {"pixel accuracy clean": record, ...} where the parts were measured.
        smaller: {radius: {"PGD-20": record, ...}} at every radius but the largest, rising; empty where there
            is one.
    """

    key: str
    metrics: Mapping[str, Record]
    parts: Mapping[str, Record]
    smaller: Mapping[float, Mapping[str, Record]] = field(default_factory=dict)

    @property
    def first(self) -> Record:
        """The record that speaks for the whole: the clean accuracy where there is one."""
        return self.metrics[CLEAN] if CLEAN in self.metrics else next(iter(self.metrics.values()))

    @property
    def details(self) -> Mapping[str, Any]:
        """The details that all metrics share: method, model, data, split, norm, eps and weights."""
        return self.first.details

    @property
    def n(self) -> int:
        """The number of images."""
        return self.first.n or 0

    @property
    def time(self) -> str:
        """The time of its last record, in ISO 8601, so that the order of texts is that of time."""
        return max(str(record.provenance.get("time", "")) for record in self.metrics.values())

    @property
    def seconds(self) -> float | None:
        """The seconds that it took, which every record of an evaluation carries."""
        return max((r.seconds for r in self.metrics.values() if r.seconds is not None), default=None)


def without_untried(records: Sequence[Record]) -> list[Record]:
    """The records of an evaluation, but of one that tried no attack without its worst case, which says nothing."""
    accuracies = {record.name: record for record in records if record.name.startswith(f"{ACCURACY}/")}
    worst = accuracies.pop(f"{ACCURACY}/{WORST}", None)
    if worst is None or worst.details.get("backwards") != 0:
        return list(records)
    untried = {name for name in accuracies if name.startswith(f"{ACCURACY}/{WORST} at ")} | {worst.name}
    if accuracies.keys() - untried != {f"{ACCURACY}/{CLEAN}"}:
        return list(records)
    return [record for record in records if record.name not in untried]


def _read_evaluation(key: str, accuracies: Mapping[str, Record], parts: Mapping[str, Record]) -> Evaluation:
    """An evaluation from its records, those of smaller radii apart."""
    metrics: dict[str, Record] = {}
    smaller: dict[float, dict[str, Record]] = {}
    for record in without_untried(list(accuracies.values())):
        name = record.name.removeprefix(f"{ACCURACY}/")
        radii = record.details.get("radii")
        if name == CLEAN or not radii or record.details["eps"] == radii[-1]:
            metrics[name] = record
        else:
            radius = float(record.details["eps"])
            smaller.setdefault(radius, {})[name.removesuffix(f" at {readable(radius)}")] = record
    return Evaluation(key, metrics, parts, {radius: smaller[radius] for radius in sorted(smaller)})


@dataclass(frozen=True)
class Run:
    """The content of one run folder.

    Attributes:
        folder: the run folder.
        config: its resolved configuration.
        records: those of its records that the page can use, in file order.
        left_out: sentences on the lines of its records that it cannot use.
    """

    folder: RunDir
    config: Mapping[str, Any]
    records: Sequence[Record]
    left_out: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The name of the folder, or "group/seed-0" for a run of a group."""
        path = self.folder.path.resolve()
        return f"{path.parent.name}/{path.name}" if path.name.startswith("seed-") else path.name

    @property
    def seed(self) -> int | None:
        """The seed of the run."""
        return self.config.get("seed")

    @property
    def fold(self) -> str | None:
        """The fold of a cross-validation that the run belongs to, such as "1/5"."""
        return (self.config.get("data") or {}).get("fold")

    @cached_property
    def epochs(self) -> list[Record]:
        """The training log, one record per epoch, in order."""
        rows = {int(r.details["epoch"]): r for r in self.records if r.kind == "epoch"}
        return [rows[epoch] for epoch in sorted(rows)]

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        """The evaluations, those of the run's own fold first, then those of most images, then the latest.

        Of as many images, those that are no estimates from a sample come first.

        The page shows the first of them.
        """
        by_key: dict[str, dict[str, dict[str, Record]]] = {}
        for record in self.records:
            of, _, name = record.name.partition("/")
            if record.kind == "metric" and of in (ACCURACY, PARTS):
                key = str(record.details.get("evaluation", ""))
                by_key.setdefault(key, {ACCURACY: {}, PARTS: {}})[of][name] = record
        evaluations = [
            _read_evaluation(key, of_key[ACCURACY], of_key[PARTS])
            for key, of_key in by_key.items()
            if of_key[ACCURACY]
        ]
        return sorted(
            reversed(evaluations),
            key=lambda evaluation: (
                evaluation.details.get("fold") == self.fold,
                evaluation.n,
                "sampled" not in evaluation.details,
                evaluation.time,
            ),
            reverse=True,
        )

    @property
    def shown(self) -> Evaluation | None:
        """The evaluation that the page shows."""
        return self.evaluations[0] if self.evaluations else None

    @property
    def of_parts(self) -> Evaluation | None:
        """The evaluation whose part metrics the page shows: the first that has any."""
        return next((evaluation for evaluation in self.evaluations if evaluation.parts), None)

    @property
    def of_radii(self) -> Evaluation | None:
        """The evaluation whose curve the page shows: the first of several radii."""
        return next((evaluation for evaluation in self.evaluations if evaluation.smaller), None)

    @property
    def training_seconds(self) -> float | None:
        """The seconds of training, summed over the epochs."""
        return _sum([record.seconds for record in self.epochs])

    @property
    def evaluate_command(self) -> str:
        """The command that evaluates the run."""
        return f"counterpart evaluate {shlex.quote(str(self.folder.path))}"

    @cached_property
    def artifacts(self) -> list[Artifact]:
        """Every file that the records name; where a file is named twice, its last record."""
        named = {str(r.details.get("file")): r for r in self.records if r.kind == "artifact"}
        checked: list[Artifact] = []
        hashed = 0
        for record in named.values():
            checked.append(Artifact.check(self.folder.path, record, hashed))
            hashed += checked[-1].size
        return checked

    @cached_property
    def audit(self) -> list[Record]:
        """The behaviours of the latest audit; of each, the record that was written last."""
        behaviours = [r for r in self.records if r.kind == "metric" and r.name.startswith("audit/")]
        latest = behaviours[-1].details.get("audit") if behaviours else None
        return list({r.name: r for r in behaviours if r.details.get("audit") == latest}.values())

    @cached_property
    def profile(self) -> list[Record]:
        """The records of the latest where-profile; of each name the last."""
        of_profiles = [r for r in self.records if r.kind == "metric" and r.name.startswith(WHERE)]
        latest = of_profiles[-1].details.get("where") if of_profiles else None
        return list({r.name: r for r in of_profiles if r.details.get("where") == latest}.values())

    @cached_property
    def corruptions(self) -> list["Corrupted"]:
        """Every evaluation under common corruptions, each with its means over the most corruptions."""
        means_of: dict[tuple[str, tuple[int, ...], bool], dict[str, Record]] = {}
        there = [r for r in self.records if r.kind == "metric" and r.name.startswith(CORRUPTION)]
        for record in there:
            if record.name.startswith(f"{CORRUPTION}mean of"):
                d, of = record.details, record.name.partition("/severit")[0].rpartition(" ")[2]
                key = str(d["corruptions_key"]), tuple(d["severities"]), bool(d["published"])
                means = means_of.setdefault(key, {})
                if of not in means or len(d["corruptions"]) >= len(means[of].details["corruptions"]):
                    means[of] = record
        return [
            Corrupted(
                severities, [*means.values()], [r for r in there if r.details["corruptions_key"] == key]
            )
            for (key, severities, _), means in means_of.items()
        ]

    @cached_property
    def unions(self) -> list[dict[str, Record]]:
        """Every evaluation against a union of budgets: "clean", each norm and "worst case" with their records."""
        by_key: dict[str, dict[str, Record]] = {}
        for record in self.records:
            if record.kind == "metric" and record.name.startswith(UNION):
                key = str(record.details.get("evaluation", ""))
                by_key.setdefault(key, {})[record.name.removeprefix(UNION)] = record
        return list(by_key.values())

    @property
    def claims(self) -> list[Record]:
        """The claims that the shown evaluation and unions were asked about; of each the last record."""
        keys = {record.details.get("evaluation") for union in self.unions for record in union.values()}
        keys.add(self.shown.key if self.shown else None)
        claims = [r for r in self.records if r.name.startswith(CLAIM) and r.details.get("evaluation") in keys]
        return list({(record.name, record.details.get("evaluation")): record for record in claims}.values())

    @property
    def verified(self) -> Record | None:
        """The latest verification of the shown evaluation."""
        key = self.shown.key if self.shown else None
        verifications = [
            r for r in self.records if r.name == "verified" and r.details.get("evaluation") == key
        ]
        return verifications[-1] if verifications else None

    def panel(self) -> Artifact | None:
        """The image panel of the shown evaluation."""
        key = self.shown.key if self.shown else None
        panels = [a for a in self.artifacts if a.record.name == "panel" and a.file.parent.name == key]
        return panels[-1] if panels else None


@dataclass(frozen=True)
class Corrupted:
    """One evaluation under common corruptions.

    Attributes:
        severities: the severities over which means are taken.
        means: the records of the means over corruptions.
        records: the records of all that was counted on the same images in the same way.
    """

    severities: tuple[int, ...]
    means: Sequence[Record]
    records: Sequence[Record]

    @property
    def setting(self) -> str:
        """The setting in words. Only numbers of one setting are to be compared."""
        d, n = self.means[0].details, self.means[0].n
        label = self.means[0].name.rpartition("/")[2]
        if d["published"]:
            label = f"published protocol: {label}, 19 corruptions"
        elif d.get("protocol") is not None:
            label = f"protocol {d['protocol']}"
        return f"{d['data']} {d['split']}{size_text(d)}, n = {n:,}, {d['source']}, {label}"

    @property
    def lines(self) -> dict[str, list[Record | None]]:
        """A mapping from each corruption to its records: one per severity, and the mean of several."""
        names = dict.fromkeys(name for mean in self.means for name in mean.details["corruptions"])
        by_name = {r.name.removeprefix(CORRUPTION): r for r in self.records}
        lines: dict[str, list[Record | None]] = {"clean": [by_name.get("clean")]}
        for name in names:
            lines[name] = [by_name.get(f"{name}/severity {severity}") for severity in self.severities]
            means = [
                r
                for text, r in by_name.items()
                if text.startswith(f"{name}/severities") and tuple(r.details["severities"]) == self.severities
            ]
            lines[name] += means[-1:]
        lines |= {name: [] for name in self.left_out}
        for mean in self.means:
            lines[mean.name.removeprefix(CORRUPTION).rpartition("/")[0]] = [mean]
        return lines

    @property
    def left_out(self) -> dict[str, str]:
        """A mapping from each corruption that is missing to the reason."""
        there = {name for mean in self.means for name in mean.details["corruptions"]}
        return {k: v for mean in self.means for k, v in mean.details["left_out"].items() if k not in there}


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """The runs in some run folders and in the ``seed-*`` folders of group folders, each run once.

    Raises:
        UserError: a path is no run folder, or no run has any record yet.
    """
    if not paths:
        raise UserError("No run to report on: name one or more run folders, such as runs/digits-part.")
    folders = {
        run_folder.path.resolve(): run_folder for path in paths for run_folder in members(path)
    }.values()
    for path in paths:
        for run_folder in members(path):
            if not lies_within(path, run_folder.path):
                raise UserError(
                    f"{run_folder.path} is a link that leads out of {path}: it was not opened. Name the run itself."
                )
    runs = [_read_run(folder) for folder in folders]
    if not any(run.epochs or run.evaluations or run.corruptions or run.profile for run in runs):
        names = ", ".join(str(run.folder.path) for run in runs)
        raise UserError(f"Nothing to report yet: {names} holds neither a finished epoch nor an evaluation.")
    return runs


def _read_run(folder: RunDir) -> Run:
    for file in (folder.config_file, folder.records_file):
        if not lies_within(folder.path, file):
            raise UserError(
                f"{file} is a link that leads out of its folder: it was not opened. Put the file there."
            )
    records, left_out = [], []
    if folder.records_file.exists():
        for number, record in read_sound(folder.records_file):
            reason = record if isinstance(record, str) else fault(record)
            if isinstance(record, str) or reason:
                name = "no record" if isinstance(record, str) else f"{record.name!r:.100}"
                left_out.append(f"line {number} ({name}): {reason}")
            else:
                records.append(record)
    config = folder.config()
    data = dict(config.get("data", {}))
    if "fold" in data:
        data["fold"] = sound_fold(data["fold"])
    config |= {"seed": sound_seed(config.get("seed")), "data": data}
    return Run(folder, config, records, left_out)


def unfit(runs: Sequence[Run], error: Exception) -> UserError:
    """The error of records of which each can be used, and which do not fit together."""
    return UserError(
        f"The records of {', '.join(str(run.folder.path) for run in runs)} do not fit together, so that no page or "
        f"table can show them ({type(error).__name__}: {' '.join(str(error).split()):.200})."
    )


def size_text(details: Mapping[str, Any]) -> str:
    """The size of the images in words, such as " at 32x48 pixels", with the height first.

    It is "" where older records lack it.
    """
    shape = details.get("shape")
    return f" at {shape[1]}x{shape[2]} pixels" if shape else ""


def _sum(seconds: Sequence[float | None]) -> float | None:
    """The sum of those durations that are known, or None where none is."""
    known = [duration for duration in seconds if duration is not None]
    return sum(known) if known else None
