"""Common corruptions beside the published definitions, written anew with numpy, scipy and loops, on the same draws."""

import colorsys
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.fft import dctn, idctn
from scipy.ndimage import convolve, gaussian_filter, map_coordinates, zoom
from scipy.stats import poisson

from counterpart.data import corruptions
from counterpart.data.corruptions import (
    BENCHMARK,
    CORRUPTIONS,
    EXTRA,
    SEVERITIES,
    constants_for,
    corrupt,
    unfit,
)
from counterpart.data.corruptions.constants import CONSTANTS
from counterpart.data.corruptions.filters import motion
from counterpart.seeding import Keys

SIDE, COUNT = 20, 2
DRAWN = ("gaussian_noise", "shot_noise", "impulse_noise", "glass_blur", "motion_blur", "snow", "frost", "fog",
         "elastic_transform", "speckle_noise", "spatter")  # fmt: skip


def photos(side=SIDE, count=COUNT, channels=3):
    """Smooth colours with hard edges, some of it grey, black or white, at 8 bits."""
    random = np.random.default_rng(0)
    rough = random.random((count, channels, side, side))
    smooth = gaussian_filter(rough, (0, 0, 2, 2))
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    smooth[:, :, 3:8, 3:8] = random.random((count, channels, 1, 1))
    smooth[:, :, -4:, :5] = 0.4
    smooth[0, :, :3, -3:], smooth[0, :, -3:, -3:] = 0, 1
    return torch.from_numpy((255 * smooth).round()).float() / 255


TEXTURES = [
    torch.from_numpy(np.random.default_rng(i).integers(0, 256, (3, 130 + i, 140 - i), dtype=np.uint8))
    for i in range(5)
]
KEYS = Keys(3, "corruption", torch.tensor([5, 77]))


def blurred(x, sigma, mode="nearest", truncate=4.0):
    return gaussian_filter(x, (sigma, sigma) + (0,) * (x.ndim - 2), mode=mode, truncate=truncate)


def clipped_zoom(x, factor):
    side = len(x)
    cut = math.ceil(side / factor)
    top = (side - cut) // 2
    x = zoom(x[top : top + cut, top : top + cut], (factor, factor, 1), order=1)
    top = (len(x) - side) // 2
    return x[top : top + side, top : top + side]


def moved(x, radius, sigma, degrees):
    """A tap at a time."""
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    out = np.zeros_like(x)
    for i, weight in enumerate(weights):
        down = math.ceil(i * math.sin(math.radians(degrees)) - 0.5)
        right = math.ceil(i * math.cos(math.radians(degrees)) - 0.5)
        padded = np.pad(x, ((64, 64), (64, 64), (0, 0)), mode="edge")
        out += weight * padded[64 + down : 64 + down + len(x), 64 + right : 64 + right + len(x)]
    return np.round(255 * out) / 255


def luma(x):
    return (x @ [0.299, 0.587, 0.114])[..., None]


def hsv(x, change):
    out = np.empty_like(x)
    for place in np.ndindex(x.shape[:2]):
        out[place] = colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*x[place])))
    return out


# Each takes an image (H, W, 3) in [0, 1], its strengths, its keys (of one image) and its textures.
def gaussian_noise(x, c, keys, _):
    return x + c * draw(keys.normal, 0, x)


def speckle_noise(x, c, keys, _):
    return x + x * c * draw(keys.normal, 0, x)


def shot_noise(x, c, keys, _):
    u = draw(keys.uniform, 0, x)
    return poisson.ppf(np.maximum(u, 1e-300), x * c) / c


def impulse_noise(x, c, keys, _):
    u = draw(keys.uniform, 0, x)
    x = x.copy()
    x[u < c] = 1 * (u[u < c] < c / 2)
    return x


def draw(kind, step, x):
    return kind(step, (3, *x.shape[:2]))[0].double().numpy().transpose(1, 2, 0)


def gaussian_blur(x, c, keys, _):
    return blurred(x, c)


