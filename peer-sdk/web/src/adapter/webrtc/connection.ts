// One WebRTC connection to one remote peer, carrying one reliable and ordered data channel.
//
// The initiator opens the channel under a label, `loro/1` for a peer. One that opens one with another label speaks something else
// (a Yjs application's label is 40 hex digits), and is let go.

import type { Door, Port } from '../../adapter.js'
import type { End } from '../../engine/vocabulary.js'
import { Negotiation } from './negotiation.js'
import { kindOf, maxMessageSize } from './signal.js'
import { Pulse } from './pulse.js'

/** What a data channel of ours is called. */
export const LABEL = 'loro/1'
/** How long an interruption may last until the connection is closed, in milliseconds. */
const LOST_AFTER = 20_000
/** How long after the initiator the other side restarts ICE, if the initiator has not. */
const SECOND_TRY = 2000
/** The least time between two restarts: an answer to the one must not be taken for an answer to the other. */
const PACE = 1000
/**
 * How much longer than an answer another way may take to carry something once both sides look for it. Chromium stays with the
 * old way for seconds if that was the better one, and what was lost on it is sent again after 1.2, 2.8 and 5.8 s: to connect
 * anew is sooner.
 */
const VAIN = 1.5
/** How long after the other side looked for another way it may begin anew. */
const DOUBT = 5000
/** How often an interrupted connection is looked at. */
const LOOK = 500
/** The channel says when no more than this waits to be sent, in bytes. */
const LOW_WATER = 64 << 10
/** How long what waits may take to leave when it is closed. */
const FAREWELL = 2000

export class Connection implements Port {
  private readonly negotiation: Negotiation
  private readonly pulse: Pulse
  private channel: RTCDataChannel | undefined
  /** `sure`: we have noticed ourselves, and need not leave it to the initiator. */
  private interrupted: { since: number, tried: boolean, sure: boolean } | undefined
  private looker: ReturnType<typeof setInterval> | undefined
  private restartedAt = -Infinity
  /** When the other side last offered while the channel was open, which it does when it looks for another way. */
  private doubtedAt = -Infinity
  private given = 0
  private told = 0
  private over = false

  constructor (
    private readonly label: string,
    private readonly pc: RTCPeerConnection,
    private readonly initiator: boolean,
    private readonly door: Door,
    private readonly fresh: () => Promise<RTCConfiguration>,
    private readonly amiss: () => void
  ) {
    this.negotiation = new Negotiation(this.pc, initiator, door.signal)
    this.pulse = new Pulse(this.pc, door, { amiss: () => { this.isAmiss() }, back: wasQuiet => { this.resumed(wasQuiet) } })
    this.pc.ondatachannel = ({ channel }) => { this.offered(channel) }
    this.pc.onconnectionstatechange = () => { this.changed() }
    if (!initiator) return
    this.adopt(this.pc.createDataChannel(label))
    this.negotiation.offer(false)
  }

  hear (data: unknown): void {
    this.negotiation.hear(data)
    const kind = kindOf(data as object)
    // Only of the other side itself: else a stranger who says it twice would end what is well.
    if (kind === 'offer' && this.channel?.readyState === 'open' && !this.negotiation.isElsewhere(data)) this.doubtedAt = performance.now()
    const { interrupted } = this
    if (kind !== 'answer' || interrupted?.sure !== true) return
    setTimeout(() => { if (this.interrupted === interrupted) this.end('no other way was found') }, VAIN * this.pulse.patience)
  }

  /**
   * Whoever this goes to says something. One that has given us up while we have not, and has begun anew, is let go: as long
   * as we wait, its offers are not heard. But not while all is well, for anybody may speak in its name.
   */
  signalled (data: unknown): void {
    const isAmiss = this.interrupted !== undefined || performance.now() - this.doubtedAt < DOUBT
    if (isAmiss && this.negotiation.isElsewhere(data)) this.end('the other side has begun anew')
  }

  /** The other side has opened a channel. */
  private offered (channel: RTCDataChannel): void {
    const isOurs = channel.label === this.label && channel.ordered && channel.maxRetransmits === null && channel.maxPacketLifeTime === null
    if (isOurs && this.channel === undefined) this.adopt(channel)
    else this.end('speaks another protocol', 'foreign')
  }

