import { z } from 'zod';

/**
 * Where a list continues. Clients copy it from an answer to the next request. Its content is opaque to them.
 */
export interface Cursor {
  readonly position: number;
  /** Tombstones purged up to this position do not affect a reader that started after it. */
  readonly horizon?: number;
}

/** The kind of a cursor. A cursor of another kind is refused. */
export type CursorKind = 'changes';

const decodedSchema = z.tuple([
  z.literal(1),
  z.enum(['changes']),
  z.int().nonnegative(),
  z.int().nonnegative(),
]);

export function encodeCursor(kind: CursorKind, cursor: Cursor): string {
  return Buffer.from(JSON.stringify([1, kind, cursor.position, cursor.horizon ?? 0])).toString('base64url');
}

/** A cursor that {@link encodeCursor} made, of the same kind. */
export function cursorSchema(kind: CursorKind) {
  return z
    .string()
    .max(256)
    .transform((text, context): Cursor => {
      const decoded = decodedSchema.safeParse(parse(text));
      if (decoded.success && decoded.data[1] === kind)
        return { position: decoded.data[2], horizon: decoded.data[3] };
      context.addIssue({ code: 'custom', message: 'must be from an earlier answer' });
      return z.NEVER;
    });
}

function parse(text: string): unknown {
  try {
    return JSON.parse(Buffer.from(text, 'base64url').toString('utf8'));
  } catch {
    return undefined;
  }
}
