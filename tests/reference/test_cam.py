"""Class activation maps beside the two libraries that people use, at the last layer, at inner ones, and on tokens."""

import numpy as np
import pytest
import torch
from torch import nn

from counterpart.models import create
from counterpart.models.inference import InferenceView
from counterpart.saliency import probe_map, score_weights
from counterpart.seeding import seeded

pytestmark = pytest.mark.reference

LABELS = torch.tensor([0, 1, 2, 3, 3])
KINDS = {"grad-cam": "GradCAM", "xgrad-cam": "XGradCAM", "layer-cam": "LayerCAM"}
RESNET = {"name": "resnet18", "width": 8}
# Network, the layer that ours is told, and the one that theirs are.
LAYERS = [
    (RESNET, None, "layer4"),
    (RESNET, "layer3", "layer3"),
    (RESNET, "layer2.1.bn1", "layer2.1.bn1"),
    ({"name": "preact-resnet18", "width": 8}, "layer3.0.conv1", "layer3.0.conv1"),
    ({"name": "wrn-10-2"}, "block2", "block2"),
]
IDS = [f"{model['name']}-{layer}" for model, _, layer in LAYERS]


@pytest.fixture
def images(generator):
    return torch.rand(5, 3, 32, 32, generator=generator)


def network(**options):
    """Batch norms as after training."""
    with seeded(0):
        model = create(num_classes=4, **options).eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, 0, 0.5)
                nn.init.uniform_(module.running_var, 0.5, 2)
                nn.init.normal_(module.weight)
    return model


def ours(model, images, layer, kind):
    probe = InferenceView(model, layer=layer).probe(images)
    maps = probe_map(probe, score_weights(probe.logits, LABELS), kind)
    assert maps.amax(dim=(1, 2)).gt(0).any()
    return maps


def assert_same(maps, theirs):
    scale = theirs.abs().amax(dim=(1, 2), keepdim=True)
    assert ((maps - theirs).abs() <= 2e-3 * scale + 1e-7).all()


@pytest.mark.parametrize(("options", "layer", "their_layer"), LAYERS, ids=IDS)
@pytest.mark.parametrize("kind", KINDS)
def test_torchcam(kind, options, layer, their_layer, images):
    methods = pytest.importorskip("torchcam.methods", reason="needs torchcam: pip install torchcam")
    model = network(**options)
    with getattr(methods, KINDS[kind])(model, f"backbone.{their_layer}", images.shape[1:]) as extractor:
        scores = model(images)
        [theirs] = extractor(LABELS.tolist(), scores, normalized=False)
    assert_same(ours(model, images, layer, kind), theirs)


def grad_cam_maps(kind, model, layer, images, reshape=None):
    """Before that library stretches each map to [0, 1] and to the image's size."""
    library = pytest.importorskip("pytorch_grad_cam", reason="needs grad-cam: pip install grad-cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [ClassifierOutputTarget(label) for label in LABELS.tolist()]
    with getattr(library, KINDS[kind])(model, [layer], reshape) as extractor:
        extractor(images, targets)
        [found], [gradient] = (
            [tensor.detach().numpy() for tensor in tensors]
            for tensors in (
                extractor.activations_and_grads.activations,
                extractor.activations_and_grads.gradients,
            )
        )
        theirs = extractor.get_cam_image(images, layer, targets, found, gradient, False)
    return torch.from_numpy(np.maximum(theirs, 0))


@pytest.mark.parametrize(("options", "layer", "their_layer"), LAYERS, ids=IDS)
@pytest.mark.parametrize("kind", KINDS)
def test_pytorch_grad_cam(kind, options, layer, their_layer, images):
    model = network(**options)
    theirs = grad_cam_maps(kind, model, model.backbone.get_submodule(their_layer), images)
    assert_same(ours(model, images, layer, kind), theirs)


@pytest.mark.parametrize("kind", ["grad-cam", "layer-cam"])
def test_pytorch_grad_cam_on_the_tokens_of_a_transformer(kind, images):
    model = network(name="timm/test_vit", patch_size=8)

    def reshape(tokens):  # as that library's documentation does
        return tokens[:, 1:].reshape(len(tokens), 4, 4, -1).permute(0, 3, 1, 2)

    layer = model.backbone.blocks[4].norm1
    theirs = grad_cam_maps(kind, model, layer, images, reshape)
    assert_same(ours(model, images, "blocks.4.norm1", kind), theirs)
