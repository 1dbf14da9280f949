import { kekIdOf } from '../../records/wrapped-key.ts';
import type { ReadBodies, WriteBodies } from './bodies.ts';
import { insertKek, readInstallation, replaceSecrets } from './installation-table.ts';
import type { Repository } from './repository.ts';

export function kekSnapshots({ kekUses }: Repository) {
  return {
    kekUses: () => kekUses.count(),
    listWrapped: (kekId, page) => kekUses.list(kekId, page),
    listStaleCopies: (kekId, page) => kekUses.listStaleCopies(kekId, page),
  } satisfies ReadBodies<'kekUses' | 'listWrapped' | 'listStaleCopies'>;
}

export function kekReads({ audit, kekUses }: Repository) {
  return {
    readInstallation,
    kekRecords: () => audit.kekRecords(),
    countNotWrappedBy: (kekId) => kekUses.countOthers(kekId),
  } satisfies ReadBodies<'readInstallation' | 'kekRecords' | 'countNotWrappedBy'>;
}

export function kekWrites({ audit }: Repository) {
  return {
    *addKek(chain, kek, record) {
      if (!(yield* insertKek(kek, record.time))) return false;
      chain.append(record);
      return true;
    },
    *replaceSecrets(chain, secrets, previous, record) {
      const kekId = yield* audit.currentKek();
      const wrapped = [secrets.chainKeyWrapped, secrets.signingSeedWrapped];
      if (wrapped.some((one) => kekIdOf(one) !== kekId)) return false;
      if (!(yield* replaceSecrets(secrets, previous))) return false;
      chain.append(record);
      return true;
    },
  } satisfies WriteBodies<'addKek' | 'replaceSecrets'>;
}
