"""Dear attacks on a sample of the survivors: who is tried, what is said of all, kills, processes and verification."""

import json
import threading
from dataclasses import replace
from functools import partial

import pytest
import torch
from tests.evaluation.shades import Shades, flat_images

from counterpart import distributed
from counterpart.attacks import pgd
from counterpart.budget import Linf
from counterpart.contracts import NamedAttack
from counterpart.estimates import estimate_accuracy
from counterpart.evaluation import accuracy
from counterpart.evaluation.accuracy import Procedure, chunks_of, evaluate
from counterpart.evaluation.ledger import Ledger
from counterpart.evaluation.memory_ledger import MemoryLedger
from counterpart.evaluation.model_checks import result_doubts
from counterpart.evaluation.panel import draw_groups, groups_of
from counterpart.evaluation.sampling import SamplePlan, cheap_first, read_sample, weigh_rows
from counterpart.evaluation.survivors import Standing, rounds_of, take_turns
from counterpart.evaluation.verify import verify
from counterpart.rundir import read_json

CPU = torch.device("cpu")
EPS = 16 / 255
CHEAP = NamedAttack("cheap", partial(pgd, steps=1, step_size=6 / 255), "cheap")
DEAR = NamedAttack("dear", partial(pgd, steps=9), "dear", by_gradient=False)
LATER = NamedAttack("later", partial(pgd, steps=9, step_size=16 / 255), "later")
ATTACKS = [CHEAP, DEAR]
PROCEDURE = Procedure(chunk_size=12, batch_size=5, device=CPU, seed=0)
PLAN = SamplePlan(10, ("dear",), 1)


@pytest.fixture(scope="module")
def images():
    return flat_images(2)


def run(images, ledger, plan=PLAN, attacks=ATTACKS):
    return evaluate(
        Shades(), Shades(), images, attacks, budget_of=lambda _: Linf(EPS), ledger=ledger,
        procedure=replace(PROCEDURE, sample=plan),
    )  # fmt: skip


def checked(images, ledger, plan=PLAN, attacks=ATTACKS):
    return verify(
        Shades(), images, attacks, ledger, budget_of=lambda _: Linf(EPS), batch_size=4, device=CPU, plan=plan
    )  # fmt: skip


def content(ledger):
    """All units, but for how long they took, and all images."""
    units = {file.name: read_json(file) for file in (ledger.folder / "units").iterdir()}
    for unit in units.values():
        unit.pop("seconds")
    return units, {file.name: file.read_bytes() for file in (ledger.folder / "images").iterdir()}


def tried_by(ledger, name):
    units = [ledger.read(name, chunk) for chunk in range(ledger.chunks)]
    return {position for unit in units if unit is not None for position in unit.positions}


@pytest.fixture(scope="module")
def full(images):
    """The rows of an evaluation without a sample."""
    return run(images, MemoryLedger(chunks=8), plan=None)


@pytest.fixture(scope="module")
def survivors(images, full):
    """The positions that the cheap attack leaves, in the order of the draw."""
    standing = {i for i, row in enumerate(full) if row.right and "cheap" not in row.fooled}
    return [i for i in PLAN.in_order(images.index).tolist() if i in standing]


def test_the_first_survivors_in_the_order_of_the_draw_are_tried(images, full, survivors, tmp_path):
    ledger = Ledger(tmp_path, chunks_of(images, 12))
    rows = run(images, ledger)
    assert 10 < len(survivors) < 80
    assert tried_by(ledger, "dear") == set(survivors[:10])
    assert tried_by(ledger, "cheap") == {i for i, row in enumerate(full) if row.right}
    assert [i for i, row in enumerate(rows) if row.untried] == sorted(survivors[10:])
    for position, (row, wanted) in enumerate(zip(rows, full, strict=True)):
        if position in survivors[10:]:
            assert (row.fooled, row.fooled_by) == ((), "untried")
        else:
            assert row == wanted
    assert {row.fooled_by for row in rows} == {"clean", "cheap", "dear", "", "untried"}


def test_the_order_depends_on_the_seed_and_the_index_alone():
    order = PLAN.in_order(torch.arange(500))
    assert sorted(order.tolist()) == list(range(500))
    assert not torch.equal(order, torch.arange(500))
    assert not torch.equal(order, replace(PLAN, seed=2).in_order(torch.arange(500)))
    shuffled = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    assert torch.equal(shuffled[PLAN.in_order(shuffled)], order)
    fewer = torch.arange(0, 500, 7)
    assert torch.equal(fewer[PLAN.in_order(fewer)], order[order % 7 == 0])


