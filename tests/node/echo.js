// Sends everything back, a handle with it. Ends when its parent disconnects.
'use strict';
process.on('message', (message, handle) => {
  if (handle === undefined) process.send(message);
  else process.send(message, handle);
});
