// Forks a Rust program and checks its answers: `node parent.cjs SCENARIO json|advanced PROGRAM`.
'use strict';
const assert = require('assert');
const { fork, spawn } = require('child_process');
const dgram = require('dgram');
const fs = require('fs');
const net = require('net');
const os = require('os');
const path = require('path');
const { once } = require('events');

const [scenario, serialization, program] = process.argv.slice(2);
const advanced = serialization === 'advanced';
const HELLO = 'hello from rust\n';

function start() {
  const child = fork('role', ['node_peer'], { execPath: program, execArgv: [], serialization });
  return watched(child);
}

// A child whose messages the scenarios await, one after the other.
function watched(child) {
  const waiting = [];
  const came = [];
  child.acks = 0;
  child.nacks = 0;
  child.on('message', (message, handle) => {
    if (waiting.length > 0) waiting.shift()([message, handle]);
    else came.push([message, handle]);
  });
  child.on('internalMessage', ({ cmd }) => {
    if (cmd === 'NODE_HANDLE_ACK') child.acks += 1;
    if (cmd === 'NODE_HANDLE_NACK') child.nacks += 1;
  });
  child.next = () => new Promise((resolve) => {
    if (came.length > 0) resolve(came.shift());
    else waiting.push(resolve);
  });
  child.value = async () => (await child.next())[0];
  child.ended = once(child, 'exit');
  child.endsWell = async () => {
    child.disconnect();
    assert.deepStrictEqual(await child.ended, [0, null]);
  };
  return child;
}

async function text(stream) {
  let said = '';
  stream.setEncoding('utf8');
  for await (const part of stream) said += part;
  return said;
}

async function listening(server, where) {
  server.listen(where);
  await once(server, 'listening');
  return server.address();
}

// A connection that a server here has accepted, and its client.
async function connection(server) {
  const address = server.address();
  const client = typeof address === 'string' ? net.connect(address) : net.connect(address.port, '127.0.0.1');
  const [accepted] = await once(server, 'connection');
  return { client, accepted };
}

function somewhere(name) {
  const file = path.join(os.tmpdir(), `brood-${name}-${process.pid}`);
  try { fs.unlinkSync(file); } catch {}
  return file;
}

