"""Small networks as tutorials and notebooks write them, and the ways in which people change a network afterwards."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune


class LeNet(nn.Module):
    """The network of PyTorch's sixty-minute tutorial: ``view`` before the linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.pool = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5), nn.MaxPool2d(2, 2)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        features = self.pool(F.relu(self.conv1(images)))
        features = self.pool(F.relu(self.conv2(features))).view(-1, 400)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(features)))))


class Mnist(nn.Module):
    """PyTorch's MNIST example: dropout, ``torch.flatten``, and logarithms of probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 32, 3, 1), nn.Conv2d(32, 64, 3, 1)
        self.dropout1, self.dropout2 = nn.Dropout(0.25), nn.Dropout(0.5)
        self.fc1, self.fc2 = nn.Linear(12544, 128), nn.Linear(128, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logarithms of probabilities."""
        features = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(images)))), 2)
        features = torch.flatten(self.dropout1(features), 1)
        return F.log_softmax(self.fc2(self.dropout2(F.relu(self.fc1(features)))), dim=1)


def convolutions_and_dense() -> nn.Module:
    """TensorFlow's tutorial on CNNs."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def small_vgg() -> nn.Module:
    """Two convolutions and a pooling, twice, with batch norms and in-place activations."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 16), (16, 32), (32, 32)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
        layers += [nn.MaxPool2d(2)] if inputs == outputs else []
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(), nn.Linear(2048, 10))


class Functional(nn.Module):
    """Activations, pooling, normalisation and dropout as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 3)
        self.norm, self.linear = nn.BatchNorm2d(16), nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        features = F.gelu(self.norm(self.conv1(images)))
        features = F.avg_pool2d(torch.tanh(self.conv2(features)), 2)
        features = F.dropout(F.adaptive_avg_pool2d(features, 1).flatten(1), 0.5, self.training)
        return self.linear(F.normalize(features))


class InPlace(nn.Module):
    """In-place activations on what a shortcut reads as well, and in-place addition."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.conv, self.after = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.relu, self.linear = nn.ReLU(inplace=True), nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        features = self.relu(self.norm(self.stem(images)))
        deeper = self.after(self.conv(features))
        deeper += features
        return self.linear(self.relu(deeper).mean(dim=(2, 3)))


class ListedTwice(nn.Module):
    """Layers in a Python list, which torch does not see, each of them used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.linear = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16, 10)
        self.layers = [nn.Conv2d(16, 16, 3, padding=1) for _ in range(2)]

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        features = self.stem(images)
        for layer in self.layers * 2:
            features = features + F.relu(layer(features))
        return self.linear(features.mean(dim=(2, 3)))


class Rows(nn.Module):
    """An LSTM that reads an image row by row, as tutorials on MNIST have it."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.linear = nn.LSTM(96, 32, batch_first=True), nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        rows = images.permute(0, 2, 1, 3).reshape(len(images), images.shape[2], -1)
        return self.linear(self.lstm(rows)[0][:, -1])


class Patches(nn.Module):
    """A transformer of torch's own layers on 8 x 8 patches, with a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 32, 8, 8), nn.Parameter(torch.randn(1, 1, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.linear = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(images), -1, -1), tokens], dim=1)
        return self.linear(self.encoder(tokens)[:, 0])


class Branching(nn.Module):
    """A forward pass that looks at values, and reshapes with ``view``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(7200, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        if images.mean() > 2:
            images = images / 255
        features = F.relu(self.norm(self.conv(images)))
        return self.linear(features.view(features.size(0), -1))


class Noisy(nn.Module):
    """Noise in every pass, in eval mode as well: a defence by randomness.

    Args:
        shape: of the noise; None: that of the images. A trace would keep the draw of a shape that it knows.
    """

    def __init__(self, shape: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.network, self.shape = convolutions_and_dense(), shape

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        return self.network(images + 0.1 * torch.randn(self.shape or images.shape))


def scaled_images() -> nn.Module:
    """A hook that halves the images before the first layer."""
    model = small_vgg()
    model.get_submodule("0").register_forward_pre_hook(lambda _, inputs: (inputs[0] * 0.5,))
    return model


def shifted_logits() -> nn.Module:
    """A hook that doubles the logits and adds to the first of them."""
    model = small_vgg()
    model.register_forward_hook(lambda _, __, logits: 2 * logits + torch.eye(10)[0])
    return model


def turned_gradients() -> nn.Module:
    """A hook that leaves values alone and halves gradients in a layer, as guided backpropagation changes them."""
    model = small_vgg()
    model.get_submodule("3").register_full_backward_hook(lambda _, inputs, __: (inputs[0] * 0.5,))
    return model


def watched() -> nn.Module:
    """A hook that looks and changes nothing."""
    model = small_vgg()
    model.get_submodule("3").register_forward_hook(lambda *_: None)
    return model


def pruned() -> nn.Module:
    """A third of two layers' weights set to zero."""
    model = small_vgg()
    for name in ("3", "16"):
        prune.l1_unstructured(model.get_submodule(name), "weight", 0.3)
    return model


def by_hooks(change: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Weight or spectral norm in the old way."""
    model = small_vgg()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        change(model.get_submodule("3"))
        change(model.get_submodule("16"))
    return model


def by_parametrisation(change: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Weight, spectral or orthogonal norm in the new way."""
    model = small_vgg()
    change(model.get_submodule("3"))
    change(model.get_submodule("16"))
    return model


def scripted(traced: bool) -> nn.Module:
    """TorchScript, by compilation or by tracing."""
    model = small_vgg().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: nn.Module = (
            torch.jit.trace(model, torch.rand(2, 3, 32, 32)) if traced else torch.jit.script(model)
        )
    return made


def quantised() -> nn.Module:
    """Dynamic quantisation of the linear layers, which pass no gradient on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: nn.Module = torch.ao.quantization.quantize_dynamic(small_vgg().eval(), {nn.Linear})
    return made


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "LeNet by view": LeNet,
    "MNIST example": Mnist,
    "TensorFlow tutorial": convolutions_and_dense,
    "small VGG": small_vgg,
    "functional": Functional,
    "in place": InPlace,
    "a list, twice": ListedTwice,
    "LSTM over rows": Rows,
    "transformer from scratch": Patches,
    "branching": Branching,
    "noise": Noisy,
    "noise of one shape": lambda: Noisy((1, 3, 32, 32)),
    "hook on the images": scaled_images,
    "hook on the logits": shifted_logits,
    "hook on gradients": turned_gradients,
    "hook that looks": watched,
    "pruned": pruned,
    "weight norm by hooks": lambda: by_hooks(nn.utils.weight_norm),
    "spectral norm by hooks": lambda: by_hooks(nn.utils.spectral_norm),
    "weight norm": lambda: by_parametrisation(parametrizations.weight_norm),
    "spectral norm": lambda: by_parametrisation(parametrizations.spectral_norm),
    "orthogonal": lambda: by_parametrisation(parametrizations.orthogonal),
    "DataParallel": lambda: nn.DataParallel(small_vgg()),
    "torch.compile": lambda: torch.compile(small_vgg(), backend="eager"),
    "TorchScript": lambda: scripted(traced=False),
    "TorchScript by tracing": lambda: scripted(traced=True),
    "quantised": quantised,
}
"""Name -> a fresh network of 10 classes for images of 3 x 32 x 32, from torch's default generator."""
