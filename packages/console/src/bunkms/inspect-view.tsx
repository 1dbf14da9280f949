import { useState } from 'preact/hooks';
import { Badge, Head } from '../parts/basics.tsx';
import { Field } from '../parts/fields.tsx';
import { span } from '../parts/format.ts';
import { Crumbs } from '../shell/crumbs.tsx';
import { mayAsService, nowMs, readToken } from '../shell/session.ts';
import { Rights } from '../shell/token-panel.tsx';
import { places } from './places.ts';

/** Explains what a token may do. It is read only in this page and never sent. */
export function InspectView() {
  const [text, setText] = useState('');
  const token = text.trim();
  const claims = token === '' ? undefined : readToken(token);
  return (
    <>
      {mayAsService('kms:admin') ? <Crumbs steps={[{ name: 'Tokens', href: places.tokens() }]} /> : null}
      <Head
        title="Inspect a token"
        lead="The token is read only in this page and never sent. Its signature is not checked."
      />
      <div class="panel form">
        <Field label="Token">
          {(attributes) => (
            <textarea
              {...attributes}
              class="mono token"
              rows={4}
              spellcheck={false}
              autocomplete="off"
              value={text}
              onInput={(event) => setText(event.currentTarget.value)}
            />
          )}
        </Field>
        {claims === undefined ? null : typeof claims === 'string' ? (
          <p class="fault" role="alert">
            {claims}
          </p>
        ) : (
          <>
            <p>
              A token for <strong>{claims.aud === 'bundoc' ? 'Bundoc' : 'BunKMS'}</strong>.{' '}
              {claims.expiresAtMs > nowMs.value ? (
                <Badge kind="good">{span(claims.expiresAtMs - nowMs.value)} left</Badge>
              ) : (
                <Badge kind="bad">expired</Badge>
              )}
            </p>
            <Rights claims={claims} />
          </>
        )}
      </div>
    </>
  );
}
