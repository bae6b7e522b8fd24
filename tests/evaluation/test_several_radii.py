"""Several radii in one ledger: exact accuracies on a model whose margin has a closed form."""

import csv
import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from counterpart.attacks import ddn, deepfool, fmn, pgd
from counterpart.attacks.fast_adaptive_boundary import fab
from counterpart.budget import L2, Linf
from counterpart.contracts import Attacked, NamedAttack
from counterpart.data.image_sets import ImageSet
from counterpart.errors import UserError
from counterpart.evaluation import summaries
from counterpart.evaluation.accuracy import Procedure, chunks_of, evaluate
from counterpart.evaluation.ledger import Ledger, LedgerRow
from counterpart.evaluation.memory_ledger import MemoryLedger
from counterpart.evaluation.model_checks import result_doubts
from counterpart.evaluation.summaries import median_distances, metrics, rows_at
from counterpart.evaluation.verify import verify
from counterpart.rundir import read_json

CPU = torch.device("cpu")
RADII = (4 / 255, 12 / 255, 25 / 255)
PROCEDURE = Procedure(chunk_size=12, batch_size=5, device=CPU, seed=0)
SIDE = 4  # a flat image that is d from the border in l-infinity is SIDE d from it in l2


class Brightness(nn.Module):
    """Class 1 where the mean exceeds one half: the margin is the distance of the mean from it."""

    def forward(self, images):
        gap = 40 * (images - 0.5).flatten(1).mean(dim=1)
        return torch.stack([-gap, gap], dim=1)


@pytest.fixture(scope="module")
def images():
    """40 flat images of grey 88 .. 166 in steps of 2, labelled correctly but for two."""
    grey = torch.arange(88, 168, 2)
    labels = (grey > 127).long()
    labels[[0, 39]] = 1 - labels[[0, 39]]
    pixels = grey.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, SIDE, SIDE).contiguous()
    return ImageSet(
        "flat", "test", ("dark", "light"), labels, torch.arange(40) + 100, "f" * 12, (1, SIDE, SIDE), pixels
    )


def margins(images):
    """The l-infinity distance of every image from the border; below 0 where the model is wrong."""
    distance = (images.pixels[:, 0, 0, 0].double() / 255 - 0.5).abs()
    return torch.where(torch.arange(len(images)) % 39 == 0, -1.0, distance)


def share_standing(images, radius):
    return float((margins(images) > radius).double().mean())


def named(name, attack, **facts):
    return NamedAttack(name, attack, name, **facts)


WEAK = named("weak", partial(pgd, steps=1, step_size=3 / 255, random_start=False))
PGD = named("PGD-10", pgd)
DEEPFOOL = named("DeepFool", partial(deepfool, overshoot=1e-4), nearest=True)


def budgets(radii=RADII, budget=Linf):
    made = {radius: budget(radius) for radius in radii}
    return {radius: partial(lambda chosen, _: chosen, made[radius]) for radius in radii}


def run(images, folder, attacks, radii=RADII, budget=Linf, model=None, view=None, **options):
    model = model or Brightness()
    procedure = replace(PROCEDURE, **options)
    ledger = MemoryLedger(chunks=4) if folder is None else Ledger(folder, chunks_of(images, 12))
    asked = {"budget_of": budgets(radii, budget), "ledger": ledger, "procedure": procedure}
    return evaluate(model, view or model, images, attacks, **asked)


def curve(rows, attacks, images, radii=RADII, **options):
    made = metrics(rows, images.classes, attacks, {"radii": list(radii)}, 1.0, radii=radii, **options)
    assert made[0].name == "accuracy/clean"
    return {
        (record.name.removeprefix("accuracy/"), record.details["eps"]): record.value for record in made[1:]
    }


def test_accuracy_at_each_radius_is_the_share_of_images_beyond_it(images, tmp_path):
    rows = run(images, tmp_path, [PGD])
    shares = [share_standing(images, radius) for radius in RADII]
    assert shares == [34 / 40, 26 / 40, 13 / 40]
    expected = {}
    for radius, share, at in zip(RADII, shares, (" at 4/255", " at 12/255", ""), strict=True):
        expected |= {(f"PGD-10{at}", radius): share, (f"worst case{at}", radius): share}
    assert curve(rows, [PGD], images) == expected
    for row, margin in zip(rows, margins(images).tolist(), strict=True):
        fell = [radius for radius in RADII if 0 <= margin < radius][:1]
        assert row.radii == tuple(fell)
        assert row.fooled == tuple(f"PGD-10 at {round(255 * radius)}/255" for radius in fell)


