/** Break-even: own GPUs against the prices of an API, by model; who wins, and what would change it. The prices are in the address. */

import { get } from '../core/api.js';
import { costs } from '../core/costs.js';
import { h } from '../core/dom.js';
import { count, known, moneyExact, money, percent, rate, unit, usdForScale, worded } from '../core/format.js';
import { go, hrefWith } from '../core/state.js';
import { iso, rangeText } from '../core/time.js';
import { card, noCells } from '../parts/feedback.js';
import { field, text } from '../parts/form.js';
import { table } from '../parts/table.js';

const KINDS = ['input', 'cached', 'output'];
const OTHERS = '*';
const REASON = 'no tokens, or no API price';

export const title = 'Break-even';
export const filters = [];

export async function load({ state, signal }) {
  const summed = await costs(state, { groupBy: ['model'], signal });
  const prices = state.params.getAll('price');
  const answer = prices.length === 0 ? null : await get('break-even', { from: iso(state.range.from), to: iso(state.range.to), price: prices }, { signal });
  return { summed, answer };
}

export function view({ state }, { summed, answer }) {
  if (summed.rows.length === 0) return noCells(state);
  const models = summed.rows.map((row) => row.group.model).filter((model) => model !== null);
  return [
    answer ? answerCard(state, answer) : null,
    card('What the API charges', { id: 'api-prices', hint: 'USD per million tokens, as the price list of the API says. A model without prices has those of the last row; where that is empty, too, it has none.' },
      priceForm(state, models)),
  ];
}

function answerCard(state, { rows, own_usd_per_gpu_hour: own }) {
  const columns = [
    { key: 'model', label: 'Model', value: (row) => row.model, cell: (row) => [row.model ?? 'Everything, with all idle money', row.low_volume ? h('span', { class: 'flag' }, ' low volume') : null] },
    { key: 'winner', label: 'Winner', value: (row) => String(row.own_wins), cell: (row) => known(row.own_wins, (wins) => h('span', { class: `badge ${wins ? 'good' : 'warn'}` }, wins ? 'own GPUs' : 'the API'), row.saved_nusd === null ? REASON : 'both cost the same') },
    { key: 'own', label: 'Own', unit: unit('M'), number: true, value: (row) => row.own_usd_per_million, cell: (row) => known(row.own_usd_per_million, rate, 'no tokens in this range') },
    { key: 'api', label: 'API', unit: unit('M'), number: true, value: (row) => row.api_usd_per_million, cell: (row) => known(row.api_usd_per_million, rate, REASON) },
    { key: 'saved', label: 'Saved', number: true, value: (row) => usdForScale(row.saved_nusd), hint: 'API bill less own money; negative: the API is cheaper',
      cell: (row) => known(row.saved_nusd, (value) => h('span', { title: moneyExact(value) }, money(value)), REASON) },
    { key: 'now', label: 'Tokens/h now', number: true, value: (row) => row.tokens_per_hour, cell: (row) => known(row.tokens_per_hour, count, 'the range has not begun') },
    { key: 'even', label: 'Break-even tokens/h', number: true, value: (row) => row.break_even_tokens_per_hour, cell: (row) => known(row.break_even_tokens_per_hour, count, 'no API price') },
    { key: 'busy', label: 'Used now', number: true, value: (row) => row.utilization, cell: (row) => [known(row.utilization, percent, 'no money in this range'),
      row.break_even_utilization === null ? null : h('span', { class: 'under' }, `${percent(row.break_even_utilization)} needed`)] },
  ];
  return card('Own GPUs or the API', { id: 'answer', hint: `${rangeText(state)}, without filters. Own money of a model is attributed and its share of warm idle.${own === null ? '' : ` A GPU-hour cost ${rate(own)}.`}` },
    h('ul', { class: 'checked', id: 'sentences' }, rows.map((row) => h('li', null, worded(row.sentence)))),
    table({ id: 'break-even-rows', caption: 'Own GPUs against the API', columns, rows, sort: { params: state.params, initial: 'model.asc' } }));
}

function listed(state) {
  return new Map(state.params.getAll('price').map((item) => {
    const at = item.lastIndexOf('=');
    return [item.slice(0, at), item.slice(at + 1).split('/')];
  }));
}

function priceForm(state, models) {
  const held = listed(state);
  const rows = [...new Set([...models, ...[...held.keys()].filter((model) => model !== OTHERS)]), OTHERS];
  const message = h('div', { class: 'form-message', id: 'api-price-message', role: 'alert' });
  const name = (model) => (model === OTHERS ? 'Every other model' : model);
  return h('form', { class: 'price-form', id: `api-price-form-${state.params.getAll('price').join()}-${rows.join()}`, 'data-keep': true, onsubmit: (event) => {
    event.preventDefault();
    const { elements } = event.currentTarget;
    const given = rows.map((model, index) => [model, KINDS.map((kind) => elements[`${kind}-${index}`].value.trim())]).filter(([, amounts]) => amounts.some(Boolean));
    if (given.length === 0 || given.some(([, amounts]) => !amounts.every(Boolean))) {
      message.replaceChildren(h('p', { class: 'notice bad' }, 'Give input, cached and output together, for one row at least.'));
      return;
    }
    go(hrefWith({ price: given.map(([model, amounts]) => `${model}=${amounts.join('/')}`) }));
  } },
  rows.map((model, index) => h('fieldset', { class: 'form-row' }, h('legend', null, name(model)), KINDS.map((kind, place) => field(kind[0].toUpperCase() + kind.slice(1),
    text(`api-${kind}-${index}`, `${kind}-${index}`, { inputmode: 'decimal', pattern: '\\d{1,6}(\\.\\d{1,9})?', value: held.get(model)?.[place] ?? '' }))))),
  h('div', { class: 'form-actions' }, h('button', { type: 'submit', class: 'primary', id: 'api-price-submit' }, 'Compare')), message);
}
