// A Node primary for two workers that are another program: `run_workers.js PROGRAM ARG…`.
// It prints their address, and SIGTERM ends it after its workers.
'use strict';
const cluster = require('cluster');

const [program, exec, ...args] = process.argv.slice(2);
process.execPath = program;
cluster.setupPrimary({ exec, args, execArgv: [] });
let listening = 0;
cluster.on('listening', (worker, { address, port }) => {
  if (++listening === 2) console.log(`listening on http://${address}:${port} (${process.pid})`);
});
process.on('SIGTERM', () => {
  let left = Object.keys(cluster.workers).length;
  cluster.on('exit', () => { if (--left === 0) process.exit(0); });
  cluster.disconnect();
});
cluster.fork();
cluster.fork();
