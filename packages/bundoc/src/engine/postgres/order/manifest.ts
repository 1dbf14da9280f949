import { OpenError } from '@bundoc/shared/crypto/aead';
import { ByteReader, ByteWriter } from '../../port/bytes.ts';
import { PLACE_UNITS_MAX } from './entry.ts';
import { PAGE_BYTES } from './page.ts';

/** A fence page in a run's description. */
export interface Fence {
  /** No entry of the page is before this place, and all entries of earlier pages are. */
  readonly first: string;
  /** The page's number. */
  readonly id: number;
}

/** An immutable, sorted list of entries in pages. */
export interface Run {
  /** 16 hex characters, random: the salt of the key of its pages. */
  readonly id: string;
  readonly entries: number;
  /** Entries of documents that have several, or too many keys. 0: each document has one entry. */
  readonly multiple: number;
  /** Sealed bytes of all its pages. */
  readonly bytes: number;
  /** In order. Empty if the run has no entry. */
  readonly fences: readonly Fence[];
  /** Pages with the creation positions of documents whose entries in older runs are out of date. In order. */
  readonly changed: readonly number[];
}

/** An ordered index as one node has stored it: the sealed `runs` of its row. */
export interface Manifest {
  /** Each living document with a `seq` up to here, created up to `builtTo`, has its entries in a run. */
  readonly asOf: number;
  /** While it is built, documents created up to here are in the runs. */
  readonly builtTo: number | 'all';
  /** Documents that the build has indexed. */
  readonly indexed: number;
  /** Oldest first. Entries of a run have a larger `seq` than those of the same document in older runs. */
  readonly runs: readonly Run[];
}

const RUN_ID_BYTES = 8;
/** Stands for a built index. */
const ALL = 2 ** 48 - 1;
/** Manifests are padded to a multiple of this, so that their sizes say little about lengths of places. */
const PADDED_TO_BYTES = 512;

/** Encodes a manifest: the plaintext of `indexes.runs`. Byte table: docs/formats/postgres-order.md. */
export function encodeManifest({ asOf, builtTo, indexed, runs }: Manifest): Buffer {
  const writer = new ByteWriter(PADDED_TO_BYTES);
  writer
    .u48(asOf)
    .u48(builtTo === 'all' ? ALL : builtTo)
    .u48(indexed)
    .u16(runs.length);
  for (const run of runs) {
    writer.raw(Buffer.from(run.id, 'hex')).u48(run.entries).u48(run.multiple);
    writer.u32(run.bytes / PAGE_BYTES).u32(run.fences.length);
    for (const { first, id } of run.fences)
      writer.u16(first.length).raw(Buffer.from(first, 'latin1')).u48(id);
    writer.u32(run.changed.length);
    for (const id of run.changed) writer.u48(id);
  }
  const over = writer.length % PADDED_TO_BYTES;
  if (over > 0) writer.reserve(PADDED_TO_BYTES - over).fill(0);
  return writer.finish();
}

/** @throws OpenError for bytes that {@link encodeManifest} does not make. */
export function decodeManifest(bytes: Buffer): Manifest {
  try {
    const reader = new ByteReader(bytes);
    const asOf = reader.u48();
    const builtTo = reader.u48();
    const indexed = reader.u48();
    const runs: Run[] = [];
    for (let left = reader.u16(); left > 0; left--) runs.push(readRun(reader));
    while (!reader.done) if (reader.u8() !== 0) throw new OpenError();
    return { asOf, builtTo: builtTo === ALL ? 'all' : builtTo, indexed, runs };
  } catch {
    // The reader asserts that there are enough bytes.
    throw new OpenError();
  }
}

function readRun(reader: ByteReader): Run {
  const id = reader.raw(RUN_ID_BYTES).toString('hex');
  const entries = reader.u48();
  const multiple = reader.u48();
  const bytes = reader.u32() * PAGE_BYTES;
  const fences: Fence[] = [];
  for (let left = reader.u32(); left > 0; left--) {
    const first = reader.raw(reader.u16()).toString('latin1');
    const before = fences.at(-1);
    if (first.length > PLACE_UNITS_MAX || (before !== undefined && before.first >= first))
      throw new OpenError();
    fences.push({ first, id: reader.u48() });
  }
  const changed: number[] = [];
  for (let left = reader.u32(); left > 0; left--) changed.push(reader.u48());
  if (multiple > entries || entries > 0 !== fences.length > 0) throw new OpenError();
  return { id, entries, multiple, bytes, fences, changed };
}
