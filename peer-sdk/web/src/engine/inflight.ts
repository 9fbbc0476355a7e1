// Updates that were sent and not acknowledged yet.
//
// "Sent" is not "received": what an update covers counts as held by the other end only once it is acknowledged, or once
// the other end shows a version that has it. Until then it is *promised*, so that it is not sent twice.

import { exceeds, raise, type Version } from './version.js'

/** How long an acknowledgement may take, in milliseconds, and how much longer for each of so many bytes. */
const PATIENCE = 10_000
const BYTES_A_SECOND = 100_000
/** No more is sent while so many bytes are not acknowledged. */
const WINDOW = 1 << 20
/** Nor while so many updates are not. */
const MOST = 64

interface Batch {
  number: number
  /** What the other end holds once it has this. */
  covers: Version
  length: number
  /** `undefined`: it is known to have arrived, and only the word that it is safe is missing. */
  deadline: number | undefined
}

export class Inflight {
  private batches: Batch[] = []
  private bytes = 0
  private minted = 0

  /** Whether one more may be sent. */
  get hasRoom (): boolean {
    return this.batches.length < MOST && (this.bytes < WINDOW || this.batches.length === 0)
  }

  get length (): number { return this.batches.length }

  /** The number of the last update that was named. */
  get mark (): number { return this.minted }

  get deadline (): number | undefined {
    let deadline: number | undefined
    for (const batch of this.batches) {
      if (batch.deadline !== undefined && !(batch.deadline >= (deadline ?? Infinity))) deadline = batch.deadline
    }
    return deadline
  }

  /** A name for the next update. */
  mint (): number { return ++this.minted }

  /** The last update that was named is being sent. */
  sent (now: number, covers: Version, length: number): void {
    const patience = PATIENCE + Math.floor(length / BYTES_A_SECOND) * 1000
    this.bytes += length
    this.batches.push({ number: this.minted, covers, length, deadline: now + patience })
  }

  /** An answer to one has come. What it covers, if it was waited for. */
  answered (number: number): Version | undefined {
    const at = this.batches.findIndex(batch => batch.number === number)
    const [batch] = at < 0 ? [] : this.batches.splice(at, 1)
    this.bytes -= batch?.length ?? 0
    return batch?.covers
  }

  /** The other end has shown a version that tells of everything up to this mark: what is not in it is lost. */
  settle (mark: number, version: Version): void {
    for (const batch of this.batches) {
      if (batch.number <= mark && !exceeds(batch.covers, version)) batch.deadline = undefined
    }
    this.batches = this.batches.filter(batch => batch.number > mark || batch.deadline === undefined)
    this.bytes = this.batches.reduce((sum, batch) => sum + batch.length, 0)
  }

  /** Adds what is promised to what is known to be held. */
  promised (held: Version): Version {
    const promised = new Map(held)
    for (const batch of this.batches) raise(promised, batch.covers)
    return promised
  }

  /** Whether an answer is overdue. The question is put off, so that it is answered once for each time of patience. */
  isOverdue (now: number): boolean {
    let overdue = false
    for (const batch of this.batches) {
      if (batch.deadline !== undefined && batch.deadline <= now) {
        overdue = true
        batch.deadline = now + PATIENCE
      }
    }
    return overdue
  }

  clear (): void {
    this.batches = []
    this.bytes = 0
  }
}
