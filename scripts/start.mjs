// npm start: installs, builds and runs both services on this machine, in dev mode, in the foreground. Runs on
// any Node >= 18. The services themselves get the Node version that the project needs.
// npm start -- bunkms: BunKMS alone, for commands on the data folder of a stopped Bundoc.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { devSetup, initArguments } from './lib/dev-setup.mjs';
import { findNode } from './lib/node-runtime.mjs';
import { requireFreePorts } from './lib/ports.mjs';
import { root, runScript, UserError } from './lib/root.mjs';
import { mustRun, outputOf } from './lib/run.mjs';
import { presenter, startService } from './lib/service.mjs';
import { stopSignal } from './lib/stop-signals.mjs';
import { prepare } from './lib/workspace.mjs';

const READY_TIMEOUT_MS = 30_000;

/** `npm run debug`: the inspector port of each service. */
const INSPECTOR_PORTS = { bundoc: 9229, bunkms: 9230 };

const QUICK_START_TOKEN = [
  ...['--typ', 'client', '--sub', 'quick-start'],
  // The console shreds the project with docs:admin.
  ...['--scope', 'docs:read docs:write docs:admin', '--project', 'project-a'],
];

const ALONE = `
BunKMS runs alone: commands on Bundoc's data folder can get keys, such as npm run -s bundoc -- restore.
Ctrl-C stops it.
`;

const cli = join(root, 'packages', 'bunkms', 'dist', 'cli', 'main.js');

await runScript('npm start', async () => {
  /** @type {ReturnType<typeof startService>[]} */
  const services = [];
  const stop = stopSignal(() => {
    for (const service of services) service.kill();
  });
  // The reader of the logs has gone (`npm start | head`): stop in order, unlike after an uncaught EPIPE.
  process.stdout.on('error', () => process.kill(process.pid, 'SIGTERM'));

  const setup = devSetup(root, process.env);
  const [only] = process.argv.slice(2);
  try {
    if (only !== undefined && only !== 'bunkms')
      throw new UserError(`"${only}" is not understood: give nothing, or "bunkms" for BunKMS alone`);
    await requireFreePorts([setup.bundocApi, setup.kmsApi, setup.kmsInternal]);
    const node = await findNode(root, process.env);
    await prepare(root, node, 'run', stop);

    mkdirSync(setup.secretsDir, { recursive: true, mode: 0o700 });
    const environment = (own) => ({ ...own, PATH: node.env.PATH });
    const bunkmsEnv = environment(setup.bunkmsEnv);
    await mustRun(node.execPath, [cli, ...initArguments(setup)], { cwd: root, env: bunkmsEnv, signal: stop });

    const present = await presenter(root);
    const start = (name, env, readyUrl) => {
      const main = join(root, 'packages', name, 'dist', 'main.js');
      const service = startService(name, {
        execPath: node.execPath,
        args: process.env.INSPECT_SERVICES === '1' ? [`--inspect=127.0.0.1:${INSPECTOR_PORTS[name]}`] : [],
        main,
        cwd: root,
        env,
        readyUrl,
        present,
      });
      services.push(service);
      return service;
    };
    const stopped = new Promise((_, reject) => {
      const give = () => reject(stop.reason);
      if (stop.aborted) give();
      stop.addEventListener('abort', give);
    });
    // One after the other, so that Bundoc does not warn about a BunKMS that does not listen yet.
    await Promise.race([whenReady(start('bunkms', bunkmsEnv, `${setup.kmsApi.url}/ready`)), stopped]);
    const ready =
      only === undefined
        ? whenReady(start('bundoc', environment(setup.bundocEnv), `${setup.bundocApi.url}/ready`))
        : undefined;
    const failed = Promise.race(services.map((service) => service.ended)).then((outcome) => {
      throw endedByItself(outcome);
    });
    await Promise.race([ready, failed, stopped]);

    if (only !== undefined) {
      console.log(ALONE);
      await Promise.race([failed, stopped]);
    }
    const token = await outputOf(node.execPath, [cli, 'token', 'issue', ...QUICK_START_TOKEN], {
      cwd: root,
      env: bunkmsEnv,
    });
    if (token === undefined) throw new UserError('no token could be issued (see the error above)');
    console.log(welcome(setup, token));
    await Promise.race([failed, stopped]);
    return 0;
  } catch (error) {
    if (stop.aborted) return (await stopAll(services)) ? 0 : 1;
    await stopAll(services);
    throw error;
  }
});

/** Waits until a service is ready, with a timeout. */
async function whenReady(service) {
  const deadline = Date.now() + READY_TIMEOUT_MS;
  while (!(await service.ready())) {
    if (!service.running) throw endedByItself(await service.ended);
    if (Date.now() > deadline)
      throw new UserError(
        `${service.name} was not ready within ${READY_TIMEOUT_MS / 1000} s (see its log above)`,
      );
    await sleep(50);
  }
}

function endedByItself({ name, reason }) {
  return new UserError(`${name} exited unexpectedly: ${reason}`);
}

/** Stops Bundoc and BunKMS together. True when both stopped in order. */
async function stopAll(services) {
  const clean = await Promise.all(services.map((service) => service.stop()));
  return clean.every(Boolean);
}

function welcome(setup, token) {
  const documents = `${setup.bundocApi.url}/v1/projects/project-a/collections/notes/documents`;
  return `
Bundoc listens on ${setup.bundocApi.url}, BunKMS on ${setup.kmsApi.url}. Ctrl-C stops both.
Open ${setup.bundocApi.url}/ in a browser for Bundoc's console, and paste the token to sign in.
BunKMS's console is at ${setup.kmsApi.url}/. That page says how to get a token for it.
Store a document and read it back (the token is good for an hour):

TOKEN=${token}
curl -sSw '\\n' -X PUT ${documents}/hello -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{"text":"Hello, Bundoc"}'
curl -sSw '\\n' ${documents}/hello -H "Authorization: Bearer $TOKEN"

Another token: npm run -s token -- --typ client --sub app --scope "docs:read docs:write" --project project-a
`;
}
