import { InvalidLine } from '../operations/ndjson.ts';

const HEAD_BYTES = 16;

/** What a file may be instead of JSON: its first bytes, and what to do. */
const OTHERS: readonly (readonly [isIt: (head: Buffer) => boolean, what: string])[] = [
  [begins('1f8b'), 'it is compressed by gzip: run "gunzip -c <file> | bundoc import … -"'],
  [begins('28b52ffd'), 'it is compressed by zstd: decompress it first'],
  [begins('504b0304'), 'it is a ZIP archive: unpack it first'],
  [begins('fffe'), 'it is UTF-16: convert it by "iconv -f UTF-16 -t UTF-8"'],
  [begins('feff'), 'it is UTF-16: convert it by "iconv -f UTF-16 -t UTF-8"'],
  [
    (head) => head[0] !== 0 && head[1] === 0 && head[2] !== 0 && head[3] === 0,
    'it seems to be UTF-16LE: convert it by "iconv -f UTF-16LE -t UTF-8"',
  ],
  [begins('6de29981'), 'it is an archive of mongodump: export the collection by mongoexport'],
  [isBson, 'it seems to be BSON of mongodump: export the collection by mongoexport, or run "bsondump"'],
  [
    begins(Buffer.from('SQLite format 3').toString('hex')),
    'it is an SQLite database: export a table by "sqlite3"',
  ],
  [begins(Buffer.from('PGDMP').toString('hex')), 'it is an archive of pg_dump: export a table by "psql"'],
];

function begins(hex: string): (head: Buffer) => boolean {
  const bytes = Buffer.from(hex, 'hex');
  return (head) => head.subarray(0, bytes.length).equals(bytes);
}

/** A length of up to 16 MiB in four bytes, then the type of the first member. */
function isBson(head: Buffer): boolean {
  const [, , , high, type = 0] = head;
  return high === 0 && type >= 0x01 && type <= 0x13;
}

/**
 * The bytes of a source; its first 16 come together.
 *
 * @throws InvalidLine if its first bytes show that it is no text in UTF-8; it names the remedy.
 */
export async function* textBytes(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void, void> {
  let head: Buffer | undefined = Buffer.alloc(0);
  for await (const chunk of source) {
    if (head === undefined) {
      yield chunk;
      continue;
    }
    head = Buffer.concat([head, chunk]);
    if (head.length < HEAD_BYTES) continue;
    yield checked(head);
    head = undefined;
  }
  if (head !== undefined && head.length > 0) yield checked(head);
}

function checked(head: Buffer): Buffer {
  const found = OTHERS.find(([isIt]) => isIt(head));
  if (found !== undefined) throw new InvalidLine(`the source is no text in UTF-8: ${found[1]}`);
  return head;
}
