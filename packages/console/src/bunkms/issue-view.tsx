import { isForServices, SCOPES, type Scope, scopesOfKeys } from '@bundoc/shared/contract/scopes';
import type { IssuedToken } from '@bundoc/shared/contract/tokens';
import { useState } from 'preact/hooks';
import { Badge, Copy, Fault, Head } from '../parts/basics.tsx';
import { Check, SelectField, TextField } from '../parts/fields.tsx';
import { useAction } from '../parts/use-action.ts';
import { api } from '../shell/api.ts';
import { Crumbs } from '../shell/crumbs.tsx';
import { GRAVE, meaningOf, reachOf } from '../shell/scopes.ts';
import { type Claims, readToken } from '../shell/session.ts';
import { Rights } from '../shell/token-panel.tsx';
import { places } from './places.ts';

type Audience = 'bundoc' | 'bunkms';
type TokenType = 'client' | 'service';

const AUDIENCES = [
  ['bundoc', 'Bundoc: documents'],
  ['bunkms', 'BunKMS: keys'],
] as const;
const TYPES = [
  ['client', 'Client: 1 day at most'],
  ['service', 'Service or administrator'],
] as const;
const LIVES = [
  [600, '10 minutes'],
  [3_600, '1 hour'],
  [28_800, '8 hours'],
  [86_400, '1 day'],
  [2_592_000, '30 days'],
  [31_536_000, '1 year'],
] as const satisfies readonly (readonly [number, string])[];
const DAY_S = 86_400;
/** What is asked for. */
interface Wish {
  readonly audience: Audience;
  readonly type: TokenType;
  readonly sub: string;
  readonly scopes: readonly Scope[];
  /** Names of projects or keys, as they are typed. */
  readonly reach: string;
  readonly life: number;
}

const FIRST_WISH: Wish = {
  audience: 'bundoc',
  type: 'client',
  sub: '',
  scopes: ['docs:read'],
  reach: '',
  life: 3_600,
};

const kindOf = ({ audience }: Wish) => (audience === 'bundoc' ? 'project' : 'key');
const lifeOf = ({ type, life }: Wish) => (type === 'client' ? Math.min(life, DAY_S) : life);
const namesOf = ({ reach }: Wish) => reach.split(/[\s,]+/).filter((name) => name !== '');
const isFor = (type: TokenType) => (scope: Scope) => type === 'service' || !isForServices(scope);

async function issue(wish: Wish): Promise<IssuedToken> {
  const { sub, type: typ, scopes: scope } = wish;
  const reach = kindOf(wish) === 'project' ? { projects: namesOf(wish) } : { keys: namesOf(wish) };
  const { text } = await api.send({
    method: 'POST',
    path: '/tokens',
    body: JSON.stringify({ sub, typ, scope, ttl_s: lifeOf(wish), ...reach }),
    isIdempotent: false,
  });
  return JSON.parse(text) as IssuedToken;
}

/** Issues a token, and says in plain words what it will be able to do. */
export function IssueView() {
  const [wish, setWish] = useState(FIRST_WISH);
  const [issued, setIssued] = useState<IssuedToken>();
  const { isBusy, error, run } = useAction();
  const isComplete = wish.sub !== '' && wish.scopes.length > 0;
  if (issued !== undefined) return <Issued issued={issued} onAgain={() => setIssued(undefined)} />;
  return (
    <>
      <Crumbs steps={[{ name: 'Tokens', href: places.tokens() }]} />
      <Head title="Issue a token" lead="For one service, with few rights and a short life." />
      <form
        class="panel form"
        onSubmit={(event) => {
          event.preventDefault();
          if (isComplete && !isBusy) void run(async () => setIssued(await issue(wish)));
        }}
      >
        <WishFields wish={wish} onChange={(change) => setWish((before) => ({ ...before, ...change }))} />
        <Summary wish={wish} />
        <Fault error={error} />
        <button type="submit" class="primary" disabled={!isComplete || isBusy}>
          {isBusy ? 'Issuing…' : 'Issue'}
        </button>
      </form>
    </>
  );
}

