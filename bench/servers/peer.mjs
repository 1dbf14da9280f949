// The servers that Bundoc is compared with, one process each: `node peer.mjs bare|simple|postgres`. Prints
// its URL. They have Bundoc's routes, so that every server gets the same requests. They ignore the token.

import { randomUUID } from 'node:crypto';
import { createRequire } from 'node:module';

const [mode, place] = process.argv.slice(2);
const { default: Fastify } = createRequire(new URL('../../packages/bundoc/package.json', import.meta.url))(
  'fastify',
);
const documentsPath = '/v1/projects/:project/collections/:collection/documents';

const app = Fastify({ bodyLimit: 1_048_576 });
if (mode === 'bare') bare();
else {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser(
    ['application/json', 'application/merge-patch+json'],
    { parseAs: 'buffer' },
    (_request, body, done) => done(null, body),
  );
  const { openStore } = await import(mode === 'simple' ? './simple-store.mjs' : './postgres-store.mjs');
  serve(await openStore(place));
}
console.log(await app.listen({ host: '127.0.0.1', port: 0 }));
process.once('SIGTERM', () => process.exit(0));
process.once('disconnect', () => process.exit(0));

/** The upper bound: GET sends fixed bytes, POST parses its JSON and returns it. */
function bare() {
  const documents = { 1024: undefined, 16384: undefined };
  for (const bytes of Object.keys(documents)) documents[bytes] = Buffer.alloc(Number(bytes), 0x20);
  for (const document of Object.values(documents)) document.write('{}');
  app.get('/', async () => ({ hello: 'world' }));
  app.get(`${documentsPath}/:id`, async (request, reply) =>
    reply
      .header('content-type', 'application/json; charset=utf-8')
      .send(documents[request.params.project.startsWith('p16-') ? 16384 : 1024]),
  );
  app.post(documentsPath, async (request) => request.body);
  // The same size as a page of Bundoc.
  const pages = new Map();
  app.get(documentsPath, async (request, reply) => {
    const { bytes } = request.query;
    if (!pages.has(bytes)) pages.set(bytes, Buffer.alloc(Number(bytes), 0x20).fill('{}', 0, 2));
    return reply.header('content-type', 'application/json; charset=utf-8').send(pages.get(bytes));
  });
}

function serve(store) {
  app.post(documentsPath, async (request, reply) => {
    const id = randomUUID();
    await store.put({ ...request.params, id }, request.body);
    return reply.code(201).send({ _id: id });
  });
  app.put(`${documentsPath}/:id`, async (request) => {
    await store.put(request.params, request.body);
    return { _id: request.params.id };
  });
  app.patch(`${documentsPath}/:id`, async (request) => {
    const patch = JSON.parse(request.body);
    await store.patch(request.params, (text) =>
      Buffer.from(JSON.stringify({ ...JSON.parse(text), ...patch })),
    );
    return { _id: request.params.id };
  });
  app.post('/fill', async (request) => {
    const { count, text } = JSON.parse(request.body);
    await store.fill(count, text);
    return {};
  });
  app.post(documentsPath.replace('/documents', '/query'), async (request, reply) => {
    const { where, limit } = JSON.parse(request.body);
    const found = await store.range(where.n.$gte, limit);
    return reply
      .header('content-type', 'application/json; charset=utf-8')
      .send(`{"documents":[${found.join(',')}]}`);
  });
  app.get(`${documentsPath}/:id`, async (request, reply) => {
    const document = await store.get(request.params);
    if (document === undefined) return reply.code(404).send();
    return reply.header('content-type', 'application/json; charset=utf-8').send(document);
  });
}
