"""Pieces whose backward pass loses information are found by name, and passed with gradients of something smoother."""

import pytest
import torch
from torch import nn

from counterpart.models.lossy_pieces import StandIn, find_lossy_pieces


class Does(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, values):
        return self.function(values)


def winners(values):
    least = values.flatten(1).topk(20, dim=1).values[:, -1].view(-1, 1, 1, 1)
    return values * (values >= least)


def around(piece):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), piece, nn.ReLU(), nn.Flatten(), nn.Linear(256, 5)
    ).eval()


LOSES = {
    "rounds": lambda x: (4 * x).round() / 4,
    "detaches": lambda x: x.detach() * 2,
    "signs": lambda x: (x > 0).float(),
    "top-k": winners,
    "hard threshold": lambda x: torch.where(x.abs() > 0.3, x, 0.0),
}
PASSES = {
    "relu": nn.ReLU(),
    "relu in place": nn.ReLU(inplace=True),
    "max pool": nn.MaxPool2d(3, 1, 1),
    "batch norm": nn.BatchNorm2d(4),
    "softmax": nn.Softmax(dim=1),
    "soft threshold": nn.Softshrink(0.3),
    "dropout at test time": Does(lambda x: nn.functional.dropout(x, 0.3, training=True)),
    "clamp": Does(lambda x: x.clamp(-0.3, 0.3)),
    "constant": Does(lambda x: torch.zeros_like(x)),
}


@pytest.fixture
def images():
    return torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", LOSES)
def test_what_jumps_is_found_by_name(name, images):
    model = around(Does(LOSES[name]))
    [piece] = find_lossy_pieces(model, images)
    assert str(piece) == "1 (Does)"
    assert piece.can_be_passed
    assert piece.lost == pytest.approx(1, abs=0.4)
    stand_in = StandIn(model, [piece])
    leaf = images.clone().requires_grad_()
    assert torch.equal(stand_in(leaf), model(images))  # the answers stay
    (gradient,) = torch.autograd.grad(stand_in(leaf)[:, 0].sum(), leaf)
    assert (gradient.flatten(1) != 0).any(dim=1).all()


@pytest.mark.parametrize("name", PASSES)
def test_what_has_kinks_or_draws_passes(name, images):
    assert find_lossy_pieces(around(PASSES[name]), images) == []


def test_the_gradient_is_the_identity_s_where_shapes_are_kept(images):
    model = nn.Sequential(Does(LOSES["rounds"]), nn.Flatten(), nn.Linear(64, 3)).eval()
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(
        StandIn(model, find_lossy_pieces(model, images))(leaf)[:, 1].sum(), leaf
    )
    torch.testing.assert_close(gradient, model[2].weight[1].view(1, 1, 8, 8).expand_as(images))


def test_where_channels_multiply_a_linear_map_stands_in(images):
    code = Does(lambda x: (x > torch.linspace(0.1, 0.9, 9).view(1, 9, 1, 1)).float())
    model = nn.Sequential(code, nn.Flatten(), nn.Linear(9 * 64, 5)).eval()
    [piece] = find_lossy_pieces(model, images)
    assert piece.name == "0"
    slopes = piece.stand_in(torch.ones(1, 1, 1, 1)).flatten()
    assert (slopes > 0.3).all()  # each level is the likelier to be exceeded, the brighter the pixel
    assert slopes.argmax() in (3, 4, 5)


class Rounds(nn.Module):
    """Rounds within its own forward, between two layers."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(256, 5)

    def forward(self, images):
        return self.last((self.first(images) * 8).round().flatten(1))


def test_rounding_in_a_forward_is_found_and_passed(images):
    torch.manual_seed(0)
    model = Rounds().eval()
    [piece] = find_lossy_pieces(model, images)
    assert str(piece) == "the model itself (Rounds)"
    assert piece.functions == ("round",)
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(StandIn(model, [piece])(leaf)[:, 0].sum(), leaf)
    (wanted,) = torch.autograd.grad(model.last((model.first(leaf) * 8).flatten(1))[:, 0].sum(), leaf)
    torch.testing.assert_close(gradient, wanted)


def test_a_jump_that_nothing_stands_in_for_is_named(images):
    torch.manual_seed(0)
    linear = nn.Linear(64, 5)

    class Hidden(nn.Module):
        def forward(self, images):
            return linear((images > 0.5).float().flatten(1))

    [piece] = find_lossy_pieces(Hidden(), images)
    assert not piece.can_be_passed
    assert str(piece) == "the model itself (Hidden)"


def test_a_piece_that_writes_into_its_input(images):
    model = around(Does(lambda x: x.mul_(4).round_().div_(4)))
    [piece] = find_lossy_pieces(model, images)
    leaf = images.clone().requires_grad_()
    stand_in = StandIn(model, [piece])
    assert torch.equal(stand_in(leaf), model(images))
    (gradient,) = torch.autograd.grad(stand_in(leaf)[:, 0].sum(), leaf)
    assert (gradient.flatten(1) != 0).any(dim=1).all()


def test_the_model_is_left_as_it_was(images):
    model = around(Does(LOSES["rounds"])).train()
    pieces = find_lossy_pieces(model, images)
    StandIn(model, pieces)(images)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
