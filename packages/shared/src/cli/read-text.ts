import { createReadStream } from 'node:fs';
import { codeOf } from '../files/data-folder.ts';
import { CommandError } from './errors.ts';

/** Maximum length of a document, patch or condition. */
const LONGEST = { bytes: 33_554_432, what: 'document' };

/**
 * Reads the text of a file, or of standard input for `-`, byte for byte.
 *
 * @param longest maximum length, and what has it.
 * @throws CommandError when it is unreadable, too long, or not UTF-8.
 */
export async function readText(path: string, longest = LONGEST): Promise<string> {
  if (path === '-' && process.stdin.isTTY)
    console.error('reading standard input; end it with Ctrl-D on a line of its own');
  const name = path === '-' ? 'standard input' : path;
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of path === '-' ? process.stdin : createReadStream(path)) {
      bytes += (chunk as Buffer).length;
      if (bytes > longest.bytes) throw new CommandError(`${name} is longer than any ${longest.what}`);
      chunks.push(chunk as Buffer);
    }
  } catch (cause) {
    if (codeOf(cause) === 'ENOENT') throw new CommandError(`there is no file at ${path}`, { cause });
    if (codeOf(cause) === 'EISDIR') throw new CommandError(`${path} is a folder`, { cause });
    if (codeOf(cause) === 'EACCES') throw new CommandError(`${path} cannot be read`, { cause });
    throw cause;
  }
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Buffer.concat(chunks));
  } catch (cause) {
    throw new CommandError(`${name} is not UTF-8`, { cause });
  }
}
