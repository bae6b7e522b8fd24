"""One line of a judgement, an accuracy with its interval, and the images with which an attack fooled the model."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Accuracy:
    """An accuracy, with its interval and the number of images behind it.

    Attributes:
        name: the name of the attack, "clean", or "worst case".
        value: the share of the images that are classified correctly, in [0, 1].
        n: the number of images.
        low: the lower end of the 95 % interval, over the draw of images for this very model: Wilson's, or where images
            are judged by several draws ``statistics.mean_share``, over images and draws.
        high: the upper end of the 95 % interval.
        eps: the radius of the budget, in units of the images; of a union of budgets the radius of each.
        of_these_images: where dear attacks were tried on a sample, so that the value is an estimate: the 95 % interval
            of what trying all survivors would give on these very images. None where the value is exact.
    """

    name: str
    value: float
    n: int
    low: float
    high: float
    eps: float | tuple[float, ...]
    of_these_images: tuple[float, float] | None = None

    @property
    def estimated(self) -> bool:
        """Whether the value is an estimate, from attacks that were tried on a sample of the survivors."""
        return self.of_these_images is not None

    def __str__(self) -> str:
        text = f"{self.name}: {self.value:.2%} ({self.low:.2%} to {self.high:.2%}, n = {self.n})"
        if self.of_these_images is None:
            return text
        low, high = self.of_these_images
        return f"{text}, an estimate: {low:.2%} to {high:.2%} of these images"

    def __float__(self) -> float:
        return self.value


@dataclass(frozen=True, repr=False, eq=False)
class FoolingImages:
    """The images with which an attack fooled the model.

    Attributes:
        images: (F, C, H, W) the attacked images, float32 in [0, 1].
        index: (F,) the index of each image in its data set.
        positions: (F,) the place of each image among those that were evaluated.
        labels: (F,) the true class of each image.
        answers: (F,) the class that the model gives each attacked image.
    """

    images: Float[Tensor, "f c h w"]
    index: Int[Tensor, " f"]
    positions: Int[Tensor, " f"]
    labels: Int[Tensor, " f"]
    answers: Int[Tensor, " f"]

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        return f"FoolingImages({len(self)} of {'x'.join(map(str, self.images.shape[1:]))})"
