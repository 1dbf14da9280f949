/** A thread that runs one module after another, each as if the thread had been started with it. */
import { syncBuiltinESMExports } from 'node:module';
import threads, { type MessagePort, parentPort } from 'node:worker_threads';

/** What the thread runs next. */
export interface HostedRun {
  readonly url: string;
  readonly workerData: unknown;
  /** In place of `parentPort`. */
  readonly port: MessagePort;
}

const host = parentPort;
let run = 0;

host?.on('message', ({ url, workerData, port }: HostedRun) => {
  port.once('close', () => host.postMessage('free'));
  Object.assign(threads, { workerData, parentPort: port });
  syncBuiltinESMExports();
  // What the module imports stays loaded. The module itself is evaluated afresh. An error ends this thread.
  void import(`${url}?run=${++run}`);
});
