// Over what a connection goes, how long a packet takes there and back, and whether the other side is still there.
//
// ICE checks a connection at rest about every 2.5 seconds, and many times a second once a check went unanswered; the
// answers come from the other browser's network, also while its page sleeps. So a few seconds without a packet mean that
// it is gone, long before ICE itself says so.

import type { Door } from '../../adapter.js'

/** How often to look, in milliseconds: rarely, and often when something is amiss. */
const LOOK = 1000
const LOOK_CLOSELY = 300
/** Without a packet for so long, it is looked at closely, and then counts as quiet. */
const AMISS = 2500
const QUIET = 3000

export class Pulse {
  private timer: ReturnType<typeof setTimeout> | undefined
  private received = -1
  private heardAt = 0
  private isQuiet = false
  private roundTrip: number | undefined

  constructor (private readonly pc: RTCPeerConnection, private readonly door: Door) {}

  start (): void {
    this.heardAt = performance.now()
    this.again(0)
  }

  private again (delay: number): void {
    this.timer = setTimeout(() => {
      this.look().catch(() => {}).finally(() => {
        if (this.timer === undefined) return
        this.again(performance.now() - this.heardAt > AMISS - LOOK ? LOOK_CLOSELY : LOOK)
      })
    }, delay)
  }

  private async look (): Promise<void> {
    const report = await this.pc.getStats()
    const pair = selectedPair(report)
    if (pair === undefined || this.timer === undefined) return
    const now = performance.now()
    const received = (pair.responsesReceived ?? 0) + (pair.requestsReceived ?? 0) + (pair.bytesReceived ?? 0)
    if (received !== this.received) {
      this.received = received
      // It may have come at any time since the last look.
      const { lastPacketReceivedTimestamp: last } = pair as { lastPacketReceivedTimestamp?: number }
      const age = last === undefined ? 0 : Math.max(0, pair.timestamp - last)
      this.heardAt = Math.max(this.heardAt, now - age)
      if (this.isQuiet) this.door.resumed()
      this.isQuiet = false
    } else if (now - this.heardAt >= QUIET && !this.isQuiet) {
      this.isQuiet = true
      this.door.quiet()
    }
    this.tellPath(report, pair)
  }

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