def test_what_fell_at_a_smaller_radius_is_not_attacked_at_a_larger_one(images, tmp_path):
    run(images, tmp_path, [WEAK, PGD])
    ledger = Ledger(tmp_path, 4)
    fell, met = {}, {}
    for name in ("weak", "PGD-10"):
        for radius in RADII:
            unit_name = f"{name} at {round(255 * radius)}/255"
            units = [unit for chunk in range(4) if (unit := ledger.read(unit_name, chunk)) is not None]
            met[name, radius] = {p for unit in units for p in unit.positions}
            fell[name, radius] = {p for unit in units for p in unit.fallen_within(radius)}
    assert len(met["weak", RADII[0]]) == 38
    before = {p for name in ("weak", "PGD-10") for p in fell[name, RADII[0]]}
    assert before
    assert met["weak", RADII[1]] == met["weak", RADII[0]] - before
    assert met["PGD-10", RADII[1]] == met["weak", RADII[1]] - fell["weak", RADII[1]]
    assert met["weak", RADII[2]] == met["PGD-10", RADII[1]] - fell["PGD-10", RADII[1]]


def test_a_line_counts_what_fell_at_smaller_radii(images, tmp_path):
    rows = run(images, tmp_path, [WEAK, PGD])
    values = curve(rows, [WEAK, PGD], images)
    first, second, last = (share_standing(images, radius) for radius in RADII)
    assert values["weak at 4/255", RADII[0]] > first  # three levels of four
    assert values["PGD-10 at 4/255", RADII[0]] == values["worst case at 4/255", RADII[0]] == first
    assert values["weak at 12/255", RADII[1]] == first  # its three levels fool no more
    assert values["worst case at 12/255", RADII[1]] == second
    assert values["worst case", RADII[2]] == last


def test_individually_an_attack_meets_what_it_did_not_fell_itself(images, tmp_path):
    rows = run(images, tmp_path, [PGD, WEAK], individual=True)
    values = curve(rows, [PGD, WEAK], images, individual=True)
    within_three = share_standing(images, 3 / 255)
    assert [values[f"weak{at}", r] for at, r in zip((" at 4/255", " at 12/255", ""), RADII, strict=True)] == [
        within_three
    ] * 3
    for radius, at in zip(RADII, (" at 4/255", " at 12/255", ""), strict=True):
        assert values[f"PGD-10{at}", radius] == share_standing(images, radius)
    assert Ledger(tmp_path, 4).read("weak at 12/255", 1).positions == [
        p for p in range(12, 24) if margins(images)[p] > 3 / 255
    ]


def test_a_radius_alone_and_among_others_finds_the_same(images, tmp_path):
    """Draws are named by the attack, and not by the radius."""
    random = named("random", partial(pgd, steps=2, step_size=3 / 255))
    among = run(images, tmp_path / "among", [random])
    alone = run(images, tmp_path / "alone", [random], radii=RADII[:1])
    single = evaluate(
        Brightness(), Brightness(), images, [random], budget_of=lambda _: Linf(RADII[0]),
        ledger=Ledger(tmp_path / "single", 4), procedure=PROCEDURE,
    )  # fmt: skip
    ledger = Ledger(tmp_path / "single", 4)
    for chunk in range(4):
        expected = ledger.read("random", chunk)
        for folder in ("among", "alone"):
            unit = Ledger(tmp_path / folder, 4).read("random at 4/255", chunk)
            assert replace(unit, radii=None, seconds=0) == replace(expected, seconds=0)
    assert [r.answer for r in alone] == [r.answer for r in single]
    assert {r.radii for r in single} == {()}
    assert {r.fooled for r in single} == {(), ("random",)}
    assert any(r.radii == (RADII[0],) for r in among)


def test_a_unit_of_a_single_radius_has_no_new_columns(images, tmp_path):
    evaluate(
        Brightness(), Brightness(), images, [PGD], budget_of=lambda _: Linf(0.05), ledger=Ledger(tmp_path, 4),
        procedure=PROCEDURE,
    )  # fmt: skip
    unit = read_json(tmp_path / "units" / "PGD-10-00001.json")
    assert list(unit) == ["positions", "answers", "fooled", "forwards", "backwards", "seconds"]


