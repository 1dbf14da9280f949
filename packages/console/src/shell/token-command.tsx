import { CopyLine } from '../parts/basics.tsx';
import type { Service } from './service.ts';

/** How a token is made on the machine of the services. */
export function TokenCommand({ service }: { readonly service: Service }) {
  return (
    <>
      <CopyLine text={service.tokenCommand} label="Copy the command" isReceipt={false} />
      <p class="muted">
        With Docker: <code>docker compose exec bunkms bunkms token issue …</code> with the same options.
      </p>
    </>
  );
}
