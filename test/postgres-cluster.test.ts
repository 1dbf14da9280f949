import { randomBytes, randomInt } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { init } from '@bundoc/bunkms/cli/init';
import { withKms } from '@bundoc/bunkms/cli/open-kms';
import { type IssueTokenInput, issueTokenSchema } from '@bundoc/shared/contract/tokens';
import { freePort } from '@bundoc/shared/testing/free-port';
import { runs } from '@bundoc/shared/testing/long';
import { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { needs } from '@bundoc/shared/testing/programs';
import { SwitchedAddress } from '@bundoc/shared/testing/switched-address';
import { patientUrl, startInBackground } from '@bundoc/shared/testing/timing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Server, startServer } from '../packages/bunkms/test/support/process.ts';
import { type BundocProcess, startBundocProcess } from './support/bundoc-process.ts';
import { isRegister, type Operation, RoundRobin } from './support/cluster-load.ts';
import { call, PATIENT_BUNDOC } from './support/installation.ts';

const SEED = Number(process.env['CLUSTER_SEED'] ?? randomInt(2 ** 31));
const NODES = 3;
const KMS_NODES = 2;
const WORKERS = runs(3, 24);
/** Projects that are written to from the start. Each has a part of the documents. */
const PROJECTS = runs(24, 200);
const REGISTERS = runs(24, 200);
const FAILOVERS = runs(1, 10);
const PHASE_MS = runs(400, 1_000);
/** Projects that are created, each with its key, while a node of BunKMS is down. */
const PROJECTS_MEANWHILE = 5;

let seed = SEED;
/** mulberry32: the same seed gives the same operations, but not the same timing. */
function random(): number {
  seed = (seed + 0x6d2b79f5) | 0;
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}

it('the checker rejects a history with a stale read or a lost write', () => {
  const at = (invokedAt: number, answeredAt: number) => ({ invokedAt, answeredAt });
  const written: Operation = { kind: 'write', value: 1, ...at(0, 1) };
  expect(isRegister([written, { kind: 'read', value: 1, ...at(2, 3) }])).toBe(true);
  expect(isRegister([written, { kind: 'read', value: undefined, ...at(2, 3) }])).toBe(false);
  const unanswered: Operation = { kind: 'write', value: 2, ...at(2, Number.POSITIVE_INFINITY) };
  const reads = (...seen: number[]): Operation[] =>
    seen.map((value, n) => ({ kind: 'read', value, ...at(10 + 2 * n, 11 + 2 * n) }));
  for (const seen of [
    [1, 1],
    [1, 2],
    [2, 2],
  ])
    expect(isRegister([written, unanswered, ...reads(...seen)])).toBe(true);
  expect(isRegister([written, unanswered, ...reads(2, 1)])).toBe(false);
  const set = { kind: 'compare and set', expected: 1, refused: false } as const;
  expect(isRegister([written, { ...set, value: 3, ...at(2, 3) }, { ...set, value: 4, ...at(2, 3) }])).toBe(
    false,
  );
});

describe(
  'three Bundoc and two BunKMS nodes on one PostgreSQL with a synchronous standby',
  needs('postgresql'),
  () => {
    const projectOf = (n: number) => `/v1/projects/cluster-${n % PROJECTS}`;
    const documentsOf = (n: number) => `${projectOf(n)}/collections/planted-notes/documents`;
    const servers: PostgresServer[] = [];
    const nodes: { url: string | undefined; process: BundocProcess | undefined }[] = [];
    const kmsNodes: Server[] = [];
    let folder: string;
    let primary: SwitchedAddress;
    let balancer: SwitchedAddress;
    let environment: Record<string, string>;
    let kmsEnvironment: Record<string, string>;
    let token: string;

    const startNode = async (node: (typeof nodes)[number]) => {
      node.process = await startBundocProcess(environment);
      node.url = node.process.url;
    };
    const startKms = (number: number, port: number) =>
      startServer({
        ...kmsEnvironment,
        BUNKMS_DATA_DIR: join(folder, `kms-${number}`),
        BUNKMS_INTERNAL_PORT: String(port),
      });
    const kmsPort = (node: Server) => Number(new URL(node.internalUrl).port);
    const issue = (request: IssueTokenInput) =>
      withKms(
        kmsEnvironment,
        async ({ tokens }) => (await tokens.issue(issueTokenSchema.parse(request), { actor: 'cli' })).token,
      );
    const client = () =>
      issue({ sub: 'app', typ: 'client', scope: ['docs:read', 'docs:write'], projects: ['*'] });

    beforeAll(async () => {
      const first = await PostgresServer.start();
      servers.push(first);
      for (const database of ['bundoc', 'bunkms']) await first.createDatabase(database);
      servers.push(await first.startStandby('standby_0'));
      primary = await SwitchedAddress.open(first.port);
      folder = mkdtempSync(join(tmpdir(), 'bundoc-cluster-'));
      const tokenFile = join(folder, 'kms-token');
      kmsEnvironment = {
        BUNKMS_STORAGE: patientUrl(first.urlOf('bunkms', primary.port)),
        BUNKMS_DATA_DIR: join(folder, 'kms-cli'),
        BUNKMS_KEK: randomBytes(32).toString('hex'),
        // The three Bundoc nodes share one token, and create projects faster than in production.
        BUNKMS_EXPORTS_PER_TOKEN: '0',
        BUNKMS_READS_PER_TOKEN: '0',
        BUNKMS_CREATIONS_PER_TOKEN: '0',
        BUNKMS_DESTRUCTIONS_PER_TOKEN: '0',
      };
      await init(kmsEnvironment, { serviceToken: tokenFile });
      const starts = Array.from({ length: KMS_NODES }, async (_, number) =>
        startKms(number, await freePort()),
      );
      kmsNodes.push(...(await Promise.all(starts)));
      balancer = await SwitchedAddress.open(...kmsNodes.map(kmsPort));
      token = await client();
      environment = {
        ...PATIENT_BUNDOC,
        BUNDOC_STORAGE: patientUrl(first.urlOf('bundoc', primary.port)),
        BUNDOC_KMS_URL: `http://127.0.0.1:${balancer.port}`,
        BUNDOC_KMS_TOKEN_FILE: tokenFile,
      };
      nodes.push(...Array.from({ length: NODES }, () => ({ url: undefined, process: undefined })));
      await Promise.all(nodes.map(startNode));
    });
    afterAll(async () => {
      for (const { process: node } of nodes) await node?.[Symbol.asyncDispose]();
      for (const node of kmsNodes) await node[Symbol.asyncDispose]();
      await balancer?.[Symbol.asyncDispose]();
      await primary?.[Symbol.asyncDispose]();
      for (const server of servers) await server[Symbol.asyncDispose]();
      if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
    });

    it('lose no acknowledged write and report each change once, while nodes and primaries are killed', async () => {
      process.stdout.write(`cluster: CLUSTER_SEED=${SEED}\n`);
      const client = new RoundRobin(nodes, token);
      const projects = new Set<string>();
      const histories = Array.from({ length: REGISTERS }, (): Operation[] => []);
      const created = new Map<string, string>();
      const reported: string[] = [];
      let values = 0;
      let isOver = false;
      let isQuiet = false;

      const read = async (register: number) => {
        const invokedAt = performance.now();
        const reply = await client.send('GET', `${documentsOf(register)}/planted-register-${register}`);
        if (reply === undefined || (reply.status !== 200 && reply.status !== 404)) return undefined;
        const value = reply.status === 200 ? (JSON.parse(reply.text) as { value: number }).value : undefined;
        histories[register]?.push({ kind: 'read', value, invokedAt, answeredAt: performance.now() });
        return { value, rev: reply.rev };
      };
      const write = async (
        register: number,
        from: { value: number | undefined; rev: string | undefined } | undefined,
      ) => {
        const value = ++values;
        const headers: Record<string, string> =
          from?.rev === undefined ? {} : { 'if-match': `"${from.rev}"` };
        const invokedAt = performance.now();
        const body = JSON.stringify({ value, planted: `planted value ${value}` });
        const path = `${documentsOf(register)}/planted-register-${register}`;
        const reply = await client.send('PUT', path, body, headers);
        const answeredAt = reply === undefined ? Number.POSITIVE_INFINITY : performance.now();
        const refused = reply?.status === 412;
        if (reply !== undefined && !refused && reply.status > 201)
          client.unexpected.push(`PUT: ${reply.status} ${reply.text}`);
        const expected = from?.value;
        histories[register]?.push(
          from?.rev === undefined || expected === undefined
            ? { kind: 'write', value, invokedAt, answeredAt }
            : { kind: 'compare and set', expected, value, refused, invokedAt, answeredAt },
        );
      };
      const create = async () => {
        const documents = documentsOf(++values);
        const id = `planted-id-${values}`;
        const body = JSON.stringify({ _id: id, planted: 'planted value' });
        const reply = await client.send('POST', documents, body);
        if (reply?.status === 201) created.set(`${documents}/${id}`, String(reply.rev));
        else if (reply !== undefined) client.unexpected.push(`POST: ${reply.status} ${reply.text}`);
      };
      /** Takes two calls to BunKMS: one creates a key and one exports it. */
      const makeProject = async () => {
        const project = `made-${++values}`;
        const path = `/v1/projects/${project}/collections/notes/documents/planted-id`;
        const reply = await client.send('PUT', path, '{"planted":"planted value"}');
        if (reply?.status === 201) projects.add(path);
        else if (reply !== undefined) client.unexpected.push(`PUT ${path}: ${reply.status} ${reply.text}`);
      };
      const work = async () => {
        while (!isOver) {
          const dice = random();
          // Some documents are written often, and most projects only now and then.
          const register = Math.floor(random() ** 2 * REGISTERS);
          if (dice < 0.35) await read(register);
          else if (dice < 0.5) await write(register, undefined);
          else if (dice < 0.75) await write(register, await read(register));
          else if (dice < 0.8) await makeProject();
          else await create();
        }
      };
      const follow = async () => {
        const positions = new Map<number, string>();
        for (let last = false; !last; ) {
          last = isQuiet;
          for (let n = 0; n < PROJECTS; n++) {
            const reply = await client.send(
              'GET',
              `${projectOf(n)}/changes?limit=1000${positions.get(n) ?? ''}`,
            );
            if (reply?.status !== 200) {
              last = false;
              continue;
            }
            const page = JSON.parse(reply.text) as {
              changes: { _id: string; _rev: string }[];
              since: string;
            };
            reported.push(...page.changes.map(({ _id, _rev }) => `${documentsOf(n)}/${_id} ${_rev}`));
            positions.set(n, `&since=${page.since}`);
            if (page.changes.length > 0) last = false;
          }
        }
      };

      for (let made = 0; made < PROJECTS; made += WORKERS)
        await Promise.all(Array.from({ length: Math.min(WORKERS, PROJECTS - made) }, create));
      expect(created.size).toBe(PROJECTS);
      const working = startInBackground(Promise.all(Array.from({ length: WORKERS }, work)));
      const following = startInBackground(follow());
      for (let round = 0; round < FAILOVERS; round++) {
        await sleep(PHASE_MS);
        // A node dies and restarts: only its requests in progress fail.
        const before = { ...client.figures };
        const node = nodes[round % NODES] as (typeof nodes)[number];
        node.url = undefined;
        await node.process?.kill();
        await startNode(node);
        await sleep(PHASE_MS / 2);
        expect(client.figures.unavailable, 'refused while a node was down').toBe(before.unavailable);
        expect(client.figures.cutOff - before.cutOff, 'cut off with a node').toBeLessThanOrEqual(WORKERS + 1);
        // A node of BunKMS dies and restarts: Bundoc uses the other one, and no client notices.
        const beforeKms = { ...client.figures };
        const kms = kmsNodes[round % KMS_NODES] as Server;
        await kms.kill();
        const made = projects.size;
        await expect.poll(() => projects.size).toBeGreaterThan(made + PROJECTS_MEANWHILE);
        kmsNodes[round % KMS_NODES] = await startKms(round % KMS_NODES, kmsPort(kms));
        expect(client.figures.unavailable, 'refused while a node of BunKMS was down').toBe(
          beforeKms.unavailable,
        );
        expect(client.figures.cutOff, 'cut off with a node of BunKMS').toBe(beforeKms.cutOff);
        // Both databases are on the primary.
        const [old, standby] = servers.slice(-2) as [PostgresServer, PostgresServer];
        const cutOff = client.figures.cutOff;
        await old.kill();
        primary.switchTo();
        await standby.promote();
        primary.switchTo(standby.port);
        servers.push(await standby.startStandby(`standby_${round + 1}`));
        await sleep(PHASE_MS);
        expect(client.figures.cutOff, 'cut off with the primary').toBe(cutOff);
      }
      isOver = true;
      await working;
      isQuiet = true;
      await following;
      process.stdout.write(
        `cluster: ${JSON.stringify({ ...client.figures, created: created.size, projects: projects.size, told: reported.length, values })}\n`,
      );
      expect(client.unexpected).toEqual([]);
      expect(created.size).toBeGreaterThan(PROJECTS + runs(15, 100));

      for (const register of histories.keys()) await read(register);
      const lost: string[] = [];
      for (const [path, rev] of created) if ((await client.send('GET', path))?.rev !== rev) lost.push(path);
      for (const path of projects) if ((await client.send('GET', path))?.status !== 200) lost.push(path);
      expect(lost, 'acknowledged but missing').toEqual([]);
      expect(reported.length - new Set(reported).size, 'reported twice').toBe(0);
      const reportedOnce = new Set(reported);
      for (const [path, rev] of created)
        expect(reportedOnce.has(`${path} ${rev}`), `reported: ${path}`).toBe(true);
      for (const [register, history] of histories.entries())
        expect(isRegister(history), `register ${register}: ${JSON.stringify(history)}`).toBe(true);

      const deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = 'bundoc'";
      expect(await (servers.at(-2) as PostgresServer).sql(deadlocks)).toBe('0');
      const dump = await (servers.at(-2) as PostgresServer).dump('bundoc');
      const word = 'planted';
      for (const form of [
        word,
        Buffer.from(word).toString('hex'),
        Buffer.from(word).toString('base64').slice(0, -4),
      ])
        expect(dump.includes(form), `the dump has ${form}`).toBe(false);
    });

    it('learn of revoked tokens and of disabled or destroyed keys, whichever node of BunKMS made the change', async () => {
      const scope = ['kms:admin', 'kms:manage_key', 'kms:destroy_key', 'kms:read_key'] as const;
      const admin = await issue({ sub: 'ops', typ: 'service', scope: [...scope], keys: ['*'] });
      const at = ({ apiUrl }: Server, method: string, path: string) =>
        call(apiUrl, path, { method, token: admin }).then(({ status }) => status);
      const statuses = (path: string, by: string) =>
        Promise.all(nodes.map(async ({ url }) => (await call(String(url), path, { token: by })).status));
      const everywhere = (status: number) => nodes.map(() => status);
      for (const { url } of nodes)
        await expect.poll(async () => (await call(String(url), '/ready')).json()['kms_events']).toBe('live');
      for (const [number, kms] of kmsNodes.entries()) {
        const revoked = await client();
        const path = `/v1/projects/ended-${number}/collections/notes/documents/a`;
        const put = { method: 'PUT', token, body: '{}' };
        expect((await call(String(nodes[0]?.url), path, put)).status).toBe(201);
        for (const by of [token, revoked]) expect(await statuses(path, by)).toEqual(everywhere(200));
        const { jti } = JSON.parse(Buffer.from(String(revoked.split('.')[1]), 'base64url').toString());
        expect(await at(kms, 'DELETE', `/v1/tokens/${jti}`)).toBe(204);
        await expect.poll(() => statuses(path, revoked)).toEqual(everywhere(401));
        const key = `/v1/keys/ended-${number}-dek`;
        expect(await at(kms, 'POST', `${key}/disable`)).toBe(200);
        await expect.poll(() => statuses(path, token)).toEqual(everywhere(403));
        expect(await at(kms, 'POST', `${key}/enable`)).toBe(200);
        await expect.poll(() => statuses(path, token)).toEqual(everywhere(200));
        expect(await at(kms, 'DELETE', `${key}?pending_days=0&confirm=ended-${number}-dek`)).toBe(200);
        await expect.poll(() => statuses(path, token)).toEqual(everywhere(410));
      }
    });

    it('stop in order, and finish their requests', async () => {
      const [node] = nodes as [(typeof nodes)[number]];
      const url = String(node.url);
      /**
       * A write that the node has begun to read. A write that still waits in a queue of the system may be
       * refused.
       */
      const begun = async (n: number) => {
        const write = httpRequest(`${url}${documentsOf(n)}/drained-${n}`, {
          method: 'PUT',
          agent: false,
          headers: {
            authorization: `Bearer ${token}`,
            'content-type': 'application/json',
            'content-length': '2',
            expect: '100-continue',
          },
        });
        const answered = startInBackground(once(write, 'response') as Promise<[IncomingMessage]>);
        await once(write, 'continue');
        write.end('{}');
        return { status: startInBackground(answered.then(([answer]) => answer.resume().statusCode)) };
      };
      const writes = await Promise.all(Array.from({ length: 20 }, (_, n) => begun(n)));
      expect(await node.process?.stop()).toBe(0);
      const statuses = await Promise.all(writes.map(({ status }) => status));
      expect(new Set(statuses)).toEqual(new Set([201]));
      node.url = undefined;
    });
  },
);
