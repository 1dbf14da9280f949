import { OpenapiReader } from '@bundoc/shared/testing/openapi';

/** The refusals of requests, by service. */
const seen = new Map<string, Set<string>>();

/** Records a refusal for {@link undocumentedErrors}. */
export function noteRefusal(baseUrl: string, method: string, path: string, text: string): void {
  let code: unknown;
  try {
    code = (JSON.parse(text) as { code?: unknown }).code;
  } catch {
    return;
  }
  if (typeof code !== 'string') return;
  const { origin } = new URL(baseUrl);
  const refusals = seen.get(origin) ?? new Set();
  seen.set(origin, refusals.add([method, path.split('?', 1)[0], code].join(' ')));
}

/** Of the first service that a file asks for: to build a document and to read it take 100 ms. */
let first: OpenapiReader | undefined;

/** Recorded refusals that the service's OpenAPI document does not name. */
export async function undocumentedErrors(baseUrl: string): Promise<string[]> {
  const { origin } = new URL(baseUrl);
  const refusals = seen.get(origin);
  seen.delete(origin);
  if (refusals === undefined) return [];
  first ??= await readerOf(origin);
  const unnamed = unnamedIn(first, [...refusals]);
  return unnamed.length === 0 ? [] : unnamedIn(await readerOf(origin), unnamed);
}

async function readerOf(origin: string): Promise<OpenapiReader> {
  const answer = await fetch(`${origin}/openapi.json`);
  return new OpenapiReader((await answer.json()) as Record<string, unknown>);
}

function unnamedIn(reader: OpenapiReader, refusals: readonly string[]): string[] {
  return refusals.filter((refusal) => {
    const [method = '', path = '', code = ''] = refusal.split(' ');
    const operation = reader.operations.find(
      (one) => one.method === method && patternOf(one.path).test(path),
    );
    if (operation === undefined) return false;
    const statuses = Object.keys(operation.responses).map(Number);
    return !statuses.some((status) => reader.codesOf(operation, status).includes(code));
  });
}

function patternOf(template: string): RegExp {
  return new RegExp(`^${template.replace(/\{[^}]+\}/g, '[^/]+')}$`);
}
