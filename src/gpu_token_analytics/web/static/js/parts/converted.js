/** The selection's money in another currency, at effective-dated rates that are shown. The ledger stays in USD. */

import { get } from '../core/api.js';
import { selection } from '../core/costs.js';
import { h } from '../core/dom.js';
import { nusd, usdForScale } from '../core/format.js';
import { moment } from '../core/time.js';
import { CLASSES } from './classes.js';
import { card, choice } from './feedback.js';
import { table } from './table.js';

const BILLIONTHS = 1_000_000_000n;

/** `1,234.56 EUR`, exactly with all nine decimals in the title. */
export function amount(nano, currency) {
  const value = nusd(nano);
  const digits = (places) => {
    const unit = 10n ** BigInt(9 - places);
    const rounded = ((value < 0n ? -value : value) + unit / 2n) / unit;
    const text = rounded.toString().padStart(places + 1, '0');
    return `${value < 0n ? '−' : ''}${text.slice(0, -places).replace(/\B(?=(\d{3})+(?!\d))/g, ',')}.${text.slice(-places)} ${currency}`;
  };
  return h('span', { title: digits(9) }, value !== 0n && value < BILLIONTHS && value > -BILLIONTHS ? digits(6) : digits(2));
}

/** What rates there are, and the money in the currency of the address; null where no rate was ever said. */
export async function loadConverted(state, dimension, signal) {
  const { rates } = await get('rates', {}, { signal });
  const currencies = [...new Set(rates.map(({ currency }) => currency))].sort();
  if (currencies.length === 0) return null;
  const currency = currencies.find((name) => name === state.params.get('currency'));
  if (!currency) return { currencies, answer: null, problem: null };
  try {
    return { currencies, answer: await get('costs/converted', { ...selection(state), group_by: [dimension], currency }, { signal }), problem: null };
  } catch (error) {
    if (error.name === 'AbortError' || error.status === 401) throw error;
    return { currencies, answer: null, problem: error };
  }
}

/** `name(value)` is what a group is called. */
export function convertedCard(state, converted, dimension, name) {
  if (!converted) return null;
  const { currencies, answer, problem } = converted;
  const options = [{ key: '', label: 'USD only' }, ...currencies.map((key) => ({ key, label: key }))];
  const heading = 'In another currency';
  const aside = choice({ id: 'currency', label: 'Currency', param: 'currency', options, params: state.params });
  if (problem) return card(heading, { id: 'converted', aside }, h('p', { class: 'notice bad' }, problem.detail || problem.message));
  if (!answer) return card(heading, { id: 'converted', aside }, h('p', { class: 'hint' }, 'The ledger counts in USD. Choose a currency to see the same money in it.'));
  const of = (row, key) => row.money[`${key}_nano`];
  const column = (key, label) => ({ key, label, number: true, value: (row) => usdForScale(of(row, key)), cell: (row) => amount(of(row, key), answer.currency),
    total: amount(answer.totals[`${key}_nano`], answer.currency) });
  const columns = [
    { key: 'name', label: dimension === 'class' ? 'Class' : dimension[0].toUpperCase() + dimension.slice(1), value: (row) => name(row.group[dimension]), total: 'All', cell: (row) => name(row.group[dimension]) },
    column('total', 'All money'), ...CLASSES.map(({ key, label }) => column(key, label)),
  ];
  const rates = answer.rates.map(({ units_per_usd: units, from, to, valid_from: since }) => h('li', null,
    `1 USD = ${units} ${answer.currency}, ${moment(Date.parse(from), state.zone)} to ${moment(Date.parse(to), state.zone)}`, Date.parse(since) > 0 ? ` (rate of ${moment(Date.parse(since), state.zone)})` : ''));
  return card(heading, { id: 'converted', aside, hint: `Rounded: ${answer.rounding}.` },
    table({ id: 'converted-rows', caption: `Money in ${answer.currency}`, columns: dimension === 'class' ? columns.slice(0, 2) : columns, rows: answer.rows, totals: true, sort: { param: 'converted', params: state.params, initial: 'total.desc' } }),
    h('ul', { class: 'checked', id: 'converted-rates' }, rates));
}
