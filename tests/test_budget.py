import itertools

import pytest
import torch
from scipy.optimize import minimize

from counterpart.budget import L1, L2, Linf
from counterpart.seeding import Keys

CLEAN = torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(1))
FAR = CLEAN + torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(2))
HALF = (torch.arange(6) < 3).float().expand(8, 1, 6, 6)
KEYS = Keys(0, "test", torch.arange(8))
PLANE = 0.1 * torch.rand(8, 1, 6, 6, generator=torch.Generator().manual_seed(3))

BUDGETS = {
    "linf number": Linf(8 / 255),
    "linf per image": Linf(torch.linspace(0.01, 0.1, 8)),
    "linf per pixel": Linf(PLANE),
    "linf per channel": Linf(PLANE.repeat(1, 3, 1, 1) * HALF),
    "l2 number": L2(0.5),
    "l2 per image": L2(torch.linspace(0.1, 3, 8)),
    "l2 frozen": L2(0.5, HALF),
    "l1 number": L1(5.0),
    "l1 per image": L1(torch.linspace(0.5, 20, 8)),
    "l1 frozen": L1(5.0, HALF),
}


@pytest.fixture(params=BUDGETS.values(), ids=BUDGETS.keys())
def budget(request):
    return request.param


def test_projection_is_allowed_and_leaves_allowed_images_alone(budget):
    projected = budget.project(FAR, CLEAN)
    assert budget.contains(projected, CLEAN).all()
    assert torch.equal(budget.project(projected, CLEAN), projected)
    assert torch.equal(budget.project(CLEAN, CLEAN), CLEAN)
    assert not budget.contains(FAR, CLEAN).any()


def test_projection_reaches_the_boundary(budget):
    """A projection that shrinks too far would pass every other test."""
    projected = budget.project(FAR, CLEAN)
    if isinstance(budget, Linf):
        gap = (projected - CLEAN).abs() - budget.radius(CLEAN)
        inside_box = (projected > 0) & (projected < 1)
        free = (FAR - CLEAN).abs() > budget.radius(CLEAN)
        assert (gap[inside_box & free].abs() < 1e-7).all()
    else:
        order = 2 if isinstance(budget, L2) else 1
        norms = (projected - CLEAN).flatten(1).norm(order, dim=1)
        reachable = ((FAR.clamp(0, 1) - CLEAN) * (1 if budget.movable is None else budget.movable)).flatten(1)
        wanted = torch.minimum(budget.size(CLEAN), reachable.norm(order, dim=1))
        torch.testing.assert_close(norms, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("kind", "order"), [(L2, 2), (L1, 1)])
def test_projection_is_the_nearest_point(kind, order, generator):
    """Against a general-purpose solver, with a box that cuts the ball."""
    clean = torch.tensor([0.05, 0.5, 0.95, 0.3]).view(1, 1, 2, 2)
    for _ in range(5):
        wanted = clean + torch.randn(clean.shape, generator=generator)
        projected = kind(0.6).project(wanted, clean)
        goal, origin = wanted.double().flatten().numpy(), clean.double().flatten().numpy()
        # plus and minus parts make the 1-norm smooth
        best = minimize(
            lambda z, goal=goal, origin=origin: ((origin + z[:4] - z[4:] - goal) ** 2).sum(),
            x0=[0.01] * 8,
            bounds=[(0, 1 - o) for o in origin] + [(0, o) for o in origin],
            constraints={
                "type": "ineq",
                "fun": lambda z: 0.6 - (z.sum() if order == 1 else ((z[:4] - z[4:]) ** 2).sum() ** 0.5),
            },
            method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 500},
        )
        distance = float(((projected - wanted).double() ** 2).sum())
        assert distance <= best.fun + 1e-5


def test_an_end_of_a_range_that_floats_can_hold_is_reached():
    clean = torch.full((1, 1, 1, 2), 0.5)
    images = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    assert Linf(0.25).project(images, clean).flatten().tolist() == [0.25, 0.75]


