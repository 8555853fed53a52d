/** What the charts over time share: the frame, ticks that fall on round values and round times, and the cursor. */

import { h, s } from '../core/dom.js';
import { bucketLabel, clock, day, parts } from '../core/time.js';

const STEPS_MINUTES = { '1m': [1, 2, 5, 10, 15, 30, 60, 120, 180], '1h': [60, 120, 180, 360, 720, 1440, 2880, 10080], '1d': [1440, 2880, 10080, 43200] };
const TICK_PX = 78;
export const MARGIN = { top: 10, right: 12, bottom: 24, left: 56 };

/** Round values from 0 up to and including the first one at or above `max`. */
export function valueTicks(max, wanted = 4) {
  if (!(max > 0)) return [0, 1];
  const rough = max / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((value) => value >= rough);
  const ticks = [];
  for (let index = 0; index === 0 || ticks[ticks.length - 1] < max * 0.999999; index += 1) ticks.push(index * step);
  return ticks;
}

/** Indices of the buckets that carry a time label. */
export function timeTicks(starts, bucket, zone, width) {
  const most = Math.max(2, Math.floor(width / TICK_PX));
  const minutes = starts.map((at) => {
    const { hour, minute, day: date } = parts(at, zone);
    return { ofDay: hour * 60 + minute, date };
  });
  for (const step of STEPS_MINUTES[bucket]) {
    const found = minutes.flatMap(({ ofDay, date }, index) => {
      const round = step <= 1440 ? ofDay % step === 0 : ofDay === 0 && (date - 1) % (step / 1440) === 0;
      return round ? [index] : [];
    });
    if (found.length <= most) return found.length ? found : [0];
  }
  return [0];
}

function tickText(at, bucket, zone) {
  const { hour, minute } = parts(at, zone);
  return bucket === '1d' || (hour === 0 && minute === 0) ? day(at, zone) : clock(at, zone);
}

/** Axes and grid; returns the group, the scale functions and the plot's size. */
export function frame({ width, height, starts, bucket, zone, max, tickFormat }) {
  const scale = tickFormat.scale?.() ?? 1;
  const labels = valueTicks(max * scale);
  const ticks = labels.map((value) => value / scale);
  const top = ticks[ticks.length - 1];
  const plot = { width: Math.max(40, width - MARGIN.left - MARGIN.right), height: height - MARGIN.top - MARGIN.bottom };
  const x = (index) => MARGIN.left + (plot.width * index) / Math.max(1, starts.length);
  const y = (value) => MARGIN.top + plot.height * (1 - value / top);
  const group = s('g', { class: 'frame', 'aria-hidden': 'true' },
    ticks.map((tick, index) => [
      s('line', { class: tick === 0 ? 'base' : 'grid', x1: MARGIN.left, x2: width - MARGIN.right, y1: y(tick), y2: y(tick) }),
      s('text', { class: 'tick', x: MARGIN.left - 8, y: y(tick) + 4, 'text-anchor': 'end' }, tickFormat(labels[index], labels[1])),
    ]),
    timeTicks(starts, bucket, zone, plot.width).map((index) => {
      const left = x(index);
      const anchor = left < MARGIN.left + 20 ? 'start' : left > width - MARGIN.right - 20 ? 'end' : 'middle';
      return [
        s('line', { class: 'notch', x1: left, x2: left, y1: MARGIN.top + plot.height, y2: MARGIN.top + plot.height + 4 }),
        s('text', { class: 'tick', x: left, y: height - 6, 'text-anchor': anchor }, tickText(starts[index], bucket, zone)),
      ];
    }));
  return { group, x, y, plot, top };
}

// Where each drawn chart is being read: outlives a refresh, because the drawing does (see morph).
const readings = new WeakMap();

/**
 * Pointer and keyboard reading of a chart: arrows move from bucket to bucket, a drag (or Enter on one bucket) zooms.
 * `describe(index)` gives [[label, value]...]. Returns handlers for the drawing and the readout line, which speaks only
 * when moved by keyboard.
 */
export function reader({ id, starts, bucket, zone, describe, onZoom }) {
  const line = () => document.getElementById(`${id}-readout`);
  const show = (index, svg, x, anchor) => {
    readings.set(svg, { at: index, anchor });
    line().replaceChildren(h('strong', null, bucketLabel(starts[index], bucket, zone)),
      ...describe(index).map(([label, value]) => h('span', { class: 'fact' }, `${label} `, h('b', null, value))));
    const [low, high] = [Math.min(index, anchor ?? index), Math.max(index, anchor ?? index) + 1];
    const cursor = svg.querySelector('.cursor');
    cursor.setAttribute('x', x(low));
    cursor.setAttribute('width', Math.max(1, x(high) - x(low)));
    cursor.classList.add('on');
  };
  const hide = (svg) => {
    readings.delete(svg);
    svg.querySelector('.cursor').classList.remove('on');
    line()?.replaceChildren();
  };
  const indexOf = (event, svg, x) => {
    const place = (event.clientX - svg.getBoundingClientRect().left - x(0)) / (x(starts.length) - x(0));
    return Math.min(starts.length - 1, Math.max(0, Math.floor(place * starts.length)));
  };
  const zoom = (low, high) => onZoom?.(starts[low], starts[high + 1] ?? null);
  const handlers = (x) => ({
    tabindex: '0',
    ...pointerHandlers({ show, hide, indexOf, zoom, x }),
    onkeydown: (event) => {
      const svg = event.currentTarget;
      const at = readings.get(svg)?.at ?? null;
      const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity }[event.key];
      if (event.key === 'Enter' && at !== null) zoom(at, at);
      if (event.key === 'Escape') hide(svg);
      if (step === undefined) return;
      event.preventDefault();
      line().setAttribute('aria-live', 'polite');
      const start = at ?? (step > 0 ? -1 : starts.length);
      show(Math.min(starts.length - 1, Math.max(0, start + step)), svg, x);
    },
  });
  const readout = h('p', { class: 'readout', id: `${id}-readout`, 'data-keep': true, 'aria-live': 'off' });
  return { readout, handlers };
}

function pointerHandlers({ show, hide, indexOf, zoom, x }) {
  return {
    onpointermove: (event) => {
      const svg = event.currentTarget;
      show(indexOf(event, svg, x), svg, x, readings.get(svg)?.anchor);
    },
    onpointerleave: (event) => hide(event.currentTarget),
    onblur: (event) => hide(event.currentTarget),
    onpointerdown: (event) => {
      const svg = event.currentTarget;
      if (event.pointerType === 'mouse' && event.button === 0) readings.set(svg, { at: null, anchor: indexOf(event, svg, x) });
    },
    onpointerup: (event) => {
      const svg = event.currentTarget;
      const [from, to] = [readings.get(svg)?.anchor, indexOf(event, svg, x)];
      readings.delete(svg);
      if (from !== undefined && Math.abs(to - from) >= 1) zoom(Math.min(from, to), Math.max(from, to));
    },
  };
}