def test_every_image_is_drawn_as_often_as_any_other():
    """Over 4,000 seeds, each of 20 images is among the first five in a quarter of them."""
    first = [replace(PLAN, seed=seed).in_order(torch.arange(20))[:5] for seed in range(4000)]
    counts = torch.cat(first).bincount(minlength=20)
    assert counts.sum() == 20_000
    assert ((counts - 1000).abs() < 4.5 * (4000 * 0.25 * 0.75) ** 0.5).all()


@pytest.mark.parametrize("plan", [replace(PLAN, count=1000), SamplePlan("auto", ("dear",), 0, 1e-6, 2)])
def test_a_sample_of_all_survivors_is_the_full_evaluation(images, full, plan):
    ledger = MemoryLedger(chunks=8)
    rows = run(images, ledger, plan)
    assert rows == full
    sample = read_sample(rows, ATTACKS, plan)
    assert sample.complete
    standing = sum(row.right and not row.fooled for row in full)
    assert sample.estimates["worst case"] == estimate_accuracy(90, 90, 90, 90 - standing)
    assert checked(images, ledger, plan).mismatches == []


def test_what_a_sample_says(images, survivors, full):
    rows = run(images, MemoryLedger(chunks=8))
    sample = read_sample(rows, ATTACKS, PLAN)
    fell = sum("dear" in full[position].fooled for position in survivors[:10])
    assert 0 < fell < 10
    assert (sample.survivors, sample.tried, dict(sample.fell)) == (
        len(survivors), 10, {"dear": fell, "worst case": fell},
    )  # fmt: skip
    assert sample.estimates["worst case"] == estimate_accuracy(90, len(survivors), 10, fell)
    low, high = sample.estimates["worst case"].of_these_images
    assert low <= sum(row.right and not row.fooled for row in full) / 90 <= high


def test_lines_of_several_dear_attacks_add_up(images):
    plan = replace(PLAN, dear=("dear", "later"))
    weaker = NamedAttack("dear", partial(pgd, steps=1, step_size=10 / 255), "dear")
    attacks = [CHEAP, weaker, LATER]
    sample = read_sample(run(images, MemoryLedger(chunks=8), plan, attacks), attacks, plan)
    assert 0 < sample.fell["dear"] < sample.fell["later"] == sample.fell["worst case"]


def test_rounds_go_on_until_the_interval_is_narrow(images, survivors, full, tmp_path):
    """The first round is the smallest that may do; images fall in it, so that a second one follows, and all do."""
    plan = SamplePlan("auto", ("dear",), 1, width=0.3, looks=2)
    ledger = Ledger(tmp_path, 8)
    rows = run(images, ledger, plan)
    first, second, third = (tried_by(ledger, plan.unit_of("dear", number)) for number in (1, 2, 3))
    size = len(first)
    assert first == set(survivors[:size])
    assert second == set(survivors[size : 2 * size])
    tried = set(survivors) if third else first | second
    assert {i for i in survivors if not rows[i].untried} == tried
    fell = sum("dear" in full[position].fooled for position in survivors[:size])
    assert estimate_accuracy(90, len(survivors), size, fell, 2).width > 0.3
    assert estimate_accuracy(90, len(survivors), size, 0, 2).width <= 0.3
    assert {name for row in rows for name in row.fooled} == {"cheap", "dear"}  # attacks, whatever the round
    assert checked(images, ledger, plan).mismatches == []
    wide = SamplePlan("auto", ("dear",), 1, width=0.9, looks=2)
    rows = run(images, MemoryLedger(chunks=8), wide)
    assert read_sample(rows, ATTACKS, wide).tried == wide.share_of_round(90, [False] * len(survivors), 1)[1]


def test_no_round_follows_one_that_was_enough():
    plan = SamplePlan("auto", ("dear",), 0, width=0.1, looks=3)
    falls = [False] * 600
    [first, second, third, last] = [plan.share_of_round(1000, falls, number) for number in (1, 2, 3, 4)]
    assert first[0] == 0
    assert {second, third, last} == {(first[1], first[1])}
    falls[: first[1]] = [i % 4 == 0 for i in range(first[1])]
    begin, end = plan.share_of_round(1000, falls, 2)
    assert (begin, end) == (first[1], 2 * first[1])


def test_dear_attacks_run_last():
    assert cheap_first([DEAR, CHEAP, LATER], PLAN) == [CHEAP, LATER, DEAR]
    assert cheap_first([DEAR, CHEAP], None) == [DEAR, CHEAP]
    turns = take_turns([DEAR, CHEAP], (None,), SamplePlan("auto", ("dear",), 0, 0.1, 1))
    names = [[turn.unit for turn in group] for group in rounds_of(turns)]
    assert names == [["clean", "cheap"], ["dear"], ["dear round 2"]]


