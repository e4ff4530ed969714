"""Time the page in a browser: until its first picture, and from a slider's movement to the galaxy asked for.

    python benchmarks/page_latency.py
    python benchmarks/page_latency.py --checkpoint checkpoints/first/latest.pt --drags 20

Starts app.py as a process of its own and headless Chromium beside it, takes a thumb with the mouse and pulls it to and
fro. A movement's latency ends with the first frame that holds the picture of that value or of a later one. The page's
first picture is timed from the beginning of the visit, by a browser that has kept nothing, of a server that has drawn
before. Prints one JSON object and two lines. Needs Chromium and requirements-dev.txt.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import timing
from galaxies.command_line import Parser, run_script
from galaxies.common import hardware
from galaxies.common.errors import UserError

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_ROOT = Path(__file__).resolve().parent.parent
_MOVES_PER_DRAG = 60
_MS_BETWEEN = 16  # as a mouse reports its movements
_BROWSER_OPTIONS = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
# Notes when the slider moves and when a picture is first painted; what the page asks for stands in `data-query`.
_WATCH = """name => {
    window.moves = [];
    window.pictures = [];
    const slider = document.getElementById(`slider-${name}`);
    slider.addEventListener("input", (event) => {
        window.moves.push({ at: event.timeStamp, value: Number(slider.value) });
    }, { capture: true });
    const picture = document.querySelector("#figure-a .picture");
    new MutationObserver(() => {
        const value = Number(new URLSearchParams(picture.dataset.query).get(name));
        requestAnimationFrame(() => setTimeout(() => window.pictures.push({ at: performance.now(), value })));
    }).observe(picture, { attributeFilter: ["data-query"] });
}"""

# Notes when the first picture is painted, from the beginning of the visit.
_FIRST = """new MutationObserver((_, observer) => {
    if (!document.querySelector("#figure-a .picture[data-query]")) return;
    observer.disconnect();
    requestAnimationFrame(() => setTimeout(() => { window.firstPicture = performance.now(); }));
}).observe(document, { subtree: true, childList: true, attributeFilter: ["data-query"] });"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; see the module's docstring."""
    options = _parser().parse_args(argv)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise UserError("playwright is not installed: see requirements-dev.txt") from None
    names = ("chromium", "chromium-browser", "google-chrome")
    if (browser_path := next(filter(None, map(shutil.which, names)), None)) is None:
        raise UserError("no Chromium is installed")
    with _server(options.checkpoint) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=_BROWSER_OPTIONS)
        page = browser.new_page(viewport={"width": options.width, "height": options.height})
        page.goto(address)
        page.wait_for_selector("#figure-a .picture[data-query]")
        page.wait_for_load_state("networkidle")
        latencies, pictures = _drag(page, options.slider, options.drags)
        visits = [_first_picture(browser, address, options.width, options.height) for _ in range(options.visits)]
        version = browser.version
        browser.close()
    if not latencies:
        raise UserError(f"the slider of {options.slider} did not move")
    median, p95, worst = (float(np.percentile(latencies, part)) for part in (50, 95, 100))
    sizes = {"moves": len(latencies), "pictures": pictures, "width": options.width, "height": options.height}
    row = timing.row(f"slider {options.slider} to picture", [ms / 1e3 for ms in latencies], 1)
    facts = {"p95_ms": round(p95, 1), "worst_ms": round(worst, 1), "browser": f"Chromium {version}"}
    first = timing.row("visit to first picture", [ms / 1e3 for ms in visits], 1)
    timing.print_result("page_latency", hardware.describe(torch.device("cpu")), sizes, [row, first], facts)
    print(
        f"slider to picture: median {median:.0f} ms, p95 {p95:.0f} ms, worst {worst:.0f} ms "
        f"({len(latencies)} movements, {pictures} pictures)",
        file=sys.stderr,
    )
    print(f"visit to first picture: median {np.median(visits):.0f} ms, worst {max(visits):.0f} ms", file=sys.stderr)


def _parser() -> Parser:
    parser = Parser(prog="page_latency.py", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="checkpoint to serve (default: the newest)")
    parser.add_argument("--slider", default="size", metavar="NAME", help="attribute whose slider moves (default: size)")
    parser.add_argument(
        "--drags", type=timing.at_least(1), default=8, metavar="N", help="pulls from one end to the other (default: 8)"
    )
    parser.add_argument(
        "--visits", type=timing.at_least(1), default=5, metavar="N", help="visits of the page (default: 5)"
    )
    for name, default in (("width", 1440), ("height", 900)):
        parser.add_argument(
            f"--{name}",
            type=timing.at_least(320),
            default=default,
            metavar="PX",
            help=f"{name} of the window (default: {default})",
        )
    return parser


@contextmanager
def _server(checkpoint: Path | None) -> Iterator[str]:
    """Run app.py on a free port; yields its address."""
    chosen = [] if checkpoint is None else ["--checkpoint", str(checkpoint.resolve())]
    command = [sys.executable, str(_ROOT / "app.py"), "--port", "0", *chosen]
    server = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        found = next(filter(None, (re.search(r"http://\S+/", line) for line in server.stdout)), None)
        if found is None:
            raise UserError("app.py ended without an address; see its message above")
        yield found[0]
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


def _first_picture(browser: Browser, address: str, width: int, height: int) -> float:
    """Visit the page as somebody who comes first; return milliseconds to its first picture."""
    context = browser.new_context(viewport={"width": width, "height": height})
    context.add_init_script(_FIRST)
    page = context.new_page()
    page.goto(address, wait_until="commit")
    found = page.wait_for_function("() => window.firstPicture").json_value()
    context.close()
    return float(found)


def _drag(page: Page, name: str, drags: int) -> tuple[list[float], int]:
    """Pull a slider to and fro; return milliseconds from each movement to its picture, and the number of pictures."""
    page.evaluate(_WATCH, name)
    slider = page.locator(f"#slider-{name}")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    assert box is not None  # it is in view
    middle, margin = box["y"] + box["height"] / 2, 0.1 * box["width"]
    latencies: list[float] = []
    pictures = 0
    for number in range(drags):
        ends = [box["x"] + margin, box["x"] + box["width"] - margin]
        start, stop = ends if number % 2 == 0 else ends[::-1]
        page.evaluate("window.moves.length = window.pictures.length = 0")
        page.mouse.move(start, middle)
        page.mouse.down()
        for move in range(1, _MOVES_PER_DRAG + 1):
            page.mouse.move(start + (stop - start) * move / _MOVES_PER_DRAG, middle)
            page.wait_for_timeout(_MS_BETWEEN)
        page.mouse.up()
        page.wait_for_timeout(400)
        watched: dict[str, Any] = page.evaluate("({ moves: window.moves, pictures: window.pictures })")
        latencies += _latencies(watched["moves"], watched["pictures"])
        pictures += len(watched["pictures"])
    return latencies, pictures


def _latencies(moves: list[dict[str, float]], pictures: list[dict[str, float]]) -> list[float]:
    """Return for each movement the milliseconds to the first picture of its value or of a later movement's."""
    order = {move["value"]: index for index, move in enumerate(moves)}  # a drag in one direction repeats none
    shown = sorted((picture["at"], order[picture["value"]]) for picture in pictures if picture["value"] in order)
    found = []
    for index, move in enumerate(moves):
        at = next((at for at, newest in shown if newest >= index), None)
        if at is not None:
            found.append(at - move["at"])
    return found


if __name__ == "__main__":
    run_script(main)