@pytest.mark.parametrize("kind", [L2, L1])
def test_a_projection_that_floats_can_hold_is_exact(kind):
    """Rounding is undone only where it went too far."""
    clean = torch.full((2, 1, 2, 2), 0.5)
    images = clean.clone()
    images[0, 0, 0, 0], images[1, 0, 1, 1] = 1.0, 0.0
    projected = kind(0.25).project(images, clean)
    if kind is L2:
        assert (projected - clean).flatten().tolist() == [0.25, 0, 0, 0, 0, 0, 0, -0.25]
    torch.testing.assert_close((projected - clean).flatten(1).abs().sum(dim=1), torch.full((2,), 0.25))


@pytest.mark.parametrize("scale", [0.02, 1.0, 1e6])
@pytest.mark.parametrize(
    "ball",
    [L2(0.01), L2(0.5), L2(9.0), L1(0.01), L1(5.0), L1(200.0), L1(torch.tensor([0.0, 1, 50]))],
    ids=repr,
)
def test_projection_agrees_with_bisection(ball, scale, generator):
    """On many values, of which a third are at an end of their range, and most of which did not move."""
    clean = torch.rand(3, 3, 16, 16, generator=generator)
    clean = torch.where(torch.rand(clean.shape, generator=generator) < 0.3, clean.round(), clean)
    moved = scale * torch.randn(clean.shape, generator=generator)
    moved[1] *= torch.rand(moved[1].shape, generator=generator) < 0.05
    origin = clean.double().flatten(1)
    wanted = (clean + moved - clean).double().flatten(1)

    def at(share):
        if ball.norm == "l2":
            shrunk = wanted * (1 - share)
        else:
            shrunk = wanted.sign() * (
                wanted.abs() - share * wanted.abs().amax(dim=1, keepdim=True)
            ).clamp_min(0)
        return shrunk.clamp(-origin, 1 - origin)

    low, high = torch.full((3, 1), -1.0).double(), torch.ones(3, 1).double()
    for _ in range(60):
        middle = (low + high) / 2
        outside = ball._norm(at(middle.clamp_min(0))) > ball.size(clean).double()
        low, high = torch.where(outside[:, None], middle, low), torch.where(outside[:, None], high, middle)
    expected = (origin + at(high.clamp_min(0))).view_as(clean).float()
    projected = ball.project(clean + moved, clean)
    assert ball.contains(projected, clean).all()
    torch.testing.assert_close(projected, expected, rtol=0, atol=2e-7)  # a rounding, and a step back


@pytest.mark.parametrize("ball", [L2(0.5), L1(5.0)])
def test_a_projection_is_a_copy_and_ends_whatever_it_is_given(ball):
    assert ball.project(CLEAN, CLEAN).data_ptr() != CLEAN.data_ptr()
    broken = FAR.clone()
    broken[0, 0, 0, 0] = torch.nan
    projected = ball.project(broken, CLEAN)
    assert not ball.contains(projected, CLEAN)[0]
    torch.testing.assert_close(projected[1:], ball.project(FAR, CLEAN)[1:], rtol=0, atol=0)


def test_newtons_method_finds_the_l1_projection_in_a_few_turns(monkeypatch, generator):
    """A sum that is linear in pieces: bisection alone would take some forty turns."""
    turns: list[int] = []

    def counted(first):
        for turn in itertools.count(first):
            turns.append(turn)
            yield turn

    monkeypatch.setattr("counterpart.budget.balls.count", counted)
    clean = torch.rand(50, 3, 16, 16, generator=generator)
    L1(12.0).project(clean + 0.3 * torch.randn(clean.shape, generator=generator), clean)
    assert len(turns) <= 8


