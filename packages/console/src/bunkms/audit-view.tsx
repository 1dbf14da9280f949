import { Head, Loaded } from '../parts/basics.tsx';
import { useRequest } from '../parts/use-request.ts';
import { getJson } from '../shell/api.ts';
import { Timeline } from './audit-timeline.tsx';
import { type ChainHead, Verification } from './audit-verification.tsx';

/** What happened to keys, tokens and KEKs, the newest first; and whether the chain is as it was written. */
export function AuditView() {
  const head = useRequest('head', (signal) => getJson<ChainHead>('/audit/head', {}, signal));
  return (
    <>
      <Head
        title="Audit"
        lead="Each record holds the hash of the one before it, under a key that BunKMS alone has."
        actions={
          <button type="button" onClick={head.reload}>
            Reload
          </button>
        }
      />
      <Loaded request={head} what="the chain">
        {(data) => (
          <>
            <Verification head={data} />
            <Timeline head={data} />
          </>
        )}
      </Loaded>
    </>
  );
}
