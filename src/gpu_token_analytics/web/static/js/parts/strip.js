/**
 * A GPU's timeline as a strip: one column per minute or bucket. The class is in the height and pattern as well as in the
 * colour: attributed fills the strip, cold idle lies at its bottom, unobserved is hatched, no cell is a gap.
 */

import { s } from '../core/dom.js';
import { classOf } from './classes.js';

const HEIGHT = 20;

/** keys: a class per column, null: no cell. Equal neighbours are one rectangle: 800 strips stay cheap. */
export function strip(keys, label) {
  const runs = [];
  keys.forEach((key, index) => {
    const last = runs[runs.length - 1];
    if (last && last.key === key) last.length += 1;
    else runs.push({ key, start: index, length: 1 });
  });
  return s('svg', { class: 'strip', viewBox: `0 0 ${keys.length || 1} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img',
    'aria-label': label },
    s('line', { class: 'ground', x1: 0, x2: keys.length || 1, y1: HEIGHT - 0.5, y2: HEIGHT - 0.5 }),
    runs.filter(({ key }) => key !== null).map(({ key, start, length }) => {
      const tall = HEIGHT * classOf(key).level;
      return s('rect', { class: `of-${key}`, x: start, width: length, y: HEIGHT - tall, height: tall });
    }));
}

/** The strip in words: share of minutes by class. */
export function stripLabel(keys) {
  const counts = new Map();
  keys.forEach((key) => counts.set(key, (counts.get(key) ?? 0) + 1));
  const texts = [...counts].sort((a, b) => b[1] - a[1]).map(([key, count]) => `${key === null ? 'no cell' : classOf(key).label} ${count}`);
  return `${keys.length} minutes: ${texts.join(', ')}`;
}
