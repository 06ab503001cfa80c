// A plain Node primary whose workers are another program, and which takes orders as messages:
// `cluster_primary.js POLICY SERIALIZATION PROGRAM ARGS…`. It reports every event.
'use strict';
const cluster = require('cluster');

const [policy, serialization, program, exec, ...args] = process.argv.slice(2);
const node = process.execPath;
cluster.schedulingPolicy = policy === 'none' ? cluster.SCHED_NONE : cluster.SCHED_RR;
process.execPath = program;
cluster.setupPrimary({ exec, args, execArgv: [], serialization });

const report = (event, worker, more) => process.send({ event, id: worker.id, ...more });
cluster.on('fork', (worker) => {
  worker.on('error', (error) => report('error', worker, { message: error.message }));
  report('fork', worker, { pid: worker.process.pid });
});
cluster.on('online', (worker) => report('online', worker));
cluster.on('listening', (worker, address) => report('listening', worker, { address }));
cluster.on('message', (worker, message) => report('message', worker, { message }));
cluster.on('disconnect', (worker) => report('disconnect', worker));
cluster.on('exit', (worker, code, signal) => {
  report('exit', worker, { code, signal, wanted: worker.exitedAfterDisconnect });
});

process.on('message', ({ order, id, message, script }) => {
  const worker = id && cluster.workers[id];
  switch (order) {
    case 'fork': cluster.fork(); break;
    // Starts a Node worker beside the others.
    case 'fork-node':
      process.execPath = node;
      cluster.setupPrimary({ exec: script, args: message });
      cluster.fork();
      process.execPath = program;
      cluster.setupPrimary({ exec, args });
      break;
    case 'disconnect': worker.disconnect(); break;
    // The worker may have left by itself.
    case 'disconnect-if-there': if (worker) worker.disconnect(); break;
    case 'disconnect-all': cluster.disconnect(); break;
    case 'send': worker.send(message); break;
    // Sends, and is stopped before it can read an answer.
    case 'send-and-stop':
      worker.send(message);
      process.kill(process.pid, 'SIGSTOP');
      break;
    case 'pid': report('pid', worker, { pid: worker.process.pid }); break;
    case 'kill': worker.process.kill(message); break;
    case 'cut': worker.process.disconnect(); break;
    case 'end': process.exit(0);
  }
});
