import { createSecretKey, randomBytes } from 'node:crypto';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type AuditDraft, canonicalBytes, GENESIS, nextRecord, verifyChain } from './chain.ts';

const chainKey = createSecretKey(randomBytes(32));
const text = fc.string({ maxLength: 12 });
const maybe = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined });

const draft: fc.Arbitrary<AuditDraft> = fc.record({
  time: fc.date({ noInvalidDate: true }).map((date) => date.toISOString()),
  severity: fc.constantFrom('INFO', 'CRITICAL'),
  action: text,
  outcome: fc.constantFrom('allowed', 'refused', 'failed'),
  actor: maybe(text),
  jti: maybe(text),
  key: maybe(text),
  version: maybe(fc.nat()),
  source: maybe(text),
  request_id: maybe(text),
  code: maybe(text),
  detail: maybe(
    fc.dictionary(fc.string({ minLength: 1, maxLength: 5 }), fc.oneof(text, fc.integer(), fc.boolean()), {
      noNullPrototype: true,
    }),
  ),
});
const drafts = fc.array(draft, { minLength: 1, maxLength: 8 });

function chainOf(all: readonly AuditDraft[]): AuditRecord[] {
  const records: AuditRecord[] = [];
  for (const one of all) records.push(nextRecord(chainKey, records.at(-1) ?? GENESIS, one));
  return records;
}

describe('a chain', () => {
  it('a chain without changes is intact, even with the receipt of any of its records', async () => {
    await fc.assert(
      fc.asyncProperty(drafts, fc.nat(), async (all, pick) => {
        const chain = chainOf(all);
        const receipt = chain[pick % chain.length]!;
        expect(await verifyChain(chainKey, chain, [receipt])).toEqual({
          intact: true,
          head: { seq: chain.length, hash: chain.at(-1)!.hash },
          receipts: [receipt],
        });
      }),
    );
  });

  it('reports the record in which any field was changed', async () => {
    await fc.assert(
      fc.asyncProperty(drafts, draft, fc.nat(), fc.nat(), async (all, other, pick, field) => {
        const chain = chainOf(all);
        const at = pick % chain.length;
        const names = Object.keys(other) as (keyof AuditDraft)[];
        const name = names[field % names.length]!;
        const changed = { ...chain[at]!, [name]: other[name] };
        fc.pre(!canonicalBytes(at + 1, changed).equals(canonicalBytes(at + 1, chain[at]!)));
        chain[at] = changed;
        expect(await verifyChain(chainKey, chain)).toMatchObject({ intact: false, fault: { seq: at + 1 } });
      }),
    );
  });

  it('reports the first deleted record, unless it was the last', async () => {
    await fc.assert(
      fc.asyncProperty(drafts, fc.nat(), async (all, pick) => {
        const chain = chainOf([...all, all[0]!]);
        const at = pick % (chain.length - 1);
        chain.splice(at, 1);
        expect(await verifyChain(chainKey, chain)).toEqual({
          intact: false,
          fault: { seq: at + 1, reason: 'missing' },
        });
      }),
    );
  });

  it('reports the first of two exchanged records, renumbered or not', async () => {
    await fc.assert(
      fc.asyncProperty(drafts, fc.nat(), fc.boolean(), async (all, pick, renumber) => {
        const chain = chainOf([...all, { ...all[0]!, action: 'another' }]);
        const at = pick % (chain.length - 1);
        const [one, other] = [chain[at]!, chain[at + 1]!];
        chain[at] = renumber ? { ...other, seq: one.seq } : other;
        chain[at + 1] = renumber ? { ...one, seq: other.seq } : one;
        expect(await verifyChain(chainKey, chain)).toMatchObject({ intact: false, fault: { seq: at + 1 } });
      }),
    );
  });

  it('a chain that was cut off looks intact alone, but broken with a receipt', async () => {
    await fc.assert(
      fc.asyncProperty(drafts, async (all) => {
        const chain = chainOf([...all, all[0]!]);
        const last = chain.pop()!;
        expect((await verifyChain(chainKey, chain)).intact).toBe(true);
        expect(await verifyChain(chainKey, chain, [last])).toEqual({
          intact: false,
          fault: { seq: last.seq, reason: 'missing' },
        });
      }),
    );
  });

  it('a chain that was rewritten without the key is broken at its first record', async () => {
    await fc.assert(
      fc.asyncProperty(drafts, async (all) => {
        const forged: AuditRecord[] = [];
        const otherKey = createSecretKey(randomBytes(32));
        for (const one of all) forged.push(nextRecord(otherKey, forged.at(-1) ?? GENESIS, one));
        expect(await verifyChain(chainKey, forged)).toMatchObject({ intact: false, fault: { seq: 1 } });
      }),
    );
  });
});

it('an emptied chain is broken', async () => {
  expect(await verifyChain(chainKey, [])).toEqual({ intact: false, fault: { seq: 1, reason: 'missing' } });
});

it('a receipt of another chain is not accepted', async () => {
  const chain = chainOf([{ time: 't', severity: 'INFO', action: 'a', outcome: 'allowed' }]);
  expect(await verifyChain(chainKey, chain, [{ seq: 1, hash: 'f'.repeat(64) }])).toEqual({
    intact: false,
    fault: { seq: 1, reason: 'not the record of the receipt' },
  });
});

it('no two different records have the same canonical bytes', () => {
  fc.assert(
    fc.property(draft, draft, (one, other) => {
      const plain = (record: AuditDraft) => JSON.parse(JSON.stringify(record)) as unknown;
      const same = canonicalBytes(1, one).equals(canonicalBytes(1, other));
      if (same) expect(plain(one)).toEqual(plain(other));
    }),
  );
});
