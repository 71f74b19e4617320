// Calls function/handler.js for each request. It listens for the watchdog on 127.0.0.1:5000.
'use strict';

const http = require('node:http');
const { Readable } = require('node:stream');
const { pipeline } = require('node:stream/promises');

async function bodyOf(request) {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  return Buffer.concat(pieces);
}

// What a handler returned, as a status, headers and a body.
function answerOf(returned) {
  const isWhole = returned !== null && typeof returned === 'object' && ('statusCode' in returned || 'body' in returned);
  const { statusCode = 200, headers = {}, body } = isWhole ? returned : { body: returned };
  const kind = (type, content) => ({ status: statusCode, headers: { 'content-type': type, ...lower(headers) }, body: content });
  if (body === undefined || body === null) return { status: statusCode, headers, body: '' };
  if (Buffer.isBuffer(body) || body instanceof Uint8Array) return kind('application/octet-stream', body);
  if (typeof body === 'string') return kind('text/plain; charset=utf-8', body);
  if (typeof body[Symbol.asyncIterator] === 'function' || typeof body.next === 'function') {
    return kind('text/plain; charset=utf-8', Readable.from(body));
  }
  return kind('application/json', JSON.stringify(body));
}

function lower(headers) {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}

async function serve(handler, request, response) {
  try {
    const url = new URL(request.url, 'http://localhost');
    const event = {
      method: request.method,
      path: url.pathname,
      query: Object.fromEntries(url.searchParams),
      headers: request.headers,
      body: await bodyOf(request),
    };
    const { status, headers, body } = answerOf(await handler(event));
    if (body instanceof Readable) {
      response.writeHead(status, headers);
      await pipeline(body, response);
      return;
    }
    const bytes = Buffer.from(body);
    response.writeHead(status, status === 204 || status === 304 ? headers : { ...headers, 'content-length': bytes.length });
    response.end(bytes);
  } catch (error) {
    console.error(error);
    // Once the status is sent, only a connection that breaks off says that the answer is not whole.
    if (response.headersSent) return void response.destroy();
    response.writeHead(500, { 'content-type': 'text/plain' });
    response.end('the handler failed; its log says why\n');
  }
}

function server(handler) {
  const made = http.createServer((request, response) => serve(handler, request, response));
  made.keepAliveTimeout = 0;
  made.requestTimeout = 0;
  return made;
}

if (require.main === module) {
  process.on('SIGTERM', () => process.exit(0));
  server(require('./function/handler')).listen(process.env.http_port || 5000, '127.0.0.1', 1024);
}

module.exports = { server };
