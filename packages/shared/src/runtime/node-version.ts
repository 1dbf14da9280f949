/** The first release with everything that the services stand on; as in `engines` of the packages. */
const MAJOR_MIN = 24;

/**
 * Says why this Node cannot run the services; undefined when it can. To be asked before anything is loaded
 * that an older one does not have, whose own message would name a missing module and nothing to do about it.
 */
export function nodeFault(version: string = process.versions.node): string | undefined {
  if (Number.parseInt(version, 10) >= MAJOR_MIN) return undefined;
  return `Node.js ${MAJOR_MIN} or newer is needed, and this is ${version}`;
}
