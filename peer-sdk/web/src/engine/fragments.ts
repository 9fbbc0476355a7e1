// Puts fragments together. The receiver decides by its limits whether it wants them, believes no claim before the bytes
// are there, and gives up on a sender that falls silent.

import { UpdateStatusCode } from 'loro-protocol'

/** The longest update, and all that are under way together, in bytes. */
const MOST_BYTES = 32 << 20
/** How many updates may be under way. */
const MOST_BATCHES = 16
/** In how many fragments an update may come. */
const MOST_FRAGMENTS = 4096
/** How long to wait for the next fragment, in milliseconds. */
const PATIENCE = 10_000

interface Pending {
  batch: string
  fragments: number
  announced: number
  parts: Map<number, Uint8Array>
  arrived: number
  deadline: number
}

/** What to tell the sender, if anything. */
export interface Refused { refused: UpdateStatusCode | undefined }

/** Puts the fragments of one room over one link together. */
export class Reassembly {
  private batches = new Map<string, Pending>()
  private bytes = 0

  /** Whether something is on its way in. */
  get isPending (): boolean { return this.batches.size > 0 }

  get deadline (): number | undefined {
    let deadline: number | undefined
    for (const pending of this.batches.values()) deadline = Math.min(deadline ?? Infinity, pending.deadline)
    return deadline
  }

  /** A header has come. One for a batch that is under way already starts it afresh. */
  header (now: number, batch: string, fragments: number, announced: number): Refused | undefined {
    this.remove(batch)
    if (announced > MOST_BYTES) return { refused: UpdateStatusCode.PayloadTooLarge }
    if (fragments < 1 || fragments > Math.min(MOST_FRAGMENTS, announced)) return { refused: UpdateStatusCode.InvalidUpdate }
    if (this.batches.size >= MOST_BATCHES || this.bytes + announced > MOST_BYTES) {
      return { refused: UpdateStatusCode.RateLimited }
    }
    this.bytes += announced
    this.batches.set(batch, { batch, fragments, announced, parts: new Map(), arrived: 0, deadline: now + PATIENCE })
    return undefined
  }

  /** A fragment has come. The update, if it was the last one missing; nothing if others are. */
  fragment (now: number, batch: string, index: number, part: Uint8Array): Uint8Array | Refused | undefined {
    const pending = this.batches.get(batch)
    if (pending === undefined) return { refused: undefined }
    if (index >= pending.fragments) return this.refuse(batch)
    if (!pending.parts.has(index)) {
      pending.parts.set(index, part)
      pending.arrived += part.length
    }
    pending.deadline = now + PATIENCE
    const complete = pending.parts.size === pending.fragments
    if (pending.arrived > pending.announced || (complete && pending.arrived !== pending.announced)) return this.refuse(batch)
    if (!complete) return undefined
    this.remove(batch)
    return together(pending)
  }

  /** A batch whose sender has fallen silent, each once. */
  expired (now: number): string | undefined {
    for (const { batch, deadline } of this.batches.values()) {
      if (deadline <= now) {
        this.remove(batch)
        return batch
      }
    }
    return undefined
  }

  clear (): void {
    this.batches.clear()
    this.bytes = 0
  }

  private refuse (batch: string): Refused {
    this.remove(batch)
    return { refused: UpdateStatusCode.InvalidUpdate }
  }

  private remove (batch: string): void {
    this.bytes -= this.batches.get(batch)?.announced ?? 0
    this.batches.delete(batch)
  }
}

function together ({ parts, fragments, announced }: Pending): Uint8Array {
  const update = new Uint8Array(announced)
  let at = 0
  for (let index = 0; index < fragments; index++) {
    const part = parts.get(index)
    if (part === undefined) continue
    update.set(part, at)
    at += part.length
  }
  return update
}
