import type { IncomingMessage, Server, ServerResponse } from 'node:http';

const EXPECTED = Symbol('a 100 (Continue) that is not sent');

interface ExpectingRequest extends IncomingMessage {
  /** The client waits for a 100 (Continue) before it sends its body. */
  [EXPECTED]?: boolean;
}

/**
 * Sends 100 (Continue) when the server begins to read the body. So a client whose request is refused anyway
 * need not send the body (RFC 9110, section 10.1.1).
 */
export function continueWhenRead(server: Server): void {
  const begin = (request: IncomingMessage, response: ServerResponse): void => {
    server.emit('request', request, response);
  };
  server.on('checkContinue', (request: ExpectingRequest, response: ServerResponse) => {
    request[EXPECTED] = true;
    // Also comes when Node throws an unread body away, behind the answer.
    request.once('resume', () => {
      if (response.headersSent || response.destroyed) return;
      request[EXPECTED] = false;
      response.writeContinue();
    });
    begin(request, response);
  });
  // Node would answer an unknown expectation with a bare 417; RFC 9110, section 10.1.1, allows to ignore it.
  server.on('checkExpectation', begin);
}

/** Whether the client still waits for a 100 (Continue). An answer that comes first ends the connection. */
export function awaitsContinue(request: IncomingMessage): boolean {
  return (request as ExpectingRequest)[EXPECTED] === true;
}
