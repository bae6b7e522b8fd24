"""What ``counterpart.audit`` returns."""

from collections.abc import Iterator
from html import escape

from ..errors import nearest
from ..evaluation.further_checks import NECESSARY
from ..evaluation.masking_checks import Behaviour
from ..jobs.auditing import Audited


class Audit:
    """The result of ``counterpart.audit``: a verdict on each behaviour that tells whether attacks can be trusted.

    Passing is necessary, not sufficient.

    Printed, and in a notebook, it is a table. A loop over it gives the behaviours, each with ``name``,
    ``honest``, ``numbers`` and ``verdict``. ``cost`` says in words what the audit took.
    """

    def __init__(self, audited: Audited) -> None:
        self.behaviours = audited.behaviours
        self.cost = audited.cost
        self._case = audited.case

    def __iter__(self) -> Iterator[Behaviour]:
        return iter(self.behaviours)

    def __len__(self) -> int:
        return len(self.behaviours)

    def __getitem__(self, name: str) -> Behaviour:
        for behaviour in self.behaviours:
            if behaviour.name == name:
                return behaviour
        raise KeyError(f"no behaviour is called {name!r}. {nearest(name, [b.name for b in self.behaviours])}")

    @property
    def suspicious(self) -> list[Behaviour]:
        """The behaviours that show that attacks cannot be trusted."""
        return [behaviour for behaviour in self.behaviours if behaviour.honest is False]

    def __repr__(self) -> str:
        marks = {True: "", False: "SUSPICIOUS: ", None: ""}
        lines = [f"{b.name}: {marks[b.honest]}{b.verdict}" for b in self.behaviours]
        return "\n".join([*lines, NECESSARY])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th scope='row' style='text-align:left'>{escape(behaviour.name)}</th>"
            f"<td>{'<strong>suspicious</strong>: ' if behaviour.honest is False else ''}"
            f"{escape(behaviour.verdict)}</td></tr>"
            for behaviour in self.behaviours
        )
        return (
            f"<table><thead><tr><th>behaviour</th><th>verdict</th></tr></thead><tbody>{rows}</tbody></table>"
            f"<p>{escape(NECESSARY)}</p>"
        )
