"""The page in headless Chromium: everything loads, nothing runs wrong, nothing overflows."""

import html
import json
import re
import shutil
import subprocess

import pytest

from counterpart.report import write_report

PROBE = """
<script>
const errors = [];
window.addEventListener("error", e => errors.push(String(e.message || e.target.src).slice(0, 80)), true);
window.addEventListener("securitypolicyviolation", e => errors.push("tried to load " + e.blockedURI));
window.addEventListener("load", () => {
  document.querySelectorAll("details").forEach(d => d.open = true);
  const page = document.documentElement, images = [...document.images];
  const findings = {
    errors, images: images.length, width: window.innerWidth,
    broken: images.filter(i => !(i.complete && i.naturalWidth > 0)).length,
    tiny: images.filter(i => i.getBoundingClientRect().width < 30).length,
    without_alt: images.filter(i => !i.alt).length,
    overflow: page.scrollWidth - page.clientWidth,
    outside: [...document.querySelectorAll("main *, header *")].filter(
      e => !e.closest(".scroll *") && e.getBoundingClientRect().right > page.clientWidth + 1).length,
  };
  const out = document.createElement("pre");
  out.id = "findings"; out.textContent = JSON.stringify(findings); document.body.append(out);
});
</script>
"""


def look(page, width, tmp_path):
    """Open a copy of the page with a probe inside, in a frame of the wanted width, and return its findings.

    Headless windows are at least 500 pixels wide, so that a phone's width needs a frame.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs chromium on PATH to render the page")
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">{PROBE}'
    probed = page.read_text(encoding="utf-8").replace("<head>", f"<head>{head}", 1)
    frame = tmp_path / "frame.html"
    copy = "document.body.textContent = 'FINDINGS' + f.contentDocument.getElementById('findings').textContent + 'END'"
    frame.write_text(
        f'<!doctype html><body><iframe id="f" style="border:0;width:{width}px;height:900px" '
        f'onload="{copy}" srcdoc="{html.escape(probed)}"></iframe>'
    )
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={tmp_path / 'browser'}", f"--window-size={max(width, 500)},900",
        "--dump-dom", frame.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r"FINDINGS(.*)END</body>", done.stdout, re.DOTALL)
    assert found, f"the page never finished loading: {done.stderr[-500:]}"
    return json.loads(html.unescape(found[1]))


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_page_renders_cleanly(study, tmp_path, width):
    findings = look(write_report(study), width, tmp_path)
    assert findings.pop("images") == 3 + 1 + (5 + 5 + 4) * 4  # plots, radius scale, panels of four images
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
    assert findings.pop("images") == 1 + 1 + 2 * (5 * 4 + 3 * 3 + 2)  # a plot, the radius scale, two panels
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
