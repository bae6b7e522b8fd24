"""A page in headless Chromium, with a probe inside that reports what it finds; shared by the tests of every page."""

import html
import importlib.resources
import json
import re
import shutil
import subprocess

import pytest

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


def look(page, width, tmp_path, probe=PROBE, scheme="light", pictures="data:"):
    """Open a copy of the page with a probe inside, in a frame of the wanted width, and return its findings.

    Headless windows are at least 500 pixels wide, so that a phone's width needs a frame. What a probe finds later than
    its page is loaded, it waits for in ``window.later``. ``tmp_path`` is where the frame is written: a page whose
    ``pictures`` are "file:" has them there.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs chromium on PATH to render the page")
    policy = f"default-src 'none'; img-src {pictures}; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">{probe}'
    probed = page.read_text(encoding="utf-8").replace("<head>", f"<head>{head}", 1)
    frame = tmp_path / "frame.html"
    copy = (
        "Promise.resolve(f.contentWindow.later).then(() => { document.body.textContent = "
        "'FINDINGS' + f.contentDocument.getElementById('findings').textContent + 'END' })"
    )
    frame.write_text(
        f'<!doctype html><body><iframe id="f" style="border:0;width:{width}px;height:900px" '
        f'onload="{copy}" srcdoc="{html.escape(probed)}"></iframe>'
    )
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={tmp_path / 'browser'}", f"--window-size={max(width, 500)},900",
        f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}", "--virtual-time-budget=60000",
        "--dump-dom", frame.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r"FINDINGS(.*)END</body>", done.stdout, re.DOTALL)
    assert found, f"the page never finished loading: {done.stderr[-500:]}"
    return json.loads(html.unescape(found[1]))


def axe_source():
    """axe-core, which looks for what keeps people from reading a page: contrast, names, roles, order."""
    axe_core = pytest.importorskip("axe_core_python")
    return (importlib.resources.files(axe_core) / "axe.min.js").read_text(encoding="utf-8")
