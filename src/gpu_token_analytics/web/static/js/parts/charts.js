/** The charts: columns stacked by class, lines, sparklines, the strip of states. Each has its figures as a table too. */

import { h, s } from '../core/dom.js';
import { bucketLabel } from '../core/time.js';
import { frame, MARGIN, reader } from './axis.js';

const HEIGHT = 240;

function cursor(height) {
  return s('rect', { class: 'cursor', 'data-keep': true, y: MARGIN.top, height: height - MARGIN.top - MARGIN.bottom, x: 0, width: 0 });
}

/** The figures behind a chart, for those who read rather than look. */
function alternative({ id, title, starts, bucket, zone, series, format }) {
  return h('details', { class: 'more', id: `${id}-table` }, h('summary', null, 'Show as table'),
    h('div', { class: 'table-scroll', id: `${id}-table-scroll`, role: 'group', tabindex: '0', 'aria-label': `${title}, as a table` },
      h('table', { class: 'data' }, h('caption', { class: 'sr-only' }, title),
        h('thead', null, h('tr', null,
          h('th', { scope: 'col' }, 'Time'), series.map(({ label }) => h('th', { scope: 'col', class: 'number' }, label)))),
        h('tbody', null, starts.map((at, index) => h('tr', null, h('th', { scope: 'row' }, bucketLabel(at, bucket, zone)),
          series.map(({ values }) => h('td', { class: 'number' }, values[index] === null ? '–' : format(values[index])))))))));
}

function legend(series, sample) {
  return h('ul', { class: 'legend', 'aria-hidden': 'true' }, series.map((item) => h('li', null, sample(item), item.label)));
}

/** Columns stacked from the bottom. series: {key, label, values: (BigInt|number|null)[], heights: number[]}. */
export function stackedColumns({ id, title, starts, bucket, zone, series, format, tickFormat, onZoom }) {
  const totals = starts.map((_, index) => series.reduce((sum, { heights }) => sum + heights[index], 0));
  const max = Math.max(0, ...totals);
  const describe = (index) => series.filter(({ values }) => values[index]).map(({ label, values }) => [label, format(values[index])]);
  const { readout, handlers } = reader({ id, starts, bucket, zone, describe, onZoom });
  const draw = (width) => {
    const { group, x, y } = frame({ width, height: HEIGHT, starts, bucket, zone, max, tickFormat });
    const step = x(1) - x(0);
    const gap = step > 5 ? 1.5 : 0;
    const columns = starts.map((_, index) => {
      let below = 0;
      return series.map(({ key, heights }) => {
        if (!(heights[index] > 0)) return null;
        const low = y(below);
        below += heights[index];
        return s('rect', { class: 'part', fill: `url(#fill-${key})`, x: x(index) + gap / 2, width: Math.max(0.6, step - gap), y: y(below), height: Math.max(0.4, low - y(below)) });
      });
    });
    return s('svg', { class: 'chart', width, height: HEIGHT, role: 'img',
      'aria-label': `${title}. Arrow keys read it column by column; Enter zooms in.`,
      'aria-describedby': `${id}-readout`, ...handlers(x) }, group, columns, cursor(HEIGHT));
  };
  return h('figure', { class: 'figure-chart', id }, legend(series, ({ key }) => h('span', { class: `swatch fill-${key}` })),
    h('x-chart', { draw, vars: { '--height': `${HEIGHT}px` } }), readout, alternative({ id, title, starts, bucket, zone, series, format }));
}

/** Lines; a null breaks the line. Series differ in colour and dash, and are labelled at their end. */
export function lines({ id, title, starts, bucket, zone, series, format, tickFormat, onZoom, most = null }) {
  const all = series.flatMap(({ values }) => values.filter((value) => value !== null));
  const max = most ?? Math.max(0, ...all);
  const describe = (index) => series.map(({ label, values }) => [label, values[index] === null ? '–' : format(values[index])]);
  const { readout, handlers } = reader({ id, starts, bucket, zone, describe, onZoom });
  const draw = (width) => {
    const { group, x, y } = frame({ width, height: HEIGHT, starts, bucket, zone, max, tickFormat });
    const middle = (index) => (x(index) + x(index + 1)) / 2;
    const paths = series.map(({ values }, order) => {
      const runs = [];
      values.forEach((value, index) => {
        if (value === null) return;
        if (index === 0 || values[index - 1] === null) runs.push([]);
        runs[runs.length - 1].push([middle(index), y(value)]);
      });
      return runs.map((run) => (run.length === 1
        ? s('circle', { class: `line-${order % 6} dot`, cx: run[0][0], cy: run[0][1], r: 2.5 })
        : s('path', { class: `line line-${order % 6}`, d: `M${run.map(([left, top]) => `${left.toFixed(1)} ${top.toFixed(1)}`).join('L')}` })));
    });
    return s('svg', { class: 'chart', width, height: HEIGHT, role: 'img',
      'aria-label': `${title}. Arrow keys read it point by point; Enter zooms in.`,
      'aria-describedby': `${id}-readout`, ...handlers(x) }, group, paths, cursor(HEIGHT));
  };
  const sample = ({ order }) => s('svg', { class: 'sample', width: 26, height: 10 }, s('path', { class: `line line-${order % 6}`, d: 'M1 5L25 5' }));
  return h('figure', { class: 'figure-chart', id }, legend(series.map((item, order) => ({ ...item, order })), sample),
    h('x-chart', { draw, vars: { '--height': `${HEIGHT}px` } }), readout, alternative({ id, title, starts, bucket, zone, series, format }));
}

/** A small line without axes; decoration beside a figure that says the same. */
export function spark(values, { width = 96, height = 24 } = {}) {
  const knownValues = values.filter((value) => value !== null);
  if (knownValues.length < 2 || !(Math.max(...knownValues) > 0)) return h('span', { class: 'spark none', 'aria-hidden': 'true' });
  const max = Math.max(...knownValues);
  const points = [];
  let open = false;
  values.forEach((value, index) => {
    if (value === null) {
      open = false;
      return;
    }
    const left = (index / (values.length - 1)) * (width - 2) + 1;
    const top = height - 2 - (value / max) * (height - 4);
    points.push(`${open ? 'L' : 'M'}${left.toFixed(1)} ${top.toFixed(1)}`);
    open = true;
  });
  return s('svg', { class: 'spark', viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', 'aria-hidden': 'true', focusable: 'false' },
    s('path', { d: points.join('') }));
}
