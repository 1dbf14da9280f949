// Load on loopback with wrk (from Debian), or else with autocannon, which is slower and needs more processor
// time.

import { execFileSync, spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const script = fileURLToPath(new URL('load.lua', import.meta.url));

export const generator = (() => {
  try {
    execFileSync('wrk', ['-v'], { stdio: 'ignore' });
    return 'wrk';
  } catch (error) {
    return error.code === 'ENOENT' ? 'autocannon' : 'wrk'; // wrk -v exits with 1.
  }
})();

/**
 * @typedef {object} Load
 * @property {string} url of the server
 * @property {string} method
 * @property {string[]} [paths] sent in turn, repeatedly
 * @property {string} [prefix] with `count`: `prefix1` to `prefix<count>`, each once
 * @property {number} [count]
 * @property {string} [suffix] after the number
 * @property {{ reads: string[], writes: string[], picks: number[] }} [mix] instead of a method and paths: a
 *   pick of 3 reads the third of `reads`, one of -3 PUTs the body to the third of `writes`; repeatedly
 * @property {Buffer} [body]
 * @property {string} [type] the media type of the body; JSON by default
 * @property {string[]} [bodies] instead, ASCII: sent to the only path in turn, repeatedly
 * @property {string} token
 * @property {number} connections
 * @property {number} seconds
 * @property {number} [patienceS] seconds after which a missing answer counts as broken; 10 by default
 * @property {boolean} [tolerant] failed requests are counted, but do not end the run
 * @property {boolean} [expectsFailure] for a tolerant load: refusals are expected
 * @property {boolean} [steady] latencies exclude the time to connect. A server accepts few connections per
 *   turn of its event loop, and turns are long if requests are costly. So the first request of the last of
 *   64 connections may wait for many turns
 */

const JSON_TYPE = 'application/json';
/** How long a steady load waits for its connections. */
const CONNECT_MS = 200;

/**
 * @param {string} directory for the plan
 * @param {Load} load
 * @returns the results, times in milliseconds. `perSecond` counts only requests that were not refused. It
 *   throws when any request failed, unless the load is `tolerant`.
 */
export async function run(directory, load) {
  const result = await (generator === 'wrk' ? runWrk(directory, load) : runAutocannon(load));
  const failed = result.refused > 0 || result.broken > 0;
  if ((failed && load.tolerant !== true) || result.requests === 0)
    throw new Error(
      `${load.method} ${load.paths?.[0] ?? load.prefix}: ${result.refused} of ${result.requests} refused, ${result.broken} broken`,
    );
  return { ...result, perSecond: (result.requests - result.refused) / result.seconds };
}

let plans = 0;

async function runWrk(
  directory,
  {
    url,
    method,
    paths,
    prefix,
    suffix = '',
    count,
    mix,
    body,
    bodies = [],
    type = JSON_TYPE,
    token,
    connections,
    seconds,
    steady = false,
    patienceS = 10,
  },
) {
  const waitMs = steady ? CONNECT_MS : 0;
  const name = join(directory, `plan-${plans++}`);
  const quoted = (text) => JSON.stringify(text);
  const list = (items) => `{${items.map(quoted).join(',')}}`;
  if (body !== undefined) writeFileSync(`${name}.body`, body);
  if (mix !== undefined) writeFileSync(`${name}.picks`, mix.picks.join('\n'));
  writeFileSync(
    `${name}.lua`,
    `return { token = ${quoted(token)}, type = ${quoted(type)}, method = ${quoted(method ?? '')}, prefix = ${quoted(prefix ?? '')}, suffix = ${quoted(suffix)}, ` +
      `count = ${count ?? 0}, connections = ${connections}, wait_ms = ${waitMs}, body = ${quoted(body === undefined ? '' : `${name}.body`)}, ` +
      `paths = ${list(paths ?? [])}, bodies = ${list(bodies)}, ` +
      `reads = ${list(mix?.reads ?? [])}, writes = ${list(mix?.writes ?? [])}, picks = ${quoted(mix === undefined ? '' : `${name}.picks`)} }\n`,
  );
  const child = spawn(
    'wrk',
    ['-t1', `-c${connections}`, `-d${seconds}s`, '--timeout', `${patienceS}s`, '-s', script, url],
    { env: { ...process.env, BENCH_PLAN: `${name}.lua` }, stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const [output, code] = await outcomeOf(child);
  const line = /^BENCH (.*)$/m.exec(output)?.[1];
  if (code !== 0 || line === undefined) throw new Error(`wrk failed: ${output}`);
  const [requests, us, refused, broken, p50, p99, p999, max] = line.split(' ').map(Number);
  const ms = (value) => value / 1_000;
  return {
    requests,
    seconds: us / 1e6 - waitMs / 1_000,
    refused,
    broken,
    p50: ms(p50),
    p99: ms(p99),
    p999: ms(p999),
    max: ms(max),
  };
}

async function outcomeOf(child) {
  let output = '';
  child.stdout.on('data', (chunk) => {
    output += chunk;
    if (output.includes('BENCHEND')) child.kill('SIGINT'); // wrk prints its summary then.
  });
  const code = await new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  return [output, code];
}

async function runAutocannon({
  url,
  method,
  paths,
  mix,
  prefix,
  suffix = '',
  count,
  body,
  bodies = [],
  type = JSON_TYPE,
  token,
  connections,
  seconds,
}) {
  const { default: autocannon } = await import('autocannon');
  let at = 0;
  const next = (request) => {
    if (mix !== undefined) {
      const pick = mix.picks[at++ % mix.picks.length];
      return pick > 0
        ? { ...request, method: 'GET', path: mix.reads[pick - 1], body: undefined }
        : { ...request, method: 'PUT', path: mix.writes[-pick - 1], body };
    }
    if (bodies.length > 0) request.body = bodies[at % bodies.length];
    request.path =
      paths === undefined ? `${prefix}${Math.min(++at, count)}${suffix}` : paths[at++ % paths.length];
    return request;
  };
  const result = await autocannon({
    url,
    connections,
    ...(count === undefined ? { duration: seconds } : { amount: count }),
    requests: [
      {
        method: method ?? 'GET',
        path: '/',
        setupRequest: next,
        headers: {
          authorization: `Bearer ${token}`,
          ...(body === undefined && bodies.length === 0 ? {} : { 'content-type': type }),
        },
        ...(body === undefined ? {} : { body }),
      },
    ],
  });
  const { latency } = result;
  return {
    requests: result['2xx'] + result.non2xx,
    seconds: result.duration,
    refused: result.non2xx,
    broken: result.errors + result.timeouts,
    p50: latency.p50,
    p99: latency.p99,
    p999: latency.p99_9,
    max: latency.max,
  };
}
