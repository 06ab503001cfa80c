// A UDP application: `cluster_udp.js PORT HOW [ADDRESS]`. HOW is `plain`, `exclusive`, `v6only`,
// `twice` (two sockets on one port, by reuseAddr) or `fd:N` (the primary's descriptor N).
// Every datagram is answered with the worker's number and the text.
'use strict';
const cluster = require('cluster');
const dgram = require('dgram');

const worker = cluster.worker;
const [port, how, address = '127.0.0.1'] = process.argv.slice(2);
const type = address.includes(':') ? 'udp6' : 'udp4';
const sockets = [];

function open() {
  const socket = dgram.createSocket({ type, reuseAddr: how === 'twice', ipv6Only: how === 'v6only' });
  sockets.push(socket);
  socket.on('message', (text, from) => {
    socket.send(`${worker.id} ${text}`, from.port, from.address);
  });
  socket.on('error', (error) => {
    process.send({ error: error.code, message: error.message });
    process.disconnect();
  });
  const fd = how.startsWith('fd:') ? Number(how.slice(3)) : undefined;
  const wanted = fd === undefined
    ? { port: Number(port), address, exclusive: how === 'exclusive' } : { fd };
  socket.bind(wanted, () => process.send({ bound: socket.address() }));
}

process.on('message', (order) => {
  if (order === 'close') sockets.shift().close(() => process.send('closed'));
  if (order === 'open') open();
});
open();
if (how === 'twice') sockets[0].once('listening', open);
