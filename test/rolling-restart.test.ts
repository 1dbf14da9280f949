import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { init } from '@bundoc/bunkms/cli/init';
import { withKms } from '@bundoc/bunkms/cli/open-kms';
import { issueTokenSchema } from '@bundoc/shared/contract/tokens';
import { freePort } from '@bundoc/shared/testing/free-port';
import { runs } from '@bundoc/shared/testing/long';
import { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { needs } from '@bundoc/shared/testing/programs';
import { patientUrl, startInBackground } from '@bundoc/shared/testing/timing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Server, startServer } from '../packages/bunkms/test/support/process.ts';
import { type BundocProcess, startBundocProcess } from './support/bundoc-process.ts';
import { Haproxy } from './support/haproxy.ts';
import { PATIENT_BUNDOC } from './support/installation.ts';

const NODES = 2;
const CLIENTS = 12;
const REQUESTS_MIN = runs(1_000, 10_000);
/** A client waits so long after each answer. Without it, clients use both processors during the drains. */
const PAUSE_MS = runs(10, 0);
/** Longer than two checks of HAProxy and an interval, shorter than its patience with a check. */
const STALL_MS = 2_000;
/** The documented configuration. */
const DOCUMENTED = /```haproxy\n(.*?)```/s.exec(
  readFileSync(new URL('../docs/operations/scaling.md', import.meta.url), 'utf8'),
)?.[1];

describe('a rolling restart of two Bundoc nodes behind HAProxy', needs('haproxy'), () => {
  describe('on PostgreSQL', needs('postgresql'), () => {
    const folder = mkdtempSync(join(tmpdir(), 'bundoc-rolling-'));
    const nodes: BundocProcess[] = [];
    let postgres: PostgresServer;
    let kms: Server;
    let balancer: Haproxy;
    let token: string;
    let environments: Record<string, string>[];

    beforeAll(async () => {
      postgres = await PostgresServer.start();
      await postgres.createDatabase('bundoc');
      const tokenFile = join(folder, 'kms-token');
      const kmsEnvironment = {
        BUNKMS_DATA_DIR: join(folder, 'kms'),
        BUNKMS_KEK: randomBytes(32).toString('hex'),
      };
      await init(kmsEnvironment, { serviceToken: tokenFile });
      kms = await startServer(kmsEnvironment);
      const request = { sub: 'app', typ: 'client', scope: ['docs:read', 'docs:write'], projects: ['*'] };
      token = await withKms(
        kmsEnvironment,
        async ({ tokens }) => (await tokens.issue(issueTokenSchema.parse(request), { actor: 'cli' })).token,
      );
      const ports = await Promise.all(Array.from({ length: NODES }, () => freePort()));
      environments = ports.map((port) => ({
        ...PATIENT_BUNDOC,
        BUNDOC_PORT: String(port),
        BUNDOC_STORAGE: patientUrl(postgres.urlOf('bundoc')),
        BUNDOC_KMS_URL: kms.internalUrl,
        BUNDOC_KMS_TOKEN_FILE: tokenFile,
        // The default, which other tests turn off.
        BUNDOC_DRAIN_MS: '',
      }));
      nodes.push(...(await Promise.all(environments.map(startBundocProcess))));
      balancer = await Haproxy.start(
        folder,
        String(DOCUMENTED),
        ports.map((port) => `127.0.0.1:${port}`),
      );
    });
    afterAll(async () => {
      await balancer?.[Symbol.asyncDispose]();
      for (const node of nodes) await node.kill();
      await kms?.[Symbol.asyncDispose]();
      await postgres?.[Symbol.asyncDispose]();
      rmSync(folder, { recursive: true, force: true });
    });

    it(`fails none of ${REQUESTS_MIN} requests of plain clients without retries`, async () => {
      const documents = `${balancer.url}/v1/projects/rolling/collections/notes/documents`;
      const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
      const statuses: Record<string, number> = {};
      let requests = 0;
      let isOver = false;
      const client = async (number: number) => {
        for (let count = 0; !isOver || requests < REQUESTS_MIN; count++) {
          const url = `${documents}/client-${number}-${count >> 1}`;
          const isWrite = count % 2 === 0;
          requests++;
          const outcome = await fetch(
            url,
            isWrite ? { method: 'PUT', headers, body: '{"n":1}' } : { headers },
          )
            .then(async (answer) => {
              const body = await answer.text();
              const reason = answer.ok ? [] : [body.slice(0, 300)];
              return [isWrite ? 'PUT' : 'GET', answer.status, ...reason].join(' ');
            })
            .catch((error: Error) => String(error.cause ?? error));
          statuses[outcome] = (statuses[outcome] ?? 0) + 1;
          if (PAUSE_MS > 0) await sleep(PAUSE_MS);
        }
      };
      const clients = startInBackground(
        Promise.all(Array.from({ length: CLIENTS }, (_, number) => client(number))),
      );
      for (const [at, environment] of environments.entries()) {
        const node = nodes[at];
        if (node === undefined) throw new Error('no process for this environment');
        const stopped = node.stop();
        // The last node stands still for longer than HAProxy's two checks: it is slow, not gone.
        const other = nodes[1 - at]?.process;
        other?.kill('SIGSTOP');
        await sleep(STALL_MS);
        other?.kill('SIGCONT');
        expect(await stopped).toBe(0);
        // The node served during its drain.
        expect(node.log).toContain('"msg":"draining"');
        nodes[at] = await startBundocProcess(environment);
        // The other node stops only once the balancer sends requests to this one again.
        await expect.poll(() => balancer.states()).toEqual(['UP', 'UP']);
      }
      isOver = true;
      await clients;
      process.stdout.write(`rolling restart: ${requests} requests, ${JSON.stringify(statuses)}\n`);
      expect(requests).toBeGreaterThanOrEqual(REQUESTS_MIN);
      expect(Object.keys(statuses).sort()).toEqual(['GET 200', 'PUT 201']);
    });
  });
});
