// What the page was given: JSON, with each large array as base64 of little-endian floats.
'use strict';

const DATA = JSON.parse(document.getElementById('data').textContent);

// { dtype, shape, values: nested lists | base64 } -> { shape, data: Float64Array }
function unpack({ dtype, shape, values, base64 }) {
  if (values !== undefined) return { shape, data: Float64Array.from([values].flat(Infinity)) };
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const numbers = dtype === 'float32' ? new Float32Array(bytes.buffer) : new Float64Array(bytes.buffer);
  return { shape, data: Float64Array.from(numbers) };
}

const unpackAll = (arrays) => Object.fromEntries(Object.entries(arrays).map(([name, array]) => [name, unpack(array)]));
