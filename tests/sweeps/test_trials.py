"""The front of a sweep, the order of its table, and what the picture of the trade-off shows."""

from pathlib import Path

import pytest

from counterpart.statistics import wilson
from counterpart.sweeps import plot
from counterpart.sweeps.summary import Sweep
from counterpart.sweeps.trials import SweptTrial, front_of, in_order, shorten


def trial(number, natural=None, robust=None, state="trained", **settings):
    return SweptTrial(number, Path(f"x/trial-{number:04}"), settings, state, natural, robust, n=200, epochs=3)


A, B, C, D = trial(0, 0.9, 0.3), trial(1, 0.8, 0.5), trial(2, 0.8, 0.4), trial(3, 0.7, 0.5)
EQUAL, PRUNED, WAITING = trial(4, 0.9, 0.3), trial(5, 0.99, 0.6, "pruned"), trial(6, state="waiting")


def test_the_front_is_what_nothing_trained_beats_in_both_accuracies():
    assert front_of([A, B, C, D, EQUAL, PRUNED, WAITING]) == (B, A, EQUAL)
    assert front_of([C]) == (C,)
    assert front_of([PRUNED, WAITING]) == ()


def test_the_table_has_trained_trials_by_robust_accuracy_and_then_the_others():
    trials = (WAITING, PRUNED, A, B, C)
    assert in_order(trials) == [B, C, A, WAITING, PRUNED]
    text = str(Sweep(Path("runs/x"), trials, front_of(trials), None, ()))
    rows = [line for line in text.splitlines() if "trial-0" in line]
    assert [row.split()[0] for row in rows] == [
        "trial-0001",
        "trial-0002",
        "trial-0000",
        "trial-0006",
        "trial-0005",
    ]
    low, high = wilson(100, 200)
    assert f"{low:.1%} to {high:.1%}" in rows[0]
    assert [row.split()[-1] for row in rows] == ["front", "3", "front", "waiting", "pruned"]


@pytest.mark.parametrize(
    ("text", "short"),
    [("0.008555642468655842", "0.00856"), ("8/255", "8/255"), ("16", "16"), ("", ""), ("at", "at")],
)  # fmt: skip
def test_numbers_of_many_digits_are_shown_with_three(text, short):
    assert shorten(text) == short


def drawn(trials, tmp_path, monkeypatch):
    """The axes that were drawn, as texts, and lines by their label."""
    axes = []
    points = plot._points
    monkeypatch.setattr(
        plot, "_points", lambda where, *rest, **style: axes.append(where) or points(where, *rest, **style)
    )
    assert plot.draw_tradeoff(trials, tmp_path / "t.png")
    lines = {container.get_label(): container[0].get_xydata().tolist() for container in axes[0].containers}
    return [text.get_text() for text in axes[0].texts], lines


def test_the_picture_marks_the_front_and_leaves_out_what_was_not_trained_to_the_end(tmp_path, monkeypatch):
    trials = [A, B, C, PRUNED, WAITING]
    labels, lines = drawn(trials, tmp_path, monkeypatch)
    assert sorted(labels) == ["0", "1", "2"]
    assert lines["other trials"] == [[80, 40]]
    assert lines["front: no trial is better in both"] == [[80, 50], [90, 30]]


def test_a_point_is_named_by_its_value_where_a_single_setting_varies(tmp_path, monkeypatch):
    names = (
        {"mask.eps_low": "8/255"},
        {"mask.eps_low": "0.008555642468655842"},
        {"mask.eps_low": "a:very.long.name"},
    )
    trials = [trial(i, 0.1 * i, 0.9 - 0.1 * i, **settings) for i, settings in enumerate(names)]
    assert drawn(trials, tmp_path, monkeypatch)[0] == ["8/255", "0.00856", "a:very.long.…"]
    two = [trial(0, 0.5, 0.5, **{"mask.eps_low": "0", "train.beta": "6"})]
    assert drawn(two, tmp_path, monkeypatch)[0] == ["0"]


def test_nothing_is_drawn_before_the_first_trial_was_trained(tmp_path):
    assert not plot.draw_tradeoff([PRUNED, WAITING], tmp_path / "t.png")
    assert not (tmp_path / "t.png").exists()
