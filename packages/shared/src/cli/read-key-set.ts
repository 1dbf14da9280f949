import { type Jwks, jwksSchema } from '../contract/tokens.ts';
import { NotAToken } from './explain-token.ts';

/** The keys of a JSON Web Key Set, as BunKMS publishes it at `/.well-known/jwks.json`. @throws NotAToken */
export function readKeySet(text: string): Jwks {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new NotAToken('the key set is not JSON', { cause });
  }
  const keys = jwksSchema.safeParse(value);
  if (!keys.success) throw new NotAToken('the key set is not from BunKMS: save /.well-known/jwks.json');
  return keys.data;
}