def defocus_blur(x, c, keys, _):
    radius, sigma = c
    reach, taps = (8, 3) if radius <= 8 else (radius, 5)
    y, z = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = (y**2 + z**2 <= radius**2).astype(float)
    disk /= disk.sum()
    rim = np.exp(-((np.arange(taps) - taps // 2) ** 2) / (2 * sigma**2))
    rim = np.outer(rim, rim) / rim.sum() ** 2
    kernel = convolve(disk, rim, mode="mirror")
    return np.stack([convolve(x[..., i], kernel, mode="mirror") for i in range(3)], axis=2)


def glass_blur(x, c, keys, _):
    sigma, reach, rounds = c
    x = np.floor(255 * blurred(x, sigma) + 2e-4) / 255
    side = len(x)
    for turn in range(rounds):
        shifts = (2 * reach * keys.uniform(turn, (side * side, 2))[0]).long().view(side, side, 2) - reach
        for h in range(side - reach, reach, -1):
            for w in range(side - reach, reach, -1):
                down, right = shifts[h, w].tolist()
                x[h, w], x[h + down, w + right] = (
                    x[h + down, w + right],
                    x[h, w],
                )  # views: no swap, but a copy
    return blurred(x, sigma)


def motion_blur(x, c, keys, _):
    return moved(x, *c, 90 * keys.uniform(0, (1,)).item() - 45)


def zoom_blur(x, c, keys, _):
    factors = np.arange(1, *c)
    return (x + sum(clipped_zoom(x, factor) for factor in factors)) / (len(factors) + 1)


def snow(x, c, keys, _):
    mean, sd, factor, threshold, radius, sigma, mix = c
    flakes = mean + sd * keys.normal(0, (1, *x.shape[:2]))[0, 0].double().numpy()
    flakes = clipped_zoom(flakes[..., None], factor)
    flakes[flakes < threshold] = 0
    flakes = np.floor(255 * flakes.clip(0, 1) + 2e-4) / 255
    flakes = moved(flakes, radius, sigma, 90 * keys.uniform(1, (1,)).item() - 135)
    return mix * x + (1 - mix) * np.maximum(x, 1.5 * luma(x) + 0.5) + flakes + np.rot90(flakes, 2)


def frost(x, c, keys, textures):
    own, other, shrink = c
    texture = textures[int(keys.integers(0, len(textures)))].numpy().transpose(1, 2, 0)
    texture = texture[shrink // 2 :: shrink, shrink // 2 :: shrink]
    top = int(keys.integers(0, texture.shape[0] - len(x), stream=1))
    left = int(keys.integers(0, texture.shape[1] - len(x), stream=2))
    return own * x + other * texture[top : top + len(x), left : left + len(x)] / 255


def fog(x, c, keys, _):
    strength, decay = c
    size, step, wobble, count = 32, 32, 100.0, 0
    heights = np.zeros((size, size))

    def noise(side):
        nonlocal count
        count += 1
        return 2 * keys.uniform(count, (side, side))[0].double().numpy() - 1

    while step >= 2:
        half, side = step // 2, size // step
        draws = noise(side)
        for i in range(side):
            for j in range(side):
                corners = [
                    heights[(i + a) % side * step, (j + b) % side * step] for a in (0, 1) for b in (0, 1)
                ]
                heights[i * step + half, j * step + half] = sum(corners) / 4 + wobble**2 * draws[i, j]
        for axis in (0, 1):  # the middles of horizontal, then of vertical sides
            draws = noise(side)
            for i in range(side):
                for j in range(side):
                    y, z = (i * step, j * step + half) if axis == 0 else (i * step + half, j * step)
                    around = [
                        ((y + a) % size, (z + b) % size)
                        for a, b in ((half, 0), (-half, 0), (0, half), (0, -half))
                    ]
                    heights[y, z] = sum(heights[place] for place in around) / 4 + wobble**2 * draws[i, j]
        step, wobble = half, wobble / decay
    heights = (heights - heights.min()) / np.ptp(heights)
    return (x + strength * heights[: len(x), : len(x), None]) * x.max() / (x.max() + strength)


def brightness(x, c, keys, _):
    return hsv(x, lambda h, s, v: (h, s, min(v + c, 1)))


def saturate(x, c, keys, _):
    return hsv(x, lambda h, s, v: (h, min(max(s * c[0] + c[1], 0), 1), v))


def contrast(x, c, keys, _):
    mean = x.mean(axis=(0, 1))
    return (x - mean) * c + mean


def elastic_transform(x, c, keys, _):
    alpha, sigma, jitter = c
    side, third = len(x), len(x) // 3
    centre = side // 2
    corners = centre + third * np.array([[1, 1], [1, -1], [-1, -1]])
    targets = corners + jitter * (2 * keys.uniform(0, (3, 2))[0].double().numpy() - 1)
    back = np.linalg.solve(np.c_[targets, np.ones(3)], corners)
    z, y = np.meshgrid(np.arange(side), np.arange(side))
    before = np.stack([z, y, np.ones_like(z)], axis=2) @ back
    warped = sampled(x, before[..., 1], before[..., 0], "mirror")
    noise = 2 * keys.uniform(1, (2, side, side))[0].double().numpy() - 1
    right, down = (alpha * blurred(n, sigma, "reflect", 3) if alpha else 0 * n for n in noise)
    return sampled(warped, y + down, z + right, "reflect")


def sampled(x, rows, columns, mode):
    return np.stack(
        [map_coordinates(x[..., i], [rows, columns], order=1, mode=mode) for i in range(3)], axis=2
    )


def pixelate(x, c, keys, _):
    image, small = Image.fromarray(bytes_of(x)), int(len(x) * c)
    image = image.resize((small, small), Image.Resampling.BOX).resize((len(x), len(x)), Image.Resampling.BOX)
    return np.array(image) / 255


def bytes_of(x):
    return (255 * x).round().astype(np.uint8)


def spatter(x, c, keys, _):
    mean, sd, sigma, threshold, amount, kind = c
    liquid = blurred(mean + sd * keys.normal(0, (1, *x.shape[:2]))[0, 0].double().numpy(), sigma)
    liquid[liquid < threshold] = 0
    if kind == "mud":
        cover = blurred((liquid > threshold).astype(float), amount)[..., None]
        cover[cover < 0.8] = 0
        return x * (1 - cover) + cover * np.array([63, 42, 20]) / 255
    depth = (255 * liquid + 2e-4).astype(np.uint8).astype(float)
    far = mean_3(nearest_edge(canny(depth)))
    far = equalised(np.floor(far + 1e-9).astype(int))
    far = convolve(far, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])[::-1, ::-1], mode="mirror").clip(
        0, 255
    )
    light = depth * np.round(mean_3(far))
    return (
        x
        if light.max() == 0
        else x + (amount * light / light.max())[..., None] * np.array([175, 238, 238]) / 255
    )


def mean_3(x):
    return convolve(x.astype(float), np.full((3, 3), 1 / 9), mode="mirror")


def canny(x):
    """OpenCV's, pixel by pixel, with a walk along each edge."""
    side, padded = len(x), np.pad(x, 1, mode="edge")
    smooth = [1, 2, 1]
    dx = sum(k * (padded[i : i + side, 2:] - padded[i : i + side, :-2]) for i, k in enumerate(smooth))
    dy = sum(k * (padded[2:, i : i + side] - padded[:-2, i : i + side]) for i, k in enumerate(smooth))
    size = np.pad(abs(dx) + abs(dy), 1)
    candidate, strong = np.zeros((side, side), bool), []
    for h, w in np.ndindex(side, side):
        here, angle = size[h + 1, w + 1], math.degrees(math.atan2(abs(dy[h, w]), abs(dx[h, w])))
        at = lambda a, b, h=h, w=w: size[h + 1 + a, w + 1 + b]  # noqa: E731
        if angle < 22.5:
            thin = here > at(0, -1) and here >= at(0, 1)
        elif angle > 67.5:
            thin = here > at(-1, 0) and here >= at(1, 0)
        else:
            s = -1 if (dx[h, w] < 0) != (dy[h, w] < 0) else 1
            thin = here > at(-1, -s) and here > at(1, s)
        candidate[h, w] = thin and here > 50
        if candidate[h, w] and here > 150:
            strong.append((h, w))
    edge = np.zeros_like(candidate)
    while strong:
        h, w = strong.pop()
        if 0 <= h < side and 0 <= w < side and candidate[h, w] and not edge[h, w]:
            edge[h, w] = True
            strong += [(h + a, w + b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
    return edge


def nearest_edge(edge):
    """From every edge to every pixel: the shortest way of straight, diagonal and knight's steps, of all mixtures."""
    one, two, knight = 65536, 91750, 143976
    length = np.zeros((len(edge), len(edge)))
    for far, near in np.ndindex(length.shape):
        far, near = max(far, near), min(far, near)
        rests = [(k, far - 2 * k, near - k) for k in range(min(near, far // 2) + 1)]
        length[far, near] = length[near, far] = min(
            k * knight + min(a, b) * two + abs(a - b) * one for k, a, b in rests
        )
    h, w = np.indices(edge.shape)
    found = [length[abs(h - y), abs(w - z)] / 65536 for y, z in zip(*np.nonzero(edge), strict=True)]
    return np.minimum(20, np.min(found, axis=0)) if found else np.full(edge.shape, 20.0)


def equalised(x):
    counts = np.bincount(x.ravel(), minlength=256)
    first = x.min()
    if counts[first] == x.size:
        return x
    table = np.round((counts.cumsum() - counts[first]) * 255 / (x.size - counts[first]))
    return table[x].astype(int)


LUMINANCE = np.array(
    [[16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56],
     [14, 17, 22, 29, 51, 87, 80, 62], [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
     [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99]]
)  # fmt: skip


def grey_jpeg(x, quality):
    """Standard JPEG of one channel without its lossless part: 8 x 8 cosines, rounded by the scaled table."""
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    table = np.floor((LUMINANCE * scale + 50) / 100).clip(1, 255)
    out = np.empty_like(x)
    for h in range(0, len(x), 8):
        for w in range(0, len(x), 8):
            waves = dctn(x[h : h + 8, w : w + 8] - 128, norm="ortho")
            out[h : h + 8, w : w + 8] = idctn(np.round(waves / table) * table, norm="ortho") + 128
    return out.round().clip(0, 255)


@pytest.mark.parametrize("constants", ["cifar", "imagenet"])
@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name != "jpeg_compression"])
def test_the_published_definition(name, constants):
    """Within one level of 255, and that rarely: where a value is cut off near a whole level."""
    images, textures = photos(), [t[:, :26, :27] for t in TEXTURES] if constants == "imagenet" else TEXTURES
    for severity in SEVERITIES:
        ours = corrupt(images, name, severity, KEYS, constants=constants, frost=textures)
        for i in range(COUNT):
            x, keys = images[i].double().numpy().transpose(1, 2, 0), KEYS[i : i + 1].fold(name, severity)
            wanted = globals()[name](x, CONSTANTS[constants][name][severity - 1], keys, textures)
            levels = np.floor(255 * wanted.clip(0, 1) + 2e-4)
            difference = abs(255 * ours[i].double().numpy().transpose(1, 2, 0) - levels)
            assert difference.max() < 1.01, severity
            assert (difference > 0.01).mean() < 0.01, severity


@pytest.mark.parametrize("quality", [7, 25, 40, 65, 80])
def test_jpeg_is_the_standard_one(quality, monkeypatch):
    # No flat parts: their waves lie halfway between two steps, and libjpeg's whole numbers fall either way.
    random = gaussian_filter(np.random.default_rng(1).random((24, 24)), 1)
    images = torch.from_numpy((900 * (random - 0.36)).clip(0, 255).round()).float()[None, None] / 255
    monkeypatch.setitem(CONSTANTS["cifar"], "jpeg_compression", [quality])
    ours = 255 * corrupt(images, "jpeg_compression", 1, KEYS[:1])[0, 0].double().numpy()
    difference = abs(ours - grey_jpeg(255 * images[0, 0].double().numpy(), quality))
    assert (difference > 2.01).mean() < 0.05
    assert difference.mean() < 0.2


def test_jpeg_of_colour_is_pillows():
    images = photos()
    file = io.BytesIO()
    Image.fromarray(bytes_of(images[1].numpy().transpose(1, 2, 0))).save(file, "JPEG", quality=58)
    wanted = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float() / 255
    assert torch.equal(corrupt(images, "jpeg_compression", 3, KEYS)[1], wanted)


def test_solvable_by_hand():
    grey = torch.full((1, 3, 16, 16), 100 / 255)
    keys = KEYS[:1]
    assert (255 * corrupt(grey, "brightness", 3, keys)).unique().tolist() == pytest.approx(
        [138]
    )  # 100 + 38.25
    half = grey.clone()
    half[..., 8:] = 200 / 255
    assert (255 * corrupt(half, "contrast", 2, keys)).unique().tolist() == pytest.approx([125, 175])
    for name in ("gaussian_blur", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "elastic_transform",
                 "pixelate", "contrast"):  # fmt: skip
        assert torch.equal(corrupt(grey, name, 5, keys), grey), name
    line = torch.zeros(1, 1, 16, 16)
    line[..., 8, 8] = 1
    # To the right by whole pixels: what lies there shows here, so that the dot smears to the left.
    smeared = motion(line, 2, 1.0, torch.zeros(1))[0, 0]
    weights = np.exp([0, -0.5, -2])
    assert smeared[8, 6:9].tolist() == pytest.approx(
        list(np.round(255 * weights[::-1] / np.exp(-(np.arange(5) ** 2) / 2).sum()) / 255)
    )
    assert smeared[:8].sum() == smeared[9:].sum() == smeared[8, 9:].sum() == 0


def test_water_deeper_than_255_starts_again_at_0():
    image, c = photos(count=1), CONSTANTS["cifar"]["spatter"][2]
    keys = Keys(3, "corruption", torch.tensor([9]))
    drawn = keys.fold("spatter", 3)
    assert blurred(c[0] + c[1] * drawn.normal(0, (1, SIDE, SIDE))[0, 0].numpy(), c[2]).max() > 1.1
    ours = 255 * corrupt(image, "spatter", 3, keys)[0].double().numpy().transpose(1, 2, 0)
    wanted = 255 * spatter(image[0].double().numpy().transpose(1, 2, 0), c, drawn, None).clip(0, 1)
    assert abs(ours - np.floor(wanted + 2e-4)).max() < 1.01


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_is_corrupted_the_same_in_every_batch(name):
    images = photos(count=5)
    keys = Keys(0, "corruption", torch.arange(5))
    whole = corrupt(images, name, 3, keys, frost=TEXTURES)
    assert torch.equal(whole, corrupt(images, name, 3, keys, frost=TEXTURES))
    for part in (slice(1, 2), slice(2, 5)):
        assert torch.equal(whole[part], corrupt(images[part], name, 3, keys[part], frost=TEXTURES))
    last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(whole, corrupt(last, name, 3, keys, frost=TEXTURES))
    levels = 255 * whole
    assert (levels - levels.round()).abs().max() < 1e-4
    other = corrupt(images, name, 3, Keys(1, "corruption", torch.arange(5)), frost=TEXTURES)
    assert torch.equal(whole, other) == (name not in DRAWN)
    same = corrupt(images[:1].expand(5, -1, -1, -1), name, 3, keys, frost=TEXTURES)
    assert torch.equal(same[0], same[1]) == (name not in DRAWN)


def test_large_batches_are_made_in_parts_and_empty_ones_stay_empty(monkeypatch):
    images, keys = photos(count=5), Keys(0, "corruption", torch.arange(5))
    whole = corrupt(images, "snow", 2, keys)
    monkeypatch.setattr(corruptions, "AT_ONCE", 2 * images[0].numel())
    assert torch.equal(corrupt(images, "snow", 2, keys), whole)
    assert corrupt(images[:0], "jpeg_compression", 2, keys[:0]).shape == (0, *images.shape[1:])


def test_severities_have_draws_of_their_own():
    images = photos()
    noises = [(corrupt(images, "gaussian_noise", s, KEYS) - images).flatten() for s in SEVERITIES]
    assert torch.corrcoef(torch.stack(noises)).fill_diagonal_(0).abs().max() < 0.1


@pytest.mark.parametrize("constants", ["cifar", "imagenet"])
def test_distortion_grows_with_severity(constants):
    """Of a mild and a strong one; some published severities between are not in order."""
    images = photos(32, 6)
    keys = Keys(0, "corruption", torch.arange(6))
    for name in CORRUPTIONS:
        if name in ("saturate", "elastic_transform"):  # which change their kind with severity
            continue
        frost = TEXTURES if constants == "imagenet" else [t.repeat(1, 2, 2) for t in TEXTURES]
        mild, strong = (
            (corrupt(images, name, s, keys, constants=constants, frost=frost) - images).square().mean()
            for s in (1, 5)
        )
        assert strong > mild > 0, name


def test_the_table_is_complete():
    assert (*BENCHMARK, *EXTRA) == tuple(CORRUPTIONS)
    assert len(BENCHMARK) == 15
    for table in CONSTANTS.values():
        assert set(table) == set(CORRUPTIONS)
        assert {len(strengths) for strengths in table.values()} == {5}
    assert (constants_for(32, 32), constants_for(64, 64), constants_for(96, 80)) == (
        "cifar",
        "cifar",
        "imagenet",
    )


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name != "saturate"])
def test_images_of_one_channel(name):
    images = photos(channels=1)
    found = corrupt(images, name, 5, KEYS, frost=TEXTURES)
    assert found.shape == images.shape
    if name not in ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "jpeg_compression"):
        # As the luma of the same image in grey colours, but for the rounding of each channel.
        colour = corrupt(images.expand(-1, 3, -1, -1), name, 5, KEYS, frost=TEXTURES)
        grey = torch.einsum("bchw,c->bhw", colour, torch.tensor([0.299, 0.587, 0.114]))
        difference = (255 * (found[:, 0] - grey)).abs()
        assert difference.mean() < 1  # overlays are clipped before they turn grey, or after
        assert difference.max() < (25 if name in ("spatter", "snow", "frost") else 1.01)


def test_what_cannot_be_corrupted_is_refused():
    images = photos()
    refused = [
        (("fgo", 1, images, {}), "no corruption is called 'fgo'"),
        (("fog", 6, images, {}), "severity 6 is none of 1 to 5"),
        (("frost", 1, images, {}), "there are no frost textures"),
        (("saturate", 1, images[:, :1], {}), "one channel have no colour"),
        (("fog", 1, images[:, :2], {}), "1 or 3 channels"),
        (("fog", 1, images[..., :12], {}), "16 pixels a side"),
        (("fog", 1, 255 * images, {}), "Divide 8-bit images by 255"),
        (
            ("frost", 1, images, {"frost": [t[:, :30] for t in TEXTURES]}),
            "smaller than its textures.* 28 x 6 here",
        ),
    ]
    for (name, severity, given, options), message in refused:
        with pytest.raises(ValueError, match=message):
            corrupt(given, name, severity, KEYS, **options)
    assert unfit("fog", 1, False) is None


def test_images_need_not_be_square():
    images = photos(24)[..., :18]
    for name in CORRUPTIONS:
        assert corrupt(images, name, 2, KEYS, frost=TEXTURES).shape == images.shape
