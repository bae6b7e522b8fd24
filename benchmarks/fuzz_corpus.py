"""The readers of files that anybody may have written, and small sound files of each: where fuzzing begins."""

import base64
import csv
import gzip
import io
import json
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import fuzz_onnx
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from counterpart import records
from counterpart.config import resolve
from counterpart.data import cifar, coco, imagenet, labelme, mnist, name_tables, pascal_part, sources, svhn
from counterpart.data.class_map import _read as read_class_map
from counterpart.data.corruptions.files import _open as open_array
from counterpart.data.decoding import decode, header_size
from counterpart.data.folds import _sources as read_manifest
from counterpart.data.mask_folders import read_values
from counterpart.data.parts import mask_ids
from counterpart.data.parts_folder import read_table
from counterpart.data.staging import read_lines
from counterpart.data.tiny_imagenet import _lines as read_text_lines
from counterpart.data.upright import read_upright, upright_size
from counterpart.evaluation.corruption import _read as read_counts
from counterpart.evaluation.ledger import Ledger
from counterpart.evaluation.radii import budgets_from
from counterpart.jobs.stored_evaluations import _settings as read_asked
from counterpart.jobs.stored_models import load_checkpoint
from counterpart.models import create, onnx_trial
from counterpart.models.hub import read_weights
from counterpart.models.onnx_file import OnnxModel
from counterpart.parsing import read_json, read_yaml
from counterpart.pictures import Pictures
from counterpart.recipes import load, show
from counterpart.report.notes import notes_on
from counterpart.report.page import _render
from counterpart.report.runs import read_runs
from counterpart.report.usable import read_standing
from counterpart.rundir import RunDir
from counterpart.sweeps.space import read_space


class Inner(NamedTuple):
    """What lies within a file under a checksum or packing: it is changed, and then packed.

    Attributes:
        content: what is packed.
        pack: makes a file of it.
    """

    content: bytes
    pack: Callable[[bytes], bytes]


class Reader(NamedTuple):
    """One reader of files.

    Attributes:
        file: the name of the file that it is given; it may lie in folders.
        read: reads it, as the commands do.
        seeds: the content of sound files.
        inner: what lies within files, for formats that a checksum would guard.
        share: how many inputs it gets of those that others get; slow readers get fewer.
    """

    file: str
    read: Callable[[Path], object]
    seeds: Sequence[bytes]
    inner: Sequence[Inner] = ()
    share: float = 1.0


def readers() -> dict[str, Reader]:
    """Every reader by name."""
    return {
        **_texts(),
        **_annotations(),
        **_run_files(),
        **_images(),
        **_arrays(),
        **_weights(),
        **_networks(),
    }


def _text(value: object) -> bytes:
    return json.dumps(value).encode()


YAML = [
    b"seed: 3\ndata: {name: digits, size: null}\neps: [0.01, 8/255]\non: off\n",
    b"a: &a [1, 2.5, x, null, !!int '3', 2001-01-01, 1_000, 0x1f, .inf]\nb: {<<: {c: true}, d: *a}\n",
    b"- |\n  text\n- >\n  folded\n- 'quoted'\n- \"a\\x41\\u0100\"\n- !!binary aGk=\n- ? k\n  : v\n",
]
SPACE = b"""optimizer.lr: {low: 0.01, high: 0.3, log: true}
mask.map: [grad-cam, layer-cam]
optimizer.weight_decay: [5e-4, 1e-4]
"""


