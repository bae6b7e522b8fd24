"""The verification of evaluations, which derives every claim of a run folder's ledgers again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import distributed
from ..contracts import NamedAttack
from ..data.image_sets import balanced_subset
from ..errors import UserError
from ..evaluation import accuracy
from ..evaluation.ledger import Ledger
from ..evaluation.verify import Verified, verify
from ..evaluation.weights import weights_hash
from ..records import Record, fingerprint
from ..renamed_settings import in_current_words
from ..rundir import RunDir, members, read_json
from ..terminal import open_console, show
from .case import budgets_of, draw_plan_of, judged_model, on_corrupted
from .notes import say
from .samples import plan_of_identity
from .stored_models import UNAVERAGED
from .targets import open_targets
from .whole_files import check_files

SHOWN = 5  # the number of mismatches of an evaluation that are named


def verify_run(path: Path, changes: Mapping[str, Any], *, eight_bits: bool = False) -> list[Verified]:
    """The outcome of verifying every evaluation of a run folder, or of the runs of a group folder.

    Before that, the files of each run are looked at: whether they are what was written.

    Args:
        path: the run folder or group folder.
        changes: the settings that say where data lie now, such as {"data": {"root": DIR}}.
        eight_bits: whether to count as well how many images still fool the model once they are rounded to 8
            bits.

    Raises:
        UserError: a file is damaged, a claim does not hold, or the weights or the data are not those of the ledger.
            All files and evaluations are looked at first.
    """
    results, faults = [], []
    for run in members(path):
        faults += _check_files(run)
        folders = sorted(file.parent for file in run.path.glob("evaluations/*/identity.json"))
        if not folders:
            say([f"{run.path} holds no evaluation. Make one: counterpart evaluate {run.path}"])
        for folder in folders:
            try:
                results.append(_verify(run, folder, changes, eight_bits))
            except UserError as fault:
                faults.append(str(fault))
    if faults:
        raise UserError(" ".join(dict.fromkeys(faults)))
    return results


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


def _verify(run: RunDir, folder: Path, changes: Mapping[str, Any], eight_bits: bool) -> Verified:
    identity = Ledger(folder, 0).identity()
    asked = _settings(folder / "settings.json")
    if not asked["config"]["evaluate"]["save_images"]:
        raise UserError(
            f"{folder} was made with --save-images false: evaluate again without that, then verify."
        )
    trained = run.checkpoint("best").exists()
    text, which = asked["target"], identity["who"]["weights"]
    if trained:  # because the folder may have been moved
        text = str(run.path if which in ("best", "last", UNAVERAGED) else run.path / which)
    settings = _changes(asked["config"], run if not trained else None, changes)
    target = on_corrupted(next(open_targets(text, settings)))
    images = target.images
    if identity["n"] < len(images):
        images = balanced_subset(images, identity["n"], seed=0)
    now = {
        "model": weights_hash(target.model),
        "data": [images.name, images.split, images.fingerprint],
        "images": fingerprint(images.index.tolist()),
        "n": len(images),
    }
    changed = [
        f"{name}: {identity[name]} there, {value} now"
        for name, value in now.items()
        if identity[name] != value
    ]
    if changed:
        raise UserError(f"{folder} cannot be verified, it belongs to something else ({'; '.join(changed)}).")
    chunks = accuracy.chunks_of(images, identity["chunk_size"])
    try:
        result = verify(
            judged_model(target),
            images,
            [
                NamedAttack(name, _never, line, nearest=name in identity.get("nearest", ()))
                for name, line in identity["attacks"]
            ],
            Ledger(folder, chunks),
            budget_of=budgets_of(Ledger(folder, chunks), identity),
            batch_size=identity["batch_size"],
            device=target.device,
            individual=identity["individual"],
            eight_bits=eight_bits,
            plan=draw_plan_of(identity) or plan_of_identity(identity),
        )
    except ValueError as error:  # for instance where answers are not finite
        raise UserError(f"{folder} cannot be verified: {error}") from error
    if distributed.is_main():
        _report(run, folder, result)
    return result


def _settings(file: Path) -> dict[str, Any]:
    """The target and the settings of an evaluation, as {"target": ..., "config": ...}."""
    try:
        asked = read_json(file)
        config = asked["config"]
        sound = isinstance(asked["target"], str) and isinstance(config["data"], dict)
        sound = sound and isinstance(config["evaluate"]["save_images"], bool)
    except (OSError, ValueError, LookupError, TypeError):
        sound = False
    if not sound:
        raise UserError(f"{file} is missing or damaged: without it nothing says how the evaluation was made.")
    return {**asked, "config": in_current_words(config)}


def _changes(config: Mapping[str, Any], outside: RunDir | None, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the evaluation had, overridden by those that say where things lie now."""
    evaluated = {
        name: config[name]
        for name in ("evaluate", "corruptions", "data", "threads", "seed")
        if config.get(name) is not None
    }
    # No masks are needed, because the planes of radii were kept.
    evaluated["evaluate"] = {
        **evaluated["evaluate"],
        "eps_low": None,
    }
    if outside is not None:
        evaluated |= {"model": config["model"], "name": outside.name, "runs": str(outside.path.parent)}
    for section, value in changes.items():
        evaluated[section] = {**evaluated.get(section, {}), **value} if isinstance(value, Mapping) else value
    return evaluated


def _never(*_: object, **__: object) -> Any:
    raise AssertionError("verification runs no attack")


def _report(run: RunDir, folder: Path, result: Verified) -> None:
    fine = result.claims - len(result.mismatches)
    words = f"{folder}: {fine:,} of {result.claims:,} claims hold, {result.marginal:,} of them on a marginal logit gap"
    if result.after_rounding is not None:
        words += (
            f"; {result.after_rounding:,} of {result.successes:,} images still fool after rounding to 8 bits"
        )
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
