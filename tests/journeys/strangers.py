"""Writes what an auditor was given: images, and a robust network of grey digits in four forms.

Run: python strangers.py FOLDER [SHARED]. With the folder of real data it is the network of fast adversarial training
that was published for MNIST; otherwise one of the same form, trained here for seconds.
"""

import gzip
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

import counterpart as cp
from counterpart.data import load_digits

JUDGED = 100


def network():
    """Wong et al. 2020, for images of 28 pixels."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip


def published(shared):
    """The published network, with test images of MNIST and their labels."""
    place, model = shared / "data" / "mnist-reference", network()
    file = place / "fast-adversarial-fgsm.pth"
    model.load_state_dict(torch.load(file, weights_only=True, map_location="cpu"))
    pixels, labels = (
        np.frombuffer(gzip.decompress((place / name).read_bytes()), np.uint8, offset=offset)
        for name, offset in (("t10k-images-idx3-ubyte.gz", 16), ("t10k-labels-idx1-ubyte.gz", 8))
    )
    return model, pixels.reshape(-1, 28, 28)[:JUDGED], labels[:JUDGED]


def trained():
    """A network that learned scikit-learn's digits under PGD, with digits that it has not seen."""
    torch.manual_seed(0)
    data, model = load_digits(), network()

    def read(split):
        return F.interpolate(split.pixels.float() / 255, size=(28, 28)), split.labels

    (images, labels), (test_images, test_labels) = read(data.train), read(data.test)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for epoch in range(12):
        radius = 0.2 * min(1, epoch / 4)
        for step, rows in enumerate(torch.randperm(len(images)).split(64)):
            x, y = images[rows], labels[rows]
            x = cp.pgd(model, x, y, budget=cp.Linf(radius), steps=5, seed=100 * epoch + step).images
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    pixels = (test_images[:JUDGED, 0] * 255).round().byte().numpy()
    return model, pixels, test_labels[:JUDGED].numpy()


def write(folder, shared):
    """All files."""
    model, pixels, labels = trained() if shared is None else published(shared)
    model.eval()
    for number, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
        place = folder / "images" / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place / f"{number:03}.png")
    models = folder / "strangers"
    models.mkdir()
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    torch.save(weights, models / "weights.pt")
    save_file(weights, models / "model.safetensors")
    examples = torch.rand(2, 1, 28, 28)
    torch.jit.trace(model, examples).save(models / "program.pt")
    batch = ({0: torch.export.Dim("batch")},)
    torch.onnx.export(
        model, (examples,), models / "model.onnx", dynamo=True, external_data=False, dynamic_shapes=batch
    )


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
