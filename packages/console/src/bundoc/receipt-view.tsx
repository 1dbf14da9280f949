import { hasCode } from '@bundoc/client/error';
import { useState } from 'preact/hooks';
import { Badge, CopyLine, Fault, Figure, Head, Name } from '../parts/basics.tsx';
import { Field } from '../parts/fields.tsx';
import { count, time } from '../parts/format.ts';
import { type Receipt, readReceipt } from '../parts/receipt.ts';
import { useRequest } from '../parts/use-request.ts';
import { bundoc } from '../shell/api.ts';

/** Reads the receipt of a shredded project, and says how to verify it. */
export function ReceiptView() {
  const [text, setText] = useState('');
  const receipt = readReceipt(text);
  const isWrong = text.trim() !== '' && receipt?.project === undefined;
  return (
    <>
      <Head
        title="Receipt"
        lead="Proof that the key of a shredded project was destroyed. BunKMS verifies it."
      />
      <div class="panel form">
        <Field
          label="Receipt"
          hint={isWrong ? 'This is not the receipt JSON from Bundoc.' : 'The receipt JSON from Bundoc.'}
        >
          {(attributes) => (
            <textarea
              {...attributes}
              class="mono"
              rows={8}
              autocomplete="off"
              spellcheck={false}
              aria-invalid={isWrong}
              value={text}
              onInput={(event) => setText(event.currentTarget.value)}
            />
          )}
        </Field>
        <Field label="Or the file">
          {(attributes) => (
            <input
              {...attributes}
              type="file"
              accept=".json,application/json"
              onChange={(event) => {
                const [file] = event.currentTarget.files ?? [];
                // A receipt is short, so longer files cannot be one.
                void file?.slice(0, 65_536).text().then(setText);
              }}
            />
          )}
        </Field>
      </div>
      {receipt?.project === undefined ? null : (
        <Read key={`${receipt.project}${receipt.place.hash}`} receipt={receipt} project={receipt.project} />
      )}
    </>
  );
}

function Read({ receipt, project }: { readonly receipt: Receipt; readonly project: string }) {
  const { key, place, deletedAt } = receipt;
  const state = useRequest(project, async (signal) => {
    try {
      const page = await bundoc.projectsPage({ prefix: project, pageSize: 1, signal });
      return { isThere: page.projects.includes(project) };
    } catch (error) {
      if (hasCode(error, 'invalid_request')) return { isThere: false };
      throw error;
    }
  });
  const command = `${place.seq}:${place.hash}`;
  return (
    <section class="panel" aria-labelledby="read">
      <h2 id="read">
        Project <Name text={project} max={80} />
      </h2>
      <dl class="figures">
        <Figure name="Key">{key === undefined ? 'not named' : <Name text={key} max={80} />}</Figure>
        <Figure name="Shredded (UTC)">
          <span class="when">{deletedAt === undefined ? '–' : time(deletedAt)}</span>
        </Figure>
        <Figure name="Audit record">{count(place.seq)}</Figure>
        <Figure name="At this Bundoc">
          {state.data === undefined ? (
            '…'
          ) : state.data.isThere ? (
            <Badge kind="bad">still listed</Badge>
          ) : (
            <Badge kind="good">not listed</Badge>
          )}
        </Figure>
      </dl>
      <Fault error={state.error} retry={state.reload} />
      <p>
        To verify it, paste it into the audit view of BunKMS’s console, or give this to{' '}
        <code>bunkms audit verify --receipt</code>:
      </p>
      <CopyLine text={command} />
    </section>
  );
}
