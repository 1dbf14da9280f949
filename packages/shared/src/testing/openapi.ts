import { createConfig, lintFromString } from '@redocly/openapi-core';
import { Validator } from '@seriousme/openapi-schema-validator';
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { PROBLEMS } from '../contract/problem.ts';
import { HEADER_FORMS } from '../openapi/answer-headers.ts';
import { misreadSchemas, withClosedObjects } from './openapi-rules.ts';

export type Json = Readonly<Record<string, unknown>>;

export interface Parameter {
  readonly name: string;
  readonly in: 'path' | 'query' | 'header';
  readonly required: boolean;
  readonly schema: Json;
  readonly examples?: Readonly<Record<string, { readonly value: unknown }>>;
}

/** An invalid request from the description of a route. */
interface RefusedRequest {
  readonly summary: string;
  readonly status: number;
  readonly params?: Readonly<Record<string, string>>;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: unknown;
  readonly contentType?: string;
}

type Content = Readonly<
  Record<string, { readonly schema: Json; readonly examples?: Record<string, { value: unknown }> }>
>;

/** An operation of a document, with its path and method. */
export interface Operation {
  readonly method: string;
  readonly path: string;
  readonly operationId: string;
  readonly security: readonly object[];
  readonly parameters: readonly Parameter[];
  readonly requestBody?: { readonly required: boolean; readonly content: Content };
  readonly responses: Readonly<Record<string, Json>>;
  readonly 'x-required-scopes'?: readonly string[];
  readonly 'x-example-status': Readonly<Record<string, number>>;
  readonly 'x-refused-requests'?: Readonly<Record<string, RefusedRequest>>;
}

/** A request with its expected result. */
export interface ExampleRequest {
  readonly name: string;
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: unknown;
  /** Of the body. */
  readonly contentType: string;
  readonly status: number;
}

export interface SeenAnswer {
  readonly status: number;
  /** By their names in lower case. */
  readonly headers: Readonly<Record<string, string | number | readonly string[] | undefined>>;
  readonly text: string;
}

/** A header of a response. */
interface ResponseHeader {
  readonly required?: boolean;
  readonly schema: Json;
}

/** An OpenAPI document as a client reads it. */
export class OpenapiReader {
  readonly document: Json;
  readonly operations: readonly Operation[];
  readonly #ajv: Ajv2020;

