"""The one wire's constants, shared by launcher and gateway. Contract: ``docs/developers/launcher-protocol.md``."""

from __future__ import annotations

import re
import struct

PROTOCOL = 1
"""The version this code speaks as its own. A gateway also speaks the one before."""

SUPPORTED_PROTOCOLS = (PROTOCOL, PROTOCOL - 1)

PROTOCOL_HEADER = "EG-Protocol"

V1_SUBPROTOCOL = "v1.kernel.websocket.jupyter.org"

# Peer classes: who reads what the launcher sends (the gateway decides, `?peer=`).
PEER_EXACT = "exact"
PEER_STRONG = "strong"
PEER_WEAK = "weak"
PEER_GWCLIENT = "gwclient"
PEERS = (PEER_EXACT, PEER_STRONG, PEER_WEAK, PEER_GWCLIENT)

# WebSocket close codes. 1000 and 1001 are never sent to a client of a living kernel: JupyterLab would not come back.
CLOSE_RESTART = 1012
CLOSE_LAUNCH_FAILED = 4000
CLOSE_KERNEL_DIED = 4001
CLOSE_KERNEL_ENDED = 4002
CLOSE_LAUNCHER_LOST = 4003
CLOSE_SILENT = 4004

# Bounds on what is read from the network, in bytes.
MAX_HEAD = 64 * 1024
MAX_BODY = 8 * 1024 * 1024
MAX_OUTPUTS = 64 * 1024 * 1024
MAX_MESSAGE = 256 * 1024 * 1024
GWCLIENT_MAX_MESSAGE = 10 * 1024 * 1024
"""jupyter_server's gateway client closes its socket at a frame of this size."""

RECEIVED_HEADER = "EG-Received"
"""In the 101 of a link that goes on: data frames of the client that have arrived."""

AFTER = re.compile(r"([0-9a-f]{12})\.([0-9]{1,19})(?:\.([0-9]{1,10}))?\Z")
"""What an exact peer says it has had: ``after=EPOCH.NUMBER[.SERIAL]``, as a ping told it."""
SKIP = re.compile(r"[0-9]{1,6}\Z")
"""``skip=``: data frames that it has had behind that ping."""

_PING = struct.Struct("!6sQIQ")


def ping_payload(epoch: str, number: int, serial: int, received: int) -> bytes:
    """What a ping on channels says: the last entry sent before it, which ping of its socket it is (0: what was sent
    before it is in no order that a number could stand for), and how many data frames have come from the client."""
    return _PING.pack(bytes.fromhex(epoch), number, serial, received)


def parse_ping(payload: bytes) -> tuple[str, int, int, int] | None:
    """The same, read; None when it is not a launcher's."""
    if len(payload) != _PING.size:
        return None
    epoch, number, serial, received = _PING.unpack(payload)
    return epoch.hex(), number, serial, received
