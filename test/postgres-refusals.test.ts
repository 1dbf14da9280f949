import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { runBunkms } from '@bundoc/bunkms/cli/program';
import { capturedRun } from '@bundoc/shared/testing/captured-run';
import { freePort } from '@bundoc/shared/testing/free-port';
import { spawnNode } from '@bundoc/shared/testing/node-process';
import { type PostgresDatabase, PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { needs } from '@bundoc/shared/testing/programs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bundocCommand } from './support/bundoc-command.ts';

const SECRET = `secret-${randomBytes(6).toString('hex')}`;

interface Finding {
  readonly check: string;
  readonly verdict: string;
  readonly found: string;
  readonly remedy?: string;
}

describe('a PostgreSQL server that refuses a connection', needs('postgresql'), () => {
  let server: PostgresServer;
  let database: PostgresDatabase;
  let closedPort: number;
  const folder = mkdtempSync(join(tmpdir(), 'postgres-refusals-'));
  const tokenFile = join(folder, 'token');
  beforeAll(async () => {
    writeFileSync(tokenFile, 'e30.e30.x');
    server = await PostgresServer.start();
    database = await server.createDatabase('bundoc');
    await server.sql("CREATE ROLE barred NOLOGIN PASSWORD 'barred'");
    closedPort = await freePort();
  });
  afterAll(async () => {
    rmSync(folder, { recursive: true });
    await server?.[Symbol.asyncDispose]();
  });

  const urlWith = (change: (url: URL) => void) => {
    const url = new URL(database.url);
    change(url);
    return url.href;
  };
  const environmentOf = (prefix: 'BUNDOC' | 'BUNKMS', storage: string): Record<string, string> => ({
    [`${prefix}_STORAGE`]: storage,
    [`${prefix}_DATA_DIR`]: join(folder, prefix),
    ...(prefix === 'BUNDOC'
      ? { BUNDOC_KMS_TOKEN_FILE: tokenFile, BUNDOC_KMS_URL: `http://127.0.0.1:${closedPort}` }
      : { BUNKMS_KEK: '42'.repeat(32), BUNKMS_PORT: String(closedPort) }),
  });
  const run = (prefix: 'BUNDOC' | 'BUNKMS', storage: string, ...args: string[]) => {
    const environment = environmentOf(prefix, storage);
    return prefix === 'BUNDOC'
      ? bundocCommand(environment, args)
      : capturedRun(() => runBunkms(args, environment));
  };
  const databaseIn = (stdout: string) => {
    const { findings } = JSON.parse(stdout) as { findings: Finding[] };
    return findings.filter(({ check }) => check === 'database');
  };

  const faults = (
    prefix: string,
  ): [name: string, change: (url: URL) => void, found: string, remedy: string][] => [
    [
      'a wrong password',
      (url) => (url.password = SECRET),
      'password authentication failed for user "bundoc" (28P01)',
      `put the password of the role "bundoc" into the URL (${prefix}_STORAGE) or the file of ${prefix}_POSTGRES_PASSWORD_FILE`,
    ],
    [
      'no password',
      (url) => (url.password = ''),
      'the server asks for a password, and there is none',
      `put the password of the role "bundoc" into the URL (${prefix}_STORAGE) or the file of ${prefix}_POSTGRES_PASSWORD_FILE`,
    ],
    [
      'a missing database',
      (url) => (url.pathname = '/elsewhere'),
      'database "elsewhere" does not exist (3D000)',
      `create it (createdb --owner=bundoc elsewhere), or correct ${prefix}_STORAGE`,
    ],
    [
      'a role that may not log in',
      (url) => {
        url.username = 'barred';
        url.password = 'barred';
      },
      'role "barred" is not permitted to log in (28000)',
      `let the role "barred" connect from here (CREATE ROLE … LOGIN, pg_hba.conf), or correct ${prefix}_STORAGE`,
    ],
    [
      'no TLS',
      (url) => (url.search = 'sslmode=verify-full'),
      'the server does not support TLS',
      `turn TLS on at the server, or, if the network is trusted, add sslmode=disable to ${prefix}_STORAGE`,
    ],
  ];

  describe.each(['BUNDOC', 'BUNKMS'] as const)('for %s', (prefix) => {
    it.each(faults(prefix))(
      'is named by commands and doctor with the remedy for %s, without the password',
      async (_name, change, found, remedy) => {
        const url = urlWith(change);
        const sentence = `PostgreSQL refuses the connection to 127.0.0.1:${server.port}${new URL(url).pathname}: ${found}`;
        const checked = await run(prefix, url, 'doctor', '--json');
        expect(databaseIn(checked.stdout)).toEqual([
          { check: 'database', verdict: 'fail', found: sentence, remedy },
        ]);
        const command = prefix === 'BUNDOC' ? ['verify'] : ['key', 'list'];
        const { stderr } = await run(prefix, url, ...command);
        expect(stderr).toBe(`${prefix.toLowerCase()}: ${sentence}; ${remedy}\n`);
        expect(checked.stdout + stderr).not.toContain(SECRET);
      },
    );

    it('differs from one that does not answer', async () => {
      const url = server.urlOf('bundoc', closedPort);
      const { stdout } = await run(prefix, url, 'doctor', '--json');
      expect(databaseIn(stdout)).toEqual([
        expect.objectContaining({
          verdict: 'fail',
          found: expect.stringMatching(
            /^PostgreSQL does not answer at 127\.0\.0\.1:\d+\/bundoc: .*ECONNREFUSED/,
          ),
          remedy: `start it, or correct ${prefix}_STORAGE`,
        }),
      ]);
    });

    it('is reported by doctor with its version and settings once it lets the role in', async () => {
      const { stdout } = await run(prefix, database.url, 'doctor', '--json');
      expect(databaseIn(stdout)).toEqual(
        expect.arrayContaining([
          {
            check: 'database',
            verdict: 'ok',
            found: expect.stringMatching(/^PostgreSQL \d+\.\d+.* answers at 127\.0\.0\.1:\d+\/bundoc$/),
          },
          expect.objectContaining({ verdict: 'warn', found: expect.stringContaining('fsync off') }),
        ]),
      );
    });
  });

  /** What a service logs, up to the first line that matches. */
  async function linesTo(prefix: 'BUNDOC' | 'BUNKMS', url: string, end: RegExp): Promise<string[]> {
    const main = fileURLToPath(new URL(`../packages/${prefix.toLowerCase()}/src/main.ts`, import.meta.url));
    const child = spawnNode([main], { NODE_ENV: 'test', PATH: '', ...environmentOf(prefix, url) });
    const lines: string[] = [];
    for await (const line of createInterface({ input: child.stdout })) {
      lines.push(line);
      if (end.test(line)) break;
    }
    child.kill('SIGKILL');
    return lines;
  }

  it.each(['BUNDOC', 'BUNKMS'] as const)(
    'is named by %s with the remedy when the role may not create the schema',
    async (prefix) => {
      const { url } = await server.createDatabase(`of_another_${prefix.toLowerCase()}`);
      await server.sql(`ALTER DATABASE of_another_${prefix.toLowerCase()} OWNER TO postgres`);
      const lines = await linesTo(prefix, url, /"level":"fatal"/);
      expect(JSON.parse(lines.at(-1) ?? '{}')).toMatchObject({
        level: 'fatal',
        msg: expect.stringMatching(
          /PostgreSQL: permission denied for .*; for the first start, let the role own the database \(ALTER DATABASE/,
        ),
      });
    },
  );

  it('is named in the first fault that each service logs, with the remedy', async () => {
    const url = urlWith((one) => {
      one.password = SECRET;
    });
    for (const [prefix, event] of [
      ['BUNDOC', 'waiting for PostgreSQL \\(BUNDOC_STORAGE\\): '],
      ['BUNKMS', ''],
    ] as const) {
      const lines = await linesTo(prefix, url, /"level":"(fatal|error|warn)".*PostgreSQL/);
      expect(JSON.parse(lines.at(-1) ?? '{}')).toMatchObject({
        msg: expect.stringMatching(
          `^${event}PostgreSQL refuses the connection .*\\(28P01\\); put the password of the role`,
        ),
      });
      expect(lines.join('\n')).not.toContain(SECRET);
    }
  });
});
