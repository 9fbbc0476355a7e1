// What a user is promised about time. It is printed whatever it was. A machine that has other work to do keeps nobody's
// promises, so a test fails only where it took four times as long; E2E_TIMES=strict holds each to the letter, on a quiet one.
import assert from 'node:assert/strict'

const patience = process.env.E2E_TIMES === 'strict' ? 1 : 4

/** How long to wait for what is promised within `limitMs`. */
export const waitFor = limitMs => limitMs * patience

/** Prints how long it took, and fails where that has nothing to do with the promise any more. */
export function promised (t, what, ms, limitMs) {
  t.diagnostic(`${what}: ${Math.round(ms)} ms (promised: ${limitMs})`)
  assert.ok(ms < waitFor(limitMs), `${what}: ${Math.round(ms)} ms, ${limitMs} were promised`)
}
