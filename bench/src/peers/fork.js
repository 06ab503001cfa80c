// Forks a child, waits for its first message, ends it: {"fork": times} or {"hold": MiB}.
'use strict';
const { fork } = require('node:child_process');

if (process.env.BENCH_CHILD) {
  process.on('message', () => {});
  process.send('here');
} else {
  const file = process.env.BENCH_FILE;
  const lines = require('node:readline').createInterface({ input: process.stdin });
  let ballast = [];
  const once = () => new Promise((resolve, reject) => {
    const begin = process.hrtime.bigint();
    const env = { ...process.env, BENCH_CHILD: '1' };
    const child = fork(file, [], { env, stdio: ['ignore', 'ignore', 'ignore', 'ipc'] });
    let time = 0;
    child.on('error', reject);
    child.on('message', () => {
      time = Number(process.hrtime.bigint() - begin);
      child.disconnect();
    });
    child.on('exit', () => resolve(time));
  });
  const answer = async (request) => {
    if (request.hold !== undefined) {
      ballast = [];
      for (let left = request.hold; left > 0; left -= 256) {
        ballast.push(Buffer.alloc(Math.min(left, 256) << 20, 1));
      }
      return [];
    }
    const times = [];
    for (let i = 0; i < request.fork; i++) times.push(await once());
    return times;
  };
  (async () => {
    for await (const line of lines) console.log(JSON.stringify(await answer(JSON.parse(line))));
  })();
}
