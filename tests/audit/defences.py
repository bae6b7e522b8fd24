"""Small defences that only seem to work, each written from the definition of its paper, on 8 x 8 digits.

Each is a network of a few thousand weights that is trained in seconds. None of them is robust.
"""

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from counterpart.data import load_digits
from counterpart.data.transforms import as_floats
from counterpart.seeding import seeded


@functools.cache
def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images in [0, 1] with their labels, and test images with theirs."""
    data = load_digits()
    read = [as_floats(part.read(torch.arange(len(part)))) for part in (data.train, data.test)]
    small = [F.avg_pool2d(images, images.shape[-1] // 8) for images in read]
    return small[0], data.train.labels, small[1], data.test.labels


def network(activation=nn.ReLU, inputs=1, width=16, side=8) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, width, 3, padding=1), activation(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), activation(),
        nn.Flatten(), nn.Linear(2 * width * (side // 2) ** 2, 64), activation(), nn.Linear(64, 10),
    )  # fmt: skip


def fit(model: nn.Module, loss=F.cross_entropy, targets=None, epochs=15, seed=0) -> nn.Module:
    """Train a model on clean digits."""
    images, labels, _, _ = digits()
    targets = labels if targets is None else targets
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=generator).split(64):
            optimizer.zero_grad()
            loss(model(images[rows]), targets[rows]).backward()
            optimizer.step()
    return model.eval()


class Before(nn.Module):
    """A network with something before it."""

    def __init__(self, before: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.before, self.network = before, network

    def forward(self, images):
        return self.network(self.before(images))


class Winners(nn.Module):
    """k-winners-take-all: all but the largest tenth of a layer's values become 0.

    Xiao et al. 2020, arXiv 1905.10510, equation 1.
    """

    def forward(self, values):
        flat = values.flatten(1)
        least = flat.topk(max(1, flat.shape[1] // 10), dim=1).values[:, -1:]
        return (flat * (flat >= least)).view_as(values)


class Quantised(nn.Module):
    """Input quantisation, bit depth reduction: Xu et al. 2018, arXiv 1704.01155, section III A."""

    def forward(self, images):
        return (images * 3).round() / 3


class Thermometer(nn.Module):
    """Thermometer code: channel l says whether a pixel exceeds the level l. Buckman et al. 2018 (ICLR), section 3."""

    def forward(self, images):
        levels = torch.linspace(0.05, 0.95, 10).view(1, -1, 1, 1)
        return (images > levels).float()


class Resized(nn.Module):
    """Random resizing and padding: Xie et al. 2018, arXiv 1711.01991, section 3.2."""

    def forward(self, images):
        size = int(torch.randint(8, 11, ()))
        smaller = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
        room = 10 - size
        left, top = (int(torch.randint(0, room + 1, ())) for _ in range(2))
        return F.pad(smaller, (left, room - left, top, room - top))


class Sparse(nn.Module):
    """MeanSparse: what lies within alpha deviations of a channel's mean becomes the mean.

    Amini et al. 2024, arXiv 2406.05927, equation 6; statistics of the training images.
    """

    def __init__(self, alpha=1.0) -> None:
        super().__init__()
        self.alpha, self.mean, self.std = alpha, None, None

    def forward(self, values):
        if self.mean is None:
            return values
        return torch.where((values - self.mean).abs() < self.alpha * self.std, self.mean, values)

    def measure(self, values):
        axes = (0, 2, 3)
        self.mean, self.std = (
            m.detach() for m in (values.mean(axes, keepdim=True), values.std(axes, keepdim=True))
        )


class Steep(nn.Module):
    """A softplus so steep that its gradient and that of the loss after it underflow: gradient masking by saturation.

    Carlini and Wagner 2017, arXiv 1608.04644, section IV, say why: the loss is flat where logits are large.
    """

    def forward(self, logits):
        return F.softplus(100 * logits)


class Abstains(nn.Module):
    """MagNet's way: a detector rejects what is far from all training images, and a reformer without gradient answers.

    Meng and Chen 2017, arXiv 1705.09064, section 4: here by the nearest training image.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        images, labels, _, _ = digits()
        self.network = network
        self.register_buffer("known", images.flatten(1))
        self.register_buffer("answers", F.one_hot(labels, 10).float() * 10)

    def forward(self, images):
        distance, nearest = torch.cdist(images.detach().flatten(1), self.known).min(dim=1)
        logits = self.network(images)
        unsure = logits.softmax(dim=1).amax(dim=1) < 0.99
        return torch.where((unsure | (distance > 1.5))[:, None], self.answers[nearest], logits)


