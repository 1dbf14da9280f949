import { useState } from 'preact/hooks';
import { Dialog } from '../parts/dialogs.tsx';
import { Field } from '../parts/fields.tsx';
import type { Service } from './service.ts';
import { needsToken, readToken, signIn, signOut } from './session.ts';
import { TokenCommand } from './token-command.tsx';

/** A form for a token. It explains why a token is not usable. */
function TokenForm({ service, action }: { readonly service: Service; readonly action: string }) {
  const [text, setText] = useState('');
  const [fault, setFault] = useState<string>();
  const submit = () => {
    const token = text.trim();
    const claims = readToken(token);
    if (typeof claims === 'string') setFault(claims);
    else if (claims.aud !== service.audience) setFault(service.other);
    else if (claims.expiresAtMs <= Date.now()) setFault('This token has expired.');
    else signIn(token, claims);
  };
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
    >
      <Field label="Token" hint="It is kept only in the memory of this page.">
        {(attributes) => (
          <textarea
            {...attributes}
            class="mono token"
            rows={4}
            required
            spellcheck={false}
            autocomplete="off"
            autocapitalize="off"
            value={text}
            onInput={(event) => {
              setText(event.currentTarget.value);
              setFault(undefined);
            }}
            onKeyDown={(event) => {
              if (event.key !== 'Enter') return;
              event.preventDefault();
              submit();
            }}
          />
        )}
      </Field>
      {fault === undefined ? null : (
        <p class="fault" role="alert">
          {fault}
        </p>
      )}
      <button type="submit" class="primary">
        {action}
      </button>
    </form>
  );
}

export function SignIn({ service }: { readonly service: Service }) {
  return (
    <main class="sign-in" id="content">
      <span class="mark" aria-hidden="true" />
      <h1>{service.name}</h1>
      <p class="muted">{service.about[0]}</p>
      <div class="panel">
        <TokenForm service={service} action="Sign in" />
      </div>
      <details>
        <summary>How do I get a token?</summary>
        <TokenCommand service={service} />
      </details>
    </main>
  );
}

/** Asks for a new token in a dialog over the present view, which keeps its input. */
export function Renewal({ service }: { readonly service: Service }) {
  if (!needsToken.value) return null;
  return (
    <Dialog title="A new token is needed">
      <p>The token has expired or was revoked. Paste a new one to continue. Your input is kept.</p>
      <TokenForm service={service} action="Continue" />
      <button type="button" class="quiet" onClick={signOut}>
        Sign out and leave
      </button>
    </Dialog>
  );
}
