// Node's cluster as a server on a port of its own: node cluster.js WORKERS.
'use strict';
const cluster = require('node:cluster');
const http = require('node:http');

if (cluster.isPrimary) {
  const workers = Number(process.argv[2]);
  let listening = 0;
  for (let i = 0; i < workers; i++) cluster.fork();
  cluster.on('listening', (worker, address) => {
    if (++listening === workers) console.log(address.port);
  });
  // Node does not replace workers by itself.
  cluster.on('exit', () => cluster.fork());
  process.on('SIGTERM', () => process.exit(0));
} else {
  const body = `hello from worker ${cluster.worker.id} pid ${process.pid}\n`;
  http.createServer((request, response) => response.end(body)).listen(0, '127.0.0.1');
}
