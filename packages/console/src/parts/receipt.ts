/** The place of an audit record, and the subject of its receipt. */
export interface Receipt {
  readonly place: { readonly seq: number; readonly hash: string };
  /** Absent for a receipt that is only a place. */
  readonly project: string | undefined;
  readonly key: string | undefined;
  readonly deletedAt: string | undefined;
}

const PLACE = /^(\d{1,15}):([0-9a-f]{64})$/;
const HASH = /^[0-9a-f]{64}$/;

/**
 * Parses a pasted receipt: `seq:hash`, or the JSON of a shredded project, a destroyed key, or a place.
 *
 * @returns undefined for any other text.
 */
export function readReceipt(text: string): Receipt | undefined {
  const match = PLACE.exec(text.trim());
  if (match !== null)
    return {
      place: { seq: Number(match[1]), hash: match[2] ?? '' },
      project: undefined,
      key: undefined,
      deletedAt: undefined,
    };
  try {
    const value = JSON.parse(text) as Record<string, unknown>;
    const destroyed = (value['key'] ?? value) as Record<string, unknown>;
    const { seq, hash } = (destroyed['audit'] ?? destroyed) as Record<string, unknown>;
    if (!Number.isSafeInteger(seq) || Number(seq) < 1) return undefined;
    if (typeof hash !== 'string' || !HASH.test(hash)) return undefined;
    return {
      place: { seq: Number(seq), hash },
      project: textOf(value['project']),
      key: textOf(destroyed['name']),
      deletedAt: textOf(value['deleted_at']),
    };
  } catch {
    return undefined;
  }
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}
