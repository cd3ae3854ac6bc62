// Runs the official conformance suite once against a server and prints what became of each check as one JSON object.
//
//   run.mjs --url URL --spec-version V --conformance FILE --out DIR [--node NODE]
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const LIMIT_MS = 10 * 60 * 1000;

const { values } = parseArgs({
  options: {
    url: { type: 'string' },
    'spec-version': { type: 'string' },
    conformance: { type: 'string' },
    out: { type: 'string' },
    node: { type: 'string', default: process.execPath },
  },
});
const missing = ['url', 'spec-version', 'conformance', 'out'].find((name) => values[name] === undefined);
if (missing) fail(`--${missing} is missing`);

const version = values['spec-version'];
mkdirSync(values.out, { recursive: true });
// A folder of its own, since results of an earlier run have similar names.
const folder = mkdtempSync(join(values.out, `${version}-`));

const output = await runSuite();
writeFileSync(join(folder, 'suite.log'), output);
const scenarios = [...output.matchAll(/^=== Running scenario: (\S+) ===$/gm)].map((match) => match[1]);
if (scenarios.length === 0) fail(`the suite ran nothing, see ${join(folder, 'suite.log')}`);
process.stdout.write(`${JSON.stringify(summary(scenarios), null, 1)}\n`);

function fail(message) {
  process.stderr.write(`run.mjs: ${message}\n`);
  process.exit(1);
}

/** What the suite printed; its exit code says only whether a check failed. */
function runSuite() {
  const args = [
    values.conformance,
    'server',
    '--url',
    values.url,
    '--suite',
    'all',
    '--spec-version',
    version,
    '-o',
    folder,
  ];
  const suite = spawn(values.node, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const chunks = [];
  suite.stdout.on('data', (chunk) => chunks.push(chunk));
  suite.stderr.on('data', (chunk) => chunks.push(chunk));
  const timer = setTimeout(() => {
    suite.kill('SIGKILL');
    fail('the suite took too long');
  }, LIMIT_MS);
  return new Promise((resolve) => {
    suite.on('error', (error) => fail(error.message));
    suite.on('close', () => {
      clearTimeout(timer);
      resolve(Buffer.concat(chunks).toString());
    });
  });
}

function summary(names) {
  const sorted = { spec_version: version, passed: [], failed: [], skipped: [], other: [] };
  for (const name of names) {
    for (const check of checksOf(name)) place(sorted, check);
  }
  sorted.passed.sort();
  return sorted;
}

function place(sorted, { id, status, error }) {
  if (status === 'SUCCESS') sorted.passed.push(id);
  else if (status === 'FAILURE') sorted.failed.push({ id, error });
  else if (status === 'SKIPPED') sorted.skipped.push({ id, error });
  else sorted.other.push({ id, status, error });
}

/** The checks of a scenario; one that has left no results has failed as a whole. */
function checksOf(scenario) {
  const file = resultFile(scenario);
  if (!file) return [{ id: scenario, status: 'FAILURE', error: 'the scenario left no results' }];
  const seen = new Map();
  return JSON.parse(readFileSync(file, 'utf8')).map(({ id, status, errorMessage }) => {
    const times = (seen.get(id) ?? 0) + 1;
    seen.set(id, times);
    return { id: `${scenario}/${id}${times > 1 ? `#${times}` : ''}`, status, error: errorMessage };
  });
}

function resultFile(scenario) {
  const prefix = `server-${scenario}-`;
  // What follows must be a timestamp: one scenario's name may begin with another's.
  const found = readdirSync(folder).find(
    (name) => name.startsWith(prefix) && /^\d{4}-\d\d-\d\dT/.test(name.slice(prefix.length)),
  );
  const file = found && join(folder, found, 'checks.json');
  return file && existsSync(file) ? file : undefined;
}