def _texts() -> dict[str, Reader]:
    base = resolve({"name": "x"})
    names = {"car": {"wheel": 1, "door": 2}, "cat": {"head": 3}}
    recipe = show("digits/part").encode()

    def resolved(path: Path) -> object:
        return resolve(load(str(path)), source=str(path))

    return {
        "YAML": Reader("x.yaml", read_yaml, YAML),
        "recipe": Reader("x.yaml", resolved, [recipe, b"base: digits/at\ntrain: {epochs: 2}\n"], share=0.2),
        "space of a sweep": Reader("x.yaml", lambda path: read_space(path, base), [SPACE], share=0.5),
        "JSON": Reader("x.json", read_json, [_text({"a": [1, -2.5e3, None, True, "\u0100x"], "b": {"c": []}})]),
        "class map": Reader("x.json", read_class_map, [_text({"cat": [281, 282], "dog": 3})]),
        "parts.json": Reader(
            "parts.json", lambda path: read_table(path.parent), [_text({"classes": ["car", "cat"], "parts": names})]
        ),
        "names in JSON": Reader(
            "x.json", name_tables.read_names, [_text({"1": "wheel", "2": "door"}), _text([{"id": 1, "name": "a"}])]
        ),
        "names in text": Reader(
            "x.txt", name_tables.read_names, [b"1 wheel\n2: door\n", b"# c\nname,r,g,b\nwheel,255,0,1\n#00ff00 door\n"]
        ),
        "table of classes": Reader(
            "x.csv", sources.read_classes, [b'image,class\na/7.jpg,car\n"b;c.png",cat\n', b"a.png\tx\nb.png\ty\n"]
        ),
        "ImageNet's solution": Reader(
            "x.csv", imagenet.read_solution, [b"ImageId,P\nILSVRC2012_val_00048981,n03995372 85 1 499 272\n"]
        ),
        "lists of Tiny-ImageNet": Reader("x.txt", read_text_lines, [b"n01443537\n\xef\xbb\xbfn01629819\tgoldfish\n"]),
        "manifest": Reader(
            "manifest.jsonl", read_manifest, [_text({"path": "a/1.png", "source": "p"}) + b"\n" + _text({"path": "b"})]
        ),
        "journal of a preparation": Reader("x.jsonl", read_lines, [_text({"unit": "a", "rows": []}) + b"\n{}\n"]),
    }  # fmt: skip


COCO = {
    "images": [{"id": 1, "file_name": "a.jpg", "height": 12, "width": 10}],
    "categories": [{"id": 1, "name": "head"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 8, 1.5, 8, 9]]},
        {
            "id": 2,
            "image_id": 1,
            "category_id": 1,
            "segmentation": {"size": [12, 10], "counts": [20, 30, 70]},
        },
        {"id": 3, "image_id": 1, "category_id": 1, "segmentation": {"size": [12, 10], "counts": "d0n0V2"}},
    ],
}


def _outlines(path: Path) -> int:
    """Read a COCO file and paint each outline, as a preparation does."""
    _, _, annotations = coco.read(path, [])
    painted = 0
    for annotation in annotations:
        try:
            coco.extent(annotation.get("segmentation"), 12, 10)
            painted += int(coco.mask(annotation.get("segmentation"), 12, 10).sum())
        except ValueError:  # what the planner catches, and tells of this annotation alone
            continue
    return painted


def _labelled(path: Path) -> object:
    return labelme._read(path, sources.SourceImages(path.parent, {}, frozenset()), [])


def _annotations() -> dict[str, Reader]:
    shapes = [
        {"label": "head", "points": [[1, 2], [7, 2.5], [5, 9]], "shape_type": "polygon", "group_id": 1},
        {"label": "tail", "points": [[1, 2], [7, 5]], "shape_type": "circle"},
    ]
    picture = base64.b64encode(_image("PNG")).decode()
    labelled = {"imagePath": "a.png", "imageHeight": 8, "imageWidth": 9, "shapes": shapes, "imageData": None}
    return {
        "COCO": Reader("a.json", _outlines, [_text(COCO)]),
        "LabelMe": Reader("a.json", _labelled, [_text(labelled)]),
        "image within LabelMe": Reader(
            "a.json",
            lambda path: read_upright(path, (8, 9), "a"),
            [_text({**labelled, "imageData": picture})],
        ),
    }


