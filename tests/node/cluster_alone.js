// A server on a socket of the worker's own, and the report that Bun sends for it: Node sends none.
'use strict';
const cluster = require('cluster');
const net = require('net');

const server = net.createServer((socket) => socket.end(`${cluster.worker.id}\n`));
server.listen({ port: 0, host: '127.0.0.1', exclusive: true }, () => {
  const { address, port } = server.address();
  process.send({ cmd: 'NODE_CLUSTER', act: 'listening', port, data: null, address, addressType: 4 });
});
process.on('SIGTERM', () => server.close());
