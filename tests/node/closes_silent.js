// Whether `server.close()` of this Node's http closes connections of which nothing was read.
'use strict';
const http = require('http');
const net = require('net');

const server = http.createServer(() => {});
const answer = (word) => {
  console.log(word);
  process.exit();
};
server.on('connection', () => {
  server.close();
  setTimeout(answer, 500, 'no');
});
server.listen(0, '127.0.0.1', () => {
  net.connect(server.address().port, '127.0.0.1').on('error', () => {}).on('close', () => answer('yes')).resume();
});
