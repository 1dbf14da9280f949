import fc from 'fast-check';
import type { OpenapiReader, Operation, Parameter } from './openapi.ts';
import { HOSTILE_SEGMENTS, hostileBody, hostileText, WRONG_TYPES } from './openapi-hostile.ts';
import { valueAsIn } from './openapi-values.ts';

/** A request between documented and nonsense. */
export interface FuzzRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer | undefined;
  /** Which of the caller's tokens it has; mostly `good`. */
  readonly token: 'good' | 'none' | 'foreign' | 'garbage';
}

/** Requests for an operation: an example, a combination of valid parts, or one with nonsense parts. */
export function requestOf(reader: OpenapiReader, operation: Operation): fc.Arbitrary<FuzzRequest> {
  return fc.oneof(
    { weight: 2, arbitrary: fc.constantFrom(...examplesOf(reader, operation)) },
    { weight: 4, arbitrary: soundRequestOf(reader, operation) },
    { weight: 4, arbitrary: spoiltRequestOf(reader, operation) },
  );
}

/** The unchanged examples of an operation, and the first one without a valid token. */
export function examplesOf(reader: OpenapiReader, operation: Operation): FuzzRequest[] {
  const examples = validExamplesOf(reader, operation);
  const [first] = examples;
  if (first === undefined || operation.security.length === 0) return examples;
  return [...examples, { ...first, token: 'none' }, { ...first, token: 'garbage' }];
}

function validExamplesOf(reader: OpenapiReader, operation: Operation): FuzzRequest[] {
  return reader.examplesOf(operation).map(({ method, path, headers, body, contentType }) => ({
    method,
    path,
    token: 'good',
    headers: { ...headers, ...(body === undefined ? {} : { 'content-type': contentType }) },
    body: body === undefined ? undefined : Buffer.from(JSON.stringify(body)),
  }));
}

function soundRequestOf(reader: OpenapiReader, operation: Operation): fc.Arbitrary<FuzzRequest> {
  const sound = (parameter: Parameter) => soundValueOf(reader, parameter);
  return assembled(operation, {
    segments: allOf(operation, 'path', (parameter) => sound(parameter).map(encodePart)),
    query: someOf(operation, 'query', (parameter) => sound(parameter).map(encodePart)),
    headers: someOf(operation, 'header', (parameter) => sound(parameter).map(toHeader)),
    content: soundContentOf(reader, operation),
    more: fc.constant({}),
    token: fc.constant('good'),
  });
}

function spoiltRequestOf(reader: OpenapiReader, operation: Operation): fc.Arbitrary<FuzzRequest> {
  const any = (parameter: Parameter) =>
    fc.oneof(
      { weight: 6, arbitrary: soundValueOf(reader, parameter) },
      { weight: 1, arbitrary: hostileText },
    );
  const segment = (parameter: Parameter) =>
    fc.oneof(
      { weight: 12, arbitrary: any(parameter).map(encodePart) },
      { weight: 1, arbitrary: fc.constantFrom(...HOSTILE_SEGMENTS) },
    );
  return assembled(operation, {
    segments: allOf(operation, 'path', segment),
    query: someOf(operation, 'query', (parameter) => any(parameter).map(encodePart)),
    headers: someOf(operation, 'header', (parameter) => any(parameter).map(toHeader)),
    content: spoiltContentOf(reader, operation),
    more: fc.record(
      {
        query: fc.constantFrom('x=1', '__proto__=1', 'limit=1&limit=2', '=', '%=%', 'constructor'),
        headers: fc.constantFrom<Record<string, string>>(
          { 'content-encoding': 'gzip' },
          { expect: '100-continue' },
          { 'x-http-method-override': 'DELETE' },
          { accept: 'text/html' },
          { 'if-match': '*' },
          { 'if-none-match': '*' },
        ),
      },
      { requiredKeys: [] },
    ),
    token: fc.oneof(
      { weight: 6, arbitrary: fc.constant('good' as const) },
      { weight: 1, arbitrary: fc.constantFrom('none' as const, 'foreign' as const, 'garbage' as const) },
    ),
  });
}

type Texts = Readonly<Record<string, string>>;

interface Parts {
  readonly segments: fc.Arbitrary<Texts>;
  readonly query: fc.Arbitrary<Texts>;
  readonly headers: fc.Arbitrary<Texts>;
  readonly content: fc.Arbitrary<FuzzContent>;
  /** Query parameters and headers that no route expects. */
  readonly more: fc.Arbitrary<{ readonly query?: string; readonly headers?: Texts }>;
  readonly token: fc.Arbitrary<FuzzRequest['token']>;
}

