// Sends a text of this many bytes, writes bytes to the channel itself, and ends without reading, at
// once or when it is killed.
'use strict';
const fs = require('fs');

const [bytes, hex, waits] = process.argv.slice(2);
if (Number(bytes) > 0) process.send('x'.repeat(Number(bytes)));
if (hex) fs.writeSync(process.channel.fd, Buffer.from(hex, 'hex'));
if (waits) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
process.exit(3);
