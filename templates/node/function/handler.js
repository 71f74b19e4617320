'use strict';

// Answers one call. event has method, path, query, headers and body (a Buffer). Return text, a Buffer, anything that
// is JSON, or { statusCode, headers, body }. A stream's or a generator's pieces are sent as they come:
//
//   return (async function* () {
//     for (let number = 0; number < 10; number++) yield `${number}\n`;
//   })();
//
// To be called without anybody waiting: pinnace invoke --async NAME, or POST /async-function/NAME; the answer then
// goes to the URL in the header X-Callback-Url.
module.exports = async (event) => {
  const name = event.body.toString().trim() || 'world';
  return `Hello, ${name}!\n`;
};