RECORDS = [
    {"kind": "epoch", "name": "epoch", "seconds": 3.0, "details": {"epoch": 0, "loss": 2.1, "validation_robust": 0.1}},
    {
        "kind": "metric", "name": "accuracy/clean", "value": 0.8, "n": 100, "interval": [0.7, 0.9], "seed": 0,
        "seconds": 1.5, "details": {"evaluation": "k", "norm": "linf", "eps": 0.03, "per_class": {"a": [8, 10]}},
        "provenance": {"time": "2026-01-01"},
    },
    {
        "kind": "metric", "name": "accuracy/worst case", "value": 0.5, "n": 100, "interval": [0.4, 0.6],
        "details": {"evaluation": "k", "norm": "linf", "eps": 0.03, "radii": [0.01, 0.03], "shape": [3, 8, 8]},
    },
    {
        "kind": "metric", "name": "corruption/mean of 2/severities 1-2", "value": 0.5, "n": 9,
        "interval": [0.4, 0.6],
        "details": {"corruptions_key": "c", "severities": [1, 2], "published": False, "corruptions": ["fog"],
                    "left_out": {"snow": "why"}, "data": "digits", "split": "test", "source": "own"},
    },
    {"kind": "metric", "name": "union/worst case", "value": 0.4, "n": 9, "details": {"norm": "linf,l2", "eps": [1, 2]}},
    {"kind": "metric", "name": "audit/noise", "value": 1, "n": 9, "details": {"numbers": {"a": 0.5}, "verdict": "ok"}},
    {
        "kind": "metric", "name": "where/everything", "value": 0.4, "n": 9, "interval": [0.3, 0.5],
        "details": {"title": "t", "region": "everything", "pixels": 1.0, "clean": 0.8, "where": "w"},
    },
    {
        "kind": "metric", "name": "where/top", "value": 0.6, "n": 9, "interval": [0.5, 0.7],
        "details": {"title": "t", "region": "top", "pixels": 0.2, "kind": "top", "share": 0.2, "where": "w"},
    },
    {"kind": "artifact", "name": "images", "details": {"file": "records.jsonl", "sha256": "0", "caption": "c"}},
]  # fmt: skip
UNIT = {
    "positions": [0, 1], "answers": [1, 2], "fooled": [False, True], "forwards": [1, 1], "backwards": [0, 0],
    "seconds": 1.0,
}  # fmt: skip
ASKED = {
    "target": "runs/x",
    "config": {"data": {"name": "digits"}, "evaluate": {"save_images": True}, "seed": 0},
}


def _unit(path: Path) -> object:
    ledger = Ledger(path.parents[1], 1)
    return ledger.rows([0, 0], [0, 1], []), ledger.seconds()


def _page(path: Path) -> str:
    """The whole page about a run folder, pictures and all."""
    config = path.parent / "config.yaml"
    if not config.exists():
        config.write_bytes(b"name: x\nseed: 0\ndata: {name: digits}\n")
    return _render(read_runs([path.parent]), path.parent / "page.html", None)


def _read_for_page(path: Path) -> object:
    """What the page reads of a run folder and says in words, without its pictures."""
    config = path.parent / "config.yaml"
    if not config.exists():
        config.write_bytes(b"name: x\nseed: 0\ndata: {name: digits}\n")
    from counterpart.report.grouping import group
    from counterpart.report.provenance import provenance

    runs = read_runs([path.parent])
    rows = group(runs)
    return [
        notes_on(runs, [row for row in rows if row.shown]), [provenance(run) for run in runs],
        [evaluated.lines for run in runs for evaluated in run.corruptions],
    ]  # fmt: skip


