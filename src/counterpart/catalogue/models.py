"""The networks that have a name, and the families whose names hold numbers or other names."""

from dataclasses import dataclass

from .entries import Entry


@dataclass(frozen=True)
class ModelFacts:
    """The facts about a network that other parts of the program read.

    Attributes:
        family: the beginning of the names of a family, such as "wrn" of "wrn-28-10", or "timm/" of
            "timm/resnet50". It is empty for a single network.
        example: an example of the family's names.
        one_size: whether it is built for one size of images.
        predicts_parts: whether it is a part model.
        needs_parts: whether it is meant for images with annotated parts.
        reads_parts: whether a part model can read its class from part logits alone, so that an attack can ask which
            class it takes a mask for.
        options: the settings ``model.*`` of part models that apply to it.
    """

    family: str = ""
    example: str = ""
    one_size: bool = False
    predicts_parts: bool = False
    needs_parts: bool = False
    reads_parts: bool = False
    options: tuple[str, ...] = ()


_SEGMENTER = ("encoder", "decoder", "depth", "output_stride", "resolution")


def _part_model(key: str, sentence: str, *options: str, reads_parts: bool = True) -> Entry[ModelFacts]:
    facts = ModelFacts(
        predicts_parts=True, needs_parts=True, reads_parts=reads_parts, options=(*_SEGMENTER, *options)
    )
    return Entry(f"parts/{key}", f"parts/{key}", "models.part_model:create", sentence, facts)


_ENTRIES = (
    Entry(
        "resnet18", "ResNet-18", "models.cifar_resnet:resnet18",
        "ResNet-18 for images of 32 pixels", ModelFacts(),
    ),
    Entry(
        "preact-resnet18", "PreAct-ResNet-18", "models.cifar_resnet:preact_resnet18",
        "ResNet-18 with normalisation before each convolution", ModelFacts(),
    ),
    Entry(
        "preact-resnet18-fast", "PreAct-ResNet-18 (fast)", "models.cifar_resnet:preact_resnet18_fast",
        "preact-resnet18 of the work on fast adversarial training, with shortcuts that begin earlier",
        ModelFacts(),
    ),
    Entry(
        "dm-preact-resnet18", "PreAct-ResNet-18 (DeepMind)", "models.deepmind_resnet:dm_preact_resnet18",
        "DeepMind's preact-resnet18, for their published weights", ModelFacts(),
    ),
    Entry(
        "mnist-cnn", "MNIST CNN", "models.small_cnn:mnist_cnn",
        "a small network for the digits of MNIST", ModelFacts(one_size=True),
    ),
    Entry(
        "small-cnn", "small CNN", "models.small_cnn:small_cnn",
        "a very small network, for digits and tests", ModelFacts(one_size=True),
    ),
    Entry(
        "wrn-D-K", "WRN-D-K", "models.cifar_resnet:wide_resnet",
        "a wide ResNet of depth D that is K times as wide", ModelFacts(family="wrn", example="wrn-28-10"),
    ),
    Entry(
        "dm-wrn-D-K", "WRN-D-K (DeepMind)", "models.deepmind_resnet:dm_wide_resnet",
        "DeepMind's wide ResNet, for their published weights", ModelFacts(family="dm-wrn", example="dm-wrn-28-10"),
    ),
    Entry(
        "timm/NAME", "timm/NAME", "models.backbones:create",
        "any classifier of the package timm, for any size of images",
        ModelFacts(family="timm/", example="timm/resnet50"),
    ),
    Entry(
        "parts/baseline", "parts/baseline", "models.part_model:create",
        "the encoder of a part model as a plain classifier", ModelFacts(needs_parts=True, options=("encoder",)),
    ),
    _part_model(
        "downsampled", "two layers read part maps, averaged to a small grid", "pool", "background", "see_image"
    ),
    _part_model("bounding-box", "two layers read place, size and score of each part"),
    _part_model("two-headed", "a second head reads the segmenter's features", "branch", reads_parts=False),
    _part_model("pixel", "each pixel votes for the class of its part"),
    Entry(
        "parts/auxiliary", "parts/auxiliary", "models.part_model:create",
        "parts/baseline with heads that predict parts in training and that inference does without",
        ModelFacts(predicts_parts=True, needs_parts=True, options=("encoder",)),
    ),
)  # fmt: skip
MODELS = {entry.key: entry for entry in _ENTRIES}
NAMES = tuple(entry.facts.example or entry.key for entry in _ENTRIES)
"""Names that a hint may suggest: those of single networks, and one example of each family."""
