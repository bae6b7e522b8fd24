"""Recipes: complete runs as YAML files, by name (``cifar10/part``) or by path.

A file that says ``base: cifar10/at`` holds only what differs from that built-in recipe.
"""

import textwrap
from pathlib import Path
from typing import Any

import yaml

from ..config import merge, plain, read_yaml, readable, resolve, settings
from ..errors import UserError, nearest

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Every built-in recipe."""
    return sorted(
        str(path.relative_to(_FOLDER).with_suffix("").as_posix()) for path in _FOLDER.rglob("*.yaml")
    )


def headline(name: str) -> str:
    """What a built-in recipe is: the comment that it opens with."""
    with _built_in(name).open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


def load(recipe: str) -> dict[str, Any]:
    """The settings of a recipe, its run named after it unless it says otherwise.

    Args:
        recipe: a built-in name, or the path of a .yaml file.

    Raises:
        UserError: if there is no such recipe or base, with the nearest name.
    """
    path = Path(recipe).expanduser()
    if path.suffix in (".yaml", ".yml"):
        name = path.stem
    elif recipe in names():
        path, name = _built_in(recipe), recipe.replace("/", "-")
    else:
        raise UserError(f"no recipe is called {recipe!r}. {nearest(recipe, names())} Or name a .yaml file.")
    found = _on_base(path)
    return {**found, "name": found.get("name") or name}


def _built_in(name: str) -> Path:
    return _FOLDER / f"{name}.yaml"


def _on_base(path: Path) -> dict[str, Any]:
    """What a file says, on top of its base's settings."""
    found = read_yaml(path)
    base = found.pop("base", None)
    if base is None:
        return found
    if base not in names():
        raise UserError(f"{path}: base {base!r} is no built-in recipe. {nearest(str(base), names())}")
    return merge(_on_base(_built_in(base)), found)


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
