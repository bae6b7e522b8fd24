"""List networks with their parameters and the cost of a forward pass.

Without names: every kind of network, and the part models of the paper beside their baseline. Settings of ``model`` may
be written without their section: counterpart models parts/downsampled --encoder efficientnet-b4 --pool 8
"""

import argparse
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..config import resolve, settings
from ..errors import UserError
from ..terminal import open_console
from .settings import count

SETTINGS: Collection[str] = tuple(
    key
    for key, _ in settings()
    if key.startswith("model.")
    and key
    not in ("model.name", "model.init", "model.encoder_init", "model.pretrained", "model.normalisation")
)
SECTIONS = ("model",)

PLAIN = ("resnet18", "preact-resnet18", "wrn-28-10", "wrn-34-10", "dm-wrn-28-10")
LARGE = (
    "timm/resnet50",
    "parts/baseline",
    "parts/downsampled",
    "parts/bounding-box",
    "parts/two-headed",
    "parts/pixel",
    "parts/auxiliary",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "names",
        metavar="NAME",
        nargs="*",
        help="The networks to list, such as resnet18, timm/resnet50 or parts/pixel.",
    )
    parser.add_argument(
        "--size",
        type=count,
        help="The side of the images in pixels (default: 224 for timm/ and parts/, else 32).",
    )
    parser.add_argument(
        "--classes",
        type=count,
        help="The number of classes (default: 11 for timm/ and parts/, as in Part-ImageNet, else 10).",
    )
    parser.add_argument(
        "--parts",
        type=count,
        help="The number of parts of all classes together (default: 40, as in Part-ImageNet).",
    )


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """Print the table."""
    if settings and not arguments.names:
        raise UserError("name the networks that these settings are for, such as parts/downsampled.")
    from rich.table import Table

    from ..models.sizes import size_of

    table = Table(box=None, pad_edge=False)
    for title in ("model", "image", "classes", "parts", "parameters", "GFLOP per image"):
        table.add_column(title, justify="left" if title == "model" else "right", no_wrap=True)
    for name in arguments.names or (*PLAIN, *LARGE):
        about = about_of(name, settings, arguments.size, arguments.classes, arguments.parts)
        size = size_of(about)
        parts = str(len(about["parts"]["part_classes"])) if "parts" in about else "-"
        shape = (str(about["image_size"]), str(about["num_classes"]), parts)
        table.add_row(name, *shape, f"{size.parameters:,}", f"{size.operations / 1e9:.2f}")
    open_console().print(table)
    return 0


def about_of(
    name: str, settings: Mapping[str, Any], size: int | None, classes: int | None, parts: int | None
) -> dict[str, Any]:
    """The arguments that ``models.create`` needs for a network of this name."""
    model = resolve({"model": {**settings.get("model", {}), "name": name}}, source=name).model
    large = name.startswith(("timm/", "parts/"))
    about: dict[str, Any] = {
        "name": name,
        "num_classes": classes or (11 if large else 10),
        "width": model.width,
        "image_size": size or (224 if large else 32),
        "patch_size": model.patch_size,
    }
    if name.startswith("parts/"):
        about["parts"] = {
            "part_classes": _spread(parts or 40, about["num_classes"]),
            **model.part_options(),
        }
    return about


def _spread(parts: int, classes: int) -> Sequence[int]:
    """The class of each part, dealt out in turn: the size of a network does not depend on which class has how many."""
    return sorted(number % classes for number in range(parts))
