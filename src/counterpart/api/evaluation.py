"""The functions that judge a model: ``evaluate`` and ``audit``.

Both take live objects, or whatever a command can name.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ..catalogue import known_names
from ..config import merge, under_protocol
from ..data.objects import is_data
from ..dotted_names import nest
from ..errors import UserError
from ..jobs import auditing, judging
from ..jobs.named_models import open_model
from ..jobs.objects import target_of_objects
from ..jobs.target import Target
from ..jobs.targets import open_single_target
from ..jobs.tracking import tracked
from ..records import Listener
from .audit_result import Audit
from .results import Judgement
from .state import left_as_found

Model = nn.Module | str | Path


def evaluate(
    model: Model,
    data: Any = None,
    *,
    attacks: str | Sequence[str | Mapping[str, Any]] | None = None,
    eps: float | str | Sequence[float | str] | None = None,
    norm: str | Sequence[str] | None = None,
    n: int | None = None,
    protocol: str | None = None,
    draws: int | None = None,
    votes: int | None = None,
    eot: int | None = None,
    fixed_noise: bool | None = None,
    sampled: int | str | None = None,
    claim: str | None = None,
    folder: str | Path | None = None,
    root: str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
    name: str | None = None,
    seed: int | None = None,
    device: str | None = None,
    changes: Mapping[str, Any] | None = None,
    on_record: Listener | None = None,
) -> Judgement:
    """The clean and the robust accuracy of a model.

    An attack counts as successful only where the model itself, in float32, misclassifies the attacked image.

    Args:
        model: any ``torch.nn.Module`` from images in [0, 1] to logits, or what ``counterpart evaluate``
            takes: a run folder, a checkpoint, timm/NAME, ``ARCHITECTURE@WEIGHTS`` or module:function.
        data: (images, labels) as tensors or arrays, a torch or Hugging Face data set, a folder of images, or
            the name of a data set. By default these are the images that a run is judged on.
        attacks: the names of the attacks with commas between them, or a list such as
            ["fgsm", {"attack": "pgd", "steps": 50}]. The default is "autoattack".
        eps: the radius of the budget, which is how far an attack may move an image, such as "8/255" or 0.5. Several
            rising radii, such as ["2/255", "8/255"], give a curve. The default is the run's radius, or else 8/255.
        norm: the norm that the radius is measured in: "linf", "l2" or "l1". The default is the run's norm, or
            else "linf". Several, such as ["linf", "l2"] with a radius for each, ask for the worst case per
            image over the union of their budgets.
        n: the number of images to evaluate, the same share of each class. The default is all images.
        protocol: the protocol of a published benchmark, such as "robustbench-cifar10-linf". It fixes images, budget
            and attacks, and none may be given beside it; ``data``, or ``root``, is the folder of the benchmark's data.
        draws: for a model whose answers are random, how often each image is judged; an accuracy is then the mean over
            the images of the share of these draws that are right. The default is 1.
        votes: how many passes of such a model vote on each answer. The default is 1.
        eot: how many passes each gradient of an attack is averaged over. The default is 1.
        fixed_noise: whether every pass and every image meet the same noise, which makes the model deterministic.
        sampled: how many survivors of the other attacks meet FAB and Square, or "auto"; the result is an estimate.
        claim: a claim to judge, such as "60 % at 8/255"; the result's ``claim`` says whether it is refuted.
        folder: the folder that keeps everything, where a later call goes on. By default nothing is written.
        root: the folder that holds the data set, where ``data`` is a name.
        mean: the value of each channel to subtract from the images, for a model that wants normalised ones.
        std: the value of each channel to divide by after that, for a model that wants normalised images.
        classes: the name of each class, where the model or the images are objects.
        name: the name of the model in tables.
        seed: the number that everything random is drawn from. The default is 0.
        device: the device to compute on, such as "cuda". The default is where the model lies.
        changes: other settings by their dotted names, such as {"evaluate.batch_size": 64}.
        on_record: a function that is given every record as it is written, and the folder of its run (None where nothing
            is written). What it raises is said once, and ends nothing.

    Returns:
        The accuracies with their intervals, what happened to each image, and the images that fool the model.

    Raises:
        UserError: an argument is not understood; the message is one line and says what was expected.
    """
    asked = {
        "evaluate.attacks": attacks, "evaluate.eps": eps, "evaluate.norm": norm, "evaluate.n": n, "seed": seed,
        "device": device, "evaluate.protocol": protocol, "evaluate.draws": draws, "evaluate.votes": votes,
        "evaluate.eot": eot, "evaluate.fixed_noise": fixed_noise, "evaluate.sampled": sampled, "evaluate.claim": claim,
    }  # fmt: skip
    settings = _settings_of(asked, changes)
    with left_as_found(model), tracked(on_record):
        of_objects = {"folder": folder, "mean": mean, "std": std, "classes": classes, "name": name}
        return Judgement(judging.judge(target_of(model, data, settings, root, of_objects)))


def _settings_of(asked: Mapping[str, Any], changes: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings that were asked for, nested; AutoAttack where neither attacks nor a protocol were."""
    attacks = asked["evaluate.attacks"]
    if not isinstance(attacks, str | Sequence | None):
        raise UserError(f"attacks are names, or a list of them with options; got {type(attacks).__name__}.")
    settings = merge(nest({key: value for key, value in asked.items() if value is not None}), nest(changes))
    if attacks is None and asked["evaluate.protocol"] is None:
        settings = merge({"evaluate": {"attacks": "autoattack"}}, settings)
    return settings


