// Over what a connection goes, how long a packet takes there and back, and whether the other side is still there.
//
// ICE checks a connection at rest about every 2.5 seconds, and many times a second once a check went unanswered; the
// answers come from the other browser's network, also while its page sleeps. So a few seconds without a packet mean that
// it is gone, long before ICE itself says so. And what is sent is answered at once: when it is not, the way is broken.

import type { Door } from '../../adapter.js'

/** How often to look, in milliseconds: often, and more often when something seems amiss. */
const LOOK = 500
const LOOK_CLOSELY = 250
/** Without a packet for so long, it is looked at closely, and then counts as quiet. */
const SUSPICIOUS = 2000
const QUIET = 3000
/** What is sent and has no answer for so long, and for so many round trips, has not arrived. */
const UNANSWERED = 400
const ROUND_TRIPS = 3

/** What becomes of the way. */
export interface Felt {
  /** What was sent has no answer. Told once until `back`. */
  amiss: () => void
  /** After that, or after the door was told of quiet: something comes again. */
  back: (wasQuiet: boolean) => void
}

export class Pulse {
  private timer: ReturnType<typeof setTimeout> | undefined
  private received = -1
  private heardAt = 0
  private data = 0
  /** The first of what has no answer yet, and the last of all. */
  private sentAt: number | undefined
  private lastSentAt = -Infinity
  private isAmiss = false
  private isQuiet = false
  private roundTrip: number | undefined

  constructor (private readonly pc: RTCPeerConnection, private readonly door: Door, private readonly felt: Felt) {}

  start (): void {
    this.heardAt = performance.now()
    this.again(0)
  }

  /** Something was sent: an answer is due. */
  busy (): void {
    this.lastSentAt = performance.now()
    if (this.timer === undefined || this.sentAt !== undefined) return
    this.sentAt = performance.now()
    this.again(LOOK_CLOSELY)
  }

  private again (delay: number): void {
    clearTimeout(this.timer)
    this.timer = setTimeout(() => {
      this.look().catch(() => {}).finally(() => {
        if (this.timer === undefined) return
        const closely = this.sentAt !== undefined || performance.now() - this.heardAt > SUSPICIOUS
        this.again(closely ? LOOK_CLOSELY : LOOK)
      })
    }, delay)
  }

  private async look (): Promise<void> {
    const report = await this.pc.getStats()
    const pair = selectedPair(report)
    if (pair === undefined || this.timer === undefined) return
    this.feel(performance.now(), pair)
    this.tellPath(report, pair)
  }

  private feel (now: number, pair: RTCIceCandidatePairStats): void {
    const data = pair.bytesReceived ?? 0
    const received = (pair.responsesReceived ?? 0) + (pair.requestsReceived ?? 0) + data
    // A check of the way is no answer to what was sent, and neither is what came before it was.
    if (data !== this.data) {
      const answeredAt = (pair.lastPacketReceivedTimestamp ?? Infinity) - performance.timeOrigin
      this.sentAt = this.lastSentAt > answeredAt ? this.lastSentAt : undefined
    }
    if (received !== this.received) {
      this.heardAt = now
      const wasAmiss = this.isAmiss
      if (this.isAmiss || this.isQuiet) this.felt.back(this.isQuiet)
      this.isAmiss = this.isQuiet = false
      // What was lost is sent again in its own time.
      if (wasAmiss) this.sentAt = undefined
    }
    this.data = data
    this.received = received
    if (!this.isAmiss && this.sentAt !== undefined && now - this.sentAt >= this.patience) {
      this.isAmiss = true
      this.felt.amiss()
    }
    if (!this.isQuiet && now - this.heardAt >= QUIET) {
      this.isQuiet = true
      this.door.quiet()
    }
  }

  /** How long the answer to what is sent may take, in milliseconds. */
  get patience (): number { return UNANSWERED + ROUND_TRIPS * (this.roundTrip ?? 0) }

  private tellPath (report: RTCStatsReport, pair: RTCIceCandidatePairStats): void {
    const isRelay = (id: string): boolean => (report.get(id) as { candidateType?: string } | undefined)?.candidateType === 'relay'
    const path = isRelay(pair.localCandidateId) || isRelay(pair.remoteCandidateId) ? 'turn' : 'direct'
    const measured = pair.currentRoundTripTime === undefined ? undefined : pair.currentRoundTripTime * 1000
    if (measured !== undefined && isNews(this.roundTrip, measured)) this.roundTrip = Math.max(1, Math.round(measured))
    this.door.path(path, this.roundTrip)
  }

  stop (): void {
    clearTimeout(this.timer)
    this.timer = undefined
  }
}

/** A round trip is news when it has changed by a quarter and more than a millisecond. */
function isNews (before: number | undefined, now: number): boolean {
  if (before === undefined) return true
  const moved = Math.abs(now - before)
  return moved > before / 4 && moved > 1
}

function selectedPair (report: RTCStatsReport): RTCIceCandidatePairStats | undefined {
  let nominated: RTCIceCandidatePairStats | undefined
  for (const stats of report.values() as IterableIterator<RTCStats>) {
    if (stats.type === 'transport') {
      const id = (stats as RTCTransportStats).selectedCandidatePairId
      if (id !== undefined) return report.get(id) as RTCIceCandidatePairStats | undefined
    }
    if (stats.type === 'candidate-pair' && (stats as RTCIceCandidatePairStats).nominated === true) nominated = stats as RTCIceCandidatePairStats
  }
  return nominated
}
