// An HTTP application on a descriptor of its primary: `cluster_fd.js N`.
'use strict';
const cluster = require('cluster');
const http = require('http');

const server = http.createServer((request, response) => {
  response.writeHead(200, { 'content-length': 1, connection: 'close' });
  response.end(String(cluster.worker.id));
});
server.on('error', (error) => {
  process.send({ error: error.code, message: error.message });
  process.disconnect();
});
server.listen({ fd: Number(process.argv[2]) }, () => process.send({ listening: server.address() }));
