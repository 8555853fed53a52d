/**
 * In which currency the page shows its money. Figures stay whole nano-USD until they are written; then all of them are
 * converted at one rate: the one that holds at the end of the range, or now where a page has none.
 */

const ONE = 1_000_000_000n; // rates have nine decimals
const USD = { code: 'USD', prefix: '$', billionths: ONE, factor: 1 };

let shown = USD;

/** What money is written in: code, what stands before a figure, and what a USD is worth as a double. */
export function shownCurrency() {
  return shown;
}

/** Write money in a currency from now on. `row` is one of /v1/rates; null: USD. */
export function showIn(row) {
  shown = row ? { code: row.currency, prefix: prefixOf(row.currency), billionths: billionths(row.units_per_usd), factor: Number(row.units_per_usd) } : USD;
}

/** Nano-USD as billionths of the shown unit, rounded half to even. */
export function inShown(nano) {
  if (shown === USD) return nano;
  const product = nano * shown.billionths;
  const whole = product / ONE;
  const rest = product % ONE;
  const twice = 2n * (rest < 0n ? -rest : rest);
  return twice > ONE || (twice === ONE && whole % 2n !== 0n) ? whole + (product < 0n ? -1n : 1n) : whole;
}

/** Decimal text as billionths. */
export function billionths(text) {
  const [whole, part = ''] = String(text).split('.');
  return BigInt(whole + part.slice(0, 9).padEnd(9, '0'));
}

/** `€`, `CA$`, `CHF `: the same sign is never that of two currencies. */
function prefixOf(code) {
  const parts = new Intl.NumberFormat('en-US', { style: 'currency', currency: code }).formatToParts(0);
  const sign = parts.find(({ type }) => type === 'currency').value;
  return /[A-Z]$/.test(sign) ? `${sign}\u00a0` : sign;
}

/** The rows of a currency that hold in [from, to), in order: of each start the one added last. */
export function ratesIn(rates, currency, from, to) {
  const starts = new Map();
  for (const row of rates) {
    const at = Date.parse(row.valid_from);
    const held = starts.get(at);
    if (row.currency === currency && at < to && (!held || Date.parse(row.created_at) >= Date.parse(held.created_at))) starts.set(at, row);
  }
  const rows = [...starts].sort(([a], [b]) => a - b);
  return rows.filter((_, index) => index === rows.length - 1 || rows[index + 1][0] > from).map(([, row]) => row);
}
