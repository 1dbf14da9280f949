import { expect, it } from 'vitest';
import { TokenSource } from './token-source.ts';

it('A token function that never answers, or without a token, fails one request, and not those after it', async () => {
  const never = () => new Promise<string>(() => undefined);
  let provide: () => string | Promise<string> = never;
  const source = new TokenSource(() => provide(), Date.now, 20);
  await expect(source.current()).rejects.toThrow('the token function returned no token within 20 ms');
  provide = () => undefined as unknown as string;
  await expect(source.current()).rejects.toThrow(
    'the result of the token function: undefined is not a token',
  );
  provide = () => 'a';
  expect(await source.current()).toBe('a');
});
