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

/** Recorded refusals that the service's OpenAPI document does not name. */
export async function undocumentedErrors(baseUrl: string): Promise<string[]> {
  const { origin } = new URL(baseUrl);
  const refusals = seen.get(origin);
  seen.delete(origin);
  if (refusals === undefined) return [];
  const answer = await fetch(`${origin}/openapi.json`);
  const reader = new OpenapiReader((await answer.json()) as Record<string, unknown>);
  return [...refusals].filter((refusal) => {
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
