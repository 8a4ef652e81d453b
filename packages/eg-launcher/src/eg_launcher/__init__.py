"""What runs beside a Jupyter kernel: starts it, keeps its journal, serves its channels on one port.

The rooms, from the wire inward (``docs/developers/launcher-protocol.md`` is the contract):

``cli``            the command line: ``spawn`` and ``attach``; ``logfile`` is where its log goes
``app``            the launcher itself: the kernels it holds, its one timer, its end; ``lease`` is how long it is wanted
``listener``       the TLS port or Unix socket; ``folder`` the private place for its files
``server``         connections, with ``http1``, ``handshake`` and ``sockets`` (an accepted WebSocket)
``routes``         the table of calls; ``events`` what is pushed to the gateway
``kernels``        one kernel's life: start, ready, interrupt, restart, shutdown; ``portrait`` is what is told of it
``conversation``   what both sides say: ``executions`` (who waits), ``outbox`` (held), ``sessions`` (who had what)
``journal``        all that a kernel has said, numbered: in memory, then on disk (``spill``)
``limits``         what a site lets clients send and see
``channels``       one client: a cursor into the journal; ``trace`` tells how to go on exactly where a socket ended
``replay``         what a session that comes back is sent first; ``outputs`` a request's output for a reloaded page
``incarnation``    one process of a kernel and its gate to ready: ``connection_file``, ``command``, ``output``
``means``          what all kernels of a launcher share, and how one process is made
``relay``          its ZMQ sockets; ``signing`` their signatures
``spawner``        the small child process (``spawner_child``) that forks kernels and leaves none behind
``death``          why a kernel ended, in words; ``usage`` and ``linux`` are what the system tells and can do
``frames``, ``websocket``, ``wire``   encodings, pure; the gateway uses these three and nothing else

Standard library and pyzmq only; Python 3.9 and newer; nothing happens at import.
"""

from eg_launcher.__about__ import __version__

__all__ = ["__version__"]
