"""Recipes: complete runs as YAML files, by name (``cifar10/part``) or by path."""

import textwrap
from pathlib import Path
from typing import Any

import yaml

from ..config import plain, read_yaml, readable, resolve, settings
from ..errors import UserError, nearest

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Every built-in recipe."""
    return sorted(
        str(path.relative_to(_FOLDER).with_suffix("").as_posix()) for path in _FOLDER.rglob("*.yaml")
    )


def headline(name: str) -> str:
    """What a built-in recipe is: the comment that it opens with."""
    with (_FOLDER / f"{name}.yaml").open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


def load(recipe: str) -> dict[str, Any]:
    """The settings of a recipe, its run named after it unless it says otherwise.

    Args:
        recipe: a built-in name, or the path of a .yaml file.

    Raises:
        UserError: if there is no such recipe, with the nearest name.
    """
    path = Path(recipe).expanduser()
    if path.suffix in (".yaml", ".yml"):
        found, name = read_yaml(path), path.stem
    elif recipe in names():
        found, name = read_yaml(_FOLDER / f"{recipe}.yaml"), recipe.replace("/", "-")
    else:
        raise UserError(f"no recipe is called {recipe!r}. {nearest(recipe, names())} Or name a .yaml file.")
    return {**found, "name": found.get("name") or name}


def show(recipe: str) -> str:
    """A recipe as YAML with every setting, each under its meaning; a file to edit and to train from."""
    config = resolve(load(recipe), source=recipe)
    values, section = {**plain(config), "name": None}, ""
    lines = [f"# {headline(recipe)}" if recipe in names() else f"# {recipe}, every setting resolved."]
    for key, info in settings():
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
        value = values[section][leaf] if head else values[leaf]
        lines.append(f"{indent}{leaf}: {_yaml(value)}")
    return "\n".join(lines) + "\n"


def _yaml(value: object) -> str:
    """One value in one line; fractions stay readable."""
    if isinstance(value, float):
        return readable(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_yaml(v)}" for k, v in value.items() if v is not None) + "}"
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
