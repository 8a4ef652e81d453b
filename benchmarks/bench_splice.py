"""What the gateway's hop costs: the splice against a direct connection to the same peer, in one run.

    python benchmarks/bench_splice.py [--connections 1000] [--messages 300000]

Prints one JSON line. CPU is the gateway process's own; a stub in another process plays launcher and kernel, so that
neither is measured. Trust ratios within a line: absolute values depend on the machine and on what else it does.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "packages" / "eg-core" / "tests"))

from eg_launcher.websocket import FrameReader, Opcode, apply_mask, frame_header
from splice_support import KERNEL_ID, handshake, make_tls

TESTS = Path(sys.path[0])
SMALL, LARGE = 600, 10_000_000
LARGE_COUNT = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--stub", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    if options.stub:
        serve(Path(options.stub[0]), tls=options.stub[1] == "tls")
        return
    result = {"benchmark": "splice", "cpus": os.cpu_count(), "small_bytes": SMALL, "large_bytes": LARGE}
    with tempfile.TemporaryDirectory() as folder:
        server, client = make_tls(Path(folder))
        del server
        (Path(folder) / "ca.pem").write_text(ssl.DER_cert_to_PEM_cert(client.get_ca_certs(binary_form=True)[0]))
        for leg in ("plain", "tls"):
            result[f"launcher_leg_{leg}"] = measure(Path(folder), leg, options.messages, options.connections)
        result["both_legs_tls"] = measure_idle(Path(folder), options.connections)
    print(json.dumps(result))


def measure(folder: Path, leg: str, messages: int, connections: int) -> dict[str, float]:
    with process(str(Path(__file__)), "--stub", str(folder), leg) as (stub_port, _):
        args = [str(stub_port)] + ([str(folder / "ca.pem")] if leg == "tls" else [])
        with process(str(TESTS / "splice_gateway.py"), *args) as (port, pid):
            found: dict[str, float] = {}
            client_tls = ssl.create_default_context(cafile=folder / "ca.pem") if leg == "tls" else None
            for name, size, count in (("small", SMALL, messages), ("large", LARGE, LARGE_COUNT)):
                flood(port, 10, size, None)  # warm up
                direct = flood(stub_port, count, size, client_tls)
                cpu = cpu_seconds(pid)
                spliced = flood(port, count, size, None)
                cpu = cpu_seconds(pid) - cpu
                megabytes = count * size / 1e6
                found[f"{name}_messages_per_s"] = round(count / spliced)
                found[f"{name}_messages_per_s_direct"] = round(count / direct)
                found[f"{name}_mb_per_s"] = round(megabytes / spliced, 1)
                found[f"{name}_mb_per_s_direct"] = round(megabytes / direct, 1)
                found[f"{name}_gateway_cpu_us_per_message"] = round(cpu * 1e6 / count, 3)
                found[f"{name}_gateway_cpu_ms_per_gb"] = round(cpu * 1e6 / megabytes, 1)
            found["idle_kib_per_connection"] = idle(port, pid, connections)
            return found


def measure_idle(folder: Path, connections: int) -> dict[str, float]:
    """With TLS on the client's side, too."""
    with process(str(Path(__file__)), "--stub", str(folder), "tls") as (stub_port, _):
        args = [str(stub_port), str(folder / "ca.pem"), str(folder / "leaf.pem")]
        with process(str(TESTS / "splice_gateway.py"), *args) as (port, pid):
            context = ssl.create_default_context(cafile=folder / "ca.pem")
            return {"idle_kib_per_connection": idle(port, pid, connections, context)}


# -- the client -----------------------------------------------------------------------------------------------


def connect(port: int, context: ssl.SSLContext | None = None) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=60)
    if context is not None:
        sock = context.wrap_socket(sock, server_hostname="launcher-1")
    key = base64.b64encode(os.urandom(16)).decode()
    sock.sendall(
        f"GET /api/kernels/{KERNEL_ID}/channels HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\n"
        f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    if b" 101 " not in head:
        raise RuntimeError(head.decode("latin-1"))
    return sock


def flood(port: int, count: int, size: int, context: ssl.SSLContext | None) -> float:
    """Seconds until the client has had ``count`` messages of ``size`` bytes."""
    with contextlib.closing(connect(port, context)) as sock:
        left = count * (len(frame_header(Opcode.BINARY, size)) + size)
        buffer = bytearray(1 << 20)
        text, mask = f"{count} {size}".encode(), os.urandom(4)
        began = time.perf_counter()
        sock.sendall(frame_header(Opcode.TEXT, len(text), mask=mask) + apply_mask(mask, text))
        while left:
            left -= sock.recv_into(buffer)
        return time.perf_counter() - began


def idle(port: int, pid: int, connections: int, context: ssl.SSLContext | None = None) -> float:
    """KiB of the gateway per spliced connection that says nothing."""
    held: list[socket.socket] = [connect(port, context) for _ in range(50)]
    settle(pid, 2 * len(held))
    before, already = resident(pid), len(held)
    try:
        held += [connect(port, context) for _ in range(connections)]
        settle(pid, 2 * len(held))
        return round((resident(pid) - before) / (len(held) - already), 2)
    finally:
        for sock in held:
            sock.close()


def settle(pid: int, descriptors: int) -> None:
    """Wait until both legs of all connections are there."""
    deadline = time.monotonic() + 30
    while len(list(Path(f"/proc/{pid}/fd").iterdir())) < descriptors:
        if time.monotonic() > deadline:
            raise RuntimeError("the gateway did not splice all connections")
        time.sleep(0.05)


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0])


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def process(*args: str) -> Iterator[tuple[int, int]]:
    """A process that prints its port and ends with its standard input."""
    with subprocess.Popen([sys.executable, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            yield int(child.stdout.readline()), child.pid
        finally:
            child.kill()


# -- the stub: launcher and kernel ---------------------------------------------------------------------------


def serve(folder: Path, *, tls: bool) -> None:
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "leaf.pem")
    threading.stack_size(256 * 1024)
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    print(listener.getsockname()[1], flush=True)

    def accept() -> None:
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=serve_one, args=(sock, context), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()


def serve_one(sock: socket.socket, context: ssl.SSLContext | None) -> None:
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        if context is not None:
            sock = context.wrap_socket(sock, server_side=True)
        stack.callback(sock.close)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(65536)
        lines = head.decode("latin-1").split("\r\n")[1:]
        sock.sendall(handshake({k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}))
        reader = FrameReader(max_message=1 << 20, masked=True)
        while data := sock.recv(65536):
            for frame in reader.feed(data):
                if frame.opcode is Opcode.TEXT:
                    count, size = map(int, frame.payload.split())
                    send_flood(sock, count, size)


def send_flood(sock: socket.socket, count: int, size: int) -> None:
    one = frame_header(Opcode.BINARY, size) + b"x" * size
    batch = max(1, 65536 // len(one))
    many = one * batch
    for _ in range(count // batch):
        sock.sendall(many)
    sock.sendall(one * (count % batch))


if __name__ == "__main__":
    main()
