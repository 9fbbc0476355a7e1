import assert from 'node:assert/strict'
import { it } from 'node:test'
import { allowedLicences, exceptions, refusal, satisfied } from './licences.mjs'

const registry = 'registry+https://github.com/rust-lang/crates.io-index'
const allowed = allowedLicences('[bans]\nallow = ["No"]\n[licenses]\nversion = 2\nallow = [\n  "MIT", # "Not-This"\n  "ISC",\n  "Apache-2.0 WITH LLVM-exception",\n]\n[sources]\n')

it('the allow-list is read from its own section, without comments', () => {
  assert.deepEqual([...allowed], ['MIT', 'ISC', 'Apache-2.0 WITH LLVM-exception'])
  assert.throws(() => allowedLicences('[licenses]\nversion = 2\n'))
})

it('an expression holds when what is allowed is enough for it', () => {
  for (const fine of ['MIT', 'MIT OR GPL-3.0', 'GPL-3.0/MIT', 'GPL-3.0 OR (MIT AND ISC)', 'Apache-2.0 WITH LLVM-exception', '(MIT)']) {
    assert.ok(satisfied(fine, allowed), fine)
  }
  for (const wrong of ['', 'GPL-3.0', 'MIT AND GPL-3.0', 'GPL-3.0 OR (MIT AND MPL-2.0)', 'Apache-2.0', 'MIT WITH LLVM-exception', 'MIT MIT', '(MIT', 'MIT AND']) {
    assert.ok(!satisfied(wrong, allowed), wrong)
  }
})

it('a crate without a licence, or from elsewhere, is refused', () => {
  const crate = { name: 'a', version: '1.0.0', license: 'MIT', source: registry }
  assert.equal(refusal(crate, allowed), undefined)
  assert.equal(refusal({ ...crate, source: null }, allowed), undefined)
  assert.match(refusal({ ...crate, license: null }, allowed), /names no licence/)
  assert.match(refusal({ ...crate, license: 'GPL-3.0' }, allowed), /not allowed/)
  assert.match(refusal({ ...crate, source: 'git+https://example.com/a' }, allowed), /comes from/)
})

it('an exception holds for its crate alone', () => {
  const excepted = exceptions('[licenses]\nallow = ["MIT"]\nexceptions = [\n  { allow = ["MPL-2.0"], crate = "a" },\n]\n')
  const crate = { name: 'a', version: '1.0.0', license: 'MPL-2.0+', source: registry }
  assert.equal(refusal(crate, allowed, excepted), undefined)
  assert.match(refusal({ ...crate, name: 'b' }, allowed, excepted), /not allowed/)
  assert.equal(exceptions('[licenses]\nallow = ["MIT"]\n').size, 0)
})