def test_a_projection_ends_where_no_sum_comes_near_the_radius():
    """Beside values of 1e12, floats of the threshold are too coarse for a radius of 1e-9."""
    far = CLEAN + 1e12 * torch.randn(CLEAN.shape, generator=torch.Generator().manual_seed(6))
    assert L1(1e-9).contains(L1(1e-9).project(far, CLEAN), CLEAN).all()


def test_samples_are_allowed_spread_out_and_reproducible(budget):
    first, second = budget.sample(CLEAN, KEYS), budget.sample(CLEAN, KEYS, step=1)
    assert budget.contains(first, CLEAN).all()
    assert torch.equal(first, budget.sample(CLEAN, KEYS))
    assert not torch.equal(first, second)
    assert torch.equal(budget.select(slice(2, 4)).sample(CLEAN[2:4], KEYS[2:4]), first[2:4])


def test_a_sample_fills_the_linf_ball():
    clean = torch.full((1, 3, 60, 60), 0.5)
    noise = (Linf(0.1).sample(clean, KEYS[:1]) - clean) / 0.1
    assert abs(noise.mean()) < 0.03
    assert abs(noise.abs().mean() - 0.5) < 0.02
    assert noise.abs().max() > 0.99


@pytest.mark.parametrize("kind", [L2, L1])
def test_a_sample_fills_the_ball(kind):
    """In d dimensions a uniform point's radius has mean d / (d + 1)."""
    clean = torch.full((2000, 1, 1, 2), 0.5)
    keys = Keys(0, "ball", torch.arange(2000))
    norms = (kind(0.3).sample(clean, keys) - clean).flatten(1).norm(2 if kind is L2 else 1, dim=1) / 0.3
    assert abs(norms.mean() - 2 / 3) < 0.02


@pytest.mark.parametrize(
    ("ball", "first", "second"),
    [
        (Linf(8 / 255), [-0.0043605, -0.0062619, 0.0290982], [-0.0290691, 0.0184925, -0.0045558]),
        (L2(0.5), [-0.0433624, 0.0442517, -0.1095797], [-0.0117906, -0.0630859, 0.0367622]),
        (L1(5.0), [-0.0254401, -0.0230975, 0.1499004], [-0.0015331, -0.0649030, -0.0228540]),
    ],
)
def test_a_seed_keeps_its_starts(ball, first, second):
    """What earlier versions drew: ledgers that were begun with them go on."""
    moved = (ball.sample(CLEAN, KEYS) - CLEAN).flatten(1)
    torch.testing.assert_close(moved[:2, :3], torch.tensor([first, second]), rtol=0, atol=2e-7)


@pytest.mark.parametrize(
    ("value", "gradient", "moves"),
    [(1.0, 0.9, False), (0.0, -0.9, False), (0.0, 0.9, True), (1.0, -0.9, True)],
)
def test_a_sparse_step_passes_over_pixels_that_have_no_room(value, gradient, moves):
    """Of twenty values one moves: that of the largest gradient, but for one that points out of the box."""
    clean, slope = torch.full((1, 1, 4, 5), 0.5), torch.full((1, 1, 4, 5), 0.1)
    clean[0, 0, 0, 0], slope[0, 0, 0, 0], slope[0, 0, 2, 2] = value, gradient, -0.5
    moved = L1(5.0).step(clean, slope, 0.25) - clean
    place, sign = ((0, 0), gradient / 0.9) if moves else ((2, 2), -1)
    assert [tuple(where) for where in moved[0, 0].nonzero().tolist()] == [place]
    assert float(moved[0, 0][place]) == pytest.approx(0.25 * sign)


