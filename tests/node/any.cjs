// Takes every message, walks it, counts it, sends it back if it has a property `back`, and sends the
// counts at the end.
'use strict';
const util = require('util');

const counts = { messages: 0, handles: 0 };

process.on('message', (message, handle) => {
  if (message === 'the end') {
    process.send(counts, () => process.disconnect());
    return;
  }
  counts.messages += 1;
  // V8 has read the whole value. The walk takes most of the time and visits a shared part once for
  // every path to it, so it goes a few levels deep.
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
