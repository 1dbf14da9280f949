import { AppError, type AppErrorOptions } from '@bundoc/shared/contract/app-error';

type RefusalCode = 'schema_violation' | 'unique_violation' | 'patch_inapplicable' | 'payload_too_large';

/** The refusal of one write in a commit because of its content, or of its document's. */
export class RefusedWrite extends AppError {
  /** Its index in the commit. */
  readonly index: number;

  constructor(code: RefusalCode, index: number, options: AppErrorOptions) {
    super(code, options);
    this.index = index;
  }
}
