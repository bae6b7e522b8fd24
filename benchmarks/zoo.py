"""Whether a view answers as its network does: torchvision's networks, one of each timm family, ours, and tutorials'.

    python benchmarks/zoo.py                       (2-core CPU: about half an hour)
    python benchmarks/zoo.py --only tutorials own

Each network has fresh weights, and batch norms as after training: their statistics are those of a few pictures, their
scales have both signs. The picture is the smallest that the network takes, of 64 pixels at least. A line of the record
is one network: the form that its view takes and why, the largest difference of logits (of their range) and of the
gradient with respect to the image (in norm), how much the network's own gradient turns where the image is moved by a
millionth (``kinks``: no view is nearer than that), and whether one step of PGD moves. Networks of more than 150 million
parameters are left out, by a line that says so.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, suppress
from dataclasses import replace
from functools import partial
from io import StringIO
from typing import Any

import timm
import torch
import torchvision
from sklearn.datasets import load_sample_images
from timing import RESULTS, arguments, shortened
from torch import Tensor, nn
from torch.nn import functional as F
from tutorial_networks import NETWORKS

from counterpart import devices, records
from counterpart.attacks import pgd
from counterpart.budget import Linf
from counterpart.errors import UserError
from counterpart.losses.classification import margin
from counterpart.models import MODELS, create
from counterpart.models.forms import Form, ViewDifference, difference, is_own
from counterpart.models.inference import InferenceView, decide_form
from counterpart.records import Record
from counterpart.seeding import Keys, derive, seeded

CLASSES = 10
SIZES = (64, 96, 128, 224, 240, 256, 299, 384, 512)
MOST = 150e6  # parameters
BUDGET = Linf(8 / 255)
SMALL = (
    "test_",
    "atto",
    "femto",
    "pico",
    "nano",
    "tiny",
    "mini",
    "small",
    "xxs",
    "xs",
    "_s",
    "_t",
    "050",
    "18",
    "b0",
)
PARTS = {"part_classes": [0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9], "encoder": "resnet18", "decoder": "fpn"}

Build = Callable[[int], nn.Module]
"""Side of the images in pixels -> a network for them."""


def main() -> None:
    """Look at every network of the zoo, and keep a line for each."""
    parser = arguments(__doc__)
    parser.add_argument("--only", nargs="+", choices=list(ZOO), default=list(ZOO))
    parser.add_argument("--names", nargs="+", default=[""], help="networks whose names hold one of these")
    given = parser.parse_args()
    device = devices.resolve(given.device)
    command = shortened(records.environment()["command"])
    for part in given.only:
        for name, (sizes, build) in ZOO[part]():
            if not any(text in name for text in given.names):
                continue
            row = line(f"{part}/{name}", sizes, build, device)
            records.write(RESULTS / "zoo.jsonl", [replace(row, provenance={"command": command})])
            said = {key: row.details[key] for key in ("form", "logits", "gradients") if key in row.details}
            print(f"{row.name:<50} {said} {row.details.get('reason') or ''}", flush=True)


def line(name: str, sizes: tuple[int, ...], build: Build, device: torch.device) -> Record:
    """What became of one network; a network that cannot be had is a line that says why."""
    started = time.monotonic()
    details: dict[str, Any] = {"device": device.type, "threads": torch.get_num_threads()}
    try:
        model, images = ready(build, sizes, device)
        details |= look(model, images)
    except Exception as error:  # of whatever kind: nothing may end the tour
        details["reason"] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:300]
    # 1: its view answers as it does; 0: it does not; None: there is no such network here.
    value = float(details["faithful"]) if "faithful" in details else None
    return Record("metric", f"zoo/{name}", value, 2, details=details, seconds=time.monotonic() - started)


def look(model: nn.Module, images: Tensor) -> dict[str, Any]:
    """The view of a network, held against it.

    ``faithful`` is said of the view that is used, whatever its form: the model itself is held against itself.
    """
    form, reason, apart = held(model, images)
    view = InferenceView(model, form=form)
    with torch.no_grad():
        labels = view(images).argmax(dim=1)
    keys = Keys(0, "zoo", torch.arange(len(images)))
    try:
        # The margin's slope does not vanish, as that of the cross-entropy does where an answer is saturated.
        options: dict[str, Any] = {"loss": margin, "steps": 1, "random_start": False}
        attacked = pgd(view, images, labels, budget=BUDGET, keys=keys, **options).images
        moved = bool((attacked != images).flatten(1).any(dim=1).all())
    except RuntimeError as error:  # how torch says that there is no gradient to follow
        reason, moved = f"{reason or ''} No step: {str(error).splitlines()[0]}".strip(), False
    return {
        "form": form,
        "reason": reason,
        "folded": view.folded,
        "logits": apart.logits,
        "gradients": apart.gradients,
        "kinks": apart.kinks,
        "faithful": apart.reason is None,
        "moved": moved,
        "size": images.shape[2],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def held(model: nn.Module, images: Tensor) -> tuple[Form, str | None, ViewDifference]:
    """What ``decide_form`` says, and the difference that it saw or would see; the fast copy is held only once."""
    if not is_own(model):
        with suppress(Exception), redirect_stderr(StringIO()):
            apart = difference(model, InferenceView(model, form="fast"), images)
            if apart.reason is None:
                return "fast", None, apart
    form, reason = decide_form(model, images)
    return form, reason, difference(model, InferenceView(model, form=form), images)


class LeftOut(Exception):
    """A network that is too large for this tour."""


def ready(build: Build, sizes: tuple[int, ...], device: torch.device) -> tuple[nn.Module, Tensor]:
    """A network in eval mode that looks trained, and two pictures of the smallest size that it takes."""
    for size in sizes:
        try:
            with seeded(derive(0, "zoo")), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                refuse_large(build, size)
                model, images = build(size).to(device), pictures(size).to(device)
                refuse_large(lambda _, model=model: model, size)
                settle(model, images)
                model.eval()
                with torch.no_grad():
                    model(images[:2])
        except LeftOut:
            raise
        except Exception:
            if size == sizes[-1]:
                raise
        else:
            return model, images[:2].contiguous()
    raise ValueError("no size was given.")


def refuse_large(build: Build, size: int) -> None:
    """Count parameters without making any, where the network allows that."""
    try:
        with torch.device("meta"):
            model = build(size)
        count = sum(parameter.numel() for parameter in model.parameters())
    except Exception:  # not every network can be made without memory
        return
    if count > MOST:
        raise LeftOut(f"{count / 1e6:.0f} million parameters")


@torch.no_grad()
def settle(model: nn.Module, images: Tensor) -> None:
    """Give batch norms the statistics of these images, and scales of both signs; wake up what starts asleep.

    Biases, the scales of branches and their last batch norms often start at 0 or nearly so.
    """
    if isinstance(model, torch.jit.ScriptModule):
        return
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in norms if norm.running_mean is not None and norm.affine]
    for parameter in model.parameters():
        if parameter.abs().max() <= 1e-4:
            parameter.uniform_(-0.2, 0.2)
    for norm in norms:
        norm.weight.mul_(torch.empty_like(norm.weight).uniform_(0.5, 1.5))
        norm.weight.mul_(1 - 2 * torch.bernoulli(torch.full_like(norm.weight, 0.1)))
        norm.bias.normal_(0, 0.1)
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.train()(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def pictures(size: int) -> Tensor:
    """Eight crops of scikit-learn's two photographs, (8, 3, size, size) in [0, 1]; the first two are one of each."""
    crops = []
    for row, column in ((0, 100), (40, 0), (20, 220), (100, 160)):
        for photograph in load_sample_images().images:
            pixels = torch.from_numpy(photograph.copy()).permute(2, 0, 1)[None].float() / 255
            crops.append(pixels[:, :, row : row + 320, column : column + 320])
    return F.interpolate(torch.cat(crops), size=(size, size), mode="area")


