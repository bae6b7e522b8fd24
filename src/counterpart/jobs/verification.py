"""The verification of evaluations, which derives every claim of a run folder's ledgers again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .. import distributed
from ..errors import UserError
from ..evaluation.verify import Verified
from ..records import Record
from ..rundir import RunDir, members
from ..terminal import open_console, show
from .notes import say
from .sharing import check_card
from .stored_evaluations import StoredEvaluation, open_evaluation, verify_stored
from .whole_files import check_files

SHOWN = 5  # the number of mismatches of an evaluation that are named


class CheckedEvaluation(NamedTuple):
    """An evaluation that was opened and verified: what is stored of it, and the outcome."""

    stored: StoredEvaluation
    result: Verified


def verify_run(
    path: Path, changes: Mapping[str, Any], *, eight_bits: bool = False, trust: bool = False
) -> list[Verified]:
    """The outcome of verifying every evaluation of a run folder, or of the runs of a group folder, as ``check_run``."""
    return [checked.result for checked in check_run(path, changes, eight_bits=eight_bits, trust=trust)]


def check_run(
    path: Path, changes: Mapping[str, Any], *, eight_bits: bool = False, trust: bool = False
) -> list[CheckedEvaluation]:
    """Every evaluation of a run folder, or of the runs of a group folder, opened and verified.

    Before that, the files of each run are looked at: whether they are what was written.

    Args:
        path: the run folder or group folder.
        changes: the settings that say where data lie now, such as {"data": {"root": DIR}}.
        eight_bits: whether to count as well how many images still fool the model once they are rounded to 8
            bits.
        trust: whether code that was packed into a shared folder may run.

    Raises:
        UserError: a file is damaged, a claim does not hold, or the weights or the data are not those of the ledger.
            All files and evaluations are looked at first.
    """
    checked, faults = list[CheckedEvaluation](), list[str]()
    for run in members(path):
        faults += _check_files(run)
        folders = run.evaluation_folders
        if not folders:
            say([f"{run.path} holds no evaluation. Make one: counterpart evaluate {run.path}"])
        opened = []
        for folder in folders:
            try:
                opened.append(open_evaluation(run, folder, changes, trust=trust))
                checked.append(CheckedEvaluation(opened[-1], _verify(run, opened[-1], eight_bits)))
            except UserError as fault:
                faults.append(str(fault))
        faults += check_card(run, opened)
    if faults:
        raise UserError(" ".join(dict.fromkeys(faults)))
    return checked


def _check_files(run: RunDir) -> list[str]:
    """Say whether the files of a run are what was written, and give the sentence on those that are not."""
    files = check_files(run)
    if files.faults:
        named = "; ".join(files.faults[:SHOWN])
        more = "" if len(files.faults) <= SHOWN else f"; and {len(files.faults) - SHOWN} more"
        return [f"{run.path} is damaged: {named}{more}. Put back a copy of each, or make the run anew."]
    if distributed.is_main():
        words = f"{run.path}: {files.sealed:,} files fit their checksums"
        if files.bare:
            carry = "carries" if len(files.bare) == 1 else "carry"
            more = ", ..." if len(files.bare) > SHOWN else ""
            words += f", {len(files.bare):,} {carry} none ({', '.join(files.bare[:SHOWN])}{more})"
        show(f"{words}.")
    return []


def _verify(run: RunDir, stored: StoredEvaluation, eight_bits: bool) -> Verified:
    result = verify_stored(stored, eight_bits=eight_bits)
    if distributed.is_main():
        _report(run, stored.folder, result, stored.packed)
    return result


def _report(run: RunDir, folder: Path, result: Verified, packed: bool) -> None:
    fine = result.claims - len(result.mismatches)
    words = f"{folder}: {fine:,} of {result.claims:,} claims hold, {result.marginal:,} of them on a marginal logit gap"
    if result.after_rounding is not None:
        words += (
            f"; {result.after_rounding:,} of {result.successes:,} images still fool after rounding to 8 bits"
        )
    if packed:
        words += "; on the folder's own copy of the images (with --data.root DIR: on the data set's)"
    open_console().print(f"{words}.", highlight=False, soft_wrap=True)
    details = {**vars(result), "evaluation": folder.name, "mismatches": result.mismatches[:SHOWN]}
    share = fine / max(result.claims, 1)
    try:
        run.add([Record("metric", "verified", share, result.claims, details=details)])
    except UserError as error:  # whoever verifies may have no right to write there
        say([f"not recorded: {error}"])
    if result.mismatches:
        named = "; ".join(result.mismatches[:SHOWN])
        raise UserError(f"{folder} does not hold: {len(result.mismatches)} of its claims fail ({named}).")
