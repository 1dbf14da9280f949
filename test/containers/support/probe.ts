/**
 * The result of a key request to one address: an HTTP status and body, or the reason why there was no answer.
 */
export interface Finding {
  readonly host: string;
  readonly port: number;
  readonly outcome: number | string;
  readonly body: string;
}

/**
 * A program for `node -e`. Over TLS, it requests a key from each `host:port` in turn, with a token that may
 * export it, and prints the results. It runs in a container that has only Node.
 */
const PROGRAM = `
  const { path, token, targets, pems } = JSON.parse(process.argv[1]);
  const { request } = require('node:https');
  // The test checks whether BunKMS accepts the prober, not whether the prober trusts BunKMS.
  const options = { agent: false, headers: { authorization: 'Bearer ' + token }, rejectUnauthorized: false, ...pems };
  const probe = ({ host, port }) => new Promise((resolve) => {
    const sent = request({ ...options, host, port, path, signal: AbortSignal.timeout(8000) }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (chunk) => { body += chunk; });
      response.on('end', () => resolve({ host, port, outcome: response.statusCode, body }));
    });
    sent.on('error', (error) => resolve({ host, port, outcome: error.code ?? error.name, body: '' }));
    sent.end();
  });
  Promise.all(targets.map(probe)).then((findings) => {
    console.log(JSON.stringify(findings));
    process.exit();
  });
`;

export interface ProbeRequest {
  readonly path: string;
  readonly token: string;
  /** The client's certificate; none when absent. */
  readonly pems?: { readonly cert: string; readonly key: string };
  readonly targets: readonly { readonly host: string; readonly port: number }[];
}

export function probeCommand(request: ProbeRequest): string[] {
  return ['node', '-e', PROGRAM, JSON.stringify(request)];
}

export function parseFindings(output: string): Finding[] {
  return JSON.parse(output) as Finding[];
}
