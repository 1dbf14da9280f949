import { globSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));

/** What needs no line break: an answer that goes elsewhere, headers, streams of lines, and metrics. */
const ENDS_ITSELF = /\$\([^)]*curl|[|>]|\s-(?:o|i|I)\b|-\w*N|\/metrics/;

/** The commands with curl that print an answer without a line break, so that the prompt would follow it. */
function unended(page: string): string[] {
  return [...page.matchAll(/^( *)```(?:sh|bash)\n([\s\S]*?)^\1```$/gm)].flatMap(([, , code = '']) =>
    code
      .replaceAll('\\\n', ' ')
      .split('\n')
      .map((line) =>
        line.replaceAll(/'[^'\n]*'|"[^"\n]*"/g, (quoted) => (quoted === "'\\n'" ? quoted : '""')),
      )
      .filter((line) => /\bcurl -/.test(line) && !line.includes("w '\\n'") && !ENDS_ITSELF.test(line)),
  );
}

it('each curl of the docs that prints an answer ends its line', () => {
  const pages = ['*.md', 'docs/**/*.md', 'packages/*/README.md'].flatMap((pattern) =>
    globSync(pattern, { cwd: root }),
  );
  expect(pages.length).toBeGreaterThan(40);
  const found = pages.flatMap((page) =>
    unended(readFileSync(`${root}${page}`, 'utf8')).map((line) => `${page}: ${line}`),
  );
  expect(found).toEqual([]);
});

it('finds a curl that leaves the prompt behind its answer, also over several lines', () => {
  const block = (code: string) => `\`\`\`sh\n${code}\n\`\`\`\n`;
  expect(unended(block('curl -s http://a -d \'{"a":1}\''))).toHaveLength(1);
  expect(unended(block('curl -s -X POST \\\n  http://a'))).toHaveLength(1);
  for (const ended of [
    "curl -sw '\\n' http://a",
    'A=$(curl -s http://a)',
    'curl -s http://a | node',
    'curl -sN http://a',
  ])
    expect(unended(block(ended))).toEqual([]);
});
