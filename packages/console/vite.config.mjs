import { resolve } from 'node:path';
import { defineConfig } from 'vite';

const client = resolve(import.meta.dirname, '..', 'client', 'src');
const page = (name) => resolve(import.meta.dirname, `${name}.html`);

// One bundle with a page for each service. Nothing is inlined, because the policy of the page (CONSOLE_CSP)
// has no exceptions.
export default defineConfig({
  root: import.meta.dirname,
  base: '/console/',
  publicDir: false,
  logLevel: 'warn',
  resolve: {
    // Use the sources of the client, because it may not be built.
    alias: [
      { find: /^@bundoc\/client$/, replacement: resolve(client, 'client.ts') },
      { find: /^@bundoc\/client\/(.+)$/, replacement: resolve(client, '$1.ts') },
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
