/** Request: from an id to its tokens, the estimate of the moment, the final cost by cell and GPU, and the price rows used. */

import { get } from '../core/api.js';
import { h } from '../core/dom.js';
import { duration, integer, known, money, moneyExact, quantity, rate, sumNusd, unit } from '../core/format.js';
import { go, hrefTo, hrefWith } from '../core/state.js';
import { clock, iso, moment } from '../core/time.js';
import { card, emptyPanel, tile } from '../parts/feedback.js';
import { gpuNames, priceRow, requestColumns } from '../parts/shared.js';
import { table } from '../parts/table.js';

const DAY_MS = 86_400_000;
const MOST_NAMED = 50; // GPUs of a request that are asked for in one address
const NOT_YET = 'not in the ledger yet: its cells are computed within seconds';

export const title = 'Request';
export const filters = [];

export async function load({ state, me, signal }) {
  const id = state.params.get('id');
  if (id) {
    const found = await find(id, signal);
    return { id, found, names: await namesIn(found, me, signal), recent: null };
  }
  if (me.tenant) return { id: null, found: null, recent: null };
  const from = iso(Math.max(state.range.from, state.range.to - DAY_MS));
  const [{ gpus }, names] = await Promise.all([
    get('dimensions', { from: iso(state.range.from), to: iso(state.range.to) }, { signal }),
    gpuNames(signal),
  ]);
  const gpu = state.params.get('of') ?? gpus[0] ?? null;
  const recent = gpu ? await get('requests', { gpu, from, to: iso(state.range.to), limit: 50 }, { signal }) : null;
  return { id: null, found: null, names, gpus, gpu, recent };
}

async function namesIn(found, me, signal) {
  const gpus = [...new Set((found?.events ?? []).flatMap(({ cells }) => cells.map(({ gpu }) => gpu)))];
  return me.tenant || gpus.length === 0 || gpus.length > MOST_NAMED ? new Map() : gpuNames(signal, gpus);
}

