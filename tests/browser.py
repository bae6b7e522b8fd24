"""Pages in headless Chromium: a probe inside the page answers, at one width after the other."""

import importlib.resources
import json
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue

import pytest

SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
POLICY = "default-src 'none'; img-src {pictures}; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
FRAME = """<!doctype html><body><script>
const page = __PAGE__, found = [];
(async () => {
  for (const width of __WIDTHS__) {
    const frame = document.createElement("iframe");
    frame.style = `border:0;width:${width}px;height:900px`;
    const loaded = new Promise(resolve => { frame.onload = resolve; });
    frame.srcdoc = page;
    document.body.append(frame);
    await loaded;
    await frame.contentWindow.later;
    found.push(JSON.parse(frame.contentDocument.getElementById("findings").textContent));
    frame.remove();
  }
  await fetch("/findings", {method: "POST", body: JSON.stringify(found)});
})();
</script>"""
PATIENCE = 240  # seconds, on a machine with other work


class Answers(SimpleHTTPRequestHandler):
    """Serves a folder to the browser, and takes what the probe sends back."""

    def __init__(self, *arguments, answers, **options):
        self.answers = answers
        super().__init__(*arguments, **options)

    def do_POST(self):
        """The findings, which end the visit."""
        self.answers.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments):
        """Nothing: the tests say what is wrong."""


def chromium() -> str:
    """The browser; without one the test is skipped."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path is not None:
            return path
    pytest.skip("needs chromium on PATH to render the page")


def look(page, widths, folder, probe, scheme="light", pictures="data:"):
    """Open copies of a page with a probe inside, in frames of the wanted widths, and return what each finds.

    Headless windows are at least 500 pixels wide, so that a phone's width needs a frame. What a probe finds later than
    its page is loaded, it waits for in ``window.later``. Whatever the page would load from elsewhere is refused. The
    frames are written to ``folder``: a page whose ``pictures`` are "'self'" has them there.
    """
    head = f'<meta http-equiv="Content-Security-Policy" content="{POLICY.format(pictures=pictures)}">{probe}'
    probed = page.read_text(encoding="utf-8").replace("<head>", f"<head>{head}", 1)
    text = json.dumps(probed).replace("</", "<\\/")
    (folder / "frame.html").write_text(
        FRAME.replace("__WIDTHS__", json.dumps(widths)).replace("__PAGE__", text), encoding="utf-8"
    )
    answers = Queue()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Answers, directory=folder, answers=answers))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = [
        chromium(), *SWITCHES, f"--user-data-dir={folder / 'browser'}", "--window-size=1940,900",
        f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}", "--remote-debugging-port=0",
        f"http://127.0.0.1:{server.server_port}/frame.html",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
        try:
            return answers.get(timeout=PATIENCE)
        finally:
            browser.terminate()
            server.shutdown()
            server.server_close()


def axe() -> str:
    """axe-core as a script, which looks for what keeps people from reading a page; without it the test is skipped."""
    axe_core = pytest.importorskip("axe_core_python")
    return (importlib.resources.files(axe_core) / "axe.min.js").read_text(encoding="utf-8")


def print_page(page: Path, folder: Path) -> Path:
    """The page as a PDF file, as somebody prints it."""
    printed = folder / f"{page.stem}.pdf"
    command = [
        chromium(), *SWITCHES, f"--user-data-dir={folder / 'printer'}", "--no-pdf-header-footer",
        f"--print-to-pdf={printed}", "--virtual-time-budget=20000", page.as_uri(),
    ]  # fmt: skip
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    return printed
