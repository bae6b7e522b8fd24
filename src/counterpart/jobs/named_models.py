"""Models by name, ready to be asked: of run folders, files of every form, timm, the hub, and a user's own code."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from .. import build, records
from ..catalogue import is_users_code
from ..data.decoding import Prepare
from ..errors import UserError
from ..models.hub import load_weights, read_weights
from ..models.onnx_file import OnnxModel
from ..models.published import load_published
from ..models.user_code import load_user
from ..rundir import RunDir, members, read_json
from .hub_folders import HUB, downloaded
from .published_models import check_architecture, row_of
from .stored_models import load_checkpoint, load_run

FORMS = (
    "a run folder, a checkpoint or exported file (.safetensors, .pt, .onnx), timm/NAME, ARCHITECTURE@WEIGHTS.pt, "
    "hf://OWNER/NAME, or module:function of your own"
)


@dataclass(frozen=True)
class NamedModel:
    """A model that a text names.

    Attributes:
        model: the module, in eval mode, from images in [0, 1] to logits.
        classes: the name of each class, where they are known.
        size: the side in pixels of the images that it takes, where it is known.
        channels: the number of their channels, where it is known.
        prepare: its own way of resizing and cropping an image file; None for the ordinary way.
        run: the name of its run, where the text names a folder of several.
    """

    model: nn.Module
    classes: Sequence[str] | None = None
    size: int | None = None
    channels: int | None = None
    prepare: Prepare | None = None
    run: str | None = None


def open_each(text: str) -> list[NamedModel]:
    """The model that a text names, or those of a folder of seed-* runs, which answer with the same classes.

    Raises:
        UserError: as of ``open_named``; or the runs of a folder have other classes than each other.
    """
    path = Path(text).expanduser()
    runs = members(path) if path.is_dir() else []
    if len(runs) < 2:
        return [open_named(text)]
    models = [replace(_rebuilt(*load_run(run, "best")), run=run.path.name) for run in runs]
    for named in models:
        if named.classes != models[0].classes or named.size != models[0].size:
            raise UserError(
                f"{path} holds runs of other classes or sizes ({models[0].run}, {named.run}): name one of them."
            )
    return models


def open_model(text: str) -> tuple[nn.Module, Sequence[str] | None]:
    """The model that a text names, in eval mode, and the names of its classes where they are known."""
    named = open_named(text)
    return named.model, named.classes


def open_named(text: str) -> NamedModel:
    """The model that a text names, and what is known of the images that it takes.

    Args:
        text: one of ``FORMS``. ``module:function`` runs the user's own code.

    Raises:
        UserError: the text is none of these.
    """
    if text.startswith(HUB):
        return _rebuilt(*load_checkpoint(RunDir(downloaded(text)).checkpoint("best"), of_run=False))
    path = Path(text).expanduser()
    if path.is_dir():
        return _rebuilt(*load_run(_single(path), "best"))
    if path.exists():
        return _READERS.get(path.suffix, _checkpoint)(path)
    if "@" in text:
        return _published(text)
    if text.startswith("timm/"):
        return _of_timm(text)
    if is_users_code(text):
        return NamedModel(load_user(text))
    raise UserError(f"{text} does not exist: expected {FORMS}; or, in Python, a module.")


def _single(path: Path) -> RunDir:
    """The run of a folder. Of a folder of seed-* runs, which hold one model each, one has to be named."""
    run = RunDir(path)
    if run.config_file.exists():
        return run
    runs = members(path)
    if len(runs) > 1:
        raise UserError(f"{path} holds {len(runs)} runs: name one of them, such as {runs[0].path}.")
    return runs[0]


def _rebuilt(model: nn.Module, about: Mapping[str, Any]) -> NamedModel:
    """A model of a checkpoint, whose header says what images it takes."""
    network = about["model"]
    return NamedModel(model.eval(), about["classes"], network.get("image_size"), network.get("in_channels"))


def _checkpoint(path: Path) -> NamedModel:
    """The model of a checkpoint. One that lies in no run folder runs no code that it names."""
    home = RunDir(path.resolve().parent.parent)
    of_run = home.config_file.exists() and not home.manifest.exists()
    return _rebuilt(*load_checkpoint(path, of_run=of_run))


def _state_dict(path: Path) -> NamedModel:
    """The model of a state dict that ``counterpart export`` wrote, which the file beside it describes."""
    about = _described(path)
    network = about.get("network")
    if not isinstance(network, dict):
        raise UserError(
            f"{path} is a state dict, and no {path.name}.json beside it says of which network: name it, as "
            f"ARCHITECTURE@{path}."
        )
    if is_users_code(str(network.get("name"))):
        raise UserError(f"{path} is of the network {network['name']}, which a file alone may not run.")
    if about.get("sha256") != records.file_hash(path):
        raise UserError(
            f"{path} is not the file that {path.name}.json describes: it has changed. Export it again."
        )
    try:
        model = build.build_model(network, seed=0)
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}.json describes no network ({reason}).") from error
    load_weights(model, read_weights(path, ours=True)[0], str(path))  # it fits the hash beside it
    return _rebuilt(model, {"model": network, "classes": about.get("classes")})


def _onnx(path: Path) -> NamedModel:
    """The network of an ONNX file, which gives answers and no gradients. The file itself says the size of images."""
    model = OnnxModel(path)
    sizes = [length if isinstance(length, int) else None for length in model.entrance.shape]
    channels, height = (sizes + [None] * 4)[1:3]
    return NamedModel(model.eval(), _described(path).get("classes"), height, channels)


def _graph(path: Path) -> NamedModel:
    """No model: what torch.export writes may hold programs, so that the user opens it or nobody."""
    raise UserError(
        f"{path} is a program of torch.export, which may run code when it is opened. If you trust it, give the module: "
        f"torch.export.load({str(path)!r}).module()."
    )


def _described(path: Path) -> dict[str, Any]:
    """What stands beside an exported file; nothing where there is no such file."""
    beside = path.with_name(f"{path.name}.json")
    if not beside.is_file():
        return {}
    try:
        about = read_json(beside)
    except (OSError, ValueError) as error:
        raise UserError(f"{beside} is damaged: {error}.") from None
    return about if isinstance(about, dict) else {}


def _published(text: str) -> NamedModel:
    """The network of a state dict that others published, written as ARCHITECTURE@FILE or NAME@FILE."""
    architecture, _, name = text.partition("@")
    file = Path(name).expanduser()
    if not file.is_file():
        raise UserError(f"{text}: there is no file {file}. The form is ARCHITECTURE@FILE.")
    row = row_of(architecture, {})
    if row is not None:
        architecture = row.network
    check_architecture(architecture)
    model = load_published(architecture, file, row=row)[0]
    described = model.described or {}
    prepare = _way(architecture) if architecture.startswith("timm/") else None
    return NamedModel(model, None, described.get("image_size"), model.in_channels, prepare)


def _of_timm(text: str) -> NamedModel:
    """A network of timm with its published weights."""
    from ..models import backbones  # timm takes long to import

    size = backbones.preprocessing(text).crop
    about = {"name": text, "num_classes": backbones.outputs(text), "image_size": size}
    model = build.build_model(about, seed=0, pretrained=True).eval()
    return NamedModel(model, backbones.imagenet_names(text), size, 3, _way(text))


def _way(name: str) -> Prepare:
    """The way of resizing and cropping that a network of timm was published with."""
    from ..models import backbones

    return backbones.preprocessing(name).apply


_READERS: dict[str, Callable[[Path], NamedModel]] = {
    ".onnx": _onnx,
    ".pt2": _graph,
    ".pt": _state_dict,
    ".pth": _state_dict,
}
