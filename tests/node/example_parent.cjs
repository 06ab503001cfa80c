// Forks the example node_child and checks its answers: `node example_parent.cjs PROGRAM json|advanced`.
'use strict';
const assert = require('assert');
const { fork } = require('child_process');
const net = require('net');
const { once } = require('events');

const [program, serialization] = process.argv.slice(2);
const HELLO = 'hello from rust\n';
const child = fork('-', [], { execPath: program, execArgv: [], serialization });

async function text(stream) {
  let said = '';
  for await (const part of stream.setEncoding('utf8')) said += part;
  return said;
}

async function listening(options) {
  const server = net.createServer(options);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

async function main() {
  for (const value of [null, 'text', { a: [1, 2.5, { b: true }] }, []]) {
    child.send(value);
    assert.deepStrictEqual((await once(child, 'message'))[0], value);
  }
  let server = await listening({ pauseOnConnect: true });
  let client = net.connect(server.address().port, '127.0.0.1');
  const [accepted] = await once(server, 'connection');
  child.send('a socket', accepted);
  assert.strictEqual(await text(client), HELLO);
  const { port } = server.address();
  child.send('a server', server, () => server.close());
  await once(server, 'close');
  for (let at = 0; at < 3; at += 1) assert.strictEqual(await text(net.connect(port, '127.0.0.1')), HELLO);

  // Echoes of the two messages above may still be on their way.
  child.send('server');
  let message;
  do [message, server] = await once(child, 'message'); while (message !== 'server');
  server.on('connection', (socket) => socket.end('from node'));
  client = net.connect(server.address().port, '127.0.0.1');
  assert.strictEqual(await text(client), 'from node');
  server.close();

  const gone = once(child, 'disconnect');
  child.send('exit');
  await gone;
  if (child.exitCode === null) await once(child, 'exit');
  assert.strictEqual(child.exitCode, 0);
}

process.on('unhandledRejection', (error) => { throw error; });
main();
