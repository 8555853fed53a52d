/** Prices: the price book with its history, and a form to append a row. Rows are never edited. */

import { get, getAll } from '../core/api.js';
import { h } from '../core/dom.js';
import { price, priceGiven, unit } from '../core/format.js';
import { iso, moment } from '../core/time.js';
import { card, emptyPanel } from '../parts/feedback.js';
import { priceForm } from '../parts/priceform.js';
import { ratesCard } from '../parts/rates.js';
import { table } from '../parts/table.js';

const SCOPES = { gpu: 'One GPU', host: 'One host', name: 'A GPU type', default: 'Everything else' };
const MODES = { on_demand: 'on demand', reserved: 'reserved', spot: 'spot', owned: 'owned' };
const DAY_MS = 86_400_000;

export const title = 'Prices';
export const filters = [];
export const ranged = false;

export async function load({ signal }) {
  const now = Math.floor(Date.now() / 60_000) * 60_000;
  const [{ prices }, { rates }, dimensions] = await Promise.all([
    getAll('prices', {}, 'prices', { signal }),
    get('rates', {}, { signal }),
    get('dimensions', { from: iso(now - 7 * DAY_MS), to: iso(now) }, { signal }).catch(() => null),
  ]);
  return { prices, rates, dimensions };
}

export function view({ state, me, refresh }, { prices, rates, dimensions }) {
  const admin = me.scopes.includes('admin');
  return [
    card('Add a price', {
      id: 'add-price', hint: 'A new row takes over from its time on; older rows stay as history. The most specific row wins: GPU, then host, then type, then default.',
    }, admin ? priceForm({ zone: state.zone, dimensions, onAdded: refresh }) : h('p', { class: 'notice' }, 'This key may read prices. Adding one needs a key with scope ', h('code', null, 'admin'), '.')),
    prices.length === 0 ? emptyPanel('The price book is empty', 'Until it has a row, cells use the price in the GPU’s own samples, else PRICE_PER_HOUR_USD.', admin ? 'Add a row above.' : 'Ask an administrator to add one.')
      : card('Price book', { id: 'book', hint: 'Newest first. History keeps the price of its day.' }, bookTable(prices, state)),
    ratesCard(state, rates, admin, refresh),
  ];
}

/** A price in the shown currency; below it as it was given, where that is another. */
function shownPrice(text) {
  const [shown, given] = [price(text), priceGiven(text)];
  return shown === given ? shown : [shown, h('span', { class: 'under' }, `${given} given`)];
}

/** Ids of the rows in force at `now`: of each scope and key the newest start, and of equal starts the one added last. */
function inForce(prices, now) {
  const best = new Map();
  for (const row of prices) {
    const from = Date.parse(row.valid_from);
    if (from > now || (row.valid_to !== null && Date.parse(row.valid_to) <= now)) continue;
    const place = `${row.scope}|${row.key ?? ''}`;
    const order = [from, Date.parse(row.created_at)];
    const held = best.get(place);
    if (!held || order[0] > held.order[0] || (order[0] === held.order[0] && order[1] > held.order[1])) best.set(place, { order, id: row.id });
  }
  return new Set([...best.values()].map(({ id }) => id));
}

function bookTable(prices, state) {
  const now = Date.now();
  const current = inForce(prices, now);
  const asked = state.params.get('row');
  const status = (row) => {
    if (current.has(row.id)) return h('span', { class: 'badge good' }, 'in force');
    return h('span', { class: 'badge' }, Date.parse(row.valid_from) > now ? 'to come' : 'past');
  };
  const columns = [
    { key: 'scope', label: 'For', value: (row) => `${row.scope} ${row.key ?? ''}`,
      cell: (row) => [row.key ?? SCOPES[row.scope] ?? row.scope, row.key ? h('span', { class: 'under' }, SCOPES[row.scope] ?? row.scope) : null] },
    { key: 'price', label: unit('h'), number: true, value: (row) => Number(row.usd_per_hour), cell: (row) => shownPrice(row.usd_per_hour) },
    { key: 'mode', label: 'Mode', value: (row) => row.mode,
      cell: (row) => [MODES[row.mode] ?? row.mode, row.mode === 'owned' && row.usd_per_kwh !== null ? h('span', { class: 'under' }, `${price(row.usd_per_kwh)}/kWh, PUE ${row.pue ?? 1}`) : null] },
    { key: 'from', label: 'From', value: (row) => row.valid_from,
      cell: (row) => (Date.parse(row.valid_from) <= 0 ? 'the beginning' : moment(Date.parse(row.valid_from), state.zone)) },
    { key: 'to', label: 'Until',
      cell: (row) => (row.valid_to === null ? 'another takes over' : moment(Date.parse(row.valid_to), state.zone)) },
    { key: 'status', label: 'Status', cell: (row) => [status(row), row.pending ? h('span', { class: 'badge warn',
      title: 'Cells it touches are still being marked for recomputation' }, 'recomputing') : null,
    row.matches ? null : h('span', { class: 'badge warn', title: 'No GPU that is known has this key: is it misspelt?' }, 'matches nothing')] },
    { key: 'source', label: 'Added', value: (row) => row.created_at, cell: (row) => [moment(Date.parse(row.created_at), state.zone),
      h('span', { class: 'under' }, `by ${row.source}`)] },
    { key: 'id', label: 'Row', cell: (row) => h('code', null, row.id) },
  ];
  return table({ id: 'prices', caption: 'Price rows', columns, rows: prices, sort: { params: state.params, initial: 'from.desc' },
    rowClass: (row) => (row.id === asked ? 'asked' : null) });
}
