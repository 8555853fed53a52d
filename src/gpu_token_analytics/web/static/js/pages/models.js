/** Models: what each model's tokens cost. */

import { groupPage } from './groups.js';

export const { title, load, view, compares } = groupPage({
  dimension: 'model',
  title: 'Models',
  none: 'No model had a part in it',
  others: [{ key: 'tenant', label: '× Tenant' }, { key: 'gpu_name', label: '× GPU type' }, { key: 'host', label: '× Host' }],
});
