"""A true ledger verifies, and every way to tamper with one is found."""

import io
import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.evaluation.shades import Shades, flat_images

from counterpart.attacks import pgd
from counterpart.budget import L1, L2, Linf
from counterpart.contracts import NamedAttack
from counterpart.data.transforms import as_floats
from counterpart.errors import UserError
from counterpart.evaluation.accuracy import Procedure, evaluate
from counterpart.evaluation.ledger import Ledger, Unit
from counterpart.evaluation.verify import to_eight_bits, verify
from counterpart.rundir import read_json
from counterpart.seeding import Keys

CPU = torch.device("cpu")
EPS = 16 / 255
WEAK = NamedAttack("PGD 1", partial(pgd, steps=1, step_size=6 / 255), "PGD 1")
STRONG = NamedAttack("PGD 9", partial(pgd, steps=9), "PGD 9")
ATTACKS = [WEAK, STRONG]
PROCEDURE = Procedure(chunk_size=12, batch_size=5, device=CPU, seed=0)


@pytest.fixture(scope="module")
def images():
    return flat_images(3)


@pytest.fixture
def ledger(images, tmp_path):
    """Five chunks; images fall to both attacks."""
    made = Ledger(tmp_path, 5)
    rows = evaluate(
        Shades(), Shades(), images, ATTACKS, budget_of=lambda _: Linf(EPS), ledger=made,
        procedure=PROCEDURE,
    )  # fmt: skip
    assert {r.fooled_by for r in rows} == {"clean", "PGD 1", "PGD 9", ""}
    return made


def checked(images, ledger, model=None, eps=EPS, **options):
    return verify(
        model or Shades(), images, ATTACKS, ledger, budget_of=lambda _: Linf(eps), batch_size=4, device=CPU, **options
    )  # fmt: skip


def successes(ledger):
    """(attack, chunk, place in the unit, place among its saved images) of every success."""
    for named in ATTACKS:
        for chunk in range(ledger.chunks):
            unit = ledger.read(named.name, chunk)
            hits = [i for i, hit in enumerate(unit.fooled if unit else []) if hit]
            yield from ((named.name, chunk, i, k) for k, i in enumerate(hits))


def change_unit(ledger, name, chunk, **columns):
    file = ledger._file("units", name, chunk, ".json")
    file.write_text(json.dumps({**read_json(file), **columns}))


def change_images(ledger, name, chunk, change):
    """``change(images, positions)`` works in place."""
    file = ledger._file("images", name, chunk, ".safetensors")
    tensors = {k: v.clone() for k, v in load_file(file).items()}
    change(tensors["images"], tensors["positions"])
    save_file(tensors, file)


def test_a_true_ledger_verifies(images, ledger):
    result = checked(images, ledger)
    fell = len(list(successes(ledger)))
    assert fell > 10
    assert (result.claims, result.successes) == (60 + fell, fell)
    assert result.mismatches == []
    assert result.marginal == 0
    assert result.after_rounding is None


def test_a_true_ledger_of_attacks_that_each_met_all_verifies(images, tmp_path):
    made = Ledger(tmp_path / "all", 5)
    options = {"budget_of": lambda _: Linf(EPS), "ledger": made}
    evaluate(Shades(), Shades(), images, ATTACKS, **options, procedure=replace(PROCEDURE, individual=True))
    assert checked(images, made, individual=True).mismatches == []
    assert checked(images, made).mismatches != []  # as a sequence, the second attack met too many


def test_an_image_outside_of_the_budget(images, ledger):
    name, chunk, i, k = next(successes(ledger))
    index = 100 + ledger.read(name, chunk).positions[i]

    def push(pixels, _):
        pixels[k, 0, 0, 0] += 17 / 255 * (1 if pixels[k, 0, 0, 0] < 0.5 else -1)

    change_images(ledger, name, chunk, push)
    [mismatch] = checked(images, ledger).mismatches
    assert mismatch.startswith(f"{name}, image {index}: ")
    assert "of the budget is used" in mismatch


def test_a_smaller_budget_than_was_searched(images, ledger):
    found = checked(images, ledger, eps=5 / 255).mismatches
    assert len(found) > 5
    assert all("of the budget is used" in line for line in found)


