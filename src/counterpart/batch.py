"""A batch: images with the identity of each."""

from dataclasses import dataclass, fields, replace

from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B images and what is known about them.

    Attributes:
        images: (B, C, H, W) in [0, 1].
        labels: (B,) true classes.
        index: (B,) data-set index of each sample: its identity, whatever the order.
        parts: (B, H, W) part ids, 0 = background.
        has_parts: (B,) whether the sample's parts are annotated.
        importance: (B, H, W) stored importance, moved through the same augmentation as the image.
    """

    images: Float[Tensor, "b c h w"]
    labels: Int[Tensor, " b"]
    index: Int[Tensor, " b"]
    parts: Int[Tensor, "b h w"] | None = None
    has_parts: Bool[Tensor, " b"] | None = None
    importance: Float[Tensor, "b h w"] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def select(self, keep: Tensor | slice) -> "Batch":
        """Some samples of the batch."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value[keep] for name, value in tensors.items() if value is not None})
