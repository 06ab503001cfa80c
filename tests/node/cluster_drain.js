// An HTTP application with long requests and long connections: `cluster_drain.js PORT [handles]`.
// GET /MS is answered after MS milliseconds; an upgraded connection stays open. With `handles` the
// application closes both at SIGTERM: upgraded connections get `bye`, requests their answer.
'use strict';
const http = require('http');

const [port, handles] = process.argv.slice(2);
const upgraded = new Set();
const server = http.createServer((request, response) => {
  const send = () => response.writeHead(200, { connection: 'close' }).end('answered');
  setTimeout(send, Number(request.url.slice(1)));
  process.send('asked');
});
server.on('upgrade', (_, socket) => {
  upgraded.add(socket);
  socket.on('error', () => {});
  socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n');
});
process.on('disconnect', () => process.exit(0));
if (handles) {
  process.on('SIGTERM', () => { for (const socket of upgraded) socket.end('bye'); });
}
server.listen(Number(port), '127.0.0.1');
