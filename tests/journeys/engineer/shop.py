"""Our classifier: a small network of timm, trained on our photographs. ``python shop.py`` trains it."""

from pathlib import Path

import timm
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torchvision.transforms.functional import center_crop, normalize, resize, to_tensor


class Normalised(nn.Module):
    """Images in [0, 1] -> logits."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(normalize(images, [0.5] * 3, [0.5] * 3))  # as timm says of this network


def network():
    return timm.create_model("test_resnet", num_classes=3)


def classifier():
    model = network()
    model.load_state_dict(torch.load("weights.pt", weights_only=True))
    return Normalised(model)


def photographs(folder):
    files = sorted(Path(folder).glob("*/*.jpg"))
    names = sorted({file.parent.name for file in files})
    images = [to_tensor(center_crop(resize(Image.open(file).convert("RGB"), 32), [32, 32])) for file in files]
    return torch.stack(images), torch.tensor([names.index(file.parent.name) for file in files])


def train(epochs=15):
    torch.manual_seed(0)
    images, labels = photographs("photographs/train")
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(32):
            x = images[rows]
            x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)
            loss = F.cross_entropy(Normalised(model.train())(x), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    torch.save(model.state_dict(), "weights.pt")


if __name__ == "__main__":
    train()
