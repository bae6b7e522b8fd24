"""A small folder of images with part masks, and tiny sources in the exact original formats."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.io
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


# Classes and parts of the release, in the order of its ids.
CATEGORIES = [
    ("Quadruped", "Head Body Foot Tail"), ("Biped", "Head Body Hand Foot Tail"), ("Fish", "Head Body Fin Tail"),
    ("Bird", "Head Body Wing Foot Tail"), ("Snake", "Head Body"), ("Reptile", "Head Body Foot Tail"),
    ("Car", "Body Tier Side-Mirror"), ("Bicycle", "Body Head Seat Tier"), ("Boat", "Body Sail"),
    ("Aeroplane", "Head Body Engine Wing Tail"), ("Bottle", "Mouth Body"),
]  # fmt: skip


def jpeg(path, value, size=(12, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value % 256, 7 * value % 256, 90)).save(path, "JPEG")


def box(x, y, w, h):
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def part_imagenet(root, per_class=(6, 2, 2)):
    """train.json, val.json, test.json and their images; image n of a class shows its part k in column k."""
    categories = [
        {"id": i, "name": f"{name} {part}", "supercategory": name}
        for i, (name, part) in enumerate((name, part) for name, parts in CATEGORIES for part in parts.split())
    ]
    counter = 0
    for split, count in zip(("train", "val", "test"), per_class, strict=True):
        images, annotations = [], []
        for k, (name, _) in enumerate(CATEGORIES):
            own = [row["id"] for row in categories if row["supercategory"] == name]
            for _ in range(count):
                file = f"n{k:08d}_{counter}.JPEG"
                jpeg(root / "JPEGImages" / f"n{k:08d}" / file, counter)
                # ids as they come, far apart, so that Python's sets of them are not sorted
                image = {"id": counter * 7919 % 10007, "file_name": file, "width": 12, "height": 10}
                images.append(image)
                for place, part in enumerate(own):
                    polygon, size = [2 * place, 1, 2, 4 + place], 8 + 2 * place
                    row = {"id": len(annotations), "image_id": image["id"], "category_id": part, "iscrowd": 0}
                    annotations.append(
                        {**row, "segmentation": [box(*polygon)], "bbox": polygon, "area": size}
                    )
                counter += 1
        tables = {"images": images, "categories": categories, "annotations": annotations}
        (root / f"{split}.json").write_text(json.dumps(tables))


def frame(root, split, city, name, ids):
    """A photograph whose red and green say where a pixel lies, and its annotation."""
    height, width = ids.shape
    photo = np.zeros((height, width, 3), dtype=np.uint8)
    photo[..., 0], photo[..., 1], photo[..., 2] = (
        np.arange(height)[:, None] % 256,
        np.arange(width) % 256,
        200,
    )
    image = root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png"
    tif = root / "gtFinePanopticParts" / split / city / f"{name}_gtFinePanopticParts.tif"
    for path in (image, tif):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo).save(image)
    Image.fromarray(ids.astype(np.int32)).save(tif)


def cityscapes(root, frames=10):
    """Streets of 240 x 160: two persons, a car, a crowd, a part-less truck, each in every frame."""
    for number in range(frames):
        ids = np.full((160, 240), 7, dtype=np.int32)  # road
        for instance, left in ((0, 10), (1, 60)):
            ids[20:80, left : left + 20] = 24_000 + instance
            ids[20:30, left : left + 20] = 24_00002 + 100 * instance  # head
            ids[30:60, left : left + 20] = 24_00001 + 100 * instance  # torso
        ids[100:140, 20 : 80 + number] = 26_00005  # car 0: chassis
        ids[130:140, 30:40] = 26_00002  # wheel
        ids[20:80, 120:150] = 24  # a crowd
        ids[100:150, 150:200] = 27_003  # a truck without parts
        ids[5:9, 200:210] = 26_007  # a small car
        city = ("aachen", "bochum", "ulm")[number % 3]
        frame(root, "train" if number % 2 else "val", city, f"{city}_{number:06d}_000019", ids)


def mat(root, name, things, size=(10, 12)):
    """things: [(class, mask, [(part name, mask), ...]), ...] as the release stores them."""
    height, width = size
    jpeg(root / "JPEGImages" / f"{name}.jpg", sum(map(ord, name)), (width, height))
    kind = np.dtype([("class", object), ("class_ind", object), ("mask", object), ("parts", object)])
    objects = np.empty((1, len(things)), dtype=kind)
    for i, (label, mask, parts) in enumerate(things):
        listed = np.empty((1, len(parts)), dtype=[("part_name", object), ("mask", object)])
        for j, (part, covered) in enumerate(parts):
            listed[0, j] = (part, covered.astype(np.uint8))
        objects[0, i] = (label, 1, mask.astype(np.uint8), listed if parts else np.zeros((0, 0)))
    anno = np.empty((1, 1), dtype=[("imname", object), ("objects", object)])
    anno[0, 0] = (name, objects)
    path = root / "Annotations_Part" / f"{name}.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {"anno": anno})


def area(top, left, bottom, right, size=(10, 12)):
    mask = np.zeros(size, dtype=np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def pascal(root, per_class=10):
    for label, part in (
        ("aeroplane", "stern"),
        ("bird", "beak"),
        ("car", "wheel_1"),
        ("cat", "tail"),
        ("dog", "muzzle"),
    ):
        for number in range(per_class):
            whole = area(1, 1, 9, 9)
            mat(root, f"{label}_{number:02d}", [(label, whole, [(part, area(2, 2, 4 + number % 3, 4))])])


def photograph(path, value, size=(40, 30)):
    """An image in which red and green say where a pixel lies."""
    width, height = size
    pixels = np.full((height, width, 3), value % 256, dtype=np.uint8)
    pixels[..., 0], pixels[..., 1] = 6 * np.arange(width), 8 * np.arange(height)[:, None]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)


def coco_file(path, images, categories, annotations):
    """A file as CVAT writes it. images: {id: name or row}; categories: {id: name or row}; annotations: rows."""
    rows = {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "info": {"contributor": "", "date_created": "", "description": "", "url": "", "version": "", "year": ""},
        "categories": [
            {"id": k, "name": v, "supercategory": ""} if isinstance(v, str) else {"id": k, **v}
            for k, v in categories.items()
        ],
        "images": [
            {"id": k, "width": 40, "height": 30, "license": 0, "flickr_url": "", "coco_url": "", "date_captured": 0}
            | ({"file_name": v} if isinstance(v, str) else v)
            for k, v in images.items()
        ],
        "annotations": [
            {"id": k, "iscrowd": 0, "attributes": {"occluded": False}, **row}
            for k, row in enumerate(annotations, start=1)
        ],
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))


def annotation(image, category, polygon, **more):
    return {"image_id": image, "category_id": category, "segmentation": [polygon], **more}


def coco(root, photographs=12):
    """CVAT's layout: in each photograph a car with a wheel, linked, and a bus with a window, which lies in it."""
    annotations = []
    for number in range(1, photographs + 1):
        photograph(root / "images" / f"{number:02d}.jpg", number)
        first = len(annotations) + 1
        annotations += [
            annotation(number, 1, box(2, 4, 14, 12)),
            annotation(number, 2, box(3, 12, 3 + number % 3, 3), attributes={"parent_id": str(first)}),
            annotation(number, 3, box(20, 5, 16, 20)),
            annotation(number, 4, box(22, 7, 4, 4)),
        ]
    categories = {1: "car", 2: "wheel", 3: "bus", 4: {"name": "window", "supercategory": "bus"}}
    images = {number: f"{number:02d}.jpg" for number in range(1, photographs + 1)}
    coco_file(root / "annotations" / "instances_default.json", images, categories, annotations)


