// What the machine knows, in words for people.
import type { LinkState, Path, Status } from '../../src/index'
import { isLocal } from './address'

/** How one of the three ways is doing: well, waiting, or away. */
export type Tone = 'good' | 'wait' | 'off'
export interface Line { tone: Tone, name: string, says: string }

export function hubLine (status: Status, count: number, isFromElsewhere = false): Line {
  const name = 'Hub'
  if (count === 0) return { tone: 'off', name, says: 'This link has none. Reviewers reach each other without it.' }
  const hubs = status.links.filter(({ link }) => link.startsWith('uplink'))
  const up = hubs.find(({ joined }) => joined)
  if (up === undefined) {
    const why = hubs.find(({ trouble }) => trouble !== undefined)?.trouble
    if (why === 'auth failed' || why?.startsWith('closed with 44') === true) return { tone: 'off', name, says: 'It does not accept this link any more. Ask for a new one.' }
    // Browsers ask before a page may reach a program on the same computer, and say nothing to the page.
    const hint = isFromElsewhere && hubs.some(({ name = '' }) => isLocal(name)) ? ' It is on this computer: let the browser reach it, if it asks.' : ''
    return { tone: 'wait', name, says: `Not there at the moment. Your notes are kept, and sent when it is back.${hint}` }
  }
  if (!up.mayWrite) return { tone: 'wait', name, says: 'Connected, but this link lets you read only.' }
  if (!up.holdsAll || up.unacknowledged > 0) return { tone: 'wait', name, says: 'Connected, sending what is new…' }
  return { tone: 'good', name, says: `Connected, and it has everything${pace(up)}.` }
}

export function diskLine (status: Status): Line {
  const name = 'This browser'
  switch (status.storage) {
    case 'none':
    case 'loading': return { tone: 'wait', name, says: 'Opening what is kept here…' }
    case 'memory': return { tone: 'off', name, says: 'Keeps nothing, as in a private window. Your notes are safe once another reviewer or the hub has them.' }
    case 'failing': return { tone: 'off', name, says: `Cannot save: ${status.trouble ?? 'the disk refuses'}. It is tried again.` }
    case 'kept': return status.stored ? { tone: 'good', name, says: 'Everything is saved here, also for reading offline.' } : { tone: 'wait', name, says: 'Saving…' }
  }
}

export function meshLine (status: Status, gone: ReadonlySet<string>, hasWebRtc: boolean, servers: number): Line {
  const name = 'Other reviewers'
  if (servers === 0) return { tone: 'off', name, says: 'This link names no signaling server, so all goes through the hub.' }
  if (!hasWebRtc) return { tone: 'off', name, says: 'This browser has no WebRTC, so all goes through the hub.' }
  const open = status.links.filter(({ link, joined }) => joined && link.startsWith('channel'))
  const channels = open.filter(link => answers(link, gone)).length
  const isThere = status.signaling.some(({ state }) => state === 'connected')
  if (channels > 0) {
    const many = channels === 1 ? 'one reviewer' : `${channels} reviewers`
    return { tone: 'good', name, says: `Connected to ${many} without a server between.${isThere ? '' : ' Signaling is away: newcomers have to wait.'}` }
  }
  if (open.length > 0) return { tone: 'wait', name, says: 'Nobody answers at the moment. Your notes are kept, and sent when somebody does.' }
  return isThere ? { tone: 'wait', name, says: 'Nobody is reached directly yet.' } : { tone: 'wait', name, says: 'Signaling is not there at the moment. It is tried again.' }
}

/** How somebody is reached. */
export function pathWords (path: Path, roundTrip: number | undefined): string {
  const words: Record<Path, string> = { direct: 'direct', turn: 'relayed (TURN)', hub: 'through the hub', tab: 'another tab of this browser' }
  return roundTrip === undefined ? words[path] : `${words[path]}, ${roundTrip} ms`
}

function pace ({ roundTrip }: LinkState): string { return roundTrip === undefined ? '' : ` (${roundTrip} ms away)` }

/** Whether nothing leaves this browser. `gone` are the sessions that were online and are no more. */
export function isAlone (status: Status, gone: ReadonlySet<string>): boolean {
  return !status.links.some(link => link.joined && !link.link.startsWith('tab') && answers(link, gone))
}

/** A channel over a line that went dead stays open for a while, though who is at its other end is gone. */
function answers ({ session }: LinkState, gone: ReadonlySet<string>): boolean { return session === undefined || !gone.has(session) }

export function onlineWords (online: number): string { return online === 1 ? '1 reviewer online' : `${online} reviewers online` }

export function agoWords (at: number, now: number): string {
  const minutes = Math.floor((now - at) / 60_000)
  if (minutes < 1) return 'just now'
  if (minutes < 60) return `${minutes} min ago`
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)} h ago`
  return new Date(Math.min(at, 8.64e15)).toLocaleDateString()
}

/** A colour that is everybody's for the same person: one of twelve that can be told apart, on light and on dark. */
export function hueOf (user: string): number {
  let hash = 7
  for (const character of user) hash = (hash * 31 + (character.codePointAt(0) ?? 0)) >>> 0
  return (hash % 12) * 30 + 10
}

/** One or two letters for a name. */
export function initials (name: string): string {
  const words = name.trim().split(/\s+/).filter(word => word !== '')
  const letters = words.slice(0, 2).map(word => [...word][0] ?? '').join('')
  return letters === '' ? '?' : letters.toUpperCase()
}
