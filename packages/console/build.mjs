// Builds the console into dist/: hashed files, each also compressed, and manifest.json, which lists them for
// the services. Does nothing when dist/ is already built from these sources.

import { createHash } from 'node:crypto';
import { existsSync, globSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { extname, join, relative } from 'node:path';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';
import { build } from 'vite';

const folder = import.meta.dirname;
const root = join(folder, '..', '..');
const dist = join(folder, 'dist');
const stamp = join(dist, 'sources');

const TYPES = {
  '.css': 'text/css; charset=utf-8',
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
};

/** A fingerprint of everything that affects the result of a build. */
function fingerprint() {
  const files = [
    ...globSync('packages/{console,client}/src/**/*', { cwd: root }),
    ...globSync('packages/shared/src/contract/*.ts', { cwd: root }),
    ...globSync('packages/console/*', { cwd: root }),
    'pnpm-lock.yaml',
  ];
  const hash = createHash('sha256');
  for (const file of files.sort()) {
    if (extname(file) === '') continue;
    hash
      .update(`${file}\0`)
      .update(readFileSync(join(root, file)))
      .update('\0');
  }
  return hash.digest('hex');
}

function* filesBelow(directory) {
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) yield* filesBelow(path);
    else yield path;
  }
}

/** Writes those compressed forms that are smaller. @returns the entry of the manifest. */
function compress(path) {
  const contentType = TYPES[extname(path)];
  if (contentType === undefined) throw new Error(`no content type is known for ${path}`);
  const content = readFileSync(path);
  const encodings = [];
  const add = (name, extension, compressed) => {
    if (compressed.length >= content.length) return;
    writeFileSync(`${path}${extension}`, compressed);
    encodings.push(name);
  };
  const params = {
    [constants.BROTLI_PARAM_QUALITY]: 11,
    [constants.BROTLI_PARAM_SIZE_HINT]: content.length,
  };
  add('br', '.br', brotliCompressSync(content, { params }));
  add('gzip', '.gz', gzipSync(content, { level: 9 }));
  return { path: relative(dist, path).replaceAll('\\', '/'), contentType, encodings };
}

const wanted = fingerprint();
if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== wanted) {
  rmSync(dist, { recursive: true, force: true });
  process.env.NODE_ENV = 'production';
  await build({ configFile: join(folder, 'vite.config.mjs') });
  const files = [...filesBelow(dist)].sort().map(compress);
  writeFileSync(join(dist, 'manifest.json'), `${JSON.stringify({ files }, null, 2)}\n`);
  writeFileSync(stamp, wanted);
}
