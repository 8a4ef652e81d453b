'use strict';
/**
 * One request of @jupyterlab/services to a kernel that is there, whatever becomes of the connection. The standard
 * output goes to the file OUT as it arrives; the program ends when the request does.
 */
const fs = require('node:fs');
const { KernelManager, ServerConnection } = require('@jupyterlab/services');
const WebSocket = require('ws');

const { GATEWAY_URL, GATEWAY_TOKEN, KERNEL_ID, CODE, OUT } = process.env;
const serverSettings = ServerConnection.makeSettings({
  baseUrl: `${GATEWAY_URL}/`,
  wsUrl: `${GATEWAY_URL.replace('http', 'ws')}/`,
  token: GATEWAY_TOKEN,
  appendToken: true,
  WebSocket
});

async function main() {
  const manager = new KernelManager({ serverSettings });
  const kernel = manager.connectTo({ model: { id: KERNEL_ID, name: 'python3' } });
  kernel.connectionStatusChanged.connect((_, status) => console.log(Date.now(), status));
  kernel.statusChanged.connect((_, status) => console.log(Date.now(), status));
  await kernel.info;
  const out = fs.openSync(OUT, 'a');
  const future = kernel.requestExecute({ code: fs.readFileSync(CODE, 'utf8') });
  future.onIOPub = ({ header, content }) => {
    if (header.msg_type === 'stream' && content.name === 'stdout') {
      fs.writeSync(out, content.text);
    }
  };
  const reply = await future.done;
  console.log(Date.now(), reply.content.status);
  process.exit(reply.content.status === 'ok' ? 0 : 1);
}

main();
