// A worker that listens on nothing, and sends the address of its inspector.
'use strict';
process.send(require('inspector').url() || 'none');
process.on('message', () => {});
