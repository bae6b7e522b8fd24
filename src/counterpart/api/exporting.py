"""The function that writes a model into a file for others: ``export``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import merge
from ..dotted_names import nest
from ..jobs.exporting import Exported, export_target
from .evaluation import Model, target_of
from .state import left_as_found


def export(
    model: Model,
    to: str | Path,
    *,
    format: str | None = None,
    data: Any = None,
    root: str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Exported:
    """Write a model into one file that others read without this package, with its class names beside it.

    The normalisation is inside: the file takes images in [0, 1]. It is read back, as its readers will read it, and
    compared with the model before it gets its name: its logits on real images agree to 1e-4 (where an image's logits
    range over more than 1, to that share of the range), and the adversarial images that evaluations of a run have
    saved fool it as well. Where something fails, nothing is left.

    Args:
        model: any ``torch.nn.Module`` from images in [0, 1] to logits, or a name that ``evaluate`` understands.
        to: the file. FILE.json beside it says its classes, the shape and range of images, and the code that loads it.
        format: "state-dict", "safetensors", "torch-export" or "onnx"; by default what the name of the file says (.pt,
            .safetensors, .pt2, .onnx). A state dict of timm's networks loads with timm alone.
        data: the images to compare on, in any form that ``evaluate`` takes; by default those that a run is judged on.
        root: the folder that holds the data set, where ``data`` is a name.
        mean: the value of each channel to subtract from the images, for a model that wants normalised ones.
        std: the value of each channel to divide by after that, for a model that wants normalised images.
        classes: the name of each class, where the model or the images are objects.
        changes: other settings by their dotted names, such as {"evaluate.weights": "last"}.

    Returns:
        The path, the lines of Python that load the file (``code``), and how it was ``checked``.

    Raises:
        UserError: the model has no such form, a package is missing, or the file does not answer as the model does.
    """
    with left_as_found(model):
        of_objects = {"mean": mean, "std": std, "classes": classes}
        target = target_of(model, data, merge({}, nest(changes)), root, of_objects)
        return export_target(target, Path(to).expanduser(), format)
