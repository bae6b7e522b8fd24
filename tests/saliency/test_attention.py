"""Attention maps against examples by hand and a full product of matrices."""

import pytest
import torch
from timm.models import VisionTransformer, VisionTransformerRelPos

from counterpart.batch import Batch
from counterpart.budget import Linf
from counterpart.contracts import Attended, Attention, Probe
from counterpart.importance import rules, store
from counterpart.models.inference import InferenceView
from counterpart.models.normalize import ImageClassifier
from counterpart.saliency import ATTENTION_MAPS, layer_map, probe_map, score_weights
from counterpart.saliency.attention import attention_gradient, attention_rollout
from counterpart.seeding import Keys, seeded

LABELS = torch.tensor([0, 1, 2, 1])


@pytest.fixture
def images():
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def vit(kind=VisionTransformer, **options):
    shape = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 3, "num_heads": 2, "num_classes": 3}
    with seeded(0):
        backbone = kind(**{**shape, **options})
        for parameter in backbone.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return ImageClassifier(backbone, 3).eval()


HEADS = {
    "class token": {"reg_tokens": 1},
    "averaged": {"global_pool": "avg", "class_token": False},
    "averaged, a mask of relative positions": {"kind": VisionTransformerRelPos, "global_pool": "avg"},
    "averaged, norm before": {"global_pool": "avg", "class_token": False, "fc_norm": False, "reg_tokens": 1},
}


def attending(rows):
    """A block of one head whose attention is ``rows``, and whose values are the identity."""
    attention = torch.as_tensor(rows)[None, None]
    identity = torch.eye(attention.shape[-1])[None, None]
    return Attended(attention.clamp_min(1e-30).log(), identity, identity, attention, {"scale": 1.0})


def one_block(rows):
    """A class token and two places."""
    return Attention((attending(rows),), torch.tensor([1.0, 0.0, 0.0]), (1, 2))


def by_steps(model):
    """What the next pass of a model's blocks attends with, made without a fused kernel."""
    made = []
    for block in model.backbone.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _module, _inputs, output: made.append(output))
    return made


