import type { TokenInfo } from '@bundoc/shared/contract/tokens';
import { useState } from 'preact/hooks';
import { Badge, Empty, Head, Loaded, Name, Table } from '../parts/basics.tsx';
import { Confirmation } from '../parts/dialogs.tsx';
import { Check } from '../parts/fields.tsx';
import { span, time, visible } from '../parts/format.ts';
import { Pager, usePages } from '../parts/pages.tsx';
import { useAction } from '../parts/use-action.ts';
import { useRequest } from '../parts/use-request.ts';
import { api, getJson, path } from '../shell/api.ts';
import { GRAVE, reachOf } from '../shell/scopes.ts';
import { nowMs, session } from '../shell/session.ts';
import { places } from './places.ts';

interface TokenPage {
  readonly tokens: readonly TokenInfo[];
  readonly damaged?: readonly string[];
  readonly next_cursor?: string;
}

const PAGE = 100;

/** The issued tokens that the session reaches, without the tokens themselves. */
export function TokensView() {
  const pages = usePages();
  const { cursor } = pages;
  const page = useRequest(`${cursor}`, (signal) =>
    getJson<TokenPage>('/tokens', { limit: PAGE, cursor }, signal),
  );
  const [revoking, setRevoking] = useState<TokenInfo>();
  return (
    <>
      <Head
        title="Tokens"
        lead="The tokens that this session may revoke. A token itself is shown only once, when it is issued."
        actions={
          <>
            <a class="button" href={places.inspect()}>
              Inspect a token
            </a>
            <a class="button primary" href={places.issue()}>
              Issue a token
            </a>
          </>
        }
      />
      <Loaded request={page} what="tokens">
        {({ tokens, damaged }) => (
          <>
            {damaged === undefined ? null : (
              <p class="fault" role="alert">
                These tokens contradict the audit chain, so their state is unknown:{' '}
                {damaged.map((id) => visible(id)).join(', ')}
              </p>
            )}
            {tokens.length === 0 ? (
              <Empty title="No tokens were issued" />
            ) : (
              <Table
                label="Tokens"
                heads={['Subject', 'For', 'May', 'Reach', 'Issued (UTC)', 'State', 'Action']}
              >
                {tokens.map((token) => (
                  <Row key={token.jti} token={token} onRevoke={() => setRevoking(token)} />
                ))}
              </Table>
            )}
          </>
        )}
      </Loaded>
      <Pager pages={pages} next={page.data?.next_cursor} />
      {revoking === undefined ? null : (
        <Revocation
          token={revoking}
          onEnd={() => {
            setRevoking(undefined);
            page.reload();
          }}
        />
      )}
    </>
  );
}

function Row({ token, onRevoke }: { readonly token: TokenInfo; readonly onRevoke: () => void }) {
  const leftMs = Date.parse(token.expires_at) - nowMs.value;
  const isOver = leftMs <= 0 || token.revoked_at !== undefined;
  const isOwn = token.jti === session.value?.claims.jti;
  return (
    <tr class={isOver ? 'over' : ''}>
      <th scope="row">
        <Name text={token.sub} max={40} />
        {isOwn ? <span class="muted"> (this session)</span> : null}
      </th>
      <td>
        {token.aud} <span class="muted">{token.typ}</span>
      </td>
      <td class="scopes">
        {token.scope.map((scope) => (
          <Badge key={scope} kind={GRAVE.has(scope) ? 'warn' : 'plain'}>
            {scope}
          </Badge>
        ))}
      </td>
      <td>
        <Name
          text={token.aud === 'bundoc' ? reachOf('project', token.projects) : reachOf('key', token.keys)}
          max={60}
        />
      </td>
      <td class="when">{time(token.issued_at)}</td>
      <td>
        {token.revoked_at !== undefined ? (
          <Badge kind="bad">revoked</Badge>
        ) : leftMs <= 0 ? (
          <Badge>over</Badge>
        ) : (
          <Badge kind="good">{span(leftMs)} left</Badge>
        )}
      </td>
      <td class="action">
        {isOver ? null : (
          <button
            type="button"
            class="small danger quiet"
            onClick={onRevoke}
            aria-label={`Revoke ${token.sub}`}
          >
            Revoke
          </button>
        )}
      </td>
    </tr>
  );
}

function Revocation({ token, onEnd }: { readonly token: TokenInfo; readonly onEnd: () => void }) {
  const [isCascade, setIsCascade] = useState(false);
  const { isBusy, error, run } = useAction();
  const revoke = () =>
    run(async () => {
      await api.send({
        method: 'DELETE',
        path: path('tokens', token.jti),
        query: { cascade: isCascade ? 'true' : undefined },
        isIdempotent: true,
      });
      onEnd();
    });
  return (
    <Confirmation
      title="Revoke this token?"
      cancel="Keep it"
      confirm="Revoke"
      isBusy={isBusy}
      error={error}
      onConfirm={() => void revoke()}
      onClose={onEnd}
    >
      <p>
        The token of <Name text={token.sub} /> and all its renewals are refused within a second.
      </p>
      <Check isChecked={isCascade} onChange={setIsCascade}>
        Also revoke all tokens that it has issued, directly or indirectly
      </Check>
    </Confirmation>
  );
}
