"""The registry: what kernels there are, in which state, and how each gets from one state to the next.

``states``      the state machine, one table
``kernel``      one kernel as this gateway sees it: its record, its launcher's last word, its clients' sockets
``registry``    start, list, interrupt, restart, end; the only writer of kernel records
``launch``      one launch from request to an answering kernel, with a single deadline
``observer``    what launchers and backends say of kernels, and what follows
``launchers``   the launchers this gateway knows, and one link to each
``links``       one connection per launcher: its calls and its ``/events``
``reconciler``  per backend, one batch poll that compares the records with what really runs
``env``         which variables reach a kernel; pure

Knows nothing of HTTP or tornado. Calls the hooks through the façade only.
"""