  private adopt (channel: RTCDataChannel): void {
    this.channel = channel
    channel.binaryType = 'arraybuffer'
    channel.bufferedAmountLowThreshold = LOW_WATER
    channel.onopen = () => { this.opened() }
    channel.onclose = () => { this.end('closed by the other side') }
    channel.onbufferedamountlow = () => { this.drained() }
    channel.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => {
      // We never say anything in text, and neither does anybody who speaks as we do.
      if (typeof data === 'string') this.end('speaks another protocol', 'foreign')
      else this.door.received(new Uint8Array(data))
    }
    if (channel.readyState === 'open') this.opened()
  }

  private opened (): void {
    const remote = this.pc.remoteDescription?.sdp ?? ''
    this.door.open(maxMessageSize(remote))
    this.pulse.start()
  }

  private changed (): void {
    const { connectionState } = this.pc
    if (connectionState === 'closed') return this.end('closed')
    if (connectionState === 'connected' && this.interrupted !== undefined) return this.resumed(true)
    if (connectionState !== 'disconnected' && connectionState !== 'failed') return
    // Without a channel the engine's own patience decides.
    if (this.channel?.readyState !== 'open') return
    this.interrupt(false)
    this.recover()
  }

  private interrupt (sure: boolean): void {
    this.interrupted ??= { since: performance.now(), tried: false, sure }
    this.interrupted.sure ||= sure
    this.looker ??= setInterval(() => { this.recover() }, LOOK)
  }

  /** What was sent does not arrive: most likely one end has another address now, and its signaling is as dead as this. */
  private isAmiss (): void {
    this.interrupt(true)
    // A signaling connection that is made anew wakes us: an offer before that would be lost.
    this.amiss()
  }

  /** `wasGone`: so long that others may have been told so. */
  private resumed (wasGone: boolean): void {
    this.interrupted = undefined
    clearInterval(this.looker)
    this.looker = undefined
    if (wasGone) this.door.resumed()
  }

  /** Looks for another way, the initiator at once and the other side a little later, so that not both do. */
  private recover (): void {
    if (this.interrupted === undefined) return
    const lasts = performance.now() - this.interrupted.since
    if (lasts > LOST_AFTER) return this.end('the other side no longer answers')
    const { tried, sure } = this.interrupted
    const now = performance.now()
    if (tried || now - this.restartedAt < PACE || (!this.initiator && !sure && lasts < SECOND_TRY)) return
    this.restartedAt = now
    this.interrupted.tried = true
    void this.restart()
  }

  private async restart (): Promise<void> {
    // Credentials may have expired since.
    const configuration = await this.fresh()
    if (this.over) return
    try {
      this.pc.setConfiguration(configuration)
    } catch { /* Then with those that we have. */ }
    this.negotiation.offer(true)
  }

  /** Signals may have been lost: what was asked for while nobody heard is asked for again. */
  wake (): void {
    if (this.interrupted === undefined) return
    this.interrupted.tried = false
    this.recover()
  }

  send (frame: Uint8Array): void {
    if (this.channel?.readyState !== 'open') return
    try {
      this.channel.send(frame as Uint8Array<ArrayBuffer>)
    } catch {
      // The browser's own buffer is full, or the other end takes less: it is brought up to date afresh.
      return this.end('a message could not be sent')
    }
    this.given += frame.length
    this.pulse.busy()
    if (this.channel.bufferedAmount <= LOW_WATER) queueMicrotask(() => { this.drained() })
  }

  private drained (): void {
    const left = this.given - (this.channel?.bufferedAmount ?? 0)
    const bytes = left - this.told
    if (bytes <= 0) return
    this.told = left
    this.door.drained(bytes)
  }

  close (): void {
    if (this.over) return
    this.finish()
    const { channel, pc } = this
    if (channel?.readyState !== 'open') return pc.close()
    // A channel that is closed sends what waits first; a connection that is closed does not.
    channel.onclose = () => { pc.close() }
    channel.close()
    setTimeout(() => { pc.close() }, FAREWELL)
  }

  private end (why: string, end: End = 'lost'): void {
    if (this.over) return
    this.finish()
    this.pc.close()
    this.door.down(end, why)
  }

  private finish (): void {
    this.over = true
    clearInterval(this.looker)
    this.pulse.stop()
    this.negotiation.stop()
    this.pc.ondatachannel = this.pc.onconnectionstatechange = null
    if (this.channel !== undefined) this.channel.onopen = this.channel.onclose = this.channel.onmessage = this.channel.onbufferedamountlow = null
  }
}
