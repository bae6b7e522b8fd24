"""Identity, strata and subsets of image sets, and the digits."""

import dataclasses

import pytest
import torch

from counterpart import distributed
from counterpart.catalogue import DATA_SETS
from counterpart.data import ImageSet, balanced_subset, load_digits, say_whether_there, stratified
from counterpart.data.image_sets import content_fingerprint, hold_out, provide
from counterpart.errors import UserError


def image_set(labels, **changes):
    n = len(labels)
    pixels = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 1, 2, 2).contiguous()
    images = ImageSet(
        name="toy",
        split="train",
        classes=("a", "b", "c"),
        labels=torch.as_tensor(labels),
        index=torch.arange(100, 100 + n),
        fingerprint="0" * 12,
        shape=(1, 2, 2),
        pixels=pixels,
    )
    return dataclasses.replace(images, **changes)


def test_subset_keeps_each_sample_whole():
    images = image_set([0, 1, 2, 0, 1, 2])
    some = images.subset(torch.tensor([4, 1])).subset(torch.tensor([1, 0, 0]))
    assert some.index.tolist() == [101, 104, 104]
    assert some.labels.tolist() == [1, 1, 1]
    assert some.read(torch.tensor([0, 1]))[:, 0, 0, 0].tolist() == [1, 4]
    assert images.to("cpu").index.tolist() == images.index.tolist()


def test_a_set_needs_pixels_or_files():
    with pytest.raises(ValueError, match="needs pixels, files or samples"):
        image_set([0, 1], pixels=None)


@pytest.mark.parametrize("count", [0, 1, 7, 30, 59, 60])
def test_stratified_takes_the_same_share_of_each_class(count):
    sizes = torch.tensor([10, 0, 20, 30])
    labels = torch.arange(4).repeat_interleave(sizes)[torch.arange(60) * 7 % 60]
    kept, rest = stratified(labels, count, seed=3)
    assert len(kept) == count
    assert sorted([*kept.tolist(), *rest.tolist()]) == list(range(60))
    assert kept.tolist() == sorted(kept.tolist())
    drawn = torch.bincount(labels[kept], minlength=4)
    assert ((drawn - sizes * count / 60).abs() < 1).all()


def test_stratified_depends_on_the_seed_alone():
    labels = torch.arange(200) % 5
    with_seed_0 = stratified(labels, 50, seed=0)[0]
    torch.rand(1)
    assert torch.equal(with_seed_0, stratified(labels, 50, seed=0)[0])
    assert not torch.equal(with_seed_0, stratified(labels, 50, seed=1)[0])
    # Frozen: a split that moves between versions or platforms would mix training and test images.
    assert stratified(torch.arange(20) % 2, 6, seed=0)[0].tolist() == [0, 2, 5, 9, 13, 16]


def test_stratified_draws_evenly_within_a_class():
    often = torch.zeros(10)
    for seed in range(400):
        often[stratified(torch.zeros(10, dtype=torch.long), 3, seed)[0]] += 1
    assert ((often / 400 - 0.3).abs() < 0.1).all()


def test_stratified_refuses_more_than_there_is():
    with pytest.raises(ValueError, match="Cannot draw 3 of 2"):
        stratified(torch.tensor([0, 1]), 3, seed=0)


def test_balanced_subset_keeps_identity_and_balance():
    images = image_set([0, 1, 2] * 10)
    some = balanced_subset(images, 7, seed=5)
    assert sorted(torch.bincount(some.labels).tolist()) == [2, 2, 3]
    assert torch.equal(some.read(torch.arange(7))[:, 0, 0, 0].long(), some.index - 100)
    assert torch.equal(some.labels, (some.index - 100) % 3)


@pytest.mark.parametrize("n", [0, 7])
def test_balanced_subset_refuses_what_is_not_there(n):
    with pytest.raises(UserError, match=f"{n} images were asked of the train split of toy, which has 6"):
        balanced_subset(image_set([0, 1, 2] * 2), n, seed=0)


