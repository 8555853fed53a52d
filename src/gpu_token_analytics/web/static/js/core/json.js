/**
 * JSON whose integers stay exact. The API sends money as JSON integers of nano-USD; a double is exact only up to 2^53
 * (9 million USD), so longer integers become BigInt before JSON.parse would round them.
 */

const TOKEN = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g; // strings and numbers, whole
const LONG_INTEGER = /^-?\d{16,}$/;
const TAG = '\u0001int:'; // no string of the API begins with a control character

/** JSON.parse, with integers past 2^53 as BigInt. */
export function parseJson(text) {
  if (!/\d{16}/.test(text)) return JSON.parse(text);
  const tagged = text.replace(TOKEN, (token) => (LONG_INTEGER.test(token) ? `"\\u0001int:${token}"` : token));
  return JSON.parse(tagged, (_key, value) => {
    if (typeof value !== 'string' || !value.startsWith(TAG)) return value;
    const integer = BigInt(value.slice(TAG.length));
    const number = Number(integer);
    return Number.isSafeInteger(number) ? number : integer;
  });
}
