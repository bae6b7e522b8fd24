"""The study that workers share: a journal or a database, whose trials are taken, kept, released and taken up again.

A worker that trains a trial holds a lease in the study, which it renews. A lease whose process is gone on this machine,
or which nobody renewed for ``GRACE`` seconds, is void: the trial waits again, and the next worker takes it up.
"""

import fcntl
import logging
import os
import platform
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..renamed_settings import in_current_words
from ..rundir import differences, is_running

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, TrialState

JOURNAL = "journal.jsonl"
BEAT = 20.0  # seconds between two renewals of a lease
GRACE = 120.0  # seconds after which a lease that nobody renewed is void
_LEASE = "worker"
_ATTEMPTS = 3  # to open a database
_log = logging.getLogger(__name__)


class Lost(Exception):
    """Another worker took this one for dead, and took its trial up."""


@dataclass(frozen=True)
class SharedStudy:
    """A study and where it lies.

    Attributes:
        study: the study.
        storage: the storage of the study.
        folder: the folder of the runs, which machines may share or not.
        place: the name of the storage in messages, without a password.
    """

    study: "optuna.Study"
    storage: "BaseStorage"
    folder: Path
    place: str

    def trials(self) -> "list[FrozenTrial]":
        """All trials, by number."""
        return self.study.get_trials(deepcopy=False)


@contextmanager
def open_study(
    name: str, folder: Path, address: str | None, identity: Mapping[str, Any]
) -> Iterator[SharedStudy]:
    """A block with the study of a name, which the first worker makes.

    Args:
        name: the name of the study.
        folder: the folder of its runs.
        address: the address of a database, such as sqlite:///study.db. The default is a journal in ``folder``.
        identity: what decides the results. A study that began with another one is refused.

    Raises:
        UserError: Optuna is missing, the storage cannot be reached, now or later, or the study is another one.
    """
    try:
        import optuna
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError as error:
        raise UserError(
            f"counterpart sweep needs Optuna ({error}): python -m pip install 'counterpart[sweep]'."
        ) from error
    place = str(folder / JOURNAL) if address is None else _without_password(address)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with ExitStack() as opened:
            storage = _open_journal(folder) if address is None else _open_database(address, opened)
            study = optuna.create_study(
                storage=storage, study_name=name, direction="maximize", load_if_exists=True
            )
            shared = SharedStudy(study, storage, folder, place)
            _refuse_another(shared, identity)
            yield shared
    except BrokenPipeError:  # of the reader of our output
        raise
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise UserError(
            f"the study in {place} cannot be reached: {reason}. The same command continues."
        ) from error
    finally:
        optuna.logging.set_verbosity(verbosity)


def take_trial(shared: SharedStudy, count: int) -> "optuna.Trial | None":
    """A trial of the first ``count``: one that waits, else a new one. None where all of them are taken."""
    from optuna.trial import TrialState

    _free_dead_trials(shared)
    while True:
        taken = [t for t in shared.trials() if t.number < count and t.state != TrialState.WAITING]
        if len(taken) >= count:
            return None
        trial = shared.study.ask()
        if trial.number < count:
            _sign(shared, trial._trial_id)
            return trial
        _release(shared, trial)  # another worker was faster, and this number is beyond the last


def report(shared: SharedStudy, trial: "optuna.Trial", epoch: int, natural: float, robust: float) -> None:
    """Tell the study the validation accuracies after an epoch, unless it knows them."""
    current = shared.storage.get_trial(trial._trial_id)
    naturals = current.user_attrs.get("naturals", [])
    if epoch == len(naturals):
        trial.set_user_attr("naturals", [*naturals, natural])
    if epoch not in current.intermediate_values:
        trial.report(robust, epoch)


def give_back(shared: SharedStudy, trial: "optuna.Trial") -> None:
    """Let a trial of this worker wait for the next one, if it is this worker's and not over."""
    current = shared.storage.get_trial(trial._trial_id)
    if _is_ours(current) and not current.state.is_finished():
        _release(shared, trial)


def _release(shared: SharedStudy, trial: "optuna.Trial | FrozenTrial") -> None:
    from optuna.trial import TrialState

    # Without a lease, or else its next worker could pass for dead.
    shared.storage.set_trial_user_attr(trial._trial_id, _LEASE, None)
    shared.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)


def tell(shared: SharedStudy, trial: "optuna.Trial", state: "TrialState", value: float | None = None) -> None:
    """Tell the study how a trial ended, unless another worker holds it by now and will tell."""
    if _is_ours(shared.storage.get_trial(trial._trial_id)):
        shared.study.tell(trial, value, state=state, skip_if_finished=True)
    else:
        _log.warning("trial %d: another worker holds it by now.", trial.number)


