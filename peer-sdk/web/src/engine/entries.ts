// The bytes of a Loro `EphemeralStore`: a list of entries, each a key, perhaps a value, and the millisecond at which its
// author says it was set. Read here and not by Loro, since what others show is a stranger's.

import { VarintReader, writeVarint } from './version.js'

/** Whatever can be shown: what JSON has, and bytes. */
export type PresenceValue =
  | null | boolean | number | string | Uint8Array | readonly PresenceValue[] | { readonly [key: string]: PresenceValue }

/** One entry. `value` is `undefined` when the key is gone. */
export interface Entry { key: string, value: PresenceValue | undefined, stamp: number }

/** The longest update that is read, in bytes. */
const MOST = 256 << 10
/** The longest key, in bytes. */
const MOST_KEY = 256
/** How deep values may lie in each other. */
const DEPTH = 32
/** The latest stamp, but one, so that there is always one past it. */
const MAX_STAMP = 2 ** 53 - 2

const NULL = 0
const BOOL = 1
const DOUBLE = 2
const INTEGER = 3
const STRING = 4
const LIST = 5
const MAP = 6
const BINARY = 8

/** The entries of an update; `undefined` if it cannot be read to its end. */
export function parseEntries (update: Uint8Array): Entry[] | undefined {
  if (update.length > MOST) return undefined
  if (update.length === 0) return []
  try {
    const reader = new Reader(update)
    const count = reader.length()
    const entries: Entry[] = []
    for (let n = 0; n < count; n++) entries.push(reader.entry())
    return reader.numbers.isDone ? entries : undefined
  } catch {
    return undefined
  }
}

/** The update that holds these entries. */
export function joinEntries (entries: readonly Entry[]): Uint8Array {
  const bytes: number[] = []
  writeVarint(bytes, BigInt(entries.length))
  for (const { key, value, stamp } of entries) {
    writeBytes(bytes, new TextEncoder().encode(key))
    bytes.push(value === undefined ? 0 : 1)
    if (value !== undefined) writeValue(bytes, value)
    writeVarint(bytes, BigInt(stamp) << 1n)
  }
  return Uint8Array.from(bytes)
}

/** How long an entry is, in bytes. */
export function weightOf (entry: Entry): number { return joinEntries([entry]).length }

function writeBytes (bytes: number[], more: Uint8Array): void {
  writeVarint(bytes, BigInt(more.length))
  for (const byte of more) bytes.push(byte)
}

function writeValue (bytes: number[], value: PresenceValue): void {
  if (value === null) bytes.push(NULL)
  else if (typeof value === 'boolean') bytes.push(BOOL, value ? 1 : 0)
  else if (typeof value === 'number') writeNumber(bytes, value)
  else if (typeof value === 'string') {
    bytes.push(STRING)
    writeBytes(bytes, new TextEncoder().encode(value))
  } else if (value instanceof Uint8Array) {
    bytes.push(BINARY)
    writeBytes(bytes, value)
  } else if (isList(value)) {
    bytes.push(LIST)
    writeVarint(bytes, BigInt(value.length))
    for (const item of value) writeValue(bytes, item ?? null)
  } else writeMap(bytes, value)
}

function isList (value: readonly PresenceValue[] | object): value is readonly PresenceValue[] { return Array.isArray(value) }

function writeMap (bytes: number[], map: { readonly [key: string]: PresenceValue }): void {
  const fields = Object.entries(map).filter(([, field]) => field !== undefined)
  bytes.push(MAP)
  writeVarint(bytes, BigInt(fields.length))
  for (const [name, field] of fields) {
    writeBytes(bytes, new TextEncoder().encode(name))
    writeValue(bytes, field)
  }
}

function writeNumber (bytes: number[], number: number): void {
  if (Number.isSafeInteger(number) && !Object.is(number, -0)) {
    const integer = BigInt(number)
    bytes.push(INTEGER)
    writeVarint(bytes, integer < 0n ? (-integer << 1n) - 1n : integer << 1n)
    return
  }
  const double = new DataView(new ArrayBuffer(8))
  double.setFloat64(0, number, true)
  bytes.push(DOUBLE)
  for (let at = 0; at < 8; at++) bytes.push(double.getUint8(at))
}

const unreadable = (): Error => new Error('presence that cannot be read')

/** Throws when the bytes are not what they should be. Whatever it allocates has been there in bytes. */
class Reader {
  readonly numbers: VarintReader
  private readonly text = new TextDecoder('utf-8', { fatal: true })

  constructor (private readonly source: Uint8Array) { this.numbers = new VarintReader(source) }

  private number (): bigint {
    const number = this.numbers.next()
    if (number === undefined) throw unreadable()
    return number
  }

  /** How many follow, each of a byte at least. */
  length (): number {
    const length = this.number()
    if (length > BigInt(this.source.length - this.numbers.at)) throw unreadable()
    return Number(length)
  }

  private take (length: number): Uint8Array {
    const end = this.numbers.at + length
    if (end > this.source.length) throw unreadable()
    const taken = this.source.subarray(this.numbers.at, end)
    this.numbers.at = end
    return taken
  }

  private bytes (): Uint8Array { return this.take(this.length()) }

  private string (): string { return this.text.decode(this.bytes()) }

  private byte (): number { return this.take(1)[0] ?? 0 }

  private integer (): bigint {
    const zigzag = this.number()
    return (zigzag & 1n) === 0n ? zigzag >> 1n : -(zigzag >> 1n) - 1n
  }

  entry (): Entry {
    const key = this.bytes()
    if (key.length > MOST_KEY) throw unreadable()
    const there = this.byte()
    if (there > 1) throw unreadable()
    const value = there === 1 ? this.value(DEPTH) : undefined
    const stamp = Number(this.integer())
    if (stamp < 0 || stamp > MAX_STAMP) throw unreadable()
    return { key: this.text.decode(key), value, stamp }
  }

  private value (depth: number): PresenceValue {
    if (depth === 0) throw unreadable()
    switch (this.byte()) {
      case NULL: return null
      case BOOL: return this.byte() !== 0
      case DOUBLE: return new DataView(this.take(8).slice().buffer).getFloat64(0, true)
      case INTEGER: return Number(this.integer())
      case STRING: return this.string()
      case LIST: return this.list(depth)
      case MAP: return this.map(depth)
      case BINARY: return this.bytes().slice()
      default: throw unreadable()
    }
  }

  private list (depth: number): PresenceValue {
    const items: PresenceValue[] = []
    for (let left = this.length(); left > 0; left--) items.push(this.value(depth - 1))
    return items
  }

  private map (depth: number): PresenceValue {
    const fields: Array<[string, PresenceValue]> = []
    for (let left = this.length(); left > 0; left--) fields.push([this.string(), this.value(depth - 1)])
    // By definition, not by assignment: a field may well be called `__proto__`.
    return Object.fromEntries(fields)
  }
}
