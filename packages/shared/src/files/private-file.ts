import { randomBytes } from 'node:crypto';
import { link, open, readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { makeFolder } from './make-folder.ts';

/** The content of a file; chunks are written as they arrive. */
type Content = string | Uint8Array | AsyncIterable<Uint8Array>;

/**
 * Creates a file (mode 0600) that appears with its complete content or not at all. It is durable once this
 * resolves.
 *
 * @returns false, with nothing changed, when the file exists already, also when another process was faster.
 */
export async function createPrivateFile(path: string, content: Content): Promise<boolean> {
  const temporary = await writeTemporary(path, content);
  try {
    await link(temporary, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  } finally {
    await rm(temporary, { force: true });
  }
  await syncFolder(dirname(path));
  return true;
}

/** Creates or replaces a file (mode 0600) atomically. It is durable when this resolves. */
export function replacePrivateFile(path: string, content: Content): Promise<void> {
  return publishPrivateFile(path, content, async () => undefined);
}

/**
 * Like {@link replacePrivateFile}, once the complete and durable file was examined. The temporary file has
 * the name of `path` and more.
 *
 * @param examine reads the temporary file.
 * @throws what `examine` throws. Then nothing appears.
 */
export async function publishPrivateFile(
  path: string,
  content: Content,
  examine: (temporary: string) => Promise<void>,
): Promise<void> {
  const temporary = await writeTemporary(path, content);
  try {
    await examine(temporary);
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await syncFolder(dirname(path));
}

/**
 * Files that a write of `path` left beside it when its process was killed, with all or a part of the content.
 * The file of a write that runs now is among them.
 */
export async function leftoversOf(path: string): Promise<string[]> {
  const [folder, prefix] = [dirname(path), `${basename(path)}.`];
  const names = await readdir(folder);
  return names
    .filter((name) => name.startsWith(prefix) && /^[0-9a-f]{12}\.tmp$/.test(name.slice(prefix.length)))
    .map((name) => join(folder, name));
}

async function writeTemporary(path: string, content: Content): Promise<string> {
  makeFolder(dirname(path));
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  try {
    await using file = await open(temporary, 'wx', 0o600);
    await file.writeFile(content);
    await file.sync();
    return temporary;
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

async function syncFolder(path: string): Promise<void> {
  await using folder = await open(path, 'r');
  await folder.sync();
}
