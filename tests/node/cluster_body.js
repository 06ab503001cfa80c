// Big bodies both ways: `cluster_body.js PORT` answers a POST with its length and 200 kB.
'use strict';
const http = require('http');

const reply = 'x'.repeat(200000);
http.createServer((request, response) => {
  let length = 0;
  request.on('data', (part) => { length += part.length; });
  request.on('end', () => {
    response.writeHead(200, { 'content-length': reply.length + 8, connection: 'close' });
    response.end(String(length).padStart(8) + reply);
  });
}).listen(Number(process.argv[2]), '127.0.0.1');
