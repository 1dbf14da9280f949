import type { IncomingMessage, Server, ServerResponse } from 'node:http';

const EXPECTED = Symbol('expects a 100 (Continue)');

interface ExpectingRequest extends IncomingMessage {
  /** The client waits for a 100 (Continue) before it sends its body. */
  [EXPECTED]?: boolean;
}

/**
 * Sends 100 (Continue) only when the server begins to read the body. So a client whose request is refused
 * need not send the body (RFC 9110, section 10.1.1).
 */
export function continueWhenRead(server: Server): void {
  const begin = (request: IncomingMessage, response: ServerResponse): void => {
    server.emit('request', request, response);
  };
  server.on('checkContinue', (request: ExpectingRequest, response: ServerResponse) => {
    request[EXPECTED] = true;
    // Node also emits it when it discards an unread body after the answer.
    request.once('resume', () => {
      if (response.headersSent || response.destroyed) return;
      request[EXPECTED] = false;
      response.writeContinue();
    });
    begin(request, response);
  });
  // Node would answer an unknown expectation with a bare 417. RFC 9110, section 10.1.1, allows ignoring it.
  server.on('checkExpectation', begin);
}

/** Whether the client still waits for a 100 (Continue). A final answer before it ends the connection. */
export function awaitsContinue(request: IncomingMessage): boolean {
  return (request as ExpectingRequest)[EXPECTED] === true;
}
