'use strict';
/**
 * @jupyterlab/services against a gateway, with the v1 sub-protocol: what VS Code, JupyterLab and everything built on
 * them do, without a jupyter_server in between. Run by node --test with GATEWAY_URL and GATEWAY_TOKEN.
 */
const assert = require('node:assert/strict');
const { after, afterEach, before, beforeEach, test } = require('node:test');
const { KernelManager, KernelSpecManager, ServerConnection } = require('@jupyterlab/services');
const WebSocket = require('ws');

const V1 = 'v1.kernel.websocket.jupyter.org';
const sockets = [];

class Recorded extends WebSocket {
  constructor(...args) {
    super(...args);
    sockets.push(this);
  }
}

const settings = ServerConnection.makeSettings({
  baseUrl: `${process.env.GATEWAY_URL}/`,
  wsUrl: `${process.env.GATEWAY_URL.replace('http', 'ws')}/`,
  token: process.env.GATEWAY_TOKEN,
  appendToken: true,
  WebSocket: Recorded
});

let manager;
let kernel;

before(async () => {
  manager = new KernelManager({ serverSettings: settings });
  await manager.ready;
});

beforeEach(async () => {
  kernel = await manager.startNew({ name: 'python3' });
  await kernel.info;
});

afterEach(async () => {
  await kernel.shutdown();
  kernel.dispose();
});

after(() => {
  manager.dispose();
  assert.ok(sockets.length > 0);
  assert.deepEqual([...new Set(sockets.map(socket => socket.protocol))], [V1]);
});

/** Run code to its end: its reply and all its iopub messages. */
async function run(on, code, options = {}) {
  const messages = [];
  const future = on.requestExecute({ code, ...options.content });
  future.onIOPub = message => messages.push(message);
  if (options.onStdin) {
    future.onStdin = options.onStdin;
  }
  const reply = await future.done;
  return { reply, messages, text: text(messages) };
}

function text(messages) {
  return messages
    .filter(message => message.header.msg_type === 'stream')
    .map(message => message.content.text)
    .join('');
}

function until(condition, what, timeout = 20000) {
  const deadline = Date.now() + timeout;
  return new Promise((resolve, reject) => {
    const look = () => {
      const value = condition();
      if (value) {
        resolve(value);
      } else if (Date.now() > deadline) {
        reject(new Error(`not within ${timeout} ms: ${what}`));
      } else {
        setTimeout(look, 20);
      }
    };
    look();
  });
}

test('kernelspecs', async () => {
  const specs = new KernelSpecManager({ serverSettings: settings });
  await specs.ready;
  assert.equal(specs.specs.default, 'python3');
  assert.equal(specs.specs.kernelspecs.python3.display_name, 'Python 3 (test)');
  specs.dispose();
});

test('a cell, with its reply and its outputs in order', async () => {
  const done = await run(kernel, 'print("some text")\n6 * 7');
  assert.equal(done.reply.content.status, 'ok');
  assert.equal(done.text, 'some text\n');
  const types = done.messages.map(message => message.header.msg_type);
  assert.deepEqual(types, ['status', 'execute_input', 'stream', 'execute_result', 'status']);
});

test('an exception', async () => {
  const done = await run(kernel, '1 / 0');
  assert.equal(done.reply.content.status, 'error');
  assert.equal(done.reply.content.ename, 'ZeroDivisionError');
});

test('input', async () => {
  const done = await run(kernel, 'print("hello", input("who? "))', {
    content: { allow_stdin: true },
    onStdin: message => kernel.sendInputReply({ status: 'ok', value: 'world' }, message.header)
  });
  assert.equal(done.text, 'hello world\n');
});

test('two connections: outputs for both, a reply only for who asked', async () => {
  const other = manager.connectTo({ model: kernel.model });
  await other.info;
  const seen = { kernel: [], other: [] };
  kernel.anyMessage.connect((_, { msg, direction }) => direction === 'recv' && seen.kernel.push(msg));
  other.anyMessage.connect((_, { msg, direction }) => direction === 'recv' && seen.other.push(msg));

  await run(kernel, 'print("from one")');
  await run(other, 'print("from two")');
  await run(kernel, 'pass');

  for (const [client, messages] of [[kernel, seen.kernel], [other, seen.other]]) {
    assert.equal(text(messages), 'from one\nfrom two\n');
    const replies = messages.filter(message => message.channel === 'shell');
    assert.ok(replies.length > 0);
    assert.deepEqual([...new Set(replies.map(message => message.parent_header.session))], [client.clientId]);
  }
  other.dispose();
});

