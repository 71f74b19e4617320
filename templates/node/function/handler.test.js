'use strict';

const assert = require('node:assert');
const test = require('node:test');

const handle = require('./handler');

test('greets whoever is named', async () => {
  assert.equal(await handle({ body: Buffer.from('Ada\n') }), 'Hello, Ada!\n');
});
