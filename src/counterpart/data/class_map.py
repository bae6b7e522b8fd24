"""Translate the labels of a data set into the answers of a model that was trained on another."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError, nearest
from ..parsing import read_json
from .image_sets import ImageSet, content_fingerprint

OTHERS = "*"  # in a map: every class that is neither named in it nor matched by its name
FORM = '{"cat": "Cat", "dog": [207, 208], "insect": null}'


def mapped(
    images: ImageSet,
    class_map: Path | Mapping[str, Any] | None,
    outputs: Sequence[str],
    merged: Sequence[Sequence[int]] | None = None,
) -> tuple[ImageSet, list[list[int]] | None]:
    """Choose the images that a model can be judged on, and give them labels that index its answers.

    A class of the images is answered by the outputs that the map names. Otherwise the classes are matched by name,
    ignoring case and leading digits: "01_bird" is answered by "Bird". Where several outputs answer a class, wrap the
    model in ``models.merged``.

    Args:
        images: a set whose labels index its own classes.
        class_map: the map, or the JSON file that holds it: {class of the images: index or name of an output, a list of
            these, or null to leave the class out}. Classes may share an output. "*" stands for all other classes.
        outputs: name of each output of the model.
        merged: of a model whose outputs are answers that were merged before, the original outputs of each: the images
            are then the same as those that the original map made.

    Returns:
        The images, whose classes are now the model's answers, called by the images' own names where these are mapped;
        and the outputs that make up each answer, or None where no outputs have to be merged.

    Raises:
        UserError: a class has no output, or the map does not fit.
    """
    if class_map is None and list(images.classes) == list(outputs):
        return images, None
    groups, answers = _placed(images.classes, class_map, outputs)
    longer = any(len(answer) > 1 for answer in answers)
    names = [outputs[answer[0]] for answer in answers]
    table = torch.full((len(images.classes),), -1)
    for k, answer in enumerate(answers):
        here = [i for i, name in enumerate(images.classes) if groups[name] == tuple(answer)]
        if here:
            names[k], table[here] = " + ".join(images.classes[i] for i in here), k
    labels = table.to(images.labels.device)[images.labels]
    said: Any = [groups, answers]
    if merged is not None:
        original = {name: [k for answer in group for k in merged[answer]] for name, group in groups.items()}
        said = [original, [[k for output in answer for k in merged[output]] for answer in answers]]
    placed_as = content_fingerprint([images.fingerprint.encode(), json.dumps(said).encode()])
    judged = replace(images, labels=labels, classes=tuple(names), fingerprint=placed_as)
    return judged.subset((labels >= 0).nonzero()[:, 0]), answers if longer else None


def restated(
    classes: Sequence[str], class_map: Path | Mapping[str, Any], outputs: Sequence[str]
) -> dict[str, int | None]:
    """A map in terms of the answers that ``mapped`` makes: {class of the images: the number of its answer, or null}.

    It stands without its file, and for a model whose outputs are merged already.
    """
    groups, answers = _placed(classes, class_map, outputs)
    return {name: answers.index(list(group)) if group else None for name, group in groups.items()}


def _placed(
    classes: Sequence[str], class_map: Path | Mapping[str, Any] | None, outputs: Sequence[str]
) -> tuple[dict[str, tuple[int, ...]], list[list[int]]]:
    """The outputs that answer each class of the images; and the outputs that make up each answer."""
    source = str(class_map) if isinstance(class_map, Path) else "data.class_map"
    chosen = _read(class_map) if isinstance(class_map, Path) else dict(class_map or {})
    groups = _groups(classes, chosen, outputs, source)
    answered = [group for group in groups.values() if group]
    if not answered:
        raise UserError(f"{source} leaves out every class of the data: {', '.join(classes[:3])}, ...")
    answers = [[k] for k in range(len(outputs))]
    if any(len(group) > 1 for group in answered):
        placed = {k for group in answered for k in group}
        unplaced = [answer for answer in answers if answer[0] not in placed]
        answers = [list(group) for group in dict.fromkeys(answered)] + unplaced
    return groups, answers


def _groups(
    classes: Sequence[str], chosen: Mapping[str, Any], outputs: Sequence[str], source: str
) -> dict[str, tuple[int, ...]]:
    """Map each class of the images to the outputs that answer it, ascending; to none if the class is left out."""
    for name in chosen:
        if name not in classes and name != OTHERS:
            raise UserError(
                f"{source} maps {name!r}, which is no class of the data. {nearest(name, classes)}"
            )
    groups: dict[str, tuple[int, ...]] = {}
    lost = []
    for name in classes:
        same = [k for k, output in enumerate(outputs) if _bare(output) == _bare(name)]
        if name in chosen:
            groups[name] = _indices(name, chosen[name], outputs, source)
        elif len(same) == 1:
            groups[name] = (same[0],)
        elif OTHERS in chosen:
            groups[name] = _indices(OTHERS, chosen[OTHERS], outputs, source)
        else:
            lost.append(name)
    if lost:
        raise UserError(_lost(lost, classes, outputs, source, bool(chosen)))
    owner: dict[int, str] = {}
    for name, group in groups.items():
        for k in group:
            other = owner.setdefault(k, name)
            if groups[other] != group:
                raise UserError(
                    f"{source}: output {outputs[k]!r} answers both {other!r} and {name!r}, which have other outputs "
                    "besides: give them the same ones, or none in common."
                )
    return groups


def _lost(
    lost: Sequence[str], classes: Sequence[str], outputs: Sequence[str], source: str, has_map: bool
) -> str:
    advice = f'Say which output answers, or null to leave the class out: {{"{lost[0]}": ...}}'
    named = ", ".join(map(repr, lost[:3])) + (", ..." if len(lost) > 3 else "")
    if has_map:
        return f"{source} does not map the class{'es' * (len(lost) > 1)} {named} of the data. {advice}."
    return (
        f"The model answers with {_some(outputs)}, the data has {_some(classes)}, and no output is called {named}. "
        f"{advice}, by --data.class-map FILE.json or '{{...}}'."
    )


def _some(names: Sequence[str]) -> str:
    return f"{len(names)} classes ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def _bare(name: str) -> str:
    """ "01_bird" and "Bird" are the same class."""
    return re.sub(r"^\d+_", "", name).replace("_", " ").casefold()


def _indices(name: str, value: Any, outputs: Sequence[str], source: str) -> tuple[int, ...]:
    """The outputs that a map names for a class, ascending."""
    if value is None:
        return ()
    indices = set()
    for output in value if isinstance(value, list | tuple) and value else [value]:
        if isinstance(output, str):
            if output not in outputs:
                raise UserError(
                    f"{source} maps {name!r} to {output!r}, which the model does not answer with. "
                    f"{nearest(output, outputs)}"
                )
            indices.add(list(outputs).index(output))
        elif type(output) is not int:
            raise UserError(f"{source} must look like {FORM}, and maps {name!r} to {value!r}.")
        elif not 0 <= output < len(outputs):
            raise UserError(
                f"{source} maps {name!r} to output {output}; the model has outputs 0 to {len(outputs) - 1}."
            )
        else:
            indices.add(output)
    return tuple(sorted(indices))


def _read(path: Path) -> dict[str, Any]:
    try:
        loaded = read_json(path.expanduser())
    except OSError as error:
        raise UserError(f"Cannot read the class map {path}: {error.strerror}.") from None
    except ValueError as error:
        raise UserError(f"The class map {path} is not valid JSON: {error}.") from None
    if not isinstance(loaded, dict):
        raise UserError(f"The class map {path} must look like {FORM}.")
    return loaded