def test_an_evaluation_that_is_killed_goes_on_with_the_same_images(images, tmp_path, monkeypatch):
    plan = SamplePlan("auto", ("dear",), 1, width=0.3, looks=2)
    whole, killed = Ledger(tmp_path / "whole", 8), Ledger(tmp_path / "killed", 8)
    rows = run(images, whole, plan)
    units = len(content(whole)[0])
    made = accuracy._make_unit
    for survived in range(units):  # one more unit in each start, until all are there

        def make(work, turn, tried, count=[0]):  # noqa: B006 - counts the units of one start
            if count[0] == 1:
                raise KeyboardInterrupt
            count[0] += 1
            return made(work, turn, tried)

        make.__defaults__[0][0] = 0
        monkeypatch.setattr(accuracy, "_make_unit", make)
        if survived < units - 1:
            with pytest.raises(KeyboardInterrupt):
                run(images, killed, plan)
    monkeypatch.setattr(accuracy, "_make_unit", made)
    assert run(images, killed, plan) == rows
    assert content(killed) == content(whole)


def test_two_processes_try_whom_one_tries(images, tmp_path, monkeypatch):
    """Two threads stand for two processes that share a disk; neither may draw before the other is through."""
    one, two = Ledger(tmp_path / "one", 8), Ledger(tmp_path / "two", 8)
    plan = SamplePlan("auto", ("dear",), 1, width=0.3, looks=2)
    rows = run(images, one, plan)
    rank, meeting, results = threading.local(), threading.Barrier(2, timeout=60), {}
    monkeypatch.setattr(distributed, "rank", lambda: rank.number)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "barrier", meeting.wait)
    told = {}

    def gather(thing):
        told[rank.number] = thing
        meeting.wait()
        everywhere = [told[0], told[1]]
        meeting.wait()
        return everywhere

    monkeypatch.setattr(distributed, "gather", gather)

    def work(number):
        rank.number = number
        results[number] = run(images, two, plan)

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {0: rows, 1: rows}
    assert content(two) == content(one)


def test_verify_refuses_another_sample(images, survivors, tmp_path):
    ledger = Ledger(tmp_path, 8)
    run(images, ledger)
    assert checked(images, ledger).mismatches == []
    others = Ledger(tmp_path / "others", 8)
    run(images, others, replace(PLAN, seed=2))
    said = checked(images, others).mismatches
    assert said
    assert all("that were drawn for it" in line for line in said)
    assert checked(images, ledger, replace(PLAN, count=11)).mismatches != []
    file = ledger.folder / "units" / f"dear-{survivors[0] // 12:05}.json"
    file.unlink()
    assert checked(images, ledger).mismatches != []
    file_of_cheap = others.folder / "units" / "cheap-00002.json"
    unit = read_json(file_of_cheap)
    fallen = unit["fooled"].index(True)
    unit["fooled"][fallen] = (
        False  # a survivor more shifts nobody else's place, but this one's may be among the first
    )
    file_of_cheap.write_text(json.dumps(unit))
    assert checked(images, others, replace(PLAN, seed=2, count=1000)).mismatches != []


def test_a_survivor_that_was_not_tried_is_not_shown_as_robust(images, survivors):
    rows = run(images, MemoryLedger(chunks=8))
    chosen = [position for group in groups_of(rows).values() for position in group]
    assert chosen
    assert not any(rows[position].untried for position in chosen)
    assert {position for group in draw_groups(rows, 0).values() for position in group} <= set(chosen)


def test_doubts_weigh_a_sample_for_all_survivors(images, survivors, full):
    rows = run(images, MemoryLedger(chunks=8))
    fell = sum("dear" in row.fooled for row in rows)
    weights = weigh_rows(rows, ATTACKS, PLAN)
    assert sum(weights) == pytest.approx(90)
    [doubt, gap] = result_doubts(rows, ATTACKS, weights=weights)
    assert f"fooled {round(fell * len(survivors) / 10)} of 90 images" in doubt.text
    assert f"missed {round(fell * len(survivors) / 10)} of 90 images" in gap.text


def test_a_plan_is_read_as_it_was_written():
    for plan in (PLAN, SamplePlan("auto", ("dear", "later"), 3, 0.02, 5)):
        assert SamplePlan.from_identity(json.loads(json.dumps(plan.to_identity()))) == plan
    assert set(PLAN.to_identity()) == {"count", "dear", "seed"}


def test_nobody_is_drawn_twice():
    """A third falls in each round, so that no interval is narrow until all are tried."""
    standing = Standing(600, individual=False)
    plan, met = SamplePlan("auto", ("dear",), 0, 0.01, 3), []
    for number in (1, 2, 3, 4):
        standing.draw(plan, torch.arange(600), number)
        drawn = standing.drawn.nonzero()[:, 0].tolist()
        met += drawn
        standing.fallen[""][drawn[::3]] = True
    assert sorted(met) == list(range(600))
    assert not standing.untried.any()
