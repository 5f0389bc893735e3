"""The evidence page in a real browser, served with the policy that Jenkins sets for artifacts."""

from __future__ import annotations

import functools
import http.server
import shutil
import subprocess
import threading

import matplotlib.image
import numpy as np
import pytest

from pipeline.reports.evidence import render
from tests.unit.test_evidence_page import VERDICT, evidence

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
POLICY = "sandbox; default-src 'none'; img-src 'self'; style-src 'self'"
QUIET = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH (Debian: apt install chromium)"),
]


class Artifacts(http.server.SimpleHTTPRequestHandler):
    def end_headers(self):
        self.send_header("Content-Security-Policy", POLICY)
        super().end_headers()

    def log_message(self, *words):
        pass


@pytest.mark.parametrize("width", [1200, 420])
def test_nothing_is_blocked_and_colours_and_plots_are_there(tmp_path, width):
    for name, content in render(evidence(), VERDICT).items():
        (tmp_path / name).write_bytes(content)
    handler = functools.partial(Artifacts, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/evidence.html"
        command = [CHROMIUM, "--headless", "--no-sandbox", *QUIET, f"--user-data-dir={tmp_path / 'profile'}"]
        shot = tmp_path / "shot.png"
        more = ["--enable-logging=stderr", "--v=0", f"--screenshot={shot}", f"--window-size={width},2600", url]
        done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=90, check=True)
        server.shutdown()
    assert "Content Security Policy" not in done.stderr
    pixels = (matplotlib.image.imread(shot)[:, :, :3] * 255).round().astype(int)
    assert has(pixels, (0xFD, 0xEE, 0xEC)), "the verdict's background comes from the stylesheet"
    assert has(pixels, (0x1F, 0x5F, 0xC4)), "the challenger's curve comes from a plot"


def has(pixels, colour):
    return bool((np.abs(pixels - np.array(colour)).max(axis=2) <= 2).sum() > 50)
