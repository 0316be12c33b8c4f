// What the page was given: JSON, with each large array as base64 of little-endian floats.
'use strict';

const DATA = JSON.parse(document.getElementById('data').textContent);

// { shape, float32 | float64: base64 } -> { shape, data: Float64Array }
function unpack(array) {
  const bytes = Uint8Array.from(atob(array.float32 ?? array.float64), (letter) => letter.charCodeAt(0));
  const numbers = array.float32 ? new Float32Array(bytes.buffer) : new Float64Array(bytes.buffer);
  return { shape: array.shape, data: Float64Array.from(numbers) };
}

const unpackLayer = (layer) => ({
  ...layer,
  parameters: Object.fromEntries(Object.entries(layer.parameters).map(([name, array]) => [name, unpack(array)])),
});
