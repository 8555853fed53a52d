/** The selection beside the period before it: a table by group, both lines over time, and a line below a tile. */

import { get } from '../core/api.js';
import { bucketOf, costs, overTime, selection } from '../core/costs.js';
import { shownCurrency } from '../core/currency.js';
import { h } from '../core/dom.js';
import { axisMoney, count, known, money, moneyExact, nusd, percent, rate, unit, usdForScale } from '../core/format.js';
import { bucketStarts, moment } from '../core/time.js';
import { lines } from './charts.js';
import { card } from './feedback.js';
import { table } from './table.js';

/** /v1/costs/compared by a dimension, and the money of both periods over time; null where nothing is to be compared. */
export async function loadCompared(state, dimension, signal) {
  if (!state.compare) return null;
  const answer = await get('costs/compared', { ...selection(state), group_by: [dimension] }, { signal });
  const range = { from: Date.parse(answer.before_from), to: Date.parse(answer.before_to) };
  const bucket = bucketOf(state);
  const [now, before] = await Promise.all([costs(state, { bucket, signal }), costs(state, { bucket, range, signal })]);
  return { answer, range, bucket, now, before };
}

function signed(share) {
  return `${share < 0 ? '−' : '+'}${percent(Math.abs(share))}`;
}

/** `+3.2 % on $12.00 before`, below a figure; null where nothing is compared. */
export function since(compared, pick = (sums) => sums.total_nusd) {
  if (!compared) return null;
  const { money: now, before } = compared.answer.totals;
  const [value, earlier] = [nusd(pick(now)), nusd(pick(before))];
  if (value === null || earlier === null) return 'the period before is not known';
  return earlier === 0n ? 'nothing in the period before' : `${signed(Number(value - earlier) / Number(earlier))} on ${money(earlier)} before`;
}

/** `name(value)` is what a group is called. */
export function comparedCard(state, compared, dimension, name) {
  if (!compared) return null;
  const { answer, range, bucket, now, before } = compared;
  const { totals } = answer;
  const sums = (row) => [row.money?.total_nusd, row.before?.total_nusd];
  const exact = (value) => h('span', { title: moneyExact(value) }, money(value));
  const tokens = (row) => [count(row.tokens), h('span', { class: 'under' }, `${count(row.tokens_before)} before`)];
  const active = (row) => [known(row.active_usd_per_million, rate, 'no tokens'),
    row.active_usd_per_million_before === null ? null : h('span', { class: 'under' }, `${rate(row.active_usd_per_million_before)} before`)];
  const columns = [
    { key: 'name', label: dimension === 'class' ? 'Class' : dimension[0].toUpperCase() + dimension.slice(1), value: (row) => name(row.group[dimension]), total: 'All', cell: (row) => name(row.group[dimension]) },
    { key: 'now', label: 'This period', number: true, value: (row) => usdForScale(row.money?.total_nusd), total: exact(totals.money.total_nusd), cell: (row) => (row.money ? exact(sums(row)[0]) : exact(0)) },
    { key: 'before', label: 'Before', number: true, value: (row) => usdForScale(row.before?.total_nusd), total: exact(totals.before.total_nusd), cell: (row) => (row.before ? exact(sums(row)[1]) : exact(0)) },
    { key: 'change', label: 'Change', number: true, value: (row) => usdForScale(row.changed_nusd), total: known(totals.changed_nusd, exact, 'money of one period is not known'),
      cell: (row) => known(row.changed_nusd, exact, 'money of one period is not known') },
    { key: 'share', label: '%', number: true, value: (row) => row.changed_share, total: known(totals.changed_share, signed, 'nothing in the period before'),
      cell: (row) => known(row.changed_share, signed, 'nothing in the period before') },
    { key: 'tokens', label: 'Tokens', number: true, value: (row) => row.tokens, total: tokens(totals), cell: tokens },
    { key: 'active', label: 'Active', unit: unit('M'), number: true, value: (row) => row.active_usd_per_million, total: active(totals), cell: active },
  ];
  const starts = bucketStarts(state.range, bucket, state.zone);
  const earlier = bucketStarts(range, bucket, state.zone);
  const total = (row) => usdForScale(row.money.total_nusd);
  const values = overTime(before.rows, earlier, total);
  const series = [
    { key: 'now', label: 'This period', values: overTime(now.rows, starts, total) },
    { key: 'before', label: 'The period before', values: starts.map((_, index) => values[index] ?? null) },
  ];
  return card('Compared with the period before', { id: 'compared', hint: `Before: ${moment(range.from, state.zone)} to ${moment(range.to, state.zone)} (${state.zone}).${shownCurrency().code === 'USD' ? '' : ' Both at the rate above.'}` },
    table({ id: 'compared-rows', caption: 'This period and the one before', columns, rows: answer.rows, totals: true, sort: { param: 'changes', params: state.params, initial: 'now.desc' } }),
    h('h3', null, 'Money over time'),
    lines({ id: 'compared-chart', title: 'Money of this period and the one before, column by column', starts, bucket, zone: state.zone, series, format: rate, tickFormat: axisMoney }));
}
