"""RobustBench's result JSON: read, held beside what was measured, and what this package writes itself."""

import json

import pytest

from counterpart.cli import main
from counterpart.errors import UserError
from counterpart.jobs import sharing, verification
from counterpart.jobs.published_results import read_published_result
from counterpart.jobs.stored_evaluations import open_evaluation

# The fields of a file of RobustBench's model_info, with values of nobody's model.
THEIRS = {
    "link": "https://arxiv.org/abs/0000.00000", "name": "A Method of Nobody", "authors": "Nobody", "venue": "arXiv",
    "additional_data": False, "number_forward_passes": 1, "dataset": "digits", "architecture": "WideResNet-10-1",
    "eps": "8/255", "clean_acc": "84.92", "reported": "53.10", "autoattack_acc": "53.08",
}  # fmt: skip


def written(folder, **changes):
    file = folder / "theirs.json"
    file.write_text(json.dumps({**THEIRS, **changes}))
    return file


def test_a_result_of_the_leaderboard_is_read(tmp_path):
    result = read_published_result(written(tmp_path))
    assert (result.name, result.dataset) == ("A Method of Nobody", "digits")
    assert result.eps == pytest.approx(8 / 255)
    assert (result.clean, result.robust) == pytest.approx((0.8492, 0.5308))
    assert not result.unreliable
    assert read_published_result(written(tmp_path, eps="0.5", unreliable=True)).eps == 0.5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"autoattack_acc": None}, "says nothing of autoattack_acc"),
        ({"clean_acc": "high"}, "text where numbers belong"),
        ({"eps": "eight"}, "text where numbers belong"),
        ({"clean_acc": "8492"}, "percentages from 0 to 100"),
    ],
)
def test_what_is_no_result_is_refused(changes, said, tmp_path):
    with pytest.raises(UserError, match=said):
        read_published_result(written(tmp_path, **changes))


def test_a_file_that_is_no_json_is_refused(tmp_path):
    file = tmp_path / "theirs.json"
    for text, said in (("{", "Cannot read"), ("[]", "holds no result")):
        file.write_text(text)
        with pytest.raises(UserError, match=said):
            read_published_result(file)


def test_published_numbers_stand_beside_the_measured_ones(run, tmp_path, capsys):
    assert main(["evaluate", str(run.path), "--attacks", "fgsm", "--n", "40"]) == 0
    [result] = list(run.path.glob("evaluations/*/result.json"))
    ours = json.loads(result.read_text())
    clean, robust = (ours["counterpart"]["accuracies"][name] for name in ("clean", "worst case"))
    within = 100 * clean[0]
    above = 100 * (robust[1][1] + 0.01)
    file = written(
        tmp_path, eps="0.05", clean_acc=f"{within:.2f}", autoattack_acc=f"{above:.2f}", unreliable=True
    )
    capsys.readouterr()
    assert main(["verify", str(run.path), "--published", str(file)]) == 0
    told = capsys.readouterr().out
    low, high = clean[1]
    assert (
        f"clean: {clean[0]:.2%} ({low:.2%} to {high:.2%}, n = 40); the published {clean[0]:.2%} lies within"
        in told
    )
    assert f"worst case of FGSM: {robust[0]:.2%}" in told
    assert f"the published {above:.2f}% lies above the interval" in told
    assert "itself calls the robust accuracy unreliable" in told


def test_a_result_of_another_budget_is_not_compared(run, tmp_path, capsys):
    assert main(["evaluate", str(run.path), "--attacks", "fgsm", "--n", "20"]) == 0
    assert main(["verify", str(run.path), "--published", str(written(tmp_path, eps="0.06"))]) != 0
    assert "holds no evaluation on digits within 0.06" in capsys.readouterr().err


def test_a_radius_of_another_norm_is_not_compared(run, tmp_path, capsys):
    """RobustBench's files name no norm: they lie in a folder of its name. Ours say it themselves."""
    assert main(["evaluate", str(run.path), "--attacks", "fgsm", "--n", "20"]) == 0
    [ours] = list(run.path.glob("evaluations/*/result.json"))
    numbers = {"eps": "0.05", "clean_acc": "80", "autoattack_acc": "50"}
    for norm, code in (("Linf", 0), ("L2", 1)):
        (tmp_path / norm).mkdir()
        file = written(tmp_path / norm, **numbers)
        assert read_published_result(file).norm == norm.lower()
        assert (main(["verify", str(run.path), "--published", str(file)]) == 0) == (code == 0)
    assert "holds no evaluation on digits within l2 0.05" in capsys.readouterr().err
    assert read_published_result(written(tmp_path, counterpart={"norm": "l1"})).norm == "l1"
    assert json.loads(ours.read_text())["counterpart"]["norm"] == "linf"
    assert main(["verify", str(run.path), "--published", str(written(tmp_path, **numbers))]) == 0
    assert "does not say in which norm" in capsys.readouterr().out


def test_verify_opens_an_evaluation_once_whatever_else_it_is_asked(run, tmp_path, monkeypatch):
    assert main(["evaluate", str(run.path), "--attacks", "fgsm", "--n", "20"]) == 0
    opened = []

    def count(*arguments, **options):
        opened.append(arguments[1].name)
        return open_evaluation(*arguments, **options)

    for module in (verification, sharing):
        monkeypatch.setattr(module, "open_evaluation", count)
    file = written(tmp_path, eps="0.05")
    command = ["verify", str(run.path), "--published", str(file), "--bundle", str(tmp_path / "bundle")]
    assert main(command) == 0
    assert len(opened) == 1
    assert (tmp_path / "bundle" / "evaluations" / opened[0]).is_dir()
