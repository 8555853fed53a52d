/** Overview: the spend rate now, what a million tokens costs, and where every dollar of the range went. */

import { get } from '../core/api.js';
import { bucketOf, costs, dearest, isEmpty, overTime, selection, starts } from '../core/costs.js';
import { h } from '../core/dom.js';
import { axisMoney, count, integer, known, money, moneyLike, nusd, rate, unit, unknown, usdForScale } from '../core/format.js';
import { go, hrefTo, hrefWith } from '../core/state.js';
import { ago, clock, iso, rangeText } from '../core/time.js';
import { stackedColumns, spark } from '../parts/charts.js';
import { CLASSES, classMoney, classOf, IDLE } from '../parts/classes.js';
import { comparedCard, loadCompared, since } from '../parts/compared.js';
import { convertedCard, loadConverted } from '../parts/converted.js';
import { card, choice, chosen, noCells, tile, tiles } from '../parts/feedback.js';
import { identityFigure, identityParts } from '../parts/identity.js';
import { table } from '../parts/table.js';

const MONEY = [{ key: 'idle', label: 'Idle only' }, { key: 'all', label: 'All money' }];
const TOP = 5;
const LAST_MINUTES_MS = 300_000; // without the stream
const NO_TOKENS = 'no tokens in this range';

export const title = 'Overview';
export const followsLive = true;
export const compares = true;

export async function load(context) {
  const { state, me, signal } = context;
  const bucket = bucketOf(state);
  const hour = { from: Math.floor(Date.now() / 60_000) * 60_000 - 3_600_000, to: Math.floor(Date.now() / 60_000) * 60_000 };
  const [whole, models, tenants, recent, audit, compared, converted] = await Promise.all([
    costs(state, { bucket, signal }), // its totals are those of the whole range
    dearest(state, { groupBy: ['model'], signal }),
    dearest(state, { groupBy: ['tenant'], signal }),
    costs(state, { bucket: '1m', range: hour, signal }),
    me.tenant || state.filters.length ? null : auditOf(state, signal),
    loadCompared(state, me.tenant ? 'model' : 'class', signal),
    loadConverted(context, me.tenant ? 'model' : 'class'),
  ]);
  return { bucket, whole, models, tenants, recent, audit, hour, compared, converted };
}

/** The audit is an extra here: the page stands without it (a long range may be refused). */
async function auditOf(state, signal) {
  const { from, to } = selection(state);
  try {
    return await get('audit', { from, to }, { signal });
  } catch (error) {
    if (error.name === 'AbortError' || error.status === 401) throw error;
    return null;
  }
}

export function view({ state, me, live }, data) {
  const { whole } = data;
  const totals = whole.totals;
  const nothing = isEmpty(whole);
  return [
    nowTiles(state, me, live, data),
    nothing ? noCells(state) : [
      me.tenant ? tenantMoney(me, totals, state, data.compared) : whereItWent(state, data),
      comparedCard(state, data.compared, me.tenant ? 'model' : 'class', (value) => classOf(value)?.label ?? value),
      me.tenant ? null : idleOverTime(state, data),
      h('div', { class: 'pair' },
        topTable('models', 'Models', 'model', data.models, state, me),
        topTable('tenants', 'Tenants', 'tenant', data.tenants, state, me)),
      convertedCard(state, data.converted, me.tenant ? 'model' : 'class', (value) => classOf(value)?.label ?? value),
    ],
  ];
}

