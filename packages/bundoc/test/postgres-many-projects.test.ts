import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { type Clock, systemClock } from '@bundoc/shared/runtime/clock';
import { runInShare } from '@bundoc/shared/shares/share-key';
import type { PostgresServer } from '@bundoc/shared/testing/postgres-server';
import { needs } from '@bundoc/shared/testing/programs';
import { describe, expect, it } from 'vitest';
import type { Database } from '../src/engine/postgres/database/database.ts';
import { FakeKeyService } from '../src/testing/fake-key-service.ts';
import { ref } from '../src/testing/writes.ts';
import { PostgresNode } from './support/postgres-node.ts';
import { useDatabase } from './support/use-database.ts';

/** Available in a process that was started without `--expose-gc`. */
const gcOf = (): (() => void) => {
  setFlagsFromString('--expose-gc');
  return runInNewContext('gc');
};
const NONE = { kind: 'none' } as const;
const NUMBERS = { indexes: [], schema: { properties: { v: { type: 'number' } } } };

describe('many projects of a node on PostgreSQL', needs('postgresql'), () => {
  let server: PostgresServer;
  let database: Database;
  useDatabase((used) => {
    ({ server, database } = used);
  });
  const service = new FakeKeyService(systemClock);
  /** Stands still, so that no opening takes long. */
  const still: Clock = { ...systemClock, monotonic: () => 0 };
  const newNode = (clock = still) => new PostgresNode(database, service, clock);
  const namesOf = (what: string, count: number) => Array.from({ length: count }, (_, n) => `${what}-${n}`);

  const define = async (node: PostgresNode, project: string, definition: typeof NUMBERS | undefined) => {
    using lease = await node.instances.acquire(project, 'existing');
    await lease?.store.define('notes', definition, NONE);
  };
  const definitionOf = async (node: PostgresNode, project: string) => {
    using lease = await node.instances.acquire(project, 'existing');
    return lease?.store.definition('notes')?.definition;
  };

  it('are created with one statement each, and opened with one that also shows that nothing is defined', async () => {
    await using maker = newNode();
    await using opener = newNode();
    expect(
      await maker.statementsOf(async () =>
        (await maker.instances.acquire('made', 'create'))[Symbol.dispose](),
      ),
    ).toEqual(['bundoc-read-projects-2', 'bundoc-make-project-3']);
    await maker.write('made');
    expect(await opener.statementsOf(() => opener.read('made'))).toEqual([
      'bundoc-read-projects-2',
      'bundoc-read-2',
    ]);
    // It was only read.
    expect(await opener.statementsOf(() => opener.close('made'))).toEqual([]);
    expect(await maker.statementsOf(() => maker.close('made'))).toContain('transaction');
    await define(maker, 'made', NUMBERS);
    expect(await definitionOf(opener, 'made')).toEqual(NUMBERS);
  });

  it('share the statements that open them', async () => {
    await using maker = newNode();
    const projects = namesOf('shared', 100);
    for (const project of projects) await maker.write(project, 'd', JSON.stringify({ of: project }));
    await using opener = newNode();
    const asked = await opener.statementsOf(() =>
      Promise.all(
        // Of subjects of their own: one opens eight at a time.
        [...projects, 'absent'].map(async (project) => {
          const key = { subject: project, project };
          using lease = await runInShare(key, () => opener.instances.acquire(project, 'existing'));
          const text = (await lease?.store.get(ref('d')))?.text.toString();
          expect(text && JSON.parse(text).of).toBe(project === 'absent' ? undefined : project);
        }),
      ),
    );
    expect(asked.filter((name) => name === 'bundoc-read-projects-2').length).toBeLessThanOrEqual(6);
  });

  it('share the statements that read their changes', async () => {
    await using node = newNode();
    const projects = [...namesOf('followed', 60), 'followed-empty'];
    for (const project of projects.slice(0, 60))
      for (const id of ['a', 'b', 'c']) await node.write(project, id);
    (await node.instances.acquire('followed-empty', 'create'))[Symbol.dispose]();
    const found: unknown[] = [];
    const asked = await node.statementsOf(async () => {
      const pages = projects.map(async (project, n) => {
        using lease = await node.instances.acquire(project, 'existing');
        const after = n % 2;
        const page = await lease?.store.changes(after, 2);
        const position = await lease?.store.position();
        found.push([project, page?.changes.map(({ ref: { id } }) => id).join(), page?.position, position]);
      });
      await Promise.all(pages);
    });
    const expected = projects.map((project, n) => {
      if (project === 'followed-empty') return [project, '', 0, 0];
      return n % 2 === 0 ? [project, 'a,b', 2, 3] : [project, 'b,c', 3, 3];
    });
    expect(found.toSorted()).toEqual(expected.toSorted());
    expect(asked.filter((name) => name === 'bundoc-changes-4').length).toBeLessThanOrEqual(6);
    expect(asked.filter((name) => name === 'bundoc-positions-1').length).toBeLessThanOrEqual(6);
  });

  it('are created once, by whichever node is first', async () => {
    const nodes = [newNode(), newNode(), newNode()];
    await Promise.all(nodes.map((node, n) => node.write('raced', `d${n}`)));
    for (const node of nodes)
      for (const id of ['d0', 'd1', 'd2']) expect(await node.read('raced', id)).toBe(true);
    for (const node of nodes) await node[Symbol.asyncDispose]();
  });

  it('need one statement a second for upkeep, which reads no definitions without a change', async () => {
    await using node = newNode();
    await using other = newNode();
    const projects = namesOf('kept', 40);
    for (const project of projects) await other.write(project);
    for (const project of projects) await node.read(project);
    const run = () => node.statementsOf(() => node.upkeep.run());
    expect([await run(), await run()]).toEqual([['bundoc-changed-states-1'], ['bundoc-changed-states-1']]);
    // Documents by another node change no definition.
    for (const project of projects) await other.write(project, 'e');
    expect(await run()).toEqual(['bundoc-changed-states-1']);
    await define(other, 'kept-7', NUMBERS);
    expect((await run()).filter((name) => name.startsWith('bundoc-list'))).toHaveLength(1);
    expect(await definitionOf(node, 'kept-7')).toEqual(NUMBERS);
    expect(await run()).toEqual(['bundoc-changed-states-1']);
  });

  it('follow a definition that another node removes before anyone has read it', async () => {
    await using node = newNode();
    await using other = newNode();
    await node.write('fast');
    await other.read('fast');
    await node.upkeep.run();
    await define(node, 'fast', NUMBERS);
    await other.upkeep.run();
    await define(other, 'fast', undefined);
    expect(await definitionOf(node, 'fast')).toEqual(NUMBERS);
    await node.upkeep.run();
    expect(await definitionOf(node, 'fast')).toBeUndefined();
  });

  it('keep the definition of a project that opens while another node defines it', async () => {
    await using node = newNode();
    await using other = newNode();
    await other.write('opening');
    const { promise: held, resolve: goOn } = Promise.withResolvers<void>();
    const read = Promise.withResolvers<void>();
    node.afterRead = async () => {
      read.resolve();
      await held;
    };
    const opening = node.read('opening');
    await read.promise;
    await define(other, 'opening', NUMBERS);
    goOn();
    await opening;
    await node.upkeep.run();
    expect(await definitionOf(node, 'opening')).toEqual(NUMBERS);
  });

  it('obey a definition by another node during a slow opening, before any upkeep', async () => {
    let laterMs = 0;
    const clock = { ...still, monotonic: () => laterMs };
    await using node = newNode(clock);
    await using other = newNode();
    await other.write('opening-slowly');
    node.afterRead = async () => {
      node.afterRead = async () => undefined;
      await define(other, 'opening-slowly', NUMBERS);
      laterMs += 200;
    };
    await expect(node.write('opening-slowly', 'd', '{"v":"x"}')).rejects.toMatchObject({
      code: 'schema_violation',
    });
    expect(await definitionOf(node, 'opening-slowly')).toEqual(NUMBERS);
  });

  it('have an undecryptable definition read once, and again when it has changed', async () => {
    await using node = newNode();
    await using other = newNode();
    await other.write('harmed');
    await define(other, 'harmed', NUMBERS);
    await server.sql(
      "UPDATE bundoc.documents SET sealed = set_byte(sealed, 20, get_byte(sealed, 20) # 1) WHERE project = 'harmed' AND seq = 2",
      'bundoc',
    );
    await node.read('harmed').catch(() => undefined);
    const reads = async () =>
      (await node.statementsOf(() => node.upkeep.run())).filter((name) => name.startsWith('bundoc-list'))
        .length;
    expect([await reads(), await reads(), await reads()]).toEqual([1, 0, 0]);
    const TEXTS = { ...NUMBERS, schema: { properties: { v: { type: 'string' } } } };
    await define(other, 'harmed', TEXTS);
    expect(await reads()).toBe(1);
    expect(await definitionOf(node, 'harmed')).toEqual(TEXTS);
  });

  it('are closed when another node has removed them', async () => {
    await using node = newNode();
    await using other = newNode();
    await other.write('removed');
    await node.read('removed');
    await server.sql("DELETE FROM bundoc.heads WHERE project = 'removed'", 'bundoc');
    await node.upkeep.run();
    expect(node.instances.stateOf('removed').isOpen).toBe(false);
  });

  it('take less than 48 KiB of memory each while they are open', async () => {
    await using node = newNode();
    const projects = namesOf('small', 400);
    await Promise.all(projects.map((project) => node.write(project)));
    for (const project of projects) await node.close(project);
    const collect = gcOf();
    const used = () => {
      collect();
      const { heapUsed, external } = process.memoryUsage();
      return heapUsed + external;
    };
    for (const project of projects.slice(0, 100)) await node.read(project);
    const before = used();
    for (const project of projects.slice(100)) {
      await node.read(project);
      await node.write(project, 'e');
    }
    expect((used() - before) / 300).toBeLessThan(49_152);
  });
});
