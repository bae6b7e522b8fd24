"""Dilated depthwise convolutions: as torch has them, and without holes, in a view of a part model and by themselves.

    python benchmarks/dilation.py --threads 1                  (2-core CPU: about a minute)

The network is Downsampled on timm's tf_efficientnet_lite0 at 96 pixels, untrained, as in ``parts/photographs``. A pass
is forward and backward to the images. Both ways give the same outputs and gradients, which is checked.
"""

from collections.abc import Callable
from statistics import median
from unittest.mock import patch

import torch
from timing import alternate, arguments, keep, ratio, timing
from torch import Tensor, nn

from counterpart.models import create, inference
from counterpart.models.dilation import fill_holes
from counterpart.models.inference import InferenceView
from counterpart.records import Record
from counterpart.seeding import seeded

SHAPES = ((1152, 5, 2), (1152, 3, 2), (320, 3, 12))  # channels, taps, dilation, on maps of 6 x 6


def main() -> None:
    """Time, compare, keep."""
    parser = arguments(__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.set_defaults(batch_size=16, repeats=15)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device, size = torch.device("cpu"), given.batch_size
    setting = {"batch_size": size, "device": "cpu", "precision": "float32", "threads": given.threads}
    rows = []
    for channels, taps, dilation in SHAPES:
        maps = torch.rand(size, channels, 6, 6).contiguous(memory_format=torch.channels_last)
        padding = dilation * (taps // 2)
        conv = nn.Conv2d(channels, channels, taps, padding=padding, dilation=dilation, groups=channels)
        other = nn.Sequential(
            nn.Conv2d(channels, channels, taps, padding=padding, dilation=dilation, groups=channels)
        )
        other[0].load_state_dict(conv.state_dict())
        fill_holes(other)
        name = f"{channels} channels, {taps} x {taps}, dilation {dilation}"
        rows += _compare(name, _pass(conv, maps), _pass(other, maps), given.repeats, size, setting, device)
    parts = {"part_classes": [number % 8 for number in range(23)], "encoder": "timm/tf_efficientnet_lite0"}
    with seeded(0):
        model = create("parts/downsampled", 8, image_size=96, parts=parts).eval()
        images = torch.rand(size, 3, 96, 96)
    with patch.object(inference, "fill_holes", lambda model: None):
        dilated = InferenceView(model)
    rows += _compare(
        "view of Downsampled", _pass(dilated, images), _pass(InferenceView(model), images), given.repeats, size,
        {**setting, "model": "parts/downsampled"}, device,
    )  # fmt: skip
    keep("dilation.jsonl", rows)


def _pass(model: Callable[[Tensor], Tensor], images: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    """A forward and backward pass, which returns outputs and gradients."""

    def work() -> tuple[Tensor, Tensor]:
        leaf = images.detach().requires_grad_()
        outputs = model(leaf)
        return outputs.detach(), torch.autograd.grad(outputs.sum(), leaf)[0]

    return work


def _compare(
    name: str,
    dilated: Callable[[], tuple[Tensor, Tensor]],
    filled: Callable[[], tuple[Tensor, Tensor]],
    repeats: int,
    size: int,
    setting: dict[str, object],
    device: torch.device,
) -> list[Record]:
    """The records of two ways to make the same pass."""
    for ours, theirs in zip(filled(), dilated(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    taken = alternate({"with holes": dilated, "without holes": filled}, device, repeats)
    rows = [timing(f"dilation/{name}, {way}", spent, size, **setting) for way, spent in taken.items()]
    factor = median(taken["with holes"]) / median(taken["without holes"])
    return [*rows, ratio(f"dilation/{name}, times as fast without", factor, repeats, "", **setting)]


if __name__ == "__main__":
    main()
