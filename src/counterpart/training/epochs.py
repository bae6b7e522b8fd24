"""How many images and steps an epoch has, and which phase it belongs to."""

from collections.abc import Sequence

from .. import distributed
from ..errors import UserError
from .step import LoopOptions, Phase


def refuse_small_batches(length: int, options: LoopOptions) -> None:
    """Refuse batches, or training sets, with fewer images than a step needs."""
    least = least_images()
    if min(options.batch_size, length) < least:
        raise UserError(
            f"Batches of {options.batch_size} from {length} training images are too small: a step needs two "
            f"images, and one on every process, so train.batch_size and the training set must be at least {least}."
        )


def steps_of_epoch(length: int, batch_size: int) -> int:
    """The number of steps in an epoch on this many images."""
    return -(-images_used(length, batch_size) // batch_size)


def images_used(length: int, batch_size: int) -> int:
    """The number of images that an epoch uses; a last batch that is too small is left out.

    Each epoch has an order of its own, and so leaves out other images.
    """
    rest = length % batch_size
    return length - rest if rest < least_images() else length


def least_images() -> int:
    """The least number of images in a step.

    Batch norm cannot train on a single image, and every process needs one.
    """
    return max(2, distributed.world_size())


def phase_at(phases: Sequence[Phase], epoch: int) -> tuple[int, int]:
    """The number of the phase that an epoch belongs to, and the first epoch of that phase."""
    first = 0
    for number, phase in enumerate(phases):
        if epoch < first + phase.epochs:
            return number, first
        first += phase.epochs
    raise ValueError(f"epoch {epoch} lies behind the last phase, which ends at {first}.")
