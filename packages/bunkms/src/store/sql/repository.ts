import type { KeyObject } from 'node:crypto';
import { familyOfIssue } from '../../records/token-record.ts';
import { AuditTable } from './audit-table.ts';
import { ClusterTable } from './cluster-table.ts';
import type { Dialect } from './dialect.ts';
import { KekUses } from './kek-uses.ts';
import { KeyTable } from './key-table.ts';
import type { Sql } from './statement.ts';
import { TokenTable } from './token-table.ts';

/** The tables of a store, in the dialect of its engine. */
export interface Repository {
  readonly audit: AuditTable;
  readonly keys: KeyTable;
  readonly tokens: TokenTable;
  readonly kekUses: KekUses;
  readonly cluster: ClusterTable;
  /**
   * The families of those tokens that are active: with a row, a genuine record of their issue, and no record
   * that revokes the family.
   */
  activeFamilies(jtis: readonly string[]): Sql<ReadonlyMap<string, string>>;
}

/** @param chainKey returns the key of the audit chain, or throws while the store is locked. */
export function createRepository(dialect: Dialect, chainKey: () => KeyObject): Repository {
  const audit = new AuditTable(dialect);
  const keys = new KeyTable(dialect, audit);
  const tokens = new TokenTable(dialect);
  return {
    audit,
    keys,
    tokens,
    kekUses: new KekUses(dialect, audit, keys),
    cluster: new ClusterTable(dialect),
    *activeFamilies(jtis) {
      const issues = yield* tokens.issuesOfActive(jtis);
      return new Map(
        [...issues].flatMap(([jti, issue]) => {
          const family = familyOfIssue(chainKey(), jti, issue);
          return family === undefined ? [] : [[jti, family] as const];
        }),
      );
    },
  };
}