def test_rollout_by_hand():
    attention = one_block([[0.2, 0.5, 0.3], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
    torch.testing.assert_close(attention_rollout(attention), torch.tensor([[[0.25, 0.15]]]))
    # A second block before it that sends both places to the first of them.
    first = [[1.0, 0, 0], [0, 1, 0], [0, 1, 0]]
    both = Attention((attending(first), *attention.blocks), attention.reads, (1, 2))
    torch.testing.assert_close(attention_rollout(both), torch.tensor([[[0.25 + 0.15 / 2, 0.15 / 2]]]))


def test_gradient_by_hand_counts_positive_evidence_only():
    weights = torch.tensor([[0.2, 0.5, 0.3], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5]], requires_grad=True)
    attention = one_block(weights)
    score = 2 * attention.blocks[0].mixed[0, 0, 0, 1] - attention.blocks[0].mixed[0, 0, 0, 2]
    torch.testing.assert_close(attention_gradient(attention, score), torch.tensor([[[1.0, 0.0]]]))


@pytest.mark.parametrize("options", HEADS.values(), ids=HEADS)
def test_rows_equal_the_product_of_whole_matrices(options, images):
    """Both papers write a matrix product over blocks, of attention made step by step and its gradient by autograd."""
    model = vit(**options)
    probe = InferenceView(model, attention=True).probe(images)
    score = score_weights(probe.logits, LABELS)
    blocks = by_steps(model)
    gradients = torch.autograd.grad((model(images) * score).sum(), blocks)
    identity = torch.eye(blocks[0].shape[-1])
    rollout = relevance = identity.expand(4, -1, -1)
    for block, gradient in zip(blocks, gradients, strict=True):
        mixed = block.detach().mean(dim=1) + identity
        rollout = mixed / mixed.sum(dim=2, keepdim=True) @ rollout
        relevance = relevance + (gradient * block.detach()).clamp_min(0).mean(dim=1) @ relevance
    prefix = blocks[0].shape[-1] - 16
    head = options.get("global_pool", "token")
    for found, matrix in (("attention-rollout", rollout), ("attention-gradient", relevance - identity)):
        row = matrix[:, 0] if head == "token" else matrix[:, prefix:].mean(dim=1)
        ours = probe_map(probe, score, found)
        assert ours.std() > 1e-6
        torch.testing.assert_close(ours, row[:, prefix:].reshape(4, 4, 4), rtol=1e-4, atol=1e-7)
    (left,) = torch.autograd.grad(probe.logits.sum(), probe.images)  # the graph is still there for the attack
    assert left.abs().sum() > 0


def test_maps_of_the_gradient_depend_on_the_class_and_rollout_does_not(images):
    probe = InferenceView(vit(), attention=True).probe(images)
    scores = [score_weights(probe.logits, labels) for labels in (LABELS, (LABELS + 1) % 3)]
    rollout = [probe_map(probe, score, "attention-rollout") for score in scores]
    gradient = [probe_map(probe, score, "attention-gradient") for score in scores]
    assert torch.equal(*rollout)
    assert not torch.allclose(*gradient, rtol=0.1)


@pytest.mark.parametrize("kind", ["grad-cam", "xgrad-cam", "layer-cam"])
def test_averaged_tokens_after_their_norm_have_class_activation_maps_in_closed_form(kind, images):
    model = vit(**HEADS["averaged, norm before"])
    probe = InferenceView(model).probe(images)
    assert probe.weights is not None
    score = score_weights(probe.logits, LABELS)
    closed = probe_map(probe, score, kind)
    by_graph = probe_map(Probe(probe.images, probe.logits, probe.features), score, kind)
    assert by_graph.max() > 0
    torch.testing.assert_close(closed, by_graph, rtol=1e-4, atol=1e-6)
    if kind == "grad-cam":  # the logit is the mean over tokens of W norm(t) + b
        tokens = model.forward_features(images)[:, 1:]
        evidence = (tokens @ model.get_classifier().weight[LABELS, :, None])[..., 0] / 16
        torch.testing.assert_close(closed, evidence.relu().view(4, 4, 4), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["grad-cam", "xgrad-cam", "layer-cam"])
def test_class_activation_maps_of_an_inner_block(kind, images):
    model = vit()

    class Grid(torch.nn.Module):
        """By way of the maps, for the hook."""

        def forward(self, tokens):
            return tokens[:, 1:].transpose(1, 2).reshape(-1, 12, 4, 4)

    grid, inner = Grid(), InferenceView(model, layer="blocks.1").probe(images)

    def back(_module, _inputs, output):
        return torch.cat([output[:, :1], grid(output).flatten(2).transpose(1, 2)], dim=1)

    handle = model.backbone.blocks[1].register_forward_hook(back)
    by_hook = layer_map(model, images, LABELS, grid, kind)
    handle.remove()
    ours = probe_map(inner, score_weights(inner.logits, LABELS), kind)
    assert ours.max() > 0
    torch.testing.assert_close(ours, by_hook, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", ["attention-rollout", "attention-gradient", "layer-cam"])
def test_flat_and_nan_maps_keep_the_full_budget_and_are_counted(kind, images):
    model = vit()
    images[1] = torch.nan
    with torch.no_grad():
        model.backbone.head.weight[2] = 0  # nothing speaks for class 2
    options = {"attention": True} if kind in ATTENTION_MAPS else {"layer": "blocks.0"}
    probe = InferenceView(model, **options).probe(images)
    batch = Batch(images, LABELS, torch.arange(4))
    mask = rules.Standardised(rules.MapSource(kind))
    budget = rules.draw_budget(probe, batch, Keys(0, "flat", batch.index), Linf(0.2), eps_low=0.1, mask=mask)
    expected = [False, True, kind != "attention-rollout", False]
    assert budget.flat.tolist() == expected
    radius = budget.radius(images)
    assert (radius[budget.flat] == radius.max()).all()
    assert all(len(plane.unique()) == 2 for plane in radius[~budget.flat])


def test_uniform_attention_of_a_whole_network_is_flat():
    """Every token looks everywhere alike: rollout cannot tell places apart, whatever rounding does."""
    attention = Attention(6 * (attending(torch.full((17, 17), 1 / 17)),), torch.eye(17)[0], (4, 4))
    images = torch.rand(1, 3, 16, 16)
    probe = Probe(images, torch.rand(1, 3), attention=attention)
    batch = Batch(images, torch.tensor([0]), torch.arange(1))
    mask = rules.Standardised(rules.MapSource("attention-rollout"))
    budget = rules.draw_budget(probe, batch, Keys(0, "flat", batch.index), Linf(0.2), eps_low=0.1, mask=mask)
    assert budget.flat.tolist() == [True]


def test_stored_maps_of_attention(images):
    view = InferenceView(vit(), attention=True)
    batch = Batch(images, LABELS, torch.tensor([5, 0, 2, 3]))
    stored = store.fill(view, [batch], 6, "true", "attention-gradient")
    probe = view.probe(images)
    maps = probe_map(probe, score_weights(probe.logits, LABELS), "attention-gradient")
    torch.testing.assert_close(stored[5], (maps[0] / maps[0].max()).half(), rtol=1e-2, atol=1e-3)
    assert stored.shape == (6, 4, 4)


def test_a_view_that_shows_no_attention_says_how_to(images):
    probe = InferenceView(vit()).probe(images)
    with pytest.raises(ValueError, match=r"shows no attention, so it has no map attention-rollout"):
        probe_map(probe, score_weights(probe.logits, LABELS), "attention-rollout")
    with pytest.raises(ValueError, match="attention-rollout or attention-gradient"):
        probe_map(probe, score_weights(probe.logits, LABELS), "grad-cam")
