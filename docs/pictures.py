"""The pictures of the console in README and docs, made of a running demo in which things break.

    python -m docs.pictures            # three minutes; needs a Chromium

Run it where the fonts are that the pictures are to have (Inter, JetBrains Mono).
"""

import contextlib
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from docs.browser import Page, browser

FOLDER = Path(__file__).parent / "pictures"
START_S = 90.0
WARM_S = 100.0  # until curves and heat maps are filled
LEVERS_S = {"drop": 15.0, "consumer": 12.0, "bridge": 25.0}  # what is broken, and for how long
AGO_MS = 60_000
COLOURS = 160  # of a picture: what is drawn here has few


class Shot(NamedTuple):
    """One picture: its file, the page, the window, the theme."""

    name: str
    path: str
    size: tuple[int, int]
    theme: str
    ago_ms: int = 0  # a market: as it was so long before


SHOTS = (
    Shot("now", "", (1280, 800), "dark"),
    Shot("market", "market?symbol=SOL_USDC", (1440, 860), "dark"),
    Shot("then", "market?symbol=SOL_USDC", (1440, 620), "light", AGO_MS),
    Shot("consumers", "consumers", (1280, 760), "light"),
    Shot("gaps", "gaps", (1280, 760), "light"),
    Shot("latency", "latency", (1280, 860), "dark"),
    Shot("phone", "market?symbol=SOL_USDC", (360, 780), "light"),
)


@contextlib.contextmanager
def running_demo(folder: Path) -> Iterator[str]:
    """A demo; its console's address with the token."""
    log = folder / "demo.txt"
    with log.open("wb") as output:
        demo = subprocess.Popen(
            [sys.executable, "-m", "demo", "--folder", str(folder / "demo"), "--rate", "150"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s:
            if found := re.search(r"http://\S+/#token=\w+", log.read_text("utf-8")):
                yield found.group()
                return
            time.sleep(0.2)  # between two questions
        raise SystemExit(f"the demo did not start:\n{log.read_text('utf-8')}")
    finally:
        demo.send_signal(signal.SIGTERM)
        demo.wait()


def take(page: Page, address: str) -> None:
    """All pictures. The page keeps the token from here on."""
    page.open(address)
    time.sleep(WARM_S)
    for lever, seconds in LEVERS_S.items():
        page.run(f"import('/static/core.js').then((c) => c.post('/api/levers/{lever}', {{}}))")
        time.sleep(seconds)
    base = address.partition("#")[0]
    for shot in SHOTS:
        page.size(*shot.size)
        page.prefers(prefers_color_scheme=shot.theme)
        then = f"&at={time.time_ns() // 1_000_000 - shot.ago_ms}" if shot.ago_ms else ""
        page.open(base + shot.path + then)
        time.sleep(6)  # a few polls
        page.run("document.getElementById('levers').remove()" if shot.name == "phone" else "0")
        path = FOLDER / f"console-{shot.name}.png"
        page.picture(path)
        shrink(path)


def shrink(path: Path) -> None:
    """Fewer colours: a third of the bytes."""
    from PIL import Image

    with Image.open(path) as image:
        image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Make them all."""
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="pictures-") as folder,
        running_demo(Path(folder)) as address,
        browser() as page,
    ):
        page.size(1280, 800)
        take(page, address)


if __name__ == "__main__":
    main()
