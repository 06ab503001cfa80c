// A plain HTTP application: `cluster_http.js PORT [HOST]`. The application is the same with and without a primary.
'use strict';
const cluster = require('cluster');
const http = require('http');

const id = cluster.worker ? cluster.worker.id : 0;
const server = http.createServer((request, response) => {
  const body = String(id);
  const send = () => {
    response.writeHead(200, { 'content-length': Buffer.byteLength(body), connection: 'close' });
    response.end(body);
  };
  const slow = /^\/slow\/(\d+)/.exec(request.url);
  if (slow) setTimeout(send, Number(slow[1]));
  else send();
});
server.on('error', (error) => {
  process.send({ error: error.code, message: error.message });
  process.disconnect();
});
const [port, host] = process.argv.slice(2);
server.listen(Number(port), host, () => {
  process.send({ listening: server.address() });
});
