"""Commands on a run folder that somebody else made: nothing is written elsewhere, and no pipe is waited for."""

import os
import signal

import pytest

from counterpart.checksums import load_tensors, save_tensors
from counterpart.cli import main
from counterpart.errors import UserError
from counterpart.jobs.saved_images import first_saved_images
from counterpart.jobs.targets import open_single_target
from counterpart.records import file_hash

DEVICE = ["--device", "cpu"]
WORDS = ["--n", "20", "--attacks", "[{steps: 2}]", "--eps", "0.05", "--evaluate.precision", "float32"]


@pytest.fixture(autouse=True)
def hurry():
    """A command that waits for a pipe is a failure, and not a suite that never ends."""
    before = signal.signal(signal.SIGALRM, lambda number, frame: pytest.fail("it waits for a pipe"))
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def said(capsys, *words):
    capsys.readouterr()
    assert main([*map(str, words)]) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def lead_out(path, elsewhere):
    """Put a link in place of a file or folder, which moves elsewhere."""
    path.rename(elsewhere / path.name)
    path.symlink_to(elsewhere / path.name)


@pytest.fixture
def elsewhere(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere"


def test_records_are_not_written_through_a_link(run, elsewhere, capsys):
    assert main(["evaluate", str(run.path), *WORDS, *DEVICE]) == 0
    lead_out(run.records_file, elsewhere)
    before = (elsewhere / "records.jsonl").read_bytes()
    capsys.readouterr()
    assert main(["verify", str(run.path)]) == 0
    told = " ".join("".join(capsys.readouterr()).split())
    assert "not recorded: " in told
    assert "leads out of" in told
    assert "records.jsonl leads out of" in said(capsys, "evaluate", run.path, *WORDS, *DEVICE, "--seed", "1")
    assert "records.jsonl leads out of" in said(
        capsys, "train", run.config_file, "--runs", run.path.parent, "--name", run.name
    )
    assert (elsewhere / "records.jsonl").read_bytes() == before


def test_no_evaluation_is_written_into_a_folder_elsewhere(run, elsewhere, capsys):
    (elsewhere / "evaluations").mkdir()
    (run.path / "evaluations").symlink_to(elsewhere / "evaluations")
    assert "leads out of" in said(capsys, "evaluate", run.path, *WORDS, *DEVICE)
    assert not [*(elsewhere / "evaluations").rglob("*.json")]


def test_a_training_adds_to_no_log_elsewhere(run, elsewhere, capsys):
    lead_out(run.progress_log, elsewhere)
    before = (elsewhere / "progress.log").read_bytes()
    line = said(capsys, "train", run.config_file, "--runs", run.path.parent, "--name", run.name)
    assert "progress.log leads out of" in line
    assert (elsewhere / "progress.log").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("images.csv", "evaluate"),
        ("panel.safetensors", "evaluate"),
        ("result.json", "evaluate"),
        ("images/*.safetensors", "verify"),
        ("images/*.safetensors", "export"),
    ],
)
def test_a_pipe_in_place_of_a_file_is_refused(run, tmp_path, capsys, name, command):
    assert main(["evaluate", str(run.path), *WORDS, *DEVICE]) == 0
    (file,) = run.path.glob(f"evaluations/*/{name}")
    file.unlink()
    os.mkfifo(file)
    words = {
        "evaluate": ["evaluate", run.path, *WORDS, *DEVICE],
        "verify": ["verify", run.path],
        "export": ["export", run.path, "--to", tmp_path / "net.pt"],
    }[command]
    line = said(capsys, *words)
    assert file.name in line
    assert "no regular file" in line or "is damaged" in line


def test_saved_images_that_do_not_belong_to_their_evaluation(run):
    assert main(["evaluate", str(run.path), *WORDS, *DEVICE]) == 0
    (file,) = run.path.glob("evaluations/*/images/*.safetensors")
    tensors = load_tensors(file)
    target = open_single_target(str(run.path), {})
    assert len(first_saved_images(target, 100)[0]) == len(tensors["images"]) > 0
    save_tensors({**tensors, "positions": tensors["positions"] + 20}, file)
    with pytest.raises(UserError, match="holds images that are none of the 20 of its evaluation"):
        first_saved_images(target, 100)


def test_what_has_no_end_is_not_hashed(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    for name in ("pipe", "zeros"):
        with pytest.raises(UserError, match=f"{name}: it is no regular file"):
            file_hash(tmp_path / name)
