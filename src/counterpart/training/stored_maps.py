"""The maps of all training images, which some phases store."""

from torch import Tensor

from .. import distributed
from ..data.image_sets import ImageSet
from ..data.loaders import batches
from ..importance import store
from ..models.inference import InferenceView
from .step import LoopOptions, Phase


def draw_maps(view: InferenceView, images: ImageSet, phase: Phase, options: LoopOptions) -> Tensor:
    """The maps of all samples, from one clean pass on each. Every process draws its share."""
    # The batches are those of a step, because a probe keeps its graph, and memory holds that of a step.
    loader = batches(images, batch_size=options.batch_size, device=options.device)
    maps = store.fill(view, loader, int(images.index.max()) + 1, phase.map_class, phase.map_kind)
    distributed.sum_([maps])
    return maps