/** Live figures of the last minutes; from the ledger when there is no stream. */
function nowTiles(state, me, live, { recent, hour }) {
  const minutes = Array.from({ length: 60 }, (_, index) => hour.from + index * 60_000);
  const per = (pick) => spark(overTime(recent.rows, minutes, pick));
  const now = state.filters.length === 0 && live ? live : fromMinutes(recent, hour); // the stream knows no filters
  const no = 'no cell in the last minutes';
  const window = now.watermark ? `newest minute ${clock(Date.parse(now.watermark), state.zone)}, ${ago(Date.parse(now.watermark))}` : null;
  const [low, high] = now === live ? [live.window_from, live.window_to].map(Date.parse) : [hour.to - LAST_MINUTES_MS, hour.to];
  return h('section', { 'aria-labelledby': 'now-title', id: 'now' },
    h('h2', { class: 'sr-only', id: 'now-title' }, 'Now'),
    tiles(`Now: ${clock(low, state.zone)} to ${clock(high, state.zone)}`, { id: 'now-tiles' },
      tile(me.tenant ? 'Your spend rate now' : 'Spend rate now', known(now.usd_per_hour, (value) => [rate(value, 4),
        h('span', { class: 'per' }, ' /h')], no),
        { id: 'now-spend', sub: window, spark: per((row) => usdForScale(row.money.total_nusd)) }),
      tile('Active now, per million tokens', known(now.active_usd_per_million, rate, 'no tokens in the last minutes'),
        { id: 'now-active', sub: 'attributed money / tokens', spark: per((row) => row.rates.active_usd_per_million) }),
      tile('Loaded now, per million tokens', known(now.loaded_usd_per_million, rate,
        me.tenant ? 'a tenant’s key does not see idle money' : 'no tokens in the last minutes'),
      { id: 'now-loaded', sub: 'with the models’ warm idle', spark: per((row) => row.rates.loaded_usd_per_million) }),
      tile('Tokens now', known(now.tokens_per_second, (value) => [count(value), h('span', { class: 'per' }, ' /s')], no),
        { id: 'now-tokens', sub: now.gpus === null || now.gpus === undefined ? (state.filters.length ? 'of what the filter shows' : null) : `on ${integer(now.gpus)} GPUs`, spark: per((row) => row.rates.tokens_per_second) })));
}

/** The same figures over the last five minutes, for when the stream is not there. */
function fromMinutes({ rows }, { to }) {
  const newest = rows.filter((row) => Date.parse(row.bucket) >= to - LAST_MINUTES_MS);
  if (newest.length === 0) return { usd_per_hour: null, active_usd_per_million: null, loaded_usd_per_million: null, tokens_per_second: null };
  const sum = (pick) => newest.reduce((all, row) => all + pick(row), 0);
  const tokens = sum((row) => row.tokens.total);
  // A minute's rate times the tokens whose money is known is its money, unmetered work of counted tokens included.
  const per = (name) => {
    const rated = newest.filter((row) => row.rates[name] !== null);
    const priced = (row) => row.tokens.total - row.quality.unknown_gpu_tokens;
    const all = rated.reduce((count, row) => count + priced(row), 0);
    return all > 0 ? rated.reduce((total, row) => total + row.rates[name] * priced(row), 0) / all : null;
  };
  return {
    usd_per_hour: (sum((row) => usdForScale(row.money.total_nusd)) / newest.length) * 60,
    active_usd_per_million: per('active_usd_per_million'),
    loaded_usd_per_million: per('loaded_usd_per_million'),
    tokens_per_second: tokens / (newest.length * 60),
    watermark: newest[newest.length - 1].bucket,
  };
}

function whereItWent(state, { whole, audit, compared }) {
  const total = whole.scope.cost_nusd ?? whole.totals.money.total_nusd;
  const parts = identityParts(whole.totals.money, whole.scope.left_out_nusd);
  return card('Where the money went', {
    id: 'where',
    hint: 'Every nano-dollar of these GPUs has exactly one class. The bar always fills.',
    aside: auditBadge(audit),
  }, compared ? h('p', { class: 'hint', id: 'where-since' }, `In all ${since(compared)}.`) : null, identityFigure(parts, total), provisionalNote(whole));
}

function auditBadge(audit) {
  if (!audit) return null;
  const text = audit.holds ? `Audited: holds in ${integer(audit.cells)} cells` : `Audit: ${audit.findings.length} findings`;
  return h('a', { class: audit.holds ? 'badge good' : 'badge bad', id: 'audit-badge', href: hrefTo('quality') }, audit.holds ? '✓ ' : '! ', text);
}

