import { counted } from '@bundoc/shared/cli/counted';
import { faultFound } from '@bundoc/shared/cli/errors';
import { type JsonOption, print } from '@bundoc/shared/cli/print';
import { createProgress } from '@bundoc/shared/cli/progress';
import { type Chain, firstOf, type ListedObject, requireNext } from '../engine/files/archive/lineage.ts';
import { ArchiveDamaged, type DecodedObject, objectName } from '../engine/files/archive/object.ts';
import { firstMoment } from './archive-moments.ts';
import { isoOf, objectsIn, type StorageArchive } from './archive-place.ts';
import { RoundCheck } from './archive-round.ts';
import { MIB } from './transfer-bar.ts';

/** Objects that are read at a time, of at most 32 MiB each. */
const AHEAD = 4;

/** What is wrong with an object, or with a round. */
interface Finding {
  readonly object: string;
  readonly problem: string;
}

function findingOf(object: string, message: string): Finding {
  const begin = `${object} `;
  return { object, problem: message.startsWith(begin) ? message.slice(begin.length) : message };
}

interface Verified {
  readonly objects: number;
  readonly bytes: number;
  /** The newest moment whose objects are all good, milliseconds since 1970; undefined for none. */
  readonly newestMs: number | undefined;
  readonly findings: readonly Finding[];
}

/**
 * `bundoc archive verify`: reads every object of all chains, or of the newest. It checks hashes, links and
 * records, and that everything is there that the newest round of each chain needs. It opens nothing.
 *
 * @throws CommandError with exit code 1 when something is wrong.
 */
export async function verifyArchive(
  archive: StorageArchive,
  onlyNewest: boolean,
  options: JsonOption,
): Promise<void> {
  using bar = createProgress('{bar} {value}/{total} objects, {eta_formatted} left');
  const chains = await chainsOf(archive);
  const read = onlyNewest ? chains.slice(0, 1) : chains;
  bar.start(
    read.reduce((sum, chain) => sum + (chain === undefined ? 0 : chain.tip.n - firstOf(chain) + 1), 0),
  );
  let done = 0;
  const results: Verified[] = [];
  for (const chain of read) results.push(await verifyChain(archive, chain, () => bar.update(++done)));
  bar[Symbol.dispose]();

  const unreadable = archive.reader.damaged.map(({ id, error }) => findingOf(objectName(id), error.message));
  const findings = new Map(
    [...unreadable, ...results.flatMap((one) => one.findings)].map((one) => [
      `${one.object} ${one.problem}`,
      one,
    ]),
  );
  const objects = results.reduce((sum, one) => sum + one.objects, 0);
  const bytes = results.reduce((sum, one) => sum + one.bytes, 0);
  const newestMs = results.find((one) => one.newestMs !== undefined)?.newestMs;
  const newest = newestMs === undefined ? null : isoOf(newestMs);
  const prunedMs = chains[0]?.isPruned ? await firstMoment(archive.reader, chains[0]) : undefined;
  const pruned = prunedMs === undefined ? null : isoOf(prunedMs);
  const facts = {
    archive: archive.objects.name,
    storage: archive.storage,
    chains: results.length,
    objects,
    bytes,
    newest_restorable: newest,
    pruned_before: pruned,
    findings: [...findings.values()],
  };
  print(options, facts, () => [
    `storage ${archive.storage}: ${counted(objects, 'object')}, ${(bytes / MIB).toFixed(1)} MiB, ${findings.size === 0 ? 'all good' : counted(findings.size, 'finding')}; newest restorable moment: ${newest ?? 'none'}${pruned === null ? '' : `; pruned before ${pruned}`}`,
  ]);
  if (!options.json)
    for (const { object, problem } of findings.values()) console.error(`bundoc: ${object} ${problem}`);
  if (findings.size > 0) throw faultFound();
}

/** Without any object whose head can be read there is no chain: then all objects are read, as they are. */
async function chainsOf({ reader }: StorageArchive): Promise<readonly (Chain | undefined)[]> {
  try {
    return await reader.chains();
  } catch (error) {
    if (error instanceof ArchiveDamaged) return [undefined];
    throw error;
  }
}

async function verifyChain(
  archive: StorageArchive,
  chain: Chain | undefined,
  onObject: () => void,
): Promise<Verified> {
  const check = new ChainCheck(chain);
  const [first, last] = chain === undefined ? [] : [firstOf(chain), chain.tip.n];
  for await (const { id, bytes, object } of readAhead(archive, objectsIn(archive, chain, first, last))) {
    check.take(id, bytes, object);
    onObject();
  }
  return check.end();
}

