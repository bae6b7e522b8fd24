"""SIGKILL at random moments of a command: given again, it ends as if nothing had happened."""

import argparse
import json
import random
import sys

import pytest
import torch

from counterpart import checksums

NAMES = ("train", "evaluate", "data prepare", "papers run")


@pytest.fixture(scope="module")
def campaign(benchmark_module):
    """The campaign, whose processes import it, too."""
    return benchmark_module("fault_kills")


def test_every_command_has_its_kills(campaign):
    assert {name: command.kills for name, command in campaign.COMMANDS.items()} == dict(
        zip(NAMES, (20, 20, 10, 10), strict=True)
    )


def test_a_part_of_the_campaign_makes_a_record_of_each_command_that_is_asked_for(campaign):
    def count(command, home, drawn):
        assert list(home.iterdir()) == []
        return command, 3, {"share": drawn.random()}

    commands = {"train": 0, "evaluate": 2, "papers run": 1}
    asked = argparse.Namespace(command=["evaluate", "papers run", "data prepare"], seed=5)
    rows = campaign.measure_each("stops", commands, asked, count)
    assert [(row.name, row.value, row.n, row.seed) for row in rows] == [
        ("faults/stops/evaluate", 2, 3, 5), ("faults/stops/papers run", 1, 3, 5),
    ]  # fmt: skip
    share = random.Random("5 evaluate").random()
    assert rows[0].details == {"unit": "faults", "target": "0", "share": share}
    asked.command = None
    assert len(campaign.measure_each("stops", commands, asked, count)) == 3


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux", reason="reads the clocks of other processes as Linux numbers them"
)
@pytest.mark.parametrize("name", NAMES)
def test_a_killed_command_ends_as_an_undisturbed_one(campaign, name, tmp_path):
    kills = campaign.kill_again_and_again(campaign.COMMANDS[name], tmp_path, random.Random(1), count=3)
    assert kills.differing == []
    assert len(kills.moments) == 3
    assert sum(kills.stages.values()) == 3
    first, last = kills.span
    assert 0 < first < min(kills.moments) <= max(kills.moments) < last


def write_folder(folder, rows=({"kind": "metric", "value": 0.5, "seconds": 3},), weight=1.0, said="x"):
    folder.mkdir()
    (folder / "records.jsonl").write_text("".join(checksums.to_json(row) + "\n" for row in rows))
    (folder / "about.json").write_text(checksums.to_json({"epoch": 2, "time": "now"}))
    metadata = {"said": said, "further": "1", "more": "2"}
    checksums.save_tensors({"weight": torch.tensor([weight])}, folder / "last.safetensors", metadata)
    (folder / "progress.log").write_text(str(folder))
    return folder


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"rows": ({"kind": "metric", "value": 0.5, "seconds": 4},)}, []),  # times differ always
        ({"rows": ({"kind": "metric", "value": 0.6, "seconds": 3},)}, ["records.jsonl is another"]),
        ({"rows": ()}, ["records.jsonl is another"]),
        ({"rows": ({"kind": "metric", "value": 0.5},) * 2}, ["records.jsonl is another"]),
        ({"weight": 1.0000001}, ["last.safetensors is another"]),
        ({"said": "y"}, ["last.safetensors is another"]),
    ],
)
def test_what_counts_as_a_difference(campaign, changes, expected, tmp_path):
    whole, other = write_folder(tmp_path / "whole"), write_folder(tmp_path / "other", **changes)
    assert campaign.differences(campaign.content(whole), campaign.content(other)) == expected


def test_files_that_are_missing_or_left_over_are_differences(campaign, tmp_path):
    whole, other = write_folder(tmp_path / "whole"), write_folder(tmp_path / "other")
    (other / "about.json").unlink()
    (other / ".tmpKf14gj").write_bytes(b"half")
    assert campaign.differences(campaign.content(whole), campaign.content(other)) == [
        ".tmpKf14gj is left over",
        "about.json is missing",
    ]


def test_an_artifact_has_the_sha256_of_its_file(campaign, tmp_path):
    """Whichever that is: the order within the header of a file of tensors is by chance."""
    folder = write_folder(tmp_path / "whole")
    file = folder / "last.safetensors"
    for sha256, fits in ((campaign.file_hash(file), True), ("0" * 64, False)):
        row = {"kind": "artifact", "name": "panel", "details": {"file": file.name, "sha256": sha256}}
        (folder / "records.jsonl").write_text(json.dumps(row) + "\n")
        [compared] = campaign.content(folder)["records.jsonl"]
        assert compared["details"] == {"file": file.name, "sha256": fits}
