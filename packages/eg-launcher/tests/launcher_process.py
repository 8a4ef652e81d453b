"""A real launcher process, and stock clients of it: http.client and websocket-client, over a Unix socket or TLS."""

import http.client
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import websocket

LIMIT = 40.0
IPYKERNEL = ["python3", "-m", "ipykernel_launcher", "-f", "{connection_file}"]


def wait_until(condition, limit=LIMIT, what="it did not happen in time"):
    deadline = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def marked(entry):
    """The pids of living processes that were executed with this NAME=value."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if entry.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:
                pass  # gone, or not ours to see
    return found


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


class LauncherProcess:
    """``kind`` is "unix", "tls" or "loopback" (TCP without TLS, token made by the launcher)."""

    def __init__(self, kind, folder, *args, mode="spawn", lease=60, certificate_and_key=(None, None), command=()):
        self.kind = kind
        self.folder = Path(folder)
        self.folder.chmod(0o700)
        self.token = uuid.uuid4().hex
        self.log = self.folder / "launcher.log"
        certificate, key = certificate_and_key if kind == "tls" else (None, None)
        self.context = ssl.create_default_context(cadata=certificate) if kind == "tls" else None
        argv = [sys.executable, "-m", "eg_launcher", mode, "--log", str(self.log)]
        argv += ["--unix", str(self.folder / "s")] if kind == "unix" else ["--tcp", "127.0.0.1:0"]
        argv += ["--insecure-loopback"] if kind == "loopback" else ["--credentials", "-", "--lease", str(lease)]
        argv += [*args, *(["--", *command] if command else [])]
        credentials = {"launcher_id": "launcher-1", "token": self.token, "certificate": certificate, "key": key}
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.pid = self.process.pid
        self.errors = []
        self._sockets = []
        self._drain = threading.Thread(target=self._read_errors, daemon=True)
        self._drain.start()
        try:
            self.process.stdin.write("" if kind == "loopback" else json.dumps(credentials))
            self.process.stdin.close()
            line = self.process.stdout.readline()
            assert line, f"it is not ready: {self.words()}"
            self.ready = json.loads(line)
            assert self.process.stdout.read() == "", "it wrote more than one line"
        except BaseException:
            self.end()
            raise

    def _read_errors(self):
        self.errors.extend(self.process.stderr)

    def words(self):
        self._drain.join(timeout=LIMIT)
        return "".join(self.errors)

    def end(self):
        """Whatever the test did: nothing is left."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._drain.join(timeout=LIMIT)
        for sock in self._sockets:
            sock.close()
        self.process.stdout.close()
        self.process.stderr.close()

    # -- its calls

    def connect(self):
        """A connected socket; closed with the launcher at latest, for not all clients close theirs when refused."""
        endpoint = self.ready["endpoint"]
        if self.kind == "unix":
            sock = socket.socket(socket.AF_UNIX)
            self._sockets.append(sock)
            sock.settimeout(LIMIT)
            sock.connect(endpoint["path"])
        else:
            sock = socket.create_connection((endpoint["host"], endpoint["port"]), timeout=LIMIT)
            if self.context is not None:
                sock = self.context.wrap_socket(sock, server_hostname="launcher-1")
        self._sockets.append(sock)
        return sock

    def call(self, method, path, body=None, *, headers=None, token=None):
        """Status and JSON of one request."""
        connection = http.client.HTTPConnection("launcher", timeout=LIMIT)
        connection.sock = self.connect()
        try:
            connection.request(
                method,
                path,
                body=None if body is None else body if isinstance(body, (str, bytes)) else json.dumps(body),
                headers={"Authorization": f"Bearer {token or self.token}", **(headers or {})},
            )
            answer = connection.getresponse()
            data = answer.read()
            is_json = data and "json" in answer.headers.get("Content-Type", "")
            return answer.status, json.loads(data) if is_json else data.decode()
        finally:
            connection.close()

    def start(self, kernel_id=None, argv=None, **fields):
        kernel_id = kernel_id or str(uuid.uuid4())
        status, kernel = self.call("POST", f"/kernels/{kernel_id}/start", {"argv": argv or IPYKERNEL, **fields})
        assert status == 202, kernel
        assert kernel["id"] == kernel_id
        return kernel_id

    def kernel(self, kernel_id):
        return self.call("GET", "/status")[1]["kernels"].get(kernel_id)

    def ready_kernel(self, **fields):
        kernel_id = self.start(**fields)
        wait_until(lambda: self.kernel(kernel_id)["state"] == "ready", what=f"{kernel_id} is not ready")
        return kernel_id

    def websocket(self, path, **kwargs):
        return websocket.create_connection(
            f"ws://launcher{path}",
            socket=self.connect(),
            header=[f"Authorization: token {self.token}"],
            timeout=LIMIT,
            skip_utf8_validation=True,  # in Python: a second for each 10 MB
            **kwargs,
        )

    def client(self, kernel_id, **query):
        session = query.setdefault("session_id", uuid.uuid4().hex)
        text = "&".join(f"{name}={value}" for name, value in query.items())
        return JsonClient(self.websocket(f"/api/kernels/{kernel_id}/channels?{text}"), session)


class JsonClient:
    """Jupyter's default sub-protocol over websocket-client."""

    def __init__(self, socket_, session):
        self.socket = socket_
        self.session = session
        self.seen = []

    def send(self, msg_type, content, channel="shell"):
        msg_id = uuid.uuid4().hex
        header = {"msg_id": msg_id, "msg_type": msg_type, "session": self.session, "username": "u", "version": "5.3"}
        header["date"] = "2026-01-01T00:00:00Z"
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "buffers": []}
        self.socket.send(json.dumps({**message, "channel": channel}))
        return msg_id

    def execute(self, code, **more):
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}}
        return self.send("execute_request", {**content, "allow_stdin": False, "stop_on_error": True, **more})

    def receive(self):
        message = json.loads(self.socket.recv())
        self.seen.append(message)
        return message

    def until(self, condition):
        """Read on until a message fulfils it; that message."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            message = self.receive()
            if condition(message):
                return message
        raise AssertionError(f"it did not come; seen: {[each['msg_type'] for each in self.seen]}")

    def of(self, msg_id):
        return [each for each in self.seen if each["parent_header"].get("msg_id") == msg_id]

    def finish(self, msg_id):
        """Read until the request has its reply and its idle; all that was said of it."""

        def done(_):
            own = self.of(msg_id)
            replied = any(each["msg_type"].endswith("_reply") for each in own)
            return replied and any(each["content"].get("execution_state") == "idle" for each in own)

        self.until(done)
        return self.of(msg_id)

    def run(self, code):
        """What the code printed, and its reply."""
        own = self.finish(self.execute(code))
        text = "".join(each["content"]["text"] for each in own if each["msg_type"] == "stream")
        return text, next(each["content"] for each in own if each["msg_type"] == "execute_reply")

    def until_closed(self):
        """Read until the Close frame: its code and reason."""
        while True:
            opcode, data = self.socket.recv_data()
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return int.from_bytes(data[:2], "big"), data[2:].decode()

    def close(self):
        self.socket.close()
