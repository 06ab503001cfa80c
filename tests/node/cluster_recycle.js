// A plain HTTP application whose workers leave after some requests: `cluster_recycle.js PORT REQUESTS WAY`.
'use strict';
const cluster = require('cluster');
const http = require('http');

const [port, requests, way] = process.argv.slice(2);
let left = Number(requests);
const server = http.createServer((request, response) => {
  const body = String(cluster.worker.id);
  response.writeHead(200, { 'content-length': Buffer.byteLength(body), connection: 'close' });
  response.end(body);
  if (--left !== 0) return;
  if (way === 'close') server.close(() => process.exit());
  else cluster.worker.disconnect();
});
server.listen(Number(port), '127.0.0.1');
