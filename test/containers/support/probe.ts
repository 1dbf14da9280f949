/** What came of asking one address for a key: an HTTP status and body, or the reason why there was no answer. */
export interface Finding {
  readonly host: string;
  readonly port: number;
  readonly outcome: number | string;
  readonly body: string;
}

/**
 * A program for `node -e`: asks `host:port`, each in turn, for a key, with a token that may have it, and prints what it
 * found. It runs in a container, where nothing but Node is.
 */
const PROGRAM = `
  const { path, token, targets } = JSON.parse(process.argv[1]);
  const probe = async ({ host, port }) => {
    try {
      const response = await fetch('http://' + host + ':' + port + path, {
        headers: { authorization: 'Bearer ' + token },
        signal: AbortSignal.timeout(3000),
      });
      return { host, port, outcome: response.status, body: await response.text() };
    } catch (error) {
      return { host, port, outcome: error.cause?.code ?? error.name, body: '' };
    }
  };
  Promise.all(targets.map(probe)).then((findings) => {
    console.log(JSON.stringify(findings));
    process.exit();
  });
`;

export interface ProbeRequest {
  readonly path: string;
  readonly token: string;
  readonly targets: readonly { readonly host: string; readonly port: number }[];
}

export function probeCommand(request: ProbeRequest): string[] {
  return ['node', '-e', PROGRAM, JSON.stringify(request)];
}

export function parseFindings(output: string): Finding[] {
  return JSON.parse(output) as Finding[];
}
