import { AppError, type AppErrorOptions } from '@bundoc/shared/contract/app-error';

/** The refusal of one write in a commit because of its content. */
export class RefusedWrite extends AppError {
  /** Its index in the commit. */
  readonly index: number;

  constructor(code: 'schema_violation' | 'unique_violation', index: number, options: AppErrorOptions) {
    super(code, options);
    this.index = index;
  }
}
