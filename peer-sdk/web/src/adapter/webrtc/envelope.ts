// What peers say to each other on a topic, and how it stands in a signaling server's frame.

import type { PasswordProblem } from '../../adapter.js'
import type { Cipher } from './seal.js'

/** The longest peer id that is taken from a stranger, in characters. y-webrtc's have 36. */
export const MAX_PEER_ID = 128
/** The largest message that is taken from a server or given to one, in characters. */
export const MAX_MESSAGE = 256 * 1024

/** What a peer says: that it is there, or a signal for one other. */
export type Envelope =
  | { type: 'announce', from: string }
  | { type: 'signal', from: string, to: string, token: number | undefined, signal: object }

/** What was published on this topic, or `undefined`: the server is there, and that is all it says. */
export function publishedOn (topic: string, frame: unknown): unknown {
  if (typeof frame !== 'string' || frame.length > MAX_MESSAGE) return undefined
  try {
    const said: unknown = JSON.parse(frame)
    if (!isObject(said) || said.type !== 'publish' || said.topic !== topic) return undefined
    return said.data
  } catch {
    return undefined
  }
}

/** Reads what was published on a topic with this password, if any. */
export async function open (data: unknown, cipher: Cipher | undefined): Promise<Envelope | PasswordProblem | undefined> {
  if (cipher === undefined) return typeof data === 'string' ? 'missing' : parse(data)
  if (typeof data !== 'string') return parse(data) === undefined ? undefined : 'superfluous'
  const opened = await cipher.unseal(data)
  return opened === undefined ? 'different' : parse(opened)
}

export function parse (data: unknown): Envelope | undefined {
  if (!isObject(data) || !isPeerId(data.from)) return undefined
  const { type, from, to, token, signal } = data
  if (type === 'announce') return { type, from }
  if (type !== 'signal' || !isPeerId(to) || !isObject(signal)) return undefined
  return { type, from, to, token: typeof token === 'number' ? token : undefined, signal }
}

/** The frame that publishes it. An encrypted one names sender and receiver, so that a server can deliver it directed. */
export async function publish (topic: string, said: Envelope, cipher: Cipher | undefined): Promise<string> {
  const { type, from } = said
  const data = type === 'announce' ? { type, from } : { to: said.to, from, type, token: said.token, signal: said.signal }
  if (cipher === undefined) return JSON.stringify({ type: 'publish', topic, data })
  const to = type === 'signal' ? { to: said.to } : {}
  return JSON.stringify({ type: 'publish', topic, from, ...to, data: await cipher.seal(data) })
}

export function isObject (value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isPeerId (value: unknown): value is string {
  return typeof value === 'string' && value.length > 0 && value.length <= MAX_PEER_ID
}
