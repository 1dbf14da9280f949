import { Copy } from '../parts/basics.tsx';
import { visible } from '../parts/format.ts';
import { curlOf, requests, type SentRequest } from './api.ts';

/** Maximum characters of a body on the screen; the copy has all of it. */
const SHOWN = 2_000;

function statusOf({ status }: SentRequest): string {
  if (status === 0) return '…';
  return status === -1 ? 'none' : String(status);
}

/** The requests behind the present view, as commands that repeat them. */
export function RequestLog() {
  const all = requests.value;
  return (
    <details class="request-log">
      <summary>
        Requests
        {all[0] === undefined ? null : (
          <code class="latest">
            {all[0].method} {visible(all[0].target, 120)}
          </code>
        )}
      </summary>
      {all.length === 0 ? <p class="muted">None yet.</p> : null}
      <ol>
        {all.map((one) => {
          const command = curlOf(one);
          return (
            <li key={`${one.at}${one.method}${one.target}`}>
              <details>
                <summary>
                  <code>
                    <b class={one.status >= 400 || one.status === -1 ? 'bad' : ''}>{statusOf(one)}</b>{' '}
                    {one.method} {visible(one.target, 160)}
                  </code>
                  <span class="muted">{one.ms === undefined ? '' : `${one.ms} ms`}</span>
                </summary>
                <pre class="command">
                  <code>{command.length > SHOWN ? `${command.slice(0, SHOWN)}…` : command}</code>
                </pre>
                <Copy text={command} label="Copy as curl" />
              </details>
            </li>
          );
        })}
      </ol>
    </details>
  );
}
