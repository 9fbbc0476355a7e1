// What Loro does for the first time takes many times as long as later, since a browser compiles a function of WebAssembly
// when it is first called. So a newcomer, while it is still being connected to, takes updates of nobody's, and gives one.

import { LoroDoc } from 'loro-crdt'
import type { Replica } from './engine/replica.js'

/** A map with a value, a text, and a list with a map in it, as every version 1 of Loro reads them; each by another author. */
const UPDATES = [
  'bG9ybwAAAAAAAAAAAAAAADXdenMABEUAAQABARABAQAAAAAAAAABAQAAAAAABQEAAAEABgEEAQAAAggDa2V5A21hcAAOAQQCAQACAQACAQsCAQEABwUFdmFsdWU=',
  'bG9ybwAAAAAAAAAAAAAAADpTbaQABEAABAAEARABAgAAAAAAAAABAQAAAAAABQEAAAEABgEEAQIAAAUEdGV4dAAOAQQCAQACAQACAQUCAQQABQR0ZXh0',
  'bG9ybwAAAAAAAAAAAAAAALcxm7AABFAAAgACARABAwAAAAAAAAABAQAAAAAABQEAAAEACwIEAQEAAgQAAAAACQNrZXkEbGlzdAAPAQQDAwACAgQAAgQLAgQBAAsHAQkABQV2YWx1ZQ=='
]

/**
 * Goes through it in steps of some milliseconds. What it has read is of no use to anybody but a test. It is given its replicas,
 * so that it stands alone when it is loaded.
 */
export function * rehearsal (replicaOf: (doc: LoroDoc) => Replica): Generator<void, unknown[]> {
  const updates = UPDATES.map(update => Uint8Array.from(atob(update), character => character.charCodeAt(0)))
  const heard = updates.map(() => new LoroDoc())
  for (const [n, doc] of heard.entries()) {
    doc.subscribe(() => {})
    yield
    replicaOf(doc).import(updates[n] ?? new Uint8Array())
    yield
  }
  // What a first update does not take comes last.
  const read = heard.map(doc => doc.toJSON() as unknown)
  for (const [n, doc] of heard.entries()) {
    const replica = replicaOf(doc)
    replica.import(updates[n] ?? new Uint8Array())
    replica.spans([...replica.version].map(([peer, end]) => ({ peer, start: 0, end })))
    doc.free()
    yield
  }
  return read
}