def test_a_step_has_the_asked_length(budget):
    gradient = torch.randn(CLEAN.shape, generator=torch.Generator().manual_seed(5))
    moved = budget.step(CLEAN, gradient, 0.01) - CLEAN
    if isinstance(budget, Linf):
        assert torch.allclose(moved, 0.01 * gradient.sign(), atol=1e-7)
        return
    order = 2 if isinstance(budget, L2) else 1
    torch.testing.assert_close(
        moved.flatten(1).norm(order, dim=1), torch.full((8,), 0.01), rtol=1e-3, atol=1e-6
    )
    assert (moved * gradient >= 0).all()
    if budget.movable is not None:
        assert (moved * (1 - HALF) == 0).all()
    per_image = budget.step(CLEAN, gradient, torch.linspace(0, 0.07, 8)) - CLEAN
    assert (per_image[0] == 0).all()


def test_an_advance_is_a_step_and_a_projection(budget, generator):
    gradient = torch.randn(CLEAN.shape, generator=generator)
    images = budget.sample(CLEAN, KEYS)
    length = 0.3 * budget.size(CLEAN)
    expected = budget.project(budget.step(images, gradient, length), CLEAN)
    assert torch.equal(budget.advance(images, gradient, length, CLEAN), expected)


def test_a_budget_that_multiplies_follows_the_printed_formula(generator):
    """delta <- m * Proj(delta + a sign g), section 3.2 of the PART paper, from a start outside of the small radius."""
    low, eps, step = 4 / 255, 8 / 255, 2 / 255
    clean = 0.2 + 0.6 * torch.rand(4, 3, 6, 6, generator=generator, dtype=torch.float64)
    important = torch.rand(4, 1, 6, 6, generator=generator) < 0.5
    mask = torch.where(important, 1.0, low / eps).double()
    budget = Linf(mask * eps, multiplied_from=eps)
    delta = eps * (2 * torch.rand(clean.shape, generator=generator, dtype=torch.float64) - 1)
    images = clean + delta
    for _ in range(7):
        gradient = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
        delta = mask * (delta + step * gradient.sign()).clamp(-eps, eps)
        images = budget.advance(images, gradient, step, clean)
        torch.testing.assert_close(images - clean, delta, rtol=0, atol=1e-12)
        assert budget.contains(images, clean).all()
    clamped = Linf(mask * eps).advance(images, gradient, step, clean)
    assert (clamped - images).abs().max() > 1 / 255  # the two rules differ, or the test says nothing


@pytest.mark.parametrize(("low", "reached"), [(7, 7), (6, 6), (4, 2.0), (2, 2 / 3)])
def test_how_far_unimportant_pixels_get_by_multiplication(low, reached):
    """With eps 8 and steps of 2, in levels of 255: min(eps_low, m a / (1 - m)) for m = eps_low / eps."""
    clean = torch.full((2, 1, 2, 2), 0.5, dtype=torch.float64)
    radii = torch.full((2, 1, 2, 2), low / 255, dtype=torch.float64)
    radii[..., 0] = 8 / 255
    budget = Linf(radii, multiplied_from=8 / 255).select(slice(1, 2))
    clean = images = clean[1:]
    for _ in range(300):
        images = budget.advance(images, torch.ones_like(images), 2 / 255, clean)
    moved = 255 * (images - clean)
    torch.testing.assert_close(moved[..., 0], torch.full_like(moved[..., 0], 8), rtol=0, atol=1e-6)
    torch.testing.assert_close(moved[..., 1], torch.full_like(moved[..., 1], reached), rtol=0, atol=1e-6)


def test_contains_refuses_each_kind_of_excess():
    budget = Linf(torch.full((1, 1, 6, 6), 8 / 255))
    clean = CLEAN[:1].clamp(0.1, 0.9)
    touched = clean.clone()
    touched[0, 1, 2, 3] += 8 / 255 * 1.0001
    assert not budget.contains(touched, clean).any()
    assert not Linf(1.0).contains(clean + 0.95, clean).any()  # outside the box
    assert not L2(0.5).contains(clean + 0.5001 / 108**0.5, clean).any()
    assert not L1(5.0).contains(clean + 5.001 / 108, clean).any()
    frozen = clean.clone()
    frozen[0, 0, 0, 5] += 1e-4
    assert not L2(0.5, HALF[:1]).contains(frozen, clean).any()
    assert not L2(0.5).contains(clean * torch.nan, clean).any()


