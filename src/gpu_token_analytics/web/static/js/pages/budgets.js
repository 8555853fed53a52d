/** Budgets: what may be spent in each period, what is, what it will come to, and who was told. */

import { get, post } from '../core/api.js';
import { h } from '../core/dom.js';
import { known, money, moneyExact, nusd, percent, usdForScale, worded } from '../core/format.js';
import { iso, moment } from '../core/time.js';
import { budgetForm } from '../parts/budgetform.js';
import { card, emptyPanel } from '../parts/feedback.js';
import { table } from '../parts/table.js';

const DAY_MS = 86_400_000;
const STATES = { sent: 'good', waiting: 'warn', failed: 'bad' };

export const title = 'Budgets';
export const filters = [];
export const ranged = false;

export async function load({ signal, me }) {
  const now = Math.floor(Date.now() / 60_000) * 60_000;
  const [answer, told, dimensions] = await Promise.all([
    get('budgets', {}, { signal }),
    me.tenant ? { alerts: [] } : get('budgets/alerts', { limit: 200 }, { signal }),
    get('dimensions', { from: iso(now - 30 * DAY_MS), to: iso(now) }, { signal }).catch(() => null),
  ]);
  return { ...answer, alerts: told.alerts, dimensions };
}

export function view({ state, me, refresh }, { budgets, receivers, alerts, dimensions, as_of: asOf }) {
  const admin = me.scopes.includes('admin');
  return [
    budgets.length === 0 ? emptyPanel('No budget is set', admin ? 'Set one below.' : 'Ask an administrator to set one.')
      : card('Budgets', { id: 'budgets', hint: `Each in its current period, as of ${moment(Date.parse(asOf), state.zone)}. Spent is what Costs say of that period: attributed money of a team, tenant or model, all money of the fleet.` },
        budgetTable(budgets, alerts, { state, admin, refresh })),
    me.tenant ? null : card('Told', { id: 'told', hint: receivers.length
      ? `Each threshold is told once in a period, to: ${receivers.join(', ')}.`
      : 'Nobody is set to be told: ALERT_WEBHOOK_URL, SMTP_HOST or ALERTMANAGER_URL of the api process. What there would be to tell is listed.' },
    alerts.length === 0 ? h('p', null, 'Nothing yet.') : alertTable(alerts, state)),
    me.tenant ? null : card('Set a budget', { id: 'set-budget', hint: 'One of the same name is replaced. Where its money is another, its thresholds are told anew.' },
      admin ? budgetForm({ zone: state.zone, dimensions, onSet: refresh })
        : h('p', { class: 'notice' }, 'This key may read budgets. Setting one needs a key with scope ', h('code', null, 'admin'), '.')),
  ];
}

function of(row) {
  return row.key === null ? 'the fleet' : `${row.scope} ${row.key}`;
}

function bar(row) {
  if (row.spent_nusd === null) return null;
  const limit = usdForScale(row.limit_nusd);
  const whole = Math.max(limit, usdForScale(row.spent_nusd), usdForScale(row.forecast?.nusd));
  const share = (value) => `${(100 * usdForScale(value)) / whole}%`;
  const over = nusd(row.spent_nusd) >= nusd(row.limit_nusd);
  return h('div', { class: `budget-bar${over ? ' over' : ''}`, 'aria-hidden': 'true', vars: {
    '--spent': share(row.spent_nusd), '--limit': share(row.limit_nusd), '--forecast': share(row.forecast?.nusd ?? row.spent_nusd) } });
}

function budgetTable(rows, alerts, { state, admin, refresh }) {
  const columns = [
    { key: 'name', label: 'Budget', value: (row) => row.name, cell: (row) => [row.name, h('span', { class: 'under' }, of(row))] },
    { key: 'used', label: 'Used', number: true, value: (row) => row.used_share, cell: (row) => known(row.used_share, (share) => h('span', { class: `badge ${share >= 1 ? 'bad' : share >= 0.8 ? 'warn' : 'good'}` }, percent(share)), 'the money spent is not known') },
    { key: 'spent', label: 'Spent', number: true, value: (row) => row.used_share, cell: (row) => [
      known(row.spent_nusd, (value) => h('span', { title: moneyExact(value) }, money(value)), 'all of it ran on GPUs that nobody sampled or declared'), bar(row)] },
    { key: 'limit', label: 'Limit', number: true, value: (row) => usdForScale(row.limit_nusd),
      cell: (row) => [money(row.limit_nusd), h('span', { class: 'under' }, `each ${row.period}`)] },
    { key: 'forecast', label: 'Forecast', number: true, value: (row) => (row.forecast ? usdForScale(row.forecast.nusd) / usdForScale(row.limit_nusd) : null),
      cell: (row) => known(row.forecast, (made) => [money(made.nusd), nusd(made.nusd) > nusd(row.limit_nusd) ? h('span', { class: 'badge warn' }, 'over') : null,
        h('span', { class: 'under' }, `${money(made.low_nusd)} to ${money(made.high_nusd)}, ${made.days} days seen`)], row.no_forecast) },
    { key: 'period', label: 'Period', value: (row) => row.to, cell: (row) => [`to ${moment(Date.parse(row.to), row.time_zone)}`,
      h('span', { class: 'under' }, `from ${moment(Date.parse(row.from), row.time_zone)}, ${row.time_zone}`)] },
    { key: 'told', label: 'Told', cell: (row) => {
      const told = alerts.filter((alert) => alert.budget === row.name && alert.from === row.from).reverse();
      return told.length ? told.map((alert) => [h('span', { class: 'badge' }, what(alert)), ' ']) : 'nothing yet';
    } },
    admin ? { key: 'remove', label: 'Remove', cell: (row) => h('button', { type: 'button', class: 'link', id: `remove-${row.name}`, 'aria-label': `Remove the budget ${row.name}`,
      onclick: async () => {
        if (!confirm(`Remove the budget ${row.name}? What was told of it stays listed.`)) return;
        await post('budgets/remove', { name: row.name }).catch((error) => { if (error.code !== 'not_found') throw error; });
        refresh();
      } }, 'Remove') } : null,
  ].filter(Boolean);
  return table({ id: 'budget-rows', caption: 'Budgets and how they stand', columns, rows, sort: { params: state.params, initial: 'used.desc' } });
}

function what(alert) {
  return alert.kind === 'forecast' ? 'forecast over limit' : `${alert.percent} % spent`;
}

function alertTable(rows, state) {
  const columns = [
    { key: 'at', label: 'When', value: (row) => row.raised_at, cell: (row) => moment(Date.parse(row.raised_at), state.zone) },
    { key: 'budget', label: 'Budget', value: (row) => row.budget, cell: (row) => row.budget },
    { key: 'what', label: 'What', cell: (row) => [what(row), h('span', { class: 'under' }, worded(row.sentence))] },
    { key: 'reached', label: 'Reached', cell: (row) => (row.deliveries.length === 0 ? 'nobody was set to be told' : row.deliveries.map((item) => h('div', null,
      h('span', { class: `badge ${STATES[item.state]}` }, `${item.receiver}: ${item.state}`),
      item.error ? h('span', { class: 'under' }, `${item.error}; ${item.attempts} attempts${item.next_at ? `, next ${moment(Date.parse(item.next_at), state.zone)}` : ''}`) : null))) },
  ];
  return table({ id: 'alert-rows', caption: 'What was told of budgets', columns, rows, sort: { param: 'told', params: state.params, initial: 'at.desc' }, limit: 20 });
}
