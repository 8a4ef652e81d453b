"""A request's output as a notebook keeps it."""

import json

from eg_launcher.outputs import outputs_of
from launcher_page import Page, SilentKernel


def test_streams_join_and_clear_clears_and_updates_reach_what_they_name():
    kernel = SilentKernel()
    request = json.dumps({"msg_id": "r", "msg_type": "execute_request"}).encode()

    def says(msg_type, channel="iopub", **content):
        kernel.says(msg_type, content, parent=request, channel=channel)

    says("stream", name="stdout", text="gone")
    says("clear_output", wait=True)
    says("stream", name="stdout", text="a")
    says("stream", name="stdout", text="b")
    says("stream", name="stderr", text="c")
    says("display_data", data={"text/plain": "1"}, metadata={}, transient={"display_id": "d"})
    says("update_display_data", data={"text/plain": "2"}, metadata={}, transient={"display_id": "d"})
    says("execute_result", data={"text/plain": "3"}, metadata={}, execution_count=7)
    kernel.says("stream", {"name": "stdout", "text": "another's"}, parent=b'{"msg_id":"other"}')
    told = outputs_of(kernel.journal.entries(1, kernel.journal.next), "r")
    assert told["outputs"] == [
        {"output_type": "stream", "name": "stdout", "text": "ab"},
        {"output_type": "stream", "name": "stderr", "text": "c"},
        {"output_type": "display_data", "data": {"text/plain": "2"}, "metadata": {}},
        {"output_type": "execute_result", "data": {"text/plain": "3"}, "metadata": {}, "execution_count": 7},
    ]
    assert (told["execution_count"], told["status"]) == (7, None)
    says("error", ename="E", evalue="v", traceback=["t"])
    says("execute_reply", "shell", status="error", execution_count=7)
    told = outputs_of(kernel.journal.entries(1, kernel.journal.next), "r")
    assert told["outputs"][-1] == {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["t"]}
    assert told["status"] == "error"


async def test_by_request_and_by_cell():
    kernel = SilentKernel()
    page = Page(kernel)
    old, new = page.asks(cell="c1"), page.asks(cell="c1")
    kernel.prints("old", old)
    kernel.prints("new", new)
    told = kernel.talk.outputs(parent=None, cell="c1")
    assert told["parent"] == json.loads(new)["msg_id"]
    assert told["outputs"][0]["text"] == "new"
    assert kernel.talk.outputs(parent=json.loads(old)["msg_id"], cell=None)["outputs"][0]["text"] == "old"
    assert kernel.talk.outputs(parent="unknown", cell=None) is None
    assert kernel.talk.outputs(parent=None, cell="unknown") is None
    assert kernel.talk.outputs(parent=json.loads(page.asks())["msg_id"], cell=None)["outputs"] == []
