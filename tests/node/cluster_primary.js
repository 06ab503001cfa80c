// A plain Node primary whose workers are another program, told what to do by messages:
// `cluster_primary.js POLICY SERIALIZATION PROGRAM ARGS…`. It tells every event.
'use strict';
const cluster = require('cluster');

const [policy, serialization, program, exec, ...args] = process.argv.slice(2);
const node = process.execPath;
cluster.schedulingPolicy = policy === 'none' ? cluster.SCHED_NONE : cluster.SCHED_RR;
process.execPath = program;
cluster.setupPrimary({ exec, args, execArgv: [], serialization });

const tell = (event, worker, more) => process.send({ event, id: worker.id, ...more });
cluster.on('fork', (worker) => {
  worker.on('error', (error) => tell('error', worker, { message: error.message }));
  tell('fork', worker, { pid: worker.process.pid });
});
cluster.on('online', (worker) => tell('online', worker));
cluster.on('listening', (worker, address) => tell('listening', worker, { address }));
cluster.on('message', (worker, message) => tell('message', worker, { message }));
cluster.on('disconnect', (worker) => tell('disconnect', worker));
cluster.on('exit', (worker, code, signal) => {
  tell('exit', worker, { code, signal, wanted: worker.exitedAfterDisconnect });
});

process.on('message', ({ order, id, message, script }) => {
  const worker = id && cluster.workers[id];
  switch (order) {
    case 'fork': cluster.fork(); break;
    // A worker of Node's own kind beside the others.
    case 'fork-node':
      process.execPath = node;
      cluster.setupPrimary({ exec: script, args: message });
      cluster.fork();
      process.execPath = program;
      cluster.setupPrimary({ exec, args });
      break;
    case 'disconnect': worker.disconnect(); break;
    case 'disconnect-all': cluster.disconnect(); break;
    case 'send': worker.send(message); break;
    case 'pid': tell('pid', worker, { pid: worker.process.pid }); break;
    case 'kill': worker.process.kill(message); break;
    case 'cut': worker.process.disconnect(); break;
    case 'end': process.exit(0);
  }
});
