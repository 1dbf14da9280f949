import { globSync } from 'node:fs';

/** Files whose code is text for people, or types alone. */
const LEFT_OUT =
  /\.test\.ts$|\/testing\/|conformance|\.d\.ts$|\/openapi\/|-(?:text|help|docs)\.ts$|\/describe/;

/** The product's sources, of which mutants are made. */
export function productFiles(root) {
  const files = globSync('packages/{bundoc,bunkms,client,shared}/src/**/*.ts', { cwd: root });
  return files.filter((file) => !LEFT_OUT.test(file)).sort();
}

/** All sources that can lie between a test and the product. */
export function typeScriptFiles(root) {
  const files = globSync(['packages/*/{src,test}/**/*.ts', 'test/**/*.ts', 'scripts/**/*.ts'], { cwd: root });
  return files.sort();
}
