'use strict';
/**
 * What VS Code's Jupyter extension does with a server: a session for each notebook, REST by node-fetch, one `ws` socket
 * that pings and whose messages pass through asynchronous hooks both ways. Run by node --test with SERVER_URL,
 * SERVER_TOKEN, SERVICES (the package's name), CREDENTIALS (header or query) and HAS_CONTENTS (for a jupyter_server).
 */
const assert = require('node:assert/strict');
const { after, afterEach, before, beforeEach, test } = require('node:test');
const nodeFetch = require('node-fetch');
const WebSocket = require('ws');
const { ContentsManager, KernelManager, KernelSpecManager, ServerConnection, SessionManager } = require(
  process.env.SERVICES
);

const { SERVER_URL, SERVER_TOKEN, SERVICES, CREDENTIALS, HAS_CONTENTS } = process.env;
const BY_HEADER = CREDENTIALS === 'header';
const AUTHORIZATION = { Authorization: `token ${SERVER_TOKEN}` };
const V1 = 'v1.kernel.websocket.jupyter.org';
const sockets = [];

/** Widgets are served by hooks that must be done before the client sees a message, or the server gets one. */
class HookedSocket extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols, BY_HEADER ? { headers: AUTHORIZATION } : {});
    this.seen = 0;
    this.sent = 0;
    this.pongs = 0;
    this.outgoing = Promise.resolve();
    this.incoming = Promise.resolve();
    this.pinging = setInterval(() => this.readyState === WebSocket.OPEN && this.ping(), 200);
    this.on('pong', () => this.pongs++);
    this.on('close', () => clearInterval(this.pinging));
    sockets.push(this);
  }

  send(data, ...rest) {
    this.outgoing = this.outgoing.then(async () => this.sent++).then(() => super.send(data, ...rest));
  }

  emit(event, ...rest) {
    if (event !== 'message') {
      return super.emit(event, ...rest);
    }
    this.incoming = this.incoming.then(async () => this.seen++).then(() => super.emit(event, ...rest));
    return true;
  }
}

class AuthorizedRequest extends nodeFetch.Request {
  constructor(input, init) {
    super(input, init);
    Object.entries(AUTHORIZATION).forEach(([name, value]) => this.headers.set(name, value));
  }
}

const settings = ServerConnection.makeSettings({
  baseUrl: `${SERVER_URL}/`,
  wsUrl: `${SERVER_URL.replace('http', 'ws')}/`,
  appUrl: '',
  token: BY_HEADER ? '' : SERVER_TOKEN,
  appendToken: !BY_HEADER,
  init: { cache: 'no-store', credentials: 'same-origin' },
  fetch: nodeFetch.default,
  Headers: nodeFetch.Headers,
  Request: BY_HEADER ? AuthorizedRequest : nodeFetch.Request,
  WebSocket: HookedSocket
});

let kernels;
let sessions;
let session;
let kernel;
let count = 0;

before(async () => {
  kernels = new KernelManager({ serverSettings: settings });
  sessions = new SessionManager({ serverSettings: settings, kernelManager: kernels });
  await Promise.all([kernels.ready, sessions.ready]);
});

beforeEach(async () => {
  const path = `notebook-jvsc-${count++}.ipynb`;
  session = await sessions.startNew({ path, name: path, type: 'notebook', kernel: { name: 'python3' } });
  kernel = session.kernel;
  await kernel.info;
});

afterEach(async () => {
  if (!session.isDisposed) {
    await session.shutdown();
    session.dispose();
  }
});

after(() => {
  sessions.dispose();
  kernels.dispose();
  assert.ok(sockets.length > 0);
  // A jupyter_server with --gateway-url speaks the default one only.
  const protocol = SERVICES === 'services-6' || HAS_CONTENTS ? '' : V1;
  assert.deepEqual([...new Set(sockets.map(socket => socket.protocol))], [protocol]);
});

async function run(code, options = {}, on = kernel) {
  const messages = [];
  const future = on.requestExecute({ code, silent: false, store_history: true, ...options.content });
  future.onIOPub = message => {
    messages.push(message);
    options.onIOPub?.(message);
  };
  future.onStdin = options.onStdin ?? (() => {});
  const reply = await future.done;
  return { reply: reply.content, messages, text: text(messages) };
}

function text(messages) {
  return messages
    .filter(message => message.header.msg_type === 'stream')
    .map(message => message.content.text)
    .join('');
}

