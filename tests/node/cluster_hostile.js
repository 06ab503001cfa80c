// A worker that sends invalid messages, and serves nevertheless: `cluster_hostile.js PORT`.
'use strict';
const cluster = require('cluster');
const net = require('net');

if (cluster.worker.id === 1) {
  const say = (message) => process.send({ cmd: 'NODE_CLUSTER', ...message });
  for (let i = 0; i < 3; i++) {
    say({ act: 'close', key: '99' });
    say({ act: 'close' });
    say({ act: 'listening', address: {}, port: 'x' });
    say({ act: 'queryServer', index: 0, address: 'no address', port: 1, addressType: 4, seq: 1e9 });
    say({ act: 'queryServer', addressType: 'nothing', seq: 1e9 + 1 });
    say({ act: 'queryServer', addressType: 4, fd: 7, seq: 1e9 + 2 });
    say({ act: 'no act', seq: -1 });
    say({ ack: 0, accepted: true });
    say({ ack: 1e15, accepted: false });
    say({ ack: 'x', seq: null });
    say({});
    process.send({ cmd: 'NODE_HANDLE_ACK' });
    process.send({ cmd: 'NODE_HANDLE_NACK' });
    process.send({ cmd: 'NODE_SOMETHING', deep: JSON.parse('['.repeat(400) + ']'.repeat(400)) });
  }
}
net.createServer((socket) => socket.end(`${cluster.worker.id}\n`))
  .listen(Number(process.argv[2]), '127.0.0.1', () => process.send('up'));
