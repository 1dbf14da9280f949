import { readFileSync } from 'node:fs';

export const golden = (name: string) =>
  JSON.parse(readFileSync(new URL(`../golden/${name}.golden.json`, import.meta.url), 'utf8'));

export const hex = (text: string) => Buffer.from(text, 'hex');
