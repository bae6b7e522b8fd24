"""A small folder of images with part masks."""

import json

import numpy as np
import pytest
from PIL import Image

TABLE = {"classes": ["cat", "dog"], "parts": {"cat": {"head": 1, "body": 2}, "dog": {"head": 3}}}


def write_mask(path, ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(ids, dtype=np.uint8)).save(path)


@pytest.fixture
def parts_root(tmp_path):
    """4 images of 12 x 10 per class and split; each mask holds ids of its class. dog/3 has none."""
    root = tmp_path / "set"
    value = 0
    for split in ("train", "val", "test"):
        for name, ids in (("cat", (1, 2)), ("dog", (3, 3))):
            for i in range(4):
                image = np.full((10, 12, 3), 10 + value, dtype=np.uint8)
                path = root / "images" / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)
                value += 1
                if (name, i) == ("dog", 3):
                    continue
                mask = np.zeros((10, 12), dtype=np.uint8)
                mask[1:4, 2 : 4 + i] = ids[0]
                mask[5:8, 3 : 5 + i] = ids[1]
                write_mask(root / "parts" / split / name / f"{i}.png", mask)
    (root / "parts.json").write_text(json.dumps(TABLE))
    return root
