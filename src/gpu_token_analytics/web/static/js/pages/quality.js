/** Quality: how far to trust the figures. Coverage, what may still change, what was refused and why, and the audit. */

import { get, getAll } from '../core/api.js';
import { selection } from '../core/costs.js';
import { h, marked } from '../core/dom.js';
import { axisMoney, integer, known, money, moneyExact, nusd, percent, unit, unknown, usdForScale } from '../core/format.js';
import { go, hrefTo, hrefWith } from '../core/state.js';
import { ago, moment, rangeText } from '../core/time.js';
import { lines, stackedColumns } from '../parts/charts.js';
import { classOf } from '../parts/classes.js';
import { card, noCells, tile, tiles } from '../parts/feedback.js';
import { table } from '../parts/table.js';
import { zoomer } from './overview.js';

const HOUR_MS = 3_600_000;
const CLOCK_WARNING_SECONDS = 5;
const OVERDUE_MS = 60_000; // a cell that is due is computed within seconds
const REASONS = {
  empty: 'No bytes.', too_large: 'More bytes than a record may have.', not_utf8: 'Not UTF-8 text.', nul_character: 'A NUL character in a string.',
  not_json: 'Not JSON.', too_deep: 'Nested too deep.', too_many_keys: 'Too many keys.', duplicate_key: 'The same key twice.',
  unknown_schema: 'The schema field names no known contract: update the consumer or fix the producer.',
  wrong_type: 'A field is missing or of the wrong type.', out_of_range: 'A value outside the contract.',
  inconsistent: 'Fields contradict each other, such as cached > prompt.', future_ts: 'Ahead of the broker’s clock: check the clock of that host.',
  id_conflict: 'The same event_id was stored before with other content.', refused_by_store: 'MongoDB refuses the document: look for a validator.',
};

export const title = 'Quality';
export const filters = [];

export async function load({ state, signal }) {
  const { from, to } = selection(state);
  const [quality, corrections, audit] = await Promise.all([
    get('quality', { from, to }, { signal }),
    getAll('ledger/corrections', { from, to, limit: 200 }, 'cells', { signal, most: 1000 }),
    get('audit', { from, to }, { signal }).catch((error) => {
      if (error.nearest) return error;
      throw error;
    }),
  ]);
  return { quality, corrections, audit };
}

export function view({ state }, { quality, corrections, audit }) {
  return [
    figures(quality, state),
    ...(Math.abs(quality.clock_skew_seconds) >= CLOCK_WARNING_SECONDS ? [h('p', { id: 'clock-skew', class: 'next' },
      `The clocks of this machine and of MongoDB differ by ${integer(Math.round(Math.abs(quality.clock_skew_seconds)))} s: set both by NTP.`)] : []),
    ...(quality.set_aside_count ? [setAside(quality)] : []),
    ...(quality.unknown_gpu_count || quality.unknown_gpu_tokens || quality.unknown_gpu_requests ? [unknownGpus(quality)] : []),
    ...(quality.shared_uuid_count ? [sharedUuids(quality)] : []),
    ...(quality.engine_count ? [engineCoverage(quality)] : []),
    quality.cells === 0 ? noCells(state) : [auditCard(audit), coverage(state, quality)],
    h('div', { class: 'pair' }, deadLetters(quality), correctionList(state, corrections.cells)),
  ];
}

function figures(quality, state) {
  const share = (value) => (quality.cells ? `${percent(value / quality.cells)} of ${integer(quality.cells)} cells` : null);
  const due = quality.oldest_due_at === null ? null : Date.parse(quality.oldest_due_at);
  const waiting = due !== null && due < Date.now() - OVERDUE_MS ? `oldest due ${ago(due)}` : 'no cell is overdue';
  return tiles(rangeText(state), { id: 'quality-figures', look: 'eight' },
    tile('Coverage', known(quality.coverage, percent, 'no owned GPU time in this range'),
      { id: 'q-coverage', sub: 'observed / owned GPU time' }),
    tile('Unobserved', known(quality.unobserved_share, percent, 'no money in this range'), { id: 'q-unobserved', sub: 'of all money' }),
    tile('Provisional', integer(quality.provisional_cells), { id: 'q-provisional', sub: share(quality.provisional_cells) }),
    tile('Corrected', integer(quality.corrected_cells), { id: 'q-corrected', sub: 'cells changed after they were final' }),
    tile('Late', known(quality.late_cells, integer, 'counted for ranges up to 2 days'),
      { id: 'q-late', sub: 'cells that changed over 10 minutes after their minute' }),
    tile('First token known', known(quality.first_token_known, percent, 'no attributed money'),
      { id: 'q-first', sub: `of attributed money: what ${unit('M')} input and output rest on` }),
    tile('Default price', known(quality.default_price_share, percent, 'no money in this range'),
      { id: 'q-default', sub: 'of all money: no price row or sample names these GPUs' }),
    tile('Waiting', integer(quality.cells_pending), { id: 'q-pending', sub: `cells of the range to compute; in the whole ledger, now: ${waiting}, ${sumsBehind(quality)}` }));
}

