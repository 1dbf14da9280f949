import { execFileSync } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { type ESTree, type ParseResult, parseSync, Visitor } from 'vite';
import { describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '..');
const PACKAGES = ['bundoc', 'bunkms', 'client', 'console', 'shared'];
/** The width that the formatter uses. */
const WIDTH = (JSON.parse(readFileSync(join(root, 'biome.json'), 'utf8')) as Biome).formatter.lineWidth;
interface Biome {
  readonly formatter: { readonly lineWidth: number };
}

/** A file with its text. */
interface Source {
  readonly path: string;
  readonly text: string;
}

function sourcesOf(pattern: string): readonly Source[] {
  const paths = globSync(pattern, { cwd: root, exclude: (path) => /(^|\/)(node_modules|dist)$/.test(path) });
  return paths.sort().map((path) => ({ path, text: readFileSync(join(root, path), 'utf8') }));
}

/** The imports of a source: paths from the root for files of this repository, names for packages. */
function importsOf({ path, text }: Source): string[] {
  const imports = text.matchAll(/(?:\bfrom\s+|\bimport\s*\(?\s*)['"]([^'"]+)['"]/g);
  return [...imports].map(([, name = '']) =>
    name.startsWith('.') ? normalize(join(dirname(path), name)) : name,
  );
}

/** Whether a file is a test, or only used by tests. */
const isTest = (path: string) => /\.test\.tsx?$|conformance|(^|\/)(test|testing)\//.test(path);

/** The package that a file or an import belongs to. */
function packageOf(path: string): string | undefined {
  return /^(?:packages|@bundoc)\/(\w+)(\/|$)/.exec(path)?.[1];
}

/** The engine that a file belongs to. */
function engineOf(path: string): string | undefined {
  return /^packages\/bundoc\/src\/engine\/(files|postgres)\//.exec(path)?.[1];
}

/** Whether a file may import an engine: the composition root and the commands. */
const composesEngines = (path: string) => /^packages\/bundoc\/src\/(app\.ts$|cli\/)/.test(path);

const LOG = 'packages/bundoc/src/engine/files/log/';
/** Packages and parts of shared that the log may import. */
const OF_THE_LOG =
  /^(node:|@bundoc\/shared\/(crypto\/aead|runtime\/clock|threads\/start-thread|files\/data-folder|contract\/app-error|crypto\/random|shares\/share-key)$)/;

/** The forbidden imports of a source, with a sentence for each. */
function forbiddenImports(source: Source): string[] {
  const { path } = source;
  const owner = engineOf(path);
  const why = (target: string): string | undefined => {
    const engine = engineOf(target);
    const others = [packageOf(path), packageOf(target)].toSorted().join();
    if (others === 'bundoc,bunkms') return 'the two services share no code but @bundoc/shared';
    if (isTest(path)) return undefined;
    if (isTest(target)) return 'the product does not import its tests';
    if (engine !== undefined && owner !== undefined && owner !== engine) return 'an engine knows no other';
    if (engine !== undefined && owner === undefined && !composesEngines(path))
      return 'only the composition root and the commands import an engine';
    if (path.startsWith(LOG) && !target.startsWith(LOG) && !OF_THE_LOG.test(target))
      return 'the log stands by itself';
    return undefined;
  };
  return importsOf(source).flatMap((target) => {
    const reason = why(target);
    return reason === undefined ? [] : [`${path} imports ${target}: ${reason}`];
  });
}

/** Folders that import each other directly or indirectly: for each circle, the imports that close it. */
function circlesOf(sources: readonly Source[]): string[][] {
  const known = new Set(sources.map(({ path }) => path));
  const edges = new Map<string, Map<string, string>>();
  for (const source of sources.filter(({ path }) => !isTest(path)))
    for (const target of importsOf(source)) {
      const [from, to] = [dirname(source.path), dirname(target)];
      if (!known.has(target) || isTest(target) || from === to) continue;
      const out = edges.get(from) ?? new Map<string, string>();
      edges.set(from, out.set(to, out.get(to) ?? `${source.path} -> ${target}`));
    }
  const circles: string[][] = [];
  const seen = new Set<string>();
  const visit = (folder: string, way: readonly string[], imports: readonly string[]): void => {
    const at = way.indexOf(folder);
    if (at >= 0) circles.push(imports.slice(at));
    if (at >= 0 || seen.has(folder)) return;
    for (const [to, by] of edges.get(folder) ?? []) visit(to, [...way, folder], [...imports, by]);
    seen.add(folder);
  };
  for (const folder of edges.keys()) visit(folder, [], []);
  return circles;
}

/** Exported types with the same name in several files of a package. */
function namesTwice(sources: readonly Source[]): string[] {
  const files = new Map<string, string[]>();
  for (const { path, text } of sources.filter(({ path }) => !isTest(path)))
    for (const [, name = ''] of text.matchAll(/^export (?:abstract )?(?:class|interface|type) (\w+)/gm))
      files.set(name, [...(files.get(name) ?? []), path]);
  return [...files].filter(([, in_]) => in_.length > 1).map(([name, in_]) => `${name}: ${in_.join(', ')}`);
}

/** Comment lines that exceed the width of the formatter. */
function longComments({ path, text }: Source): string[] {
  return text.split('\n').flatMap((line, at) => {
    const isLong = line.length > WIDTH && /^\s*(\/\/|\/?\*)/.test(line);
    // A directive must be one line, however long its reason.
    return isLong && !/biome-ignore|@ts-|https?:/.test(line) ? [`${path}:${at + 1}: ${line.length}`] : [];
  });
}

/** Lines of code of a class, without comments and blank lines. */
const CLASS_LINES_MAX = 200;
const CLASS_FIELDS_MAX = 15;
/** How a sentence of the comment above a large class begins. The rest of it is the reason. */
const REASON = 'One class, because ';
/** How many classes may have a reason. */
const REASONS_MAX = 10;

/** The comment right above a class, as one line. */
function docOf(start: number, text: string, comments: ParseResult['comments']): string {
  const above = comments.filter(({ end }) => end <= start).at(-1);
  const isDoc = above !== undefined && /^\s*(export\s+)?$/.test(text.slice(above.end, start));
  return isDoc ? above.value.replaceAll(/\s*\n\s*\*?\s*/g, ' ') : '';
}

/** The number of lines between two places that are neither blank nor only comment. */
function codeLines(text: string, { start, end }: ESTree.Class, comments: ParseResult['comments']): number {
  let code = '';
  let at = start;
  for (const comment of comments.filter((one) => one.start >= start && one.end <= end)) {
    code += text.slice(at, comment.start);
    at = comment.end;
  }
  return `${code}${text.slice(at, end)}`.split('\n').filter((line) => line.trim() !== '').length;
}

/**
 * The classes of a source that are large, or give a reason to be so. Fields count, because every method may
 * change each of them. Methods do not: many small ones are better than a few long ones.
 */
function largeClasses({ path, text }: Source): { readonly where: string; readonly fault: string }[] {
  const { program, comments } = parseSync(path, text);
  const found: { where: string; fault: string }[] = [];
  const visitClass = (node: ESTree.Class) => {
    const lines = codeLines(text, node, comments);
    const fields = node.body.body.filter(({ type }) => type === 'PropertyDefinition').length;
    const isLarge = lines > CLASS_LINES_MAX || fields > CLASS_FIELDS_MAX;
    const hasReason = docOf(node.start, text, comments).includes(REASON);
    const size = `${lines} lines of code and ${fields} fields`;
    const remark = isLarge ? 'is large without a reason' : 'needs no reason';
    const where = `${path}:${text.slice(0, node.start).split('\n').length}`;
    const fault = isLarge === hasReason ? '' : `${where}: a class of ${size} ${remark}`;
    if (isLarge || hasReason) found.push({ where, fault });
  };
  new Visitor({ ClassDeclaration: visitClass, ClassExpression: visitClass }).visit(program);
  return found;
}

const planted = (path: string, text: string): Source => ({ path: normalize(path), text });

describe('imports', () => {
  const sources = sourcesOf('packages/*/{src,test}/**/*.{ts,tsx}');

  it('of both engines and both services are checked', () => {
    for (const part of ['bundoc/src/engine/files', 'bundoc/src/engine/postgres', 'bunkms/src', 'shared/src'])
      expect(sources.filter(({ path }) => path.startsWith(`packages/${part}/`)).length).toBeGreaterThan(10);
  });

  it('respect the module boundaries', () => {
    expect(sources.flatMap(forbiddenImports)).toEqual([]);
  });

  it.each([
    ['engine/postgres/rows.ts', '../files/log/log.ts', 'an engine knows no other'],
    ['engine/files/store.ts', '../postgres/rows.ts', 'an engine knows no other'],
    ['service/queries.ts', '../engine/files/log/log.ts', 'only the composition root and the commands'],
    ['engine/port/port.ts', '../files/log/log.ts', 'only the composition root and the commands'],
    ['engine/files/log/log.ts', '../../../service/queries.ts', 'the log stands by itself'],
    ['engine/files/log/log.ts', 'fastify', 'the log stands by itself'],
    ['engine/files/log/log.ts', '../../../testing/simulated-disk.ts', 'does not import its tests'],
    ['engine/port/index-port.ts', './indexes/conformance.ts', 'does not import its tests'],
    ['http/guard.ts', '@bundoc/shared/testing/postgres', 'does not import its tests'],
    ['http/guard.ts', '@bundoc/bunkms/http/guard', 'the two services share no code'],
    ['http/guard.ts', '../../../bunkms/src/http/guard.ts', 'the two services share no code'],
    ['http/guard.test.ts', '../../../bunkms/src/http/guard.ts', 'the two services share no code'],
  ])('are reported when %s imports %s', (path, target, why) => {
    for (const text of [`import type { X } from '${target}';`, `const x = await import('${target}');`])
      expect(forbiddenImports(planted(`packages/bundoc/src/${path}`, text)).join('\n')).toContain(why);
  });

  it.each([
    ['app.ts', './engine/files/log/log.ts'],
    ['cli/verify.ts', '../engine/files/log/log.ts'],
    ['service/queries.test.ts', '../engine/files/log/log.ts'],
  ])('of an engine are allowed in %s: %s', (path, target) => {
    expect(forbiddenImports(planted(`packages/bundoc/src/${path}`, `import '${target}';`))).toEqual([]);
  });
});

describe('folders', () => {
  it.each(PACKAGES)('of %s have no circular imports', (name) => {
    expect(circlesOf(sourcesOf(`packages/${name}/src/**/*.{ts,tsx}`))).toEqual([]);
  });

  it('are reported when three of them form a circle', () => {
    const sources = [
      planted('src/a/one.ts', "import { x } from '../b/two.ts';"),
      planted('src/b/two.ts', "import type { X } from './inner.ts';\nexport { x } from './inner.ts';"),
      planted('src/b/inner.ts', "import type { X } from '../c/three.ts';"),
      planted('src/c/three.ts', "import { x } from '../a/one.ts';"),
    ];
    expect(circlesOf(sources)).toEqual([
      ['src/a/one.ts -> src/b/two.ts', 'src/b/inner.ts -> src/c/three.ts', 'src/c/three.ts -> src/a/one.ts'],
    ]);
    expect(circlesOf(sources.slice(0, 3))).toEqual([]);
  });
});

describe('exported types', () => {
  it.each(PACKAGES)('of %s have unique names', (name) => {
    expect(namesTwice(sourcesOf(`packages/${name}/src/**/*.{ts,tsx}`))).toEqual([]);
  });

  it('are reported when they share a name', () => {
    const sources = [
      planted('a.ts', 'export interface Reader {}'),
      planted('b.ts', 'export class Reader {}'),
    ];
    expect(namesTwice(sources)).toEqual(['Reader: a.ts, b.ts']);
  });
});

describe('comments', () => {
  it('have no line longer than the width of the formatter', () => {
    const sources = sourcesOf('{packages,test,bench,scripts}/**/*.{ts,tsx,mjs}');
    expect(sources.length).toBeGreaterThan(500);
    expect(sources.flatMap(longComments)).toEqual([]);
  });

  it('are reported when they are too long, whatever they begin with', () => {
    const tail = 'x'.repeat(WIDTH);
    for (const begin of ['// ', '  * ', '/** '])
      expect(longComments(planted('a.ts', `${begin}${tail}`))).toHaveLength(1);
    expect(longComments(planted('a.ts', `const a = '${tail}';`))).toEqual([]);
  });
});

describe('object literals', () => {
  it('have their members themselves: none spreads another literal', () => {
    const sources = sourcesOf('{packages,test,bench,scripts}/**/*.{ts,tsx,mjs}');
    const spread = sources.filter(({ text }) => /\.\.\.\{/.test(text)).map(({ path }) => path);
    expect(sources.length).toBeGreaterThan(500);
    expect(spread).toEqual([]);
  });
});

describe('classes', () => {
  it('are short, or one of few that say why they are not', () => {
    const sources = sourcesOf('packages/*/src/**/*.{ts,tsx}').filter(({ path }) => !isTest(path));
    expect(sources.length).toBeGreaterThan(500);
    const large = sources.flatMap(largeClasses);
    expect(large.flatMap(({ fault }) => (fault === '' ? [] : [fault]))).toEqual([]);
    expect(large.map(({ where }) => where).slice(REASONS_MAX)).toEqual([]);
  });

  const faultsOf = (body: string, doc = '') =>
    largeClasses(planted('a.ts', `${doc}export class A {\n${body}\n}`)).map(({ fault }) => fault);
  const fields = (count: number) => Array.from({ length: count }, (_, at) => `  readonly #m${at} = 1;`);
  const methods = (count: number) => Array.from({ length: count }, (_, at) => `  m${at}() {}`);

  it('are reported when they have too many fields, private ones counted', () => {
    expect(faultsOf(fields(16).join('\n'))).toEqual([
      'a.ts:1: a class of 18 lines of code and 16 fields is large without a reason',
    ]);
    expect(faultsOf([...fields(15), ...methods(20)].join('\n'))).toEqual([]);
  });

  it('are reported when they have too many lines of code, whatever their comments', () => {
    expect(faultsOf(methods(199).join('\n'))).toHaveLength(1);
    expect(faultsOf(methods(198).join('\n  // Why.\n\n  /**\n   * What.\n   */\n'))).toEqual([]);
  });

  it('give their reason in the comment right above, in the agreed words, and only when they are large', () => {
    const large = fields(16).join('\n');
    const reason = '/**\n * What it is.\n *\n * One class, because\n * it is.\n */\n';
    expect(faultsOf(large, reason)).toEqual(['']);
    expect(faultsOf(large, '/** One class, as it is. */\n')[0]).toContain('without a reason');
    expect(faultsOf(large, `${reason}const a = 1;\n`)[0]).toContain('without a reason');
    expect(faultsOf('', reason)[0]).toContain('needs no reason');
  });
});

it('only errors that end the process are logged as fatal', () => {
  const sources = sourcesOf('packages/*/src/**/*.ts').filter(({ path }) => !isTest(path));
  const callers = sources.filter(({ text }) => /\blogger\.fatal\(/.test(text)).map(({ path }) => path);
  expect(callers.sort()).toEqual([
    'packages/bundoc/src/engine/files/index.ts',
    'packages/bunkms/src/app.ts',
    'packages/shared/src/process/lifecycle.ts',
  ]);
});

it.each(['bundoc', 'bunkms', 'client', 'shared'])(
  'the build of %s contains no tests and nothing that only tests need',
  (name) => {
    const { dependencies = {} } = JSON.parse(
      readFileSync(join(root, 'packages', name, 'package.json'), 'utf8'),
    ) as { dependencies?: object };
    const tsc = join(root, 'node_modules/.bin/tsc');
    const listed = execFileSync(tsc, ['-p', join(root, 'packages', name), '--listFilesOnly'], {
      encoding: 'utf8',
    });
    const own = join(root, 'packages', name, 'src/');
    const paths = listed.split('\n').filter((path) => path.startsWith(own));
    expect(paths.length).toBeGreaterThan(10);
    expect(paths.filter((path) => isTest(path.slice(join(root, '/').length)))).toEqual([]);
    const imported = paths.flatMap((path) =>
      // Not the imports of an example in a comment.
      [
        ...readFileSync(path, 'utf8').matchAll(/^(?! *\*).*\bfrom '((?:@[^/']+\/)?[^./@'][^/']*)[^']*';$/gm),
      ].map(([, from]) => String(from)),
    );
    const needed = new Set(imported.filter((from) => !from.startsWith('node:')));
    expect([...needed].filter((from) => !Object.hasOwn(dependencies, from))).toEqual([]);
  },
);
