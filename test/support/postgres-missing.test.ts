import { describeWithPostgres } from '@bundoc/shared/testing/postgres-tests';
import { expect, it } from 'vitest';

describeWithPostgres('every test of the API, on PostgreSQL', () => {
  it('runs instead of this test', () => expect.fail('PostgreSQL is installed'));
});