def audit(
    model: Model,
    data: Any = None,
    *,
    eps: float | str | None = None,
    norm: str | None = None,
    n: int | None = None,
    folder: str | Path | None = None,
    root: str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    steps: int = 100,
    queries: int = 2000,
    draws: int = 100,
    traced: int = auditing.TRACED,
    points: int = auditing.POINTS,
    changes: Mapping[str, Any] | None = None,
    on_record: Listener | None = None,
) -> Audit:
    """A verdict on each of the behaviours that tell whether attacks on a model can be trusted.

    A model has obfuscated gradients where they mislead an attack. It then seems robust, and other attacks
    break it. Five behaviours are those of Athalye et al. 2018, arXiv 1802.00420. The others are whether PGD
    finds adversarial images that are planted (Zimmermann et al. 2022, arXiv 2206.13991), the indicators of
    attack failure of Pintor et al. 2022, arXiv 2106.09947, known doubts about a model, and whether PGD finds
    more once pieces that lose gradients pass them straight through. Passing is necessary, not sufficient.

    Args:
        model: any ``torch.nn.Module`` from images in [0, 1] to logits, or a name that ``evaluate``
            understands.
        data: the images and labels, in any form that ``evaluate`` takes.
        eps: the one radius of the budget, such as "8/255"; the audit tries other radii by itself.
        norm: the norm that the radius is measured in: "linf", "l2" or "l1".
        n: the number of images to look at, the same share of each class. The default is all images.
        folder: the folder that keeps everything, so that an audit that was stopped goes on.
        root: the folder that holds the data set, where ``data`` is a name.
        mean: the value of each channel to subtract from the images, for a model that wants normalised ones.
        std: the value of each channel to divide by after that, for a model that wants normalised images.
        steps: the number of gradient steps of the iterative attacks.
        queries: the number of questions that Square, the attack without gradients, asks about each image.
        draws: the number of random points that the random search tries for each image.
        traced: the number of images whose attacks are traced, and that adversarial images are planted for.
        points: the number of points inside the budget that a planted image is told from.
        changes: other settings by their dotted names, such as {"evaluate.batch_size": 64}.
        on_record: a function that is given every record as it is written, and the folder of its run (None where nothing
            is written). What it raises is said once, and ends nothing.

    Returns:
        The behaviours, each with its numbers and its verdict.

    Raises:
        UserError: an argument is not understood; the message is one line and says what was expected.
    """
    asked = {"evaluate.eps": eps, "evaluate.norm": norm, "evaluate.n": n}
    settings = merge(nest({key: value for key, value in asked.items() if value is not None}), nest(changes))
    settings = merge(settings, auditing.SEARCH)
    with left_as_found(model), tracked(on_record):
        of_objects = {"folder": folder, "mean": mean, "std": std}
        target = target_of(model, data, settings, root, of_objects)
        effort = {"steps": steps, "queries": queries, "draws": draws, "traced": traced, "points": points}
        return Audit(auditing.audit_target(target, **effort))


def target_of(
    model: Model, data: Any, settings: dict[str, Any], root: str | Path | None, of_objects: Mapping[str, Any]
) -> Target:
    """The model and the images to judge it on, which texts name as in a command, or which are objects."""
    if (settings.get("evaluate") or {}).get("protocol") is not None:
        data, root = None, _root_of_benchmark(data, root)
        settings = dict(under_protocol(settings, "evaluate"))
    settings = merge(settings, _named_data(data, root))
    live = data if is_data(data) else None
    if not isinstance(model, nn.Module | str | Path):
        raise UserError(
            f"a model is a torch.nn.Module, or the name of one; got {type(model).__name__}. Put it into a module."
        )
    if isinstance(model, nn.Module):
        if live is None and "name" not in settings.get("data", {}):
            raise UserError(
                "on which images? Give (images, labels), a data set, a folder, or the name of a data set."
            )
        return target_of_objects(model, live, settings, **of_objects)
    if live is not None:
        opened, classes = open_model(str(model))
        options = {**of_objects, "name": of_objects.get("name") or Path(str(model)).name}
        options["classes"] = options.get("classes") or classes
        return target_of_objects(opened, live, settings, **options)
    if of_objects.get("folder") is not None:
        if Path(str(model)).expanduser().is_dir():
            raise UserError(
                f"folder is for other models: evaluations of {model} are kept in that folder itself."
            )
        place = Path(of_objects["folder"]).expanduser()
        settings = merge(settings, {"runs": str(place.parent), "name": place.name})
    for option in ("mean", "std", "classes"):
        if of_objects.get(option) is not None:
            raise UserError(f"{option} is for a model or images that are objects; {model} has its own.")
    return open_single_target(str(model), settings)


def _root_of_benchmark(data: Any, root: str | Path | None) -> str | Path | None:
    """The folder that holds a benchmark's data set: ``root``, or ``data`` in its place."""
    if data is None:
        return root
    if root is None and not is_data(data) and Path(str(data)).expanduser().is_dir():
        return str(data)
    what = repr(data) if isinstance(data, str | Path) else f"an object of type {type(data).__name__}"
    raise UserError(
        f"data: a protocol reads the benchmark's own files; give the folder that holds them, as data or root. Got "
        f"{what}."
    )


def _named_data(data: Any, root: str | Path | None) -> dict[str, Any]:
    """The settings that name a data set: by its own name, or by a folder of images."""
    if is_data(data) or data is None:
        return {} if root is None else {"data": {"root": str(root)}}
    text = str(data)
    if isinstance(data, str) and (text in known_names("data") or ":" in text):
        return {"data": {"name": text, **({} if root is None else {"root": str(root)})}}
    if Path(text).expanduser().is_dir():
        return {"data": {"name": "folder", "root": text}}
    raise UserError(
        f"data {text!r} is no folder and no data set. Known: {', '.join(known_names('data'))}; or give images and "
        "labels."
    )
