"""Catastrophic overfitting is told from accuracies of epochs, and from slow overfitting and luck."""

import pytest

from counterpart.training.overfitting import catastrophic_overfitting


def epochs(*rows, phase="adversarial"):
    """Details of epochs from pairs of (robust accuracy in validation, accuracy under training's attack)."""
    return [
        {"epoch": number, "phase": phase, "validation_robust": robust, "accuracy": accuracy}
        for number, (robust, accuracy) in enumerate(rows)
    ]


def test_a_fall_while_single_step_accuracy_rises_is_told():
    text = catastrophic_overfitting(epochs((0.30, 0.35), (0.38, 0.40), (0.01, 0.85)))
    assert "fell from 38.00% after epoch 2 to 1.00% after epoch 3" in text
    assert "rose from 40.00% to 85.00%" in text


@pytest.mark.parametrize("rows", [
    [(0.30, 0.35), (0.38, 0.40)],  # rises
    [(0.50, 0.50), (0.42, 0.80)],  # overfits slowly, as every training does
    [(0.38, 0.40), (0.01, 0.10)],  # diverged: its own attack fools it as well
    [(0.12, 0.20), (0.05, 0.30)],  # a few images
    [(0.38, 0.40), (0.01, 0.85), (0.30, 0.86)],  # recovered
    [],
])  # fmt: skip
def test_everything_else_is_not(rows):
    assert catastrophic_overfitting(epochs(*rows)) is None


def test_phases_are_not_compared_and_validation_may_be_absent():
    clean = epochs((0.40, 0.50), phase="burn-in")
    assert catastrophic_overfitting([*clean, *epochs((0.05, 0.60))]) is None
    assert catastrophic_overfitting([{"epoch": 0, "phase": "adversarial", "accuracy": 0.9}]) is None


def test_clean_training_has_no_attack_to_learn():
    assert catastrophic_overfitting(epochs((0.24, 0.57), (0.12, 0.71), phase="clean")) is None
