// The scripts of inputs and expected outputs that other implementations of the peer run, too.
import { readFileSync } from 'node:fs'
import { EphemeralStore, LoroDoc, VersionVector } from 'loro-crdt'
import { describe, expect, it } from 'vitest'
import { Backoff, Dice } from '../src/engine/backoff'
import { type Entry, joinEntries, parseEntries } from '../src/engine/entries'
import { neighbours, placeOf } from '../src/engine/ring'
import { decodeVersion, encodeVersion } from '../src/engine/version'

const vectors = (name: string): any => JSON.parse(readFileSync(new URL(`../../vectors/${name}.json`, import.meta.url), 'utf8'))
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
const unhex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, 'hex'))

describe('shared vectors', () => {
  it('throw the same dice from the same seed', () => {
    for (const { seed, rolls, unit } of vectors('dice').cases) {
      const dice = new Dice(BigInt(seed))
      expect(rolls.map(() => dice.roll().toString(16))).toEqual(rolls)
      expect(new Dice(BigInt(seed)).unit()).toBe(unit)
    }
  })

  it('wait as long after as many failures', () => {
    const { cases, stable } = vectors('backoff')
    for (const { failures, unit, delay_ms: delay } of cases) {
      const backoff = new Backoff()
      backoff.failures = failures
      expect(backoff.down(0, unit)).toBe(delay)
    }
    for (const { failures, held_ms: held, unit, delay_ms: delay } of stable) {
      const backoff = new Backoff()
      backoff.failures = failures
      backoff.up(1000)
      expect(backoff.down(1000 + held, unit)).toBe(delay)
    }
  })

  it('put everybody at the same place of the ring', () => {
    const { places, room, neighbours: expected } = vectors('ring')
    for (const { name, place } of places) expect(placeOf(name).toString(16)).toBe(place)
    for (const peer of room) expect(neighbours(peer, new Set(room))).toEqual(expected[peer])
  })

  it('write and read presence in the same bytes', () => {
    const { cases, malformed } = vectors('presence')
    for (const { entries, bytes } of cases) {
      expect(hex(joinEntries(entries))).toBe(bytes)
      expect(parseEntries(unhex(bytes))).toEqual(entries.map((entry: Entry) => ({ ...entry, value: entry.value })))
    }
    for (const bytes of malformed) expect(parseEntries(unhex(bytes)), bytes).toBeUndefined()
  })

  it('write and read versions in the same bytes', () => {
    const { cases, malformed } = vectors('version')
    for (const { version, bytes } of cases) {
      expect(hex(encodeVersion(new Map(version)))).toBe(bytes)
      expect(decodeVersion(unhex(bytes))).toEqual(new Map(version))
    }
    for (const bytes of malformed) expect(decodeVersion(unhex(bytes)), bytes).toBeUndefined()
  })
})

describe("Loro's own bytes", () => {
  it('are those of presence', () => {
    const store = new EphemeralStore(60_000)
    const value = { user: 'ana', state: { name: 'Ana', list: [1, -2, 2.5, null, true, 'ü'], bytes: new Uint8Array([1, 2]) } }
    store.set('ana', value)
    const [entry] = parseEntries(store.encodeAll()) ?? []
    expect(entry?.value).toEqual(value)
    const other = new EphemeralStore(60_000)
    other.apply(joinEntries([{ ...entry!, key: 'ben', stamp: Date.now() }]))
    expect(other.get('ben')).toEqual(value)
    store.destroy()
    other.destroy()
  })

  it('are those of versions', () => {
    const doc = new LoroDoc()
    doc.setPeerId('18446744073709551614')
    doc.getText('t').insert(0, 'hello')
    doc.commit()
    expect(decodeVersion(doc.oplogVersion().encode())).toEqual(new Map([['18446744073709551614', 5]]))
    const version = new Map([['7', 3], ['18446744073709551615', 9]])
    expect(VersionVector.decode(encodeVersion(version)).toJSON()).toEqual(version)
  })

  it('never break the reader when they are damaged', () => {
    const bytes = unhex(vectors('presence').cases[1].bytes)
    for (let at = 0; at < bytes.length; at++) {
      for (const flip of [1, 0x55, 0x80, 0xff]) {
        const damaged = bytes.slice()
        damaged[at]! ^= flip
        for (const entry of parseEntries(damaged) ?? []) expect(entry.stamp).toBeGreaterThanOrEqual(0)
      }
      expect(parseEntries(bytes.subarray(0, at))).toEqual(at === 0 ? [] : undefined)
    }
    const deep = Uint8Array.from([1, 1, 107, 1, ...Array.from({ length: 50_000 }, () => [5, 1]).flat()])
    expect(parseEntries(deep)).toBeUndefined()
  })

  it('do not let a name of presence reach the prototypes', () => {
    const value = JSON.parse('{"__proto__": {"polluted": 1}}')
    const [entry] = parseEntries(joinEntries([{ key: '__proto__', value, stamp: 1 }])) ?? []
    expect(({} as any).polluted).toBeUndefined()
    expect((entry?.value as any).polluted).toBeUndefined()
    expect(Object.keys(entry?.value as object)).toEqual(['__proto__'])
  })
})
