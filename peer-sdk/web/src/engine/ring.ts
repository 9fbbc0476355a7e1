// The ring on which all sessions of a room stand.

const MASK = (1n << 64n) - 1n
/** Hashing is slow without 64-bit numbers, and names are asked for again and again. */
const MOST_PLACES = 8192
const places = new Map<string, bigint>()

/** The next session in either direction; fewer if there are fewer. */
export function neighbours (session: string, room: ReadonlySet<string>): string[] {
  const here = placeOf(session)
  let next: { peer: string, distance: bigint } | undefined
  let last: { peer: string, distance: bigint } | undefined
  for (const peer of room) {
    if (peer === session) continue
    // How far it is from here, round the ring in one direction.
    const distance = (placeOf(peer) - here) & MASK
    if (next === undefined || isBefore(distance, peer, next)) next = { peer, distance }
    if (last === undefined || !isBefore(distance, peer, last)) last = { peer, distance }
  }
  if (next === undefined || last === undefined) return []
  return next.peer === last.peer ? [next.peer] : [next.peer, last.peer]
}

function isBefore (distance: bigint, peer: string, other: { peer: string, distance: bigint }): boolean {
  return distance === other.distance ? peer < other.peer : distance < other.distance
}

/** FNV-1a, stirred: every peer of every version finds the same place. */
export function placeOf (session: string): bigint {
  const known = places.get(session)
  if (known !== undefined) return known
  let hash = 0xcbf2_9ce4_8422_2325n
  for (const byte of new TextEncoder().encode(session)) hash = ((hash ^ BigInt(byte)) * 0x0100_0000_01b3n) & MASK
  hash = ((hash ^ (hash >> 32n)) * 0xd6e8_feb8_6659_fd93n) & MASK
  hash ^= hash >> 32n
  if (places.size >= MOST_PLACES) places.clear()
  places.set(session, hash)
  return hash
}
