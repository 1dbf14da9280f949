import { describeWithPostgres } from '@bundoc/shared/testing/postgres-tests';
import { expect, it } from 'vitest';

describeWithPostgres('every test of the API, on PostgreSQL', () => {
  it('is run instead of this one', () => expect.fail('PostgreSQL is installed'));
});
