import type { AuditRecord, AuditVerification } from '@bundoc/shared/contract/audit';
import { useState } from 'preact/hooks';
import { CopyLine, Fault, Name, StopButton } from '../parts/basics.tsx';
import { Field } from '../parts/fields.tsx';
import { count, plural, time, visible } from '../parts/format.ts';
import { type Receipt, readReceipt } from '../parts/receipt.ts';
import { useAction } from '../parts/use-action.ts';
import { api, getJson } from '../shell/api.ts';

export interface ChainHead {
  readonly seq: number;
  readonly hash: string;
}

/** The result of a verification, and the record of the receipt. */
interface Verdict {
  readonly answer: AuditVerification;
  readonly receipt: Receipt | undefined;
  readonly record: AuditRecord | undefined;
}

/** @param onChecked hears after each slice how many records were checked. */
async function verifyChain(
  receipt: Receipt | undefined,
  onChecked: (records: number) => void,
  signal: AbortSignal,
): Promise<Verdict> {
  let after: ChainHead | undefined;
  for (let done = 0; ; ) {
    const { text } = await api.send({
      method: 'POST',
      path: '/audit/verify',
      body: JSON.stringify({ after, receipt: receipt?.place, limit: 1_000 }),
      isIdempotent: true,
      signal,
    });
    const answer = JSON.parse(text) as AuditVerification;
    done += answer.checked;
    onChecked(done);
    if (!answer.intact || answer.complete) {
      const isHeld = answer.intact && receipt !== undefined;
      const record = isHeld ? await recordAt(receipt.place.seq, signal) : undefined;
      return { answer, receipt, record };
    }
    after = answer.head;
  }
}

/** Verifies the whole chain in slices, and that it contains the record of a receipt. */
export function Verification({ head }: { readonly head: ChainHead }) {
  const [text, setText] = useState('');
  const [checked, setChecked] = useState(0);
  const [verdict, setVerdict] = useState<Verdict>();
  const { isBusy, error, run, stop } = useAction();
  const receipt = readReceipt(text);
  const isWrong = text.trim() !== '' && receipt === undefined;
  const verify = () =>
    run(async (signal) => {
      setVerdict(undefined);
      setChecked(0);
      setVerdict(await verifyChain(receipt, setChecked, signal));
    });
  const own = `${head.seq}:${head.hash}`;
  return (
    <section class="panel verification" aria-labelledby="verify">
      <h2 id="verify">Verify the chain</h2>
      <form
        class="toolbar"
        onSubmit={(event) => {
          event.preventDefault();
          if (!isWrong && !isBusy) void verify();
        }}
      >
        <Field
          label="Receipt"
          hint={
            isWrong
              ? 'A receipt is a number, a colon and 64 hex digits, or the JSON from Bundoc.'
              : receipt?.project === undefined
                ? 'Optional: number:hash or its JSON. The chain must contain that record.'
                : 'The receipt of a shredded project.'
          }
        >
          {(attributes) => (
            <textarea
              {...attributes}
              class="mono wide"
              rows={2}
              autocomplete="off"
              spellcheck={false}
              placeholder="number:hash"
              aria-invalid={isWrong}
              value={text}
              onInput={(event) => {
                setText(event.currentTarget.value);
                setVerdict(undefined);
              }}
            />
          )}
        </Field>
        <button type="submit" class="primary" disabled={isWrong || isBusy}>
          {isBusy ? 'Verifying…' : 'Verify'}
        </button>
        <StopButton isBusy={isBusy} onStop={stop} />
      </form>
      {isBusy ? <progress max={Math.max(1, head.seq)} value={checked} aria-label="Records verified" /> : null}
      <Fault error={error} />
      {verdict === undefined ? null : <Found verdict={verdict} checked={checked} />}
      <details>
        <summary>A receipt for the present chain</summary>
        <CopyLine text={own} />
        <p class="hint">
          Keep it elsewhere. It can later prove that no earlier record was removed or changed.
        </p>
      </details>
    </section>
  );
}

async function recordAt(seq: number, signal: AbortSignal): Promise<AuditRecord | undefined> {
  const page = await getJson<{ records: AuditRecord[] }>('/audit', { cursor: seq - 1, limit: 1 }, signal);
  return page.records[0];
}

function Found({
  verdict: { answer, receipt, record },
  checked,
}: {
  readonly verdict: Verdict;
  readonly checked: number;
}) {
  if (!answer.intact)
    return (
      <p class="verdict bad" role="alert">
        Broken: record {count(answer.fault.seq)} is {answer.fault.reason}. The{' '}
        {plural(answer.checked, 'record')} before it in this part are intact.
      </p>
    );
  return (
    <div role="status">
      <p class="verdict good">
        Intact: {plural(checked, 'record')}
        {receipt === undefined ? '' : `, and record ${count(receipt.place.seq)} matches the receipt`}.
      </p>
      {record === undefined ? null : (
        <p>
          Record {count(record.seq)}: <code>{visible(record.action)}</code>
          {record.key === undefined ? null : (
            <>
              {' '}
              of <Name text={record.key} max={80} />
            </>
          )}
          , at {time(record.time)} UTC. {receipt === undefined ? '' : meaningOf(receipt, record)}
        </p>
      )}
    </div>
  );
}

/** What a record proves about the project of a receipt. */
function meaningOf({ project, key }: Receipt, record: AuditRecord): string {
  if (project === undefined) return '';
  // Anyone may have edited the text of a receipt, so the name of the key must match.
  const isOfProject = key === `${project}-dek` && record.key === key;
  if (record.action !== 'key.destroy' || record.outcome !== 'allowed' || !isOfProject)
    return `It does not show that project ${visible(project, 80)} was shredded.`;
  return `The key of project ${visible(project, 80)} is destroyed.`;
}