function unknownGpus(quality) {
  const columns = [
    { key: 'name', label: 'Named as', cell: ({ name }) => h('code', null, name) },
    { key: 'tenant', label: 'First by tenant', cell: ({ tenant }) => tenant },
    { key: 'may_be', label: 'May be', cell: ({ may_be: gpus }) => (gpus.length ? gpus.join(', ') : 'no GPU that is known') },
  ];
  return card('Unknown GPUs', { id: 'unknown-gpus' },
    h('p', null, `${integer(quality.unknown_gpu_requests)} requests of this range, ${integer(quality.unknown_gpu_tokens)} tokens, ran on GPUs that nobody `,
      'sampled or declared: their tokens count, their money is unknown. Run the agent there, or ',
      h('code', null, 'gpu-tokens gpus declare'), `. ${integer(quality.unknown_gpu_count)} names in all.`),
    table({ id: 'unknown-gpus-table', caption: 'Unknown GPUs', columns, rows: quality.unknown_gpus }));
}

function sharedUuids(quality) {
  const columns = [
    { key: 'uuid', label: 'UUID', cell: ({ uuid }) => h('code', null, uuid) },
    { key: 'gpus', label: 'Cards', cell: ({ gpus }) => gpus.join(', ') },
  ];
  return card('One UUID, several cards', { id: 'shared-uuids' },
    h('p', null, `${integer(quality.shared_uuid_count)} UUIDs were sampled on several hosts at once. Each host's card is paid, and a request `,
      'means the card on its own host. Give each card a UUID of its own.'),
    table({ id: 'shared-uuids-table', caption: 'One UUID, several cards', columns, rows: quality.shared_uuids }));
}

function engineCoverage(quality) {
  const columns = [
    { key: 'instance', label: 'Engine', cell: ({ instance, engine }) => [h('code', null, instance), ` ${engine}`] },
    { key: 'counted', label: 'Counted', number: true, cell: (row) => integer(row.counted_tokens) },
    { key: 'coverage', label: 'Explained', number: true, cell: (row) => known(row.coverage, percent, 'it counted nothing') },
    { key: 'unexplained', label: 'Unexplained', number: true, cell: (row) => integer(row.unexplained_tokens) },
    { key: 'more', label: 'Told beyond', number: true, cell: (row) => integer(row.more_tokens) },
    { key: 'to_do', label: 'What to do', cell: (row) => row.to_do ?? 'nothing' },
  ];
  return card('Engines', { id: 'engines' },
    h('p', null, 'Tokens by the engines’ own counters, and which part of them requests tell of. What no request explains is unmetered work, with a model ',
      `and without a tenant. ${integer(quality.engine_count)} engines in all.`),
    table({ id: 'engines-table', caption: 'Engines', columns, rows: quality.engines }));
}

function sumsBehind(quality) {
  if (!quality.sums_behind_since) return 'the sums hold all';
  const since = Date.parse(quality.sums_behind_since);
  return Date.now() - since < OVERDUE_MS ? 'the sums follow within seconds' : `the sums are behind for ${ago(since).replace(' ago', '')}`;
}

function setAside(quality) {
  const columns = [
    { key: 'document', label: 'Cell or sum', cell: ({ document }) => h('code', null, document) },
    { key: 'why', label: 'Refused because', cell: ({ why }) => why },
  ];
  return card('Set aside', { id: 'set-aside' },
    h('p', null, `${integer(quality.set_aside_count)} cells or sums that MongoDB refuses for good stay as they were; all else goes on.`),
    table({ id: 'set-aside-table', caption: 'Set aside', columns, rows: quality.set_aside }));
}

function auditCard(audit) {
  if (audit instanceof Error) {
    const { from, to } = audit.nearest;
    return card('Audit', { id: 'audit' }, h('p', null, audit.detail), h('button', { type: 'button', id: 'audit-nearest',
      onclick: () => go(hrefWith({ range: null, from, to })) }, 'Audit the newest part'));
  }
  const columns = [
    { key: 'cell', label: 'Cell', cell: ({ cell }) => h('code', null, cell) },
    { key: 'rule', label: 'Rule broken', cell: ({ rule }) => rule },
    { key: 'detail', label: 'Found', cell: ({ detail }) => detail },
  ];
  return card('Audit', {
    id: 'audit', hint: 'Checked now, from the stored cells.',
    aside: h('span', { class: audit.holds ? 'badge good' : 'badge bad' }, audit.holds ? '✓ holds' : `! ${audit.findings.length} findings`),
  },
  h('p', null, `${integer(audit.cells)} cells, `, h('b', { class: 'exact' }, moneyExact(audit.cost_nusd)), ' in all; lines sum to ',
    h('b', { class: 'exact' }, moneyExact(audit.lines_nusd)), ' attributed.'),
  h('ul', { class: 'checked' }, audit.checked.map((rule) => h('li', null, marked(rule)))),
  audit.findings.length ? table({ id: 'findings', caption: 'Findings', columns, rows: audit.findings }) : null,
  audit.holds ? null : h('p', { class: 'next' }, 'Run ',
    h('code', null, 'gpu-tokens audit'), ': it computes these cells again from raw events and says what differs.'));
}