async function until(condition, what, timeout = 20000) {
  const deadline = Date.now() + timeout;
  for (;;) {
    const value = await condition();
    if (value) {
      return value;
    }
    assert.ok(Date.now() < deadline, `not within ${timeout} ms: ${what}`);
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}

/** What a manager's running() gives: an iterator of today, or one of Lumino 1, which gives undefined at its end. */
function listed(running) {
  if (running[Symbol.iterator]) {
    return [...running];
  }
  const found = [];
  for (let one = running.next(); one !== undefined; one = running.next()) {
    found.push(one);
  }
  return found;
}

async function rest(path) {
  const answer = await nodeFetch.default(`${SERVER_URL}/${path}`, { headers: AUTHORIZATION });
  return { status: answer.status, body: await answer.json() };
}

test('a server is looked over before it is taken', async () => {
  const specs = new KernelSpecManager({ serverSettings: settings });
  await specs.ready;
  assert.equal(specs.specs.kernelspecs.python3.display_name, 'Python 3 (test)');
  specs.dispose();
  await sessions.refreshRunning();
  await kernels.refreshRunning();
  assert.deepEqual(listed(sessions.running()).map(model => model.id), [session.id]);
  assert.deepEqual(listed(kernels.running()).map(model => model.id), [kernel.id]);
});

test('a file behind the session, where there are files; a plain 404 where there are none', async () => {
  const contents = new ContentsManager({ serverSettings: settings });
  const made = contents.newUntitled({ type: 'notebook' });
  if (HAS_CONTENTS) {
    await contents.delete((await made).path);
  } else {
    await assert.rejects(made, error => error.response?.status === 404);
  }
  contents.dispose();
});

test('cells: text, results, pictures, errors', async () => {
  const done = await run('import sys\nprint("out")\nprint("err", file=sys.stderr)\n6 * 7');
  assert.equal(done.reply.status, 'ok');
  assert.equal(done.text.split('\n').sort().join(' ').trim(), 'err out');
  const result = done.messages.find(message => message.header.msg_type === 'execute_result');
  assert.equal(result.content.data['text/plain'], '42');

  const shown = await run('from IPython.display import SVG\nSVG("<svg xmlns=\'http://www.w3.org/2000/svg\'/>")');
  const picture = shown.messages.find(message => message.header.msg_type === 'execute_result');
  assert.match(picture.content.data['image/svg+xml'], /<svg/);

  const failed = await run('1 / 0');
  assert.equal(failed.reply.status, 'error');
  assert.equal(failed.messages.find(message => message.header.msg_type === 'error').content.ename, 'ZeroDivisionError');
  assert.ok(sockets.some(socket => socket.seen > 0 && socket.sent > 0));
});

test('cells sent at once run in turn, and an error stops those behind it', async () => {
  const futures = ['kept = 1', 'raise ValueError(kept)', 'kept = 2'].map(code =>
    kernel.requestExecute({ code, stop_on_error: true })
  );
  const replies = await Promise.all(futures.map(future => future.done));
  assert.deepEqual(replies.map(reply => reply.content.status).slice(0, 2), ['ok', 'error']);
  assert.match(replies[2].content.status, /aborted|error/);
  assert.equal((await run('print(kept)')).text, '1\n');
});

test('input', async () => {
  const done = await run('print("hello", input("who? "))', {
    content: { allow_stdin: true },
    onStdin: message => {
      assert.equal(message.content.prompt, 'who? ');
      kernel.sendInputReply({ status: 'ok', value: 'world' }, message.header);
    }
  });
  assert.equal(done.text, 'hello world\n');
});

test('an interrupt', async () => {
  let started;
  const running = new Promise(resolve => (started = resolve));
  const done = run('import time\nprint("going to sleep", flush=True)\ntime.sleep(600)', {
    onIOPub: message => message.header.msg_type === 'stream' && started()
  });
  await running;
  await kernel.interrupt();
  assert.equal((await done).reply.ename, 'KeyboardInterrupt');
  assert.equal((await run('print("alive")')).text, 'alive\n');
});

test('a restart of the session keeps it', async () => {
  await run('kept = 1');
  const before = { session: session.id, kernel: kernel.id };
  await kernel.restart();
  await kernel.info;
  assert.equal((await run('kept')).reply.ename, 'NameError');
  assert.deepEqual({ session: session.id, kernel: session.kernel.id }, before);
});

test('a window that is closed and opened again finds its session with all it knows', async () => {
  await run('kept = "from before"');
  const { id } = session;
  session.dispose();
  const model = await until(async () => {
    await sessions.refreshRunning();
    return listed(sessions.running()).find(one => one.id === id);
  }, 'the session to be listed');
  session = sessions.connectTo({ model });
  kernel = session.kernel;
  await kernel.info;
  assert.equal((await run('print(kept)')).text, 'from before\n');
});

test('the socket is asked whether it lives, and says so', async () => {
  const socket = sockets.at(-1);
  const before = socket.pongs;
  await until(() => socket.pongs > before + 2, 'three pongs');
});

test('a kernel that dies is told from one that is busy', async () => {
  const failed = await run('import os, signal\nos.kill(os.getpid(), signal.SIGKILL)').catch(error => error);
  await until(() => ['dead', 'autorestarting', 'restarting'].includes(kernel.status), 'the kernel to be known dead');
  assert.ok(failed instanceof Error || failed.reply.status === 'error', JSON.stringify(failed));
});

test('a session that is shut down takes its kernel along', async () => {
  await session.shutdown();
  const found = await until(async () => {
    const answer = await rest(`api/kernels/${kernel.id}`);
    return answer.status === 404 && answer;
  }, 'the kernel to be gone');
  assert.match(found.body.message, new RegExp(kernel.id));
  assert.deepEqual((await rest('api/sessions')).body, []);
  session.dispose();
});
