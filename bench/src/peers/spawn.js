// Spawns and waits on request: {"hold": MiB} or {"spawn": times, "options": "plain" | "pipes" | …}.
'use strict';
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const lines = require('node:readline').createInterface({ input: process.stdin });

let ballast = [];
const extra = fs.openSync('/dev/null', 'r');
const options = {
  plain: { stdio: 'ignore' },
  several: { stdio: ['ignore', 'ignore', 'ignore', extra], cwd: '/', detached: true },
  pipes: { stdio: 'pipe' },
  all: {
    stdio: ['ignore', 'ignore', 'ignore', extra, extra, extra], cwd: '/', detached: true,
    uid: 65534, gid: 65534,
  },
};

function once(how) {
  return new Promise((resolve, reject) => {
    const begin = process.hrtime.bigint();
    const child = spawn('/bin/true', [], options[how]);
    child.on('error', reject);
    child.on('exit', () => resolve(Number(process.hrtime.bigint() - begin)));
  });
}

async function answer(request) {
  if (request.hold !== undefined) {
    ballast = [];
    // Several buffers, because the size of one buffer is limited.
    for (let left = request.hold; left > 0; left -= 256) {
      ballast.push(Buffer.alloc(Math.min(left, 256) << 20, 1));
    }
    return [];
  }
  const times = [];
  for (let i = 0; i < request.spawn; i++) times.push(await once(request.options));
  return times;
}

(async () => {
  for await (const line of lines) console.log(JSON.stringify(await answer(JSON.parse(line))));
})();
