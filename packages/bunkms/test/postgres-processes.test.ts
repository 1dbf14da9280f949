import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type AuditRecord, auditPageSchema } from '@bundoc/shared/contract/audit';
import { type ExportedKey, exportedKeySchema } from '@bundoc/shared/contract/keys';
import { runs } from '@bundoc/shared/testing/long';
import { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { needs } from '@bundoc/shared/testing/programs';
import { SwitchedAddress } from '@bundoc/shared/testing/switched-address';
import { patientUrl, startInBackground } from '@bundoc/shared/testing/timing';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { bunkms } from './support/command.ts';
import { type Answer, type Call, call } from './support/http.ts';
import { kekIdOfText } from './support/keks.ts';
import { newKek } from './support/kms.ts';
import { type Server, startServer } from './support/process.ts';

const SCOPES =
  'kms:create_key kms:export_key kms:rotate_key kms:destroy_key kms:read_key kms:audit kms:manage_kek kms:admin';

/** Real processes, and a server with a synchronous standby that takes over. */
describe('nodes of BunKMS as processes, on one database,', needs('postgresql'), () => {
  let folder: string;
  let primary: PostgresServer;
  let standby: PostgresServer | undefined;
  let address: SwitchedAddress;
  let environment: Record<string, string>;
  let token: string;
  let database = 0;

  beforeAll(async () => {
    primary = await PostgresServer.start();
    address = await SwitchedAddress.open(primary.port);
  });
  afterAll(async () => {
    await address[Symbol.asyncDispose]();
    await standby?.[Symbol.asyncDispose]();
    await primary[Symbol.asyncDispose]();
  });
  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'bunkms-nodes-'));
    const { name } = await primary.createDatabase(`nodes_${database++}`);
    const ring = join(folder, 'ring');
    writeFileSync(ring, newKek(), { mode: 0o600 });
    environment = {
      BUNKMS_STORAGE: primary.urlOf(name, address.port),
      BUNKMS_DATA_DIR: join(folder, 'cli'),
      BUNKMS_KEK_FILE: ring,
      BUNKMS_LOG_LEVEL: 'info',
      BUNKMS_EXPORTS_PER_TOKEN: '0',
      BUNKMS_READS_PER_TOKEN: '0',
      BUNKMS_CREATIONS_PER_TOKEN: '0',
      BUNKMS_DESTRUCTIONS_PER_TOKEN: '0',
    };
    expect((await bunkms(environment, 'init')).code).toBe(0);
    const issue = ['token', 'issue', '--typ', 'service', '--sub', 'x', '--keys', '*', '--scope', SCOPES];
    token = (await bunkms(environment, ...issue)).stdout.trim();
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  const start = (name: string, more: Record<string, string> = {}) =>
    startServer({ ...environment, BUNKMS_DATA_DIR: join(folder, name), ...more });
  const patient = () => ({ BUNKMS_STORAGE: patientUrl(String(environment['BUNKMS_STORAGE'])) });
  const ask = (url: string, path: string, options: Call = {}) => call(url, path, { token, ...options });
  const create = (node: Server, name: string, headers = {}) =>
    ask(node.apiUrl, '/v1/keys', { body: { name, type: 'aes-256' }, headers });
  const exported = (node: Server, name: string) => ask(node.internalUrl, `/v1/export/${name}`);
  /** All records, once the chain is verified. */
  async function chain(node: Server): Promise<Map<number, AuditRecord>> {
    const verified = await bunkms(environment, 'audit', 'verify', '--json');
    expect(JSON.parse(verified.stdout), verified.stderr).toMatchObject({ intact: true });
    const records = new Map<number, AuditRecord>();
    for (let cursor = '0'; cursor !== ''; ) {
      const page = auditPageSchema.parse(
        (await ask(node.apiUrl, `/v1/audit?limit=500&cursor=${cursor}`)).json(),
      );
      for (const record of page.records) records.set(record.seq, record);
      cursor = page.next_cursor ?? '';
    }
    expect([...records.keys()]).toEqual(Array.from(records, (_, index) => index + 1));
    return records;
  }

  function expectOnRecord(released: readonly ExportedKey[], records: ReadonlyMap<number, AuditRecord>): void {
    for (const { audit, name, key_id: id, version } of released)
      expect(records.get(audit.seq)).toMatchObject({
        hash: audit.hash,
        action: 'key.export',
        severity: 'CRITICAL',
        outcome: 'allowed',
        key: name,
        version,
        detail: { key_id: id },
      });
  }

  it('keep serving when one of them is killed under load: nothing fails at the other one, and the chain is intact', async () => {
    const [victim, survivor] = await Promise.all([start('a', patient()), start('b', patient())]);
    await using _survivor = survivor;
    const released: ExportedKey[] = [];
    const created = new Set<string>();
    const failures: unknown[] = [];
    let isOver = false;
    const work = async (node: Server, id: string) => {
      for (let step = 0; !isOver; step++) {
        const name = `${id}-${step}`;
        const made = await create(node, name);
        if (made.status === 201) created.add(name);
        const answers = [
          made,
          await exported(node, name),
          await ask(node.apiUrl, `/v1/keys/${name}/rotate`, { method: 'POST' }),
        ];
        const key = await exported(node, name);
        if (key.status === 200) released.push(exportedKeySchema.parse(key.json()));
        for (const { status, text } of [...answers, key])
          if (status >= 300) failures.push([id, status, text]);
      }
    };
    const atVictim = Array.from({ length: 4 }, (_, number) =>
      work(victim, `v${number}`).catch(() => undefined),
    );
    const atSurvivor = startInBackground(
      Promise.all(Array.from({ length: 4 }, (_, number) => work(survivor, `s${number}`))),
    );
    await expect.poll(() => released.length).toBeGreaterThan(60);
    await victim.kill();
    const before = released.length;
    await Promise.all(atVictim);
    await expect.poll(() => released.length).toBeGreaterThan(before + 60);
    isOver = true;
    await atSurvivor;
    expect(failures).toEqual([]);
    expectOnRecord(released, await chain(survivor));
    for (const name of created) expect((await exported(survivor, name)).status).toBe(200);
  });

  it('continue a rotation of the KEK when the node that runs it is killed', async () => {
    const names = Array.from({ length: runs(120, 300) }, (_, number) => `k${number}`);
    const further = newKek();
    {
      await using node = await start('a', patient());
      // So few at once that none waits at the gate, where a busy machine would refuse it.
      for (let from = 0; from < names.length; from += 30)
        for (const made of await Promise.all(names.slice(from, from + 30).map((name) => create(node, name))))
          expect(made.status, made.text).toBe(201);
    }
    writeFileSync(String(environment['BUNKMS_KEK_FILE']), `\n${further}`, { flag: 'a' });
    const [first, second] = await Promise.all([start('a', patient()), start('b', patient())]);
    await using _second = second;
    const statusOf = async (node: Server) => (await ask(node.apiUrl, '/v1/kek')).json();
    // Keys are rewrapped in the order of their ids, so the rotation reaches the locked last one and cannot
    // end.
    const holder = new pg.Client({ connectionString: environment['BUNKMS_STORAGE'] });
    await holder.connect();
    await holder.query('BEGIN; SELECT FROM bunkms.key_versions ORDER BY key_id DESC LIMIT 1 FOR UPDATE');
    expect((await ask(first.apiUrl, '/v1/kek/rotate', { body: {} })).status).toBe(202);
    await expect.poll(async () => (await statusOf(second)).rotation.done).toBeGreaterThan(0);
    await first.kill();
    expect((await statusOf(second)).rotation.done).toBeLessThan(names.length);
    await holder.query('ROLLBACK');
    await holder.end();
    await expect
      // The claim of the killed node must expire first.
      .poll(async () => (await statusOf(second)).rotation, { interval: 200, timeout: 120_000 })
      .toMatchObject({ done: names.length, completed_at: expect.any(String) });
    expect((await statusOf(second)).current).toBe(kekIdOfText(further));
    for (const name of names.slice(0, 20)) expect((await exported(second, name)).status).toBe(200);
    await chain(second);
  });

  it('release no key without its record when the primary is killed and the standby takes over, and answer at worst 503', async () => {
    standby = await primary.startStandby('standby');
    const nodes = await Promise.all([start('a'), start('b')]);
    await using _one = nodes[0];
    await using _other = nodes[1];
    for (let number = 0; number < 8; number++)
      expect((await create(nodes[0], `k${number}`)).status).toBe(201);
    const released: ExportedKey[] = [];
    const made = new Map<string, string>();
    const odd: Answer[] = [];
    let unavailable = 0;
    let isOver = false;
    const note = (answer: Answer) => {
      if (answer.status < 300) return true;
      if (answer.status === 503 && answer.headers['retry-after'] !== undefined) unavailable++;
      else odd.push(answer);
      return false;
    };
    const work = async (node: Server, worker: number) => {
      for (let step = 0; !isOver; step++) {
        const key = await exported(node, `k${worker}`);
        if (note(key)) released.push(exportedKeySchema.parse(key.json()));
        // Retried after a failure with the same idempotency key, until the outcome is known.
        const name = `w${worker}-${step}`;
        for (let isKnown = false; !isKnown && !isOver; ) {
          const answer = await create(node, name, { 'idempotency-key': name });
          isKnown = note(answer);
          if (isKnown) made.set(name, answer.json().id);
        }
      }
    };
    const working = startInBackground(
      Promise.all(Array.from({ length: 8 }, (_, number) => work(nodes[number % 2] as Server, number))),
    );
    await expect.poll(() => released.length).toBeGreaterThan(80);
    await primary.kill();
    address.switchTo();
    await standby.promote();
    address.switchTo(standby.port);
    const before = released.length;
    await expect.poll(() => released.length).toBeGreaterThan(before + 80);
    isOver = true;
    await working;
    expect(odd.map(({ status, text }) => [status, text])).toEqual([]);
    expect(unavailable).toBeLessThan(10_000);
    const records = await chain(nodes[1]);
    expectOnRecord(released, records);
    const creations = [...records.values()].filter(({ action }) => action === 'key.create');
    for (const [name, id] of made)
      expect(creations.filter(({ key }) => key === name)).toMatchObject([{ detail: { key_id: id } }]);
    expect(new Set(creations.map(({ key }) => key)).size).toBe(creations.length);
  });
});
