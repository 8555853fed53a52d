/** Exchange rates: what a USD is worth, since when, and the form that says it. */

import { h } from '../core/dom.js';
import { fromInput, iso, moment } from '../core/time.js';
import { card } from './feedback.js';
import { bookForm, field, text } from './form.js';
import { table } from './table.js';

/** `onStored()` runs after a row was stored. */
export function ratesCard(state, rates, admin, onStored) {
  const columns = [
    { key: 'currency', label: 'Currency', value: (row) => row.currency, cell: (row) => row.currency },
    { key: 'units', label: 'Units per USD', number: true, value: (row) => Number(row.units_per_usd), cell: (row) => row.units_per_usd },
    { key: 'from', label: 'From', value: (row) => row.valid_from, cell: (row) => (Date.parse(row.valid_from) <= 0 ? 'the beginning' : moment(Date.parse(row.valid_from), state.zone)) },
    { key: 'source', label: 'Added', value: (row) => row.created_at, cell: (row) => [moment(Date.parse(row.created_at), state.zone), h('span', { class: 'under' }, `by ${row.source}`)] },
  ];
  return card('Exchange rates', { id: 'rates', hint: 'The ledger counts in USD. With a rate, every page can show its money in that currency, at the rate at the end of its range; files have each hour at the rate that held then.' },
    rates.length === 0 ? h('p', null, 'No rate is said yet.') : table({ id: 'rate-rows', caption: 'Exchange rates', columns, rows: rates, sort: { param: 'rates', params: state.params, initial: 'from.desc' } }),
    admin ? rateForm(state.zone, onStored) : null);
}

function rateForm(zone, onStored) {
  return bookForm({
    id: 'rate-form', route: 'rates', onStored,
    rows: [[
      field('Currency', text('rate-currency', 'currency', { required: true, pattern: '[A-Z]{3}', maxlength: '3', placeholder: 'EUR' })),
      field('Units per USD', text('rate-units', 'units_per_usd', { required: true, inputmode: 'decimal', pattern: '\\d{1,6}(\\.\\d{1,9})?', placeholder: '0.92' })),
      field(`From (${zone}, optional)`, h('input', { id: 'rate-from', name: 'from', type: 'datetime-local', step: '3600' }), 'left out: for all the history; on a whole hour'),
    ]],
    read: (value) => ({ currency: value('currency'), units_per_usd: value('units_per_usd'), valid_from: value('from') ? iso(fromInput(value('from'), zone)) : '1970-01-01T00:00:00Z' }),
    said: (row) => `Said: a USD is worth ${row.units_per_usd} ${row.currency}${Date.parse(row.valid_from) > 0 ? ` from ${moment(Date.parse(row.valid_from), zone)}` : ''}.`,
  });
}
