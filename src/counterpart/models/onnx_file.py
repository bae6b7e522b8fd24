"""A network from an ONNX file: its answers, without gradients."""

import hashlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import UserError, unreadable
from ..parsing.limits import PREFIX, most, read_bytes
from . import onnx_trial

NOTE = "an ONNX file gives answers and no gradients: only attacks without gradients, such as square and rays, can run."
STARTING = 60  # seconds of the clock in which a process starts, beside what it may compute


class OnnxModel(nn.Module):
    """``images (B, C, H, W) -> the file's first output``, computed by onnxruntime on the CPU.

    Args:
        path: the file. The hash of its bytes is a buffer, so that it counts as the model's weights.

    Raises:
        UserError: onnxruntime is not installed, or cannot read the file as a network of one input; or a process that
            tried it first was ended by it.
    """

    digest: Tensor

    def __init__(self, path: Path) -> None:
        super().__init__()
        if find_spec("onnxruntime") is None:
            raise UserError(f"{path} needs onnxruntime, which is not installed: pip install onnxruntime.")
        try:
            content = read_bytes(path, "WEIGHTS")
        except (OSError, ValueError) as error:
            raise unreadable(path, error) from None
        try:
            try_apart(content)
            self.session = onnx_trial.open_session(content)
        except ValueError as error:
            raise UserError(
                f"{path} is no network of one input that onnxruntime can read: {error}"
            ) from error
        self.entrance, self.path = self.session.get_inputs()[0], path
        self.number = onnx_trial.number_type(self.session)
        self.register_buffer(
            "digest", torch.tensor(list(hashlib.sha256(content).digest()), dtype=torch.uint8)
        )

    def __deepcopy__(self, memo: Any) -> "OnnxModel":
        return self  # nothing in it changes, and a session cannot be copied

    def forward(self, images: Float[Tensor, "b c h w"]) -> Tensor:
        """The file's answer. If it was exported for a fixed number of images, it is asked in portions of that size.

        Raises:
            UserError: it has no answer to images of this shape.
        """
        fixed = self.entrance.shape[0] if self.entrance.shape else None
        size = fixed if isinstance(fixed, int) else max(1, len(images))
        answers = [self._ask(part, size) for part in torch.split(images.detach(), size)]
        return torch.cat(answers).to(images.device)

    def _ask(self, images: Tensor, size: int) -> Tensor:
        padded = torch.cat([images, images[:1].expand(size - len(images), -1, -1, -1)])
        values = padded.cpu().numpy().astype(self.number)
        try:
            answer = torch.from_numpy(onnx_trial.ask(self.session, values))
        except (ValueError, TypeError) as error:
            shape = tuple(images.shape[1:])
            raise UserError(
                f"{self.path} has no answer to images of shape {shape}: {error}. Give it images of the shape that it "
                "was exported for."
            ) from error
        if answer.ndim == 0 or len(answer) != size:
            raise UserError(
                f"{self.path} answers {size} images with {tuple(answer.shape)}, expected a row for each."
            )
        return answer[: len(images)].float()


def try_apart(content: bytes) -> None:
    """Read a file, and ask it about one image, in a process of its own, whose memory and time are limited.

    Raises:
        ValueError: it cannot be read, or the process ended.
    """
    seconds, more_bytes = most("ONNX_SECONDS"), most("ONNX_BYTES")
    words = [
        sys.executable,
        "-I",
        str(Path(onnx_trial.__file__)),
        str(more_bytes + 4 * len(content)),
        str(seconds),
    ]
    ended = (
        f"a process that tried it was ended, because it failed or took more than {seconds} seconds or {more_bytes:,} "
        f"bytes beside its weights: if you trust it, set {PREFIX}ONNX_SECONDS or {PREFIX}ONNX_BYTES to more"
    )
    try:
        done = subprocess.run(
            words, input=content, capture_output=True, timeout=4 * seconds + STARTING, check=False
        )
    except subprocess.TimeoutExpired:
        raise ValueError(ended) from None
    if done.returncode != 0:
        raise ValueError(ended)
    fault = done.stdout.decode(errors="replace").rpartition("\n")[2]
    if fault:
        raise ValueError(fault)
