import type { ObjectStorage } from '@bundoc/shared/object-storage/port';
import type { ShipSink } from '../audit/ship/sinks.ts';
import { chainPrefix, epochName, hashOf, recordsName } from './names.ts';

/** How often the chain is checked for records to ship, milliseconds: each object costs a request. */
export const CHAIN_EVERY_MS = 5_000;

/**
 * Ships lines to an archive, as one object for each call. A repeated call stores the same bytes under the
 * same name. After a crash, other objects may have the same records again.
 *
 * @param installation of `installationOf`; asked at each call.
 */
export function chainSink(objects: ObjectStorage, installation: () => Promise<string>): ShipSink {
  return {
    target: objects.name,
    variable: 'BUNKMS_ARCHIVE',
    append: async (lines, _signal, { first, last, epoch }) => {
      const body = Buffer.from(lines.join(''), 'utf8');
      const name = recordsName({ first, last, hash: hashOf(body) });
      await objects.put(`${chainPrefix(await installation())}${epochName(epoch)}/${name}`, body);
    },
    close: async () => undefined,
  };
}
