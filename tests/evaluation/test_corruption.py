"""Counts under corruptions: right, kept, made again only where something changed; means that say over what."""

import json

import pytest
import torch
from torch import nn

from counterpart.data.corruptions import BENCHMARK, CORRUPTIONS
from counterpart.data.image_sets import ImageSet
from counterpart.errors import UserError
from counterpart.evaluation import corruption
from counterpart.evaluation.corruption import CLEAN, Count, count, metrics, severities_text
from counterpart.statistics import wilson

CPU = torch.device("cpu")


class Bright(nn.Module):
    """Class 1 where the mean exceeds one half."""

    def forward(self, images):
        mean = images.flatten(1).mean(dim=1)
        return torch.stack([0.5 - mean, mean - 0.5], dim=1)


@pytest.fixture
def images():
    """Ten images, the i-th grey of level 25 i: five on each side, all classified correctly."""
    pixels = (25 * torch.arange(10, dtype=torch.uint8)).view(-1, 1, 1, 1).expand(-1, 1, 16, 16).contiguous()
    labels = (pixels[:, 0, 0, 0] > 127.5).long()
    return ImageSet("toy", "test", ("dark", "bright"), labels, torch.arange(10), "f", (1, 16, 16), pixels)


def brighter(batch, name, severity):
    """Image by image 0.1 times the severity brighter."""
    return (batch.images + 0.1 * severity).clamp(max=1)


def counted(images, folder, variants, corrupted=brighter, stamp="", model=None):
    return count(
        model or Bright(), images, variants, corrupted=corrupted, stamp=lambda _: stamp, folder=folder,
        batch_size=3, device=CPU,
    )  # fmt: skip


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_counts_are_those_of_hand(images, tmp_path):
    found = counted(images, tmp_path, [CLEAN, ("fog", 1), ("fog", 3)])
    # Levels 0, 25, ..., 225: dark are 0 to 125; 0.1 more makes 125 bright, 0.3 more 75, 100 and 125.
    assert [(one.right, one.n) for one in found.values()] == [(10, 10), (9, 10), (7, 10)]


def test_what_is_counted_is_kept_and_the_rest_goes_on(images, tmp_path):
    calls = []

    def dies(batch, name, severity):
        calls.append((name, severity, batch.index.tolist()))
        if severity == 2:
            raise KeyboardInterrupt
        return brighter(batch, name, severity)

    variants = [CLEAN, ("fog", 1), ("fog", 2), ("fog", 3)]
    with pytest.raises(KeyboardInterrupt):
        counted(images, tmp_path, variants, dies)
    [file] = tmp_path.iterdir()
    assert [(row["corruption"], row["severity"]) for row in lines(file)] == [("clean", 0), ("fog", 1)]
    with file.open("a") as torn:  # by a kill in the middle of a line
        torn.write('{"corruption": "fog", "sev')
    calls.clear()
    whole = counted(images, tmp_path, variants, lambda *given: calls.append(given[1:]) or brighter(*given))
    assert set(calls) == {("fog", 2), ("fog", 3)}
    fresh = counted(images, tmp_path / "fresh", variants)
    assert [(one.right, one.n) for one in whole.values()] == [(one.right, one.n) for one in fresh.values()]
    assert len(lines(file)) == len(variants)
    again = counted(images, tmp_path, variants, lambda *_: pytest.fail("made again"))
    assert again == whole


def test_another_stamp_counts_again_and_a_damaged_file_is_named(images, tmp_path):
    counted(images, tmp_path, [("frost", 1)], stamp="old")
    found = counted(images, tmp_path, [("frost", 1)], lambda b, *_: b.images, stamp="new")
    assert found["frost", 1].right == 10
    (tmp_path / "counts.jsonl").write_text("{\n")
    with pytest.raises(UserError, match=r"counts\.jsonl, line 1 is no count"):
        counted(images, tmp_path, [("frost", 1)])


class Learning(Bright):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, images):
        self.seen += 1
        return super().forward(images)


