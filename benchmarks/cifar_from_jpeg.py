"""CIFAR-10 from one NPZ of JPEG files, for machines to which little can be carried: 55 MB in place of 170.

Its arrays are jpeg_train, the files end to end (bytes), offsets_train, where each begins and the last ends, and
labels_train; and the same for test. What was lost to JPEG stays lost: results are of these images, and
``counterpart`` says that they are not the official ones.
"""

import io
import itertools
import pickle
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = "cifar-10-batches-py"
NAMES = [b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck"]
BATCHES = 5


def unpack(file: Path, root: Path) -> Path:
    """The folder ``root``, in which the images of ``file`` lie in the files that the official archive has."""
    folder = root / FOLDER
    last = folder / "batches.meta"  # written last, so that half a folder is made anew
    if last.exists():
        return root
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(file, allow_pickle=False) as packed:
        pixels, labels = _decode(packed, "train")
        for number, rows in enumerate(np.array_split(np.arange(len(labels)), BATCHES), start=1):
            _write(folder / f"data_batch_{number}", {b"data": pixels[rows], b"labels": labels[rows].tolist()})
        pixels, labels = _decode(packed, "test")
        _write(folder / "test_batch", {b"data": pixels, b"labels": labels.tolist()})
    _write(last, {b"label_names": NAMES})
    return root


def _decode(packed: np.lib.npyio.NpzFile, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The pixels (N, 3072), channel by channel, and the labels (N,) of a split."""
    content, offsets = packed[f"jpeg_{split}"].tobytes(), packed[f"offsets_{split}"]
    pixels = np.empty((len(offsets) - 1, 3, 32, 32), np.uint8)
    for row, (start, end) in enumerate(itertools.pairwise(offsets)):
        pixels[row] = np.asarray(Image.open(io.BytesIO(content[start:end]))).transpose(2, 0, 1)
    return pixels.reshape(len(pixels), -1), packed[f"labels_{split}"].astype(np.int64)


def _write(path: Path, value: object) -> None:
    path.write_bytes(pickle.dumps(value))
