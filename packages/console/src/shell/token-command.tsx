import { CopyLine } from '../parts/basics.tsx';
import type { Service } from './service.ts';

/** How to issue a token on the machine of the services. */
export function TokenCommand({ service }: { readonly service: Service }) {
  return (
    <>
      <p>Run this command in the folder of the repository, on the machine of the services:</p>
      <CopyLine text={service.tokenCommand} label="Copy the command" isReceipt={false} />
      <p class="muted">
        With Docker, use the same options after <code>docker compose exec bunkms bunkms token issue</code>.
      </p>
    </>
  );
}