  constructor(document: Json) {
    this.document = document;
    this.#ajv = new Ajv2020({ strict: false, validateSchema: false, allErrors: true });
    addFormats.default(this.#ajv);
    this.#ajv.addSchema(withClosedObjects(document), 'document');
    this.operations = Object.entries(document['paths'] as Record<string, Record<string, object>>).flatMap(
      ([path, methods]) =>
        Object.entries(methods).map(([method, operation]) => ({
          ...(operation as Omit<Operation, 'method' | 'path'>),
          method: method.toUpperCase(),
          path,
        })),
    );
  }

  /**
   * All faults of the document itself, including violations of Redocly's recommended rules, and schemas that
   * generators of clients misread.
   */
  async faults(): Promise<string[]> {
    const verdict = await new Validator().validate(structuredClone(this.document));
    const faults = verdict.valid ? [] : [JSON.stringify(verdict.errors)];
    faults.push(...(await lintFaultsOf(this.document)), ...misreadSchemas(this.document));
    if (this.document['openapi'] !== '3.1.0') faults.push('it is not OpenAPI 3.1');
    for (const reference of JSON.stringify(this.document).matchAll(/"\$ref":"([^"]+)"/g))
      if (this.resolve(String(reference[1])) === undefined) faults.push(`${reference[1]} leads nowhere`);
    for (const operation of this.operations) {
      const names = this.examplesOf(operation);
      if (names.length === 0) faults.push(`${operation.operationId} has no example`);
      for (const fault of this.#faultsOf(operation)) faults.push(`${operation.operationId}: ${fault}`);
    }
    return faults;
  }

  /** The codes that an operation may refuse with, by status. */
  codesOf(operation: Operation, status: number): readonly string[] {
    const response = this.#response(operation, status);
    const content = response?.['content'] as Content | undefined;
    return Object.keys(content?.['application/problem+json']?.examples ?? {});
  }

  /** The requests from the examples, and the invalid ones. */
  examplesOf(operation: Operation): ExampleRequest[] {
    const refused = Object.entries(operation['x-refused-requests'] ?? {}).map(([name, request]) => {
      const { params = {}, query = {}, headers = {}, body, contentType, status } = request;
      const [type = 'application/json'] = Object.keys(operation.requestBody?.content ?? {});
      const path = `${pathOf(operation, params)}${queryOf(query)}`;
      return {
        name,
        method: operation.method,
        path,
        headers,
        body,
        contentType: contentType ?? type,
        status,
      };
    });
    return [...this.#validExamplesOf(operation), ...refused];
  }

  #validExamplesOf(operation: Operation): ExampleRequest[] {
    return Object.entries(operation['x-example-status']).map(([name, status]) => {
      const given = (place: Parameter['in']) =>
        operation.parameters.flatMap((parameter) => {
          const value = parameter.in === place ? parameter.examples?.[name]?.value : undefined;
          return value === undefined ? [] : [[parameter.name, String(value)] as const];
        });
      const contents = Object.entries(operation.requestBody?.content ?? {});
      const [contentType, content] =
        contents.find(([, { examples = {} }]) => examples[name] !== undefined) ?? [];
      return {
        name,
        method: operation.method,
        path: `${pathOf(operation, Object.fromEntries(given('path')))}${queryOf(Object.fromEntries(given('query')))}`,
        headers: Object.fromEntries(given('header')),
        body: content?.examples?.[name]?.value,
        contentType: contentType ?? 'application/json',
        status,
      };
    });
  }

  /**
   * The fault of an answer: an undocumented status, header, code, type, body or member of a body, a header
   * that is missing or has another form. An object whose schema allows further members may have them.
   */
  faultOf(operation: Operation, answer: SeenAnswer): string | undefined {
    const response = this.#response(operation, answer.status);
    if (response === undefined)
      return `status ${answer.status} is not documented: ${answer.text.slice(0, 300)}`;
    return this.#faultOfHeaders(response, answer) ?? this.#faultOfBody(operation, response, answer);
  }

  #faultOfHeaders(response: Json, { status, headers }: SeenAnswer): string | undefined {
    const documented = (response['headers'] ?? {}) as Readonly<Record<string, ResponseHeader>>;
    for (const name of Object.keys(HEADER_FORMS)) {
      const value = headers[name.toLowerCase()];
      const { required, schema } = documented[name] ?? {};
      if (value === undefined && required === true) return `${status} has no ${name}`;
      if (value === undefined) continue;
      if (schema === undefined) return `${status} has ${name}, which is not documented`;
      const typed = schema['type'] === 'integer' && /^\d+$/.test(String(value)) ? Number(value) : value;
      if (!this.#ajv.validate(schema, typed)) return `${status} has another form of ${name}: ${value}`;
    }
    return undefined;
  }

  #faultOfBody(operation: Operation, response: Json, answer: SeenAnswer): string | undefined {
    const content = response['content'] as Content | undefined;
    if (content === undefined || operation.method === 'HEAD')
      return answer.text === '' ? undefined : `${answer.status} has a body: ${answer.text.slice(0, 300)}`;
    const type = String(answer.headers['content-type'] ?? 'none').split(';', 1)[0] ?? 'none';
    if (content[type] === undefined) return `${answer.status} is ${type}, which is not documented`;
    if (!/[/+]json$/.test(type)) return undefined;
    const validate = this.#schema(operation, answer.status, type);
    return validate(JSON.parse(answer.text))
      ? undefined
      : `${answer.status} is not as documented: ${this.#ajv.errorsText(validate.errors)}: ${answer.text.slice(0, 300)}`;
  }

  *#faultsOf(operation: Operation): Iterable<string> {
    for (const status of Object.keys(operation.responses)) {
      const response = this.#response(operation, Number(status));
      const content = (response?.['content'] ?? {}) as Content;
      if (Number(status) >= 400 && content['application/problem+json'] === undefined && status !== '503')
        yield `${status} is no problem document`;
      for (const [type, { examples = {} }] of Object.entries(content)) {
        for (const [name, { value }] of Object.entries(examples)) {
          const validate = this.#schema(operation, Number(status), type);
          if (!validate(value))
            yield `example ${name} of ${status}: ${this.#ajv.errorsText(validate.errors)}`;
        }
        if (type === 'application/problem+json')
          for (const code of this.codesOf(operation, Number(status)))
            if (PROBLEMS[code as keyof typeof PROBLEMS]?.status !== Number(status))
              yield `${code} is no refusal of ${status}`;
      }
    }
    for (const [name, status] of Object.entries(operation['x-example-status']))
      if (operation.responses[status] === undefined)
        yield `example ${name} ends in ${status}, which is not documented`;
  }

  #schema(operation: Operation, status: number, type: string): ValidateFunction {
    const at = ['paths', operation.path, operation.method.toLowerCase(), 'responses', String(status)];
    const response = operation.responses[status] as { $ref?: string };
    const base = response.$ref ?? `#${pointer(at)}`;
    const validate = this.#ajv.getSchema(`document${base}${pointer(['content', type, 'schema'])}`);
    if (validate === undefined) throw new Error(`there is no schema of ${at.join(' ')}`);
    return validate as ValidateFunction;
  }

  #response(operation: Operation, status: number): Json | undefined {
    const response = operation.responses[status];
    const reference = response?.['$ref'];
    return typeof reference === 'string' ? (this.resolve(reference) as Json | undefined) : response;
  }

  /** The target of a `$ref`; undefined when it does not exist. */
  resolve(reference: string): unknown {
    let found: unknown = this.document;
    for (const token of reference.split('/').slice(1))
      found = (found as Json | undefined)?.[token.replaceAll('~1', '/').replaceAll('~0', '~')];
    return found;
  }
}

async function lintFaultsOf(document: Json): Promise<string[]> {
  const config = await createConfig({ extends: ['recommended'] });
  const source = JSON.stringify(document);
  const problems = await lintFromString({ source, config, absoluteRef: '/openapi.json' });
  return problems.map(({ ruleId, message, location: [at] }) => `${ruleId}: ${message} ${at?.pointer ?? ''}`);
}

function queryOf(query: Readonly<Record<string, string>>): string {
  const text = new URLSearchParams(query).toString();
  return text === '' ? '' : `?${text}`;
}

/** The path of an operation with percent-encoded parameters. Missing ones stay as templates. */
function pathOf(operation: Operation, params: Readonly<Record<string, string>>): string {
  return operation.path.replace(/\{(\w+)\}/g, (braces, name: string) => {
    const value = params[name];
    return value === undefined ? braces : encodeURIComponent(value);
  });
}

function pointer(tokens: readonly string[]): string {
  return tokens
    .map((token) => `/${encodeURIComponent(token.replaceAll('~', '~0').replaceAll('/', '~1'))}`)
    .join('');
}