class AlwaysDropped(nn.Module):
    """Dropout that goes on at test time: stochastic activation pruning's way. Dhillon et al. 2018, arXiv 1803.01442."""

    def forward(self, values):
        return F.dropout(F.relu(values), 0.3, training=True)


class Bounded(nn.Module):
    """Logits squeezed into [-1, 1]."""

    def forward(self, logits):
        return torch.tanh(0.5 * logits)


class Jpeg(nn.Module):
    """The lossy step of JPEG on a block of 8 x 8: a cosine transform whose coefficients are rounded.

    Dziugaite et al. 2016, arXiv 1608.00853. All coefficients are quantised by the same step.
    """

    def __init__(self, step=0.5) -> None:
        super().__init__()
        k = torch.arange(8.0)
        basis = torch.cos(torch.pi * (2 * k[None] + 1) * k[:, None] / 16) * 0.5
        basis[0] /= 2**0.5
        self.register_buffer("basis", basis)
        self.step = step

    def forward(self, images):
        coefficients = self.basis @ images @ self.basis.T
        rounded = (coefficients / self.step).round() * self.step
        return (self.basis.T @ rounded @ self.basis).clamp(0, 1)


class Averaged(nn.Module):
    """An ensemble that answers with the mean of its members' probabilities."""

    def __init__(self, members) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images):
        return torch.stack([member(images).softmax(dim=1) for member in self.members]).mean(dim=0)


def distilled(temperature=100.0) -> nn.Module:
    """Defensive distillation: teacher and student at a temperature, the student used without it.

    Papernot et al. 2016, arXiv 1511.04508, section IV.
    """
    images, _, _, _ = digits()

    def softer(logits, targets):
        return F.cross_entropy(logits / temperature, targets)

    teacher = fit(network(), softer, epochs=30)
    with torch.no_grad():
        soft = (teacher(images) / temperature).softmax(dim=1)
    return fit(network(), softer, soft, epochs=30)


def sparsified() -> nn.Module:
    model = fit(network())
    sparse = [Sparse(), Sparse()]
    values = digits()[0]
    with torch.no_grad():
        for place, layer in zip((0, 2), sparse, strict=True):
            values = model[place](values)
            layer.measure(values)
            values = model[place + 1](layer(values))
    return nn.Sequential(model[0], sparse[0], model[1], model[2], sparse[1], *model[3:]).eval()


def abstaining() -> nn.Module:
    return Abstains(fit(network())).eval()


DEFENCES = {
    "k-winners-take-all": lambda: fit(network(Winners)),
    "input quantisation": lambda: fit(Before(Quantised(), network())),
    "thermometer code": lambda: fit(Before(Thermometer(), network(inputs=10))),
    "random resizing": lambda: fit(Before(Resized(), network(side=10)), epochs=40),
    "distillation": distilled,
    "steep softplus": lambda: nn.Sequential(fit(network()), Steep()),
    "mean sparse": sparsified,
    "detector that abstains": abstaining,
    "dropout at test time": lambda: fit(network(AlwaysDropped)),
    "bounded logits": lambda: nn.Sequential(fit(network()), Bounded()),
    "JPEG step": lambda: fit(Before(Jpeg(), network())),
    "ensemble of probabilities": lambda: Averaged(fit(network(), seed=seed) for seed in range(3)),
}


@functools.cache
def defence(name: str) -> nn.Module:
    """A defence, trained from a fixed seed."""
    with seeded(0):
        return DEFENCES[name]().eval()
