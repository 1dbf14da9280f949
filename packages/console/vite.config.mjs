import { resolve } from 'node:path';
import { defineConfig } from 'vite';

const client = resolve(import.meta.dirname, '..', 'client', 'src');
const shared = resolve(import.meta.dirname, '..', 'shared', 'src');
const page = (name) => resolve(import.meta.dirname, `${name}.html`);

// One bundle with a page for each service. Nothing is inlined, because the policy of the page (CONSOLE_CSP)
// has no exceptions.
export default defineConfig({
  root: import.meta.dirname,
  base: '/console/',
  publicDir: false,
  logLevel: 'warn',
  resolve: {
    // Use sources: the client may not be built, and the image has no link to the shared package here.
    alias: [
      { find: /^@bundoc\/client$/, replacement: resolve(client, 'client.ts') },
      { find: /^@bundoc\/client\/(.+)$/, replacement: resolve(client, '$1.ts') },
      { find: /^@bundoc\/shared\/((?:contract|json)\/.+)$/, replacement: resolve(shared, '$1.ts') },
    ],
  },
  // Regardless of NODE_ENV: a development build contains paths of the build machine.
  mode: 'production',
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact', development: false } },
  build: {
    target: 'es2024',
    outDir: 'dist',
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    rolldownOptions: { input: [page('bundoc'), page('bunkms')], checks: { pluginTimings: false } },
  },
});