def _run_files() -> dict[str, Reader]:
    lines = b"".join(_text(row) + b"\n" for row in RECORDS)
    table = io.StringIO()
    csv.writer(table).writerows([["index", "first_fooled_by", "share"], [0, "", ""], [1, "pgd, 3", 0.5]])
    counts = b"".join(
        _text({"corruption": "fog", "severity": s, "right": 3, "n": 9, "seconds": 1.5, "stamp": ""}) + b"\n"
        for s in (1, 2)
    )
    return {
        "records": Reader("records.jsonl", records.read, [lines]),
        "log of a run": Reader("records.jsonl", lambda path: RunDir(path.parent).drop_epochs_from(3), [lines]),
        "records for a page": Reader("records.jsonl", _read_for_page, [lines], share=0.3),
        "page": Reader("records.jsonl", _page, [lines], share=0.002),
        "configuration of a run": Reader(
            "config.yaml", lambda path: RunDir(path.parent).config(), [show("digits/part").encode(), YAML[0]], share=0.2
        ),
        "unit of a ledger": Reader("units/clean-00000.json", _unit, [_text(UNIT)]),
        "identity of a ledger": Reader(
            "identity.json", lambda path: Ledger(path.parent, 1).identity(), [_text({"eps": 0.1, "attacks": [["a"]]})]
        ),
        "settings of an evaluation": Reader("settings.json", read_asked, [_text(ASKED)]),
        "counts of corruptions": Reader("counts.jsonl", read_counts, [counts]),
        "table of images": Reader("images.csv", read_standing, [table.getvalue().encode()]),
    }  # fmt: skip


def _image(kind: str, mode: str = "RGB", **options: object) -> bytes:
    """A small picture as a file."""
    y, x = np.mgrid[:8, :9]
    pixels = np.stack([20 * x, 25 * y, 10 * (x + y)], axis=-1).astype(np.uint8)
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(257 * pixels[..., 0].astype(np.uint16))
    elif mode != "RGB":
        image = image.convert(mode)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _png(content: bytes) -> bytes:
    """A PNG file whose chunks have the checksums that they should."""
    packed, place = content[:8], 8
    while place + 8 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        kind, data = content[place + 4 : place + 8], content[place + 8 : place + 8 + length]
        packed += content[place : place + 8] + data + zlib.crc32(kind + data).to_bytes(4, "big")
        place += 12 + len(data)
    return packed


def _png_of_rows(rows: bytes) -> bytes:
    """A grey PNG file of 9 x 8 pixels from what is packed in it: a filter and nine pixels for each row."""
    head = b"\0\0\0\x09\0\0\0\x08\x08\0\0\0\0"
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return _png(
        b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(d)) + k + d + bytes(4) for k, d in chunks)
    )


def _images() -> dict[str, Reader]:
    exif = Image.Exif()
    exif[0x0112] = 6
    png = [_image("PNG"), _image("PNG", "P"), _image("PNG", "I;16"), _image("PNG", "RGBA")]
    inner = [*(Inner(content, _png) for content in png), Inner(bytes(80), _png_of_rows)]
    jpeg = [
        _image("JPEG"),
        _image("JPEG", exif=exif),
        _image("JPEG", "L", progressive=True),
        _image("JPEG", "CMYK"),
    ]
    tiff = [_image("TIFF"), _image("TIFF", compression="tiff_lzw"), _image("TIFF", "I;16")]
    frames = _image("GIF", save_all=True, append_images=[Image.new("L", (9, 8))])
    table = name_tables.NameTable(Path("x"), {0: None, 1: "a"}, False)

    def turned(path: Path) -> object:
        return upright_size(path), read_upright(path, (8, 9), "a")

    def read(path: Path) -> object:
        return header_size(path), decode(path), decode(path, 4, channels=1)

    return {
        "PNG": Reader("x.png", read, png, inner),
        "JPEG": Reader("x.jpg", read, jpeg),
        "BMP": Reader("x.bmp", read, [_image("BMP"), _image("BMP", "P"), _image("BMP", "1")]),
        "WebP": Reader("x.webp", read, [_image("WEBP"), _image("WEBP", "RGBA", lossless=True)]),
        "GIF": Reader("x.gif", read, [_image("GIF"), frames]),
        "TIFF": Reader("x.tif", read, tiff),
        "PPM": Reader("x.ppm", read, [_image("PPM"), b"P2 3 2 255\n1 2 3\n4 5 6\n", _image("PPM", "1")]),
        "turned photograph": Reader("x.jpg", turned, jpeg[1:2]),
        "mask of part ids": Reader("x.png", mask_ids, png[1:3], inner[1:3]),
        "mask of a tool": Reader("x.png", lambda path: read_values(path, table), png[1:], inner[1:]),
    }  # fmt: skip


