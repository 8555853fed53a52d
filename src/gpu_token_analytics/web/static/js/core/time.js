/** Time ranges and clocks in a chosen time zone. Times are milliseconds since 1970; ranges are [from, to), whole minutes. */

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

export const PRESETS = [
  { key: '15m', label: 'Last 15 minutes', ms: 15 * MINUTE },
  { key: '1h', label: 'Last hour', ms: HOUR },
  { key: '6h', label: 'Last 6 hours', ms: 6 * HOUR },
  { key: '24h', label: 'Last 24 hours', ms: DAY },
  { key: 'today', label: 'Today' },
  { key: 'yesterday', label: 'Yesterday' },
  { key: '7d', label: 'Last 7 days', ms: 7 * DAY },
  { key: '30d', label: 'Last 30 days', ms: 30 * DAY },
  { key: 'week', label: 'This week' },
  { key: 'lastweek', label: 'Last week' },
  { key: 'month', label: 'This month' },
  { key: 'lastmonth', label: 'Last month' },
];
/** Presets that are over: their end does not follow the clock. */
export const OVER = ['yesterday', 'lastweek', 'lastmonth'];
export const DEFAULT_PRESET = '24h';
export const BUCKET_MS = { '1m': MINUTE, '1h': HOUR, '1d': DAY };

/** The browser's zone. */
export function localZone() {
  return Intl.DateTimeFormat().resolvedOptions().timeZone || 'UTC';
}

const formats = new Map();
function format(zone, options) {
  const key = zone + JSON.stringify(options);
  if (!formats.has(key)) formats.set(key, new Intl.DateTimeFormat('en-GB', { timeZone: zone, hourCycle: 'h23', ...options }));
  return formats.get(key);
}

/** Whether the browser knows the zone. */
export function isZone(zone) {
  try {
    format(zone, {});
    return true;
  } catch {
    return false;
  }
}

/** Year, month (1-12), day, hour, minute of an instant in a zone. */
export function parts(ms, zone) {
  const found = {};
  const numeric = { year: 'numeric', month: 'numeric', day: 'numeric', hour: 'numeric', minute: 'numeric' };
  for (const { type, value } of format(zone, numeric).formatToParts(ms)) found[type] = Number(value);
  return found;
}

/** The instant of a wall clock reading in a zone; a reading that a clock change skips gives the instant after it. */
export function instant({ year, month, day, hour = 0, minute = 0 }, zone) {
  const wanted = Date.UTC(year, month - 1, day, hour, minute);
  let guess = wanted;
  for (let round = 0; round < 2; round += 1) {
    const seen = parts(guess, zone);
    guess += wanted - Date.UTC(seen.year, seen.month - 1, seen.day, seen.hour, seen.minute);
  }
  return guess;
}

function midnight(ms, zone, addDays = 0) {
  const { year, month, day } = parts(ms, zone);
  const shifted = new Date(Date.UTC(year, month - 1, day + addDays));
  return instant({ year: shifted.getUTCFullYear(), month: shifted.getUTCMonth() + 1, day: shifted.getUTCDate() }, zone);
}

function sinceMonday(ms, zone) {
  const { year, month, day } = parts(ms, zone);
  return (new Date(Date.UTC(year, month - 1, day)).getUTCDay() + 6) % 7;
}

/** A preset as {from, to}. Days and longer start on a whole hour: those sums are the quickest to read. */
export function presetRange(key, zone, now = Date.now()) {
  const minute = Math.floor(now / MINUTE) * MINUTE;
  const later = (from) => ({ from, to: Math.max(minute, from + MINUTE) });
  if (key === 'today') return later(midnight(now, zone));
  if (key === 'yesterday') return { from: midnight(now, zone, -1), to: midnight(now, zone) };
  if (key === 'week' || key === 'lastweek') {
    const monday = midnight(now, zone, -sinceMonday(now, zone));
    return key === 'week' ? later(monday) : { from: midnight(now, zone, -sinceMonday(now, zone) - 7), to: monday };
  }
  if (key === 'month' || key === 'lastmonth') {
    const { year, month } = parts(now, zone);
    const first = instant({ year, month, day: 1 }, zone);
    return key === 'month' ? later(first) : { from: instant(month === 1 ? { year: year - 1, month: 12, day: 1 } : { year, month: month - 1, day: 1 }, zone), to: first };
  }
  const { ms } = PRESETS.find((preset) => preset.key === key) ?? PRESETS.find((preset) => preset.key === DEFAULT_PRESET);
  const from = ms >= DAY ? Math.floor((minute - ms) / HOUR) * HOUR : minute - ms;
  return { from, to: minute };
}

