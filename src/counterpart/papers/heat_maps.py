"""Images, the class activation maps of several models on them, and the radii that a mask makes of these (figure 2)."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from .. import build, jobs
from ..batch import Batch
from ..budget import Linf
from ..data.image_sets import balanced_subset
from ..data.transforms import as_floats, resize_maps
from ..errors import UserError
from ..importance.rules import explain
from ..models.inference import InferenceView
from ..report.panel import stretched
from ..rundir import RunDir, write_atomically
from ..seeding import Keys

IMAGES = 10
Planes = Float[np.ndarray, "m h w"]


def draw_maps(runs: Mapping[str, RunDir], given: Mapping[str, Any], file: Path) -> str:
    """Draw a row of test images; below it a row of maps for each model, and of radii where a mask was in its training.

    Maps are Grad-CAM for the true class on the clean image, by the weights that ``evaluate.weights`` says, stretched
    between least and most important pixel; a cross marks a wrong answer.

    Args:
        runs: trained on the same data, by the name that the picture shows.
        given: settings of the evaluation.
        file: the PNG.

    Returns:
        The caption.

    Raises:
        UserError: a model has no feature map.
    """
    shown: list[tuple[str, Planes, list[bool] | None]] = []
    pictures, classes, seed = np.zeros(0), [""], 0
    for name, run in runs.items():
        [target] = jobs.open_targets(str(run.path), given)
        seed = target.config.seed
        chosen = balanced_subset(target.images, min(IMAGES, len(target.images.classes)), seed=seed)
        clean = as_floats(chosen.read(torch.arange(len(chosen))).to(target.device))
        batch = Batch(clean, chosen.labels.to(target.device), chosen.index.to(target.device))
        probe = InferenceView(target.model).probe(clean)
        if probe.features is None:
            raise UserError(
                f"{name}: {target.config.model.name} shows no feature map before its head to draw from."
            )
        size = (clean.shape[2], clean.shape[3])
        maps = resize_maps(explain(probe, batch.labels, "true").detach(), size)
        right = (probe.logits.argmax(dim=1) == batch.labels).tolist()
        shown.append((f"{name}\nmap", stretched(maps.cpu().numpy()), right))
        if target.config.train.masked:
            share = build.mask_rule(target.config, eps=1.0, eps_low=0.0)  # from dark to bright
            drawn = build.shown(target.config)  # its mask may be drawn elsewhere than the map here
            seen = InferenceView(target.model, **drawn).probe(clean) if any(drawn.values()) else probe
            allowed = share(seen, batch, Keys(seed, "figure", batch.index))
            assert isinstance(allowed, Linf)
            shown.append(
                (f"{name}\nradius", allowed.radius(clean).expand_as(clean)[:, 0].cpu().numpy(), None)
            )
        pictures = clean.movedim(1, -1).cpu().numpy()
        classes = [chosen.classes[label] for label in chosen.labels.tolist()]
    write_atomically(file, lambda path: path.write_bytes(_render(pictures, classes, shown)))
    return (
        f"{len(pictures)} test images, one of each class, drawn with seed {seed}. Maps: Grad-CAM of the true class on "
        "the clean image, from the least to the most important pixel; a cross: the model gets the image wrong. Radius: "
        "dark eps_low, bright eps, which a flat map gives everywhere."
    )


def _render(
    pictures: Float[np.ndarray, "m h w c"],
    classes: list[str],
    shown: list[tuple[str, Planes, list[bool] | None]],
) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1 + 0.9 * len(pictures), 0.4 + 0.95 * (1 + len(shown))), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1 + len(shown), len(pictures), squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    grey = pictures.shape[-1] == 1
    for axis, picture, name in zip(axes[0], pictures, classes, strict=True):
        axis.imshow(picture[..., 0] if grey else picture, cmap="gray" if grey else None, vmin=0, vmax=1)
        axis.set_title(name, fontsize=8)
    axes[0, 0].set_ylabel("image", fontsize=8, rotation=0, ha="right", va="center")
    for line, (name, planes, right) in zip(axes[1:], shown, strict=True):
        line[0].set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
        for i, (axis, plane) in enumerate(zip(line, planes, strict=True)):
            axis.imshow(plane, cmap="cividis", vmin=0, vmax=1)
            if right is not None and not right[i]:
                axis.text(0.95, 0.95, "×", transform=axis.transAxes, color="white", ha="right", va="top")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120, metadata={"Software": None})
    return file.getvalue()
