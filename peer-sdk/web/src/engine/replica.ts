// The application's document, as the engine uses it.

import { decodeImportBlobMeta, type ImportStatus, type LoroDoc, type PeerID, type VersionVector } from 'loro-crdt'
import type { Span, Version } from './version.js'

/** What an import did. */
export interface Imported {
  /** Who sends this holds so much at least. */
  covers: Version
  /** Something was new. */
  news: boolean
  /** Something waits for what it builds on. */
  pending: boolean
}

/** A document with all its history. */
export interface Replica {
  /** What it holds. Not to be changed. */
  readonly version: Version
  /** Whether there is something new that {@link import} has not brought. */
  refresh: () => boolean
  /** Takes an update. `malformed`: it is none. `broken`: nothing works any more. */
  import: (update: Uint8Array) => Imported | 'malformed' | 'broken'
  /** These changes, all of which are here. */
  spans: (spans: Span[]) => Uint8Array
}

/** A `LoroDoc`, which stays the application's. */
export class DocumentReplica implements Replica {
  version: Version
  /** The last export and what it was of, for links that are owed the same. */
  private last: { of: string, update: Uint8Array } | undefined

  constructor (private readonly doc: LoroDoc) {
    this.version = versionOf(doc.oplogVersion())
  }

  refresh (): boolean {
    // What is edited and not committed yet is in no version.
    this.doc.commit()
    const version = versionOf(this.doc.oplogVersion())
    const news = differs(version, this.version)
    if (news) this.version = version
    return news
  }

  import (update: Uint8Array): Imported | 'malformed' | 'broken' {
    try {
      // All of it is new to a document with nothing in it, so that what was taken is what there was. Else it is read twice.
      const known = this.version.size === 0 ? undefined : versionOf(decodeImportBlobMeta(update, false).partialEndVersionVector)
      const status = this.doc.import(update)
      return { covers: known ?? reach(status), news: this.refresh(), pending: (status.pending?.size ?? 0) > 0 }
    } catch (error) {
      // Loro refuses what it cannot read; a trap leaves it unusable.
      return error instanceof WebAssembly.RuntimeError ? 'broken' : 'malformed'
    }
  }

  spans (spans: Span[]): Uint8Array {
    const of = JSON.stringify(spans)
    if (this.last?.of !== of) {
      const ranges = spans.map(({ peer, start, end }) => ({ id: { peer: peer as PeerID, counter: start }, len: end - start }))
      this.last = { of, update: this.doc.export({ mode: 'updates-in-range', spans: ranges }) }
    }
    return this.last.update
  }
}

/** How far it got of each author. What waits comes after what does not. */
function reach ({ success, pending }: ImportStatus): Version {
  return new Map([...success, ...pending ?? []].map(([peer, { end }]) => [peer, end]))
}

function versionOf (vector: VersionVector): Version {
  const version: Version = new Map()
  for (const [peer, end] of vector.toJSON()) if (end > 0) version.set(peer, end)
  vector.free()
  return version
}

function differs (a: Version, b: Version): boolean {
  if (a.size !== b.size) return true
  for (const [peer, end] of a) if (b.get(peer) !== end) return true
  return false
}
