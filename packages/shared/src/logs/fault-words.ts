import { type core, z } from 'zod';
import { describeUnknown } from './unknown-names.ts';

/** Messages of Zod for faults without a message in the schema: of requests, settings and options. */
export const WORDS: core.ParseContext<core.$ZodIssue> = { error: (issue) => wordsOf(issue) };

const KINDS: Readonly<Record<string, string>> = {
  string: 'a string',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'an array',
  object: 'an object',
  record: 'an object',
};

/** @returns undefined to keep Zod's own message. */
function wordsOf(issue: core.$ZodRawIssue): string | undefined {
  switch (issue.code) {
    case 'invalid_type': {
      if (issue.input === undefined) return 'is required';
      const kind = KINDS[issue.expected];
      return kind && `must be ${kind}`;
    }
    case 'too_small':
      return boundOf(issue.origin, 'least', issue.minimum, issue.inclusive);
    case 'too_big':
      return boundOf(issue.origin, 'most', issue.maximum, issue.inclusive);
    case 'invalid_value':
      return `must be ${oneOf(issue.values)}`;
    case 'unrecognized_keys':
      return describeUnknown(
        issue.keys,
        issue.inst instanceof z.ZodObject ? Object.keys(issue.inst.shape) : [],
      );
    case 'invalid_key':
      return issue.issues[0]?.message;
    case 'invalid_union':
      return Array.isArray(issue['options']) ? `must be ${oneOf(issue['options'])}` : undefined;
    default:
      return undefined;
  }
}

function boundOf(
  origin: string,
  side: 'least' | 'most',
  bound: number | bigint,
  isInclusive = true,
): string | undefined {
  const isNumber = origin === 'number' || origin === 'int';
  if (!isInclusive)
    return isNumber ? `must be ${side === 'least' ? 'more' : 'less'} than ${bound}` : undefined;
  const one = bound === 1 ? '' : 's';
  if (isNumber) return `must be at ${side} ${bound}`;
  if (origin === 'string') return `must have at ${side} ${bound} character${one}`;
  if (origin === 'array') return `must have at ${side} ${bound} element${one}`;
  return undefined;
}

function oneOf(values: readonly unknown[]): string {
  const texts = values.map((value) => JSON.stringify(value));
  return texts.length === 1 ? String(texts[0]) : `one of ${texts.join(', ')}`;
}