function WishFields({
  wish,
  onChange,
}: {
  readonly wish: Wish;
  readonly onChange: (change: Partial<Wish>) => void;
}) {
  const { audience, type, sub, scopes, reach } = wish;
  const isOfProjects = kindOf(wish) === 'project';
  return (
    <>
      <div class="columns">
        <SelectField
          label="For"
          value={audience}
          choices={AUDIENCES}
          onChange={(next) => onChange({ audience: next, scopes: next === audience ? scopes : [] })}
        />
        <SelectField
          label="Held by"
          value={type}
          choices={TYPES}
          onChange={(next) => onChange({ type: next, scopes: scopes.filter(isFor(next)) })}
        />
        <TextField
          label="Subject"
          hint="Who it is, as the audit chain and logs name them."
          required
          pattern="[A-Za-z0-9][A-Za-z0-9._@:\-]{0,127}"
          value={sub}
          onInput={(next) => onChange({ sub: next })}
        />
        <SelectField
          label="Life"
          value={lifeOf(wish)}
          choices={LIVES.filter(([seconds]) => type === 'service' || seconds <= DAY_S)}
          onChange={(life) => onChange({ life })}
        />
      </div>
      <Scopes wish={wish} onChange={(next) => onChange({ scopes: next })} />
      <TextField
        label={isOfProjects ? 'Projects' : 'Keys'}
        hint={
          isOfProjects
            ? 'Ids separated by commas, or * for every project.'
            : 'Names separated by commas; * stands for any characters.'
        }
        value={reach}
        onInput={(next) => onChange({ reach: next })}
      />
    </>
  );
}

function Scopes({
  wish: { audience, type, scopes },
  onChange,
}: {
  readonly wish: Wish;
  readonly onChange: (scopes: readonly Scope[]) => void;
}) {
  const prefix = audience === 'bundoc' ? 'docs:' : 'kms:';
  // The form has no fields for what the tokens of an application may be for.
  const possible = SCOPES.filter(
    (scope) => scope.startsWith(prefix) && isFor(type)(scope) && scope !== 'kms:issue_client',
  );
  return (
    <fieldset>
      <legend>It may</legend>
      <div class="scope-grid">
        {possible.map((scope) => (
          <Check
            key={scope}
            isChecked={scopes.includes(scope)}
            onChange={(isChecked) =>
              onChange(isChecked ? [...scopes, scope] : scopes.filter((other) => other !== scope))
            }
          >
            <span>
              {meaningOf(scope)} <code>{scope}</code>
            </span>
          </Check>
        ))}
      </div>
      <p class="muted">
        What each scope allows, and which are for service tokens alone: <code>docs/scopes.md</code>.
      </p>
    </fieldset>
  );
}

function Summary({ wish }: { readonly wish: Wish }) {
  const { sub, scopes } = wish;
  return (
    <div class="summary" aria-live="polite">
      <p>
        <strong>{sub === '' ? 'Somebody' : sub}</strong> will be able, for{' '}
        {LIVES.find(([seconds]) => seconds === lifeOf(wish))?.[1]}, to do this for{' '}
        {reachOf(kindOf(wish), namesOf(wish))}:
      </p>
      <ul>
        {scopes.length === 0 ? <li class="muted">nothing yet</li> : null}
        {scopes.map((scope) => (
          <li key={scope}>
            {meaningOf(scope)} {GRAVE.has(scope) ? <Badge kind="warn">cannot be taken back</Badge> : null}
          </li>
        ))}
      </ul>
      {isWithoutKeys(wish) ? <p class="fault">It names no key, so it can use none.</p> : null}
    </div>
  );
}

function isWithoutKeys(wish: Wish): boolean {
  return kindOf(wish) === 'key' && namesOf(wish).length === 0 && scopesOfKeys(wish.scopes).length > 0;
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
