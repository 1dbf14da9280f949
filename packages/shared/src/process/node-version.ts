/** The first release with everything that the services need; as in `engines` of the packages. */
const MAJOR_MIN = 24;

/**
 * Why this Node version cannot run the services; undefined when it can. Call it before loading anything that
 * older versions lack: their own message would only name a missing module.
 */
export function nodeFault(version: string = process.versions.node): string | undefined {
  if (Number.parseInt(version, 10) >= MAJOR_MIN) return undefined;
  return `Node.js ${MAJOR_MIN} or newer is needed, and this is ${version}`;
}
