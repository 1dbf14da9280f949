import { useState } from 'preact/hooks';
import { Badge, Name } from '../parts/basics.tsx';
import { Dialog } from '../parts/dialogs.tsx';
import { span, time, visible } from '../parts/format.ts';
import { GRAVE, meaningOf, reachOf } from './scopes.ts';
import type { Service } from './service.ts';
import { type Claims, nowMs, session, signOut } from './session.ts';
import { TokenCommand } from './token-command.tsx';

/** More than there are. An inspected text may name any number. */
const SCOPES_SHOWN = 40;

/** The rights of a token in plain words. */
export function Rights({ claims }: { readonly claims: Claims }) {
  const kind = claims.aud === 'bundoc' ? 'project' : 'key';
  return (
    <>
      <ul class="rights">
        {claims.scopes.slice(0, SCOPES_SHOWN).map((scope) => (
          <li key={scope}>
            <Badge kind={GRAVE.has(scope) ? 'warn' : 'plain'}>{visible(scope, 40)}</Badge>
            <span>{meaningOf(scope)}</span>
          </li>
        ))}
      </ul>
      <p>
        For <Name text={reachOf(kind, kind === 'project' ? claims.projects : claims.keys)} max={400} />.
        {claims.mayIssue ? ' It may issue tokens with fewer rights.' : ''}
      </p>
      <p class="muted">
        A {visible(claims.typ, 20)} token of <Name text={claims.sub} />, id{' '}
        <Name text={claims.jti} max={64} />, until {time(new Date(claims.expiresAtMs).toISOString())} UTC.
      </p>
    </>
  );
}

/** Shows the user and the remaining time; a click shows the rights of the token. */
export function TokenPanel({ service }: { readonly service: Service }) {
  const [isOpen, setIsOpen] = useState(false);
  const claims = session.value?.claims;
  if (claims === undefined) return null;
  const leftMs = claims.expiresAtMs - nowMs.value;
  return (
    <>
      <button type="button" class="token-chip" onClick={() => setIsOpen(true)} aria-haspopup="dialog">
        <Name text={claims.sub} max={24} />
        <span class={leftMs < 120_000 ? 'left soon' : 'left'}>{span(leftMs)}</span>
      </button>
      {isOpen ? (
        <Dialog title="What this token may do" onClose={() => setIsOpen(false)}>
          <Rights claims={claims} />
          <details>
            <summary>How do I get a token that may do more?</summary>
            <TokenCommand service={service} />
          </details>
          <div class="dialog-end">
            <button type="button" class="danger quiet" onClick={signOut}>
              Sign out
            </button>
            <button type="button" class="primary" onClick={() => setIsOpen(false)}>
              Close
            </button>
          </div>
        </Dialog>
      ) : null}
    </>
  );
}
