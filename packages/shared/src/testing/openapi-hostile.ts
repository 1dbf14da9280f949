import fc from 'fast-check';

const HOSTILE_TEXTS = [
  ...['', ' ', '.', '..', '../..', '*', '%', '%00', '\0', '\u202e', '\ufeff', '\u212a', 'null', '__proto__'],
  ...['-1', '0', '1e9', '1.5', '99999999999999999999', 'NaN', "' OR 1=1 --", '<script>', 'a'.repeat(600)],
  ...[
    'ä'.repeat(300),
    '💥',
    'a,b',
    '"',
    '\\',
    '\r\n\t',
    'constructor',
    'hasOwnProperty',
    'W/"x"',
    'sha256:00',
  ],
];
/** Hostile texts. */
export const hostileText = fc.oneof(
  fc.constantFrom(...HOSTILE_TEXTS),
  fc.string({ unit: 'binary', maxLength: 40 }).map((text) => text.toWellFormed()),
);
/** Raw path segments, some with invalid percent-encoding. */
export const HOSTILE_SEGMENTS = [
  '',
  '.',
  '..',
  '%',
  '%zz',
  '%00',
  '%2e%2e',
  '%2F',
  '%c3%28',
  '%ff',
  '~',
  '!',
  ';a=b',
  '%25',
];

const nested = (depth: number) => `${'['.repeat(depth)}${']'.repeat(depth)}`;
const HOSTILE_BODIES = [
  ...[
    '',
    '{',
    '{}',
    '[]',
    'null',
    '0',
    '""',
    '{"a":1,"a":2}',
    '{"__proto__":{}}',
    '{"\\u005f\\u005fproto__":1}',
  ],
  ...[
    '\ufeff{}',
    '{"a":01}',
    '{"a":1e999}',
    `{"n":${'9'.repeat(400)}}`,
    '{"a":"\\ud800"}',
    '{"a":"\0"}',
    '{,}',
    "{'a':1}",
  ],
  ...[
    nested(99),
    nested(101),
    nested(20_000),
    `{"a":${nested(150)}}`,
    '{"constructor":{"prototype":{}}}',
    '{"items":[]}',
  ],
  ...[
    `{"items":[${'{},'.repeat(100)}{}]}`,
    `{"name":"${'a'.repeat(5_000)}"}`,
    '{"name":{}}',
    '{"_id":1}',
    '{"_rev":{}}',
  ],
].map((text) => Buffer.from(text));
/** Hostile bodies. */
export const hostileBody = fc.oneof(
  fc.constantFrom(
    ...HOSTILE_BODIES,
    Buffer.from([0xff, 0xfe, 0x7b, 0x7d]),
    Buffer.from([0x7b, 0xc3, 0x28, 0x7d]),
  ),
  fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
  fc.jsonValue({ maxDepth: 4 }).map((value) => Buffer.from(JSON.stringify(value))),
);

/** Content types that JSON routes refuse, or accept only in special forms. */
export const WRONG_TYPES = [
  'text/plain',
  'application/xml',
  'application/json; charset=latin1',
  'nonsense',
  'application/JSON',
];
