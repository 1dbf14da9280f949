import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ProgramName } from '@bundoc/shared/testing/programs';
import { AwsKmsServer } from '../../packages/bunkms/test/support/aws-kms-server.ts';
import { MotoServer } from '../../packages/bunkms/test/support/moto-server.ts';
import { buildPkcs11js, startTpm } from '../../packages/bunkms/test/support/pkcs11/tokens.ts';
import { TransitServer } from '../../packages/bunkms/test/support/transit-server.ts';

/** What runs beside the commands of a page. */
interface Part {
  readonly programs: readonly ProgramName[];
  /** Starts it. `stack` ends it. @returns the variables that the page expects. */
  readonly start: (stack: AsyncDisposableStack) => Promise<Record<string, string>>;
}

/** By which npm reaches a registry, besides the settings of a user. */
const REGISTRY_VARIABLES = /^(?:npm_config_registry|NODE_EXTRA_CA_CERTS|SSL_CERT_FILE|(?:https?|no)_proxy)$/i;

/** Services and devices that pages need, and that they do not start themselves. */
export const PARTS: Readonly<Record<string, Part>> = {
  'docs/how-to/notes-service.md': {
    programs: ['registry'],
    start: async () => {
      const chosen = Object.entries(process.env).filter(([name]) => REGISTRY_VARIABLES.test(name));
      return Object.fromEntries(chosen.map(([name, value = '']) => [name, value]));
    },
  },
  'docs/how-to/seal-by-openbao.md': {
    programs: [],
    start: async (stack) => {
      const server = stack.use(await TransitServer.start());
      return { BAO_ADDR: server.url, BAO_TOKEN: server.newToken({ mayAdminister: true }) };
    },
  },
  'docs/how-to/seal-by-aws-kms.md': {
    programs: ['moto'],
    start: async (stack) => {
      const moto = stack.use(await MotoServer.start());
      const server = stack.use(await AwsKmsServer.start(moto));
      const { accessKeyId, secretAccessKey } = server.newCredential({ isTemporary: false });
      return {
        KMS: server.url,
        KEY_ARN: await moto.createKey(),
        ACCESS_KEY_ID: accessKeyId,
        SECRET_ACCESS_KEY: secretAccessKey,
      };
    },
  },
  'docs/how-to/seal-by-hsm.md': {
    programs: ['softhsm'],
    start: async () => {
      buildPkcs11js();
      return {};
    },
  },
  'docs/how-to/seal-by-tpm.md': {
    programs: ['tpm'],
    start: async (stack) => {
      buildPkcs11js();
      const folder = mkdtempSync(join(tmpdir(), 'bundoc-tpm-'));
      stack.defer(() => rmSync(folder, { recursive: true }));
      const { environment, stop } = await startTpm(folder);
      stack.defer(stop);
      return environment;
    },
  },
};
