/** Tenants: what each tenant's requests cost. */

import { groupPage } from './groups.js';

export const { title, load, view } = groupPage({
  dimension: 'tenant',
  title: 'Tenants',
  none: 'No tenant had a part in it',
  others: [{ key: 'model', label: '× Model' }, { key: 'gpu_name', label: '× GPU type' }, { key: 'host', label: '× Host' }],
});
