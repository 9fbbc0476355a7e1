// Offers, answers and candidates: what is said to the other side, and in which order.

import { candidateSignal, fingerprintOf, parseSignal, type Signal } from './signal.js'

/** Candidates that are kept until there is a description to apply them to. Further ones are left out. */
const EARLY = 64
/** Candidates that are looked at between one description of the other side and the next, the early ones included. */
const CANDIDATES = 128
/** Signals that wait to be applied. Further ones are left out, as if lost on the way. */
const WAITING = 256

export class Negotiation {
  private early: RTCIceCandidateInit[] = []
  private lookedAt = 0
  private waiting = 0
  /** Everything is done one after the other. */
  private last: Promise<void> = Promise.resolve()
  private over = false

  constructor (private readonly pc: RTCPeerConnection, private readonly initiator: boolean, private readonly say: (signal: object) => void) {
    pc.onicecandidate = ({ candidate }) => {
      if (candidate !== null && candidate.candidate !== '') say(candidateSignal(candidate))
    }
  }

  private then (act: () => Promise<void>): void {
    if (this.waiting >= WAITING) return
    this.waiting++
    this.last = this.last.then(async () => {
      this.waiting--
      if (!this.over) await act()
    }).catch(() => { /* What cannot be applied has changed nothing. */ })
  }

  /** Offers, for the first time or to look for a way anew. An offer that is not answered yet is replaced. */
  offer (restart: boolean): void {
    this.then(async () => {
      const { pc } = this
      if (pc.signalingState === 'have-remote-offer') return
      const offer = await pc.createOffer({ iceRestart: restart })
      await pc.setLocalDescription(offer)
      this.say({ type: 'offer', sdp: pc.localDescription?.sdp ?? offer.sdp })
    })
  }

  /** Takes a signal of the other side. One that makes no sense changes nothing. */
  hear (data: unknown): void {
    const signal = parseSignal(data)
    if (signal !== undefined) this.then(async () => { await this.apply(signal) })
  }

  private async apply (signal: Signal): Promise<void> {
    switch (signal.kind) {
      case 'offer': return await this.hearOffer(signal.sdp)
      case 'answer': return await this.hearAnswer(signal.sdp)
      case 'candidate': return await this.hearCandidate(signal.candidate)
      case 'renegotiate': {
        const { connectionState } = this.pc
        // Only the initiator answers it.
        if (this.initiator) this.offer(connectionState === 'disconnected' || connectionState === 'failed')
      }
    }
  }

  /** Whether somebody speaks in the name of the other side: its certificate stays as long as the connection. */
  private isStrange (sdp: string): boolean {
    const known = this.pc.remoteDescription
    return known !== null && fingerprintOf(known.sdp) !== fingerprintOf(sdp)
  }

  /** Whether the other side goes on with a connection of its own that is none of this one. */
  isElsewhere (data: unknown): boolean {
    const signal = parseSignal(data)
    return signal !== undefined && 'sdp' in signal && this.isStrange(signal.sdp)
  }

  private async hearOffer (sdp: string): Promise<void> {
    const { pc } = this
    if (this.isStrange(sdp)) return
    // Both have offered: the initiator's offer stands, and the other one is taken back. Said again, for it may have been lost.
    if (pc.signalingState === 'have-local-offer' && this.initiator) return this.say({ type: 'offer', sdp: pc.localDescription?.sdp ?? '' })
    await pc.setRemoteDescription({ type: 'offer', sdp })
    await pc.setLocalDescription()
    this.say({ type: 'answer', sdp: pc.localDescription?.sdp ?? '' })
    await this.described()
  }

  private async hearAnswer (sdp: string): Promise<void> {
    if (this.pc.signalingState !== 'have-local-offer' || this.isStrange(sdp)) return
    await this.pc.setRemoteDescription({ type: 'answer', sdp })
    await this.described()
  }

  /** There is a description of the other side: what came before it can be applied. */
  private async described (): Promise<void> {
    const early = this.early.splice(0)
    this.lookedAt = early.length
    for (const candidate of early) await this.pc.addIceCandidate(candidate).catch(() => {})
  }

  private async hearCandidate (candidate: RTCIceCandidateInit): Promise<void> {
    if (this.lookedAt >= CANDIDATES) return
    this.lookedAt++
    if (this.pc.remoteDescription !== null) await this.pc.addIceCandidate(candidate)
    else if (this.early.length < EARLY) this.early.push(candidate)
  }

  stop (): void {
    this.over = true
    this.pc.onicecandidate = null
  }
}
