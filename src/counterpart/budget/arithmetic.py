"""What all budgets share: radii as numbers, their checks, and arithmetic that rounds inwards."""

from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

Images: TypeAlias = Float[Tensor, "b c h w"]
if TYPE_CHECKING:
    Radius: TypeAlias = float | Tensor
else:  # a text is taken as well, and becomes a number before anybody reads it
    Radius = float | Tensor | str

RELATIVE_TOLERANCE = 1e-6
Made = TypeVar("Made")


def numel(value: float | Tensor) -> int:
    """The number of radii."""
    return value.numel() if isinstance(value, Tensor) else 1


def as_number(eps: float | Tensor | str) -> float | Tensor:
    """The number of a radius that may be written as text, as on the command line, such as "8/255"."""
    if not isinstance(eps, str):
        return eps
    numerator, _, denominator = eps.partition("/")
    try:
        return float(numerator) / float(denominator or 1)
    except (ValueError, ZeroDivisionError):
        raise ValueError(
            f"eps is a number such as 8 / 255, or a text such as '8/255'; got {eps!r}."
        ) from None


def check_radius(eps: float | Tensor, shapes: tuple[str, ...], dims: tuple[int, ...]) -> None:
    """Refuse a radius of another shape, and one that is negative or not finite."""
    tensor = torch.as_tensor(eps)
    if tensor.ndim not in dims:
        raise ValueError(f"eps has shape {tuple(tensor.shape)}; expected {', '.join(shapes)}.")
    if tensor.numel() and not bool((tensor >= 0).all() and tensor.isfinite().all()):
        raise ValueError(f"eps must be finite and >= 0, got {float(tensor.min()):.4g} as its smallest value.")


def without_checks(kind: type[Made], **fields: Any) -> Made:
    """A budget of fields that are known to be sound, such as rows of a checked one.

    To check tensors, the host would wait for the device, each time that an image leaves a batch.
    """
    budget = object.__new__(kind)
    for name, value in fields.items():
        object.__setattr__(budget, name, value)
    return budget


def beside(eps: float | Tensor, images: Tensor) -> Tensor:
    """A radius as a tensor of the type of ``images`` that lies beside them. A number is filled in, not copied there."""
    if isinstance(eps, Tensor):
        return eps.to(images.device, images.dtype)
    return torch.full((), eps, dtype=images.dtype, device=images.device)


def check_precision(clean: Tensor) -> None:
    """Refuse images whose type is too coarse to hold a radius: near 1, float16 has steps of an eighth of 1/255."""
    if clean.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"a budget needs float32 or float64 images, got {clean.dtype}: pass images.float().")


def ratio(moved: Tensor, radius: Tensor) -> Tensor:
    """``moved / radius``, which is 0 for a pixel at rest, and infinite for a frozen one that moves."""
    return torch.where(moved == 0, 0.0, moved / radius)


def per_image(value: float | Tensor) -> float | Tensor:
    """A number for each image in the shape that goes with its pixels; any other number as it is."""
    return value.view(-1, 1, 1, 1) if isinstance(value, Tensor) and value.ndim == 1 else value


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float64, and on the CPU where its device (Apple's mps) has no float64."""
    return tensor.to("cpu" if tensor.device.type == "mps" else tensor.device).double()


def in_box(images: Tensor) -> Tensor:
    """Whether all pixels of each image lie in [0, 1] (B,)."""
    return ((images >= 0) & (images <= 1)).flatten(1).all(dim=1)


def inward_sum(a: Tensor, b: Tensor, upwards: bool) -> Tensor:
    """``a + b``, rounded up or down instead of to nearest.

    Knuth's two-sum gives the rounding error of ``a + b`` exactly, without a wider type.
    """
    total = a + b
    part = total - a
    error = (a - (total - part)) + (b - part)
    beyond = error > 0 if upwards else error < 0
    limit = torch.full_like(total, torch.inf if upwards else -torch.inf)
    return torch.where(beyond, torch.nextafter(total, limit), total)