@pytest.mark.parametrize("attacks", [[WEAK, PGD], [WEAK, DEEPFOOL, PGD]], ids=["each", "nearest"])
def test_killed_anywhere_it_goes_on_and_ends_the_same(images, tmp_path, attacks):
    whole = run(images, tmp_path / "whole", attacks)
    left = 1
    while left:
        calls = []

        def dying(name, attack, *given, calls=calls, **options):
            calls.append(name)
            if len(calls) > 3:
                raise KeyboardInterrupt
            return attack(*given, **options)

        mortal = [replace(one, attack=partial(dying, one.name, one.attack)) for one in attacks]
        try:
            rows, left = run(images, tmp_path / "killed", mortal), 0
        except KeyboardInterrupt:
            left += 1
        assert left < 30
    assert rows == whole
    ours, theirs = (tmp_path / name for name in ("killed", "whole"))
    files = sorted(path.relative_to(theirs) for path in theirs.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(ours) for path in ours.rglob("*") if path.is_file())
    for file in files:
        if file.suffix == ".json":
            one, other = (read_json(place / file) for place in (ours, theirs))
            assert {**one, "seconds": 0} == {**other, "seconds": 0}
        else:
            assert (ours / file).read_bytes() == (theirs / file).read_bytes()


# Minimum-norm attacks -----------------------------------------------------------------------------------------------


def counted(attack, calls):
    def counting(*given, **options):
        calls.append(options["budget"])
        return attack(*given, **options)

    return counting


def test_one_run_of_deepfool_tells_of_every_radius(images, tmp_path):
    calls = []
    attack = replace(DEEPFOOL, attack=counted(DEEPFOOL.attack, calls))
    rows = run(images, tmp_path, [attack])
    assert len(calls) == 3 * 3 + 1  # 11, 12, 12 and 3 images in batches of five, once, and not once a radius
    assert {budget.eps for budget in calls} == {RADII[0]}
    assert curve(rows, [attack], images) == {
        (f"{name}{at}", radius): share_standing(images, radius)
        for radius, at in zip(RADII, (" at 4/255", " at 12/255", ""), strict=True)
        for name in ("DeepFool", "worst case")
    }
    for row, margin in zip(rows, margins(images).tolist(), strict=True):
        if margin < 0:
            assert row.distances == {}
        else:
            assert row.distances["DeepFool"] == pytest.approx(margin, rel=1e-3)
    for radius in RADII:  # the curve is that of the distances
        beyond = sum(row.distances.get("DeepFool", 0) > radius for row in rows) / len(rows)
        assert beyond == share_standing(images, radius)
    assert [path.name for path in sorted((tmp_path / "units").glob("Deep*"))] == [
        f"DeepFool-{chunk:05}.json" for chunk in range(4)
    ]


@pytest.mark.parametrize(
    ("attack", "budget", "unit"),
    [
        (deepfool, L2, SIDE),
        (ddn, L2, SIDE),
        (partial(fmn, steps=50), Linf, 1),
        (partial(fab, steps=15), Linf, 1),
    ],
)
def test_each_minimum_norm_attack_gives_the_curve(images, attack, budget, unit):
    radii = tuple(unit * radius for radius in RADII)
    nearest = named("nearest", attack, nearest=True)
    rows = run(images, None, [nearest], radii=radii, budget=budget)
    values = curve(rows, [nearest], images, radii)
    assert [values[name] for name in values if name[0].startswith("worst")] == [
        share_standing(images, radius) for radius in RADII
    ]


def test_the_others_of_a_radius_come_in_their_order_beside_a_minimum_norm_attack(images, tmp_path):
    rows = run(images, tmp_path, [PGD, DEEPFOOL])
    ledger = Ledger(tmp_path, 4)
    met = [p for chunk in range(4) if (u := ledger.read("DeepFool", chunk)) for p in u.positions]
    assert met == [p for p, margin in enumerate(margins(images).tolist()) if margin > RADII[0]]
    later = [row for row in rows if row.radii and row.radii[0] > RADII[0]]
    assert {row.fooled_by for row in later} == {"PGD-10 at 12/255", "PGD-10 at 25/255"}  # it comes first
    turned = run(images, tmp_path / "turned", [DEEPFOOL, PGD])
    assert {row.fooled_by for row in turned} == {"clean", "DeepFool", ""}
    unit = Ledger(tmp_path / "turned", 4).read("PGD-10 at 25/255", 0)
    assert all(margins(images)[p] > RADII[2] for p in unit.positions)
    values, others = (curve(r, a, images) for r, a in ((rows, [PGD, DEEPFOOL]), (turned, [DEEPFOOL, PGD])))
    assert {k: v for k, v in values.items() if "worst" in k[0]} == {
        k: v for k, v in others.items() if "worst" in k[0]
    }


