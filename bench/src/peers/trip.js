// JSON round trips with a Node child that sends everything back: {"trip": times}.
'use strict';
const { fork } = require('node:child_process');

if (process.env.BENCH_CHILD) {
  process.on('message', (message) => process.send(message));
} else {
  const file = process.env.BENCH_FILE;
  const env = { ...process.env, BENCH_CHILD: '1' };
  const child = fork(file, [], { env, stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  const lines = require('node:readline').createInterface({ input: process.stdin });
  const message = { id: 7, text: 'a message like many others', list: [1, 2, 3] };
  const trip = (times) => new Promise((resolve) => {
    const begin = process.hrtime.bigint();
    let left = times;
    child.removeAllListeners('message');
    child.on('message', () => {
      left -= 1;
      if (left > 0) child.send(message);
      else resolve([Number(process.hrtime.bigint() - begin) / times]);
    });
    child.send(message);
  });
  lines.on('close', () => child.disconnect());
  (async () => {
    for await (const line of lines) console.log(JSON.stringify(await trip(JSON.parse(line).trip)));
  })();
}
