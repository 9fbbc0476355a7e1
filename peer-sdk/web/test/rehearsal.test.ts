import { decodeImportBlobMeta, LoroDoc } from 'loro-crdt'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { Door } from '../src/adapter'
import { DocumentReplica } from '../src/engine/replica'
import { Peer } from '../src/index'
import { rehearsal } from '../src/rehearsal'

/** A hub that is reached when the test says so. */
function hub (): { adapter: ConstructorParameters<typeof Peer>[0]['adapters'], answer: () => void } {
  let door: Door | undefined
  const port = { send: () => {}, close: () => {} }
  const dial = (given: Door): typeof port => {
    door = given
    return port
  }
  return { adapter: [{ kind: 'hub', name: 'hub', auth: new Uint8Array(), dial }], answer: () => { door?.open(65_536) } }
}

describe('the rehearsal', () => {
  it('reads what every kind of update holds, in several steps', () => {
    const steps = rehearsal(doc => new DocumentReplica(doc))
    let taken = 0
    let step = steps.next()
    for (; step.done !== true; step = steps.next()) taken++
    expect(step.value).toEqual([{ map: { key: 'value' } }, { text: 'text' }, { list: [{ key: 'value' }] }])
    expect(taken).toBeGreaterThan(5)
  })
})

describe('a document that is yet to be loaded', () => {
  beforeEach(() => { vi.useFakeTimers() })
  afterEach(() => {
    vi.restoreAllMocks()
    vi.useRealTimers()
  })

  it('is asked for once a hub is reached', async () => {
    const { adapter, answer } = hub()
    const load = vi.fn(async () => new LoroDoc())
    const peer = new Peer({ room: 'plan', tabs: false, adapters: adapter ?? [], doc: load })
    await vi.advanceTimersByTimeAsync(5)
    expect(load).not.toHaveBeenCalled()
    answer()
    await vi.advanceTimersByTimeAsync(0)
    expect(load).toHaveBeenCalledTimes(1)
    expect(peer.isOpen).toBe(true)
    void peer.close()
    await vi.advanceTimersByTimeAsync(5000)
  })

  it('is asked for after a moment where nobody answers, and rehearsed when nobody comes', async () => {
    const spy = vi.spyOn(LoroDoc.prototype, 'toJSON')
    const load = vi.fn(async () => new LoroDoc())
    const peer = new Peer({ room: 'plan', tabs: false, adapters: hub().adapter ?? [], doc: load })
    await vi.advanceTimersByTimeAsync(45)
    expect(load).not.toHaveBeenCalled()
    await vi.advanceTimersByTimeAsync(300)
    expect(load).toHaveBeenCalledTimes(1)
    expect(spy).toHaveBeenCalledTimes(3)
    void peer.close()
    await vi.advanceTimersByTimeAsync(5000)
  })

  it('is not rehearsed when somebody is there already', async () => {
    const spy = vi.spyOn(LoroDoc.prototype, 'toJSON')
    const { adapter, answer } = hub()
    const peer = new Peer({ room: 'plan', tabs: false, adapters: adapter ?? [], doc: async () => new LoroDoc() })
    answer()
    await vi.advanceTimersByTimeAsync(1000)
    expect(spy).not.toHaveBeenCalled()
    void peer.close()
    await vi.advanceTimersByTimeAsync(5000)
  })
})

describe('what an update covers', () => {
  it('is the same for a document with nothing in it, which does not read it twice', () => {
    const doc = new LoroDoc()
    const write = (text: string): Uint8Array => {
      const before = doc.version()
      doc.getText('t').push(text)
      doc.commit()
      return doc.export({ mode: 'update', from: before })
    }
    const updates = [write('hello'), write(' again')]
    for (const update of [...updates, doc.export({ mode: 'update' })]) {
      const said = decodeImportBlobMeta(update, false).partialEndVersionVector.toJSON()
      // The second one has to wait for the first.
      expect(new DocumentReplica(new LoroDoc()).import(update)).toMatchObject({ covers: said, pending: update === updates[1] })
    }
  })
})