def _element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def _matrix(name: str, kind: int, shape: Sequence[int], *rest: bytes) -> bytes:
    head = _element(6, struct.pack("<II", kind, 0)) + _element(5, struct.pack(f"<{len(shape)}i", *shape))
    return _element(14, head + _element(1, name.encode()) + b"".join(rest))


def _structure(name: str, **fields: bytes) -> bytes:
    names = b"".join(field.encode().ljust(24, b"\0") for field in fields)
    return _matrix(name, 2, (1, 1), _element(5, struct.pack("<i", 24)), _element(1, names), *fields.values())


def _mat(*variables: bytes) -> bytes:
    return b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + b"".join(variables)


def _packed_mat(content: bytes) -> bytes:
    """A .mat file whose elements are compressed, each by itself, as far as their lengths make sense."""
    packed, place = content[:128], 128
    while place < len(content):
        length = int.from_bytes(content[place + 4 : place + 8], "little")
        element = zlib.compress(content[place : place + 8 + length])
        packed += struct.pack("<II", 15, len(element)) + element
        place += 8 + length
    return packed


def _idx(images: bool) -> bytes:
    return (
        struct.pack(">IIII", 2051, 2, 28, 28) + bytes(2 * 784)
        if images
        else struct.pack(">II", 2049, 2) + b"\x01\x02"
    )


class _Array:
    """Pickles as numpy's arrays do in the official files: by names that the reader stands in for."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __reduce__(self) -> object:
        return self.array.__reduce__()


def _arrays() -> dict[str, Reader]:
    images, labels = np.zeros((2, 3072), np.uint8), [3, 7]
    batches = [pickle.dumps({b"data": _Array(images), b"labels": labels}, protocol) for protocol in (2, 4)]
    batches.append(pickle.dumps({"data": images, "labels": np.array(labels)}, 5))
    digits = _mat(
        _matrix("X", 9, (32, 32, 3, 2), _element(2, bytes(6144))), _matrix("y", 9, (2, 1), _element(2, b"\x01\x0a")),
    )  # fmt: skip
    mask = _matrix("", 9, (3, 4), _element(2, bytes(12)))
    part = _structure(
        "", part_name=_matrix("", 4, (1, 4), _element(4, "head".encode("utf-16-le"))), mask=mask
    )
    thing = _structure(
        "", **{"class": _matrix("", 4, (1, 3), _element(16, b"cat")), "mask": mask, "parts": part}
    )
    scene = _mat(_structure("anno", objects=thing))
    number = _matrix("", 6, (1, 1), _element(9, struct.pack("<d", 0)))
    wnid = _matrix("", 4, (1, 9), _element(16, b"n01440764"))
    classes = _mat(_structure("synsets", ILSVRC2012_ID=number, WNID=wnid, num_children=number))
    array = io.BytesIO()
    np.save(array, np.arange(30, dtype=np.uint8).reshape(5, 6))
    pack = partial(gzip.compress, mtime=0)

    def read_idx(path: Path) -> object:
        return mnist.read_idx(path.read_bytes(), path)

    return {
        "CIFAR's batch": Reader("data_batch_1", lambda path: cifar.read_batch(path.read_bytes(), path), batches),
        "SVHN's .mat": Reader(
            "x.mat", lambda path: svhn.read_mat(path.read_bytes(), path), [digits], [Inner(digits, _packed_mat)]
        ),
        "PASCAL-Part's .mat": Reader("x.mat", pascal_part.read_mat, [scene], [Inner(scene, _packed_mat)]),
        "ImageNet's .mat": Reader("x.mat", imagenet.read_meta, [classes], [Inner(classes, _packed_mat)]),
        "idx": Reader("train-images-idx3-ubyte", read_idx, [_idx(True), _idx(False)]),
        "packed idx": Reader("x-ubyte.gz", read_idx, [pack(_idx(True))], [Inner(_idx(i), pack) for i in (True, False)]),
        "npy": Reader("fog.npy", lambda path: np.asarray(open_array(path)).sum(), [array.getvalue()]),
    }  # fmt: skip


def _zip_with(archive: bytes, name: str) -> Inner:
    """A member of a PyTorch file: changed, and put back among the others."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        members = {info.filename: opened.read(info) for info in opened.infolist()}
    (whole,) = [member for member in members if member.endswith(name)]

    def pack(content: bytes) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as written:
            for member, old in members.items():
                written.writestr(member, content if member == whole else old)
        return file.getvalue()

    return Inner(members[whole], pack)


