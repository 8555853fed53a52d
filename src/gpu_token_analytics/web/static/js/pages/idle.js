/** Idle: what nobody used, by who owns it; shared out among teams on request; what to do about it; who owns what. */

import { get } from '../core/api.js';
import { h } from '../core/dom.js';
import { known, money, moneyExact, sumNusd, usdForScale } from '../core/format.js';
import { iso, moment, rangeText } from '../core/time.js';
import { IDLE } from '../parts/classes.js';
import { card, choice, chosen, noCells } from '../parts/feedback.js';
import { hintsCard } from '../parts/hints.js';
import { ownerForm } from '../parts/ownerform.js';
import { table } from '../parts/table.js';

const SHARES = [{ key: '', label: 'Not shared' }, { key: 'by_use', label: 'By use' }, { key: 'evenly', label: 'Evenly' }, { key: 'to_owner', label: 'To the owner' }];
const SCOPES = { model: 'a model', gpu: 'one GPU', host: 'one host', default: 'everything else' };

export const title = 'Idle';
export const filters = [];

export async function load({ state, signal }) {
  const range = { from: iso(state.range.from), to: iso(state.range.to) };
  const [hints, idle, book] = await Promise.all([
    hintsOf(state, signal),
    get('owners/idle', { ...range, share: chosen('share', SHARES, state.params) || null }, { signal }),
    get('owners', {}, { signal }),
  ]);
  return { hints, idle, book };
}

/** Hints are an extra here: the page stands without them (a very large fleet may be refused). */
async function hintsOf(state, signal) {
  try {
    return await get('hints', { time_zone: state.zone }, { signal });
  } catch (error) {
    if (error.name === 'AbortError' || error.status === 401) throw error;
    return null;
  }
}

export function view({ state, me, dimensions, refresh }, { hints, idle, book }) {
  return [
    idle.rows.length === 0 ? noCells(state) : [ownerCard(state, idle), sharedCard(state, idle)],
    hintsCard(state, hints),
    card('Owners', { id: 'owners', hint: 'Of a model, a GPU, its host and the default, the first that has an owner holds: who keeps a model loaded pays for its idling. Rows are never edited; a later one takes over.' },
      book.owners.length === 0 ? h('p', null, 'No owner is named yet.') : bookTable(state, book.owners),
      me.scopes.includes('admin') ? ownerForm({ zone: state.zone, dimensions, onStored: refresh })
        : h('p', { class: 'notice' }, 'This key may read owners. Naming one needs a key with scope ', h('code', null, 'admin'), '.')),
  ];
}

function exact(value) {
  return h('span', { title: moneyExact(value) }, money(value));
}

function ownerCard(state, { rows, idle_nusd: whole, unmetered_work_nusd: unmetered }) {
  const columns = [
    { key: 'owner', label: 'Owner', value: (row) => row.owner, total: 'All',
      cell: (row) => [row.owner ?? (row.cost_centre === null ? 'No owner' : ''), row.cost_centre === null ? null : h('span', { class: 'under' }, row.cost_centre)] },
    { key: 'idle', label: 'Idle', number: true, value: (row) => usdForScale(row.idle_nusd), total: exact(whole), cell: (row) => exact(row.idle_nusd) },
    ...IDLE.map(({ key, label, hint }) => ({ key, label, hint, number: true, value: (row) => usdForScale(row[`${key}_nusd`]), cell: (row) => exact(row[`${key}_nusd`]),
      total: exact(sumNusd(rows.map((row) => row[`${key}_nusd`]))) })),
    { key: 'unmetered', label: 'Unmetered work', hint: 'Busy without a known request: not idle.', number: true, value: (row) => usdForScale(row.unmetered_work_nusd), total: exact(unmetered),
      cell: (row) => exact(row.unmetered_work_nusd) },
    { key: 'hours', label: 'GPU-hours', number: true, value: (row) => row.gpu_seconds,
      total: rows.some((row) => row.gpu_seconds !== null) ? (rows.reduce((sum, row) => sum + (row.gpu_seconds ?? 0), 0) / 3600).toFixed(1) : null,
      cell: (row) => known(row.gpu_seconds, (seconds) => (seconds / 3600).toFixed(1), 'it owns models here, no GPU') },
  ];
  return card('Idle money by owner', { id: 'idle-by-owner', hint: `${rangeText(state)}. Warm, cold and unobserved, of each owner while it was the owner.` },
    table({ id: 'idle-owners', caption: 'Idle money by owner', columns, rows, totals: true, sort: { param: 'owners', params: state.params, initial: 'idle.desc' } }));
}

function sharedCard(state, { shared_out: shared }) {
  const aside = choice({ id: 'share', label: 'How idle money is shared out', param: 'share', options: SHARES, params: state.params });
  const heading = 'Shared out among teams';
  if (!shared) return card(heading, { id: 'shared', aside }, h('p', { class: 'hint' }, 'Idle money is nobody’s use. Choose a rule to see it beside what each team used; nothing stored changes by it.'));
  const columns = [
    { key: 'team', label: 'Team', value: (row) => row.team, total: 'All', cell: (row) => row.team ?? 'Nobody’s, or of no team' },
    { key: 'used', label: 'Attributed', number: true, value: (row) => usdForScale(row.attributed_nusd), total: exact(shared.attributed_nusd), cell: (row) => exact(row.attributed_nusd) },
    { key: 'shared', label: 'Shared idle', number: true, value: (row) => usdForScale(row.shared_idle_nusd), total: exact(shared.shared_idle_nusd), cell: (row) => exact(row.shared_idle_nusd) },
    { key: 'both', label: 'Both', number: true, value: (row) => usdForScale(row.with_shared_idle_nusd), total: exact(BigInt(shared.attributed_nusd) + BigInt(shared.shared_idle_nusd)),
      cell: (row) => exact(row.with_shared_idle_nusd) },
  ];
  return card(heading, { id: 'shared', aside, hint: `${rangeText(state)}. ${shared.says} Shared idle money is a way to look at it, never a part of attributed money.` },
    table({ id: 'shared-rows', caption: 'Idle money shared out among teams', columns, rows: shared.rows, totals: true, sort: { param: 'teams', params: state.params, initial: 'both.desc' } }));
}

function bookTable(state, rows) {
  const columns = [
    { key: 'of', label: 'Of', value: (row) => `${row.scope} ${row.key ?? ''}`, cell: (row) => [row.key ?? SCOPES.default, row.key ? h('span', { class: 'under' }, SCOPES[row.scope]) : null] },
    { key: 'owner', label: 'Owner', value: (row) => row.team, cell: (row) => [row.team ?? (row.cost_centre === null ? 'nobody' : ''), row.cost_centre === null ? null : h('span', { class: 'under' }, row.cost_centre)] },
    { key: 'from', label: 'From', value: (row) => row.valid_from, cell: (row) => (Date.parse(row.valid_from) <= 0 ? 'the beginning' : moment(Date.parse(row.valid_from), state.zone)) },
    { key: 'source', label: 'Added', value: (row) => row.created_at, cell: (row) => [moment(Date.parse(row.created_at), state.zone), h('span', { class: 'under' }, `by ${row.source}`)] },
  ];
  return table({ id: 'owner-rows', caption: 'Who owns what', columns, rows, sort: { param: 'book', params: state.params, initial: 'from.desc' } });
}
