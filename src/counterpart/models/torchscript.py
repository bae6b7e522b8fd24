"""A network from a TorchScript file: a program of somebody else, which runs only where the user said that it may."""

import hashlib
import io
import warnings
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import UserError, unreadable
from ..parsing.limits import read_bytes


class TorchScriptModel(nn.Module):
    """``images (B, C, H, W) -> the program's answer``, with its gradients.

    Args:
        path: the file. The hash of its bytes is a buffer, so that another program with the same weights is another
            model.

    Raises:
        UserError: torch cannot read it.
    """

    digest: Tensor

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            content = read_bytes(path, "WEIGHTS")
            with warnings.catch_warnings():  # torch would have such files written in another form, not read
                warnings.simplefilter("ignore", FutureWarning)
                program = torch.jit.load(io.BytesIO(content), map_location="cpu")  # type: ignore[no-untyped-call]
        except (OSError, ValueError, RuntimeError) as error:
            raise unreadable(path, error) from error
        self.program: nn.Module = program
        digest = list(hashlib.sha256(content).digest())
        self.register_buffer("digest", torch.tensor(digest, dtype=torch.uint8))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Tensor:
        """The program's answer."""
        answer: Tensor = self.program(images)
        return answer


def refuse_program(path: Path) -> None:
    """Refuse a program that the user did not say may run.

    Raises:
        UserError: always.
    """
    raise UserError(
        f"{path} is a TorchScript program, which is code that would run. If you trust it: counterpart evaluate {path} "
        f"--trust; in Python, give the module: torch.jit.load({str(path)!r})."
    )
