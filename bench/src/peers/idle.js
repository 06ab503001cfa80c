// Holds {"children": N} idle children and reports, over {"watch": ms}: [resident bytes, wake-ups].
'use strict';
const { spawn, fork } = require('node:child_process');
const fs = require('node:fs');
const lines = require('node:readline').createInterface({ input: process.stdin });
let children = [];

// The voluntary context switches of all threads.
function switches() {
  let sum = 0;
  for (const thread of fs.readdirSync('/proc/self/task')) {
    const status = fs.readFileSync(`/proc/self/task/${thread}/status`, 'utf8');
    sum += Number(/^voluntary_ctxt_switches:\s*(\d+)/m.exec(status)[1]);
  }
  return sum;
}

async function answer(request) {
  if (request.children !== undefined) {
    const before = process.memoryUsage.rss();
    while (children.length < request.children) {
      children.push(spawn('/bin/sleep', ['3600'], { stdio: 'ignore' }));
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
    return [process.memoryUsage.rss() - before];
  }
  const before = switches();
  await new Promise((resolve) => setTimeout(resolve, request.watch));
  // The end of this wait does not count.
  return [Math.max(0, switches() - before - 1)];
}

(async () => {
  for await (const line of lines) console.log(JSON.stringify(await answer(JSON.parse(line))));
  for (const child of children) child.kill('SIGKILL');
  process.exit(0);
})();