@pytest.mark.parametrize("eps", [1 / 255, 8 / 255, 0.3])
def test_rounding_never_leaves_the_budget(eps):
    """Without inward rounding some float32 sums exceed the radius by more than one part in a million."""
    clean = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for sign in (1, -1):
        moved = Linf(eps).project(clean + sign, clean)
        assert ((moved.double() - clean.double()).abs() <= torch.tensor(eps).double()).all()
    flat = torch.full((1, 3, 32, 32), 0.7)  # every pixel rounds the same way
    for ball in (L2(eps), L1(100 * eps)):
        assert ball.contains(ball.project(flat + 0.2, flat), flat).all()


def test_select_keeps_rows_together(budget):
    keep = torch.tensor([5, 0])
    torch.testing.assert_close(
        budget.select(keep).project(FAR[keep], CLEAN[keep]), budget.project(FAR, CLEAN)[keep], rtol=0, atol=0
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Linf(8), "Did you mean 8/255"),
        (lambda: Linf(torch.tensor([0.1, 8.0])), "Did you mean 8/255"),
        (lambda: Linf(-0.1), "finite and >= 0"),
        (lambda: Linf(torch.tensor([0.1, float("nan")])), "finite and >= 0"),
        (lambda: L2(torch.tensor([0.1, float("inf")])), "finite and >= 0"),
        (lambda: Linf(torch.ones(2, 3)), r"shape \(2, 3\); expected"),
        (lambda: Linf("8/0"), r"a number such as 8 / 255, or a text such as '8/255'; got '8/0'"),
        (lambda: L2("half"), "got 'half'"),
        (lambda: Linf("8"), "Did you mean 8/255"),
        (lambda: L2(torch.ones(2, 1, 4, 4)), r"expected \(\), \(B,\)"),
        (lambda: L2(0.5, torch.full((1, 1, 2, 2), 0.5)), "0 and 1"),
    ],
)
def test_impossible_budgets_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "budget",
    [
        Linf(torch.tensor([[[[0.1, 0.0], [0.2, 0.4]]]])),
        L2(0.5, torch.tensor([[[[1.0, 0.0], [1.0, 1.0]]]])),
        L1(0.5, torch.tensor([[[[1.0, 0.0], [1.0, 1.0]]]])),
    ],
)
def test_distance_is_in_units_of_the_radius(budget):
    clean = torch.full((1, 1, 2, 2), 0.5)
    moved = clean.clone()
    moved[..., 1, :] += torch.tensor([0.1, 0.1])
    expected = {"linf": 0.5, "l2": 0.02**0.5 / 0.5, "l1": 0.4}[budget.norm]
    assert budget.distance(moved, clean).item() == pytest.approx(expected, abs=1e-6)
    assert budget.distance(clean, clean).item() == 0
    moved[..., 0, 1] += 1e-3  # frozen
    assert budget.distance(moved, clean).item() == torch.inf
    assert budget.radius(clean).expand_as(clean)[0, 0, 0, 1] == 0


def test_a_radius_may_be_written_as_on_the_command_line():
    assert Linf("8/255") == Linf(8 / 255)
    assert L2(" 0.5").eps == 0.5
    assert L1("12").eps == 12.0


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("budget", [Linf(0.1), L2(0.5), L1(0.5)], ids=lambda budget: budget.norm)
def test_images_that_are_too_coarse_for_a_radius_are_refused(budget, kind):
    for use in (lambda x: budget.project(x, x), lambda x: budget.sample(x, KEYS)):
        with pytest.raises(
            ValueError, match=r"float32 or float64 images, got torch\..*: pass images\.float\(\)"
        ):
            use(CLEAN.to(kind))
