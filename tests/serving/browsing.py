"""A server in this process for a browser, and a page of it that must not have failed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask


@contextmanager
def serving(app: Flask) -> Iterator[str]:
    """Serve an application on a free port of this machine; yield its address, which ends in a slash."""
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}/"
    finally:  # or the thread would outlive the tests
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def opened(browser: Any, url: str, picture: str, patience_ms: float) -> Iterator[Any]:
    """Open a page and wait for what the selector `picture` finds; no script of it may have failed at the end."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page, faults = context.new_page(), []
    page.set_default_timeout(patience_ms)
    page.on("pageerror", lambda error: faults.append(str(error)))
    try:
        page.goto(url)
        page.wait_for_selector(picture)
        yield page
    finally:
        context.close()
    assert faults == []
