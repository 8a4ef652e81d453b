/**
 * A page with a cell that can be run, as Thebe and other books with live code make it: bundled for a browser, served
 * from wherever the book is, with a kernel of the server that the page's query names (server, token).
 */
import { KernelManager, ServerConnection, SessionManager } from '@jupyterlab/services';

const show = (id, text) => (document.getElementById(id).textContent = text);
const asked = new URLSearchParams(location.search);
const server = asked.get('server');

const serverSettings = ServerConnection.makeSettings({
  baseUrl: `${server}/`,
  wsUrl: `${server.replace('http', 'ws')}/`,
  token: asked.get('token') ?? '',
  appendToken: true
});

let session;

async function launch() {
  show('status', 'launching');
  const kernelManager = new KernelManager({ serverSettings });
  const sessions = new SessionManager({ serverSettings, kernelManager });
  const path = 'book.ipynb';
  session = await sessions.startNew({ path, name: path, type: 'notebook', kernel: { name: 'python3' } });
  session.kernel.connectionStatusChanged.connect((_, status) => show('connection', status));
  await session.kernel.info;
  show('status', 'ready');
}

async function run() {
  show('output', '');
  const future = session.kernel.requestExecute({ code: document.getElementById('code').value, allow_stdin: false });
  future.onIOPub = ({ header, content }) => {
    const output = document.getElementById('output');
    if (header.msg_type === 'stream') {
      output.append(content.text);
    } else if (content.data?.['text/html']) {
      output.insertAdjacentHTML('beforeend', content.data['text/html']);
    } else if (content.data) {
      output.append(content.data['text/plain']);
    } else if (header.msg_type === 'error') {
      output.append(`${content.ename}: ${content.evalue}`);
    }
  };
  await future.done;
  show('status', 'done');
}

const said = action => () => action().catch(error => show('status', `failed: ${error.message}`));
document.getElementById('launch').onclick = said(launch);
document.getElementById('run').onclick = said(run);
document.getElementById('interrupt').onclick = said(() => session.kernel.interrupt());
document.getElementById('restart').onclick = said(async () => {
  await session.kernel.restart();
  show('status', 'restarted');
});
document.getElementById('stop').onclick = said(async () => {
  await session.shutdown();
  show('status', 'stopped');
});
