// Kills itself at a bad moment until there is a worker 9: `cluster_suicide.js PORT`.
'use strict';
const cluster = require('cluster');
const net = require('net');

const id = cluster.worker.id;
net.createServer((socket) => socket.end(`${id}\n`)).listen(Number(process.argv[2]), '127.0.0.1');
// The primary is answering the listen request at this moment.
if (id > 1 && id < 9) process.kill(process.pid, 'SIGKILL');
