import { randomUUID } from 'node:crypto';
import { expect, it } from 'vitest';
import { encodeCatalogHead, parseCatalogHead } from './catalog-head.ts';
import { KEY_VERSIONS_MAX } from './keys.ts';
import { type ProjectFile, projectFileSchema } from './project-file.ts';

/** Header, longest name, largest wrapped share, sealed DEK and tag: docs/formats/wrapped-key.md. */
const WRAPPED_BYTES = 21 + 64 + 386 + 60 + 16;
const base64 = (bytes: number) => Buffer.alloc(bytes, 255).toString('base64');

/** The largest `project.json` that Bundoc can write. */
function largestProjectFile(): ProjectFile {
  const project = 'p'.repeat(63);
  const numbers = Array.from({ length: KEY_VERSIONS_MAX }, (_, index) => index + 1);
  return projectFileSchema.parse({
    format: 1,
    project,
    createdAt: '2026-01-01T00:00:00.000Z',
    key: { name: `${project}-dek`, id: randomUUID() },
    versions: numbers.map((version) => ({
      version,
      kcv: 'f'.repeat(32),
      wrapped: base64(WRAPPED_BYTES),
      // Others may have sealed under the first version alone.
      ...(version === 1 ? { adopted: true } : {}),
      takenOver: { storage: randomUUID(), ms: Number.MAX_SAFE_INTEGER },
    })),
    nameKey: numbers.map((version) => ({ version, sealed: base64(60) })),
  });
}

it('a catalog takes a copy of project.json with 1,000 versions under outside keys with the largest wrapped shares', () => {
  const projectFile = Buffer.from(`${JSON.stringify(largestProjectFile(), null, 2)}\n`);
  const head = {
    keyVersion: KEY_VERSIONS_MAX,
    id: Buffer.alloc(16, 1),
    handle: '0123456789abcdef',
    covered: undefined,
    documents: 1,
    bytes: 1,
    projectFile,
  };
  expect(parseCatalogHead(encodeCatalogHead(head))).toMatchObject({ projectFile });
});
