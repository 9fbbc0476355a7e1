// What the disk is known to hold.
//
// Nothing is queued for the disk: what it is owed is the difference between our version and the one that it holds. One
// write is under way at a time, and what gathers meanwhile goes into the next.

import type { Replica } from './replica.js'
import { exceeds, missing, type Version } from './version.js'
import type { Output } from './vocabulary.js'

/** The log becomes a snapshot when it is longer than this and than the last snapshot, in bytes. */
const COMPACT_AFTER = 256 << 10
/** So many short entries are as slow to read as long ones. */
const MOST_ENTRIES = 1000
/** How long to wait after a failure, at first and at most, in milliseconds. */
const RETRY = 1000
const SLOWEST_RETRY = 30_000

interface Write { ticket: number, version: Version, length: number, compacts: boolean }

export class Journal {
  private writing: Write | undefined
  private minted = 0
  private snapshot = 0
  private retry: { at: number, delay: number } | undefined

  /** The disk holds this version, in a log of so many entries and bytes. */
  constructor (private stored: Version, private entries: number, private log: number) {}

  holds (version: Version): boolean { return !exceeds(version, this.stored) }

  /** What to write now, if anything. */
  write (now: number, replica: Replica): Output | undefined {
    if (this.writing !== undefined || (this.retry !== undefined && this.retry.at > now)) return undefined
    const compacts = this.log > Math.max(COMPACT_AFTER, this.snapshot) || this.entries > MOST_ENTRIES
    if (this.holds(replica.version) && !compacts) return undefined
    const ticket = ++this.minted
    const update = replica.spans(missing(replica.version, compacts ? new Map() : this.stored))
    this.writing = { ticket, version: new Map(replica.version), length: update.length, compacts }
    return compacts ? { type: 'compact', ticket, snapshot: update } : { type: 'append', ticket, update }
  }

  /** The disk has answered. Whether it keeps what it was given. */
  answered (now: number, ticket: number, kept: boolean): boolean {
    const write = this.writing
    if (write === undefined || write.ticket !== ticket) return true
    this.writing = undefined
    if (!kept) {
      const delay = this.retry === undefined ? RETRY : Math.min(this.retry.delay * 2, SLOWEST_RETRY)
      this.retry = { at: now + delay, delay }
      return false
    }
    this.retry = undefined
    this.stored = write.version
    this.log = write.compacts ? 0 : this.log + write.length
    this.entries = write.compacts ? 0 : this.entries + 1
    if (write.compacts) this.snapshot = write.length
    return true
  }

  get deadline (): number | undefined { return this.writing === undefined ? this.retry?.at : undefined }
}
