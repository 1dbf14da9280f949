import type { Project } from '@bundoc/client';
import { BackupDamaged } from '../engine/port/errors.ts';
import { type BackupFacts, checkBackup } from '../operations/read-backup.ts';

/** Takes the pieces of a backup. It sees the end only of a valid one. */
export type TakeBackup = (pieces: AsyncIterable<Uint8Array>) => Promise<void>;

/**
 * Requests the backup of a project from a running service, checks it on the way, and passes it to `take`.
 *
 * @param onProgress called with the number of bytes.
 * @throws BundocError; BackupDamaged for anything but a complete backup of this project.
 */
export async function receiveBackup(
  project: Project,
  take: TakeBackup,
  { signal, onProgress }: { readonly signal: AbortSignal; readonly onProgress: (bytes: number) => void },
): Promise<BackupFacts> {
  const stream = await project.backup({ signal });
  const checked = Promise.withResolvers<BackupFacts>();
  checked.promise.catch(() => undefined);
  /** Feeds each piece to the check before yielding it. */
  async function* pieces(): AsyncGenerator<Uint8Array, void, void> {
    const toCheck = new TransformStream<Uint8Array, Uint8Array>();
    const writer = toCheck.writable.getWriter();
    const check = checkBackup(toCheck.readable, onProgress).then((facts) => {
      if (facts.head.project === project.id) return facts;
      throw new BackupDamaged('the service has sent the backup of another project');
    });
    check.then(checked.resolve, checked.reject);
    check.catch(() => writer.abort().catch(() => undefined));
    for await (const piece of received(stream, signal)) {
      await Promise.race([writer.write(piece), checked.promise]);
      yield piece;
    }
    await Promise.race([writer.close(), checked.promise]);
    await checked.promise;
  }
  await take(pieces());
  return await checked.promise;
}

/** @throws BackupDamaged when the answer breaks off. */
async function* received(
  stream: ReadableStream<Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, void> {
  try {
    yield* stream;
  } catch (cause) {
    signal.throwIfAborted();
    throw new BackupDamaged('the service has cut the backup short; its log says why', { cause });
  }
}
