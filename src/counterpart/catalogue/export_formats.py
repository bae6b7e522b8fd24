"""The formats that a model can be exported in, and the names of files that each has."""

from pathlib import Path

from ..errors import UserError, nearest

EXPORT_FORMATS = {
    "state-dict": (".pt", ".pth"),
    "safetensors": (".safetensors",),
    "torch-export": (".pt2",),
    "onnx": (".onnx",),
}


def export_format(file: Path, asked: str | None = None) -> str:
    """The format of a file that is about to be written: the one that is asked for, or that its name says.

    Raises:
        UserError: there is no such format, or the name of the file belongs to another one.
    """
    if asked is not None and asked not in EXPORT_FORMATS:
        raise UserError(f"no format is called {asked!r}. {nearest(asked, EXPORT_FORMATS)}")
    if asked is not None and file.suffix not in EXPORT_FORMATS[asked]:
        raise UserError(
            f"{file} is no name for the format {asked}: it ends with {' or '.join(EXPORT_FORMATS[asked])}."
        )
    for name, suffixes in EXPORT_FORMATS.items():
        if file.suffix in suffixes:
            return name
    endings = ", ".join(suffix for suffixes in EXPORT_FORMATS.values() for suffix in suffixes)
    raise UserError(f"{file} does not say which format it shall have: end it with one of {endings}.")
