"""Five reports whose answers are known: python docs/five_reports.py FOLDER, two minutes on a processor.

Each is ``FOLDER/1..5/index.html``, the page of small networks of digits that are trained here: one that is robust in
part, an undefended one, one that collapsed, two that do not differ, and one that rounds its input, so that gradients
vanish. docs/reading-a-report.md asks its three questions of them.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import counterpart as cp
from counterpart.report import write_report

EPS = 0.2
SMALL = {"data.size": 8, "data.padding": 0, "model.width": 8, "train.epochs": 6, "attack.eps": EPS}
COLLAPSING = {"train.epochs": 2, "attack.eps": 1.0, "optimizer.lr": 1.0}
TRIED: Mapping[str, Any] = {"attacks": "quick", "eps": EPS, "n": 200}
AUDITED: Mapping[str, Any] = {"eps": EPS, "n": 100, "steps": 40, "queries": 200, "traced": 40, "points": 199}


class Rounded(nn.Module):
    """A network behind an input that is rounded to few levels: the gradient is zero wherever there is one.

    Args:
        network: the network.
        levels: the number of steps from black to white.
    """

    def __init__(self, network: nn.Module, levels: int = 3) -> None:
        super().__init__()
        self.network, self.levels = network, levels

    def forward(self, images: Tensor) -> Tensor:
        """The logits (B, K) of images (B, C, H, W) in [0, 1]."""
        logits: Tensor = self.network((self.levels * images).round() / self.levels)
        return logits


def make_reports(folder: Path) -> list[Path]:
    """Train, judge and write the five pages into folders 1 to 5."""
    torch.set_num_threads(1)
    runs = folder / "runs"

    def train(recipe: str, name: str, **changes: Any) -> Path:
        run = cp.train(recipe, folder=runs / name, seed=0, changes={**SMALL, **changes})
        cp.evaluate(run.path, **TRIED)
        return run.path

    hardened = train("digits/at", "model-a")
    cp.audit(hardened, **AUDITED)
    undefended = train("digits/clean", "model-b")
    collapsed = train("digits/at", "model-c", **COLLAPSING)
    masked = train("digits/part", "model-d", **{"mask.eps_low": 0.95 * EPS})
    rounded = runs / "model-e"
    model = Rounded(cp.load(undefended))
    data = {"data": "digits", "changes": {"data.size": 8}, "folder": rounded}
    cp.evaluate(model, **{**TRIED, "attacks": "pgd"}, name="model-e", **data)
    cp.audit(model, **AUDITED, **data)
    pages = [[hardened], [undefended], [collapsed], [hardened, masked], [rounded]]
    return [write_report(shown, folder / str(number) / "index.html") for number, shown in enumerate(pages, 1)]


if __name__ == "__main__":
    for page in make_reports(Path(sys.argv[1])):
        print(page)