const scenarios = {
  async node_and_its_rust_child_exchange_every_kind_of_value() {
    const child = start();
    const values = [
      'str', '', 'line\nbreak \u2028 ß € \u{1f600} \0', 0, -1.5, 1e21, 0.1, 2 ** 53 - 1, 2 ** 31, true, false,
      null, {}, [], { a: [{ b: { c: [null, [], {}] } }], '': 1, ß: 2 }, { 2: 'b', 1: 'a', z: 'c' },
    ];
    if (advanced) {
      const cycle = { x: 1 };
      cycle.me = cycle;
      values.push(
        NaN, -0, Infinity, [undefined, 1n, -(2n ** 200n)], new Date(1e12), /ab+/gi, cycle,
        new Map([['k', 1], [new Map(), null]]), new Set([1, 'a', {}]), Buffer.from('xyz'), new Float64Array([1.5]),
        new DataView(new ArrayBuffer(2)), new BigUint64Array([1n]), new ArrayBuffer(3), [, 1], '\ud800lone',
        [new Number(1), new Boolean(false), new String('s'), Object(1n)], { a: undefined }, new TypeError('t'),
      );
    }
    for (const value of values) {
      child.send(value);
      assert.deepStrictEqual(await child.value(), value);
    }
    await child.endsWell();
  },

  async node_and_its_rust_child_exchange_big_messages_and_bursts() {
    const child = start();
    const big = '0123456789abcdeß'.repeat(8 << 16);
    child.send(big);
    assert.strictEqual(await child.value(), big);
    const count = advanced ? 10000 : 100000;
    child.send({ do: 'flood', count });
    for (let at = 0; at < count; at += 1) assert.strictEqual(await child.value(), at);
    for (let at = 1; at <= count; at += 1) child.send({ do: 'count', last: at === count });
    assert.strictEqual(await child.value(), count);
    await child.endsWell();
  },

  async the_channel_of_a_rust_child_may_be_any_descriptor() {
    for (const index of [0, 1, 2, 3, 4, 9]) {
      const stdio = ['ignore', 'ignore', 'inherit', ...Array(10).fill('ignore')].slice(0, Math.max(3, index + 1));
      stdio[index] = 'ipc';
      const child = watched(spawn(program, ['role', 'node_peer'], { stdio, serialization }));
      child.send({ index });
      assert.deepStrictEqual(await child.value(), { index });
      await child.endsWell();
    }
  },

  async node_passes_handles_to_its_rust_child() {
    const child = start();
    const file = somewhere('to');
    for (const where of [{ port: 0, host: '127.0.0.1' }, file]) {
      const server = net.createServer({ pauseOnConnect: true });
      await listening(server, where);
      const { client, accepted } = await connection(server);
      child.send({ do: 'hello' }, accepted);
      assert.strictEqual(await text(client), HELLO);
      let address = server.address().port;
      if (where === file) {
        // Node removes the name on close, so the client reaches the socket by another name.
        address = `${file}-too`;
        fs.rmSync(address, { force: true });
        fs.linkSync(file, address);
      }
      child.send({ do: 'serve' }, server, () => server.close());
      await once(server, 'close');
      assert.strictEqual(await text(net.connect(address)), HELLO);
      fs.rmSync(`${file}-too`, { force: true });
    }
    const there = dgram.createSocket('udp4');
    there.bind(0, '127.0.0.1');
    await once(there, 'listening');
    const { port } = there.address();
    child.send({ do: 'pong' }, there, () => there.close());
    const here = dgram.createSocket('udp4');
    here.send('ping', port, '127.0.0.1');
    const [answer] = await once(here, 'message');
    assert.strictEqual(String(answer), 'pong ping');
    here.close();
    assert.deepStrictEqual([child.acks, child.nacks], [5, 0]);
    await child.endsWell();
  },

  async a_rust_child_passes_handles_to_node() {
    const child = start();
    child.send({ do: 'sendServer' });
    let [message, server] = await child.next();
    assert.ok(message === 'server' && server instanceof net.Server);
    let { client, accepted } = await connection(server);
    accepted.end('x');
    assert.strictEqual(await text(client), 'x');
    const { port } = server.address();
    child.send({ do: 'sendSocket', port });
    [accepted] = await once(server, 'connection');
    let [, socket] = await child.next();
    assert.ok(socket instanceof net.Socket && socket.readable && socket.writable);
    socket.end('from the child');
    assert.strictEqual(await text(accepted), 'from the child');
    server.close();

    const file = somewhere('from');
    child.send({ do: 'sendUnixServer', path: file });
    [message, server] = await child.next();
    assert.ok(message === 'server' && server instanceof net.Server);
    child.send({ do: 'sendUnixSocket', path: file });
    [accepted] = await once(server, 'connection');
    [, socket] = await child.next();
    accepted.end('to the child');
    assert.strictEqual(await text(socket), 'to the child');
    server.close();
    fs.rmSync(file, { force: true });

    child.send({ do: 'sendUdp' });
    [message, socket] = await child.next();
    assert.ok(message === 'udp' && socket instanceof dgram.Socket);
    const here = dgram.createSocket('udp4');
    here.send('ping', socket.address().port, '127.0.0.1');
    assert.strictEqual(String((await once(socket, 'message'))[0]), 'ping');
    here.close();
    socket.close();

    // Many messages go there and back, in their order.
    for (let at = 0; at < 50; at += 1) {
      const udp = dgram.createSocket('udp4');
      udp.bind(0, '127.0.0.1');
      await once(udp, 'listening');
      child.send(at, udp, () => udp.close());
      child.send(`behind ${at}`);
    }
    for (let at = 0; at < 50; at += 1) {
      [message, socket] = await child.next();
      assert.ok(message === at && socket instanceof dgram.Socket, `${at}: ${message}`);
      socket.close();
      assert.strictEqual(await child.value(), `behind ${at}`);
    }
    assert.deepStrictEqual([child.acks, child.nacks], [50, 0]);
    await child.endsWell();
  },

  async either_side_of_node_and_its_rust_child_may_leave() {
    let child = start();
    child.send({ do: 'disconnect' });
    await once(child, 'disconnect');
    assert.deepStrictEqual(await child.ended, [0, null]);
    child = start();
    child.send({ do: 'exit', code: 7 });
    assert.deepStrictEqual(await child.ended, [7, null]);
    child = start();
    child.kill('SIGKILL');
    assert.deepStrictEqual(await child.ended, [null, 'SIGKILL']);
    // Messages that were sent before arrive in every case, by disconnect, exit or kill.
    child = start();
    child.send({ do: 'flood', count: 10000 });
    child.send({ do: 'exit', code: 0 });
    for (let at = 0; at < 10000; at += 1) assert.strictEqual(await child.value(), at);
    assert.deepStrictEqual(await child.ended, [0, null]);
  },

  async a_rust_child_survives_bad_lines() {
    if (advanced) return;
    const child = start();
    child.send('ready?');
    assert.strictEqual(await child.value(), 'ready?');
    const bad = ['garbage', '', '{"unfinished":', '"bad \\x escape"', '[1] [2]', '['.repeat(5000) + ']'.repeat(5000),
      '\ufeff1', 'x'.repeat(2 << 20), '{"cmd":"NODE_HANDLE_ACK"'];
    for (const line of bad) {
      write(child, `${line}\n`);
      assert.deepStrictEqual(await child.value(), { bad: 'EBADMSG', bytes: Buffer.byteLength(line) });
    }
    // These are stray answers, unknown commands, and requests about unknown servers.
    write(child, '{"cmd":"NODE_HANDLE_ACK"}\n{"cmd":"NODE_HANDLE_NACK"}\n{"cmd":"NODE_X"}\n');
    const answer = once(child, 'internalMessage');
    write(child, '{"cmd":"NODE_SOCKET_GET_COUNT","key":"?"}\n');
    assert.deepStrictEqual((await answer)[0], { cmd: 'NODE_SOCKET_COUNT', key: '?', count: 0 });
    // A handle that was announced and not sent is not taken, and not acknowledged.
    const refusal = once(child, 'internalMessage');
    write(child, '{"cmd":"NODE_SOCKET_NOTIFY_CLOSE","key":"?"}\n');
    assert.deepStrictEqual((await refusal)[0], { cmd: 'NODE_SOCKET_ALL_CLOSED', key: '?' });
    child.send('\ud800lone');
    assert.strictEqual(await child.value(), '\ufffdlone');
    write(child, Buffer.from([0x22, 0xff, 0x22, 0x0a]));
    assert.strictEqual(await child.value(), '\ufffd');
    write(child, ' \t[1]\r\n');
    assert.deepStrictEqual(await child.value(), [1]);
    await child.endsWell();
  },

  async a_rust_child_leaks_no_channel_to_its_children() {
    const child = start();
    child.send({ do: 'grandchild' });
    const { text: said, own } = await child.value();
    assert.ok(own >= 5);
    assert.ok(!/^(NODE_CHANNEL|NODE_UNIQUE|BROOD_CHANNEL)/m.test(said), said);
    // A child of the Rust child has 0 to 2 and the folder that is being listed, and no channel.
    const open = said.split('\n').filter((line) => / -> /.test(line));
    assert.deepStrictEqual(open.slice(0, 4).map((line) => / (\d+) -> /.exec(line)[1]), ['0', '1', '2', '3']);
    assert.deepStrictEqual(open.filter((line) => / -> socket/.test(line)), []);
    await child.endsWell();
  },

  async node_counts_the_connections_of_its_rust_child() {
    const child = start();
    const server = net.createServer({ pauseOnConnect: true });
    await listening(server, { port: 0, host: '127.0.0.1' });
    const { client, accepted } = await connection(server);
    child.send({ do: 'keep' }, accepted);
    assert.strictEqual(await child.value(), 'kept');
    const count = () => new Promise((resolve, reject) => {
      server.getConnections((error, number) => (error ? reject(error) : resolve(number)));
    });
    assert.strictEqual(await count(), 1);
    const closed = once(server, 'close');
    server.close();
    child.send({ do: 'drop' });
    assert.strictEqual(await text(client), HELLO);
    await closed;
    await child.endsWell();
  },

  // Twelve connections, four for each of three children, are counted here until the last has closed.
  async fork_net() {
    const children = [start(), start(), start()];
    const server = net.createServer({ pauseOnConnect: true });
    await listening(server, { port: 0, host: '127.0.0.1' });
    const clients = [];
    for (let at = 0; at < 12; at += 1) {
      const { client, accepted } = await connection(server);
      const child = children[at % 3];
      child.send({ do: 'keep' }, accepted);
      assert.strictEqual(await child.value(), 'kept');
      clients.push(text(client));
    }
    const count = () => new Promise((resolve, reject) => {
      server.getConnections((error, number) => (error ? reject(error) : resolve(number)));
    });
    assert.strictEqual(await count(), 12);
    let closed = false;
    for (let at = 0; at < 12; at += 1) {
      if (at === 6) server.close(() => { closed = true; });
      assert.strictEqual(closed, false);
      children[at % 3].send({ do: 'drop' });
      // The answer to the next message shows that this one was handled.
      children[at % 3].send('done?');
      assert.strictEqual(await children[at % 3].value(), 'done?');
      if (at < 6) assert.strictEqual(await count(), 11 - at);
    }
    for (const said of clients) assert.strictEqual(await said, HELLO);
    if (!closed) await once(server, 'close');
    for (const child of children) await child.endsWell();
  },

  async a_descriptor_that_is_no_channel_is_none() {
    const env = (more) => ({ ...process.env, ...more });
    const said = async (more, stdio = ['ignore', 'pipe', 'inherit']) => {
      const child = spawn(program, ['role', 'print_parent'], { env: env(more), stdio });
      const answer = await text(child.stdout);
      return answer.trim();
    };
    assert.strictEqual(await said({}), 'no parent');
    for (const NODE_CHANNEL_FD of ['77', 'abc', '-1', '', '0', '1', '2', '3x', '99999999999']) {
      const answer = await said({ NODE_CHANNEL_FD, NODE_CHANNEL_SERIALIZATION_MODE: serialization });
      // Node's pipes to children are sockets, as a channel is.
      assert.strictEqual(answer, NODE_CHANNEL_FD === '1' ? 'a parent, Node: true' : 'no parent', NODE_CHANNEL_FD);
    }
    const channel = ['ignore', 'pipe', 'inherit', 'pipe'];
    const named = (mode) => said({ NODE_CHANNEL_FD: '3', ...mode }, channel);
    assert.strictEqual(await named({}), 'a parent, Node: true');
    assert.strictEqual(await named({ NODE_CHANNEL_SERIALIZATION_MODE: 'json' }), 'a parent, Node: true');
    for (const mode of ['bincode', 'JSON', '', 'x']) {
      assert.strictEqual(await named({ NODE_CHANNEL_SERIALIZATION_MODE: mode }), 'no parent', mode);
    }
  },
};

// Writes bytes to the channel itself.
function write(child, bytes) {
  bytes = Buffer.from(bytes);
  while (bytes.length > 0) {
    try {
      bytes = bytes.subarray(fs.writeSync(child.channel.fd, bytes));
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
    }
  }
}

process.on('unhandledRejection', (error) => { throw error; });
scenarios[scenario]().then(() => process.exit(0));
