/** Models and Tenants: the same page about another dimension. What each cost, per million tokens, and how that moved. */

import { bucketOf, byGroup, costs, dearest, isEmpty, MOST_GROUPS, overTime, selection, starts } from '../core/costs.js';
import { h } from '../core/dom.js';
import { axisMoney, count, integer, known, money, moneyLike, nusd, rate, unit, usdForScale } from '../core/format.js';
import { hrefWith } from '../core/state.js';
import { rangeText } from '../core/time.js';
import { lines, spark } from '../parts/charts.js';
import { CLASSES, idleMoney } from '../parts/classes.js';
import { comparedCard, loadCompared, since } from '../parts/compared.js';
import { convertedCard, loadConverted } from '../parts/converted.js';
import { download } from '../parts/download.js';
import { card, choice, chosen, noCells, tile, tiles } from '../parts/feedback.js';
import { table } from '../parts/table.js';
import { zoomer } from './overview.js';

const NO_TOKENS = 'no tokens in this range';
const MOST_LINES = 6;
const MOST_TRENDS = 50; // as many names as one question may have
const METRICS = [
  { key: 'active', label: 'Active', per: 'M', pick: (row) => row.rates.active_usd_per_million, format: rate },
  { key: 'loaded', label: 'Loaded', per: 'M', pick: (row) => row.rates.loaded_usd_per_million, format: rate },
  { key: 'money', label: 'Money', pick: (row) => usdForScale(row.money.attributed_nusd), format: rate },
  { key: 'tokens', label: 'Tokens/s', pick: (row) => row.rates.tokens_per_second, format: count },
];

