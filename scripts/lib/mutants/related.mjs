import { globSync, readFileSync } from 'node:fs';
import { posix } from 'node:path';

/** Type-only imports have no effect at run time. */
const TYPES = /^(?:import|export) type [^;]*;/gm;
const IMPORT = /(?:\bfrom|\bimport)\s*\(?\s*'([^']+)'/g;
const WORKER = /new URL\(\s*[`'](\.\.?\/[\w./-]+)/g;

/**
 * Finds the tests that import a file, directly or indirectly.
 * @param {string} root
 * @returns {(file: string) => string[]} the tests of a file, ordered by the number of imports in between. A
 * word that both paths have counts like an import less.
 */
export function relatedTests(root) {
  const files = globSync(['packages/*/{src,test}/**/*.ts', 'test/**/*.ts', 'scripts/**/*.ts'], { cwd: root });
  const importers = new Map(files.sort().map((file) => [file, []]));
  for (const file of files)
    for (const imported of importsOf(file, readFileSync(posix.join(root, file), 'utf8')))
      importers.get(imported)?.push(file);
  return (file) => {
    const distances = new Map([[file, 0]]);
    for (const [reached, distance] of distances)
      for (const importer of importers.get(reached) ?? [])
        if (!distances.has(importer)) distances.set(importer, distance + 1);
    const order = (test) => distances.get(test) - commonWords(file, test);
    return [...distances.keys()]
      .filter((one) => one.endsWith('.test.ts'))
      .sort((a, b) => order(a) - order(b));
  };
}

/** The files of the workspace that a source imports or starts as a worker. */
function importsOf(file, source) {
  const text = source.replace(TYPES, '');
  const specifiers = [...text.matchAll(IMPORT), ...text.matchAll(WORKER)].map(([, specifier]) => specifier);
  return specifiers.map((specifier) => {
    const [, name, path = 'client'] = /^@bundoc\/(\w+)(?:\/(.+))?$/.exec(specifier) ?? [];
    const found = name ? `packages/${name}/src/${path}` : posix.join(posix.dirname(file), specifier);
    return /\.\w+$/.test(found) ? found : `${found}.ts`;
  });
}

/** They say nothing of what a file is about. */
const COMMON = new Set(['packages', 'bundoc', 'bunkms', 'shared', 'client', 'src', 'test', 'ts']);
/** Enough letters to tell words apart: "queries" and "query" are alike. */
const STEM_LENGTH = 4;

/** Words that two paths share: `queries/search.ts` and `test/query.test.ts` share "quer". */
function commonWords(a, b) {
  return topicOf(a).intersection(topicOf(b)).size;
}

function topicOf(path) {
  const words = path.split(/\W+/).filter((word) => !COMMON.has(word));
  return new Set(words.map((word) => word.slice(0, STEM_LENGTH)));
}