/** The bucket that gives a readable number of columns. */
export function autoBucket({ from, to }) {
  if (to - from <= 6 * HOUR) return '1m';
  return to - from <= 8 * DAY ? '1h' : '1d';
}

/** Starts of the buckets that meet [from, to), in the zone. */
export function bucketStarts({ from, to }, bucket, zone) {
  const found = [];
  if (bucket === '1d') {
    for (let at = midnight(from, zone); at < to; at = midnight(at + 36 * HOUR, zone)) found.push(at);
    return found;
  }
  const step = BUCKET_MS[bucket];
  const first = bucket === '1h' ? from - parts(from, zone).minute * MINUTE : from;
  for (let at = first; at < to; at += step) found.push(at);
  return found;
}

/** RFC 3339 in UTC with whole seconds, as the API takes it. */
export function iso(ms) {
  return new Date(ms).toISOString().replace('.000Z', 'Z');
}

/** `14:05`. */
export function clock(ms, zone) {
  return format(zone, { hour: '2-digit', minute: '2-digit' }).format(ms);
}

/** `31 Jan`. */
export function day(ms, zone) {
  return format(zone, { day: 'numeric', month: 'short' }).format(ms);
}

/** `31 Jan 2026`, where a year is not plain. */
function dated(ms, zone) {
  return format(zone, { day: 'numeric', month: 'short', year: 'numeric' }).format(ms);
}

/** `31 Jan 2026, 14:05`; with `seconds`, `14:05:09`. */
export function moment(ms, zone, seconds = false) {
  const options = { day: 'numeric', month: 'short', year: 'numeric', hour: '2-digit', minute: '2-digit' };
  return format(zone, seconds ? { ...options, second: '2-digit' } : options).format(ms);
}

/** The selection's range in words. */
export function rangeText({ preset, range, zone }) {
  if (preset) return PRESETS.find(({ key }) => key === preset).label;
  const sameDay = midnight(range.from, zone) === midnight(range.to, zone);
  const date = [range.from, range.to, Date.now()].every((at, _, all) => parts(at, zone).year === parts(all[0], zone).year) ? day : dated;
  return `${date(range.from, zone)} ${clock(range.from, zone)} – ${sameDay ? '' : `${date(range.to, zone)} `}${clock(range.to, zone)}`;
}

/** A bucket's name: `14:05`, `31 Jan 14:00` or `31 Jan`. */
export function bucketLabel(ms, bucket, zone) {
  if (bucket === '1d') return day(ms, zone);
  return bucket === '1h' ? `${day(ms, zone)} ${clock(ms, zone)}` : clock(ms, zone);
}

/** `2 min ago`. */
export function ago(ms, now = Date.now()) {
  const seconds = Math.max(0, Math.round((now - ms) / 1000));
  if (seconds < 90) return `${seconds} s ago`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min ago`;
  return seconds < 36 * 3600 ? `${Math.round(seconds / 3600)} h ago` : `${Math.round(seconds / 86400)} days ago`;
}

/** For `<input type="datetime-local">`: the wall clock in the zone. */
export function toInput(ms, zone) {
  const { year, month, day: date, hour, minute } = parts(ms, zone);
  const two = (value) => String(value).padStart(2, '0');
  return `${year}-${two(month)}-${two(date)}T${two(hour)}:${two(minute)}`;
}

/** The other way; null when it is not a time. */
export function fromInput(text, zone) {
  const match = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d)/.exec(text);
  if (!match) return null;
  const [year, month, date, hour, minute] = match.slice(1).map(Number);
  return instant({ year, month, day: date, hour, minute }, zone);
}