ABOUT = {
    "model": {"name": "wrn-10-1", "width": 4, "num_classes": 10, "in_channels": 1, "image_size": 16},
    "classes": list("0123456789"), "data": "digits", "fingerprint": "f" * 12, "config": "c" * 12,
}  # fmt: skip


def _weights() -> dict[str, Reader]:
    state = OrderedDict({"module.fc.weight": torch.arange(6.0).view(2, 3), "module.fc.bias": torch.zeros(2)})
    files = {}
    for new in (True, False):
        file = io.BytesIO()
        torch.save({"state_dict": state, "epoch": 3}, file, _use_new_zipfile_serialization=new)
        files[new] = file.getvalue()
    model = create(**ABOUT["model"])
    checkpoint = save(dict(model.state_dict()), {"counterpart": json.dumps(ABOUT)})
    planes = {"radii": torch.full((2, 1, 4, 4), 0.03), "index": torch.tensor([0, 1])}
    pixels = np.full((2, 1, 4, 4), 0.5, np.float32)
    numbers, shares = [0, 1], [0.9, 0.8]
    shown = {
        "labels": numbers, "index": numbers, "clean_predictions": numbers, "adversarial_predictions": numbers,
        "confidences_clean": shares, "confidences_adversarial": shares, "classes": ["a", "b"], "eps": 0.03,
    }  # fmt: skip
    tensors = {
        "clean": torch.tensor(pixels),
        "adversarial": torch.tensor(pixels),
        "radius": torch.tensor(pixels[:, 0]),
    }
    panel = save(tensors, {name: json.dumps(value) for name, value in shown.items()})
    return {
        "safetensors": Reader("x.safetensors", read_weights, [save(dict(state), {"format": "pt"})]),
        "PyTorch's archive": Reader("x.pt", read_weights, [files[True]], [_zip_with(files[True], "data.pkl")]),
        "PyTorch's old file": Reader("x.pth", read_weights, [files[False]]),
        "checkpoint": Reader("x.safetensors", load_checkpoint, [checkpoint], share=0.2),
        "radii": Reader("radii.safetensors", budgets_from, [save(planes)]),
        "pictures": Reader("panel.safetensors", Pictures.read, [panel]),
    }  # fmt: skip


def _networks() -> dict[str, Reader]:
    """ONNX files, where onnxruntime is installed: as the process apart reads them, and as a command does."""
    if find_spec("onnxruntime") is None:
        return {}
    pixels = np.full((2, 1, 2, 2), 0.5, np.float32)

    def read(path: Path) -> object:
        return onnx_trial.ask(onnx_trial.open_session(path.read_bytes(), threads=1), pixels)

    return {
        "ONNX": Reader("x.onnx", read, fuzz_onnx.seeds()),
        "ONNX after a trial": Reader(
            "x.onnx", lambda path: OnnxModel(path)(torch.from_numpy(pixels)), fuzz_onnx.seeds(), share=0.01
        ),
    }
