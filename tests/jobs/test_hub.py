"""Sharing to the hub and loading from it: the hub's own client, against a server on this machine."""

import os
import shutil
import subprocess
import sys

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants

import counterpart as cp
from counterpart.cli import main
from counterpart.errors import UserError

from .local_hub import TOKEN, Hub

# The client itself says of its uploads: DeprecationWarning, Use 'content=<...>'.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
NAME = "somebody/digits"
WEIGHTS = "checkpoints/best.safetensors"


@pytest.fixture(scope="module")
def shared(master, tmp_path_factory):
    """A run with an evaluation, and the folder that shares it."""
    folder = tmp_path_factory.mktemp("hub")
    shutil.copytree(master.path, folder / "run")
    assert main(["evaluate", str(folder / "run"), "--attacks", "fgsm", "--n", "20"]) == 0
    cp.share(folder / "run", folder / "shared")
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that the client asks, with a cache of its own and a token; no request goes elsewhere."""
    hub = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for module in ("file_download", "utils._http"):  # what fails is tried again, without a pause here
        monkeypatch.setattr(f"huggingface_hub.{module}.time.sleep", lambda seconds: None)
    yield hub
    hub.stop()
    huggingface_hub.close_session()


@pytest.fixture
def published(hub, shared):
    """The same hub with the shared folder in it."""
    folder = shared / "shared"
    files = [path for path in folder.rglob("*") if path.is_file()]
    hub.repositories[NAME] = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return hub


def answers(place):
    images = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return cp.load(place)(images)


def test_what_is_sent_is_what_is_loaded(hub, shared, tmp_path, capsys):
    assert main(["share", str(shared / "run"), "--to", f"hf://{NAME}"]) == 0
    assert f"{hub.endpoint}/{NAME}/commit/" in capsys.readouterr().out
    assert hub.unknown == []
    assert hub.private == {NAME}  # until its owner opens it
    assert (
        "POST",
        f"/{NAME}.git/info/lfs/objects/batch",
    ) in hub.asked  # weights do not travel within the commit
    assert torch.equal(answers(f"hf://{NAME}"), answers(shared / "run"))
    commit = hub.commit(NAME)
    assert torch.equal(answers(f"hf://{NAME}@{commit}"), answers(shared / "run"))
    copy = tmp_path / "copy"
    for path, content in hub.repositories[NAME].items():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).write_bytes(content)
    assert main(["verify", str(copy)]) == 0  # by itself, as whoever fetched it would
    assert (
        main(["share", str(shared / "run"), "--to", f"hf://{NAME}"]) == 0
    )  # a second commit of the same repository


def test_files_of_other_kinds_are_not_fetched(published):
    published.repositories[NAME]["evil.py"] = b"raise SystemExit"
    answers(f"hf://{NAME}")
    fetched = [path for method, path in published.asked if method == "GET" and "/resolve/" in path]
    assert any(path.endswith(WEIGHTS) for path in fetched)
    assert not any(path.endswith(".py") for path in fetched)


@pytest.mark.parametrize(
    ("token", "address", "said"),
    [
        ("hf_of_nobody", NAME, "the hub does not let this account in, or has no such model"),
        (TOKEN, "somebody/nothing", "the hub has no such model, or this account may not see it"),
        (TOKEN, f"{NAME}@trial", "the model has no revision trial"),
    ],
)
def test_what_the_hub_refuses_is_told_in_one_line(published, monkeypatch, token, address, said):
    published.private.add(NAME)
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError, match=said) as told:
        cp.load(f"hf://{address}")
    assert str(told.value).startswith(f"Cannot fetch hf://{address}: ")
    assert "\n" not in str(told.value)


def test_a_token_that_may_not_write_sends_nothing(hub, shared, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    with pytest.raises(
        UserError, match="Cannot send the model to hf://somebody/digits: the hub does not let"
    ) as told:
        cp.share(shared / "run", f"hf://{NAME}")
    assert "\n" not in str(told.value)
    assert hub.repositories == {}


def test_a_branch_has_to_be_there(hub, shared):
    with pytest.raises(
        UserError, match=f"Cannot send the model to hf://{NAME}@trial: the model has no revision trial"
    ):
        cp.share(shared / "run", f"hf://{NAME}@trial")
    assert hub.repositories == {NAME: {}}


def test_an_upload_that_failed_says_why(hub, shared, monkeypatch):
    monkeypatch.setattr("tests.jobs.local_hub.Hub.full", True)
    with pytest.raises(UserError, match=r"Error while uploading '\S+' to the Hub\..*507") as told:
        cp.share(shared / "run", f"hf://{NAME}")
    assert "\n" not in str(told.value)
    assert hub.repositories == {NAME: {}}  # made, and nothing in it


def test_a_download_that_was_cut_is_tried_again(published, shared):
    published.cut = 1
    assert torch.equal(answers(f"hf://{NAME}"), answers(shared / "run"))
    commit = published.commit(NAME)
    assert published.asked.count(("GET", f"/{NAME}/resolve/{commit}/{WEIGHTS}")) == 2


def test_a_download_that_is_always_cut_is_told_and_goes_on_later(published, shared):
    published.cut = 1000
    with pytest.raises(UserError, match=f"Cannot fetch hf://{NAME}: ") as told:
        cp.load(f"hf://{NAME}")
    assert "\n" not in str(told.value)
    published.cut = 0
    assert torch.equal(answers(f"hf://{NAME}"), answers(shared / "run"))


def test_a_file_that_changed_on_its_way_is_noticed(published):
    content = bytearray(published.repositories[NAME][WEIGHTS])
    content[-1] ^= 1
    published.repositories[NAME][WEIGHTS] = bytes(content)
    with pytest.raises(UserError, match="does not fit its checksum"):
        cp.load(f"hf://{NAME}")


def test_without_a_network_what_was_fetched_before_is_loaded(published, shared, monkeypatch):
    assert torch.equal(answers(f"hf://{NAME}"), answers(shared / "run"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    before = len(published.asked)
    assert torch.equal(answers(f"hf://{NAME}"), answers(shared / "run"))
    assert len(published.asked) == before
    with pytest.raises(
        UserError, match="the hub cannot be reached, and the cache does not hold the whole model"
    ):
        cp.load("hf://somebody/else")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    published.stop()
    huggingface_hub.close_session()  # which is still connected
    assert torch.equal(answers(f"hf://{NAME}"), answers(shared / "run"))
    with pytest.raises(
        UserError, match="the hub cannot be reached, and the cache does not hold the whole model"
    ):
        cp.load("hf://somebody/else")


@pytest.mark.slow
def test_commands_ask_the_hub_that_the_environment_names(published, tmp_path):
    environment = {
        **os.environ, "HF_ENDPOINT": published.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip
    program = f"import counterpart; print(counterpart.load('hf://{NAME}').num_classes)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "10"