def test_an_image_that_does_not_fool(images, ledger):
    name, chunk, i, k = list(successes(ledger))[-1]
    position = ledger.read(name, chunk).positions[i]
    change_images(ledger, name, chunk, lambda x, _: x[k].copy_(as_floats(images.pixels[position][None])[0]))
    assert checked(images, ledger).mismatches == [f"{name}, image {100 + position}: is not fooled"]


@pytest.mark.parametrize("kind", ["clean", "success"])
def test_another_answer(images, ledger, kind):
    name, chunk, i, _ = ("clean", 2, 3, 0) if kind == "clean" else next(successes(ledger))
    unit = ledger.read(name, chunk)
    label = int(images.labels[unit.positions[i]])
    [other] = {0, 1, 2} - {label, unit.answers[i]} if kind == "success" else {(unit.answers[i] + 1) % 3}
    change_unit(ledger, name, chunk, answers=[*unit.answers[:i], other, *unit.answers[i + 1 :]])
    found = checked(images, ledger).mismatches
    assert found[0] == f"{name}, image {100 + unit.positions[i]}: answers another class"
    assert len(found) == (1 if kind == "success" else 3)  # a wrong image meets no attack


def test_float16_would_not_do(images, ledger):
    for name, chunk in dict.fromkeys(where[:2] for where in successes(ledger)):
        change_images(ledger, name, chunk, lambda pixels, _: pixels.copy_(pixels.half().float()))
    assert any("of the budget is used" in line for line in checked(images, ledger).mismatches)


def test_a_success_that_nobody_had(images, ledger):
    name, chunk = "PGD 9", 0
    unit = ledger.read(name, chunk)
    assert not all(unit.fooled)
    change_unit(ledger, name, chunk, fooled=[True] * len(unit.fooled), answers=[1] * len(unit.fooled))
    found = checked(images, ledger)
    assert len(found.mismatches) == len(unit.fooled)
    assert all("its image is not saved" in line for line in found.mismatches)


def test_an_image_file_that_is_missing(images, ledger):
    name, chunk, *_ = next(successes(ledger))
    count = sum(ledger.read(name, chunk).fooled)
    before = checked(images, ledger)
    ledger._file("images", name, chunk, ".safetensors").unlink()
    after = checked(images, ledger)
    assert (after.claims, after.successes) == (before.claims, before.successes)
    assert len(after.mismatches) == count
    assert all(line.endswith("its image is not saved") for line in after.mismatches)


def test_another_position(images, ledger):
    name, chunk, *_ = next(successes(ledger))
    change_images(ledger, name, chunk, lambda _, positions: positions.add_(1))
    assert all(line.endswith("its image is not saved") for line in checked(images, ledger).mismatches)
    assert checked(images, ledger).mismatches


def test_images_of_another_shape(images, ledger):
    name, chunk, *_ = next(successes(ledger))
    file = ledger._file("images", name, chunk, ".safetensors")
    tensors = load_file(file)
    save_file({**tensors, "images": tensors["images"][..., :3].contiguous()}, file)
    assert all(line.endswith("its image is not saved") for line in checked(images, ledger).mismatches)


def test_an_image_that_was_passed_over_or_a_unit_that_is_gone(images, ledger):
    unit = ledger.read("PGD 9", 0)
    columns = {k: v[1:] for k, v in vars(unit).items() if isinstance(v, list)}
    change_unit(ledger, "PGD 9", 0, **columns)
    [line] = checked(images, ledger).mismatches
    assert line.startswith("PGD 9, chunk 0: it met")
    ledger._file("units", "PGD 9", 0, ".json").unlink()
    [line] = checked(images, ledger).mismatches
    assert line.startswith("PGD 9, chunk 0: it met 0 images")
    ledger._file("units", "clean", 1, ".json").unlink()
    assert "chunk 1 has no clean answers: evaluate first" in checked(images, ledger).mismatches


