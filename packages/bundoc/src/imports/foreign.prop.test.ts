import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InvalidLine } from '../operations/ndjson.ts';
import { couchdb } from './couchdb.ts';
import { firestore } from './firestore.ts';
import { type ForeignFormat, foreignLines } from './foreign.ts';
import { mongoexport } from './mongoexport.ts';

async function read(format: ForeignFormat, source: Buffer | string, chunkBytes = 64) {
  const bytes = Buffer.from(source);
  async function* chunks() {
    for (let at = 0; at < bytes.length; at += chunkBytes) yield bytes.subarray(at, at + chunkBytes);
  }
  const said: string[] = [];
  const texts: string[] = [];
  const report = { refused: 0, skipped: 0 };
  let fault: unknown;
  try {
    for await (const { text } of foreignLines(chunks(), format, (one) => said.push(one), report))
      texts.push(text);
  } catch (error) {
    fault = error;
  }
  return { texts, said, fault, ...report };
}

/** A value in the three spellings of the other systems, and as it must be stored. */
interface Spelled {
  readonly canonical: string;
  readonly relaxed: string;
  readonly firestore: string;
  readonly stored: string;
}
const spelled = (canonical: string, relaxed: string, fire: string, stored: string): Spelled => ({
  canonical,
  relaxed,
  firestore: fire,
  stored,
});

const string = fc.string({ unit: 'binary', maxLength: 8 }).map((text) => {
  const json = JSON.stringify(text.toWellFormed());
  return spelled(json, json, `{"stringValue":${json}}`, json);
});
const long = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map((n) => {
  const type = n >= -(2n ** 31n) && n < 2n ** 31n ? '$numberInt' : '$numberLong';
  return spelled(`{"${type}":"${n}"}`, `${n}`, `{"integerValue":"${n}"}`, `${n}`);
});
const double = fc.double().map((n) => {
  const text = Number.isFinite(n) ? JSON.stringify(n) : `"${n}"`;
  const canonical = `{"$numberDouble":"${Number.isFinite(n) ? text : n}"}`;
  return spelled(canonical, Number.isFinite(n) ? text : canonical, `{"doubleValue":${text}}`, text);
});
const decimal = fc.tuple(fc.bigInt(), fc.nat(30)).map(([n, places]) => {
  const text = `${n}.${'0'.repeat(places)}1`;
  const wrapped = `{"$numberDecimal":"${text}"}`;
  return spelled(wrapped, wrapped, `{"doubleValue":${text}}`, text);
});
const date = fc
  .date({ min: new Date(0), max: new Date('9999-12-31T23:59:59.999Z'), noInvalidDate: true })
  .map((at) => {
    const text = at.toISOString();
    const short = text.replace('.000Z', 'Z');
    const canonical = `{"$date":{"$numberLong":"${at.getTime()}"}}`;
    return spelled(canonical, `{"$date":"${short}"}`, `{"timestampValue":"${short}"}`, `"${text}"`);
  });
const binary = fc.uint8Array({ maxLength: 9 }).map((bytes) => {
  const text = JSON.stringify(Buffer.from(bytes).toString('base64'));
  const wrapped = `{"$binary":{"base64":${text},"subType":"00"}}`;
  return spelled(wrapped, wrapped, `{"bytesValue":${text}}`, text);
});
const plain = fc
  .constantFrom('null', 'true', 'false')
  .map((text) => spelled(text, text, `{"${text === 'null' ? 'nullValue' : 'booleanValue'}":${text}}`, text));
/** Names that are neither reserved at the top nor those of types. */
const name = fc.string({ unit: 'grapheme', maxLength: 5 }).map((text) => `n${text.toWellFormed()}`);
const members = (value: fc.Arbitrary<Spelled>) =>
  fc.uniqueArray(fc.tuple(name, value), { selector: ([one]) => one, maxLength: 4 }).map((all) => {
    const joined = (kind: keyof Spelled) =>
      all.map(([one, spelling]) => `${JSON.stringify(one)}:${spelling[kind]}`).join(',');
    return spelled(joined('canonical'), joined('relaxed'), joined('firestore'), joined('stored'));
  });