@pytest.mark.parametrize(
    ("corrupted", "model", "message"),
    [
        (lambda b, *_: b.images / 0, None, "not finite"),
        (lambda b, *_: 1 / 0, None, None),
        (brighter, Learning(), "the model changed"),
    ],
)
def test_what_cannot_be_judged_is_refused_and_not_kept(images, tmp_path, corrupted, model, message):
    with pytest.raises(UserError if message else ZeroDivisionError, match=message):
        counted(images, tmp_path, [("fog", 1)], corrupted, model=model)
    assert not list(tmp_path.iterdir())


def test_labels_beyond_the_model_are_refused(images, tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 1))
    with pytest.raises(UserError, match="fog: label 1 is outside"):
        counted(images, tmp_path, [("fog", 1)], model=model)


def test_out_of_memory_says_what_to_do(images, tmp_path):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(UserError, match=r"batches of 3: use a smaller --evaluate\.batch-size"):
        counted(images, tmp_path, [("fog", 1)], full)


def made(names, severities, left_out=None):
    counts = {CLEAN: Count(90, 100, 1.0, "")}
    counts |= {(n, s): Count(80 - 10 * s - i, 100, 1.0, "") for i, n in enumerate(names) for s in severities}
    records = metrics(counts, names, severities, left_out or {}, {"data": "toy"})
    return {record.name: record for record in records}


def test_means_have_equal_weights_and_say_over_what():
    found = made(list(CORRUPTIONS), [1, 2, 3, 4, 5])
    assert len(found) == 1 + 19 * 5 + 19 + 2
    assert found["corruption/clean"].interval == wilson(90, 100)
    one = found["corruption/fog/severity 2"]
    assert (one.value, one.n, one.interval) == (0.51, 100, wilson(51, 100))
    assert found["corruption/fog/severities 1-5"].value == pytest.approx(
        (0.61 + 0.51 + 0.41 + 0.31 + 0.21) / 5
    )
    assert found["corruption/mean of the 15/severities 1-5"].value == pytest.approx(0.5 - 0.07)
    mean = found["corruption/mean of the 19/severities 1-5"]
    assert mean.value == pytest.approx(0.5 - 0.09)
    ends = [wilson(80 - 10 * s - i, 100) for i in range(19) for s in range(1, 6)]
    assert mean.interval == pytest.approx([sum(end) / 95 for end in zip(*ends, strict=True)])
    assert mean.details["severities"] == [1, 2, 3, 4, 5]
    assert mean.details["left_out"] == {}


def test_a_mean_over_fewer_is_named_so():
    names = [name for name in CORRUPTIONS if name != "frost"]
    found = made(names, [1], {"frost": "there are no textures"})
    means = {name: record for name, record in found.items() if "mean of" in name}
    assert list(means) == [
        "corruption/mean of 14 of the 15/severity 1",
        "corruption/mean of 18 of the 19/severity 1",
    ]
    for record in means.values():
        assert record.details["left_out"] == {"frost": "there are no textures"}
        assert "frost" not in record.details["corruptions"]
    assert "corruption/fog/severity 1" in found
    alone = made(list(BENCHMARK), [1, 3])
    assert [name for name in alone if "mean of" in name] == ["corruption/mean of the 15/severities 1, 3"]
    only = made(["saturate"], [1])
    assert [name for name in only if "mean of" in name] == ["corruption/mean of 1 of the 19/severity 1"]


def test_severities_in_words():
    assert severities_text([1]) == "severity 1"
    assert severities_text([2, 3]) == "severities 2-3"
    assert severities_text([1, 3]) == "severities 1, 3"


def test_processes_share_every_batch(images, tmp_path, monkeypatch):
    """Two processes, one after the other: their shares add up, and one more image than processes leaves one empty."""
    from counterpart import distributed

    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    totals = []
    monkeypatch.setattr(distributed, "sum_", lambda tensors: totals.append(int(next(iter(tensors)))))
    monkeypatch.setattr(distributed, "any_", lambda flag, *_: flag)
    monkeypatch.setattr(distributed, "gather", lambda thing: [thing])
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        counted(images, tmp_path / str(rank), [("fog", 3)])
    assert sum(totals) == 7
    assert corruption.CLEAN == ("clean", 0)
    assert lines(tmp_path / "0" / "counts.jsonl")[0]["n"] == 10
