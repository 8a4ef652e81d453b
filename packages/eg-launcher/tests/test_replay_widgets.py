"""A cell whose output a widget takes (ipywidgets' ``Output``, ``interact``) is written again to where it stood."""

import json

import pytest

from launcher_kernel_host import until
from launcher_page import Page, SilentKernel


class WidgetPage(Page):
    """With ``Output`` widgets, as ipywidgets does: ``widgets`` has what each shows."""

    def __init__(self, kernel):
        self.widgets = {}
        self.hooks = {}
        self.clear_widget = set()
        super().__init__(kernel)

    def show(self, message):
        if message.type == "comm_msg":
            comm, state = message.content["comm_id"], message.content["data"]["state"]
            if "msg_id" in state:
                self.hooks = {parent: one for parent, one in self.hooks.items() if one != comm}
                if state["msg_id"]:
                    self.hooks[state["msg_id"]] = comm
        comm = self.hooks.get(message.parent_id)
        if comm is None or message.type not in {"stream", "clear_output"}:
            super().show(message)
            return
        cells, self.cells = self.cells, {message.parent_id: self.widgets.setdefault(comm, [])}
        clear, self.clear_next = self.clear_next, self.clear_widget
        super().show(message)
        self.cells, self.clear_next = cells, clear


@pytest.fixture
def kernel():
    return SilentKernel()


@pytest.fixture
async def page(kernel):
    return WidgetPage(kernel)


def takes(kernel, request, comm, target):
    data = {"method": "update", "state": {"msg_id": target}, "buffer_paths": []}
    kernel.says("comm_msg", {"comm_id": comm, "data": data}, parent=request)


def interacts(kernel, request, *texts, clear=True, done=True):
    """What ``interact`` and ``with output:`` say."""
    takes(kernel, request, "w", id_of(request))
    if clear:
        kernel.says("clear_output", {"wait": True}, parent=request)
    for text in texts:
        kernel.prints(text, request)
    if done:
        takes(kernel, request, "w", "")


def id_of(request):
    return json.loads(request)["msg_id"]


async def acknowledged(page):
    def done():
        page.read()
        return page.channel.session.acked == page.kernel.journal.next - 1

    await until(done, "everything to be acknowledged")


def cut(page):
    page.cut()
    page.connect()
    page.read()


async def test_what_a_widget_shows_does_not_come_into_the_cell(kernel, page):
    request = page.asks()
    kernel.prints("before\n", request)
    interacts(kernel, request, "1\n", "2\n")
    kernel.prints("after\n", request)
    page.read()
    cut(page)
    assert page.cells[id_of(request)] == ["before\n", "after\n"]
    assert page.widgets == {"w": ["1\n", "2\n"]}


async def test_a_cut_while_the_widget_takes(kernel, page):
    request = page.asks()
    kernel.prints("before\n", request)
    interacts(kernel, request, "1\n", "2\n", done=False)
    page.read()
    cut(page)
    kernel.prints("3\n", request)
    takes(kernel, request, "w", "")
    kernel.prints("after\n", request)
    page.read()
    assert page.cells[id_of(request)] == ["before\n", "after\n"]
    assert page.widgets == {"w": ["1\n", "2\n", "3\n"]}


@pytest.mark.parametrize("msg_type", ["execute_request", "comm_msg"])
async def test_a_page_that_saw_nothing_of_it(kernel, page, msg_type):
    """Frozen, or half-open: its network has acknowledged all the same."""
    request = page.asks(msg_type)
    page.read()
    page.awake = False
    interacts(kernel, request, "1\n", "2\n")
    page.read()
    page.awake = True
    cut(page)
    assert page.widgets == {"w": ["1\n", "2\n"]}


async def test_a_widget_that_gathers_is_not_cleared(kernel, page):
    """Without a ``clear_output`` of its own there is no telling what else it shows."""
    for text in ("1\n", "2\n"):
        request = page.asks()
        interacts(kernel, request, text, clear=False)
    await acknowledged(page)
    cut(page)
    assert page.widgets == {"w": ["1\n", "2\n"]}
    assert page.cells[id_of(request)] == []


async def test_what_a_gathering_widget_was_not_sent_comes_once(kernel, page):
    request = page.asks()
    interacts(kernel, request, "1\n", clear=False, done=False)
    await acknowledged(page)
    page.cut()
    kernel.prints("2\n", request)
    takes(kernel, request, "w", "")
    page.connect()
    page.read()
    assert page.widgets == {"w": ["1\n", "2\n"]}


@pytest.mark.parametrize(
    "content", [b'{"data": "msg_id"}', b'{"x": "msg_id"}', b'{"comm_id": 1, "data": {"msg_id": []}}']
)
async def test_any_other_comm_message_is_none_of_it(kernel, page, content):
    request = page.asks()
    parts = [json.dumps({"msg_id": "m", "msg_type": "comm_msg"}).encode(), request, b"{}", content]
    kernel.talk.take("iopub", {"msg_id": "m", "msg_type": "comm_msg"}, parts)
    kernel.prints("1\n", request)
    page.cut()
    page.connect()
    assert [m.type for m in page.connection.sent if not isinstance(m, bytes)].count("stream") == 1