def test_a_distance_counts_only_where_the_model_itself_is_fooled(images):
    class Shifted(Brightness):
        def forward(self, images):
            return super().forward(images - 4 / 255)  # light images fall to it too early

    def first(model, images, labels, *, budget, keys, start=None):
        if not isinstance(model, Shifted):  # the second look, on the model itself: nothing is found
            ones = torch.ones_like(labels)
            return Attacked(images, ones, ones, torch.full((len(images),), torch.inf), images)
        return deepfool(model, images, labels, budget=budget, keys=keys)

    rows = run(images, None, [named("first", first, nearest=True)], view=Shifted())
    light = [row for row in rows if row.label == row.clean == 1]
    assert {row.fooled for row in light} == {()}
    assert {row.distances["first"] for row in light} == {torch.inf}


def test_an_attack_that_lies_about_its_distance_is_measured(images):
    def lying(model, images, labels, *, budget, keys, start=None):
        found = deepfool(model, images, labels, budget=budget, keys=keys)
        return replace(found, distances=torch.zeros_like(found.distances))

    rows = run(images, None, [named("liar", lying, nearest=True)])
    for row, margin in zip(rows, margins(images).tolist(), strict=True):
        assert margin < 0 or row.distances["liar"] == pytest.approx(margin, rel=0.03)


def test_an_attack_without_nearest_images_is_refused(images):
    with pytest.raises(UserError, match=r"PGD-10: it is said to look for the nearest .*no Attacked\.nearest"):
        run(images, None, [replace(PGD, nearest=True)])


def test_median_distances(images):
    rows = run(images, None, [DEEPFOOL])
    [record] = median_distances(rows, {"norm": "linf"})
    right = margins(images)[margins(images) >= 0]
    assert record.name == "median distance/DeepFool"
    assert record.value == pytest.approx(right.quantile(0.5).item(), rel=1e-3)
    assert (record.n, record.details) == (38, {"norm": "linf", "without": 0})
    blind = [replace(row, distances={"DeepFool": torch.inf}) for row in rows]
    [none] = median_distances(blind, {})
    assert (none.value, none.details["without"]) == (None, 40)


def test_distances_of_a_single_radius(images, tmp_path):
    rows = evaluate(
        Brightness(), Brightness(), images, [DEEPFOOL], budget_of=lambda _: Linf(RADII[0]),
        ledger=Ledger(tmp_path, 4), procedure=PROCEDURE,
    )  # fmt: skip
    for row, margin in zip(rows, margins(images).tolist(), strict=True):
        assert margin < 0 or row.distances["DeepFool"] == pytest.approx(margin, rel=1e-3)
        assert bool(row.fooled) == (0 <= margin < RADII[0])
    result = verify(
        Brightness(), images, [DEEPFOOL], Ledger(tmp_path, 4), budget_of=lambda _: Linf(RADII[0]), batch_size=4,
        device=CPU,
    )  # fmt: skip
    assert result.mismatches == []


# What is written and what is read ---------------------------------------------------------------------------------


def test_the_table_says_at_which_radius_and_how_far(images, tmp_path):
    rows = run(images, None, [DEEPFOOL, PGD])
    summaries.write_table(tmp_path / "images.csv", rows, images.classes)
    with (tmp_path / "images.csv").open() as file:
        table = list(csv.DictReader(file))
    assert list(table[0])[-3:] == ["backwards", "radius", "distance DeepFool"]
    assert (table[0]["radius"], table[0]["distance DeepFool"], table[0]["first_fooled_by"]) == (
        "",
        "",
        "clean",
    )
    for line, margin in zip(table[1:-1], margins(images).tolist()[1:-1], strict=True):
        assert float(line["distance DeepFool"]) == pytest.approx(margin, rel=1e-3)
        assert line["radius"] == str(next((radius for radius in RADII if margin < radius), ""))


def test_doubts_about_attacks_count_each_radius_alone():
    strong = named("strong", pgd)
    rows = [row_of(("strong at 4/255",), (RADII[0],))] * 30 + [
        row_of(("PGD-10 at 12/255",), (RADII[1],))
    ] * 70
    attacks = [PGD, strong]
    first = rows_at(rows, attacks, RADII[0], RADII)
    assert [row.fooled for row in (first[0], first[-1])] == [("strong",), ()]
    assert [doubt.name for doubt in result_doubts(first, attacks)] == ["gap between attacks"]
    second = rows_at(rows, attacks, RADII[1], RADII)
    assert [row.fooled for row in (second[0], second[-1])] == [(summaries.SMALLER,), ("PGD-10",)]
    assert result_doubts(second, attacks) == []  # what fell before was missed by none


def row_of(fooled, radii):
    return LedgerRow(0, 1, 1, fooled, 0, 1, 0, radii)


# Verify -----------------------------------------------------------------------------------------------------------

