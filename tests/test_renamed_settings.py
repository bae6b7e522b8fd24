"""Old names of settings: answered where a user writes them, read where they are stored."""

import pytest
import yaml

from counterpart import papers
from counterpart.cli import main
from counterpart.config import identity, plain, resolve, settings
from counterpart.errors import UserError
from counterpart.renamed_settings import FIRST_WORDS, current_name, in_current_words, in_first_words
from counterpart.rundir import RunDir

STORED = {"seed": 1, "part": {"mask": "soft", "masks": None, "mask_from": "clean", "eps_low": 0.02}}
TODAY = {"seed": 1, "mask": {"rule": "soft", "files": None, "drawn_from": "clean", "eps_low": 0.02}}


def test_stored_settings_are_read_in_todays_words_and_back():
    assert in_current_words(STORED) == TODAY
    assert in_current_words(TODAY) == TODAY
    assert in_first_words(TODAY) == STORED
    assert in_first_words(STORED) == STORED
    assert in_current_words({"part": {}}) == {"mask": {}}


def test_every_setting_of_masks_has_a_first_name_or_is_younger_than_the_old_one():
    known = {key for key, _ in settings() if key.startswith("mask.")}
    assert set(FIRST_WORDS) <= known
    assert not any(key.startswith("part.") for key, _ in settings())


def test_hashes_are_made_of_first_words():
    hashed = identity(plain(resolve({"mask": {"rule": "soft", "control": "uniform"}})))
    assert "mask" not in hashed
    assert (hashed["part"]["mask"], hashed["part"]["control"], hashed["part"]["mask_from"]) == (
        "soft",
        "uniform",
        None,
    )
    assert "masks" not in hashed["part"]


def test_a_run_folder_in_old_words_is_todays_configuration(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(in_first_words(plain(resolve(TODAY)))))
    run = RunDir(tmp_path)
    assert resolve(run.config()) == resolve(TODAY)
    run.create(plain(resolve(TODAY)), identity)
    with pytest.raises(UserError, match=r"mask.rule: soft there, paper now"):
        run.create(plain(resolve({"seed": 1, "mask": {"drawn_from": "clean", "eps_low": 0.02}})), identity)


@pytest.mark.parametrize(
    ("old", "new"), [("part.mask", "mask.rule"), ("part.masks", "mask.files"), ("part.mask_from", "mask.drawn_from"),
                     ("part.eps_low", "mask.eps_low"), ("part", "mask")],
)  # fmt: skip
def test_an_old_name_is_answered_with_the_new_one(old, new):
    assert current_name(old) == new


def test_old_names_in_a_file_and_on_the_command_line_are_answered(tmp_path, capsys):
    with pytest.raises(
        UserError, match=r"^my.yaml: part.mask is called mask.rule now; part.control is called"
    ):
        resolve({"part": {"mask": "soft", "control": "none"}}, source="my.yaml")
    assert main(["train", "digits/part", "--part.eps-low", "0.01"]) == 2
    assert "unknown setting --part.eps-low. It is called 'mask.eps_low' now." in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path), "--attacks", "part-worst-case"]) == 2
    assert main(["papers", "show", "part/table-1"]) == 2
    assert "experiment 'part/table-1' is called 'parts/table-1' now." in capsys.readouterr().err


def test_suites_of_old_names_are_answered():
    with pytest.raises(UserError, match="'part-worst-case' is called 'parts-worst-case' now"):
        resolve({"evaluate": {"attacks": "part-worst-case"}})


def test_records_of_an_experiment_begun_under_its_first_name_are_found(tmp_path):
    experiment = papers.find("parts/table-1")
    folder = tmp_path / "small"
    folder.mkdir()
    old = '{"kind": "metric", "name": "Downsampled/natural", "value": 0.5, "n": 2, "provenance": {}}\n'
    (folder / "part-table-1-cityscapes.jsonl").write_text(old)
    assert ("Downsampled", "natural") in papers.measured(experiment, "cityscapes", "small", tmp_path)
