"""What every answer of the server has, and which requests it does not even look at."""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Sequence

# The one script within the page, by its hash: it gives the page's address the slash at its end that a proxy may have
# left out, before anything is looked for below it.
INLINE_SCRIPT = "sha256-RdbPQZ5WFsELES8yJl/ChpEa3EoFXwil8IgX9iKl5LE="
_POLICY = (
    f"default-src 'none'; script-src 'self' '{INLINE_SCRIPT}'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",  # a notebook shows it beside its cells
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_LOOPBACK, _EVERYWHERE = ("localhost", "127.0.0.1", "::1"), ("0.0.0.0", "::")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def is_own_host(header: str, bound: str, others: Sequence[str] = ()) -> bool:
    """Tell whether a Host header names this server.

    A page from elsewhere can make a name of its own point to this machine (DNS rebinding), and would then read what
    the server answers. It cannot do so with localhost, nor with an address in digits.

    Parameters
    ----------
    header : str
        As it was sent; any port will do, since tunnels change it.
    bound : str
        Name or address that the server listens on.
    others : sequence of str
        Names of proxies that pass their own on, as jupyter-server-proxy does.

    Notes
    -----
    Flask's TRUSTED_HOSTS cannot do this, in werkzeug 3.1.0 to 3.1.9: an entry ends at its first colon, so that no IPv6
    address can be one; names are compared as they are written, and LOCALHOST is refused; nothing says "any address",
    which 0.0.0.0 needs; and the older ones take whatever follows a colon for a port, as in ``localhost:x``.
    """
    if not (found := _HOST.fullmatch(header)):
        return False
    name = found[1].strip("[]").lower()
    return name in (*_LOOPBACK, bound.lower(), *map(str.lower, others)) or (bound in _EVERYWHERE and _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class OneLineFormatter(logging.Formatter):
    """Write messages so that no part of a request can pretend to be a line of the log."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """Return the message with its control characters written as escapes."""
        return _escaped(super().formatMessage(record))

    def formatException(self, ei) -> str:  # noqa: N802
        """Return the traceback, each line set in."""
        return "\n".join(f"    {_escaped(line)}" for line in super().formatException(ei).splitlines())


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
