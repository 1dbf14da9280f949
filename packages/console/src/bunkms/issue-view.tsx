import type { IssuedToken } from '@bundoc/shared/contract/tokens';
import { useState } from 'preact/hooks';
import { Badge, Copy, Fault, Field, Head, TextField } from '../parts/basics.tsx';
import { useAction } from '../parts/use-action.ts';
import { api } from '../shell/api.ts';
import { Crumbs } from '../shell/crumbs.tsx';
import { GRAVE, reachOf, SCOPES } from '../shell/scopes.ts';
import { type Claims, readToken } from '../shell/session.ts';
import { Rights } from '../shell/token-panel.tsx';
import { places } from './places.ts';

type Audience = 'bundoc' | 'bunkms';

const LIVES = [
  ['10 minutes', 600],
  ['1 hour', 3_600],
  ['8 hours', 28_800],
  ['1 day', 86_400],
  ['30 days', 2_592_000],
  ['1 year', 31_536_000],
] as const;
const DAY_S = 86_400;
/** For service tokens alone. */
const OF_SERVICES: ReadonlySet<string> = new Set([
  'kms:export_key',
  'kms:admin',
  'docs:metrics',
  'kms:metrics',
]);

/** Issues a token, and says in plain words what it will be able to do. */
export function IssueView() {
  const [audience, setAudience] = useState<Audience>('bundoc');
  const [type, setType] = useState<'client' | 'service'>('client');
  const [sub, setSub] = useState('');
  const [scopes, setScopes] = useState<readonly string[]>(['docs:read']);
  const [reach, setReach] = useState('');
  const [life, setLife] = useState(3_600);
  const [issued, setIssued] = useState<IssuedToken>();
  const { isBusy, error, run } = useAction();
  const names = reach
    .split(/[\s,]+/)
    .map((name) => name.trim())
    .filter((name) => name !== '');
  const kind = audience === 'bundoc' ? 'project' : 'key';
  const ttl = type === 'client' ? Math.min(life, DAY_S) : life;
  const isComplete = sub !== '' && scopes.length > 0;
  const possible = Object.keys(SCOPES).filter(
    (scope) =>
      scope.startsWith(audience === 'bundoc' ? 'docs:' : 'kms:') &&
      (type === 'service' || !OF_SERVICES.has(scope)),
  );
  const choose = (nextAudience: Audience, nextType: 'client' | 'service') => {
    setAudience(nextAudience);
    setType(nextType);
    setScopes(
      nextAudience === audience
        ? scopes.filter((scope) => nextType === 'service' || !OF_SERVICES.has(scope))
        : [],
    );
  };
  const issue = () =>
    run(async () => {
      const { text } = await api.send({
        method: 'POST',
        path: '/tokens',
        body: JSON.stringify({
          sub,
          typ: type,
          scope: scopes,
          ttl_s: ttl,
          ...(kind === 'project' ? { projects: names } : { keys: names }),
        }),
        isIdempotent: false,
      });
      setIssued(JSON.parse(text) as IssuedToken);
    });
  if (issued !== undefined) return <Issued issued={issued} onAgain={() => setIssued(undefined)} />;
  return (
    <>
      <Crumbs steps={[{ name: 'Tokens', href: places.tokens() }]} />
      <Head title="Issue a token" lead="For one service, with few rights and a short life." />
      <form
        class="panel form"
        onSubmit={(event) => {
          event.preventDefault();
          if (isComplete && !isBusy) void issue();
        }}
      >
        <div class="columns">
          <Field label="For">
            {(attributes) => (
              <select
                {...attributes}
                value={audience}
                onChange={(event) => choose(event.currentTarget.value as Audience, type)}
              >
                <option value="bundoc">Bundoc: documents</option>
                <option value="bunkms">BunKMS: keys</option>
              </select>
            )}
          </Field>
          <Field label="Held by">
            {(attributes) => (
              <select
                {...attributes}
                value={type}
                onChange={(event) => choose(audience, event.currentTarget.value as 'client' | 'service')}
              >
                <option value="client">a client, for a day at most</option>
                <option value="service">a service or an administrator</option>
              </select>
            )}
          </Field>
          <Field label="Subject" hint="Who it is, as the audit chain and logs name them.">
            {(attributes) => (
              <input
                {...attributes}
                class="mono"
                autocomplete="off"
                spellcheck={false}
                required
                pattern="[A-Za-z0-9][A-Za-z0-9._@:\-]{0,127}"
                value={sub}
                onInput={(event) => setSub(event.currentTarget.value)}
              />
            )}
          </Field>
          <Field label="Life">
            {(attributes) => (
              <select
                {...attributes}
                value={ttl}
                onChange={(event) => setLife(Number(event.currentTarget.value))}
              >
                {LIVES.filter(([, seconds]) => type === 'service' || seconds <= DAY_S).map(
                  ([name, seconds]) => (
                    <option key={name} value={seconds}>
                      {name}
                    </option>
                  ),
                )}
              </select>
            )}
          </Field>
        </div>
        <fieldset>
          <legend>It may</legend>
          <div class="scope-grid">
            {possible.map((scope) => (
              <label key={scope} class="check">
                <input
                  type="checkbox"
                  checked={scopes.includes(scope)}
                  onChange={(event) =>
                    setScopes(
                      event.currentTarget.checked
                        ? [...scopes, scope]
                        : scopes.filter((other) => other !== scope),
                    )
                  }
                />
                <span>
                  {SCOPES[scope]} <code>{scope}</code>
                </span>
              </label>
            ))}
          </div>
        </fieldset>
        <TextField
          label={kind === 'project' ? 'Projects' : 'Keys'}
          hint={
            kind === 'project'
              ? 'Ids separated by commas, or * for every project.'
              : 'Names separated by commas; * stands for any characters.'
          }
          value={reach}
          onInput={setReach}
        />
        <div class="summary" aria-live="polite">
          <p>
            <strong>{sub === '' ? 'Somebody' : sub}</strong> will be able, for{' '}
            {LIVES.find(([, seconds]) => seconds === ttl)?.[0]}, to do this for {reachOf(kind, names)}:
          </p>
          <ul>
            {scopes.length === 0 ? <li class="muted">nothing yet</li> : null}
            {scopes.map((scope) => (
              <li key={scope}>
                {SCOPES[scope]} {GRAVE.has(scope) ? <Badge kind="warn">cannot be taken back</Badge> : null}
              </li>
            ))}
          </ul>
        </div>
        <Fault error={error} />
        <button type="submit" class="primary" disabled={!isComplete || isBusy}>
          {isBusy ? 'Issuing…' : 'Issue'}
        </button>
      </form>
    </>
  );
}

function Issued({ issued, onAgain }: { readonly issued: IssuedToken; readonly onAgain: () => void }) {
  const claims = readToken(issued.token) as Claims;
  return (
    <>
      <Crumbs steps={[{ name: 'Tokens', href: places.tokens() }]} />
      <Head title="Issued" lead="This is the only time that the token is shown. Copy it now." />
      <div class="panel">
        <pre class="command receipt">
          <code>{issued.token}</code>
        </pre>
        <div class="actions">
          <Copy text={issued.token} label="Copy the token" />
          <button type="button" class="small" onClick={onAgain}>
            Issue another
          </button>
        </div>
        <Rights claims={claims} />
      </div>
    </>
  );
}
