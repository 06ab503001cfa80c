// A plain TLS application and its client, without a certificate: `cluster_tls.js PORT` serves,
// `cluster_tls.js client PORT COUNT` prints the worker that answered and whether the session of the
// first connection was resumed.
'use strict';
const cluster = require('cluster');
const tls = require('tls');

const anonymous = {
  ciphers: 'AECDH-AES128-SHA:@SECLEVEL=0', minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2',
};

if (process.argv[2] !== 'client') {
  const server = tls.createServer(anonymous, (socket) => socket.end(String(cluster.worker.id)));
  server.listen(Number(process.argv[2]), '127.0.0.1');
} else {
  const [port, count] = process.argv.slice(3).map(Number);
  const seen = [];
  let session;
  const connect = () => {
    const options = { port, host: '127.0.0.1', rejectUnauthorized: false, session, ...anonymous };
    const socket = tls.connect(options, () => {
      const entry = { reused: socket.isSessionReused() };
      session = session || socket.getSession();
      socket.on('data', (text) => { entry.worker = Number(text); });
      socket.on('close', () => {
        seen.push(entry);
        if (seen.length < count) connect();
        else console.log(JSON.stringify(seen));
      });
    });
    socket.on('error', (error) => { console.error(error); process.exit(1); });
  };
  connect();
}
