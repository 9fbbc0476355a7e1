import 'fake-indexeddb/auto'
import { IDBFactory } from 'fake-indexeddb'
import { LoroDoc } from 'loro-crdt'
import { CrdtType, encode, MessageType } from 'loro-protocol'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { indexedDB, Peer, type PeerEvent, PresenceTooLarge, RoomNameError, type Storage } from '../src/index'

interface Shown { name: string }
const peers: Array<Peer<Shown>> = []
let rooms = 0

function start (options: Partial<ConstructorParameters<typeof Peer<Shown>>[0]> = {}): Peer<Shown> {
  const peer = new Peer<Shown>({ room: `room ${rooms}`, ...options })
  peers.push(peer)
  return peer
}

async function until (what: string, holds: () => boolean): Promise<void> {
  await vi.waitFor(() => { if (!holds()) throw new Error(`${what}: not yet`) }, { timeout: 8000, interval: 5 })
}

const write = (doc: LoroDoc, text: string): void => {
  doc.getText('t').push(text)
  doc.commit()
}
/** A frame that asks for the document. */
const asks = (roomId: string): Uint8Array =>
  encode({ type: MessageType.JoinRequest, crdt: CrdtType.Loro, roomId, auth: new Uint8Array(), version: new Uint8Array() })
const text = ({ doc }: Peer<Shown>): string => doc.getText('t').toString()

beforeEach(() => {
  rooms++
  globalThis.indexedDB = new IDBFactory()
})
afterEach(async () => { await Promise.all(peers.splice(0).map(async peer => { await peer.close() })) })

