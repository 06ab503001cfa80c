// A net application that takes orders as messages: `cluster_net.js PORT|PATH [any|all] [MAX…]`. With
// `any` it listens on all addresses, with `all` at a path for all users; each MAX is the
// maxConnections of one worker.
// The application sends the worker's number and a newline on every connection, and keeps it open.
'use strict';
const cluster = require('cluster');
const net = require('net');

const worker = cluster.worker;
const [where, ...limits] = process.argv.slice(2);
const host = limits[0] === 'any' ? void limits.shift() : '127.0.0.1';
const all = limits[0] === 'all' && Boolean(limits.shift());
const wanted = /^\d+$/.test(where)
  ? { port: Number(where), host } : { path: where, readableAll: all, writableAll: all };
let server;

function open() {
  server = net.createServer((socket) => {
    socket.on('error', () => {});
    socket.write(`${worker.id}\n`);
    socket.on('data', (text) => {
      if (String(text).startsWith('bye')) socket.end();
    });
  });
  const limit = limits[(worker.id - 1) % limits.length];
  if (limit) server.maxConnections = Number(limit);
  server.on('error', (error) => process.send({ error: error.code, message: error.message }));
  server.listen(wanted, () => process.send({ listening: server.address() }));
}

process.on('message', (order, handle) => {
  switch (order) {
    case 'close': server.close(() => process.send('closed')); break;
    case 'reopen': server.close(); open(); break;
    case 'disconnect': worker.disconnect(); break;
    case 'kill': worker.kill(); break;
    case 'process.disconnect': process.disconnect(); break;
    case 'exit': process.exit(42);
    case 'throw': throw new Error('asked for');
    case 'block': for (;;) ; // eslint-disable-line no-constant-condition
    case 'flood': for (let i = 0; i < 60; i++) process.send('x'.repeat(100000)); break;
    case 'hold': process.send({ handle: handle && handle.constructor.name });
      handle.end(`held by ${worker.id}\n`); break;
    default: process.send({ echo: order, env: process.env.NODE_UNIQUE_ID || null,
      second: process.env.NODE_UNIQUE_NO || null, isWorker: cluster.isWorker,
      id: worker.id, connected: worker.isConnected(), dead: worker.isDead() });
  }
});
open();
