/** Asking /v1/costs, and turning its rows into series over time. */

import { get } from './api.js';
import { autoBucket, bucketStarts, iso } from './time.js';

/** The parameters of the selection: range, zone, filters. */
export function selection(state, range = state.range) {
  const filters = Object.fromEntries(state.filters.map(({ name, values }) => [name, values]));
  return { from: iso(range.from), to: iso(range.to), time_zone: state.zone, ...filters };
}

/** The bucket in use: the address's or the one that reads best. */
export function bucketOf(state) {
  const wanted = state.params.get('bucket');
  return ['1m', '1h', '1d'].includes(wanted) ? wanted : autoBucket(state.range);
}

/** More groups than these are not shown one by one: those with most money are. */
export const MOST_GROUPS = 1000;

/** The groups of the selection that have most money, and the totals of all. `left`: how many more there are. */
export async function dearest(state, { groupBy, signal, top = MOST_GROUPS }) {
  const answer = await get('costs', { ...selection(state), group_by: groupBy, bucket: 'none', top }, { signal });
  return { ...answer, left: answer.row_count - answer.rows.length };
}

/** /v1/costs with all its pages joined. */
export async function costs(state, { groupBy = [], bucket = 'none', range, signal, extra = {} }) {
  const params = { ...selection(state, range), group_by: groupBy, bucket, limit: 10_000, ...extra };
  let answer = await get('costs', params, { signal });
  const rows = [...answer.rows];
  while (answer.next) {
    answer = await get('costs', { ...params, cursor: answer.next }, { signal });
    rows.push(...answer.rows);
  }
  return { ...answer, rows };
}

/** Whether the range holds nothing at all. Money of 0 is not nothing: a GPU may cost nothing and still work. */
export function isEmpty(answer) {
  return answer.rows.length === 0;
}

/** Rows by bucket start: `pick(row)` for each start that has one, null for the others. */
export function overTime(rows, starts, pick) {
  const found = new Map(rows.map((row) => [Date.parse(row.bucket), row]));
  return starts.map((at) => (found.has(at) ? pick(found.get(at)) : null));
}

/** The starts of all buckets of the selection. */
export function starts(state, bucket) {
  return bucketStarts(state.range, bucket, state.zone);
}

/** Rows by the value of one group. */
export function byGroup(rows, key) {
  const found = new Map();
  for (const row of rows) {
    const name = row.group[key];
    if (!found.has(name)) found.set(name, []);
    found.get(name).push(row);
  }
  return found;
}
