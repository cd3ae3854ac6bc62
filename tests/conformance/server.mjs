// An MCP server to test against. It speaks 2025-06-18, 2025-11-25 and 2026-07-28, each request by its own version.
//
//   server.mjs --http PORT [--guard]   Streamable HTTP on 127.0.0.1; without --guard it leaves the checks of
//                                      Host, Origin and the headers of 2026-07-28 to a gateway in front of it
//   server.mjs --stdio
import { parseArgs } from 'node:util';
import { Core } from './fixture/core.mjs';
import { serveHttp } from './fixture/http.mjs';
import { serveStdio } from './fixture/stdio.mjs';

const { values } = parseArgs({
  options: {
    http: { type: 'string' },
    guard: { type: 'boolean', default: false },
    stdio: { type: 'boolean', default: false },
  },
});

if (values.stdio) {
  await serveStdio(new Core());
} else if (values.http !== undefined) {
  const url = await serveHttp(new Core(), Number(values.http), values.guard);
  process.stdout.write(`${JSON.stringify({ url })}\n`);
} else {
  process.stderr.write('usage: server.mjs --http PORT [--guard] | --stdio\n');
  process.exit(2);
}
