/** Tenants: what each tenant's requests cost, and what teams of tenants cost. */

import { get } from '../core/api.js';
import { h } from '../core/dom.js';
import { count, integer, known, money, moneyExact, usdForScale } from '../core/format.js';
import { iso, rangeText } from '../core/time.js';
import { card } from '../parts/feedback.js';
import { table } from '../parts/table.js';
import { groupPage } from './groups.js';

const groups = groupPage({
  dimension: 'tenant',
  title: 'Tenants',
  none: 'No tenant had a part in it',
  others: [{ key: 'model', label: '× Model' }, { key: 'gpu_name', label: '× GPU type' }, { key: 'host', label: '× Host' }],
});

export const { title, compares } = groups;

export async function load(context) {
  const { state, signal, me } = context;
  const [data, teams] = await Promise.all([
    groups.load(context),
    me.tenant ? null : get('teams/costs', { from: iso(state.range.from), to: iso(state.range.to) }, { signal }),
  ]);
  return { ...data, teams };
}

export function view(context, data) {
  const named = data.teams?.rows.some((row) => row.team !== null);
  return [groups.view(context, data), named ? teamCard(context, data.teams) : null];
}

function sum(rows, key) {
  return rows.reduce((all, row) => all + row[key], 0);
}

function teamCard({ state }, { rows, attributed_nusd: whole }) {
  const columns = [
    { key: 'team', label: 'Team', value: (row) => row.team, total: 'All teams', cell: (row) => row.team ?? 'No team' },
    { key: 'money', label: 'Attributed', number: true, value: (row) => usdForScale(row.attributed_nusd), total: money(whole),
      cell: (row) => known(row.attributed_nusd, (value) => h('span', { title: moneyExact(value) }, money(value)), 'it ran on GPUs that nobody sampled or declared') },
    { key: 'tokens', label: 'Tokens', number: true, value: (row) => row.tokens, total: count(sum(rows, 'tokens')), cell: (row) => count(row.tokens) },
    { key: 'requests', label: 'Requests', number: true, value: (row) => row.requests, total: integer(sum(rows, 'requests')), cell: (row) => integer(row.requests) },
    { key: 'tenants', label: 'Tenants', cell: (row) => row.tenants.join(', ') },
  ];
  return card('By team', { id: 'teams', hint: `${rangeText(state)}, without filters. Attributed money of each team’s tenants while they belonged to it; idle money is nobody’s usage, and in no row.` },
    table({ id: 'team-rows', caption: 'Attributed money by team', columns, rows, totals: true, sort: { param: 'teams', params: state.params, initial: 'money.desc' } }));
}
