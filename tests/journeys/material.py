"""What users have before they begin: photographs, and parts of objects that somebody outlined with LabelMe."""

import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import label
from scipy.spatial import ConvexHull

from counterpart.data import load_synthetic_parts

ANIMALS = {"n01983481": "lobster", "n02074367": "dugong", "n02480495": "orangutan"}  # in Tiny-ImageNet
OBJECTS = ("car", "lamp")  # in ADE-Parts


def write_photographs(folder, shared):
    """300 photographs of three classes in ``train`` and ``test``; drawn objects where there are no photographs."""
    pictures = animals(shared) if shared else drawn_pictures(("boat", "house", "tree"))
    for name, those in pictures.items():
        for number, picture in enumerate(those):
            place = folder / ("train" if number < 80 else "test") / name
            place.mkdir(parents=True, exist_ok=True)
            picture.save(place / f"{number:03}.jpg", quality=95)


def animals(shared):
    """100 photographs of each animal."""
    pictures = {name: [] for name in ANIMALS.values()}
    with tarfile.open(shared / "data" / "tiny-imagenet-20.tar") as archive:
        for member in sorted(archive.getmembers(), key=lambda member: member.name):
            folders = Path(member.name).parts
            if len(folders) == 5 and folders[2] in ANIMALS and len(pictures[ANIMALS[folders[2]]]) < 100:
                picture = Image.open(archive.extractfile(member)).convert("RGB")
                pictures[ANIMALS[folders[2]]].append(picture)
    return pictures


def drawn_pictures(names):
    """100 drawings of each object."""
    return {name: [picture for picture, _ in samples] for name, samples in drawn_parts(names, 100).items()}


def write_labelme(folder, shared):
    """200 photographs in folders of two classes, with LabelMe's files beside them; or drawn objects."""
    samples = photographed_parts(shared, 100) if shared else drawn_parts(("house", "tree"), 100)
    for name, those in samples.items():
        (folder / name).mkdir(parents=True)
        for number, (picture, masks) in enumerate(those):
            picture.save(folder / name / f"{number:03}.png")
            shapes = [shape for part, mask in masks.items() for shape in outlines(part, mask)]
            about = {
                "version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": f"{number:03}.png", "imageData": None,
                "imageHeight": picture.height, "imageWidth": picture.width,
            }  # fmt: skip
            (folder / name / f"{number:03}.json").write_text(json.dumps(about), encoding="utf-8")


def photographed_parts(shared, count):
    """{class: [(photograph, {part: mask})]} of objects whose parts were outlined."""
    root, samples = shared / "data" / "ade-parts", {}
    table = json.loads((root / "parts.json").read_text(encoding="utf-8"))["parts"]
    for name in OBJECTS:
        files = sorted((root / "images" / "train" / name).iterdir())[:count]
        masks = [root / "parts" / "train" / name / f"{file.stem}.png" for file in files]
        samples[name] = [
            (Image.open(file).convert("RGB"), by_part(np.array(Image.open(mask)), table[name]))
            for file, mask in zip(files, masks, strict=True)
        ]
    return samples


def drawn_parts(names, count):
    """{class: [(picture, {part: mask})]} of drawn objects."""
    images = load_synthetic_parts(train=8 * count, test=6, size=64, seed=1).train
    samples = {name: [] for name in names}
    for pixels, number, ids in zip(images.pixels, images.labels, images.parts.masks, strict=True):
        name = images.classes[int(number)]
        if name in samples and len(samples[name]) < count:
            picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
            samples[name].append((picture, by_part(ids.numpy(), images.parts.names[name])))
    return samples


def by_part(ids, table):
    """The mask of each part that an array of part ids shows."""
    return {part: ids == number for part, number in table.items() if (ids == number).any()}


def outlines(part, mask):
    """A polygon around each piece of a part, as a person would click it."""
    pieces, count = label(mask)
    for number in range(1, count + 1):
        rows, columns = np.nonzero(pieces == number)
        corners = np.concatenate([np.stack([columns + x, rows + y], axis=1) for x in (0, 1) for y in (0, 1)])
        hull = corners[ConvexHull(corners).vertices]
        yield {"label": part, "shape_type": "polygon", "points": hull.tolist(), "group_id": None, "flags": {}}
