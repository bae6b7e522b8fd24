"""The page in headless Chromium: everything loads, nothing runs wrong, nothing overflows."""

import pytest

from counterpart.report import write_report

from ..browser import axe_source, look


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_page_renders_cleanly(study, tmp_path, width):
    findings = look(write_report(study), width, tmp_path)
    assert findings.pop("images") == 3 + 1 + 2 + (5 + 5 + 4) * 4  # plots, radius scale, pair, panels of four
    nothing = dict.fromkeys(("broken", "tiny", "without_alt", "overflow", "outside"), 0)
    assert findings == {"errors": [], "width": width, **nothing}


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_parts_fit_the_page(make_run, records, tmp_path, width):
    names = [f"{owner} {part}" for owner in ("aeroplane", "quadruped", "car") for part in range(14)]
    runs = []
    for method in ("AT", "a method of a rather long name"):
        run = make_run(method.replace(" ", "-"), "at", eps_low=len(method))
        run.add(records.metrics(method, {"clean": 0.5, "worst case": 0.4}))
        values = {f"{name} {how}": 0.5 for how in ("clean", "under PGD-20", "under PGD-20 on the parts")
                  for name in ("pixel accuracy", "pixel accuracy without background", "mIoU")}  # fmt: skip
        run.add(records.part_metrics(values, per_part={name: (0.4, 20) for name in names}))
        records.panel(run, size=48, parts=["background", *names])
        runs.append(run.path)
    findings = look(write_report(runs), width, tmp_path)
    assert findings.pop("images") == 1 + 1 + 2 + 2 * (
        5 * 4 + 3 * 3 + 2
    )  # a plot, the scale, the pair, two panels
    nothing = dict.fromkeys(("broken", "tiny", "without_alt", "overflow", "outside"), 0)
    assert findings == {"errors": [], "width": width, **nothing}


@pytest.mark.slow
def test_long_names_do_not_widen_a_phone_page(make_run, records, tmp_path):
    runs = []
    for i in range(8):
        run = make_run(f"{'a-very-long-run-name-' * 4}{i}", "part", eps_low=i)
        run.add(records.epochs(1, burn_in=1))
        run.add(records.metrics("PART, uniform control", {"clean": 0.5, "worst case": 0.4}, key=f"{i:064d}"))
        run.add(records.metrics("PART, uniform control", {"clean": 0.5}, n=10, key="another"))
        records.panel(run, key=f"{i:064d}")
        runs.append(run.path)
    findings = look(write_report(runs), 390, tmp_path)
    assert (findings["errors"], findings["overflow"], findings["outside"]) == ([], 0, 0)


AXE = """
<script>
window.later = new Promise(resolve => window.addEventListener("load", async () => {
  document.querySelectorAll("details").forEach(d => d.open = true);
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const found = await axe.run(document, {resultTypes: ["violations"]});
  document.querySelector(".open").click();
  const opened = await axe.run(document.querySelector("dialog"), {resultTypes: ["violations"]});
  found.violations.push(...opened.violations);
  const out = document.createElement("pre");
  out.id = "findings";
  out.textContent = JSON.stringify({dark, rules: found.passes.length, violations: found.violations.map(
    v => [v.id, v.nodes.length, v.nodes[0].html.slice(0, 200), v.nodes[0].failureSummary.slice(0, 300)])});
  document.body.append(out);
  resolve();
}));
</script>
"""


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light"), (1920, "dark")])
def test_axe_finds_no_violation(study, make_run, records, tmp_path, width, scheme):
    """axe-core, which looks for what keeps people from reading a page: contrast, names, roles, order."""
    axe = axe_source()
    part_model = make_run("parts", "at", eps_low=3)
    part_model.add(records.metrics("AT", {"clean": 0.5, "worst case": 0.4}, doubts={"gap": "Look."}))
    part_model.add(records.part_metrics({"mIoU clean": 0.5}, per_part={"head": (0.4, 20)}))
    records.panel(part_model, size=48, parts=["background", "head", "tail"])
    page = write_report([*study, part_model.path])
    found = look(page, width, tmp_path, f"<script>{axe}</script>{AXE}", scheme)
    assert found["violations"] == []
    assert found["dark"] == (scheme == "dark")
    assert found["rules"] > 15  # it did look


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
    found = look(write_report(study), 1280, tmp_path, ACT)
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
