import { createReadStream } from 'node:fs';
import { CommandError } from './errors.ts';

/** Maximum length of a document, patch or condition, bytes. */
const BYTES_MAX = 33_554_432;

/**
 * Reads the text of a file, or of standard input for `-`, byte for byte.
 *
 * @throws CommandError when it is unreadable, too long, or not UTF-8.
 */
export async function readText(path: string): Promise<string> {
  if (path === '-' && process.stdin.isTTY)
    console.error('bundoc: reading standard input; end it with Ctrl-D on a line of its own');
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of path === '-' ? process.stdin : createReadStream(path)) {
      bytes += (chunk as Buffer).length;
      if (bytes > BYTES_MAX) throw new CommandError(`${nameOf(path)} is longer than any document`);
      chunks.push(chunk as Buffer);
    }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') throw new CommandError(`there is no file at ${path}`, { cause: error });
    if (code === 'EISDIR') throw new CommandError(`${path} is a folder`, { cause: error });
    throw error;
  }
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Buffer.concat(chunks));
  } catch (cause) {
    throw new CommandError(`${nameOf(path)} is not UTF-8`, { cause });
  }
}

function nameOf(path: string): string {
  return path === '-' ? 'standard input' : path;
}
