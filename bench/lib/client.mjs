// JSON requests over a few persistent connections, for loads that wrk cannot send.

import { Agent, request } from 'node:http';

/** Maximum recorded texts of failures. */
const KEPT_FAILURES = 5;

export class Client {
  #url;
  #token;
  #agent;
  /** Failed requests, by status or by the code of the error. */
  #failures = new Map();
  #texts = [];

  constructor(url, token, { connections = 64 } = {}) {
    this.#url = url;
    this.#token = token;
    this.#agent = new Agent({ keepAlive: true, maxSockets: connections });
  }

  /** Number of requests with an unexpected answer. */
  get errors() {
    return [...this.#failures.values()].reduce((sum, count) => sum + count, 0);
  }

  errorText() {
    if (this.errors === 0) return 'No request failed.';
    const counts = Array.from(this.#failures, ([kind, count]) => `${count} × ${kind}`);
    return `**Failed requests: ${counts.join(', ')}**, such as ${this.#texts.join('; ')}.`;
  }

  /** Sends a request. Counts failures and never throws. @returns the status and the text of the answer. */
  async send(method, path, body, expected = [200]) {
    try {
      const answer = await this.#request(method, path, body);
      if (!expected.includes(answer.status)) this.#failed(answer.status, `${method} ${path}: ${answer.text}`);
      return answer;
    } catch (error) {
      this.#failed(error.code ?? error.name, `${method} ${path}: ${error.message}`);
      return { status: 0, text: '' };
    }
  }

  close() {
    this.#agent.destroy();
  }

  #failed(kind, text) {
    this.#failures.set(kind, (this.#failures.get(kind) ?? 0) + 1);
    if (this.#texts.length < KEPT_FAILURES) this.#texts.push(text.slice(0, 300));
  }

  #request(method, path, body) {
    const text = body === undefined ? undefined : JSON.stringify(body);
    const headers = {
      authorization: `Bearer ${this.#token}`,
      ...(text === undefined
        ? {}
        : { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(text)) }),
    };
    return new Promise((resolve, reject) => {
      const sent = request(`${this.#url}${path}`, { method, headers, agent: this.#agent }, (response) => {
        const parts = [];
        response.on('data', (part) => parts.push(part));
        response.on('error', reject);
        response.on('end', () =>
          resolve({ status: response.statusCode, text: Buffer.concat(parts).toString() }),
        );
      });
      sent.on('error', reject);
      sent.end(text);
    });
  }
}