def torchvision_networks() -> Iterator[tuple[str, tuple[tuple[int, ...], Build]]]:
    """Every classification network of torchvision, the smallest of its family first."""
    for name in torchvision.models.list_models(module=torchvision.models):
        yield name, (SIZES, partial(torchvision_network, name))


def torchvision_network(name: str, size: int) -> nn.Module:
    """One of them."""
    options: dict[str, Any] = {"num_classes": CLASSES}
    options |= {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    options |= {"image_size": size} if name.startswith("vit_") else {}
    options |= {"input_size": (size, size)} if name.startswith("maxvit") else {}
    network: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    return network


def timm_networks() -> Iterator[tuple[str, tuple[tuple[int, ...], Build]]]:
    """The smallest network of each of timm's modules, which are its families."""
    for family in timm.list_modules():
        name = smallest(family)
        if name is not None:
            yield f"{family}/{name}", (SIZES, partial(timm_network, name))


def timm_network(name: str, size: int) -> nn.Module:
    """One of them, as this project makes it, or as timm does where this project refuses it."""
    try:
        return create(f"timm/{name}", CLASSES, image_size=size)
    except UserError:
        network: nn.Module = timm.create_model(name, pretrained=False, num_classes=CLASSES)
        return network


def smallest(family: str) -> str | None:
    """The network with the fewest parameters, among those whose names promise few; counted without making any."""
    names = timm.list_models(module=family)
    names = [name for name in names if any(word in name for word in SMALL)] or names
    names = [name for name in names if name.startswith("test_")] or names  # timm's own, for its tests
    sizes: dict[str, int] = {}
    for name in names:
        try:
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                network = timm.create_model(name, pretrained=False, num_classes=CLASSES)
            sizes[name] = sum(parameter.numel() for parameter in network.parameters())
        except Exception:  # not every network can be made without memory
            continue
    return min(sizes, key=lambda name: sizes[name]) if sizes else next(iter(names), None)


def own_networks() -> Iterator[tuple[str, tuple[tuple[int, ...], Build]]]:
    """This project's, part models included; of part models the view is held to them here as well."""
    named = [name for name in MODELS if "-D-" not in name and "/" not in name]  # one network each
    for name in (*named, "wrn-10-2", "dm-wrn-10-2"):
        size = 28 if name == "mnist-cnn" else 32
        yield name, ((size,), partial(own_network, name))
    for head in ("downsampled", "bounding-box", "pixel", "two-headed"):
        yield f"parts/{head}", ((128,), partial(own_network, f"parts/{head}"))


def own_network(name: str, size: int) -> nn.Module:
    """One of them."""
    parts: Mapping[str, Any] | None = PARTS if name.startswith("parts/") else None
    return create(name, CLASSES, image_size=size, parts=parts)


def tutorial_networks() -> Iterator[tuple[str, tuple[tuple[int, ...], Build]]]:
    """The hand-written ones."""
    for name in NETWORKS:
        yield name, ((32,), partial(tutorial_network, name))


def tutorial_network(name: str, size: int) -> nn.Module:
    """One of them; they are made for 32 pixels."""
    return NETWORKS[name]()


ZOO: dict[str, Callable[[], Iterator[tuple[str, tuple[tuple[int, ...], Build]]]]] = {
    "tutorials": tutorial_networks,
    "own": own_networks,
    "torchvision": torchvision_networks,
    "timm": timm_networks,
}


if __name__ == "__main__":
    main()
