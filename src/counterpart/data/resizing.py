"""Resizing and cropping of image files as a published benchmark does it, with the functions that it calls."""

from functools import partial

from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from ..catalogue.protocols import PREPARATIONS, Squaring
from .decoding import Prepare


def prepared_as(name: str) -> tuple[int, Prepare]:
    """The side in pixels of prepared images, and the function that prepares one.

    Args:
        name: a key of ``PREPARATIONS``, such as "Res256Crop224".
    """
    way = PREPARATIONS[name]
    return way.crop, partial(resize_and_crop, way=way)


def resize_and_crop(image: Image.Image, way: Squaring) -> UInt8[Tensor, "3 s s"]:
    """Make the square that a network sees of an RGB image: resized, cropped in the centre, not normalised.

    An image that is smaller than the crop gets a black border.
    """
    from torchvision.transforms import functional  # takes long to import

    if way.resize is not None:
        size = [way.resize, way.resize] if way.squash else [way.resize]
        image = functional.resize(image, size, functional.InterpolationMode(way.interpolation))
    pixels: Tensor = functional.pil_to_tensor(functional.center_crop(image, [way.crop, way.crop]))
    return pixels