interface ReadObject extends ListedObject {
  readonly object: DecodedObject | ArchiveDamaged;
}

/** Reads a few objects at a time, and gives them in order. */
async function* readAhead(
  { reader }: StorageArchive,
  listed: AsyncIterable<ListedObject>,
): AsyncGenerator<ReadObject> {
  const waiting: { readonly one: ListedObject; readonly reading: Promise<DecodedObject | ArchiveDamaged> }[] =
    [];
  const take = async function* (most: number): AsyncGenerator<ReadObject> {
    while (waiting.length > most) {
      const next = waiting.shift();
      if (next !== undefined) yield { ...next.one, object: await next.reading };
    }
  };
  for await (const one of listed) {
    const reading = reader.object(one.id).catch((error: unknown) => {
      if (error instanceof ArchiveDamaged) return error;
      throw error;
    });
    // It is awaited later, or another one has failed.
    reading.catch(() => undefined);
    waiting.push({ one, reading });
    yield* take(AHEAD - 1);
  }
  yield* take(0);
}

/** Checks the objects of a chain in order. */
class ChainCheck {
  readonly #chain: Chain | undefined;
  readonly #round: RoundCheck | undefined;
  readonly #findings: Finding[] = [];
  #before: DecodedObject | undefined;
  #expected: number;
  /** The last object that is missing or damaged. */
  #lastFault = 0;
  #newestMs: number | undefined;
  #objects = 0;
  #bytes = 0;

  constructor(chain: Chain | undefined) {
    this.#chain = chain;
    this.#round = chain?.tip.round && new RoundCheck(chain.tip.round, chain.tip.n);
    this.#expected = chain === undefined ? 0 : firstOf(chain);
  }

  take(id: ListedObject['id'], bytes: number, object: DecodedObject | ArchiveDamaged): void {
    this.#objects++;
    this.#bytes += bytes;
    this.#requirePresent(id.n);
    this.#expected = id.n + 1;
    const fault = object instanceof ArchiveDamaged ? object : this.#faultOf(object);
    this.#before = object instanceof ArchiveDamaged ? undefined : object;
    if (fault !== undefined) this.#find(id.n, objectName(id), fault.message);
    if (fault !== undefined || this.#chain === undefined || object instanceof ArchiveDamaged) return;
    const { round, timeMs } = object.head;
    if (round !== undefined && round.first > this.#lastFault && round.first >= firstOf(this.#chain))
      this.#newestMs = timeMs;
  }

  end(): Verified {
    const chain = this.#chain;
    if (chain !== undefined) {
      this.#requirePresent(chain.tip.n + 1);
      for (const problem of this.#roundProblems(chain))
        this.#findings.push({ object: objectName(chain.tip), problem });
    }
    return {
      objects: this.#objects,
      bytes: this.#bytes,
      newestMs: this.#newestMs,
      findings: this.#findings,
    };
  }

  #roundProblems(chain: Chain): readonly string[] {
    const { round } = chain.tip;
    if (round === undefined) return ['names no complete round yet: nothing can be restored'];
    if (round.first < firstOf(chain))
      return [`needs the objects from ${round.first} on, of which the first are missing`];
    if (this.#round === undefined || this.#lastFault >= round.first) return [];
    // What the round lacks, each of its moments lacks.
    if (!this.#round.isRestorable) this.#newestMs = undefined;
    return this.#round.problems();
  }

  /** @param n all objects before are expected. */
  #requirePresent(n: number): void {
    if (this.#chain === undefined || n <= this.#expected) return;
    const last = n - 1;
    this.#before = undefined;
    this.#find(
      last,
      this.#expected === last ? `object ${last}` : `objects ${this.#expected} to ${last}`,
      this.#expected === last ? 'is missing' : 'are missing',
    );
  }

  #find(n: number, object: string, message: string): void {
    this.#findings.push(findingOf(object, message));
    this.#lastFault = n;
  }

  #faultOf(object: DecodedObject): ArchiveDamaged | undefined {
    try {
      if (this.#chain !== undefined) requireNext(this.#before, object);
      for (const record of object.records()) this.#round?.take(record, object.head);
      return undefined;
    } catch (error) {
      if (error instanceof ArchiveDamaged) return error;
      throw error;
    }
  }
}
