"""Dilated depthwise convolutions as convolutions without holes, for which processors have the faster code."""

from torch import Tensor, nn
from torch.nn import functional as F


class WithoutHoles(nn.Conv2d):
    """A dilated depthwise convolution whose kernel has zeros where the dilated one has holes.

    Segmenters dilate the last stages of their encoder. On a processor, oneDNN takes five to nine times as long for a
    dilated depthwise convolution as for one without holes of the same reach, and the same time again for taps that lie
    outside of the map, as nearly all do of DeepLab's rates 12, 24 and 36 on small maps. Those are left out. Outputs and
    gradients of the images are the same, bit for bit; gradients of the weights are rounded otherwise, so that this is
    for copies of a model that are not trained. Elsewhere than on a processor the convolution stays as it is.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """The output of the convolution."""
        if maps.device.type != "cpu":
            return super().forward(maps)
        weight, padding = self.weight, []
        for axis in (2, 3):
            centre, step = weight.shape[axis] // 2, self.dilation[axis - 2]
            taps = min(centre, (maps.shape[axis] - 1) // step)  # on each side, of those that lie on the map
            weight = weight.narrow(axis, centre - taps, 2 * taps + 1)
            padding.append(taps * step)
        dense = weight.new_zeros(len(weight), 1, 2 * padding[0] + 1, 2 * padding[1] + 1)
        dense[:, :, :: self.dilation[0], :: self.dilation[1]] = weight
        return F.conv2d(maps, dense, self.bias, padding=padding, groups=self.groups)


def fill_holes(model: nn.Module) -> None:
    """Turn every dilated depthwise convolution of a model, for which that changes nothing, into one without holes."""
    for module in model.modules():
        if type(module) is nn.Conv2d and _is_dilated_depthwise(module):
            module.__class__ = WithoutHoles


def _is_dilated_depthwise(conv: nn.Conv2d) -> bool:
    """Whether each channel has a kernel of its own with holes, an odd number of taps and a border of its reach."""
    reach = tuple(step * (taps // 2) for step, taps in zip(conv.dilation, conv.kernel_size, strict=True))
    return (
        conv.groups == conv.in_channels == conv.out_channels
        and max(conv.dilation) > 1
        and conv.stride == (1, 1)
        and all(taps % 2 == 1 for taps in conv.kernel_size)
        and conv.padding == reach
        and conv.padding_mode == "zeros"
    )
