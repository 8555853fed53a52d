/** What could be given back, put together or scaled down, and what jumped: with money, and the way to the cells behind it. */

import { h } from '../core/dom.js';
import { known, money, moneyExact, usdForScale, worded } from '../core/format.js';
import { hrefTo } from '../core/state.js';
import { iso, moment } from '../core/time.js';
import { card } from './feedback.js';
import { table } from './table.js';

const KINDS = {
  give_back: 'Give back', put_together: 'Put together', scale_down: 'Scale down', price_jump: 'Price jumped', coverage_drop: 'Coverage fell', spend_jump: 'Spending jumped',
};

/** `answer` is that of /v1/hints; null: it could not be had. */
export function hintsCard(state, answer) {
  if (!answer) return null;
  const [week, to] = [answer.week_from, answer.to].map(Date.parse);
  const span = { range: null, from: iso(week), to: iso(to) };
  const link = (hint) => {
    if (hint.gpus.length > 0) return hint.gpus.slice(0, 3).map((gpu) => h('div', null, h('a', { href: hrefTo('gpus', { ...span, show: gpu }) }, gpu)));
    if (hint.kind === 'spend_jump') return h('a', { href: hrefTo(hint.models.length ? 'models' : 'tenants', { ...span, [hint.models.length ? 'model' : 'tenant']: hint.subject }) }, hint.subject);
    return h('a', { href: hrefTo('gpus', hint.kind === 'coverage_drop' ? { ...span, host: hint.subject } : { ...span, gpu_name: hint.subject }) }, hint.subject);
  };
  const exact = (value) => h('span', { title: moneyExact(value) }, money(value));
  const columns = [
    { key: 'kind', label: 'Hint', value: (row) => row.kind, cell: (row) => KINDS[row.kind] ?? row.kind },
    { key: 'week', label: 'Last 7 days', number: true, value: (row) => usdForScale(row.week_nusd), cell: (row) => known(row.week_nusd, exact, 'it is not about money') },
    { key: 'month', label: 'Last 30 days', number: true, value: (row) => usdForScale(row.month_nusd), cell: (row) => known(row.month_nusd, exact, 'a jump is of one day') },
    { key: 'says', label: 'What was seen', cell: (row) => h('span', { class: 'said' }, worded(row.sentence)) },
    { key: 'of', label: 'Behind it', class: 'behind', cell: (row) => [link(row), row.gpus.length > 3 ? h('span', { class: 'under' }, `and ${row.gpus.length - 3} more`) : null,
      h('details', null, h('summary', null, 'Cells'), h('code', { class: 'path' }, row.cells))] },
  ];
  return card('What to do', { id: 'hints', hint: `Of the 7 and 30 days to ${moment(to, state.zone)} (${answer.time_zone}), whatever range is chosen. Their money is warm and cold idle: what is unobserved is not known to be unused.` },
    answer.gpus_known < answer.gpus
      ? h('p', { id: 'hints-unknown' }, `Too little of the last 7 days is known of ${answer.gpus - answer.gpus_known} of ${answer.gpus} GPUs to say whether they are needed.`) : null,
    answer.hints.length === 0 ? (answer.gpus_known > 0 ? h('p', null, `Nothing stands out among ${answer.gpus_known} GPUs.`) : null)
      : table({ id: 'hint-rows', caption: 'Hints', columns, rows: answer.hints, sort: { param: 'hints', params: state.params, initial: 'week.desc' }, limit: 20 }),
    h('details', { class: 'more', id: 'hint-thresholds' }, h('summary', null, 'What decides'), h('ul', { class: 'checked' },
      answer.thresholds.map(({ says, value }) => h('li', null, `${says} `, h('strong', null, String(value)))))));
}
