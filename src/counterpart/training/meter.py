"""What training steps measured, which is read every few steps, because the host waits for a device at each reading."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.optim import Optimizer

from ..contracts import Loss
from ..errors import NotFinite


class BrokenStep(NotFinite):
    """A loss or a gradient is not finite. ``step`` is the number of the first such step."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class Meter:
    """The measurements of steps that were not read yet.

    A step that is not healthy is reported by the next reading, with its number. Until then ``freeze`` keeps the
    optimiser, on the device, from moving the weights. Where every step is read, the error comes before they move.

    Args:
        every: the number of steps after which ``is_due`` asks for a reading.
    """

    def __init__(self, every: int = 1) -> None:
        self.every = every
        self._names: tuple[str, ...] = ()
        self._means = 0  # how many of the names are means over a batch; the others are sums
        self._rows: list[Tensor] = []
        self._steps: list[tuple[int, int]] = []  # the number of each step, and of its images
        self._broken: Tensor | None = None

    @property
    def is_due(self) -> bool:
        """Whether it is time for a reading."""
        return len(self._rows) >= self.every

    def note(
        self, step: int, images: int, loss: Loss, counts: Mapping[str, Tensor], healthy: Bool[Tensor, ""]
    ) -> None:
        """Keep what a step measured on this process's ``images``, without a wait."""
        means = {"loss": loss.total.detach(), **loss.terms}
        self._names, self._means = (*means, *counts), len(means)
        values = [*means.values(), *counts.values(), healthy]
        self._rows.append(torch.stack([value.float() for value in values]))
        self._steps.append((step, images))
        self._broken = ~healthy if self._broken is None else self._broken | ~healthy

    def freeze(self, optimizer: Optimizer) -> None:
        """Let a fused optimiser pass over its steps from the first one on that was not healthy."""
        if self.every > 1 and self._broken is not None:
            optimizer.found_inf = self._broken.float()  # type: ignore[attr-defined]  # torch's own scaler sets it so

    def read(self) -> dict[str, float]:
        """The sums over the images of all steps since the last reading, at one wait for the device.

        Raises:
            BrokenStep: one of these steps was not healthy.
        """
        rows = torch.stack(self._rows).tolist() if self._rows else []
        steps, self._rows, self._steps = self._steps, [], []
        totals: dict[str, float] = {}
        for (step, images), row in zip(steps, rows, strict=True):
            if not row[-1]:
                raise BrokenStep(f"The loss or its gradient is not finite (loss {row[0]:.4g})", step)
            sums = [value * images for value in row[: self._means]] + row[self._means : -1]
            measured = {"images": 1.0 * images, **dict(zip(self._names, sums, strict=True))}
            for name, value in measured.items():
                totals[name] = totals.get(name, 0.0) + value
        return totals
