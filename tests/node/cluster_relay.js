// A worker that sends messages to the other workers by way of the primary, and listens on nothing:
// `cluster_relay.js COUNT`. On `go` it sends COUNT messages, on `report` what it has received.
'use strict';
const cluster = require('cluster');

const from = cluster.worker.id;
const received = [];
process.on('message', (message) => {
  if (message === 'go') {
    // Half of a surrogate pair: JSON and V8 carry it, and a Rust string cannot hold it.
    for (let n = 0; n < Number(process.argv[2]); n++) process.send({ from, n, half: '\ud83d' });
  } else if (message === 'report') {
    process.send({ report: from, received });
  } else if (message && message.half === '\ud83d') {
    received.push([message.from, message.n]);
  }
});
