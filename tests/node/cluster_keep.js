// A plain application whose connections stay open: `cluster_keep.js PORT http|https`. Its clients for
// https: `cluster_keep.js client PORT COUNT`, which asks COUNT times over one connection and COUNT
// times over new ones, and prints the workers that answered. TLS is anonymous, so that it needs no certificate.
'use strict';
const cluster = require('cluster');
const http = require('http');
const https = require('https');

const anonymous = {
  ciphers: 'AECDH-AES128-SHA:@SECLEVEL=0', minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2',
};

function serve(port, kind) {
  const answer = (request, response) => {
    const send = () => response.end(String(cluster.worker.id));
    const slow = /^\/slow\/(\d+)/.exec(request.url);
    if (slow) {
      process.send('slow');
      setTimeout(send, Number(slow[1]));
    } else send();
  };
  const server = kind === 'https'
    ? https.createServer(anonymous, answer) : http.createServer(answer);
  // A worker that leaves waits this long for a kept-alive client; an agent counts a second less.
  server.keepAliveTimeout = 2500;
  server.listen(port, '127.0.0.1');
}

function ask(port, agent) {
  return new Promise((resolve, reject) => {
    const options = { port, host: '127.0.0.1', agent, rejectUnauthorized: false, ...anonymous };
    const request = https.get(options, (response) => {
      let text = '';
      response.on('data', (part) => { text += part; });
      response.on('end', () => resolve({ worker: Number(text), reused: request.reusedSocket }));
    });
    request.on('error', reject);
  });
}

async function askAll(port, count) {
  const agent = new https.Agent({ keepAlive: true, maxSockets: 1 });
  const kept = [];
  const fresh = [];
  for (let i = 0; i < count; i++) kept.push(await ask(port, agent));
  for (let i = 0; i < count; i++) fresh.push(await ask(port, false));
  agent.destroy();
  console.log(JSON.stringify({ kept, fresh }));
}

const [first, ...more] = process.argv.slice(2);
if (first === 'client') askAll(...more.map(Number));
else serve(Number(first), more[0]);
