"""Rows of a batch that a climb walks in circles with, and the step at which they may leave with the same result.

A climb by sign steps of one length often comes back to an image that it has met, bit for bit (arXiv 2503.19347 calls
this the cycle of PGD). From there on it meets the same images again, so that nothing new can fool the model.
"""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor

FIRST_ANCHOR = 16  # no climb has been seen to circle earlier, and comparing is not free


class Anchor(NamedTuple):
    """An iterate that later ones are compared with, as in Brent's search for cycles.

    It is exact and costs the memory of one batch, where a table of all iterates would cost that of every step.

    Attributes:
        step: the step in which it was met.
        images: (P, C, H, W) the images that still climb.
        logits: (P, K) the model's answers to them. Where these differ for equal images, the model draws its answers,
            and a circle says nothing of what comes.
    """

    step: int
    images: Float[Tensor, "p c h w"]
    logits: Float[Tensor, "p k"]

    def met_again(self, images: Float[Tensor, "p c h w"], logits: Float[Tensor, "p k"]) -> Bool[Tensor, " p"]:
        """Whether each row is at the anchor again, with the same answer."""
        same_images = (images == self.images).flatten(1).all(dim=1)
        return same_images & (logits == self.logits).all(dim=1)

    def select(self, rows: Int[Tensor, " q"]) -> "Anchor":
        """The anchor of some of its rows."""
        return Anchor(self.step, self.images[rows], self.logits[rows])


def drops_anchor(step: int) -> bool:
    """Whether the iterate of a step becomes the anchor: at 16, 32, 64, and so on.

    So every circle is found, however late it begins and however long it is, once the anchor lies on it.
    """
    return step >= FIRST_ANCHOR and step & (step - 1) == 0


def last_step(step: int, steps: int, period: int) -> int:
    """The step at which a row that circles is where it will be after ``steps``, found in ``step``."""
    return step + (steps - step) % period
