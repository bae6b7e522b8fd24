"""The calls of other libraries in docs/coming-from.md are theirs: they run, and stay within the same budget."""

import re
from pathlib import Path

import pytest
import torch

from counterpart.models import create

PAGE = (Path(__file__).parents[2] / "docs" / "coming-from.md").read_text(encoding="utf-8")
CALLS = re.findall(r"```py\n(.*?)```", PAGE, flags=re.DOTALL)


def test_every_library_has_a_call():
    assert len(CALLS) == 5


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("library", ["torchattacks", "foolbox", "pyautoattack"])
def test_a_call_runs(library):
    pytest.importorskip(library)
    (call,) = [call for call in CALLS if re.search(rf"(import|from) {library}\b", call)]
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create("wrn-10-1", 10, width=4, image_size=8).eval()
        labels = model(images).argmax(1)
        names = {"model": model, "images": images, "labels": labels}
        exec(call, names)
    assert (names["attacked"] - images).abs().max() <= 8 / 255 + 1e-5
