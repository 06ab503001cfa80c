// The Node side of the tests. A message `{do: NAME, …}` asks for one of the actions below; every other
// message is sent back with its handle. The process ends with the channel.
'use strict';
const dgram = require('dgram');
const fs = require('fs');
const net = require('net');
const util = require('util');

const answers = { acks: 0, nacks: 0 };
const kept = [];
let server;
let seen = 0;

process.on('internalMessage', ({ cmd }) => {
  if (cmd === 'NODE_HANDLE_ACK') answers.acks += 1;
  if (cmd === 'NODE_HANDLE_NACK') answers.nacks += 1;
});

// Writes bytes to the channel itself, past all checks of Node.
function raw(bytes) {
  bytes = Buffer.from(bytes);
  while (bytes.length > 0) {
    try {
      bytes = bytes.subarray(fs.writeSync(process.channel.fd, bytes));
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
    }
  }
}

function evaluated(expression) {
  return new Function(`return (${expression})`)();
}

// A connection that a server of this process has accepted.
function connection(use) {
  server = net.createServer((accepted) => use(accepted));
  server.listen(0, '127.0.0.1', () => {
    const client = net.connect(server.address().port, '127.0.0.1');
    let said = '';
    client.on('data', (data) => { said += data; });
    client.on('end', () => { client.end(); process.send({ client: said }); });
    client.on('error', () => {});
  });
}

const deeds = {
  // Sends the number of acknowledgements and refusals for the handles that this script sent.
  answers: () => process.send(answers),
  // Sends this many numbers, one after the other.
  flood: ({ count }) => { for (let at = 0; at < count; at += 1) process.send(at); },
  // Counts messages, and sends the count at the last.
  count: ({ last }) => { seen += 1; if (last) process.send(seen); },
  // Sends the values of these expressions, one message each.
  values: ({ expressions }) => expressions.forEach((text) => process.send(evaluated(text))),
  // Sends whether a value that came back equals the expression.
  compare: ({ expression, value }) => {
    const there = evaluated(expression);
    // An invalid date never equals another.
    const shown = (it) => util.inspect(it, { depth: 9 });
    process.send(util.isDeepStrictEqual(there, value) || shown(there) === shown(value));
  },
  same: ({ expression, value }) => {
    const [there, back] = [evaluated(expression), value].map((it) => JSON.parse(JSON.stringify(it)));
    process.send(util.isDeepStrictEqual(there, back));
  },
  evaluate: ({ expression }) => process.send(evaluated(expression)),
  raw: ({ text }) => raw(text),
  bytes: ({ hex }) => raw(Buffer.from(hex, 'hex')),
  // Goes on after an uncaught error, and sends its code.
  survive: () => process.on('uncaughtException', (error) => process.send(error.code)),
  // Holds every descriptor for `ms` milliseconds; 0 means for ever.
  exhaust: ({ ms }) => {
    const held = [];
    try { for (;;) held.push(fs.openSync('/dev/null')); } catch { /* No descriptor is left. */ }
    process.send('exhausted');
    if (ms > 0) setTimeout(() => held.forEach((fd) => fs.closeSync(fd)), ms);
  },
  exit: ({ code }) => process.exit(code),
  disconnect: () => process.disconnect(),
  print: () => { process.stdout.write('to stdout\n'); process.stderr.write('to stderr\n'); },
  pipe: ({ fd }) => { const pipe = new net.Socket({ fd }); pipe.pipe(pipe); },
  grandchild: () => {
    const code = 'console.log(JSON.stringify(Object.keys(process.env).filter((name) => /NODE_CHANNEL|NODE_UNIQUE|BROOD_(CHANNEL|MODULE|STDERR)/.test(name))))';
    process.send(require('child_process').execFileSync(process.execPath, ['-e', code], { encoding: 'utf8' }));
  },

  // The actions on a handle.
  hello: (_, socket) => { socket.on('error', () => {}); socket.end('hello from node\n'); process.send(socket.constructor.name); },
  serve: (_, it) => { server = it; it.on('connection', (socket) => socket.end('hello from node\n')); process.send(it.constructor.name); },
  pong: (_, it) => { it.on('message', (text, from) => it.send(`pong ${text}`, from.port, from.address, () => it.close())); process.send(it.constructor.name); },
  drop: (_, handle) => { handle.on?.('error', () => {}); handle.destroy ? handle.destroy() : handle.close(); },
  close: () => { kept.forEach((socket) => socket.destroy()); server?.close(); },
  keepOpen: (_, socket) => { socket.on('error', () => {}); kept.push(socket); process.send('kept'); },

  // The actions that send a handle.
  sendServer: ({ path }) => {
    server = net.createServer();
    server.listen(path ?? { port: 0, host: '127.0.0.1' }, () => process.send('server', server, () => server.close()));
  },
  sendSocket: () => connection((socket) => process.send('socket', socket)),
  sendKept: () => connection((socket) => { kept.push(socket); process.send('kept', socket, { keepOpen: true }); }),
  sendUnix: ({ path }) => {
    const socket = net.connect(path, () => process.send('unix', socket));
  },
  sendUdp: () => {
    const socket = dgram.createSocket('udp4');
    socket.bind(0, '127.0.0.1', () => process.send('udp', socket, () => socket.close()));
  },
  // Sends a handle with a long message.
  sendLong: ({ length }) => {
    const socket = dgram.createSocket('udp4');
    socket.bind(0, '127.0.0.1', () => process.send('x'.repeat(length), socket, () => socket.close()));
  },
  // Sends many handles, each with a number, which are acknowledged one after the other.
  sendMany: ({ count }) => {
    server = net.createServer();
    server.listen(0, '127.0.0.1', () => {
      for (let at = 0; at < count; at += 1) process.send(at, server);
      process.send('behind them');
    });
  },
  // Sends sockets of a server that counts them.
  connections: () => server.getConnections((error, count) => process.send({ error: error?.code ?? null, count })),
  closeServer: () => server.close(() => process.send('closed')),
};

process.on('message', (message, handle) => {
  const deed = message !== null && typeof message === 'object' && deeds[message.do];
  if (deed) deed(message, handle);
  else if (handle === undefined || handle === null) process.send(message);
  else process.send(message, handle, () => handle.close?.());
});
