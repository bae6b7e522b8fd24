"""Shared models on the Hugging Face Hub, through its own client: fetched as a folder, and sent from one."""

import re
from pathlib import Path

from ..errors import UserError

HUB = "hf://"
FILES = (
    "README.md",
    "*.json",
    "*.jsonl",
    "*.yaml",
    "*.safetensors",
)  # nothing else of a repository is fetched


def repository(text: str) -> tuple[str, str | None]:
    """The repository and the revision that hf://OWNER/NAME or hf://OWNER/NAME@REVISION names.

    Raises:
        UserError: it has another form.
    """
    match = re.fullmatch(rf"{HUB}([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", text)
    if match is None:
        raise UserError(
            f"{text} is no model of the hub: expected hf://OWNER/NAME, or hf://OWNER/NAME@REVISION."
        )
    return match[1], match[2]


def downloaded(text: str) -> Path:
    """The folder of a shared model, which the hub's client fetches into its own cache.

    Args:
        text: hf://OWNER/NAME, or hf://OWNER/NAME@REVISION.

    Raises:
        UserError: the hub has no such model, or does not answer.
    """
    from huggingface_hub import snapshot_download  # takes long to import

    name, revision = repository(text)
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(FILES)))
    except Exception as error:  # the client raises errors of many libraries
        raise UserError(f"Cannot fetch {text}: {_reason(error, revision)}.") from error


def uploaded(folder: Path, text: str) -> str:
    """Send a folder to the hub, as one commit, and give the address of that commit.

    The account is the one that the hub's client is logged in with. A repository that does not exist yet is made, for
    the account alone to see.

    Raises:
        UserError: the hub refuses, or does not answer. Files of a commit arrive together or not at all.
    """
    from huggingface_hub import HfApi

    name, revision = repository(text)
    client = HfApi()
    try:
        client.create_repo(name, private=True, exist_ok=True)
        commit = client.upload_folder(
            repo_id=name,
            folder_path=folder,
            revision=revision,
            commit_message="Share a model with Counterpart",
        )
    except Exception as error:  # the client raises errors of many libraries
        raise UserError(
            f"Cannot send the model to {text}: {_reason(error, revision)}. The account is that of: hf auth login."
        ) from error
    return str(getattr(commit, "commit_url", commit))


def _reason(error: Exception, revision: str | None) -> str:
    """Why the hub's client failed, in one line without its full stop."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the model has no revision {revision}"
    if status == 401:
        return "the hub does not let this account in, or has no such model"
    if status == 403:
        return "the hub does not allow that to this account"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "the hub has no such model, or this account may not see it"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return "the hub cannot be reached, and the cache does not hold the whole model"
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].removesuffix(".")
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):  # it only says which file
        return f"{reason}. {_reason(error.__cause__, revision)}"
    return reason
