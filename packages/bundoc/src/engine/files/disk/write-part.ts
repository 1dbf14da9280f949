import type { Place } from '../log/layout.ts';
import type { Log } from '../log/log.ts';
import type { PartSource, TakenPart } from '../log/log-api.ts';
import type { PartKeys } from '../log/part-seal.ts';

/** Writes an empty part of a closed project. @returns its place, once it is durable. */
export async function writePart(
  log: Log,
  of: { readonly handle: string; readonly project: string; readonly keys: PartKeys },
  part: Pick<TakenPart, 'kind' | 'keyVersion'>,
): Promise<Place> {
  const done = Promise.withResolvers<Place>();
  let isTaken = false;
  const source: PartSource = {
    ...of,
    makesRoom: part.kind === 'gone',
    nextBytes: 0,
    take: () => {
      if (isTaken) return undefined;
      isTaken = true;
      let at: Place;
      return {
        ...part,
        plaintext: [],
        commits: 0,
        durable: (place) => {
          at = place;
        },
        answer: () => done.resolve(at),
        refused: done.reject,
        unknown: done.reject,
      };
    },
    refuse: (error) => {
      if (part.kind !== 'gone' || error.code !== 'disk_full') done.reject(error);
    },
    fail: done.reject,
  };
  const attached = log.attach(source, undefined);
  try {
    attached.ready();
    return await done.promise;
  } finally {
    attached.detach();
  }
}