@pytest.mark.parametrize("kind", ["units", "images"])
def test_a_damaged_file_is_one_line(images, ledger, kind):
    name, chunk, *_ = next(successes(ledger))
    file = ledger._file(kind, name, chunk, {"units": ".json", "images": ".safetensors"}[kind])
    content = file.read_bytes()
    for text in (content[: len(content) // 2], b"{}", b"\xff\xfe"):
        file.write_bytes(text)
        with pytest.raises(UserError, match=r"is damaged\. Remove it, and evaluate again"):
            checked(images, ledger)


def test_another_model(images, ledger):
    class Darker(Shades):
        def forward(self, images):
            return super().forward(images * 0.9)

    assert any(line.startswith("clean") for line in checked(images, ledger, Darker()).mismatches)


def test_a_claim_on_the_boundary_is_counted_and_does_not_fail(images, ledger, tmp_path):
    made = Ledger(tmp_path / "thin", 1)
    three = images.subset(torch.tensor([21, 22, 23]))  # grey 103, 106, 109: middle
    border = 0.4005
    attacked = as_floats(three.pixels).clone()
    gaps = {0: 1e-6, 1: -1e-6, 2: -1e-3}  # fooled by a little, not fooled by a little, not fooled
    for i, gap in gaps.items():
        attacked[i] = border - gap
    assert Shades()(attacked).argmax(dim=1).tolist() == [0, 1, 1]
    made.commit("clean", 0, Unit([0, 1, 2], [1, 1, 1], [False] * 3, [0] * 3, [0] * 3, 0.0), None)
    made.commit("PGD 1", 0, Unit([0, 1, 2], [0, 0, 0], [True] * 3, [1] * 3, [1] * 3, 0.0), attacked)
    result = checked(three, made)
    assert result.marginal == 2
    assert result.mismatches == ["PGD 1, image 123: is not fooled"]
    assert (result.claims, result.successes) == (6, 3)


def budgets():
    radii = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(2)) * 0.1
    return {
        "linf": Linf(8 / 255),
        "linf, between levels": Linf(7.6 / 255),
        "linf, as typed": Linf(0.0313725),
        "per pixel": Linf(radii),
        "l2": L2(0.9),
        "l1": L1(9.0),
    }


@pytest.mark.parametrize("kind", list(budgets()))
@pytest.mark.parametrize("corners", [True, False])
def test_eight_bits_are_whole_levels_no_farther_away_and_allowed(generator, kind, corners):
    budget = budgets()[kind]
    pixels = torch.randint(0, 256, (40, 3, 8, 8), generator=generator, dtype=torch.uint8)
    clean, keys = as_floats(pixels), Keys(0, "test", torch.arange(40))
    attacked = budget.sample(clean, keys)
    if corners:
        attacked = budget.project(
            budget.step(attacked, torch.randn(clean.shape, generator=generator), 9.0), clean
        )
    rounded = to_eight_bits(attacked, clean, budget)
    levels = rounded.double() * 255
    assert (levels - levels.round()).abs().max() < 1e-4
    moved, before = ((x.double() - clean.double()) * 255 for x in (rounded, attacked))
    assert (moved.abs() <= before.abs() + 1e-4).all()
    assert (moved * before >= 0).all()  # towards the clean value, never past it
    assert (before.abs() - moved.abs() < 1 + 1e-4).all()
    assert budget.contains(rounded, clean).all()
    for one in rounded[:5]:  # what a file keeps
        file = io.BytesIO()
        Image.fromarray((one * 255).round().byte().permute(1, 2, 0).numpy()).save(file, "png")
        read = torch.frombuffer(bytearray(Image.open(file).tobytes()), dtype=torch.uint8).view(8, 8, 3)
        assert torch.equal(as_floats(read.permute(2, 0, 1)[None])[0], one)


def test_eight_whole_levels_stay_eight():
    """Radii are rounded inwards, so that a step of the full radius falls short of a level by the last bit."""
    clean = as_floats(torch.arange(20, 230, dtype=torch.uint8).view(-1, 1, 1, 1))
    budget = Linf(8 / 255)
    attacked = budget.project(clean + 1, clean)
    rounded = to_eight_bits(attacked, clean, budget)
    assert torch.equal(((rounded - clean) * 255).round(), torch.full_like(clean, 8))


def test_how_many_still_fool_after_rounding(images, ledger):
    result = checked(images, ledger, eight_bits=True)
    expected = 0
    for name, chunk, i, k in successes(ledger):
        position = ledger.read(name, chunk).positions[i]
        clean = as_floats(images.pixels[position][None])
        rounded = to_eight_bits(ledger.images(name, chunk)[0][k][None], clean, Linf(EPS))
        expected += int(Shades()(rounded).argmax() != images.labels[position])
    assert result.after_rounding == expected
    assert 0 < expected <= result.successes