function provisionalNote({ totals, scope }) {
  const notes = [];
  if (totals.quality.provisional) notes.push('Newest cells are provisional: late events can still move money between classes, never change the sum.');
  const { default_price_nusd: byDefault, unknown_gpu_requests: requests, unknown_gpu_tokens: tokens } = totals.quality;
  if (byDefault > 0) notes.push(`${money(byDefault)} are at the default price: no price row or sample names these GPUs.`);
  if (requests > 0 || tokens > 0) {
    notes.push(`${integer(requests)} requests, ${integer(tokens)} tokens, ran on GPUs that nobody sampled or declared: their money is unknown.`);
  }
  if (scope.cells_not_rolled > 0) notes.push(`${integer(scope.cells_not_rolled)} recomputed cells are not in the hourly sums yet.`);
  return notes.length ? h('p', { class: 'hint' }, notes.join(' ')) : null;
}

function tenantMoney(me, totals, state, compared) {
  return card(`Tenant ${me.tenant}`,
    { id: 'where', hint: 'This key sees one tenant: the money attributed to its requests. Idle money belongs to all and is not shown.' },
    tiles(rangeText(state), { id: 'tenant' },
      tile('Spent', money(totals.money.attributed_nusd), { id: 'tenant-spent', sub: since(compared) }),
      tile('Tokens', count(totals.tokens.total), { id: 'tenant-tokens' }),
      tile('Requests', integer(totals.requests), { id: 'tenant-requests' }),
      tile('Per million tokens', known(totals.rates.active_usd_per_million, rate, NO_TOKENS), { id: 'tenant-active' })));
}

function idleOverTime(state, { whole, bucket }) {
  const classes = chosen('money', MONEY, state.params) === 'all' ? CLASSES : IDLE;
  const at = starts(state, bucket);
  const series = classes.map(({ key, label }) => {
    const values = overTime(whole.rows, at, (row) => classMoney(row.money, key));
    return { key, label, values, heights: values.map(usdForScale) };
  });
  const heading = classes === IDLE ? 'Idle money by cause' : 'Money by class';
  return card(heading, {
    id: 'idle', aside: choice({ id: 'money', label: 'Money shown', param: 'money', options: MONEY, params: state.params }),
    hint: `Per ${{ '1m': 'minute', '1h': 'hour', '1d': 'day' }[bucket]}. Drag over the chart to zoom in.${state.moving ? ' The newest column is still filling.' : ''}`,
  }, stackedColumns({ id: 'idle-chart', title: `${heading} over time`, starts: at, bucket, zone: state.zone, series, format: money,
    tickFormat: axisMoney, onZoom: zoomer(state) }));
}

/** Zooming a chart sets the range. */
export function zoomer(state) {
  return (from, to) => {
    if ((to ?? state.range.to) - from < 120_000) return;
    go(hrefWith({ range: null, bucket: null, from: iso(Math.max(from, state.range.from)), to: iso(Math.min(to ?? state.range.to, state.range.to)) }));
  };
}

function topTable(page, heading, key, { rows }, state, me) {
  const shown = moneyLike(rows.map((row) => row.money.attributed_nusd));
  const named = rows.filter((row) => row.group[key] !== null).sort((a, b) => (nusd(b.money.attributed_nusd) > nusd(a.money.attributed_nusd) ? 1 : -1));
  const columns = [
    { key: 'name', label: heading.slice(0, -1),
      cell: (row) => h('a', { href: hrefTo(page, { [key]: [row.group[key]] }) }, row.group[key]) },
    { key: 'money', label: 'Attributed', number: true, cell: (row) => shown(row.money.attributed_nusd) },
    { key: 'active', label: 'Active', unit: unit('M'), number: true, cell: (row) => known(row.rates.active_usd_per_million, rate, NO_TOKENS) },
    me.tenant ? null : { key: 'loaded', label: 'Loaded', unit: unit('M'), number: true,
      cell: (row) => known(row.rates.loaded_usd_per_million, rate, NO_TOKENS) },
    { key: 'tokens', label: 'Tokens', number: true, cell: (row) => count(row.tokens.total) },
  ].filter(Boolean);
  return card(heading, { id: `top-${page}`, wide: false, aside: h('a',
    { id: `all-${page}`, href: hrefTo(page) }, `All ${heading.toLowerCase()}`) },
    named.length ? table({ id: `top-${page}-table`, caption: `${heading} with the most attributed money`, columns, rows: named.slice(0, TOP) })
      : h('p', { class: 'hint' }, 'No attributed money in this range: no request was recorded. ', unknown('no usage events')));
}
