import { JsonText, jsonOf } from './document.ts';
import { CALL, requireCondition, requireKnown, requirePageSize, shown } from './options.ts';
import type { Where } from './query.ts';
import type { CallOptions, Transport } from './transport.ts';

/** Options of a change or deletion by query. */
export interface WhereOptions extends CallOptions {
  /** Documents of one answer, which is one atomic batch: 1 to 500; 500 by default. */
  readonly pageSize?: number | undefined;
  /** Writes nothing, and counts what would be written. */
  readonly dryRun?: boolean | undefined;
  /**
   * Makes the whole repeatable within a day: a later call with the same key and arguments gets the answers
   * that were given before, and continues behind them. 1 to 240 visible ASCII characters. By default each
   * call has a new key.
   */
  readonly idempotencyKey?: string | undefined;
  /** Called after each answer with the number of documents that are written so far. */
  readonly onWritten?: ((count: number) => void) | undefined;
}

/** What a change or deletion by query did, in all answers together. */
export interface WrittenWhere {
  /** Documents that the condition held for when they were found. */
  readonly matched: number;
  /** Those of them that were changed or deleted: one that stopped matching meanwhile was left alone. */
  readonly written: number;
  /** Ids of documents that do not open, and were left alone. */
  readonly unreadable: readonly string[];
  /** The first documents, at most 20, of a dry run; otherwise empty. */
  readonly ids: readonly string[];
}

/** One answer of the service. */
interface Answer {
  readonly matched: number;
  readonly changed?: number;
  readonly deleted?: number;
  readonly next_cursor?: string;
  readonly unreadable?: readonly string[];
  readonly ids?: readonly string[];
}

const WHERE = [
  'pageSize',
  'dryRun',
  'idempotencyKey',
  'onWritten',
  ...CALL,
] as const satisfies readonly (keyof WhereOptions)[];

/** Documents of one answer. */
const WRITES_MAX = 500;
const IDS_MAX = 20;
const KEY = /^[!-~]{1,240}$/;

/**
 * Sends a change or deletion by query until it has no cursor. Each request has a key of its own, made of that
 * of the whole and its number. By its number, because a key that the service has forgotten would otherwise
 * not be noticed.
 *
 * @param path of the operation.
 * @param update JSON of the update; undefined to delete.
 * @param newKey the key of the whole unless it is given.
 */
export async function writeWhere(
  transport: Transport,
  path: string,
  where: Where | JsonText,
  update: string | undefined,
  options: WhereOptions,
  newKey: () => string,
): Promise<WrittenWhere> {
  requireKnown('options', options, WHERE);
  const { pageSize, dryRun = false, idempotencyKey, onWritten, ...call } = options;
  const key = idempotencyKey ?? newKey();
  if (!KEY.test(key))
    throw new RangeError(`idempotencyKey: ${shown(key)} is not 1 to 240 visible ASCII characters`);
  const limit = requirePageSize(pageSize, WRITES_MAX);
  const members = `{"where":${whereText(where)}${update === undefined ? '' : `,"update":${update}`},`;
  let [matched, written] = [0, 0];
  const unreadable = new Set<string>();
  const ids: string[] = [];
  let cursor: string | undefined;
  let count = 0;
  do {
    const { text } = await transport.send({
      ...call,
      method: 'POST',
      path,
      headers: { 'idempotency-key': dryRun ? undefined : `${key}.${count++}` },
      body: members + JSON.stringify({ limit, cursor, dry_run: dryRun }).slice(1),
      isIdempotent: true,
    });
    const answer = JSON.parse(text) as Answer;
    matched += answer.matched;
    written += answer.changed ?? answer.deleted ?? 0;
    for (const id of answer.unreadable ?? []) unreadable.add(id);
    ids.push(...(answer.ids ?? []).slice(0, IDS_MAX - ids.length));
    cursor = answer.next_cursor;
    onWritten?.(written);
  } while (cursor !== undefined);
  return { matched, written, unreadable: [...unreadable], ids };
}

/** @throws TypeError for no condition, and for a member without a value: more documents would match. */
function whereText(where: Where | JsonText): string {
  if (where instanceof JsonText) return where.text;
  if (typeof where !== 'object' || where === null || Array.isArray(where))
    throw new TypeError(`where: ${shown(where)} is not a condition; {} means every document`);
  requireCondition(where);
  return jsonOf('where', where, true);
}
