/**
 * Node's HTTP. An import of `node:http` reads each of its members, and one of them loads the whole client
 * behind `fetch`: a twentieth of the processor time of a start, and memory that no service uses.
 */
export const { createServer, request } = process.getBuiltinModule('node:http');
