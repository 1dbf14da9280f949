import type { AuditDraft } from '../../records/chain.ts';
import { matchesRecord } from '../../records/token-record.ts';
import type { RevokedFamily } from '../tokens.ts';
import type { ReadBodies, WriteBodies } from './bodies.ts';
import type { Repository } from './repository.ts';

export function tokenSnapshots({ tokens }: Repository) {
  return {
    *findToken(jti) {
      return (yield* tokens.find([jti]))[0];
    },
    findTokens: (jtis) => tokens.find(jtis),
    listTokens: (page) => tokens.list(page),
  } satisfies ReadBodies<'findToken' | 'findTokens' | 'listTokens'>;
}

export function tokenReads({ tokens, activeFamilies }: Repository) {
  return {
    *findActiveTokenFamily(jti) {
      return (yield* activeFamilies([jti])).get(jti);
    },
    listIssues: (by, places, limit) => tokens.listIssues(by, places, limit),
    listRevoked: (time, page) => tokens.listRevoked(time, page),
  } satisfies ReadBodies<'findActiveTokenFamily' | 'listIssues' | 'listRevoked'>;
}

export function tokenWrites({ tokens, activeFamilies }: Repository) {
  return {
    *insertToken(chain, token, record) {
      const { issuer } = token;
      if (issuer !== undefined && !(yield* activeFamilies([issuer])).has(issuer)) return false;
      yield* tokens.insert(token);
      chain.append(record);
      return true;
    },
    *renewToken(chain, parentJti, token, record) {
      if (!(yield* activeFamilies([parentJti])).has(parentJti)) return false;
      yield* tokens.insert(token);
      chain.append(record);
      return true;
    },
    *revokeFamilies(chain, records) {
      const places: RevokedFamily[] = [];
      for (const [family, record] of byFamily(records)) {
        const revocations = yield* tokens.revocationsOf(family);
        const earlier = revocations.find((one) => matchesRecord(chain.chainKey, record, one));
        if (earlier !== undefined) {
          places.push({ place: { seq: earlier.seq, hash: earlier.hash }, isNew: false });
          continue;
        }
        yield* tokens.markRevoked(family, record.time);
        places.push({ place: chain.append(record), isNew: true });
      }
      return places;
    },
    *pruneTokens(chain, time, limit, record) {
      const count = yield* tokens.prune(time, limit);
      if (count > 0) chain.append({ ...record, detail: { ...record.detail, count } });
      return count;
    },
  } satisfies WriteBodies<'insertToken' | 'renewToken' | 'revokeFamilies' | 'pruneTokens'>;
}

/** The families that revocations name, each with its first revocation. */
function byFamily(records: readonly AuditDraft[]): Map<string, AuditDraft> {
  const byName = new Map<string, AuditDraft>();
  for (const record of records) {
    const family = String(record.detail?.['family']);
    if (!byName.has(family)) byName.set(family, record);
  }
  return byName;
}
