import { FakeClock } from '@bundoc/shared/testing/fake-clock';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { afterEach, expect, it, vi } from 'vitest';
import { openDefinedStore, PASSED_MAX } from '../storage/collections/defined-store.ts';
import { put } from '../storage/conformance.ts';
import { EmbeddedProject } from '../testing/embedded-project.ts';
import { Collections } from './collections.ts';

const DOCUMENTS = 1_000;

afterEach(() => void vi.restoreAllMocks());

it('compiles a schema no more often for more documents that it is held against', async () => {
  const project = new EmbeddedProject();
  const disk = EmbeddedProject.disk();
  await project.create(disk);
  await using store = await openDefinedStore(await project.open(disk), new FakeClock());
  await store.commit(Array.from({ length: DOCUMENTS }, (_, n) => put(`doc-${n}`, `{"v":${n % 2}}`)));
  const lease = { store, [Symbol.dispose]: () => undefined };
  const collections = new Collections({ acquire: async () => lease } as never);
  const compile = vi.spyOn(Ajv2020.prototype, 'compile');
  const schema = { properties: { v: { const: 1 } } };
  const { existing } = await collections.define('p', 'notes', { indexes: [], schema }, { kind: 'none' });
  expect(existing).toEqual({ checked: DOCUMENTS, failing: DOCUMENTS / 2, complete: true });
  // To see whether it is acceptable, to obey it, and to look at the documents: the last also for all faults of one.
  // Ajv compiles the schemas of our keywords' values as well.
  const ofDefinition = compile.mock.calls.filter(([one]) => Object.hasOwn(one as object, 'properties'));
  expect(ofDefinition.length).toBeGreaterThan(0);
  expect(ofDefinition.length).toBeLessThanOrEqual(4);
});

it('looks at a bounded number of expired documents for one that a schema would refuse, and says that it did', async () => {
  const project = new EmbeddedProject();
  const disk = EmbeddedProject.disk();
  await project.create(disk);
  const clock = new FakeClock();
  await using store = await openDefinedStore(await project.open(disk), clock);
  const content = `{"until":"${new Date(clock.now()).toISOString()}"}`;
  for (let n = 0; n <= 2 * PASSED_MAX; n += 1_000)
    await store.commit(Array.from({ length: 1_000 }, (_, k) => put(`doc-${n + k}`, content)));
  clock.advance(1);
  const lease = { store, [Symbol.dispose]: () => undefined };
  const collections = new Collections({ acquire: async () => lease } as never);
  const definition = { indexes: [], schema: { required: ['v'] }, ttl: { field: 'until', seconds: 0 } };
  const { existing } = await collections.define('p', 'notes', definition, { kind: 'none' });
  expect(existing).toEqual({ checked: 0, failing: 0, complete: false });
});
