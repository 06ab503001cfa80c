// The child of the example node_parent: sends values back, and a handle when a message names one.
'use strict';
const dgram = require('dgram');
const fs = require('fs');
const net = require('net');
const os = require('os');
const path = require('path');

// A connection that a server here has accepted; its client reports the data that it reads.
function connection(where, name) {
  const server = net.createServer((accepted) => {
    process.send({ sent: name }, accepted);
    server.close();
  });
  server.listen(where, () => {
    const client = typeof where === 'string' ? net.connect(where) : net.connect(server.address().port, '127.0.0.1');
    let said = '';
    client.on('data', (data) => { said += data; });
    client.on('end', () => process.connected && process.send(said));
  });
}

function server(where, name) {
  const it = net.createServer();
  it.listen(where, () => process.send({ sent: name }, it, () => it.close()));
}

const file = (name) => {
  const place = path.join(os.tmpdir(), `brood-example-${name}-${process.pid}`);
  fs.rmSync(place, { force: true });
  return place;
};
const loopback = { port: 0, host: '127.0.0.1' };

const handles = {
  'tcp-socket': (name) => connection(loopback, name),
  'unix-socket': (name) => connection(file('socket'), name),
  'tcp-server': (name) => server(loopback, name),
  'unix-server': (name) => server(file('server'), name),
  udp: (name) => {
    const socket = dgram.createSocket('udp4');
    socket.bind(0, '127.0.0.1', () => process.send({ sent: name }, socket, () => socket.close()));
  },
};

process.on('message', (message) => {
  if (typeof message === 'string' && handles[message]) handles[message](message);
  else if (message && message.exit !== undefined) process.exit(message.exit);
  else if (message && message.kill !== undefined) process.kill(process.pid, message.kill);
  else process.send(message);
});
