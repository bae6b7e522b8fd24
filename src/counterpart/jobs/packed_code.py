"""A user's own code in a shared folder: packed beside the weights, and run again by those who trust it."""

import shutil
import sys
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..catalogue import load_users_object
from ..data.image_sets import ImageSet
from ..errors import UserError
from ..models.hub import load_weights
from ..models.user_code import load_user
from .outside_models import understand

CODE = "code"  # the folder of packed modules
INSTALLED = ("site-packages", "dist-packages")


def pack_code(name: str, folder: Path) -> list[str]:
    """Copy the module of ``module:function``, and every module beside it that is loaded, into a folder.

    Args:
        name: the code, which has been loaded.
        folder: the folder for the modules, which is made.

    Returns:
        The copied files, as paths within the folder.

    Raises:
        UserError: the code belongs to an installed package.
    """
    load_users_object(name)
    module = name.partition(":")[0]
    source = _file_of(module)
    if source is None or any(part in INSTALLED for part in source.parts):
        raise UserError(
            f"{name} is code of an installed package, which is not packed: name its version instead."
        )
    depth = module.count(".") + (source.name == "__init__.py")
    root = source.parents[depth]
    packed = []
    for other in sorted(sys.modules):
        file = _file_of(other)
        if file is None or not file.is_relative_to(root) or any(part in INSTALLED for part in file.parts):
            continue
        if file.name == "__main__.py" or other == "__main__":
            continue
        place = folder / file.relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
        packed.append(file.relative_to(root).as_posix())
    return packed


def run_packed_code(
    run: Path, name: str, weights: Mapping[str, Tensor], images: ImageSet, device: torch.device, trust: bool
) -> nn.Module:
    """The model that packed code makes, with the weights of the folder.

    The code runs in its own folder, and reads what it reads from there.

    Args:
        run: the shared folder.
        name: the code, as module:function.
        weights: those that were judged.
        images: some images that it answers for, which tell how it is understood.
        device: the device to compute on.
        trust: whether the user said that this code may run.

    Raises:
        UserError: the user did not say so, the code is missing or fails, or another module of its name is loaded.
    """
    place = (run / CODE).resolve()
    if not trust:
        raise UserError(
            f"the network of {run} is the code {name} in {place}, which verification would run. Read it, and then add "
            "--trust."
        )
    if not place.is_dir():
        raise UserError(f"{run} has no folder {CODE}, which should hold {name}. Get the whole folder again.")
    module = name.partition(":")[0]
    with chdir(place):
        load_users_object(name)
        file = _file_of(module)
        if file is None or not file.is_relative_to(place):
            raise UserError(
                f"another module {module} is loaded already ({file}): the one in {place} cannot be."
            )
        model = load_user(name)
    classifier = understand(model.to(device).eval(), images, device)[0]
    load_weights(classifier, weights, str(run))
    return classifier.eval()


def _file_of(module: str) -> Path | None:
    """The Python file that a module was loaded from; None where there is none."""
    loaded: Any = sys.modules.get(module)
    file = getattr(loaded, "__file__", None)
    if not isinstance(file, str) or not file.endswith(".py"):
        return None
    path = Path(file).resolve()
    return path if path.is_file() else None  # torch has modules that name a file which is nowhere
