import { isDeepStrictEqual } from 'node:util';
import type { ExampleRequest, Json, OpenapiReader, Operation } from './openapi.ts';

/** An example with one more query parameter or member of the body, and the fault that it has. */
export interface UnknownMember {
  readonly operation: Operation;
  readonly request: ExampleRequest;
  /** By what the document lists: one for each form of the body. */
  readonly faults: readonly { readonly path: string; readonly message: string }[];
}

const UNKNOWN = 'no_such_member';

/**
 * A request with an unknown query parameter for every operation that needs a token, and one with an unknown
 * member for every body whose members the document lists.
 */
export function unknownMembers(reader: OpenapiReader): UnknownMember[] {
  return (
    reader.operations
      // A scrape may have parameters of Prometheus, which name nothing in the answer. HEAD gets no body.
      .filter(({ method, operationId }) => method !== 'HEAD' && operationId !== 'metrics')
      .filter(({ security }) => security.length > 0)
      .flatMap((operation) => {
        const examples = reader.examplesOf(operation);
        const request = examples.find(({ status }) => status < 300) ?? examples[0];
        if (request === undefined) throw new Error(`${operation.operationId} has no example`);
        const forms = listedMembers(reader, operation);
        return [
          inQuery(operation, request),
          ...(forms.length === 0 ? [] : [inBody(operation, request, forms)]),
        ];
      })
  );
}

/** The operations with a body of any members, such as a document. */
export function freeBodies(reader: OpenapiReader): string[] {
  return reader.operations
    .filter(
      (operation) => operation.requestBody !== undefined && listedMembers(reader, operation).length === 0,
    )
    .map(({ operationId }) => operationId);
}

/** Whether an answer is a refusal that has the fault. */
export function isNamed({ faults }: UnknownMember, status: number, text: string): boolean {
  if (status !== 400) return false;
  const { errors = [] } = JSON.parse(text) as { readonly errors?: readonly object[] };
  return errors.some((error) => faults.some((fault) => isDeepStrictEqual(error, fault)));
}

function inQuery(operation: Operation, request: ExampleRequest): UnknownMember {
  const known = operation.parameters.filter((one) => one.in === 'query').map(({ name }) => name);
  const path = `${request.path}${request.path.includes('?') ? '&' : '?'}${UNKNOWN}=1`;
  return { operation, request: { ...request, path }, faults: [faultOf('query', known)] };
}

function inBody(
  operation: Operation,
  request: ExampleRequest,
  forms: readonly (readonly string[])[],
): UnknownMember {
  const body = { ...(request.body as object), [UNKNOWN]: 1 };
  return { operation, request: { ...request, body }, faults: forms.map((known) => faultOf('body', known)) };
}

function faultOf(path: string, known: readonly string[]): { path: string; message: string } {
  const which = known.length === 0 ? 'none is known' : `known are ${known.join(', ')}`;
  return { path, message: `${UNKNOWN}: unknown; ${which}` };
}

/** The members of each form of a JSON body; none when one of them takes any member. */
function listedMembers(reader: OpenapiReader, { requestBody }: Operation): string[][] {
  const schema = requestBody?.content['application/json']?.schema;
  if (schema === undefined) return [];
  const resolved = resolve(reader, schema);
  const forms = ((resolved['anyOf'] ?? [resolved]) as Json[]).map((form) => resolve(reader, form));
  if (forms.some((form) => form['additionalProperties'] !== false)) return [];
  return forms.map((form) => Object.keys(form['properties'] ?? {}));
}

function resolve(reader: OpenapiReader, schema: Json): Json {
  const { $ref } = schema;
  return typeof $ref === 'string' ? resolve(reader, reader.resolve($ref) as Json) : schema;
}
