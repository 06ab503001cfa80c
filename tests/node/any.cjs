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
  // V8 has read all of it. Looking at it takes most of the time: what it shares is looked at on every
  // way there, so a few levels have to do.
  if (counts.messages % 4 === 0) util.inspect(message, { depth: 4 });
  if (handle !== undefined && handle !== null) {
    counts.handles += 1;
    handle.on('error', () => {});
    if (handle.destroy) handle.destroy();
    else handle.close();
  }
  const plain = message !== null && message !== undefined && Object.getPrototypeOf(Object(message)) === Object.prototype;
  if (plain && Object.hasOwn(message, 'back')) process.send(message);
});