const { value } = fc.letrec<{ value: Spelled }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    string,
    long,
    double,
    decimal,
    date,
    binary,
    plain,
    fc.array(tie('value'), { maxLength: 4 }).map((all) => {
      const joined = (kind: keyof Spelled) => `[${all.map((one) => one[kind]).join(',')}]`;
      const fire = all.length === 0 ? '{}' : `{"values":${joined('firestore')}}`;
      return spelled(joined('canonical'), joined('relaxed'), `{"arrayValue":${fire}}`, joined('stored'));
    }),
    members(tie('value')).map((all) => {
      const fire = all.firestore === '' ? '{}' : `{"fields":{${all.firestore}}}`;
      return spelled(`{${all.canonical}}`, `{${all.relaxed}}`, `{"mapValue":${fire}}`, `{${all.stored}}`);
    }),
  ),
}));
const documents = fc.array(members(value), { maxLength: 5 });

const ROOT = 'projects/p/databases/(default)/documents';
const idText = (n: number) => n.toString(16).padStart(24, '0');
const mongoText = (all: readonly Spelled[], kind: 'canonical' | 'relaxed', separator: string) =>
  all
    .map((one, n) => `{"_id":{"$oid":"${idText(n)}"}${one[kind] === '' ? '' : ','}${one[kind]}}`)
    .join(separator);
const couchText = (all: readonly Spelled[]) =>
  `{"total_rows":9,"offset":0,"rows":[\r\n${all
    .map(
      ({ stored }, n) =>
        `{"id":"${idText(n)}","key":"k","value":{"rev":"1-a"},"doc":{"_id":"${idText(n)}","_rev":"1-a"${stored === '' ? '' : ','}${stored}}}`,
    )
    .join(',\r\n')}\r\n]}\n`;
const fireText = (all: readonly Spelled[]) =>
  `{"documents":[${all.map(({ firestore: fields }, n) => `{"name":"${ROOT}/c/${idText(n)}","fields":{${fields}}}`).join(',\n')}],"nextPageToken":"a"}`;

describe('an import from another system', () => {
  it('stores each value as documented, from every format, however the source is split', async () => {
    await fc.assert(
      fc.asyncProperty(documents, fc.integer({ min: 1, max: 99 }), async (all, chunkBytes) => {
        const texts = (collection: string) =>
          all.map(
            ({ stored }, n) => `{"_id":"${idText(n)}"${collection}${stored === '' ? '' : ','}${stored}}`,
          );
        for (const kind of ['canonical', 'relaxed'] as const)
          for (const source of [mongoText(all, kind, '\n'), `[${mongoText(all, kind, ',')}]`])
            expect(await read(mongoexport, source, chunkBytes)).toMatchObject({
              texts: texts(''),
              said: [],
              fault: undefined,
            });
        expect(await read(couchdb, couchText(all), chunkBytes)).toMatchObject({ texts: texts(''), said: [] });
        expect(await read(firestore, fireText(all), chunkBytes)).toMatchObject({
          texts: texts(',"_collection":"c"'),
          said: [],
        });
      }),
    );
  });

  it('of a damaged source names what it refuses, and gives whole documents only', async () => {
    const damage = fc.record({
      at: fc.nat(),
      remove: fc.nat(4),
      insert: fc.oneof(
        fc.constantFrom('{', '}', '[', ']', '"', ',', ':', '\\', '$', '\n', '0', '"$oid"', '"a":'),
        fc.string({ unit: 'binary', maxLength: 2 }),
      ),
    });
    const format = fc.constantFrom('mongoexport', 'couchdb', 'firestore');
    await fc.assert(
      fc.asyncProperty(
        documents,
        format,
        fc.array(damage, { minLength: 1, maxLength: 3 }),
        async (all, name, damages) => {
          let bytes = Buffer.from(
            name === 'mongoexport'
              ? mongoText(all, 'canonical', '\n')
              : name === 'couchdb'
                ? couchText(all)
                : fireText(all),
          );
          for (const { at, remove, insert } of damages) {
            const from = at % (bytes.length + 1);
            bytes = Buffer.concat([
              bytes.subarray(0, from),
              Buffer.from(insert),
              bytes.subarray(from + remove),
            ]);
          }
          const result = await read({ mongoexport, couchdb, firestore }[name] ?? couchdb, bytes, 5);
          if (result.fault !== undefined) expect(result.fault).toBeInstanceOf(InvalidLine);
          expect(result.said.filter((one) => one.includes(' is refused: '))).toHaveLength(result.refused);
          for (const text of result.texts) expect(JSON.parse(text)).toBeTypeOf('object');
        },
      ),
      { numRuns: 500 },
    );
  });
});
