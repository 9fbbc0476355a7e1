// The signals of simple-peer: offers, answers, candidates and requests to negotiate again. A stranger may send anything.

import { isObject } from './envelope.js'

/** The longest session description and candidate that are looked at, in characters. */
export const MAX_SDP = 32 * 1024
export const MAX_CANDIDATE = 512
/** The largest message that is sent or accepted on a data channel, and what is assumed of one that does not say. */
const MAX_MESSAGE = 262_144
const DEFAULT_MAX_MESSAGE = 65_536

/** A signal that came. */
export type Signal =
  | { kind: 'offer' | 'answer', sdp: string }
  | { kind: 'candidate', candidate: RTCIceCandidateInit }
  | { kind: 'renegotiate' }

/** What simple-peer would make of it; `undefined` if nothing. It goes by what is there, and not by `type` alone. */
export function parseSignal (data: unknown): Signal | undefined {
  if (!isObject(data)) return undefined
  if (typeof data.sdp === 'string') {
    if ((data.type !== 'offer' && data.type !== 'answer') || !isForData(data.sdp)) return undefined
    return { kind: data.type, sdp: data.sdp }
  }
  if (isObject(data.candidate)) {
    const line = data.candidate.candidate
    if (typeof line !== 'string' || line === '' || line.length > MAX_CANDIDATE) return undefined
    // There is one media section, so that which one is meant need not be believed.
    return { kind: 'candidate', candidate: { candidate: line, sdpMLineIndex: 0 } }
  }
  return data.renegotiate === true ? { kind: 'renegotiate' } : undefined
}

/** What kind of signal it is, for whom glare matters. */
export function kindOf (signal: object): 'offer' | 'answer' | 'other' {
  const { type, sdp } = signal as { type?: unknown, sdp?: unknown }
  return typeof sdp === 'string' && (type === 'offer' || type === 'answer') ? type : 'other'
}

/** A description of one section, for data. */
function isForData (sdp: string): boolean {
  const media = sdp.length > MAX_SDP ? [] : sdp.split(/\r?\n/).filter(line => line.startsWith('m='))
  return media.length === 1 && media[0]?.startsWith('m=application ') === true
}

export function candidateSignal (candidate: RTCIceCandidate): object {
  const { candidate: line, sdpMLineIndex, sdpMid } = candidate
  return { type: 'candidate', candidate: { candidate: line, sdpMLineIndex, sdpMid } }
}

/** The fingerprint of the author's certificate. */
export function fingerprintOf (sdp: string): string {
  return /^a=fingerprint:(.*)$/m.exec(sdp)?.[1]?.trim() ?? ''
}

/** The largest message that the author of a description takes, at most ours. */
export function maxMessageSize (sdp: string): number {
  const said = /^a=max-message-size:(\d+)\s*$/m.exec(sdp)?.[1]
  if (said === undefined) return DEFAULT_MAX_MESSAGE
  // Zero means any size.
  return Number(said) === 0 ? MAX_MESSAGE : Math.min(Number(said), MAX_MESSAGE)
}
