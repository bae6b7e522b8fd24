"""The front door of image files: what is opened at all, how large it may be, and one kind of error for all damage."""

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, BytesIO
from pathlib import Path

from PIL import Image, ImageFile, UnidentifiedImageError

from ..parsing import read_json
from ..parsing.limits import LIMITS, PREFIX, most, refuse_large, refuse_more

BLOCK = 2**20  # bytes; less is read without a look at the size of the file
ORIENTATION, UPRIGHT = 0x0112, 1  # of EXIF
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
"""Of the formats that Pillow knows. For others, such as EPS, it starts programs, or decodes before it knows a size."""


class BoundedFile(BufferedReader):
    """A file that is never asked for more bytes than it has: a damaged chunk of a PNG states gigabytes.

    Python sets the memory aside that is asked for, before it looks how much there is.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        """So many bytes, or all that are there."""
        if size is not None and size > BLOCK:
            size = min(size, max(os.fstat(self.fileno()).st_size - self.tell(), 0))
        return super().read(size)


@contextmanager
def open_image(path: Path, *, header_only: bool = False) -> Iterator[Image.Image]:
    """Open and decode an image file, or the image that a LabelMe file holds as text.

    Args:
        path: the file.
        header_only: decode no pixels; size and metadata are there all the same.

    Raises:
        OSError: there is no such file.
        ValueError: it is damaged, of another format, or has more pixels or bytes than ``parsing.limits`` allow.
    """
    refuse_large(path, "UNPACKED")
    embedded = path.suffix.lower() == ".json"
    _raise_pillows_limit()
    with _embedded(path) if embedded else BoundedFile(path.open("rb", buffering=0)) as file:
        try:
            image = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError:
            subject = "its imageData" if embedded else "it"
            raise ValueError(f"{subject} is no image of the formats {', '.join(FORMATS)}") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ValueError(f"{error} If it is meant, set {PREFIX}PIXELS to a larger number") from None
        except Exception as error:  # Pillow raises whatever the first odd byte leads to
            raise _damaged(error) from None
        yield from _decoded(image, header_only)


def _decoded(image: ImageFile.ImageFile, header_only: bool) -> Iterator[Image.Image]:
    with image:
        refuse_more("PIXELS", image.width * image.height, "pixels")
        if any(tile[0] == "bmp_rle" for tile in image.tile):
            raise ValueError("it is a compressed BMP file, whose size may be wrong by any amount: convert it")
        if not header_only:
            try:
                image.load()
            except Exception as error:
                raise _damaged(error) from None
            refuse_more("PIXELS", image.width * image.height, "pixels")
        yield image


def orientation(image: Image.Image) -> int:
    """The orientation (1 to 8) that the EXIF of an image states; 1, upright, where it states none that there is.

    Raises:
        ValueError: the EXIF is damaged.
    """
    try:
        stated = image.getexif().get(ORIENTATION)
    except Exception as error:  # as above
        raise _damaged(error) from None
    return stated if isinstance(stated, int) and stated in range(UPRIGHT, 9) else UPRIGHT


def _embedded(path: Path) -> BytesIO:
    """The bytes of the image in a LabelMe file."""
    labelled = read_json(path, limit="ANNOTATIONS")
    try:
        return BytesIO(base64.b64decode(labelled["imageData"]))
    except (TypeError, KeyError, ValueError):
        raise ValueError("its imageData is no image") from None


def _raise_pillows_limit() -> None:
    """Let Pillow open what a raised limit allows: it warns at a limit of its own, and refuses twice as many pixels."""
    allowed = most("PIXELS")
    if allowed > LIMITS["PIXELS"] and Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(allowed, Image.MAX_IMAGE_PIXELS)


def _damaged(error: Exception) -> ValueError:
    words = " ".join(str(error).split()) or type(error).__name__
    return ValueError(f"it is damaged or cut off: {words:.200}")
