import { createServer } from 'node:net';
import { UserError } from './root.mjs';

/**
 * Fails with the name of the variable when a listener cannot use its address.
 * @param {readonly { prefix: string, host: string, port: number }[]} listeners
 */
export async function requireFreePorts(listeners) {
  for (const { prefix, host, port } of listeners) {
    const code = await tryToListen(host, port);
    if (code === 'EADDRINUSE')
      throw new UserError(
        `port ${port} of ${host} is in use (by another "npm start"?); stop what uses it or set ${prefix}PORT`,
      );
    if (code !== undefined)
      throw new UserError(`cannot listen on ${host}:${port} (${prefix}HOST, ${prefix}PORT): ${code}`);
  }
}

/** @returns {Promise<string | undefined>} the code of the error; undefined on success. */
function tryToListen(host, port) {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error) => resolve(error.code ?? error.message));
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve(undefined)));
  });
}