function assembled(operation: Operation, parts: Parts): fc.Arbitrary<FuzzRequest> {
  return fc
    .tuple(parts.segments, parts.query, parts.headers, parts.content, parts.more, parts.token)
    .map(([segments, query, headers, content, more, token]) => {
      const path = operation.path.replace(/\{(\w+)\}/g, (_, name: string) => String(segments[name]));
      const pairs = Object.entries(query).map(([name, value]) => `${name}=${value}`);
      if (more.query !== undefined) pairs.push(more.query);
      return {
        method: operation.method,
        path: pairs.length === 0 ? path : `${path}?${pairs.join('&')}`,
        headers: { ...headers, ...more.headers, ...content.headers },
        body: content.body,
        token,
      };
    });
}

function soundValueOf(
  reader: OpenapiReader,
  { schema, examples: shown = {} }: Parameter,
): fc.Arbitrary<string> {
  const values = Object.values(shown).map(({ value }) => String(value));
  const made = { weight: 1, arbitrary: valueAsIn(reader, schema).map(String) };
  return values.length === 0
    ? made.arbitrary
    : fc.oneof({ weight: 2, arbitrary: fc.constantFrom(...values) }, made);
}

type ValuesOf = (parameter: Parameter) => fc.Arbitrary<string>;

function allOf({ parameters }: Operation, place: Parameter['in'], of: ValuesOf): fc.Arbitrary<Texts> {
  return fc.record(
    Object.fromEntries(
      parameters.flatMap((parameter) => (parameter.in === place ? [[parameter.name, of(parameter)]] : [])),
    ) as Record<string, fc.Arbitrary<string>>,
  );
}

/** All required parameters, and sometimes optional ones. */
function someOf({ parameters }: Operation, place: Parameter['in'], of: ValuesOf): fc.Arbitrary<Texts> {
  const given = parameters
    .filter((parameter) => parameter.in === place)
    .map((parameter) =>
      (parameter.required ? of(parameter) : fc.option(of(parameter), { freq: 1, nil: undefined })).map(
        (value) => (value === undefined ? {} : { [parameter.name]: value }),
      ),
    );
  return fc.tuple(...given).map((all) => Object.assign({}, ...all) as Texts);
}

function encodePart(text: string): string {
  return encodeURIComponent(text.toWellFormed());
}

/** A header value that Node lets a client send. */
function toHeader(text: string): string {
  return text.replace(/[^\t\x20-\x7e\x80-\xff]/g, '?');
}

interface FuzzContent {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer | undefined;
}

const NO_CONTENT = fc.constant<FuzzContent>({ headers: {}, body: undefined });

function soundContentOf(reader: OpenapiReader, { requestBody }: Operation): fc.Arbitrary<FuzzContent> {
  const contents = Object.entries(requestBody?.content ?? {}).map(
    ([type, { schema, examples: shown = {} }]) => {
      const values = Object.values(shown).map(({ value }) => value);
      const made = { weight: 3, arbitrary: valueAsIn(reader, schema) };
      const value = fc.oneof(
        ...(values.length === 0 ? [made] : [{ weight: 2, arbitrary: fc.constantFrom(...values) }, made]),
      );
      return value.map(
        (body): FuzzContent => ({
          headers: { 'content-type': type },
          body: Buffer.from(JSON.stringify(body)),
        }),
      );
    },
  );
  return contents.length === 0 ? NO_CONTENT : fc.oneof(...contents);
}

function spoiltContentOf(reader: OpenapiReader, operation: Operation): fc.Arbitrary<FuzzContent> {
  // Node sends a body with GET, but nobody reads it.
  if (operation.method === 'GET' || operation.method === 'HEAD') return NO_CONTENT;
  const sound = soundContentOf(reader, operation);
  const types = Object.keys(operation.requestBody?.content ?? {});
  const hostile = fc
    .tuple(hostileBody, fc.constantFrom(...types, ...types, 'application/json', ...WRONG_TYPES))
    .map(([body, type]): FuzzContent => ({ headers: { 'content-type': type }, body }));
  const cut = sound.map(({ headers, body }) => ({ headers, body: body?.subarray(0, body.length / 2) }));
  return fc.oneof({ weight: 4, arbitrary: sound }, { weight: 3, arbitrary: hostile }, cut, NO_CONTENT);
}