describe('a peer', () => {
  it('keeps its document over a restart, and what was there before it started', async () => {
    const doc = new LoroDoc()
    write(doc, 'before ')
    const first = start({ doc, adapters: [indexedDB('db')] })
    await first.loaded
    write(doc, 'after')
    await first.waitUntil(({ stored, storage }) => stored && storage === 'kept')
    await first.close()
    const second = start({ adapters: [indexedDB('db')] })
    await second.loaded
    expect(text(second)).toBe('before after')
    expect(second.status.storage === 'kept' || !second.status.loaded).toBe(true)
  })

  it('shares with another tab without any network, and both know who is there', async () => {
    const ana = start({ presence: { name: 'Ana' }, user: 'ana' })
    const ben = start({ presence: { name: 'Ben' }, user: 'ben' })
    write(ana.doc, 'hello')
    await until('the text', () => text(ben) === 'hello')
    await until('each other', () => ana.presence.online === 2 && ben.presence.online === 2)
    expect(ben.presence.peers).toMatchObject([{ session: ana.session, user: 'ana', shows: { name: 'Ana' }, path: 'tab' }])
    expect(ben.presence.view).toMatchObject({ self: { name: 'Ben' }, online: 2 })
    ana.presence.set({ name: 'Ana Ruiz' })
    await until('the new name', () => ben.presence.peers[0]?.shows?.name === 'Ana Ruiz')
    await ana.caughtUp()
    await ana.close()
    await until('ana gone', () => ben.presence.online === 1)
    expect(ana.status.closed).toBe(true)
  })

  it('counts a user with two tabs once', async () => {
    const [one, two] = [start({ presence: { name: 'Ana' }, user: 'ana' }), start({ presence: { name: 'Ana' }, user: 'ana' })]
    await until('each other', () => one.presence.peers.length === 1 && two.presence.peers.length === 1)
    expect(one.presence.online).toBe(1)
  })

  it('does not count who is there to serve the others', async () => {
    const counts = (shows: Shown | undefined): boolean => shows?.name !== 'agent'
    const agent = start({ presence: { name: 'agent' }, user: 'agent', counts })
    const [ana, ben] = [start({ presence: { name: 'Ana' }, counts }), start({ presence: { name: 'Ben' }, counts })]
    await until('each other', () => [agent, ana, ben].every(({ presence }) => presence.peers.length === 2))
    expect([agent, ana, ben].map(({ presence }) => presence.online)).toEqual([2, 2, 2])
    ana.presence.set({ name: 'agent' })
    expect(ana.presence.online).toBe(1)
  })

  it('brings over what the application imports by itself', async () => {
    const [ana, ben] = [start(), start()]
    await ana.loaded
    const file = new LoroDoc()
    write(file, 'from a file')
    ana.doc.import(file.export({ mode: 'snapshot' }))
    await until('the text', () => text(ben) === 'from a file')
  })

  it('goes on in memory where there is no database, and says so', async () => {
    const storage: Storage = { kind: 'storage', open: async () => { throw new Error('private window') } }
    const peer = start({ adapters: [storage] })
    const events: PeerEvent[] = []
    peer.onEvent(event => events.push(event))
    await peer.loaded
    await peer.waitUntil(({ storage }) => storage === 'memory')
    await until('the event', () => events.length > 0)
    expect(events).toEqual([{ type: 'memoryOnly', why: 'private window' }])
    const other = start()
    write(peer.doc, 'still works')
    await until('the text', () => text(other) === 'still works')
  })

  it('leaves a database that it cannot read untouched', async () => {
    const kept = await indexedDB('db').open(`room ${rooms}`)
    await kept.append(Uint8Array.of(1, 2, 3))
    kept.close()
    const peer = start({ adapters: [indexedDB('db')] })
    const events: PeerEvent[] = []
    peer.onEvent(event => events.push(event))
    await peer.loaded
    write(peer.doc, 'new')
    await until('the event', () => events.some(({ type }) => type === 'storedDamaged'))
    await peer.close()
    expect(await (await indexedDB('db').open(`room ${rooms}`)).load()).toEqual([Uint8Array.of(1, 2, 3)])
  })

  it('tells of a full disk, and writes when there is room again', async () => {
    let full = true
    const written: Uint8Array[] = []
    const keep = async (update: Uint8Array): Promise<void> => {
      if (full) throw Object.assign(new Error('no room'), { name: 'QuotaExceededError' })
      written.push(update)
    }
    const storage: Storage = { kind: 'storage', open: async () => ({ load: async () => [], append: keep, compact: keep, close: () => {} }) }
    const peer = start({ adapters: [storage] })
    const events: PeerEvent[] = []
    peer.onEvent(event => events.push(event))
    await peer.loaded
    write(peer.doc, 'x')
    await peer.waitUntil(({ storage }) => storage === 'failing')
    expect(peer.status.trouble).toBe('no room')
    expect(events).toContainEqual({ type: 'storeFailed', why: 'no room', quota: true })
    full = false
    await peer.waitUntil(({ storage, stored }) => storage === 'kept' && stored)
    expect(written).toHaveLength(1)
  })

  it('refuses rooms and presence that others would not take', () => {
    expect(() => start({ room: '' })).toThrow(RoomNameError)
    expect(() => start({ room: 'ü'.repeat(65) })).toThrow('room name is 130 bytes, expected 1 to 128')
    expect(() => start({ presence: { name: 'x'.repeat(5000) } })).toThrow(PresenceTooLarge)
    const peer = start()
    expect(() => { peer.presence.set({ name: 'x'.repeat(5000) }) }).toThrow('limit is 4096')
    expect(peer.presence.self).toBeUndefined()
  })

  it('lets a stranger be there whose presence makes no sense, without a value', async () => {
    const eve = new Peer<unknown>({ room: `room ${rooms}`, presence: { name: { toString: 'no' } }, user: 'eve' })
    const parsePresence = (shown: unknown): Shown | undefined => {
      const { name } = shown as Shown
      if (typeof name !== 'string') throw new Error('no name')
      return { name }
    }
    const ana = start({ parsePresence })
    await until('eve', () => ana.presence.peers.length === 1)
    expect(ana.presence.peers[0]).toMatchObject({ user: 'eve', shows: undefined })
    await eve.close()
  })

  it('finds the others while its document is still being loaded, and tells them nothing of it before the disk is read', async () => {
    let give: (doc: LoroDoc) => void = () => {}
    let read: (updates: Uint8Array[]) => void = () => {}
    const store = { load: () => new Promise<Uint8Array[]>(resolve => { read = resolve }), append: async () => {}, compact: async () => {}, close: () => {} }
    const ben = start({ presence: { name: 'Ben' } })
    write(ben.doc, 'from Ben')
    await ben.loaded
    const ana = start({ presence: { name: 'Ana' }, doc: new Promise(resolve => { give = resolve }), adapters: [{ kind: 'storage', open: async () => store }] })
    expect(() => ana.doc).toThrow('not there yet')
    await until('the tab', () => ben.status.links.length === 1)
    expect(ana.status).toMatchObject({ loaded: false, storage: 'loading', caughtUp: false })
    const doc = new LoroDoc()
    give(doc)
    await until('the document', () => ana.isOpen)
    expect(ana.doc).toBe(doc)
    // The tab is there, and has asked what we have.
    await new Promise(resolve => { setTimeout(resolve, 100) })
    expect([doc.getText('t').toString(), ben.status.links[0]?.joined]).toEqual(['', false])
    const stored = new LoroDoc()
    write(stored, 'from the disk ')
    read([stored.export({ mode: 'update' })])
    await ana.loaded
    await until('all of it', () => text(ana) === text(ben) && text(ana).includes('from Ben') && text(ana).includes('from the disk'))
    await ana.waitUntil(({ loaded, caughtUp }) => loaded && caughtUp)
    expect(ana.status).toMatchObject({ loaded: true, storage: 'kept' })
  })

  it('ends when its document cannot be loaded, and says why', async () => {
    const peer = start({ doc: Promise.reject(new Error('no WebAssembly here')) })
    await expect(peer.loaded).rejects.toThrow('no WebAssembly here')
    await until('the end', () => peer.status.closed)
  })

  it('lets a tab go that says more than can wait for the document', async () => {
    for (const [frames, links] of [[4, 1], [40, 0]] as const) {
      let give: (doc: LoroDoc) => void = () => {}
      const peer = start({ room: `room ${rooms} ${frames}`, doc: new Promise(resolve => { give = resolve }) })
      const channel = new BroadcastChannel(`peer-sdk room ${rooms} ${frames}`)
      channel.postMessage({ from: 'eve', kind: 'hello' })
      for (let n = 0; n < frames; n++) channel.postMessage({ from: 'eve', to: peer.session, kind: 'frame', frame: asks(`room ${rooms} ${frames}`) })
      await new Promise(resolve => { channel.onmessage = resolve })
      give(new LoroDoc())
      await peer.waitUntil(({ loaded }) => loaded)
      expect(peer.status.links).toHaveLength(links)
      channel.close()
    }
  })

  it('closes twice without harm, and at once while it loads', async () => {
    const peer = start({ adapters: [{ kind: 'storage', open: async () => await new Promise(() => {}) }] })
    await Promise.all([peer.close(), peer.close()])
    expect(peer.status.closed).toBe(true)
  })
})
