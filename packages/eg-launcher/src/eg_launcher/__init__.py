"""What runs beside a Jupyter kernel: starts it, keeps its journal, serves its channels on one port.

The rooms, from the wire inward (``docs/developers/launcher-protocol.md`` is the contract):

``cli``        the command line: ``spawn`` and ``attach``
``server``     HTTP/1.1 and WebSocket on one TLS port or Unix socket; ``routes`` is the table of calls
``kernels``    one kernel's life: start, ready, interrupt, restart, shutdown, death
``relay``      its ZMQ sockets; ``journal`` what it said; ``channels`` one client's cursor into that
``spawner``    the small child process that forks kernels and leaves none behind
``frames``, ``websocket``, ``wire``   encodings, pure; the gateway uses these three and nothing else

Standard library and pyzmq only; Python 3.9 and newer; nothing happens at import.
"""

from eg_launcher.__about__ import __version__

__all__ = ["__version__"]
