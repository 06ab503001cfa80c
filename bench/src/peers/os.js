// Reads requests, one per line: the function of `os`, the calls per batch, the number of batches.
// Answers with the nanoseconds of one call, per batch.
const os = require('os');
require('readline').createInterface({ input: process.stdin }).on('line', (line) => {
  const { call, calls, batches } = JSON.parse(line);
  const f = os[call];
  const samples = [];
  for (let batch = 0; batch < batches; batch++) {
    const begin = process.hrtime.bigint();
    for (let i = 0; i < calls; i++) f();
    samples.push(Number(process.hrtime.bigint() - begin) / calls);
  }
  console.log(JSON.stringify(samples));
});
