// Stands between a client and a server, changes nothing, and writes down what passes.
//
//   tap.mjs --listen PORT --to URL_BASE --record FILE [--bearer TOKEN_FILE] [--upstream-path PATH]
//     HTTP. Adds the token of TOKEN_FILE, and puts PATH in place of a leading /mcp, for a server that wants
//     these of a client that cannot give them. One line of FILE per exchange, at its end.
//   tap.mjs --stdio FILE -- COMMAND ARGUMENTS...
//     The stdio of COMMAND. One line of FILE per line that passes; %p in the name is the process id.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { openSync, readFileSync, writeSync } from 'node:fs';
import { Agent, createServer, request } from 'node:http';
import { parseArgs } from 'node:util';
import { LineSplitter } from './lines.mjs';

const KEPT_BYTES = 1024 * 1024;
const CLIENT_PATH = '/mcp';
// How long a command may go on once its stdin has ended.
const GRACE_MS = 2000;
// Longer than the pauses of a client, so that its pooled connection is not closed just as it is used again.
const KEEP_ALIVE_MS = 60_000;

const { values, positionals } = parseArgs({
  options: {
    listen: { type: 'string' },
    to: { type: 'string' },
    record: { type: 'string' },
    bearer: { type: 'string' },
    'upstream-path': { type: 'string' },
    stdio: { type: 'string' },
  },
  allowPositionals: true,
});

if (values.stdio !== undefined && positionals.length > 0) {
  tapStdio(recorder(values.stdio.replaceAll('%p', process.pid)), positionals);
} else if (values.listen !== undefined && values.to !== undefined && values.record !== undefined) {
  tapHttp(recorder(values.record));
} else {
  process.stderr.write('usage: tap.mjs --listen PORT --to URL_BASE --record FILE | --stdio FILE -- COMMAND\n');
  process.exit(2);
}

/** Appends one JSON line per call, in one write, so that a kill leaves no half of one. */
function recorder(file) {
  const fd = openSync(file, 'a');
  return (entry) => writeSync(fd, `${JSON.stringify(entry)}\n`);
}

/** Collects a body for the record; of a large one only its digest, so that it may be of any size. */
class Body {
  #chunks = [];
  #bytes = 0;
  #hash = createHash('sha256');

  add(chunk) {
    this.#bytes += chunk.length;
    this.#hash.update(chunk);
    if (this.#bytes <= KEPT_BYTES) this.#chunks.push(chunk);
    else this.#chunks = [];
  }

  recorded() {
    if (this.#bytes <= KEPT_BYTES) return Buffer.concat(this.#chunks).toString();
    return { sha256: this.#hash.copy().digest('hex'), bytes: this.#bytes };
  }
}

/** Headers by lower-case name; a repeated one has its values joined. */
function byName(rawHeaders) {
  const named = {};
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = rawHeaders[index].toLowerCase();
    named[name] = name in named ? `${named[name]}, ${rawHeaders[index + 1]}` : rawHeaders[index + 1];
  }
  return named;
}

function tapHttp(record) {
  const upstream = new URL(values.to);
  const token = values.bearer && readFileSync(values.bearer, 'utf8').trim();
  const open = new Set();
  let count = 0;

  const server = createServer({ noDelay: true, keepAliveTimeout: KEEP_ALIVE_MS }, (req, res) => {
    const exchange = new Exchange((count += 1), req, record);
    open.add(exchange);
    res.on('close', () => {
      exchange.end(!res.writableFinished);
      open.delete(exchange);
    });
    forward(req, res, exchange, { upstream, token, agent: req.socket.agent });
  });
  // Each connection of the client has its own to the server, so that both sides see the other's habits.
  server.on('connection', (socket) => {
    socket.agent = new Agent({ keepAlive: true, maxSockets: 1, noDelay: true });
    socket.on('close', () => socket.agent.destroy());
  });
  // A stream may be open for as long as its client likes.
  server.requestTimeout = 0;
  server.listen(Number(values.listen), '127.0.0.1', () => {
    process.stdout.write(`${JSON.stringify({ url: `http://127.0.0.1:${server.address().port}${CLIENT_PATH}` })}\n`);
  });

  const stop = () => {
    for (const exchange of open) exchange.end(true);
    process.exit(0);
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
}

class Exchange {
  requestBody = new Body();
  responseBody = new Body();
  response = { status: null, headers: null };
  #entry;
  #record;

  constructor(n, req, record) {
    this.#entry = { n, method: req.method, path: req.url, request_headers: byName(req.rawHeaders) };
    this.#record = record;
  }

  end(aborted) {
    this.#record({
      ...this.#entry,
      request_body: this.requestBody.recorded(),
      status: this.response.status,
      response_headers: this.response.headers,
      response_body: this.responseBody.recorded(),
      aborted,
    });
  }
}

function forward(req, res, exchange, { upstream, agent, token }) {
  const outgoing = request({
    host: upstream.hostname,
    port: upstream.port,
    method: req.method,
    path: upstreamPath(req.url),
    headers: withBearer(req.rawHeaders, token),
    setHost: false,
    agent,
  });
  req.on('data', (chunk) => exchange.requestBody.add(chunk));
  req.pipe(outgoing);
  res.on('close', () => outgoing.destroy());

  outgoing.on('response', (incoming) => {
    exchange.response = { status: incoming.statusCode, headers: byName(incoming.rawHeaders) };
    res.sendDate = false;
    res.writeHead(incoming.statusCode, incoming.statusMessage, incoming.rawHeaders);
    res.flushHeaders();
    incoming.on('data', (chunk) => exchange.responseBody.add(chunk));
    incoming.on('error', () => res.destroy());
    incoming.pipe(res);
  });
  outgoing.on('error', () => {
    // Too late for a status once an answer has begun: then the client has to see it break off.
    if (res.headersSent) res.destroy();
    else res.writeHead(502).end();
  });
}

function upstreamPath(path) {
  const replacement = values['upstream-path'];
  const rest = path.slice(CLIENT_PATH.length);
  const leads = path.startsWith(CLIENT_PATH) && (rest === '' || rest[0] === '?' || rest[0] === '/');
  return replacement !== undefined && leads ? replacement + rest : path;
}

function withBearer(rawHeaders, token) {
  if (!token) return rawHeaders;
  const kept = rawHeaders.filter((_, index) => rawHeaders[index - (index % 2)].toLowerCase() !== 'authorization');
  return [...kept, 'Authorization', `Bearer ${token}`];
}

function tapStdio(record, [command, ...args]) {
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  child.on('error', (error) => {
    process.stderr.write(`tap.mjs: ${error.message}\n`);
    process.exit(127);
  });
  // Writing to a command that has ended is no news: its end is.
  child.stdin.on('error', () => {});
  process.stdout.on('error', () => child.stdin.end());

  copy(process.stdin, child.stdin, 'client', record);
  copy(child.stdout, process.stdout, 'server', record);

  process.stdin.on('end', () => setTimeout(() => child.kill(), GRACE_MS).unref());
  for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => child.kill(signal));
  child.on('close', (code) => process.exit(code ?? 1));
}

function copy(source, target, from, record) {
  const splitter = new LineSplitter();
  const note = (bytes) => {
    const line = new Body();
    line.add(bytes);
    record({ from, line: line.recorded() });
  };
  source.on('data', (chunk) => {
    for (const line of splitter.feed(chunk)) note(line);
  });
  source.on('end', () => {
    const rest = splitter.rest();
    if (rest.length > 0) note(rest);
  });
  // Ending this process's stdout throws; it ends with the process.
  source.pipe(target, { end: target !== process.stdout });
}
