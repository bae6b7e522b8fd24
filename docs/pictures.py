"""The pictures of docs/ideas.md: python docs/pictures.py, a minute on a processor.

A network of digits learns by PART for a few epochs, and the pictures show what it sees of test images.
"""

from pathlib import Path

import matplotlib
import numpy as np
import torch

import counterpart as cp
from counterpart import build

matplotlib.use("agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
EPS, EPS_LOW = 0.1, 0.05
CHANGES = {"train.epochs": 6, "attack.eps": EPS, "mask.eps_low": EPS_LOW, "mask.burn_in": 0.4}


def main() -> None:
    """Train, look, draw."""
    torch.set_num_threads(1)
    run = cp.train("digits/part", seed=0, changes=CHANGES)
    test = build.load_named(cp.Config.model_validate({"data": {"name": "digits"}}), {}).test
    first = torch.stack([(test.labels == digit).nonzero()[0, 0] for digit in (0, 3, 5, 8)])
    images, labels = test.read(first).float() / 255, test.labels[first]
    seen = cp.explain(run.path, images, labels, eps=EPS, eps_low=EPS_LOW)
    attacked = np.asarray(seen.attacked)[:, 0]
    columns = {
        "image": (images[:, 0].numpy(), {"cmap": "gray", "vmin": 0, "vmax": 1}),
        "map": (np.asarray(seen.maps), {"cmap": "viridis"}),
        "important pixels": (np.asarray(seen.mask).squeeze(), {"cmap": "gray", "vmin": 0, "vmax": 1}),
        "radius of each pixel": (
            np.asarray(seen.radius).squeeze(),
            {"cmap": "magma", "vmin": 0, "vmax": EPS},
        ),
        "attacked": (attacked, {"cmap": "gray", "vmin": 0, "vmax": 1}),
        "change": (
            attacked - images[:, 0].numpy(),
            {"cmap": "RdBu", "vmin": -EPS, "vmax": EPS},
        ),
    }
    figure, axes = plt.subplots(len(images), len(columns), figsize=(8.4, 5.8), layout="constrained")
    for column, (title, (planes, look)) in enumerate(columns.items()):
        axes[0, column].set_title(title, fontsize=9)
        for row, plane in enumerate(planes):
            axes[row, column].imshow(plane, **look)
            axes[row, column].axis("off")
    figure.savefig(HERE / "ideas-part.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
