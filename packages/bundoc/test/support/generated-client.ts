import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import openapiTS, { astToString, type OpenAPI3 } from 'openapi-typescript';
import ts from 'typescript';

/** The folder where the program finds `openapi-fetch`. */
const MODULES = fileURLToPath(new URL('../../node_modules', import.meta.url));
const PROGRAM = fileURLToPath(new URL('generated-client-program.mts', import.meta.url));

/** Types that `openapi-typescript` generates from a document, with the names of its schemas. */
export async function typesOf(document: object): Promise<string> {
  const nodes = await openapiTS(document as OpenAPI3, { rootTypes: true, rootTypesNoSchemaPrefix: true });
  return astToString(nodes);
}

/** A program in a separate folder, with the types of the API that it uses. */
export class GeneratedClient implements Disposable {
  readonly #folder = mkdtempSync(join(MODULES, '.generated-client-'));

  /** @param change of the program's text. */
  constructor(types: string, change: (text: string) => string = (text) => text) {
    writeFileSync(join(this.#folder, 'bundoc-api.ts'), types);
    writeFileSync(join(this.#folder, 'package.json'), '{"type":"module"}');
    writeFileSync(join(this.#folder, 'program.mts'), change(readFileSync(PROGRAM, 'utf8')));
  }

  /** Compiles it with TypeScript 5. @returns the compiler's errors. */
  compile(): string[] {
    const program = ts.createProgram([join(this.#folder, 'program.mts')], {
      target: ts.ScriptTarget.ES2023,
      module: ts.ModuleKind.NodeNext,
      moduleResolution: ts.ModuleResolutionKind.NodeNext,
      strict: true,
      exactOptionalPropertyTypes: true,
      noUncheckedIndexedAccess: true,
      types: [],
      skipLibCheck: true,
      lib: ['lib.es2023.d.ts', 'lib.dom.d.ts', 'lib.dom.iterable.d.ts'],
    });
    const { diagnostics } = program.emit();
    return [...ts.getPreEmitDiagnostics(program), ...diagnostics].map(({ messageText }) =>
      ts.flattenDiagnosticMessageText(messageText, '\n'),
    );
  }

  /** Runs the compiled program. */
  async run(url: string, token: string): Promise<unknown> {
    const compiled = (await import(pathToFileURL(join(this.#folder, 'program.mjs')).href)) as {
      run: (url: string, token: string) => Promise<unknown>;
    };
    return compiled.run(url, token);
  }

  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true });
  }
}
