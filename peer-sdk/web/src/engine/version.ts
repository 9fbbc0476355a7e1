// Versions: how far each author got. The same bytes as Loro's own, read without trust.

/** How many operations of each author, named by its number in decimal. Authors with none are left out. */
export type Version = Map<string, number>

/** Operations of one author, from `start` up to `end`, which is not among them. */
export interface Span { peer: string, start: number, end: number }

/** More authors than any document has. */
const MOST_PEERS = 1 << 20
const LARGEST_PEER = (1n << 64n) - 1n
const LARGEST_COUNTER = 0x7fff_ffff

/** Whether the one version has anything that the other has not. */
export function exceeds (theirs: Version, ours: Version): boolean {
  for (const [peer, end] of theirs) if (end > (ours.get(peer) ?? 0)) return true
  return false
}

/** Makes the one version at least as far as the other. */
export function raise (version: Version, by: Version): void {
  for (const [peer, end] of by) if (end > (version.get(peer) ?? 0)) version.set(peer, end)
}

/** What is in the one version and not in the other. */
export function missing (ours: Version, known: Version): Span[] {
  const spans: Span[] = []
  for (const [peer, end] of ours) {
    const start = known.get(peer) ?? 0
    if (end > start) spans.push({ peer, start, end })
  }
  return spans
}

/** As Loro encodes it: a count, then each author and how far it got. */
export function encodeVersion (version: Version): Uint8Array {
  const bytes: number[] = []
  writeVarint(bytes, BigInt(version.size))
  for (const [peer, end] of version) {
    writeVarint(bytes, BigInt(peer))
    writeVarint(bytes, BigInt(end) << 1n)
  }
  return Uint8Array.from(bytes)
}

/** A version as somebody claims it: one that makes no sense is an empty one. */
export function claimedVersion (bytes: Uint8Array): Version {
  return decodeVersion(bytes) ?? new Map<string, number>()
}

/** `undefined` if these bytes are no version. */
export function decodeVersion (bytes: Uint8Array): Version | undefined {
  const version: Version = new Map()
  if (bytes.length === 0) return version
  const reader = new VarintReader(bytes)
  const count = reader.next()
  // Each author takes two bytes at least: a claim that does not fit is not believed.
  if (count === undefined || Number(count) > Math.min(MOST_PEERS, bytes.length / 2)) return undefined
  for (let n = 0n; n < count; n++) {
    const peer = reader.next()
    const counter = reader.next()
    if (peer === undefined || counter === undefined || peer > LARGEST_PEER) return undefined
    const end = Number(counter >> 1n)
    if (end > LARGEST_COUNTER) return undefined
    if ((counter & 1n) === 0n && end > 0) version.set(peer.toString(), end)
  }
  return reader.isDone ? version : undefined
}

export function writeVarint (bytes: number[], number: bigint): void {
  while (number > 0x7fn) {
    bytes.push(Number(number & 0x7fn) | 0x80)
    number >>= 7n
  }
  bytes.push(Number(number))
}

/** Reads numbers from the front of bytes. */
export class VarintReader {
  at = 0

  constructor (readonly bytes: Uint8Array) {}

  get isDone (): boolean { return this.at === this.bytes.length }

  /** The next number; `undefined` if there is none, or one of more than 64 bits. */
  next (): bigint | undefined {
    let number = 0n
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.bytes[this.at]
      if (byte === undefined) return undefined
      this.at++
      number |= BigInt(byte & 0x7f) << shift
      if (byte < 0x80) return number > LARGEST_PEER ? undefined : number
    }
    return undefined
  }
}
