"""Room for tensors that may be larger than memory: in memory, or in a file that is mapped into it."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile, gettempdir

import torch
from torch import Tensor

from ..errors import UserError


def room_for(shape: Sequence[int], dtype: torch.dtype, *, most: int, folder: Path | None = None) -> Tensor:
    """An empty tensor, in memory up to ``most`` bytes, and beyond that in a file without a name on the disk.

    Args:
        shape: of the tensor.
        dtype: of the tensor.
        most: the bytes that it may take in memory.
        folder: on the disk that takes it, or below a folder that is there. The default is the folder for temporary
            files, which the environment variable TMPDIR names.

    Raises:
        UserError: the disk lacks room.
    """
    count = math.prod(shape)
    size = count * dtype.itemsize
    if size <= most:
        return torch.empty(tuple(shape), dtype=dtype)
    wanted = Path(gettempdir()) if folder is None else folder
    place = next(path for path in (wanted, *wanted.parents) if path.is_dir())
    if shutil.disk_usage(place).free < size:  # a full disk would end the process at some later write
        raise UserError(
            f"{place} lacks room for {size / 2**30:.1f} GiB that do not fit into memory: free some, or set TMPDIR to a "
            "folder on a larger disk."
        )
    # The file can lose its name at once: a process that has mapped it keeps its content.
    with NamedTemporaryFile(dir=place, prefix="images-", suffix=".raw") as file:
        return torch.from_file(file.name, shared=True, size=count, dtype=dtype).view(tuple(shape))
