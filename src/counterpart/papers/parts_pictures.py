"""Pictures of parts.

Figures 5 and 12 to 14 show the parts that models find in images, clean and attacked. Figure 10 shows cheaper labels.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Integer
from torch.nn.functional import max_pool2d

from .. import build, devices, jobs
from ..attacks import pgd
from ..contracts import PartModel
from ..data.parts import part_names
from ..errors import UserError
from ..evaluation.answers import as_judged
from ..models.inference import InferenceView
from ..part_colours import coloured_parts, part_legend
from ..part_maps import predicted_parts
from ..report.panel import as_bytes
from ..seeding import Keys
from .experiments import Drawing
from .grid import Line, some_images, write_grid


def draw_found_parts(drawing: Drawing, file: Path) -> str:
    """Draw test images, their annotated parts, and the parts that each model finds in them.

    Each model's parts are shown on the clean images and under PGD-20 on the class, beside the attacked images.

    Args:
        drawing: part models that were trained on the same data.
        file: the PNG.

    Returns:
        The caption.

    Raises:
        UserError: a model finds no parts, or none are annotated.
    """
    lines: list[Line] = []
    first: list[Line] = []
    ids: list[Integer[np.ndarray, "m h w"]] = []
    titles, names, seed, eps = [""], [""], 0, 0.0
    for name, run in drawing.runs.items():
        [target] = jobs.open_targets(str(run.path), drawing.settings)
        model, images, seed, eps = target.model, target.images, target.config.seed, target.config.attack.eps
        annotated = images.annotated()
        if not isinstance(model, PartModel) or images.parts is None or len(annotated) == 0:
            raise UserError(f"{name}: parts are drawn of part models on images with annotated parts.")
        chosen, clean = some_images(annotated, target.device, seed)
        labels = chosen.labels.to(target.device)
        allowed = build.build_budget(target.config.attack.norm, eps)
        keys = Keys(seed, "figure", chosen.index.to(target.device))
        view = InferenceView(model)
        attacked = pgd(view, clean, labels, budget=allowed, keys=keys, steps=20, last_iterate=True).images
        size = (clean.shape[2], clean.shape[3])
        for kind, inputs in (("clean", clean), ("attacked", attacked)):
            with torch.no_grad(), as_judged(model, target.device):
                answers = model(inputs).argmax(dim=1)
                predicted = predicted_parts(model.forward_parts(inputs).part_logits, size).cpu().numpy()
            said = [images.classes[answer] for answer in answers.tolist()]
            if kind == "attacked":
                lines.append(Line(f"{name}\nattacked", as_bytes(inputs.cpu().numpy())))
            right = (answers == labels).tolist()
            lines.append(Line(f"{name}\nparts, {kind}", coloured_parts(predicted), right, said))
            ids.append(predicted)
        true = chosen.read_parts(torch.arange(len(chosen))).cpu().numpy()
        first = [Line("image", as_bytes(clean.cpu().numpy())), Line("true parts", coloured_parts(true))]
        ids.append(true)
        titles = [images.classes[label] for label in labels.tolist()]
        names = part_names(images.parts.names)
    write_grid(file, titles, [*first, *lines], part_legend(np.concatenate(ids), names))
    return (
        f"{len(titles)} annotated test images, the classes in turn, drawn with seed {seed}; the parts that are found "
        f"in them, clean and under PGD-20 on the class ({255 * eps:g}/255); below each the predicted class, a green "
        "frame with a tick where it is right, a dashed red one where it is wrong."
    )


def draw_labels(drawing: Drawing, file: Path) -> str:
    """Draw training images, and the part labels that each row learns from; nothing is trained.

    Args:
        drawing: rows on the same images, with other ``data.labels``.
        file: the PNG.

    Returns:
        The caption.

    Raises:
        UserError: the images have no annotated parts.
    """
    lines: list[Line] = []
    ids: list[Integer[np.ndarray, "m h w"]] = []
    titles, names, seed = [""], [""], 0
    for name, config in drawing.configs.items():
        device, seed = devices.resolve(config.device, config.threads), config.seed
        images = build.load_splits(config, device).train
        annotated = images.annotated()
        if images.parts is None or len(annotated) == 0:
            raise UserError(f"the training images of {images.name} have no annotated parts to draw.")
        chosen, clean = some_images(annotated, device, seed)
        labelled = chosen.read_parts(torch.arange(len(chosen)))
        if config.data.labels == "centroids":  # points of a single pixel would not be seen
            labelled = max_pool2d(labelled.float()[:, None], 3, stride=1, padding=1)[:, 0].to(labelled.dtype)
        parts_of_images = labelled.cpu().numpy()
        lines = lines or [Line("image", as_bytes(clean.cpu().numpy()))]
        lines.append(Line(name, coloured_parts(parts_of_images)))
        ids.append(parts_of_images)
        titles = [images.classes[label] for label in chosen.labels.tolist()]
        names = part_names(images.parts.names)
    write_grid(file, titles, lines, part_legend(np.concatenate(ids), names))
    return (
        f"{len(titles)} training images, the classes in turn, drawn with seed {seed}, and the labels of their parts; "
        "centroids, points of one pixel, are drawn larger than they are."
    )
