"""Images, the class activation maps of several models on them, and the radii that a mask makes of these (figure 2)."""

from pathlib import Path

from .. import build, jobs
from ..batch import Batch
from ..budget import Linf
from ..data.transforms import resize_maps
from ..errors import UserError
from ..importance.rules import explain
from ..models.inference import InferenceView
from ..report.panel import as_bytes, coloured, stretched
from ..seeding import Keys
from .experiments import Drawing
from .grid import Line, some_images, write_grid


def draw_maps(drawing: Drawing, file: Path) -> str:
    """Draw a row of test images, below it a row of maps for each model, and one of radii if it was trained by a mask.

    Maps are Grad-CAM for the true class on the clean image, by the weights that ``evaluate.weights`` says, stretched
    between least and most important pixel; a frame says whether the model gets the image right.

    Args:
        drawing: rows that were trained on the same data.
        file: the PNG.

    Returns:
        The caption.

    Raises:
        UserError: a model has no feature map.
    """
    lines: list[Line] = []
    titles, seed = [""], 0
    for name, run in drawing.runs.items():
        [target] = jobs.open_targets(str(run.path), drawing.settings)
        seed = target.config.seed
        chosen, clean = some_images(target.images, target.device, seed)
        batch = Batch(clean, chosen.labels.to(target.device), chosen.index.to(target.device))
        probe = InferenceView(target.model).probe(clean)
        if probe.features is None:
            raise UserError(
                f"{name}: {target.config.model.name} shows no feature map before its head to draw from."
            )
        size = (clean.shape[2], clean.shape[3])
        maps = resize_maps(explain(probe, batch.labels, "true").detach(), size)
        right = (probe.logits.argmax(dim=1) == batch.labels).tolist()
        lines.append(Line(f"{name}\nmap", coloured(stretched(maps.cpu().numpy())), right))
        if target.config.train.masked:
            rule = build.build_mask_rule(target.config, eps_low=0.0)
            # The mask may have been drawn at another layer than the map here.
            options = build.choose_view_options(target.config)
            drawn = InferenceView(target.model, **options).probe(clean) if any(options.values()) else probe
            allowed = rule(drawn, batch, Keys(seed, "figure", batch.index), Linf(1.0))  # from dark to bright
            assert isinstance(allowed, Linf)
            radii = allowed.radius(clean).expand_as(clean)[:, 0].cpu().numpy()
            lines.append(Line(f"{name}\nradius", coloured(radii)))
        pictures = Line("image", as_bytes(clean.cpu().numpy()))
        titles = [chosen.classes[label] for label in chosen.labels.tolist()]
    write_grid(file, titles, [pictures, *lines])
    return (
        f"{len(titles)} test images, the classes in turn, drawn with seed {seed}. Maps: Grad-CAM of the true class on "
        "the clean image, from the least to the most important pixel; a green frame with a tick: the model is right, a "
        "dashed red one: it is wrong. Radius: dark eps_low, bright eps, which a flat map gives everywhere."
    )
