/**
 * The page's currency: the switch, what the rate is, and, where the rate changed within the range, the selection's money
 * with each hour at its own rate.
 */

import { get } from '../core/api.js';
import { selection } from '../core/costs.js';
import { ratesIn, shownCurrency } from '../core/currency.js';
import { h } from '../core/dom.js';
import { known, nusd, usdForScale } from '../core/format.js';
import { go, hrefWith } from '../core/state.js';
import { moment } from '../core/time.js';
import { CLASSES } from './classes.js';
import { card } from './feedback.js';
import { close, menu } from './menu.js';
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

const USD = 'USD';

/** The rates of the currency that the address asks for in what the page is about, the last of which is the page's; empty: USD. */
export function askedRates(state, rates, ranged) {
  const currency = state.params.get('currency');
  if (!currency || !rates) return [];
  const { from, to } = ranged ? state.range : { from: Date.now(), to: Date.now() + 1 };
  return ratesIn(rates, currency, from, to);
}

/** The switch; null where no rate was ever said. */
export function currencyMenu(state, rates) {
  const asked = state.params.get('currency');
  const currencies = [...new Set((rates ?? []).map(({ currency }) => currency))].sort();
  if (currencies.length === 0 && !asked) return null;
  const shown = shownCurrency().code;
  return menu({ id: 'currency', label: `Currency: ${shown}`, summary: shown, align: 'right' },
    h('ul', { class: 'options' }, [USD, ...currencies].map((code) => h('li', null, h('button', { type: 'button', id: `currency-${code}`, 'aria-pressed': String(code === shown),
      onclick: (event) => {
        close(event.currentTarget.closest('details'), true);
        go(hrefWith({ currency: code === USD ? null : code }));
      } }, code)))),
    h('p', { class: 'hint' }, 'The ledger counts in USD. Rates are said on the page Prices.'));
}

/** The rate and its date, once for the page; null in USD. */
export function currencyNote(state, rates, held) {
  const asked = state.params.get('currency');
  if (!asked || asked === USD || !rates) return null;
  if (held.length === 0) return h('p', { class: 'notice warn', id: 'currency-note' }, `There is no rate of ${asked} at the end of this time, so money is in USD. Say one on the page Prices.`);
  const { units_per_usd: units, valid_from: since } = held[held.length - 1];
  return h('p', { class: 'hint', id: 'currency-note' },
    `Money is in ${asked}: 1 USD = ${units} ${asked}, ${Date.parse(since) <= 0 ? 'for all the history' : `the rate since ${moment(Date.parse(since), state.zone)}`}. Forms stay in USD.`,
    held.length > 1 ? ` The rate changed within this range and everything here is at the last one; files, and the last table of Overview, Models and Tenants, have each hour at its own.` : null);
}

/** The money at each hour's own rate, where that is not one; null elsewhere. */
export async function loadConverted({ state, rates, signal }, dimension) {
  const held = askedRates(state, rates, true);
  if (held.length < 2) return null;
  const { currency } = held[0];
  try {
    return { currency, answer: await get('costs/converted', { ...selection(state), group_by: [dimension], currency }, { signal }), problem: null };
  } catch (error) {
    if (error.name === 'AbortError' || error.status === 401) throw error;
    return { currency, answer: null, problem: error };
  }
}

/** `name(value)` is what a group is called. */
export function convertedCard(state, converted, dimension, name) {
  if (!converted) return null;
  const { currency, answer, problem } = converted;
  const heading = `In ${currency}, each hour at its own rate`;
  if (problem) return card(heading, { id: 'converted' }, h('p', { class: 'notice bad' }, problem.detail || problem.message));
  const of = (row, key) => row.money[`${key}_nano`];
  const exact = (nano) => known(nano, (value) => amount(value, answer.currency), 'all of it ran on GPUs that nobody sampled or declared');
  const column = (key, label) => ({ key, label, number: true, value: (row) => usdForScale(of(row, key)), cell: (row) => exact(of(row, key)),
    total: exact(answer.totals[`${key}_nano`]) });
  const columns = [
    { key: 'name', label: dimension === 'class' ? 'Class' : dimension[0].toUpperCase() + dimension.slice(1), value: (row) => name(row.group[dimension]), total: 'All', cell: (row) => name(row.group[dimension]) },
    column('total', 'All money'), ...CLASSES.map(({ key, label }) => column(key, label)),
  ];
  const rates = answer.rates.map(({ units_per_usd: units, from, to, valid_from: since }) => h('li', null,
    `1 USD = ${units} ${answer.currency}, ${moment(Date.parse(from), state.zone)} to ${moment(Date.parse(to), state.zone)}`, Date.parse(since) > 0 ? ` (rate of ${moment(Date.parse(since), state.zone)})` : ''));
  return card(heading, { id: 'converted', hint: `Rounded: ${answer.rounding}.` },
    table({ id: 'converted-rows', caption: `Money in ${answer.currency}`, columns: dimension === 'class' ? columns.slice(0, 2) : columns, rows: answer.rows, totals: true, sort: { param: 'converted', params: state.params, initial: 'total.desc' } }),
    h('ul', { class: 'checked', id: 'converted-rates' }, rates));
}
