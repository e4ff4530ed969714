"""Listen on an address and serve an application to many at a time, with limits on all that a request may take."""

from __future__ import annotations

import logging
import socket
import sys
from typing import Any

import waitress

from galaxies.common.errors import UserError
from galaxies.serving.security import OneLineFormatter

MOST_BODY = 16 * 1024  # bytes; no request needs one
_MOST_HEADERS = 16 * 1024
_MOST_CONNECTIONS = 400  # waiting included; on Windows a process can watch 512
_IDLE_S = 30  # after which a connection is closed


def bind(host: str, port: int) -> socket.socket:
    """Take an address for a server; port 0 is any free one.

    Raises
    ------
    UserError
        If another program has it, or there is no such address here.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:  # a name of nonsense cannot even be encoded
        raise _not_bound(host, port, error) from None
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows lets two programs have one port otherwise
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # also just after another server's end
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _not_bound(host, port, error) from None
    return listener


def _not_bound(host: str, port: int, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or error
    return UserError(f"port {port} of {host} cannot be had ({reason}): choose another one with --port")


def address_of(listener: socket.socket) -> str:
    """Return the address of a bound socket as people type it into a browser."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def build_server(app: Any, listener: socket.socket, threads: int) -> Any:
    """Begin to listen; `run` of what is returned serves until Ctrl-C, and `close` ends it.

    Parameters
    ----------
    app : WSGI application
    listener : socket
        From `bind`.
    threads : int
        Requests that are looked at at the same time. More than the application admits, so that it can refuse the rest
        at once: what waits for a thread waits without being heard.

    Notes
    -----
    What is no HTTP request, or is beyond a limit, never reaches the application: waitress answers it in plain text,
    without the headers of `security`. It repeats what was sent only where no browser could have sent it.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter("%(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # it warns of every request that waits
    return waitress.create_server(
        app,
        sockets=[listener],
        threads=threads,
        connection_limit=_MOST_CONNECTIONS,
        max_request_header_size=_MOST_HEADERS,
        max_request_body_size=MOST_BODY,
        channel_timeout=_IDLE_S,
        cleanup_interval=_IDLE_S // 3,
        channel_request_lookahead=1,  # sees that a client has gone while its request is being worked on
        asyncore_use_poll=True,
        log_socket_errors=False,
        ident=None,
    )