function coverage(state, { hours, memory_unknown_share: share }) {
  const known = new Map(hours.map((hour) => [Date.parse(hour.hour), hour]));
  const starts = []; // of the whole range, in UTC as the API's: an hour without a cell is a gap
  for (let at = Math.floor(state.range.from / HOUR_MS) * HOUR_MS; at < state.range.to; at += HOUR_MS) starts.push(at);
  const common = { starts, bucket: '1h', zone: state.zone, onZoom: zoomer(state) };
  const lost = starts.map((at) => nusd(known.get(at)?.unobserved_nusd));
  return card('Coverage and unobserved money by hour',
    { id: 'coverage', hint: 'Unobserved money is paid for while no sample arrived: an agent that stopped, a host that is down.' },
    share ? h('p', { id: 'memory-unknown' }, `${percent(share)} of the GPU time is idle, classed without a memory reading: the driver gives`,
      ' none. It is warm idle for an hour after a request or while something runs, else cold idle; nothing needs repair.') : null,
    lines({ id: 'coverage-chart',
      title: 'Coverage by hour', most: 1, format: percent, tickFormat: (value) => `${Math.round(value * 100)} %`, ...common,
      series: [{ key: 'coverage', label: 'Coverage', values: starts.map((at) => known.get(at)?.coverage ?? null) }] }),
    stackedColumns({ id: 'unobserved-chart', title: 'Unobserved money by hour', format: money, tickFormat: axisMoney, ...common,
      series: [{ key: 'unobserved', label: classOf('unobserved').label, values: lost, heights: lost.map(usdForScale) }] }));
}

function deadLetters({ dead_letters: letters, dead_letters_topic: topic }) {
  const body = () => {
    if (letters === null) return h('p', null, unknown('this process cannot read the topic'), ' Not known: the api process has no connection to Kafka. Set KAFKA_BOOTSTRAP for it.');
    const rows = Object.entries(letters).sort((a, b) => b[1] - a[1]);
    if (rows.length === 0) return h('p', { class: 'hint' }, 'None: every record was accepted.');
    const most = Math.max(...rows.map(([, count]) => count));
    const columns = [
      { key: 'reason', label: 'Reason', cell: ([reason]) => [h('code', null, reason),
        h('span', { class: 'under' }, REASONS[reason] ?? '')] },
      { key: 'count', label: 'Records', number: true, cell: ([, count]) => integer(count),
        total: integer(rows.reduce((sum, [, count]) => sum + count, 0)) },
      { key: 'bar', label: 'Share', class: 'bar-cell', cell: ([, count]) => h('div', { class: 'row-bar', 'aria-hidden': 'true' },
        h('span', { class: 'fill-bad', vars: { '--length': String((count / most) * 100) } })) },
    ];
    columns[0].total = 'All';
    return table({ id: 'dead-letters', caption: 'Dead letters by reason', columns, rows, totals: true });
  };
  return card('Dead letters', { id: 'dead', wide: false, hint: h('span', null, 'Records in ',
    h('code', null, topic), ' now, whatever the range.') }, body());
}

function correctionList(state, cells) {
  const rows = cells.flatMap((cell) => cell.corrections.map((correction) => ({ cell, correction })));
  const columns = [
    { key: 'minute', label: 'Minute', cell: ({ cell }) => moment(Date.parse(cell.minute), state.zone) },
    { key: 'gpu', label: 'GPU', cell: ({ cell }) => h('a', { href: hrefTo('gpus', { show: cell.gpu }) }, cell.gpu) },
    { key: 'at', label: 'Corrected',
      cell: ({ correction }) => (correction.at ? moment(Date.parse(correction.at), state.zone) : unknown('not recorded')) },
    { key: 'moved', label: 'Moved', cell: ({ correction }) => Object.entries(correction.moved ?? {}).filter(([, delta]) => delta !== 0)
      .map(([key, delta]) => h('span', { class: 'moved' }, `${classOf(key)?.label ?? key} ${delta > 0 ? '+' : ''}${money(delta)}`)) },
  ];
  return card('Corrections',
    { id: 'corrections', wide: false, hint: 'Cells of the range changed after they were final. A correction moves money between classes; only a price changes the sum.' },
    rows.length ? table({ id: 'corrections-table', caption: 'Corrections', columns, rows }) : h('p', { class: 'hint' }, 'None in this range.'));
}
