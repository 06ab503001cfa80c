// A worker that listens on nothing, as a consumer of a job queue. It greets the other workers by
// way of the primary, writes who has greeted it, and ends at SIGTERM only.
'use strict';
const cluster = require('cluster');

const id = cluster.worker.id;
const received = new Set();
setInterval(() => { if (process.connected) process.send({ hello: id }, () => {}); }, 20);
process.on('message', ({ hello }) => {
  if (received.has(hello)) return;
  received.add(hello);
  console.log(`worker ${id} has received worker ${hello}`);
});
process.on('SIGTERM', () => process.exit(0));