test('update_display_data', async () => {
  const done = await run(
    kernel,
    'from IPython.display import display\nshown = display("first", display_id="one")\nshown.update("second")'
  );
  const updates = done.messages.filter(message => message.header.msg_type === 'update_display_data');
  assert.equal(updates.length, 1);
  assert.equal(updates[0].content.data['text/plain'], "'second'");
  assert.equal(updates[0].content.transient.display_id, 'one');
});

test('comms with buffers both ways', async () => {
  await run(
    kernel,
    [
      'def opened(comm, message):',
      '    def echo(message):',
      '        comm.send({"echo": message["content"]["data"]}, buffers=[bytes(b)[::-1] for b in message["buffers"]])',
      '    comm.on_msg(echo)',
      'get_ipython().kernel.comm_manager.register_target("echo", opened)'
    ].join('\n')
  );
  const comm = kernel.createComm('echo');
  const answers = [];
  comm.onMsg = message => answers.push(message);
  comm.open({});
  await comm.subshellStarted; // a request on the control channel, and a reply with a subshell's id
  const sent = Uint8Array.from({ length: 256 }, (_, index) => index);
  comm.send({ n: 1 }, undefined, [sent.buffer]);
  const answer = await until(() => answers[0], 'the answer of the comm');
  assert.deepEqual(answer.content.data, { echo: { n: 1 } });
  const got = answer.buffers[0];
  const bytes = Array.from(new Uint8Array(got.buffer ?? got, got.byteOffset ?? 0, got.byteLength));
  assert.deepEqual(bytes, Array.from(sent).reverse());
});

test('a comm opened by the kernel', async () => {
  const opened = [];
  kernel.registerCommTarget('from-kernel', (comm, message) => opened.push({ comm, message }));
  await run(
    kernel,
    'from ipykernel.comm import Comm\nc = Comm("from-kernel", data={"a": 1}, buffers=[b"abc"])'
  );
  const { comm, message } = await until(() => opened[0], 'the comm to be opened');
  await comm.subshellStarted;
  assert.deepEqual(message.content.data, { a: 1 });
  assert.equal(message.buffers.length, 1);
});

test('a message of 50 MB', async () => {
  const done = await run(kernel, 'print("x" * 50_000_000)');
  assert.equal(done.text.length, 50_000_001);
});

test('an interrupt of a flooding kernel within 200 ms', async () => {
  const took = [];
  for (let round = 0; round < 5; round++) {
    let last = 0;
    const future = kernel.requestExecute({ code: 'n = 0\nwhile True:\n    n += 1; print("flood", n, "x" * 200)' });
    let flooded = 0;
    future.onIOPub = message => {
      last = message.header.msg_type === 'error' ? Date.now() : last;
      flooded += message.header.msg_type === 'stream' ? 1 : 0;
    };
    await until(() => flooded > 3, 'the flood');
    const asked = Date.now();
    await kernel.interrupt();
    const reply = await future.done;
    assert.equal(reply.content.ename, 'KeyboardInterrupt');
    took.push(last - asked);
  }
  console.log(`interrupts took ${took.join(', ')} ms`);
  took.sort((a, b) => a - b);
  assert.ok(took[2] < 200, `${took[2]} ms`);
});

test('restart forgets, and the connection lives on', async () => {
  await run(kernel, 'kept = 1');
  await kernel.restart();
  await kernel.info;
  const done = await run(kernel, 'kept');
  assert.equal(done.reply.content.ename, 'NameError');
});

test('a kernel that is shut down elsewhere is known to be dead', async () => {
  const other = manager.connectTo({ model: kernel.model });
  await other.info;
  await kernel.shutdown();
  await until(() => other.status === 'dead' || other.isDisposed, 'the other connection to know it');
  other.dispose();
  kernel = await manager.startNew({ name: 'python3' });
  await kernel.info;
});

test('a kernel that dies ends what was asked of it', async () => {
  const future = kernel.requestExecute({ code: 'import os, signal\nos.kill(os.getpid(), signal.SIGKILL)' });
  const errors = [];
  future.onIOPub = message => message.header.msg_type === 'error' && errors.push(message.content);
  const reply = await future.done;
  assert.equal(reply.content.status, 'error');
  assert.match(errors[0].evalue + errors[0].traceback.join('\n'), /SIGKILL/);
  await until(() => kernel.status === 'dead' || kernel.isDisposed, 'the connection to know it');
});
