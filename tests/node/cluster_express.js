// An Express application like any other: `cluster_express.js PORT`.
'use strict';
const cluster = require('cluster');
const express = require('express');

const app = express();
app.use(express.json());
app.get('/', (request, response) => response.send(`express ${cluster.worker.id}`));
app.post('/sum', (request, response) => {
  response.send(`express ${request.body.numbers.reduce((sum, number) => sum + number, 0)}`);
});
app.listen(Number(process.argv[2]), '127.0.0.1');