/** A page over `dimension`; `others` are dimensions it can be split by. */
export function groupPage({ dimension, title, none, others }) {
  const groupings = [{ key: '', label: title.slice(0, -1) }, ...others];

  async function load(context) {
    const { state, signal } = context;
    const bucket = bucketOf(state);
    const split = chosen('group', groupings, state.params);
    const groupBy = split ? [dimension, split] : [dimension];
    const summing = dearest(state, { groupBy, signal });
    const ranking = split ? dearest(state, { groupBy: [dimension], signal, top: MOST_TRENDS + 2 }) : summing;
    const [summed, timed, compared, converted] = await Promise.all([
      summing,
      ranking.then(({ rows }) => overTimeOf(state, rows, bucket, signal)),
      loadCompared(state, dimension, signal),
      loadConverted(context, dimension),
    ]);
    return { bucket, split, summed, timed, compared, converted };
  }

  /** Over time: all of them, or where they are many those with most money. */
  async function overTimeOf(state, ranked, bucket, signal) {
    const names = ranked.map((row) => row.group[dimension]).filter((name) => name !== null);
    const left = names.length > MOST_TRENDS;
    const extra = left ? { [dimension]: names.slice(0, MOST_TRENDS) } : {};
    return { ...await costs(state, { groupBy: [dimension], bucket, extra, signal }), left };
  }

  function view(context, data) {
    const { state, me } = context;
    const { summed } = data;
    if (isEmpty(summed)) return noCells(state);
    return [
      totalTiles(summed.totals, me, state, data.compared),
      comparedCard(state, data.compared, dimension, (value) => value ?? none),
      card(`${title} by cost`, {
        id: 'list', hint: summed.left ? `The ${integer(MOST_GROUPS)} with most money; the ${integer(summed.left)} others stand in “All” only. Filter, or download them.`
          : me.tenant ? null : 'Loaded adds each one’s share of warm idle to its attributed money. Money that none had a part in stands in the last row.',
        aside: [choice({ id: 'group', label: 'Split by', param: 'group', options: groupings, params: state.params }), exportButton(context, data)],
      }, groupTable(context, data)),
      trend(context, data),
      convertedCard(state, data.converted, dimension, (value) => value ?? none),
    ];
  }

  function totalTiles({ money: sums, tokens, requests, rates, quality }, me, state, compared) {
    const byDefault = quality.default_price_nusd > 0 ? `${money(quality.default_price_nusd)} at the default price` : null;
    const unpriced = quality.unknown_gpu_tokens > 0 ? `${count(quality.unknown_gpu_tokens)} on unknown GPUs` : null;
    return tiles(rangeText(state), { id: 'sums' },
      tile('Attributed', money(sums.attributed_nusd),
        { id: 'sum-attributed', sub: [me.tenant ? null : `of ${money(sums.total_nusd)} in all`, since(compared, (item) => item.attributed_nusd), byDefault].filter(Boolean).join('; ') || null }),
      tile('Active, per million tokens', known(rates.active_usd_per_million, rate, NO_TOKENS),
        { id: 'sum-active', sub: 'attributed money / tokens' }),
      me.tenant ? null : tile('Loaded, per million tokens', known(rates.loaded_usd_per_million, rate, NO_TOKENS),
        { id: 'sum-loaded', sub: 'with the models’ warm idle' }),
      tile('Tokens', count(tokens.total),
        { id: 'sum-tokens', sub: [`${count(tokens.prompt)} in (${count(tokens.cached)} cached), ${count(tokens.completion)} out`, unpriced].filter(Boolean).join('; ') }),
      tile('Requests', count(requests), { id: 'sum-requests' }));
  }

  function name(row) {
    const value = row.group[dimension];
    if (value === null) return h('span', { class: 'none' }, none);
    return h('a', { href: hrefWith({ [dimension]: [value] }), title: `Only ${value}` }, value);
  }

  function groupTable({ state, me }, { summed, split, timed, bucket }) {
    const at = starts(state, bucket);
    const trends = byGroup(timed.rows, dimension);
    const most = Math.max(...summed.rows.map((row) => usdForScale(row.money.total_nusd)));
    const shown = moneyLike(summed.rows.map((row) => row.money.total_nusd));
    const ratio = (key, label, hint) => ({ key, label, unit: unit('M'), number: true, hint, value: (row) => row.rates[`${key}_usd_per_million`],
      cell: (row) => known(row.rates[`${key}_usd_per_million`], (value) => flagged(rate(value, row.quality.low_volume ? 2 : 3), row.quality), ratioReason(row, key)) });
    const columns = [
      { key: 'name', label: title.slice(0, -1), value: (row) => row.group[dimension], cell: name },
      split ? { key: 'split', label: groupings.find(({ key }) => key === split).label.replace('× ', ''), value: (row) => row.group[split],
        cell: (row) => row.group[split] ?? h('span', { class: 'none' }, 'none') } : null,
      { key: 'money', label: 'Attributed', number: true, value: (row) => nusd(row.money.attributed_nusd),
        cell: (row) => shown(row.money.attributed_nusd), total: money(summed.totals.money.attributed_nusd) },
      me.tenant ? null : { key: 'idle', label: 'Idle', number: true, hint: 'Its share of warm idle; in the last row all other idle money: warm, cold and unobserved',
        value: (row) => idleMoney(row.money), cell: (row) => shown(idleMoney(row.money)), total: money(idleMoney(summed.totals.money)) },
      me.tenant ? null : { key: 'unmetered', label: 'Unmetered', number: true, hint: 'Work of a GPU that no known request explains: not idle, and nobody’s',
        value: (row) => nusd(row.money.unmetered_work_nusd), cell: (row) => shown(row.money.unmetered_work_nusd),
        total: money(summed.totals.money.unmetered_work_nusd) },
      me.tenant ? null : { key: 'share', label: 'Share', class: 'bar-cell', cell: (row) => moneyBar(row, most) },
      ratio('active', 'Active', 'attributed money / tokens'),
      me.tenant ? null : ratio('loaded', 'Loaded', '(attributed + share of warm idle) / tokens'),
      ratio('input', 'Input', 'prefill money / prompt tokens'),
      ratio('output', 'Output', 'the rest / completion tokens'),
      { key: 'tokens', label: 'Tokens', number: true, value: (row) => row.tokens.total,
        cell: (row) => h('span', { title: integer(row.tokens.total) }, count(row.tokens.total)), total: count(summed.totals.tokens.total) },
      { key: 'requests', label: 'Requests', number: true, value: (row) => row.requests,
        cell: (row) => h('span', { title: integer(row.requests) }, count(row.requests)), total: count(summed.totals.requests) },
      { key: 'speed', label: 'Tokens/s', number: true, value: (row) => row.rates.tokens_per_second,
        cell: (row) => known(row.rates.tokens_per_second, count, NO_TOKENS) },
      { key: 'energy', label: 'J/token', number: true, value: (row) => row.rates.joules_per_token,
        cell: (row) => known(row.rates.joules_per_token, (value) => (value < 10 ? value.toPrecision(2) : integer(value)), 'energy is not known, or no tokens') },
      split ? null : { key: 'trend', label: 'Tokens over time', class: 'spark-cell',
        cell: (row) => spark(overTime(trends.get(row.group[dimension]) ?? [], at, (item) => item.tokens.total)) },
    ].filter(Boolean);
    columns[0].total = 'All';
    return table({ id: 'groups', caption: `${title} by cost`, columns, rows: summed.rows, totals: true,
      sort: { params: state.params, initial: 'money.desc' }, rowClass: (row) => (row.group[dimension] === null ? 'none-row' : null) });
  }

  function ratioReason(row, key) {
    if (row.tokens.total === 0) return NO_TOKENS;
    return key === 'input' || key === 'output' ? 'no request with a known time of first token' : 'not known for this key';
  }

  function flagged(text, { low_volume: low }) {
    return low ? h('span', { class: 'low',
      title: 'Few tokens: read this rate with care' }, `≈${text}`, h('span', { class: 'flag' }, ' low volume')) : text;
  }

  /** The row's money by class, on the scale of the largest row. */
  function moneyBar(row, most) {
    return h('div', { class: 'row-bar', 'aria-hidden': 'true' }, CLASSES.map(({ key }) => ({ key, length: usdForScale(row.money[`${key}_nusd`]) / (most || 1) * 100 }))
      .filter(({ length }) => length > 0).map(({ key, length }) => h('span', { class: `fill-${key}`,
        vars: { '--length': String(length) } })));
  }

  function trend({ state, me }, { timed, bucket }) {
    const metrics = METRICS.filter(({ key }) => !(me.tenant && key === 'loaded')).map((item) => (item.per ? { ...item, label: `${item.label} ${unit(item.per)}` } : item));
    const metric = metrics.find(({ key }) => key === chosen('metric', metrics, state.params));
    const at = starts(state, bucket);
    const groups = [...byGroup(timed.rows, dimension)].filter(([value]) => value !== null);
    const size = (rows) => rows.reduce((sum, row) => sum + usdForScale(row.money.attributed_nusd), 0);
    const top = groups.sort((a, b) => size(b[1]) - size(a[1])).slice(0, MOST_LINES);
    if (top.length === 0) return null;
    const series = top.map(([label, rows]) => ({ key: label, label, values: overTime(rows, at, metric.pick) }));
    const left = groups.length - top.length;
    return card(`${metric.label} over time`, {
      id: 'trend', aside: choice({ id: 'metric', label: 'Figure shown', param: 'metric', options: metrics, params: state.params }),
      hint: left > 0 || timed.left ? `The ${MOST_LINES} with most money; filter to see one of the ${timed.left ? '' : `${left} `}others.` : null,
    }, lines({ id: 'trend-chart',
      title: `${metric.label} by ${dimension} over time`, starts: at, bucket, zone: state.zone, series, format: metric.format,
      tickFormat: metric.key === 'tokens' ? count : axisMoney, onZoom: zoomer(state) }));
  }

  function exportButton({ state }, { split }) {
    const params = { ...selection(state), group_by: split ? [dimension, split] : [dimension], currency: state.params.get('currency'), format: 'csv' };
    return h('button', { type: 'button', id: 'export',
      onclick: (event) => download(event.currentTarget, params, `${dimension}-costs.csv`) }, 'Download CSV');
  }

  return { title, load, view, compares: true };
}
