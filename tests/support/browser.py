"""A headless Chromium: the page as it stands after loading, and what the console said.

Standard library only. It talks to nobody: pages are files."""

import os
import re
import shutil
import subprocess
import tempfile

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MISSING = "needs Chromium; jobs/dependencies.sh tests installs it where there is a package"
LIGHT, DARK = 1, 0  # Chromium's own numbers of its preferredColorScheme
TIMEOUT_SECONDS = 120

# Reads how the page is shown, from the page's own copy below.
PROBE = """
const color = (element, property) => getComputedStyle(element)[property];
const box = element => {
    const b = element.getBoundingClientRect();
    return [b.left, b.top, b.right, b.bottom];
};
const result = {
    page: color(document.body, "backgroundColor"),
    width: document.documentElement.scrollWidth,
    window: innerWidth,
    lines: [...document.querySelectorAll(".line")].map(e => color(e, "stroke")),
    fills: [...document.querySelectorAll("svg text")].map(e => color(e, "fill")),
    texts: [...document.querySelectorAll("h1, p, td, th, li, figcaption")].map(e => color(e, "color")),
    plots: [...document.querySelectorAll("svg.plot")].map(e => ({
        box: box(e), texts: [...e.querySelectorAll("text")].map(box),
        curves: [...e.querySelectorAll(".line, .marker")].map(box),
    })),
};
const element = document.createElement("script");
element.type = "application/json";
element.id = "probe";
element.textContent = JSON.stringify(result);
document.body.append(element);
"""


def load(path, scheme=LIGHT, width=1240):
    """(DOM as text, [console messages]) of a file."""
    with tempfile.TemporaryDirectory(prefix="espalier-browser-") as profile:
        done = subprocess.run(
            [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
             "--no-first-run", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--disable-dev-shm-usage", f"--user-data-dir={profile}",
             f"--window-size={width},900", f"--blink-settings=preferredColorScheme={scheme}",
             "--enable-logging=stderr", "--dump-dom", "file://" + os.path.abspath(path)],
            capture_output=True, text=True, timeout=TIMEOUT_SECONDS, stdin=subprocess.DEVNULL,
            env={**os.environ, "HOME": profile},
        )
    if done.returncode != 0 or "<html" not in done.stdout:
        raise AssertionError(f"chromium ended with {done.returncode}:\n{done.stderr}")
    return done.stdout, re.findall(r":CONSOLE[:(]\d+[\])] (.*)", done.stderr)


def probed(page):
    """A copy of a page's text that also says how it is shown (PROBE)."""
    page = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", page)
    return page.replace("</body>", f"<script>{PROBE}</script></body>")
