"""Doubts that follow from how a run was trained."""

import pytest

from counterpart.jobs.run_doubts import doubts_of_training
from counterpart.records import Record
from counterpart.rundir import RunDir


@pytest.mark.parametrize(("epoch", "names"), [
    (None, ["catastrophic overfitting"]), (2, ["catastrophic overfitting"]), (1, []),
])  # fmt: skip
def test_weights_are_doubted_from_the_epoch_on_that_overfitted(tmp_path, epoch, names):
    run = RunDir(tmp_path)
    for number, (robust, accuracy) in enumerate([(0.3, 0.3), (0.4, 0.4), (0.0, 0.9)]):
        details = {"epoch": number, "phase": "part", "validation_robust": robust, "accuracy": accuracy}
        run.add([Record(kind="epoch", name="epoch", details=details)])
    assert [doubt.name for doubt in doubts_of_training(run, epoch)] == names
