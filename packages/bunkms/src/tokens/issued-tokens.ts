import type { KeyObject } from 'node:crypto';
import { AppError } from '@bundoc/shared/contract/app-error';
import type { AuditRecord } from '@bundoc/shared/contract/audit';
import { isGenuine } from '../records/chain-walk.ts';
import { familyOfIssue, type StoredToken } from '../records/token-record.ts';
import type { PageQuery } from '../store/page.ts';
import type { TokenStore } from '../store/tokens.ts';

/**
 * The tokens that the tokens of one family have issued, directly or indirectly. They are a tree: each token
 * is below its issuer, and so are its renewals. Everything here follows genuine records of the audit chain,
 * which also has the tokens that were removed from the store.
 */

/** Maximum issuers above a token that issues others. So a walk from a token to its first issuer is short. */
export const ISSUERS_MAX = 8;
/** Tokens in the longest line: a token that issues none, its issuer, and the issuers above that one. */
const LINE_MAX = ISSUERS_MAX + 2;
/** Maximum records that one page visits, and records per call of the store: other calls wait. */
const PAGE_RECORDS_MAX = 500;
const RECORDS = 100;

interface Ports {
  readonly store: Pick<TokenStore, 'findToken' | 'findTokens' | 'listIssues'>;
  readonly chainKey: KeyObject;
}

/** A part of the tokens that a family has issued. */
export interface IssuedPage {
  readonly items: readonly StoredToken[];
  /** The cursor of the next part; undefined at the end. */
  readonly next: string | undefined;
}

/** How many issuers are above a token. @returns 0 for a token from the command line. */
export async function countIssuers(ports: Ports, jti: string): Promise<number> {
  return (await findAncestors(ports, jti)).length - 1;
}

/** Whether a token of the family has issued this one, directly or indirectly. */
export async function isIssuedBy(ports: Ports, family: string, jti: string): Promise<boolean> {
  return ((await pathTo(ports, family, jti))?.length ?? 0) > 1;
}

/**
 * Tokens that the family has issued and that have a row, depth first: each is followed by those that it has
 * issued. The cursor is a `jti`; one that is not in the tree gives an empty page, like an unknown one.
 *
 * A page visits a bounded number of records, and some may belong to removed tokens. So it may be
 * short, or empty, and still have `next`.
 *
 * @throws AppError `integrity_error` when all these records were changed.
 */
export async function listIssued(
  ports: Ports,
  family: string,
  { after, limit }: PageQuery<string>,
): Promise<IssuedPage> {
  const path = after === undefined ? [] : await pathTo(ports, family, after);
  if (path === undefined) return { items: [], next: undefined };
  const places = [
    placeAt('family', family, path[0]),
    ...path.map((record, depth) => placeAt('issuer', tokenOf(record), path[depth + 1])),
  ];
  const jtis: string[] = [];
  let next = after;
  let read = 0;
  for await (const { record, isBelow } of descend(ports, places)) {
    if (record !== undefined) {
      next = tokenOf(record);
      if (isBelow) jtis.push(next);
    }
    if (jtis.length === limit || ++read === PAGE_RECORDS_MAX) {
      if (next === after)
        throw new AppError('integrity_error', { detail: 'audit records of tokens were changed' });
      return { items: await withRows(ports, jtis), next };
    }
  }
  return { items: await withRows(ports, jtis), next: undefined };
}

/** A place of the walk: the records of a family, or by an issuer, behind `after`. */
interface TreePosition {
  readonly by: 'family' | 'issuer';
  readonly of: string;
  after: number;
  /** Records that were read and not visited. */
  unvisited: AuditRecord[];
  hasMore: boolean;
}

function placeAt(by: TreePosition['by'], of: string, visited?: AuditRecord): TreePosition {
  return { by, of, after: visited?.seq ?? 0, unvisited: [], hasMore: true };
}

/**
 * Visits the records behind the places, the deepest place first.
 *
 * @returns undefined for a record that was changed. `isBelow` is false for the tokens of the family itself.
 */
async function* descend({ store, chainKey }: Ports, places: TreePosition[]) {
  for (let place = places.at(-1); place !== undefined; place = places.at(-1)) {
    const { by, of } = place;
    const record = place.unvisited.shift();
    if (record !== undefined) {
      const isTrusted = record.detail?.[by] === of && isGenuine(chainKey, record);
      if (isTrusted && record.detail?.['may_issue'] !== undefined)
        places.push(placeAt('issuer', tokenOf(record)));
      yield { record: isTrusted ? record : undefined, isBelow: by === 'issuer' };
    } else if (place.hasMore) {
      const [records = []] = await store.listIssues(by, [{ of, after: place.after }], RECORDS);
      place.unvisited = [...records];
      place.after = records.at(-1)?.seq ?? place.after;
      place.hasMore = records.length === RECORDS;
    } else places.pop();
  }
}

/** The records from a token of the family down to this one; undefined when it is not in the tree. */
async function pathTo(ports: Ports, family: string, jti: string): Promise<AuditRecord[] | undefined> {
  const line = await findAncestors(ports, jti);
  const at = line.findIndex(({ detail }) => detail?.['family'] === family);
  return at === -1 ? undefined : line.slice(0, at + 1).reverse();
}

/** The records of a token and its issuers, upwards, as far as they are genuine. */
async function findAncestors({ store, chainKey }: Ports, jti: string): Promise<AuditRecord[]> {
  const line: AuditRecord[] = [];
  for (let token: unknown = jti; typeof token === 'string' && line.length < LINE_MAX; ) {
    const issued = (await store.findToken(token))?.issued;
    if (issued === undefined || familyOfIssue(chainKey, token, issued) === undefined) break;
    line.push(issued);
    token = issued.detail?.['issuer'];
  }
  return line;
}

async function withRows({ store }: Ports, jtis: readonly string[]): Promise<StoredToken[]> {
  return (await store.findTokens(jtis)).filter(({ row }) => row !== undefined);
}

function tokenOf({ detail = {} }: AuditRecord): string {
  return String(detail['token']);
}
