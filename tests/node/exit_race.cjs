// Forks one child after the other and talks to each without a pause, until it has exited:
// `exit_race.cjs ROUNDS SERIALIZATION PROGRAM ARGS…`. An error that a child causes ends this program.
'use strict';
const { fork } = require('child_process');

const [rounds, serialization, execPath, script, ...args] = process.argv.slice(2);
let left = Number(rounds);

function next() {
  if (left-- === 0) return console.log('alive');
  const child = fork(script, args, { execPath, execArgv: [], serialization });
  const text = 'x'.repeat(100);
  const talk = () => {
    if (!child.connected) return;
    child.send({ text });
    setImmediate(talk);
  };
  child.once('message', talk);
  child.once('exit', (code, signal) => {
    if (code !== 0) throw new Error(`the child ended with ${code} ${signal}`);
    next();
  });
}

next();
