"""The results of evaluations and audits as objects, which print as tables in a terminal and in a notebook."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from ..claims import Ruling
from ..errors import UserError, nearest
from ..evaluation.accuracy import units_of
from ..evaluation.ledger import CLEAN, LedgerRow
from ..evaluation.memory_ledger import MemoryLedger
from ..evaluation.model_checks import Doubt
from ..evaluation.summaries import UNION
from ..evaluation.verify import Verified, verify
from ..jobs import judging
from ..jobs.case import Case, budgets_of, draw_plan_of
from ..jobs.claims import claims_of
from ..jobs.holding import hold_results
from ..jobs.keeping import keep
from ..numerals import readable
from ..records import WORST, Record
from ..report import write_report
from ..report.export import escape_latex
from ..report.runs import without_untried
from ..report.setting import OF_THESE_IMAGES, interval_title, random_in_words, sample_in_words
from ..rundir import RunDir
from ..spreadsheets import CsvWriter
from .accuracy import Accuracy, FoolingImages

PREFIX = "accuracy/"


class Judgement:
    """The result of ``counterpart.evaluate``: a mapping from the name of each line to its ``Accuracy``.

    The first line is "clean" and the last is "worst case", so that ``judgement["worst case"].value`` is an
    accuracy; where no attack was tried there is no worst case. Printed, and in a notebook, it is a table.

    Against the union of the budgets of several norms, the lines between are the worst case in each norm, under its
    name, and "worst case" counts the images that stand in all. What belongs to one norm is in ``members``.
    """

    def __init__(self, judged: judging.Judged) -> None:
        self._judged = judged

    @property
    def _case(self) -> Case:
        if self._judged.case is None:
            raise UserError(
                f"a union has members, {', '.join(self.members)}: ask for this of each, as members['l2']."
            )
        return self._judged.case

    @property
    def members(self) -> Mapping[str, "Judgement"]:
        """The judgement in each norm of a union, by the norm's name; empty where there is one norm."""
        return {norm: Judgement(member) for norm, member in self._judged.members.items()}

    @property
    def records(self) -> Sequence[Record]:
        """The numbers as records, which reports are made of."""
        return self._judged.records

    @property
    def rows(self) -> Sequence[LedgerRow]:
        """What happened to each image."""
        return self._judged.rows

    @property
    def doubts(self) -> Sequence[Doubt]:
        """The signs that a number says less than it seems to. Each has a name and a text."""
        return self._judged.doubts

    @property
    def claim(self) -> Ruling | None:
        """What the evaluation says of the claim that it was asked about; None where it was asked about none."""
        for record in claims_of(self.records):
            return Ruling(record.details["verdict"], record.details.get("needed"))
        return None

    @property
    def notes(self) -> Sequence[str]:
        """Sentences that say how the model and its images were understood."""
        fallen_back = [] if self._case.why is None else [self._case.why]
        return [*self._case.target.notes, *fallen_back]

    @property
    def folder(self) -> Path | None:
        """The folder that keeps the evaluation; None where nothing was written."""
        return self._case.target.run.path if self._case.target.has_folder else None

    @property
    def n(self) -> int:
        """The number of images that were evaluated."""
        return len(self.rows)

    def keys(self) -> list[str]:
        """The names of the lines, in the order of the table."""
        prefix = UNION if self._judged.members else PREFIX
        names = [record.name for record in without_untried(self.records)]
        return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def __getitem__(self, name: str) -> Accuracy:
        for record in without_untried(self.records):
            if record.name == (UNION if self._judged.members else PREFIX) + name:
                assert record.value is not None
                assert record.n is not None
                assert record.interval is not None
                eps = record.details["eps"]
                eps = tuple(eps) if isinstance(eps, list) else eps
                estimate = record.details.get("estimate")
                bounds = None if estimate is None else tuple(estimate["of_these_images"])
                return Accuracy(name, record.value, record.n, *record.interval, eps, bounds)
        raise KeyError(f"{name!r} was not measured. {nearest(name, self.keys())}")

    @property
    def radii(self) -> Sequence[float]:
        """The radii of the budgets, rising."""
        return self._case.radii

    def curve(self, line: str = WORST) -> list[Accuracy]:
        """The accuracy at each radius, the smallest first.

        Args:
            line: the name of an attack, or "worst case".

        Raises:
            KeyError: no line of that name was measured.
        """
        names = [f"{line} at {readable(radius)}" for radius in self.radii[:-1]]
        return [self[name] for name in (*names, line)]

    @property
    def distances(self) -> Mapping[str, Sequence[float]]:
        """The distances of each attack that looks for the nearest adversarial image, under the attack's name.

        There is one distance for each image that the attack met, infinite where it found no such image.
        """
        telling = dict.fromkeys(name for row in self.rows for name in row.distances)
        return {name: [row.distances[name] for row in self.rows if name in row.distances] for name in telling}

    def values(self) -> list[Accuracy]:
        """The accuracy of each line, in the order of the table."""
        return [self[name] for name in self.keys()]

    def images(self, attack: str) -> FoolingImages:
        """The images that an attack fooled the model with, and which samples they belong to.

        Args:
            attack: the name of a line, such as "PGD-20" or "apgd-t". It stands for all its targets and radii.

        Raises:
            KeyError: no attack of that name was run.
            UserError: the images were not kept, or only some of them.
        """
        asked_for = [named for named in self._case.attacks if attack in (named.name, named.line)]
        several = self.radii if len(self.radii) > 1 else (None,)
        names = list(units_of(asked_for, several, self._case.sample))
        if not names:
            lines = dict.fromkeys(named.line for named in self._case.attacks)
            raise KeyError(f"no attack {attack!r} was run. {nearest(attack, lines)}")
        pictures = [torch.zeros(0, *self._case.images.shape)]
        positions: list[int] = []
        answers: list[int] = []
        for name in names:
            for chunk in range(self._case.ledger.chunks):
                unit = self._case.ledger.read(name, chunk)
                if unit is None or not any(unit.fooled):
                    continue
                saved = self._case.ledger.images(name, chunk)
                if saved is None:
                    raise UserError(
                        f"the images of {name} were not kept: evaluate with save_images=True, and with folder= where "
                        "they take more memory than 2 GiB."
                    )
                answer_of = dict(zip(unit.positions, unit.answers, strict=True))
                fell = [p for p, hit in zip(unit.positions, unit.fooled, strict=True) if hit]
                pictures.append(saved[0][[saved[1].index(position) for position in fell]])
                positions += fell
                answers += [answer_of[position] for position in fell]
        rows = [self.rows[position] for position in positions]
        return FoolingImages(
            torch.cat(pictures),
            torch.tensor([row.index for row in rows], dtype=torch.int64),
            torch.tensor(positions, dtype=torch.int64),
            torch.tensor([row.label for row in rows], dtype=torch.int64),
            torch.tensor(answers, dtype=torch.int64),
        )

    def verify(self) -> Verified:
        """Whether every claim still holds when the model judges the kept images again.

        It needs the images, the model and the data: see ``evaluation.verify``.
        """
        case, wanted = self._case, self._case.target.config.evaluate
        return verify(
            case.model,
            case.images,
            case.attacks,
            case.ledger,
            budget_of=budgets_of(case.ledger, case.identity),
            batch_size=case.sizes.batch_size,
            device=case.target.device,
            individual=wanted.individual,
            plan=draw_plan_of(case.identity) or case.sample,
        )

    def save(self, folder: str | Path) -> Path:
        """Write rows, images and records into a run folder, which ``report`` and the commands read.

        Raises:
            UserError: the evaluation is kept already, or the folder holds something else.
        """
        if not isinstance(self._case.ledger, MemoryLedger):
            raise UserError(f"this evaluation is kept already, in {self.folder}.")
        saved = self._case_in(Path(folder).expanduser())
        with hold_results(saved.target, saved.ledger.folder):
            judging.open_ledger(saved)
            self._case.ledger.write_to(saved.ledger)
            keep(saved, self.rows, self.records)
        return saved.target.run.path

    def _case_in(self, folder: Path) -> Case:
        """The same evaluation, kept in a folder."""
        config = self._case.target.config.model_copy(update={"runs": folder.parent, "name": folder.name})
        target = replace(self._case.target, run=RunDir(folder), config=config, has_folder=True)
        return replace(self._case, target=target)

    def report(self, path: str | Path) -> Path:
        """Write the page of this evaluation: one HTML file that needs nothing else."""
        page = Path(path).expanduser()
        if self.folder is not None:
            return write_report([self.folder], page)
        with TemporaryDirectory() as place:
            return write_report([self.save(Path(place) / self._case.target.run.name)], page)

    def to_markdown(self) -> str:
        """The table in Markdown."""
        head = ["attack", "accuracy", *self._interval_titles, "n"]
        lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        return "\n".join([*lines, *(f"| {' | '.join(cells)} |" for cells in self._cells())])

    def to_latex(self) -> str:
        """The table in LaTeX, for the package booktabs."""
        intervals = [title.replace(" %", r"\,\%") for title in self._interval_titles]
        head = [
            rf"\begin{{tabular}}{{lr{'r' * len(intervals)}r}}",
            r"\toprule",
            rf"{' & '.join(['attack', 'accuracy', *intervals, 'n'])} \\",
            r"\midrule",
        ]
        body = [" & ".join(map(escape_latex, cells)) + r" \\" for cells in self._cells()]
        return "\n".join([*head, *body, r"\bottomrule", r"\end{tabular}"])

    def to_csv(self, path: str | Path | None = None) -> str:
        """The table as CSV, with numbers in full. Where a ``path`` is given, it is written there as well."""
        text = io.StringIO()
        table = CsvWriter(text, lineterminator="\n")
        more = ["low of these images", "high of these images"] if self._estimates else []
        table.writerow(["attack", "accuracy", "low", "high", "n", *more])
        for line in self.values():
            bounds = line.of_these_images or ("", "")
            cells = [line.name, line.value, line.low, line.high, line.n]
            table.writerow([*cells, *(bounds if self._estimates else ())])
        if path is not None:
            Path(path).expanduser().write_text(text.getvalue(), encoding="utf-8")
        return text.getvalue()

    def _cells(self) -> list[list[str]]:
        rows = []
        for line in self.values():
            cells = [self._title_of(line), f"{line.value:.2%}", f"{line.low:.2%} to {line.high:.2%}"]
            if self._estimates:
                low, high = line.of_these_images or (line.value, line.value)
                cells.append(f"{low:.2%} to {high:.2%}" if line.estimated else "")
            rows.append([*cells, str(line.n)])
        return rows

    @property
    def _estimates(self) -> bool:
        """Whether some line is an estimate."""
        return any(line.estimated for line in self.values())

    def _title_of(self, line: Accuracy) -> str:
        """The name of a line. With several radii, each line but the clean one says its own radius."""
        if line.estimated:
            return f"{line.name} (estimate)"
        if isinstance(line.eps, tuple) or len(self.radii) == 1 or line.name == CLEAN:
            return line.name
        at = f" at {readable(line.eps)}"
        return line.name.removesuffix(at) + at

    @property
    def _interval_titles(self) -> list[str]:
        title = interval_title(self.records[0].details)
        return [title, OF_THESE_IMAGES] if self._estimates else [title]

    @property
    def title(self) -> str:
        """What was judged, on which images, under which budget."""
        details = self.records[0].details
        budgets = [
            f"{judgement._case.norm} {', '.join(f'{radius:.4g}' for radius in judgement.radii)}"
            for judgement in self.members.values() or (self,)
        ]
        return (
            f"{details['method']} on {details['data']} ({details['split']}), {' or '.join(budgets)}"
            f"{random_in_words(details)}{sample_in_words(details)}, n = {self.n}"
        )

    def __repr__(self) -> str:
        cells = [["", "accuracy", *self._interval_titles], *(row[:-1] for row in self._cells())]
        widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
        lines = [
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in cells
        ]
        doubts = [f"doubt: {doubt.name}: {doubt.text}" for doubt in self.doubts]
        return "\n".join([self.title, *(line.rstrip() for line in lines), *doubts])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th scope='row' style='text-align:left'>{escape(name)}</th><td>{'</td><td>'.join(cells)}</td></tr>"
            for name, *cells, _ in self._cells()
        )
        doubts = "".join(
            f"<p><strong>{escape(doubt.name)}</strong>: {escape(doubt.text)}</p>" for doubt in self.doubts
        )
        return (
            f"<table><caption>{escape(self.title)}</caption><thead><tr><th></th><th>accuracy</th>"
            f"<th>{'</th><th>'.join(self._interval_titles)}</th></tr></thead><tbody>{rows}</tbody></table>{doubts}"
        )
