"""The front door of image files: few formats, limits on pixels and bytes, one kind of error."""

import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from counterpart.data.decoding import decode, header_size
from counterpart.data.opening import FORMATS, BoundedFile, open_image, orientation
from counterpart.errors import UserError
from counterpart.parsing.limits import LIMITS


def chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def bomb(width: int, height: int) -> bytes:
    """A PNG file that states this size, of grey pixels, and holds a few rows of it."""
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x00\x00\x00\x00"
    rows = zlib.compress(bytes(width + 1))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("header_only", [True, False])
def test_more_pixels_than_the_limit_are_refused_before_they_are_decoded(tmp_path, header_only):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(10_000, 8_947))
    if header_only:
        assert header_size(path) == (8_947, 10_000)
    path.write_bytes(bomb(10_000, 8_949))
    read = header_size if header_only else decode
    with pytest.raises(
        UserError, match=r"bomb\.png: .*89,490,000 pixels.*COUNTERPART_MOST_PIXELS|exceeds limit"
    ):
        read(path)


def test_the_limit_on_pixels_can_be_set(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    Image.new("L", (50, 40)).save(path)
    monkeypatch.setenv("COUNTERPART_MOST_PIXELS", "2000")
    assert decode(path).shape == (3, 40, 50)
    monkeypatch.setenv("COUNTERPART_MOST_PIXELS", "1999")
    with pytest.raises(UserError, match=r"2,000 pixels are more than 1,999: .* set COUNTERPART_MOST_PIXELS"):
        decode(path)
    monkeypatch.setenv("COUNTERPART_MOST_PIXELS", "many")
    with pytest.raises(UserError, match="COUNTERPART_MOST_PIXELS=many: expected a positive number"):
        decode(path)


def test_a_raised_limit_lets_pillow_open_what_it_would_refuse(tmp_path, monkeypatch):
    path = tmp_path / "wide.png"
    path.write_bytes(bomb(30_000, 6_000))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", LIMITS["PIXELS"])
    with pytest.raises(UserError, match=r"wide\.png"):
        header_size(path)
    monkeypatch.setenv("COUNTERPART_MOST_PIXELS", "200e6")
    assert header_size(path) == (6_000, 30_000)


def test_a_file_larger_than_its_limit_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    Image.new("L", (50, 40)).save(path)
    with path.open("r+b") as file:
        file.truncate(2 * 10**11)  # takes no room on the disk
    with pytest.raises(UserError, match=r"200,000,000,000 bytes .*COUNTERPART_MOST_UNPACKED"):
        decode(path)


@pytest.mark.parametrize("kind", ["EPS", "ICO", "TGA", "PDF"])
def test_formats_for_which_pillow_starts_programs_or_knows_no_size_are_refused(tmp_path, kind):
    path = tmp_path / "x.png"
    Image.new("RGB", (16, 16)).save(path, kind)
    with pytest.raises(UserError, match="it is no image of the formats JPEG, PNG"):
        decode(path)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_other_formats_are_read(tmp_path, kind):
    path = tmp_path / "x.png"
    Image.new("RGB", (16, 12), (200, 200, 200)).save(path, kind)
    pixels = decode(path).numpy().astype(int)
    assert pixels.shape == (3, 12, 16)
    assert np.abs(pixels - 200).max() <= 8  # GIF has a palette, JPEG loses some


def test_a_compressed_bitmap_is_refused(tmp_path):
    """Of 70 bytes, a jump by 255 rows of 30 million pixels: 7.6 GB."""
    head = b"BM" + (70).to_bytes(4, "little") + bytes(4) + (58).to_bytes(4, "little")
    sizes = (40).to_bytes(4, "little") + (30_000_000).to_bytes(4, "little") + (1).to_bytes(4, "little")
    about = (1).to_bytes(2, "little") + (8).to_bytes(2, "little") + (1).to_bytes(4, "little")
    numbers = bytes(4) + bytes(8) + (1).to_bytes(4, "little") + bytes(4)
    path = tmp_path / "x.bmp"
    path.write_bytes(head + sizes + about + numbers + bytes(4) + b"\x00\x02\x00\xff\x00\x01")
    with pytest.raises(UserError, match=r"x\.bmp: it is a compressed BMP file"):
        decode(path)


@pytest.mark.parametrize("stated", [6, 3, 0, 9, 700])
def test_an_orientation_that_there_is_counts(tmp_path, stated):
    exif = Image.Exif()
    exif[0x0112] = stated
    Image.new("RGB", (8, 8)).save(tmp_path / "x.jpg", exif=exif)
    with open_image(tmp_path / "x.jpg", header_only=True) as image:
        assert orientation(image) == (stated if stated in range(1, 9) else 1)


def test_a_pipe_does_not_hang(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from counterpart.data.decoding import decode\n"
        "os.mkfifo(sys.argv[1]); decode(Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.png")],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "it is no regular file" in done.stderr.splitlines()[-1]


def test_a_chunk_that_states_gigabytes_asks_for_no_memory(tmp_path):
    """Python sets aside what a read asks for, before it looks how much there is."""
    file = tmp_path / "file"
    file.write_bytes(bytes(range(250)) * 5000)
    with BoundedFile(file.open("rb", buffering=0)) as opened:
        assert opened.read(10) == bytes(range(10))
        tracemalloc.start()
        rest = opened.read(2**40)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert rest == file.read_bytes()[10:]
    assert peak < 2**23


def test_an_image_beyond_pillows_own_limit_is_no_damaged_one(tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(bomb(14_000, 14_000))
    with (
        pytest.raises(ValueError, match="set COUNTERPART_MOST_PIXELS to a larger number") as refused,
        open_image(path),
    ):
        pass
    assert "damaged" not in str(refused.value)
