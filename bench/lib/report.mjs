// Collects measurements and writes the report.

import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { generator, run } from './load.mjs';
import { familySeconds, threadSeconds, usage } from './processes.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));

export class Report {
  #directory;
  #mode;
  #targets = [];
  #cases = [];
  #notes = [];
  #failures = [];

  /**
   * @param {string} directory for files of the load generator @param {string} mode the mode that selects
   *   the cases
   */
  constructor(directory, mode) {
    this.#directory = directory;
    this.#mode = mode;
  }

  note(text) {
    this.#notes.push(text);
  }

  /**
   * Runs a load on a server, and keeps the results unless it is `silent`. For a server with a `database`, it
   * also keeps the processor time of the database.
   */
  async measured(name, server, load, { silent = false } = {}) {
    const { database } = server;
    const databaseBefore = database && familySeconds(database.pid);
    const before = usage(server.pid);
    const threadsBefore = threadSeconds(server.pid);
    const { kib, ...rest } = load;
    const result = await run(this.#directory, { ...rest, url: load.url ?? server.url });
    const after = usage(server.pid);
    const databaseSeconds = database && familySeconds(database.pid) - databaseBefore;
    const threads = Array.from(threadSeconds(server.pid), ([name, seconds]) => [
      name,
      ((seconds - (threadsBefore.get(name) ?? 0)) / result.requests) * 1e6,
    ]);
    const row = {
      name,
      kib: kib ?? 1,
      connections: load.connections,
      ...result,
      cpuPercent: ((after.cpuSeconds - before.cpuSeconds) / result.seconds) * 100,
      /** The figure that varies least when other processes are busy. */
      cpuUs: ((after.cpuSeconds - before.cpuSeconds) / result.requests) * 1e6,
      ...(database === undefined ? {} : { databaseUs: (databaseSeconds / result.requests) * 1e6 }),
      /** The same by thread name; threads that have ended are missing. */
      threadUs: Object.fromEntries(
        threads.filter(([, us]) => us >= 0.1).map(([name, us]) => [name, Number(us.toFixed(1))]),
      ),
      rssMb: after.rssMb,
      errors: load.expectsFailure === true ? result.broken : result.refused + result.broken,
    };
    // Including failures during warm-up.
    if (row.errors > 0) this.#failed(row);
    if (!silent) {
      this.#cases.push(row);
      say(
        `${name}, ${round(row.kib)} KiB, ${load.connections} connections: ${round(row.perSecond)}/s, p99 ${row.p99.toFixed(2)} ms, ${row.cpuUs.toFixed(1)} µs CPU each${databaseText(row)}${row.errors > 0 ? `, ${row.errors} FAILED` : ''}`,
      );
    }
    return row;
  }

  #failed({ name, refused, broken, requests }) {
    this.#failures.push(`${name}: **${refused} of ${requests} requests refused, ${broken} broken**`);
  }

  /** Adds a row that was measured in another way. */
  row(row) {
    this.#cases.push(row);
    say(
      `${row.name}: ${round(row.perSecond)}/s, p99 ${row.p99.toFixed(2)} ms, ${row.cpuUs.toFixed(1)} µs CPU each`,
    );
  }

  /** Runs two loads in turns, each first in every other one. @returns the ratios of their rates by turn. */
  async pairs(turns, name, [server, load], [baseName, baseServer, baseLoad]) {
    await this.measured('warm up', server, { ...load, seconds: 2 }, { silent: true });
    await this.measured('warm up', baseServer, { ...baseLoad, seconds: 2 }, { silent: true });
    const sides = [
      [name, server, load],
      [baseName, baseServer, baseLoad],
    ];
    const ratios = [];
    for (let turn = 0; turn < turns; turn++) {
      const rates = [];
      for (const side of turn % 2 === 0 ? [1, 0] : [0, 1])
        rates[side] = (await this.measured(...sides[side])).perSecond;
      ratios.push(rates[0] / rates[1]);
    }
    return ratios;
  }

  /**
   * Adds the median of some values with its goal; a value that is not a number misses it. @param {'at least'
   * | 'at most'} direction
   */
  target(name, values, goal, direction) {
    const sorted = values.toSorted((a, b) => a - b);
    const value = sorted[Math.floor((sorted.length - 1) / 2)];
    const met = direction === 'at least' ? value >= goal : value <= goal;
    this.#targets.push({ name, value, values, goal, direction, met });
    say(`=> ${name}: ${figure(value)} (${direction} ${goal}) ${met ? 'met' : 'MISSED'}`);
  }

  /** Writes and prints the report. */
  write() {
    const facts = {
      date: new Date().toISOString(),
      commit: execFileSync('git', ['describe', '--always', '--dirty'], {
        cwd: root,
        encoding: 'utf8',
      }).trim(),
      node: process.version,
      generator,
      cpus: `${cpus().length} × ${cpus()[0]?.model}`,
      memoryGb: Math.round(totalmem() / 2 ** 30),
      mode: this.#mode,
    };
    const lines = [
      '# Benchmark',
      '',
      `${facts.date}, commit ${facts.commit}, Node ${facts.node}, ${facts.generator}, ${facts.cpus}, ${facts.memoryGb} GB. The load`,
      'generator shares the processors with what it measures: only ratios within one run mean something.',
      '',
      '| Target | Measured | Goal | | All turns |',
      '|---|---|---|---|---|',
      ...this.#targets.map(
        ({ name, value, values, goal, direction, met }) =>
          `| ${name} | ${figure(value)} | ${direction} ${goal} | ${met ? 'met' : '**missed**'} | ${values.map(figure).join(', ')} |`,
      ),
      '',
      ...(this.#failures.length > 0 ? ['Requests failed, and count in no rate:', ''] : []),
      ...this.#failures.map((failure) => `- ${failure}`),
      ...(this.#failures.length > 0 ? [''] : []),
      ...this.#notes.map((note) => `- ${note}`),
      '',
      '| Case | KiB | Connections | Requests/s | Failed | p50 ms | p99 ms | Server CPU % | CPU µs each | Database CPU µs each | Memory MB |',
      '|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|',
      ...this.#cases.map(
        ({ name, kib, connections, perSecond, errors = 0, p50, p99, cpuPercent, cpuUs, databaseUs, rssMb }) =>
          `| ${name} | ${round(kib)} | ${connections} | ${round(perSecond)} | ${errors} | ${p50.toFixed(2)} | ${p99.toFixed(2)} | ${Math.round(cpuPercent)} | ${cpuUs.toFixed(1)} | ${databaseUs?.toFixed(1) ?? ''} | ${Math.round(rssMb)} |`,
      ),
      '',
    ];
    const results = join(root, 'bench', 'results');
    mkdirSync(results, { recursive: true });
    writeFileSync(join(results, 'latest.md'), lines.join('\n'));
    writeFileSync(
      join(results, 'latest.json'),
      `${JSON.stringify({ facts, targets: this.#targets, cases: this.#cases, failures: this.#failures, notes: this.#notes }, null, 2)}\n`,
    );
    console.log(lines.join('\n'));
  }
}

/** Prints progress on standard error. */
export function say(text) {
  process.stderr.write(`bench: ${text}\n`);
}

function databaseText({ databaseUs }) {
  return databaseUs === undefined ? '' : `, ${databaseUs.toFixed(1)} µs of the database`;
}

function figure(value) {
  return value >= 100 ? String(Math.round(value)) : value.toFixed(2);
}

export function round(value) {
  return String(Math.round(value));
}
