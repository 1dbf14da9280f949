import { globSync } from 'node:fs';

/** Files with only texts for people or only types. */
const LEFT_OUT =
  /\.test\.ts$|\/testing\/|conformance|\.d\.ts$|\/openapi\/|-(?:text|help|docs)\.ts$|\/describe/;

/** The sources of the product, which are mutated. */
export function productFiles(root) {
  const files = globSync('packages/{bundoc,bunkms,client,shared}/src/**/*.ts', { cwd: root });
  return files.filter((file) => !LEFT_OUT.test(file)).sort();
}

/** All sources that may connect a test with the product. */
export function typeScriptFiles(root) {
  const files = globSync(['packages/*/{src,test}/**/*.ts', 'test/**/*.ts', 'scripts/**/*.ts'], { cwd: root });
  return files.sort();
}
