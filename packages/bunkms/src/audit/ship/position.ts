import { open, readFile, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { parseJson } from '@bundoc/shared/json/parse-json';
import { z } from 'zod';
import { type ChainHead, GENESIS } from '../../records/chain.ts';

const positionSchema = z.strictObject({
  format: z.literal(2),
  target: z.string(),
  seq: z.int().nonnegative(),
  hash: z.string().regex(/^[0-9a-f]{64}$/),
  /** When the chain was last restored, milliseconds. */
  epoch: z.int().nonnegative(),
});

/** A place in the copy, with the epoch of the chain when it was copied. */
export interface CopiedPlace extends ChainHead {
  readonly epoch: number;
}

/** The position up to which the chain was copied to a target. */
export interface Position {
  /**
   * The last place that is known to be copied. It is the start of the chain for a new target, or when the
   * file is missing or unreadable.
   */
  read(): Promise<CopiedPlace>;
  /** Resolves once the place is durable. */
  write(place: CopiedPlace): Promise<void>;
}

/**
 * Keeps a position in a file (`docs/formats/shipped-audit.md`). It belongs to one target: another target gets
 * the chain from its start.
 */
export function positionFile(path: string, target: string): Position {
  return {
    read: async () => {
      const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return '';
        throw error;
      });
      const position = positionSchema.safeParse(parseJson(text));
      if (!position.success || position.data.target !== target) return { ...GENESIS, epoch: 0 };
      const { seq, hash, epoch } = position.data;
      return { seq, hash, epoch };
    },
    write: async ({ seq, hash, epoch }) => {
      const temporary = `${path}.new`;
      {
        await using file = await open(temporary, 'w', 0o600);
        await file.writeFile(`${JSON.stringify({ format: 2, target, seq, hash, epoch })}\n`);
        await file.sync();
      }
      await rename(temporary, path);
      await using folder = await open(dirname(path), 'r');
      await folder.sync();
    },
  };
}
