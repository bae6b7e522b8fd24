"""The page in headless Chromium: everything loads, nothing runs wrong, nothing overflows, all can read it."""

import pytest

from counterpart.report import write_report

from ..browser import axe, look, print_page
from .pages import KINDS, everything, ten_models

WIDTHS = [390, 768, 1920]

# Whatever stands in a region that scrolls by itself may be wider than the page; the worst case may not hide there.
PROBE = """
<script>
const errors = [];
window.addEventListener("error", e => errors.push(String(e.message || e.target.src).slice(0, 80)), true);
window.addEventListener("securitypolicyviolation", e => errors.push("tried to load " + e.blockedURI));
window.later = new Promise(resolve => window.addEventListener("load", async () => {
  const page = document.documentElement, all = selector => [...document.querySelectorAll(selector)];
  const first = document.querySelector(".word, .over-all").getBoundingClientRect();
  all("details").forEach(d => d.open = true);
  const images = all("img");
  await Promise.all(images.map(image => image.decode().catch(() => {})));
  const hidden = all("#headline tbody td.worst").filter(cell => {
    const box = cell.getBoundingClientRect(), around = cell.closest(".scroll").getBoundingClientRect();
    return box.width < 30 || box.left < around.left - 1 || box.right > around.right + 1;
  });
  const found = {
    errors, width: window.innerWidth, dark: matchMedia("(prefers-color-scheme: dark)").matches,
    broken: images.filter(i => !(i.complete && i.naturalWidth > 0)).length,
    tiny: images.filter(i => i.getBoundingClientRect().width < 30).length,
    without_alt: images.filter(i => !i.alt).length,
    overflow: page.scrollWidth - page.clientWidth,
    outside: all("main *, header *").filter(
      e => !e.closest(".scroll *") && e.getBoundingClientRect().right > page.clientWidth + 1).length,
    cut: window.innerWidth < 640 ? all(".cards tbody :is(td, th)").filter(cell => {
      const box = cell.getBoundingClientRect(), around = cell.closest(".scroll").getBoundingClientRect();
      return box.right > around.right + 1;
    }).length : 0,
    split: all(".tiles div").filter(tile => tile.scrollWidth > tile.clientWidth + 1).length,
    worst_cases: all("#headline tbody td.worst").length,
    hidden: hidden.length, verdict_at_first_sight: first.bottom < 900,
  };
  const check = await axe.run(document, {resultTypes: ["violations"]});
  const open = document.querySelector(".open");
  if (open) {
    open.click();
    const opened = await axe.run(document.querySelector("dialog"), {resultTypes: ["violations"]});
    check.violations.push(...opened.violations);
  }
  found.rules = check.passes.length;
  found.violations = check.violations.map(
    v => [v.id, v.nodes.length, v.nodes[0].html.slice(0, 200), v.nodes[0].failureSummary.slice(0, 300)]);
  const out = document.createElement("pre");
  out.id = "findings"; out.textContent = JSON.stringify(found); document.body.append(out);
  resolve();
}));
</script>
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_kind_of_page_can_be_read_at_three_widths(make_run, records, tmp_path, kind, scheme):
    page = write_report(kind(make_run, records))
    for width, found in zip(
        WIDTHS, look(page, WIDTHS, tmp_path, f"<script>{axe()}</script>{PROBE}", scheme), strict=True
    ):
        assert found.pop("violations") == []
        assert found.pop("rules") > 15  # axe did look
        assert found.pop("worst_cases") > 0
        assert found.pop("verdict_at_first_sight")
        assert found.pop("dark") == (scheme == "dark")
        nothing = dict.fromkeys(
            ("broken", "tiny", "without_alt", "overflow", "outside", "hidden", "cut", "split"), 0
        )
        assert found == {"errors": [], "width": width, **nothing}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "last"),
    [
        (everything, ["this sentence is as long as some are", "that, shifted", "Common corruptions"]),
        (ten_models, ["judged on", "digits validation at 16x16 pixels"]),
    ],
    ids=["everything", "ten models"],
)
def test_a_printed_page_has_all_tables_whole_and_no_controls(make_run, records, tmp_path, kind, last):
    """Nothing stands beyond the edge of the paper, and nothing is there that paper cannot do."""
    pypdf = pytest.importorskip("pypdf")
    pages = pypdf.PdfReader(print_page(write_report(kind(make_run, records)), tmp_path)).pages
    right_ends, words = [], []

    def note(text, turned, matrix, *_):
        if text.strip():
            right_ends.append(turned[0] * matrix[4] + turned[2] * matrix[5] + turned[4])

    for page in pages:
        words.append(page.extract_text(visitor_text=note))
        assert max(right_ends) < page.mediabox.width
    said = " ".join(" ".join(words).split())
    assert len(pages) <= 14
    for control in ("Copy as", "Look closely", "Take it along", "Search rows", "↕"):
        assert control not in said
    for text in last:
        assert text in said


ACT = """
<script>
window.later = new Promise(resolve => window.addEventListener("load", () => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const found = {};
  const press = words => all("button").find(button => button.textContent === words).click();
  let copied = "";
  document.execCommand = () => { copied = document.activeElement.value; };
  Object.defineProperty(navigator, "clipboard", {value: {writeText: () => Promise.reject()}});
  const names = () => all("#headline tbody th").map(th => th.firstChild.textContent);
  found.before = names();
  const heading = all("#headline thead th").find(th => th.textContent.includes("worst case"));
  heading.querySelector("button").click();
  found.falling = [names(), heading.getAttribute("aria-sort")];
  heading.querySelector("button").click();
  found.rising = [names(), heading.getAttribute("aria-sort")];
  const box = all(".tools input[type=checkbox]")[0];
  box.click();
  found.hidden = all("#headline tbody tr").every(row => row.cells[heading.cellIndex - 1].hidden || row.cells[2].hidden);
  const label = all("#filters label").find(label => label.textContent.startsWith("outcome"));
  const outcome = label.querySelector("select");
  outcome.value = "fooled";
  outcome.dispatchEvent(new Event("change"));
  found.fooled = all(".sample").filter(sample => !sample.hidden).length;
  found.outcomes = [...outcome.options].map(option => option.value);
  outcome.value = "";
  outcome.dispatchEvent(new Event("change"));
  press("Look closely");
  const dialog = document.querySelector("dialog[open]");
  const over = dialog.querySelector("select");
  over.value = "map";
  over.dispatchEvent(new Event("change"));
  const range = dialog.querySelector("input[type=range]");
  range.value = 30;
  range.dispatchEvent(new Event("input"));
  found.closely = [all(".stage img", dialog).length, dialog.querySelector(".stage").style.getPropertyValue("--cut")];
  found.scripts = all("script").length;
  all("button", dialog).find(button => button.textContent === "Close").click();
  press("Copy as LaTeX");
  setTimeout(() => {
    found.latex = copied;
    press("Copy as CSV");
    setTimeout(() => {
      found.csv = copied;
      found.open = all("dialog").length;
      const out = document.createElement("pre");
      out.id = "findings"; out.textContent = JSON.stringify(found); document.body.append(out);
      resolve();
    }, 200);
  }, 200);
}));
</script>
"""


@pytest.mark.slow
def test_a_reader_sorts_hides_filters_looks_closely_and_copies(study, tmp_path):
    (found,) = look(write_report(study), [1280], tmp_path, ACT)
    assert found["before"] == ["AT", "PART", "PART, uniform control"]
    assert found["falling"] == [["PART", "AT", "PART, uniform control"], "descending"]
    assert found["rising"] == [["PART, uniform control", "AT", "PART"], "ascending"]
    assert found["hidden"]
    assert found["fooled"] == 3  # of each of the three panels the first image
    assert found["outcomes"] == ["", "fooled", "held"]
    assert found["closely"] == [4, "30%"]  # clean, attacked, and the map over both
    assert found["open"] == 0
    head, *_ = latex = found["latex"].splitlines()
    assert head.startswith(r"\begin{tabular}{lrr")
    assert latex[1] == r"\toprule"
    assert r"48.70 (45.6--51.8)" in found["latex"]
    assert "PGD-20" not in found["latex"]  # a column that is hidden is not copied
    assert '"PART, uniform control (uniform)",75.00' in found["csv"]
