import { needs } from '@bundoc/shared/testing/programs';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type Answer, type BundocClient, bundocClient } from './support/client.ts';
import { docker } from './support/docker.ts';
import { eventually, type Stack, startStack, untilHealthy } from './support/stack.ts';

/** The design allows 5 s for an answer about a cold project. The rest is slack for a busy machine. */
const COLD_ANSWER_MS_MAX = 30_000;
/** Less than the time of an answer that waits for BunKMS. */
const WARM_ANSWER_MS_MAX = 4_000;
const TRIES = 5;

interface Outage {
  readonly name: string;
  begin(stack: Stack): Promise<unknown>;
  end(stack: Stack): Promise<unknown>;
}

const OUTAGES: readonly Outage[] = [
  {
    name: 'paused',
    begin: (stack) => docker(['pause', stack.container('bunkms')]),
    end: (stack) => docker(['unpause', stack.container('bunkms')]),
  },
  {
    name: 'cut-off',
    begin: (stack) =>
      docker(['network', 'disconnect', `${stack.project}_internal`, stack.container('bunkms')]),
    end: (stack) =>
      docker([
        ...['network', 'connect', '--alias', 'bunkms-internal'],
        ...[`${stack.project}_internal`, stack.container('bunkms')],
      ]),
  },
  {
    name: 'killed',
    begin: (stack) => docker(['kill', '--signal', 'KILL', stack.container('bunkms')]),
    end: (stack) => docker(['start', stack.container('bunkms')]),
  },
];

/**
 * Expects an answer of one of these statuses without a wait. A disk stall may delay single answers, so the
 * request is repeated.
 */
async function atOnce(asked: () => Promise<Answer>, statuses: readonly number[]): Promise<void> {
  const elapsedMs: number[] = [];
  do {
    const answer = await asked();
    expect(answer.status, answer.text).toBeOneOf([...statuses]);
    elapsedMs.push(answer.elapsedMs);
  } while (Math.min(...elapsedMs) >= WARM_ANSWER_MS_MAX && elapsedMs.length < TRIES);
  expect(Math.min(...elapsedMs)).toBeLessThan(WARM_ANSWER_MS_MAX);
}

describe('while BunKMS is away', needs('docker'), () => {
  let stack: Stack;
  let client: BundocClient;
  let startedAt: string;
  let current: Outage | undefined;

  const bundocStartedAt = () =>
    docker(['inspect', '--format', '{{.State.StartedAt}}', stack.container('bundoc')]);

  beforeAll(async () => {
    stack = await startStack({ env: { BUNDOC_KMS_DEADLINE_MS: '' } });
    const before = await bundocClient(stack, '*');
    // Retried, because a busy machine may delay BunKMS.
    for (const project of ['warm', ...OUTAGES.map(({ name }) => `cold-${name}`)])
      await eventually(async () =>
        expect(await before.put(project, 'notes', 'first', '{"n":1}')).toMatchObject({ status: 201 }),
      );
    // A restart makes all projects cold, and one read makes one of them warm.
    await docker(['restart', stack.container('bundoc')]);
    await untilHealthy(stack.container('bundoc'));
    client = await bundocClient(stack, '*');
    await eventually(async () =>
      expect(await client.get('warm', 'notes', 'first')).toMatchObject({ status: 200 }),
    );
    startedAt = await bundocStartedAt();
  });
  afterEach(async () => {
    await current?.end(stack);
    current = undefined;
  });
  afterAll(() => stack?.[Symbol.asyncDispose]());

  it.each(OUTAGES)('$name: warm projects work, cold ones get 503 in time, all recover', async (outage) => {
    const cold = `cold-${outage.name}`;
    await outage.begin(stack);
    current = outage;

    const refused = [
      ...Array.from({ length: 10 }, () => client.get(cold, 'notes', 'first')),
      client.put(cold, 'notes', 'second', '{"n":2}'),
      client.put(`new-${outage.name}`, 'notes', 'first', '{"n":1}'),
    ];
    // During the outage and afterwards, the warm project neither waits nor fails.
    for (const id of [`during-${outage.name}`, `later-${outage.name}`]) {
      await atOnce(() => client.put('warm', 'notes', id, '{"n":3}'), [201, 200]);
      await atOnce(() => client.get('warm', 'notes', id), [200]);
      await Promise.all(refused);
    }
    for (const answer of await Promise.all(refused)) {
      expect(answer.status).toBe(503);
      expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0);
      expect(answer.headers.get('content-type')).toContain('application/problem+json');
      expect(answer.elapsedMs).toBeLessThan(COLD_ANSWER_MS_MAX);
    }

    await outage.end(stack);
    current = undefined;
    const read = await eventually(async () => {
      const answer = await client.get(cold, 'notes', 'first');
      expect(answer.status).toBe(200);
      return answer;
    });
    expect(read.text).toContain('"n":1');
    // The refused write left no trace, and succeeds now.
    expect(await client.get(cold, 'notes', 'second')).toMatchObject({ status: 404 });
    // Each project remembers for a second that it got no key.
    await eventually(async () => {
      const created = await client.put(`new-${outage.name}`, 'notes', 'first', '{"n":1}');
      expect(created).toMatchObject({ status: 201 });
    });
    expect(await bundocStartedAt()).toBe(startedAt);
  });
});
