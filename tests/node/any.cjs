// Takes whatever comes, looks into it, counts it, sends back what has a property `back`, and
// tells the counts at the end.
'use strict';
const util = require('util');

const counts = { messages: 0, handles: 0 };

process.on('message', (message, handle) => {
  if (message === 'the end') {
    process.send(counts, () => process.disconnect());
    return;
  }
  counts.messages += 1;
  // V8 has read all of it; looking at it as well takes most of the time.
  if (counts.messages % 4 === 0) util.inspect(message, { depth: 10 });
  if (handle !== undefined && handle !== null) {
    counts.handles += 1;
    handle.on('error', () => {});
    if (handle.destroy) handle.destroy();
    else handle.close();
  }
  const plain = message !== null && message !== undefined && Object.getPrototypeOf(Object(message)) === Object.prototype;
  if (plain && Object.hasOwn(message, 'back')) process.send(message);
});
