// A Fastify application like any other: `cluster_fastify.js PORT`.
'use strict';
const cluster = require('cluster');
const fastify = require('fastify');

const app = fastify();
app.get('/', async () => `fastify ${cluster.worker.id}`);
app.post('/sum', async (request) => {
  return `fastify ${request.body.numbers.reduce((sum, number) => sum + number, 0)}`;
});
app.listen({ port: Number(process.argv[2]), host: '127.0.0.1' });
