/** Files of what is selected: fetched, not linked, as a link cannot carry the key. */

import { call } from '../core/api.js';
import { selection } from '../core/costs.js';
import { h } from '../core/dom.js';
import { rangeText } from '../core/time.js';
import { menu } from './menu.js';

const FILES = [
  { key: 'csv', label: 'Costs by hour, CSV', params: { format: 'csv', bucket: '1h', group_by: ['gpu', 'model', 'tenant'] }, tenant: true },
  { key: 'parquet', label: 'Costs by hour, Parquet', params: { format: 'parquet', bucket: '1h', group_by: ['gpu', 'model', 'tenant'] }, tenant: true },
  { key: 'focus', label: 'FOCUS, CSV', params: { format: 'csv', layout: 'focus' } },
  { key: 'focus-parquet', label: 'FOCUS, Parquet', params: { format: 'parquet', layout: 'focus' } },
];
const OF_TENANT = ['model', 'tenant'];

/** A menu of the kinds of files. */
export function downloads(state, me) {
  const files = FILES.filter(({ tenant }) => tenant || !me?.tenant);
  return menu({ id: 'downloads', label: `Download ${rangeText(state)}`, summary: 'Download', align: 'right' },
    h('p', { class: 'hint' }, `${rangeText(state)}, ${state.zone}, with the filters in use. Money to the nano-dollar.`),
    h('ul', { class: 'options' }, files.map(({ key, label, params }) => h('li', null, h('button', { type: 'button', id: `download-${key}`,
      onclick: (event) => download(event.currentTarget, { ...selection(state), currency: state.params.get('currency'), ...params, ...(me?.tenant && params.group_by ? { group_by: OF_TENANT } : {}) },
        `gpu-tokens-${key.startsWith('focus') ? 'focus' : 'costs'}.${params.format}`) }, label)))));
}

/** Fetch a file and hand it to the reader. The button says what became of it. */
export async function download(button, params, name) {
  const label = button.textContent;
  button.disabled = true;
  try {
    const response = await call('export', params, { accept: params.format === 'parquet' ? 'application/vnd.apache.parquet' : 'text/csv' });
    const url = URL.createObjectURL(await response.blob());
    const link = h('a', { href: url, download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
    button.textContent = label;
  } catch (error) {
    button.textContent = `Failed: ${error.detail || error.message}`;
  } finally {
    button.disabled = false;
  }
}
