/** The form that says who owns a model, GPU or host. */

import { h } from '../core/dom.js';
import { fromInput, iso, moment } from '../core/time.js';
import { bookForm, field, select, text } from './form.js';

const SCOPES = [['host', 'One host'], ['gpu', 'One GPU'], ['model', 'A model'], ['default', 'Everything else (default)']];
const KNOWN = { host: 'hosts', gpu: 'gpus', model: 'models' };

/** `onStored()` runs after a row was stored. */
export function ownerForm({ zone, dimensions, onStored }) {
  const keys = h('datalist', { id: 'owner-keys' });
  const key = text('owner-key', 'key', { list: 'owner-keys' });
  const keyField = field('Which one', key);
  return bookForm({
    id: 'owner-form', route: 'owners', onStored,
    rows: [
      [field('Owner of', select('owner-scope', 'scope', SCOPES)), keyField, keys, field('Team', text('owner-team', 'team')), field('Cost centre (optional)', text('owner-centre', 'cost_centre'))],
      [field(`From (${zone}, optional)`, h('input', { id: 'owner-from', name: 'from', type: 'datetime-local', step: '1800' }), 'left out: for all its history; on a half hour')],
    ],
    adapt: (form) => {
      const scope = form.elements.scope.value;
      keyField.hidden = scope === 'default';
      key.required = scope !== 'default';
      keys.replaceChildren(...(dimensions?.[KNOWN[scope]] ?? []).map((name) => h('option', { value: name })));
    },
    read: (value) => ({
      scope: value('scope'), key: value('scope') === 'default' ? null : value('key'), team: value('team') || null, cost_centre: value('cost_centre') || null,
      valid_from: value('from') ? iso(fromInput(value('from'), zone)) : '1970-01-01T00:00:00Z',
    }),
    said: (row) => `Said: ${row.key ?? 'everything else'} belongs to ${[row.team, row.cost_centre].filter(Boolean).join(' of ') || 'nobody'}${Date.parse(row.valid_from) > 0 ? ` from ${moment(Date.parse(row.valid_from), zone)}` : ''}.`,
  });
}
