"""Recipes: complete runs as YAML files, by name (``cifar10/part``) or by path.

A file that says ``base: cifar10/at`` holds only what differs from that built-in recipe. Part models have every model
of ``part-models`` on all data of ``part-models/on``: ``cityscapes/pixel`` is on/cityscapes.yaml, then pixel.yaml.
"""

import textwrap
from pathlib import Path
from typing import Any

import yaml

from ..config import Config, merge, plain, read_yaml, readable, resolve, settings
from ..errors import UserError, nearest

_FOLDER = Path(__file__).parent
_PARTS = _FOLDER / "part-models"


def names() -> list[str]:
    """The names of all built-in recipes, sorted."""
    files = [path for path in _FOLDER.rglob("*.yaml") if not path.is_relative_to(_PARTS)]
    written = [path.relative_to(_FOLDER).with_suffix("").as_posix() for path in files]
    models, data = _PARTS.glob("*.yaml"), [path.stem for path in (_PARTS / "on").glob("*.yaml")]
    return sorted(written + [f"{name}/{model.stem}" for model in models for name in data])


def headline(name: str) -> str:
    """The comment that a built-in recipe opens with, which says what it is."""
    lines = []
    for path in reversed(_files(name)):
        with path.open(encoding="utf-8") as file:
            lines.append(file.readline().removeprefix("#").strip())
    return " ".join(lines)


def load(recipe: str) -> dict[str, Any]:
    """The settings of a recipe. The run is named after the recipe, unless the settings hold a name.

    Args:
        recipe: a built-in name, or the path of a .yaml file.

    Raises:
        UserError: there is no such recipe or base; the message holds the nearest name.
    """
    path = Path(recipe).expanduser()
    if path.suffix in (".yaml", ".yml"):
        if not path.exists() and (built_in := path.with_suffix("").as_posix()) in names():
            raise UserError(
                f"There is no file {recipe}. The built-in recipe is called {built_in}, without {path.suffix}."
            )
        recipe_settings, name = _on_base(path), path.stem
    elif recipe in names():
        recipe_settings, name = _built_in(recipe), recipe.replace("/", "-")
    else:
        raise UserError(f"no recipe is called {recipe!r}. {nearest(recipe, names())} Or name a .yaml file.")
    return {**recipe_settings, "name": recipe_settings.get("name") or name}


def _files(name: str) -> list[Path]:
    """The files of a built-in recipe: a single one, or for part models that of the data and that of the model."""
    data, _, model = name.partition("/")
    both = [_PARTS / "on" / f"{data}.yaml", _PARTS / f"{model}.yaml"]
    return both if both[0].exists() else [_FOLDER / f"{name}.yaml"]


def _built_in(name: str) -> dict[str, Any]:
    return merge(*map(_on_base, _files(name)))


def _on_base(path: Path) -> dict[str, Any]:
    """Read a file on top of its base, which is a built-in recipe, or for part models a file beside it."""
    in_file = read_yaml(path)
    base = in_file.pop("base", None)
    if base is None:
        return in_file
    if path.is_relative_to(_PARTS):
        return merge(_on_base(path.with_name(f"{base}.yaml")), in_file)
    if base not in names():
        raise UserError(f"{path}: base {base!r:.60} is no built-in recipe. {nearest(str(base), names())}")
    return merge(_built_in(base), in_file)


def show(recipe: str) -> str:
    """A recipe as YAML with every setting under its meaning: a file to edit and to train from."""
    config = resolve(load(recipe), source=recipe)
    about = headline(recipe) if recipe in names() else f"{recipe}, every setting resolved."
    return write_out(config.model_copy(update={"name": None}), about)


def write_out(config: Config, about: str) -> str:
    """A configuration as such a file, which opens with the comment ``about``."""
    values, section = plain(config), ""
    lines = [f"# {about}"]
    for key, info in settings():
        if info.exclude:  # it is of a command, not of a run
            continue
        *head, leaf = key.split(".")
        indent = "  " * len(head)
        if head and head[0] != section:
            section = head[0]
            lines += ["", f"{section}:"]
        comment = f"{indent}# "
        lines += textwrap.wrap(
            info.description or "",
            110,
            initial_indent=comment,
            subsequent_indent=comment,
            break_on_hyphens=False,
        )
        value = values[section].get(leaf, info.default) if head else values[leaf]
        lines.append(f"{indent}{leaf}: {_yaml(value)}")
    return "\n".join(lines) + "\n"


def _yaml(value: object) -> str:
    """A value as YAML in one line, in which fractions stay readable."""
    if isinstance(value, float):
        return readable(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_yaml(v)}" for k, v in value.items() if v is not None) + "}"
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