def test_hold_out_leaves_images_on_either_side():
    rest, held = hold_out(image_set([0, 1]), 0.01, "validation")
    assert (len(rest), len(held), held.split, rest.split) == (1, 1, "validation", "train")
    rest, held = hold_out(image_set([0, 1]), 0.99, "validation")
    assert (len(rest), len(held)) == (1, 1)
    with pytest.raises(UserError, match="has 1 training image: a validation split needs one more"):
        hold_out(image_set([0]), 0.1, "validation")


def test_fingerprint_sees_every_value():
    labels = torch.tensor([0, 1])
    assert content_fingerprint([labels]) == content_fingerprint([torch.tensor([0, 1])])
    assert content_fingerprint([labels]) != content_fingerprint([labels.flip(0)])
    assert len(content_fingerprint([b"x"])) == 12


def test_digits_splits_are_disjoint_stratified_and_fixed():
    splits = load_digits(validation=0.1)
    sets = [splits.train, splits.validation, splits.test]
    assert [len(s) for s in sets] == [1257, 140, 400]
    assert [s.split for s in sets] == ["train", "validation", "test"]
    indices = torch.cat([s.index for s in sets])
    assert torch.equal(indices.sort().values, torch.arange(1797))
    for s in sets:
        share = torch.bincount(s.labels, minlength=10) / len(s)
        assert ((share - 0.1).abs() < 0.012).all()
        assert s.pixels.shape == (len(s), 1, 16, 16)
        assert s.shape == (1, 16, 16)
        assert s.classes == tuple("0123456789")
    assert torch.equal(load_digits(validation=0.3).test.index, splits.test.index)


def test_digits_are_the_scans():
    from sklearn.datasets import load_digits as scans

    small = load_digits(size=8).test
    original = torch.from_numpy(scans().images)[small.index]
    assert torch.equal(small.pixels[:, 0], (original * 255 / 16).round().byte())
    assert torch.equal(small.labels, torch.from_numpy(scans().target)[small.index])
    large = load_digits().test.pixels.float()
    pooled = torch.nn.functional.avg_pool2d(large, 2)[:, 0]
    assert (pooled - original * 255 / 16).abs().mean() < 20
    assert load_digits(size=8).test.fingerprint == load_digits().train.fingerprint


def test_a_process_that_finds_all_files_there_waits_for_the_others_all_the_same(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(distributed, "barrier", lambda: done.append("waited"))
    for rank, lacking in ((0, ["a"]), (1, [])):  # the second came when the first had fetched
        monkeypatch.setattr(distributed, "is_main", lambda rank=rank: rank == 0)
        provide(tmp_path, lambda _, lacking=lacking: lacking, lambda _, lacking=lacking: lacking.clear(), "")
    assert done == ["waited", "waited"]
    with pytest.raises(UserError, match=r"b is missing. Get it."):
        provide(tmp_path, lambda _: ["b"], None, "Get it.")


def test_found_answers_in_one_line(tmp_path):
    named = {
        "digits", "mnist", "fashion-mnist", "cifar10", "cifar100", "svhn", "tiny-imagenet", "imagenet", "folder",
        "parts", "synthetic-parts",
    }  # fmt: skip
    assert set(DATA_SETS) == named
    assert "drawn when it is needed" in say_whether_there("synthetic-parts", None)
    assert "has no images, parts, parts.json" in say_whether_there("parts", tmp_path)
    assert "comes with scikit-learn" in say_whether_there("digits", None)
    assert "--data.root" in say_whether_there("cifar10", None)
    assert "lacks data_batch_1, data_batch_2" in say_whether_there("cifar10", tmp_path)
    assert "is no folder" in say_whether_there("folder", tmp_path / "nothing")
    (tmp_path / "train" / "cat").mkdir(parents=True)
    assert "train: 1 classes" in say_whether_there("folder", tmp_path)
    with pytest.raises(UserError, match="Did you mean 'cifar10'"):
        say_whether_there("cifar", None)