def labelme_file(path, image, shapes, **more):
    """A file as LabelMe 5 writes it. shapes: (label, points) or (label, points, kind) or a row."""
    rows = [
        {
            "label": shape[0], "points": shape[1], "group_id": None, "description": "",
            "shape_type": shape[2] if len(shape) > 2 else "polygon", "flags": {}, "mask": None,
        }
        if isinstance(shape, tuple) else shape
        for shape in shapes
    ]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    top = {"version": "5.5.0", "flags": {}, "imageData": None, "imageHeight": 30, "imageWidth": 40}
    path.write_text(json.dumps({**top, "shapes": rows, "imagePath": image, **more}))


def labelme(root, per_class=8):
    """A file beside each image: a polygon, a rectangle, a circle."""
    for label, value in (("cat", 3), ("dog", 90)):
        for number in range(per_class):
            photograph(root / label / f"{number}.jpg", value + number)
            shapes = [
                ("body", [[2, 3], [20, 3], [20, 16 + number], [2, 16 + number]]),
                ("head", [[22, 4], [32, 12]], "rectangle"),
                ("eye", [[26, 8], [26, 10]], "circle"),
            ]
            labelme_file(root / label / f"{number}.json", f"{number}.jpg", shapes)


def masks(root, per_class=8):
    """Palette masks in a folder of their own, and their table."""
    for label, value in (("cat", 3), ("dog", 90)):
        for number in range(per_class):
            photograph(root / "images" / label / f"{number}.jpg", value + number)
            ids = np.zeros((30, 40), dtype=np.uint8)
            ids[4 : 10 + number, 5:20], ids[3:8, 22:30] = 1, 2
            mask = Image.fromarray(ids).convert("P")
            mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
            path = root / "masks" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            mask.save(path)
    (root / "names.csv").write_text("id,name\n0,background\n1,body\n2,head\n")


@pytest.fixture
def originals():
    """Writers of tiny sources: of whole data sets, of one frame, of one annotation."""
    return SimpleNamespace(
        area=area, box=box, frame=frame, jpeg=jpeg, mat=mat, CATEGORIES=CATEGORIES,
        photograph=photograph, coco_file=coco_file, annotation=annotation, labelme_file=labelme_file,
        coco=coco, labelme=labelme, masks=masks,
        **{"part-imagenet": part_imagenet, "cityscapes": cityscapes, "pascal-part": pascal},
    )  # fmt: skip
