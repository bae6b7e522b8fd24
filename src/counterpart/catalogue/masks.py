"""The rules that turn a map into a radius for each pixel, what is done to a mask as a control, and the maps."""

from dataclasses import dataclass

from .entries import Entry, Option


@dataclass(frozen=True)
class MaskFacts:
    """The facts about a mask rule that other parts of the program read.

    Attributes:
        needs_map: whether it is drawn from a map of the model.
        same_for_all: whether all images get the same plane of radii.
        parts: the parts that it looks at: "predicted" by a part model, or "annotated" with the images. It is
            empty for a rule that looks at no parts.
        of_training_images: whether it exists only for images that a user annotated, such as those of training.
        channels: the number of channels that images must have. With None, any number will do.
        above_eps: whether important pixels may get more than eps.
    """

    needs_map: bool = True
    same_for_all: bool = False
    parts: str = ""
    of_training_images: bool = False
    channels: int | None = None
    above_eps: bool = False


def _share(sentence: str) -> Option:
    return Option("share", float, 0.25, sentence, above=0, high=1, setting="quantile")


QUADRANTS = ("upper-left", "upper-right", "lower-left", "lower-right")

_RULES = (
    Entry(
        "paper", "paper", "importance.rules:Standardised",
        "eps where the map exceeds the image's mean by more than one standard deviation, eps_low elsewhere",
        MaskFacts(),
    ),
    Entry(
        "quantile", "quantile", "importance.rules:Quantile",
        "eps on the same number of pixels in every image, those of the highest map",
        MaskFacts(),
        (_share("share of the pixels that get eps"),),
    ),
    Entry(
        "soft", "soft", "importance.rules:Soft",
        "the radius grows evenly from eps_low to eps with the pixel's rank in the map",
        MaskFacts(),
    ),
    Entry(
        "mean-preserving", "mean-preserving", "importance.rules:MeanPreserving",
        "the important pixels get more than eps, so that the mean radius is eps",
        MaskFacts(above_eps=True),
        (_share("share of the pixels that get more than eps"),),
    ),
    Entry(
        "quadrant", "quadrant", "importance.rules:Quadrant",
        "one quarter of every image gets eps_low, whatever a map says",
        MaskFacts(needs_map=False, same_for_all=True),
        (Option("quadrant", str, "upper-left", "the quarter that gets eps_low", choices=QUADRANTS),),
    ),
    Entry(
        "centre", "centre", "importance.rules:Centre",
        "the pixels nearest to the centre get eps, whatever a map says",
        MaskFacts(needs_map=False, same_for_all=True),
        (_share("share of the pixels that get eps"),),
    ),
    Entry(
        "file", "file", "importance.rules:OwnMasks",
        "your own masks, read from the folder mask.files",
        MaskFacts(needs_map=False, of_training_images=True),
    ),
    Entry(
        "published-code", "published-code", "importance.rules:PublishedCode",
        "each colour channel has its own mask, as in the paper's published code (which also gives images each other's "
        "masks, as mask.control shuffled does)",
        MaskFacts(channels=3),
    ),
    Entry(
        "predicted-parts", "predicted-parts", "importance.rules:PredictedParts",
        "eps where a part model sees the object",
        MaskFacts(needs_map=False, parts="predicted"),
    ),
    Entry(
        "annotated-parts", "annotated-parts", "importance.rules:AnnotatedParts",
        "eps where the data say that the object is",
        MaskFacts(needs_map=False, parts="annotated", of_training_images=True),
    ),
)  # fmt: skip
MASK_RULES = {entry.key: entry for entry in _RULES}


_CONTROLS: tuple[Entry[None], ...] = (
    Entry("none", "none", "importance.controls:none", "the mask as it is", None),
    Entry(
        "uniform", "uniform", "importance.controls:uniform",
        "each image's radius is the mean of its mask, everywhere",
        None,
    ),
    Entry(
        "shuffled", "shuffled", "importance.controls:shuffled",
        "each image gets the mask of the next image of the batch (within a process)",
        None,
    ),
    Entry(
        "random", "random", "importance.controls:random",
        "the mask's radii lie on random pixels",
        None,
    ),
    Entry(
        "inverse", "inverse", "importance.controls:inverse",
        "the important pixels get the smaller radius",
        None,
    ),
)  # fmt: skip
CONTROLS = {entry.key: entry for entry in _CONTROLS}


@dataclass(frozen=True)
class MapFacts:
    """The facts about a map that other parts of the program read.

    Attributes:
        of_attention: whether it is drawn from a transformer's attention, not from features of a layer.
        of_a_class: whether it explains one class. Otherwise the map is the same for all classes.
    """

    of_attention: bool = False
    of_a_class: bool = True


_MAPS = (
    Entry(
        "grad-cam", "Grad-CAM", "saliency.cam:probe_map",
        "a class activation map: the layer's channels, weighted by their mean gradient",
        MapFacts(),
    ),
    Entry(
        "xgrad-cam", "XGrad-CAM", "saliency.cam:probe_map",
        "as grad-cam, but weighted by gradients where the channel is active (before pooling and a linear layer the two "
        "are equal)",
        MapFacts(),
    ),
    Entry(
        "layer-cam", "LayerCAM", "saliency.cam:probe_map",
        "each place of the layer weighted by its own gradient",
        MapFacts(),
    ),
    Entry(
        "attention-rollout", "attention rollout", "saliency.attention:attention_rollout",
        "where the attention of a vision transformer leads through all its blocks, the same for every class",
        MapFacts(of_attention=True, of_a_class=False),
    ),
    Entry(
        "attention-gradient", "attention gradient", "saliency.attention:attention_gradient",
        "the attention of a vision transformer, weighted by its gradient",
        MapFacts(of_attention=True),
    ),
)  # fmt: skip
MAPS = {entry.key: entry for entry in _MAPS}
