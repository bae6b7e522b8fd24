"""Settings of masks for a training that draws none: refused, but for what recipes say of whole families of methods."""

import pytest

from counterpart import jobs
from counterpart.config import resolve
from counterpart.errors import UserError
from counterpart.recipes import load


def small(recipe, tmp_path, *layers):
    quick = {"train": {"epochs": 1, "batch_size": 32}, "data": {"limit": 32}, "attack": {"steps": 1}}
    rest = {"runs": str(tmp_path), "name": "run", "device": "cpu", "threads": 1}
    return resolve(load(recipe), quick, *layers, rest)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        ({"projection": "multiply"}, "mask.projection multiply"),
        ({"control": "uniform"}, "mask.control uniform"),
        ({"map": "layer-cam"}, "mask.map layer-cam"),
        ({"rule": "quadrant", "quadrant": "lower-left"}, "mask.quadrant lower-left"),
        ({"refresh_epochs": 2}, "mask.refresh_epochs 2"),
    ],
)
@pytest.mark.parametrize("recipe", ["digits/at", "digits/clean"])
def test_masks_that_nothing_draws_are_refused(recipe, mask, said, tmp_path):
    with pytest.raises(UserError) as told:
        jobs.train(small(recipe, tmp_path, {"mask": mask}))
    method = recipe.rpartition("/")[2]
    assert str(told.value) == f"{said} has no effect with train.method {method}, which draws no mask."
    assert not (tmp_path / "run").exists()


def test_masks_of_an_evaluation_and_of_whole_families_are_not_refused(tmp_path):
    jobs.train(
        small("digits/part", tmp_path, {"train": {"method": "at"}})
    )  # the recipe's eps_low and burn-in
    under_masks = {"evaluate": {"eps_low": 0.05}, "mask": {"map": "layer-cam"}, "name": "masked"}
    jobs.train(small("digits/at", tmp_path / "other", under_masks))
    with pytest.raises(UserError, match="projection multiply has no effect"):
        jobs.train(small("digits/at", tmp_path / "third", under_masks, {"mask": {"projection": "multiply"}}))


def test_a_run_that_was_begun_with_them_goes_on(tmp_path, monkeypatch):
    config = small("digits/at", tmp_path, {"mask": {"projection": "multiply"}})
    with monkeypatch.context() as before:
        before.setattr(jobs.training, "_refuse_masks_that_nothing_draws", lambda config: None)
        jobs.train(config)
    assert jobs.train(config).finished