MIXED = [WEAK, DEEPFOOL, PGD]


@pytest.fixture
def ledger(images, tmp_path):
    run(images, tmp_path, MIXED)
    return Ledger(tmp_path, 4)


def checked(images, ledger, attacks=MIXED, radii=RADII, **options):
    return verify(
        Brightness(), images, attacks, ledger, budget_of=budgets(radii), batch_size=4, device=CPU, **options
    )


def change(ledger, name, chunk, **columns):
    file = ledger._file("units", name, chunk, ".json")
    file.write_text(json.dumps({**read_json(file), **columns}))


def test_a_true_ledger_verifies(images, ledger):
    result = checked(images, ledger, eight_bits=True)
    assert result.mismatches == []
    assert result.successes >= 38 - round(40 * share_standing(images, RADII[2]))
    assert result.after_rounding is not None


def test_a_true_ledger_of_attacks_that_are_read_alone_verifies(images, tmp_path):
    run(images, tmp_path, MIXED, individual=True)
    assert checked(images, Ledger(tmp_path, 4), individual=True).mismatches == []
    assert checked(images, Ledger(tmp_path, 4)).mismatches != []


def test_a_removed_unit_is_found(images, tmp_path):
    run(images, tmp_path, [WEAK, PGD])
    ledger = Ledger(tmp_path, 4)
    assert checked(images, ledger, [WEAK, PGD]).mismatches == []
    left = ledger.read("PGD-10 at 12/255", 1).positions
    ledger._file("units", "PGD-10 at 12/255", 1, ".json").unlink()
    mismatches = checked(images, ledger, [WEAK, PGD]).mismatches
    assert mismatches[0] == (
        f"PGD-10 at 12/255, chunk 1: it met 0 images, not the {len(left)} that were left for it"
    )
    assert mismatches[1].startswith(
        "weak at 25/255, chunk 1: it met 2 images, not the 8 that were left for it"
    )


def test_an_image_that_fell_before_and_is_attacked_again_is_found(images, tmp_path):
    run(images, tmp_path / "alone", [PGD], radii=RADII[1:])
    run(images, tmp_path / "both", [PGD])
    alone, both = (Ledger(tmp_path / name, 4) for name in ("alone", "both"))
    for kind, suffix in (("units", ".json"), ("images", ".safetensors")):
        file = alone._file(kind, "PGD-10 at 12/255", 1, suffix)
        both._file(kind, "PGD-10 at 12/255", 1, suffix).write_bytes(file.read_bytes())
    assert checked(images, both, [PGD]).mismatches == [
        f"PGD-10 at 12/255, chunk 1: it met 12 images, not the {sum(margins(images)[12:24] > RADII[0])} "
        "that were left for it"
    ]


def test_a_radius_that_is_not_so_is_found(images, ledger):
    unit = ledger.read("DeepFool", 1)
    fell = [i for i, radius in enumerate(unit.radii) if radius == RADII[1]]
    i = fell[0]
    index = 100 + unit.positions[i]
    change(ledger, "DeepFool", 1, radii=[*unit.radii[:i], RADII[0], *unit.radii[i + 1 :]])
    assert checked(images, ledger).mismatches[0].startswith(f"DeepFool, image {index}: ")
    assert "of the budget is used" in checked(images, ledger).mismatches[0]
    change(ledger, "DeepFool", 1, radii=[*unit.radii[:i], RADII[2], *unit.radii[i + 1 :]])
    assert f"DeepFool, image {index}: fell at a smaller radius already" in checked(images, ledger).mismatches
    change(ledger, "DeepFool", 1, radii=[*unit.radii[:i], 0.5, *unit.radii[i + 1 :]])
    assert (
        f"DeepFool, image {index}: fell at no radius that was asked for" in checked(images, ledger).mismatches
    )


def test_a_distance_that_is_not_so_is_found(images, ledger):
    unit = ledger.read("DeepFool", 1)
    i = unit.fooled.index(True)
    change(ledger, "DeepFool", 1, distances=[*unit.distances[:i], 0.001, *unit.distances[i + 1 :]])
    [mismatch] = checked(images, ledger).mismatches
    assert mismatch == (
        f"DeepFool, image {100 + unit.positions[i]}: its distance is {unit.distances[i]:.6g}, not 0.001"
    )


@pytest.mark.parametrize("columns", [{"radii": [0.1]}, {"distances": "far"}, {"radii": [-1.0] * 12}])
def test_damaged_columns_are_refused(images, ledger, columns):
    change(ledger, "DeepFool", 1, **columns)
    with pytest.raises(UserError, match="is damaged"):
        ledger.read("DeepFool", 1)