async function find(id, signal) {
  try {
    return await get(`requests/${encodeURIComponent(id)}`, {}, { signal });
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

export function view(context, data) {
  const { state, me } = context;
  return [
    search(data.id),
    data.id && !data.found ? emptyPanel(`No request “${data.id}”`, 'Check the id: it is the one the engine gave, letter by letter.',
      'Usage events reach the store within seconds of the end of a request; one still running is not there yet.',
      'Raw events are kept for RAW_RETENTION_DAYS; older money is in the ledger, no longer by request.') : null,
    data.found?.events.map((event, index) => eventCards(state, me, event, index, data.names)) ?? null,
    data.id ? null : recentList(state, me, data),
  ];
}

function search(id) {
  return h('form', { class: 'search', role: 'search', onsubmit: (event) => {
    event.preventDefault();
    go(hrefWith({ id: event.currentTarget.elements.id.value.trim() }));
  } },
  h('label', { class: 'field' }, h('span', null, 'Request id'),
    h('input', { type: 'search', name: 'id', id: 'request-id',
      value: id ?? '', required: true, maxlength: '256', autocomplete: 'off', spellcheck: 'false' })),
  h('button', { type: 'submit', class: 'primary', id: 'request-find' }, 'Find'));
}

function recentList(state, me, { names, gpus, gpu, recent }) {
  if (me.tenant) return emptyPanel('Look up one of your requests', 'Give the id the engine returned for it, above.');
  if (!gpu) return emptyPanel('No request in this range', 'Widen the time range, or give a request id above.');
  const pick = h('label', { class: 'field inline' }, h('span', null, 'On GPU'), h('select', { id: 'recent-gpu', value: gpu,
    onchange: (event) => go(hrefWith({ of: event.currentTarget.value })) },
    [...new Set([gpu, ...gpus])].map((value) => ({ value, name: names.get(value) ?? value }))
      .sort((a, b) => a.name.localeCompare(b.name, 'en', { numeric: true }))
      .map(({ value, name }) => h('option', { value }, name))));
  return card('Newest requests', { id: 'recent', aside: pick, hint: 'Those that ended on this GPU in the last day of the range.' },
    recent.requests.length ? table({ id: 'recent-requests', caption: 'Newest requests', columns: requestColumns(state), rows: recent.requests })
      : h('p', { class: 'hint' }, 'None. Choose another GPU or a longer range.'));
}

function eventCards(state, me, event, index, names) {
  const key = (name) => `${name}-${index}`;
  return [
    card(event.model, {
      id: key('event'), aside: h('span', { class: event.provisional ? 'badge warn' : 'badge good' }, event.provisional ? 'provisional' : 'final'),
      hint: `Tenant ${event.tenant} on ${event.host}, ended ${moment(Date.parse(event.ts), state.zone, true)}${event.finish_reason ? `, ${event.finish_reason}` : ''}.`,
    },
    event.note ? h('p', { class: 'notice warn' }, event.note) : null,
    h('dl', { class: 'tiles' },
      tile('Cost', known(event.cost_nusd, money, NOT_YET),
        { id: key('cost'), sub: event.cost_nusd === null ? null : `exactly ${moneyExact(event.cost_nusd)}` }),
      tile('Per million tokens', known(event.usd_per_million, rate, NOT_YET), { id: key('per-million') }),
      tile('Live estimate', known(liveEstimate(event), rate, 'no price or rate was known when it was stored'),
        { id: key('estimate'), sub: event.live_cost_per_token_usd === null ? null : `${rate(event.live_cost_per_token_usd * 1e6)} per million: its GPUs’ price over their token rate when it was stored` }),
      tile('Tokens', integer(event.tokens.total),
        { id: key('tokens'), sub: `${integer(event.tokens.prompt)} prompt, ${integer(event.tokens.completion)} completion` })),
    h('div', { class: 'pair tight' }, tokenTable(event, key('split')), timing(state, event))),
    card('Cost by cell', { id: key('cells'), hint: h('span', null, 'One row for each GPU and minute it touched. ', methodText(event.method)) },
      event.cells.length ? [cellTable(state, me, event, key('cell-table'), names), byGpu(event, key('by-gpu'), names)]
        : h('p', { class: 'hint' }, event.note ?? NOT_YET)),
  ];
}

function liveEstimate({ live_cost_per_token_usd: perToken, tokens }) {
  return perToken === null ? null : perToken * tokens.total;
}

const METHODS = {
  sweep: 'Start, first token and end are known: its share of the GPU at each instant.',
  sweep_no_ttft: 'Start and end are known, the first token is not: prefill and decode are not told apart.',
  unknown_gpu: 'Nobody sampled or declared its GPU: its tokens count, its money is not known.',
  window: 'Only its end is known: its cost is spread over that minute.',
};

function methodText(method) {
  return METHODS[method] ?? '';
}

function tokenTable({ tokens }, id) {
  const rows = [
    { name: 'Prompt, computed', value: tokens.prompt - tokens.cached }, { name: 'Prompt, from cache', value: tokens.cached },
    { name: 'Completion, answer', value: tokens.completion - tokens.reasoning }, { name: 'Completion, reasoning', value: tokens.reasoning },
  ];
  const columns = [
    { key: 'name', label: 'Tokens', cell: ({ name }) => name, total: 'Total' },
    { key: 'value', label: 'Count', number: true, cell: ({ value }) => integer(value), total: integer(tokens.total) },
  ];
  return table({ id, caption: 'Tokens by kind', columns, rows, totals: true });
}

/** Queue, prefill and decode as one bar; what is not known is said. */
function timing(state, event) {
  const began = Date.parse(event.started_at);
  if (event.latency_ms === null) return h('div', { class: 'timing' }, h('h3', null, 'Time'),
    h('p', { class: 'hint' }, 'The engine sent no latency: only the end is known.'));
  const queue = event.queue_ms ?? 0;
  const first = event.ttft_ms === null ? null : Math.max(0, event.ttft_ms - queue);
  const phases = [
    { name: 'Queue', ms: queue, look: 'phase-queue', known: event.queue_ms !== null },
    ...(first === null ? [{ name: 'Prefill and decode', ms: event.latency_ms - queue, look: 'phase-decode', known: true }]
      : [{ name: 'Prefill', ms: first, look: 'phase-prefill', known: true }, { name: 'Decode', ms: event.latency_ms - queue - first, look: 'phase-decode', known: true }]),
  ];
  const total = Math.max(1, event.latency_ms);
  return h('div', { class: 'timing' }, h('h3', null, `Time, ${duration(event.latency_ms)}`),
    h('div', { class: 'phases', 'aria-hidden': 'true' }, phases.filter(({ ms }) => ms > 0).map(({ ms, look }) => h('span', { class: look,
      vars: { '--share': String(ms / total) } }))),
    h('ul', { class: 'legend' }, phases.map(({ name, ms, look, known: sure }) => h('li', null,
      h('span', { class: `swatch ${look}`, 'aria-hidden': 'true' }), `${name} `, h('b', null, sure ? duration(ms) : 'not sent')))),
    h('p', { class: 'hint' }, `Used its GPUs from ${moment(began, state.zone, true)}.`));
}

function cellTable(state, me, event, id, names) {
  const columns = [
    { key: 'minute', label: 'Minute', cell: (cell) => clock(Date.parse(cell.minute), state.zone), total: 'Sum' },
    { key: 'gpu', label: 'GPU', cell: (cell) => (me.tenant ? cell.gpu : h('a', { href: hrefTo('gpus', { show: cell.gpu }), title: cell.gpu }, names.get(cell.gpu) ?? cell.gpu)) },
    { key: 'cost', label: 'Cost', number: true, class: 'exact', cell: (cell) => moneyExact(cell.cost_nusd),
      total: moneyExact(sumNusd(event.cells.map(({ cost_nusd: cost }) => cost))) },
    { key: 'prefill', label: 'of it prefill', number: true, class: 'exact',
      cell: (cell) => known(cell.prefill_cost_nusd, moneyExact, 'the time of the first token was not sent') },
    { key: 'energy', label: 'Energy', number: true,
      cell: (cell) => known(cell.energy_mj, (mj) => quantity(mj / 1000, 'J'), 'no two samples to integrate between') },
    { key: 'price', label: unit('h'), number: true,
      cell: (cell) => known(cell.usd_per_hour, (value) => rate(value, 4), me.tenant ? 'a tenant’s key does not see prices' : 'the cell is not computed yet') },
    { key: 'row', label: 'Price row',
      cell: (cell) => known(cell.price_row, priceRow, me.tenant ? 'a tenant’s key does not see prices' : 'the cell is not computed yet') },
    { key: 'state', label: 'State',
      cell: (cell) => [cell.state, cell.revision > 1 ? h('span', { class: 'hint' }, ` revision ${cell.revision}`) : null] },
  ];
  return table({ id, caption: 'Cost by cell', columns, rows: event.cells, totals: true });
}

function byGpu(event, id, names) {
  const gpus = [...new Set(event.cells.map(({ gpu }) => gpu))];
  if (gpus.length < 2) return null;
  const rows = gpus.map((gpu) => ({ gpu, cost: sumNusd(event.cells.filter((cell) => cell.gpu === gpu).map(({ cost_nusd: cost }) => cost)) }));
  const columns = [
    { key: 'gpu', label: 'GPU', cell: ({ gpu }) => h('span', { title: gpu }, names.get(gpu) ?? gpu), total: 'All' },
    { key: 'cost', label: 'Cost', number: true, class: 'exact', cell: ({ cost }) => moneyExact(cost),
      total: moneyExact(event.cost_nusd) },
  ];
  return h('div', { class: 'narrow' }, h('h3', null, 'By GPU'), table({ id, caption: 'Cost by GPU', columns, rows, totals: true }));
}
