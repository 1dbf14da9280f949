import { z } from 'zod';
import { faultOfPath, PATH_LENGTH_MAX, pathOf } from '../values/path.ts';

/** Maximum number of paths in one selection of fields. */
export const FIELDS_MAX = 50;

/** The selected members of an object: each as a whole (`true`) or by a nested mask. Names are decoded. */
export type FieldMask = ReadonlyMap<string, FieldMask | true>;

/** A selection of fields, and its canonical spelling. */
export interface Fields {
  readonly mask: FieldMask;
  /** The paths in order, each once, without paths below another one. Cursors are bound to it. */
  readonly canonical: readonly string[];
}

/** `fields` of a query string: dotted paths, joined by commas. */
export const fieldsParameterSchema = z
  .string()
  .min(1, 'must name a field')
  .max(FIELDS_MAX * 64)
  .transform((text, context): Fields => {
    const fields = readFields(text.split(','));
    if (typeof fields !== 'string') return fields;
    context.addIssue({ code: 'custom', message: fields });
    return z.NEVER;
  })
  .meta({
    type: 'string',
    description: 'Dotted paths of members, joined by commas: the only ones that are given',
  });

/** Parses a selection of fields, or returns why it is invalid. */
export function readFields(paths: readonly string[]): Fields | string {
  if (paths.length > FIELDS_MAX) return `must be at most ${FIELDS_MAX} fields`;
  for (const path of paths) {
    const fault = path.length > PATH_LENGTH_MAX ? 'is too long' : faultOfPath(path);
    if (fault !== undefined) return fault;
  }
  const mask: MutableMask = new Map();
  for (const path of paths) choose(mask, pathOf(path));
  return { mask, canonical: pathsOf(mask, '').sort() };
}

type MutableMask = Map<string, MutableMask | true>;

function choose(mask: MutableMask, path: readonly string[]): void {
  const [name, ...rest] = path;
  if (name === undefined) return;
  const present = mask.get(name);
  if (present === true) return;
  if (rest.length === 0) {
    mask.set(name, true);
    return;
  }
  const inner: MutableMask = present ?? new Map();
  mask.set(name, inner);
  choose(inner, rest);
}

function pathsOf(mask: FieldMask, before: string): string[] {
  return [...mask].flatMap(([name, inner]) =>
    inner === true ? [`${before}${name}`] : pathsOf(inner, `${before}${name}.`),
  );
}
