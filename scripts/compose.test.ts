import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';

const read = (path: string) => readFileSync(new URL(`../${path}`, import.meta.url), 'utf8');

/** Variables that the image sets, or that need a mounted file. */
const NOT_OF_COMPOSE = [
  'BUNDOC_DATA_DIR',
  'BUNDOC_TLS_CERT_FILE',
  'BUNDOC_TLS_KEY_FILE',
  'BUNKMS_DATA_DIR',
  'BUNKMS_INTERNAL_PORT',
  'BUNKMS_KEK',
];

/** Every variable that the services read. */
const variables = [
  ...new Set(
    ['bundoc/src/config.ts', 'bundoc/src/engine/storage-config.ts', 'bunkms/src/config.ts'].flatMap(
      (path) =>
        // Only complete names: a message may mention a prefix.
        read(`packages/${path}`).match(/\b(BUNDOC|BUNKMS)_[A-Z_]*[A-Z]\b/g) ?? [],
    ),
  ),
];
const ofCompose = variables.filter((name) => !/^BUNKMS_(STORAGE$|POSTGRES)/.test(name));

it('the services have at most 59 variables: each needs a reason in docs/configuration.md', () => {
  expect(variables.length).toBeLessThanOrEqual(59);
});

it('the compose file sets or passes on every variable of the services', () => {
  const compose = read('docker-compose.yml');
  const isThere = (name: string) =>
    new RegExp(
      `^      ${name}: (\\$\\{${name}:-\\}|\\$\\{${name}:\\+/run/secrets/[a-z-]+\\}|[^$]+)$`,
      'm',
    ).test(compose) || compose.includes(`\${${name}:-80`);
  expect(ofCompose.length).toBeGreaterThan(40);
  expect(ofCompose.filter((name) => !isThere(name)).sort()).toEqual(NOT_OF_COMPOSE);
});

it('every variable of the services is documented', () => {
  const docs = read('docs/configuration.md');
  expect(variables.filter((name) => !docs.includes(`\`${name}\``))).toEqual([]);
});
