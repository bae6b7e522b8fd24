"""The table of sizes: counted without computing, and refused in one line."""

import pytest

from counterpart.cli import main
from counterpart.models.sizes import size_of


def test_sizes_by_hand():
    """mnist-cnn at 28 pixels: two convolutions of 4 x 4 and stride 2, two linear layers."""
    size = size_of({"name": "mnist-cnn", "num_classes": 10, "in_channels": 1, "image_size": 28})
    products = 14 * 14 * 16 * 16 + 7 * 7 * 32 * 16 * 16 + 32 * 49 * 100 + 100 * 10
    assert size.operations == 2 * products
    assert size.parameters == 16 * 16 + 16 + 32 * 16 * 16 + 32 + 32 * 49 * 100 + 100 + 1000 + 10


def test_the_table_names_what_it_is_asked(capsys):
    options = [
        "--encoder",
        "timm/test_resnet",
        "--parts",
        "6",
        "--classes",
        "3",
        "--size",
        "64",
        "--model.depth",
        "3",
    ]
    assert main(["models", "parts/pixel", "parts/downsampled", *options]) == 0
    header, pixel, downsampled = capsys.readouterr().out.splitlines()
    assert header.split() == ["model", "image", "classes", "parts", "parameters", "GFLOP", "per", "image"]
    assert pixel.split()[:4] == ["parts/pixel", "64", "3", "6"]
    heads = [int(row.split()[4].replace(",", "")) for row in (pixel, downsampled)]
    conv, norm, hidden, norm2, last = 7 * 16 * 35 + 35, 2 * 35, 35 * 50 + 50, 2 * 50, 50 * 3 + 3
    assert heads[1] - heads[0] == conv + norm + hidden + norm2 + last


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["parts/pixle"], "Did you mean 'parts/pixel'?"),
        (["parts/pixel", "--pool", "8"], "model.pool 8 has no effect with model.name parts/pixel"),
        (["--pool", "8"], "name the networks that these settings are for"),
        (["resnet18", "--size", "big"], "'big' must be a whole number"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys):
    assert main(["models", *words]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert len(printed.splitlines()) == 1
