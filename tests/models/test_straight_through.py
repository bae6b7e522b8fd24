"""Gradients through rounding and the like: Athalye et al. 2018."""

import pytest
import torch
from torch import nn

import counterpart as cp
from counterpart.models.inference import InferenceView
from counterpart.models.straight_through import straight_through


def eight_bits(images):
    return (255 * images).round() / 255


class Quantising(nn.Module):
    """A network that rounds its input to 8 bits, whose gradient is 0 unless the rounding is wrapped."""

    def __init__(self, rounding):
        super().__init__()
        torch.manual_seed(0)
        self.rounding, self.network = rounding, nn.Sequential(nn.Flatten(), nn.Linear(48, 4))

    def forward(self, images):
        return self.network(self.rounding(images))


@pytest.fixture
def images(generator):
    return 0.3 + 0.4 * torch.rand(32, 3, 4, 4, generator=generator)


def test_a_model_with_rounding_is_attacked_when_wrapped_and_not_otherwise(images):
    def survivors(model):
        labels = model(images).argmax(dim=1)
        attacked = cp.pgd(model, images, labels, budget=cp.Linf(0.3), steps=10, random_start=False)
        return int((model(attacked.images).argmax(dim=1) == labels).sum())

    assert survivors(Quantising(eight_bits)) == 32
    assert survivors(Quantising(straight_through(eight_bits))) == 0
    assert survivors(InferenceView(Quantising(straight_through(eight_bits)).eval())) == 0


def test_forward_is_the_function_to_the_last_bit_and_backward_the_identity(images):
    images.requires_grad_()
    value = straight_through(eight_bits)(images)
    assert torch.equal(value, eight_bits(images))
    far = straight_through(lambda x: x / 1000)(1000 * images)  # where adding a difference would round
    assert torch.equal(far, 1000 * images / 1000)
    weight = torch.rand_like(images)
    (gradient,) = torch.autograd.grad((value * weight).sum(), images)
    assert torch.equal(gradient, weight)


def test_backward_may_be_another_function(images):
    images.requires_grad_()
    value = straight_through(lambda x: (x > 0.5).float(), backward=lambda x: (8 * (x - 0.5)).sigmoid())(
        images
    )
    assert set(value.unique().tolist()) == {0.0, 1.0}
    (gradient,) = torch.autograd.grad(value.sum(), images)
    soft = (8 * (images - 0.5)).sigmoid()
    assert torch.allclose(gradient, 8 * soft * (1 - soft))


def test_the_function_may_cut_the_graph_and_leave_torch(images):
    images.requires_grad_()
    value = straight_through(lambda x: torch.from_numpy(x.numpy().round(1)))(images)
    assert torch.autograd.grad(value.sum(), images)[0].eq(1).all()


def test_shapes_that_differ_need_a_backward_of_their_own(images):
    smaller = straight_through(lambda x: x[:, :, ::2, ::2])
    with pytest.raises(ValueError, match=r"\(32, 3, 4, 4\) into \(32, 3, 2, 2\).*give backward="):
        smaller(images)
    pooled = straight_through(lambda x: x[:, :, ::2, ::2], backward=lambda x: nn.functional.avg_pool2d(x, 2))
    assert torch.equal(pooled(images), images[:, :, ::2, ::2])