@contextmanager
def held(shared: SharedStudy, trial: "optuna.Trial") -> Iterator[threading.Event]:
    """A block in which the lease of a trial is renewed, and no other worker of this machine enters its folder.

    The event is set where another worker holds the lease: this one was taken for dead.
    """
    lost, ended = threading.Event(), threading.Event()

    def renew() -> None:
        while not ended.wait(BEAT):
            try:
                if not _is_ours(shared.storage.get_trial(trial._trial_id)):
                    lost.set()
                    return
                _sign(shared, trial._trial_id)
            except Exception as error:  # a storage has many, and may be back at the next beat
                _log.warning("trial %d: the lease was not renewed: %s", trial.number, error)

    beating = threading.Thread(target=renew, daemon=True)
    with _locked(shared.folder, trial.number, wait=True):
        _sign(shared, trial._trial_id)
        beating.start()
        try:
            yield lost
        finally:
            ended.set()
            beating.join()


def _open_journal(folder: Path) -> "BaseStorage":
    from .journal import open_journal

    try:
        folder.mkdir(parents=True, exist_ok=True)
        return open_journal(folder / JOURNAL)
    except OSError as error:
        raise UserError(f"Cannot write {folder / JOURNAL}: {error.strerror or error}.") from error
    except ValueError as error:
        raise UserError(
            f"{folder / JOURNAL} is damaged: {error}. Mend its last line, or remove it."
        ) from error


def _open_database(address: str, opened: ExitStack) -> "BaseStorage":
    """A database, whose connections end with ``opened``.

    Several workers may make its tables at once, and then all but one of them try again.
    """
    from optuna.storages import RDBStorage
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    url = make_url(address)
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    waits = {"connect_args": {"timeout": 60}} if url.get_backend_name() == "sqlite" else {}
    text, options = url.render_as_string(hide_password=False), {"pool_pre_ping": True, **waits}
    for attempt in range(_ATTEMPTS):
        try:
            storage = RDBStorage(text, engine_kwargs=options)
            opened.callback(storage.engine.dispose)
            return storage
        except SQLAlchemyError:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(1)
        except ImportError as error:
            raise UserError(
                f"a database {url.get_backend_name()} needs a driver that is not installed ({error})."
            ) from error
    raise AssertionError("the last attempt returns or raises")


def _without_password(address: str) -> str:
    """An address as it may be shown.

    Raises:
        UserError: it is none.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return make_url(address).render_as_string(hide_password=True)
    except SQLAlchemyError as error:
        raise UserError(
            f"{address!r:.100} is no address of a database: write one such as postgresql://user@host/name or "
            "sqlite:///study.db."
        ) from error


def _refuse_another(shared: SharedStudy, identity: Mapping[str, Any]) -> None:
    """Refuse a study that began with other settings or another space; a new one is given these."""
    before = shared.study.user_attrs.get("identity")
    if before is None:
        shared.study.set_user_attr("identity", dict(identity))
        return
    if changed := differences(in_current_words(before), in_current_words(identity)):
        raise UserError(
            f"the study {shared.study.study_name} in {shared.place} is another one ({'; '.join(changed[:3])}). Give "
            "this one a name of its own with --name."
        )


def _free_dead_trials(shared: SharedStudy) -> None:
    """Let those trials wait whose worker is dead."""
    from optuna.trial import TrialState

    for trial in shared.trials():
        if trial.state != TrialState.RUNNING or not _is_dead(trial):
            continue
        with _locked(shared.folder, trial.number, wait=False) as ours:
            current = shared.storage.get_trial(trial._trial_id)
            if ours and current.state == TrialState.RUNNING and _is_dead(current):
                _release(shared, trial)


def _is_dead(trial: "FrozenTrial") -> bool:
    """Whether nobody trains a running trial any more. This process trains none while it asks."""
    lease: Mapping[str, Any] | None = trial.user_attrs.get(_LEASE)
    if lease is None:  # its worker took it and has not signed yet, or died in between
        return trial.datetime_start is None or (datetime.now() - trial.datetime_start).total_seconds() > GRACE
    if lease["host"] == platform.node() and (lease["pid"] == os.getpid() or not is_running(lease["pid"])):
        return True
    return time.time() - float(lease["time"]) > GRACE


def _is_ours(trial: "FrozenTrial") -> bool:
    lease = trial.user_attrs.get(_LEASE) or {}
    return (lease.get("host"), lease.get("pid")) == (platform.node(), os.getpid())


def _sign(shared: SharedStudy, trial_id: int) -> None:
    lease = {"host": platform.node(), "pid": os.getpid(), "time": time.time()}
    shared.storage.set_trial_user_attr(trial_id, _LEASE, lease)


@contextmanager
def _locked(folder: Path, number: int, wait: bool) -> Iterator[bool]:
    """A block that holds the lock of a trial, which the system gives back when a process ends, however it does."""
    path = folder / "locks" / f"{number:04}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
