"""The page of an explanation, also in headless Chromium: at three widths, dark and light, accessible and whole."""

import numpy as np
import pytest
import torch
from PIL import Image

import counterpart as cp
from counterpart.report.explanation_page import APART, ExplainedImage, height_of, points_of, render_page

from ..browser import axe, look

# Pictures below the fold are loaded first, so that those that are broken show.
PROBE = """
<script>
window.later = new Promise(resolve => window.addEventListener("load", async () => {
  const images = [...document.images], page = document.documentElement;
  images.forEach(image => image.loading = "eager");
  await Promise.allSettled(images.map(image => image.decode()));
  const found = await axe.run(document, {resultTypes: ["violations"]});
  const out = document.createElement("pre");
  out.id = "findings";
  out.textContent = JSON.stringify({
    width: window.innerWidth, dark: matchMedia("(prefers-color-scheme: dark)").matches, images: images.length,
    broken: images.filter(image => !image.naturalWidth).length,
    tiny: images.filter(image => image.getBoundingClientRect().width < 60).length,
    overflow: page.scrollWidth - page.clientWidth,
    outside: [...document.querySelectorAll("main *")].filter(
      e => !e.closest(".scroll *") && e.getBoundingClientRect().right > page.clientWidth + 1).length,
    rules: found.passes.length, violations: found.violations.map(
      v => [v.id, v.nodes[0].html.slice(0, 200), v.nodes[0].failureSummary.slice(0, 300)]),
  });
  document.body.append(out);
  resolve();
}));
</script>
"""


@pytest.fixture
def page(net, images, labels, tmp_path):
    """Eight images with masks and parts, one with a long name, of classes with long names."""
    masks = torch.zeros(8, 8, 8, dtype=torch.uint8)
    masks[:6, :4] = 1
    seen = cp.explain(net, images[:8], labels[:8], masks=masks, steps=2, changes={"mask.layer": "conv"})
    object.__setattr__(seen, "parts", masks.long())
    object.__setattr__(seen, "attacked_parts", masks.long() * 2)
    names = ["a-photograph-of-a-rather-long-name-" * 5 + ".png", *(f"{number}.png" for number in range(7))]
    classes = ["golden retriever (n02099601)", "a-class-of-a-rather-long-name-without-a-space", "c", "d"]
    return seen.save(tmp_path / "explained", names=names, classes=classes) / "index.html"


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (768, "light"), (1920, "dark")])
def test_the_page_is_whole_and_accessible(page, width, scheme):
    [found] = look(page, [width], page.parent, f"<script>{axe()}</script>{PROBE}", scheme, "'self'")
    assert found["violations"] == []
    assert found["rules"] > 10  # it did look
    assert (found["width"], found["dark"], found["images"]) == (width, scheme == "dark", 8 * 10)
    assert (found["broken"], found["tiny"], found["overflow"], found["outside"]) == (0, 0, 0, 0)


def test_clean_and_attacked_stand_side_by_side(page):
    pairs = page.read_text(encoding="utf-8").split('<div class="pair">')[1:6]
    titles = [[part.partition("<")[0] for part in pair.split("<figcaption>")[1:]] for pair in pairs]
    assert titles == [
        ["image", "attacked"],
        ["map", "map under attack"],
        ["radius", "radius under attack"],
        ["parts", "parts under attack"],
        ["perturbation", "object"],
    ]
    with Image.open(page.parent / "pictures" / "0001-object.png") as picture:
        pixels = np.array(picture).astype(int)
    with Image.open(page.parent / "pictures" / "0001-image.png") as picture:
        photograph = np.array(picture).astype(int)
    assert (pixels[:4] == photograph[:4]).all()
    assert np.abs(pixels[4:] - photograph[4:] / 4).max() <= 1


def test_curves_lie_where_their_values_say():
    assert points_of([1.0, 0.5, 0.0]) == "28.0,28.0 142.0,85.0 256.0,142.0"
    row = dict.fromkeys(
        ("image", "class explained", "prediction", "prediction under attack"), "n02099601"
    ) | dict.fromkeys(("confidence", "confidence under attack", "overlap of masks"), 0.5)
    row |= dict.fromkeys(("rank correlation of maps", "pointing", "pointing under attack"))
    means = [{"class": "n02099601", "images": 1, "answers that change": 0.0, "overlap of masks": None}]
    text = render_page([ExplainedImage(row, [])], means, [], ([0.5, 0.5], [0.4, 0.49]))
    assert "golden retriever (n02099601)" in text  # a WordNet id by its name
    assert "all are taken for" not in text
    same = [ExplainedImage(row, [])] * 2
    assert "all are taken for golden retriever (n02099601)." in render_page(same, means, [], ([], []))
    other = ExplainedImage({**row, "prediction": "cat"}, [])
    assert "all are taken for" not in render_page([*same, other], means, [], ([], []))
    middle = (height_of(0.5) + height_of(0.49)) / 2
    for label, height in (("deletion", middle - APART / 2), ("insertion", middle + APART / 2)):
        assert f'y="{height + 4}">{label}</text>' in text
