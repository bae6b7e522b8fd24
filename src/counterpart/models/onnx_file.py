"""A network from an ONNX file: its answers, without gradients."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import UserError
from ..parsing.limits import read_bytes

NOTE = "an ONNX file gives answers and no gradients: only attacks without gradients, such as square and rays, can run."


class OnnxModel(nn.Module):
    """``images (B, C, H, W) -> the file's first output``, computed by onnxruntime on the CPU.

    Args:
        path: the file. The hash of its bytes is a buffer, so that it counts as the model's weights.

    Raises:
        UserError: onnxruntime is not installed, or cannot read the file as a network of one input.
    """

    digest: Tensor

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            import onnxruntime
        except ImportError:
            raise UserError(
                f"{path} needs onnxruntime, which is not installed: pip install onnxruntime."
            ) from None
        try:
            content = read_bytes(path, "WEIGHTS")
        except ValueError as error:
            raise UserError(f"Cannot read {path}: {error}.") from None
        try:
            self.session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
            (entrance,) = self.session.get_inputs()
        except Exception as error:  # onnxruntime raises errors of any kind for a damaged file
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"{path} is no network of one input that onnxruntime can read: {reason}"
            ) from error
        self.entrance, self.path = entrance, path
        self.number = np.float16 if entrance.type == "tensor(float16)" else np.float32
        self.register_buffer(
            "digest", torch.tensor(list(hashlib.sha256(content).digest()), dtype=torch.uint8)
        )

    def __deepcopy__(self, memo: Any) -> "OnnxModel":
        return self  # nothing in it changes, and a session cannot be copied

    def forward(self, images: Float[Tensor, "b c h w"]) -> Tensor:
        """The file's answer. If it was exported for a fixed number of images, it is asked in portions of that size."""
        fixed = self.entrance.shape[0]
        size = fixed if isinstance(fixed, int) else max(1, len(images))
        answers = [self._ask(part, size) for part in torch.split(images.detach(), size)]
        return torch.cat(answers).to(images.device)

    def _ask(self, images: Tensor, size: int) -> Tensor:
        padded = torch.cat([images, images[:1].expand(size - len(images), -1, -1, -1)])
        values = padded.cpu().numpy().astype(self.number)
        return torch.from_numpy(self.session.run(None, {self.entrance.name: values})[0])[
            : len(images)
        ].float()
